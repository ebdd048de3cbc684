"""Random samples of a plan: seeded, without doubles, by strata; and what the whole plan costs by hand-countable trials."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from embedrm.cli import app
from embedrm.datasets.teachers import Teacher, write_candidates
from embedrm.errors import InvalidInputError
from embedrm.experiments.sweep import Sweep
from embedrm.experiments.sweep_cost import plan_cost, stratified_mean
from embedrm.experiments.sweep_sample import Sample, SampledSweep, Stratum, draw_sample
from embedrm.experiments.sweep_tidy import trial_rows
from embedrm.experiments.value_labels import value_labels

ARRAYS = "Gemma2b_Gemma2b_Helpful"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("released")
    teacher = Teacher(dim=6)
    write_candidates(teacher, where, ARRAYS, "train", 60, 6)
    write_candidates(teacher, where, ARRAYS, "test", 20, 8)
    return where


def centre(folder: Path) -> dict[str, Any]:
    return {
        "data": {"release": str(folder / ARRAYS)},
        "encoder": "hashing",
        "training": {"pairing": "same-prompt", "annotation": {"beta": 1.0}},
        "head": "linear",
        "evaluation": {"splits": "test", "best_of_n": [2, 8]},
    }


@pytest.fixture
def space() -> dict[str, Any]:
    return {
        "grid": {
            "head": [{"name": "linear", "l2": 0.1}, {"name": "linear", "l2": 1.0}],
            "training.n_annotations": [20, 40],
            "training.annotation.beta": [0.5, 1, 5],
        }
    }


class TestDrawing:
    def test_two_of_each_stratum_and_the_rest_by_size(self) -> None:
        strata = {("a",): range(100), ("b",): range(100, 120), ("c",): range(120, 123)}
        counts = [{key: len(found) for key, found in draw_sample(strata, n, 0).items()} for n in (3, 6, 15, 123, 500)]
        assert list(counts[0].values()) == [1, 1, 1]
        assert list(counts[1].values()) == [2, 2, 2]
        assert list(counts[2].values()) == [11, 2, 2]
        assert list(counts[3].values()) == list(counts[4].values()) == [100, 20, 3]

    def test_nothing_twice_the_same_again_and_another_seed_another_sample(self) -> None:
        strata = {("a",): range(50), ("b",): range(50, 90)}
        first = draw_sample(strata, 20, 3)
        assert draw_sample(strata, 20, 3) == first
        assert draw_sample(strata, 20, 4) != first
        for key, found in first.items():
            assert len(set(found)) == len(found)
            assert set(found) <= set(strata[key])

    def test_every_member_is_as_likely(self) -> None:
        counts = Counter(m for seed in range(600) for m in draw_sample({(): range(6)}, 2, seed)[()])
        assert stats.chisquare([counts[m] for m in range(6)]).pvalue > 1e-3


class TestSampledSweep:
    def test_strata_are_heads_and_annotations_as_far_as_the_sample_goes(self, folder: Path, space: Any) -> None:
        for n, axes in ((8, ["head", "training.n_annotations"]), (7, ["head"]), (3, [])):
            sweep = SampledSweep(centre(folder), space, 5, n=n)
            plan = sweep.plan()
            sample = sweep.sample
            assert sample is not None
            assert (len(plan), sample.axes, sample.planned) == (n, axes, 60)
            assert sum(s.size for s in sample.strata) == 60
            assert [t.number for t in plan] == sample.drawn
        whole = Sweep(centre(folder), space, 5).plan()
        assert plan == [whole[t.number] for t in plan]

    def test_computations_that_are_the_same_are_drawn_once(self, folder: Path) -> None:
        # no seed changes a linear head on all pairs: five seeds are one computation
        data = centre(folder) | {"training": {}}
        sweep = SampledSweep(data, {"grid": {"head.l2": [0.1, 1.0, 10.0]}}, 5, n=10)
        assert len({t.fingerprint for t in sweep.plan()}) == 3
        assert sweep.sample is not None
        assert (sweep.sample.planned, sweep.sample.different) == (15, 3)

    def test_a_sample_is_found_by_the_whole_sweep(self, folder: Path, space: Any, tmp_path: Path) -> None:
        sampled = SampledSweep(centre(folder), space, 2, n=8, random_state=1)
        outcome = sampled.run(tmp_path, store=False)
        assert (outcome.computed, outcome.failed, outcome.distinct) == (8, 0, 8)
        rows = trial_rows(sampled, outcome)
        assert [row["trial"] for row in rows] == sampled.sample.drawn  # type: ignore[union-attr]
        again = SampledSweep(centre(folder), space, 2, n=8, random_state=1).run(tmp_path, store=False)
        assert (again.computed, again.found) == (0, 8)
        whole = Sweep(centre(folder), space, 2).run(tmp_path, store=False)
        assert (whole.computed, whole.found) == (16, 8)

    def test_a_sample_of_one_is_refused(self, folder: Path, space: Any) -> None:
        with pytest.raises(InvalidInputError, match="at least 2 trials, got 1"):
            SampledSweep(centre(folder), space, n=1)


def outcome_of(seconds: dict[int, float | None], failed: tuple[int, ...] = ()) -> Any:
    """An outcome of trials that took so many core-seconds to fit, 1 to score and none to draw; None is not finished."""
    records: dict[str, Any] = {}
    for number, value in seconds.items():
        if number in failed:
            records[str(number)] = {"status": "failed"}
        elif value is not None:
            records[str(number)] = {
                "status": "ok",
                "core_seconds": value,
                "score_core_seconds": 1.0,
                "draw_core_seconds": 0.0,
            }
    trials = [SimpleNamespace(number=number, fingerprint=str(number)) for number in seconds]
    return SimpleNamespace(trials=trials, records=records)


class TestCostOfTheWholePlan:
    def sweep(self) -> Any:
        strata = [Stratum({"head": "a"}, 30, [0, 1, 2]), Stratum({"head": "b"}, 10, [30, 31])]
        return SimpleNamespace(sample=Sample(40, 40, ["head"], strata, 0))

    def test_by_hand(self) -> None:
        found = plan_cost(self.sweep(), outcome_of({0: 10.0, 1: 20.0, 2: 30.0, 30: 100.0, 31: 104.0}))
        assert found is not None
        everything, a, b = found["rows"]
        # 30 trials of 20 and 10 of 102, and a second to score each
        assert everything["fit"]["value"] == pytest.approx((30 * 20 + 10 * 102) / 40)
        assert everything["score"] == {"value": 1.0, "low": 1.0, "high": 1.0}
        assert everything["core_hours"]["value"] == pytest.approx((30 * 21 + 10 * 103) / 3600)
        assert (a["value"], a["trials"], a["measured"]) == ("a", 30, 3)
        assert b["core_hours"]["value"] == pytest.approx(10 * 103 / 3600)
        # variances 100 and 8 over 3 and 2 trials, less what was measured of 30 and 10
        parts = [(30 / 40) ** 2 * (1 - 3 / 30) * 100 / 3, (10 / 40) ** 2 * (1 - 2 / 10) * 8 / 2]
        df = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 1)
        half = stats.t.ppf(0.975, df) * np.sqrt(sum(parts))
        assert everything["fit"]["high"] - everything["fit"]["value"] == pytest.approx(half)
        assert everything["fit"]["low"] == pytest.approx(max(0.0, everything["fit"]["value"] - half))

    def test_failures_are_counted_and_left_out(self) -> None:
        found = plan_cost(self.sweep(), outcome_of({0: 10.0, 1: 20.0, 2: 0.0, 30: 4.0, 31: 6.0}, failed=(2,)))
        assert found is not None
        assert (found["sampled"], found["measured"], found["failed"]) == (5, 4, 1)
        assert found["rows"][1]["fit"]["value"] == 15.0

    def test_what_is_not_known_is_not_told(self) -> None:
        one = plan_cost(self.sweep(), outcome_of({0: 10.0, 1: 20.0, 2: None, 30: 4.0, 31: None}))
        assert one is not None
        assert one["rows"][0]["fit"] == {"value": pytest.approx((30 * 15 + 10 * 4) / 40), "low": None, "high": None}
        none = plan_cost(self.sweep(), outcome_of({0: 10.0, 1: 20.0, 2: None, 30: None, 31: None}))
        assert none is not None
        assert none["rows"][0]["core_hours"]["value"] is None
        assert "cannot be told" in none["sentence"]
        assert plan_cost(SimpleNamespace(sample=None), outcome_of({})) is None  # type: ignore[arg-type]

    def test_a_stratum_that_was_measured_whole_has_no_error(self) -> None:
        assert stratified_mean([[1.0, 5.0]], [2]) == {"value": 3.0, "low": 3.0, "high": 3.0}

    def test_intervals_hold_what_they_promise(self) -> None:
        rng = np.random.default_rng(0)
        population = [rng.normal(10, 3, 400), rng.normal(30, 6, 200)]
        mean = np.concatenate(population).mean()
        held = 0
        for seed in range(400):
            drawn = draw_sample({0: range(400), 1: range(200)}, 12, seed)  # type: ignore[dict-item]
            cell = stratified_mean([population[h][drawn[h]].tolist() for h in (0, 1)], [400, 200])
            held += cell["low"] <= mean <= cell["high"]
        assert 0.91 < held / 400 < 0.99


class TestCommand:
    def words(self, folder: Path, tmp_path: Path) -> list[str]:
        file = tmp_path / "study.yaml"
        file.write_text(json.dumps(centre(folder)), encoding="utf-8")
        grid = ["--grid", "head.l2=0.1,1,10", "--grid", "training.n_annotations=20,40", "--seeds", "3"]
        return ["sweep", str(file), "-o", str(tmp_path / "out"), *grid, "--no-store"]

    def test_a_sample_is_reported_with_the_cost_of_the_plan(self, folder: Path, tmp_path: Path) -> None:
        words = [*self.words(folder, tmp_path), "--sample", "12", "--metric", "best_of_8", "--json"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        report = json.loads(done.stdout)
        cost = report["provenance"]["plan_cost"]
        assert (cost["measured"], cost["rows"][0]["trials"]) == (12, 18)
        assert cost["rows"][0]["core_hours"]["low"] <= cost["rows"][0]["core_hours"]["value"]
        titles = [section["title"] for section in report["sections"]]
        assert {"Cost of the whole plan", "Choosing among candidates"} <= set(titles)
        assert any("a random sample of the plan of 18" in line for line in report["summary"])
        rows = list(csv.DictReader((tmp_path / "out" / "trials.csv").open(encoding="utf-8")))
        assert len(rows) == 12
        assert all(0 < float(row["test_best_of_8"]) < 2.5 for row in rows)
        assert {"test_best_of_2_se", "test_spearman", "test_n_candidates", "score_core_seconds"} <= set(rows[0])
        again = CliRunner().invoke(app, [*self.words(folder, tmp_path), "--json"])
        trials = json.loads(again.stdout)["provenance"]["trials"]
        assert (trials["computed_now"], trials["finished_before"]) == (6, 12)
        assert "plan_cost" not in json.loads(again.stdout)["provenance"]

    def test_a_dry_run_counts_sample_and_plan(self, folder: Path, tmp_path: Path) -> None:
        done = CliRunner().invoke(app, [*self.words(folder, tmp_path), "--sample", "6", "--dry-run", "--json"])
        facts = json.loads(done.stdout)
        assert (facts["planned"], facts["to_compute"], facts["whole_plan"]) == (6, 6, 18)

    def test_a_metric_that_is_not_recorded_is_refused(self, folder: Path, tmp_path: Path) -> None:
        done = CliRunner().invoke(app, [*self.words(folder, tmp_path), "--metric", "best_of_5"])
        assert done.exit_code == 2
        assert "best_of_2" in " ".join(done.output.split())


class TestShortNames:
    def test_only_what_tells_mappings_apart(self) -> None:
        heads = [
            {"name": "mlp", "l2": 1, "hidden": [4], "objective": "bradley-terry"},
            {"name": "mlp", "l2": 1, "hidden": [4], "objective": "classification"},
            {"name": "gbdt", "objective": "classification", "max_trees": 3},
        ]
        assert list(value_labels(heads).values()) == [
            "mlp, objective=bradley-terry",
            "mlp, objective=classification",
            "gbdt, objective=classification",
        ]

    def test_other_values_are_themselves(self) -> None:
        assert list(value_labels([1, "a", None, {"name": "x"}]).values()) == ["1", "a", "default", '{"name": "x"}']

    def test_names_are_never_shared(self) -> None:
        values = ["mlp", {"name": "mlp"}, {"name": "gbdt"}]
        assert len(set(value_labels(values).values())) == 3
