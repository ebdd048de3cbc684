"""``embedrm evaluate``: accuracy, intervals and margins of saved models on pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedrm.cli import _common as common
from embedrm.cli._common import Console
from embedrm.cli._data import Reading, load, take_split
from embedrm.cli._guard import command_line
from embedrm.errors import InvalidInputError

if TYPE_CHECKING:
    from embedrm.cli._models import Loaded
    from embedrm.cli._vectors import VectorFiles
    from embedrm.preferences import EmbeddedPreferences
    from embedrm.reporting import Report
    from embedrm.reward_model import RewardModel

EvaluationSplit = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="Evaluate on this split, or 'all'. By default test, or every pair of data without splits.",
        show_default=False,
    ),
]


def evaluate(
    model: Annotated[str, typer.Argument(metavar="[NAME=]MODEL", help="Folder of a saved model.", show_default=False)],
    paths: common.Paths = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also", metavar="[NAME=]MODEL", help="Another model for the same table; repeat it.", show_default=False
        ),
    ] = None,
    split: EvaluationSplit = None,
    n_resamples: common.Resamples = 2000,
    random_state: common.Seed = 0,
    title: Annotated[str, typer.Option(help="Title of the report.")] = "Evaluation",
    encoder: common.Encoder = None,
    store: common.Store = None,
    no_store: common.NoStore = False,
    form: common.Form = "auto",
    columns: common.Columns = None,
    on_error: common.OnError = "raise",
    ties: common.Ties = "auto",
    allow_group_leak: common.GroupLeak = False,
    vectors: common.Vectors = None,
    pairs: common.Pairs = None,
    prompt_vectors: common.PromptVectors = None,
    prompt_of: common.PromptOf = None,
    output: common.ReportFolder = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Evaluate saved models on pairs; the length of the response is shown beside them."""
    from embedrm.cli._models import load_models
    from embedrm.cli._vectors import VectorFiles
    from embedrm.reporting.evaluation import evaluate as evaluate_models

    console = Console(quiet, as_json)
    common.check_writable(output)
    loaded = load_models([model, *(also or ())])
    reading = Reading(form, columns, on_error, ties, allow_group_leak)
    models, preferences = models_and_pairs(
        loaded,
        paths,
        reading,
        VectorFiles(vectors, pairs, prompt_vectors, prompt_of, on_error),
        split,
        encoder,
        (store, no_store),
        console,
    )
    with console.working(f"evaluating on {len(preferences):,} pairs"):
        report = evaluate_models(
            models,
            preferences,
            n_resamples=n_resamples,
            random_state=random_state,
            title=title,
            command=command_line(),
        )
    finish(report, loaded, preferences, console, output)


def models_and_pairs(
    loaded: list[Loaded],
    paths: list[str] | None,
    reading: Reading,
    files: VectorFiles,
    split: str | None,
    encoder: str | None,
    store: tuple[str | None, bool],
    console: Console,
) -> tuple[dict[str, RewardModel], EmbeddedPreferences]:
    """Return the models by name and the pairs on which they can be asked for margins."""
    if files:
        if paths:
            raise InvalidInputError(f"give texts or vectors, not both; got {paths[0]!r} and --vectors")
        for one in loaded:
            if "encoder" in one.extra:
                console.note(
                    f"{one.name} was fitted with an encoder; nothing can tell whether these vectors are its own"
                )
        return {one.name: one.model for one in loaded}, files.preferences(split, "test", console)
    from embedrm.cli._texts import encode_for, note_truncation, on_shared_pairs, open_pipelines

    data = take_split(load(paths, reading, console), split, "test", console)
    pipelines = open_pipelines(loaded, encoder, common.open_store(*store))
    with console.progress() as progress:
        encoded = encode_for(pipelines, data, progress)
    for preferences in {id(p): p for p in encoded}.values():
        note_truncation(preferences, console)
    return on_shared_pairs(loaded, encoded)


def finish(
    report: Report, loaded: list[Loaded], preferences: EmbeddedPreferences, console: Console, output: str | None
) -> None:
    """Add what the models are to the report, and print it."""
    fingerprint: Any = (preferences.responses.info.get("data") or {}).get("fingerprint")
    for one in loaded:
        if fingerprint and (one.training.get("data") or {}).get("fingerprint") == fingerprint:
            report.notes.append(f"{one.name} was fitted on exactly these pairs: this is its training accuracy.")
    report.provenance["models"] = {one.name: one.facts() for one in loaded}
    truncation = preferences.responses.info.get("truncation")
    if truncation:
        report.provenance["truncation"] = truncation
    console.report(report, output)
