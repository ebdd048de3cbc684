r"""Linear experts in one pass over the vectors, each with its own scaling of the features.

With the scaling folded into the weights an expert is :math:`r \cdot w_e + (p \circ r) \cdot b_e + p \cdot c_e + k_e` on the
vectors as they are (products: less one common centre). Several experts on r are then one matrix product, and a mixture of
experts on products is one effective weight vector for each prompt,
:math:`r \cdot \sum_e g_e (w_e + p \circ b_e) + \dots`, whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.featurizers import Featurizer
from embedrm.heads.linear import LinearHead
from embedrm.numerics.threads import threads_for
from embedrm.preferences import EmbeddedResponses, Rows
from embedrm.reward_model import RewardModel, check_finite

Array = NDArray[np.float64]

BLOCK_ROWS = 1024
TILE = 16
"""Experts multiplied at once. One shape of product for any number of experts: an added one changes no bit of the others."""

_WHO = "LinearHead"


class LinearExperts:
    """Calibrated linear experts, folded; see :meth:`of`."""

    def __init__(self, heads: Sequence[LinearHead], scale: Array, offset: Array) -> None:
        self.featurizer: Featurizer = heads[0].featurizer_
        self.n_experts = len(heads)
        first = self.featurizer
        self.has_products = first.terms_ != ("r",)
        names = (*first.response_views_, *first.prompt_views_)
        centre = {v: first.centre_[v] if self.has_products else np.zeros_like(first.centre_[v]) for v in names}
        self.centre = centre
        self.response = {v: np.zeros((len(centre[v]), self.n_experts)) for v in first.response_views_}
        self.prompt = {v: np.zeros((len(centre[v]), self.n_experts)) for v in first.prompt_views_}
        self.product = {(p, r): np.zeros_like(self.response[r]) for p in self.prompt for r in self.response}
        level = np.zeros(self.n_experts)
        for e, head in enumerate(heads):
            f = head.featurizer_
            shift = {v: centre[v] - f.centre_[v] for v in names}
            for _, p, r, columns in f.feature_blocks():
                w = head.coef_[columns]
                w = (f.projection_[r] @ w if f.projection_ else w) / f.spread_[r]
                if p is None:
                    self.response[r][:, e] += w
                    level[e] += shift[r] @ w
                    continue
                w = w / f.spread_[p]
                self.product[p, r][:, e] += w
                self.response[r][:, e] += shift[p] * w
                self.prompt[p][:, e] += shift[r] * w
                level[e] += (shift[p] * shift[r]) @ w
        self.level = (level - offset) * scale
        for weights in (*self.response.values(), *self.prompt.values(), *self.product.values()):
            weights *= scale

    @classmethod
    def of(cls, experts: Sequence[RewardModel], scale: Array, offset: Array) -> LinearExperts | None:
        """Fold experts that allow it: linear heads on the same terms r and p*r over the same views; None for others."""
        heads = [e for e in experts if type(e) is LinearHead]
        if len(heads) < max(2, len(experts)):
            return None
        keys = {(f.terms_, f.response_views_, f.prompt_views_) for f in (h.featurizer_ for h in heads)}
        terms = next(iter(keys))[0]
        plain = all(
            not h.featurizer_.covariates_
            and not h.featurizer_.residualise_
            and (terms == ("r",) or not h.featurizer_.projection_)
            for h in heads
        )
        return cls(heads, scale, offset) if len(keys) == 1 and plain and "abs(p-r)" not in terms else None

    def rewards(self, responses: EmbeddedResponses, rows: Rows | None) -> Array:
        """Reward of every expert; (n, n_experts). For experts without products."""
        dtype = self._check(responses)
        tiles = {v: _tiles(w, dtype) for v, w in self.response.items()}
        out = np.empty((responses.n_responses if rows is None else len(rows), self.n_experts))
        # products of a few columns are over before a second thread has begun
        with threads_for(0):
            for part, mine in _blocks(len(out), rows):
                out[part] = self._tiled(responses, mine, tiles, dtype)
        check_finite(out.sum(axis=1), _WHO)
        return out

    def mix(self, gates: Array, prompts: Rows, local: Rows, responses: EmbeddedResponses, rows: Rows | None) -> Array:
        """Gated sums of rewards; (n,).

        Parameters
        ----------
        gates : ndarray of shape (n_prompts_met, n_experts)
        prompts : ndarray of shape (n_prompts_met,), int
            Prompt of each gate.
        local : ndarray of shape (n,), int
            Gate of each response.
        responses : EmbeddedResponses
        rows : ndarray of shape (n,), int, or None
        """
        with threads_for(0):
            return check_finite(self._mix(gates, prompts, local, responses, rows), _WHO)

    def _mix(self, gates: Array, prompts: Rows, local: Rows, responses: EmbeddedResponses, rows: Rows | None) -> Array:
        dtype = self._check(responses)
        out = np.empty(len(local))
        if not self.has_products:
            tiles = {v: _tiles(w, dtype) for v, w in self.response.items()}
            for part, mine in _blocks(len(out), rows):
                rewards = self._tiled(responses, mine, tiles, dtype)
                np.einsum("ij,ij->i", gates[local[part]], rewards, out=out[part])
            return out
        response = {v: np.ascontiguousarray(w.T, dtype=dtype) for v, w in self.response.items()}
        product = {key: np.ascontiguousarray(w.T, dtype=dtype) for key, w in self.product.items()}
        centre = {v: c.astype(dtype) for v, c in self.centre.items()}
        for part, mine in _blocks(len(out), rows):
            met, position = np.unique(local[part], return_inverse=True)
            gate = gates[met]
            narrow = gate.astype(dtype)
            z_p = {p: responses.view(p)[prompts[met]].astype(dtype) - centre[p] for p in self.prompt}
            level = gate @ self.level
            for p, weights in self.prompt.items():
                level += np.einsum("ij,ij->i", z_p[p], narrow @ weights.T.astype(dtype))
            total = level[position]
            for r, weights in response.items():
                effective = narrow @ weights
                for p in self.prompt:
                    effective += z_p[p] * (narrow @ product[p, r])
                z_r = responses.view(r)[mine].astype(dtype) - centre[r]
                total += np.einsum("ij,ij->i", z_r, effective[position])
            out[part] = total
        return out

    def _check(self, responses: EmbeddedResponses) -> Any:
        self.featurizer.check(responses, _WHO)
        double = any(responses.view(v).dtype == np.float64 for v in self.centre)
        return np.float64 if double else np.float32

    def _tiled(
        self, responses: EmbeddedResponses, mine: Any, tiles: dict[str, list[NDArray[Any]]], dtype: Any
    ) -> NDArray[Any]:
        total: Any = self.level
        for view, weights in tiles.items():
            x = responses.view(view)[mine].astype(dtype, copy=False)
            products = [x @ tile for tile in weights]
            together = products[0] if len(products) == 1 else np.concatenate(products, axis=1)
            total = total + together[:, : self.n_experts]
        rewards: NDArray[Any] = total
        return rewards


def _tiles(weights: Array, dtype: Any) -> list[NDArray[Any]]:
    """Columns in groups of TILE, the last filled up with zeros."""
    n = weights.shape[1]
    padded = np.zeros((len(weights), -(-n // TILE) * TILE), dtype=dtype)
    padded[:, :n] = weights
    return [np.ascontiguousarray(padded[:, start : start + TILE]) for start in range(0, padded.shape[1], TILE)]


def _blocks(n: int, rows: Rows | None) -> Iterator[tuple[slice, Any]]:
    """Slices of the result, and the rows of the views they belong to."""
    for start in range(0, n, BLOCK_ROWS):
        part = slice(start, min(start + BLOCK_ROWS, n))
        yield part, part if rows is None else rows[part]
