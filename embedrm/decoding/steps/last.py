"""A chain is as good as where it ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding.steps import AGGREGATIONS
from embedrm.decoding.steps.base import Aggregation


@AGGREGATIONS.register("last")
class Last(Aggregation):
    """Reward of the last step, as of an outcome reward model."""

    def of(self, rewards: NDArray[np.float64]) -> float:
        """Return the last reward."""
        return float(rewards[-1])
