"""``embedrm compare``: is one saved model better than another on the same pairs?"""

from __future__ import annotations

from typing import Annotated

import typer

from embedrm.cli import _common as common
from embedrm.cli._common import Console
from embedrm.cli._data import Reading
from embedrm.cli._guard import command_line
from embedrm.cli.evaluate import EvaluationSplit, finish, models_and_pairs


def compare(
    model_a: Annotated[
        str, typer.Argument(metavar="[NAME=]MODEL_A", help="Folder of a saved model.", show_default=False)
    ],
    model_b: Annotated[str, typer.Argument(metavar="[NAME=]MODEL_B", help="The other one.", show_default=False)],
    paths: common.Paths = None,
    split: EvaluationSplit = None,
    n_resamples: common.Resamples = 2000,
    random_state: common.Seed = 0,
    title: Annotated[str, typer.Option(help="Title of the report.")] = "Comparison",
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
    """Compare two saved models: differences of accuracy with intervals, McNemar's test, Holm's correction over domains."""
    from embedrm.cli._models import load_models
    from embedrm.cli._vectors import VectorFiles
    from embedrm.reporting.evaluation import compare as compare_models

    console = Console(quiet, as_json)
    common.check_writable(output)
    loaded = load_models([model_a, model_b])
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
    a, b = (one.name for one in loaded)
    with console.working(f"comparing on {len(preferences):,} pairs"):
        report = compare_models(
            models[a],
            models[b],
            preferences,
            names=(a, b),
            n_resamples=n_resamples,
            random_state=random_state,
            title=title,
            command=command_line(),
        )
    finish(report, loaded, preferences, console, output)
