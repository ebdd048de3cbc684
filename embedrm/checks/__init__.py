"""Laws that every reward model obeys, as checks to run on your own head or composite.

>>> from embedrm import LinearHead
>>> from embedrm.checks import yield_checks
>>> for check in yield_checks(LinearHead()):
...     check()

In a test module, let every check be a test::

    @pytest.mark.parametrize("check", list(yield_checks(MyHead())), ids=str)
    def test_my_head(check):
        check()

The checks need no data: they make small synthetic preferences (:func:`example_preferences`) with a known reward.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from embedrm.checks import contract, interop, invariance, learning  # noqa: F401  (importing them registers their laws)
from embedrm.checks.base import LAWS, Check, Law, LawBroken
from embedrm.checks.data import example_preferences
from embedrm.errors import unknown_name
from embedrm.reward_model import RewardModel

__all__ = ["LAWS", "Check", "Law", "LawBroken", "example_preferences", "yield_checks"]


def yield_checks(model: RewardModel, tolerances: Mapping[str, float] | None = None) -> Iterator[Check]:
    """Yield one check for each law; calling a check raises :class:`LawBroken` where the model does not obey the law.

    Parameters
    ----------
    model : RewardModel
        Unfitted; each check works on a clone.
    tolerances : mapping of law name to float, optional
        Replace a law's tolerance, in standard deviations of the expected values; 0 asks for equality to the bit.

    Raises
    ------
    InvalidInputError
        If ``tolerances`` names no law.
    """
    given = dict(tolerances or {})
    for name in given:
        if name not in LAWS:
            raise unknown_name("law", name, LAWS)
    for law in LAWS.values():
        yield Check(model, law, given.get(law.name, law.tolerance))
