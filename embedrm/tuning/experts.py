"""Experts inside the top block: its feed-forward part copied, mixed by a sparse gate that sees the prompt alone.

The literal form of MoRE (Namgoong et al. 2024, section 3) in a small encoder. What is simplified, or cannot be known:

- Only the top block has experts; everything else is shared. Each expert begins as a copy of the block's own feed-forward
  part ("sparse upcycling", Komatsuzaki et al. 2023, section 3), so that the untuned mixture is the base.
- One gate decision a prompt, not one a token. An encoder reads prompt and response as one text, whose every token state
  depends on both; so the gate reads a **separate pass** of the prompt through the shared blocks below. Both responses of
  a pair have the same experts, and their unknown constants cancel.
- The gate is learned from the Bradley-Terry loss and load balance alone, without domain labels.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from embedrm.datasets import PreferenceDataset
from embedrm.datasets.template import Template
from embedrm.encoders.hidden import HiddenMeans
from embedrm.errors import InvalidInputError, ModelError
from embedrm.tuning.base import TrainableBase
from embedrm.tuning.config import TuningConfig
from embedrm.tuning.pairs import PairProblem
from embedrm.tuning.problem import BatchLoss, Rows, tokenise

# A coordinate of the prompts that hardly varies says nothing, and must not be blown up.
_LEAST_SPREAD = 1e-3


class TopExperts:
    """The feed-forward part of a base's top block, ``n`` times, in the place of the one.

    With a the block's attention output and g the gates of its text (at most ``k`` are not zero, and they sum to one)::

        y = LayerNorm(a + dropout(sum_i g_i (D_i gelu(U_i a))))

    Parameters
    ----------
    base : TrainableBase
        Changed in place. Its blocks must be of BERT's form: ``intermediate`` and ``output.dense`` around one activation.
    n : int

    Raises
    ------
    ModelError
        Blocks of another form.
    """

    def __init__(self, base: TrainableBase, n: int) -> None:
        import torch

        self.n = n
        self.gates: Any = None
        self.blocks = base.blocks()
        self.block = self.blocks[-1]
        if not (hasattr(self.block, "intermediate") and hasattr(getattr(self.block, "output", None), "dense")):
            raise ModelError(
                f"{base.files.folder}: its top block ({type(self.block).__name__}) has no separate feed-forward part "
                "(intermediate, output.dense) to copy into experts. Give an encoder of BERT's form."
            )
        up = [self.block.intermediate, *(copy.deepcopy(self.block.intermediate) for _ in range(n - 1))]
        down = [self.block.output.dense, *(copy.deepcopy(self.block.output.dense) for _ in range(n - 1))]
        self.up, self.down = torch.nn.ModuleList(up), torch.nn.ModuleList(down)
        mixture = torch.nn.ModuleDict({"up": self.up, "down": self.down})
        # the block itself adds its input, normalises and drops out what it is given here
        mixture.forward = self._mix
        self.block.intermediate, self.block.output.dense = mixture, torch.nn.Identity()

    def _mix(self, states: Any) -> Any:
        import torch

        gates = self.gates
        if gates is None or len(gates) != len(states):
            raise RuntimeError("gates must be set for the texts that go through the experts")
        total = torch.zeros_like(states)
        for i, (up, down) in enumerate(zip(self.up, self.down)):
            rows = torch.nonzero(gates[:, i] > 0)[:, 0]
            if len(rows):
                total = total.index_add(0, rows, gates[rows, i][:, None, None] * down(up(states[rows])))
        return total

    def leave(self) -> None:
        """Put the first expert in the place of all, so that the base can be saved as an ordinary encoder."""
        self.block.intermediate, self.block.output.dense = self.up[0], self.down[0]

    def prompt_states(self, base: TrainableBase, ids: Any) -> Any:
        """Return the mean states of prompts that enter the top block, (n, dim); the block itself is not run."""
        import torch

        last = len(self.blocks) - 1
        order: list[int] = []
        parts = []
        for rows, features in base.chunks(ids):
            order += rows
            mask = features["attention_mask"].to(torch.float32)
            weights = (mask / mask.sum(dim=1, keepdim=True))[:, None, :]
            forward = partial(base.model[0], dict(features))
            _, means = HiddenMeans(self.blocks).run(forward, weights, {last}, finish=False)
            parts.append(means[last])
        return torch.cat(parts)[torch.from_numpy(np.argsort(order))]


def gate_head(dim: int, n: int, states: Any) -> Any:
    """Return the head of an expert network: the reward, and the gate ``G (x - mean) / (sd sqrt(dim))``.

    Parameters
    ----------
    dim, n : int
        Width of states, and experts.
    states : torch.Tensor of shape (n_prompts, dim)
        Of training prompts in the untuned base, for mean and spread; without these all prompts look alike to a gate.
    """
    import torch

    gate = torch.nn.Linear(dim, n)
    # logits of unit variance, so that prompts go to different experts from the first step on
    torch.nn.init.normal_(gate.weight)
    torch.nn.init.zeros_(gate.bias)
    reward = torch.nn.Linear(dim, 1, bias=False)
    torch.nn.init.zeros_(reward.weight)
    head = torch.nn.ModuleDict({"reward": reward, "gate": gate})
    spread = states.std(dim=0, correction=0).clamp_min(_LEAST_SPREAD)
    head.register_buffer("mean", states.mean(dim=0))
    head.register_buffer("scale", 1.0 / (spread * dim**0.5))
    return head


def gate_logits(head: Any, states: Any) -> Any:
    """Return the gate's logits of prompts, (n_prompts, n_experts)."""
    return head["gate"]((states - head.mean) * head.scale)


def sparse_gates(logits: Any, k: int) -> Any:
    """Softmax over the ``k`` largest logits of a prompt, zero elsewhere (Shazeer et al. 2017, section 2.1)."""
    import torch

    values, places = logits.topk(min(k, logits.shape[1]), dim=1)
    return torch.zeros_like(logits).scatter(1, places, values.softmax(dim=1))


def load_balance(logits: Any) -> Any:
    """Return ``n sum_i f_i P_i``: shares of prompts whose first expert is i times mean probabilities of i.

    It is 1 for even loads (Fedus et al. 2022, section 2.2). A batch has few prompts here, and among them each prompt's
    own choice would count against itself; so f is taken over the batch's *other* prompts, which estimates the product over
    all prompts without bias. A batch of one prompt says nothing of balance and gives 0.
    """
    import torch

    m, n = logits.shape
    if m < 2:
        return logits.sum() * 0.0
    first = torch.nn.functional.one_hot(logits.argmax(dim=1), n).to(logits.dtype)
    others = (first.sum(dim=0, keepdim=True) - first) / (m - 1)
    return n * (others * logits.softmax(dim=1)).sum(dim=1).mean()


class ExpertPairProblem(PairProblem):
    """Bradley-Terry through :class:`TopExperts`, with ``balance`` times :func:`load_balance` added while training."""

    def __init__(
        self,
        base: TrainableBase,
        experts: TopExperts,
        data: PreferenceDataset,
        template: Template,
        config: TuningConfig,
        *,
        k: int,
        balance: float,
    ) -> None:
        import torch

        super().__init__(base, data, template, config)
        both = data.pairs[["chosen", "rejected"]].to_numpy()
        owner = data.responses["prompt_of"].to_numpy()
        across = int((owner[both[:, 0]] != owner[both[:, 1]]).sum())
        if across:
            raise InvalidInputError(
                f"a gate on the prompt needs pairs of one prompt, and {across} of {len(both)} pairs compare responses to "
                "different prompts. Leave these out."
            )
        prompts, self.prompt_of_text = np.unique(owner[np.unique(both)], return_inverse=True)
        texts = data.prompt_texts(template)
        self.prompt_ids, self.facts["prompts"] = tokenise(
            base, [texts[p] for p in prompts.tolist()], "prompts of pairs"
        )
        self.experts, self.k, self.balance = experts, k, balance
        learnt = np.unique(self.prompt_of_text[np.unique(self.pairs[self.training])])
        with torch.no_grad():
            states = experts.prompt_states(base, [self.prompt_ids[p] for p in learnt.tolist()])
        self.head = gate_head(states.shape[1], experts.n, states)
        self._logits: Any = None

    def rewards(self, base: TrainableBase, texts: Rows) -> Any:
        """Return the rewards of texts, (n,), each through the experts of its prompt."""
        prompts, place = np.unique(self.prompt_of_text[texts], return_inverse=True)
        states = self.experts.prompt_states(base, [self.prompt_ids[p] for p in prompts.tolist()])
        self._logits = gate_logits(self.head, states)
        return mixed_rewards(
            base,
            self.experts,
            self.head,
            [self.ids[t] for t in texts.tolist()],
            sparse_gates(self._logits, self.k)[place],
        )

    def loss(self, base: TrainableBase, items: Rows, draw: Any) -> BatchLoss:
        """Weighted sum of the pairs' losses; in training with the load balance of the batch's prompts."""
        found = super().loss(base, items, draw)
        if not base.model.training or self.balance == 0.0:
            return found
        return replace(found, total=found.total + self.balance * found.weight * load_balance(self._logits))


def mixed_rewards(base: TrainableBase, experts: TopExperts, head: Any, ids: Any, gates: Any) -> Any:
    """Return the rewards of joint texts, (n,), under gates of shape (n, n_experts)."""

    def before(rows: list[int]) -> None:
        experts.gates = gates[rows]

    return head["reward"](base.pooled(ids, before=before))[:, 0]
