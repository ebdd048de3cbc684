"""The rewards of all steps together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding.steps import AGGREGATIONS
from embedrm.decoding.steps.base import Aggregation


@AGGREGATIONS.register("sum")
class Total(Aggregation):
    """Sum of the steps' rewards; longer solutions have more to add."""

    def of(self, rewards: NDArray[np.float64]) -> float:
        """Return the sum."""
        return float(rewards.sum())
