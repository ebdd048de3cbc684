"""The report as GitHub-flavoured Markdown; every text is escaped, so that data is never read as markup."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from embedrm.reporting.figures import Figure
from embedrm.reporting.formatting import Shown, grid, one_line, visible
from embedrm.reporting.listing import alternative, headline, provenance_groups
from embedrm.reporting.tables import Table

if TYPE_CHECKING:
    from embedrm.reporting.report import Report

# An underscore inside a word (hh_rlhf) is no markup in GitHub's Markdown, and stays readable.
_SPECIAL = re.compile(r"([\\`*\[\]~|$]|(?<![^\W_])_|_(?![^\W_]))")
_LEADING = re.compile(r"^(\s*)([#+\-=]|\d+(?=[.)]))", re.MULTILINE)


def render_markdown(report: Report, figures: str | None = "figures") -> str:
    """Return the report as Markdown; see :meth:`Report.markdown`."""
    blocks: list[str] = [f"# {escape(report.title)}"]
    blocks.append(" · ".join(escape(part) for part in [report.kind, *headline(report.provenance)] if part))
    if report.summary:
        blocks.append(_bullets(report.summary))
    for section in report.sections:
        blocks.append(f"## {escape(section.title)}")
        blocks += [_paragraph(paragraph) for paragraph in section.text]
        for table in section.tables:
            blocks += _table(table)
        for figure in section.figures:
            blocks += _figure(figure, figures)
    if report.notes:
        blocks += ["## Notes", _bullets(report.notes)]
    if report.provenance:
        blocks += ["## Provenance", _provenance(report)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def escape(value: str) -> str:
    """Return text as inline Markdown on one line."""
    value = one_line(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", value).strip()


def _paragraph(value: str) -> str:
    lines = [_LEADING.sub(_escape_leading, escape(line)) for line in visible(value).split("\n")]
    return "\\\n".join(line for line in lines if line)


def _escape_leading(match: re.Match[str]) -> str:
    space, mark = match.groups()
    return f"{space}{mark}\\" if mark.isdigit() else f"{space}\\{mark}"


def _bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {_LEADING.sub(_escape_leading, escape(item))}" for item in items)


def _table(table: Table) -> list[str]:
    shown = grid(table)
    heads = [escape(c.label) + (f" ({mark})" if mark else "") for c, mark in zip(shown.columns, shown.marks)]
    lines = [_row(heads), _row("---" if column.kind == "text" else "---:" for column in shown.columns)]
    for group, cells in zip(shown.groups, shown.cells):
        if group is not None:
            lines.append(_row([f"*{escape(group) or '–'}*", *("" for _ in cells[1:])]))
        lines.append(_row(_cell(cell) for cell in cells))
    blocks = [f"**{escape(table.title)}**" if table.title.strip() else "", escape(table.caption), "\n".join(lines)]
    notes = [f"Bold: {shown.best_note}."] if shown.best_note else []
    marked = [f"({mark}) {escape(note)}" for mark, note in shown.notes]
    notes += marked if len(marked) <= 3 else [" · ".join(marked)]
    return [*blocks, "  \n".join(notes)]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(cell: Shown) -> str:
    value = "<br>".join(escape(line) for line in cell.value.split("\n"))
    if cell.best:
        value = f"**{value}**"
    return f"{value} {cell.interval}" if cell.interval else value


def _figure(figure: Figure, folder: str | None) -> list[str]:
    title = f"**Figure: {escape(figure.title)}**"
    if folder is None:
        return [title, escape(figure.caption)]
    return [title, f"![{escape(alternative(figure))}]({folder}/{figure.name}.svg)", escape(figure.caption)]


def _provenance(report: Report) -> str:
    lines = [_row(["what", "value"]), _row(["---", "---"])]
    for name, entries in provenance_groups(report.provenance):
        prefix = f"{name}." if name else ""
        lines += [_row([escape(prefix + key), escape(value)]) for key, value in entries]
    return "\n".join(lines)
