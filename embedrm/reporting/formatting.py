"""How facts read: one place that turns numbers into text, shared by every rendering.

Formatting is all that happens here. Picking the best cell of a column is formatting too: cells that *read* the same
as the best one are all best.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from embedrm.reporting.tables import Column, Table

ABSENT = "–"
"""Stands where a value is absent."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")


@dataclass(frozen=True)
class Shown:
    """One cell as it reads: the value, its interval, and whether it is absent or the best of its column."""

    value: str
    interval: str = ""
    n: int | None = None
    absent: bool = False
    best: bool = False

    @property
    def plain(self) -> str:
        """The cell on one line."""
        return f"{self.value} {self.interval}" if self.interval else self.value


@dataclass(frozen=True)
class Grid:
    """A table as it reads.

    ``columns`` leaves out the column that heads row groups; ``cells[i][j]`` is row i, column j; ``groups[i]`` heads
    row i where a new group begins there, else None. ``marks[j]`` is the footnote mark of column j, or ''; ``notes`` are
    the footnotes with their marks.
    """

    columns: tuple[Column, ...]
    cells: tuple[tuple[Shown, ...], ...]
    groups: tuple[str | None, ...]
    marks: tuple[str, ...]
    notes: tuple[tuple[str, str], ...]
    best_note: str


def visible(value: str) -> str:
    """Return text with control characters replaced by U+FFFD, so that data cannot drive a terminal or break XML."""
    return _UNPRINTABLE.sub("\ufffd", value.replace("\r\n", "\n"))


def one_line(value: str) -> str:
    """Return visible text with line breaks and tabs as single spaces."""
    return re.sub(r"[\n\t]+", " ", visible(value))


def grid(table: Table) -> Grid:
    """Return a table as it reads."""
    columns = tuple(c for c in table.columns if c.key != table.row_groups)
    group_of = [None if table.row_groups is None else _group(row[table.row_groups]) for row in table.rows]
    shown = {c.key: _column(c, [row[c.key] for row in table.rows]) for c in columns}
    for c in columns:
        if c.best is not None:
            _mark_best(c, [row[c.key] for row in table.rows], shown[c.key], group_of)
    notes: dict[str, str] = {}
    for c in columns:
        if c.note and c.note not in notes:
            notes[c.note] = _letter(len(notes))
    any_best = any(cell.best for cells in shown.values() for cell in cells)
    best_note = (
        ("best of its column within its group" if table.row_groups else "best of its column") if any_best else ""
    )
    return Grid(
        columns=columns,
        cells=tuple(tuple(shown[c.key][i] for c in columns) for i in range(len(table.rows))),
        groups=tuple(g if i == 0 or g != group_of[i - 1] else None for i, g in enumerate(group_of)),
        marks=tuple(notes.get(c.note or "", "") for c in columns),
        notes=tuple((mark, one_line(note)) for note, mark in notes.items()),
        best_note=best_note,
    )


def _group(value: str | None) -> str:
    return ABSENT if value is None else one_line(value)


def _letter(index: int) -> str:
    return chr(ord("a") + index % 26) * (1 + index // 26)


def _column(column: Column, cells: list[Any]) -> list[Shown]:
    if column.kind == "text":
        return [Shown(ABSENT, absent=True) if c is None else Shown(visible(c)) for c in cells]
    digits = _digits(column, [c["value"] if isinstance(c, Mapping) else c for c in cells if c is not None])
    bounded = [c for c in cells if isinstance(c, Mapping) and c["low"] is not None]
    bound_digits = _bound_digits(bounded, digits)
    result = []
    for c in cells:
        if c is None:
            result.append(Shown(ABSENT, absent=True))
        elif not isinstance(c, Mapping):
            result.append(Shown(show(c, column, digits)))
        else:
            value = show(c["value"], column, digits)
            ends = ""
            if c["low"] is not None:
                ends = f"[{show(c['low'], column, bound_digits)}, {show(c['high'], column, bound_digits)}]"
            result.append(Shown(value, ends, n=c.get("n")))
    return _alike(result)


def _alike(cells: list[Shown]) -> list[Shown]:
    """Where one number of a column has a comma, so have the others of four digits."""
    if not any(re.search(r"\d,\d{3}", cell.value) for cell in cells):
        return cells
    return [replace(cell, value=re.sub(r"^(-?\d)(\d{3})(?=\.|$)", r"\1,\2", cell.value)) for cell in cells]


def _mark_best(column: Column, cells: list[Any], shown: list[Shown], groups: list[str | None]) -> None:
    pick = max if column.best == "max" else min
    for group in set(groups):
        members = [i for i, g in enumerate(groups) if g == group and cells[i] is not None]
        if len(members) < 2:  # one cell has nothing to be better than
            continue
        values = {i: cells[i]["value"] if isinstance(cells[i], Mapping) else cells[i] for i in members}
        best = shown[pick(values, key=lambda i: values[i])].value
        winners = [i for i in members if shown[i].value == best]
        if len(winners) == len(members):
            continue
        for i in winners:
            shown[i] = replace(shown[i], best=True)


def _digits(column: Column, values: list[float]) -> int | None:
    """Decimals of a column: those asked for, or those its largest value calls for."""
    if column.digits is not None or column.kind in ("seconds", "bytes", "integer"):
        return column.digits
    if column.kind in ("share", "interval", "p"):
        return 3
    return fitting_digits(values)


def fitting_digits(values: list[float]) -> int:
    """Decimals that show about four significant digits of the largest value."""
    size = max((abs(v) for v in values), default=0.0)
    if size == 0:
        return 0
    if all(float(v).is_integer() for v in values) and size < 1e15:
        return 0
    return min(max(3 - max(math.floor(math.log10(size)), 0), 0) + max(-math.floor(math.log10(size)) - 1, 0), 9)


def _bound_digits(cells: list[Any], digits: int | None) -> int | None:
    """One decimal fewer for an interval's ends, unless that hides a sign or makes an interval look empty."""
    if digits is None or digits < 3:
        return digits
    fewer = digits - 1
    for c in cells:
        ends = (c["low"], c["high"])
        if any(end != 0 and round(end, fewer) == 0 for end in ends):
            return digits
        if ends[0] != ends[1] and round(ends[0], fewer) == round(ends[1], fewer):
            return digits
    return fewer


def show(value: float, column: Column, digits: int | None) -> str:
    """Return one number as it reads in a column."""
    if column.kind == "seconds":
        return seconds(value, digits)
    if column.kind == "bytes":
        return size(value, digits)
    if column.kind == "integer" and isinstance(value, int):
        return thousands(str(value))
    places = 3 if digits is None else digits
    floor = 10.0**-places
    if column.kind == "share" and 0 < value < floor / 2:
        return f"<{floor:.{places}f}"
    if column.kind == "p" and value < floor:  # zero too: it is the resolution of a resampling, not a certainty
        return f"<{floor:.{places}f}"
    if column.kind == "number" and column.digits is None and value != 0 and abs(value) < floor / 2:
        return f"{value:.1e}"
    if abs(value) >= 1e15:
        return f"{value:.4g}"
    return thousands(f"{value or 0:.{places}f}")  # "or 0": no negative zero


def thousands(digits: str) -> str:
    """Return digits with commas, from five digits before the point on (so that 2024 stays a year)."""
    sign, body = ("-", digits[1:]) if digits.startswith("-") else ("", digits)
    whole, point, rest = body.partition(".")
    return f"{sign}{int(whole):,}{point}{rest}" if len(whole) >= 5 and whole.isdigit() else digits


def seconds(value: float, digits: int | None = None) -> str:
    """Return a duration with the unit that suits it; ``digits`` keeps it in seconds."""
    if digits is not None:
        return f"{value:.{digits}f} s"
    if value == 0:
        return "0 s"
    if value < 0.9995e-3:
        return f"{value * 1e6:.0f} µs" if value >= 0.5e-6 else f"{value:.1e} s"
    if value < 0.9995:
        return f"{value * 1e3:.0f} ms"
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 59.5:
        return f"{value:.0f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(value / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(value: float, digits: int | None = None) -> str:
    """Return a number of bytes with a binary unit."""
    amount, unit = float(value), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1024, larger
    if unit == "B" and digits is None:
        return f"{amount:.0f} B"
    places = digits if digits is not None else 0 if amount >= 99.5 else 1
    return f"{amount:.{places}f} {unit}"
