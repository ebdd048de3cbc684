"""What a field of a row must be, and the log in which every row that is not so is written down.

A check raises :class:`RowError` (never seen by a user); the log turns it into a place, a reason and a remedy, and at
the end either into one DataError or into the counts that ``info["skipped"]`` holds.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from embedrm.errors import DataError

_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}


class RowError(Exception):
    """One row cannot be used: a short reason for counting, what is wrong, and what to do."""

    def __init__(self, reason: str, what: str, remedy: str) -> None:
        self.reason, self.what, self.remedy = reason, what, remedy
        super().__init__(f"{what}; {remedy}")


def kind_of(value: object) -> str:
    """Name the kind of a value as a data file would ("a list", "a number"), never the value itself."""
    if isinstance(value, str):
        return "a string"
    if isinstance(value, (int, float, np.number, Decimal)) and not isinstance(value, bool):
        return "a number"
    return _KINDS.get(type(value), f"a value of type {type(value).__name__}")


def shown(text: str, limit: int = 60) -> str:
    """Quote a text for a message: cut to ``limit`` characters, and printable whatever it holds."""
    return ascii_safe(repr(text if len(text) <= limit else text[: limit - 1] + "…"))


def ascii_safe(text: str) -> str:
    """Replace what cannot be printed (lone surrogates) by escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def check_text(value: object, what: str) -> str:
    """Return ``value`` if it is a string that is not blank and can be encoded; ``what`` names it in messages."""
    if not isinstance(value, str):
        if value is None:
            raise RowError("missing field", f"{what} is null", "give a text or delete the row")
        raise RowError("not a string", f"{what} must be a string, got {kind_of(value)}", "write it as text")
    if not value or value.isspace():
        raise RowError("empty", f"{what} is empty or only white space", "give a text or delete the row")
    return check_encodable(value, what)


def check_encodable(value: str, what: str) -> str:
    """Return ``value`` as a plain str, or raise if it holds a lone surrogate, which no encoder can read."""
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RowError(
                "lone surrogate",
                f"{what} holds half of a surrogate pair (at character {error.start + 1}), which is not text",
                "write the character whole, or remove the \\ud8xx escape",
            ) from None
    return value if type(value) is str else str(value)


def check_number(value: object, what: str, reason: str, *, allow_bool: bool = False) -> float:
    """Return a finite float from a number or its decimal notation; anything else raises with ``reason``."""
    number: float | None = None
    if isinstance(value, (bool, np.bool_)):
        number = float(value) if allow_bool else None
    elif isinstance(value, (int, float, str, np.number, Decimal)):
        try:
            number = float(value)
        except (ValueError, OverflowError, TypeError):
            number = None
    if number is None:
        came = f"the text {shown(value, 30)}" if isinstance(value, str) else kind_of(value)
        if isinstance(value, int) and not isinstance(value, bool):
            came = "a whole number beyond the range of a float"
        raise RowError(reason, f"{what} must be a number, got {came}", "write a decimal number")
    if not math.isfinite(number):
        raise RowError(
            reason,
            f"{what} must be finite, got {'NaN' if math.isnan(number) else 'infinity'}",
            "give a number, or leave the field out",
        )
    return number


def check_list(value: object, what: str) -> Sequence[Any]:
    """Return a list; a string that is a JSON list (as a CSV cell holds it) is read as one."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = parse_json(value)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, tuple):
        value = list(value)
    if not isinstance(value, list):
        came = "null" if value is None else kind_of(value)
        raise RowError("not a list", f"{what} must be a list, got {came}", "write a JSON list")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise RowError("duplicate key", f"the key {shown(twice)} stands twice in one object", "keep one of the two")
    return row


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys)


def parse_json(text: str) -> Any:
    """Return the value of one JSON text; whatever is wrong with it becomes a RowError."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        hint = "the list brackets of a JSON array do not belong here: " if text.strip() in ("[", "]") else ""
        raise RowError(
            "broken JSON",
            f"not valid JSON ({error.msg} at column {error.colno})",
            f"{hint}write one complete JSON object on one line",
        ) from None
    except RecursionError:
        raise RowError("broken JSON", "JSON nested too deeply", "write one flat JSON object on one line") from None
    except ValueError:  # a whole number of thousands of digits
        raise RowError("broken JSON", "a number has too many digits", "write it in fewer digits") from None


@dataclass
class ErrorLog:
    """Every bad row of one call, by place and reason.

    Parameters
    ----------
    on_error : {"raise", "skip"}
        What :meth:`finish` does with them.
    max_shown : int
        How many rows are written out in full in the error (or in ``info["skipped"]["examples"]``).
    """

    on_error: str = "raise"
    max_shown: int = 20
    total: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    places: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    examples: list[tuple[str, int, RowError]] = field(default_factory=list)

    def add(self, path: str, line: int, error: RowError) -> None:
        """Write down one bad row."""
        self.total += 1
        self.reasons[error.reason] += 1
        self.places.setdefault(path, {}).setdefault(error.reason, []).append(line)
        if len(self.examples) < max(self.max_shown, 1):
            self.examples.append((path, line, error))

    def finish(self) -> None:
        """Raise the one DataError that lists the bad rows, if there are any and they may not be skipped."""
        if self.total and self.on_error == "raise":
            raise self.error()

    def error(self, headline: str = "") -> DataError:
        """Return the DataError for what was logged; its path and line are those of the first bad row."""
        path, line, first = self.examples[0]
        lines = [f"{headline}{first.what}; {first.remedy}."]
        lines += [f"  {where}:{at}: {error.what}; {error.remedy}." for where, at, error in self.examples[1:]]
        if self.total > len(self.examples):
            lines.append(f"  ... and {self.total - len(self.examples)} more.")
        if self.total > 1:
            counts = ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common())
            lines.append(f"{self.total} bad rows in all: {counts}. Mend them, or skip them with on_error='skip'.")
        else:
            lines[0] += " To leave bad rows out, read with on_error='skip'."
        return DataError("\n".join(lines), path, line)

    def to_info(self) -> dict[str, Any]:
        """Return the log as JSON values: total, counts by reason, the lines by file and reason, and examples."""
        return {
            "rows": self.total,
            "reasons": dict(sorted(self.reasons.items())),
            "lines": {path: {reason: list(at) for reason, at in by.items()} for path, by in self.places.items()},
            "examples": [f"{path}:{line}: {error.what}; {error.remedy}" for path, line, error in self.examples],
        }


def absent(row: Mapping[str, Any], column: str | None) -> bool:
    """Whether a row leaves an optional field out: no such column, null, or an empty cell."""
    if column is None:
        return True
    value = row.get(column)
    return value is None or (isinstance(value, str) and not value)
