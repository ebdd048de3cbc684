"""Sweeps on a local Dask cluster of two processes whose workers are killed: no finished trial is lost or doubled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from embedrm.errors import InvalidInputError
from embedrm.experiments import sweep_backends
from embedrm.experiments.sweep import Sweep
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses

pytestmark = pytest.mark.skipif(find_spec("distributed") is None, reason="needs the extra dask, which is not installed")

PROGRAM = '''
import json, os, signal, sys, threading, time
from pathlib import Path
import numpy as np
from distributed import LocalCluster
from embedrm.experiments import running
from embedrm.experiments.sweep import Sweep
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses

folder, seeds, by_hand, deadly = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "by-hand", json.loads(sys.argv[4])


class Data(running.Prepared):
    """Data that take their time, and that kill whoever draws certain seeds."""

    def draw(self, seed):
        if seed in deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        return super().draw(seed)


class Bench(running.Workbench):
    """Hands out such data."""

    def prepared(self, config):
        made = super().prepared(config)
        return self._once("data of its own", config, lambda: Data(made.whole, made.training, made.judged, made.section))


def kill_one():
    """Kill the worker that finished the first trial, once both have something to do."""
    file = folder / "trials.jsonl"
    while not file.exists() or len(file.read_bytes().splitlines()) < 15:
        time.sleep(0.02)
    os.kill(json.loads(file.read_bytes().splitlines()[0])["pid"], signal.SIGKILL)


if __name__ == "__main__":
    import embedrm.experiments.sweep as module
    module.Workbench = Bench
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4)).astype(np.float32)
    split = np.array(["train", "test"] * 15, dtype=object)
    responses = EmbeddedResponses({"response:final": x}, np.repeat(np.arange(30), 2), split=split)
    prefs = EmbeddedPreferences(responses, np.arange(60).reshape(-1, 2))
    sweep = Sweep({"head": "random"}, {"grid": {"data.domains": [None]}}, seeds)
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(**options) as cluster:
        if by_hand:
            threading.Thread(target=kill_one, daemon=True).start()
        where = cluster.scheduler_address
        outcome = sweep.run(folder, preferences=prefs, jobs=2, backend="dask", address=where)
    print("SAID", outcome.failed, outcome.left)
'''


def run(tmp_path: Path, seeds: int, how: str, deadly: list[int]) -> tuple[str, list[dict]]:
    script, folder = tmp_path / "program.py", tmp_path / "sweep"
    script.write_text(PROGRAM)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    words = [sys.executable, str(script), str(folder), str(seeds), how, json.dumps(deadly)]
    # to files: workers that outlive a killed program would hold a pipe open
    with open(tmp_path / "out", "w+") as out, open(tmp_path / "err", "w+") as err:
        done = subprocess.run(words, stdout=out, stderr=err, env=env, timeout=60, check=False)
    assert done.returncode == 0, (tmp_path / "err").read_text()
    records = [json.loads(line) for line in (folder / "trials.jsonl").read_bytes().splitlines()]
    assert sorted(record["seed"] for record in records) == list(range(seeds))
    return (tmp_path / "out").read_text().splitlines()[-1], records


@pytest.mark.slow
def test_a_killed_worker_of_a_cluster_costs_nothing_that_was_finished(tmp_path: Path) -> None:
    said, records = run(tmp_path, 100, "by-hand", [])
    assert said == "SAID 0 0"
    assert len({record["pid"] for record in records}) >= 2


@pytest.mark.slow
def test_trials_that_kill_their_workers_are_failures_among_results(tmp_path: Path) -> None:
    # neighbours in one bundle: more deaths than a cluster allows a task
    deadly = [21, 22, 23]
    said, records = run(tmp_path, 40, "by themselves", deadly)
    assert said == "SAID 3 0"
    failed = {record["seed"]: record["error"]["type"] for record in records if record["status"] == "failed"}
    assert failed == dict.fromkeys(deadly, "WorkerDiedError")


def test_an_address_where_nobody_answers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_backends, "_ANSWER", 1)
    split = np.array(["train", "test"], dtype=object)
    responses = EmbeddedResponses({"response:final": np.eye(4, dtype=np.float32)}, np.array([0, 0, 1, 1]), split=split)
    prefs = EmbeddedPreferences(responses, np.arange(4).reshape(-1, 2))
    sweep = Sweep({"head": "random"}, {"grid": {"data.domains": [None]}})
    with pytest.raises(InvalidInputError, match="no scheduler of dask answers at tcp"):
        sweep.run(tmp_path, preferences=prefs, backend="dask", address="tcp://127.0.0.1:9")
