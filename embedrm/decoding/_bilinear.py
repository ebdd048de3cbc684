r"""Scores :math:`\langle Wh, e(v)\rangle + \langle h, w\rangle + b` of positions as a linear map of (W, w, b).

No pass multiplies a state by a d x d matrix. With the table T = E W, which is vocabulary times d and made once a pass, the
score of token v after state h is the dot product of h with row v of T, plus the baseline; and the gradient in W is E^T G,
where row v of G sums slope times state over the positions of v. So a pass costs a few dot products a position, and memory is
a few tables of vocabulary times d, however many states there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding._spaces import Moments, Space
from embedrm.decoding.base import Array, block_rows, read_rows, slices

TABLE_ROWS = 4096


class TokenIndex:
    """Which tokens are scored where: the same for every operator on the same positions.

    Parameters
    ----------
    tokens : ndarray of shape (n, 1 + K)
        The token at each position, and random ones.
    dim : int
        Numbers in a state, by which positions fall into blocks.

    Attributes
    ----------
    known : ndarray of shape (n_known,)
        Tokens that occur: only they have a row in the tables.
    tokens : ndarray of shape (n, 1 + K), int32
        As rows of ``known``.
    blocks : list of slice
    """

    def __init__(self, tokens: NDArray[Any], dim: int) -> None:
        self.known, local = np.unique(tokens, return_inverse=True)
        self.tokens: NDArray[np.int32] = local.reshape(tokens.shape).astype(np.int32)
        self.blocks = list(slices(len(tokens), block_rows(dim)))
        self.sorted = [self._sort(block) for block in self.blocks]

    def _sort(self, block: slice) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """Tokens of a block, where each one's entries begin when sorted, and the entries in that order."""
        flat = self.tokens[block].ravel()
        order = np.argsort(flat, kind="stable").astype(np.int32)
        present, starts = np.unique(flat[order], return_index=True)
        return present.astype(np.int32), np.append(starts, len(flat)).astype(np.int32), order


class BilinearOperator:
    r"""Outputs (n, 1 + K) of n positions: the score of the token that came, and delta of K other tokens.

    Parameters
    ----------
    states : ndarray of shape (n_rows, d_h)
        Perhaps mapped from disk; read block by block.
    rows : ndarray of shape (n,)
        Row of the state before each position, rising.
    tokens : TokenIndex
    embeddings : ndarray of shape (V, d_e)
    units : (float, float)
        Root mean square norms of states and of embeddings: all parameters are in these units.
    space : Space
        What the parameters are: all of W, or one of its factors.
    l2 : float
    expected : (float, Array, Array), optional
        Weight rho and second moments C (d_e, d_e) of all embeddings and H (d_h, d_h) of states: adds
        :math:`\rho\,\mathrm{tr}(W H W^\top C)`, the regulariser's expectation over all tokens.
    """

    def __init__(
        self,
        states: NDArray[Any],
        rows: NDArray[np.intp],
        tokens: TokenIndex,
        embeddings: NDArray[Any],
        units: tuple[float, float],
        space: Space,
        l2: float,
        expected: tuple[float, Array, Array] | None = None,
    ) -> None:
        self.states, self.rows, self.units, self.space, self.l2 = states, rows, units, space, l2
        self.expected = expected
        self.embeddings = embeddings
        self.known, self.tokens = tokens.known, tokens.tokens
        self.blocks, self.sorted = tokens.blocks, tokens.sorted
        self.n_columns = self.tokens.shape[1]

    def e_rows(self, part: slice) -> Array:
        """Embeddings of some of the known tokens, in units."""
        return np.asarray(self.embeddings[self.known[part]], dtype=np.float64) / self.units[1]

    def _h(self, block: slice) -> Array:
        h = read_rows(self.states, self.rows[block])
        h /= self.units[0]
        return h

    def _table(self, weight: Array) -> Array:
        table = np.empty((len(self.known), weight.shape[1]))
        for part in slices(len(self.known), TABLE_ROWS):
            np.matmul(self.e_rows(part), weight, out=table[part])
        return table

    def _scores(self, h: Array, block: slice, table: Array, w: Array | None, b: float) -> Array:
        tokens = self.tokens[block]
        out = np.empty((len(h), self.n_columns))
        for k in range(self.n_columns):
            np.einsum("ij,ij->i", h, table[tokens[:, k]], out=out[:, k])
        if w is not None:
            out[:, 0] += h @ w
        out[:, 0] += b
        return out

    def _gather(self, index: int, h: Array, slope: Array, sums: Array) -> None:
        """Add slope times state to the rows of the tokens of a block."""
        from scipy.sparse import csr_matrix

        present, starts, order = self.sorted[index]
        matrix = csr_matrix((slope.ravel()[order], order // self.n_columns, starts), shape=(len(present), len(h)))
        sums[present] += matrix @ h

    def _reduce(self, sums: Array, baseline: Array, bias: float) -> Array:
        weight = np.zeros((self.embeddings.shape[1], sums.shape[1]))
        for part in slices(len(self.known), TABLE_ROWS):
            weight += self.e_rows(part).T @ sums[part]
        return self.space.reduce(weight, baseline, bias)

    def _pass(self, theta: Array | None, factor: Array | None) -> tuple[Array, Array]:
        """Outputs of parameters, and the adjoint of ``factor`` (times those outputs where there are parameters)."""
        outputs = np.empty((len(self.rows), self.n_columns))
        if theta is not None:
            weight, w, b = self.space.expand(theta)
            table = self._table(weight)
        sums = np.zeros((len(self.known) if factor is not None else 0, self.states.shape[1]))
        baseline, bias = np.zeros(self.states.shape[1]), 0.0
        for index, block in enumerate(self.blocks):
            h = self._h(block)
            if theta is not None:
                outputs[block] = self._scores(h, block, table, w, b)
            if factor is None:
                continue
            slope = factor[block] if theta is None else factor[block] * outputs[block]
            self._gather(index, h, slope, sums)
            first = np.ascontiguousarray(slope[:, 0])
            baseline += first @ h
            bias += float(first.sum())
        return outputs, np.zeros(0) if factor is None else self._reduce(sums, baseline, bias)

    def _columns(self, slope: Array) -> Array:
        return slope if slope.ndim == 2 else slope[:, None]

    def _shaped(self, outputs: Array) -> Array:
        return outputs if self.n_columns > 1 else outputs[:, 0]

    def forward(self, theta: Array) -> Array:
        """Outputs (n, 1 + K), or (n,) where there are no other tokens."""
        if not theta.any():
            return self._shaped(np.zeros((len(self.rows), self.n_columns)))
        return self._shaped(self._pass(theta, None)[0])

    def adjoint(self, slope: Array) -> Array:
        """Sum over positions of slope times the gradient of the output."""
        return self._pass(None, self._columns(slope))[1]

    def normal(self, direction: Array, curvature: Array) -> tuple[Array, Array]:
        """Outputs of a direction, and the adjoint of curvature times them, in one pass."""
        outputs, pushed = self._pass(direction, self._columns(curvature))
        return self._shaped(outputs), pushed

    def penalty(self, theta: Array) -> Array:
        """Gradient of l2 / 2 of the weights, and of the expected regulariser."""
        pull = self.l2 * self.space.penalised(theta)
        if self.expected is not None:
            rho, embedded, moment = self.expected
            weight = self.space.expand(theta)[0]
            zero = np.zeros(weight.shape[1])
            pull = pull + self.space.reduce(2.0 * rho * (embedded @ weight @ moment), zero, 0.0)
        return pull

    def precondition(self, gradient: Array) -> Array:
        """As the space has it."""
        return self.space.precondition(gradient)

    def moments(self, curvature: Array) -> Moments:
        """Second moments that the Hessian is nearly a Kronecker product of.

        Parameters
        ----------
        curvature : ndarray of shape (n,) or (n, 1 + K)

        Returns
        -------
        Moments
            ``embedded`` sums curvature times (e, 1)(e, 1)^T; the baseline, and so the 1, is in the first column only.
            ``states`` is the mean of h h^T by the first column's curvature.
        """
        c = self._columns(curvature)
        by_token = np.zeros((len(self.known), 2))
        by_token[:, 0] = np.bincount(self.tokens[:, 0], c[:, 0], len(self.known))
        for k in range(1, self.n_columns):
            by_token[:, 1] += np.bincount(self.tokens[:, k], c[:, k], len(self.known))
        d_e, d_h = self.embeddings.shape[1], self.states.shape[1]
        embedded, moment = np.zeros((d_e + 1, d_e + 1)), np.zeros((d_h, d_h))
        for part in slices(len(self.known), TABLE_ROWS):
            e = self.e_rows(part)
            embedded[:d_e, :d_e] += e.T @ (e * by_token[part].sum(axis=1)[:, None])
            embedded[:d_e, d_e] += by_token[part, 0] @ e
        embedded[d_e, :d_e] = embedded[:d_e, d_e]
        embedded[d_e, d_e] = total = float(by_token[:, 0].sum())
        for block in self.blocks:
            h = self._h(block)
            moment += h.T @ (h * c[block, :1])
        return Moments(embedded, moment / max(total, np.finfo(float).tiny))
