"""Reward models for a command: built from options, or loaded from folders."""

from __future__ import annotations

import inspect
import json
import math
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from embedrm.cli._common import settings
from embedrm.errors import InvalidInputError, ModelError, unknown_name

if TYPE_CHECKING:
    from embedrm.encoders import Encoder
    from embedrm.reward_model import RewardModel

ROUTER, ROUTED, FEATURIZER, ENSEMBLE, CALIBRATED = "router.", "routed.", "featurizer.", "ensemble.", "calibrated."
# Heads that learn nothing from pairs: members of a bootstrap of them are equal.
_UNTAUGHT = ("length", "random")
# Parameters that are models themselves, and the options that make them.
_MADE = {
    "featurizer": "--terms, --response, --prompt and --scale, or --set featurizer.NAME=VALUE",
    "expert": "--head",
    "router": "--router",
    "member": "--head",
    "n_members": "--members",
}
_MADE_OF_CALIBRATED = {"model": "--head", "method": "--calibrate"}
# Parameters whose value is the name of a part, which may have parameters of its own: objective.flip_rate=0.2.
_PARTS = {"objective": "objective", "project": "projection"}
_SYMBOLS = {"phi": "φ", "cdot": "·", "mid": "|", "sigma": "σ", "lambda": "λ", "circ": "∘"}
_SPELLINGS = {"True": True, "False": False, "None": None}


@dataclass(frozen=True)
class Recipe:
    """The options of ``fit`` that say what to fit; every default is the Python interface's."""

    head: str | None = None
    set: Sequence[str] | None = None
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
            For an unknown name, or a value that is not of a parameter's type; with the nearest name.
        """
        prefixes = (ROUTER, ROUTED, FEATURIZER, ENSEMBLE, CALIBRATED)
        given = settings(self.set, "--set")
        own = {k: v for k, v in given.items() if not k.startswith(prefixes)}
        of = {p: {k.removeprefix(p): v for k, v in given.items() if k.startswith(p)} for p in prefixes}
        routed = self.routed or self.router is not None or self.routing is not None
        for kinds, there, refusal in (
            ((ROUTER, ROUTED), routed, "a router, but nothing is routed; add --routed"),
            ((ENSEMBLE,), self.members is not None, "an ensemble, but there is one member only; add --members 5"),
            ((CALIBRATED,), self.calibrate is not None, "a calibration, but there is none; add --calibrate platt"),
        ):
            stray = [kind + name for kind in kinds for name in of[kind]]
            if stray and not there:
                raise InvalidInputError(f"--set gives {stray[0]!r} to {refusal}")
        model = self._head(own, of[FEATURIZER], routed)
        if self.members is not None:
            model = self._ensemble(model, of[ENSEMBLE])
        if routed:
            model = self._routed(model, of[ROUTER], of[ROUTED])
        return model if self.calibrate is None else self._calibrated(model, of[CALIBRATED])

    def _ensemble(self, member: RewardModel, given: Mapping[str, str]) -> RewardModel:
        from embedrm.composites.ensemble import EnsembleRewardModel

        if self.members == 1:
            raise InvalidInputError("--members 1 is no ensemble; give 2 or more, or leave it out")
        model = EnsembleRewardModel(
            member, int(self.members or 0), **parameters(EnsembleRewardModel, "the ensemble", given)
        )
        model.check_parameters()
        head = self.head or "linear"
        if head in _UNTAUGHT and model.kind == "bootstrap":
            raise InvalidInputError(f"head {head!r} learns nothing, so its members would be equal; leave out --members")
        return model

    def _routed(self, expert: RewardModel, for_router: Mapping[str, str], for_routed: Mapping[str, str]) -> RewardModel:
        from embedrm.composites.routed import RoutedRewardModel
        from embedrm.routers import ROUTERS

        router = None
        if self.router is not None or for_router:
            cls = ROUTERS.get(self.router or "logistic")
            router = cls(**parameters(cls, f"router {self.router or 'logistic'!r}", for_router))
        extra = parameters(RoutedRewardModel, "the routed model", for_routed)
        if self.routing is not None:
            if "routing" in extra:
                raise InvalidInputError("--routing and --set routed.routing=... contradict each other; give one")
            extra["routing"] = self.routing
        return RoutedRewardModel(expert, router, **extra)

    def _calibrated(self, model: RewardModel, given: Mapping[str, str]) -> RewardModel:
        from embedrm.composites.calibrated import CalibratedRewardModel

        who = "the calibration"
        for name in given:
            if name in _MADE_OF_CALIBRATED:
                raise InvalidInputError(f"{name!r} of {who} is not a value for --set; use {_MADE_OF_CALIBRATED[name]}")
        calibrated = CalibratedRewardModel(model, str(self.calibrate), **parameters(CalibratedRewardModel, who, given))
        calibrated.check_parameters()
        return calibrated

    def _head(self, given: Mapping[str, str], for_features: Mapping[str, str], routed: bool) -> RewardModel:
        from embedrm.featurizers import Featurizer
        from embedrm.heads import HEADS

        cls = HEADS.get(self.head or "linear")
        who = f"head {self.head or 'linear'!r}"
        values = parameters(cls, who, given)
        features = {"terms": self.terms, "response": self.response, "prompt": self.prompt, "scale": self.scale}
        chosen = {name: value for name, value in features.items() if value is not None}
        if "featurizer" not in inspect.signature(cls).parameters and (chosen or for_features):
            options = [f"--{name}" for name in chosen] + [f"--set {FEATURIZER}{name}" for name in for_features]
            raise InvalidInputError(f"{who} takes no features, so leave out {', '.join(options)}")
        for name in chosen:
            if name in for_features:
                raise InvalidInputError(f"--{name} and --set {FEATURIZER}{name}=... contradict each other; give one")
        if chosen or for_features:
            values["featurizer"] = Featurizer(**parameters(Featurizer, "the featurizer", for_features), **chosen)
        if routed and self.head is None:
            # the expert that RoutedRewardModel takes by itself
            values.setdefault("l2", "cv")
        return cls(**values)


def parameters(cls: type, who: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Read the values of ``--set`` for a class: JSON, then plain text; names and types are those of its constructor.

    A part that is chosen by its name takes parameters of its own as ``PART.NAME``.
    """
    known = {name: p for name, p in inspect.signature(cls).parameters.items() if name not in _MADE}
    hints = get_type_hints(cls.__init__)  # type: ignore[misc]
    out: dict[str, Any] = {}
    for_parts: dict[str, dict[str, str]] = {}
    for name, text in given.items():
        part, dot, inner = name.partition(".")
        if dot and part in _PARTS and part in known:
            for_parts.setdefault(part, {})[inner] = text
            continue
        if name in _MADE and name in inspect.signature(cls).parameters:
            raise InvalidInputError(f"{name!r} of {who} is not a value for --set; use {_MADE[name]}")
        if name not in known:
            raise unknown_name(f"parameter of {who}", name, known)
        value = read_value(text)
        hint = hints.get(name, Any)
        if not isinstance(value, (list, dict)) and not _fits(value, hint) and _fits(text, hint):
            value = text
        if not _fits(value, hint):
            raise InvalidInputError(f"{name!r} of {who} must be {_name_of(hint)}, got {text!r}")
        if name in _PARTS and value is not None:
            _part(name, value)
        out[name] = value
    for part, settings_of_part in for_parts.items():
        chosen = out.get(part, known[part].default)
        if not isinstance(chosen, str):
            raise InvalidInputError(
                f"--set gives {part}.{next(iter(settings_of_part))} to {who}, which has no {_PARTS[part]}; name one with "
                f"{part}=NAME"
            )
        made = _part(part, chosen)
        out[part] = made(**parameters(made, f"{_PARTS[part]} {chosen!r}", settings_of_part))
    return out


def _part(parameter: str, name: str) -> type:
    """Return the class of a part; an unknown name raises before anything is encoded."""
    from embedrm.featurizers import FEATURIZERS
    from embedrm.featurizers.base import projections
    from embedrm.objectives import OBJECTIVES

    if parameter == "objective":
        return OBJECTIVES.get(name)
    if name not in projections():
        raise unknown_name("projection", name, projections())
    return FEATURIZERS.get(name)


def read_value(text: str) -> Any:
    """Read JSON (or Python's True, False, None); anything else is text."""
    if text in _SPELLINGS:
        return _SPELLINGS[text]
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in inner)
    if origin is Literal:
        return value in inner
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63
    if hint in (str, bool):
        return isinstance(value, hint)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict) and all(_fits(v, inner[1]) for v in value.values())
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return isinstance(value, list) and all(_fits(v, inner[0]) for v in value)
    return False


def _name_of(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    words = {float: "a number", int: "a whole number", str: "text", bool: "true or false", type(None): "null"}
    if origin in (Union, types.UnionType):
        # an object of a class, beside its name, cannot be written on a command line
        return " or ".join(_name_of(part) for part in inner if not hasattr(part, "get_params"))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a JSON object"
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return f"a JSON list, each {_name_of(inner[0])}"
    return words.get(hint, str(hint))


def listing() -> list[str]:
    """Return one line for each head, objective, projection, router and composite: its name, what it is, its parameters."""
    from embedrm.composites import COMPOSITES
    from embedrm.featurizers import FEATURIZERS, Featurizer
    from embedrm.featurizers.base import projections
    from embedrm.heads import HEADS
    from embedrm.objectives import OBJECTIVES
    from embedrm.routers import ROUTERS

    return [
        "Heads (--head), with what --set takes:",
        *map(_line, HEADS),
        "Objectives (--set objective=NAME, and objective.PARAMETER=VALUE):",
        *map(_line, OBJECTIVES),
        "Features (--set featurizer.PARAMETER=VALUE):",
        _line(("featurizer", Featurizer)),
        "Projections of views (--set featurizer.project=NAME, and featurizer.project.PARAMETER=VALUE):",
        *(_line((name, FEATURIZERS.get(name))) for name in projections()),
        "Routers (--router), with what --set takes as router.PARAMETER=VALUE:",
        *map(_line, ROUTERS),
        "Around the head (--members, --routed, --calibrate), with what --set takes as NAME.PARAMETER=VALUE:",
        *(_line((name, COMPOSITES.get(name))) for name in ("ensemble", "routed", "calibrated")),
    ]


def _line(entry: tuple[str, type]) -> str:
    name, cls = entry
    defaults = [
        f"{parameter.name}={_written(parameter.default)}"
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.name not in _MADE and not (name == "calibrated" and parameter.name in _MADE_OF_CALIBRATED)
    ]
    return f"{name}: {summary(cls)} ({', '.join(defaults) or 'no parameters'})"


def summary(cls: type) -> str:
    """Return the first line of a class's docstring without the marks of reStructuredText."""
    first = (inspect.getdoc(cls) or "").strip().partition("\n")[0]
    first = re.sub(r":\w+:`~?([^`]*)`", r"\1", first).replace("`", "")
    first = re.sub(r"\\mathrm\{(\w+)\}", r"\1", first)
    return re.sub(r"\\([a-z]+)", lambda command: _SYMBOLS.get(command[1], command[1]), first)


def _written(value: Any) -> str:
    return json.dumps(value, default=str)


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
