"""Tables as facts: typed columns and rows of numbers, checked when they are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.reporting.plain import brackets, choice, fields, number, sequence, slug, text

KINDS = ("text", "integer", "number", "share", "interval", "seconds", "bytes", "p")
BEST = ("max", "min")
_MAX_DIGITS = 12


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    key : str
        The key of the column's cells in each row.
    label : str
        What the reader sees.
    kind : {"text", "integer", "number", "share", "interval", "seconds", "bytes", "p"}, default "text"
        What the cells are, and so how they are shown: a share as 0.683 (never percent), an interval as
        0.683 [0.66, 0.70], seconds and bytes with a unit, p with a floor (<0.001).
    digits : int, optional
        Decimals; without it, three for shares, intervals and p, and as many as the column's size asks for otherwise.
    best : {"max", "min"}, optional
        Which end is better; the best cells are then shown in bold (within each group where a table has groups).
    note : str, optional
        A footnote.
    """

    key: str
    label: str
    kind: str = "text"
    digits: int | None = None
    best: str | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        place = f"column {self.key!r}"
        text(self.key, "a column's key")
        text(self.label, f"{place}: label")
        choice(self.kind, place, "column kind", KINDS)
        if self.digits is not None and (
            isinstance(self.digits, bool) or not isinstance(self.digits, int) or not 0 <= self.digits <= _MAX_DIGITS
        ):
            raise InvalidInputError(
                f"{place}: digits is a whole number from 0 to {_MAX_DIGITS}, and {self.digits!r} came."
            )
        if self.best is not None:
            choice(self.best, place, "value of best", BEST)
            if self.kind == "text":
                raise InvalidInputError(f"{place}: text has no best cell. Leave best out or give the column's kind.")
        if self.note is not None:
            text(self.note, f"{place}: note")

    def to_dict(self) -> dict[str, Any]:
        """Return the column as plain data; what was not given is left out."""
        facts: dict[str, Any] = {"key": self.key, "label": self.label, "kind": self.kind}
        extra = {"digits": self.digits, "best": self.best, "note": self.note}
        return facts | {key: value for key, value in extra.items() if value is not None}

    @classmethod
    def of(cls, value: Column | Mapping[str, Any], place: str) -> Column:
        """Return a column from a column or from its plain data."""
        if isinstance(value, Column):
            return value
        facts = fields(value, place, ("key", "label"), ("kind", "digits", "best", "note"))
        try:
            return cls(**facts)
        except InvalidInputError as error:
            raise InvalidInputError(f"{place}: {error}") from None


@dataclass(frozen=True, init=False)
class Table:
    """A table of facts.

    Parameters
    ----------
    name : str
        A slug, unique in its report: the anchor in the HTML.
    title : str
        What the table shows.
    columns : sequence of Column or mapping
        The columns, left to right. The first one names the rows and is repeated where a wide table is split.
    rows : sequence of mapping
        Each row has every column's key. A cell is text or a number by its column's kind, or
        ``{"value": v, "low": a, "high": b, "n": count}`` in a numeric column (``low`` and ``high`` both None, or both
        left out, where no interval is known; ``n`` optional: HTML shows it on pointing, for every reader give counts a
        column), or None where there is nothing to show.
    caption : str, default ""
        How to read it: sample, interval, micro or macro.
    row_groups : str, optional
        A key of every row (a text column's, or one of its own) whose value heads a group of consecutive rows.

    Raises
    ------
    InvalidInputError
        Anything else, with the row and the column: unknown or missing keys, NaN, infinities, a value that is not of
        its column's kind.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[dict[str, Any], ...]
    caption: str
    row_groups: str | None

    def __init__(
        self,
        name: str,
        title: str,
        columns: Sequence[Column | Mapping[str, Any]],
        rows: Sequence[Mapping[str, Any]],
        caption: str = "",
        row_groups: str | None = None,
    ) -> None:
        place = f"table {slug(name, 'a table name')!r}"
        made = tuple(Column.of(c, f"{place}: columns[{i}]") for i, c in enumerate(sequence(columns, place)))
        keys = [column.key for column in made]
        repeated = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
        if repeated is not None:
            raise InvalidInputError(f"{place}: two columns have the key {repeated!r}. Give each its own.")
        if row_groups is not None:
            text(row_groups, f"{place}: row_groups")
            if any(column.key == row_groups and column.kind != "text" for column in made):
                raise InvalidInputError(f"{place}: row_groups names {row_groups!r}, which is not a text column.")
        if not [key for key in keys if key != row_groups]:
            raise InvalidInputError(f"{place}: a table needs at least one column beside its row_groups.")
        kinds = {column.key: column.kind for column in made}
        if row_groups is not None:
            kinds.setdefault(row_groups, "text")
        checked = tuple(_row(row, kinds, f"{place}: rows[{i}]") for i, row in enumerate(sequence(rows, place)))
        # The dataclass is frozen; this is its one moment of assignment.
        values = {
            "name": name,
            "title": text(title, f"{place}: title"),
            "columns": made,
            "rows": checked,
            "caption": text(caption, f"{place}: caption"),
            "row_groups": row_groups,
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def to_dict(self) -> dict[str, Any]:
        """Return the table as plain data."""
        facts: dict[str, Any] = {
            "name": self.name,
            "title": self.title,
            "caption": self.caption,
            "columns": [column.to_dict() for column in self.columns],
            "rows": [{k: dict(v) if isinstance(v, dict) else v for k, v in row.items()} for row in self.rows],
        }
        return facts if self.row_groups is None else facts | {"row_groups": self.row_groups}

    @classmethod
    def of(cls, value: Table | Mapping[str, Any], place: str) -> Table:
        """Return a table from a table or from its plain data."""
        if isinstance(value, Table):
            return value
        return cls(**fields(value, place, ("name", "title", "columns", "rows"), ("caption", "row_groups")))


def _row(row: Any, kinds: Mapping[str, str], place: str) -> dict[str, Any]:
    """Return a row with exactly the table's keys, in the order of its columns."""
    if not isinstance(row, Mapping):
        raise InvalidInputError(f"{place}: a mapping was expected, and a {type(row).__name__} came.")
    for key in row:
        if key not in kinds:
            raise InvalidInputError(f"{place}: {unknown_name('column', key, kinds)}")
    for key in kinds:
        if key not in row:
            raise InvalidInputError(f"{place} lacks the column {key!r}. Write None where a value is absent.")
    return {key: cell(row[key], kind, f"{place}[{key!r}]") for key, kind in kinds.items()}


def cell(value: Any, kind: str, place: str) -> Any:
    """Return one cell as plain data of its column's kind."""
    if value is None:
        return None
    if kind == "text":
        if not isinstance(value, str):
            raise InvalidInputError(
                f"{place}: the column holds text, and a {type(value).__name__} came. Give the column its kind "
                f"({', '.join(KINDS[1:])}) or make the value a string."
            )
        return text(value, place)
    if not isinstance(value, Mapping):
        return _of_kind(value, kind, place)
    facts = fields(value, place, ("value",), ("low", "high", "n"))
    result: dict[str, Any] = {"value": _of_kind(facts["value"], kind, f"{place}.value")}
    low, high = brackets(facts.get("low"), facts.get("high"), place)
    result |= {"low": low, "high": high}
    if facts.get("n") is not None:
        result["n"] = _of_kind(facts["n"], "integer", f"{place}.n")
    return result


def _of_kind(value: Any, kind: str, place: str) -> float | int:
    if value is None:
        raise InvalidInputError(f"{place} is None; make the whole cell None where a value is absent.")
    result = number(value, place)
    if kind == "integer":
        if result != int(result):
            raise InvalidInputError(f"{place} is {result!r}, and the column holds whole numbers. Use kind 'number'.")
        return int(result)
    if kind in ("share", "p") and not 0 <= result <= 1:
        raise InvalidInputError(
            f"{place} is {result!r}, and a {kind} lies in [0, 1]. For a difference or a percentage use kind 'number'."
        )
    if kind in ("seconds", "bytes") and result < 0:
        raise InvalidInputError(f"{place} is {result!r}, and {kind} cannot be negative. Use kind 'number'.")
    return result
