"""Minimise a smooth convex function with L-BFGS in coordinates where its Hessian at the start is about the identity."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Solution:
    """Result of :func:`minimise`.

    Attributes
    ----------
    x : ndarray of shape (dim,)
        The minimiser.
    value : float
        The objective there.
    n_evaluations : int
        Calls of the function.
    gap : float
        Half the squared norm of the preconditioned gradient: an estimate of the objective still to be gained.
    converged : bool
        Whether ``gap`` is at most the tolerance asked for.
    """

    x: Vector
    value: float
    n_evaluations: int
    gap: float
    converged: bool


def minimise(
    function: Callable[[Vector], tuple[float, Vector]],
    start: Vector,
    transform: NDArray[np.float64] | None = None,
    *,
    tol: float = 1e-9,
    max_iter: int = 500,
    who: str = "solver",
) -> Solution:
    r"""Minimise ``function`` (value and gradient) by L-BFGS in coordinates u with :math:`x = T u`, :math:`T T^T = H_0^{-1}`.

    Bradley–Terry Hessians are a reweighting, by factors in (0, 1/4], of one fixed second-moment matrix of differences.
    Taking that matrix as the metric makes the problem nearly round, so a few dozen evaluations reach a tight optimum
    whatever the spectrum of the embeddings; without it, hundreds are usual.

    Parameters
    ----------
    function : callable
        Maps (dim,) float64 to (value, gradient (dim,)).
    start : ndarray of shape (dim,)
        First point.
    transform : ndarray of shape (dim, dim), optional
        T, from :func:`metric_transform` of a Hessian estimate; identity when absent.
    tol : float
        Stop when half the squared preconditioned gradient norm (about the objective gap) is at most this.
    max_iter : int
        Most L-BFGS iterations.
    who : str
        Name in the warning when it does not converge.
    """
    n_evaluations = 0

    def to_x(u: Vector) -> Vector:
        return u if transform is None else transform @ u

    def wrapped(u: Vector) -> tuple[float, Vector]:
        nonlocal n_evaluations
        n_evaluations += 1
        value, gradient = function(to_x(u))
        return value, gradient if transform is None else gradient @ transform

    dim = max(1, start.size)
    u0 = (
        start.copy()
        if transform is None
        else np.linalg.solve(transform, start)
        if start.any()
        else np.zeros_like(start)
    )
    gradient_tol = float(np.sqrt(2.0 * tol / dim))
    options = {"maxiter": max_iter, "maxfun": 4 * max_iter, "maxcor": 20, "ftol": 0.0, "gtol": gradient_tol}
    result = minimize(wrapped, u0, jac=True, method="L-BFGS-B", options=options)
    gap = 0.5 * float(result.jac @ result.jac)
    # Rounding can stop the line search just short of the goal; ten times the goal is still far below any use of it.
    converged = gap <= 10.0 * tol
    if not converged:
        from sklearn.exceptions import ConvergenceWarning

        warnings.warn(
            f"{who} stopped after {result.nit} iterations with an objective gap of about {gap:.1e} (asked for {tol:.1e}); "
            "raise max_iter, raise l2, or raise tol",
            ConvergenceWarning,
            stacklevel=3,
        )
    return Solution(to_x(result.x), float(result.fun), n_evaluations, gap, converged)


def metric_transform(hessian: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return T with ``T @ T.T`` the inverse of a symmetric positive definite Hessian estimate; shape (dim, dim).

    NumPy's routines only: mixing in SciPy's, which bring a second pool of threads, costs more here than it saves.
    """
    return np.linalg.inv(np.linalg.cholesky(hessian)).T
