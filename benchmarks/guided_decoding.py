"""Seconds per token of guided decoding against the number of candidates: ARM, RAD and no guidance, on one language model.

Command: python benchmarks/guided_decoding.py

The guided model is a GPT-2 of 4 layers and width 256 with random weights, since speed does not hang on what it says; its
vocabulary is that of the bundled language model (4,096) or of all-MiniLM-L6-v2 (30,522). All rows of a vocabulary are
measured in the same run, in alternating order, and every ratio is a median of paired runs. Unguided decoding samples from
the same k most probable tokens. RAD is a fair one: all k candidates in one forward pass on the cache of their prefix, which
nothing copies. *Shared* rewards read the guided model's own states and cache; *separate* ones those of another model of the
same size, which reads along.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from _harness import command, finish, paired_seconds, parser, ratio_cell

from embedrm import Report
from embedrm.decoding.arm import ARMHead
from embedrm.decoding.processors import ARMProcessor, RADProcessor
from embedrm.decoding.rad import RADHead
from embedrm.encoders.token_states import TokenStates
from embedrm.reporting import collect

VOCABULARIES = (4096, 30_522)
CANDIDATES = (1, 5, 20, 40, 80)
UNGUIDED, ARM, WHOLE, APART, RAD, RAD_APART = (
    "unguided",
    "ARM, shared states, candidates",
    "ARM, shared states, whole vocabulary",
    "ARM, separate model, candidates",
    "RAD, shared cache",
    "RAD, separate model",
)
FASTER = {20: 2.0, 80: 4.0}
OVERHEAD = 0.15
PROMPT = 12


class Tokens:
    """A vocabulary that all models here have."""

    def get_vocab(self) -> dict[str, int]:
        """No names are needed."""
        return {}


@dataclass(eq=False)
class RandomLM:
    """What a processor asks of a language model, around a random one."""

    model: Any
    name: str
    vocab_size: int
    dim: int
    bos_id: int = 0
    tokenizer: Any = field(default_factory=Tokens)

    def fingerprint(self) -> str:
        """Name of the model."""
        return self.name

    def output_embeddings(self) -> np.ndarray:
        """Table of the output layer."""
        return self.model.get_output_embeddings().weight.detach().numpy()


def random_lm(vocabulary: int, a: argparse.Namespace, seed: int) -> RandomLM:
    """Draw a model; nothing is drawn from the generator that all of torch shares for good."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=vocabulary,
            n_layer=a.layers,
            n_embd=a.width,
            n_head=max(1, a.width // 64),
            n_positions=256,
            bos_token_id=0,
            eos_token_id=1,
        )
        model = GPT2LMHeadModel(config).eval()
    return RandomLM(model, f"random-{vocabulary}-{seed}", vocabulary, a.width)


def heads(lm: RandomLM) -> tuple[ARMHead, RADHead]:
    """Fit heads on random states: their cost is that of any fitted head."""
    rng = np.random.default_rng(0)
    lengths = np.full(40, 11)
    ids = rng.integers(2, lm.vocab_size, size=lengths.sum()).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids[offsets[:-1]] = lm.bos_id
    h = rng.standard_normal((len(ids), lm.dim)).astype(np.float32)
    states = TokenStates(h, ids, offsets, lm.fingerprint(), lm.vocab_size)
    labels = {"attribute": rng.random(len(lengths))}
    rad = RADHead(hidden=(64,), max_epochs=2).fit(states, labels)
    arm = ARMHead(l2=1.0, tol=1e-2, max_passes=10).fit(states, labels, embeddings=lm.output_embeddings())
    return arm, rad


def jobs_of(lm: RandomLM, other: RandomLM, k: int, a: argparse.Namespace) -> dict[str, Any]:
    """One generation of ``a.tokens`` tokens for each way of decoding."""
    import torch

    ids = torch.from_numpy(np.random.default_rng(1).integers(2, lm.vocab_size, size=(a.batch, PROMPT)))
    ids[:, 0] = lm.bos_id
    (arm, rad), (other_arm, other_rad) = heads(lm), heads(other)
    made: dict[str, Any] = {
        UNGUIDED: None,
        ARM: ARMProcessor(lm, arm, 5.0, top_k=k),
        WHOLE: ARMProcessor(lm, arm, 5.0, top_k=k, whole_vocabulary=True),
        APART: ARMProcessor(lm, other_arm, 5.0, top_k=k, reward_lm=other),
        RAD: RADProcessor(lm, rad, 5.0, top_k=k),
        RAD_APART: RADProcessor(lm, other_rad, 5.0, top_k=k, reward_lm=other),
    }

    def run(processor: Any) -> Any:
        guided = {"top_k": k} if processor is None else {"top_k": 0, "logits_processor": [processor]}

        def job() -> None:
            torch.set_rng_state(torch.Generator().manual_seed(0).get_state())
            with torch.inference_mode():
                lm.model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=True,
                    max_new_tokens=a.tokens,
                    pad_token_id=1,
                    eos_token_id=None,
                    **guided,
                )

        return job

    return {name: run(processor) for name, processor in made.items()}


def measure(vocabulary: int, a: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows of one vocabulary; the numbers of candidates are paired too."""
    lm, other = random_lm(vocabulary, a, 0), random_lm(vocabulary, a, 1)
    jobs = {(k, name): job for k in a.candidates for name, job in jobs_of(lm, other, k, a).items()}
    for job in jobs.values():
        job()
    seconds = paired_seconds(jobs, a.repeats)  # type: ignore[arg-type]
    first = a.candidates[0]
    rows = []
    for (k, name), own in seconds.items():
        row = {"vocabulary": vocabulary, "k": k, "way": name, "per_token": float(np.median(own)) / a.tokens}
        row["overhead"] = ratio_cell(own, seconds[k, UNGUIDED])
        row["against_arm"] = ratio_cell(own, seconds[k, ARM])
        row["against_first"] = ratio_cell(own, seconds[first, name])
        rows.append(row)
    return rows


def verdicts(rows: list[dict[str, Any]], a: argparse.Namespace) -> list[str]:
    """Compare with the bars."""

    def cell(vocabulary: int, k: int, way: str, key: str) -> float:
        (found,) = [r for r in rows if (r["vocabulary"], r["k"], r["way"]) == (vocabulary, k, way)]
        return float(found[key]["value"])

    told = []
    for vocabulary in a.vocabularies:
        size = f"{vocabulary:,} tokens"
        for k, bar in FASTER.items():
            if k in a.candidates:
                ratio = cell(vocabulary, k, RAD, "against_arm")
                told.append(
                    f"{size}, {k} candidates: ARM is {ratio:.1f} times as fast as a fair RAD "
                    f"({'reaches' if ratio >= bar else 'MISSES'} {bar:g})"
                )
        worst = max(cell(vocabulary, k, ARM, "overhead") for k in a.candidates) - 1
        told.append(
            f"{size}: ARM on shared states with candidates costs at most {worst:+.0%} over unguided decoding "
            f"({'within' if worst <= OVERHEAD else 'MISSES'} {OVERHEAD:.0%})"
        )
        ends = [cell(vocabulary, a.candidates[-1], way, "against_first") for way in (ARM, RAD)]
        told.append(
            f"{size}: from {a.candidates[0]} to {a.candidates[-1]} candidates ARM takes {ends[0]:.2f} times the time, RAD "
            f"{ends[1]:.2f} times"
        )
    return told


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(repeats=7)
    options.add_argument("--tokens", type=int, default=48, help="new tokens of each generation")
    options.add_argument("--batch", type=int, default=1, help="sequences at once")
    options.add_argument("--layers", type=int, default=4)
    options.add_argument("--width", type=int, default=256)
    a = options.parse_args()
    a.vocabularies, a.candidates = VOCABULARIES, CANDIDATES
    if a.smoke:
        a.vocabularies, a.candidates, a.tokens, a.repeats, a.layers, a.width = (300,), (1, 5), 4, 2, 2, 64
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    rows = [row for vocabulary in a.vocabularies for row in measure(vocabulary, a)]
    report = Report(
        "benchmark",
        "Guided decoding: time per token against the number of candidates",
        summary=verdicts(rows, a),
        provenance=collect(started=started, seeds=0, command=command(__file__, a)),
    )
    note = "median, least and most of the paired runs"
    columns = [
        {"key": "way", "label": "decoding"},
        {"key": "k", "label": "k", "kind": "integer", "note": "candidates: the k most probable tokens"},
        {"key": "per_token", "label": "per token", "kind": "seconds", "note": "median"},
        {"key": "overhead", "label": "unguided = 1", "kind": "interval", "digits": 2, "note": note},
        {"key": "against_arm", "label": "ARM = 1", "kind": "interval", "digits": 2, "note": "ARM, shared, candidates"},
        {"key": "against_first", "label": "least k = 1", "kind": "interval", "digits": 2, "note": "the same way"},
    ]
    for vocabulary in a.vocabularies:
        caption = (
            f"{a.layers} layers, width {a.width}, random weights; {a.batch} sequence(s), {PROMPT} prompt tokens, {a.tokens} "
            f"new tokens, {a.repeats} paired runs."
        )
        own = sorted((r for r in rows if r["vocabulary"] == vocabulary), key=lambda r: r["k"])
        shown = [{key: value for key, value in row.items() if key != "vocabulary"} for row in own]
        table = {
            "name": f"vocabulary_{vocabulary}",
            "title": f"{vocabulary:,} tokens",
            "columns": columns,
            "rows": shown,
            "caption": caption,
        }
        report.add_section(f"A vocabulary of {vocabulary:,}", tables=[table])
    finish(report, "guided_decoding", a)


if __name__ == "__main__":
    main()
