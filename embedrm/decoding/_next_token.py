"""What a head on next tokens does once it is fitted: scores of all tokens, of some, and of a text's own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from embedrm.decoding._scorer import TokenScorer
from embedrm.decoding.base import Array, PrefixHead, TokenRecord, block_rows, check_scores, slices
from embedrm.errors import InvalidInputError
from embedrm.numerics.digest import array_digest


class NextTokenHead(PrefixHead):
    """Base class: a baseline and a bilinear term of a state; see :class:`embedrm.decoding.arm.ARMHead` for the parts."""

    factors_: dict[str, Array]
    baseline_weight_: Array
    bias_: Array
    embeddings_digest_: str
    increments_: bool
    start_: Array
    keep_embeddings: bool
    baseline: bool
    bias: bool

    @property
    def weight_(self) -> Array:
        """W, (n_attributes, d_e, d)."""
        check_is_fitted(self, "factors_")
        if "weight" in self.factors_:
            return self.factors_["weight"]
        full: Array = self.factors_["left"] @ self.factors_["right"].transpose(0, 2, 1)
        return full

    def parameter_counts(self) -> dict[str, int]:
        """Numbers learned: of W (or its factors), of the baseline and the bias, where there are such, and in ``"total"``."""
        check_is_fitted(self, "factors_")
        counts = {
            "weight": sum(a.size for a in self.factors_.values()),
            "baseline": self.baseline_weight_.size if self.baseline else 0,
            "bias": self.bias_.size if self.bias else 0,
        }
        return {**counts, "total": sum(counts.values())}

    def attach(self, embeddings: NDArray[Any]) -> NextTokenHead:
        """Give a loaded head the table that was not saved with it; another table is refused. Returns self."""
        check_is_fitted(self, "embeddings_digest_")
        table = check_table(embeddings, self.vocab_size_)
        if array_digest({"embeddings": table}) != self.embeddings_digest_:
            raise InvalidInputError(
                "ARMHead was fitted with other output embeddings than these; use its language model's"
            )
        self._hold(table)
        return self

    def _hold(self, table: NDArray[Any]) -> None:
        # a name without a trailing underscore is not saved
        if self.keep_embeddings:
            self.embeddings_ = table
        else:
            self._table = table

    def _embeddings(self) -> NDArray[Any]:
        check_is_fitted(self, "factors_")
        table: NDArray[Any] | None = getattr(self, "embeddings_", getattr(self, "_table", None))
        if table is None:
            raise InvalidInputError(
                "ARMHead was saved without its embeddings (keep_embeddings=False); give it "
                "head.attach(language_model.output_embeddings()) first"
            )
        return table

    def next_rewards(self, h: NDArray[Any], ids: ArrayLike | None = None, prefix: Array | None = None) -> NDArray[Any]:
        """Rewards of next tokens.

        Parameters
        ----------
        h : ndarray of shape (n, dim)
            States after the prefixes.
        ids : array-like of shape (k,) or (n, k), optional
            Tokens to reward, the same for all prefixes or some for each; the whole vocabulary where absent.
        prefix : ndarray of shape (n, n_attributes), optional
            Reward of each prefix so far, which begins with ``start_``; needed by a head of increments, and only by one.

        Returns
        -------
        ndarray of shape (n, V, n_attributes) or (n, k, n_attributes)
            float64 where ``h`` is, else float32.
        """
        scores = self.next_scores(h, ids)
        if self.increments_:
            if prefix is None:
                raise InvalidInputError(
                    "ARMHead(loss='delta-distillation') gives increments; give the rewards of the prefixes so far as prefix "
                    "(start_ after BOS), or ask for next_scores"
                )
            return scores + np.asarray(prefix, dtype=scores.dtype)[:, None, :]
        if prefix is not None:
            raise InvalidInputError("ARMHead reads prefix only with loss='delta-distillation'; leave it out")
        return self._link(scores)

    def next_scores(self, h: NDArray[Any], ids: ArrayLike | None = None) -> NDArray[Any]:
        """Baseline plus delta, before the link; as in :meth:`next_rewards`. Of a head of increments, the increments."""
        h = self._states(h)
        scores: NDArray[Any] = self._delta(h, ids) + self._baseline(h)[:, None, :]
        check_scores(scores, type(self).__name__)
        return scores

    def baseline_scores(self, h: NDArray[Any]) -> NDArray[Any]:
        """The first term <h, w> (and the bias), (n, n_attributes): the score of a token of which nothing is known."""
        return self._baseline(self._states(h))

    def delta_scores(self, h: NDArray[Any], ids: ArrayLike | None = None) -> NDArray[Any]:
        """The second term <W h, e(v)>, (n, V, n_attributes) or (n, k, n_attributes)."""
        return self._delta(self._states(h), ids)

    def _states(self, h: NDArray[Any]) -> NDArray[Any]:
        check_is_fitted(self, "factors_")
        h = np.asanyarray(h)
        self._check_vectors(h)
        return np.asarray(h, dtype=np.float64 if h.dtype == np.float64 else np.float32)

    def _baseline(self, h: NDArray[Any]) -> NDArray[Any]:
        out: NDArray[Any] = h @ self.baseline_weight_.T.astype(h.dtype) + self.bias_.astype(h.dtype)
        return out

    def _queries(self, h: NDArray[Any]) -> NDArray[Any]:
        """W h of every attribute, (n, n_attributes, d_e)."""
        if "weight" in self.factors_:
            weight = self.factors_["weight"].astype(h.dtype)
            flat = h @ weight.reshape(-1, weight.shape[2]).T
            return np.asarray(flat.reshape(len(h), *weight.shape[:2]))
        left, right = (self.factors_[k].astype(h.dtype) for k in ("left", "right"))
        return np.stack([(h @ v) @ u.T for u, v in zip(left, right)], axis=1)

    def _delta(self, h: NDArray[Any], ids: ArrayLike | None) -> NDArray[Any]:
        queries, table = self._queries(h), self._embeddings()
        if ids is None:
            flat = queries.reshape(-1, table.shape[1]) @ table[: self.vocab_size_].astype(h.dtype, copy=False).T
            return np.asarray(flat.reshape(len(h), self.n_attributes, -1).transpose(0, 2, 1))
        wanted = self._check_ids(ids, len(h))
        e = table[wanted].astype(h.dtype, copy=False)
        if wanted.ndim == 1:
            flat = queries.reshape(-1, table.shape[1]) @ e.T
            return np.asarray(flat.reshape(len(h), self.n_attributes, -1).transpose(0, 2, 1))
        return np.asarray(e @ queries.transpose(0, 2, 1))

    def _check_ids(self, ids: ArrayLike, n: int) -> NDArray[np.intp]:
        wanted = np.asarray(ids)
        good = wanted.dtype.kind in "iu" and (wanted.ndim == 1 or (wanted.ndim == 2 and len(wanted) == n))
        if not good:
            raise InvalidInputError(
                f"ARMHead expects ids (k,) or ({n}, k), whole numbers, got {wanted.dtype} of shape {wanted.shape}"
            )
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.vocab_size_):
            raise InvalidInputError(
                f"ARMHead expects ids from 0 to {self.vocab_size_ - 1}, got {wanted.min()} to {wanted.max()}"
            )
        return wanted.astype(np.intp)

    def token_rewards(self, states: TokenRecord) -> Array:
        """Reward of every token after the tokens before it; shape (n_rows, n_attributes), NaN at BOS."""
        self.check(states)
        ids, offsets = np.asarray(states.ids, dtype=np.intp), np.asarray(states.offsets)
        out = np.full((len(ids), self.n_attributes), np.nan)
        # every row but the last is the state before the next row's token, or before the next text's BOS
        for part in slices(len(ids) - 1, block_rows(self.n_features_in_)):
            after = slice(part.start + 1, part.stop + 1)
            h = np.asarray(states.states[part], dtype=np.float64)
            scores = np.einsum("nad,nd->na", self._queries(h), self._embeddings()[ids[after]].astype(np.float64))
            out[after] = scores + self._baseline(h)
        out[offsets[:-1]] = np.nan
        read = np.ones(len(ids), dtype=bool)
        read[offsets[:-1]] = False
        check_scores(out[read], type(self).__name__)
        if self.increments_:
            out[offsets[:-1]] = self.start_
            for first, last in pairwise(offsets):
                np.cumsum(out[first:last], axis=0, out=out[first:last])
            return out
        return np.asarray(self._link(out), dtype=np.float64)

    def text_rewards(self, states: TokenRecord) -> Array:
        """Reward of each whole text: of its last token after the others; shape (n_texts, n_attributes), float64.

        Raises
        ------
        InvalidInputError
            Where a text has no token after BOS.
        """
        self.check(states)
        empty = int((np.diff(states.offsets) < 2).sum())
        if empty:
            raise InvalidInputError(f"ARMHead rewards tokens, and {empty} text(s) have none after BOS; leave them out")
        return self.token_rewards(states)[np.asarray(states.offsets[1:]) - 1]

    def scorer(self, columns: Sequence[int]) -> TokenScorer:
        """Return what gives the rewards (of a head of increments, the increments) of some attributes, step after step.

        Parameters
        ----------
        columns : sequence of int
            Attributes, by position.
        """
        check_is_fitted(self, "factors_")
        return TokenScorer(self, columns)

    def torch_tensors(self) -> dict[str, Any]:
        """Return ``weight`` (or ``left`` and ``right``), ``baseline`` and ``bias`` as float32 torch tensors."""
        import torch

        check_is_fitted(self, "factors_")
        parts = {**self.factors_, "baseline": self.baseline_weight_, "bias": self.bias_}
        return {name: torch.from_numpy(a.astype(np.float32)) for name, a in parts.items()}


def check_table(embeddings: Any, vocab_size: int) -> NDArray[Any]:
    """Return output embeddings with a row for each token, or raise."""
    table = np.asarray(embeddings)
    if table.ndim != 2 or table.dtype.kind != "f" or len(table) < vocab_size:
        raise InvalidInputError(
            f"ARMHead needs embeddings (V, d) of floating point with a row for each of {vocab_size} tokens, got "
            f"{table.dtype} {table.shape}; use language_model.output_embeddings()"
        )
    if not np.isfinite(table).all():
        raise InvalidInputError("ARMHead needs finite embeddings, and these hold NaN or infinity")
    return table.astype(np.float32) if table.dtype == np.float16 else table
