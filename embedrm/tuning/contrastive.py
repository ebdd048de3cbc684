"""Contrastive tuning on plain text: two views of one text are nearer to each other than to any other text's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embedrm.errors import InvalidInputError
from embedrm.tuning.base import TrainableBase
from embedrm.tuning.config import TuningConfig
from embedrm.tuning.problem import BatchLoss, Problem, Rows, divide, tokenise


class ContrastiveProblem(Problem):
    """``-log exp(cos(a_i, b_i) / T) / sum_j exp(cos(a_i, b_j) / T)`` over a batch (Gao et al. 2021, equation 4).

    The views a and b are the model's own sentence embeddings of the text under two draws of dropout, or of its two halves.
    Held-out texts are always judged by their halves: without dropout, the two views of one text are one vector.
    """

    def __init__(self, base: TrainableBase, texts: Sequence[str], groups: Sequence[str], config: TuningConfig) -> None:
        import torch

        self.ids, self.facts = tokenise(base, texts, "texts")
        first, last = len(base.tokens.prefix), len(base.tokens.suffix)
        self.halves = [_halves(ids, first, last) for ids in self.ids]
        self.weight = np.array([1.0 if a and b else 0.0 for a, b in self.halves])
        divided = self.weight.astype(bool)
        if config.views == "dropout":
            self.weight = np.ones(len(texts))
        self.views, self.temperature = config.views, config.temperature
        self.training, self.held = divide(groups, divided.astype(np.float64), config, "texts")
        self.training = self.training[self.weight[self.training] > 0]
        self.held = self.held[divided[self.held]]
        if len(self.training) < 2:
            raise InvalidInputError(
                f"contrastive tuning needs at least 2 texts to tell apart, and {len(self.training)} of {len(texts)} are "
                "left to train on. Give more or longer texts, or views='dropout'."
            )
        self.head = torch.nn.Module()

    def texts_of(self, items: Rows) -> Rows:
        """Return the texts themselves."""
        return items

    def units(self) -> list[Rows]:
        """Every training text by itself."""
        return [self.training[i : i + 1] for i in range(len(self.training))]

    def loss(self, base: TrainableBase, items: Rows, draw: Any) -> BatchLoss:
        """Sum of the texts' losses."""
        import torch

        training = base.model.training or any(module.training for module in base.transformer.modules())
        rows = items.tolist()
        if training and self.views == "dropout":
            left = right = [self.ids[row] for row in rows]
        else:
            left, right = [self.halves[row][0] for row in rows], [self.halves[row][1] for row in rows]
        vectors = torch.nn.functional.normalize(base.pooled([*left, *right], final=True), dim=1)
        logits = vectors[: len(rows)] @ vectors[len(rows) :].T / self.temperature
        label = torch.arange(len(rows))
        total = torch.nn.functional.cross_entropy(logits, label, reduction="sum")
        found = float((logits.detach().argmax(dim=1) == label).sum())
        return BatchLoss(total, float(len(rows)), found, float(len(rows)))


def _halves(ids: Sequence[int], first: int, last: int) -> tuple[list[int], list[int]]:
    """Return the halves of a text, each with the special tokens; empty where there are fewer than two tokens."""
    prefix, body, suffix = ids[:first], ids[first : len(ids) - last], ids[len(ids) - last :]
    if len(body) < 2:
        return [], []
    middle = len(body) // 2
    return [*prefix, *body[:middle], *suffix], [*prefix, *body[middle:], *suffix]
