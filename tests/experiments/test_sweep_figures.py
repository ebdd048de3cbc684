"""What a sweep's report and figures show: nothing is chosen on the test split, and nothing is joined that was drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedrm.experiments.sweep import Outcome, Sweep
from embedrm.experiments.sweep_report import quarters
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses


@pytest.fixture(scope="module")
def prefs() -> EmbeddedPreferences:
    rng = np.random.default_rng(0)
    n = 160
    x = rng.standard_normal((2 * n, 4)).astype(np.float32)
    reward = x @ [1.0, 0.5, 0, 0] + 0.8 * rng.standard_normal(2 * n)
    pairs = np.arange(2 * n).reshape(-1, 2)
    pairs = np.where((reward[pairs[:, 0]] < reward[pairs[:, 1]])[:, None], pairs[:, ::-1], pairs)
    split = np.array(["train", "train", "validation", "test"], dtype=object)[np.arange(n) % 4]
    views = {"response:final": x, "prompt:final": rng.standard_normal((n, 4)).astype(np.float32)}
    return EmbeddedPreferences(EmbeddedResponses(views, np.repeat(np.arange(n), 2), split=split), pairs)


def ran(prefs: EmbeddedPreferences, folder: Path, space: dict, seeds: int = 1, **centre: object) -> tuple:
    sweep = Sweep(centre, space, seeds=seeds)
    return sweep, sweep.run(folder, preferences=prefs)


def test_what_settings_did_is_shown_where_something_may_be_chosen(prefs: EmbeddedPreferences, tmp_path: Path) -> None:
    sweep, outcome = ran(
        prefs, tmp_path / "a", {"grid": {"head.l2": [0.01, 10.0], "featurizer.scale": ["rms", "none"]}}
    )
    report = sweep.report(outcome)
    for name in ("pivot", "axes", "pareto-front"):
        assert "on validation" in report.tables[name].caption, name
    for figure in report.figures.values():
        assert "test" not in figure.title, figure.name
    only = Sweep({"evaluation": "test"}, {"grid": {"head.l2": [0.01, 10.0]}})
    shown = only.report(only.run(tmp_path / "b", preferences=prefs))
    assert "on test" in shown.tables["axes"].caption


def test_drawn_numbers_are_points_and_quarters(prefs: EmbeddedPreferences, tmp_path: Path) -> None:
    space = {"random": {"head.l2": "loguniform(1e-3, 10)", "featurizer.scale": ["rms", "none"]}, "samples": 20}
    sweep, outcome = ran(prefs, tmp_path, space)
    report = sweep.report(outcome)
    figure = report.figures["over-head-l2"]
    assert figure.kind == "scatter"
    assert sum(len(one["x"]) for one in figure.data["series"]) == 20
    assert figure.data["x_scale"] == "log"
    assert "pivot" not in report.tables
    rows = [row for row in report.tables["axes"].rows if row["axis"] == "head.l2"]
    assert [row["n"] for row in rows] == [5, 5, 5, 5]
    # a grid of as many numbers keeps its line
    grid = Sweep({}, {"grid": {"head.l2": [float(v) for v in np.geomspace(1e-3, 10, 14)]}})
    report = grid.report(grid.run(tmp_path / "grid", preferences=prefs))
    assert report.figures["over-head-l2"].kind == "lines"
    assert len(report.tables["axes"].rows) == 14


@pytest.mark.parametrize("n", [1, 12, 13, 14, 15, 40])
def test_quarters_lose_nothing(n: int) -> None:
    parts = quarters(list(range(n)))
    assert [v for _, part in parts for v in part] == list(range(n))
    assert len(parts) == (n if n <= 12 else 4)
    sizes = [len(part) for _, part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert quarters(["a"] * 20)[0] == ("a", ["a"])


def test_points_of_the_front_are_numbered_as_in_the_tables(prefs: EmbeddedPreferences, tmp_path: Path) -> None:
    space = {"around": {"head": ["mlp"], "featurizer.terms": ["r,p*r"]}}
    sweep, outcome = ran(prefs, tmp_path, space)
    report = sweep.report(outcome)
    front = {row["variant"]: row["what"] for row in report.tables["pareto-front"].rows}
    numbered = {
        number
        for name in ("cost-parameters", "cost-seconds")
        for one in report.figures[name].data["series"]
        for number in one.get("names") or ()
    }
    assert numbered == set(front)
    # a variant is called by what it moves alone
    assert set(front.values()) <= {"the centre", "head=mlp", "terms=r,p*r"}


def test_a_cost_that_all_share_has_no_figure(prefs: EmbeddedPreferences, tmp_path: Path) -> None:
    sweep, outcome = ran(prefs, tmp_path, {"grid": {"head.l2": [0.01, 1.0]}})
    assert "cost-parameters" not in sweep.report(outcome).figures
    assert "cost-seconds" in sweep.report(outcome).figures


def test_variants_without_a_result_are_counted(prefs: EmbeddedPreferences, tmp_path: Path) -> None:
    sweep, outcome = ran(prefs, tmp_path, {"grid": {"training.size": [20, 10**6], "head.l2": [0.1, 1.0]}})
    report = sweep.report(outcome)
    assert len(report.tables["variants"].rows) == 2
    assert "not shown: 2 variants" in report.tables["variants"].caption
    assert report.tables["failures"].rows[0]["n"] == 2
    # nothing but failures is a report too
    sweep, outcome = ran(prefs, tmp_path / "none", {"grid": {"training.size": [10**6, 10**7]}})
    assert set(sweep.report(outcome).tables) == {"failures", "settings"}


def test_heads_without_a_log_loss_are_left_out_of_it_and_counted(prefs: EmbeddedPreferences, tmp_path: Path) -> None:
    sweep, outcome = ran(prefs, tmp_path, {"grid": {"head": ["linear", "random"]}})
    caption = sweep.report(outcome, metric="log_loss").tables["variants"].caption
    assert "not shown: 1 variant." in caption


def test_results_of_another_version_are_told(prefs: EmbeddedPreferences, tmp_path: Path) -> None:
    sweep, outcome = ran(prefs, tmp_path, {"grid": {"head.l2": [0.01, 1.0]}})
    assert not any("were computed by" in note for note in sweep.report(outcome).notes)
    first = outcome.trials[0].fingerprint
    other = Outcome(outcome.trials, {**outcome.records, first: {**outcome.records[first], "version": "0.0.9"}})
    assert any(note.startswith("1 of the trials were computed by embedrm 0.0.9") for note in sweep.report(other).notes)


def test_a_sweep_is_called_by_what_varies(prefs: EmbeddedPreferences, tmp_path: Path) -> None:
    sweep, outcome = ran(prefs, tmp_path, {"grid": {"head.l2": [0.01, 1.0]}})
    assert sweep.report(outcome).title == "Sweep of head.l2"
    named = Sweep({"title": "Mine"}, {"grid": {"head.l2": [0.01, 1.0]}})
    assert named.report(named.run(tmp_path, preferences=prefs)).title == "Mine"
