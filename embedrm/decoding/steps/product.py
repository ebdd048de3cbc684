"""A chain is right if all of its steps are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding.steps import AGGREGATIONS
from embedrm.decoding.steps.base import Aggregation


@AGGREGATIONS.register("product")
class Product(Aggregation):
    """Product of the steps' probabilities; longer solutions have less."""

    needs_probabilities = True

    def of(self, rewards: NDArray[np.float64]) -> float:
        """Return the product."""
        return float(rewards.prod())
