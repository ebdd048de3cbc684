"""Intervals, bars, lines and scatter, drawn on a matplotlib figure from checked facts; and what pictures share."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from embedrm.reporting.formatting import ABSENT, thousands, visible
from embedrm.reporting.palette import (
    DASHES,
    GRID,
    INK,
    MARKERS,
    MUTED,
    PAPER,
    SERIES,
)

WIDTH = 7.2
"""Inches: a text column's width, at which nine-point text reads as in the page."""

SMALL = 8.0
_LEGEND_LABEL = 44
CATEGORY_LABEL = 24


def wrapped(value: str, width: int) -> str:
    """Return text in lines of at most ``width`` letters."""
    return "\n".join(textwrap.wrap(visible(value).replace("\n", " "), width) or [""])


def label_lines(labels: Sequence[str]) -> int:
    """Return the lines of the tallest label."""
    return max((label.count("\n") + 1 for label in labels), default=1)


def _look(j: int) -> dict[str, Any]:
    """Colour and marker of series j; the second round of colours is hollow."""
    colour = SERIES[j % len(SERIES)]
    hollow = j >= len(SERIES)
    return {
        "color": colour,
        "marker": MARKERS[j % len(MARKERS)],
        "markerfacecolor": PAPER if hollow else colour,
        "markeredgecolor": colour,
        "markeredgewidth": 1.0,
    }


def nan(values: Sequence[float | None]) -> np.ndarray:
    """Absent values as NaN, which matplotlib leaves out."""
    return np.array([math.nan if v is None else float(v) for v in values], dtype=np.float64)


def nothing(drawing: Drawing) -> None:
    """Say that there is no data, which is a fact too."""
    drawing.set_size_inches(WIDTH, 1.2)
    axes = drawing.add_subplot()
    axes.axis("off")
    axes.text(0.5, 0.5, "No data", ha="center", va="center", color=MUTED, transform=axes.transAxes)


def begin(drawing: Drawing, x_label: str, y_label: str) -> Axes:
    """Return new axes with their labels."""
    axes = drawing.add_subplot()
    axes.set_xlabel(wrapped(x_label, 80))
    axes.set_ylabel(wrapped(y_label, 40))
    return axes


def _legend(drawing: Drawing, handles: list[Any], labels: list[str]) -> None:
    """A legend above the axes, in as many columns as fit, so that it never covers data."""
    shown = [(h, wrapped(label, _LEGEND_LABEL)) for h, label in zip(handles, labels) if label]
    if not shown:
        return
    width = drawing.get_size_inches()[0] * drawing.dpi
    for columns in range(min(len(shown), 6), 0, -1):
        legend = drawing.legend(
            *zip(*shown),
            loc="outside upper left",
            ncols=columns,
            borderaxespad=0.3,
            borderpad=0.2,
            columnspacing=1.8,
            handlelength=1.9,
            handletextpad=0.6,
        )
        legend.set_gid("legend")
        if columns == 1 or legend.get_window_extent().width <= 0.98 * width:
            return
        legend.remove()


def _references(drawing: Drawing, axes: Axes, lines: Sequence[dict[str, Any]], vertical: bool) -> None:
    """Dashed lines with their names in the margin: above a vertical one, to the right of a horizontal one."""
    placed: list[tuple[float, float, float]] = []
    drawing.draw_without_rendering()
    point = drawing.dpi / 72
    for i, line in enumerate(sorted(lines, key=lambda one: one["value"])):
        draw_line = axes.axvline if vertical else axes.axhline
        draw_line(line["value"], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1.5, gid=f"reference-{i}")
        note = axes.annotate(
            wrapped(line["label"], 28 if vertical else 18),
            (line["value"], 1.0) if vertical else (1.0, line["value"]),
            xycoords=axes.get_xaxis_transform() if vertical else axes.get_yaxis_transform(),
            xytext=(0, 3) if vertical else (4, 0),
            textcoords="offset points",
            ha="center" if vertical else "left",
            va="bottom" if vertical else "center",
            fontsize=SMALL,
            color=MUTED,
        )
        box = note.get_window_extent()
        if vertical:  # names that would meet go one above the other
            rise = 0.0
            while any(box.x0 < right + 4 and box.x1 > left - 4 and rise < top for left, right, top in placed):
                rise = min(top for left, right, top in placed if rise < top)
            note.set_position((0, 3 + rise / point))
            placed.append((box.x0, box.x1, rise + box.height + 2))
        else:  # a name that would touch the one below moves up, just enough
            rise = max(0.0, max((top for _, _, top in placed), default=0.0) + 1 - box.y0) if placed else 0.0
            note.set_position((4, rise / point))
            placed.append((box.x0, box.x1, box.y1 + rise))


def _value_limits(axes: Axes, data: dict[str, Any], vertical_values: bool) -> None:
    if "limits" in data:
        (axes.set_ylim if vertical_values else axes.set_xlim)(*data["limits"])


def _plain_ticks(axes: Axes, which: str, scale: str, values: Sequence[float]) -> None:
    """Numbers as numbers on a log axis, at the data's own places where those are few."""
    if scale != "log":
        return
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    places = sorted(set(values))
    if 1 < len(places) <= 8 and all(b / a >= 1.4 for a, b in pairwise(places)):
        axis.set_major_locator(FixedLocator(places))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: thousands(f"{value:.6g}")))


def _rows(drawing: Drawing, data: dict[str, Any], minimum: float, step: float) -> tuple[Axes, np.ndarray, float]:
    """Axes with one row per category, first on top; returns their places and the dodge between series."""
    names = [wrapped(name, CATEGORY_LABEL) for name in data["categories"]]
    n_series = len(data["series"])
    row = max(minimum, step * n_series + 0.12, 0.155 * label_lines(names) + 0.06)
    legend = 0.35 + 0.1 * n_series if any(s["label"] for s in data["series"]) else 0.1
    drawing.set_size_inches(WIDTH, 0.75 + legend + row * len(names))
    axes = begin(drawing, data["x_label"], data["y_label"])
    places = np.arange(len(names), dtype=np.float64)
    axes.set_yticks(places, names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    if n_series > 1:
        for edge in places[1:] - 0.5:
            axes.axhline(edge, color=GRID, linewidth=0.6, zorder=0.5)
    return axes, places, min(step / row, 0.8 / max(n_series, 1))


def _mark_absent(axes: Axes, y: float, colour: str) -> None:
    axes.text(
        0.006, y, ABSENT, transform=axes.get_yaxis_transform(), color=colour, va="center", ha="left", fontsize=SMALL
    )


def intervals(drawing: Drawing, data: dict[str, Any]) -> None:
    """Dots and whiskers, a category per row, series side by side within it."""
    if not data["categories"] or not data["series"]:
        return nothing(drawing)
    axes, places, dodge = _rows(drawing, data, minimum=0.27, step=0.14)
    handles, n = [], len(data["series"])
    for j, series in enumerate(data["series"]):
        look, at = _look(j), places + (j - (n - 1) / 2) * dodge
        values = nan(series["values"])
        if "low" in series:
            low, high = nan(series["low"]), nan(series["high"])
            known = ~np.isnan(low)
            segments = [[(a, y), (b, y)] for a, b, y in zip(low[known], high[known], at[known])]
            axes.add_collection(
                LineCollection(segments, colors=look["color"], linewidths=1.3, zorder=2.5, gid=f"series-{j}-interval")
            )
        (line,) = axes.plot(values, at, linestyle="none", markersize=4.6, zorder=3, gid=f"series-{j}", **look)
        handles.append(line)
        for y in at[np.isnan(values)]:
            _mark_absent(axes, float(y), look["color"])
    _legend(drawing, handles, [series["label"] for series in data["series"]])
    _value_limits(axes, data, vertical_values=False)
    _references(drawing, axes, data.get("reference", []), vertical=True)


def bars(drawing: Drawing, data: dict[str, Any]) -> None:
    """Horizontal bars from zero, a category per row, series side by side within it."""
    if not data["categories"] or not data["series"]:
        return nothing(drawing)
    axes, places, dodge = _rows(drawing, data, minimum=0.27, step=0.17)
    handles, n = [], len(data["series"])
    for j, series in enumerate(data["series"]):
        look, at = _look(j), places + (j - (n - 1) / 2) * dodge
        values = nan(series["values"])
        hollow = look["markerfacecolor"] == PAPER
        drawn = axes.barh(
            at,
            values,
            height=dodge * 0.86 if n > 1 else 0.62,
            color=PAPER if hollow else look["color"],
            edgecolor=look["color"],
            linewidth=0.8,
            zorder=2,
        )
        for i, patch in enumerate(drawn.patches):
            patch.set_gid(f"series-{j}-{i}")
        handles.append(drawn)
        if "low" in series:
            low, high = nan(series["low"]), nan(series["high"])
            known = ~np.isnan(low)
            segments = [[(a, y), (b, y)] for a, b, y in zip(low[known], high[known], at[known])]
            axes.add_collection(
                LineCollection(segments, colors=INK, linewidths=1.0, zorder=2.5, gid=f"series-{j}-interval")
            )
        for y in at[np.isnan(values)]:
            _mark_absent(axes, float(y), look["color"])
    axes.axvline(0, color=MUTED, linewidth=0.8, zorder=2.2)
    _legend(drawing, handles, [series["label"] for series in data["series"]])
    _value_limits(axes, data, vertical_values=False)
    _references(drawing, axes, data.get("reference", []), vertical=True)


def lines(drawing: Drawing, data: dict[str, Any]) -> None:
    """Lines with markers, and bands where there are intervals; a gap where a value is absent."""
    if not any(series["x"] for series in data["series"]):
        return nothing(drawing)
    drawing.set_size_inches(WIDTH, 3.9)
    axes = begin(drawing, data["x_label"], data["y_label"])
    axes.grid(axis="y")
    handles = []
    for j, series in enumerate(data["series"]):
        look, xs = _look(j), nan(series["x"])
        if "low" in series:
            low, high = nan(series["low"]), nan(series["high"])
            axes.fill_between(
                xs, low, high, color=look["color"], alpha=0.14, linewidth=0, zorder=2, gid=f"series-{j}-interval"
            )
        look["marker"] = look["marker"] if len(xs) <= 40 else ""
        dash: Any = DASHES[j % len(DASHES)]
        (line,) = axes.plot(
            xs, nan(series["y"]), linestyle=dash, linewidth=1.6, markersize=4.4, zorder=3, gid=f"series-{j}", **look
        )
        handles.append(line)
    _finish_plane(drawing, axes, data, handles)


def scatter(drawing: Drawing, data: dict[str, Any]) -> None:
    """Points, with their names where given; the line y = x where asked."""
    if not any(series["x"] for series in data["series"]):
        return nothing(drawing)
    drawing.set_size_inches(WIDTH, 4.6)
    axes = begin(drawing, data["x_label"], data["y_label"])
    axes.grid(axis="both")
    handles = []
    xs = [x for series in data["series"] for x in series["x"]]
    middle = (min(xs) + max(xs)) / 2
    for j, series in enumerate(data["series"]):
        at, ys = nan(series["x"]), nan(series["y"])
        size = 5.0 if len(ys) <= 60 else 3.0
        apart = axes.transData
        if "low" in series:
            # in points, so that the facts' x stays what the axis says
            points = 5.0 * (j - (len(data["series"]) - 1) / 2)
            apart = apart + ScaledTranslation(points / 72, 0, drawing.dpi_scale_trans)
            low, high = nan(series["low"]), nan(series["high"])
            # twice in axes' own coordinates: what is moved aside is not seen by the automatic limits
            axes.plot(at, low, at, high, linestyle="none", marker="")
            segments = [[(x, a), (x, b)] for x, a, b in zip(at, low, high) if not math.isnan(a)]
            axes.add_collection(
                LineCollection(
                    segments,
                    colors=_look(j)["color"],
                    linewidths=1.0,
                    zorder=2.5,
                    transform=apart,
                    gid=f"series-{j}-interval",
                ),
                autolim=False,
            )
        axes.plot(at, ys, linestyle="none", marker="")
        (line,) = axes.plot(
            at, ys, linestyle="none", markersize=size, zorder=3, gid=f"series-{j}", transform=apart, **_look(j)
        )
        handles.append(line)
    for place in _named_places(data["series"]):
        left = place["x"] <= middle
        axes.annotate(
            wrapped(place["name"], 28),
            (place["x"], place["y"]),
            xytext=(5 if left else -5, 3 if place["above"] else -3),
            textcoords="offset points",
            ha="left" if left else "right",
            va="bottom" if place["above"] else "top",
            fontsize=SMALL,
            color=MUTED,
        )
    _finish_plane(drawing, axes, data, handles)
    if any("low" in series for series in data["series"]):
        axes.margins(x=0.07)


def _named_places(series: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where names are written: once for all points of one name and x, above the highest; another name of that x below."""
    found: dict[tuple[float, str], list[float]] = {}
    for one in series:
        ends = zip(one["y"], one.get("low", one["y"]), one.get("high", one["y"]))
        for name, x, values in zip(one.get("names", []), one["x"], ends):
            known = [value for value in values if value is not None]
            if name and known and values[0] is not None:
                found.setdefault((x, name), []).extend(known)
    taken: set[float] = set()
    made = []
    for (x, name), heights in found.items():
        above = x not in taken
        made.append({"x": x, "name": name, "y": max(heights) if above else min(heights), "above": above})
        taken.add(x)
    return made


def _finish_plane(drawing: Drawing, axes: Axes, data: dict[str, Any], handles: list[Any]) -> None:
    """What lines and scatter share: scales, ticks, limits, legend and reference lines."""
    xs = [x for series in data["series"] for x in series["x"]]
    ys = [y for series in data["series"] for y in series["y"] if y is not None]
    _plain_ticks(axes, "x", data.get("x_scale", "linear"), xs)
    _plain_ticks(axes, "y", data.get("y_scale", "linear"), ys)
    if "x" in data:
        axes.set_xticks(data["x"]["ticks"], [wrapped(label, 14) for label in data["x"]["labels"]])
    elif data.get("x_scale") != "log" and all(float(x).is_integer() for x in xs):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.03)
    _legend(drawing, handles, [series["label"] for series in data["series"]])
    _value_limits(axes, data, vertical_values=True)
    _references(drawing, axes, data.get("reference", []), vertical=False)
    if data.get("diagonal"):
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        ends = [max(left, bottom), min(right, top)]
        if ends[0] < ends[1]:
            axes.plot(ends, ends, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1.5, gid="diagonal")
