"""Root mean square norms: the units in which penalties are stated, so that one penalty suits models of any scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding.base import Array, block_rows, read_rows, slices
from embedrm.errors import InvalidInputError


def root_mean_square(
    vectors: NDArray[Any], who: str, rows: NDArray[np.intp] | None = None, share: Array | None = None
) -> float:
    """Root of the mean squared norm of some rows (all where None), summed in float64; 1 where all are zero.

    The mean is by ``share``, which sums to one, where it is given: a text of weight two counts as the text twice.

    Raises
    ------
    InvalidInputError
        Where it is not finite: the one place at which a fit looks for NaN in the rows that it reads.
    """
    n = len(vectors) if rows is None else len(rows)
    total = 0.0
    for part in slices(n, block_rows(vectors.shape[1])):
        block = read_rows(vectors, part if rows is None else rows[part])
        squares = np.einsum("ij,ij->i", block, block)
        total += float(squares.sum() / n if share is None else squares @ share[part])
    if not np.isfinite(total):
        raise InvalidInputError(
            f"{who} met states that are not finite; look for NaN or infinity in the language model's states"
        )
    return float(np.sqrt(total)) if total > 0 else 1.0
