"""``embedrm score``: rewards of responses, as JSON lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedrm.cli import _common as common
from embedrm.cli._common import Console
from embedrm.cli._guard import keep, write
from embedrm.errors import InvalidInputError

if TYPE_CHECKING:
    from embedrm.cli._scoring import ScoreRow
    from embedrm.cli._vectors import VectorFiles


def score(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder of a saved model.", show_default=False)],
    input_: Annotated[
        str | None,
        typer.Argument(
            metavar="[INPUT]",
            help="JSONL, CSV or Parquet with prompt and response, or prompt and responses (a list); optional system, "
            "context and domain.",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="A prompt, instead of INPUT.", show_default=False)] = None,
    response: Annotated[
        list[str] | None, typer.Option(help="A response to --prompt; repeat it.", show_default=False)
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write there instead of to standard output.", show_default=False
        ),
    ] = None,
    field: Annotated[
        str, typer.Option(help="What the reward is called; a list of them gets an s at the end.")
    ] = "reward",
    columns: common.Columns = None,
    on_error: common.OnError = "raise",
    encoder: common.Encoder = None,
    store: common.Store = None,
    no_store: common.NoStore = False,
    vectors: common.Vectors = None,
    prompt_vectors: common.PromptVectors = None,
    prompt_of: common.PromptOf = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Score responses: every row of INPUT comes back as one JSON line with its reward. Higher is better."""
    from embedrm.cli._models import load_models
    from embedrm.cli._vectors import VectorFiles

    console = Console(quiet, as_json)
    if output is not None and Path(output).exists():
        raise InvalidInputError(f"{output} exists already; choose another file. Nothing was done")
    common.check_writable(output)
    (loaded,) = load_models([model])
    files = VectorFiles(vectors, None, prompt_vectors, prompt_of)
    asked = {
        "INPUT": input_ is not None,
        "--prompt with --response": bool(prompt or response),
        "--vectors": bool(files),
    }
    if sum(asked.values()) != 1:
        came = " and ".join(name for name, given in asked.items() if given) or "none"
        raise InvalidInputError(f"score takes one of INPUT, --prompt with --response, or --vectors; got {came}")
    if files:
        lines = _vector_lines(loaded.model, files, field)
    else:
        from embedrm.cli._scoring import read_rows, typed_rows, with_rewards
        from embedrm.cli._texts import open_pipelines

        (pipeline,) = open_pipelines([loaded], encoder, common.open_store(store, no_store))
        if input_ is None:
            rows = typed_rows(prompt, response)
        else:
            rows = read_rows(input_, columns, on_error, pipeline.template, field, console)
        rewards = _rewards(pipeline, rows, console)
        lines = with_rewards(rows, rewards, field)
    _write(lines, output, console)


def _rewards(pipeline: Any, rows: list[ScoreRow], console: Console) -> list[float]:
    flat = [(row, text) for row in rows for text in row.responses]
    with console.progress() as progress:
        rewards = pipeline.score(
            [row.prompt for row, _ in flat],
            [text for _, text in flat],
            system=[row.system for row, _ in flat],
            context=[row.context for row, _ in flat],
            domain=[row.domain for row, _ in flat],
            progress=progress,
        )
    return [float(reward) for reward in rewards]


def _vector_lines(model: Any, files: VectorFiles, field: str) -> list[dict[str, Any]]:
    rewards = model.predict(files.responses())
    return [{"row": row, field: float(reward)} for row, reward in enumerate(rewards)]


def _write(lines: list[dict[str, Any]], output: str | None, console: Console) -> None:
    from embedrm.cli._scoring import json_line, write_lines

    if output is not None:
        write_lines(lines, output)
        keep(f"the rewards are in {output}")
        console.note(f"{len(lines):,} lines written to {output}")
        if console.as_json:
            console.result({"output": output, "lines": len(lines)}, "")
    elif console.as_json:
        console.result(lines, "")
    else:
        for line in lines:
            write(json_line(line))
