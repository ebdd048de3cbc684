"""Pairs that tell most about the weights of the last layer: D-optimal design on its Fisher information."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from embedrm.active import STRATEGIES
from embedrm.active._last_layer import last_layer
from embedrm.active.base import Strategy
from embedrm.errors import InvalidInputError
from embedrm.numerics.d_optimal import greedy_d_optimal
from embedrm.preferences import EmbeddedPreferences, Rows
from embedrm.reward_model import RewardModel


@STRATEGIES.register("d-optimal")
@dataclass(frozen=True)
class DOptimal(Strategy):
    r"""The batch that raises the determinant of the last layer's Fisher information most, chosen greedily.

    With :math:`\phi` the last layer of the model (a linear head's features), :math:`z = \phi(y_1) - \phi(y_2)` and
    :math:`p = \sigma(\text{margin})`, a label of the pair carries the information :math:`p (1 - p) z z^T` about the last
    layer's weights. It is large where the two responses differ much in ways that are not measured yet, and where the model
    does not already know the answer.

    Parameters
    ----------
    past : bool, default True
        Count the information of the pairs that are labelled already, so that what is known is not asked again.
    informed : bool, default True
        Weigh by p (1 - p). False gives every pair the weight 1/4: a classical design in the features alone.
    ridge : float, default 1e-3
        Prior precision of the weights, above zero, as a multiple of the mean information of a candidate along a feature; the
        choice is the same whatever unit the features have.
    consider : int, default 20000
        Candidates that are looked at: a random draw of these where there are more. A choice costs one product of their
        features (consider, width) with a vector for each pair that is chosen.

    Notes
    -----
    The last layer moves with every fit, so information of earlier rounds is measured anew each time. Feature learning is
    ignored: for a perceptron the design is that of a linear model on its present features.

    References
    ----------
    Shen, Sun and Ton (2025), "Active reward modeling: adaptive preference labeling for large language model alignment",
    whose D-optimal and past-aware D-optimal designs on the last layer these are. An analogue: the features are those of this
    toolkit's heads.
    """

    past: bool = True
    informed: bool = True
    ridge: float = 1e-3
    consider: int = 20_000

    def __post_init__(self) -> None:
        for name in ("past", "informed"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidInputError(f"d-optimal: {name} must be true or false, got {getattr(self, name)!r:.40}")
        number = isinstance(self.ridge, (int, float)) and not isinstance(self.ridge, bool)
        if not number or not np.isfinite(self.ridge) or self.ridge <= 0:
            raise InvalidInputError(f"d-optimal: ridge must be a finite number above 0, got {self.ridge!r}")
        if isinstance(self.consider, bool) or not isinstance(self.consider, int) or self.consider < 1:
            raise InvalidInputError(f"d-optimal: consider must be a whole number from 1, got {self.consider!r}")

    def choose(
        self,
        candidates: EmbeddedPreferences,
        n: int,
        model: RewardModel,
        labelled: EmbeddedPreferences,
        rng: np.random.Generator,
    ) -> Rows:
        """Return the pairs in the order of their greedy choice."""
        if self.informed and not model.margins_are_logits:
            raise InvalidInputError(
                f"d-optimal weighs pairs by sigma(margin), which is no probability for this {type(model).__name__}; use "
                "CalibratedRewardModel around it, or informed=False"
            )
        size = max(self.consider, n)
        rows = rng.permutation(len(candidates))[:size] if len(candidates) > size else np.arange(len(candidates))
        z, weight = self._information(model, candidates[rows])
        spread = float((weight * (z**2).sum(axis=1)).mean()) / z.shape[1]
        if not spread > 0:
            # no candidate differs in any feature: all are worth the same
            drawn: Rows = rows[rng.permutation(len(rows))[:n]]
            return drawn
        known = None
        if self.past:
            seen, seen_weight = self._information(model, labelled)
            known = (seen * seen_weight[:, None]).T @ seen
        chosen, _ = greedy_d_optimal(z, weight, n, ridge=self.ridge * spread, past=known)
        return rows[chosen]

    def _information(
        self, model: RewardModel, pairs: EmbeddedPreferences
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Differences of the last layer (n_pairs, width), and the weight of each."""
        values = last_layer(model, pairs.responses, pairs.active)
        z = values[pairs.local_pairs[:, 0]] - values[pairs.local_pairs[:, 1]]
        if not self.informed:
            return z, np.full(len(z), 0.25)
        p = expit(model.margins(pairs))
        return z, p * (1 - p)
