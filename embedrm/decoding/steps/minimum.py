"""A chain is as good as its worst step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding.steps import AGGREGATIONS
from embedrm.decoding.steps.base import Aggregation


@AGGREGATIONS.register("min")
class Minimum(Aggregation):
    """Reward of the worst step."""

    def of(self, rewards: NDArray[np.float64]) -> float:
        """Return the smallest reward."""
        return float(rewards.min())
