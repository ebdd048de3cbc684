"""Figures of a sweep: accuracy over each setting, and over what it cost."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from embedrm.experiments.experiment_run import shown
from embedrm.experiments.sweep_tidy import comparable, over_seeds, pareto, sort_key
from embedrm.experiments.trial_metrics import chance, lower_is_better, title
from embedrm.experiments.value_labels import name_in
from embedrm.reporting import Figure
from embedrm.reporting.figures import MAX_SERIES

_WIDE = 30.0
_MAX_POINTS, _NUMBERED = 400, 20
# Below this accuracy the line of chance is shown; above, it would only flatten the others.
_NEAR_CHANCE = 0.56

Rows = Sequence[Mapping[str, Any]]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-")[:60] or "axis"


def values_of(rows: Rows, path: str) -> list[Any]:
    """Return the values that a path takes in some rows, ordered."""
    found = {shown(row["settings"][path]): row["settings"][path] for row in rows}
    return sorted(found.values(), key=sort_key)


def _is_numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) and np.isfinite(v) for v in values)


def axis_figures(
    rows: Sequence[dict[str, Any]], varied: Sequence[str], split: str, metric: str, drawn: Collection[str] = ()
) -> list[Figure]:
    """Return one figure for each varied path: lines over numbers, dots with whiskers over names.

    Lines are by the other path with the fewest values, if it has at most a dozen. A point is the mean over all else, and
    its whiskers the interval of that mean over seeds. Over numbers that were ``drawn`` each variant is a point of its own:
    all else was drawn with them, and a line would join what has little in common.
    """
    out = []
    for path in varied:
        alike = comparable(rows, path)
        values = values_of(alike, path)
        known = [v for v in values if v is not None]
        # a default among numbers has no place on their axis; the table has it
        values = known if len(known) > 1 and _is_numeric(known) else values
        if len(values) < 2:
            continue
        others = [p for p in varied if p != path and 2 <= len(values_of(alike, p)) <= MAX_SERIES]
        by = min(others, key=lambda p: len(values_of(alike, p))) if others else None
        draw = _dots if not _is_numeric(values) else _points if path in drawn and len(values) > MAX_SERIES else _lines
        out.append(draw(alike, path, values, by, split, metric))
    return out


def groups_of(rows: Rows, by: str | None) -> list[tuple[str, Rows]]:
    """Return the rows by the values of a path, with what a line of each is called; all of them, without a name, for None."""
    if by is None:
        return [("", rows)]
    return [
        (f"{by.rpartition('.')[2]}={name_in(rows, by, v)}", [r for r in rows if shown(r["settings"][by]) == shown(v)])
        for v in values_of(rows, by)
    ]


def _cells(rows: Rows, path: str, values: Sequence[Any], split: str) -> list[dict[str, Any] | None]:
    out: list[dict[str, Any] | None] = []
    for value in values:
        mine = [row for row in rows if shown(row["settings"][path]) == shown(value)]
        out.append(over_seeds(mine, split) if mine else None)
    return out


def _lines(rows: Rows, path: str, values: Sequence[Any], by: str | None, split: str, metric: str) -> Figure:
    series = []
    for name, group in groups_of(rows, by):
        cells = [(v, c) for v, c in zip(values, _cells(group, path, values, split)) if c is not None]
        if cells:
            series.append({"label": name, "x": [float(v) for v, _ in cells], **_ends([c for _, c in cells])})
    data: dict[str, Any] = {"series": series, "x_label": path, "y_label": _axis(metric, split), **_scale(values)}
    near = chance(metric) == 0.5 and min(min(one["y"]) for one in series) < _NEAR_CHANCE
    data |= {"reference": [{"value": 0.5, "label": "chance"}]} if near else {}
    return Figure(f"over-{_slug(path)}", f"{_axis(metric, split)} over {path}", "lines", data, caption=_caption(by))


def _points(rows: Rows, path: str, values: Sequence[Any], by: str | None, split: str, metric: str) -> Figure:
    series = []
    for name, group in groups_of(rows, by):
        known = [row for row in group if row["settings"][path] is not None][:_MAX_POINTS]
        if known:
            x = [float(row["settings"][path]) for row in known]
            series.append({"label": name, "x": x, "y": [row["splits"][split]["value"] for row in known]})
    data: dict[str, Any] = {"series": series, "x_label": path, "y_label": _axis(metric, split), **_scale(values)}
    apart = "" if by is None else f" Colours by {by}."
    caption = f"A point is a variant, averaged over its seeds; the other settings were drawn with this one.{apart}"
    return Figure(f"over-{_slug(path)}", f"{_axis(metric, split)} over {path}", "scatter", data, caption=caption)


def _scale(values: Sequence[float]) -> dict[str, str]:
    wide = min(values) > 0 and max(values) / min(values) >= _WIDE
    return {"x_scale": "log"} if wide else {}


def _dots(rows: Rows, path: str, values: Sequence[Any], by: str | None, split: str, metric: str) -> Figure:
    series = []
    for name, group in groups_of(rows, by):
        ends = _ends(_cells(group, path, values, split))
        series.append({"label": name, "values": ends.pop("y"), **ends})
    data: dict[str, Any] = {
        "categories": [name_in(rows, path, v) for v in values],
        "series": series,
        "x_label": _axis(metric, split),
        "y_label": path,
    }
    return Figure(
        f"over-{_slug(path)}", f"{_axis(metric, split)} over {path}", "intervals", data, caption=_caption(by, "Colours")
    )


def _ends(cells: Sequence[Mapping[str, Any] | None]) -> dict[str, list[Any]]:
    out: dict[str, list[Any]] = {"y": [None if c is None else c["value"] for c in cells]}
    if any(c is not None and c["low"] is not None for c in cells):
        for end in ("low", "high"):
            out[end] = [None if c is None or c["low"] is None else c[end] for c in cells]
    return out


def _axis(metric: str, split: str) -> str:
    return f"{title(metric)} on {split}"


def _caption(by: str | None, what: str = "Lines") -> str:
    apart = "" if by is None else f" {what} by {by}; other settings are averaged."
    return f"Means, with 95 % intervals over seeds where seeds change the result.{apart}"


def cost_figures(rows: Rows, split: str, metric: str) -> list[Figure]:
    """Accuracy against parameters and against seconds, with the points of the front apart and numbered.

    A cost that is the same for all variants has no figure.
    """
    sign = -1.0 if lower_is_better(metric) else 1.0
    out = []
    for cost, called in (("parameters", "parameters"), ("seconds", "seconds of one fit")):
        known = [row for row in rows if row.get(cost)]
        if len({row[cost] for row in known}) < 2:
            continue
        marks = pareto([(row[cost], sign * row["splits"][split]["value"]) for row in known])
        series = []
        for name, wanted in (("on the front", True), ("others", False)):
            part = [row for row, mark in zip(known, marks) if mark == wanted][:_MAX_POINTS]
            if part:
                series.append(
                    {
                        "label": name,
                        "x": [float(row[cost]) for row in part],
                        "y": [row["splits"][split]["value"] for row in part],
                    }
                    | (
                        # names of settings would cover one another
                        {"names": [str(row["variant"]) for row in part]} if wanted and len(part) <= _NUMBERED else {}
                    )
                )
        data: dict[str, Any] = {"series": series, "x_label": called, "y_label": _axis(metric, split)}
        data |= _scale([float(row[cost]) for row in known])
        caption = "A point is a variant, averaged over its seeds; numbers are those of the table of variants."
        out.append(Figure(f"cost-{cost}", f"{_axis(metric, split)} against {called}", "scatter", data, caption=caption))
    return out
