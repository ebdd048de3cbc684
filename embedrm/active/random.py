"""Pairs at random: the baseline that a strategy must beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedrm.active import STRATEGIES
from embedrm.active.base import Strategy
from embedrm.preferences import EmbeddedPreferences, Rows
from embedrm.reward_model import RewardModel


@STRATEGIES.register("random")
@dataclass(frozen=True)
class RandomPairs(Strategy):
    """Pairs drawn at random, each alike."""

    def choose(
        self,
        candidates: EmbeddedPreferences,
        n: int,
        model: RewardModel,
        labelled: EmbeddedPreferences,
        rng: np.random.Generator,
    ) -> Rows:
        """Return a draw without replacement."""
        drawn: Rows = rng.permutation(len(candidates))[:n]
        return drawn
