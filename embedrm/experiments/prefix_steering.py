"""Continuations under each way of guidance at each strength, generated once, and what the judges make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding.base import PrefixHead
from embedrm.experiments.prefix_judge import ORDERS, AttributeJudge, distinct
from embedrm.experiments.prefix_shelf import Shelf, head_digest
from embedrm.language_models.model import LanguageModel
from embedrm.progress import Progress, silent

Array = NDArray[np.float64]

UNGUIDED = "unguided"
COLUMNS = ("positive", "texts", "nll", "tokens", "distinct1", "distinct2", "distinct3")
"""Sums over the continuations of a prompt; distinct-n is of the prompt as a whole."""


@dataclass(frozen=True)
class Decoding:
    """How everything is decoded.

    Attributes
    ----------
    prompts : tuple of str
    n : int
        Continuations of each.
    new_tokens, top_k, seed, batch_size : int
        The same draws for all ways of guidance: what differs between two of them is the guidance.
    """

    prompts: tuple[str, ...]
    n: int
    new_tokens: int
    top_k: int
    seed: int = 1
    batch_size: int = 96

    def identity(self) -> list[Any]:
        """Return what decides the draws."""
        return [list(self.prompts), self.n, self.new_tokens, self.top_k, self.seed, self.batch_size]


@dataclass
class Steering:
    """A guided language model, its judges, and what has been decoded so far.

    Attributes
    ----------
    lm : LanguageModel
        The guided one.
    fluency : LanguageModel
        The one that judges.
    judge : AttributeJudge
    decoding : Decoding
    attribute : str
    shelf : Shelf
    points : dict of (arm, beta) to ndarray of shape (n_prompts, 7)
        See :data:`COLUMNS`.
    examples : dict of (arm, beta) to list of (prompt, text)
    """

    lm: LanguageModel
    fluency: LanguageModel
    judge: AttributeJudge
    decoding: Decoding
    attribute: str
    shelf: Shelf
    points: dict[tuple[str, float], Array] = field(default_factory=dict)
    examples: dict[tuple[str, float], list[tuple[str, str]]] = field(default_factory=dict)

    def run(
        self,
        arm: str,
        head: PrefixHead | None,
        betas: Sequence[float],
        *,
        reward_lm: LanguageModel | None = None,
        progress: Progress = silent,
    ) -> None:
        """Decode and judge at each beta; ``head`` None is unguided decoding, under the same top-k filter."""
        step = progress(f"decode: {arm}")
        for done, beta in enumerate(betas, start=1):
            texts = self._texts(head, beta, reward_lm)
            self.points[arm, float(beta)] = self._judged(texts)
            self.examples[arm, float(beta)] = [(one["prompt"], one["text"]) for row in texts for one in row[:1]]
            step(done, len(betas))

    def _texts(self, head: PrefixHead | None, beta: float, reward_lm: LanguageModel | None) -> list[list[Any]]:
        identity: list[Any] = [self.lm.fingerprint(), self.decoding.identity()]
        if head is not None:
            reader = self.lm if reward_lm is None else reward_lm
            identity += [head_digest(head), reader.fingerprint(), float(beta), self.attribute]
        found: list[list[Any]] = self.shelf.facts("texts", identity, lambda: self._decode(head, beta, reward_lm))
        return found

    def _decode(self, head: PrefixHead | None, beta: float, reward_lm: LanguageModel | None) -> list[list[Any]]:
        from embedrm.decoding.generation import generate

        d = self.decoding
        options: dict[str, Any] = {
            "n": d.n, "max_new_tokens": d.new_tokens, "seed": d.seed, "batch_size": d.batch_size
        }  # fmt: skip
        if head is None:
            made = generate(self.lm, d.prompts, top_k=d.top_k, **options)
        else:
            processor = processor_for(self.lm, head, beta, d.top_k, self.attribute, reward_lm)
            made = generate(self.lm, d.prompts, processor=processor, **options)
            processor.close()
        return [
            [{"prompt": one.prompt, "text": one.text, "ids": list(one.ids), "ended": one.ended} for one in row]
            for row in made
        ]

    def _judged(self, texts: list[list[Any]]) -> Array:
        flat = [one for row in texts for one in row]
        positive = self.judge.positive([one["prompt"] + one["text"] for one in flat])
        nll, tokens = self._fluency(flat)
        shape = (len(texts), -1)
        sums = [positive.reshape(shape), np.ones(shape_of(texts)), (nll * tokens).reshape(shape), tokens.reshape(shape)]
        columns = [np.asarray(one, dtype=np.float64).sum(axis=1) for one in sums]
        columns += [np.array([distinct([one["ids"] for one in row], order) for row in texts]) for order in ORDERS]
        return np.stack(columns, axis=1)

    def _fluency(self, flat: list[Any]) -> tuple[Array, Array]:
        """Mean negative log-likelihood of each continuation under the judging model, and its tokens there."""
        prompts, texts = [one["prompt"] for one in flat], [one["text"] for one in flat]

        def make() -> dict[str, NDArray[Any]]:
            told = self.fluency.perplexity(texts, prompts)
            return {"nll": np.where(told.tokens > 0, told.nll, 0.0), "tokens": told.tokens}

        kept = self.shelf.arrays("fluency", [self.fluency.fingerprint(), prompts, texts], make)
        return kept["nll"], kept["tokens"].astype(np.float64)


def shape_of(texts: list[list[Any]]) -> tuple[int, int]:
    """Prompts and continuations of each."""
    return len(texts), len(texts[0])


def processor_for(
    lm: LanguageModel,
    head: PrefixHead,
    beta: float,
    top_k: int,
    attribute: str | int,
    reward_lm: LanguageModel | None = None,
    **options: Any,
) -> Any:
    """Return the logits processor of a head: ARM where it rewards next tokens, RAD where it rewards prefixes."""
    from embedrm.decoding.processors import ARMProcessor, RADProcessor

    kind = ARMProcessor if hasattr(head, "next_rewards") else RADProcessor
    return kind(lm, head, beta, top_k=top_k, attribute=attribute, reward_lm=reward_lm, **options)
