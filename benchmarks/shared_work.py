"""What is spared where the trials of a sweep share bins, features and matrices, and are results the same to the bit?

Command: python benchmarks/shared_work.py

Trials of one training set one after another on one core, as a worker runs them: boosted trees on 5,000 pairs x 512, whose
labels differ by the annotator (six betas) and trees by two settings; and linear heads, five penalties by five featurizers,
on 1,400 pairs x 384. Each sweep is run with and without sharing, in turn; without, every trial does all of its work.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and LightGBM are loaded

import numpy as np
from _harness import command, finish, paired_seconds, parser, ratio_cell
from sweep_engine import FEATURES, L2
from threadpoolctl import threadpool_limits

from embedrm import EmbeddedPreferences, Report, draw_pairs
from embedrm.experiments.experiment import Experiment
from embedrm.experiments.running import Workbench, run_trial
from embedrm.experiments.running_features import forget_features
from embedrm.preferences import EmbeddedResponses
from embedrm.reporting import Column, Table, collect

BETAS = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
TREES: list[dict[str, Any]] = [
    {"name": "gbdt", "threads": 1},
    {"name": "gbdt", "threads": 1, "num_leaves": 7, "learning_rate": 0.2},
]


def made(n_train: int, dim: int) -> EmbeddedPreferences:
    """So many training prompts and a quarter as many to judge on, two responses each; gold bends and has a product."""
    rng = np.random.default_rng(0)
    n = n_train + n_train // 4
    x = rng.standard_normal((2 * n, dim)).astype(np.float32)
    p = rng.standard_normal((n, dim)).astype(np.float32)
    gold = np.tanh(x @ rng.standard_normal(dim) / np.sqrt(dim)) + 0.5 * x[:, 0] * x[:, 1]
    split = np.where(np.arange(n) < n_train, "train", "test")
    views = {"response:final": x, "prompt:final": p}
    return draw_pairs(EmbeddedResponses(views, np.repeat(np.arange(n), 2), gold=gold, split=split), "same-prompt")


def tree_trials() -> list[Experiment]:
    """Every annotator by every setting."""
    annotated = [{"pairing": "same-prompt", "annotation": {"beta": beta, "scale": "global-std"}} for beta in BETAS]
    return [Experiment({"head": head, "training": training}) for training in annotated for head in TREES]


def linear_trials() -> list[Experiment]:
    """Every featurizer by every penalty."""
    return [Experiment({"head": {"l2": l2}, "featurizer": features}) for features in FEATURES for l2 in L2]


def run(trials: list[Experiment], bench: Workbench, shared: bool) -> tuple[list[Any], float]:
    """Everything the models learned and how they were judged, and the seconds that were spared."""
    once = run_trial if shared else run_trial.__wrapped__  # type: ignore[attr-defined]
    forget_features()
    found, spared = [], 0.0
    for trial in trials:
        facts, model = once(trial.config.parts, 0, bench.prepared(trial.config))
        learned = model.booster_ if hasattr(model, "booster_") else model.coef_.tobytes()
        found.append((learned, facts["metrics"]))
        spared += facts["spared_seconds"]
    return found, spared


def measured(what: str, trials: list[Experiment], prefs: EmbeddedPreferences, repeats: int) -> dict[str, Any]:
    """One row of the table."""
    bench = Workbench(preferences=prefs)
    for trial in trials:
        bench.prepared(trial.config).draw(0)
    last: dict[bool, Any] = {}

    def job(shared: bool) -> None:
        last[shared] = run(trials, bench, shared)

    with threadpool_limits(1):
        seconds = paired_seconds({"alone": lambda: job(False), "shared": lambda: job(True)}, repeats)
    return {
        "what": what,
        "trials": len(trials),
        "alone": float(np.median(seconds["alone"])),
        "shared": float(np.median(seconds["shared"])),
        "ratio": ratio_cell(seconds["alone"], seconds["shared"]),
        "spared": last[True][1],
        "verdict": "the same bits" if last[True][0] == last[False][0] else "other results",
    }


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    started = time.perf_counter()
    (n_trees, dim_trees), (n_linear, dim) = ((300, 16), (200, 8)) if options.smoke else ((5000, 512), (1400, 384))
    if options.smoke:
        FEATURES[2] = {"project": {"name": "pca", "n_components": 4}}
    repeats = 1 if options.smoke else options.repeats
    rows = [
        measured(
            f"boosted trees, {len(BETAS)} annotators by {len(TREES)} settings, {n_trees:,} pairs x {dim_trees}",
            tree_trials(),
            made(n_trees, dim_trees),
            repeats,
        ),
        measured(
            f"linear heads, {len(L2)} penalties by {len(FEATURES)} featurizers, {n_linear:,} pairs x {dim}",
            linear_trials(),
            made(n_linear, dim),
            repeats,
        ),
    ]
    columns = [
        Column("what", "Sweep"),
        Column("trials", "trials", "integer"),
        Column("alone", "nothing shared", "seconds"),
        Column("shared", "shared", "seconds"),
        Column("ratio", "ratio", "interval", digits=2, note="median of paired ratios, smallest and largest"),
        Column("spared", "spared, as counted", "seconds", note="sum of the trials' spared_seconds"),
        Column("verdict", "results"),
    ]
    report = Report("benchmark", "Work that trials share", f"one core; medians of {repeats}, in turn")
    report.add_section("Wall time", tables=[Table("shared-work", "Wall time", columns, rows)])
    report.provenance = collect(command=command(__file__, options), started=started)
    finish(report, "shared_work", options)
    if any(row["verdict"] != "the same bits" for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
