"""The contract of a rule that makes one reward of the rewards of steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.decoding.steps import AGGREGATIONS
from embedrm.errors import InvalidInputError


class Aggregation:
    """A rule: rewards of the steps of one solution, in their order, to one reward.

    Attributes
    ----------
    needs_probabilities : bool
        Whether the steps' rewards must lie in [0, 1], as a product's do.
    """

    registered_name: str
    needs_probabilities = False

    def of(self, rewards: NDArray[np.float64]) -> float:
        """Return the reward of one solution; ``rewards`` has shape (n_steps,), n_steps of at least 1, all finite."""
        raise TypeError(f"{type(self).__name__} does not implement of")


def aggregate(rewards: ArrayLike, rule: str | Aggregation = "min") -> float:
    """Return one reward for the steps of a solution.

    Parameters
    ----------
    rewards : array-like of shape (n_steps,)
        In the order of the steps.
    rule : str or Aggregation
        A name of ``AGGREGATIONS``: ``last``, ``length-normalised``, ``max``, ``mean``, ``min``, ``product``, ``sum``; or
        an object of your own. Sums and products grow or shrink with the number of steps, so that they compare solutions of
        one length; the others do not.

    Returns
    -------
    float

    Raises
    ------
    InvalidInputError
        For an unknown rule, no step, rewards that are not finite, and rewards outside [0, 1] where the rule multiplies.

    References
    ----------
    Lightman et al. (2023), "Let's verify step by step", take the product; "Let's reinforce step by step" (2023) finds that
    the choice decides whether rewards of steps help.

    Examples
    --------
    >>> aggregate([0.9, 0.5, 0.8], "min")
    0.5
    """
    chosen: Any = AGGREGATIONS.get(rule)() if isinstance(rule, str) else rule
    steps = np.asarray(rewards, dtype=np.float64)
    if steps.ndim != 1 or not len(steps):
        raise InvalidInputError(
            f"aggregate expects the rewards of at least one step, shape (n_steps,), got {steps.shape}"
        )
    if not np.isfinite(steps).all():
        raise InvalidInputError(
            f"aggregate expects finite rewards; {int((~np.isfinite(steps)).sum())} of {len(steps)} are not"
        )
    if chosen.needs_probabilities and (steps.min() < 0.0 or steps.max() > 1.0):
        raise InvalidInputError(
            f"the rule {getattr(chosen, 'registered_name', type(chosen).__name__)!r} multiplies, and so expects rewards in "
            f"[0, 1], such as a calibrated model's probabilities; got {steps.min():.3g} to {steps.max():.3g}. Use min, mean "
            "or last"
        )
    return float(chosen.of(steps))
