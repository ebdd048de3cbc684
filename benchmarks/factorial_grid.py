"""Core-hours of the whole factorial Bradley-Terry study, 12,960 trials, from a measured random sample of them.

Command: python benchmarks/factorial_grid.py [--folder FOLDER] [--trials N] [--jobs N] [--keep]

What is run is the file that comes with the package, as a user would run it: ``embedrm sweep bradley-terry --sample N``. The
sample is drawn by strata (reward model and number of annotations), and its core-seconds, of drawing pairs and labels, of the
fit, and of scoring all candidates, are extrapolated with an interval.

THE ARRAYS ARE GENERATED, not the release, which is not at hand: one pair of arrays of the release's shape, (40000, 10, 2048)
and (2000, 500, 2048) in float32, 11.5 GB, from a teacher of known gold (`embedrm.datasets.teachers`). They stand under all
twelve names of the study, by links; the gold of each name is shifted by a constant, which changes no draw and no figure and
makes the trials different computations. What a trial costs depends on shapes far more than on what the vectors are, but not
on shapes alone: a perceptron stops early, sooner or later.

The arrays should fit into the system's page cache, as they do where memory is twice their size; reading them anew for each
trial from a disk takes waiting, not core-seconds. With --folder and --keep they are left there, and found by the next run.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _harness import command, finish, parser

from embedrm import Report
from embedrm.datasets.candidate_arrays import release_paths
from embedrm.datasets.teachers import Teacher, write_candidates
from embedrm.experiments.studies import find_file
from embedrm.experiments.sweep import Sweep
from embedrm.reporting import collect

GOAL = 60.0
THEIRS = 6_000.0
STUDY = "bradley-terry"
SPLITS = ("train", "test")
# Dimensions of the embedders that the study names, two thirds of whose settings are wider than what is measured here.
WIDTHS = {"Gemma 2B": 2048, "Gemma 7B": 3072, "Llama 3 8B": 4096}


def names() -> list[str]:
    """Names of the arrays that the study asks for."""
    settings = Sweep.from_file(find_file(STUDY)).settings
    return list(dict.fromkeys(Path(one["data.release"]).name for one in settings))


def make_arrays(folder: Path, shapes: dict[str, tuple[int, int]], dim: int) -> float:
    """Write the arrays of the first name unless they are there, and link them under the others; return the seconds."""
    began = time.perf_counter()
    first, *others = names()
    for split, (n, k) in shapes.items():
        vectors, rewards = release_paths(folder, first, split)
        if not (vectors.exists() and rewards.exists()):
            write_candidates(Teacher(dim), folder, first, split, n, k, chunk=max(1, 4096 // k))
        found = np.load(vectors, mmap_mode="r").shape
        if found != (n, k, dim):
            raise SystemExit(f"{vectors} has shape {found}, and {(n, k, dim)} was expected; give another --folder")
        gold = np.load(rewards)
        for i, name in enumerate(others, 1):
            linked, shifted = release_paths(folder, name, split)
            if not linked.exists():
                linked.symlink_to(vectors.resolve())
            np.save(shifted, gold + gold.dtype.type(i))
    return time.perf_counter() - began


def run_sample(folder: Path, words: list[str]) -> tuple[dict[str, Any], float, float]:
    """Run the sweep where the arrays are; return its report, and the wall and core-seconds of the whole command."""
    line = [sys.executable, "-m", "embedrm", "sweep", STUDY, *words, "--json", "--quiet"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # one thread a worker, so that as many workers as cores use each core once
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, **threads})
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)} failed:\n{done.stderr}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if not done.stdout.startswith("{"):
        raise SystemExit(f"{' '.join(line)} did not print JSON alone:\n{done.stdout[:2000]}\n{done.stderr}")
    return json.loads(done.stdout), wall, used


def quality(report: dict[str, Any]) -> dict[str, Any]:
    """Rows of the sweep's own table of choices, of the heads."""
    tables = [table for section in report["sections"] for table in section["tables"] if table["name"] == "choices"]
    found = dict(tables[0])
    found["rows"] = [row for row in found["rows"] if row["axis"] in ("head", "training.n_annotations")]
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--folder", type=Path, help="where the arrays are, or are written; a temporary place if absent"
    )
    options.add_argument("--keep", action="store_true", help="leave the arrays in --folder")
    options.add_argument("--trials", type=int, default=48, help="of the sample")
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="workers, one thread each")
    options.add_argument("--random-state", type=int, default=0, help="of the sample")
    a = options.parse_args()
    shapes, dim, extra = {"train": (40_000, 10), "test": (2_000, 500)}, 2048, []
    if a.smoke:
        shapes, dim, a.trials, a.jobs = {"train": (120, 10), "test": (30, 12)}, 16, 24, 1
        extra = ["--grid", "training.n_annotations=20,40,60,80", "--set", "evaluation.best_of_n=[2, 10]"]
    started = time.perf_counter()
    needed = sum(4 * dim * n * k for n, k in shapes.values())
    with tempfile.TemporaryDirectory(dir=a.folder) as place:
        home = Path(place) if a.folder is None or not a.keep else a.folder
        released = home / "released"
        there = release_paths(released, names()[0], "test")[0].exists()
        free = shutil.disk_usage(home).free
        if not there and free < 1.1 * needed:
            raise SystemExit(f"the arrays need {needed:,} bytes and {free:,} are free; give another --folder")
        wrote = make_arrays(released, shapes, dim)
        output = Path(place) / "runs"
        words = ["--sample", str(a.trials), "--random-state", str(a.random_state), "-o", str(output)]
        report, wall, used = run_sample(home, [*words, "--jobs", str(a.jobs), *extra])
    cost = report["provenance"]["plan_cost"]
    finish(made(a, report, cost, wall, used, wrote, there, started, dim, shapes), "factorial_grid", a)


def made(
    a: Any,
    report: dict[str, Any],
    cost: dict[str, Any],
    wall: float,
    used: float,
    wrote: float,
    there: bool,
    started: float,
    dim: int,
    shapes: dict[str, tuple[int, int]],
) -> Report:
    """Return the benchmark's report."""
    plan, trials = cost["rows"][0], report["provenance"]["trials"]
    hours = plan["core_hours"]
    beside = used - plan["measured"] * (plan["total"]["value"] or 0.0)
    (n, k), (n_test, k_test) = shapes["train"], shapes["test"]
    if hours["high"] is None:
        verdict = "not told: too few trials were measured"
    elif hours["high"] <= GOAL:
        verdict = f"under {GOAL:.0f} core-hours, with its whole interval"
    else:
        verdict = (
            f"{'under' if hours['value'] <= GOAL else 'NOT under'} {GOAL:.0f} core-hours, and its interval reaches over"
        )
    wider = sum(WIDTHS.values()) / len(WIDTHS) / WIDTHS["Gemma 2B"]
    widths = ", ".join(f"{name} {width:,}" for name, width in WIDTHS.items())
    summary = [
        f"{cost['sentence']} That is {verdict}.",
        f"The authors are reported to have used about {THEIRS:,.0f} CPU core-hours for as many runs (their cores and their "
        "settings are not known: larger perceptrons among them, and our machine is another). The figure was read in "
        "secondary sources, not in the paper.",
        f"The sample: {plan['measured']:,} of {plan['trials']:,} trials, {cost['failed']:,} failed, on {a.jobs} worker(s) "
        f"of one thread each; {wall:,.0f} s of waiting and {used:,.0f} core-seconds for the whole command, of which about "
        f"{max(0.0, beside):,.0f} beside the trials (planning, mapping arrays, preparing judges, the report).",
        f"The arrays are generated, not the release: ({n:,}, {k}, {dim:,}) and ({n_test:,}, {k_test}, {dim:,}) float32 "
        f"under all twelve names{'; they were there' if there else f'; writing took {wrote:,.0f} s'}.",
        f"All twelve settings are measured at {dim:,} dimensions. It is not known whether the release has vectors of the "
        f"larger models themselves ({widths}); costs being in proportion to the width, the plan would then take {wider:.1f} "
        "times as much.",
    ]
    out = Report(
        "benchmark",
        "Core-hours of the factorial Bradley-Terry study",
        summary=summary,
        provenance=collect(
            started=started,
            seeds={"sample": a.random_state},
            command=command(__file__, a),
            extra={
                "plan_cost": cost,
                "trials": trials,
                "theirs": {
                    "core_hours": THEIRS,
                    "source": "secondary sources on arXiv 2411.04991; not read in the paper",
                },
                "command_core_seconds": used,
                "command_seconds": wall,
                "jobs": a.jobs,
            },
        ),
    )
    (section,) = [one for one in report["sections"] if one["title"] == "Cost of the whole plan"]
    table = dict(section["tables"][0])
    out.add_section("Cost of the whole plan", section["text"], tables=[table])
    out.add_section(
        "What the trials of the sample found",
        "Of the sample alone, and on generated arrays: no finding about the study's language models.",
        tables=[quality(report)],
    )
    return out


if __name__ == "__main__":
    main()
