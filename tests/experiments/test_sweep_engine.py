"""Sweeps: what varies, what is computed once, what fails, and what the tables say."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from embedrm.errors import DataError, InvalidInputError
from embedrm.experiments import running
from embedrm.experiments.experiment import Experiment
from embedrm.experiments.experiment_files import Misfit
from embedrm.experiments.sweep import Sweep
from embedrm.experiments.sweep_claims import Claims
from embedrm.experiments.sweep_space import Draw, Space, read_axes
from embedrm.experiments.sweep_tidy import mean_interval, pareto, trial_rows, variant_rows, write_tidy
from embedrm.experiments.sweep_trials import TrialFile
from embedrm.heads import HEADS
from embedrm.heads.linear import LinearHead
from embedrm.heads.random import RandomHead
from embedrm.numerics.bradley_terry import log_loss
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses


@HEADS.register("test-breaking")
class BreakingHead(RandomHead):
    """Fails in the way that its seed says: 1 raises, 2 runs out of memory, 3 gives NaN."""

    def fit(self, preferences, y=None):
        if self.random_state == 1:
            raise InvalidInputError("one of these days")
        if self.random_state == 2:
            raise MemoryError("8 GiB")
        return super().fit(preferences)

    def _rewards(self, responses, rows):
        rewards = super()._rewards(responses, rows)
        return rewards * np.nan if self.random_state == 3 else rewards


@pytest.fixture(scope="module", autouse=True)
def only_here():
    """Other tests must not meet a head that breaks."""
    yield
    HEADS._classes.pop("test-breaking", None)


@pytest.fixture(scope="module")
def prefs() -> EmbeddedPreferences:
    rng = np.random.default_rng(0)
    n, dim = 160, 4
    x = rng.standard_normal((2 * n, dim)).astype(np.float32)
    reward = x[:, 0] + 0.5 * rng.standard_normal(2 * n)
    pairs = np.arange(2 * n).reshape(-1, 2)
    pairs = np.where((reward[pairs[:, 0]] < reward[pairs[:, 1]])[:, None], pairs[:, ::-1], pairs)
    split = np.array(["train", "train", "validation", "test"], dtype=object)[np.arange(n) % 4]
    domain = np.array(["sea", "tea"], dtype=object)[np.arange(n) // 4 % 2]
    views = {"response:final": x, "prompt:final": rng.standard_normal((n, dim)).astype(np.float32)}
    return EmbeddedPreferences(EmbeddedResponses(views, np.repeat(np.arange(n), 2), domain=domain, split=split), pairs)


class TestSpace:
    def test_a_grid_is_all_combinations_in_order(self) -> None:
        assert Space(grid={"a": [1, 2], "b": ["x", "y"]}).settings() == [
            {"a": 1, "b": "x"},
            {"a": 1, "b": "y"},
            {"a": 2, "b": "x"},
            {"a": 2, "b": "y"},
        ]

    def test_lists_and_axes_in_turn_are_taken_at_every_point_of_the_grid(self) -> None:
        space = Space(
            grid={"g": [1, 2]}, variants=[{"head": "mlp", "head.hidden": [8]}], around={"a": [1, 2], "b": [3]}
        )
        found = space.settings()
        assert len(found) == 2 * (1 + 1 + 3)
        assert found[:4] == [
            {"head": "mlp", "head.hidden": [8], "g": 1},
            {"head": "mlp", "head.hidden": [8], "g": 2},
            {"g": 1},
            {"g": 2},
        ]
        assert space.paths == ["head", "head.hidden", "a", "b", "g"]

    def test_samples_follow_their_seed_and_their_law(self) -> None:
        draws = {"a": "loguniform(1e-4, 1)", "b": "integers(2, 4)", "c": ["x", "y"], "d": "uniform(-1, 1)"}
        data = {"random": {**draws, "e": "logintegers(1, 100)"}, "samples": 400, "random_state": 3}
        found = Space.read(data).settings()
        assert found == Space.read(Space.read(data).written()).settings()
        assert found != Space.read({**data, "random_state": 4}).settings()
        logs = np.log10([s["a"] for s in found])
        assert stats.kstest(logs, "uniform", (-4, 4)).pvalue > 0.01
        assert {s["b"] for s in found} == {2, 3, 4}
        assert {s["c"] for s in found} == {"x", "y"}
        assert -1 <= min(s["d"] for s in found) < -0.9
        assert {min(s["e"] for s in found), max(s["e"] for s in found)} <= {1, *range(90, 101)}

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            ({"gird": {}}, "Did you mean 'grid'"),
            ({"grid": {"head.l2": 3}}, "needs a list"),
            ({"grid": {"head.l2": []}}, "needs a list"),
            ({"grid": {"head.l2": [1, 1]}}, "twice"),
            ({"random": {"head.l2": "loguniform(1, 2)"}}, "needs 'samples'"),
            ({"samples": 3}, "needs 'random'"),
            ({"random": {"head.l2": "lognormal(1, 2)"}, "samples": 1}, "Did you mean"),
            ({"random": {"head.l2": "loguniform(0, 2)"}, "samples": 1}, "above 0"),
            ({"random": {"head.l2": "uniform(2, 1)"}, "samples": 1}, "smaller first"),
            ({"random": {"head.l2": "integers(1.5, 2)"}, "samples": 1}, "whole numbers"),
            ({"random": {"head.l2": 3}, "samples": 1}, "is drawn by"),
            ({"grid": {"head.l2": [1]}, "around": {"head.l2": [2]}}, "in two ways"),
            ({"list": {"head": "mlp"}}, "list of mappings"),
        ],
    )
    def test_what_is_wrong_is_refused(self, data: dict, said: str) -> None:
        with pytest.raises(Misfit, match=said):
            Space.read(data)

    def test_words_of_the_command_line(self) -> None:
        words = ["head.l2=1e-4, 1,cv", "featurizer.terms=r;r,p*r", "data.domains=[[a, b], c]", "x=null,true"]
        assert read_axes(words) == {
            "head.l2": [1e-4, 1, "cv"],
            "featurizer.terms": ["r", "r,p*r"],
            "data.domains": [["a", "b"], "c"],
            "x": [None, True],
        }
        for wrong in (["head.l2"], ["=1"], ["a="], ["a=1", "a=2"], ["a=1,1"]):
            with pytest.raises(InvalidInputError):
                read_axes(wrong)

    def test_draws_are_read_back(self) -> None:
        assert Draw.read("choice(r, 'p*r')", ()).values == ("r", "p*r")


class TestPlan:
    @pytest.mark.parametrize("path", ["haed.l2", "head.l3x", "seeds", "data.fils"])
    def test_a_path_that_is_not_there_is_refused_before_anything_runs(self, path: str) -> None:
        with pytest.raises(InvalidInputError):
            Sweep({}, {"grid": {path: [1]}})

    def test_the_line_of_a_wrong_axis(self, tmp_path: Path) -> None:
        path = tmp_path / "s.yaml"
        path.write_text("head: linear\nsweep:\n  grid:\n    head.l2: [1]\n    head.objective: [hing]\n")
        with pytest.raises(DataError, match="Did you mean 'hinge'") as caught:
            Sweep.from_file(path)
        assert caught.value.line == 5

    def test_seeds_that_draw_nothing_share_a_fingerprint(self, prefs: EmbeddedPreferences) -> None:
        from embedrm.experiments.running import Workbench

        sweep = Sweep({}, {"grid": {"head": ["linear", "random"], "training.size": [None, 30]}}, seeds=3)
        plan = sweep.plan(Workbench(preferences=prefs))
        assert len(plan) == 12
        distinct = {(t.settings["head"], t.settings["training.size"]): set() for t in plan}
        for t in plan:
            distinct[t.settings["head"], t.settings["training.size"]].add(t.fingerprint)
        assert {k: len(v) for k, v in distinct.items()} == {
            ("linear", None): 1,
            ("linear", 30): 3,
            ("random", None): 3,
            ("random", 30): 3,
        }
        assert sum(t.shared for t in plan) == 2

    def test_a_sweep_survives_its_own_file(self, tmp_path: Path) -> None:
        space = {"grid": {"head.l2": [0.1, 1.0]}, "random": {"head.tol": "loguniform(1e-9, 1e-5)"}, "samples": 2}
        sweep = Sweep({"title": "x", "sweep": space}, seeds=2)
        from embedrm.experiments.experiment_files import to_yaml

        (tmp_path / "s.yaml").write_text(to_yaml(sweep.to_dict()))
        assert Sweep.from_file(tmp_path / "s.yaml").settings == sweep.settings


class TestRun:
    def test_results_are_those_of_single_fits_and_are_found_again(
        self, prefs: EmbeddedPreferences, tmp_path: Path
    ) -> None:
        sweep = Sweep({}, {"grid": {"head.l2": [0.01, 1.0], "data.domains": ["sea", "tea"]}}, seeds=2)
        outcome = sweep.run(tmp_path, preferences=prefs)
        assert (outcome.computed, outcome.found, outcome.failed, outcome.left) == (4, 0, 0, 0)
        for row in trial_rows(sweep, outcome):
            part = prefs.in_domain(row["data.domains"])
            head = LinearHead(l2=row["head.l2"]).fit(part.in_split("train"))
            assert row["test_micro"] == pytest.approx(head.score(part.in_split("test")))
        before = (tmp_path / "trials.jsonl").read_bytes()
        again = Sweep({}, sweep.space, seeds=2).run(tmp_path, preferences=prefs)
        assert (again.computed, again.found, again.left) == (0, 4, 0)
        assert (tmp_path / "trials.jsonl").read_bytes() == before
        more = Sweep({}, {"grid": {"head.l2": [0.01, 1.0, 5.0], "data.domains": ["sea", "tea"]}}, seeds=2)
        assert more.run(tmp_path, preferences=prefs).computed == 2

    def test_failures_are_recorded_and_stop_nothing(self, prefs: EmbeddedPreferences, tmp_path: Path) -> None:
        sweep = Sweep({"head": "test-breaking"}, {"grid": {"data.domains": [None, "sea"]}}, seeds=5)
        outcome = sweep.run(tmp_path, preferences=prefs)
        assert (outcome.computed, outcome.failed, outcome.left) == (10, 6, 0)
        rows = trial_rows(sweep, outcome)
        errors = {row["seed"]: row["error"] for row in rows[:5]}
        assert errors[0] is None
        assert errors[1] == "InvalidInputError: one of these days"
        assert errors[2] == "MemoryError: 8 GiB"
        assert errors[3].startswith("NotFiniteError: ")
        table = sweep.report(outcome).tables["failures"]
        assert sorted(row["n"] for row in table.rows) == [2, 2, 2]
        # not again, unless asked for
        assert sweep.run(tmp_path, preferences=prefs).computed == 0
        again = sweep.run(tmp_path, preferences=prefs, retry=True)
        assert (again.computed, again.found, again.failed) == (6, 4, 6)
        assert sweep.run(tmp_path, preferences=prefs).computed == 0

    def test_a_failure_that_succeeds_when_tried_again_is_a_success(
        self, prefs: EmbeddedPreferences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sweep = Sweep({"head": "test-breaking"}, {"grid": {"data.domains": [None]}}, seeds=2)
        sweep.run(tmp_path, preferences=prefs)
        monkeypatch.setattr(BreakingHead, "fit", RandomHead.fit)
        again = sweep.run(tmp_path, preferences=prefs, retry=True)
        assert (again.computed, again.failed) == (1, 0)
        assert sweep.run(tmp_path, preferences=prefs).failed == 0

    def test_data_that_a_variant_cannot_have_are_its_failure(self, prefs: EmbeddedPreferences, tmp_path: Path) -> None:
        sweep = Sweep({}, {"grid": {"data.domains": ["sea", "tee"], "training.size": [10, 10**6]}})
        outcome = sweep.run(tmp_path, preferences=prefs)
        assert (outcome.computed, outcome.failed, outcome.left) == (4, 3, 0)
        said = [row["error"] or "" for row in trial_rows(sweep, outcome)]
        assert sum("Did you mean 'tea'" in text for text in said) == 2

    def test_time_that_is_over_leaves_the_rest(self, prefs: EmbeddedPreferences, tmp_path: Path) -> None:
        sweep = Sweep({"head": "random"}, {"grid": {"data.domains": [None]}}, seeds=6)
        outcome = sweep.run(tmp_path, preferences=prefs, max_hours=1e-12)
        assert (outcome.computed, outcome.left) == (0, 6)
        assert {row["status"] for row in trial_rows(sweep, outcome)} == {"not finished"}
        assert sweep.report(outcome).summary[0].endswith("6 not finished.")
        assert sweep.run(tmp_path, preferences=prefs).left == 0

    @pytest.mark.parametrize("backend", ["threading", "loky"])
    def test_several_workers_find_the_same(self, prefs: EmbeddedPreferences, tmp_path: Path, backend: str) -> None:
        space = {
            "grid": {"head.l2": [0.01, 1.0], "data.domains": ["sea", "tea"], "featurizer.project": [None, "whiten"]}
        }
        one = Sweep({}, space).run(tmp_path / "one", preferences=prefs)
        two = Sweep({}, space).run(tmp_path / "two", preferences=prefs, jobs=2, backend=backend)
        assert (two.computed, two.left) == (8, 0)
        assert {n: r["metrics"] for n, r in one.records.items()} == {n: r["metrics"] for n, r in two.records.items()}
        assert len((tmp_path / "two" / "trials.jsonl").read_bytes().splitlines()) == 8

    @pytest.mark.parametrize("options", [{}, {"jobs": 2}, {"jobs": 2, "backend": "threading"}])
    def test_other_data_of_the_same_name_are_other_data(
        self, prefs: EmbeddedPreferences, tmp_path: Path, options: dict
    ) -> None:
        sweep = Sweep({}, {"grid": {"head.l2": [0.01, 1.0]}})
        third = prefs[np.arange(0, len(prefs), 3)]
        found = [sweep.run(tmp_path / str(i), preferences=p, **options) for i, p in enumerate((prefs, third))]
        for outcome, data in zip(found, (prefs, third)):
            head = LinearHead(l2=1.0).fit(data.in_split("train"))
            expected = log_loss(head.margins(data.in_split("test"))).mean()
            name = outcome.trials[1].fingerprint
            assert outcome.records[name]["metrics"]["test"]["log_loss"] == pytest.approx(expected)

    def test_data_that_cannot_be_read_are_tried_once_and_stop_nothing(
        self, prefs: EmbeddedPreferences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []
        prepared = running.Workbench.prepared

        def breaks(self, config):
            if config.data.domains == "tea":
                asked.append(config)
                raise RuntimeError("not enough memory: you tried to allocate 8 GiB")
            return prepared(self, config)

        monkeypatch.setattr(running.Workbench, "prepared", breaks)
        grid = {"data.domains": ["tea", "sea"], "head.l2": [0.01, 0.1, 1.0]}
        outcome = Sweep({}, {"grid": grid}).run(tmp_path, preferences=prefs)
        assert (outcome.computed, outcome.failed, outcome.left, len(asked)) == (6, 3, 0, 1)

    def test_what_goes_wrong_while_trials_are_sent_is_told(
        self, prefs: EmbeddedPreferences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_):
            raise InvalidInputError("no space left; make room and run again")

        monkeypatch.setattr(Claims, "take", full)
        for jobs in (1, 2):
            with pytest.raises(InvalidInputError, match="make room"):
                Sweep({}, {"grid": {"head.l2": [1]}}).run(tmp_path, preferences=prefs, jobs=jobs)

    @pytest.mark.parametrize("wrong", [{"jobs": 0}, {"backend": "lokey"}, {"max_hours": 0.0}, {"address": "here"}])
    def test_options_that_make_no_sense(self, prefs: EmbeddedPreferences, tmp_path: Path, wrong: dict) -> None:
        with pytest.raises(InvalidInputError):
            Sweep({}, {"grid": {"head.l2": [1]}}).run(tmp_path, preferences=prefs, **{"jobs": 2, **wrong})

    def test_finding_a_thousand_trials_again_is_quick(self, prefs: EmbeddedPreferences, tmp_path: Path) -> None:
        sweep = Sweep({"head": "random"}, {"grid": {"data.domains": ["sea", "tea"]}}, seeds=500)
        assert sweep.run(tmp_path, preferences=prefs).computed == 1000
        began = time.process_time()
        again = Sweep({"head": "random"}, sweep.space, seeds=500).run(tmp_path, preferences=prefs)
        assert again.found == 1000
        assert time.process_time() - began < 2.0


RECORD = {"fingerprint": "ab", "status": "ok"}


class TestFile:
    def test_a_torn_line_is_ended_and_skipped(self, tmp_path: Path) -> None:
        first = TrialFile(tmp_path)
        first.append(RECORD)
        with open(first.path, "ab") as file:
            file.write(b'{"fingerprint": "torn", "sta')
        second = TrialFile(tmp_path)
        assert second.read() == ["ab"]
        assert second.torn == 0  # it may be a line that is being written
        second.append({"fingerprint": "cd", "status": "ok"})
        assert second.read() == ["cd"]
        assert (second.torn, set(second.records)) == (1, {"ab", "cd"})
        third = TrialFile(tmp_path)
        assert third.read() == ["ab", "cd"]

    def test_what_others_add_is_read_and_a_success_stays(self, tmp_path: Path) -> None:
        one, other = TrialFile(tmp_path), TrialFile(tmp_path)
        failed = {"fingerprint": "ab", "status": "failed", "error": {}}
        one.append(failed)
        assert other.read() == ["ab"]
        assert (other.finished(), other.finished(retry=True)) == ({"ab"}, set())
        one.append(RECORD)
        one.append(failed)
        other.read()
        assert other.records["ab"]["status"] == "ok"
        assert other.finished(retry=True) == {"ab"}

    def test_a_trial_that_somebody_else_has_finished_is_not_added_again(self, tmp_path: Path) -> None:
        failed = {"fingerprint": "ab", "status": "failed", "error": {}}
        TrialFile(tmp_path).append(failed)
        one, other = TrialFile(tmp_path), TrialFile(tmp_path)
        for file in (one, other):
            file.read()
            file.begin()
        # what failed before they began is tried again
        assert one.append(failed, once=True)
        assert not other.append(failed, once=True)
        assert other.append(RECORD, once=True)
        assert not one.append(RECORD, once=True)
        assert not one.append(failed, once=True)
        assert [json.loads(line)["status"] for line in one.path.read_bytes().splitlines()] == ["failed", "failed", "ok"]

    def test_threads_that_read_one_file_miss_nothing(self, tmp_path: Path) -> None:
        writer, reader = TrialFile(tmp_path), TrialFile(tmp_path)
        n, done = 2000, threading.Event()

        def read() -> None:
            while not done.is_set():
                reader.read()

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        threads = [threading.Thread(target=read) for _ in range(4)]
        try:
            for thread in threads:
                thread.start()
            for i in range(n):
                writer.append({"fingerprint": str(i), "status": "ok"})
        finally:
            done.set()
            for thread in threads:
                thread.join()
            sys.setswitchinterval(interval)
        reader.read()
        assert (reader.torn, reader.news) == (0, {str(i) for i in range(n)})
        assert reader.read_to == writer.path.stat().st_size

    def test_what_is_no_record_is_no_result(self, tmp_path: Path) -> None:
        file = TrialFile(tmp_path)
        file.path.write_bytes(b'[]\n{"fingerprint": 3, "status": "ok"}\n{"fingerprint": "x", "status": "?"}\n\n\xff\n')
        assert (file.read(), file.torn) == ([], 4)


class TestTables:
    def test_tidy_files_are_read_back(self, prefs: EmbeddedPreferences, tmp_path: Path) -> None:
        grid = {"head.l2": [0.1, "cv"], "data.domains": [None, ["sea", "tea"]], "training.size": [30]}
        sweep = Sweep({}, {"grid": grid}, seeds=2)
        outcome = sweep.run(tmp_path, preferences=prefs)
        rows = trial_rows(sweep, outcome)
        files = write_tidy(rows, tmp_path, sweep.space.paths)
        for frame in (pd.read_csv(files["csv"]), pd.read_parquet(files["parquet"])):
            assert len(frame) == 8
            assert frame["head.l2"].astype(str).tolist() == ["0.1"] * 4 + ["cv"] * 4
            assert frame["test_micro"].tolist() == pytest.approx([row["test_micro"] for row in rows])
            assert frame["data.domains"][2] == json.dumps(["sea", "tea"])

    def test_values_are_those_of_each_variant(self, prefs: EmbeddedPreferences, tmp_path: Path) -> None:
        around = {"head.l2": [1.0], "head": ["prototype"], "training.size": [30], "featurizer": [{"scale": "none"}]}
        sweep = Sweep({"head": {"name": "linear", "l2": 0.1}}, {"around": around})
        rows = trial_rows(sweep, sweep.run(tmp_path, preferences=prefs))
        assert [row["head"] for row in rows] == ["linear", "linear", "prototype", "linear", "linear"]
        # what another head does not have is not said of it
        assert [row["head.l2"] for row in rows] == [0.1, 1.0, None, 0.1, 0.1]
        assert [row["training.size"] for row in rows] == [None, None, None, 30, None]
        assert [row["featurizer"] for row in rows] == [None, None, None, None, {"scale": "none"}]
        frame = pd.read_parquet(write_tidy(rows, tmp_path, sweep.space.paths)["parquet"])
        assert frame["head.l2"].isna().tolist() == [False, False, True, False, False]
        assert frame["featurizer"].tolist()[-1] == json.dumps({"scale": "none"})
        assert sweep.report(sweep.run(tmp_path, preferences=prefs)).save(tmp_path / "report")

    def test_intervals_are_over_seeds(self) -> None:
        values = [0.61, 0.65, 0.7, 0.66]
        cell = mean_interval(values)
        low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
        assert (cell["low"], cell["high"]) == pytest.approx((low, high))
        assert mean_interval([0.5]) == {"value": 0.5, "low": None, "high": None, "n": 1}

    def test_variants_average_different_fits_only(self, prefs: EmbeddedPreferences, tmp_path: Path) -> None:
        sweep = Sweep({}, {"grid": {"training.size": [None, 30]}}, seeds=3)
        rows = variant_rows(sweep, sweep.run(tmp_path, preferences=prefs))
        assert [row["n_seeds"] for row in rows] == [1, 3]
        assert rows[0]["splits"]["test"]["low"] is None
        cell = rows[1]["splits"]["test"]
        assert cell["low"] < cell["value"] < cell["high"]

    def test_a_front_is_what_nothing_beats(self) -> None:
        points = [(1, 0.5), (2, 0.6), (2, 0.6), (3, 0.55), (4, 0.7), (4, 0.65), (5, 0.7)]
        expected = [
            not any((c <= cost and a >= acc) and (c < cost or a > acc) for c, a in points) for cost, acc in points
        ]
        assert pareto(points) == expected == [True, True, True, False, True, False, False]

    def test_the_report_says_what_was_found(self, prefs: EmbeddedPreferences, tmp_path: Path) -> None:
        grid = {"head.l2": [0.001, 0.1, 10.0], "featurizer.terms": ["r", "r,p*r"], "training.size": [20, 60]}
        sweep = Sweep({"title": "A study"}, {"grid": grid}, seeds=2)
        outcome = sweep.run(tmp_path, preferences=prefs)
        report = sweep.report(outcome, pivot=("training.size", "head.l2"))
        variants = report.tables["variants"].rows
        values = [row["s0"]["value"] for row in variants]
        assert values == sorted(values, reverse=True)
        frame = pd.DataFrame(trial_rows(sweep, outcome))
        means = frame.pivot_table(index="training.size", columns="head.l2", values="validation_micro")
        pivot = report.tables["pivot"].rows
        assert [row["row"] for row in pivot] == ["20", "60"]
        np.testing.assert_allclose([[row[f"c{j}"] for j in range(3)] for row in pivot], means.to_numpy())
        by_axis = {(row["axis"], row["value"]): row for row in report.tables["axes"].rows}
        mine = frame[frame["head.l2"] == 10].groupby("seed").validation_micro.mean()
        cell = by_axis["head.l2", "10"]["mean"]
        assert cell["value"] == pytest.approx(mine.mean())
        assert (cell["low"], cell["high"]) == pytest.approx(stats.t.interval(0.95, 1, mine.mean(), stats.sem(mine)))
        best = frame.groupby("variant").validation_micro.mean().idxmax()
        assert int(variants[0]["variant"]) == best
        assert {"over-head-l2", "over-featurizer-terms", "cost-parameters", "cost-seconds"} <= set(report.figures)
        assert "Best by validation" in report.summary[1]
        files = report.save(tmp_path / "report")
        assert files["html"].stat().st_size > 10_000
        with pytest.raises(InvalidInputError, match=r"Did you mean 'head\.l2'"):
            sweep.report(outcome, pivot=("training.size", "head.l1"))

    def test_axes_in_turn_are_compared_with_the_centre(self, prefs: EmbeddedPreferences, tmp_path: Path) -> None:
        around = {"head.l2": [0.01, 10.0], "featurizer.terms": ["r,p*r"], "head": ["prototype"]}
        sweep = Sweep({"head": {"name": "linear", "l2": 0.1}}, {"around": around})
        outcome = sweep.run(tmp_path, preferences=prefs)
        report = sweep.report(outcome)
        value = [row["validation_micro"] for row in trial_rows(sweep, outcome)]
        found = {(row["axis"], row["value"]): row["mean"]["value"] for row in report.tables["axes"].rows}
        # centre, then each setting by itself: never an average over what the others did
        assert found == {
            ("head.l2", "0.01"): value[1],
            ("head.l2", "0.1"): value[0],
            ("head.l2", "10"): value[2],
            ("featurizer.terms", "default"): value[0],
            ("featurizer.terms", "r,p*r"): value[3],
            ("head", "linear"): value[0],
            ("head", "prototype"): value[4],
        }
        assert "pivot" not in report.tables
        lines = report.figures["over-head-l2"].data["series"]
        assert [one["x"] for one in lines] == [[0.01, 0.1, 10.0]]

    def test_without_a_validation_split_nothing_is_called_best(
        self, prefs: EmbeddedPreferences, tmp_path: Path
    ) -> None:
        sweep = Sweep({"evaluation": "test"}, {"grid": {"head.l2": [10.0, 0.1]}})
        report = sweep.report(sweep.run(tmp_path, preferences=prefs))
        assert len(report.summary) == 1
        assert [row["a0"] for row in report.tables["variants"].rows] == ["10", "0.1"]


def test_the_centre_is_an_experiment_of_its_own() -> None:
    sweep = Sweep(Experiment({"head": {"name": "linear", "l2": 3}}), {"around": {"head.tol": [1e-5]}})
    assert [v.model.l2 for v in sweep.variants] == [3.0, 3.0]
    assert [v.model.tol for v in sweep.variants] == [1e-9, 1e-5]


def test_variants_are_averaged_seed_by_seed() -> None:
    from embedrm.experiments.sweep_tidy import over_seeds

    def row(values: dict[int, float]) -> dict:
        return {"splits": {"test": {"value": float(np.mean(list(values.values())))}}, "by_seed": {"test": values}}

    # the variants lie far apart, the seeds do not: the interval is about the seeds
    cell = over_seeds([row({0: 0.5, 1: 0.6}), row({0: 0.9, 1: 0.8})], "test")
    assert cell == {"value": pytest.approx(0.7), "low": None, "high": None, "n": 2}
    cell = over_seeds([row({0: 0.5, 1: 0.6, 2: 0.1}), row({0: 0.9, 1: 0.9})], "test")
    low, high = stats.t.interval(0.95, 1, 0.725, stats.sem([0.7, 0.75]))
    assert cell == {"value": pytest.approx(0.725), "low": pytest.approx(low), "high": pytest.approx(high), "n": 2}
