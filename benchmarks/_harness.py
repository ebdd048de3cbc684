"""What every benchmark shares: paired timings, peak memory in a process of its own, and how results are written."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedrm.reporting import Report

RESULTS = Path(__file__).parent / "results"


def parser(doc: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(description=doc.splitlines()[0])
    made.add_argument("--smoke", action="store_true", help="seconds, not minutes: checks that it runs; writes nothing")
    made.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    made.add_argument("--repeats", type=int, default=5, help="paired repetitions")
    return made


def command(script: str, arguments: argparse.Namespace) -> list[str]:
    """Command line for the provenance; the data's folder is the reader's own."""
    words = ["--data", "FOLDER"] if getattr(arguments, "data", None) is not None else []
    return ["python", f"benchmarks/{Path(script).name}", *words]


def paired_seconds(jobs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Wall seconds of every job in every repetition; the order alternates, so that drift hits all jobs alike."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(repeats):
        names = list(jobs) if repeat % 2 == 0 else list(jobs)[::-1]
        for name in names:
            start = time.perf_counter()
            jobs[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio_cell(slow: list[float], fast: list[float]) -> dict[str, float]:
    """Median of the paired ratios slow / fast, with the smallest and largest as its range."""
    ratios = np.array(slow) / np.array(fast)
    return {"value": float(np.median(ratios)), "low": float(ratios.min()), "high": float(ratios.max())}


def in_subprocess(script: str, *words: str) -> Any:
    """Run a benchmark script in a fresh process and return the JSON it prints last."""
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{script} {' '.join(words)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def finish(report: Report, name: str, arguments: argparse.Namespace) -> None:
    """Print the report; unless it is a smoke run, write ``NAME.json`` and ``NAME.md`` beside the other results."""
    print(report.text())
    if arguments.smoke:
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / f"{name}.json").write_text(report.to_json() + "\n", encoding="utf-8")
    (arguments.output / f"{name}.md").write_text(report.markdown(figures=None), encoding="utf-8")
    print(f"written: {arguments.output / name}.json and .md")
