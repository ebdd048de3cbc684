"""embedrm fit: ensembles and calibration from the command line, nested, saved, evaluated and scored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embedrm import CalibratedRewardModel, LinearHead, RewardPipeline, RoutedRewardModel, encode, read_preferences
from embedrm.composites.ensemble import EnsembleRewardModel

FIT = "fit --encoder hashing --no-store"


def train(pairs: str, split: str = "train"):
    return encode(read_preferences(pairs).split(split).compact(), "hashing", store=False)


@pytest.fixture
def three_splits(pairs_file: str) -> str:
    """The pairs with a third of the training split as validation split."""
    rows = [json.loads(line) for line in Path(pairs_file).read_text().splitlines()]
    for i, row in enumerate(rows):
        row["split"] = "validation" if row["split"] == "train" and i % 3 == 0 else row["split"]
    Path("three.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "three.jsonl"


def test_an_ensemble_is_the_one_of_python(cli, pairs_file: str) -> None:
    options = "--members 3 --set l2=0.1 --set ensemble.aggregate=lcb --set ensemble.k=1 --set ensemble.random_state=4"
    facts = cli(f"{FIT} {pairs_file} -o m {options} --json").json()
    prefs = train(pairs_file)
    expected = EnsembleRewardModel(LinearHead(l2=0.1), 3, aggregate="lcb", k=1, random_state=4).fit(prefs)
    model = RewardPipeline.load("m", store=False).model
    np.testing.assert_array_equal(model.predict(prefs), expected.predict(prefs))
    assert facts["fitted"]["standardised_on_"] == "held-out responses"
    assert facts["training_accuracy"] == expected.score(prefs)


def test_seeds_are_a_kind_of_heads_that_draw(cli, pairs_file: str) -> None:
    options = "--head mlp --members 2 --set hidden=[4] --set max_epochs=2 --set ensemble.kind=seeds"
    assert cli(f"{FIT} {pairs_file} -o m {options}").code == 0
    model = RewardPipeline.load("m", store=False).model
    assert model.kind == "seeds"
    assert len({member.random_state for member in model.members_}) == 2


@pytest.mark.parametrize("method", ["platt", "temperature", "isotonic"])
def test_a_calibration_is_the_one_of_python_and_is_evaluated(cli, pairs_file: str, method: str) -> None:
    outcome = cli(f"{FIT} {pairs_file} -o m --calibrate {method} --set l2=0.1 --set calibrated.cv=3")
    assert outcome.code == 0, outcome.err
    prefs = train(pairs_file)
    expected = CalibratedRewardModel(LinearHead(l2=0.1), method, cv=3).fit(prefs)
    model = RewardPipeline.load("m", store=False).model
    np.testing.assert_array_equal(model.predict_proba(prefs), expected.predict_proba(prefs))
    text = cli(f"evaluate m {pairs_file} --no-store --n-resamples 20").out
    assert "Calibration" in text
    assert "ECE" in text
    assert "Brier" in text
    scored = cli('score m --no-store --prompt "Where do tea leaves go?" --response "Into the kettle, so."')
    assert scored.code == 0


def test_a_calibration_on_a_split_reads_it_beside_the_training_pairs(cli, three_splits: str) -> None:
    outcome = cli(f"{FIT} {three_splits} -o m --calibrate platt --set l2=0.1 --set calibrated.split=validation --json")
    facts = outcome.json()
    prefs, held = train(three_splits), train(three_splits, "validation")
    assert (facts["pairs"], facts["calibration_pairs"]) == (len(prefs), len(held)) == (16, 8)
    expected = CalibratedRewardModel(LinearHead(l2=0.1)).fit_apart(prefs, held)
    pipeline = RewardPipeline.load("m", store=False)
    np.testing.assert_array_equal(pipeline.model.predict(held), expected.predict(held))
    assert facts["training_accuracy"] == expected.score(prefs)
    assert pipeline.training["n_pairs"] == 16
    assert pipeline.training["calibration"]["split"] == "validation"
    assert pipeline.training["calibration"]["n_pairs"] == 8
    shown = cli(f"{FIT} {three_splits} -o n --calibrate platt --set calibrated.split=validation").out
    assert "held out  8 pairs, which the model is calibrated on" in shown


def test_a_calibration_on_a_split_of_vectors(cli, vectors) -> None:
    lines = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    lines = [{**line, "split": "validation" if i % 4 == 0 else "train"} for i, line in enumerate(lines)]
    Path("s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = "--vectors a.npy --pairs s.jsonl --calibrate temperature --set calibrated.split=validation"
    assert cli(f"fit {options} -o m --json").json()["calibration_pairs"] == 10
    assert cli("evaluate m --vectors a.npy --pairs s.jsonl --split train --n-resamples 20").code == 0


def test_experts_are_ensembles_and_the_calibration_is_around_all(cli, pairs_file: str) -> None:
    options = "--routed --members 2 --calibrate platt --set calibrated.cv=2 --set routed.cv=2 --set router.l2=0.1"
    outcome = cli(f"{FIT} {pairs_file} -o m {options} --head linear")
    assert outcome.code == 0, outcome.err
    model = RewardPipeline.load("m", store=False).model
    assert isinstance(model, CalibratedRewardModel)
    assert isinstance(model.model_, RoutedRewardModel)
    assert [type(expert) for expert in model.model_.experts_] == [EnsembleRewardModel] * 2
    assert type(model.model_.experts_[0].members_[0]) is LinearHead


def test_a_bias_risk_is_told_through_every_layer(cli, pairs_file: str) -> None:
    for options in ("--members 2", "--calibrate platt", "--members 2 --calibrate platt"):
        name = options.replace(" ", "")
        facts = cli(f"{FIT} {pairs_file} -o {name} {options} --set featurizer.covariates=characters --json").json()
        assert facts["bias_risk"].startswith("bias risk: ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--members 1", "--members 1 is no ensemble; give 2 or more, or leave it out"),
        ("--members 0", "--members"),
        ("--members 3 --set ensemble.kind=seeds", "needs a member with a random_state; LinearHead has none"),
        ("--members 3 --set ensemble.kind=seed", "unknown kind of ensemble 'seed'. Did you mean 'seeds'?"),
        ("--members 3 --set ensemble.aggregate=lcv", "unknown aggregate 'lcv'. Did you mean 'lcb'?"),
        ("--members 3 --set ensemble.k=-1", "needs k to be a number >= 0"),
        ("--members 3 --set ensemble.n_members=4", "use --members"),
        ("--members 3 --set ensemble.member=linear", "use --head"),
        ("--members 3 --set ensemble.knd=seeds", "unknown parameter of the ensemble 'knd'. Did you mean 'kind'?"),
        ("--members 3 --head length", "head 'length' learns nothing, so its members would be equal"),
        ("--members 3 --head random", "head 'random' learns nothing, so its members would be equal"),
        ("--members 3 --head gbdt --set ensemble.kind=features", "GBDTHead cannot leave features out"),
        ("--set ensemble.aggregate=lcb", "--set gives 'ensemble.aggregate' to an ensemble, but there is one member"),
        ("--calibrate plat", "Did you mean 'platt'?"),
        ("--calibrate platt --set calibrated.cv=1", "needs cv to be a whole number >= 2, got 1"),
        ("--calibrate platt --set calibrated.method=platt", "use --calibrate"),
        ("--calibrate platt --set calibrated.model=linear", "use --head"),
        ("--calibrate platt --set calibrated.split=train", "is the split that the model is fitted on"),
        (
            "--calibrate platt --set calibrated.split=test --split all",
            "contradict each other; name the split to fit on",
        ),
        ("--calibrate platt --set calibrated.split=validation", "no prompt is in 'validation'"),
        ("--set calibrated.split=validation", "to a calibration, but there is none; add --calibrate platt"),
    ],
)
def test_senseless_combinations_are_one_line_and_leave_nothing(cli, pairs_file: str, options: str, said: str) -> None:
    outcome = cli(*FIT.split(), pairs_file, "-o", "m", *options.split())
    assert outcome.code == 2, outcome.err
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    assert not Path("m").exists()


def test_what_cannot_be_is_refused_before_anything_is_read(cli) -> None:
    outcome = cli("fit no-such-file.jsonl -o m --members 3 --set ensemble.kind=seeds")
    assert "needs a member with a random_state" in outcome.err


class TestOnItsOwnVectors:
    def test_probabilities_are_the_models_own(self, pairs_file: str) -> None:
        from embedrm.cli._texts import OnItsOwnVectors
        from embedrm.reporting.evaluation import evaluate

        prefs = train(pairs_file)
        model = CalibratedRewardModel(LinearHead(), "isotonic").fit(prefs)
        moved = OnItsOwnVectors(model, prefs)
        np.testing.assert_array_equal(moved.predict_proba(prefs), model.predict_proba(prefs))
        assert not hasattr(OnItsOwnVectors(LinearHead().fit(prefs), prefs), "predict_proba")
        rows = [
            next(t for s in report.to_dict()["sections"] for t in s["tables"] if t["name"] == "calibration")["rows"][0]
            for report in (evaluate({"m": m}, prefs, n_resamples=20) for m in (model, moved))
        ]
        assert rows[0] == rows[1]

    def test_evaluate_shows_them_beside_a_model_of_another_encoder(self, cli, pairs_file: str) -> None:
        assert cli(f"{FIT} {pairs_file} -o plain").code == 0
        assert cli(f"{FIT} {pairs_file} -o iso --encoder-option dim=64 --calibrate isotonic").code == 0
        out = cli(f"evaluate plain {pairs_file} --also iso --no-store --n-resamples 20").out
        section = out[out.index("Calibration") :]
        assert "iso" in section[: section.index("Scale of the rewards")]
