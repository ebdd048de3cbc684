"""L-BFGS for smooth problems that need not be convex, in a metric of one's own; and a cheap metric for features."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_MEMORY = 10
_HALVINGS = 12
# Widths up to which a metric keeps every direction; beyond, its leading ones, found by a randomised range finder.
_FULL_DIM = 512
_RANK = 192


@dataclass(frozen=True)
class Minimum:
    """Result of :func:`minimise`: the point, its value, the gap left, and the values on the way."""

    x: Array
    value: float
    gap: float
    values: list[float]


def minimise(
    value_and_slope: Callable[[Array], tuple[float, Array]],
    start: Array,
    precondition: Callable[[Array], Array],
    *,
    tol: float,
    max_iter: int,
    noise: float = 1e-12,
) -> Minimum:
    """Minimise a function of a vector.

    Parameters
    ----------
    value_and_slope : callable
    start : ndarray of shape (n,)
    precondition : callable
        Applies a symmetric positive definite guess of the inverse Hessian, the core of the L-BFGS estimate.
    tol : float
        Stops where half the squared slope in that metric, the gap that a quadratic would leave, is below it, or where the
        last step gained less than a hundredth of it.
    max_iter : int
    noise : float
        Relative rounding of the value: a step that raises it by less is taken for one that does not.
    """
    x = start
    value, slope = value_and_slope(x)
    values = [value]
    history: deque[tuple[Array, Array, float]] = deque(maxlen=_MEMORY)
    gap = np.inf
    for _ in range(max_iter):
        core = precondition(slope)
        gap = 0.5 * float(slope @ core)
        if not np.isfinite(value) or gap <= tol:
            break
        step = -_two_loop(slope, history, precondition)
        fall = float(slope @ step)
        if fall >= 0.0:
            history.clear()
            step, fall = -core, -2.0 * gap
        t = 1.0
        for _ in range(_HALVINGS):
            new_x = x + t * step
            new_value, new_slope = value_and_slope(new_x)
            if new_value <= value + 1e-4 * t * fall + noise * abs(value):
                break
            t *= 0.5
        else:
            if not history:
                break
            # a sparse gate jumps where its kept experts change: begin again from the metric alone
            history.clear()
            continue
        s, y = new_x - x, new_slope - slope
        if (sy := float(s @ y)) > 1e-10 * float(np.sqrt((s @ s) * (y @ y))):
            history.append((s, y, sy))
        gained = value - new_value
        x, value, slope = new_x, new_value, new_slope
        values.append(value)
        if abs(gained) <= 0.01 * tol:
            break
    return Minimum(x, value, gap, values)


def _two_loop(
    slope: Array, history: deque[tuple[Array, Array, float]], precondition: Callable[[Array], Array]
) -> Array:
    q = slope.copy()
    factors = []
    for s, y, sy in reversed(history):
        factor = float(s @ q) / sy
        factors.append(factor)
        q -= factor * y
    q = precondition(q)
    if history:
        _, y, sy = history[-1]
        q *= min(max(sy / float(y @ precondition(y)), 0.05), 20.0)
    for (s, y, sy), factor in zip(history, reversed(factors)):
        q += (factor - float(y @ q) / sy) * s
    return q


@dataclass(frozen=True)
class Metric:
    """A second-moment matrix as leading directions (dim, rank), their moments (rank,), and one number for the rest."""

    directions: Array
    moments: Array
    rest: float

    @classmethod
    def of(cls, sample: NDArray[np.floating], factor: float) -> Metric:
        """Return the metric of ``factor`` times the mean outer product of a sample's rows (n, dim)."""
        n, dim = sample.shape
        if dim <= _FULL_DIM:
            moments, directions = np.linalg.eigh((sample.T @ sample).astype(np.float64) * (factor / n))
            return cls(directions, np.maximum(moments, 0.0), 0.0)
        probe = np.random.default_rng(dim).normal(size=(dim, _RANK)).astype(sample.dtype)
        basis, _ = np.linalg.qr(sample.T @ (sample @ probe))
        images = sample @ basis
        moments, turn = np.linalg.eigh((images.T @ images).astype(np.float64) * (factor / n))
        moments = np.maximum(moments, 0.0)
        trace = float(np.einsum("ij,ij->", sample, sample, dtype=np.float64)) * factor / n
        return cls(basis.astype(np.float64) @ turn, moments, max(0.0, trace - float(moments.sum())) / (dim - _RANK))

    def solve(self, x: Array, share: Array, l2: Array) -> Array:
        """Apply ``(share_j H + l2_j)^-1`` to each column j of x (dim, m)."""
        floor = np.maximum(l2, 1e-9)
        inverse = 1.0 / (share * self.moments[:, None] + floor)
        other = 1.0 / (share * self.rest + floor)
        inside = self.directions.T @ x
        solved: Array = x * other + self.directions @ ((inverse - other) * inside)
        return solved
