"""Reward models for a command: built from options, or loaded from folders."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedrm.cli._common import settings
from embedrm.cli._composites import WRAPPERS, Slot, domain_models, slot_of
from embedrm.cli._parameters import parameters
from embedrm.errors import InvalidInputError, ModelError, unknown_name

if TYPE_CHECKING:
    from embedrm.encoders import Encoder
    from embedrm.featurizers import Featurizer
    from embedrm.reward_model import RewardModel
    from embedrm.routers.base import Router

ROUTED = "routed"
ROUTER, FEATURIZER, ENSEMBLE, CALIBRATED = "router.", "featurizer.", "ensemble.", "calibrated."
# Heads that learn nothing from pairs: members of a bootstrap of them are equal.
_UNTAUGHT = ("length", "random")
_MADE_OF_CALIBRATED = {"model": "--head", "method": "--calibrate"}


@dataclass(frozen=True)
class Recipe:
    """The options of ``fit`` that say what to fit; every default is the Python interface's."""

    head: str | None = None
    set: Sequence[str] | None = None
    model: str | None = None
    routed: bool = False
    router: str | None = None
    routing: str | None = None
    members: int | None = None
    calibrate: str | None = None
    terms: str | None = None
    response: str | None = None
    prompt: str | None = None
    scale: str | None = None

    def build(self) -> RewardModel:
        """Return the unfitted model.

        Raises
        ------
        InvalidInputError
            For an unknown name, with the nearest one; a value that is not of a parameter's type; and options that do not
            go together.
        """
        models = domain_models()
        name = self._model_name(models)
        prefixes = (ROUTER, FEATURIZER, ENSEMBLE, CALIBRATED, *(f"{known}." for known in models))
        given = settings(self.set, "--set")
        own = {k: v for k, v in given.items() if not k.startswith(prefixes)}
        of = {p: {k.removeprefix(p): v for k, v in given.items() if k.startswith(p)} for p in prefixes}
        for kind, there, refusal in (
            (ROUTER, name is not None, "a router, but nothing is routed; add --routed"),
            (ENSEMBLE, self.members is not None, "an ensemble, but there is one member only; add --members 5"),
            (CALIBRATED, self.calibrate is not None, "a calibration, but there is none; add --calibrate platt"),
        ):
            if of[kind] and not there:
                raise InvalidInputError(f"--set gives {kind + next(iter(of[kind]))!r} to {refusal}")
        for known, cls in models.items():
            if of[f"{known}."] and known != name:
                self._refuse_stray(
                    next(iter(of[f"{known}."])), known, name, None if name is None else models[name], cls
                )
        if name is None:
            model = self._head(self.head or "linear", own, of[FEATURIZER])
            model = self._ensemble(model, of[ENSEMBLE])
        else:
            model = self._composed(name, models[name], own, of)
        return model if self.calibrate is None else self._calibrated(model, of[CALIBRATED])

    def _model_name(self, models: Mapping[str, type]) -> str | None:
        from embedrm.heads import HEADS

        if self.routed and self.model not in (None, ROUTED):
            raise InvalidInputError(f"--routed is --model {ROUTED}, and --model {self.model} contradicts it; give one")
        if self.model is None:
            return ROUTED if self.routed or self.router is not None or self.routing is not None else None
        if self.model in WRAPPERS:
            raise InvalidInputError(f"--model {self.model} goes around other models; use {WRAPPERS[self.model]}")
        if self.model in HEADS:
            raise InvalidInputError(f"{self.model!r} is a head; write --head {self.model}")
        if self.model not in models:
            raise unknown_name("model", self.model, models)
        return self.model

    def _refuse_stray(self, parameter: str, owner: str, name: str | None, cls: type | None, owning: type) -> None:
        said = f"--set gives '{owner}.{parameter}' to the model {owner!r}, "
        if cls is None:
            remedy = "--routed" if owner == ROUTED else f"--model {owner}"
            raise InvalidInputError(f"{said}which is not what is fitted; add {remedy}")
        remedy = "leave it out"
        if parameter in inspect.signature(cls).parameters and parameter in inspect.signature(owning).parameters:
            remedy = f"write {name}.{parameter}"
        raise InvalidInputError(f"{said}and the model is {name!r}; {remedy}")

    def _composed(
        self, name: str, cls: type, own: Mapping[str, str], of: Mapping[str, Mapping[str, str]]
    ) -> RewardModel:
        """Return a model of the domains with its head or features, and its router."""
        who, takes = f"model {name!r}", inspect.signature(cls).parameters
        values = parameters(cls, who, of[f"{name}."])
        if self.routing is not None:
            if "routing" not in takes:
                raise InvalidInputError(f"{who} routes in its own way, so leave out --routing {self.routing}")
            if "routing" in values:
                raise InvalidInputError(f"--routing and --set {name}.routing=... contradict each other; give one")
            values["routing"] = self.routing
        routing = values.get("routing", takes["routing"].default) if "routing" in takes else None
        if routing is not None and routing != "top-k" and "k" in values:
            raise InvalidInputError(
                f"--set {name}.k is the number of domains under --routing top-k, and the routing is {routing!r}; give "
                "--routing top-k, or leave it out"
            )
        if self.router is not None or of[ROUTER]:
            if "router" not in takes:
                option = f"--router {self.router}" if self.router else f"--set {ROUTER}{next(iter(of[ROUTER]))}"
                raise InvalidInputError(f"{who} trains its router together with its experts, so leave out {option}")
            if "router_rank" in values:
                raise InvalidInputError(f"--set {name}.router_rank is for the router that --router replaces; give one")
            values["router"] = self._router(of[ROUTER])
        slot = slot_of(name, cls, values)
        if slot is None:
            self._refuse_head(who, name, cls, own)
            features = self._features(of[FEATURIZER], who, "featurizer" in takes)
            return cls(**values) if features is None else cls(**values, featurizer=features)
        inside = self._inside(slot, name, cls, own, of)
        return cls(**values) if inside is None else cls(**values, **{slot.parameter: inside})

    def _refuse_head(self, who: str, name: str, cls: type, own: Mapping[str, str]) -> None:
        options = [] if self.head is None else [f"--head {self.head}"]
        options += [] if self.members is None else [f"--members {self.members}"]
        if options:
            raise InvalidInputError(
                f"{who} trains experts of its own together, and takes no head; leave out {' and '.join(options)}, and see "
                f"--set {name}.PARAMETER=VALUE"
            )
        for key in own:
            if key.partition(".")[0] in inspect.signature(cls).parameters:
                raise InvalidInputError(f"--set {key} is for a head, and {who} has none; write --set {name}.{key}=...")
            raise unknown_name(f"parameter of {who}", key, inspect.signature(cls).parameters)

    def _inside(
        self, slot: Slot, name: str, cls: type, own: Mapping[str, str], of: Mapping[str, Mapping[str, str]]
    ) -> RewardModel | None:
        """Return the head or ensemble that a model is made of; None for what the model takes by itself."""
        from embedrm.heads import HEADS

        if slot.only is not None and (self.head not in (None, slot.only) or self.members is not None):
            wrong = f"--head {self.head}" if self.head not in (None, slot.only) else f"--members {self.members}"
            raise InvalidInputError(
                f"model {name!r} is made of one head {slot.only!r}, so leave out {wrong}; --model {ROUTED} takes any"
            )
        kind = self.head or slot.head
        of_head = inspect.signature(HEADS.get(kind)).parameters
        for key in own:
            if key not in of_head and key in inspect.signature(cls).parameters and "." not in key:
                raise InvalidInputError(
                    f"{key!r} is a parameter of model {name!r}, not of head {kind!r}; write --set {name}.{key}=..."
                )
        chosen = (self.head, self.members, self.terms, self.response, self.prompt, self.scale)
        if slot.own is None and not own and not of[FEATURIZER] and all(option is None for option in chosen):
            return None
        preset = slot.own if slot.own is not None and self.head is None else {}
        return self._ensemble(self._head(kind, own, of[FEATURIZER], preset), of[ENSEMBLE])

    def _head(
        self,
        name: str,
        given: Mapping[str, str],
        for_features: Mapping[str, str],
        preset: Mapping[str, Any] | None = None,
    ) -> RewardModel:
        from embedrm.heads import HEADS

        cls = HEADS.get(name)
        who = f"head {name!r}"
        values = {**(preset or {}), **parameters(cls, who, given)}
        features = self._features(for_features, who, "featurizer" in inspect.signature(cls).parameters)
        model: RewardModel = cls(**values) if features is None else cls(**values, featurizer=features)
        return model

    def _features(self, given: Mapping[str, str], who: str, taken: bool) -> Featurizer | None:
        from embedrm.featurizers import Featurizer

        options = {"terms": self.terms, "response": self.response, "prompt": self.prompt, "scale": self.scale}
        chosen = {name: value for name, value in options.items() if value is not None}
        if not chosen and not given:
            return None
        if not taken:
            stray = [f"--{name}" for name in chosen] + [f"--set {FEATURIZER}{name}" for name in given]
            raise InvalidInputError(f"{who} takes no features, so leave out {', '.join(stray)}")
        for name in chosen:
            if name in given:
                raise InvalidInputError(f"--{name} and --set {FEATURIZER}{name}=... contradict each other; give one")
        return Featurizer(**parameters(Featurizer, "the featurizer", given), **chosen)

    def _router(self, given: Mapping[str, str]) -> Router:
        from embedrm.routers import ROUTERS

        name = self.router or "logistic"
        cls = ROUTERS.get(name)
        router: Router = cls(**parameters(cls, f"router {name!r}", given))
        return router

    def _ensemble(self, member: RewardModel, given: Mapping[str, str]) -> RewardModel:
        """Return an ensemble of the head where there are members, else the head."""
        from embedrm.composites.ensemble import EnsembleRewardModel

        if self.members is None:
            return member
        if self.members == 1:
            raise InvalidInputError("--members 1 is no ensemble; give 2 or more, or leave it out")
        model = EnsembleRewardModel(member, self.members, **parameters(EnsembleRewardModel, "the ensemble", given))
        model.check_parameters()
        head = self.head or "linear"
        if head in _UNTAUGHT and model.kind == "bootstrap":
            raise InvalidInputError(f"head {head!r} learns nothing, so its members would be equal; leave out --members")
        return model

    def _calibrated(self, model: RewardModel, given: Mapping[str, str]) -> RewardModel:
        from embedrm.composites.calibrated import CalibratedRewardModel

        who = "the calibration"
        for name in given:
            if name in _MADE_OF_CALIBRATED:
                raise InvalidInputError(f"{name!r} of {who} is not a value for --set; use {_MADE_OF_CALIBRATED[name]}")
        calibrated = CalibratedRewardModel(model, str(self.calibrate), **parameters(CalibratedRewardModel, who, given))
        calibrated.check_parameters()
        return calibrated


@dataclass
class Loaded:
    """A saved model.

    Attributes
    ----------
    name : str
        What the user calls it: ``NAME=FOLDER``, or the folder's own name.
    folder : str
        As given.
    model : RewardModel
    extra : dict
        What was saved beside it; with an ``encoder`` where it reads text.
    """

    name: str
    folder: str
    model: RewardModel
    extra: dict[str, Any]

    @property
    def training(self) -> dict[str, Any]:
        """Facts of the training data."""
        return dict(self.extra.get("training") or {})

    def facts(self) -> dict[str, Any]:
        """What a report says of it."""
        return {"folder": self.folder, "model": describe(self.model), "training": self.training}


def make_encoder(name: str | None, options: Sequence[str] | None) -> Encoder:
    """Return the encoder that ``--encoder`` and ``--encoder-option`` name; the default one where absent."""
    from embedrm.encoders import DEFAULT_ENCODER, load_encoder

    plain = load_encoder(name or DEFAULT_ENCODER)
    given = settings(options, "--encoder-option")
    if not given:
        return plain
    return load_encoder(name or DEFAULT_ENCODER, **parameters(type(plain), f"encoder {plain.registered_name!r}", given))


def load_models(arguments: Sequence[str]) -> list[Loaded]:
    """Load ``FOLDER`` or ``NAME=FOLDER`` each; names must differ, and take the whole path where they would not."""
    from sklearn.exceptions import NotFittedError

    from embedrm.persistence import load_model

    split = [_named(argument) for argument in arguments]
    short = [name or Path(folder).name or folder for name, folder in split]
    names = [s if name or short.count(s) == 1 else folder for s, (name, folder) in zip(short, split)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInputError(f"two models are called {twice!r}; name them apart with NAME=FOLDER")
    out = []
    for name, (_, folder) in zip(names, split):
        model, extra = load_model(folder)
        try:
            if not hasattr(model, "margins"):
                raise ModelError(f"{folder} holds a {type(model).__name__}, and no reward model")
            model.required_views()
        except NotFittedError as error:
            raise ModelError(f"{folder} holds a model that was never fitted; fit it and save it again") from error
        out.append(Loaded(name, folder, model, extra))
    return out


def _named(argument: str) -> tuple[str, str]:
    name, equals, folder = argument.partition("=")
    return (name, folder) if equals and name and folder and not Path(argument).exists() else ("", argument)


def describe(model: Any) -> str:
    """Return a model as scikit-learn writes it, on one line."""
    return " ".join(repr(model).split())


def learned(model: Any) -> dict[str, Any]:
    """Return the fitted facts that are single numbers, texts or short lists of texts; nested models by their name."""
    out: dict[str, Any] = {}
    for name, value in sorted(vars(model).items()):
        if name.startswith("_") or not name.endswith("_"):
            continue
        if isinstance(value, float) and not math.isfinite(value):
            out[name] = str(value)
        elif isinstance(value, (bool, int, float, str)):
            out[name] = value
        elif isinstance(value, (list, tuple)) and len(value) <= 64 and all(isinstance(v, str) for v in value):
            out[name] = list(value)
        elif hasattr(value, "get_params"):
            out[name] = learned(value)
    return out


def bias_risk(model: Any) -> str | None:
    """Return what the features of a fitted model, or of a model inside it, say of a bias risk."""
    note: str | None = getattr(getattr(model, "featurizer_", None), "bias_risk", None)
    if note is not None:
        return note
    inside = [*getattr(model, "experts_", ()), *getattr(model, "members_", ())]
    inside += [model.model_] if hasattr(model, "model_") else []
    return next((note for part in inside if (note := bias_risk(part)) is not None), None)
