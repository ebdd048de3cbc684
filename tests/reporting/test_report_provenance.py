"""Provenance: true, shareable, and free of imports."""

import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from embedrm.errors import InvalidInputError
from embedrm.reporting import PeakMemory, Report, collect, provenance

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/self/status is Linux's")


def test_it_is_plain_data_and_says_what_it_should():
    started = time.perf_counter() - 2
    facts = collect(
        command=["embedrm", "fit", "--out", "a b"], seeds=[0, 1], started=started, data={"pairs": np.int64(3)}
    )
    assert Report("k", "t", provenance=facts).provenance == json.loads(json.dumps(facts, allow_nan=False))
    assert facts["command"] == "embedrm fit --out 'a b'"
    assert facts["seeds"] == [0, 1]
    assert facts["data"] == {"pairs": 3}
    assert 2 <= facts["seconds"] < 60
    assert facts["packages"]["numpy"] == np.__version__
    assert facts["cpu"]["count"] >= facts["cpu"]["usable"] >= 1
    assert facts["time"].endswith("Z")
    assert "encoder" not in facts
    if sys.platform.startswith("linux"):
        assert facts["memory"]["peak_resident_bytes"] > 1 << 20


def test_versions_are_read_without_importing():
    code = (
        "import sys; from embedrm.reporting import collect; facts = collect();"
        "bad = [m for m in ('torch', 'transformers', 'sentence_transformers', 'sklearn', 'lightgbm', 'scipy', 'matplotlib')"
        " if m in sys.modules]; print(bad, facts['packages']['torch'] is not None)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert child.stdout.split("]")[0] == "[", child.stdout + child.stderr


def test_absent_packages_are_none(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package-at-all",))
    assert collect()["packages"] == {"no-such-package-at-all": None}


def test_home_is_a_tilde_everywhere(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("USERPROFILE", "/home/ada")
    facts = collect(
        command=["embedrm", "encode", "/home/ada/data set.jsonl", "--out=/home/ada/runs", "/home/adam/x", "/home/ada"],
        encoder={"path": "/home/ada/models/minilm", "other": "/srv/home/ada/x"},
        extra={"folders": ["/home/ada/runs", {"/home/ada/k": "file:///home/ada"}]},
    )
    assert facts["command"] == "embedrm encode ~/'data set.jsonl' '--out=~/runs' /home/adam/x ~"
    assert facts["encoder"] == {"path": "~/models/minilm", "other": "/srv/home/ada/x"}
    assert facts["folders"][0] == "~/runs"
    assert facts["folders"][1] == {"~/k": "file:///home/ada"}
    monkeypatch.setenv("HOME", "/")
    monkeypatch.setenv("USERPROFILE", "/")
    assert collect(command="embedrm fit /data")["command"] == "embedrm fit /data"


@pytest.mark.parametrize(
    ("argv", "original", "wanted"),
    [
        (["/usr/bin/embedrm", "fit"], ["/usr/bin/python3", "/usr/bin/embedrm", "fit"], "embedrm fit"),
        (["bench.py", "--smoke"], ["/usr/bin/python3", "bench.py", "--smoke"], "python bench.py --smoke"),
        (["/x/embedrm/__main__.py", "fit"], ["/usr/bin/python3", "-m", "embedrm", "fit"], "python -m embedrm fit"),
    ],
)
def test_the_command_is_as_typed(monkeypatch, argv, original, wanted):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", original)
    assert collect()["command"] == wanted


def test_wrong_use_is_refused():
    with pytest.raises(InvalidInputError, match=r"extra holds 'python', which is collected already"):
        collect(extra={"python": "3"})
    with pytest.raises(InvalidInputError, match=r"time\.perf_counter\(\) taken at the start"):
        collect(started=time.perf_counter() + 1000)
    with pytest.raises(InvalidInputError, match=r"provenance\.encoder\.scale is nan"):
        collect(encoder={"scale": float("nan")})
    with pytest.raises(InvalidInputError, match="interval is a number of seconds above 0"):
        PeakMemory(interval=0)


@linux
def test_peak_memory_sees_a_short_lived_array():
    size = 96 << 20
    with PeakMemory(interval=0.002) as memory:
        block = np.ones(size, dtype=np.uint8)
        time.sleep(0.05)
        del block
        time.sleep(0.02)
    assert 0.9 * size < memory.above_baseline < 2 * size
    assert memory.peak == memory.baseline + memory.above_baseline
    assert not [t for t in threading.enumerate() if t.name == "embedrm-peak-memory"]
    facts = collect(memory=memory)["memory"]
    assert facts["peak_anonymous_bytes"] == memory.peak
    assert facts["baseline_anonymous_bytes"] == memory.baseline
    with memory:  # it can be entered again, and starts anew
        pass
    assert memory.above_baseline < size / 2


@linux
def test_peak_memory_leaves_mapped_files_out(tmp_path):
    size = 64 << 20
    path = tmp_path / "vectors.bin"
    path.write_bytes(b"\1" * size)
    with PeakMemory(interval=0.002) as memory:
        mapped = np.memmap(path, dtype=np.uint8, mode="r")
        assert int(mapped[::4096].sum(dtype=np.int64)) == size // 4096
        time.sleep(0.02)
    assert memory.above_baseline < size / 4


def test_peak_memory_stops_when_the_block_fails():
    with pytest.raises(ZeroDivisionError), PeakMemory() as memory:
        1 / 0  # noqa: B018
    assert not [t for t in threading.enumerate() if t.name == "embedrm-peak-memory"]
    assert memory.peak is None or memory.peak >= memory.baseline


def test_other_systems_say_none(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "_STATUS", tmp_path / "absent")
    with PeakMemory() as memory:
        pass
    assert (memory.baseline, memory.peak, memory.above_baseline) == (None, None, None)
    facts = collect(memory=memory)["memory"]
    assert facts["peak_anonymous_bytes"] is None
    assert facts["peak_resident_bytes"] is None or facts["peak_resident_bytes"] > 0


def test_thread_variables_that_are_set_are_told(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    threads = collect()["threads"]
    assert threads["OMP_NUM_THREADS"] == "2"
    assert "MKL_NUM_THREADS" not in threads
    assert os.environ["OMP_NUM_THREADS"] == "2"
