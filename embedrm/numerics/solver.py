r"""Fit a ridge-penalised linear reward to a pair loss: L-BFGS in whitened coordinates with Newton line searches.

Three facts make it fast. Bradley–Terry Hessians reweigh, by factors in (0, 1/4], one fixed second-moment matrix of
differences; in coordinates that whiten it the problem is nearly round. Rewards are linear in the weights, so a step's
rewards cost one pass over the vectors, and trying other step lengths costs none. And the loss lives on pairs of unique
responses, so a pass is over responses, not pairs.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

MEMORY = 15
MAX_HALVINGS = 30
# The gap is estimated in a metric that bounds the Hessian from above, so the estimate is too low: by 1 / (4 p (1 - p)),
# ten and more where margins are wide. Aiming this much lower keeps the true gap below the tolerance, and costs about two
# iterations.
SAFETY = 0.01


class RewardLoss(Protocol):
    """What the solver asks of a loss on rewards; see :class:`embedrm.objectives.Loss`."""

    n_responses: int

    def evaluate(self, rewards: Vector) -> Any:
        """Return an object with ``value`` and ``slope``."""

    def second_derivative(self, at: Any, direction: Vector) -> Any:
        """Curvature along a direction of rewards, one for each column."""


@dataclass(frozen=True)
class Solution:
    """Result of :func:`minimise`.

    Attributes
    ----------
    x : ndarray of shape (dim,)
        The minimiser.
    value : float
        The objective there.
    n_passes : int
        Passes over the vectors, forward and adjoint counted together as one.
    gap : float
        Half the squared norm of the whitened gradient: an estimate of the objective still to be gained.
    converged : bool
        Whether ``gap`` reached the tolerance, or the limit that rounding of the vectors' precision sets.
    """

    x: Vector
    value: float
    n_passes: int
    gap: float
    converged: bool


def minimise(
    forward: Callable[[Vector], Vector],
    adjoint: Callable[[Vector], Vector],
    loss: RewardLoss,
    l2: float,
    start: Vector,
    transform: NDArray[np.float64],
    *,
    tol: float = 1e-9,
    max_iter: int = 500,
    rounding: float = 1e-15,
    scale: Vector | None = None,
    who: str = "solver",
) -> Solution:
    r"""Minimise :math:`f(\Phi x) + \tfrac12\lambda\lVert x\rVert^2` in coordinates u, :math:`x = T u`.

    Parameters
    ----------
    forward, adjoint : callable
        ``x -> Phi @ x`` and ``g -> Phi.T @ g``.
    loss : RewardLoss
        f, on rewards; convex.
    l2 : float
        The penalty, at least 0.
    start : ndarray of shape (dim,)
        First point.
    transform : ndarray of shape (dim, rank)
        T with ``T @ T.T`` near the inverse Hessian, from :func:`metric_transform`; with rank < dim, on a subspace in which
        the start and every gradient lie.
    tol : float
        Objective gap to reach: half the squared whitened gradient norm is brought to ``SAFETY`` times this.
    max_iter : int
        Most iterations.
    rounding : float
        Relative rounding of ``forward``: differences of the objective below it are noise.
    scale : ndarray of shape (rank,), optional
        Factors of the transform's columns, for a transform that serves several penalties with other factors.
    who : str
        Name in the warning when it does not converge.
    """
    x = start.astype(np.float64)
    rewards = forward(x) if x.any() else np.zeros(loss.n_responses)
    at = loss.evaluate(rewards)
    value = at.value + 0.5 * l2 * float(x @ x)
    history: deque[tuple[Vector, Vector, float]] = deque(maxlen=MEMORY)
    previous: tuple[Vector, Vector] | None = None
    gap, best_gap, stale, n_passes = np.inf, np.inf, 0, 0
    for _ in range(max_iter):
        gradient = adjoint(at.slope) + l2 * x
        n_passes += 1
        g = gradient @ transform if scale is None else (gradient @ transform) * scale
        gap = 0.5 * float(g @ g)
        noise = rounding * max(abs(value), 1e-3)
        stale = 0 if gap < 0.5 * best_gap else stale + 1
        best_gap = min(best_gap, gap)
        # past the rounding limit the gradient wanders; three idle iterations there mean it is reached
        if gap <= SAFETY * tol or (gap <= noise and stale >= 3) or not np.isfinite(gap):
            break
        if previous is not None:
            s, y = previous[0], g - previous[1]
            if (sy := float(s @ y)) > 1e-12 * float(y @ y):
                history.append((s, y, sy))
        step_u = -_two_loop(g, history)
        slope = float(g @ step_u)
        if slope >= 0:
            history.clear()
            step_u, slope = -g, -2.0 * gap
        step = transform @ (step_u if scale is None else step_u * scale)
        step_rewards = forward(step)
        bend = loss.second_derivative(at, step_rewards) + l2 * float(step @ step)
        t = -slope / bend if bend > 0 else 1.0
        for _ in range(MAX_HALVINGS):
            new_rewards = rewards + t * step_rewards
            new_x = x + t * step
            new_at = loss.evaluate(new_rewards)
            new_value = new_at.value + 0.5 * l2 * float(new_x @ new_x)
            if new_value <= value + 1e-4 * t * slope + noise:
                break
            t *= 0.5
        else:
            break
        previous = (t * step_u, g)
        x, rewards, at, value = new_x, new_rewards, new_at, new_value
    converged = gap <= max(tol, rounding * max(abs(value), 1e-3))
    if not converged and np.isfinite(gap):
        from sklearn.exceptions import ConvergenceWarning

        warnings.warn(
            f"{who} stopped with an objective gap of about {gap:.1e} (asked for {tol:.1e}); "
            "raise max_iter, raise l2, or raise tol",
            ConvergenceWarning,
            stacklevel=4,
        )
    return Solution(x, float(value), n_passes, float(gap), bool(converged))


def _two_loop(g: Vector, history: deque[tuple[Vector, Vector, float]]) -> Vector:
    """L-BFGS estimate of the inverse Hessian times g (Nocedal and Wright, algorithm 7.4), identity at its core.

    The core is not rescaled by the latest curvature pair: the coordinates are whitened already, so one is its scale.
    """
    q = g.copy()
    alphas = []
    for s, y, sy in reversed(history):
        alpha = float(s @ q) / sy
        alphas.append(alpha)
        q -= alpha * y
    for (s, y, sy), alpha in zip(history, reversed(alphas)):
        q += (alpha - float(y @ q) / sy) * s
    return q


def metric_transform(hessian: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return T with ``T @ T.T`` the inverse of a symmetric positive definite Hessian estimate; shape (dim, dim)."""
    # NumPy's routines only: SciPy brings a second pool of threads, and two pools that spin cost more than they save.
    transform: NDArray[np.float64] = _inverse_of_lower(np.linalg.cholesky(hessian)).T
    return transform


def _inverse_of_lower(lower: NDArray[Any]) -> NDArray[Any]:
    """Inverse of a lower triangular matrix by halves: a sixth of the arithmetic of a general one, most of it products."""
    n = len(lower)
    if n <= 64:
        small: NDArray[Any] = np.linalg.inv(lower)
        return small
    half = n // 2
    first, last = _inverse_of_lower(lower[:half, :half]), _inverse_of_lower(lower[half:, half:])
    out = np.zeros_like(lower)
    out[:half, :half], out[half:, half:] = first, last
    out[half:, :half] = -(last @ (lower[half:, :half] @ first))
    return out
