"""Memory and time of training on (40000, 10, 2048) arrays and choosing among (2000, 500, 2048), mapped from disk.

Command: python benchmarks/candidate_arrays.py [--folder FOLDER]

The layout of the Reusing-Embeddings release, in float32: 3.3 GB of training vectors and 8.2 GB of test vectors, written
chunk by chunk from a teacher whose gold is that of a network of one hidden layer (`embedrm.datasets.teachers`), and mapped
read-only. Each row runs in a process of its own, and once.

*anonymous* is peak anonymous memory (RssAnon, sampled every 5 ms) above the state after imports and a toy fit: everything
that is made or copied, with the comparison graph. *resident* is the process's peak resident memory as the system counts it
(ru_maxrss), interpreter, libraries and mapped pages included; pages of mapped files can be taken back at any time, so that
it is an upper bound which a machine with less memory would lower. The training file is mapped whole; the test file is
mapped again for every 100 prompts that are scored, so that only these pages are the process's.

The heads are cut short, since memory does not grow with the length of training: linear ones stop at an objective gap of
1e-4, perceptrons after two epochs. Gold of the best of n is by the unbiased estimator.
"""

from __future__ import annotations

import json
import resource
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _harness import command, finish, in_subprocess, parser

from embedrm import EmbeddedPreferences, EnsembleRewardModel, Featurizer, LinearHead, Report
from embedrm.datasets.candidate_arrays import load_release, release_paths
from embedrm.datasets.teachers import Teacher, write_candidates
from embedrm.heads.mlp import MLPHead
from embedrm.numerics import best_of_n as bon
from embedrm.reporting import PeakMemory, collect
from embedrm.reward_model import RewardModel

LIMIT = 4 * 2**30
NAME = "teacher"
SCORED_PROMPTS = 100
# by name: the head, and whether all pairs of a prompt's responses are taken or one
ROWS = {
    "linear, one pair a prompt": ("linear", False),
    "linear, all pairs": ("linear", True),
    "mlp 64-64-64, one pair a prompt": ("mlp", False),
    "mlp 64-64-64, all pairs": ("mlp", True),
    "10 mlps 64-64-64, all pairs": ("ensemble", True),
}


def model(kind: str) -> RewardModel:
    featurizer = Featurizer(scale="rms")
    if kind == "linear":
        return LinearHead(featurizer, l2=1e-4, tol=1e-4)
    head = MLPHead(featurizer, max_epochs=2)
    if kind == "mlp":
        return head
    return EnsembleRewardModel(head, n_members=10, kind="seeds", calibration_fraction=0.02)


def preferences(folder: Path, every: bool) -> EmbeddedPreferences:
    """Right labels on the mapped training array: all pairs of a prompt's responses, or the first two responses."""
    if every:
        vectors, rewards = release_paths(folder, NAME, "train")
        return EmbeddedPreferences.from_arrays(np.load(vectors, mmap_mode="r"), rewards=np.load(rewards))
    responses = load_release(folder, NAME, "train")
    first = np.unique(responses.prompt_of, return_index=True)[1]
    pairs = np.stack([first, first + 1], axis=1)
    wrong = responses.gold[pairs[:, 0]] < responses.gold[pairs[:, 1]]
    pairs[wrong] = pairs[wrong, ::-1]
    return EmbeddedPreferences(responses, pairs)


def score(fitted: RewardModel, folder: Path) -> np.ndarray:
    """Rewards (n, k) of the test array, mapped again for every so many prompts."""
    path = release_paths(folder, NAME, "test")[0]
    n, k, dim = np.load(path, mmap_mode="r").shape
    out = np.empty((n, k))
    for start in range(0, n, SCORED_PROMPTS):
        part = np.load(path, mmap_mode="r")[start : start + SCORED_PROMPTS]
        out[start : start + len(part)] = fitted.predict(part.reshape(-1, dim)).reshape(-1, k)
        del part
    return out


def measure(row: str, folder: Path) -> None:
    """Print one row of the table, without its name."""
    kind, every = ROWS[row]
    with tempfile.TemporaryDirectory() as toy:
        for split in ("train", "test"):
            write_candidates(Teacher(8), toy, NAME, split, 60, 4)
        score(model(kind).fit(preferences(Path(toy), every)), Path(toy))
    start = time.perf_counter()
    with PeakMemory() as memory:
        prefs = preferences(folder, every)
        fitted = model(kind).fit(prefs)
        seconds = time.perf_counter() - start
        line = {"pairs": len(prefs), "responses": len(prefs.active), "seconds": seconds}
        line["mapped"] = prefs.responses.views["response:final"].nbytes
        trained_resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        del prefs
        rewards = score(fitted, folder)
        line["score_seconds"] = time.perf_counter() - start - seconds
    line |= {"memory": memory.above_baseline, "trained_resident": trained_resident}
    line["resident"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    gold = np.load(release_paths(folder, NAME, "test")[1])[:, :, 0].astype(np.float64)
    n, k = gold.shape
    candidates = bon.Candidates.of(np.repeat(np.arange(n), k), np.arange(n * k))
    line["spearman"] = float(np.mean(bon.spearman(rewards.ravel(), gold.ravel(), candidates)))
    chosen = gold[np.arange(n), rewards.argmax(axis=1)]
    line["captured"] = float((chosen - gold.mean(axis=1)).mean() / (gold.max(axis=1) - gold.mean(axis=1)).mean())
    print(json.dumps(line))


def verdict(row: dict[str, Any]) -> str:
    """Say whether a row keeps to the limit."""
    if row["memory"] is None:
        return f"{row['method']}: not measured; anonymous memory is known on Linux only"
    kept = "within" if row["resident"] <= LIMIT else "NOT WITHIN"
    return (
        f"{row['method']}: {row['memory'] / 2**20:,.0f} MiB anonymous, {row['resident'] / 2**30:.2f} GiB resident with "
        f"mapped pages, {kept} 4 GiB"
    )


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--train", type=int, nargs=3, default=(40_000, 10, 2048), metavar=("N", "K", "D"))
    options.add_argument("--test", type=int, nargs=2, default=(2_000, 500), metavar=("N", "K"))
    options.add_argument("--folder", type=Path, help="where the temporary files go; the system's place where absent")
    options.add_argument("--measure", nargs=2, metavar=("ROW", "FOLDER"), help="internal: one row, on written files")
    a = options.parse_args()
    if a.smoke:
        a.train, a.test = (200, 4, 16), (20, 30)
    warnings.simplefilter("ignore")
    if a.measure:
        measure(a.measure[0], Path(a.measure[1]))
        return
    started = time.perf_counter()
    (n, k, dim), (n_test, k_test) = a.train, a.test
    needed, free = 4 * dim * (n * k + n_test * k_test), shutil.disk_usage(a.folder or tempfile.gettempdir()).free
    if free < 1.1 * needed:
        raise SystemExit(f"the files need {needed:,} bytes and {free:,} are free; give another --folder")
    with tempfile.TemporaryDirectory(dir=a.folder) as folder:
        begun = time.perf_counter()
        with PeakMemory() as writing:
            write_candidates(Teacher(dim), folder, NAME, "train", n, k)
            write_candidates(Teacher(dim), folder, NAME, "test", n_test, k_test, chunk=8)
        wrote = time.perf_counter() - begun
        rows = [{"method": row, **in_subprocess(__file__, "--measure", row, folder)} for row in ROWS]
    made = (
        f"Writing {needed / 1e9:.3g} GB of candidates took {wrote:,.0f} s"
        + (
            ""
            if writing.above_baseline is None
            else f" and {writing.above_baseline / 2**20:,.0f} MiB above the baseline"
        )
        + "."
    )
    report = Report(
        "benchmark",
        "Arrays of candidates, mapped from disk",
        summary=[*(verdict(row) for row in rows), made],
        provenance=collect(started=started, seeds=0, command=command(__file__, a)),
    )
    columns = [
        {"key": "method", "label": "model and pairs"},
        {"key": "pairs", "label": "pairs", "kind": "integer"},
        {"key": "responses", "label": "responses", "kind": "integer", "note": "that the pairs touch"},
        {"key": "mapped", "label": "mapped", "kind": "bytes", "note": "training vectors"},
        {"key": "memory", "label": "anonymous", "kind": "bytes", "note": "peak above the imported baseline"},
        {"key": "trained_resident", "label": "resident, fit", "kind": "bytes", "note": "peak with mapped pages"},
        {"key": "resident", "label": "resident, all", "kind": "bytes", "note": "peak with mapped pages"},
        {"key": "seconds", "label": "graph and fit", "kind": "seconds"},
        {"key": "score_seconds", "label": "score", "kind": "seconds", "note": "the test array"},
        {"key": "spearman", "label": "Spearman", "kind": "share", "note": "of reward and gold, mean over test prompts"},
        {"key": "captured", "label": "captured", "kind": "share", "note": "gain of the best of K over the oracle's"},
    ]
    caption = (
        f"Trained on ({n:,}, {k:,}, {dim:,}), judged on ({n_test:,}, {k_test:,}, {dim:,}), float32. Linear heads: objective "
        "gap 1e-4, l2 = 1e-4; perceptrons: two epochs; the ensemble keeps 2 % of the prompts to standardise members on."
    )
    table = {"name": "main", "title": "Memory and time", "columns": columns, "rows": rows, "caption": caption}
    report.add_section("Training and choosing", tables=[table])
    finish(report, "candidate_arrays", a)


if __name__ == "__main__":
    main()
