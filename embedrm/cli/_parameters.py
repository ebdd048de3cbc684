"""Values of ``--set``: JSON or plain text, read as the parameters of a class."""

from __future__ import annotations

import inspect
import json
import math
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.experiments.experiment_values import fits

# Parameters that are models themselves, and the options that make them.
_MADE = {
    "featurizer": "--terms, --response, --prompt and --scale, or --set featurizer.NAME=VALUE",
    "expert": "--head",
    "trunk": "--head",
    "router": "--router",
    "member": "--head",
    "n_members": "--members",
}
# Parameters whose value is the name of a part, which may have parameters of its own: objective.flip_rate=0.2.
_PARTS = {"objective": "objective", "project": "projection", "router": "router"}
_SPELLINGS = {"True": True, "False": False, "None": None, "inf": math.inf}


def made_elsewhere(cls: type) -> dict[str, str]:
    """Return the parameters of a class that are not values, each with the options that make it."""
    from embedrm.routers.base import Router

    # a router around another one names it
    named = {"router"} if issubclass(cls, Router) else set()
    return {n: how for n, how in _MADE.items() if n in inspect.signature(cls).parameters and n not in named}


def parameters(cls: type, who: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Read the values of ``--set`` for a class: JSON, then plain text; names and types are those of its constructor.

    A part that is chosen by its name takes parameters of its own as ``PART.NAME``.
    """
    made = made_elsewhere(cls)
    known = {name: p for name, p in inspect.signature(cls).parameters.items() if name not in made}
    hints = get_type_hints(cls.__init__)  # type: ignore[misc]
    out: dict[str, Any] = {}
    named: dict[str, str] = {}
    for_parts: dict[str, dict[str, str]] = {}
    for name, text in given.items():
        part, dot, inner = name.partition(".")
        if dot and part in _PARTS and part in known:
            for_parts.setdefault(part, {})[inner] = text
            continue
        if name in made:
            raise InvalidInputError(f"{name!r} of {who} is not a value for --set; use {made[name]}")
        if name not in known:
            raise unknown_name(f"parameter of {who}", name, known)
        if name == "router":
            # an object always, even where it has no parameters of its own
            named[name] = text
            for_parts.setdefault(name, {})
            continue
        value = read_value(text)
        hint = hints.get(name, Any)
        if not isinstance(value, (list, dict)) and not fits(value, hint) and fits(text, hint):
            value = text
        if not fits(value, hint):
            raise InvalidInputError(f"{name!r} of {who} must be {_name_of(hint)}, got {text!r}")
        if name in _PARTS and value is not None:
            _part(name, value)
        out[name] = value
    for part, settings_of_part in for_parts.items():
        chosen = named.get(part, out.get(part, known[part].default))
        if not isinstance(chosen, str):
            raise InvalidInputError(
                f"--set gives {part}.{next(iter(settings_of_part))} to {who}, which has no {_PARTS[part]}; name one with "
                f"{part}=NAME"
            )
        inside = _part(part, chosen)
        if getattr(inside, "can_reject", False):
            raise InvalidInputError(f"{who} rejects prompts by itself; name a router inside it that does not")
        out[part] = inside(**parameters(inside, f"{_PARTS[part]} {chosen!r}", settings_of_part))
    return out


def _part(parameter: str, name: str) -> type:
    """Return the class of a part; an unknown name raises before anything is encoded."""
    from embedrm.featurizers import FEATURIZERS
    from embedrm.featurizers.base import projections
    from embedrm.objectives import OBJECTIVES
    from embedrm.routers import ROUTERS

    if parameter == "objective":
        return OBJECTIVES.get(name)
    if parameter == "router":
        return ROUTERS.get(name)
    if name not in projections():
        raise unknown_name("projection", name, projections())
    return FEATURIZERS.get(name)


def read_value(text: str) -> Any:
    """Read JSON (or Python's True, False, None, and inf); anything else is text."""
    if text in _SPELLINGS:
        return _SPELLINGS[text]
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(name)


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
