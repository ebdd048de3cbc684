"""Rewards for a loop of single steps: what is the same at every step is computed once, and all of it is torch.

A product of NumPy's would wake a second pool of threads beside the language model's, and each would then wait for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from embedrm.decoding._next_token import NextTokenHead
    from embedrm.decoding.rad import RADHead


class TokenScorer:
    r"""What ``next_rewards`` (of a head of increments, ``next_scores``) gives for some attributes, in float32.

    W, w and b are one matrix, so that a state costs one product; the rest is a dot product for each token asked for. With a
    rank r, U is folded into the table, :math:`\langle U V^\top h, e(v)\rangle = \langle V^\top h, U^\top e(v)\rangle`, where
    that makes its rows shorter.

    Parameters
    ----------
    head : NextTokenHead
        Fitted. The scorer keeps what it was: a change of its arrays is not noticed.
    columns : sequence of int
        Attributes, in the order of the last axis of what is returned.
    """

    def __init__(self, head: NextTokenHead, columns: Sequence[int]) -> None:
        at = list(columns)
        table = np.asarray(head._embeddings()[: head.vocab_size_], dtype=np.float32)
        left = head.factors_.get("left")
        self.n_attributes, self._linked = len(at), head.link_ == "logistic"
        self._own_rows = left is not None and len(at) * left.shape[2] <= table.shape[1]
        if left is not None and self._own_rows:
            table = np.concatenate([table @ left[a].astype(np.float32) for a in at], axis=1)
            queries = head.factors_["right"][at].transpose(0, 2, 1)
        else:
            queries = head.weight_[at]
        self._size = queries.shape[1]
        self._n_query = len(at) * self._size
        self._table = _tensor(table)
        self._map = _tensor(np.concatenate([queries.reshape(self._n_query, -1), head.baseline_weight_[at]]))
        self._bias = _tensor(np.concatenate([np.zeros(self._n_query), head.bias_[at]]))

    def __call__(self, h: Any, ids: Any = None) -> Any:
        """Rewards of tokens.

        Parameters
        ----------
        h : torch.Tensor of shape (n, d), float32
            States after the prefixes.
        ids : torch.Tensor of shape (n, k), int64, optional
            Tokens after each; the whole vocabulary where absent. Not checked.

        Returns
        -------
        torch.Tensor of shape (n, k, n_attributes) or (n, V, n_attributes), float32
        """
        import torch
        from torch.nn.functional import embedding, linear

        n, a = len(h), self.n_attributes
        mapped = linear(h, self._map, self._bias)
        queries, base = mapped[:, : self._n_query].reshape(n, a, self._size), mapped[:, None, self._n_query :]
        if self._own_rows:
            rows = self._table[None] if ids is None else embedding(ids, self._table)
            scores = (rows.unflatten(2, (a, self._size)) * queries[:, None]).sum(dim=3) + base
        elif ids is None:
            scores = linear(queries, self._table).transpose(1, 2) + base
        else:
            scores = torch.baddbmm(base, embedding(ids, self._table), queries.transpose(1, 2))
        return scores.sigmoid_() if self._linked else scores


class StateScorer:
    """What ``rewards`` of a RAD head gives for some attributes, in float32.

    Parameters
    ----------
    head : RADHead
        Fitted; kept as it was.
    columns : sequence of int
        Attributes, in the order of the last axis of what is returned.
    """

    def __init__(self, head: RADHead, columns: Sequence[int]) -> None:
        weights, biases = list(head.weights_), list(head.biases_)
        weights[-1], biases[-1] = weights[-1][:, list(columns)], biases[-1][list(columns)]
        self._layers = [(_tensor(w.T), _tensor(b)) for w, b in zip(weights, biases)]
        self._linked = head.link_ == "logistic"

    def __call__(self, h: Any) -> Any:
        """Rewards (n, n_attributes) of prefixes from their states (n, d); torch tensors of float32."""
        from torch.nn.functional import linear

        for place, (weight, bias) in enumerate(self._layers):
            h = linear(h.relu_() if place else h, weight, bias)
        return h.sigmoid_() if self._linked else h


def _tensor(values: Any) -> Any:
    import torch

    # a copy of its own: a head's arrays may be read-only, and may be changed
    return torch.from_numpy(np.array(values, dtype=np.float32, order="C"))
