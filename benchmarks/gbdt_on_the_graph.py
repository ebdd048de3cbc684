"""Boosted trees on the comparison graph against LightGBM on stacked pair rows.

Command: python benchmarks/gbdt_on_the_graph.py

The peer is LightGBM's own binary objective on one row for each pair, the difference x_i - x_j of the two responses, turned
round at random (label 1 where the chosen response comes first). Ours is GBDTHead, with one row for each response. All have
the same threads, trees, leaves, learning rate, bins, and least responses (rows) in a leaf; none is regularised or stops
early, and all start at zero. Beyond that, the peer is as LightGBM comes: it finds bin limits from 200,000 rows, and chooses
the layout of its histograms. "Binned alike" is the peer with the head's settings in that too: limits from 10,000 rows, the
deterministic settings. Seconds are from the bare arrays on: the peer's include making the differences, ours the comparison
graph.

Vectors are "embedding-like": their spectrum falls as 1/k. Labels are drawn by Bradley-Terry from a known reward, linear or
bent, with standard deviation 2. Agreement is with the known reward itself, on prompts of their own: the share of pairs in
its order, and Spearman's correlation within a prompt. The peer scores differences, not responses: a pair's margin is
(f(d) - f(-d)) / 2, and a response's score the mean of its margins over the other responses of its prompt. Intervals are
clustered by prompt. The first reward is timed in paired repetitions, the second once. Memory is measured in processes of
their own.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
from _harness import command, finish, in_subprocess, paired_seconds, parser, ratio_cell
from scipy.stats import rankdata

from embedrm import EmbeddedPreferences, Report
from embedrm.heads._gbdt_data import SAMPLE_ROWS
from embedrm.heads.gbdt import GBDTHead
from embedrm.numerics.bootstrap import Clustered, percentile_interval
from embedrm.numerics.ties import pair_credit
from embedrm.reporting import PeakMemory, collect

LEAVES, RATE, BINS, IN_LEAF = 31, 0.1, 63, 20
PEER, ALIKE = "stacked differences", "stacked differences, binned alike"
PEER_POINTWISE = "stacked responses, classification"
PEER_RATES = {f"stacked differences, learning rate {rate}": {"learning_rate": rate} for rate in (0.2, 0.4)}
PEERS: dict[str, dict[str, Any]] = {
    PEER: {},
    ALIKE: {"bin_construct_sample_cnt": SAMPLE_ROWS, "deterministic": True, "force_row_wise": True}
    | {"use_missing": False, "feature_pre_filter": False},
    **PEER_RATES,
    PEER_POINTWISE: {},
}
ONCE = (*PEER_RATES, PEER_POINTWISE)
OURS = "graph"
METHODS: dict[str, dict[str, Any]] = {
    OURS: {},
    "graph, classification": {"objective": "classification"},
    "graph, learning rate 0.2": {"learning_rate": 0.2},
    "graph, learning rate 0.4": {"learning_rate": 0.4},
    "graph, 15 bins": {"max_bin": "fast"},
    "graph, quantised": {"quantized": True},
}
Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def all_pairs(prompts: int, k: int) -> np.ndarray:
    i, j = np.triu_indices(k, 1)
    return (np.arange(prompts)[:, None, None] * k + np.stack([i, j], axis=-1)[None]).reshape(-1, 2)


def make(kind: str, prompts: int, k: int, dim: int) -> tuple[Data, tuple[np.ndarray, np.ndarray]]:
    """Training vectors, labelled pairs, prompt rows and rewards; held-out vectors and rewards, a quarter as many."""
    rng = np.random.default_rng(0)
    held = max(1, prompts // 4)
    x = rng.standard_normal(((prompts + held) * k, dim), dtype=np.float32)
    x *= (1.0 / np.sqrt(1.0 + np.arange(dim))).astype(np.float32)
    x = x @ np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    reward = x @ rng.standard_normal(dim).astype(np.float32)
    if kind == "bent":
        reward = np.abs(reward) + 0.5 * (x @ rng.standard_normal(dim).astype(np.float32))
    reward *= 2.0 / reward.std()
    n = prompts * k
    pairs = all_pairs(prompts, k)
    lost = rng.random(len(pairs)) > 1.0 / (1.0 + np.exp(reward[pairs[:, 1]] - reward[pairs[:, 0]]))
    pairs = np.where(lost[:, None], pairs[:, ::-1], pairs)
    return (x[:n], pairs, np.repeat(np.arange(prompts), k), reward[:n]), (x[n:], reward[n:])


def ours(data: Data, trees: int, threads: int, **options: Any) -> GBDTHead:
    """Fit our head; everything from the bare arrays on is inside."""
    x, pairs, prompt_of, _ = data
    settings: dict[str, Any] = {"max_trees": trees, "threads": threads, "num_leaves": LEAVES, "learning_rate": RATE}
    settings |= {"max_bin": BINS, "min_data_in_leaf": IN_LEAF, "l2": 0.0, "early_stopping": False}
    return GBDTHead(**{**settings, **options}).fit(EmbeddedPreferences.from_arrays(x, pairs, prompt_of=prompt_of))


def peer(data: Data, trees: int, threads: int, which: str) -> lightgbm.Booster:
    """Fit the peer, including the rows that it needs: turned differences, or both responses of each pair."""
    x, pairs, _, _ = data
    if which == PEER_POINTWISE:
        rows, labels = x[pairs.T.ravel()], np.repeat([1.0, 0.0], len(pairs)).astype(np.float32)
    else:
        first = np.random.default_rng(1).random(len(pairs)) < 0.5
        rows, labels = x[pairs[:, 0]], first.astype(np.float32)
        rows -= x[pairs[:, 1]]
        rows *= np.where(first, 1.0, -1.0).astype(x.dtype)[:, None]
    settings: dict[str, Any] = {"objective": "binary", "boost_from_average": False, "num_leaves": LEAVES}
    settings |= {"learning_rate": RATE, "max_bin": BINS, "min_data_in_leaf": IN_LEAF, "num_threads": threads, "seed": 0}
    settings |= {"verbosity": -1} | PEERS[which]
    table = lightgbm.Dataset(rows, labels, params=settings).construct()
    del rows
    return lightgbm.train(settings, table, trees)


def fit(which: str, data: Data, trees: int, threads: int) -> Any:
    if which in PEERS:
        return peer(data, trees, threads, which)
    return ours(data, trees, threads, **METHODS[which])


def held_out_margins(which: str, model: Any, x: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Margins of all pairs of held-out prompts."""
    if which in METHODS or which == PEER_POINTWISE:
        rewards = model.predict(x) if which in METHODS else model.predict(x, raw_score=True)
        return rewards[pairs[:, 0]] - rewards[pairs[:, 1]]
    differences = x[pairs[:, 0]] - x[pairs[:, 1]]
    there, back = (model.predict(sign * differences, raw_score=True) for sign in (1.0, -1.0))
    return 0.5 * (there - back)


def spearman(margins: np.ndarray, reward: np.ndarray, pairs: np.ndarray, k: int) -> np.ndarray:
    """Rank correlation of mean margins with the known reward, within each prompt."""
    n = len(reward)
    score = np.bincount(pairs[:, 0], margins, n) - np.bincount(pairs[:, 1], margins, n)
    ranks = [rankdata(v.reshape(-1, k), axis=1) for v in (score, reward)]
    a, b = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    size = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return (a * b).sum(axis=1) / np.where(size > 0, size, 1.0)


def cells(columns: np.ndarray, prompt: np.ndarray) -> list[dict[str, float]]:
    """Mean of each column with its interval, clustered by prompt."""
    table = Clustered.from_rows(columns, prompt, np.full(len(prompt), "all"))
    point, (low, high) = table.means()[0, 0], percentile_interval(table.resample())[:, 0]
    return [{"value": float(v), "low": float(a), "high": float(b)} for v, a, b in zip(point, low, high)]


def agreement(models: dict[str, Any], test: tuple[np.ndarray, np.ndarray], k: int) -> dict[str, dict[str, Any]]:
    """Accuracy and rank correlation of every model, and its accuracy less the peer's."""
    x, reward = test
    prompts = len(reward) // k
    pairs = all_pairs(prompts, k)
    sign = np.where(reward[pairs[:, 0]] >= reward[pairs[:, 1]], 1.0, -1.0)
    margins = {name: held_out_margins(name, model, x, pairs) for name, model in models.items()}
    credit = np.stack([pair_credit(sign * m) for m in margins.values()], axis=1)
    ranks = np.stack([spearman(m, reward, pairs, k) for m in margins.values()], axis=1)
    owner = pairs[:, 0] // k
    peers = credit[:, [list(models).index(PEER)]]
    lists = cells(credit, owner), cells(ranks, np.arange(prompts)), cells(credit - peers, owner)
    return {
        name: {"accuracy": a, "spearman": s, "lead": None if name == PEER else d}
        for name, a, s, d in zip(models, *lists)
    }


def measure_memory(which: str, a: argparse.Namespace) -> None:
    """Print the peak of anonymous memory above the state just before fitting, with the vectors loaded."""
    data, _ = make("linear", a.prompts, a.responses, a.dim)
    small, _ = make("linear", 40, 4, 8)
    # the imported baseline: each path has run once, on a toy
    fit(which, small, 2, a.threads)
    with PeakMemory() as memory:
        fit(which, data, a.trees, a.threads)
    print(json.dumps({"bytes": memory.above_baseline}))


def one_kind(kind: str, repeats: int, a: argparse.Namespace) -> list[dict[str, Any]]:
    data, test = make(kind, a.prompts, a.responses, a.dim)
    models: dict[str, Any] = {}

    def job(which: str) -> Callable[[], None]:
        def run() -> None:
            models[which] = fit(which, data, a.trees, a.threads)

        return run

    names = [*PEERS, *METHODS]
    seconds = paired_seconds({name: job(name) for name in names if name not in ONCE}, repeats)
    seconds |= paired_seconds({name: job(name) for name in ONCE}, 1)
    found = agreement({name: models[name] for name in names}, test, a.responses)
    n_pairs, n_responses = len(data[1]), len(data[0])
    rows = []
    for name in names:
        n_rows = n_responses if name in METHODS else 2 * n_pairs if name == PEER_POINTWISE else n_pairs
        row: dict[str, Any] = {"reward": kind, "method": name, "rows": n_rows}
        row["seconds"] = float(np.median(seconds[name]))
        for key, slow in (("ratio", PEER), ("alike", ALIKE)):
            row[key] = ratio_cell(seconds[slow], seconds[name]) if name in METHODS else None
        rows.append(row | found[name])
    return rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--prompts", type=int, default=4000)
    options.add_argument("--responses", type=int, default=10)
    options.add_argument("--dim", type=int, default=384)
    options.add_argument("--trees", type=int, default=100)
    options.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of every method")
    options.add_argument("--memory", metavar="WHICH", help="internal: one memory measurement")
    a = options.parse_args()
    if a.smoke:
        a.prompts, a.responses, a.dim, a.trees, a.repeats, a.threads = 60, 5, 16, 5, 2, 1
    if a.memory:
        measure_memory(a.memory, a)
        return
    started = time.perf_counter()
    # each path has run once before it is timed
    toy, _ = make("linear", 40, 4, 8)
    for name in (*PEERS, *METHODS):
        fit(name, toy, 2, a.threads)
    rows = one_kind("linear", a.repeats, a) + one_kind("bent", 1, a)
    words = [f"--{name}={getattr(a, name)}" for name in ("prompts", "responses", "dim", "trees", "threads")]
    for row in rows:
        measured = row["reward"] == "linear" and row["method"] in (
            PEER,
            ALIKE,
            PEER_POINTWISE,
            OURS,
            "graph, classification",
        )
        row["memory"] = in_subprocess(__file__, *words, "--memory", row["method"])["bytes"] if measured else None
    main_row = next(row for row in rows if row["method"] == OURS)
    leads = [row for row in rows if row["method"] == OURS]
    report = Report(
        "benchmark",
        "Boosted trees: comparison graph against stacked pair rows",
        summary=[
            f"{main_row['ratio']['value']:.1f} times faster (median of {a.repeats} paired runs, "
            f"{main_row['ratio']['low']:.1f} to {main_row['ratio']['high']:.1f}); "
            f"{main_row['alike']['value']:.1f} times faster than the peer binned alike",
            *(
                f"{row['reward']} reward: {100 * row['lead']['value']:+.1f} points of pairwise accuracy "
                f"({100 * row['lead']['low']:+.1f} to {100 * row['lead']['high']:+.1f})"
                for row in leads
            ),
        ],
        provenance=collect(started=started, seeds=0, command=command(__file__, a)),
    )
    columns = [
        {"key": "reward", "label": "known reward"},
        {"key": "method", "label": "method"},
        {"key": "rows", "label": "rows", "kind": "integer", "note": "rows that LightGBM is trained on"},
        {"key": "seconds", "label": "time", "kind": "seconds"},
        {
            "key": "ratio",
            "label": "times faster",
            "kind": "interval",
            "digits": 1,
            "note": "than the stacked differences; median, least and most of the paired runs",
        },
        {"key": "alike", "label": "than alike", "kind": "interval", "digits": 1, "note": "than those binned alike"},
        {"key": "accuracy", "label": "accuracy", "kind": "share"},
        {"key": "lead", "label": "lead", "kind": "interval", "digits": 4, "note": "accuracy less the peer's, paired"},
        {"key": "spearman", "label": "Spearman", "kind": "interval", "digits": 3},
        {
            "key": "memory",
            "label": "memory",
            "kind": "bytes",
            "note": "peak anonymous memory above the state with the vectors loaded",
        },
    ]
    caption = (
        f"{a.prompts:,} prompts × {a.responses} responses × {a.dim} dimensions, all pairs of a prompt; {a.trees} trees of "
        f"{LEAVES} leaves, learning rate {RATE}, {BINS} bins, {a.threads} thread(s). Agreement with the known reward on "
        f"{max(1, a.prompts // 4):,} other prompts."
    )
    table = {"name": "main", "title": "Fitting and agreement", "columns": columns, "rows": rows, "caption": caption}
    report.add_section("At equal settings", tables=[table])
    finish(report, "gbdt_on_the_graph", a)


if __name__ == "__main__":
    main()
