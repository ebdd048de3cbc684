"""The command line: one sub-command for each public verb, with the words and the defaults of the Python interface.

Nothing heavy is imported until a command runs, so that ``embedrm --help`` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from embedrm.cli import (
    best_of_n,
    cache,
    cite,
    compare,
    curve,
    data,
    encode,
    evaluate,
    fit,
    generate,
    merge,
    reproduce,
    run,
    runs,
    score,
    sweep,
    tune,
)
from embedrm.cli._guard import Guarded, bare_help, write

app = typer.Typer(
    cls=Guarded,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Reward models on a CPU: encode text once, then train heads and routers on the vectors in seconds.",
    epilog=(
        "A first look: 'embedrm reproduce' (a tour on the bundled data), 'embedrm data show domains', "
        "'embedrm fit domains --output runs/linear', 'embedrm evaluate runs/linear domains'."
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        from embedrm import __version__

        write(f"embedrm {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    bare_help(ctx)


app.add_typer(data.app, name="data")
app.command("encode")(encode.encode)
app.command("tune", cls=tune.TuneCommand)(tune.tune)
app.command("fit", cls=fit.FitCommand)(fit.fit)
app.command("merge")(merge.merge)
app.command("evaluate")(evaluate.evaluate)
app.command("score")(score.score)
app.command("generate")(generate.generate)
app.command("compare")(compare.compare)
app.command("best-of-n")(best_of_n.best_of_n)
app.command("curve")(curve.curve)
app.command("run")(run.run)
app.command("sweep")(sweep.sweep)
app.command("reproduce", cls=reproduce.ReproduceCommand)(reproduce.reproduce)
app.add_typer(runs.app, name="runs")
app.command("cite")(cite.cite)
app.add_typer(cache.app, name="cache")


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a check found something or a bug, 2 a user's error, 130 interrupted.

    Parameters
    ----------
    args : sequence of str, optional
        The words after ``embedrm``; those of this process where absent.
    """
    typer.main.get_command(app).main(list(sys.argv[1:] if args is None else args), prog_name="embedrm")


__all__ = ["app", "main"]
