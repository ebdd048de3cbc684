"""embedrm score: every row comes back, in order, with its reward."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from embedrm import RewardPipeline


@pytest.fixture
def pipeline(models: dict[str, str]) -> RewardPipeline:
    return RewardPipeline.load(models["linear"], store=False)


def _lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def _write(name: str, rows: list[dict]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


ROWS = [
    {"id": 7, "prompt": "Where do tea leaves go?", "response": "Into the kettle."},
    {"id": 8, "prompt": "Where do sea leaves go?", "response": "Into the desert."},
    {"id": 9, "prompt": "Where do tea leaves go?", "response": "Into the kettle."},
]


def test_rows_come_back_in_order_with_their_rewards(cli, models, pipeline) -> None:
    outcome = cli("score", models["linear"], _write("in.jsonl", ROWS))
    assert outcome.code == 0, outcome.err
    lines = _lines(outcome.out)
    expected = pipeline.score([r["prompt"] for r in ROWS], [r["response"] for r in ROWS])
    assert [line["reward"] for line in lines] == expected.tolist()
    assert [{k: v for k, v in line.items() if k != "reward"} for line in lines] == ROWS
    assert lines[0]["reward"] == lines[2]["reward"]


def test_typed_responses(cli, models, pipeline) -> None:
    outcome = cli("score", models["linear"], "--prompt", "Tea?", "--response", "kettle", "--response", "bucket")
    lines = _lines(outcome.out)
    assert [line["response"] for line in lines] == ["kettle", "bucket"]
    assert [line["reward"] for line in lines] == pipeline.score("Tea?", ["kettle", "bucket"]).tolist()
    assert lines[0]["reward"] > lines[1]["reward"]


def test_several_responses_a_row_give_a_list(cli, models, pipeline) -> None:
    rows = [{"question": "a?", "candidates": ["kettle", "bucket"]}, {"question": "b?", "candidates": ["harbour"]}]
    outcome = cli("score", models["linear"], _write("in.jsonl", rows))
    lines = _lines(outcome.out)
    assert lines[0]["rewards"] == pipeline.score("a?", ["kettle", "bucket"]).tolist()
    assert lines[1]["rewards"] == pipeline.score("b?", ["harbour"]).tolist()
    assert outcome.err.startswith("columns: question -> prompt, candidates -> responses\n")


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl.gz"])
def test_every_kind_of_file(cli, models, suffix: str) -> None:
    frame = pd.DataFrame(ROWS)
    name = f"in.{suffix}"
    if suffix == "csv":
        frame.to_csv(name, index=False)
    elif suffix == "parquet":
        frame["when"] = pd.Timestamp("2024-01-02")
        frame["odd"] = [np.nan, 1.0, 2.0]
        frame.to_parquet(name)
    else:
        frame.to_json(name, orient="records", lines=True)
    lines = _lines(cli("score", models["linear"], name).out)
    assert [str(line["id"]) for line in lines] == ["7", "8", "9"]
    assert all(isinstance(line["reward"], float) for line in lines)
    if suffix == "parquet":
        assert [line["odd"] for line in lines] == [None, 1.0, 2.0]
        assert lines[0]["when"].startswith("2024-01-02")


def test_a_conversation_as_prompt_is_rendered_by_the_models_template(cli, models) -> None:
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Tea?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Where?"},
    ]
    rows = [{"prompt": talk, "response": [{"role": "assistant", "content": "kettle"}]}]
    routed = RewardPipeline.load(models["routed"], store=False)
    (line,) = _lines(cli("score", models["routed"], _write("in.jsonl", rows)).out)
    prompt = routed.template.turns([("user", "Tea?"), ("assistant", "Yes."), ("user", "Where?")])
    assert line["reward"] == routed.score(prompt, ["kettle"], system="Be brief.")[0]
    assert line["prompt"] == talk


def test_output_goes_to_a_file_that_is_not_overwritten(cli, models) -> None:
    name = _write("in.jsonl", ROWS)
    outcome = cli("score", models["linear"], name, "--output", "out.jsonl")
    assert outcome.out == ""
    assert "3 lines written to out.jsonl" in outcome.err
    assert len(_lines(Path("out.jsonl").read_text())) == 3
    again = cli("score", models["linear"], name, "--output", "out.jsonl")
    assert again.code == 2
    assert "out.jsonl exists already" in again.err
    assert [p.name for p in Path().iterdir() if "out" in p.name] == ["out.jsonl"]


def test_json_is_one_document(cli, models) -> None:
    document = cli("score", models["linear"], _write("in.jsonl", ROWS), "--json").json()
    assert [row["id"] for row in document] == [7, 8, 9]


def test_text_beyond_ascii_survives(cli, models) -> None:
    rows = [{"prompt": "Tee? 茶?", "response": "Wasserkessel, süß 🫖"}]
    (line,) = _lines(cli("score", models["linear"], _write("in.jsonl", rows)).out)
    assert line["response"] == "Wasserkessel, süß 🫖"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt": "p"}], "found no column for the response"),
        ([{"response": "r"}], "found no column for the prompt"),
        ([{"prompt": "p", "response": "r", "reward": 1}], "a column 'reward' already; choose another name"),
        ([{"prompt": "p", "response": "r", "responses": ["r"]}], "leave one out"),
        ([{"prompt": "p", "response": "r"}, {"prompt": "", "response": "r"}], "in.jsonl:2: there is no prompt"),
        ([{"prompt": "p", "response": 3}], "in.jsonl:1: response must be a string, got a number"),
        ([{"prompt": "p", "responses": []}], "in.jsonl:1: responses is an empty list"),
        ([{"prompt": "p", "responses": "r"}], "in.jsonl:1: responses must be a list"),
        ([{"prompt": [], "response": "r"}], "in.jsonl:1: prompt is an empty list of messages"),
        ([{"prompt": "p", "response": "r", "system": 3}], "in.jsonl:1: system must be a string"),
        ([{"prompt": "p", "response": "\ud800"}], "in.jsonl:1: response holds half of a surrogate pair"),
    ],
)
def test_bad_rows_are_told_with_their_line(cli, models, rows: list[dict], said: str) -> None:
    outcome = cli("score", models["linear"], _write("in.jsonl", rows))
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.splitlines()[0].startswith("error: in.jsonl")
    assert said in outcome.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("score {linear}", "takes one of INPUT"),
        ("score {linear} in.jsonl --prompt p --response r", "got INPUT and --prompt"),
        ("score {linear} --prompt p", "go together"),
        ("score {linear} --response r", "go together"),
        ("score {linear} --prompt '' --response r", "--prompt is empty"),
        ("score {linear} nothere.jsonl", "nothere.jsonl: there is no such file"),
        ("score {linear} in.jsonl --column response=nothing", "unknown column 'nothing'"),
        ("score {linear} in.jsonl --column chosen=response", "unknown field to score 'chosen'"),
        ("score {linear} in.jsonl --output in.jsonl/out.jsonl", "cannot write in.jsonl/out.jsonl"),
        ("score nothere in.jsonl", "holds no saved model"),
    ],
)
def test_misuse_is_one_line(cli, models, words: str, said: str) -> None:
    _write("in.jsonl", ROWS)
    outcome = cli(words.format(**models))
    assert outcome.code == 2, outcome.err
    assert said in outcome.err
    assert outcome.out == ""


def test_bad_rows_can_be_left_out_and_are_counted(cli, models) -> None:
    name = _write("in.jsonl", [*ROWS, {"id": 10, "prompt": "p", "response": ""}])
    outcome = cli("score", models["linear"], name, "--on-error", "skip")
    assert [line["id"] for line in _lines(outcome.out)] == [7, 8, 9]
    assert "skipped 1 bad rows" in outcome.err
    assert "in.jsonl:4" in outcome.err
    nothing = cli(
        "score", models["linear"], _write("in.jsonl", [{"prompt": "p", "response": ""}]), "--on-error", "skip"
    )
    assert nothing.code == 2
    assert "none of the 1 rows can be used" in nothing.err


def test_fields_can_be_renamed(cli, models) -> None:
    rows = [{"ask": "p", "said": "kettle", "reward": "old"}]
    words = ["--column", "prompt=ask", "--column", "response=said", "--field", "bt"]
    (line,) = _lines(cli("score", models["linear"], _write("in.jsonl", rows), *words).out)
    assert line["reward"] == "old"
    assert isinstance(line["bt"], float)
