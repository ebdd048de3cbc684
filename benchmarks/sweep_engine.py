"""What does the sweep engine cost, and how long does a 1,000-trial sweep of linear heads take?

Command: python benchmarks/sweep_engine.py

20,000 pairs x 384 with a known teacher in each of eight domains, vectors at hand. The sweep is five penalties by five
featurizers by eight domains by five seeds. Three cases: every seed draws its own training set (1,000 different fits); the
training set is the same for every seed (200 different fits, which the engine finds out by itself); and the plain loop
that a script would be, which fits all 1,000. Overhead is the wall time of 1,000 trials less the time inside their models.
Resuming is measured in a fresh process, from before its first import.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _harness import command, finish, in_subprocess, parser
from joblib.externals.loky import get_reusable_executor
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from embedrm import EmbeddedPreferences, LinearHead, Report
from embedrm.experiments.experiment import Experiment
from embedrm.experiments.sweep import Outcome, Sweep
from embedrm.preferences import EmbeddedResponses
from embedrm.reporting import Column, Table, collect

N_DOMAINS, N_SEEDS = 8, 5
L2 = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
FEATURES: list[dict[str, Any]] = [
    {"scale": "rms"},
    {"scale": "standard"},
    {"project": {"name": "pca", "n_components": 64}},
    {"project": "whiten"},
    {"terms": "r,p*r"},
]
BARS = {"sweep": 60.0, "overhead": 0.005, "resume": 2.0}


def made(n_pairs: int, dim: int) -> EmbeddedPreferences:
    """Pairs of eight domains, each with its own teacher, and splits by prompt."""
    rng = np.random.default_rng(0)
    n = 2 * n_pairs
    x, p = (rng.standard_normal((rows, dim)).astype(np.float32) for rows in (n, n_pairs))
    domain = np.arange(n_pairs) % N_DOMAINS
    of = np.repeat(np.arange(n_pairs), 2)
    teacher = rng.standard_normal((N_DOMAINS, dim)) / np.sqrt(dim)
    reward = np.einsum("ij,ij->i", x, teacher[domain[of]]) + 0.5 * rng.standard_normal(n)
    pairs = np.arange(n).reshape(-1, 2)
    pairs = np.where((reward[pairs[:, 0]] < reward[pairs[:, 1]])[:, None], pairs[:, ::-1], pairs)
    split = np.array([*["train"] * 7, "validation", *["test"] * 2], dtype=object)[np.arange(n_pairs) // N_DOMAINS % 10]
    names = np.array([f"d{i}" for i in range(N_DOMAINS)], dtype=object)
    views = {"response:final": x, "prompt:final": p}
    return EmbeddedPreferences(EmbeddedResponses(views, of, domain=names[domain], split=split), pairs)


def study(size: int | None) -> Sweep:
    """Return the sweep, with a training set of so many prompts drawn by each seed, or all of them."""
    training = {} if size is None else {"training": {"size": size}}
    grid = {"data.domains": [f"d{i}" for i in range(N_DOMAINS)], "featurizer": FEATURES, "head.l2": L2}
    return Sweep({"head": "linear", **training}, {"grid": grid}, seeds=N_SEEDS)


def cores() -> float:
    """Core-seconds of this process and of its workers, which end here so that they count."""
    get_reusable_executor().shutdown(wait=True)
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def timed(sweep: Sweep, folder: Path, prefs: EmbeddedPreferences, jobs: int) -> tuple[float, float, Outcome]:
    """Wall seconds and core-seconds of a sweep into a new folder, workers started and ended."""
    shutil.rmtree(folder, ignore_errors=True)
    before, began = cores(), time.perf_counter()
    outcome = sweep.run(folder, preferences=prefs, jobs=jobs)
    if outcome.failed or outcome.left:
        raise SystemExit(
            f"{outcome.failed} trials failed and {outcome.left} are not finished: seconds would mean nothing"
        )
    return time.perf_counter() - began, cores() - before, outcome


def plain_loop(prefs: EmbeddedPreferences) -> tuple[float, float]:
    """Wall seconds and core-seconds of the same 1,000 fits in a loop on one core."""
    heads = [Experiment({"head": {"l2": l2}, "featurizer": f}).model for f in FEATURES for l2 in L2]
    before, began = cores(), time.perf_counter()
    with threadpool_limits(1):
        for domain in prefs.domains:
            part = prefs.in_domain(domain)
            train, judged = part.in_split("train"), [part.in_split("validation"), part.in_split("test")]
            for head in heads:
                for _ in range(N_SEEDS):
                    fitted: LinearHead = clone(head).fit(train)
                    for one in judged:
                        fitted.score(one)
    return time.perf_counter() - began, cores() - before


def overhead(folder: Path, seeds: int) -> tuple[float, int]:
    """Seconds a trial outside the models, and how many trials; the models are as cheap as can be."""
    prefs = made(800, 4)
    grid = {"data.domains": [f"d{i}" for i in range(N_DOMAINS)]}
    seconds, _, outcome = timed(Sweep({"head": "random"}, {"grid": grid}, seeds), folder, prefs, 1)
    return (seconds - outcome.model_seconds) / outcome.computed, outcome.computed


def find_again(folder: str, n_pairs: int, dim: int, size: int) -> None:
    """In a process of its own: find the finished sweep again, and print seconds and how much was found."""
    prefs = made(n_pairs, dim)
    began = time.perf_counter()
    outcome = study(size).run(folder, preferences=prefs)
    print(json.dumps({"seconds": time.perf_counter() - began, "found": outcome.found, "computed": outcome.computed}))


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--jobs", type=int, default=2)
    arguments.add_argument("--resume", nargs=4, help="used by the script itself")
    options = arguments.parse_args()
    started = time.perf_counter()
    n_pairs, dim = (1600, 16) if options.smoke else (20_000, 384)
    if options.smoke:
        # fewer of each: what takes minutes is not what is checked
        del L2[2:]
        FEATURES[2] = {"project": {"name": "pca", "n_components": 8}}
    if options.resume:
        find_again(options.resume[0], *map(int, options.resume[1:]))
        return
    prefs = made(n_pairs, dim)
    size = int(0.8 * len(prefs.in_split("train").in_domain("d0")))
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        rows: list[dict[str, Any]] = []
        n = len(L2) * len(FEATURES) * N_DOMAINS * N_SEEDS

        def add(what: str, seconds: float, bar: float | None, note: str, core: float | None = None) -> None:
            verdict = "" if bar is None else "holds" if seconds < bar else "does not hold"
            row = {"what": what, "seconds": seconds, "cores": core, "bar": bar, "verdict": verdict, "note": note}
            rows.append(row)

        drawn, core, outcome = timed(study(size), root / "drawn", prefs, options.jobs)
        add(
            f"{n:,} trials, a training set drawn by each seed, {options.jobs} workers",
            drawn,
            BARS["sweep"],
            f"{outcome.computed:,} fits, {outcome.model_seconds:.1f} s inside them over all workers",
            core,
        )
        shared, core, outcome = timed(study(None), root / "shared", prefs, options.jobs)
        add(
            f"{n:,} trials, one training set for all seeds, {options.jobs} workers",
            shared,
            BARS["sweep"],
            f"{outcome.computed:,} fits are different and were computed",
            core,
        )
        if not options.smoke:
            seconds, core = plain_loop(prefs)
            add(f"the plain loop of {n:,} fits, one core", seconds, None, "the same heads, every seed fitted", core)
        each, cheap = overhead(root / "overhead", 5 if options.smoke else 125)
        add("overhead of the engine, a trial", each, BARS["overhead"], f"mean over {cheap:,} trials of a random head")
        began = time.perf_counter()
        words = ["--smoke"] if options.smoke else []
        again = in_subprocess(__file__, "--resume", str(root / "drawn"), str(n_pairs), str(dim), str(size), *words)
        whole = time.perf_counter() - began
        if again["computed"]:
            raise SystemExit(f"{again['computed']} trials were computed again, of a sweep that was finished")
        found = f"{again['found']:,} different trials found again, {again['computed']} computed"
        add(f"resuming a finished sweep of {n:,} trials", again["seconds"], BARS["resume"], found)
        add("the same with the start of the process and making the data", whole, None, "")
    report = Report(
        "benchmark",
        "The sweep engine",
        f"{n_pairs:,} pairs x {dim}; {N_DOMAINS} domains, {len(L2)} penalties, {len(FEATURES)} featurizers, {N_SEEDS} seeds",
    )
    columns = [
        Column("what", "What"),
        Column("seconds", "wall", "seconds"),
        Column("cores", "cores", "seconds", note="core-seconds of all processes"),
        Column("bar", "must be under", "seconds"),
        Column("verdict", "verdict"),
        Column("note", "note"),
    ]
    report.add_section("Wall time", tables=[Table("sweep-engine", "Wall time", columns, rows)])
    report.provenance = collect(command=command(__file__, options), started=started)
    finish(report, "sweep_engine", options)
    if any(row["verdict"] == "does not hold" for row in rows) and not options.smoke:
        sys.exit(1)


if __name__ == "__main__":
    main()
