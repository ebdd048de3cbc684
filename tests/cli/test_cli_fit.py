"""embedrm fit: what is fitted is what Python fits; what is saved loads; what is wrong is said in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embedrm import Featurizer, LinearHead, RewardPipeline, encode, read_preferences
from embedrm.featurizers import PCAProjection
from embedrm.objectives.bt_smoothed import BTSmoothed

FIT = "fit --encoder hashing --no-store"


def test_the_saved_pipeline_is_the_one_that_python_fits(cli, pairs_file: str) -> None:
    facts = cli(f"{FIT} {pairs_file} -o m --set l2=0.3 --json").json()
    data = read_preferences(pairs_file).split("train").compact()
    preferences = encode(data, "hashing", store=False)
    head = LinearHead(l2=0.3).fit(preferences)
    pipeline = RewardPipeline.load("m", store=False)
    np.testing.assert_array_equal(pipeline.model.coef_, head.coef_)
    assert facts["training_accuracy"] == head.score(preferences)
    assert pipeline.training == {
        "data": {"name": data.name, "fingerprint": data.fingerprint()},
        "n_pairs": len(preferences),
        "n_ties": 0,
        "domains": ["sea", "tea"],
    }
    assert facts["views"] == ["response:final"]
    assert facts["fitted"]["l2_"] == 0.3


def test_the_text_says_what_was_fitted_and_where_it_is(cli, pairs_file: str) -> None:
    outcome = cli(f"{FIT} {pairs_file} -o runs/m --routed --head linear --set routed.calibrate=false")
    assert outcome.code == 0
    assert "saved in  runs/m" in outcome.out
    assert "RoutedRewardModel(calibrate=False" in outcome.out
    assert "domains: sea, tea" in outcome.out
    assert "24 of 48 pairs are in the split 'train'" in outcome.err
    assert cli(f"{FIT} {pairs_file} -o runs/q --quiet").err == ""


def test_data_without_splits_are_used_whole_and_that_is_said(cli, pairs_file: str) -> None:
    from embedrm import read_preferences as read

    rows = [json.loads(line) for line in Path(pairs_file).read_text().splitlines()]
    Path("n.jsonl").write_text("".join(json.dumps({k: v for k, v in r.items() if k != "split"}) + "\n" for r in rows))
    outcome = cli(f"{FIT} n.jsonl -o m --json")
    assert outcome.json()["pairs"] == len(read("n.jsonl")) == 48
    assert "the data name no splits: all 48 pairs are used" in outcome.err
    asked = cli(f"{FIT} n.jsonl -o m2 --split train")
    assert asked.code == 2
    assert cli(f"{FIT} {pairs_file} -o m3 --split all --json").json()["pairs"] == 48
    assert cli(f"{FIT} {pairs_file} -o m4 --split test --json").json()["pairs"] == 24
    assert cli(f"{FIT} {pairs_file} -o m5 --split validation").code == 2


def test_an_existing_folder_is_replaced_only_when_asked_and_only_if_it_is_a_model(cli, pairs_file: str) -> None:
    assert cli(f"{FIT} {pairs_file} -o m --set l2=0.1").code == 0
    again = cli(f"{FIT} {pairs_file} -o m --set l2=7")
    assert again.code == 2
    assert again.err == ("error: m exists already; choose another one, or give --overwrite. Nothing was done\n")
    assert RewardPipeline.load("m").model.l2 == 0.1
    assert cli(f"{FIT} {pairs_file} -o m --set l2=7 --overwrite").code == 0
    assert RewardPipeline.load("m").model.l2 == 7
    Path("precious").mkdir()
    Path("precious/thesis.tex").write_text("text")
    assert cli(f"{FIT} {pairs_file} -o precious --overwrite").code == 2
    assert Path("precious/thesis.tex").read_text() == "text"


@pytest.mark.parametrize("head", ["linear", "length", "random"])
def test_every_head_has_its_name(cli, pairs_file: str, head: str) -> None:
    from embedrm.heads import HEADS

    assert head in HEADS
    assert cli(f"{FIT} {pairs_file} -o m --head {head}").code == 0
    assert type(RewardPipeline.load("m").model) is HEADS.get(head)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--head linaer", "unknown head 'linaer'. Did you mean 'linear'?"),
        ("--router logistc", "unknown router 'logistc'. Did you mean 'logistic'?"),
        ("--routing sfot", "unknown routing 'sfot'. Did you mean 'soft'?"),
        ("--set l2_gird=[1]", "unknown parameter of head 'linear' 'l2_gird'. Did you mean 'l2_grid'?"),
        ("--set l2", "--set expects NAME=VALUE, got 'l2'"),
        ("--set =1", "--set expects NAME=VALUE"),
        ("--set l2=1 --set l2=2", "gives 'l2' twice"),
        ("--set l2=-1", "l2"),
        ("--set l2=NaN", "l2"),
        ("--set l2=inf", "l2"),
        ("--set l2=[1,2]", "must be a number or text, got '[1,2]'"),
        ("--set max_iter=many", "'max_iter' of head 'linear' must be a whole number, got 'many'"),
        ("--set max_iter=1.5", "must be a whole number"),
        ("--head random --set random_state=99999999999999999999", "must be a whole number"),
        ("--routed --head linear --set router.max_iter=-1", "max_iter"),
        ("--set l2_grid=3", "must be a JSON list, each a number"),
        ('--set l2_grid=["a"]', "must be a JSON list"),
        ("--set featurizer=x", "use --terms, --response, --prompt and --scale"),
        ("--set router.view=final", "add --routed"),
        ("--set routed.cv=3", "add --routed"),
        ("--routed --set routed.expert=x", "use --head"),
        ("--routed --set routed.calibrated=true", "Did you mean 'calibrate'?"),
        ("--routed --set routed.calibrate=3", "must be true or false"),
        ("--routed --set routed.routing=hard --routing soft", "contradict"),
        ("--routed --set router.vew=final", "Did you mean 'view'?"),
        ("--set objective=bt-smooth", "unknown objective 'bt-smooth'. Did you mean 'bt-smoothed'?"),
        ("--set objective=[1]", "'objective' of head 'linear' must be text, got '[1]'"),
        ("--set objective.flip=0.2", "unknown parameter of objective 'bradley-terry' 'flip'"),
        ("--set objective=bt-smoothed --set objective.flip_rate=half", "must be a number, got 'half'"),
        ("--head knn --set objective.flip_rate=0.1", "unknown parameter of head 'knn' 'objective.flip_rate'"),
        ("--set featurizer.project=pcs", "unknown projection 'pcs'. Did you mean 'pca'?"),
        ("--set featurizer.project.n_components=4", "which has no projection; name one with project=NAME"),
        (
            "--set featurizer.project=pca --set featurizer.project.kind=x",
            "unknown parameter of projection 'pca' 'kind'",
        ),
        ("--set featurizer.projct=pca", "unknown parameter of the featurizer 'projct'. Did you mean 'project'?"),
        ("--set featurizer.covariates=charcters", "unknown covariate"),
        ("--set featurizer.scale=none --scale rms", "--scale and --set featurizer.scale=... contradict each other"),
        ("--head length --set featurizer.scale=none", "takes no features, so leave out --set featurizer.scale"),
        ("--terms p", "cancels"),
        ("--terms r*p", "unknown term"),
        ("--terms ,", "unknown term"),
        ("--scale big", "unknown scale"),
        ("--response 7", "unknown view"),
        ("--prompt 7 --terms p*r", "unknown view"),
        ("--head length --terms r", "takes no features, so leave out --terms"),
        ("--head length --set covariate=size", "unknown covariate"),
        ("--split dev", "unknown split"),
        ("--store s", "contradict"),
        ("--pairs p.jsonl", "give texts or vectors, not both"),
        ("--form square", "unknown form"),
        ("--column prompt", "--column expects NAME=VALUE"),
        ("--column promt=x", "Did you mean 'prompt'?"),
        ("--column prompt=x", "unknown column 'x'"),
        ("--ties maybe", "unknown ties"),
        ("--on-error cry", "unknown on_error"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(cli, pairs_file: str, options: str, said: str) -> None:
    outcome = cli(*FIT.split(), pairs_file, "-o", "m", *options.split())
    assert outcome.code == 2, outcome.err
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    assert not Path("m").exists()


def test_features_and_objective_are_those_of_python(cli, pairs_file: str) -> None:
    options = (
        "--set objective=bt-smoothed --set objective.flip_rate=0.2 --set featurizer.project=pca "
        "--set featurizer.project.n_components=5 --set featurizer.residualise=characters"
    )
    facts = cli(f"{FIT} {pairs_file} -o m {options} --json").json()
    preferences = encode(read_preferences(pairs_file).split("train").compact(), "hashing", store=False)
    featurizer = Featurizer(project=PCAProjection(5), residualise="characters")
    head = LinearHead(featurizer, objective=BTSmoothed(flip_rate=0.2)).fit(preferences)
    model = RewardPipeline.load("m", store=False).model
    np.testing.assert_array_equal(model.coef_, head.coef_)
    np.testing.assert_array_equal(model.margins(preferences), head.margins(preferences))
    assert model.objective.get_params() == {"flip_rate": 0.2, "centring": 0.0}
    assert "bias_risk" not in facts


@pytest.mark.parametrize("routed", ["", "--routed"])
def test_covariates_are_named_as_a_bias_risk(cli, pairs_file: str, routed: str) -> None:
    outcome = cli(f"{FIT} {pairs_file} -o m {routed} --set featurizer.covariates=characters,digits")
    assert outcome.code == 0
    assert "note      bias risk: the reward is given surface features (characters, digits)" in outcome.out
    facts = cli(f"{FIT} {pairs_file} -o n {routed} --set featurizer.covariates=characters --json").json()
    assert facts["bias_risk"].startswith("bias risk: ")


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_help_lists_all_that_is_registered_with_one_line_each(cli, monkeypatch, columns: str) -> None:
    from embedrm.cli._composites import domain_models
    from embedrm.cli._listing import listing, summary
    from embedrm.featurizers import FEATURIZERS
    from embedrm.featurizers.base import projections
    from embedrm.heads import HEADS
    from embedrm.objectives import OBJECTIVES
    from embedrm.routers import ROUTERS

    lines = listing()
    entries = [*HEADS, *OBJECTIVES, *((n, c) for n, c in FEATURIZERS if n in projections()), *ROUTERS]
    entries += domain_models().items()
    for name, cls in entries:
        [line] = [line for line in lines if line.startswith(f"{name}: {summary(cls)} (")]
        assert len(summary(cls)) > 20, name
        assert "\n" not in line
    # the help wraps lines; words stay
    monkeypatch.setenv("COLUMNS", columns)
    printed = cli("fit --help").out
    assert max(map(len, printed.splitlines())) <= int(columns)
    shown = " ".join(printed.split())
    for line in lines:
        assert " ".join(line.split()) in shown, line


def test_a_folder_that_cannot_be_made_is_one_line(cli, pairs_file: str) -> None:
    for folder in (f"{pairs_file}/m", f"{pairs_file}/deep/m"):
        outcome = cli(f"{FIT} {pairs_file} -o {folder}")
        assert outcome.code == 2
        assert (
            outcome.err
            == f"error: cannot write {folder}: {pairs_file} is not a folder; choose another place. Nothing was done\n"
        )


def test_values_are_json_then_text() -> None:
    from embedrm.cli._parameters import read_value

    assert read_value("0.5") == 0.5
    assert read_value("1e-3") == 1e-3
    assert read_value("true") is True
    assert read_value("False") is False
    assert read_value("None") is None
    assert read_value("[1, 2]") == [1, 2]
    assert read_value("cv") == "cv"
    assert read_value("NaN") == "NaN"
    assert read_value("inf") == float("inf")
    assert read_value("6") == 6
    assert read_value('"6"') == "6"
