"""``embedrm reproduce``: the tour, or the full study of a paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from embedrm.cli import _common as common
from embedrm.cli._common import Console
from embedrm.cli._data import Reading, load
from embedrm.cli._guard import command_line, keep
from embedrm.errors import InvalidInputError

if TYPE_CHECKING:
    from embedrm.reporting import Report

TOUR, ALL = "tour", "all"


class ReproduceCommand(TyperCommand):
    """Lists the papers at the end of the help, and only there, since that imports them."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help with the listing as its end."""
        from embedrm.experiments.papers import PAPERS

        self.epilog = "\n\n".join(["Papers:", *(f"{name}: {paper.title}" for name, paper in PAPERS)])  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


def reproduce(
    paper: Annotated[
        str | None,
        typer.Argument(
            metavar="[PAPER|all]",
            help="A paper of the list below, or all of them; the tour where absent.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[str, typer.Option(help="quick or full.")] = "quick",
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            help="A bundled data set or a file, repeated for several; the bundled data by default. Preferences; for "
            "troshin2024 texts with a label or score.",
            rich_help_panel=common.DATA_PANEL,
            show_default=False,
        ),
    ] = None,
    columns: common.Columns = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Where the report goes; a new folder in runs/ by default. With 'all', one folder each inside it.",
            rich_help_panel=common.OUTPUT_PANEL,
            show_default=False,
        ),
    ] = None,
    encoder: common.Encoder = None,
    encoder_options: common.EncoderOptions = None,
    store: common.Store = None,
    lm: Annotated[
        str | None,
        typer.Option(
            "--lm",
            metavar="NAME|FOLDER",
            help="The causal language model of papers that guide one (troshin2024): bundled (small, trained here at first "
            "use) by default, a folder, or a hub name such as gpt2.",
            rich_help_panel=common.ENCODER_PANEL,
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="ENCODER",
            help="A second encoder, compared with the first on the same labels (sun2025): a base model beside a tuned one. "
            "--encoder-option holds for both.",
            rich_help_panel=common.ENCODER_PANEL,
            show_default=False,
        ),
    ] = None,
    literal: Annotated[
        bool,
        typer.Option(
            "--literal",
            help="Tune the paper's own models too, beside the analogues on a frozen encoder: tens of minutes with quick, "
            "hours with full; stopped at any time it goes on from there. lin2024 does so unasked, where it can.",
        ),
    ] = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Reproduce papers on your own machine. Without a paper: a tour, one table and one figure for each.

    Reports are printed, and written as report.html, report.md and report.json.
    """
    from embedrm.cli._models import make_encoder
    from embedrm.errors import unknown_name
    from embedrm.experiments.papers import PAPERS
    from embedrm.experiments.papers.base import PREFERENCES, PRESETS
    from embedrm.experiments.tour import run_tour

    console = Console(quiet, as_json)
    common.check_writable(output or "runs")
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    names = PAPERS.names() if paper == ALL else [paper or TOUR]
    classes = {name: None if name == TOUR and paper is None else PAPERS.get(name) for name in names}
    chosen = make_encoder(encoder, encoder_options)
    given = {"lm": lm, "against": None if against is None else make_encoder(against, encoder_options)}
    given = {name: value for name, value in given.items() if value is not None}
    _refuse_options(given, classes)
    jobs: dict[str, Any] = {name: run_tour if cls is None else _paper(cls, given) for name, cls in classes.items()}
    if literal:
        _refuse_literal({name: getattr(job, "has_literal", False) for name, job in jobs.items()})
    if encoder is not None and paper != ALL and _reads(next(iter(jobs.values()))) != PREFERENCES:
        raise InvalidInputError(f"--encoder: {paper} encodes no preferences; leave it out, or choose a model by --lm")
    if data and paper == ALL:
        jobs = _of_preferences(jobs, console)
    (first, *_) = jobs.values()
    if data and _reads(first) != PREFERENCES:
        if columns:
            raise InvalidInputError("--column is for preference data; texts with an attribute have their own columns")
        dataset = first.read(list(data), preset)
    else:
        dataset = load(data, Reading(columns=columns), console) if data else None
    kept = common.open_store(store)
    reports: dict[str, Report] = {}
    for name, job in jobs.items():
        folder = output if output is None or paper != ALL else str(Path(output) / name)
        if hasattr(job, "estimate"):
            console.note(f"{name} ({preset}): {job.estimate(preset, dataset)}")
        run = getattr(job, "run", job)
        more: dict[str, Any] = {}
        plan = None
        if literal:
            plan = job.plan_literal(preset, dataset, chosen)
        elif hasattr(job, "plan_if_possible"):
            plan = job.plan_if_possible(preset, dataset, chosen)
            if job.why_not:
                console.note(f"{name} ({preset}): {job.why_not}")
        if plan is not None:
            more["literal"] = plan
            console.note(f"{name} ({preset}): {plan.estimate()}")
        with console.progress() as progress:
            report, files = run(
                preset=preset,
                data=dataset,
                output=folder,
                encoder=chosen,
                store=kept,
                progress=progress,
                command=command_line(),
                **more,
            )
        keep(f"the report of {name} is in {files['json'].parent}")
        reports[name] = report
        if not as_json or paper != ALL:
            console.report(report, files=files)
        else:
            console.note(common.report_places(files))
    if as_json and paper == ALL:
        console.result({name: report.to_dict() for name, report in reports.items()}, "")


def _paper(cls: Any, given: dict[str, Any]) -> Any:
    """Make a paper with those of the given options that it declares."""
    return cls(**{name: value for name, value in given.items() if name in cls.options})


def _refuse_options(given: dict[str, Any], classes: dict[str, Any]) -> None:
    """Refuse an option that nothing asked for declares."""
    from embedrm.experiments.papers import PAPERS

    for name in given:
        if not any(name in cls.options for cls in classes.values() if cls is not None):
            able = ", ".join(known for known, paper in PAPERS if name in paper.options)  # type: ignore[attr-defined]
            raise InvalidInputError(f"--{name}: {', '.join(classes)} has no use for it. It is for: {able}")


def _reads(job: Any) -> str:
    from embedrm.experiments.papers.base import PREFERENCES

    return str(getattr(job, "reads", PREFERENCES))


def _of_preferences(jobs: dict[str, Any], console: Console) -> dict[str, Any]:
    """Leave out the papers that are not studied on preferences, and say so."""
    from embedrm.experiments.papers.base import PREFERENCES

    kept = {name: job for name, job in jobs.items() if job.reads == PREFERENCES}
    for name in (name for name in jobs if name not in kept):
        console.note(f"{name} is left out: it is studied on {jobs[name].reads}, and --data gives preferences")
    return kept


def _refuse_literal(has: dict[str, bool]) -> None:
    """Refuse --literal where a paper asked for has nothing to tune."""
    from embedrm.experiments.papers import PAPERS

    without = [name for name, known in has.items() if not known]
    if without:
        able = ", ".join(name for name, paper in PAPERS if getattr(paper, "has_literal", False))
        raise InvalidInputError(
            f"--literal: {', '.join(without)} has no literal arms, which tune a paper's own models. "
            f"There are some for: {able}"
        )
