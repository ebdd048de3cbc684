"""Bradley-Terry: the chosen response's reward above the rejected one's, a reward being linear in the pooled vector."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedrm.datasets import PreferenceDataset
from embedrm.datasets.template import Template
from embedrm.errors import InvalidInputError
from embedrm.numerics.ties import is_tie, pair_credit
from embedrm.tuning.base import TrainableBase
from embedrm.tuning.config import TuningConfig
from embedrm.tuning.problem import BatchLoss, Problem, Rows, divide, tokenise


class PairProblem(Problem):
    """``-o log s(m) - (1 - o) log s(-m)`` of margins m, outcomes o and the logistic function s (Bradley & Terry 1952).

    A reward is ``w . v(prompt, response)`` without a constant, which no pair could tell. A response is read once a
    batch, however many of its pairs are in it. Margins that the data state are not read.
    """

    def __init__(self, base: TrainableBase, data: PreferenceDataset, template: Template, config: TuningConfig) -> None:
        import torch

        if not data.n_pairs:
            raise InvalidInputError(
                "tuning by Bradley-Terry needs pairs, and the data have none. Give data with pairs."
            )
        both = data.pairs[["chosen", "rejected"]].to_numpy()
        active, local = np.unique(both, return_inverse=True)
        self.pairs: Rows = local.reshape(both.shape).astype(np.intp)
        self.weight = data.pairs["weight"].to_numpy(dtype=np.float64)
        self.outcome = data.pairs["outcome"].to_numpy(dtype=np.float64)
        teaching = (self.weight > 0) & ~is_tie(self.outcome)
        if not teaching.any():
            raise InvalidInputError(
                f"tuning by Bradley-Terry needs a pair with a preference, and all {data.n_pairs} are ties or of weight 0. "
                "Give pairs whose outcome is not 0.5."
            )
        texts = data.joint_texts(template)
        self.ids, self.facts = tokenise(base, [texts[row] for row in active.tolist()], "pairs of responses")
        same = [self.ids[a] == self.ids[b] for a, b in self.pairs.tolist()]
        self.facts["pairs"] = data.n_pairs
        self.facts["pairs_read_alike"] = int(np.sum(same))
        if not (teaching & ~np.array(same)).any():
            raise InvalidInputError(
                f"the responses of every pair are the same once cut to {config.max_length} tokens, so nothing can be "
                "learnt. Raise max_length, or choose another truncation."
            )
        self.prompt_of = data.responses["prompt_of"].to_numpy()[both[:, 0]]
        self.training, self.held = divide(data.pair_groups(), self.weight, config, "pairs")
        self.budget = config.batch_tokens
        self.head = torch.nn.Linear(base.dim, 1, bias=False)
        torch.nn.init.zeros_(self.head.weight)

    def texts_of(self, items: Rows) -> Rows:
        """Return the responses of pairs, each once."""
        return np.unique(self.pairs[items])

    def units(self) -> list[Rows]:
        """Training pairs of one prompt, in parts where they are too many for a batch."""
        rows = self.training[np.argsort(self.prompt_of[self.training], kind="stable")]
        breaks = np.flatnonzero(np.diff(self.prompt_of[rows])) + 1
        units: list[Rows] = []
        for unit in np.split(rows, breaks):
            singly = [unit[i : i + 1] for i in range(len(unit))]
            units += [unit] if self.tokens_of(unit) <= self.budget else self.join(singly, self.budget // 2)
        return units

    def rewards(self, base: TrainableBase, texts: Rows) -> Any:
        """Return the rewards of texts, (n,), with gradients."""
        return self.head(base.pooled([self.ids[row] for row in texts.tolist()]))[:, 0]

    def loss(self, base: TrainableBase, items: Rows, draw: Any) -> BatchLoss:
        """Weighted sum of the pairs' losses."""
        import torch

        texts, local = np.unique(self.pairs[items], return_inverse=True)
        rewards = self.rewards(base, texts)
        places = torch.from_numpy(local.reshape(len(items), 2))
        margins = rewards[places[:, 0]] - rewards[places[:, 1]]
        outcome = torch.from_numpy(self.outcome[items]).to(margins.dtype)
        weight = torch.from_numpy(self.weight[items]).to(margins.dtype)
        softplus = torch.nn.functional.softplus
        total = (weight * (outcome * softplus(-margins) + (1.0 - outcome) * softplus(margins))).sum()
        found = margins.detach().numpy()
        judged = np.where(is_tie(self.outcome[items]), 0.0, self.weight[items])
        right = float(judged @ pair_credit(found)) if np.isfinite(found).all() else 0.0
        return BatchLoss(total, float(self.weight[items].sum()), right, float(judged.sum()))
