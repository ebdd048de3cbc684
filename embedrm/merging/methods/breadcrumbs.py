"""Model breadcrumbs: leave out the largest and the smallest entries of each delta."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from embedrm.errors import InvalidInputError
from embedrm.merging.methods import MERGE_METHODS
from embedrm.merging.methods.base import Array, MergeMethod, check_arrays, check_share, check_weights, merged_sum


def breadcrumbs(
    deltas: Sequence[ArrayLike],
    weights: ArrayLike | None = None,
    *,
    density: float,
    gamma: float = 0.01,
    normalize: bool = False,
    lambda_: float = 1.0,
) -> Array:
    r"""Sum :math:`\lambda \sum_i w_i\, m_i \circ \delta_i`, where :math:`m_i` leaves out both tails of the magnitudes.

    Parameters
    ----------
    deltas : sequence of array-like, of one shape
    weights : array-like of shape (n,), optional
        Equal weights that sum to one where absent.
    density : float in (0, 1]
        Share of entries that is kept, in each tensor; with ``gamma`` at most 1.
    gamma : float in [0, 1]
        Share of the entries of largest magnitude that is left out (outliers). The smallest 1 - density - gamma are left out
        too. Shares are rounded to whole entries.
    normalize : bool
        Divide by the sum of the weights.
    lambda_ : float
        What multiplies the sum.

    References
    ----------
    Davari and Belilovsky (2024), "Model breadcrumbs: Scaling multi-task model merging with sparse masks", section 3.
    """
    arrays = check_arrays(deltas, "breadcrumbs")
    w = check_weights(weights, len(arrays), "breadcrumbs")
    density = check_share(density, "density", "breadcrumbs")
    gamma = check_share(gamma, "gamma", "breadcrumbs", zero=True)
    if density + gamma > 1 + 1e-12:
        raise InvalidInputError(
            f"breadcrumbs keeps a share of {density!r} and leaves out the largest {gamma!r}, together more than all; lower "
            "one of them"
        )
    kept = [_middle(array, density, gamma) for array in arrays]
    return lambda_ * merged_sum(kept, w, normalize, "breadcrumbs")


def _middle(delta: Array, density: float, gamma: float) -> Array:
    flat = delta.reshape(-1)
    n_top = round(gamma * flat.size)
    n_kept = min(round(density * flat.size), flat.size - n_top)
    # of equal magnitudes, the earlier entry counts as the smaller
    order = np.argsort(np.abs(flat), kind="stable")
    rows = order[flat.size - n_top - n_kept : flat.size - n_top]
    out = np.zeros_like(flat)
    out[rows] = flat[rows]
    return out.reshape(delta.shape)


@MERGE_METHODS.register("breadcrumbs")
class Breadcrumbs(MergeMethod):
    """Sum of deltas without their largest and smallest entries."""

    merge = staticmethod(breadcrumbs)
    on = "deltas"
    citation = "Davari and Belilovsky (2024), Model breadcrumbs, section 3"
