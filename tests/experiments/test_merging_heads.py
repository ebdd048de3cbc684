"""The study of merged heads on small generated data: laws of the sweep, the choice, and what is read from which labels."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from embedrm import EmbeddedPreferences, EmbeddedResponses, MergedRewardModel, Report, merge_heads
from embedrm.checks import example_preferences
from embedrm.errors import InvalidInputError
from embedrm.evaluation.claims import VERDICTS
from embedrm.experiments import merging_heads as mh
from embedrm.experiments.merging_head_curves import lambda_facts
from embedrm.experiments.merging_heads import HeadMergeStudy
from embedrm.experiments.study import StudyData
from embedrm.merging.methods import MERGE_METHODS
from embedrm.numerics.folds import hold_out

TARGETS = {"maths": "beta", "code": "alpha"}
SMALL = {"hidden": (6,), "n_seeds": 2, "n_resamples": 20}


def splits(prefs: EmbeddedPreferences) -> StudyData:
    rest, test = hold_out(prefs.groups, 0.3, 0, "the test", "more")
    train, validation = hold_out(prefs.groups[rest], 0.3, 1, "the test", "more")
    return StudyData("example", prefs[rest[train]], prefs[rest[validation]], prefs[test], prefs[:0])


@pytest.fixture(scope="module")
def data() -> StudyData:
    return splits(example_preferences(49)[0])


@pytest.fixture(scope="module")
def study(data: StudyData) -> HeadMergeStudy:
    return HeadMergeStudy(data, TARGETS, **SMALL)


def without(facts: dict, *names: str) -> dict:
    return {key: value for key, value in facts.items() if key not in names}


def relabelled(prefs: EmbeddedPreferences, domain: str) -> EmbeddedPreferences:
    """The same pairs, those of one domain turned round."""
    own = prefs.domain == domain
    pairs = np.where(own[:, None], prefs.pairs[:, ::-1], prefs.pairs)
    return EmbeddedPreferences(prefs.responses, pairs, margin=prefs.margin, outcome=prefs.outcome, weight=prefs.weight)


class TestLaws:
    def test_lambda_zero_is_the_general_model_bit_for_bit(self, study, data):
        assert study.lambdas[0] == 0.0
        for (level, label), facts in study.levels.items():
            own = data.test.in_domain(TARGETS[label])
            models = [study.general_linear] if level.startswith("linear") else study.general_mlps
            score = np.mean([model.score(own) for model in models])
            assert facts["test"]["target"][0]["value"] == pytest.approx(score, abs=1e-12)
            assert facts["change"]["target"][0] == {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
        for general, trunk in zip(study.general_mlps, study.trunks[study.primary, "maths"]):
            merged = mh.sweep_margins(general, trunk, {"test": data.test}, layers="trunk")["test"]
            np.testing.assert_array_equal(merged[0], general.margins(data.test))

    def test_every_point_is_that_of_a_merged_head(self, study, data):
        own = data.test.in_domain("beta")
        for level, layers, domain in (
            (study.primary, "trunk", study.trunks[study.primary, "maths"]),
            (mh.trunk_level(mh.GRADES), "trunk", study.trunks[mh.trunk_level(mh.GRADES), "maths"]),
        ):
            for i in (5, 13, 20):
                lam = study.lambdas[i]
                scores = [
                    merge_heads([a, b], [1 - lam, lam], layers=layers).score(own)
                    for a, b in zip(study.general_mlps, domain)
                ]
                assert study.levels[level, "maths"]["test"]["target"][i]["value"] == pytest.approx(np.mean(scores))

    def test_linear_merging_is_averaging(self, study, data):
        assert 0 <= max(study.linear["difference"].values()) < 1e-6
        mean = MergedRewardModel.of([("a", study.general_linear), ("b", study.domain_linear["code"])], [0.35, 0.65])
        own = data.test.in_domain("alpha")
        curve = study.levels[mh.LINEAR, "code"]["test"]["target"]
        assert curve[13]["value"] == pytest.approx(mean.score(own))

    def test_rewards_are_averaged_on_one_scale(self, study, data):
        members = [("a", study.general_linear), ("b", study.domain_linear["code"])]
        mean = MergedRewardModel.of(members, [0.35, 0.65], data.validation)
        curve = study.levels[mh.REWARDS_LINEAR, "code"]["test"]["target"]
        assert curve[13]["value"] == pytest.approx(mean.score(data.test.in_domain("alpha")))

    def test_the_order_of_targets_changes_nothing(self, study, data):
        other = HeadMergeStudy(data, dict(reversed(TARGETS.items())), **SMALL)
        assert without(other.facts(), "cost") == without(study.facts(), "cost")


class TestWhatIsRead:
    def test_the_choice_ignores_test_labels(self, study, data):
        turned = HeadMergeStudy(replace(data, test=data.test.swapped()), TARGETS, **SMALL)
        for key, facts in study.levels.items():
            assert turned.levels[key]["chosen"] == facts["chosen"]
            assert turned.levels[key]["validation"] == facts["validation"]
            one, other = (f["test"]["target"][3]["value"] for f in (facts, turned.levels[key]))
            assert one + other == pytest.approx(1.0)

    def test_trunks_and_the_general_model_read_no_preference_of_a_target(self, study, data):
        other = HeadMergeStudy(replace(data, train=relabelled(data.train, "beta")), TARGETS, **SMALL)
        same = {mh.ALIGNED, *(mh.trunk_level(task) for task in mh.TASKS)}
        for (level, label), facts in study.levels.items():
            unchanged = other.levels[level, label] == facts
            assert unchanged if level in same or label == "code" else not unchanged, level

    def test_the_general_model_knows_no_target(self, study):
        assert study.general_pairs.domains == ("gamma",)
        assert study.others == ["gamma"]


class TestFacts:
    def test_they_are_plain(self, study):
        facts = study.facts()
        assert json.loads(json.dumps(facts)) == facts
        assert {own["level"] for own in facts["levels"]} == {
            mh.REWARDS_LINEAR, mh.LINEAR, mh.REWARDS_MLP, mh.WARM, mh.ALIGNED, *(mh.trunk_level(t) for t in mh.TASKS)
        }  # fmt: skip

    def test_gain_is_the_mean_over_targets(self, study):
        for level in (study.primary, mh.WARM):
            each = []
            for label in TARGETS:
                facts = study.levels[level, label]
                each.append(facts["change"]["target"][facts["chosen"]["index"]]["value"])
            assert study.gain(level)["value"] == pytest.approx(np.mean(each))

    def test_methods(self, study):
        for label, rows in study.methods.items():
            by_name = {row["method"]: row for row in rows}
            assert set(by_name) == {name for name in MERGE_METHODS.names() if name != "warm"}
            facts = study.levels[study.primary, label]
            lam = facts["chosen"]["lambda"] or mh.MIDDLE
            assert by_name["model_soup"]["lambda"] == 0.5
            assert by_name["linear"]["lambda"] == lam
            at = study.lambdas.index(lam)
            for name in ("linear", "task_arithmetic"):
                assert by_name[name]["target"]["value"] == pytest.approx(facts["change"]["target"][at]["value"])
                assert by_name[name]["others"]["value"] == pytest.approx(facts["change"]["others"][at]["value"])

    def test_claims(self, study):
        rises, kept, best = study.claims
        assert all(c["setting"] == "analogue" and c["verdict"] in VERDICTS for c in study.claims)
        assert rises["measured"] == study.gain(study.primary)["value"]
        changes = [
            facts["change"]["others"][facts["chosen"]["index"]]["value"]
            for (level, _), facts in study.levels.items()
            if level == study.primary
        ]
        assert kept["measured"] in changes
        assert best["measured"] in [study.levels[study.primary, label]["chosen"]["lambda"] for label in TARGETS]

    def test_trunks_of_other_starts_are_refused_with_what_to_do(self, study):
        assert len(study.alignment["refusals"]) == 2
        assert "align=True" in study.alignment["refusals"][0]
        assert "initialisation" in study.alignment["refusals"][0]

    def test_report(self, study):
        report = Report("study", "Merged heads")
        study.add_sections(report)
        assert Report.from_json(report.to_json()) == report
        text = report.text()
        for said in ("WARM", "analogue of the paper", "align=True"):
            assert said in text
        assert len(study.findings()) == 3


def test_without_grades_prompts_or_a_second_start(data):
    old = data.train.responses
    bare = EmbeddedResponses(
        {"response:final": old.views["response:final"]}, old.prompt_of, domain=old.domain, group=old.group
    )
    parts = {name: EmbeddedPreferences(bare, getattr(data, name).pairs) for name in ("train", "validation", "test")}
    study = HeadMergeStudy(replace(data, **parts), {"maths": "beta"}, hidden=(4,), n_seeds=1, n_resamples=10)
    assert list(study.tasks) == [mh.DENOISING]
    assert study.primary == mh.trunk_level(mh.DENOISING)
    assert study.levels[study.primary, "maths"]["seed_sd"] is None
    assert study.alignment == {}
    assert len(study.notes) == 3
    report = Report("study", "Merged heads")
    study.add_sections(report)
    assert report.notes == study.notes


def test_lambda_facts_by_hand():
    x = np.zeros((8, 1))
    prefs = EmbeddedPreferences.from_arrays(
        x,
        [[0, 1], [2, 3], [4, 5], [6, 7]],
        prompt_of=[0, 0, 1, 1, 2, 2, 3, 3],
        domain=["a", "a", "b", "c"],
    )
    tied = EmbeddedPreferences(prefs.responses, prefs.pairs, outcome=[1, 1, 1, 0.5])
    # two seeds, three lambdas, pairs of a, a, b, c
    validation = np.array([[[1, -1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]], [[-1, -1, 0, 0], [1, -1, 0, 0], [-1, 1, 0, 0]]])
    test = np.array([[[-1, -2, 3, 9], [1, 0, -3, 9], [1, 1, 1, 9]], [[1, -2, 3, 9], [1, 2, 3, 9], [1, 1, 1, 9]]])
    found = lambda_facts(
        (0.0, 0.5, 1.0), {"validation": validation, "test": test}, prefs, tied, "a", ["b", "c"], n_resamples=5
    )
    assert found["validation"] == [0.25, 0.75, 0.75]
    assert (found["chosen"]["lambda"], found["chosen"]["index"], found["chosen"]["n_tied"]) == (0.5, 1, 2)
    assert (found["chosen"]["n_pairs"], found["chosen"]["n_groups"]) == (2, 2)
    assert [cell["value"] for cell in found["test"]["target"]] == [0.25, 0.875, 1.0]
    assert [cell["value"] for cell in found["change"]["target"]] == [0.0, 0.625, 0.75]
    # the labelled tie of c is left out
    assert [cell["value"] for cell in found["test"]["others"]] == [1.0, 0.5, 1.0]
    assert (found["n_target"], found["n_others"]) == (2, 1)
    assert found["domains"] == {"a": [0.25, 0.875, 1.0], "b": [1.0, 0.5, 1.0]}
    # changes of the two seeds: 0.75 and 0.5
    assert found["seed_sd"] == pytest.approx(np.std([0.75, 0.5], ddof=1))
    np.testing.assert_allclose(found["margins"]["target"][0][2], np.median([-1, -2, 1, -2]))


@pytest.mark.parametrize(
    "targets, change, message",
    [
        ({}, {}, "at least one target"),
        ({"maths": "bta"}, {}, "Did you mean 'beta'"),
        ({"maths": "beta", "sums": "beta"}, {}, "a domain of its own"),
        ({"x": "alpha", "y": "beta", "z": "gamma"}, {}, "a domain that is no target"),
        ({"maths": "beta"}, {"validation": 0}, "needs validation pairs of the domain 'beta'"),
        ({"maths": "beta"}, {"test": 0}, "needs test pairs of the domain 'beta'"),
    ],
)
def test_refusals(data, targets, change, message):
    parts = {name: getattr(data, name)[:0] for name in change}
    with pytest.raises(InvalidInputError, match=message):
        HeadMergeStudy(replace(data, **parts), targets, **SMALL)
