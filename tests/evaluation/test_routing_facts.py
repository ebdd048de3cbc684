"""Routing facts, counted by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embedrm import LinearHead, LogisticRouter, RoutedRewardModel
from embedrm.checks import example_preferences
from embedrm.errors import InvalidInputError
from embedrm.evaluation import comparison_facts, regret_facts, router_facts
from embedrm.reporting import Report
from embedrm.reporting.routing import confusion_figure, regret_table, router_table, routing_section

CLASSES = ["a", "b"]
PROBA = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.5, 0.5], [0.1, 0.9]])
TRUTH = np.array(["a", "b", "b", "b", "a", "c"])


def facts(**options):
    return router_facts(PROBA, CLASSES, TRUTH, **{"n_resamples": 50, **options})


def test_counts_by_hand():
    f = facts()
    # routes: a a b a a b
    assert f["confusion"] == {"domains": ["a", "b", "c"], "classes": CLASSES, "counts": [[2, 0], [2, 1], [0, 1]]}
    assert f["accuracy"]["value"] == 0.5
    assert f["macro_recall"]["value"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    rows = {row["domain"]: row for row in f["classes"]}
    assert rows["a"] == {"domain": "a", "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "n": 2, "n_routed": 4}
    assert rows["b"] == {"domain": "b", "precision": 0.5, "recall": 1 / 3, "f1": 0.4, "n": 3, "n_routed": 2}
    assert rows["c"] == {"domain": "c", "precision": None, "recall": 0.0, "f1": 0.0, "n": 1, "n_routed": 0}
    assert f["macro_f1"] == pytest.approx((2 / 3 + 0.4) / 3)
    assert f["unknown"] == {"c": 1}
    assert f["log_loss"] == pytest.approx(-np.log([0.9, 0.2, 0.7, 0.4, 0.5]).mean())
    json.dumps(f, allow_nan=False)


def test_misrouted_prompts_come_most_confident_first():
    f = facts(texts=[f"text {i}" for i in range(6)], n_misrouted=2)
    assert f["n_misrouted"] == 3
    assert [row["row"] for row in f["misrouted"]] == [5, 1]
    assert f["misrouted"][0] == {
        "row": 5, "domain": "c", "routed": "b", "probability": 0.9, "margin": 0.9, "text": "text 5",
    }  # fmt: skip
    assert f["misrouted"][1]["margin"] == pytest.approx(0.6)


def test_calibration_error_by_hand():
    f = facts(n_bins=1)
    assert f["calibration"]["ece"] == pytest.approx(abs(0.5 - PROBA.max(axis=1).mean()))
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1], size=4000)
    truth = np.array(["x", "y", "z"])[(p.cumsum(axis=1) < rng.random(4000)[:, None]).sum(axis=1)]
    honest = router_facts(p, ["x", "y", "z"], truth, n_resamples=10)["calibration"]
    assert honest["ece"] < 2.5 * honest["ece_by_chance"]


def test_rejection_is_counted():
    f = facts(accepted=[1, 0, 1, 0, 1, 0])
    assert f["rejection"] == {"coverage": 0.5, "accuracy": 1.0, "accuracy_of_rejected": 0.0}
    assert facts()["rejection"] == {"coverage": 1.0, "accuracy": 0.5, "accuracy_of_rejected": None}


def test_the_order_of_columns_does_not_matter():
    other = router_facts(PROBA[:, ::-1], CLASSES[::-1], TRUTH, n_resamples=50)
    # all but the tie, which goes to the first column
    assert other["log_loss"] == facts()["log_loss"]


def test_intervals_are_clustered():
    wide = facts(groups=["g", "g", "h", "g", "h", "h"], n_resamples=400)["accuracy"]
    assert facts(groups=["g"] * 6)["accuracy"]["low"] == facts(groups=["g"] * 6)["accuracy"]["high"] == 0.5
    assert wide["low"] < 0.5 < wide["high"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((PROBA, ["a"], TRUTH), "expects probabilities"),
        ((PROBA, ["a", "a"], TRUTH), "different names"),
        ((2 * PROBA, CLASSES, TRUTH), "each row with the sum one"),
        ((PROBA[:0], CLASSES, TRUTH[:0]), "at least one prompt"),
    ],
)
def test_wrong_input_is_refused(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        router_facts(*arguments)


def test_regret_is_the_paired_difference_and_splits_by_route():
    prefs, _ = example_preferences()
    routed = RoutedRewardModel(LinearHead(l2=0.01), LogisticRouter(l2=1.0)).fit(prefs)
    margins = {r: routed.with_routing(r).margins(prefs) for r in ("hard", "soft", "random", "oracle")}
    gates = routed.with_routing("hard").gates(prefs.responses)
    found = np.array(routed.domains_)[gates.argmax(axis=1)][prefs.prompt_rows]
    wrong = found != prefs.domain
    oracle = margins.pop("oracle")
    f = regret_facts(oracle, margins | {"itself": oracle}, prefs, misrouted=wrong, n_resamples=100)
    rows = {row["routing"]: row for row in f["rows"]}
    assert rows["itself"]["micro"]["value"] == rows["itself"]["micro"]["low"] == 0.0
    assert rows["random"]["micro"]["value"] == pytest.approx(f["oracle"]["micro"] - rows["random"]["accuracy"])
    assert rows["hard"]["micro"] == comparison_facts(oracle, margins["hard"], prefs, n_resamples=100)["micro"]
    assert rows["hard"]["well_routed"]["value"] == 0.0
    assert rows["hard"]["misrouted"]["n"] + rows["hard"]["well_routed"]["n"] == len(prefs)
    assert set(rows["soft"]["domains"]) == set(prefs.domains)
    router = router_facts(
        routed.with_routing("soft").gates(prefs.responses), routed.domains_, prefs.responses.domain, n_resamples=20
    )
    report = Report("routing", "Routes")
    report.add_section("Routing", **routing_section(router, f))
    assert Report.from_json(report.to_json()) == report
    assert [t.name for t in report.sections[0].tables if t.name != "misrouted"] == ["router", "confusion", "regret"]
    assert confusion_figure(router).data["limits"] == [0.0, 1.0]
    with pytest.raises(InvalidInputError, match="at least one routing"):
        regret_facts(oracle, {}, prefs)


def test_tables_say_what_was_rejected_and_what_is_unknown():
    table = router_table(facts(accepted=[1, 0, 1, 0, 1, 0]))
    assert "accepts 50.0% of the prompts and routes 100.0% of these rightly, 0.0% of the others" in table.caption
    assert "does not know, and so misrouted: c (1)" in table.caption
    prefs, _ = example_preferences()
    zeros = np.zeros(len(prefs))
    shown = regret_table(regret_facts(zeros, {"coin": zeros}, prefs, n_resamples=10))
    assert "misrouted" not in {column.key for column in shown.columns}
