"""A chain is as good as its best step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding.steps import AGGREGATIONS
from embedrm.decoding.steps.base import Aggregation


@AGGREGATIONS.register("max")
class Maximum(Aggregation):
    """Reward of the best step."""

    def of(self, rewards: NDArray[np.float64]) -> float:
        """Return the largest reward."""
        return float(rewards.max())
