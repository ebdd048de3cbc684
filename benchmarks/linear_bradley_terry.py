"""Linear Bradley–Terry on the comparison graph against scikit-learn's LogisticRegression on stacked differences.

Command: python benchmarks/linear_bradley_terry.py

Both minimise the same objective on the same pairs, each at the loosest tolerance of a ladder at which its objective,
evaluated in float64, is within 1e-6 of the optimum. The peer's time includes making the differences. Vectors are float32
for both. Two kinds of vectors: "embedding-like" ones, whose spectrum falls as 1/k like those of sentence encoders, and
isotropic ones. The peer's other solvers are listed too. Memory is measured in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from functools import partial
from typing import Any

import numpy as np
from _harness import command, finish, in_subprocess, paired_seconds, parser, ratio_cell
from sklearn.linear_model import LogisticRegression

from embedrm import EmbeddedPreferences, Featurizer, LinearHead, Report
from embedrm.numerics.bradley_terry import log_loss
from embedrm.reporting import PeakMemory, collect

GAP = 1e-6
RAW = Featurizer(scale="none")
L2 = 1e-3
LADDER = (1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 1e-7, 1e-8)


def make(kind: str, prompts: int, k: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors (prompts * k, dim) float32, all pairs with Bradley–Terry labels of a linear teacher, prompt rows."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((prompts * k, dim), dtype=np.float32)
    if kind == "embedding-like":
        x *= (1.0 / np.sqrt(1.0 + np.arange(dim))).astype(np.float32)
        x = x @ np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    reward = x @ rng.standard_normal(dim).astype(np.float32)
    reward *= 2.0 / reward.std()
    prompt_of = np.repeat(np.arange(prompts), k)
    i, j = np.triu_indices(k, 1)
    pairs = (np.arange(prompts)[:, None, None] * k + np.stack([i, j], axis=-1)[None]).reshape(-1, 2)
    margin = reward[pairs[:, 0]] - reward[pairs[:, 1]]
    lost = rng.random(len(pairs)) > 1.0 / (1.0 + np.exp(-margin))
    return x, np.where(lost[:, None], pairs[:, ::-1], pairs), prompt_of


def ours(x: np.ndarray, pairs: np.ndarray, prompt_of: np.ndarray, tol: float) -> np.ndarray:
    """Fit our head; everything from the bare arrays on is inside."""
    return LinearHead(RAW, l2=L2, tol=tol).fit(EmbeddedPreferences.from_arrays(x, pairs, prompt_of=prompt_of)).coef_


def peer(x: np.ndarray, pairs: np.ndarray, tol: float, solver: str = "lbfgs") -> np.ndarray:
    """Fit the peer, including the randomly sign-flipped differences that it needs."""
    sign = np.where(np.random.default_rng(1).random(len(pairs)) < 0.5, -1.0, 1.0).astype(x.dtype)
    differences = x[pairs[:, 0]] - x[pairs[:, 1]]
    differences *= sign[:, None]
    model = LogisticRegression(C=1.0 / (L2 * len(pairs)), fit_intercept=False, tol=tol, max_iter=5000, solver=solver)
    return model.fit(differences, sign).coef_[0]


def objective(x: np.ndarray, pairs: np.ndarray, w: np.ndarray) -> float:
    rewards = x.astype(np.float64) @ w.astype(np.float64)
    return float(log_loss(rewards[pairs[:, 0]] - rewards[pairs[:, 1]]).mean() + 0.5 * L2 * (w @ w))


def loosest(fit: Any, x: np.ndarray, pairs: np.ndarray, best: float) -> tuple[float, float]:
    for tol in LADDER:
        gap = objective(x, pairs, fit(tol)) - best
        if gap <= GAP:
            return tol, gap
    raise SystemExit("no tolerance of the ladder reaches the objective gap")


def measure_memory(which: str, kind: str, prompts: int, k: int, dim: int, tol: float) -> None:
    """Print the peak of anonymous memory above the state just before fitting, in units of the vector matrix."""
    x, pairs, prompt_of = make(kind, prompts, k, dim)
    small = make(kind, 20, 4, 8)
    # the imported baseline: each path has run once, on a toy
    ours(*small, 1e-3) if which == "ours" else peer(small[0], small[1], 1e-3)
    with PeakMemory() as memory:
        ours(x, pairs, prompt_of, tol) if which == "ours" else peer(x, pairs, tol)
    above = memory.above_baseline
    print(json.dumps({"bytes": above, "of_matrix": None if above is None else above / x.nbytes}))


def one_kind(kind: str, a: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Row of the main table and rows of the other solvers, for one kind of vectors."""
    shape = (a.prompts, a.responses, a.dim)
    x, pairs, prompt_of = make(kind, *shape)
    exact = EmbeddedPreferences.from_arrays(x.astype(np.float64), pairs, prompt_of=prompt_of)
    best = objective(x, pairs, LinearHead(RAW, l2=L2, tol=1e-13).fit(exact).coef_)
    tol_ours, gap_ours = loosest(lambda t: ours(x, pairs, prompt_of, t), x, pairs, best)
    tol_peer, gap_peer = loosest(lambda t: peer(x, pairs, t), x, pairs, best)
    jobs = {"ours": lambda: ours(x, pairs, prompt_of, tol_ours), "peer": lambda: peer(x, pairs, tol_peer)}
    seconds = paired_seconds(jobs, a.repeats)
    words = ["--prompts", str(a.prompts), "--responses", str(a.responses), "--dim", str(a.dim)]
    memory = {
        which: in_subprocess(__file__, *words, "--memory", which, kind, str(tol))
        for which, tol in (("ours", tol_ours), ("peer", tol_peer))
    }
    fast = float(np.median(seconds["ours"]))
    row = {
        "vectors": kind,
        "pairs": len(pairs),
        "ours": fast,
        "peer": float(np.median(seconds["peer"])),
        "ratio": ratio_cell(seconds["peer"], seconds["ours"]),
        "gap_ours": f"{gap_ours:.1e}",
        "gap_peer": f"{gap_peer:.1e}",
        "memory_ours": memory["ours"]["of_matrix"],
        "memory_peer": memory["peer"]["of_matrix"],
    }
    others = []
    for solver in ("newton-cg", "newton-cholesky"):
        fit = partial(peer, x, pairs, solver=solver)
        tol, gap = loosest(lambda t, fit=fit: fit(tol=t), x, pairs, best)
        took = paired_seconds({"peer": partial(fit, tol=tol)}, 1)["peer"][0]
        others.append({"vectors": kind, "solver": solver, "seconds": took, "gap": f"{gap:.1e}", "ratio": took / fast})
    return row, others


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--prompts", type=int, default=4000)
    options.add_argument("--responses", type=int, default=10)
    options.add_argument("--dim", type=int, default=384)
    options.add_argument("--memory", nargs=3, metavar=("WHICH", "KIND", "TOL"), help="internal: one memory measurement")
    a = options.parse_args()
    if a.smoke:
        a.prompts, a.responses, a.dim, a.repeats = 60, 5, 16, 2
    warnings.simplefilter("ignore")
    if a.memory:
        measure_memory(a.memory[0], a.memory[1], a.prompts, a.responses, a.dim, float(a.memory[2]))
        return
    started = time.perf_counter()
    measured = [one_kind(kind, a) for kind in ("embedding-like", "isotropic")]
    rows = [row for row, _ in measured]
    report = Report(
        "benchmark",
        "Linear Bradley–Terry: comparison graph against stacked differences",
        summary=[
            f"{r['vectors']} vectors: {r['ratio']['value']:.1f} times faster (median of {a.repeats} paired runs, "
            f"{r['ratio']['low']:.1f} to {r['ratio']['high']:.1f})"
            for r in rows
        ],
        provenance=collect(started=started, seeds=0, command=command(__file__, a)),
    )
    above = (
        "peak anonymous memory above the state with the vectors loaded, in units of the vector matrix (add 1 for it)"
    )
    columns = [
        {"key": "vectors", "label": "vectors"},
        {"key": "pairs", "label": "pairs", "kind": "integer"},
        {"key": "ours", "label": "LinearHead", "kind": "seconds"},
        {"key": "peer", "label": "sklearn lbfgs", "kind": "seconds"},
        {
            "key": "ratio",
            "label": "ratio",
            "kind": "interval",
            "digits": 1,
            "note": "median, least and most of the paired runs",
        },
        {"key": "gap_ours", "label": "gap, ours"},
        {"key": "gap_peer", "label": "gap, peer"},
        {"key": "memory_ours", "label": "memory, ours", "kind": "number", "digits": 2, "note": above},
        {"key": "memory_peer", "label": "memory, peer", "kind": "number", "digits": 2},
    ]
    sizes = f"{a.prompts:,} prompts × {a.responses} responses × {a.dim} dimensions"
    caption = f"{sizes}, all pairs of a prompt, float32, l2 = {L2}; the peer's time includes making the differences."
    table = {"name": "main", "title": "Seconds to fit", "columns": columns, "rows": rows, "caption": caption}
    report.add_section("At an equal objective gap of 1e-6", tables=[table])
    solver_columns = [
        {"key": "vectors", "label": "vectors"},
        {"key": "solver", "label": "solver"},
        {"key": "seconds", "label": "time", "kind": "seconds"},
        {"key": "gap", "label": "gap"},
        {"key": "ratio", "label": "× ours", "kind": "number", "digits": 1},
    ]
    others = [row for _, more in measured for row in more]
    solvers = {"name": "solvers", "title": "One run each", "columns": solver_columns, "rows": others}
    report.add_section("The peer's other solvers", tables=[solvers])
    finish(report, "linear_bradley_terry", a)


if __name__ == "__main__":
    main()
