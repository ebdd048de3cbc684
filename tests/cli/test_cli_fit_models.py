"""embedrm fit --model: every model of domains is the one of Python, is saved, evaluated, scored and compared."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest

from embedrm import (
    AdapterRewardModel,
    CalibratedRewardModel,
    CentroidRouter,
    Featurizer,
    LinearHead,
    LogisticRouter,
    MixtureRewardModel,
    MLPHead,
    PooledRewardModel,
    RejectingRouter,
    RewardPipeline,
    RoutedRewardModel,
    encode,
    read_preferences,
)
from embedrm.cli._composites import domain_models, refuse_early
from embedrm.cli._listing import listing
from embedrm.cli._models import Recipe
from embedrm.composites import COMPOSITES
from embedrm.composites.ensemble import EnsembleRewardModel
from embedrm.objectives.hinge import Hinge
from embedrm.reward_model import RewardModel

FIT = "fit --encoder hashing --no-store"
# Options, and the model of Python that they make.
MADE = {
    "routed": (
        "--model routed --head linear --routing top-k --set routed.k=1 --set routed.fallback=true "
        "--set routed.prompt_weight=pairs --set router.l2=0.1 --set routed.cv=2",
        RoutedRewardModel(
            LinearHead(), LogisticRouter(l2=0.1), "top-k", k=1, fallback=True, prompt_weight="pairs", cv=2
        ),
    ),
    "rejecting": (
        "--router rejecting --head linear --set router.cv=2 --set router.router=centroid --set router.router.shrinkage=0.5",
        RoutedRewardModel(LinearHead(), RejectingRouter(CentroidRouter(shrinkage=0.5), cv=2)),
    ),
    "pooled": (
        "--model pooled --set pooled.strength=1 --set pooled.own_scale=false --set l2=0.1 --terms r,p*r --routing hard",
        PooledRewardModel(LinearHead(Featurizer("r,p*r"), l2=0.1), routing="hard", strength=1, own_scale=False),
    ),
    "mixture": (
        "--model mixture --set mixture.k=1 --set mixture.shared=false --set mixture.max_iter=20 --terms r,p*r "
        "--set featurizer.covariates=characters --set mixture.objective=hinge --set mixture.objective.rounding=0.2",
        MixtureRewardModel(
            Featurizer("r,p*r", covariates="characters"), k=1, shared=False, max_iter=20, objective=Hinge(rounding=0.2)
        ),
    ),
    "adapters": (
        "--model adapters --set adapters.rank=4 --set adapters.max_epochs=3 --set adapters.random_state=5 "
        "--set max_epochs=3 --scale standard",
        AdapterRewardModel(
            MLPHead(Featurizer(scale="standard"), hidden=(64,), max_epochs=3, random_state=5),
            rank=4,
            max_epochs=3,
            random_state=5,
        ),
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_a_model_is_the_one_of_python_and_every_command_reads_it(cli, models, pairs_file: str, name: str) -> None:
    options, expected = MADE[name]
    outcome = cli(f"{FIT} {pairs_file} -o m {options}")
    assert outcome.code == 0, outcome.err
    assert f"model     {type(expected).__name__}(" in outcome.out
    prefs = encode(read_preferences(pairs_file).split("train").compact(), "hashing", store=False)
    expected.fit(prefs)
    model = RewardPipeline.load("m", store=False).model
    assert type(model) is type(expected)
    np.testing.assert_array_equal(model.predict(prefs), expected.predict(prefs))
    for command in (
        f"evaluate m {pairs_file} --no-store --n-resamples 20",
        f"compare m {models['linear']} {pairs_file} --no-store --n-resamples 20",
        'score m --no-store --prompt "Where do tea leaves go?" --response "Into the kettle, so."',
    ):
        outcome = cli(command)
        assert outcome.code == 0, outcome.err
        assert outcome.out


def test_models_are_found_in_their_registry() -> None:
    assert set(domain_models()) >= {"routed", "pooled", "mixture", "adapters"}
    assert set(domain_models()) == set(COMPOSITES.names()) - {"ensemble", "calibrated", "merged"}


@pytest.fixture
def dozing():
    @COMPOSITES.register("dozing")
    class DozingRewardModel(RewardModel):
        """A model that a new file would bring, of any expert, asleep."""

        def __init__(self, expert: RewardModel | None = None, naps: int = 3) -> None:
            self.expert = expert
            self.naps = naps

    yield DozingRewardModel
    del COMPOSITES._classes["dozing"]


def test_a_new_model_appears_by_itself(dozing) -> None:
    assert any(line.startswith("dozing: A model that a new file would bring") for line in listing())
    assert any(line.endswith("(made of --head; naps=3)") for line in listing())
    bare = Recipe(model="dozing", set=["dozing.naps=4"]).build()
    assert (type(bare), bare.expert, bare.naps) == (dozing, None, 4)
    full = Recipe(model="dozing", head="mlp", set=["hidden=[4]"]).build()
    assert full.expert.get_params() == MLPHead(hidden=[4]).get_params()


def test_routed_is_a_model_by_another_name() -> None:
    assert repr(Recipe(model="routed").build()) == repr(Recipe(routed=True).build())
    assert repr(Recipe(model="routed", routed=True, routing="hard").build()) == repr(Recipe(routing="hard").build())


def test_without_a_head_a_model_takes_its_own(pairs_file: str) -> None:
    prefs = encode(read_preferences(pairs_file), "hashing", store=False)
    pooled = Recipe(model="pooled").build()
    assert pooled.expert.get_params() == PooledRewardModel().fit(prefs).experts_[0].get_params()
    adapters = Recipe(model="adapters", set=["adapters.max_epochs=1", "adapters.random_state=3"]).build()
    assert (
        adapters.trunk.get_params() == AdapterRewardModel(max_epochs=1, random_state=3).fit(prefs).trunk_.get_params()
    )
    # a head that is named is taken as it is
    assert Recipe(model="adapters", head="mlp").build().trunk.get_params() == MLPHead().get_params()
    assert Recipe(model="pooled", head="linear").build().expert.get_params() == LinearHead().get_params()
    assert Recipe(model="mixture").build().get_params() == MixtureRewardModel().get_params()


def test_no_deviations_is_a_strength_that_can_be_written_and_saved(cli, pairs_file: str) -> None:
    outcome = cli(f"{FIT} {pairs_file} -o m --model pooled --set pooled.strength=inf --set l2=0.1")
    assert outcome.code == 0, outcome.err
    model = RewardPipeline.load("m", store=False).model
    np.testing.assert_array_equal(model.experts_[0].coef_, model.experts_[1].coef_)


@pytest.mark.parametrize("name", ["pooled", "mixture", "adapters"])
def test_a_calibration_goes_around_any_model(name: str) -> None:
    model = Recipe(model=name, calibrate="temperature", set=["calibrated.cv=3"]).build()
    assert isinstance(model, CalibratedRewardModel)
    assert (model.method, model.cv, type(model.model)) == ("temperature", 3, domain_models()[name])


def test_a_calibrated_mixture_is_fitted_and_evaluated(cli, pairs_file: str) -> None:
    options = "--model mixture --calibrate platt --set calibrated.cv=2 --set mixture.max_iter=5"
    assert cli(f"{FIT} {pairs_file} -o m {options}").code == 0
    assert "ECE" in cli(f"evaluate m {pairs_file} --no-store --n-resamples 20").out


def test_members_are_the_experts_of_a_model_that_takes_any() -> None:
    model = Recipe(model="routed", members=2, head="linear", set=["ensemble.aggregate=min"]).build()
    assert isinstance(model.expert, EnsembleRewardModel)
    assert model.expert.aggregate == "min"


def test_models_of_vectors(cli, vectors) -> None:
    np.save("q.npy", np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32))
    np.save("of.npy", np.arange(80) // 2)
    options = "--vectors a.npy --pairs p.jsonl --prompt-vectors q.npy --prompt-of of.npy"
    for name in ("pooled", "mixture"):
        outcome = cli(f"fit {options} -o {name} --model {name}")
        assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--model poled", "unknown model 'poled'. Did you mean 'pooled'?"),
        ("--model mlp", "'mlp' is a head; write --head mlp"),
        ("--model ensemble", "--model ensemble goes around other models; use --members"),
        ("--model calibrated", "use --calibrate"),
        ("--routed --model pooled", "--routed is --model routed, and --model pooled contradicts it"),
        ("--set pooled.strength=1", "to the model 'pooled', which is not what is fitted; add --model pooled"),
        ("--set routed.k=1", "add --routed"),
        ("--model pooled --set routed.fallback=true", "and the model is 'pooled'; write pooled.fallback"),
        ("--routed --set pooled.strength=1", "and the model is 'routed'; leave it out"),
        (
            "--model pooled --set pooled.strenth=1",
            "unknown parameter of model 'pooled' 'strenth'. Did you mean 'strength'?",
        ),
        ("--model pooled --set strength=1", "of head 'linear'; write --set pooled.strength=..."),
        ("--model pooled --set pooled.strength=-1", "needs strength to be a number >= 0 or 'cv', got -1"),
        ("--model pooled --set pooled.expert=x", "use --head"),
        ("--model pooled --head mlp", "model 'pooled' is made of one head 'linear', so leave out --head mlp"),
        ("--model pooled --members 3", "is made of one head 'linear', so leave out --members 3"),
        ("--model adapters --head linear", "model 'adapters' is made of one head 'mlp', so leave out --head linear"),
        ("--model adapters --members 3", "leave out --members 3"),
        ("--model adapters --set adapters.trunk=x", "use --head"),
        ("--model adapters --set adapters.rank=0", "needs rank to be a whole number >= 1, got 0"),
        ("--model adapters --set adapters.layers=[1]", "different numbers from 0 to 0"),
        (
            "--model adapters --set adapters.prompt_weight=pairs",
            "unknown parameter of model 'adapters' 'prompt_weight'",
        ),
        ("--model adapters --router knn --set adapters.router_rank=4", "is for the router that --router replaces"),
        ("--model adapters --terms p*r", "--terms p*r has none; add r"),
        ("--model mixture --head mlp", "takes no head; leave out --head mlp, and see --set mixture.PARAMETER=VALUE"),
        ("--model mixture --head mlp --members 2", "takes no head; leave out --head mlp and --members 2"),
        ("--model mixture --set l2=1", "write --set mixture.l2=..."),
        ("--model mixture --set objective.flip_rate=0.1", "write --set mixture.objective.flip_rate=..."),
        ("--model mixture --set kk=1", "unknown parameter of model 'mixture' 'kk'. Did you mean 'k'?"),
        ("--model mixture --router knn", "trains its router together with its experts, so leave out --router knn"),
        ("--model mixture --set router.view=6", "so leave out --set router.view"),
        ("--model mixture --routing hard", "routes in its own way, so leave out --routing hard"),
        ("--model mixture --set mixture.k=0", "needs k to be a whole number >= 1 or None, got 0"),
        ("--model mixture --set mixture.k=two", "'k' of model 'mixture' must be a whole number or null, got 'two'"),
        ("--model mixture --set mixture.featurizer=x", "use --terms"),
        ("--model mixture --set mixture.objective=bt", "unknown objective 'bt'"),
        ("--routing topk", "unknown routing 'topk'. Did you mean 'top-k'?"),
        ("--model pooled --routing sfot", "unknown routing 'sfot'. Did you mean 'soft'?"),
        ("--routed --set routed.k=3", "is the number of domains under --routing top-k, and the routing is 'soft'"),
        ("--routed --routing hard --set routed.k=3", "and the routing is 'hard'"),
        ("--routed --set routed.prompt_weight=pars", "unknown prompt_weight 'pars'. Did you mean 'pairs'?"),
        ("--router rejecting --set routed.fallback=false", "leaves nobody to answer for them"),
        ("--router rejecting --set router.router=centrod", "unknown router 'centrod'. Did you mean 'centroid'?"),
        ("--router rejecting --set router.router=rejecting", "name a router inside it that does not"),
        ("--router rejecting --set router.router.l2=1", "which has no router; name one with router=NAME"),
        (
            "--router rejecting --set router.router=knn --set router.router.kk=1",
            "unknown parameter of router 'knn' 'kk'. Did you mean 'k'?",
        ),
        ("--router logistic --set router.router=knn", "unknown parameter of router 'logistic' 'router'"),
        (
            "--model mixture --side response",
            "model 'mixture' sends prompts to its experts, and --side leaves prompts out",
        ),
        ("--routed --calibrate platt --side response", "add --side prompt"),
    ],
)
def test_senseless_combinations_are_refused_before_anything_is_read(cli, options: str, said: str) -> None:
    outcome = cli("fit", "no-such-file.jsonl", "-o", "m", *shlex.split(options))
    assert outcome.code == 2, outcome.err
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    assert not Path("m").exists()


def test_adapters_with_a_router_of_their_own_read_any_features() -> None:
    model = Recipe(model="adapters", terms="p*r", router="knn").build()
    refuse_early(model)
    assert model.trunk.featurizer.terms == "p*r"


def test_one_expert_reads_no_prompts(cli, pairs_file: str) -> None:
    outcome = cli(f"{FIT} {pairs_file} -o m --model mixture --set mixture.n_experts=1 --side response")
    assert outcome.code == 0, outcome.err


def test_the_help_says_what_each_model_is_made_of(cli, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = " ".join(cli("fit --help").out.split())
    models = shown[shown.index("Models that treat domains (--model)") :]
    for name, made in {
        "adapters": "--head mlp, --router, --routing; rank=8,",
        "mixture": "features; n_experts=null, k=2,",
        "pooled": "--head linear, --router, --routing; routing=",
        "routed": "--head, --router, --routing; routing=",
    }.items():
        entry = models[models.index(f" {name}: ") :]
        assert f"(made of {made}" in entry[: entry.index("random_state")]
    assert "soft, hard, top-k, oracle or random" in shown
