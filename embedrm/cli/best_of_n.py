"""``embedrm best-of-n``: what the responses that saved models choose are worth, by gold."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedrm.cli import _common as common
from embedrm.cli._common import Console, plural
from embedrm.cli._data import ALL, Reading, load
from embedrm.cli._guard import command_line, keep
from embedrm.errors import InvalidInputError

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
    from embedrm.experiments.merging_best_of_n import BestOfNStudy

_CHOICE_PANEL = "Best of n"


def best_of_n(
    model: Annotated[str, typer.Argument(metavar="[NAME=]MODEL", help="Folder of a saved model.", show_default=False)],
    paths: common.Paths = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also", metavar="[NAME=]MODEL", help="Another model; each is compared with MODEL.", show_default=False
        ),
    ] = None,
    n: Annotated[
        str | None,
        typer.Option(
            "--n",
            metavar="N,N,...",
            help="How many candidates to choose from, such as 1,2,4. By default every n to 16, or those of Sun et al. "
            "(2025) where prompts have more candidates.",
            rich_help_panel=_CHOICE_PANEL,
            show_default=False,
        ),
    ] = None,
    estimator: Annotated[
        str,
        typer.Option(
            help="unbiased (all subsets of n), lin2024 (the first n) or sun2025 (the first n in random orders).",
            rich_help_panel=_CHOICE_PANEL,
        ),
    ] = "unbiased",
    n_permutations: Annotated[
        int, typer.Option(min=1, help="Random orders of the estimator sun2025.", rich_help_panel=_CHOICE_PANEL)
    ] = 100,
    gold: Annotated[
        str,
        typer.Option(help="raw, or standard: standardised within each domain.", rich_help_panel=_CHOICE_PANEL),
    ] = "raw",
    missing: Annotated[
        str,
        typer.Option(
            help="Prompts of which some gold is missing: raise, drop-prompts or drop-responses (counted).",
            rich_help_panel=_CHOICE_PANEL,
        ),
    ] = "raise",
    same_prompts: Annotated[
        bool,
        typer.Option(
            "--same-prompts",
            help="Judge every n on the prompts that have enough candidates for the largest.",
            rich_help_panel=_CHOICE_PANEL,
        ),
    ] = False,
    split: Annotated[
        str | None,
        typer.Option(
            help="Prompts of this split, or 'all'. By default test, or every prompt of data without splits.",
            show_default=False,
        ),
    ] = None,
    fitted_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fitted-on",
            metavar="FILE",
            help="What the models were fitted on: prompts of its training and validation splits (all, where it names none) "
            "are left out and counted; repeat it.",
            show_default=False,
        ),
    ] = None,
    export: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write the responses that MODEL chooses there, one JSON line a prompt.",
            rich_help_panel=common.OUTPUT_PANEL,
            show_default=False,
        ),
    ] = None,
    export_n: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Export the best of the first so many; of all by default.",
            rich_help_panel=common.OUTPUT_PANEL,
            show_default=False,
        ),
    ] = None,
    n_resamples: common.Resamples = 2000,
    random_state: common.Seed = 0,
    title: Annotated[str, typer.Option(help="Title of the report.")] = "Best of n",
    encoder: common.Encoder = None,
    store: common.Store = None,
    no_store: common.NoStore = False,
    form: common.Form = "auto",
    columns: common.Columns = None,
    on_error: common.OnError = "raise",
    allow_group_leak: common.GroupLeak = False,
    output: common.ReportFolder = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Let saved models choose among responses with gold scores, and judge the choices for every n.

    'embedrm best-of-n runs/linear candidates.jsonl --also runs/merged'. A row holds a prompt, its responses and their gold.
    The first response, a random one, the longest and the oracle are shown beside the models.
    """
    from embedrm.cli._models import load_models
    from embedrm.cli._texts import encode_for, note_truncation, open_pipelines
    from embedrm.cli.curve import read_sizes
    from embedrm.evaluation.best_of_n import ESTIMATORS
    from embedrm.experiments.merging_best_of_n import BestOfNStudy
    from embedrm.reporting import Report, collect

    started = time.perf_counter()
    console = Console(quiet, as_json)
    common.check_writable(output)
    _check_export(export, export_n)
    if estimator not in ESTIMATORS:
        from embedrm.errors import unknown_name

        raise unknown_name("estimator (--estimator)", estimator, ESTIMATORS)
    ns = None if n is None else _numbers(read_sizes(n))
    loaded = load_models([model, *(also or ())])
    reading = Reading(form, columns, on_error, "auto", allow_group_leak)
    data = _take(load(paths, reading, console), split, fitted_on, reading, console)
    pipelines = open_pipelines(loaded, encoder, common.open_store(store, no_store))
    with console.progress() as progress:
        encoded = encode_for(pipelines, data, progress)
        for preferences in {id(p): p for p in encoded}.values():
            note_truncation(preferences, console)
        rewards = {one.name: one.model.predict(own) for one, own in zip(loaded, encoded)}
    with console.working(f"judging choices among {plural(data.n_responses, 'response')}"):
        study = BestOfNStudy(
            rewards,
            encoded[0].responses,
            ns=ns,
            estimator=estimator,
            missing=missing,
            gold=gold,
            same_prompts=same_prompts,
            n_permutations=n_permutations,
            n_resamples=n_resamples,
            random_state=random_state,
        )
    info = encoded[0].responses.info
    report = Report(
        "best-of-n",
        title,
        study.findings(),
        notes=_notes(data, fitted_on),
        provenance=collect(
            command=command_line(),
            seeds=random_state,
            encoder=info.get("encoder"),
            data=info.get("data"),
            started=started,
            extra={"models": {one.name: one.facts() for one in loaded}, "truncation": info.get("truncation")},
        ),
    )
    study.add_sections(report)
    if export is not None:
        _export(study, loaded[0].name, data, export, export_n, console)
    console.report(report, output)


def _numbers(sizes: list[int | str]) -> list[int]:
    if any(isinstance(size, str) for size in sizes):
        raise InvalidInputError("--n expects whole numbers with commas between them; every n is the default")
    return [int(size) for size in sizes]


def _take(
    data: PreferenceDataset, split: str | None, fitted_on: list[str] | None, reading: Reading, console: Console
) -> PreferenceDataset:
    """Return the prompts asked about with all their responses, without those that models were fitted on."""
    from embedrm.datasets.candidates import candidates

    unnamed = set(data.prompts["split"].tolist()) <= {""}
    wanted = None if split == ALL or (split is None and unnamed) else split or "test"
    if split is None and unnamed:
        console.note(f"the data name no splits: all {data.n_prompts:,} prompts are used")
    part = candidates(data, wanted)
    if wanted is not None:
        console.note(f"{part.n_prompts:,} of {data.n_prompts:,} prompts are in the split {wanted!r}")
    if fitted_on:
        part = candidates(part, without=_training(load(fitted_on, Reading(on_error=reading.on_error), console)))
        left = part.info["candidates"]["fitted_on"]
        console.note(f"{plural(left, 'prompt')} left out, which the models were fitted on")
    return part


def _training(data: PreferenceDataset) -> PreferenceDataset:
    """Return the prompts on which models may have been fitted: of the training and validation splits, all without splits."""
    from embedrm.datasets.candidates import prompts_where

    split = data.prompts["split"].to_numpy(dtype=object)
    seen = (split == "train") | (split == "validation") | (split == "")
    if not seen.any():
        raise InvalidInputError("--fitted-on names files without a training split; leave it out")
    return prompts_where(data, seen)


def _notes(data: PreferenceDataset, fitted_on: list[str] | None) -> list[str]:
    if fitted_on:
        left = data.info["candidates"]["fitted_on"]
        return [f"{plural(left, 'prompt')} of these data left out, because models were fitted on them (--fitted-on)."]
    return [
        "A saved model does not tell its training prompts: where some are among these, it is judged on what it has seen. "
        "--fitted-on FILE leaves them out."
    ]


def _check_export(export: str | None, export_n: int | None) -> None:
    if export is None:
        if export_n is not None:
            raise InvalidInputError("--export-n says how many candidates --export FILE chooses from; give that too")
        return
    if Path(export).exists():
        raise InvalidInputError(f"{export} exists already; choose another file. Nothing was done")
    common.check_writable(export)


def _export(
    study: BestOfNStudy, name: str, data: PreferenceDataset, path: str, n: int | None, console: Console
) -> None:
    """Write the chosen responses with their prompts, rewards and gold."""
    from embedrm.cli._scoring import write_lines

    chosen = study.selected(name, n)
    texts, prompts = data.response_texts(), data.prompts
    fields: dict[str, Any] = {key: prompts[key].tolist() for key in ("prompt", "system", "context", "domain", "split")}
    owner, gold, rewards = study.responses.prompt_of, study.responses.gold, study.rewards[name]
    lines = []
    for row, among in zip(chosen["rows"].tolist(), chosen["n"].tolist()):
        about = {key: values[owner[row]] for key, values in fields.items() if key == "prompt" or values[owner[row]]}
        judged = {} if gold[row] != gold[row] else {"gold": float(gold[row])}
        lines.append(
            about | {"response": texts[row], "reward": float(rewards[row]), **judged, "n": among, "model": name}
        )
    write_lines(lines, path)
    keep(f"the chosen responses are in {path}")
    ties = (
        f"; at {chosen['n_ties']:,} another has the same reward and the earlier was taken" if chosen["n_ties"] else ""
    )
    few = f"; {plural(chosen['n_excluded'], 'prompt')} with fewer left out" if chosen["n_excluded"] else ""
    console.note(f"{plural(len(lines), 'chosen response')} of {name} written to {path}{ties}{few}")
