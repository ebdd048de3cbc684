"""The report as one self-contained HTML page: styles and figures inside, no script, nothing fetched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from embedrm.reporting.figures import Figure
from embedrm.reporting.formatting import Shown, grid, one_line, visible
from embedrm.reporting.listing import alternative, figure_table, headline, provenance_groups
from embedrm.reporting.palette import DARK, LIGHT, VARIABLES
from embedrm.reporting.tables import Table

if TYPE_CHECKING:
    from embedrm.reporting.report import Report

_STACKED_FROM = 4
"""From this many columns with intervals on, an interval stands under its value instead of beside it."""

_WIDE_FROM = 12
"""From this many columns on, a table is printed on a page turned sideways."""

_LONG = 24
"""A column with a text of more letters keeps a width that prose can be read in."""


def render_html(report: Report, drawings: Mapping[str, str] | None = None) -> str:
    """Return the report as a page; see :meth:`Report.html`.

    Parameters
    ----------
    report : Report
        The facts.
    drawings : mapping of str to str, optional
        SVG text of figures drawn already, by name.
    """
    pictures = dict(drawings or {})
    if missing := [figure for name, figure in report.figures.items() if name not in pictures]:
        from embedrm.reporting.plots import draw, svg_text

        pictures |= {figure.name: svg_text(draw(figure)) for figure in missing}
    sections = [
        {
            "id": f"section-{i}",
            "title": one_line(section.title),
            "text": [visible(paragraph) for paragraph in section.text],
            "tables": [_table(table) for table in section.tables],
            "figures": [_figure(figure, pictures[figure.name]) for figure in section.figures],
        }
        for i, section in enumerate(report.sections, start=1)
    ]
    command = report.provenance.get("command")
    return _template().render(
        kind=one_line(report.kind),
        title=one_line(report.title),
        headline=headline(report.provenance),
        command=one_line(command) if isinstance(command, str) else "",
        summary=[visible(item) for item in report.summary],
        sections=sections,
        notes=[visible(note) for note in report.notes],
        provenance=provenance_groups(report.provenance),
        css=_css(),
    )


@cache
def _template() -> Any:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(_read("template.html"))


@cache
def _css() -> Markup:
    light = "".join(f"--{name}:{colour};" for name, colour in LIGHT.items())
    dark = "".join(f"--{name}:{colour};" for name, colour in DARK.items())
    return Markup(_read("style.css").replace("/*figures-light*/", light).replace("/*figures-dark*/", dark))


def _read(name: str) -> str:
    return files("embedrm.reporting").joinpath(name).read_text(encoding="utf-8")


def _minus(value: str) -> str:
    """A real minus sign before digits."""
    return re.sub(r"(?<![\w.])-(?=[\d.])", "\u2212", value)


def _table(table: Table) -> dict[str, Any]:
    shown = grid(table)
    intervals = sum(any(row[j].interval for row in shown.cells) for j in range(len(shown.columns)))
    return {
        "id": f"table-{table.name}",
        "title": one_line(table.title),
        "caption": visible(table.caption),
        "heads": [
            {
                "label": visible(c.label),
                "mark": shown.marks[j],
                "number": c.kind != "text",
                "long": j > 0 and c.kind == "text" and any(len(row[j].value) > _LONG for row in shown.cells),
            }
            for j, c in enumerate(shown.columns)
        ],
        "rows": [
            {"group": group, "cells": [_cell(cell, c.kind != "text") for cell, c in zip(cells, shown.columns)]}
            for group, cells in zip(shown.groups, shown.cells)
        ],
        "stacked": intervals >= _STACKED_FROM,
        "wide": len(shown.columns) >= _WIDE_FROM,
        "notes": shown.notes,
        "best_note": shown.best_note,
    }


def _cell(cell: Shown, number: bool) -> dict[str, Any]:
    return {
        "value": _minus(cell.value) if number else cell.value,
        "interval": _minus(cell.interval),
        "n": cell.n,
        "absent": cell.absent,
        "best": cell.best,
        "number": number,
    }


def _figure(figure: Figure, svg: str) -> dict[str, Any]:
    return {
        "id": f"figure-{figure.name}",
        "title": one_line(figure.title),
        "caption": visible(figure.caption),
        "svg": Markup(_inline(svg, figure)),
        "table": _table(figure_table(figure)),
    }


def _inline(svg: str, figure: Figure) -> str:
    """Return SVG fit to stand in a page: no prolog, its own ids, the page's colours, and alternative text."""
    start = svg.index("<svg")
    body = svg[svg.index(">", start) + 1 : svg.rindex("</svg>")]
    box = re.search(r'viewBox="([^"]+)"', svg[start:])
    view = box.group(1) if box else "0 0 518.4 259.2"
    width = float(view.split()[2])
    # Its style element would rule the whole page; the page's own styles say the same for pictures only.
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", body, flags=re.DOTALL)
    tags = re.split(r"(<[^>]*>)", body)  # only tags are rewritten, never the text between them
    body = "".join(_rewrite(tag, f"{figure.name}-") if tag.startswith("<") else tag for tag in tags)
    label = str(Markup.escape(alternative(figure)))
    return (
        f'<svg role="img" aria-label="{label}" viewBox="{view}" style="max-width:{width / 72 * 96:.0f}px">{body}</svg>'
    )


def _rewrite(tag: str, prefix: str) -> str:
    tag = re.sub(r'\bid="', f'id="{prefix}', tag)
    tag = re.sub(r"url\(#", f"url(#{prefix}", tag)
    tag = re.sub(r'\b(?:xlink:)?href="#', f'href="#{prefix}', tag)
    tag = tag.replace("sans-serif", "var(--sans)")
    return re.sub(r"#[0-9a-f]{6}\b", _variable, tag)


def _variable(match: re.Match[str]) -> str:
    colour = match.group()
    return f"var(--{VARIABLES[colour]})" if colour in VARIABLES else colour
