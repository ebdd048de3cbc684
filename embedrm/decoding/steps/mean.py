"""A chain is as good as its steps are on the average."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding.steps import AGGREGATIONS
from embedrm.decoding.steps.base import Aggregation


@AGGREGATIONS.register("mean")
class Mean(Aggregation):
    """Mean reward of the steps."""

    def of(self, rewards: NDArray[np.float64]) -> float:
        """Return the mean."""
        return float(rewards.mean())
