"""Tables in different bases: how well two agree, and the rotation that makes them agree best."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_BLOCK = 1 << 14


def cross_product(a: Array, b: Array, rows_a: Array, rows_b: Array) -> tuple[NDArray[np.float64], float]:
    r"""Return :math:`B^T A` over paired rows, (dim, dim), and :math:`\|A\|_F \|B\|_F`; blocks of rows are read."""
    product = np.zeros((b.shape[1], a.shape[1]))
    squares = np.zeros(2)
    for part in _parts(len(rows_a)):
        x, y = a[rows_a[part]].astype(np.float64), b[rows_b[part]].astype(np.float64)
        product += y.T @ x
        squares += (float((x**2).sum()), float((y**2).sum()))
    return product, float(np.sqrt(squares.prod()))


def agreement(a: Array, b: Array, rows_a: Array, rows_b: Array) -> tuple[float, float]:
    r"""Return the cosine of two tables as they are, and that after the best rotation, both in [-1, 1].

    The second is :math:`\|B^T A\|_* / (\|A\|_F \|B\|_F)`, the sum of singular values.
    """
    product, lengths = cross_product(a, b, rows_a, rows_b)
    if not lengths:
        return 1.0, 1.0
    return float(np.trace(product)) / lengths, float(np.linalg.svd(product, compute_uv=False).sum()) / lengths


def procrustes(a: Array, b: Array, rows_a: Array, rows_b: Array) -> NDArray[np.float64]:
    r"""Return the orthogonal R that minimises :math:`\|B R - A\|_F` over paired rows, (dim, dim).

    References
    ----------
    Schönemann (1966), "A generalized solution of the orthogonal Procrustes problem": with the singular value
    decomposition :math:`B^T A = U S V^T`, :math:`R = U V^T`.
    """
    u, _, vt = np.linalg.svd(cross_product(a, b, rows_a, rows_b)[0])
    found: NDArray[np.float64] = u @ vt
    return found


def rotated(table: Array, rotation: NDArray[np.float64]) -> Array:
    """Return table times rotation, in the table's type."""
    out = np.empty(table.shape, dtype=table.dtype)
    for part in _parts(len(table)):
        out[part] = table[part].astype(np.float64) @ rotation
    return out


def _parts(n: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, n, _BLOCK))
