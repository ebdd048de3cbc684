"""The head that was tuned with an encoder, put on vectors: rewards of joint texts, probabilities of domains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedrm.datasets.template import Template
from embedrm.encoders.base import Encoder
from embedrm.errors import InvalidInputError, ModelError
from embedrm.numerics.ties import is_tie, pair_credit
from embedrm.progress import Progress, silent
from embedrm.tuning.saving import read_facts, read_head
from embedrm.views import Layer

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
    from embedrm.store import EmbeddingStore

Array = NDArray[np.float64]


class TunedHead:
    """The head of a tuned folder, with the encoder that its vectors come from.

    Parameters
    ----------
    folder : Path
        A tuned folder.
    encoder : Encoder
        Gives the tuned vectors, merged or adapted.
    objective : {"bradley-terry", "domain"}
        Which head is wanted.
    store : EmbeddingStore, optional
        Keeps the vectors; nothing is kept where absent.
    progress : Progress

    Raises
    ------
    ModelError
        The folder has no such head.
    """

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        objective: str,
        store: EmbeddingStore | None = None,
        progress: Progress = silent,
    ) -> None:
        facts = read_facts(folder)
        arrays = read_head(folder)
        if facts["config"]["objective"] != objective or "weight" not in arrays:
            raise ModelError(
                f"{folder} was tuned with objective={facts['config']['objective']!r} and has no head for this; tune "
                f"one with objective={objective!r}"
            )
        self.encoder, self.store, self.progress = encoder, store, progress
        self.layer: Layer = facts["layer"]
        self.weight: Array = arrays["weight"].astype(np.float64)
        self.bias: Array = arrays.get("bias", np.zeros(len(self.weight))).astype(np.float64)
        self.template = template_of(facts)

    def rewards(self, data: PreferenceDataset) -> Array:
        """Rewards of all responses, (n_responses,)."""
        return self._of(data.joint_texts(self.template))

    def margins(self, data: PreferenceDataset) -> Array:
        """Reward of chosen minus reward of rejected, (n_pairs,); only responses in pairs are read."""
        both = data.pairs[["chosen", "rejected"]].to_numpy()
        active, local = np.unique(both, return_inverse=True)
        texts = data.joint_texts(self.template)
        rewards, places = self._of([texts[row] for row in active.tolist()]), local.reshape(both.shape)
        found: Array = rewards[places[:, 0]] - rewards[places[:, 1]]
        return found

    def reward(self, prompts: str | Sequence[str], responses: Sequence[str]) -> Array:
        """Rewards of responses to one prompt, or to one each, (n,)."""
        if isinstance(responses, str):
            raise InvalidInputError("reward expects a sequence of responses, got one string; put it in a list")
        asked = [prompts] * len(responses) if isinstance(prompts, str) else list(prompts)
        if len(asked) != len(responses):
            raise InvalidInputError(f"reward expects one prompt or one for each of {len(responses)}; got {len(asked)}")
        return self._of([self.template.joint(prompt, response) for prompt, response in zip(asked, responses)])

    def probabilities(self, prompts: Sequence[str]) -> Array:
        """Probability of each domain, (n, n_domains)."""
        logits = self._vectors(list(prompts)) @ self.weight.T + self.bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        found: Array = odds / odds.sum(axis=1, keepdims=True)
        return found

    def _of(self, texts: list[str]) -> Array:
        found: Array = self._vectors(texts) @ self.weight[0]
        return found

    def _vectors(self, texts: list[str]) -> Array:
        step = self.progress("encoding")
        unique = list(dict.fromkeys(texts))
        if self.store is not None:
            vectors = self.store.get(self.encoder, unique, (self.layer,), progress=step)[self.layer]
        else:
            vectors = self.encoder.encode(unique, (self.layer,), progress=step)[self.layer]
        place = {text: row for row, text in enumerate(unique)}
        found: Array = np.asarray(vectors, dtype=np.float64)[[place[text] for text in texts]]
        return found


def accuracy(data: PreferenceDataset, margins: Array) -> float:
    """Return the weighted pairwise accuracy; equal rewards count one half, pairs labelled as ties are left out."""
    weight = np.where(is_tie(data.pairs["outcome"]), 0.0, data.pairs["weight"].to_numpy(dtype=np.float64))
    if not weight.sum() > 0:
        raise InvalidInputError("score needs pairs with a preference and positive weight, and there are none")
    return float(weight @ pair_credit(margins) / weight.sum())


def template_of(facts: dict[str, Any]) -> Template:
    """Return the template that is written in the facts of a tuned folder."""
    saved = dict(facts["template"])
    saved["order"] = tuple(saved["order"])
    saved["turn_labels"] = tuple((role, label) for role, label in saved["turn_labels"])
    return Template(**saved)
