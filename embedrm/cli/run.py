"""``embedrm run``: one experiment file, run for each of its seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from embedrm.cli import _common as common
from embedrm.cli._common import Console
from embedrm.cli._guard import command_line, keep
from embedrm.errors import InvalidInputError


def run(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="An experiment: .yaml or .toml.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="A setting in place of the file's, such as head.l2=0.1, head=mlp or encoder.layers=3,6; repeat it.",
            show_default=False,
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the settings as they would be run, and stop.")] = False,
    example: Annotated[
        bool,
        typer.Option(
            "--example", help="Print a file that names every key, to begin with: 'embedrm run --example > study.yaml'."
        ),
    ] = False,
    store: common.Store = None,
    no_store: common.NoStore = False,
    output: common.ReportFolder = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Run one experiment file: fit its model for each seed, judge it, and report.

    The file has sections: data, encoder, training, featurizer, head, model, router, ensemble, calibrated, evaluation,
    seeds, and sweep for 'embedrm sweep'.
    'embedrm run FILE --show' prints what it says. With --output, the report, the settings and a line of results for each
    seed are kept there ('embedrm runs list').
    """
    from embedrm.cli._guard import write
    from embedrm.cli._sweeping import load_experiment
    from embedrm.experiments.experiment_run import run_experiment

    console = Console(quiet, as_json)
    if example:
        from embedrm.experiments.studies import example_text

        if file is not None or set_ or output is not None:
            raise InvalidInputError("--example prints a file and runs nothing; give it alone")
        write(example_text().rstrip("\n"))
        return
    if file is None:
        raise InvalidInputError(
            "expected an experiment file, got none; 'embedrm run --example > study.yaml' makes one to begin with"
        )
    experiment = load_experiment(file, set_)
    if show:
        console.result(experiment.to_dict(), experiment.to_yaml().rstrip("\n"))
        return
    common.check_folder(output)
    if experiment.config.sweep:
        console.note(f"the section 'sweep' of {file} is for 'embedrm sweep'; its centre alone is run")
    kept: Any = common.open_store(store, no_store)
    if output is not None:
        keep(f"seeds that were finished are in {output}")
    with console.progress() as progress:
        report = run_experiment(
            experiment, output, store=None if kept is None else kept, progress=progress, command=command_line()
        )
    if as_json:
        console.report(report)
    else:
        write(report.text().rstrip("\n"))
    if output is not None:
        console.note(f"the report is in {Path(output) / 'report.html'}")
