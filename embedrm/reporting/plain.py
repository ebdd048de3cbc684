"""The gate every fact passes: plain JSON values, finite numbers, valid Unicode, or an error that names the place."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from embedrm.errors import InvalidInputError, unknown_name

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}")


def plain(value: Any, place: str) -> Any:
    """Return ``value`` as plain JSON data, losing nothing.

    NumPy scalars and arrays become Python numbers and lists, tuples become lists, paths become strings.

    Parameters
    ----------
    value : object
        What a caller put into the facts.
    place : str
        Where it stands, for the error.

    Raises
    ------
    InvalidInputError
        NaN and infinities (JSON has neither), keys that are not strings, text that is not valid Unicode, and objects
        that are not data.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(value, place)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return finite(value, place)
    if isinstance(value, PurePath):
        return text(str(value), place)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidInputError(f"{place}: keys are strings in JSON, and one is a {type(key).__name__}.")
        return {text(key, place): plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [plain(item, f"{place}[{i}]") for i, item in enumerate(value)]
    if hasattr(value, "tolist"):
        return plain(value.tolist(), place)
    raise InvalidInputError(
        f"{place} is a {type(value).__name__}; facts hold text, numbers, true/false, None, lists and mappings. "
        "Turn it into one of those."
    )


def finite(value: float, place: str) -> float:
    """Return a finite Python float, or say where the NaN or infinity is."""
    number = float(value)
    if not math.isfinite(number):
        raise InvalidInputError(
            f"{place} is {number}; facts hold finite numbers only. Write None where a value is absent."
        )
    return number


def text(value: Any, place: str) -> str:
    """Return a string that can be written as UTF-8."""
    if not isinstance(value, str):
        raise InvalidInputError(f"{place}: text was expected, and a {type(value).__name__} came.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInputError(
            f"{place}: the text holds a lone surrogate, which is not valid Unicode. Decode it again with errors='replace'."
        ) from None
    return str(value)


def texts(value: Any, place: str) -> list[str]:
    """Return a list of strings; one string counts as a list of one."""
    if isinstance(value, str):
        value = [value]
    return [text(item, f"{place}[{i}]") for i, item in enumerate(sequence(value, place))]


def sequence(value: Any, place: str) -> list[Any]:
    """Return a list, or say what came instead of one."""
    if hasattr(value, "tolist") and not isinstance(value, Sequence):
        value = value.tolist()
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InvalidInputError(f"{place}: a list was expected, and a {type(value).__name__} came.")
    return list(value)


def slug(value: Any, place: str) -> str:
    """Return a name fit for a file name and an anchor."""
    name = text(value, place)
    if not _SLUG.fullmatch(name):
        raise InvalidInputError(
            f"{place}: {name!r} cannot name a file. Use lower-case letters, digits, '-' and '_' (at most 80), "
            "beginning with a letter or digit."
        )
    return name


def number(value: Any, place: str) -> float | int:
    """Return a finite number (an int stays an int), refusing everything else."""
    if hasattr(value, "tolist") and not isinstance(value, (int, float)):
        value = value.tolist()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidInputError(f"{place}: a number was expected, and a {type(value).__name__} came.")
    return int(value) if isinstance(value, int) else finite(value, place)


def fields(value: Any, place: str, required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Any]:
    """Return a mapping whose keys are exactly the required ones and any of the optional ones."""
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{place}: a mapping was expected, and a {type(value).__name__} came.")
    need = list(required)
    known = [*need, *optional]
    for key in value:
        if key not in known:
            raise InvalidInputError(f"{place}: {unknown_name('key', key, known)}")
    for key in need:
        if key not in value:
            raise InvalidInputError(f"{place} lacks the key {key!r}. It needs: {', '.join(need)}.")
    return dict(value)


def choice(value: Any, place: str, kind: str, known: Sequence[str]) -> str:
    """Return one of the known names."""
    if not isinstance(value, str) or value not in known:
        raise InvalidInputError(f"{place}: {unknown_name(kind, value, known)}")
    return value


def brackets(low: Any, high: Any, place: str) -> tuple[float | int | None, float | int | None]:
    """Return the two ends of an interval, or two Nones where none is known."""
    if low is None and high is None:
        return None, None
    if low is None or high is None:
        raise InvalidInputError(f"{place}: an interval has both ends or neither, and only one came.")
    low, high = number(low, f"{place}.low"), number(high, f"{place}.high")
    if low > high:
        raise InvalidInputError(f"{place}: the interval's low end {low:g} is above its high end {high:g}. Swap them.")
    return low, high
