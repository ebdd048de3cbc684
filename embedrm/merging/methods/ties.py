"""TIES: trim, elect a sign, merge what agrees with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from embedrm.errors import InvalidInputError
from embedrm.merging.methods import MERGE_METHODS
from embedrm.merging.methods.base import Array, MergeMethod, Weights, check_arrays, check_share, check_weights


def ties(
    deltas: Sequence[ArrayLike],
    weights: ArrayLike | None = None,
    *,
    density: float = 0.2,
    normalize: bool = True,
    lambda_: float = 1.0,
) -> Array:
    r"""Mean of the trimmed deltas that have the elected sign.

    With :math:`\tau_i` the delta i of which the share ``density`` of largest magnitude is kept and the rest is zero, and
    the elected sign :math:`\gamma = \mathrm{sgn} \sum_i w_i \tau_i` of each entry,

    .. math:: \lambda \Bigl(\sum_{i \in A} w_i \tau_i\Bigr) \Big/ \Bigl(\sum_{i \in A} w_i\Bigr),
              \qquad A = \{i : \mathrm{sgn}\,\tau_i = \gamma\} .

    Parameters
    ----------
    deltas : sequence of array-like, of one shape
    weights : array-like of shape (n,), optional
        Not negative; equal weights that sum to one where absent.
    density : float in (0, 1]
        Share of each delta's entries that is kept, in each tensor; the paper keeps 20 %.
    normalize : bool
        Divide by the weights of those that agree; False leaves the sum.
    lambda_ : float
        What multiplies the result.

    Notes
    -----
    An entry that is zero in a delta has no sign: it neither votes nor divides. Where votes cancel exactly, the entry is 0.
    The paper trims over all parameters of a model together; here, as is common for large models, within each tensor.

    References
    ----------
    Yadav et al. (2023), "TIES-Merging: Resolving interference when merging models", section 4.
    """
    arrays = check_arrays(deltas, "ties")
    w = check_weights(weights, len(arrays), "ties")
    kept = [trim(array, check_share(density, "density", "ties")) for array in arrays]
    return lambda_ * elected(kept, w, normalize, "ties")


def trim(delta: Array, density: float) -> Array:
    """Keep the share of entries of largest magnitude, rounded to a whole number and at least one; the rest is zero."""
    n_kept = max(1, round(density * delta.size))
    if n_kept >= delta.size:
        return delta
    flat = delta.reshape(-1)
    rows = np.argpartition(np.abs(flat), delta.size - n_kept)[delta.size - n_kept :]
    out = np.zeros_like(flat)
    out[rows] = flat[rows]
    return out.reshape(delta.shape)


def elected(deltas: Sequence[Array], weights: Weights, normalize: bool, who: str) -> Array:
    """Sum, or mean, of those entries that have the sign of the weighted sum."""
    if (weights < 0).any():
        raise InvalidInputError(
            f"{who} needs weights that are not negative, since signs are elected by them; use task_arithmetic"
        )
    votes = np.zeros(deltas[0].shape)
    for delta, weight in zip(deltas, weights):
        votes += weight * delta.astype(np.float64)
    sign = np.sign(votes)
    total, share = np.zeros(votes.shape), np.zeros(votes.shape)
    for delta, weight in zip(deltas, weights):
        agrees = (np.sign(delta) == sign) & (sign != 0)
        total += np.where(agrees, weight * delta.astype(np.float64), 0.0)
        share += weight * agrees
    return np.divide(total, share, out=np.zeros_like(total), where=share > 0) if normalize else total


@MERGE_METHODS.register("ties")
class Ties(MergeMethod):
    """Mean of the trimmed deltas that have the elected sign."""

    merge = staticmethod(ties)
    on = "deltas"
    citation = "Yadav et al. (2023), TIES-Merging, section 4"
