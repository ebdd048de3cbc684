"""Figures drawn from facts, and written as SVG or PNG: the same facts give the same bytes.

matplotlib's object interface only: no pyplot, no window, no setting left behind.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from embedrm.reporting.drawing import WIDTH, bars, intervals, lines, scatter
from embedrm.reporting.figures import Figure
from embedrm.reporting.heatmap import heatmap
from embedrm.reporting.palette import GRID, INK, MUTED, PAPER

_DRAW: dict[str, Callable[[Drawing, dict[str, Any]], None]] = {
    "intervals": intervals,
    "bars": bars,
    "heatmap": heatmap,
    "lines": lines,
    "scatter": scatter,
}

# Settings that are no matter of style, or that rc_context itself does not restore.
_NOT_STYLE = re.compile(
    r"backend|interactive|toolbar|timezone|tk\.|webagg|docstring|figure\.max_open|savefig\.directory"
)

_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.labelpad": 6.0,
    "axes.labelsize": 9.0,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9.0,
    "figure.facecolor": PAPER,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 9.0,
    "legend.frameon": False,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",  # letters stay letters: small files, selectable, in the page's own font
    "svg.hashsalt": "embedrm",
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "xtick.major.size": 3.0,
    "xtick.major.width": 0.6,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
    "ytick.major.size": 3.0,
    "ytick.major.width": 0.6,
}


@contextmanager
def _style() -> Iterator[None]:
    """Our style on matplotlib's own defaults, so that nobody's settings change the bytes."""
    settings: Any = {k: v for k, v in matplotlib.rcParamsDefault.items() if not _NOT_STYLE.match(k)}
    with warnings.catch_warnings(), matplotlib.rc_context(settings | _STYLE):
        # Letters that the bundled font lacks are still letters in the SVG; a PNG shows a box in their place.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        yield


def draw(figure: Figure | Mapping[str, Any]) -> Drawing:
    """Draw a figure of facts.

    Parameters
    ----------
    figure : Figure or mapping
        The facts; nothing is computed from them.

    Returns
    -------
    matplotlib.figure.Figure
        About 7 inches wide, with an Agg canvas. Series are artists whose ``gid`` is ``series-0``, ``series-1`` and
        so on (bars are ``series-0-0``, ``series-0-1``, ...); whiskers and bands are ``series-0-interval``.
    """
    facts = Figure.of(figure, "figure")
    with _style():
        drawing = Drawing(figsize=(WIDTH, WIDTH / 2), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
        FigureCanvasAgg(drawing)
        _DRAW[facts.kind](drawing, facts.data)
        _freeze(drawing)
        return drawing


def _freeze(drawing: Drawing) -> None:
    """Lay the drawing out once and for all, so that every file shows the same picture."""
    drawing.draw_without_rendering()
    drawing.set_layout_engine("none")
    for axes in drawing.axes:
        for axis in (axes.xaxis, axes.yaxis):
            place = axis.label.get_transform().transform(axis.label.get_position())
            x, y = axes.transAxes.inverted().transform(place)
            axis.set_label_coords(float(x), float(y))


def svg_text(drawing: Drawing) -> str:
    """Return a drawing as SVG, without dates or versions in it."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    sink = io.StringIO()
    with _style(), _untouched(drawing):
        nothing = {"Creator": None, "Date": None, "Format": None, "Type": None}
        with _single_lines(drawing):
            FigureCanvasSVG(drawing).print_svg(sink, metadata=nothing)
    # Laid out in the bundled font, which is wider than the system's own, so that no text outgrows its place.
    return sink.getvalue().replace("'DejaVu Sans', ", "").replace("'DejaVu Sans'", "sans-serif")


@contextmanager
def _untouched(drawing: Drawing) -> Iterator[None]:
    """Give a drawing its resolution and its canvas back after it was written."""
    dpi = drawing.dpi
    try:
        yield
    finally:
        drawing.set_dpi(dpi)
        FigureCanvasAgg(drawing)


@contextmanager
def _single_lines(drawing: Drawing) -> Iterator[None]:
    """Show each line of a wrapped text as a text of its own.

    Letters that stay letters are set in a font that is narrower than the one they were laid out in; only a text of one
    line is then still aligned at its right end or centre.
    """
    drawing.draw_without_rendering()  # texts measure themselves with whatever drew them last
    width, height = drawing.bbox.width, drawing.bbox.height
    hidden, shown = [], []
    for text in drawing.findobj(Text):
        alignment = text.get_horizontalalignment()
        if "\n" not in text.get_text() or not text.get_visible() or text.get_rotation() or alignment == "left":
            continue
        box, parts = text.get_window_extent(), text.get_text().split("\n")
        x = box.x1 if alignment == "right" else (box.x0 + box.x1) / 2
        for i, part in enumerate(parts):
            y = box.y1 - (i + 0.5) * box.height / len(parts)
            style: Any = {"color": text.get_color(), "fontsize": text.get_fontsize(), "ha": alignment}
            shown.append(drawing.text(x / width, y / height, part, va="center", **style))
        hidden.append(text)
    for text in hidden:
        text.set_visible(False)
    try:
        yield
    finally:
        for text in shown:
            text.remove()
        for text in hidden:
            text.set_visible(True)


def png_bytes(drawing: Drawing, dpi: int = 200) -> bytes:
    """Return a drawing as PNG."""
    sink = io.BytesIO()
    nothing: Any = {"Software": None}
    with _style(), _untouched(drawing):
        drawing.set_dpi(dpi)
        FigureCanvasAgg(drawing).print_png(sink, metadata=nothing)
    return sink.getvalue()


def save_svg(figure: Figure | Mapping[str, Any] | Drawing, path: str | Path) -> Path:
    """Write a figure (facts, or drawn already) as SVG and return its path."""
    drawing = figure if isinstance(figure, Drawing) else draw(figure)
    file = Path(path)
    file.write_text(svg_text(drawing), encoding="utf-8")
    return file


def save_png(figure: Figure | Mapping[str, Any] | Drawing, path: str | Path, dpi: int = 200) -> Path:
    """Write a figure (facts, or drawn already) as PNG and return its path."""
    drawing = figure if isinstance(figure, Drawing) else draw(figure)
    file = Path(path)
    file.write_bytes(png_bytes(drawing, dpi))
    return file
