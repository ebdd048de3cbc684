"""The command line has the words and the defaults of the Python interface, so that they cannot drift apart."""

from __future__ import annotations

import inspect
import shlex
from typing import Any

import pytest
import typer

from embedrm.cli import app
from embedrm.cli._data import Reading
from embedrm.cli._models import Recipe
from embedrm.composites.routed import RoutedRewardModel
from embedrm.datasets import read_preferences
from embedrm.encoding import encode
from embedrm.experiments.tour import run_tour
from embedrm.featurizers import Featurizer, PCAProjection
from embedrm.heads.linear import LinearHead
from embedrm.objectives.bradley_terry import BradleyTerry
from embedrm.objectives.bt_smoothed import BTSmoothed
from embedrm.pipeline import RewardPipeline
from embedrm.reporting.evaluation import compare, evaluate
from embedrm.routers.logistic import LogisticRouter
from embedrm.store import EmbeddingStore


def _command(path: str) -> Any:
    command: Any = typer.main.get_command(app)
    for name in path.split():
        command = command.commands[name]
    return command


def _cli_defaults(path: str) -> dict[str, Any]:
    """Defaults as the parser has them, by the name of the option without its dashes."""
    return {
        option.lstrip("-").replace("-", "_"): parameter.default
        for parameter in _command(path).params
        for option in parameter.opts
    }


def _api_defaults(function: Any) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(function).parameters.items()}


def _same(cli: Any, api: Any) -> bool:
    """An option that may be repeated is a list, and None where the Python interface has its own empty value."""
    if isinstance(api, tuple):
        api = list(api)
    return bool(cli == api or (cli is False and api is None) or (cli in (None, []) and api in (None, False, "")))


PAIRED = [
    ("data check", read_preferences, ["form", "on_error", "ties", "max_errors_shown", "allow_group_leak"]),
    ("data show", read_preferences, ["form", "on_error", "ties", "allow_group_leak"]),
    ("encode", read_preferences, ["form", "on_error", "ties", "allow_group_leak"]),
    ("fit", read_preferences, ["form", "on_error", "ties", "allow_group_leak"]),
    ("tune", read_preferences, ["form", "on_error", "ties", "allow_group_leak"]),
    ("evaluate", read_preferences, ["form", "on_error", "ties", "allow_group_leak"]),
    ("compare", read_preferences, ["form", "on_error", "ties", "allow_group_leak"]),
    ("encode", encode, ["encoder", "layers", "store"]),
    ("fit", encode, ["encoder", "layers", "store"]),
    ("fit", RewardPipeline.save, ["overwrite"]),
    ("evaluate", RewardPipeline.load, ["encoder", "store"]),
    ("score", RewardPipeline.load, ["encoder", "store"]),
    ("compare", RewardPipeline.load, ["encoder", "store"]),
    ("evaluate", evaluate, ["n_resamples", "random_state", "title"]),
    ("compare", compare, ["n_resamples", "random_state", "title"]),
    ("reproduce", run_tour, ["preset", "data", "output", "encoder", "store"]),
    ("cache verify", EmbeddingStore.verify, ["repair", "encoder"]),
]


@pytest.mark.parametrize(("command", "function", "names"), PAIRED, ids=lambda v: v if isinstance(v, str) else "")
def test_defaults_agree(command: str, function: Any, names: list[str]) -> None:
    cli, api = _cli_defaults(command), _api_defaults(function)
    for name in names:
        assert name in cli, f"embedrm {command} has no --{name}"
        assert name in api, f"{function.__qualname__} has no {name}"
        assert _same(cli[name], api[name]), f"--{name} of {command}: {cli[name]!r} and {api[name]!r}"


def test_sides_agree() -> None:
    for command in ("encode", "fit"):
        assert tuple(_cli_defaults(command)["side"]) == _api_defaults(encode)["sides"]
    assert _api_defaults(encode)["sides"] == _api_defaults(RewardPipeline.__init__)["sides"]


def test_reading_agrees_with_read_preferences() -> None:
    api = _api_defaults(read_preferences)
    for name, value in Reading().options().items():
        assert value == api[name], name


def test_a_fit_without_options_fits_what_python_fits() -> None:
    built = Recipe().build()
    assert type(built) is LinearHead
    assert built.get_params() == LinearHead().get_params()
    features = {name: _cli_defaults("fit")[name] for name in ("terms", "response", "prompt", "scale")}
    assert set(features.values()) == {None}, "an option that is not given must leave the Python default in force"
    # the others are given by --set featurizer.NAME=VALUE
    assert set(_api_defaults(Featurizer)) - set(features) == {"project", "covariates", "residualise"}


def test_routing_without_more_is_the_python_default(cli, pairs_file: str) -> None:
    built = Recipe(routed=True).build()
    assert isinstance(built, RoutedRewardModel)
    default = RoutedRewardModel()
    shallow = {k: v for k, v in built.get_params(deep=False).items() if k != "expert"}
    assert shallow == {k: v for k, v in default.get_params(deep=False).items() if k != "expert"}
    # the expert that RoutedRewardModel makes for itself is only seen once it is fitted
    from embedrm.datasets import read_preferences as read

    preferences = encode(read(pairs_file), "hashing", store=False)
    assert built.expert.get_params() == default.fit(preferences).experts_[0].get_params()


def test_options_reach_the_parameters_they_name() -> None:
    built = Recipe(
        set=["l2=0.5", "l2_grid=[0.1, 1]", "router.view=final", "routed.calibrate=False", "routed.cv=3"],
        routing="hard",
        router="logistic",
        head="linear",
        terms="r,p*r",
        scale="rms",
    ).build()
    assert isinstance(built, RoutedRewardModel)
    assert (built.routing, built.calibrate, built.cv) == ("hard", False, 3)
    assert isinstance(built.router, LogisticRouter)
    assert built.router.view == "final"
    assert isinstance(built.expert, LinearHead)
    assert (built.expert.l2, built.expert.l2_grid) == (0.5, [0.1, 1])
    assert built.expert.featurizer.get_params() == Featurizer("r,p*r", scale="rms").get_params()


def test_settings_reach_the_parts_of_a_head() -> None:
    options = [
        "objective=bt-smoothed",
        "objective.flip_rate=0.2",
        "featurizer.project=pca",
        "featurizer.project.n_components=4",
        "featurizer.project.whiten=true",
        "featurizer.covariates=digits,newlines",
        'featurizer.residualise=["characters"]',
        "featurizer.terms=r,p*r",
    ]
    head = Recipe(set=options, scale="standard").build()
    assert isinstance(head, LinearHead)
    assert repr(head) == repr(
        LinearHead(
            Featurizer(
                "r,p*r",
                scale="standard",
                project=PCAProjection(4, whiten=True),
                covariates="digits,newlines",
                residualise=["characters"],
            ),
            objective=BTSmoothed(flip_rate=0.2),
        )
    )
    # the order of the options does not matter, and the experts of a routed model take them too
    assert repr(Recipe(set=options[::-1], scale="standard").build()) == repr(head)
    assert repr(Recipe(set=options, scale="standard", head="linear", routed=True).build().expert) == repr(head)


def test_a_part_that_is_the_default_takes_parameters_without_being_named() -> None:
    head = Recipe(set=["objective.centring=0.1"]).build()
    assert repr(head) == repr(LinearHead(objective=BradleyTerry(centring=0.1)))


@pytest.mark.parametrize(
    "words",
    [
        "data list",
        "data show",
        "data check",
        "encode",
        "fit",
        "evaluate",
        "compare",
        "score",
        "reproduce",
        *(f"cache {name}" for name in ("path", "stats", "verify", "compact", "export", "import", "remove")),
    ],
)
def test_every_command_has_json_and_quiet_and_says_what_each_option_does(words: str) -> None:
    command = _command(words)
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--json", "--quiet"} <= options
    assert shlex.split(words)[-1] == command.name
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{parameter.name} of {words} has no help"
