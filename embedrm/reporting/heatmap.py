"""Heat maps, drawn on a matplotlib figure from checked facts."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Rectangle

from embedrm.reporting.drawing import CATEGORY_LABEL, SMALL, WIDTH, begin, label_lines, nan, nothing, wrapped
from embedrm.reporting.formatting import ABSENT
from embedrm.reporting.palette import ABSENT_CELL, CELL_DARK, CELL_LIGHT, DIVERGING, INK, PAPER, SEQUENTIAL

_ANNOTATED = 26  # more columns leave no room for numbers


def heatmap(drawing: Drawing, data: dict[str, Any]) -> None:
    """Coloured cells with their numbers; the diagonal is outlined where rows and columns have the same names."""
    n_rows, n_columns = len(data["rows"]), len(data["columns"])
    if not n_rows or not n_columns:
        return nothing(drawing)
    values = np.array([nan(row) for row in data["values"]])
    rows = [wrapped(name, CATEGORY_LABEL) for name in data["rows"]]
    columns = [wrapped(name, 16) for name in data["columns"]]
    line = 0.155 * label_lines(rows) + 0.1
    drawing.set_size_inches(WIDTH, 1.5 + n_rows * max(0.36 if n_rows <= 16 else 0.27, line))
    axes = begin(drawing, data["column_label"], data["row_label"])
    scale, colours = _colours(values, data)
    mesh = axes.pcolormesh(
        np.arange(n_columns + 1),
        np.arange(n_rows + 1),
        np.ma.masked_invalid(values),
        cmap=colours,
        norm=scale,
        edgecolors=PAPER,
        linewidth=1.2,
        gid="cells",
    )
    axes.set_ylim(n_rows, 0)
    axes.set_xticks(np.arange(n_columns) + 0.5, columns)
    axes.set_yticks(np.arange(n_rows) + 0.5, rows)
    axes.tick_params(length=0)
    axes.xaxis.set_ticks_position("top")
    axes.xaxis.set_label_position("top")
    for spine in axes.spines.values():
        spine.set_visible(False)
    room = WIDTH * 0.72 / n_columns
    if max((len(part) for name in columns for part in name.split("\n")), default=0) * 0.078 > room:
        axes.tick_params(axis="x", labelrotation=38)
        for label in axes.get_xticklabels():
            label.set(ha="left", rotation_mode="anchor")
    _annotate(axes, values, data.get("digits", 2), scale, colours)
    if data["rows"] == data["columns"]:
        for i in range(n_rows):
            axes.add_patch(Rectangle((i + 0.02, i + 0.02), 0.96, 0.96, fill=False, edgecolor=INK, linewidth=1.1))
    bar = drawing.colorbar(mesh, ax=axes, fraction=0.04, pad=0.02, aspect=28)
    bar.set_label(wrapped(data["value_label"], 40))
    steps: Any = bar.solids
    steps.set(rasterized=False, edgecolor="face", linewidth=0.4)  # vector, without hairlines between the steps
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, labelsize=SMALL)


def _colours(values: np.ndarray, data: dict[str, Any]) -> tuple[Normalize, Colormap]:
    """A scale symmetric around the centre where one is given, so that equal distances look equal."""
    known = values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if "limits" in data:
        low, high = data["limits"]
    if "centre" in data:
        centre = data["centre"]
        reach = max(abs(high - centre), abs(low - centre)) or 1.0
        low, high = centre - reach, centre + reach
    elif low == high:
        low, high = low - 0.5, high + 0.5
    stops = DIVERGING if "centre" in data else SEQUENTIAL
    colours = LinearSegmentedColormap.from_list("embedrm", list(stops), N=101).with_extremes(bad=ABSENT_CELL)
    return Normalize(low, high, clip=True), colours


def _annotate(axes: Axes, values: np.ndarray, digits: int, scale: Normalize, colours: Colormap) -> None:
    if values.shape[1] > _ANNOTATED:
        return
    size = 8.5 if values.shape[1] <= 9 else 7.5 if values.shape[1] <= 13 else 6.0
    for (i, j), value in np.ndenumerate(values):
        absent = bool(np.isnan(value))
        red, green, blue = to_rgb(ABSENT_CELL if absent else colours(scale(value)))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue > 0.56
        axes.text(
            j + 0.5,
            i + 0.5,
            ABSENT if absent else f"{value or 0:.{digits}f}".replace("-", "\u2212"),
            ha="center",
            va="center",
            color=CELL_DARK if dark else CELL_LIGHT,
            fontsize=size,
        )
