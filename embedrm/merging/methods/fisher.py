"""Fisher-weighted merging: each entry counts by what its model's data say of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from embedrm.errors import InvalidInputError
from embedrm.merging.methods import MERGE_METHODS
from embedrm.merging.methods.base import Array, MergeMethod, check_arrays, check_sum, check_weights


def fisher(
    tensors: Sequence[ArrayLike],
    weights: ArrayLike | None = None,
    *,
    floor: float = 1e-6,
    moments: Sequence[ArrayLike],
) -> Array:
    r"""Mean weighted by diagonal Fisher informations, :math:`\sum_i w_i F_i \theta_i / \sum_i w_i F_i`, entry by entry.

    Parameters
    ----------
    tensors : sequence of array-like, of one shape
    weights : array-like of shape (n,), optional
        Not negative; equal where absent.
    floor : float
        Information that every entry has at least, in absolute units: where no data say anything of an entry, it is the
        weighted mean. Above 0.
    moments : sequence of array-like, of the shape of the tensors
        F, one for each model, not negative.

    References
    ----------
    Matena and Raffel (2022), "Merging models with Fisher-weighted averaging", section 3.
    """
    arrays = check_arrays(tensors, "fisher")
    w = check_weights(weights, len(arrays), "fisher")
    if (w < 0).any():
        raise InvalidInputError("fisher needs weights that are not negative; use linear")
    check_sum(w, "fisher")
    is_number = isinstance(floor, (int, float, np.integer, np.floating)) and not isinstance(floor, bool)
    if not (is_number and np.isfinite(floor) and floor > 0):
        raise InvalidInputError(f"fisher needs floor > 0, got {floor!r}")
    known = check_arrays(moments, "fisher (moments)")
    if len(known) != len(arrays) or known[0].shape != arrays[0].shape:
        raise InvalidInputError(
            f"fisher needs moments for each of {len(arrays)} tensors of shape {arrays[0].shape}, got {len(known)} of shape "
            f"{known[0].shape}"
        )
    if not all(np.isfinite(f).all() and (f >= 0).all() for f in known):
        raise InvalidInputError("fisher needs moments that are finite and not negative: means of squared slopes")
    m = int(np.argmax(w))
    reference = arrays[m].astype(np.float64)
    total, out = np.zeros(reference.shape), np.zeros(reference.shape)
    for array, f, weight in zip(arrays, known, w):
        share = weight * np.maximum(f.astype(np.float64), floor)
        total += share
        # relative to one model, so that copies of it give it back to the bit
        out += share * (array - reference)
    return reference + out / total


@MERGE_METHODS.register("fisher")
class Fisher(MergeMethod):
    """Mean weighted by diagonal Fisher informations."""

    merge = staticmethod(fisher)
    citation = "Matena and Raffel (2022), Merging models with Fisher-weighted averaging, section 3"
    elementwise = True
    moments = True
