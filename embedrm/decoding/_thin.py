r"""The map of ``_bilinear`` where one of two thin factors of :math:`W = U V^\top` is held: r numbers a position, not d.

With U held, a score is :math:`\langle M h, U^\top e(v)\rangle` for M of r rows; with V held, it is
:math:`\langle V^\top h, L^\top e(v)\rangle`. A pass then multiplies states by r columns and looks up rows of r numbers,
where the whole W looks up rows of d.
"""

from __future__ import annotations

import numpy as np

from embedrm.decoding._bilinear import TABLE_ROWS, BilinearOperator
from embedrm.decoding._spaces import LeftSpace, ProjectedSpace, Space
from embedrm.decoding.base import Array, read_rows, slices

# More columns than this share of a state's size are no cheaper than all of W.
THIN = 0.25


def is_thin(space: Space) -> bool:
    """Whether a space has so few columns that :class:`ThinOperator` is the cheaper map."""
    if isinstance(space, LeftSpace):
        return space.r <= THIN * min(space.shape)
    return isinstance(space, ProjectedSpace) and space.left is not None and space.n <= THIN * min(space.shape)


class ThinOperator(BilinearOperator):
    """As :class:`~embedrm.decoding._bilinear.BilinearOperator`, to rounding; its space holds one factor."""

    def _embedded(self, columns: Array) -> Array:
        """Embeddings of the known tokens times a few columns."""
        out = np.empty((len(self.known), columns.shape[1]))
        for part in slices(len(self.known), TABLE_ROWS):
            np.matmul(self.e_rows(part), columns, out=out[part])
        return out

    def _pass(self, theta: Array | None, factor: Array | None) -> tuple[Array, Array]:
        space, d = self.space, self.states.shape[1]
        left = space.left if isinstance(space, ProjectedSpace) else None
        thin, w, b = (None, None, 0.0) if theta is None else space.parts(theta)
        # of each token, and of each state: a score is the dot product of the two
        if left is not None:
            if not hasattr(self, "_held"):
                self._held = self._embedded(left)
            r = left.shape[1]
            by_token: Array | None = self._held
            by_state: Array | None = thin
        else:
            held: Array = space.right  # type: ignore[attr-defined]
            by_state, r = held.T, held.shape[1]
            by_token = None if thin is None else self._embedded(thin)
        # one product gives the states' columns and the baseline
        stacked = np.zeros((r + 1, d))
        if by_state is not None:
            stacked[:r] = by_state
        if w is not None:
            stacked[r] = w
        stacked /= self.units[0]
        outputs = np.empty((len(self.rows), self.n_columns))
        pushed, sums = np.zeros((r + 1, d)), np.zeros((len(self.known), r if left is None else 0))
        bias = 0.0
        for index, block in enumerate(self.blocks):
            h, tokens = read_rows(self.states, self.rows[block]), self.tokens[block]
            columns = h @ stacked.T if by_state is not None else None
            looked = None if by_token is None else np.take(by_token, tokens, axis=0)
            if theta is not None and columns is not None and looked is not None:
                np.einsum("nkr,nr->nk", looked, columns[:, :r], out=outputs[block])
                outputs[block, 0] += columns[:, r] + b
            if factor is None:
                continue
            slope = factor[block] if theta is None else factor[block] * outputs[block]
            pull = np.zeros((len(h), r + 1))
            if left is not None and looked is not None:
                np.einsum("nk,nkr->nr", slope, looked, out=pull[:, :r])
            elif columns is not None:
                self._gather(index, columns[:, :r], slope, sums)
            pull[:, r] = slope[:, 0]
            if left is None:
                pushed[r] += pull[:, r] @ h
            else:
                pushed += pull.T @ h
            bias += float(slope[:, 0].sum())
        if factor is None:
            return outputs, np.zeros(0)
        pushed /= self.units[0]
        grown = pushed[:r]
        if left is None:
            grown = np.zeros((self.embeddings.shape[1], r))
            for part in slices(len(self.known), TABLE_ROWS):
                grown += self.e_rows(part).T @ sums[part]
        return outputs, space.packed(grown, pushed[r], bias)
