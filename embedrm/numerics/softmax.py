r"""Softmax regression for several penalties, in coordinates that whiten the vectors.

Minimises :math:`\sum_i \pi_i\,(-\log p_{y_i}(z_i)) + \tfrac12\lambda\lVert W\rVert^2`, :math:`p(z) = \mathrm{softmax}(W z +
b)`, by the method of :mod:`embedrm.numerics.solver_many`. Embeddings have a few long directions and many short ones: without
the change of coordinates a weak penalty takes ten times as many passes over the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.numerics.solver_many import Coordinates, minimise_many

Array = NDArray[np.float64]

# Rows sampled for the metric, a column, and the width up to which it keeps every direction: it shapes the path to the
# optimum, not the optimum.
_ROWS_PER_COLUMN, _LEAST_ROWS, _FULL_DIM = 4, 2048, 1024
_BLOCK_ROWS = 1024
# Least curvature of a class, as a share of the rows: one that is told apart with certainty has none.
_LEAST_CURVATURE = 1e-3


def softmax_path(
    z: NDArray[Any],
    codes: NDArray[np.intp],
    weight: Array,
    n_classes: int,
    grid: Sequence[float],
    *,
    tol: float,
    max_iter: int,
    who: str,
) -> list[tuple[Array, Array]]:
    """Return weights (n_classes, dim) and intercepts (n_classes,), of mean zero, for each penalty of ``grid``.

    Each begins where the next stronger one ended.

    Parameters
    ----------
    z : ndarray of shape (n, dim), float32 or float64
        Standardised vectors; passes over them are in their precision, all else is in float64.
    codes : ndarray of shape (n,), int
        Class of each row; every class below ``n_classes`` has one.
    weight : ndarray of shape (n,)
        Weights, not all zero; they are made to sum to one.
    grid : sequence of float
        Penalties, above zero.
    tol, max_iter, who
        See :func:`embedrm.numerics.solver_many.minimise_many`.
    """
    dim = z.shape[1]
    loss = _CrossEntropy(codes, weight / weight.sum(), n_classes)
    metric = _Metric.of(z)

    def forward(theta: Array) -> Array:
        w = theta.reshape(dim + 1, n_classes)
        narrow = w[:dim].astype(z.dtype)
        logits = np.empty((len(z), n_classes))
        # a product with few columns is faster in pieces than whole
        for start in range(0, len(z), _BLOCK_ROWS):
            part = slice(start, start + _BLOCK_ROWS)
            np.add(z[part] @ narrow, w[dim], out=logits[part])
        return logits.reshape(-1, *theta.shape[1:])

    def adjoint(g: Array) -> Array:
        slope = g.reshape(-1, n_classes)
        out = np.concatenate([(slope.astype(z.dtype).T @ z).T, slope.sum(axis=0)[None]])
        return out.astype(np.float64).reshape(-1, 1)

    theta = np.zeros(((dim + 1) * n_classes, 1))
    solved: dict[float, tuple[Array, Array]] = {}
    for l2 in sorted(set(grid), reverse=True):
        penalty = np.repeat(np.append(np.full(dim, l2), 0.0), n_classes)[:, None]
        curvature = loss.curvature(forward(theta[:, 0]))
        theta = minimise_many(
            forward,
            adjoint,
            loss,
            penalty,
            theta,
            metric.coordinates(curvature, l2),
            tol=tol,
            max_iter=max_iter,
            rounding=float(np.finfo(z.dtype).eps),
            who=who,
        ).x
        w = theta.reshape(dim + 1, n_classes)
        solved[l2] = np.ascontiguousarray(w[:dim].T), w[dim] - w[dim].mean()
    return [solved[l2] for l2 in grid]


@dataclass(frozen=True)
class _At:
    """The loss at some logits: its value (1,), its slope (n * n_classes, 1), and the probabilities (n, n_classes)."""

    value: Array
    slope: Array
    state: Array


class _CrossEntropy:
    """Weighted cross-entropy of rows of logits that are laid end to end."""

    def __init__(self, codes: NDArray[np.intp], weight: Array, n_classes: int) -> None:
        self.codes, self.weight, self.n_classes = codes, weight, n_classes
        self.rows = np.arange(len(codes))
        self.n_responses = len(codes) * n_classes

    def evaluate(self, logits: Array) -> _At:
        lowered, p, total = _softmax(logits.reshape(-1, self.n_classes))
        value = float(self.weight @ (np.log(total) - lowered[self.rows, self.codes]))
        slope = p * self.weight[:, None]
        slope[self.rows, self.codes] -= self.weight
        return _At(np.array([value]), slope.reshape(-1, 1), p)

    def second_derivative(self, at: _At, direction: Array) -> Array:
        d = direction.reshape(-1, self.n_classes)
        pd = at.state * d
        return np.array([float(self.weight @ (np.einsum("ij,ij->i", pd, d) - pd.sum(axis=1) ** 2))])

    def curvature(self, logits: Array) -> Array:
        """Mean second derivative in each class's logit; (n_classes,)."""
        p = _softmax(logits.reshape(-1, self.n_classes))[1]
        found: Array = self.weight @ (p * (1.0 - p))
        return np.maximum(found, _LEAST_CURVATURE / self.n_classes)


def _softmax(logits: Array) -> tuple[Array, Array, Array]:
    """Logits less the largest of their row, probabilities, and the sum (n,) that made them."""
    lowered = logits - logits.max(axis=1, keepdims=True)
    p = np.exp(lowered)
    total = p.sum(axis=1)
    p /= total[:, None]
    return lowered, p, total


@dataclass(frozen=True)
class _Metric:
    """Second moments of rows: directions (dim, rank), their moments (rank,), and one number for all others."""

    directions: Array
    moments: Array
    rest: float

    @classmethod
    def of(cls, z: NDArray[Any]) -> _Metric:
        n, dim = z.shape
        wanted = min(n, max(_LEAST_ROWS, _ROWS_PER_COLUMN * min(dim, _FULL_DIM)))
        sample = z[np.unique(np.linspace(0, n - 1, wanted).astype(np.intp))]
        if dim <= _FULL_DIM:
            moments, directions = np.linalg.eigh((sample.T @ sample).astype(np.float64) / len(sample))
            return cls(directions, np.maximum(moments, 0.0), 0.0)
        some = sample[:: max(1, len(sample) // _FULL_DIM)][:_FULL_DIM].astype(np.float64)
        moments, turn = np.linalg.eigh(some @ some.T / len(some))
        kept = moments > 1e-9 * max(float(moments[-1]), 1e-300)
        directions = (some.T @ turn[:, kept]) / np.sqrt(len(some) * moments[kept])
        trace = float(np.einsum("ij,ij->", sample, sample, dtype=np.float64)) / len(sample)
        spare = max(0.0, trace - float(moments[kept].sum()))
        return cls(directions, moments[kept], spare / max(1, dim - int(kept.sum())))

    def coordinates(self, curvature: Array, l2: float) -> Coordinates:
        """Coordinates for weights (dim + 1, n_classes) whose last row is not penalised; a symmetric change."""
        inside = 1.0 / np.sqrt(curvature * self.moments[:, None] + l2)
        other = 1.0 / np.sqrt(curvature * self.rest + l2)
        level = 1.0 / np.sqrt(curvature)

        def change(x: Array) -> Array:
            w = x.reshape(-1, len(curvature))
            turned = self.directions.T @ w[:-1]
            out = np.empty_like(w)
            out[:-1] = self.directions @ ((inside - other) * turned) + other * w[:-1]
            out[-1] = level * w[-1]
            return out.reshape(-1, 1)

        return Coordinates(change, change)
