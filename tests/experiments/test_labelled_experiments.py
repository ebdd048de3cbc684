"""Experiments that draw their training pairs and have them annotated: what is read, what is drawn, what counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedrm import EmbeddedPreferences, EmbeddedResponses, annotate, draw_pairs
from embedrm.errors import DataError, InvalidInputError
from embedrm.experiments.experiment import Experiment
from embedrm.experiments.experiment_run import run_experiment
from embedrm.experiments.running import Workbench
from embedrm.experiments.sweep import Sweep
from embedrm.numerics.annotation import KEY, Annotator
from embedrm.numerics.annotator_pool import AnnotatorPool

HEAD = {"name": "linear", "l2": 0.01}


@pytest.fixture(scope="module")
def lists() -> EmbeddedPreferences:
    """Ten responses to each of 120 prompts in three splits, gold linear in the vectors."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1200, 4)).astype(np.float32)
    gold = x @ np.array([2.0, -1.0, 1.0, 0.5])
    responses = EmbeddedResponses(
        {"response:final": x},
        np.repeat(np.arange(120), 10),
        gold=gold,
        domain=np.where(np.arange(120) % 2, "sea", "tea"),
        split=np.array(["train", "train", "validation", "test"])[np.arange(120) % 4],
    )
    return draw_pairs(responses, "same-prompt", 2400, random_state=9)


def trained(lists: EmbeddedPreferences, seed: int = 0, **training: object) -> EmbeddedPreferences:
    config = Experiment({"training": training}).config
    return Workbench(preferences=lists).prepared(config).draw(seed)


def wrong(prefs: EmbeddedPreferences) -> np.ndarray:
    gold = prefs.responses.gold
    return gold[prefs.pairs[:, 0]] < gold[prefs.pairs[:, 1]]


class TestDraws:
    @pytest.mark.parametrize("pairing", ["same-prompt", "similar", "diversified", "cross-prompt"])
    def test_pairs_are_those_of_the_scheme_in_the_training_split(
        self, lists: EmbeddedPreferences, pairing: str
    ) -> None:
        drawn = trained(lists, seed=3, pairing=pairing, n_annotations=40)
        own = lists[lists.responses.split[lists.prompt_rows] == "train"]
        assert np.array_equal(drawn.pairs, draw_pairs(own, pairing, 40, random_state=3).pairs)
        assert set(drawn.responses.split[drawn.responses.prompt_of[drawn.pairs]].ravel()) == {"train"}
        assert len(trained(lists, pairing=pairing)) == 60

    def test_labels_are_those_of_the_annotator(self, lists: EmbeddedPreferences) -> None:
        noisy = trained(
            lists, seed=5, pairing="cross-prompt", n_annotations=500, annotation={"beta": 1.0, "scale": "global-std"}
        )
        own = lists[lists.responses.split[lists.prompt_rows] == "train"]
        clean = draw_pairs(own, "cross-prompt", 500, random_state=5)
        assert np.array_equal(
            noisy.pairs, annotate(clean, Annotator(beta=1.0, scale="global-std"), random_state=5).pairs
        )
        assert 0.2 < wrong(noisy).mean() < 0.35
        assert noisy.responses.info[KEY]["scale"] == pytest.approx(lists.responses.gold.std())

    def test_the_datas_own_pairs_can_be_counted_off_and_annotated(self, lists: EmbeddedPreferences) -> None:
        every = {tuple(pair) for pair in trained(lists).pairs.tolist()}
        few, more = (trained(lists, n_annotations=n).pairs.tolist() for n in (30, 90))
        assert more[:30] == few
        assert {tuple(pair) for pair in more} < every
        noisy = trained(lists, annotation={"flip_rate": 0.3})
        assert len(noisy) == len(every)
        assert wrong(noisy).mean() == pytest.approx(0.3, abs=0.06)

    def test_seeds_draw_anew_and_labels_of_one_seed_stay(self, lists: EmbeddedPreferences) -> None:
        one, same, other = (
            trained(lists, seed=s, pairing="same-prompt", n_annotations=50, annotation={"beta": 1.0}) for s in (0, 0, 1)
        )
        assert np.array_equal(one.pairs, same.pairs)
        assert not np.array_equal(one.pairs, other.pairs)

    def test_prompts_can_be_fewer_too(self, lists: EmbeddedPreferences) -> None:
        drawn = trained(lists, size=12, pairing="cross-prompt", n_annotations=60)
        assert len(np.unique(drawn.responses.prompt_of[drawn.active])) == 12
        assert len(drawn) == 60

    def test_a_pool_votes(self, lists: EmbeddedPreferences) -> None:
        pool = {"annotators": [{"beta": 3.0}, {"flip_rate": 0.3}], "shares": [1, 3], "votes": 3, "by": "prompt"}
        noisy = trained(lists, annotation=pool)
        assert set(np.round(noisy.outcome, 3)) == {0.667, 1.0}
        section = Experiment({"training": {"annotation": pool}}).config.training
        assert section.annotator == AnnotatorPool(
            (Annotator(beta=3.0), Annotator(flip_rate=0.3)), [1.0, 3.0], "prompt", 3
        )

    def test_too_many_are_refused(self, lists: EmbeddedPreferences) -> None:
        with pytest.raises(InvalidInputError, match="beyond the 1,200 training pairs"):
            trained(lists, n_annotations=5000)
        with pytest.raises(InvalidInputError, match="similar' has 60 different ones"):
            trained(lists, pairing="similar", n_annotations=61)


class TestReading:
    @pytest.mark.parametrize(
        ("text", "line", "message"),
        [
            ("training:\n  pairing: cross-promt", 2, "Did you mean 'cross-prompt'"),
            ("training:\n  pairing: {name: cross-prompt, same: true}", 2, "parameter of the pairing scheme"),
            ("training:\n  pairing:\n    name: cross-prompt\n    same_domain: 3", 4, "true or false"),
            ("training:\n  pairing: {same_domain: true}", 2, "named by its key 'name'"),
            ("training:\n  pairing: similar\n  by: pairs\n  size: 3", 3, "which 'pairing' replaces"),
            ("training:\n  n_annotations: 0", 2, "at least 1"),
            ("training:\n  n_annotation: 5", 2, "Did you mean 'n_annotations'"),
            ("training:\n  annotation: {betta: 1}", 2, "Did you mean 'beta'"),
            ("training:\n  annotation:\n    beta: -1", 2, "beta must be"),
            ("training:\n  annotation:\n    beta: x", 3, "a number"),
            ("training:\n  annotation:\n    scale: std", 2, "global-std"),
            ("training:\n  annotation: {annotators: [{bet: 1}]}", 2, "Did you mean 'beta'"),
            ("training:\n  annotation: {annotators: 3}", 2, "list of mappings"),
            ("training:\n  annotation: {annotators: [{}], vote: 3}", 2, "Did you mean 'votes'"),
            ("training:\n  annotation: {annotators: []}", 2, "at least one"),
        ],
    )
    def test_what_is_wrong_is_told_with_its_line(self, tmp_path: Path, text: str, line: int, message: str) -> None:
        path = tmp_path / "study.yaml"
        path.write_text(text + "\n", encoding="utf-8")
        with pytest.raises(DataError, match=message) as caught:
            Experiment.from_file(path)
        assert caught.value.line == line

    def test_settings_reach_inside_and_are_written(self) -> None:
        one = Experiment({"training": {"pairing": "cross-prompt"}}).with_settings(
            {"training.pairing.same_domain": True, "training.annotation.beta": 2, "training.n_annotations": 50}
        )
        training = one.to_dict()["training"]
        assert training["pairing"] == {"name": "cross-prompt", "same_domain": True}
        assert training["annotation"] == {"beta": 2}
        assert Experiment(one.to_dict()) == one


class TestFingerprint:
    def test_what_draws_makes_the_seed_matter(self, lists: EmbeddedPreferences) -> None:
        bench = Workbench(preferences=lists)
        for training, matters in (
            ({}, False),
            ({"annotation": {}}, False),
            ({"annotation": {"beta": 1.0}}, True),
            ({"n_annotations": 20}, True),
            ({"pairing": "similar"}, True),
        ):
            one = Experiment({"head": HEAD, "training": training})
            assert one.seed_matters() is matters
            assert (one.fingerprint(bench, 0) != one.fingerprint(bench, 1)) is matters

    def test_every_part_counts_and_defaults_do_not(self, lists: EmbeddedPreferences) -> None:
        bench = Workbench(preferences=lists)

        def digest(**training: object) -> str:
            return Experiment({"head": HEAD, "training": training}).fingerprint(bench)

        alike = [
            digest(pairing="cross-prompt", annotation={"beta": 1}),
            digest(
                pairing={"name": "cross-prompt", "same_domain": False},
                annotation={"beta": 1.0, "scale": 1, "flip_rate": 0.0},
            ),
        ]
        assert len(set(alike)) == 1
        others = [
            digest(pairing="same-prompt", annotation={"beta": 1}),
            digest(pairing={"name": "cross-prompt", "same_domain": True}, annotation={"beta": 1}),
            digest(pairing="cross-prompt", annotation={"beta": 2}),
            digest(pairing="cross-prompt", annotation={"beta": 1, "scale": "global-std"}),
            digest(pairing="cross-prompt", annotation={"beta": 1, "flip_rate": 0.1}),
            digest(pairing="cross-prompt", annotation={"annotators": [{"beta": 1}]}),
            digest(pairing="cross-prompt", n_annotations=30, annotation={"beta": 1}),
            digest(pairing="cross-prompt"),
            digest(),
        ]
        assert len({*alike, *others}) == 1 + len(others)


def test_a_sweep_varies_them_and_noise_costs_accuracy(lists: EmbeddedPreferences, tmp_path: Path) -> None:
    grid = {
        "training.pairing": ["same-prompt", "cross-prompt"],
        "training.annotation.beta": [0.3, 30.0],
        "training.n_annotations": [60, 400],
    }
    sweep = Sweep({"head": HEAD}, {"grid": grid}, seeds=3)
    outcome = sweep.run(tmp_path / "one", preferences=lists)
    rows = list(outcome.records.values())
    assert len(rows) == 24
    by_beta: dict[float, list[float]] = {}
    for row in rows:
        assert row["n_train"] == row["settings"]["training.n_annotations"]
        by_beta.setdefault(row["settings"]["training.annotation.beta"], []).append(row["metrics"]["test"]["micro"])
    assert np.mean(by_beta[30.0]) > np.mean(by_beta[0.3]) + 0.02
    assert "training.pairing" in str(sweep.report(outcome))
    again = sweep.run(tmp_path / "one", preferences=lists)
    assert again.computed == 0


def test_a_report_is_made_of_drawn_pairs(lists: EmbeddedPreferences) -> None:
    experiment = Experiment({"head": HEAD, "training": {"pairing": "similar", "annotation": {"beta": 5.0}}, "seeds": 2})
    report = run_experiment(experiment, preferences=lists)
    assert "training.annotation.beta" in str(report)
