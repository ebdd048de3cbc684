"""Minimise a convex loss on outputs that are linear in the parameters: Newton steps by preconditioned conjugate gradients.

The data are passed over once for each conjugate-gradient step; a line search needs no pass, since outputs are linear. A
squared loss is one Newton step, so the same code solves it by conjugate gradients alone.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from embedrm.decoding.base import Array
from embedrm.decoding.losses import OutputLoss, Point
from embedrm.errors import InvalidInputError

# A Newton step that is not the last is solved to this share of the gap that is left.
INNER = 0.01


class Operator(Protocol):
    """A linear map from parameters to outputs, by passes over the data, with a quadratic penalty and a preconditioner."""

    def forward(self, theta: Array) -> Array:
        """Outputs of parameters."""
        ...

    def adjoint(self, slope: Array) -> Array:
        """Sum over positions of slope times the gradient of the output."""
        ...

    def normal(self, direction: Array, curvature: Array) -> tuple[Array, Array]:
        """Outputs of a direction, and the adjoint of curvature times them, in one pass."""
        ...

    def penalty(self, theta: Array) -> Array:
        """Gradient of the quadratic penalty, linear in the parameters."""
        ...

    def precondition(self, gradient: Array) -> Array:
        """A positive definite estimate of the inverse Hessian, times a gradient."""
        ...


@dataclass(frozen=True)
class Solution:
    """Result of :func:`minimise`.

    Attributes
    ----------
    theta : ndarray
        The parameters found.
    value : float
        Loss and penalty there.
    gap : float
        Half the squared gradient in the preconditioner's metric: an estimate of what is still to be gained, as a share of
        the loss of outputs that are all zero.
    n_passes : int
        Passes over the data.
    converged : bool
    """

    theta: Array
    value: float
    gap: float
    n_passes: int
    converged: bool


def minimise(
    operator: Operator, loss: OutputLoss, start: Array, *, tol: float, max_passes: int, who: str, warn: bool = True
) -> Solution:
    """Minimise loss(outputs) + penalty / 2.

    Parameters
    ----------
    operator : Operator
    loss : OutputLoss
    start : ndarray
        First parameters.
    tol : float
        Gap to reach (see :class:`Solution`).
    max_passes : int
        Passes over the data after which it stops, and says so.
    who : str
        Name in errors and warnings.
    warn : bool
        Warn where the gap was not reached; a caller that does not ask for it tells its own user.
    """
    theta = np.array(start, dtype=np.float64)
    outputs = operator.forward(theta)
    scale = max(loss.value(np.zeros_like(outputs)), np.finfo(float).tiny)
    pull = operator.penalty(theta)
    at = loss.evaluate(outputs)
    value = at.value + 0.5 * float(theta @ pull)
    passes, gap, previous, stale = 1, np.inf, np.inf, 0
    while True:
        gradient = operator.adjoint(at.slope) + pull
        passes += 1
        gap = 0.5 * float(gradient @ operator.precondition(gradient)) / scale
        if not np.isfinite(gap) or not np.isfinite(value):
            raise InvalidInputError(
                f"{who} met a loss that is not finite; look for NaN or infinity in the language model's states"
            )
        stale = stale + 1 if gap > 0.5 * previous else 0
        if gap <= tol or passes >= max_passes or stale >= 3:
            break
        previous = gap
        target = 0.25 * tol if loss.quadratic else max(0.25 * tol, INNER * gap)
        step, moved, bent, used = _newton_step(operator, loss, at, gradient, target * scale, max_passes - passes)
        passes += used
        products = [float(p) for p in (theta @ pull, step @ pull, step @ bent, gradient @ step)]
        t, at, found = _line_search(loss, outputs, moved, value, *products)
        if t == 0.0:
            break
        theta, outputs, pull, value = theta + t * step, outputs + t * moved, pull + t * bent, found
    converged = bool(gap <= tol)
    if warn and not converged:
        from sklearn.exceptions import ConvergenceWarning

        warnings.warn(
            f"{who} stopped after {passes} passes with an estimated gap of {gap:.1e} of the loss at zero (asked for "
            f"{tol:.1e}); raise max_passes, raise l2, or raise tol",
            ConvergenceWarning,
            stacklevel=4,
        )
    return Solution(theta, float(value), float(gap), passes, converged)


def _newton_step(
    operator: Operator, loss: OutputLoss, at: Point, gradient: Array, target: float, max_steps: int
) -> tuple[Array, Array, Array, int]:
    """Conjugate gradients on the Newton system; returns the step, its outputs, its penalty gradient, and the passes."""
    step, moved, bent = np.zeros_like(gradient), np.zeros_like(at.slope), np.zeros_like(gradient)
    residual = -gradient
    z = operator.precondition(residual)
    direction, squared, used = z.copy(), float(residual @ z), 0
    while used < max(1, max_steps) and 0.5 * squared > target:
        if at.curvature is not None:
            outputs, pushed = operator.normal(direction, at.curvature)
            used += 1
        else:
            outputs = operator.forward(direction)
            pushed = operator.adjoint(loss.second(at, outputs))
            used += 2
        penal = operator.penalty(direction)
        pushed = pushed + penal
        bend = float(direction @ pushed)
        if not bend > 0:
            break
        alpha = squared / bend
        step += alpha * direction
        moved += alpha * outputs
        bent += alpha * penal
        residual -= alpha * pushed
        z = operator.precondition(residual)
        renewed = float(residual @ z)
        direction *= renewed / squared
        direction += z
        squared = renewed
    return step, moved, bent, used


def _line_search(
    loss: OutputLoss, outputs: Array, moved: Array, value: float, own: float, cross: float, bend: float, slope: float
) -> tuple[float, Point, float]:
    """Length of a step, halved until the objective falls enough; needs no pass over the data."""
    t = 1.0
    for _ in range(40):
        at = loss.evaluate(outputs + t * moved)
        found = at.value + 0.5 * own + t * cross + 0.5 * t * t * bend
        # rounding of the objective itself is forgiven
        if found <= value + 1e-4 * t * slope + 1e-14 * abs(value):
            return t, at, found
        t *= 0.5
    return 0.0, loss.evaluate(outputs), value
