"""Figures and provenance as lists and tables, for readers who do not see pictures or nesting."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from embedrm.reporting.figures import Figure
from embedrm.reporting.formatting import ABSENT, fitting_digits, one_line, seconds, size, thousands
from embedrm.reporting.tables import Column, Table

_PICTURES = {
    "intervals": "Dot-and-whisker chart",
    "bars": "Bar chart",
    "heatmap": "Heat map",
    "lines": "Line chart",
    "scatter": "Scatter plot",
}


def alternative(figure: Figure) -> str:
    """Return a figure's alternative text: the kind of picture, its title and its caption."""
    kind, data = _PICTURES[figure.kind], figure.data
    names = [series["label"] for series in data.get("series", []) if series["label"]]
    shown = f" Series: {', '.join(names)}." if names else ""
    ending = "" if figure.title.endswith((".", "?", "!")) else "."
    caption = f" {figure.caption}" if figure.caption else ""
    return one_line(f"{kind}: {figure.title}{ending}{shown}{caption}")


def figure_table(figure: Figure) -> Table:
    """Return the numbers that a figure shows, as a table (named after the figure with ``-numbers``)."""
    data, kind = figure.data, figure.kind
    columns, rows = _heatmap(data) if kind == "heatmap" else _wide(data) if "categories" in data else _long(data)
    groups = "series" if "series" in data and "categories" not in data else None
    return Table(f"{figure.name[:71]}-numbers", figure.title, columns, rows, row_groups=groups)


def _cell(series: Mapping[str, Any], key: str, i: int) -> Any:
    value = series[key][i]
    if value is None or "low" not in series:
        return value
    return {"value": value, "low": series["low"][i], "high": series["high"][i]}


def _wide(data: Mapping[str, Any]) -> tuple[list[Column], list[dict[str, Any]]]:
    values = [v for one in data["series"] for v in one["values"] if v is not None]
    digits = fitting_digits(values)
    columns = [Column("category", data["y_label"])]
    columns += [Column(f"s{j}", s["label"] or data["x_label"], "number", digits) for j, s in enumerate(data["series"])]
    rows = [
        {"category": name} | {f"s{j}": _cell(s, "values", i) for j, s in enumerate(data["series"])}
        for i, name in enumerate(data["categories"])
    ]
    return columns, rows


def _heatmap(data: Mapping[str, Any]) -> tuple[list[Column], list[dict[str, Any]]]:
    digits = data.get("digits", 2)
    columns = [Column("row", data["row_label"])]
    columns += [Column(f"c{j}", name, "number", digits) for j, name in enumerate(data["columns"])]
    rows = [
        {"row": name} | {f"c{j}": v for j, v in enumerate(values)} for name, values in zip(data["rows"], data["values"])
    ]
    return columns, rows


def _long(data: Mapping[str, Any]) -> tuple[list[Column], list[dict[str, Any]]]:
    ticks = dict(zip(data["x"]["ticks"], data["x"]["labels"])) if "x" in data else {}
    named = any("names" in one for one in data["series"])
    columns = [Column("name", "Point")] if named else []
    columns += [Column("at", data["x_label"])] if ticks else [Column("x", data["x_label"], "number")]
    columns += [Column("y", data["y_label"], "number")]
    rows = []
    for one in data["series"]:
        for i, x in enumerate(one["x"]):
            row: dict[str, Any] = {"series": one["label"], "y": _cell(one, "y", i)}
            row |= {"at": ticks.get(x, thousands(f"{x:g}"))} if ticks else {"x": x}
            row |= {"name": one["names"][i] if "names" in one else None} if named else {}
            rows.append(row)
    return columns, rows


def provenance_groups(provenance: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return provenance as groups of (key, value) lines; the first group, named '', holds what is not nested."""
    groups: dict[str, list[tuple[str, str]]] = {"": []}
    for key, value in provenance.items():
        if isinstance(value, Mapping):
            groups[key] = _flat(value, "")
        else:
            groups[""].append(_line(key, value))
    return [(one_line(name), lines) for name, lines in groups.items() if lines]


def _flat(value: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    lines = []
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            lines += _flat(item, f"{prefix}{key}.")
        else:
            lines.append(_line(f"{prefix}{key}", item))
    return lines


def _line(key: str, value: Any) -> tuple[str, str]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
    if number and key.endswith("_bytes"):
        return one_line(key[: -len("_bytes")]), size(value)
    if number and key.split(".")[-1] == "seconds":
        return one_line(key), seconds(value)
    return one_line(key), _value(value)


def _value(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value) if value else "none"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{one_line(k)}: {_value(v)}" for k, v in value.items()) + "}" if value else "none"
    return one_line(str(value))


def headline(provenance: Mapping[str, Any]) -> list[str]:
    """Return the few facts of :func:`~embedrm.reporting.provenance.collect` that belong under a title."""
    parts = []
    if isinstance(provenance.get("embedrm"), str):
        parts.append(f"embedrm {provenance['embedrm']}")
    if isinstance(provenance.get("time"), str):
        try:
            moment = datetime.fromisoformat(provenance["time"].replace("Z", "+00:00"))
            parts.append(f"{moment.day} {moment:%B %Y, %H:%M} UTC")
        except ValueError:  # a caller's own form of time is shown as it is
            parts.append(provenance["time"])
    if isinstance(provenance.get("seconds"), (int, float)) and provenance["seconds"] >= 0:
        parts.append(seconds(provenance["seconds"]))
    memory = provenance.get("memory")
    if isinstance(memory, Mapping) and isinstance(memory.get("peak_resident_bytes"), int):
        parts.append(f"peak memory {size(memory['peak_resident_bytes'])}")
    return [one_line(part) for part in parts]
