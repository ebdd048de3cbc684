"""From the model's sections to an unfitted reward model, and what identifies it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import numpy as np
from sklearn.base import BaseEstimator

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.experiments.experiment_files import Misfit, Place
from embedrm.experiments.experiment_values import check_known, check_value, hints_of
from embedrm.featurizers import Featurizer
from embedrm.registry import Registry
from embedrm.reward_model import RewardModel

# Parameters that are models themselves, and the section that makes each.
_MADE = {
    "featurizer": "featurizer",
    "expert": "head",
    "trunk": "head",
    "member": "head",
    "router": "router",
}
# Composites that no section 'model' names: they go around others, or are made of a list of fitted models.
_WRAPPERS = {"ensemble": "ensemble", "calibrated": "calibrated"}
_OF_MANY = ("merged",)
# The one head that some composites take, and the parameters of the head that they take by themselves.
_ONE_HEAD = {"pooled": "linear", "adapters": "mlp"}
_OWN: dict[str, dict[str, Any]] = {"routed": {"l2": "cv"}, "pooled": {"l2": "cv"}, "adapters": {"hidden": (64,)}}
# Parameters of a featurizer that are lists, and may be written with commas.
_LISTED = ("terms", "response", "prompt", "covariates", "residualise")


def build_model(parts: Mapping[str, Mapping[str, Any]]) -> RewardModel:
    """Return the unfitted model of its sections.

    Parameters
    ----------
    parts : mapping of section to mapping
        Of ``featurizer, head, model, router, ensemble, calibrated``; a linear head where none is there.

    Raises
    ------
    Misfit
        For an unknown name or parameter, with the nearest one; a value of a wrong type; sections that do not go together.
    """
    model = _inner(parts)
    if "calibrated" in parts:
        from embedrm.composites.calibrated import CalibratedRewardModel

        given = _parameters(CalibratedRewardModel, "the calibration", parts["calibrated"], ("calibrated",), ("model",))
        model = CalibratedRewardModel(model, **given)
        _checked(model.check_parameters, ("calibrated",), given)
    return model


def _inner(parts: Mapping[str, Mapping[str, Any]]) -> RewardModel:
    if "model" not in parts:
        if "router" in parts:
            raise Misfit("the section 'router' needs a model that routes; add 'model: routed'.", ("router",))
        return _ensemble(_head(parts), parts)
    from embedrm.composites import COMPOSITES

    own = dict(parts["model"])
    name = _name(own, "model")
    if name in _WRAPPERS:
        raise Misfit(f"the model {name!r} goes around others; write the section {name!r}.", ("model", "name"))
    check_known(name, [n for n, _ in COMPOSITES if n not in (*_WRAPPERS, *_OF_MANY)], "model", ("model", "name"))
    cls, who = COMPOSITES.get(name), f"model {name!r}"
    given = _parameters(cls, who, own, ("model",))
    takes = hints_of(cls)
    if "router" in parts:
        if "router" not in takes:
            raise Misfit(f"{who} trains its router together with its experts; leave 'router' out.", ("router",))
        given["router"] = _router(parts["router"])
    slot = next((p for p, hint in takes.items() if _MADE.get(p) == "head" and _takes_model(hint)), None)
    if slot is None:
        for section in ("head", "ensemble"):
            if section in parts:
                raise Misfit(f"{who} trains experts of its own; leave {section!r} out.", (section,))
        if "featurizer" in parts:
            given["featurizer"] = _featurizer(parts["featurizer"])
        return _made(cls, given, ("model",))
    if any(section in parts for section in ("head", "featurizer", "ensemble")):
        given[slot] = _expert(name, parts, given)
    return _made(cls, given, ("model",))


def _expert(name: str, parts: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]) -> RewardModel:
    """Return what a composite is made of; without a section 'head', the head that it takes by itself."""
    only = _ONE_HEAD.get(name)
    preset = dict(parts.get("head", {"name": only or "linear", **_OWN.get(name, {})}))
    if only is not None and (_name(preset, "head", keep=True) != only or "ensemble" in parts):
        raise Misfit(f"model {name!r} is made of one head {only!r}.", ("head",))
    inside = _ensemble(_head({**parts, "head": preset}), parts)
    if "head" not in parts and "random_state" in given and hasattr(inside, "random_state"):
        inside.set_params(random_state=given["random_state"])
    return inside


def _takes_model(hint: Any) -> bool:
    return any(isinstance(kind, type) and issubclass(kind, RewardModel) for kind in (hint, *get_args(hint)))


def _head(parts: Mapping[str, Mapping[str, Any]]) -> RewardModel:
    from embedrm.heads import HEADS

    own = dict(parts.get("head", {"name": "linear"}))
    name = _name(own, "head")
    check_known(name, HEADS.names(), "head", ("head", "name"))
    cls = HEADS.get(name)
    given = _parameters(cls, f"head {name!r}", own, ("head",))
    if "featurizer" in parts:
        if "featurizer" not in hints_of(cls):
            raise Misfit(f"head {name!r} takes no features; leave 'featurizer' out.", ("featurizer",))
        given["featurizer"] = _featurizer(parts["featurizer"])
    return _made(cls, given, ("head",))


def _ensemble(member: RewardModel, parts: Mapping[str, Mapping[str, Any]]) -> RewardModel:
    if "ensemble" not in parts:
        return member
    from embedrm.composites.ensemble import EnsembleRewardModel

    given = _parameters(EnsembleRewardModel, "the ensemble", parts["ensemble"], ("ensemble",))
    model = EnsembleRewardModel(member, **given)
    _checked(model.check_parameters, ("ensemble",), given)
    return model


def _featurizer(values: Mapping[str, Any]) -> Any:
    return Featurizer(**_parameters(Featurizer, "the featurizer", values, ("featurizer",)))


def _router(values: Mapping[str, Any]) -> Any:
    from embedrm.routers import ROUTERS

    return _named(ROUTERS, "router", values, ("router",))


def _named(registry: Registry, kind: str, value: Any, place: Place, known: Iterable[str] | None = None) -> Any:
    """Return the object of ``{name: NAME, PARAMETER: VALUE}``."""
    own = dict(value) if isinstance(value, Mapping) else {"name": value}
    name = own.pop("name", None)
    if not isinstance(name, str):
        raise Misfit(f"a {kind} is named by its key 'name', and {name!r:.40} came.", (*place, "name"))
    check_known(name, registry.names() if known is None else known, kind, (*place, "name"))
    cls = registry.get(name)
    return _made(cls, _parameters(cls, f"{kind} {name!r}", own, place), place)


def _name(own: dict[str, Any], section: str, keep: bool = False) -> str:
    name = own.get("name", "linear" if section == "head" else None) if keep else own.pop("name", None)
    if name is None and section == "head":
        name = "linear"
    if not isinstance(name, str):
        raise Misfit(f"the section {section!r} needs a key 'name', and {name!r:.40} came.", (section, "name"))
    return name


def _parameters(
    cls: type, who: str, values: Mapping[str, Any], place: Place, made: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Check parameters by the names and types of a constructor."""
    hints = hints_of(cls)
    from embedrm.routers.base import Router

    inside = issubclass(cls, Router)
    elsewhere = {
        name: section for name, section in _MADE.items() if name in hints and not (inside and name == "router")
    }
    known = [name for name in hints if name not in elsewhere and name not in made]
    out: dict[str, Any] = {}
    for name, value in values.items():
        here = (*place, name)
        if name in elsewhere:
            raise Misfit(f"{name!r} of {who} is made by the section {elsewhere[name]!r}; write it there.", here)
        if name not in known:
            raise Misfit(_no_parameter(who, name, known, place), here)
        if name in ("objective", "project", "router") and (isinstance(value, Mapping) or name == "router"):
            out[name] = _inner_part(name, value, here)
        elif name in ("objective", "project") and value is not None:
            out[name] = check_value(value, hints[name], name, who, here)
            # an unknown one is told now, not after the vectors are made
            _inner_part(name, value, here)
        else:
            out[name] = check_value(value, hints[name], name, who, here)
    return out


def _no_parameter(who: str, name: str, known: Iterable[str], place: Place) -> str:
    message = str(unknown_name(f"parameter of {who}", name, known))
    if place == ("head",) and name in ("terms", "response", "prompt", "scale", "project", "covariates", "residualise"):
        return f"{message} It is a key of the section 'featurizer'."
    return message


def _inner_part(name: str, value: Any, place: Place) -> Any:
    from embedrm.featurizers import FEATURIZERS
    from embedrm.featurizers.base import projections
    from embedrm.objectives import OBJECTIVES
    from embedrm.routers import ROUTERS

    if name == "objective":
        return _named(OBJECTIVES, "objective", value, place)
    if name == "project":
        return _named(FEATURIZERS, "projection", value, place, projections())
    return _named(ROUTERS, "router", value, place)


def _made(cls: type, given: Mapping[str, Any], place: Place) -> Any:
    try:
        model = cls(**given)
    except InvalidInputError as error:
        raise Misfit(str(error), place) from None
    check = getattr(model, "check_parameters", None) or getattr(model, "_check_parameters", None)
    if check is not None:
        _checked(check, place, given)
    return model


def _checked(check: Any, place: Place, given: Mapping[str, Any]) -> None:
    """Raise what a model says of its own parameters, at the parameter that it names."""
    try:
        check()
    except InvalidInputError as error:
        said = re.findall(r"\w+", str(error))
        own = next((name for name in given if name in said), None)
        raise Misfit(str(error), place if own is None else (*place, own)) from None


def seeds_of(model: BaseEstimator) -> dict[str, int]:
    """Return every whole-number ``random_state`` of a model and of what is inside it."""
    return {
        key: value
        for key, value in model.get_params().items()
        if key.rpartition("__")[2] == "random_state" and isinstance(value, int) and not isinstance(value, bool)
    }


def seeded(model: RewardModel, seed: int) -> RewardModel:
    """Return the model with ``seed`` added to every ``random_state``: seed 0 is the model as it is written."""
    states = seeds_of(model)
    if seed and states:
        model.set_params(**{key: value + seed for key, value in states.items()})
    return model


def identity(value: Any) -> Any:
    """Return what identifies an unfitted model, as JSON values: classes by registered name, and every parameter."""
    if isinstance(value, BaseEstimator):
        name = getattr(type(value), "registered_name", None) or type(value).__name__
        params = value.get_params(deep=False)
        if isinstance(value, Featurizer):
            # "r,p*r" and ["r", "p*r"] are one choice
            params = {k: _names(v) if k in _LISTED else v for k, v in params.items()}
        return {"is": name, **{k: _chosen(k, v) for k, v in sorted(params.items())}}
    if isinstance(value, Mapping):
        return {str(k): identity(v) for k, v in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [identity(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


def _chosen(name: str, value: Any) -> Any:
    """Return what identifies a parameter; a part that is named alone and the same one written as a mapping are one."""
    if name in ("objective", "project") and isinstance(value, BaseEstimator):
        named = getattr(type(value), "registered_name", None)
        if named is not None and identity(value) == identity(type(value)()):
            return named
    return identity(value)


def _names(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def reads_prompts(parts: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the model sends prompts to experts, so that prompt vectors must be there."""
    own = parts.get("model")
    return own is not None and own.get("n_experts") != 1
