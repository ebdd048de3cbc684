"""``embedrm sweep``: variants of an experiment file, each computed once and kept as it is finished."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedrm.cli import _common as common
from embedrm.cli._common import Console
from embedrm.cli._guard import command_line, keep
from embedrm.errors import DataError, InvalidInputError

if TYPE_CHECKING:
    from embedrm.experiments.sweep import Sweep
    from embedrm.experiments.sweep_search import Search

_SPACE_PANEL, _WORK_PANEL = "What varies", "Work"


def sweep(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="An experiment: .yaml or .toml, perhaps with a section sweep ('embedrm run --example' prints one). Two "
            "come with the package: example, on bundled data, and bradley-terry, 12,960 trials on released arrays.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Where results are kept. The same command goes on from there; other sweeps may share the folder.",
        ),
    ],
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            metavar="PATH=VALUE,VALUE",
            help="Values of a setting, such as head.l2=1e-4,1e-2,1; repeat it for all combinations. Values with commas are "
            "told apart by semicolons: 'featurizer.terms=r;r,p*r'.",
            rich_help_panel=_SPACE_PANEL,
            show_default=False,
        ),
    ] = None,
    around: Annotated[
        list[str] | None,
        typer.Option(
            "--around",
            metavar="PATH=VALUE,VALUE",
            help="Values of a setting, one setting at a time, all others as in the file; repeat it.",
            rich_help_panel=_SPACE_PANEL,
            show_default=False,
        ),
    ] = None,
    random: Annotated[
        list[str] | None,
        typer.Option(
            "--random",
            metavar="PATH=DRAW",
            help="Draw a setting: 'head.l2=loguniform(1e-4, 1)'; also uniform, integers, logintegers, choice. Needs "
            "--samples.",
            rich_help_panel=_SPACE_PANEL,
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many random draws, or proposals of --search.",
            rich_help_panel=_SPACE_PANEL,
            show_default=False,
        ),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            "--search",
            metavar="SAMPLER",
            help="Let Optuna propose the values of --random, and choose among those of --grid, by the --metric on the "
            "validation split: tpe, gp or qmc. Processes that run the same command search together.",
            rich_help_panel=_SPACE_PANEL,
            show_default=False,
        ),
    ] = None,
    search_split: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            help="What --search chooses by in place of validation; never test.",
            rich_help_panel=_SPACE_PANEL,
            show_default=False,
        ),
    ] = None,
    random_state: Annotated[
        int, typer.Option(min=0, help="Seed of the draws, and of --sample.", rich_help_panel=_SPACE_PANEL)
    ] = 0,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Seeds of each variant; the file's where absent.",
            rich_help_panel=_SPACE_PANEL,
            show_default=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="A setting of all variants in place of the file's, such as head=mlp; repeat it.",
            rich_help_panel=_SPACE_PANEL,
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=-1, help="Workers; -1 for every core.", rich_help_panel=_WORK_PANEL)] = 1,
    backend: Annotated[
        str, typer.Option(help="loky (processes), threading, dask or ray.", rich_help_panel=_WORK_PANEL)
    ] = "loky",
    address: Annotated[
        str | None,
        typer.Option(
            help="Scheduler of dask, or head of ray; FOLDER must be the same path there.",
            rich_help_panel=_WORK_PANEL,
            show_default=False,
        ),
    ] = None,
    max_hours: Annotated[
        float | None,
        typer.Option(help="Begin no trial after this time.", rich_help_panel=_WORK_PANEL, show_default=False),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what failed.", rich_help_panel=_WORK_PANEL)] = False,
    sample: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Compute only so many trials of the plan, drawn at random by --random-state, and tell from them what the "
            "whole plan would cost.",
            rich_help_panel=_WORK_PANEL,
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be computed, and stop.", rich_help_panel=_WORK_PANEL)
    ] = False,
    metric: Annotated[
        str,
        typer.Option(
            help="micro, macro or log_loss; with evaluation.best_of_n also spearman, and best_of_N for each N of it.",
            rich_help_panel=common.OUTPUT_PANEL,
        ),
    ] = "micro",
    pivot: Annotated[
        str | None,
        typer.Option(
            metavar="PATH,PATH",
            help="Rows and columns of the pivot table; the two settings with the most values by default.",
            rich_help_panel=common.OUTPUT_PANEL,
            show_default=False,
        ),
    ] = None,
    store: common.Store = None,
    no_store: common.NoStore = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Run every variant of an experiment that is not finished yet, and report on all.

    'embedrm sweep study.yaml -o runs/study --grid head.l2=1e-4,1e-2,1 --grid encoder=all-MiniLM-L6-v2,hashing --seeds 5'.
    A sweep that was stopped, killed even, goes on with the same command.
    """
    from embedrm.cli._sweeping import build_sweep
    from embedrm.experiments.sweep_tidy import trial_rows, write_tidy
    from embedrm.experiments.trial_metrics import check_metric

    console = Console(quiet, as_json)
    started = time.perf_counter()
    if jobs == 0:
        raise InvalidInputError("--jobs 0 computes nothing; give 1 or more, or -1 for every core")
    made = build_sweep(
        file, set_, grid=grid, around=around, random=random, samples=samples, random_state=random_state, seeds=seeds
    )
    check_metric(metric, (variant.config for variant in made.variants))
    searched = _search(made, search, metric, search_split, retry=retry, sample=sample)
    if sample is not None:
        from embedrm.experiments.sweep_sample import SampledSweep

        made = SampledSweep.of(made, sample, random_state)
    if dry_run:
        try:
            facts = (searched or made).look(output)
        except DataError:
            # what can be told without the data is told
            console.note(f"planned: {len(made.settings) * len(made.seeds):,} trials; the data are needed to say more")
            raise
        console.result(facts, "\n".join(f"{name.replace('_', ' '):<16}{value:,}" for name, value in facts.items()))
        return
    common.check_folder(output)
    kept: Any = common.open_store(store, no_store)
    keep(f"finished trials are in {output}; the same command goes on from there")
    work: dict[str, Any] = {"jobs": jobs, "backend": backend, "address": address, "max_hours": max_hours, "store": kept}
    found = None
    with console.progress() as progress:
        if searched is None:
            outcome = made.run(output, retry=retry, progress=progress, **work)
        else:
            found = searched.run(output, progress=progress, **work)
    place = made.place(output, None if found is None else f"searched by {found.sampler}")
    if found is not None:
        made, outcome = found.sweep, found.outcome
    if place != Path(output):
        console.note(f"the tables in {output} are of another sweep; those of this one are in {place}")
    rows = trial_rows(made, outcome)
    files = write_tidy(rows, place, made.space.paths)
    paths = None if pivot is None else [part.strip() for part in pivot.split(",")]
    shown: dict[str, Any] = {"pivot": paths, "command": command_line(), "started": started}
    if found is None:
        report = made.report(outcome, metric=metric, **shown)
    else:
        from embedrm.experiments.sweep_search_report import search_report

        report = search_report(found, **shown)
    console.report(report, str(place))
    console.note(f"every trial is in {files['csv']} and {Path(files['parquet']).name}")
    for note in outcome.notes:
        console.note(note)


def _search(
    made: Sweep, sampler: str | None, metric: str, split: str | None, *, retry: bool, sample: int | None
) -> Search | None:
    """Return the search that the options name, if they name one."""
    if sampler is None:
        if split is not None:
            raise InvalidInputError("--search-split belongs to --search; give --search tpe, or leave it out")
        return None
    from embedrm.experiments.sweep_search import Search

    if retry or sample is not None:
        raise InvalidInputError(
            f"{'--retry' if retry else '--sample'} belongs to a sweep whose settings are known; leave it out with --search"
        )
    return Search(made, sampler, metric, split)
