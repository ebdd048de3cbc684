"""Fit W, w and b of one attribute: the whole of W by Newton steps, or two factors of it by turns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding._bilinear import BilinearOperator, TokenIndex
from embedrm.decoding._lesson import Positions
from embedrm.decoding._solver import Solution, minimise
from embedrm.decoding._spaces import LeftSpace, Moments, ProjectedSpace, Space
from embedrm.decoding._thin import ThinOperator, is_thin
from embedrm.decoding._units import root_mean_square
from embedrm.decoding.base import Array, block_rows, read_rows, slices
from embedrm.decoding.losses import OutputLoss, WithRegulariser

# The full W from which the first factor is taken need not be exact, nor need each turn of the factors: times ``tol``.
FIRST_TOL, TURN_TOL = 1e-4, 30.0
# A round of both turns that gains less than this times ``tol``, as a share of the loss at zero, is the last.
ROUND_GAIN = 100.0


@dataclass(frozen=True)
class Settings:
    """Parameters of ``ARMHead`` that its fit reads."""

    rank: int | None
    baseline: bool
    bias: bool
    entropy: bool
    regulariser: float
    expected: bool
    tol: float
    max_passes: int
    max_rounds: int


@dataclass(frozen=True)
class Fitted:
    """W = ``left @ right.T`` (or ``left`` alone where ``right`` is None), w and b, on raw states and embeddings."""

    left: Array
    right: Array | None
    w: Array
    b: float
    n_passes: int
    gap: float
    converged: bool

    def outputs(self, states: NDArray[Any], rows: NDArray[np.intp], tokens: NDArray[Any], e: NDArray[Any]) -> Array:
        """Scores of tokens after the states at some rows."""
        out = np.empty(len(rows))
        weight = self.left if self.right is None else self.left @ self.right.T
        known, local = np.unique(tokens, return_inverse=True)
        table = np.asarray(e[known], dtype=np.float64) @ weight
        table += self.w
        for part in slices(len(rows), block_rows(states.shape[1])):
            np.einsum("ij,ij->i", read_rows(states, rows[part]), table[local[part]], out=out[part])
        return out + self.b


class Problem:
    """One attribute's positions, with what does not change from one penalty to the next.

    Parameters
    ----------
    states, ids : ndarray
        Of the token record.
    positions : Positions
        Of one attribute.
    embeddings : ndarray of shape (V, d_e)
    negatives : ndarray of shape (n_rows, K)
        Random tokens of every row, of which the regulariser takes those of the positions; K may be 0.
    settings : Settings
    who : str
    """

    def __init__(
        self,
        states: NDArray[Any],
        ids: NDArray[Any],
        positions: Positions,
        embeddings: NDArray[Any],
        negatives: NDArray[Any],
        settings: Settings,
        who: str,
    ) -> None:
        self.states, self.embeddings, self.settings, self.who = states, embeddings, settings, who
        # the state before a token is one row above it
        self.before = positions.rows - 1
        self.tokens = np.column_stack([ids[positions.rows], negatives[positions.rows]])
        of_states = root_mean_square(states, who, self.before, positions.even[:, 0])
        self.units = of_states, root_mean_square(embeddings, who)
        self.shape = (embeddings.shape[1], states.shape[1])
        self.loss: OutputLoss = positions.loss(settings.entropy)
        n_random = negatives.shape[1]
        if n_random:
            even = np.repeat(positions.even, n_random, axis=1) * (settings.regulariser / n_random)
            self.loss = WithRegulariser(self.loss, even)
        self._expected: tuple[float, Array, Array] | None = None
        if settings.expected and settings.regulariser > 0:
            self._expected = (settings.regulariser, self._all_embeddings(), self._states_moment(positions.even[:, 0]))
        self._moments: Moments | None = None
        self._index = TokenIndex(self.tokens, states.shape[1])

    def _all_embeddings(self) -> Array:
        """Second moment of all embeddings, in units."""
        total = np.zeros((self.shape[0], self.shape[0]))
        for part in slices(len(self.embeddings), 4096):
            e = np.asarray(self.embeddings[part], dtype=np.float64) / self.units[1]
            total += e.T @ e
        return total / len(self.embeddings)

    def _states_moment(self, even: Array) -> Array:
        """Second moment of the states before the positions, in units."""
        total = np.zeros((self.shape[1], self.shape[1]))
        for part in slices(len(self.before), block_rows(self.shape[1])):
            h = read_rows(self.states, self.before[part]) / self.units[0]
            total += h.T @ (h * even[part, None])
        return total

    def _operator(self, space: Space, l2: float) -> BilinearOperator:
        kind = ThinOperator if is_thin(space) else BilinearOperator
        return kind(self.states, self.before, self._index, self.embeddings, self.units, space, l2, self._expected)

    def _prepare(self, operator: BilinearOperator, space: Space, l2: float) -> None:
        if self._moments is None:
            self._moments = operator.moments(self.loss.curvature_bound())
            if self._expected is not None:
                d_e = self.shape[0]
                self._moments.embedded[:d_e, :d_e] += 2.0 * self._expected[0] * self._expected[1]
        space.prepare(self._moments, l2)

    def _minimise(self, space: Space, start: Array, l2: float, tol: float, budget: int, warn: bool) -> Solution:
        operator = self._operator(space, l2)
        self._prepare(operator, space, l2)
        return minimise(operator, self.loss, start, tol=tol, max_passes=budget, who=self.who, warn=warn)

    def solve(self, l2: float, start: Array | None = None) -> tuple[Fitted, Array]:
        """Fit at a penalty; returns what was fitted, and the parameters of the full W to start the next penalty from."""
        s = self.settings
        full = ProjectedSpace(self.shape, s.baseline, s.bias)
        first = np.zeros(full.size) if start is None else start
        whole = s.rank is None
        solution = self._minimise(full, first, l2, s.tol if whole else max(s.tol, FIRST_TOL), s.max_passes, whole)
        if whole:
            weight, w, b = full.expand(solution.theta)
            return self._raw(weight, None, w, b, solution, solution.n_passes, solution.converged), solution.theta
        return self._factors(full, solution, l2), solution.theta

    def _raw(
        self, left: Array, right: Array | None, w: Array | None, b: float, at: Solution, passes: int, converged: bool
    ) -> Fitted:
        """Undo the units."""
        of_h, of_e = self.units
        w = np.zeros(self.shape[1]) if w is None else w / of_h
        if right is None:
            return Fitted(left / (of_e * of_h), None, w, b, passes, at.gap, converged)
        return Fitted(left / of_e, right / of_h, w, b, passes, at.gap, converged)

    def _factors(self, full: ProjectedSpace, solution: Solution, l2: float) -> Fitted:
        s, passes = self.settings, solution.n_passes
        weight, w, b = full.expand(solution.theta)
        right = self._first_right(weight)
        left, value, at, done = weight @ right, np.inf, solution, False
        scale = max(self.loss.value(np.zeros((len(self.before), self.tokens.shape[1])).squeeze()), 1e-300)
        for _ in range(s.max_rounds):
            space: Space = LeftSpace(self.shape, s.baseline, s.bias, right)
            at = self._turn(space, left, w, b, l2, passes)
            passes += at.n_passes
            both, w, b = space.expand(at.theta)
            left, core = np.linalg.qr(both @ right)
            space = ProjectedSpace(self.shape, s.baseline, s.bias, left)
            at = self._turn(space, core @ right.T, w, b, l2, passes)
            passes += at.n_passes
            both, w, b = space.expand(at.theta)
            right, core = np.linalg.qr((left.T @ both).T)
            left = left @ core.T
            gained, value = value - at.value, at.value
            if gained <= ROUND_GAIN * s.tol * scale:
                done = True
                break
            if passes >= s.max_passes:
                break
        if not done:
            self._tell(passes, gained / scale)
        return self._raw(left, right, w, b, at, passes, done)

    def _turn(self, space: Space, m: Array, w: Array | None, b: float, l2: float, passes: int) -> Solution:
        parts = [m.ravel(), *([] if w is None else [w]), *([np.array([b])] if space.bias else [])]
        tol = TURN_TOL * self.settings.tol
        return self._minimise(space, np.concatenate(parts), l2, tol, max(3, self.settings.max_passes - passes), False)

    def _first_right(self, weight: Array) -> Array:
        """Right factor of the best approximation to a full W in the metric of the Hessian's estimate."""
        if self._moments is None:
            raise TypeError("the full W comes first")
        roots = []
        for values, vectors in (self._moments.of_embedded, self._moments.of_states):
            root = np.sqrt(np.maximum(values, 1e-8 * values.max()))
            roots.append(((vectors * root) @ vectors.T, (vectors / root) @ vectors.T))
        right = np.linalg.svd(roots[0][0] @ weight @ roots[1][0])[2][: self.settings.rank].T
        out: Array = np.linalg.qr(roots[1][1] @ right)[0]
        return out

    def _tell(self, passes: int, gained: float) -> None:
        from sklearn.exceptions import ConvergenceWarning

        warnings.warn(
            f"{self.who} stopped its factors after {passes} passes while a round still gained {gained:.1e} of the loss at "
            "zero; raise max_rounds or max_passes",
            ConvergenceWarning,
            stacklevel=5,
        )
