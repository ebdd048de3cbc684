"""Memory of fitting heads from matrices that are mapped from disk, not loaded.

Command: python benchmarks/memory.py

Response vectors are a float32 file of 4 GiB (two responses to each prompt), and prompt vectors one of half of that,
which is read where a head has interactions. Both are mapped read-only. Counted is anonymous memory (RssAnon, sampled
every 5 ms) above the state after imports and a toy fit: the comparison graph, with the names and the indices of its
prompts, is made inside what is counted, and so is all that the head holds and copies. Pages of the mapped files are not
counted: the system takes them back when it needs them. Each row runs in a process of its own, and once.

The vectors' spectrum falls as 1/k; labels are drawn by Bradley-Terry from a known reward that is linear in `r` and
`p*r`, with standard deviation 2. Some more prompts at the end of the same files are held out; accuracy is on their
labels, and shows that a head did learn. The heads are cut short, since memory does not grow with the length of
training: linear ones stop at an objective gap of 1e-4, perceptrons after one epoch, and trees after ten. With 15 bins,
LightGBM packs two into a byte once it has all rows, so that the peak is not lower. `predict` scores every response.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _harness import command, finish, in_subprocess, parser

from embedrm import EmbeddedPreferences, Featurizer, LinearHead, Report
from embedrm.heads.gbdt import GBDTHead
from embedrm.heads.mlp import MLPHead
from embedrm.numerics.ties import pair_credit
from embedrm.reporting import PeakMemory, collect
from embedrm.reward_model import RewardModel

LIMIT = 2**30
BLOCK_PROMPTS = 16_384
TOL, L2, TREES = 1e-4, 1e-4, 10
CV: dict[str, Any] = {"l2": "cv", "l2_grid": (1e-4, 1e-2), "cv": 2}
# by name: the head, its terms, its options
ROWS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "linear r": ("linear", "r", {}),
    "linear r, p*r": ("linear", "r,p*r", {}),
    "linear r, p*r, abs(p-r)": ("linear", "r,p*r,abs(p-r)", {}),
    "linear r, l2 by cv": ("linear", "r", CV),
    "mlp r": ("mlp", "r", {}),
    "mlp r, p*r": ("mlp", "r,p*r", {}),
    "gbdt r": ("gbdt", "r", {}),
    "gbdt r, 15 bins": ("gbdt", "r", {"max_bin": "fast"}),
}
BOUNDED = ("linear", "mlp")


def write(folder: Path, prompts: int, dim: int) -> None:
    """Write response vectors (2 * prompts, dim), prompt vectors (prompts, dim), labelled pairs and their margins."""
    rng = np.random.default_rng(0)
    spread = (1.0 / np.sqrt(1.0 + np.arange(dim))).astype(np.float32)
    alone, met = rng.standard_normal((2, dim)).astype(np.float32)
    # both parts of the reward have the same variance, and a reward standard deviation 2
    alone *= np.sqrt(2.0) / np.linalg.norm(alone * spread)
    met *= np.sqrt(2.0) / np.linalg.norm(met * spread**2)
    pairs, margin = np.arange(2 * prompts).reshape(prompts, 2), np.empty(prompts)
    with open(folder / "response.npy", "wb") as responses, open(folder / "prompt.npy", "wb") as others:
        for file, n in ((responses, 2 * prompts), (others, prompts)):
            layout = {"descr": "<f4", "fortran_order": False, "shape": (n, dim)}
            np.lib.format.write_array_header_1_0(file, layout)
        for start in range(0, prompts, BLOCK_PROMPTS):
            part = slice(start, min(start + BLOCK_PROMPTS, prompts))
            n = part.stop - start
            p = rng.standard_normal((n, dim), dtype=np.float32) * spread
            r = rng.standard_normal((n, 2, dim), dtype=np.float32) * spread
            r.tofile(responses)
            p.tofile(others)
            gap = np.einsum("ij,ij->i", r[:, 0] - r[:, 1], alone + p * met)
            lost = rng.random(n) > 1.0 / (1.0 + np.exp(-gap))
            pairs[part] = np.where(lost[:, None], pairs[part, ::-1], pairs[part])
            margin[part] = np.where(lost, -gap, gap)
    np.save(folder / "pairs.npy", pairs)
    np.save(folder / "margin.npy", margin)


def head(row: str) -> RewardModel:
    kind, terms, options = ROWS[row]
    if kind == "linear":
        return LinearHead(Featurizer(terms=terms, scale="rms"), **{"l2": L2, "tol": TOL, **options})
    if kind == "mlp":
        return MLPHead(Featurizer(terms=terms, scale="rms"), hidden=(64, 64, 64), max_epochs=1, **options)
    return GBDTHead(Featurizer(terms=terms, scale="none"), max_trees=TREES, num_leaves=31, **options)


def load(folder: Path, row: str) -> tuple[EmbeddedPreferences, int]:
    """Preferences over the mapped files that a row needs, and the bytes mapped."""
    names = ("response", "prompt") if "p" in ROWS[row][1] else ("response",)
    views = {f"{name}:final": np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
    pairs = np.load(folder / "pairs.npy")
    prompt_of = np.repeat(np.arange(len(pairs)), 2)
    return EmbeddedPreferences.from_arrays(views, pairs, prompt_of=prompt_of), sum(m.nbytes for m in views.values())


def measure(row: str, folder: Path, held_out: int) -> None:
    """Print one row of the table, without its name."""
    with tempfile.TemporaryDirectory() as toy:
        # the imported baseline: each path has run once, on a toy
        write(Path(toy), 200, 8)
        head(row).fit(load(Path(toy), row)[0])
    start = time.perf_counter()
    with PeakMemory() as memory:
        with PeakMemory() as graph:
            prefs, mapped = load(folder, row)
        n = len(prefs) - held_out
        train, test = prefs[:n], prefs[n:]
        model = head(row).fit(train)
        fitted = time.perf_counter()
        rewards = model.predict(prefs)
        scored = time.perf_counter()
    credit = pair_credit(rewards[test.pairs[:, 0]] - rewards[test.pairs[:, 1]])
    line = {"responses": len(train.active), "pairs": n, "mapped": mapped, "memory": memory.above_baseline}
    line |= {"graph": graph.above_baseline, "seconds": fitted - start, "predict_seconds": scored - fitted}
    print(json.dumps(line | {"accuracy": float(credit.mean())}))


def verdict(row: dict[str, Any]) -> str:
    """Say whether a row keeps to the limit."""
    if row["memory"] is None:
        return f"{row['method']}: not measured; anonymous memory is known on Linux only"
    size = f"{row['method']}: {row['memory'] / 2**20:,.0f} MiB"
    if ROWS[row["method"]][0] not in BOUNDED:
        return f"{size} (stated, without a limit)"
    return f"{size}, {'under' if row['memory'] < LIMIT else 'NOT UNDER'} 1 GiB"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=2_796_204, help="responses to fit on, two to a prompt")
    options.add_argument("--dim", type=int, default=384)
    options.add_argument("--held-out", type=int, default=20_000, help="prompts beside them")
    options.add_argument("--folder", type=Path, help="where the temporary files go; the system's place where absent")
    options.add_argument(
        "--measure", nargs=2, metavar=("ROW", "FOLDER"), help="internal: one row, on files written before"
    )
    a = options.parse_args()
    if a.smoke:
        a.rows, a.dim, a.held_out = 1200, 16, 100
    warnings.simplefilter("ignore")
    if a.measure:
        measure(a.measure[0], Path(a.measure[1]), a.held_out)
        return
    started = time.perf_counter()
    prompts = a.rows // 2 + a.held_out
    needed, free = 3 * 4 * a.dim * prompts, shutil.disk_usage(a.folder or tempfile.gettempdir()).free
    if free < 1.1 * needed:
        raise SystemExit(f"the files need {needed:,} bytes and {free:,} are free; give another --folder")
    with tempfile.TemporaryDirectory(dir=a.folder) as folder:
        write(Path(folder), prompts, a.dim)
        known = float(pair_credit(np.load(Path(folder) / "margin.npy")[a.rows // 2 :]).mean())
        words = [f"--held-out={a.held_out}"]
        rows = [{"method": row, **in_subprocess(__file__, *words, "--measure", row, folder)} for row in ROWS]
    report = Report(
        "benchmark",
        "Memory of fitting from mapped vectors",
        summary=[verdict(row) for row in rows],
        provenance=collect(started=started, seeds=0, command=command(__file__, a)),
    )
    columns = [
        {"key": "method", "label": "head and terms"},
        {"key": "responses", "label": "responses", "kind": "integer", "note": "that it was fitted on"},
        {"key": "pairs", "label": "pairs", "kind": "integer"},
        {"key": "mapped", "label": "mapped", "kind": "bytes", "note": "files of vectors, with the held-out ones"},
        {"key": "memory", "label": "memory", "kind": "bytes", "note": "peak above the imported baseline"},
        {"key": "graph", "label": "graph", "kind": "bytes", "note": "of that: peak while making the comparison graph"},
        {"key": "seconds", "label": "fit", "kind": "seconds"},
        {"key": "predict_seconds", "label": "predict", "kind": "seconds"},
        {"key": "accuracy", "label": "accuracy", "kind": "share"},
    ]
    caption = (
        f"{a.dim} dimensions, float32, one prompt to two responses. Linear heads: objective gap {TOL:g}, l2 = {L2:g}, by "
        f"cross-validation one of {len(CV['l2_grid'])} from {CV['cv']} folds; perceptrons: 64-64-64-1, one epoch; trees: "
        f"{TREES} of 31 leaves, 63 bins. Accuracy on {a.held_out:,} held-out pairs with noisy labels, of which the known "
        f"reward itself agrees with {known:.3f}."
    )
    table = {"name": "main", "title": "Peak anonymous memory", "columns": columns, "rows": rows, "caption": caption}
    report.add_section("Fitting and scoring", tables=[table])
    finish(report, "memory", a)


if __name__ == "__main__":
    main()
