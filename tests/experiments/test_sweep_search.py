"""Searches: proposals by Optuna are ordinary trials, chosen by validation, shared by processes and taken up after a kill."""

from __future__ import annotations

import builtins
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from embedrm.errors import InvalidInputError, MissingDependencyError
from embedrm.experiments.sweep import Sweep
from embedrm.experiments.sweep_search import Search
from embedrm.experiments.sweep_search_report import search_report
from embedrm.heads import HEADS
from embedrm.heads.random import RandomHead
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses

needed = pytest.mark.skipif(find_spec("optuna") is None, reason="needs the extra optuna, which is not installed")
AXES = {"head.l2": "loguniform(1e-4, 100)", "featurizer.scale": ["rms", "none"]}


@HEADS.register("test-picky")
class PickyHead(RandomHead):
    """Fails for one seed, or for all, as its parameter says."""

    def __init__(self, random_state: int = 0, fails: str = "never") -> None:
        super().__init__(random_state)
        self.fails = fails

    def fit(self, preferences, y=None):
        if self.fails == "always" or (self.fails == "once" and self.random_state == 1):
            raise InvalidInputError("one of these days")
        return super().fit(preferences)


@pytest.fixture(scope="module", autouse=True)
def only_here():
    """Other tests must not meet a head that breaks."""
    yield
    HEADS._classes.pop("test-picky", None)


def made(splits: list[str]) -> EmbeddedPreferences:
    """Pairs whose reward a penalty hides: the weaker it is, the better, up to noise."""
    rng = np.random.default_rng(0)
    n, dim = 160, 6
    x = rng.standard_normal((2 * n, dim)).astype(np.float32)
    reward = x[:, 0] + 0.3 * rng.standard_normal(2 * n)
    pairs = np.arange(2 * n).reshape(-1, 2)
    pairs = np.where((reward[pairs[:, 0]] < reward[pairs[:, 1]])[:, None], pairs[:, ::-1], pairs)
    split = np.array(splits, dtype=object)[np.arange(n) % len(splits)]
    return EmbeddedPreferences(EmbeddedResponses({"response:final": x}, np.repeat(np.arange(n), 2), split=split), pairs)


@pytest.fixture(scope="module")
def prefs() -> EmbeddedPreferences:
    return made(["train", "validation", "test"])


def searched(
    samples: int = 8, axes: dict | None = None, seeds: int = 1, centre: dict | None = None, **options
) -> Search:
    space = {"random": axes or AXES, "samples": samples, "random_state": 3}
    return Search(Sweep(centre or {}, space, seeds), **options)


def lines(folder: Path) -> list[dict]:
    file = folder / "trials.jsonl"
    return [json.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []


@needed
class TestSearch:
    def test_proposals_are_trials_and_values_are_means_over_seeds(
        self, prefs: EmbeddedPreferences, tmp_path: Path
    ) -> None:
        # not all data, so that seeds differ
        search = searched(seeds=2, centre={"training": {"size": 20}})
        found = search.run(tmp_path, preferences=prefs)
        assert [one.number for one in found.proposals] == list(range(8))
        by_settings: dict[str, list[float]] = {}
        for record in lines(tmp_path):
            by_settings.setdefault(json.dumps(record["settings"], sort_keys=True), []).append(
                record["metrics"]["validation"]["micro"]
            )
        assert {len(values) for values in by_settings.values()} == {2}
        for one in found.proposals:
            assert one.value == pytest.approx(np.mean(by_settings[json.dumps(one.settings, sort_keys=True)]))
            assert 1e-4 <= one.settings["head.l2"] <= 100
            assert float(f"{one.settings['head.l2']:.6g}") == one.settings["head.l2"]
        values = [one.value for one in found.proposals]
        assert [one.best for one in found.proposals] == np.maximum.accumulate(values).tolist()
        assert found.best is not None
        assert found.best.number == int(np.argmax(values))
        assert (found.outcome.computed, found.outcome.found, found.outcome.left) == (16, 0, 0)

    def test_what_is_finished_is_told_without_computing(self, prefs: EmbeddedPreferences, tmp_path: Path) -> None:
        axes = {"head.l2": [0.1, 1.0], "featurizer.scale": ["rms", "none"]}
        Sweep({}, {"grid": axes}).run(tmp_path, preferences=prefs)
        found = searched(10, axes).run(tmp_path, preferences=prefs)
        assert (found.outcome.computed, len(found.proposals), len(lines(tmp_path))) == (0, 10, 4)
        assert len(found.sweep.settings) <= 4
        truth = {
            json.dumps(r["settings"], sort_keys=True): r["metrics"]["validation"]["micro"] for r in lines(tmp_path)
        }
        assert all(one.value == truth[json.dumps(one.settings, sort_keys=True)] for one in found.proposals)

    def test_it_goes_on_and_is_the_same_however_often_it_is_ended(
        self, prefs: EmbeddedPreferences, tmp_path: Path
    ) -> None:
        whole = searched(14).run(tmp_path / "one", preferences=prefs)
        for samples in (3, 3, 12, 14):
            parts = searched(samples).run(tmp_path / "two", preferences=prefs)
            assert len(parts.proposals) == samples
        assert parts.proposals == whole.proposals
        assert searched(14).look(tmp_path / "two", preferences=prefs) == {
            "settings": 14,
            "proposed": 14,
            "finished": 14,
            "failed": 0,
            "to_try": 0,
        }

    def test_it_searches(self, prefs: EmbeddedPreferences, tmp_path: Path) -> None:
        # the log loss rises with the penalty over eight powers of ten: late proposals lie where it is low
        axes = {"head.l2": "loguniform(1e-4, 10000)"}
        found = searched(40, axes, metric="log_loss").run(tmp_path, preferences=prefs)
        late = [one.settings["head.l2"] for one in found.proposals[20:]]
        assert np.median(late) < 0.1
        assert found.best is not None
        assert found.best.value == min(one.value for one in found.proposals)
        assert found.best.value == found.proposals[-1].best

    @pytest.mark.parametrize("sampler", ["qmc", "gp"])
    def test_other_samplers(self, prefs: EmbeddedPreferences, tmp_path: Path, sampler: str) -> None:
        axes = {**AXES, "head.max_iter": "integers(50, 60)", "head.tol": "uniform(1e-9, 1e-8)"}
        found = searched(14, axes, sampler=sampler).run(tmp_path, preferences=prefs)
        assert {one.state for one in found.proposals} == {"done"}
        assert len({one.settings["head.l2"] for one in found.proposals}) == 14
        assert {type(one.settings["head.max_iter"]) for one in found.proposals} == {int}

    def test_with_several_workers_so_many_are_tried_at_once_that_each_has_a_seed(
        self, prefs: EmbeddedPreferences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = []
        compute = Sweep.compute
        monkeypatch.setattr(
            Sweep, "compute", lambda self, *a, **k: sizes.append(len(self.settings)) or compute(self, *a, **k)
        )
        options = {"preferences": prefs, "jobs": 4, "backend": "threading"}
        # seeds that change nothing are one fit; seeds that draw a training set are two
        found = searched(8).run(tmp_path / "one", **options)
        assert (len(found.proposals), sizes, found.outcome.left) == (8, [4, 4], 0)
        sizes.clear()
        found = searched(8, seeds=2, centre={"training": {"size": 20}}).run(tmp_path / "two", **options)
        assert (len(found.proposals), sizes, found.outcome.left) == (8, [2, 2, 2, 2], 0)

    def test_a_failed_seed_fails_its_settings(self, prefs: EmbeddedPreferences, tmp_path: Path) -> None:
        axes = {"head.fails": ["never", "once", "always"]}
        found = searched(9, axes, seeds=2, centre={"head": "test-picky"}).run(tmp_path, preferences=prefs)
        states = {one.settings["head.fails"]: one.state for one in found.proposals}
        assert states == {"never": "done", "once": "failed", "always": "failed"}
        assert {one.value is None for one in found.proposals if one.state == "failed"} == {True}
        assert "one of these days" in found.errors[next(one.number for one in found.proposals if one.state == "failed")]
        assert found.outcome.failed == 3

    def test_the_report_says_what_was_found(self, prefs: EmbeddedPreferences, tmp_path: Path) -> None:
        found = searched(6).run(tmp_path, preferences=prefs)
        report = search_report(found)
        rows = report.tables["proposals"].rows
        assert [row["value"] for row in rows] == [one.value for one in found.proposals]
        assert found.best is not None
        assert f"number {found.best.number}," in report.summary[0]
        assert f"{found.best.value:.3f} on validation" in report.summary[0]
        assert "search-history" in report.figures
        report.save(tmp_path / "report")

    def test_time_that_is_over_leaves_the_rest(self, prefs: EmbeddedPreferences, tmp_path: Path) -> None:
        found = searched(4).run(tmp_path, preferences=prefs, max_hours=1e-12)
        assert (found.proposals, found.best) == ([], None)
        assert len(searched(4).run(tmp_path, preferences=prefs).proposals) == 4

    def test_nothing_is_chosen_on_the_test_split(self, prefs: EmbeddedPreferences, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match="nothing may be chosen on the test split"):
            searched(split="test")
        without = made(["train", "test"])
        with pytest.raises(InvalidInputError, match="make a validation split"):
            searched().run(tmp_path, preferences=without)
        with pytest.raises(InvalidInputError, match="Did you mean 'validation'"):
            searched(split="validatoin").run(tmp_path, preferences=prefs)
        assert lines(tmp_path) == []

    def test_what_cannot_be_searched_is_refused(self) -> None:
        for space in ({"grid": {"head.l2": [1, 2]}}, {"around": {"head.l2": [1, 2]}}, {"list": [{"head.l2": 1}]}):
            with pytest.raises(InvalidInputError):
                Search(Sweep({}, space))
        with pytest.raises(InvalidInputError, match="Did you mean 'tpe'"):
            searched(sampler="tep")


def test_without_the_package_the_error_tells_what_to_install(
    prefs: EmbeddedPreferences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = builtins.__import__

    def no_optuna(name, *args, **kwargs):
        if name.partition(".")[0] == "optuna":
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_optuna)
    with pytest.raises(MissingDependencyError, match=r"embedrm\[optuna\]"):
        searched().run(tmp_path, preferences=prefs)


PROGRAM = """
import sys, time
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1])))
from test_sweep_search import made, searched
from embedrm.experiments.training_sets import Prepared

draw = Prepared.draw


def slow(self, seed):
    time.sleep(float(sys.argv[3]))
    return draw(self, seed)


Prepared.draw = slow
found = searched(24, seeds=1).run(sys.argv[2], preferences=made(["train", "validation", "test"]))
print(len(found.proposals), found.outcome.computed)
"""


@needed
def test_processes_search_together_and_may_be_killed(tmp_path: Path) -> None:
    folder, script = tmp_path / "search", tmp_path / "program.py"
    script.write_text(PROGRAM)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def start(pause: float) -> subprocess.Popen:
        words = [sys.executable, str(script), str(Path(__file__).parent), str(folder), str(pause)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)

    doomed = start(0.6)
    until = time.monotonic() + 120
    while len(lines(folder)) < 3:
        assert doomed.poll() is None, doomed.communicate()[1]
        assert time.monotonic() < until, "nothing was computed"
        time.sleep(0.01)
    # in the middle of the next proposal
    time.sleep(0.3)
    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    both = [start(0.05) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        # as many as wanted, exactly, and none of them lost with the process that died
        assert int(out.split()[0]) == 24
    done = lines(folder)
    assert len({record["fingerprint"] for record in done}) == len(done)
    found = searched(24).run(folder, preferences=made(["train", "validation", "test"]))
    assert [one.state for one in found.proposals] == ["done"] * 24
    assert found.outcome.computed == 0
