"""The report in a terminal: prose that wraps, tables that split into blocks instead of being squeezed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from io import StringIO
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.table import Table as RichTable
from rich.text import Text

from embedrm.reporting.figures import Figure
from embedrm.reporting.formatting import Grid, Shown, grid, one_line, visible
from embedrm.reporting.listing import headline
from embedrm.reporting.tables import Table

if TYPE_CHECKING:
    from embedrm.reporting.report import Report

_GAP = 2
_NARROWEST = 40
_PROSE = 100
_TEXT_COLUMN = 22
_GROUP = 36
_NOTES_APART = 3  # more footnotes than these run on, one after the other


def render_text(report: Report, width: int | None = None, colour: bool | None = None) -> str:
    """Return the report for a terminal; see :meth:`Report.text`."""
    width = max(_NARROWEST, shutil.get_terminal_size().columns if width is None else width)
    colour = _wants_colour() if colour is None else colour
    sink = StringIO()
    console = Console(
        file=sink,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        no_color=not colour,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )
    for part in _parts(report, width, colour):
        console.print(part)
    lines = sink.getvalue().split("\n")
    return "\n".join(line.rstrip() for line in lines).rstrip("\n") + "\n"


def _wants_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _prose(value: str, width: int, style: str = "", hang: str = "") -> RenderableType:
    """Wrapped text; ``hang`` leads its first line and indents the others."""
    measure = min(width, _PROSE)
    if not hang:
        return Constrain(Text(_clean(value), style=style, overflow="fold"), measure)
    cells = RichTable.grid(padding=0)
    cells.add_column(width=cell_len(hang))
    cells.add_column(width=measure - cell_len(hang), overflow="fold")
    cells.add_row(Text(hang, style="dim"), Text(_clean(value), style=style, overflow="fold"))
    return cells


def _clean(value: str) -> str:
    return visible(value).replace("\t", "    ")


def _parts(report: Report, width: int, colour: bool) -> Iterable[RenderableType]:
    blank = Text("")
    yield _prose(report.title, width, "bold")
    line = " · ".join([one_line(report.kind), *headline(report.provenance)])
    yield _prose(line, width, "dim")
    if report.summary:
        yield blank
    for item in report.summary:
        yield _prose(item, width, hang="• ")
    for section in report.sections:
        yield blank
        yield blank
        title = one_line(section.title)
        yield _prose(title, width, "bold cyan")
        yield Text("═" * min(cell_len(title), width, _PROSE), style="cyan")
        for i, paragraph in enumerate(section.text):
            if i:
                yield blank
            yield _prose(paragraph, width)
        for table in section.tables:
            yield blank
            yield from _table(table, width, colour)
        for figure in section.figures:
            yield blank
            yield from _figure(figure, width)
    if report.notes:
        yield blank
        yield blank
        yield _prose("Notes", width, "bold cyan")
        for note in report.notes:
            yield _prose(note, width, hang="• ")
    command = report.provenance.get("command")
    if isinstance(command, str):
        yield blank
        yield _prose(f"$ {one_line(command)}", width, "dim")


def _figure(figure: Figure, width: int) -> Iterable[RenderableType]:
    yield _prose(f"Figure: {one_line(figure.title)}", width, "bold")
    if figure.caption:
        yield _prose(figure.caption, width)
    yield _prose(f"figures/{figure.name}.svg", width, "dim")


def _table(table: Table, width: int, colour: bool) -> Iterable[RenderableType]:
    yield _prose(table.title, width, "bold")
    if table.caption:
        yield _prose(table.caption, width, "dim")
    shown = grid(table)
    if not shown.cells:
        yield _prose("(no rows)", width, "dim")
        return
    labels = [_header(shown, j) for j in range(len(shown.columns))]
    cells = [[_plain(cell, colour, shown.columns[j].best is not None) for j, cell in enumerate(r)] for r in shown.cells]
    if any(group is not None for group in shown.groups) and shown.columns[0].kind == "text":
        cells = [[f"  {first}".replace("\n", "\n  "), *others] for first, *others in cells]
    natural, widths = _widths(shown, labels, cells, width)
    blocks = _blocks(widths, width)
    for i, block in enumerate(blocks):
        if i:
            yield Text("")
        if len(blocks) > 1:
            first, last = block[1] + 1, block[-1] + 1
            which = f"column {first}" if first == last else f"columns {first}–{last}"
            yield _prose(f"{which} of {len(widths)}", width, "dim italic")
        yield _block(shown, labels, cells, _spread(shown, widths, natural, block, width, len(blocks)), block, colour)
    if shown.best_note:
        yield _prose(f"{'bold' if colour else '*'} = {shown.best_note}", width, "dim")
    if len(shown.notes) > _NOTES_APART:
        yield _prose(" · ".join(f"({mark}) {note}" for mark, note in shown.notes), width, "dim")
    else:
        for mark, note in shown.notes:
            yield _prose(note, width, "dim", hang=f"({mark}) ")


def _header(shown: Grid, j: int) -> str:
    mark, label = shown.marks[j], one_line(shown.columns[j].label)
    return f"{label} ({mark})" if mark else label


def _plain(cell: Shown, colour: bool, ranked: bool) -> str:
    """One cell on one line; without colour a star marks the best, and its place is kept free in the others."""
    star = "" if colour or not ranked or cell.absent else "*" if cell.best else " "
    ends = f" {cell.interval}" if cell.interval else ""
    return f"{_clean(cell.value)}{star}{ends}"


def _widths(shown: Grid, labels: list[str], cells: list[list[str]], width: int) -> tuple[list[int], list[int]]:
    """Columns' natural and least widths: numbers never wrap, headers wrap between words, text where it must."""
    natural, least = [], []
    for j, column in enumerate(shown.columns):
        texts = [line for row in cells for line in row[j].split("\n")]
        body = max(map(cell_len, texts))
        word = max((cell_len(w) for w in labels[j].split()), default=1)
        if column.kind == "text":
            natural.append(max(body, min(cell_len(labels[j]), 24), 1))
            least.append(min(natural[-1], max(word, _TEXT_COLUMN)))
        else:
            half = -(-cell_len(labels[j]) // 2)  # a heading of two lines at most, if its words allow
            natural.append(max(body, min(max(word, half + 1), 24), 1))
            least.append(natural[-1])
    groups = max((cell_len(g) for g in shown.groups if g), default=0)
    natural[0] = max(natural[0], min(groups, _GROUP))
    spare = width - sum(natural) - _GAP * (len(natural) - 1)
    if spare >= 0:
        return natural, natural
    first = min(natural[0], max(12, width * 2 // 5))
    return natural, [first, *(min(w, width - first - _GAP) for w in least[1:])]


def _spread(
    shown: Grid, widths: list[int], natural: list[int], block: list[int], width: int, n_blocks: int
) -> dict[int, int]:
    """Give a block's spare columns to its text, the first column only where it is not repeated."""
    result = {j: widths[j] for j in block}
    spare = width - sum(result.values()) - _GAP * (len(block) - 1)
    for j in block:
        if shown.columns[j].kind == "text" and (j or n_blocks == 1):
            more = max(0, min(spare, natural[j] - result[j]))
            result[j] += more
            spare -= more
    return result


def _blocks(widths: list[int], width: int) -> list[list[int]]:
    """Columns of each block, about as many in each; the first column leads every one."""
    room = width - widths[0]
    chunks: list[list[int]] = [[]]
    for j in range(1, len(widths)):
        if chunks[-1] and sum(widths[k] + _GAP for k in [*chunks[-1], j]) > room:
            chunks.append([])
        chunks[-1].append(j)
    columns = range(1, len(widths))
    share = max(1, -(-len(columns) // len(chunks)))
    even = [list(columns[i : i + share]) for i in range(0, len(columns), share)]
    if all(sum(widths[k] + _GAP for k in chunk) <= room for chunk in even):
        chunks = even or [[]]
    return [[0, *chunk] for chunk in chunks]


def _block(
    shown: Grid, labels: list[str], cells: list[list[str]], widths: dict[int, int], block: list[int], colour: bool
) -> RenderableType:
    table = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
    for j in block:
        numeric = shown.columns[j].kind != "text"
        table.add_column(
            Text(labels[j], style="bold" if colour else "", overflow="fold"),
            width=widths[j],
            justify="right" if numeric else "left",
            overflow="fold",
        )
    for i, row in enumerate(cells):
        if shown.groups[i] is not None:
            table.add_row(Text(shown.groups[i] or "", style="italic", overflow="fold"), *("" for _ in block[1:]))
        table.add_row(*(_styled(shown.cells[i][j], row[j]) for j in block))
    return table


def _styled(cell: Shown, value: str) -> Text:
    text = Text(value, overflow="fold")
    if cell.absent:
        text.stylize("dim")
    if cell.best:
        text.stylize("bold", 0, len(value) - len(cell.interval))
    if cell.interval:
        text.stylize("dim", len(value) - len(cell.interval))
    return text
