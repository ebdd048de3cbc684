r"""Softmax regression for several penalties and several weightings of the rows, in coordinates that whiten the vectors.

Minimises :math:`\sum_i \pi_i\,(-\log p_{y_i}(z_i)) + \tfrac12\lambda\lVert W\rVert^2`, :math:`p(z) = \mathrm{softmax}(W z +
b)`, by the method of :mod:`embedrm.numerics.solver_many`. Embeddings have a few long directions and many short ones: without
the change of coordinates a weak penalty takes ten times as many passes over the vectors. Folds differ by the weights of
their rows, so one pass serves them all, as one product with the weights of all their classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.numerics.solver_many import Coordinates, minimise_many

Array = NDArray[np.float64]
Each = Callable[[Callable[[slice], Any]], list[Any]]

# Rows sampled for the metric, a column, and the width up to which it keeps every direction: it shapes the path to the
# optimum, not the optimum.
_ROWS_PER_COLUMN, _LEAST_ROWS, _FULL_DIM = 4, 2048, 1024
# Rows that one thread takes at once. Sums are over these blocks in order, so that no number of threads changes a bit.
_BLOCK_ROWS = 1024
# Least curvature of a class, as a share of the rows: one that is told apart with certainty has none.
_LEAST_CURVATURE = 1e-3
# A column of standardised vectors whose spread within a fold is below this share of its mean there is constant in the fold.
_CONSTANT = 1e-3
_NEVER = -1e30


def softmax_path(
    z: NDArray[Any],
    codes: NDArray[np.intp],
    weight: Array,
    n_classes: int,
    grid: Sequence[float],
    *,
    tol: float,
    max_iter: int,
    n_threads: int = 1,
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
    n_threads : int
        Threads that share the passes; their number changes no bit.
    tol, max_iter, who
        See :func:`embedrm.numerics.solver_many.minimise_many`.
    """
    problem = _Problem(z, codes, weight[:, None], n_classes, False)
    with _each(len(z), n_threads) as each:
        found = problem.path(grid, each, np.float64, tol, max_iter, who)
    return [(w[0], b[0]) for w, b in found]


def softmax_folds(
    z: NDArray[Any],
    codes: NDArray[np.intp],
    weight: Array,
    n_classes: int,
    grid: Sequence[float],
    *,
    tol: float,
    max_iter: int,
    n_threads: int = 1,
    who: str,
) -> list[tuple[Array, Array]]:
    """As :func:`softmax_path` for several weightings at once, each on vectors that are standardised by its own weights.

    Parameters
    ----------
    z : ndarray of shape (n, dim)
        Vectors, standardised on all rows or nearly so; losses too are evaluated in their precision.
    weight : ndarray of shape (n, k)
        A weighting a column, none all zero. A class that a column has no weight for has weights of zero there.
    codes, n_classes, grid, tol, max_iter, n_threads, who
        As there.

    Returns
    -------
    list of (ndarray of shape (k, n_classes, dim), ndarray of shape (k, n_classes))
        Weights and intercepts on ``z`` as it is, for each penalty.
    """
    problem = _Problem(z, codes, weight, n_classes, True)
    with _each(len(z), n_threads) as each:
        return problem.path(grid, each, z.dtype, tol, max_iter, who)


@contextmanager
def _each(n: int, n_threads: int) -> Iterator[Each]:
    """Give the function that calls another for every block of rows, so many at once."""
    blocks = [slice(start, min(start + _BLOCK_ROWS, n)) for start in range(0, n, _BLOCK_ROWS)]
    if n_threads < 2 or len(blocks) < 2 * n_threads:
        yield lambda work: [work(block) for block in blocks]
        return
    with ThreadPoolExecutor(n_threads) as pool:

        def each(work: Callable[[slice], Any]) -> list[Any]:
            # a task for each thread: handing over blocks one by one costs more than some of them do
            shares = [
                blocks[t * len(blocks) // n_threads : (t + 1) * len(blocks) // n_threads] for t in range(n_threads)
            ]
            found = pool.map(lambda share: [work(block) for block in share], shares)
            return [result for share in found for result in share]

        yield each


class _Problem:
    """Rows, classes and k weightings; weights are kept as (dim + 1, n_classes, k), intercepts last."""

    def __init__(
        self, z: NDArray[Any], codes: NDArray[np.intp], weight: Array, n_classes: int, own_scale: bool
    ) -> None:
        self.z, self.codes, self.n_classes = z, codes, n_classes
        # (k, n)
        self.weight = np.ascontiguousarray((weight / weight.sum(axis=0)).T)
        self.k, self.dim = len(self.weight), z.shape[1]
        self.mean, self.spread = np.zeros((self.dim, self.k)), np.ones((self.dim, self.k))
        if own_scale:
            self._standardise()
        self.metric = _Metric.of(z)

    def _standardise(self) -> None:
        square = np.zeros((self.dim, self.k))
        narrow = self.weight.T.astype(self.z.dtype)
        for start in range(0, len(self.z), _BLOCK_ROWS):
            rows, part = self.z[start : start + _BLOCK_ROWS], narrow[start : start + _BLOCK_ROWS]
            self.mean += rows.T @ part
            square += (rows * rows).T @ part
        self.spread = np.sqrt(np.maximum(square - self.mean**2, 0.0))
        self.spread[self.spread <= _CONSTANT * np.abs(self.mean)] = 1.0
        self.spread[self.spread == 0] = 1.0

    def on_vectors(self, theta: Array) -> tuple[Array, Array]:
        """Weights (k, n_classes, dim) and intercepts (k, n_classes) on ``z``, of weights on standardised vectors."""
        w = theta.reshape(self.dim + 1, self.n_classes, -1)
        found = np.ascontiguousarray((w[:-1] / self.spread[:, None, : w.shape[2]]).transpose(2, 1, 0))
        return found, w[-1].T - np.einsum("kcd,dk->kc", found, self.mean[:, : w.shape[2]])

    def path(
        self, grid: Sequence[float], each: Each, dtype: Any, tol: float, max_iter: int, who: str
    ) -> list[tuple[Array, Array]]:
        z, n, n_classes, dim = self.z, len(self.z), self.n_classes, self.dim
        loss = _CrossEntropy(self.codes, self.weight, n_classes, each)

        def forward(theta: Array) -> NDArray[Any]:
            w, level = self.on_vectors(theta)
            narrow = w.reshape(-1, dim).astype(z.dtype)
            logits = np.empty((len(w), n_classes, n), dtype=dtype)

            def block(rows: slice) -> None:
                # a product with few columns is faster in pieces than whole
                product = (narrow @ z[rows].T).reshape(len(w), n_classes, -1)
                np.add(product, level[:, :, None], out=logits[:, :, rows], casting="same_kind")

            each(block)
            return logits.reshape(len(w), -1).T.reshape(-1, *theta.shape[1:])

        def adjoint(g: NDArray[Any]) -> Array:
            slope = g.T.reshape(-1, n)

            def block(rows: slice) -> NDArray[Any]:
                product: NDArray[Any] = slope[:, rows].astype(z.dtype) @ z[rows]
                return product

            total = np.zeros((len(slope), dim))
            for product in each(block):
                total += product
            level = slope.sum(axis=1, dtype=np.float64).reshape(-1, n_classes).T
            of_weights = total.reshape(-1, n_classes, dim).transpose(2, 1, 0) - self.mean[:, None] * level
            of_weights /= self.spread[:, None]
            return np.concatenate([of_weights, level[None]]).reshape(-1, level.shape[1])

        theta = np.zeros(((dim + 1) * n_classes, self.k))
        solved: dict[float, tuple[Array, Array]] = {}
        for l2 in sorted(set(grid), reverse=True):
            penalty = np.repeat(np.append(np.full(dim, l2), 0.0), n_classes)[:, None]
            curvature = loss.curvature(forward(theta))
            theta = minimise_many(
                forward,
                adjoint,
                loss,
                penalty,
                theta,
                self.metric.coordinates(curvature, l2, dtype),
                tol=tol,
                max_iter=max_iter,
                rounding=float(np.finfo(z.dtype).eps),
                dtype=dtype,
                who=who,
            ).x
            w, b = self.on_vectors(theta)
            solved[l2] = w, b - b.mean(axis=1, keepdims=True)
        return [solved[l2] for l2 in grid]


@dataclass(frozen=True)
class _At:
    """The loss at some logits: its value (k,), its slope (n_classes * n, k), and the probabilities (k, n_classes, n)."""

    value: Array
    slope: NDArray[Any]
    state: NDArray[Any]


class _CrossEntropy:
    """Weighted cross-entropy of logits that are laid end to end, class after class; a column for each weighting (k, n)."""

    def __init__(self, codes: NDArray[np.intp], weight: Array, n_classes: int, each: Each) -> None:
        self.codes, self.weight, self.n_classes, self.each = codes, weight, n_classes, each
        self.n_responses = len(codes) * n_classes
        # classes that a column knows; None where all know all
        has = np.array([np.bincount(codes, weights=w, minlength=n_classes) > 0 for w in weight])
        self.present = None if has.all() else has

    def evaluate(self, logits: NDArray[Any]) -> _At:
        of_class = self._laid_out(logits)
        p, slope = np.empty(of_class.shape, of_class.dtype), np.empty(of_class.shape, of_class.dtype)

        def block(rows: slice) -> Array:
            codes, own = self.codes[rows], self.weight[:, rows].astype(of_class.dtype, copy=False)
            at = np.arange(rows.start, rows.stop)
            lowered, p[:, :, rows], total = self._softmax(of_class[:, :, rows])
            np.multiply(p[:, :, rows], own[:, None], out=slope[:, :, rows])
            slope[:, codes, at] -= own
            loss = np.log(total) - lowered[:, codes, at - rows.start]
            return np.einsum("kn,kn->k", self.weight[:, rows], loss, dtype=np.float64)

        value = np.sum(self.each(block), axis=0)
        return _At(value, slope.reshape(len(slope), -1).T, p)

    def second_derivative(self, at: _At, direction: NDArray[Any]) -> Array:
        moved = self._laid_out(direction)

        def block(rows: slice) -> Array:
            d = moved[:, :, rows]
            pd = at.state[:, :, rows] * d
            bend = (pd * d).sum(axis=1) - pd.sum(axis=1) ** 2
            return np.einsum("kn,kn->k", self.weight[:, rows], bend, dtype=np.float64)

        return np.asarray(np.sum(self.each(block), axis=0))

    def curvature(self, logits: NDArray[Any]) -> Array:
        """Mean second derivative in each class's logit; (n_classes, k)."""
        of_class = self._laid_out(logits)

        def block(rows: slice) -> Array:
            p = self._softmax(of_class[:, :, rows])[1]
            return np.einsum("kn,kcn->ck", self.weight[:, rows], p * (1.0 - p), dtype=np.float64)

        return np.maximum(np.sum(self.each(block), axis=0), _LEAST_CURVATURE / self.n_classes)

    def _laid_out(self, flat: NDArray[Any]) -> NDArray[Any]:
        """As (k, n_classes, n)."""
        return flat.T.reshape(-1, self.n_classes, len(self.codes))

    def _softmax(self, logits: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Logits less the largest of their row, probabilities, and the sum (k, n) that made them."""
        if self.present is not None:
            # nothing pulls the logit of a class without weight back; not infinite, since rows without weight may be of it
            logits = np.where(self.present[:, :, None], logits, _NEVER)
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

    def coordinates(self, curvature: Array, l2: float, dtype: Any) -> Coordinates:
        """Coordinates for weights (dim + 1, n_classes, k) whose last row is not penalised; a symmetric change."""
        flat = curvature.reshape(-1)
        other = 1.0 / np.sqrt(flat * self.rest + l2)
        inside = 1.0 / np.sqrt(flat * self.moments[:, None] + l2) - other
        level = 1.0 / np.sqrt(flat)
        # any change of coordinates is as right as another, so it has the precision of the passes
        directions = self.directions.astype(dtype, copy=False)

        def change(x: Array) -> Array:
            w = x.reshape(-1, len(flat))
            out = np.empty_like(w)
            out[:-1] = directions @ (inside * (directions.T @ w[:-1].astype(dtype, copy=False))).astype(
                dtype, copy=False
            )
            out[:-1] += other * w[:-1]
            out[-1] = level * w[-1]
            return out.reshape(x.shape)

        return Coordinates(change, change)
