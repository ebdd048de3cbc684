r"""Apply a weight vector to features, and its adjoint, without ever holding the feature matrix.

For a linear head the interaction terms need no product features:
:math:`r \cdot w_1 + (p \circ r) \cdot w_2 = r \cdot (w_1 + p \circ w_2)`: one effective weight vector for each prompt.
A projection of ``r`` alone needs no projected vectors either, :math:`(r P) \cdot w = r \cdot (P w)`; nor does a residual,
:math:`(z - c B) \cdot w = z \cdot w - c \cdot (B w)`. Rows stream through blocks that stay in the processor's cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.featurizers.terms import Featurizer
from embedrm.preferences import EmbeddedResponses, Rows

Vector = NDArray[np.float64]

BLOCK_ROWS = 1024
MANY_ROWS = 4096
# A gathered copy of the active rows up to this size is kept for the whole fit; beyond it, rows are gathered per pass.
GATHER_LIMIT_BYTES = 256 * 2**20


class LinearMap:
    """The map from weights to rewards, ``theta -> Phi theta``, for the rows of one fit or one prediction.

    Parameters
    ----------
    featurizer : Featurizer
        Fitted.
    responses : EmbeddedResponses
    rows : ndarray of int, optional
        The responses wanted; all where absent.

    Notes
    -----
    Arithmetic is in float64 where a view is float64 and in float32 otherwise; rewards and gradients are float64.
    """

    def __init__(self, featurizer: Featurizer, responses: EmbeddedResponses, rows: Rows | None = None) -> None:
        featurizer.check(responses, "the linear map")
        self.featurizer = featurizer
        self.dim = featurizer.dim_
        views = {v: responses.view(v) for v in (*featurizer.response_views_, *featurizer.prompt_views_)}
        self.dtype: Any = np.float64 if any(m.dtype == np.float64 for m in views.values()) else np.float32
        self._given, self._views = dict(views), views
        everything = rows is None or (len(rows) == responses.n_responses and np.array_equal(rows, np.arange(len(rows))))
        self._rows = None if everything else rows
        self.n = responses.n_responses if self._rows is None else len(self._rows)
        self._prompt_rows = responses.prompt_of if self._rows is None else responses.prompt_of[self._rows]
        self._surface = featurizer.covariate_features(responses, self._rows) if featurizer.covariates_ else None
        self._controls = featurizer.centred_controls(responses, self._rows) if featurizer.residualise_ else None
        self._scaled = featurizer.rescales
        # By the view; where terms are r alone the matrices go into the weights, and vectors are never projected.
        self._projections = featurizer.projection_
        self._folded = bool(self._projections) and featurizer.terms_ == ("r",)
        self._blocks = self._layout()
        if self._projections and not self._folded:
            self._hold()
        if self._rows is not None:
            size = sum(self.n * views[v].shape[1] * views[v].dtype.itemsize for v in featurizer.response_views_)
            if size <= GATHER_LIMIT_BYTES:
                for v in featurizer.response_views_:
                    self._views[v] = views[v][self._rows]
                self._rows = None
        # Without interactions the scaling folds into the weights, and a whole matrix is one product.
        self._plain = featurizer.terms_ == ("r",)
        self._n_passes = 0
        self._whole = (
            self._plain
            and self._rows is None
            and all(_is_one_product(self._views[v], self.dtype) for v in featurizer.response_views_)
        )

    def held_bytes(self) -> int:
        """Bytes that are held beside the vectors as they were given; rows that are held scaled after a pass are more."""
        gathered = [held for view, held in self._views.items() if held is not self._given[view]]
        own = (*gathered, self._prompt_rows, self._surface, self._controls)
        return sum(array.nbytes for array in own if array is not None)

    def _layout(self) -> list[tuple[str, str | None, str, slice]]:
        """Blocks of the weights as they meet the vectors: those of the features, or, folded, one block a view's width."""
        blocks = self.featurizer.feature_blocks()
        self._terms_dim = blocks[-1][-1].stop
        if not self._folded:
            return blocks
        ends = np.cumsum([len(self.featurizer.centre_[view]) for _, _, view, _ in blocks])
        starts = [0, *ends[:-1]]
        return [(t, p, view, slice(int(a), int(b))) for (t, p, view, _), a, b in zip(blocks, starts, ends)]

    def _hold(self) -> None:
        """Scale and project the rows once, where the result may be held, and not again in every pass."""
        f = self.featurizer
        prompts, position = np.unique(self._prompt_rows, return_inverse=True)
        widths = {v: (self._projections[v] if self._projections else m).shape[1] for v, m in self._views.items()}
        size = sum((self.n if v in f.response_views_ else len(prompts)) * k for v, k in widths.items())
        if size * np.dtype(self.dtype).itemsize > GATHER_LIMIT_BYTES:
            return
        for v, k in widths.items():
            rows = prompts if v in f.prompt_views_ else np.arange(self.n) if self._rows is None else self._rows
            held = np.empty((len(rows), k), dtype=self.dtype)
            for start in range(0, len(rows), BLOCK_ROWS):
                held[start : start + BLOCK_ROWS] = self._block(v, rows[start : start + BLOCK_ROWS])
            self._views[v] = held
        self._prompt_rows, self._rows, self._scaled, self._projections = position, None, False, {}

    def _block(self, view: str, rows: slice | Rows) -> NDArray[Any]:
        block = self._views[view][rows]
        if self._scaled:
            f = self.featurizer
            block = (block - f.centre_[view].astype(self.dtype)) / f.spread_[view].astype(self.dtype)
        if self._projections and not self._folded:
            return block.astype(self.dtype, copy=False) @ self._projections[view].astype(self.dtype)
        return block.astype(self.dtype, copy=False)

    def _fold(self, theta: Vector) -> Vector:
        """From weights on the terms to weights as they meet the vectors; (dim,) or (dim, k)."""
        if not self._folded:
            return theta
        outer = self.featurizer.feature_blocks()
        return np.concatenate([self._projections[view] @ theta[columns] for _, _, view, columns in outer])

    def _unfold(self, gradient: Vector) -> Vector:
        """The adjoint of :meth:`_fold`."""
        if not self._folded:
            return gradient
        return np.concatenate([self._projections[view].T @ gradient[columns] for _, _, view, columns in self._blocks])

    def _response_rows(self, start: int) -> slice | Rows:
        stop = min(start + BLOCK_ROWS, self.n)
        return slice(start, stop) if self._rows is None else self._rows[start:stop]

    def _count_pass(self) -> None:
        """From the second pass on, rows that meet prompts are held scaled: a prediction has one pass, a fit hundreds."""
        self._n_passes += 1
        if self._n_passes == 2 and self._scaled and not self._plain:
            self._hold()

    def forward(self, theta: Vector) -> Vector:
        """Rewards ``Phi @ theta``; (n,) for theta (dim,), (n, k) for k columns of weights; float64."""
        self._count_pass()
        weights = self._fold(theta[: self._terms_dim])
        rewards = self._forward_many(weights) if theta.ndim == 2 else self._forward_one(weights)
        if self._surface is not None:
            rewards += self._surface @ theta[self._terms_dim :]
        if self._controls is not None:
            rewards -= self._controls @ (self.featurizer.residual_weights_ @ theta)
        return rewards

    def adjoint(self, g: Vector) -> Vector:
        """Gradient ``Phi.T @ g``; (dim,) for g (n,), (dim, k) for k columns; float64."""
        self._count_pass()
        out = self._unfold(self._adjoint_many(g) if g.ndim == 2 else self._adjoint_one(g))
        if self._surface is not None:
            out = np.concatenate([out, self._surface.T @ g])
        if self._controls is not None:
            out -= self.featurizer.residual_weights_.T @ (self._controls.T @ g)
        return out

    def _forward_one(self, theta: Vector) -> Vector:
        if self._whole:
            rewards = np.zeros(self.n)
            for _, _, view, columns in self._blocks:
                w = theta[columns] / self.featurizer.spread_[view]
                rewards += self._views[view] @ w.astype(self.dtype)
                rewards -= float(self.featurizer.centre_[view] @ w)
            return rewards
        if self._plain:
            return self._forward_plain(theta)
        weights = theta.astype(self.dtype)
        out = np.empty(self.n)
        for start in range(0, self.n, BLOCK_ROWS):
            rows = self._response_rows(start)
            z_p = self._prompt_blocks(start)
            total: Any = 0.0
            for view in self.featurizer.response_views_:
                z_r = self._block(view, rows)
                effective: Any = None
                for term, p, r, columns in self._blocks:
                    if r != view:
                        continue
                    w = weights[columns]
                    if term == "abs(p-r)":
                        total = total + np.abs(z_p[p] - z_r) @ w
                    else:
                        part = w if p is None else z_p[p] * w
                        effective = part if effective is None else effective + part
                if effective is not None:
                    dot = z_r @ effective if effective.ndim == 1 else np.einsum("ij,ij->i", z_r, effective)
                    total = total + dot
            out[start : start + BLOCK_ROWS] = total
        return out

    def _forward_plain(self, theta: Vector) -> Vector:
        """Rewards of rows that stream, unscaled: the scaling is in the weights."""
        folded, level = [], 0.0
        for _, _, view, columns in self._blocks:
            w = theta[columns] / self.featurizer.spread_[view]
            folded.append((self._views[view], w.astype(self.dtype)))
            level += float(self.featurizer.centre_[view] @ w)
        out = np.full(self.n, -level)
        for start in range(0, self.n, BLOCK_ROWS):
            rows = self._response_rows(start)
            for matrix, weights in folded:
                out[start : start + BLOCK_ROWS] += matrix[rows].astype(self.dtype, copy=False) @ weights
        return out

    def _adjoint_one(self, g: Vector) -> Vector:
        out = np.zeros(self._blocks[-1][-1].stop)
        total_slope = float(g.sum())
        g = g.astype(self.dtype)
        if self._whole:
            for _, _, view, columns in self._blocks:
                centred = (g @ self._views[view]).astype(np.float64) - total_slope * self.featurizer.centre_[view]
                out[columns] = centred / self.featurizer.spread_[view]
            return out
        if self._plain:
            for start in range(0, self.n, BLOCK_ROWS):
                rows = self._response_rows(start)
                for _, _, view, columns in self._blocks:
                    raw = self._views[view][rows].astype(self.dtype, copy=False)
                    out[columns] += g[start : start + BLOCK_ROWS] @ raw
            for _, _, view, columns in self._blocks:
                out[columns] -= total_slope * self.featurizer.centre_[view]
                out[columns] /= self.featurizer.spread_[view]
            return out
        for start in range(0, self.n, BLOCK_ROWS):
            rows = self._response_rows(start)
            z_p = self._prompt_blocks(start)
            slope = g[start : start + BLOCK_ROWS]
            for view in self.featurizer.response_views_:
                z_r = self._block(view, rows)
                weighted: Any = None
                for term, p, r, columns in self._blocks:
                    if r != view:
                        continue
                    if term == "r":
                        out[columns] += slope @ z_r
                    elif term == "abs(p-r)":
                        out[columns] += slope @ np.abs(z_p[p] - z_r)
                    else:
                        weighted = slope[:, None] * z_r if weighted is None else weighted
                        out[columns] += np.einsum("ij,ij->j", weighted, z_p[p])
        return out

    def _forward_many(self, theta: Vector) -> Vector:
        """Products of several weight vectors; interactions are made once for all of them."""
        out = np.empty((self.n, theta.shape[1]))
        if self._whole:
            parts, level = [], np.zeros(theta.shape[1])
            for _, _, view, columns in self._blocks:
                w = theta[columns] / self.featurizer.spread_[view][:, None]
                parts.append((self._views[view], w.astype(self.dtype)))
                level += self.featurizer.centre_[view] @ w
            # a product with few columns is faster in pieces than whole: its result stays in the cache
            for start in range(0, self.n, MANY_ROWS):
                rows_of = slice(start, start + MANY_ROWS)
                block = parts[0][0][rows_of] @ parts[0][1]
                for matrix, w in parts[1:]:
                    block += matrix[rows_of] @ w
                np.subtract(block, level, out=out[rows_of])
            return out
        weights = theta.astype(self.dtype)
        for start in range(0, self.n, BLOCK_ROWS):
            rows = np.arange(start, min(start + BLOCK_ROWS, self.n))
            out[rows] = self._met(rows) @ weights
        return out

    def _adjoint_many(self, g: Vector) -> Vector:
        out = np.zeros((self._blocks[-1][-1].stop, g.shape[1]))
        if self._whole:
            total = np.einsum("ij->j", g, dtype=np.float64)
            g = g.astype(self.dtype, copy=False)
            for _, _, view, columns in self._blocks:
                product = np.zeros((columns.stop - columns.start, g.shape[1]))
                for start in range(0, self.n, MANY_ROWS):
                    part = slice(start, start + MANY_ROWS)
                    product += self._views[view][part].T @ g[part]
                centred = product - self.featurizer.centre_[view][:, None] * total
                out[columns] = centred / self.featurizer.spread_[view][:, None]
            return out
        g = g.astype(self.dtype, copy=False)
        for start in range(0, self.n, BLOCK_ROWS):
            rows = np.arange(start, min(start + BLOCK_ROWS, self.n))
            out += self._met(rows).T @ g[rows]
        return out

    def _prompt_blocks(self, start: int) -> dict[str | None, NDArray[Any]]:
        rows = self._prompt_rows[start : start + BLOCK_ROWS]
        return {p: self._block(p, rows) for p in self.featurizer.prompt_views_}

    def features(self, local: Rows) -> NDArray[Any]:
        """Features of some of the rows, materialised; ``local`` are positions among them."""
        return self._features(local)

    def differences(self, pairs: Rows) -> NDArray[Any]:
        """Features of the chosen minus features of the rejected response, materialised; shape (len(pairs), dim)."""
        chosen, rejected = (self._features(pairs[:, side]) for side in (0, 1))
        chosen -= rejected
        return chosen

    def _features(self, local: Rows) -> NDArray[Any]:
        out = self._met(local)
        if self._folded:
            parts = [out[:, c] @ self._projections[v].astype(self.dtype) for _, _, v, c in self._blocks]
            out = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        if self._surface is not None:
            out = np.concatenate([out, self._surface[local].astype(self.dtype)], axis=1)
        if self._controls is not None:
            b = self.featurizer.residual_weights_.astype(self.dtype)
            out -= self._controls[local].astype(self.dtype) @ b
        return out

    def _met(self, local: Rows) -> NDArray[Any]:
        """What the folded weights are multiplied with: the terms' features, where nothing is folded."""
        rows = local if self._rows is None else self._rows[local]
        z_r = {v: self._block(v, rows) for v in self.featurizer.response_views_}
        z_p = {v: self._block(v, self._prompt_rows[local]) for v in self.featurizer.prompt_views_}
        out = np.empty((len(local), self._blocks[-1][-1].stop), dtype=self.dtype)
        for term, p, r, columns in self._blocks:
            if p is None:
                out[:, columns] = z_r[r]
            elif term == "p*r":
                np.multiply(z_p[p], z_r[r], out=out[:, columns])
            else:
                out[:, columns] = np.abs(z_p[p] - z_r[r])
        return out


def _is_one_product(matrix: NDArray[Any], dtype: Any) -> bool:
    """Whether BLAS reads a matrix where it lies; NumPy would copy others whole, mapped files too, or do without BLAS."""
    step, item = matrix.strides[0], matrix.itemsize
    by_rows = matrix.strides[1] == item and step >= matrix.shape[1] * item and step % item == 0
    return matrix.dtype == dtype and matrix.flags.aligned and (by_rows or matrix.flags.forc)
