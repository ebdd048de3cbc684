"""Small summaries that several reports share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def margin_statistics(margins: NDArray[np.float64]) -> dict[str, float]:
    """Mean, standard deviation, and the 5 %, 50 % and 95 % quantiles of margins."""
    low, median, high = np.quantile(margins, [0.05, 0.5, 0.95])
    return {
        "mean": float(margins.mean()),
        "std": float(margins.std()),
        "q05": float(low),
        "median": float(median),
        "q95": float(high),
    }
