r"""What is fitted of W: the whole of it, or one factor of :math:`W = U V^\top` with the other held.

Parameters are one vector. A space says how it becomes (W, w, b), how a gradient comes back, and how the Hessian's Kronecker
estimate (see :meth:`BilinearOperator.moments`) is inverted in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from embedrm.decoding.base import Array

# Directions that the data do not bend, and no penalty does, are not followed further than this allows.
FLOOR = 1e-10


def _eigen(matrix: Array) -> tuple[Array, Array]:
    values, vectors = np.linalg.eigh(matrix)
    return np.maximum(values, 0.0), vectors


@dataclass(frozen=True)
class Moments:
    """Second moments that a Hessian is nearly a Kronecker product of, and their eigenvectors, found once.

    Attributes
    ----------
    embedded : ndarray of shape (d_e + 1, d_e + 1)
        See :meth:`BilinearOperator.moments`.
    states : ndarray of shape (d_h, d_h)
    """

    embedded: Array
    states: Array

    @cached_property
    def of_embedded(self) -> tuple[Array, Array]:
        """Of ``embedded`` without its last row and column."""
        return _eigen(self.embedded[:-1, :-1])

    @cached_property
    def of_states(self) -> tuple[Array, Array]:
        """Of ``states``."""
        return _eigen(self.states)


class Space:
    """Base class: ``n_left`` numbers of W to each state coordinate, a baseline w or none, a bias b or none."""

    def __init__(self, shape: tuple[int, int], baseline: bool, bias: bool) -> None:
        self.shape, self.baseline, self.bias = shape, baseline, bias

    def expand(self, theta: Array) -> tuple[Array, Array | None, float]:
        """W (d_e, d_h), w (d_h,) or None, and b."""
        raise TypeError(f"{type(self).__name__} does not implement expand")

    def reduce(self, weight: Array, baseline: Array, bias: float) -> Array:
        """Gradient in the parameters, of gradients in W, w and b."""
        raise TypeError(f"{type(self).__name__} does not implement reduce")

    def parts(self, theta: Array) -> tuple[Array, Array | None, float]:
        """What is fitted of W, w or None, and b."""
        raise TypeError(f"{type(self).__name__} does not implement parts")

    def packed(self, part: Array, baseline: Array, bias: float) -> Array:
        """Parameters (or a gradient in them) of what :meth:`parts` gives; what the space does not fit is left out."""
        parts = [part.ravel(), *([baseline] if self.baseline else []), *([np.array([bias])] if self.bias else [])]
        return np.concatenate(parts)

    def penalised(self, theta: Array) -> Array:
        """The parameters, without the bias."""
        if not self.bias:
            return theta
        out = theta.copy()
        out[-1] = 0.0
        return out

    def prepare(self, moments: Moments, l2: float) -> None:
        """Take the Kronecker estimate that :meth:`precondition` inverts."""
        raise TypeError(f"{type(self).__name__} does not implement prepare")

    def precondition(self, gradient: Array) -> Array:
        """Estimate of the inverse Hessian times a gradient."""
        raise TypeError(f"{type(self).__name__} does not implement precondition")


def _inverse(products: Array, l2: float) -> Array:
    # where there is neither curvature nor penalty, gradients are zero but for rounding
    floor = max(FLOOR * float(products.max(initial=0.0)), np.finfo(float).tiny)
    inverse: Array = 1.0 / (products + l2 + floor)
    return inverse


class ProjectedSpace(Space):
    r"""W = P M for a matrix P (d_e, n) with orthonormal columns: all of W where P is the identity.

    The parameters are M (n, d_h), with w as one row more, and b.
    """

    def __init__(self, shape: tuple[int, int], baseline: bool, bias: bool, left: Array | None = None) -> None:
        super().__init__(shape, baseline, bias)
        self.left = left
        self.n = shape[0] if left is None else left.shape[1]
        self.size = (self.n + baseline) * shape[1] + bias

    def expand(self, theta: Array) -> tuple[Array, Array | None, float]:
        """W (d_e, d_h), w (d_h,) or None, and b."""
        m, w, b = self.parts(theta)
        return m if self.left is None else self.left @ m, w, b

    def parts(self, theta: Array) -> tuple[Array, Array | None, float]:
        """M (n, d_h), w or None, and b."""
        b = float(theta[-1]) if self.bias else 0.0
        m = (theta[:-1] if self.bias else theta).reshape(self.n + self.baseline, self.shape[1])
        return m[: self.n], m[self.n] if self.baseline else None, b

    def reduce(self, weight: Array, baseline: Array, bias: float) -> Array:
        """Gradient in the parameters, of gradients in W, w and b."""
        return self.packed(weight if self.left is None else self.left.T @ weight, baseline, bias)

    def prepare(self, moments: Moments, l2: float) -> None:
        """Take the Kronecker estimate that :meth:`precondition` inverts."""
        d_e, embedded = self.shape[0], moments.embedded
        if self.left is not None:
            outer = np.zeros((d_e + 1, self.n + 1))
            outer[:d_e, : self.n], outer[d_e, self.n] = self.left, 1.0
            embedded = outer.T @ embedded @ outer
        kept = slice(None) if self.baseline else slice(0, self.n)
        self._total = float(embedded[-1, -1])
        self._a, self._qa = _eigen(embedded[kept, kept])
        self._h, self._qh = moments.of_states
        self._scale = _inverse(np.outer(self._a, self._h), l2)

    def precondition(self, gradient: Array) -> Array:
        """Estimate of the inverse Hessian times a gradient."""
        m = (gradient[:-1] if self.bias else gradient).reshape(self.n + self.baseline, self.shape[1])
        m = self._qa @ ((self._qa.T @ m @ self._qh) * self._scale) @ self._qh.T
        return np.append(m.ravel(), gradient[-1] / self._total) if self.bias else m.ravel()


class LeftSpace(Space):
    r"""W = L R^T for a held R (d_h, r) with orthonormal columns. The parameters are L (d_e, r), w and b."""

    def __init__(self, shape: tuple[int, int], baseline: bool, bias: bool, right: Array) -> None:
        super().__init__(shape, baseline, bias)
        self.right, self.r = right, right.shape[1]
        self.size = shape[0] * self.r + baseline * shape[1] + bias

    def _split(self, theta: Array) -> tuple[Array, Array | None]:
        n = self.shape[0] * self.r
        return theta[:n].reshape(self.shape[0], self.r), theta[n : n + self.shape[1]] if self.baseline else None

    def expand(self, theta: Array) -> tuple[Array, Array | None, float]:
        """W (d_e, d_h), w (d_h,) or None, and b."""
        left, w, b = self.parts(theta)
        return left @ self.right.T, w, b

    def parts(self, theta: Array) -> tuple[Array, Array | None, float]:
        """L (d_e, r), w or None, and b."""
        left, w = self._split(theta)
        return left, w, float(theta[-1]) if self.bias else 0.0

    def reduce(self, weight: Array, baseline: Array, bias: float) -> Array:
        """Gradient in the parameters, of gradients in W, w and b."""
        return self.packed(weight @ self.right, baseline, bias)

    def prepare(self, moments: Moments, l2: float) -> None:
        """Take the Kronecker estimate that :meth:`precondition` inverts; L and w are taken apart in it."""
        self._total = float(moments.embedded[-1, -1])
        self._a, self._qa = moments.of_embedded
        self._h, self._qh = _eigen(self.right.T @ moments.states @ self.right)
        self._scale = _inverse(np.outer(self._a, self._h), l2)
        self._hw, self._qw = moments.of_states
        self._scale_w = _inverse(self._total * self._hw, l2)

    def precondition(self, gradient: Array) -> Array:
        """Estimate of the inverse Hessian times a gradient."""
        left, w = self._split(gradient)
        left = self._qa @ ((self._qa.T @ left @ self._qh) * self._scale) @ self._qh.T
        parts = [left.ravel()]
        if w is not None:
            parts.append(self._qw @ ((self._qw.T @ w) * self._scale_w))
        if self.bias:
            parts.append(gradient[-1:] / self._total)
        return np.concatenate(parts)
