"""Pairs that the model finds hardest to tell apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedrm.active import STRATEGIES
from embedrm.active.base import Strategy, first_by
from embedrm.preferences import EmbeddedPreferences, Rows
from embedrm.reward_model import RewardModel


@STRATEGIES.register("margin")
@dataclass(frozen=True)
class SmallestMargin(Strategy):
    """The pairs with the smallest absolute margin: where p is nearest to one half, and its entropy largest.

    Notes
    -----
    What no model could tell (two responses that are equally good) is chosen as eagerly as what this one has yet to learn,
    and a batch may be many copies of one question. Both are told apart by ``"uncertainty"`` and ``"d-optimal"``.
    """

    def choose(
        self,
        candidates: EmbeddedPreferences,
        n: int,
        model: RewardModel,
        labelled: EmbeddedPreferences,
        rng: np.random.Generator,
    ) -> Rows:
        """Return the pairs by their absolute margin, ascending."""
        return first_by(np.abs(model.margins(candidates)), n, rng)
