"""A full comparison of heads: linear, perceptron and trees, Bradley–Terry against classification, over five seeds.

Command: python benchmarks/head_comparison.py

The question is what such a comparison costs: thirty fits on 20,000 pairs of 384 dimensions, the scores of the held-out
pairs, and the intervals. Its seconds are counted from the vectors and the known reward on. Every seed draws the labels of
all training pairs anew (by Bradley–Terry from the known reward) and is the head's ``random_state`` too: first weights,
batches, and the prompts by which training is stopped. So no two seeds share their labels, and none are trained together in
one pass, which would be cheaper. Vectors and held-out pairs are the same for all.

Heads are as they come, with their own rule against overfitting: the linear head chooses its penalty by cross-validation
over whole prompts, the perceptron (64-64-64-1) and the trees stop by the loss on a tenth of the prompts. Nothing is chosen
on the held-out pairs.

Vectors are "embedding-like": their spectrum falls as 1/k. Two responses to a prompt make a pair. There are four known
rewards, each with standard deviation 2 within prompts: "linear"; "bent", an absolute value and a linear part; "steps", a
jump on each of eight coordinates, one more where two of them meet, and a slight slope, so that no two responses are equal;
"clusters", linear again, but prompts lie in a hundred clusters, so that some prompts have better responses than others in
general: no pair tells that, and pointwise classification is not indifferent to it.

Accuracy is against the order of the known reward, on pairs of other prompts. The log loss is the one expected of labels
drawn like those of training, so that the known reward itself has the least one possible; so is the agreement with labels,
whose ceiling is the known reward's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _harness import command, finish, parser
from gbdt_on_the_graph import cells

from embedrm import Annotator, EmbeddedPreferences, LinearHead, RandomHead, Report, RewardModel, annotate
from embedrm.heads.gbdt import GBDTHead
from embedrm.heads.mlp import MLPHead
from embedrm.numerics.bradley_terry import log_loss
from embedrm.numerics.ties import pair_credit
from embedrm.reporting import collect

LIMIT = 180.0
OBJECTIVES = ("bradley-terry", "classification")
HEADS: dict[str, Callable[[str, int], RewardModel]] = {
    "linear": lambda objective, seed: LinearHead(objective=objective, l2="cv"),
    "mlp": lambda objective, seed: MLPHead(objective=objective, hidden="64-64-64-1", random_state=seed),
    "gbdt": lambda objective, seed: GBDTHead(objective=objective, random_state=seed),
}
TEACHERS = ("linear", "bent", "steps", "clusters")
STEPS, CLUSTERS, STD = 8, 100, 2.0
ANNOTATOR = Annotator(beta=1.0)


def vectors(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Rows (n, dim) whose spectrum falls as 1/k, in a random rotation."""
    x = rng.standard_normal((n, dim), dtype=np.float32) * (1.0 / np.sqrt(1.0 + np.arange(dim))).astype(np.float32)
    return x @ np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)


def make(teacher: str, prompts: int, held_out: int, dim: int) -> tuple[EmbeddedPreferences, EmbeddedPreferences]:
    """Training and held-out pairs of other prompts, the better response by the known reward first."""
    rng = np.random.default_rng(0)
    total = prompts + held_out
    x = vectors(rng, 2 * total, dim)
    if teacher == "clusters":
        centres = 2.0 * vectors(rng, CLUSTERS, dim)
        x += np.repeat(centres[rng.integers(CLUSTERS, size=total)], 2, axis=0)
    if teacher == "steps":
        jumps = np.sign(x[:, :STEPS])
        reward = jumps @ rng.uniform(0.5, 1.5, STEPS) + 2.0 * jumps[:, 0] * jumps[:, 1]
        # without a slope, two responses on the same sides of all steps would tie
        reward += 0.1 * x[:, :STEPS].sum(axis=1)
    else:
        reward = x @ rng.standard_normal(dim)
    if teacher == "bent":
        reward = np.abs(reward) + 0.5 * (x @ rng.standard_normal(dim))
    by_prompt = reward.reshape(total, 2)
    by_prompt = by_prompt * (STD / np.sqrt(0.5 * np.square(by_prompt[:, 0] - by_prompt[:, 1]).mean()))
    rows = x.reshape(total, 2, dim)
    parts = (slice(0, prompts), slice(prompts, total))
    train, test = (EmbeddedPreferences.from_arrays(rows[p], rewards=by_prompt[p]) for p in parts)
    return train, test


def size(models: list[Any]) -> str:
    """How large a fitted head is: its weights, or its trees (mean over seeds) times their leaves."""
    if isinstance(models[0], GBDTHead):
        trees = float(np.mean([m.n_trees_ for m in models]))
        return f"{trees:.0f} × {models[0].num_leaves} leaves"
    arrays = [models[0].coef_] if isinstance(models[0], LinearHead) else [*models[0].weights_, *models[0].biases_]
    return f"{sum(a.size for a in arrays):,} weights"


def one_comparison(teacher: str, a: argparse.Namespace) -> tuple[float, list[dict[str, Any]]]:
    """Seconds of a whole comparison, and its rows."""
    train, test = make(teacher, a.pairs, a.held_out, a.dim)
    gold = test.responses.gold[test.pairs]
    delta = gold[:, 0] - gold[:, 1]
    agreement = ANNOTATOR.agreement(delta)
    start = time.perf_counter()
    labelled = [annotate(train, ANNOTATOR, random_state=seed) for seed in range(a.seeds)]
    scored: dict[tuple[str, str], list[np.ndarray]] = {}
    facts: dict[tuple[str, str], dict[str, Any]] = {}
    for name, build in HEADS.items():
        for objective in OBJECTIVES:
            begin = time.perf_counter()
            models = [build(objective, seed).fit(prefs) for seed, prefs in enumerate(labelled)]
            scored[name, objective] = [model.margins(test) for model in models]
            facts[name, objective] = {"seconds": time.perf_counter() - begin, "size": size(models)}
            print(f"{teacher}: {name}, {objective}: {facts[name, objective]['seconds']:.1f} s", file=sys.stderr)
    scored["known reward", "–"] = [delta]
    scored["random", "–"] = [RandomHead().fit(train).margins(test)]
    credit = {key: np.mean([pair_credit(m) for m in found], axis=0) for key, found in scored.items()}
    loss = {key: np.mean([log_loss(m, agreement) for m in found], axis=0) for key, found in scored.items()}
    # a random number is no log-odds; its probability is one half
    loss["random", "–"] = np.full(len(delta), np.log(2.0))
    labels = {key: c * agreement + (1.0 - c) * (1.0 - agreement) for key, c in credit.items()}
    plain = {name: credit[name, OBJECTIVES[0]] for name in HEADS}
    keys = list(scored)
    lead = [credit[key] - plain.get(key[0], credit[key]) for key in keys]
    columns = [*(credit[k] for k in keys), *(loss[k] for k in keys), *(labels[k] for k in keys), *lead]
    found = np.reshape(cells(np.stack(columns, axis=1), test.prompt_rows), (4, len(keys)))
    seconds = time.perf_counter() - start
    rows = []
    for j, (name, objective) in enumerate(keys):
        each = [float(pair_credit(m).mean()) for m in scored[name, objective]]
        trained = objective in OBJECTIVES
        between = {"value": float(np.mean(each)), "low": min(each), "high": max(each)}
        row: dict[str, Any] = {"teacher": teacher, "head": name, "objective": objective}
        row |= {"accuracy": found[0, j], "between": between if trained else None, "labels": found[2, j]["value"]}
        row |= {"loss": found[1, j], "lead": found[3, j] if trained and objective != OBJECTIVES[0] else None}
        rows.append(row | facts.get((name, objective), {"seconds": None, "size": "–"}))
    return seconds, rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=20_000)
    options.add_argument("--held-out", type=int, default=10_000)
    options.add_argument("--dim", type=int, default=384)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--teachers", nargs="+", choices=TEACHERS, default=list(TEACHERS))
    a = options.parse_args()
    if a.smoke:
        a.pairs, a.held_out, a.dim, a.seeds = 200, 100, 16, 2
    started = time.perf_counter()
    seconds: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for teacher in a.teachers:
        seconds[teacher], found = one_comparison(teacher, a)
        rows += found
    slowest = max(seconds.values())
    kept = "within" if slowest <= LIMIT else "MISSES"
    report = Report(
        "benchmark",
        "A full comparison of heads",
        summary=[
            f"{len(HEADS)} heads × {len(OBJECTIVES)} objectives × {a.seeds} seeds on {a.pairs:,} pairs × {a.dim} "
            f"dimensions: {slowest:.0f} s, the slowest of {len(seconds)} comparisons ({kept} the limit of {LIMIT:.0f} s)",
            *(f"{teacher} reward: {value:.0f} s" for teacher, value in seconds.items()),
        ],
        provenance=collect(started=started, seeds=list(range(a.seeds)), command=command(__file__, a)),
    )
    columns = [
        {"key": "head", "label": "head"},
        {"key": "objective", "label": "objective"},
        {
            "key": "accuracy",
            "label": "accuracy",
            "kind": "interval",
            "note": "order of the known reward, mean of seeds",
        },
        {"key": "between", "label": "seeds", "kind": "interval", "note": "the same, least and most of the seeds"},
        {
            "key": "lead",
            "label": "lead",
            "kind": "interval",
            "digits": 4,
            "note": "accuracy less that of the same head by Bradley–Terry, paired",
        },
        {"key": "labels", "label": "labels", "kind": "share", "note": "expected agreement with labels"},
        {"key": "loss", "label": "log loss", "kind": "interval", "note": "expected of labels, in nats"},
        {"key": "seconds", "label": "time", "kind": "seconds", "note": f"{a.seeds} fits and their scores"},
        {"key": "size", "label": "size", "note": "weights, or trees (mean of the seeds) times leaves"},
    ]
    caption = (
        f"{a.pairs:,} training pairs and {a.held_out:,} held-out ones of other prompts, {a.dim} dimensions, float32, "
        f"{a.seeds} seeds, each with labels of its own. Intervals resample held-out prompts."
    )
    table = {"name": "main", "title": "Quality and cost", "columns": columns, "rows": rows, "caption": caption}
    report.add_section("Heads by objective", tables=[table | {"row_groups": "teacher"}])
    finish(report, "head_comparison", a)


if __name__ == "__main__":
    main()
