"""Masked tokens: hide some tokens of a plain text and predict them from the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embedrm.errors import InvalidInputError
from embedrm.tuning.base import TrainableBase
from embedrm.tuning.config import TuningConfig
from embedrm.tuning.problem import BatchLoss, Problem, Rows, divide, tokenise


class MaskedTokenProblem(Problem):
    """``-log p(token | text with some tokens hidden)``, a mean over the hidden tokens of a text (Devlin et al. 2019, 3.1).

    Of the tokens drawn, 80 % are replaced by the mask, 10 % by another token, 10 % are left. The head is a linear layer, a
    normalisation and the words' own embeddings with a bias; sentence-transformers folders keep none, so it starts anew
    and is thrown away. Held-out texts are hidden in the same places at every evaluation.
    """

    def __init__(self, base: TrainableBase, texts: Sequence[str], groups: Sequence[str], config: TuningConfig) -> None:
        import torch

        self.ids, self.facts = tokenise(base, texts, "texts")
        tokenizer = base.model.tokenizer
        self.mask = tokenizer.mask_token_id
        if self.mask is None:
            raise InvalidInputError(
                f"masked-token tuning needs a tokenizer with a mask token, and that of {config.base!r} has none. Use "
                "objective='contrastive'."
            )
        self.special = frozenset(tokenizer.all_special_ids)
        self.embedding = base.transformer.get_input_embeddings()
        self.weight = np.ones(len(texts))
        self.training, self.held = divide(groups, self.weight, config, "texts")
        self.share = config.mask_share
        words, width = self.embedding.weight.shape
        states = base.files.hidden_size or width
        self.head = torch.nn.ModuleDict(
            {"dense": torch.nn.Linear(states, width), "norm": torch.nn.LayerNorm(width), "bias": _Bias(words)}
        )

    def texts_of(self, items: Rows) -> Rows:
        """Return the texts themselves."""
        return items

    def units(self) -> list[Rows]:
        """Every training text by itself."""
        return [self.training[i : i + 1] for i in range(len(self.training))]

    def loss(self, base: TrainableBase, items: Rows, draw: Any) -> BatchLoss:
        """Sum over texts of the mean loss of their hidden tokens."""
        import torch

        total: Any = torch.zeros(())
        right = 0.0
        batch = [self.ids[row] for row in items.tolist()]
        for rows, features in base.chunks(batch):
            truth = features["input_ids"]
            hidden = self._hidden([batch[row] for row in rows], truth.shape, draw)
            features["input_ids"] = self._replaced(truth, hidden, draw)
            states = base.states(features)[hidden]
            states = self.head["norm"](torch.nn.functional.gelu(self.head["dense"](states)))
            logits = self.head["bias"](states @ self.embedding.weight.T)
            label = truth[hidden]
            counts = hidden.sum(dim=1)
            share = (1.0 / counts.clamp(min=1))[:, None].expand(hidden.shape)[hidden]
            total = total + (share * torch.nn.functional.cross_entropy(logits, label, reduction="none")).sum()
            right += float(share @ (logits.detach().argmax(dim=1) == label).to(share.dtype))
        return BatchLoss(total, float(len(items)), right, float(len(items)))

    def _hidden(self, batch: Sequence[Sequence[int]], shape: Any, draw: Any) -> Any:
        """Draw the tokens to hide: at least one of every text that has one to hide."""
        import torch

        key = torch.rand(shape, generator=draw)
        hidden = torch.zeros(shape, dtype=torch.bool)
        for row, ids in enumerate(batch):
            places = [i for i, token in enumerate(ids) if token not in self.special]
            count = min(len(places), max(1, round(self.share * len(places))))
            if count:
                at = torch.tensor(places)
                hidden[row, at[key[row, at].argsort()[:count]]] = True
        return hidden

    def _replaced(self, truth: Any, hidden: Any, draw: Any) -> Any:
        import torch

        kind = torch.rand(truth.shape, generator=draw)
        other = torch.randint(self.embedding.weight.shape[0], truth.shape, generator=draw)
        shown = torch.where(hidden & (kind < 0.8), torch.full_like(truth, self.mask), truth)
        return torch.where(hidden & (kind >= 0.8) & (kind < 0.9), other, shown)


def _Bias(words: int) -> Any:
    import torch

    class Bias(torch.nn.Module):
        """A bias for each word."""

        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(words))

        def forward(self, logits: Any) -> Any:
            return logits + self.bias

    return Bias()
