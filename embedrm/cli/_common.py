"""What the commands share: options of one wording, notes on stderr, results on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedrm.cli._guard import keep, printable, write
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.progress import Progress, bars

if TYPE_CHECKING:
    from embedrm.reporting import Report
    from embedrm.store import EmbeddingStore

DATA_PANEL, ENCODER_PANEL, VECTOR_PANEL, OUTPUT_PANEL = (
    "Reading data",
    "Encoder and store",
    "Bring your own vectors",
    "Output",
)

Paths = Annotated[
    list[str] | None,
    typer.Argument(
        help="A bundled data set (such as domains), or files: .jsonl, .csv, .tsv, .parquet; text also .gz.",
        show_default=False,
    ),
]
Form = Annotated[
    str,
    typer.Option(
        help="What a row is: auto, pair, implicit, conversational, hh-rlhf, kwise, unpaired.",
        rich_help_panel=DATA_PANEL,
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="FIELD=COLUMN",
        help="A column that has another name than its field, such as prompt=question; 'FIELD=' says there is none.",
        rich_help_panel=DATA_PANEL,
        show_default=False,
    ),
]
OnError = Annotated[str, typer.Option(help="Bad rows: raise, or skip (counted and told).", rich_help_panel=DATA_PANEL)]
Ties = Annotated[str, typer.Option(help="Ties: auto, keep, drop.", rich_help_panel=DATA_PANEL)]
GroupLeak = Annotated[
    bool,
    typer.Option("--allow-group-leak", help="Accept prompts that are in two splits.", rich_help_panel=DATA_PANEL),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="The encoder: a model of the Hugging Face hub, its folder, or hashing. By default all-MiniLM-L6-v2.",
        rich_help_panel=ENCODER_PANEL,
        show_default=False,
    ),
]
EncoderOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder-option",
        metavar="NAME=VALUE",
        help="A parameter of the encoder, such as max_length=128 or truncation=tail; repeat it.",
        rich_help_panel=ENCODER_PANEL,
        show_default=False,
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layers",
        metavar="LAYERS",
        help="Hidden layers, such as 3,6 or final, for all sides; or for one: --layers response=3,6 --layers prompt=6. "
        "The encoder's own choice by default.",
        rich_help_panel=ENCODER_PANEL,
        show_default=False,
    ),
]
Sides = Annotated[
    list[str],
    typer.Option("--side", help="What to encode: response, prompt, joint; repeat it.", rich_help_panel=ENCODER_PANEL),
]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="FOLDER",
        help="Where vectors are kept. By default $EMBEDRM_HOME/store (see 'embedrm cache path').",
        rich_help_panel=ENCODER_PANEL,
        show_default=False,
    ),
]
NoStore = Annotated[
    bool, typer.Option("--no-store", help="Encode afresh and keep nothing.", rich_help_panel=ENCODER_PANEL)
]
Vectors = Annotated[
    list[str] | None,
    typer.Option(
        "--vectors",
        metavar="[VIEW=]FILE.npy",
        help="Response vectors instead of text, (n, dim) or (n_prompts, k, dim); VIEW tells several apart: 3=a.npy.",
        rich_help_panel=VECTOR_PANEL,
        show_default=False,
    ),
]
Pairs = Annotated[
    str | None,
    typer.Option(
        "--pairs",
        metavar="FILE",
        help="Parquet, CSV or JSONL with the columns chosen and rejected (rows of the vectors, from 0); "
        "optional weight, margin, outcome, and group, domain, split of the prompt.",
        rich_help_panel=VECTOR_PANEL,
        show_default=False,
    ),
]
PromptVectors = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt-vectors",
        metavar="[VIEW=]FILE.npy",
        help="Prompt vectors, shape (n_prompts, dim); needs --prompt-of.",
        rich_help_panel=VECTOR_PANEL,
        show_default=False,
    ),
]
PromptOf = Annotated[
    str | None,
    typer.Option(
        "--prompt-of",
        metavar="FILE.npy",
        help="Whole numbers (n,): the row of each response's prompt.",
        rich_help_panel=VECTOR_PANEL,
        show_default=False,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON document.", rich_help_panel=OUTPUT_PANEL)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No notes and no progress on stderr.", rich_help_panel=OUTPUT_PANEL)
]
ReportFolder = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="Also write report.html, report.md, report.json and the figures there.",
        rich_help_panel=OUTPUT_PANEL,
        show_default=False,
    ),
]
Resamples = Annotated[int, typer.Option("--n-resamples", min=1, help="Bootstrap draws of whole prompt groups.")]
Seed = Annotated[int, typer.Option("--random-state", min=0, help="Seed of the bootstrap.")]


class Console:
    """Where a command speaks: notes and progress to stderr, results to stdout.

    Parameters
    ----------
    quiet : bool
        Neither notes nor progress.
    as_json : bool
        Results as one JSON document.
    """

    def __init__(self, quiet: bool, as_json: bool) -> None:
        self.quiet, self.as_json = quiet, as_json

    def note(self, text: str) -> None:
        """Say something on stderr that is not the result."""
        if text and not self.quiet:
            write(printable(text), sys.stderr)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Progress bars of jobs longer than two seconds."""
        with bars(not self.quiet) as progress:
            yield progress

    @contextmanager
    def working(self, label: str) -> Iterator[None]:
        """Show that one long step is under way, and for how long; for steps that cannot say how much is left."""
        self.note(label)
        if self.quiet or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console as RichConsole
        from rich.progress import Progress as RichProgress
        from rich.progress import SpinnerColumn, TimeElapsedColumn

        with RichProgress(
            SpinnerColumn(), TimeElapsedColumn(), console=RichConsole(stderr=True), transient=True
        ) as spinner:
            spinner.add_task(label, total=None)
            yield

    def result(self, facts: Any, text: str) -> None:
        """Print the result: the facts as JSON, or the text for a reader."""
        write(json_text(facts) if self.as_json else printable(text))

    def report(self, report: Report, output: str | Path | None = None, files: dict[str, Path] | None = None) -> None:
        """Print a report, save it where a folder is given, and say where its files are."""
        if output is not None:
            self.note("drawing figures and writing the report")
            files = report.save(output)
            keep(f"the report is in {output}")
        places = report_places(files)
        if self.as_json:
            write(json_text(report.to_dict()))
            self.note(places)
        else:
            write(report.text().rstrip("\n"))
            if places:
                write("\n" + places)


def report_places(files: dict[str, Path] | None) -> str:
    """Say where a report's files are, on one line each."""
    if not files:
        return ""
    return "\n".join(f"{kind:<9}{files[kind]}" for kind in ("html", "markdown", "json") if kind in files)


def json_text(facts: Any) -> str:
    """Return facts as indented JSON; beyond ASCII only where standard output can show it."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    return json.dumps(facts, indent=2, ensure_ascii=not encoding.startswith("utf"), allow_nan=False)


def check_writable(output: str | None) -> None:
    """Raise before the work starts where a file or folder cannot be made at its end."""
    if output is None:
        return
    place = Path(output)
    parent = place if place.is_dir() else next((p for p in place.parents if os.path.lexists(p)), Path())
    if not parent.is_dir():
        reason = f"{parent} is not a folder"
    elif not os.access(parent, os.W_OK | os.X_OK):
        reason = f"nothing may be written in {parent}"
    else:
        return
    raise InvalidInputError(f"cannot write {output}: {reason}; choose another place. Nothing was done")


def check_folder(output: str | None) -> None:
    """Raise before the work starts where no folder of this name can be made, a file among the reasons."""
    if output is not None and Path(output).is_file():
        raise InvalidInputError(f"cannot write {output}: it is a file; name a folder. Nothing was done")
    check_writable(output)


def open_store(store: str | None, no_store: bool = False) -> EmbeddingStore | bool:
    """Return the store that the options name (False: none), and say what an interrupt leaves."""
    if no_store:
        if store is not None:
            raise InvalidInputError("--store and --no-store contradict each other; give one")
        return False
    from embedrm.store import EmbeddingStore

    opened = EmbeddingStore.default() if store is None else EmbeddingStore(store)
    keep(f"vectors that were committed stay in {opened.path}; the same command goes on from there")
    return opened


def layer_choice(layers: list[str] | None, sides: Sequence[str]) -> str | dict[str, str] | None:
    """Read ``--layers``: one choice for all sides, or ``side=layers`` for each; a side must be among those encoded."""
    if not layers:
        return None
    named = [part.partition("=") for part in layers]
    if all(equals for _, equals, _ in named):
        choice = {side.strip(): value for side, _, value in named}
        for side in choice:
            if side not in sides:
                raise unknown_name("side in --layers", side, sides)
        if len(choice) == len(named):
            return choice
    elif len(layers) == 1:
        return layers[0]
    raise InvalidInputError(
        "--layers takes one choice for all sides (--layers 3,6), or one for each side "
        f"(--layers response=3,6 --layers prompt=6); got {' '.join(layers)}"
    )


def settings(items: Sequence[str] | None, option: str) -> dict[str, str]:
    """Read repeated ``NAME=VALUE`` options; a name without a value, or given twice, is an error."""
    out: dict[str, str] = {}
    for item in items or ():
        name, equals, value = item.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InvalidInputError(f"{option} expects NAME=VALUE, got {item!r}")
        if name in out:
            raise InvalidInputError(f"{option} gives {name!r} twice; give it once")
        out[name] = value.strip()
    return out


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out rows under a header: first column to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[j]) for row in cells) for j in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if j == 0 else cell.rjust(width) for j, (cell, width) in enumerate(zip(row, widths))
        )
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def plural(n: int, noun: str) -> str:
    """Return a count with its noun: "1 segment", "2 segments"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def size(n_bytes: int) -> str:
    """Return a number of bytes as a person reads it."""
    amount = float(n_bytes)
    for unit in ("bytes", "kB", "MB"):
        if amount < 1000:
            return f"{amount:,.0f} {unit}" if unit == "bytes" else f"{amount:,.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} GB"
