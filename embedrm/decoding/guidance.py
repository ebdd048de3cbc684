"""From rewards of single attributes to the one number that is added to a token's logit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError, unknown_name

UNBOUNDED = frozenset({"bradley-terry"})
"""Objectives and losses whose rewards are on no fixed scale, so that clamping them to [0, 1] would flatten them."""


@dataclass(frozen=True)
class RewardMix:
    r"""Weighted sum of a head's attributes: :math:`\rho = \sum_a w_a f(r_a)`.

    f clamps to [0, 1] where ``clamp`` says so, and then takes :math:`1 - r` where ``inverse`` does (steering away).

    Parameters
    ----------
    columns : tuple of int
        Attributes, as columns of the head's rewards.
    weights : tuple of float
        One for each.
    clamp, inverse : bool

    References
    ----------
    Deng and Raffel (2023), "Reward-augmented decoding", whose code clamps and inverts in this order.
    """

    columns: tuple[int, ...]
    weights: tuple[float, ...]
    clamp: bool
    inverse: bool

    @classmethod
    def of(
        cls,
        head: Any,
        *,
        attribute: int | str = 0,
        weights: Mapping[str, float] | None = None,
        clamp: bool | None = None,
        inverse: bool = False,
    ) -> RewardMix:
        """Read the choice of attributes against a fitted head.

        Parameters
        ----------
        head : RADHead or ARMHead
        attribute : int or str
            The only attribute, by its column or its name; not read where there are ``weights``.
        weights : mapping of attribute to float, optional
            Several attributes; a negative weight steers away from one of them.
        clamp : bool, optional
            By default True, except for a head trained by Bradley-Terry, whose rewards have no bounds.
        inverse : bool

        Raises
        ------
        InvalidInputError
            For an unknown attribute, and for weights that are not finite, or none.
        """
        names = [str(name) for name in head.attributes_]
        if weights is None:
            chosen = {_column(attribute, names): 1.0}
        else:
            if not weights or not np.isfinite(list(weights.values())).all():
                raise InvalidInputError(
                    f"weights expects a finite number for at least one attribute of {', '.join(names)}; "
                    f"got {len(weights)} of which not all are finite"
                )
            chosen = {_column(name, names): float(weight) for name, weight in weights.items()}
        if clamp is None:
            clamp = not ({getattr(head, "objective", None), getattr(head, "loss", None)} & UNBOUNDED)
        return cls(tuple(chosen), tuple(chosen.values()), bool(clamp), bool(inverse))

    def __call__(self, rewards: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Mix rewards.

        Parameters
        ----------
        rewards : ndarray of shape (..., n_attributes)

        Returns
        -------
        ndarray of shape (...)
        """
        parts = []
        for column, weight in zip(self.columns, self.weights):
            part = rewards[..., column]
            if self.clamp:
                part = np.clip(part, 0.0, 1.0)
            if self.inverse:
                part = 1.0 - part
            parts.append(part if weight == 1.0 else part * np.asarray(weight, dtype=part.dtype))
        return reduce(add, parts)


def _column(attribute: int | str, names: Sequence[str]) -> int:
    if isinstance(attribute, str):
        if attribute not in names:
            raise unknown_name("attribute", attribute, names)
        return names.index(attribute)
    if not 0 <= int(attribute) < len(names):
        raise InvalidInputError(
            f"attribute expects a column from 0 to {len(names) - 1} or a name ({', '.join(names)}); got {attribute!r}"
        )
    return int(attribute)
