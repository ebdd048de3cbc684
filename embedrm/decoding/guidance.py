"""From rewards of single attributes to the one number that is added to a token's logit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError


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
            The only attribute, by its position or its name; not read where there are ``weights``.
        weights : mapping of attribute to float, optional
            Several attributes instead; a negative weight steers away from one of them.
        clamp : bool, optional
            By default as the head was taught: not where its rewards have no bounds (``bounded_``).
        inverse : bool

        Raises
        ------
        InvalidInputError
            For an unknown attribute, weights that are not finite, or none, and a clamp of increments.
        """
        if weights is None:
            chosen = {head.attribute(attribute): 1.0}
        else:
            given = list(weights.values()) if isinstance(weights, Mapping) else []
            if not given or not all(isinstance(w, (int, float, np.number)) and np.isfinite(w) for w in given):
                raise InvalidInputError(
                    f"weights expects a finite number for each of at least one attribute ({', '.join(head.attributes_)}); "
                    f"got {len(given)} weights"
                )
            chosen = {head.attribute(name): float(weight) for name, weight in weights.items()}
            if len(chosen) < len(given):
                raise InvalidInputError(
                    "weights names an attribute twice, by its name and by its position; give it once"
                )
        grows = bool(getattr(head, "increments_", False))
        if grows and clamp:
            raise InvalidInputError(
                f"{type(head).__name__} was taught increments, to which a clamp to [0, 1] does not apply; leave clamp out. "
                "The reward of the prefix, which is missing, is the same for all candidates"
            )
        clamps = bool(head.bounded_) and not grows if clamp is None else bool(clamp)
        return cls(tuple(chosen), tuple(chosen.values()), clamps, bool(inverse))

    def alone(self) -> RewardMix:
        """Return the same mix of rewards that are of the chosen attributes alone, in their order."""
        return replace(self, columns=tuple(range(len(self.columns))))

    def __call__(self, rewards: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Mix rewards.

        Parameters
        ----------
        rewards : ndarray of shape (..., n_attributes)

        Returns
        -------
        ndarray of shape (...)
            Of its own: nothing that was given is changed.
        """
        parts = []
        for column, weight in zip(self.columns, self.weights):
            part = rewards[..., column]
            if self.clamp:
                # the same as clip, in a third of its time on few candidates
                part = np.minimum(np.maximum(part, 0.0), 1.0)
            if self.inverse:
                part = 1.0 - part
            parts.append(part * np.asarray(weight, dtype=part.dtype))
        return reduce(add, parts)
