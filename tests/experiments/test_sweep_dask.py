"""A sweep on a local Dask cluster of two processes, of which one is killed: no finished trial is lost or doubled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(find_spec("distributed") is None, reason="needs the extra dask, which is not installed")

PROGRAM = '''
import json, os, signal, sys, threading, time
from pathlib import Path
import numpy as np
from distributed import LocalCluster
from embedrm.experiments.sweep import Sweep
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses

folder = Path(sys.argv[1])


def kill_one():
    """Kill the worker that finished the first trial, once both have something to do."""
    file = folder / "trials.jsonl"
    while not file.exists() or len(file.read_bytes().splitlines()) < 15:
        time.sleep(0.02)
    os.kill(json.loads(file.read_bytes().splitlines()[0])["pid"], signal.SIGKILL)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4)).astype(np.float32)
    split = np.array(["train", "test"] * 15, dtype=object)
    responses = EmbeddedResponses({"response:final": x}, np.repeat(np.arange(30), 2), split=split)
    prefs = EmbeddedPreferences(responses, np.arange(60).reshape(-1, 2))
    sweep = Sweep({"head": "random"}, {"grid": {"data.domains": [None]}}, seeds=100)
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(**options) as cluster:
        threading.Thread(target=kill_one, daemon=True).start()
        where = cluster.scheduler_address
        outcome = sweep.run(folder, preferences=prefs, jobs=2, backend="dask", address=where)
    print("SAID", outcome.failed, outcome.left)
'''


@pytest.mark.slow
def test_a_killed_worker_of_a_cluster_costs_nothing_that_was_finished(tmp_path: Path) -> None:
    script, folder = tmp_path / "program.py", tmp_path / "sweep"
    script.write_text(PROGRAM)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    words = [sys.executable, str(script), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "SAID 0 0"
    records = [json.loads(line) for line in (folder / "trials.jsonl").read_bytes().splitlines()]
    assert sorted(record["seed"] for record in records) == list(range(100))
    assert len({record["pid"] for record in records}) >= 2
