"""The study of over-optimisation: models are those it says, and Goodhart's curve is seen where it was planted alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.base import clone

from embedrm import Annotator, EmbeddedPreferences, EnsembleRewardModel, LinearHead, Report, annotate
from embedrm.datasets.candidate_arrays import map_candidates
from embedrm.datasets.teachers import Teacher, write_candidates
from embedrm.errors import InvalidInputError
from embedrm.experiments.over_optimisation import OverOptimisationStudy
from embedrm.heads.mlp import MLPHead
from embedrm.reporting import over_optimisation as parts
from embedrm.reporting.plots import draw

NOISY = "30 % turned round"


def right_pairs(responses) -> EmbeddedPreferences:
    """The first two responses of every prompt, the better one chosen."""
    first = np.unique(responses.prompt_of, return_index=True)[1]
    pairs = np.stack([first, first + 1], axis=1)
    wrong = responses.gold[pairs[:, 0]] < responses.gold[pairs[:, 1]]
    pairs[wrong] = pairs[wrong, ::-1]
    return EmbeddedPreferences(responses, pairs)


def data(teacher: Teacher, n_train: int, n_test: int, k: int):
    train = map_candidates(*teacher.arrays("train", n_train, 2), split="train")
    return right_pairs(train), map_candidates(*teacher.arrays("test", n_test, k), split="test")


@pytest.fixture(scope="module")
def small():
    return data(Teacher(5), 40, 14, 6)


@pytest.fixture(scope="module")
def study(small):
    member = MLPHead(hidden=(4,), max_epochs=2)
    return OverOptimisationStudy(*small, member=member, n_members=3, noise=(0, 0.3), n_draws=2, n_resamples=60)


class TestModels:
    def test_rows_are_of_every_level_and_model(self, study):
        facts = study.facts()
        assert facts["levels"] == ["0 % turned round", NOISY]
        assert facts["models"] == ["single", "mean", "WCO", "UWO"]
        assert [(r["level"], r["model"]) for r in facts["rows"]] == [
            (a, b) for a in facts["levels"] for b in facts["models"]
        ]
        assert (facts["n_draws"], facts["n_pairs"], facts["ns"]) == (2, 40, [1, 2, 3, 4, 5, 6])
        assert facts["noise"][NOISY] == Annotator(flip_rate=0.3).to_info()

    @pytest.mark.parametrize("level, rate", [("0 % turned round", 0.0), (NOISY, 0.3)])
    def test_they_are_the_models_that_it_says(self, small, study, level, rate):
        train, candidates = small
        noisy = annotate(train, Annotator(flip_rate=rate), random_state=0)
        np.testing.assert_array_equal(
            study.rewards[level, "single"], clone(study.member).fit(noisy).predict(candidates)
        )
        for name, aggregate in (("mean", "mean"), ("WCO", "min"), ("UWO", "uwo")):
            ensemble = EnsembleRewardModel(
                study.member, 3, "seeds", aggregate=aggregate, k=1.0, calibration_fraction=None, random_state=0
            )
            np.testing.assert_array_equal(study.rewards[level, name], ensemble.fit(noisy).predict(candidates))

    def test_wrong_labels_make_other_models(self, study):
        assert not np.array_equal(study.rewards["0 % turned round", "single"], study.rewards[NOISY, "single"])

    def test_the_same_seed_gives_the_same_bits(self, small, study):
        again = OverOptimisationStudy(
            *small, member=study.member, n_members=3, noise=(0, 0.3), n_draws=2, n_resamples=60
        )
        assert again.facts() == study.facts()
        other = OverOptimisationStudy(
            *small, member=study.member, n_members=3, noise=(0, 0.3), n_draws=2, n_resamples=60, random_state=1
        )
        assert other.facts()["rows"] != study.facts()["rows"]

    def test_a_member_without_a_seed_is_bootstrapped(self, small):
        study = OverOptimisationStudy(*small, member=LinearHead(), n_members=2, noise=[0.2], n_draws=1, n_resamples=10)
        assert study.facts()["kind"] == "bootstrap"
        assert study.facts()["changes"] == []
        np.testing.assert_array_equal(
            study.rewards["20 % turned round", "single"],
            LinearHead().fit(annotate(small[0], Annotator(flip_rate=0.2))).predict(small[1]),
        )

    def test_any_model_can_be_the_reference(self, study):
        single, mean = (study.difference(NOISY, "WCO", reference) for reference in ("single", "mean"))
        gap = study.difference(NOISY, "mean")
        for a, b, c in zip(single["gold"], mean["gold"], gap["gold"]):
            assert a["value"] == pytest.approx(b["value"] + c["value"], abs=1e-12)
        assert study.facts("mean")["rows"] == study.facts()["rows"]
        with pytest.raises(InvalidInputError, match="reference of over-optimisation"):
            study.facts("median")

    def test_draws_are_those_of_the_seeds_that_follow(self, small):
        options = {"member": LinearHead(), "n_members": 2, "noise": [0.3], "n_resamples": 5}
        one, other, both = (
            OverOptimisationStudy(*small, **options, n_draws=n_draws, random_state=seed)
            for n_draws, seed in ((1, 3), (1, 4), (2, 3))
        )
        for model in one.facts()["models"]:
            for key in ("gold", "reward", "quantile"):
                values = [[cell["value"] for cell in study.row(NOISY, model)[key]] for study in (one, other, both)]
                assert values[0] != values[1]
                np.testing.assert_allclose(np.mean(values[:2], axis=0), values[2], atol=1e-12)

    def test_annotators_that_confuse_what_is_close(self, small):
        noise = (Annotator(beta=2.0), Annotator(flip_rate=0.1, beta=2.0))
        study = OverOptimisationStudy(*small, member=LinearHead(), n_members=2, noise=noise, n_draws=1, n_resamples=10)
        assert study.facts()["levels"] == ["β = 2", "10 % turned round, β = 2"]

    def test_mapped_arrays_are_arrays(self, tmp_path, study):
        member = study.member
        teacher = Teacher(5)
        paths = [
            write_candidates(teacher, tmp_path, "t", split, n, k) for split, n, k in (("train", 40, 2), ("test", 14, 6))
        ]
        mapped = [map_candidates(*path) for path in paths]
        again = OverOptimisationStudy(
            right_pairs(mapped[0]), mapped[1], member=member, n_members=3, noise=(0, 0.3), n_draws=2, n_resamples=60
        )
        assert again.facts() == study.facts()


class TestPooled:
    def test_draws_of_several_data_are_one_study(self):
        member = MLPHead(hidden=(4,), max_epochs=2)
        options = {"member": member, "n_members": 2, "noise": (0, 0.3), "n_draws": 1, "n_resamples": 30}
        parts = [
            OverOptimisationStudy(*data(Teacher(5, random_state=seed), 40, 14, 6), random_state=seed, **options)
            for seed in (0, 1)
        ]
        both = OverOptimisationStudy.pooled([part.without_vectors() for part in parts])
        facts = both.facts()
        assert (facts["n_draws"], facts["n_settings"], facts["n_prompts"]) == (2, 2, 14)
        for model in facts["models"]:
            for key in ("gold", "reward", "quantile", "gain_sd"):
                values = [[cell["value"] for cell in one.row(NOISY, model)[key]] for one in (*parts, both)]
                assert values[0] != values[1]
                np.testing.assert_allclose(np.mean(values[:2], axis=0), values[2], atol=1e-12)
        for key in ("random", "oracle"):
            found = [np.atleast_1d(one.facts()[key]) for one in (*parts, both)]
            a, b, c = ([cell["value"] for cell in cells] for cells in found)
            np.testing.assert_allclose(np.mean([a, b], axis=0), c)
        sds = [part.facts()["gold"]["within_sd"] for part in parts]
        assert facts["gold"]["within_sd"] == pytest.approx(np.mean(sds))
        report = both.report()
        assert report.provenance["seeds"] == [0, 1]
        assert "in each of 2 sets of vectors and gold, with labels and seeds of their own" in report.to_json()

    def test_nothing_but_vectors_is_left_out(self, study):
        small = study.without_vectors()
        assert small.facts() == study.facts()
        assert not small.judge.responses.views
        assert study.judge.responses.views

    def test_studies_that_differ_are_refused(self, small, study):
        other = OverOptimisationStudy(
            *small, member=study.member, n_members=3, noise=(0, 0.2), n_draws=2, n_resamples=60
        )
        with pytest.raises(InvalidInputError, match="pooled needs studies of the same levels"):
            OverOptimisationStudy.pooled([study, other])


class TestGoodhart:
    def test_it_is_seen_where_it_was_planted(self):
        found = {}
        for tail in (4, None):
            train, candidates = data(Teacher(64, "peaked", tail=tail), 500, 100, 300)
            found[tail] = OverOptimisationStudy(
                train, candidates, member=LinearHead(), noise=[0.0, 0.25], n_draws=6, n_resamples=200
            )
        level = "0 % turned round"
        heavy, normal = (found[tail].row(level, "single") for tail in (4, None))
        # outliers: the reward goes on rising, gold falls
        assert heavy["reward"][-1]["low"] > 1.3 * normal["reward"][-1]["high"]
        assert heavy["peak"] < 300
        assert heavy["lost"]["low"] > 0
        # without them, nothing is lost
        assert normal["peak"] == 300
        assert normal["lost"]["value"] == 0
        for model in ("WCO", "UWO"):
            assert found[4].difference(level, model)["lost"]["high"] < 0
            for level_ in found[4].facts()["levels"]:
                assert found[4].difference(level_, model)["gold"][-1]["low"] > 0
                assert found[None].difference(level_, model)["gold"][-1]["value"] < 0.05

    def test_caution_costs_where_gold_goes_on_rising(self):
        train, candidates = data(Teacher(64, "linear", tail=4), 500, 150, 300)
        study = OverOptimisationStudy(train, candidates, member=LinearHead(), noise=[0.25], n_draws=6, n_resamples=200)
        assert study.row("25 % turned round", "single")["lost"]["low"] <= 0
        for model in ("WCO", "UWO"):
            assert study.difference("25 % turned round", model, "mean")["gold"][-1]["high"] < 0


class TestReport:
    def test_it_says_what_the_facts_say(self, study):
        report = study.report()
        assert Report.from_dict(json.loads(report.to_json())).to_dict() == report.to_dict()
        table = report.tables["over-optimisation"]
        row = study.row(NOISY, "WCO")
        (shown,) = [r for r in table.rows if (r["level"], r["model"]) == (NOISY, "WCO")]
        assert shown["reward"] == row["reward"][-1]
        assert shown["gain"] == row["gain_sd"][-1]
        assert shown["lost"] == row["lost"]
        assert shown["quantile"] == row["quantile"][-1]
        gold = report.tables["over-optimisation-gold"]
        assert gold.rows[-1]["n6"] == study.facts()["oracle"][-1]
        differences = report.tables["over-optimisation-differences"].rows
        assert [r["level"] for r in differences[:3]] == ["0 % turned round", NOISY, f"{NOISY}, less 0 % turned round"]
        assert differences[2]["gold"]["value"] == pytest.approx(
            differences[1]["gold"]["value"] - differences[0]["gold"]["value"]
        )
        assert "3 members of different seeds" in report.sections[0].text[-1]
        assert report.provenance["seeds"] == [0, 1]
        assert len(study.findings()) == 2 + 3

    def test_figures_are_of_the_reference_and_all_gold(self, study):
        facts = study.facts()
        figure = parts.goodhart_figure(facts, "0 % turned round")
        series = figure.data["series"]
        assert [s["label"] for s in series] == ["single: its reward", *(f"{m}: gold" for m in facts["models"])]
        assert series[0]["y"] == [cell["value"] for cell in study.row("0 % turned round", "single")["reward"]]
        assert series[3]["y"] == [cell["value"] for cell in study.row("0 % turned round", "WCO")["gain_sd"]]
        over = parts.goodhart_figure(facts, over="kl", name="kl")
        assert over.data["series"][0]["x"] == facts["kl"]
        assert over.title.endswith(NOISY)
        for one in (*study.report().figures.values(), over):
            draw(one)

    def test_two_studies_fit_in_one_report(self, study):
        report = Report("test", "Two")
        study.add_sections(report, "one", "One")
        study.add_sections(report, "two", "Two", "Words.")
        assert report.sections[1].text[0] == "Words."

    def test_unknown_rows_are_named(self, study):
        with pytest.raises(InvalidInputError, match="no row of '5 %' and 'mean'; it has 0 % turned round, single;"):
            study.row("5 %", "mean")
        with pytest.raises(InvalidInputError, match="level of noise"):
            parts.goodhart_figure(study.facts(), "5 %")
        with pytest.raises(InvalidInputError, match="axis of over-optimisation"):
            parts.goodhart_figure(study.facts(), over="k")

    def test_gold_that_never_varies_has_tables_and_no_figures(self, small):
        train, candidates = small
        flat = map_candidates(candidates.views["response:final"].reshape(14, 6, 5), np.ones((14, 6)))
        study = OverOptimisationStudy(
            train, flat, member=LinearHead(), n_members=2, noise=[0.1], n_draws=1, n_resamples=9
        )
        report = study.report()
        assert report.figures == {}
        report.text()


class TestRefusals:
    def test_prompts_that_were_trained_on(self, small):
        train, _ = small
        options = {"member": LinearHead(), "n_members": 2, "noise": [0.1], "n_draws": 1, "n_resamples": 9}
        with pytest.raises(
            InvalidInputError, match=r"20 of 40 prompts with candidates are in groups that are trained on"
        ):
            OverOptimisationStudy(train[:20], train.responses, **options)
        rest = np.arange(40) >= 20
        study = OverOptimisationStudy(train[:20], train.responses, prompts=rest, **options)
        assert study.facts()["n_prompts"] == 20

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"noise": []}, "at least one level"),
            ({"noise": [0.1, 0.1]}, "two levels of noise are '10 % turned round'"),
            ({"noise": [0.5]}, r"flip_rate must lie in \[0, 0.5\)"),
            ({"n_draws": 0}, "n_draws must be|n_draws to be a whole number from 1"),
            ({"n_members": 1}, "n_members"),
            ({"kind": "seed"}, "kind of ensemble"),
            ({"estimator": "x"}, "estimator"),
            ({"k": -1}, "k to be a number"),
        ],
    )
    def test_bad_parameters(self, small, options, message):
        with pytest.raises(InvalidInputError, match=message):
            OverOptimisationStudy(*small, **{"member": LinearHead(), **options})

    def test_candidates_are_responses(self, small):
        with pytest.raises(InvalidInputError, match="EmbeddedResponses, got EmbeddedPreferences"):
            OverOptimisationStudy(small[0], small[0])
