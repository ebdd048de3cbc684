"""Pairs as edges over unique responses: gather rewards into margins, scatter pair gradients back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def gather_margins(rewards: NDArray[np.float64], pairs: NDArray[np.integer]) -> NDArray[np.float64]:
    """Margins ``rewards[chosen] - rewards[rejected]``, shape (n_pairs,)."""
    return rewards[pairs[:, 0]] - rewards[pairs[:, 1]]


def scatter_to_responses(
    slope: NDArray[np.float64], pairs: NDArray[np.integer], n_responses: int, sign: float = -1.0
) -> NDArray[np.float64]:
    """Sum pair slopes onto responses: ``+slope`` at the chosen row, ``sign * slope`` at the rejected row.

    ``sign=-1`` is the adjoint of :func:`gather_margins`; ``sign=+1`` that of ``rewards[chosen] + rewards[rejected]``.
    Returns shape (n_responses,), float64.
    """
    total: NDArray[np.float64] = np.bincount(pairs[:, 0], weights=slope, minlength=n_responses).astype(np.float64)
    total += sign * np.bincount(pairs[:, 1], weights=slope, minlength=n_responses)
    return total
