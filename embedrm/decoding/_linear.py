"""Scores <h, w> + b of positions as a linear map of (w, b), whose Hessian is inverted exactly at the start."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding._spaces import FLOOR
from embedrm.decoding.base import Array, block_rows, read_rows, slices


class LinearOperator:
    """Outputs (n,) of the states at n rows; see ``_bilinear.BilinearOperator`` for the parts.

    The penalty is on w alone. Solutions of squared losses need one conjugate-gradient step, since the preconditioner is the
    inverse Hessian.
    """

    def __init__(self, states: NDArray[Any], rows: NDArray[np.intp], unit: float, l2: float) -> None:
        self.states, self.rows, self.unit, self.l2 = states, rows, unit, l2
        self.size = states.shape[1] + 1

    def prepare(self, curvature: Array) -> LinearOperator:
        """Sum the Hessian's data part at this curvature. Returns self."""
        moment = np.zeros((self.size, self.size))
        for block, h in self._blocks():
            moment += h.T @ (h * curvature[block, None])
        self._values, self._vectors = np.linalg.eigh(self._penalised(moment))
        return self

    def set_l2(self, l2: float) -> None:
        """Another penalty on the same data, without another pass."""
        self._values, self._vectors = np.linalg.eigh(self._penalised(self._moment, l2))
        self.l2 = l2

    def _penalised(self, moment: Array, l2: float | None = None) -> Array:
        self._moment = moment
        diagonal = np.full(self.size, self.l2 if l2 is None else l2)
        diagonal[-1] = 0.0
        return moment + np.diag(diagonal)

    def _blocks(self) -> Any:
        for block in slices(len(self.rows), block_rows(self.size)):
            h = np.ones((block.stop - block.start, self.size))
            h[:, :-1] = read_rows(self.states, self.rows[block])
            h[:, :-1] /= self.unit
            yield block, h

    def forward(self, theta: Array) -> Array:
        """Outputs of parameters."""
        out = np.zeros(len(self.rows))
        if theta.any():
            for block, h in self._blocks():
                out[block] = h @ theta
        return out

    def adjoint(self, slope: Array) -> Array:
        """Sum over positions of slope times the gradient of the output."""
        out = np.zeros(self.size)
        for block, h in self._blocks():
            out += slope[block] @ h
        return out

    def normal(self, direction: Array, curvature: Array) -> tuple[Array, Array]:
        """Outputs of a direction, and the adjoint of curvature times them, in one pass."""
        out, pushed = np.empty(len(self.rows)), np.zeros(self.size)
        for block, h in self._blocks():
            out[block] = h @ direction
            pushed += (curvature[block] * out[block]) @ h
        return out, pushed

    def penalty(self, theta: Array) -> Array:
        """Gradient of l2 / 2 of the weights."""
        pull = self.l2 * theta
        pull[-1] = 0.0
        return pull

    def precondition(self, gradient: Array) -> Array:
        """Inverse Hessian times a gradient."""
        floor = max(FLOOR * float(self._values.max()), np.finfo(float).tiny)
        scaled = (self._vectors.T @ gradient) / (np.maximum(self._values, 0.0) + floor)
        out: Array = self._vectors @ scaled
        return out
