"""Domain classification: which domain a prompt is of, by a linear head on its pooled vector."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedrm.datasets import PreferenceDataset
from embedrm.datasets.template import Template
from embedrm.errors import InvalidInputError
from embedrm.tuning.base import TrainableBase
from embedrm.tuning.config import TuningConfig
from embedrm.tuning.problem import BatchLoss, Problem, Rows, divide, tokenise


class DomainProblem(Problem):
    """``-log softmax(W v + b)`` at the prompt's domain; every prompt that a pair touches counts once."""

    def __init__(self, base: TrainableBase, data: PreferenceDataset, template: Template, config: TuningConfig) -> None:
        import torch

        touched = np.unique(data.pairs[["chosen", "rejected"]].to_numpy())
        prompts = np.unique(data.responses["prompt_of"].to_numpy()[touched])
        texts = data.prompt_texts(template)
        self.ids, self.facts = tokenise(base, [texts[p] for p in prompts.tolist()], "prompts of pairs")
        domains = data.prompts["domain"].to_numpy()[prompts].astype(str)
        self.classes, label = np.unique(domains, return_inverse=True)
        if len(self.classes) < 2:
            raise InvalidInputError(
                f"tuning by domain needs prompts of at least 2 domains, and all {len(prompts)} are of "
                f"{str(self.classes[0])!r}. Give data of several domains, or another objective."
            )
        self.label = label.astype(np.int64)
        self.weight = np.ones(len(prompts))
        self.training, self.held = divide(data.prompts["group"].to_numpy()[prompts], self.weight, config, "domains")
        self.head = torch.nn.Linear(base.dim, len(self.classes))
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def texts_of(self, items: Rows) -> Rows:
        """Return the prompts themselves."""
        return items

    def units(self) -> list[Rows]:
        """Every training prompt by itself."""
        return [self.training[i : i + 1] for i in range(len(self.training))]

    def loss(self, base: TrainableBase, items: Rows, draw: Any) -> BatchLoss:
        """Sum of the prompts' losses."""
        import torch

        logits = self.head(base.pooled([self.ids[row] for row in items.tolist()]))
        label = torch.from_numpy(self.label[items])
        total = torch.nn.functional.cross_entropy(logits, label, reduction="sum")
        right = float((logits.detach().argmax(dim=1) == label).sum())
        return BatchLoss(total, float(len(items)), right, float(len(items)))
