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

# Runs as a program of its own, on data that take their time, and that kill the process that draws a certain seed.
PROGRAM = '''
import os, signal, sys, time
import numpy as np
from embedrm.experiments import running
from embedrm.experiments.sweep import Sweep
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses

folder, seeds, jobs, pause, deadly = sys.argv[1], eval(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])


class Data(running.Prepared):
    """Data whose training pairs are slow to draw, and deadly for one seed."""

    def draw(self, seed):
        if seed == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(pause)
        return super().draw(seed)


class Bench(running.Workbench):
    """Hands out such data."""

    def prepared(self, config):
        made = super().prepared(config)
        return self._once("data of its own", config, lambda: Data(made.whole, made.training, made.judged, made.section))


if __name__ == "__main__":
    import embedrm.experiments.sweep as module
    module.Workbench = Bench
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4)).astype(np.float32)
    split = np.array(["train", "test"] * 15, dtype=object)
    responses = EmbeddedResponses({"response:final": x}, np.repeat(np.arange(30), 2), split=split)
    prefs = EmbeddedPreferences(responses, np.arange(60).reshape(-1, 2))
    sweep = Sweep({"head": "random"}, {"grid": {"data.domains": [None]}}, seeds)
    outcome = sweep.run(folder, jobs=jobs, preferences=prefs)
    print(outcome.computed, outcome.found, outcome.failed, outcome.left)
'''


@pytest.fixture
def program(tmp_path: Path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)

    def start(
        folder: Path, seeds: int | list[int], *, jobs: int = 1, pause: float = 0.0, deadly: int = -1
    ) -> subprocess.Popen:
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
    # what was under way when it was killed is tried last, in a process of its own
    assert first.pid in {record["pid"] for record in done}
    assert len({record["pid"] for record in done}) <= 3
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


def test_sweeps_whose_plans_overlap_share_what_they_have_in_common(program, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    both = [program(folder, seeds, pause=0.05) for seeds in (list(range(24)), list(range(12, 36)))]
    said = [end(process) for process in both]
    assert all(left == 0 for *_, left in said)
    assert sum(computed for computed, *_ in said) == 36
    assert sorted(record["seed"] for record in records(folder)) == list(range(36))


def test_workers_that_outlive_their_sweep_do_no_trial_twice(program, tmp_path: Path) -> None:
    folder, n = tmp_path / "sweep", 16
    first = program(folder, n, jobs=2, pause=0.4)
    wait_for(folder, 3, first)
    first.send_signal(signal.SIGKILL)
    # not waited for: its workers are at their trials still, and had others in their queue
    computed, found, failed, left = end(program(folder, n, pause=0.05))
    assert (failed, left) == (0, 0)
    assert found + computed >= n
    time.sleep(1.0)
    done = records(folder)
    assert sorted(record["seed"] for record in done) == list(range(n))
    mine = {record["session"] for record in done if record["pid"] == done[-1]["pid"]}
    # once their sweep is dead they end what they are at, and begin nothing
    assert sum(record["session"] not in mine for record in done) <= 3 + 2 * 2
    assert [path.name for path in (folder / "claims").iterdir()] == [".gate"]
    wait_until_gone({record["pid"] for record in done if record["session"] not in mine})


def wait_until_gone(pids: set[int], seconds: float = 30.0) -> None:
    """Wait until none of these processes is there, or is more than an entry that nobody has collected."""
    until = time.monotonic() + seconds
    while left := [pid for pid in pids if state(pid) not in ("", "Z", "X")]:
        assert time.monotonic() < until, f"workers are still there: {left}"
        time.sleep(0.2)


def state(pid: int) -> str:
    """Return the system's letter for what a process is doing; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_what_a_sweep_was_at_when_it_was_killed_is_tried_last_and_apart(program, tmp_path: Path) -> None:
    folder, n = tmp_path / "sweep", 8
    first = program(folder, n, deadly=3)
    first.wait(timeout=240)
    assert first.returncode == -signal.SIGKILL
    assert 3 not in {record["seed"] for record in records(folder)}
    # without workers to lose, the same trial would kill every sweep of this folder before the others are done
    _, _, failed, left = end(program(folder, n, deadly=3))
    assert (failed, left) == (1, 0)
    done = records(folder)
    assert sorted(record["seed"] for record in done) == list(range(n))
    assert (done[-1]["seed"], done[-1]["status"]) == (3, "failed")
    assert not list((folder / "running").iterdir())


def test_a_worker_killed_by_hand_costs_nothing(program, tmp_path: Path) -> None:
    folder, n = tmp_path / "sweep", 16
    sweep = program(folder, n, jobs=2, pause=0.1)
    wait_for(folder, 3, sweep)
    os.kill(records(folder)[0]["pid"], signal.SIGKILL)
    _, _, failed, left = end(sweep)
    assert (failed, left) == (0, 0)
    assert sorted(record["seed"] for record in records(folder)) == list(range(n))


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
    assert not list((folder / "running").iterdir())
    # found, and not tried again
    assert end(program(folder, n, jobs=2))[:3] == [0, n, 1]
