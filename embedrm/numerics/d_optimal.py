"""D-optimal designs: the rows that raise the determinant of an information matrix most, chosen one after another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def greedy_d_optimal(
    x: Array, weight: Array, n: int, *, ridge: float, past: Array | None = None
) -> tuple[NDArray[np.intp], Array]:
    r"""Choose rows one after another, each the one that raises log det of the information most.

    With :math:`A_0 = ridge \cdot I + past`, the next row maximises

    .. math:: \log\det(A + w_i x_i x_i^T) - \log\det A = \log(1 + w_i x_i^T A^{-1} x_i)

    and is added to A. The set function is submodular, so the whole choice is within 1 - 1/e of the best gain.

    Parameters
    ----------
    x : ndarray of shape (n_rows, dim)
        Features; of pairs, their differences.
    weight : ndarray of shape (n_rows,)
        Information of a row along its features, not negative; p (1 - p) in a Bradley-Terry model.
    n : int
        Rows to choose, at most n_rows; none is chosen twice, and of equal gains the first row is taken.
    ridge : float
        Above zero.
    past : ndarray of shape (dim, dim), optional
        Information that is there already.

    Returns
    -------
    chosen : ndarray of shape (n,), int
        In the order of their choice.
    gains : ndarray of shape (n,)
        Rise of log det by each; they do not increase.

    Notes
    -----
    A row costs one product with ``x``: with v = A^-1 x_s and c = w_s / (1 + w_s x_s^T v), the inverse loses c v v^T and
    every quadratic form x_i^T A^-1 x_i loses c (x_i^T v)^2 (Sherman and Morrison).
    """
    dim = x.shape[1]
    a = ridge * np.eye(dim)
    if past is not None:
        a += past
    inverse = np.linalg.inv(a)
    inverse = (inverse + inverse.T) / 2
    form = np.einsum("ij,ij->i", x @ inverse, x)
    left = np.ones(len(x), dtype=bool)
    chosen, gains = np.empty(n, dtype=np.intp), np.empty(n)
    for step in range(n):
        s = int(np.argmax(np.where(left, weight * form, -np.inf)))
        information = float(weight[s]) * max(float(form[s]), 0.0)
        chosen[step], gains[step], left[s] = s, np.log1p(information), False
        v = inverse @ x[s]
        share = float(weight[s]) / (1.0 + information)
        inverse -= share * np.outer(v, v)
        # rounding must not make a form negative
        form = np.maximum(form - share * (x @ v) ** 2, 0.0)
    return chosen, gains
