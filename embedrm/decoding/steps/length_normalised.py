"""A product that does not shrink with the number of steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding.steps import AGGREGATIONS
from embedrm.decoding.steps.base import Aggregation


@AGGREGATIONS.register("length-normalised")
class LengthNormalised(Aggregation):
    """Geometric mean of the steps' probabilities: their product to the power of one over the number of steps."""

    needs_probabilities = True

    def of(self, rewards: NDArray[np.float64]) -> float:
        """Return the geometric mean; 0 where a step has 0."""
        return float(np.exp(np.log(rewards).mean()) if rewards.min() > 0.0 else 0.0)
