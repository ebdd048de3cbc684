"""Whether a value of a configuration is of the type that a constructor's annotation asks for."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from embedrm.errors import unknown_name
from embedrm.experiments.experiment_files import Misfit

_WORDS = {float: "a number", int: "a whole number", str: "text", bool: "true or false", type(None): "null"}


def fits(value: Any, hint: Any) -> bool:
    """Whether plain data are of a type: numbers, text, truth values, lists, mappings, and unions of them."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in inner)
    if origin is Literal:
        return value in inner
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63
    if hint in (str, bool):
        return isinstance(value, hint)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict) and all(isinstance(k, str) and fits(v, inner[1]) for k, v in value.items())
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return isinstance(value, (list, tuple)) and all(fits(v, inner[0]) for v in value)
    return False


def as_typed(value: Any, hint: Any) -> Any:
    """Return a fitting value with whole numbers as floats where the type has floats and no whole numbers."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if float in options and int not in options else value
    if isinstance(value, (list, tuple)):
        for option in options:
            origin = get_origin(option)
            if isinstance(origin, type) and issubclass(origin, Iterable) and not issubclass(origin, Mapping):
                return [as_typed(entry, get_args(option)[0]) for entry in value]
    return value


def name_of(hint: Any) -> str:
    """Say a type in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(name_of(part) for part in inner if not hasattr(part, "get_params"))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping"
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return f"a list, each {name_of(inner[0])}"
    return _WORDS.get(hint, str(hint))


@lru_cache(maxsize=256)
def hints_of(cls: Any) -> dict[str, Any]:
    """Return the annotations of a constructor's parameters, in their order."""
    hints = get_type_hints(cls.__init__)
    return {name: hints.get(name, Any) for name in inspect.signature(cls).parameters}


def check_value(value: Any, hint: Any, name: str, who: str, place: Iterable[str]) -> Any:
    """Return a value as its type has it; a value of another type raises with its place."""
    if not fits(value, hint):
        # a layer is a name that looks like a number
        named = _as_text(value)
        if named is not None and fits(named, hint):
            return named
        raise Misfit(f"{name!r} of {who} must be {name_of(hint)}, got {value!r:.80}.", place)
    return as_typed(value, hint)


def _as_text(value: Any) -> str | list[str] | None:
    if isinstance(value, (list, tuple)):
        texts = [v if isinstance(v, str) else _as_text(v) for v in value]
        return [t for t in texts if isinstance(t, str)] if all(isinstance(t, str) for t in texts) else None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def check_known(name: str, known: Iterable[str], kind: str, place: Iterable[str]) -> None:
    """Raise for a name that is not known, with the nearest one and its place."""
    names = list(known)
    if name not in names:
        raise Misfit(str(unknown_name(kind, name, names)), place)
