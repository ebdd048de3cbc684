r"""Fit several ridge-penalised linear rewards in lockstep: the passes over the vectors are shared.

The method of :mod:`embedrm.numerics.solver`, column by column, with one metric for all. Members of an ensemble differ
by the weights of their pairs or by the features they may read, so their problems are alike and end after about the same
number of steps; each pass is one product with a matrix of a few columns, which costs little more than with one.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedrm.numerics.solver import MAX_HALVINGS, MEMORY, SAFETY, RewardLoss

Columns = NDArray[np.float64]


class Coordinates(NamedTuple):
    """A change of coordinates x = T u that is no matrix: ``whiten`` is g -> T.T g, ``unwhiten`` is u -> T u."""

    whiten: Callable[[Columns], Columns]
    unwhiten: Callable[[Columns], Columns]


@dataclass(frozen=True)
class Solutions:
    """Result of :func:`minimise_many`: ``x`` (dim, k), and for each column its objective and the gap left, (k,)."""

    x: Columns
    value: Columns
    gap: Columns
    n_passes: int


def minimise_many(
    forward: Callable[[Columns], Columns],
    adjoint: Callable[[Columns], Columns],
    loss: RewardLoss,
    l2: float | Columns,
    start: Columns,
    transform: NDArray[np.float64] | Sequence[NDArray[np.float64]] | Coordinates,
    *,
    tol: float = 1e-9,
    max_iter: int = 500,
    rounding: float = 1e-15,
    readable: NDArray[np.bool_] | None = None,
    dtype: Any = np.float64,
    who: str = "solver",
) -> Solutions:
    r"""Minimise :math:`f_j(\Phi x_j) + \tfrac12\lambda\lVert x_j\rVert^2` for every column j.

    Parameters
    ----------
    forward, adjoint, loss, tol, max_iter, rounding, who
        As in :func:`embedrm.numerics.solver.minimise`, for matrices of k columns.
    l2 : float or ndarray of shape (dim, 1) or (dim, k)
        The penalty; an array gives weights (and columns) penalties of their own.
    start : ndarray of shape (dim, k)
        First points, zero where they may not be used.
    transform : ndarray of shape (dim, rank), Coordinates, or sequence of k ndarrays
        Coordinates of all columns; or, where ``readable`` is given, one square matrix for each column, on the weights that
        it may use, or its diagonal.
    readable : ndarray of shape (dim, k), bool, optional
        Weights that a column may use; the others stay zero.
    dtype : numpy dtype
        Precision in which the loss is evaluated: that of the vectors is enough.
    """
    x = start.astype(np.float64)
    if isinstance(transform, (np.ndarray, Coordinates)) != (readable is None):
        raise TypeError("one transform for all columns, or readable and one for each")
    if isinstance(transform, Coordinates):
        whiten, unwhiten = transform
    elif isinstance(transform, np.ndarray):
        whiten, unwhiten = _shared(transform)
    else:
        whiten, unwhiten = _separate(transform, np.asarray(readable))

    if not x.any():
        rewards = np.zeros((loss.n_responses, x.shape[1]))
    elif (x == x[:, :1]).all():
        # one start for all
        rewards = np.repeat(forward(x[:, 0])[:, None], x.shape[1], axis=1)
    else:
        rewards = forward(x)
    at = loss.evaluate(rewards.astype(dtype, copy=False))
    value = at.value + 0.5 * _squares(l2, x)
    history: deque[tuple[Columns, Columns, Columns]] = deque(maxlen=MEMORY)
    previous: tuple[Columns, Columns] | None = None
    gap = best_gap = np.full(x.shape[1], np.inf)
    stale = np.zeros(x.shape[1], dtype=np.intp)
    n_passes = 0
    for _ in range(max_iter):
        g = whiten(adjoint(at.slope) + l2 * x)
        n_passes += 1
        gap = 0.5 * _dots(g, g)
        noise = rounding * np.maximum(np.abs(value), 1e-3)
        stale = np.where(gap < 0.5 * best_gap, 0, stale + 1)
        best_gap = np.minimum(best_gap, gap)
        done = (gap <= SAFETY * tol) | ((gap <= noise) & (stale >= 3)) | ~np.isfinite(gap)
        if done.all():
            break
        if previous is not None:
            s, y = previous[0], g - previous[1]
            sy = _dots(s, y)
            # a column without curvature to learn from adds nothing to its own history
            inverse = np.where(sy > 1e-12 * _dots(y, y), 1.0 / np.where(sy == 0, 1.0, sy), 0.0)
            history.append((s, y, inverse))
        step_u = -_two_loop(g, history)
        slope = _dots(g, step_u)
        uphill = slope >= 0
        if uphill.any():
            step_u, slope = np.where(uphill, -g, step_u), np.where(uphill, -2.0 * gap, slope)
        step = unwhiten(step_u)
        step_rewards = forward(step)
        bend = loss.second_derivative(at, step_rewards.astype(dtype, copy=False)) + _squares(l2, step)
        t = np.where(done, 0.0, np.where(bend > 0, -slope / np.where(bend > 0, bend, 1.0), 1.0))
        for _ in range(MAX_HALVINGS):
            new_rewards = rewards + t * step_rewards
            new_at = loss.evaluate(new_rewards.astype(dtype, copy=False))
            new_x = x + t * step
            new_value = new_at.value + 0.5 * _squares(l2, new_x)
            worse = new_value > value + 1e-4 * t * slope + noise
            if not worse.any():
                break
            t = np.where(worse, 0.5 * t, t)
        else:
            break
        previous = (t * step_u, g)
        x, rewards, at, value = new_x, new_rewards, new_at, new_value
    missed = np.isfinite(gap) & (gap > np.maximum(tol, rounding * np.maximum(np.abs(value), 1e-3)))
    if missed.any():
        from sklearn.exceptions import ConvergenceWarning

        warnings.warn(
            f"{who} stopped with an objective gap of about {gap[missed].max():.1e} in {int(missed.sum())} of {len(gap)} "
            f"members (asked for {tol:.1e}); raise max_iter, raise l2, or raise tol",
            ConvergenceWarning,
            stacklevel=4,
        )
    return Solutions(x, value, gap, n_passes)


def _dots(a: Columns, b: Columns) -> Columns:
    """Dot product of every column."""
    found: Columns = np.einsum("ij,ij->j", a, b)
    return found


def _squares(l2: float | Columns, x: Columns) -> Columns:
    """Penalised squares of every column."""
    return _dots(l2 * x, x) if isinstance(l2, np.ndarray) else l2 * _dots(x, x)


Change = Callable[[Columns], Columns]


def _shared(transform: NDArray[np.float64]) -> tuple[Change, Change]:
    """One change of coordinates for every column: of gradients, and of steps."""
    return lambda gradient: transform.T @ gradient, lambda u: transform @ u


def _separate(transforms: Sequence[NDArray[np.float64]], readable: NDArray[np.bool_]) -> tuple[Change, Change]:
    """A change of coordinates for each column, on the weights it may use."""
    rows = [np.flatnonzero(column) for column in readable.T]

    def whiten(gradient: Columns) -> Columns:
        out = np.zeros_like(gradient)
        for j, (mine, transform) in enumerate(zip(rows, transforms)):
            part = gradient[mine, j]
            out[mine, j] = transform * part if transform.ndim == 1 else transform.T @ part
        return out

    def unwhiten(u: Columns) -> Columns:
        out = np.zeros_like(u)
        for j, (mine, transform) in enumerate(zip(rows, transforms)):
            part = u[mine, j]
            out[mine, j] = transform * part if transform.ndim == 1 else transform @ part
        return out

    return whiten, unwhiten


def _two_loop(g: Columns, history: deque[tuple[Columns, Columns, Columns]]) -> Columns:
    """L-BFGS estimate of the inverse Hessians times g, column by column, identity at the core."""
    q = g.copy()
    alphas = []
    for s, y, inverse in reversed(history):
        alpha = inverse * _dots(s, q)
        alphas.append(alpha)
        q -= alpha * y
    for (s, y, inverse), alpha in zip(history, reversed(alphas)):
        q += (alpha - inverse * _dots(y, q)) * s
    return q
