"""Sweeps that are killed, that share a folder, and whose workers die: no finished trial is lost or doubled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

# Runs as a program of its own: a head that takes its time, and data that kill the worker that draws a certain seed.
PROGRAM = '''
import os, signal, sys, time
import numpy as np
from embedrm.experiments import running
from embedrm.experiments.sweep import Sweep
from embedrm.heads import HEADS
from embedrm.heads.random import RandomHead
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses

folder, seeds, jobs, pause, deadly = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])


@HEADS.register("slow")
class SlowHead(RandomHead):
    """Waits before it learns nothing."""

    def fit(self, preferences, y=None):
        time.sleep(pause)
        return super().fit(preferences)


class Deadly(running.Prepared):
    """Data that kill whoever draws one seed."""

    def draw(self, seed):
        if seed == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().draw(seed)


class Bench(running.Workbench):
    """Hands out deadly data."""

    def prepared(self, config):
        made = super().prepared(config)
        return Deadly(made.whole, made.training, made.judged, made.section)


if __name__ == "__main__":
    if deadly >= 0:
        import embedrm.experiments.sweep as module
        module.Workbench = Bench
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4)).astype(np.float32)
    split = np.array(["train", "test"] * 15, dtype=object)
    responses = EmbeddedResponses({"response:final": x}, np.repeat(np.arange(30), 2), split=split)
    prefs = EmbeddedPreferences(responses, np.arange(60).reshape(-1, 2))
    head = "random" if jobs > 1 else "slow"
    outcome = Sweep({"head": head}, {"grid": {"data.domains": [None]}}, seeds).run(folder, jobs=jobs, preferences=prefs)
    print(outcome.computed, outcome.found, outcome.failed, outcome.left)
'''


@pytest.fixture
def program(tmp_path: Path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)

    def start(folder: Path, seeds: int, *, jobs: int = 1, pause: float = 0.0, deadly: int = -1) -> subprocess.Popen:
        words = [sys.executable, str(script), str(folder), str(seeds), str(jobs), str(pause), str(deadly)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)

    return start


def end(process: subprocess.Popen, timeout: float = 240.0) -> list[int]:
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return [int(word) for word in out.split()]


def lines(folder: Path) -> list[bytes]:
    file = folder / "trials.jsonl"
    return file.read_bytes().splitlines() if file.exists() else []


def wait_for(folder: Path, n: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + 240
    while len(lines(folder)) < n:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, "nothing was computed"
        time.sleep(0.01)


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in lines(folder) if line.startswith(b'{"fingerprint"') and line.endswith(b"}")]


def test_a_killed_sweep_goes_on_where_it_was(program, tmp_path: Path) -> None:
    folder, n = tmp_path / "sweep", 40
    first = program(folder, n, pause=0.03)
    wait_for(folder, 5, first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = lines(folder)
    assert 5 <= len(kept) < n
    # killed in the middle of a line, too
    with open(folder / "trials.jsonl", "ab") as file:
        file.write(b'{"fingerprint":"0123","status":"o')
    computed, found, failed, left = end(program(folder, n))
    assert (failed, left) == (0, 0)
    assert computed == n - found
    assert lines(folder)[: len(kept)] == kept
    done = records(folder)
    assert Counter(record["fingerprint"] for record in done).most_common(1)[0][1] == 1
    assert sorted(record["seed"] for record in done) == list(range(n))
    assert {record["pid"] for record in done} == {first.pid, done[-1]["pid"]}
    assert not [path for path in (folder / "claims").iterdir() if not path.name.startswith(".")]


def test_two_sweeps_of_one_folder_share_the_work(program, tmp_path: Path) -> None:
    folder, n = tmp_path / "sweep", 40
    both = [program(folder, n, pause=0.05) for _ in range(2)]
    said = [end(process) for process in both]
    done = records(folder)
    assert sorted(record["seed"] for record in done) == list(range(n))
    assert len(lines(folder)) == n
    assert sum(computed for computed, *_ in said) == n
    assert all(left == 0 for *_, left in said)
    assert len({record["pid"] for record in done}) == 2


def test_what_a_killed_sweep_had_claimed_is_taken_over_by_a_living_one(program, tmp_path: Path) -> None:
    folder, n = tmp_path / "sweep", 24
    doomed = program(folder, n, pause=0.05)
    wait_for(folder, 2, doomed)
    other = program(folder, n, pause=0.05)
    wait_for(folder, 8, doomed)
    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    assert end(other)[3] == 0
    done = records(folder)
    assert sorted(record["seed"] for record in done) == list(range(n))
    assert len(done) == n


def test_a_worker_that_is_killed_is_one_failure_among_results(program, tmp_path: Path) -> None:
    folder, n = tmp_path / "sweep", 8
    _, found, failed, left = end(program(folder, n, jobs=2, deadly=3))
    assert (found, failed, left) == (0, 1, 0)
    by_seed = {record["seed"]: record for record in records(folder)}
    assert len(lines(folder)) == n
    assert sorted(by_seed) == list(range(n))
    assert [seed for seed, record in by_seed.items() if record["status"] == "failed"] == [3]
    assert by_seed[3]["error"]["type"] == "WorkerDiedError"
    assert "memory" in by_seed[3]["error"]["message"]
    # found, and not tried again
    assert end(program(folder, n, jobs=2))[:3] == [0, n, 1]
