"""Rows to be scored, and the JSON lines that carry their rewards."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from embedrm.cli._common import Console, json_text, settings
from embedrm.cli._data import ON_ERROR, reading_notes
from embedrm.datasets import Template
from embedrm.datasets.columns import FIELDS, ColumnChooser, describe
from embedrm.datasets.messages import as_response, read_messages, render_prompt
from embedrm.datasets.readers import open_source
from embedrm.datasets.validate import ErrorLog, RowError, absent, check_list, check_text
from embedrm.errors import DataError, InvalidInputError, unknown_name

ABOUT = ("system", "context", "domain")
TAKEN = ("prompt", "response", "responses", *ABOUT)


@dataclass(frozen=True)
class ScoreRow:
    """One row: what it held, and what is scored of it."""

    kept: Mapping[str, Any]
    prompt: str
    responses: tuple[str, ...]
    several: bool = False
    system: str = ""
    context: str = ""
    domain: str = "default"


def typed_rows(prompt: str | None, responses: Sequence[str] | None) -> list[ScoreRow]:
    """Return one row for each response typed after ``--response``."""
    if prompt is None or not responses:
        raise InvalidInputError(
            "--prompt and --response go together: one prompt, and each response after its --response"
        )
    for name, text in (("--prompt", prompt), *(("--response", text) for text in responses)):
        try:
            check_text(text, name)
        except RowError as error:
            raise InvalidInputError(f"{error.what}; {error.remedy}") from None
    return [ScoreRow({"prompt": prompt, "response": text}, prompt, (text,)) for text in responses]


def read_rows(
    path: str, columns: Sequence[str] | None, on_error: str, template: Template, field: str, console: Console
) -> list[ScoreRow]:
    """Read the rows of a file; every bad one is told with its line, and left out only where that is asked for.

    Raises
    ------
    DataError
        For a missing column, a text that is none, or a column that has the name of the reward.
    """
    if on_error not in ON_ERROR:
        raise unknown_name("on_error", on_error, ON_ERROR)
    source = open_source(path)
    rows = list(source.rows())
    if not rows:
        raise DataError("the file has no rows; expected at least one.", path)
    log = ErrorLog(on_error)
    good = [(line, row) for line, row in rows if not isinstance(row, RowError)]
    for line, row in rows:
        if isinstance(row, RowError):
            log.add(path, line, row)
    log.finish()
    names = source.columns or list(dict.fromkeys(name for _, row in good for name in row))
    column = _columns(names, columns, path, console)
    for name in (field, f"{field}s"):
        if name in names:
            raise DataError(
                f"there is a column {name!r} already; choose another name for the reward with --field.", path
            )
    out = []
    for line, row in good:
        try:
            out.append(_row(row, column, template))
        except RowError as error:
            log.add(path, line, error)
    log.finish()
    if not out:
        raise log.error(f"none of the {log.total} rows can be used: ")
    for text in reading_notes({"skipped": log.to_info()}):
        console.note(text)
    return out


def _columns(names: Sequence[str], asked: Sequence[str] | None, path: str, console: Console) -> dict[str, str]:
    """Return the column of each field that has one; what has another name is told on stderr."""
    given = settings(asked, "--column")
    for name in given:
        if name not in TAKEN:
            raise unknown_name("field to score", name, TAKEN)
    # in preference data a single response is the field "text"; here it is called by its name
    wanted = {("text" if name == "response" else name): column or None for name, column in given.items()}
    if "response" in names and "text" not in wanted:
        wanted["text"] = "response"
    chooser = ColumnChooser(names, wanted, path)
    found = {name: chooser.one("text" if name == "response" else name) for name in TAKEN}
    if not found["prompt"] or not (found["response"] or found["responses"]):
        lacking = "prompt" if not found["prompt"] else "response"
        usual = ", ".join(FIELDS["text" if lacking == "response" else lacking][:4])
        raise DataError(
            f"expected prompt and response (or responses), found no column for the {lacking} (usual names: {usual}). "
            f"Columns here: {', '.join(chooser.short())}. Name it with --column {lacking}=...",
            path,
        )
    if found["response"] and found["responses"]:
        raise DataError(
            "there are columns for one response and for several; leave one out with --column response= (or responses=).",
            path,
        )
    renamed = {name: column for name, column in found.items() if column and column != name}
    if renamed:
        console.note(f"columns: {describe(renamed)}")
    return {name: column for name, column in found.items() if column}


def _row(row: Mapping[str, Any], column: Mapping[str, str], template: Template) -> ScoreRow:
    about: dict[str, Any] = {
        name: check_text(row[column[name]], name) for name in ABOUT if name in column and not absent(row, column[name])
    }
    for name in ("prompt", "response", "responses"):
        if name in column and absent(row, column[name]):
            raise RowError(
                "missing field", f"there is no {name} (column {column[name]!r})", "give it or delete the row"
            )
    prompt = row[column["prompt"]]
    if isinstance(prompt, list):
        system, prompt = render_prompt(read_messages(prompt, "prompt"), template, "prompt")
        about = {**({"system": system} if system else {}), **about}
    prompt = check_text(prompt, "prompt")
    if "responses" in column:
        values = check_list(row[column["responses"]], "responses")
        if not values:
            raise RowError("empty", "responses is an empty list", "give at least one response")
        texts = tuple(as_response(value, f"response {i}") for i, value in enumerate(values, 1))
        return ScoreRow(row, prompt, texts, True, **about)
    return ScoreRow(row, prompt, (as_response(row[column["response"]], "response"),), **about)


def with_rewards(rows: Sequence[ScoreRow], rewards: Sequence[float], field: str) -> list[dict[str, Any]]:
    """Return every row with its reward, or with the list of them."""
    out, start = [], 0
    for row in rows:
        own = list(rewards[start : start + len(row.responses)])
        start += len(row.responses)
        value: dict[str, Any] = {f"{field}s": own} if row.several else {field: own[0]}
        out.append({**{name: _plain(v) for name, v in row.kept.items()}, **value})
    return out


def _plain(value: Any) -> Any:
    """Return a cell as JSON has it; what JSON does not have (dates, bytes) as text, NaN as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value)


def json_line(line: Mapping[str, Any]) -> str:
    """Return one JSON line; beyond ASCII only where standard output can show it."""
    return json.dumps(json.loads(json_text(line)), ensure_ascii=json_text("é").isascii())


def write_lines(lines: Sequence[Mapping[str, Any]], output: str) -> None:
    """Write JSON lines to a file that appears whole or not at all."""
    target = Path(output)
    temporary = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            for line in lines:
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        os.replace(temporary, target)
    except OSError as error:
        raise InvalidInputError(f"cannot write {output}: {error.strerror or error}; choose another file") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
