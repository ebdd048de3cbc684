"""Bring your own vectors: fit, evaluate, compare and score without an encoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedrm import EmbeddedPreferences, LinearHead
from embedrm.persistence import load_model

FIT = "fit --vectors a.npy --pairs p.jsonl --output m"


def _pairs(rows: list[dict], name: str = "p.jsonl") -> str:
    frame = pd.DataFrame(rows)
    if name.endswith(".csv"):
        frame.to_csv(name, index=False)
    elif name.endswith(".parquet"):
        frame.to_parquet(name)
    else:
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.parquet"])
def test_what_is_fitted_is_what_from_arrays_fits(cli, vectors, name: str) -> None:
    rows = [
        {**json.loads(line), "weight": 1 + i % 3, "outcome": 0.5 + 0.125 * (i % 5), "margin": i / 10}
        for i, line in enumerate(Path("p.jsonl").read_text().splitlines())
    ]
    _pairs(rows, name)
    outcome = cli(f"fit --vectors a.npy --pairs {name} --output m --set l2=0.2 --json")
    assert outcome.code == 0, outcome.err
    pairs = [[row["chosen"], row["rejected"]] for row in rows]
    numbers = {key: [row[key] for row in rows] for key in ("weight", "outcome", "margin")}
    expected = LinearHead(l2=0.2).fit(EmbeddedPreferences.from_arrays(np.load("a.npy"), pairs, **numbers))
    model, extra = load_model("m")
    np.testing.assert_array_equal(model.coef_, expected.coef_)
    assert "encoder" not in extra
    assert outcome.json()["domains"] == ["d0", "d1"]
    assert outcome.json()["ties"] == 8


def test_evaluate_compare_and_score(cli, vectors) -> None:
    assert cli(FIT).code == 0
    assert cli("fit --vectors a.npy --pairs p.jsonl --output n --set l2=10").code == 0
    report = cli("evaluate m --vectors a.npy --pairs p.jsonl --json").json()
    (table,) = [t for s in report["sections"] for t in s["tables"] if t["name"] == "accuracy"]
    assert [row["model"] for row in table["rows"]] == ["m"]
    assert any("length-only row is absent" in note for note in report["notes"])
    assert any("fitted on exactly these pairs" in note for note in report["notes"])
    assert cli("compare m n --vectors a.npy --pairs p.jsonl").code == 0
    lines = [json.loads(line) for line in cli("score m --vectors a.npy").out.splitlines()]
    assert [line["row"] for line in lines] == list(range(80))
    np.testing.assert_array_equal([line["reward"] for line in lines], load_model("m")[0].predict(np.load("a.npy")))


def test_several_views_and_prompt_vectors(cli, vectors) -> None:
    rng = np.random.default_rng(1)
    np.save("b.npy", rng.standard_normal((80, 6)).astype(np.float32))
    np.save("q.npy", rng.standard_normal((40, 6)).astype(np.float32))
    np.save("of.npy", np.repeat(np.arange(40), 2))
    words = "--vectors 3=a.npy --vectors response:6=b.npy --prompt-vectors 6=q.npy --prompt-of of.npy --pairs p.jsonl"
    outcome = cli(f"fit {words} --output m --terms r,p*r --json")
    assert outcome.code == 0, outcome.err
    assert outcome.json()["views"] == ["prompt:6", "response:3", "response:6"]
    assert cli(f"fit {words} --output r --routed --head linear --json").json()["domains"] == ["d0", "d1"]
    assert cli(f"evaluate m {words} --also r").code == 0
    no_prompts = cli("evaluate m --vectors 3=a.npy --vectors 6=b.npy --pairs p.jsonl")
    assert no_prompts.code == 2
    assert "prompt:6" in no_prompts.err


def test_the_layout_of_k_responses_a_prompt(cli, vectors) -> None:
    flat = np.load("a.npy")
    np.save("deep.npy", flat.reshape(20, 4, 6))
    rows = [{"chosen": 4 * i, "rejected": 4 * i + j} for i in range(20) for j in (1, 2, 3)]
    _pairs(rows)
    assert cli(f"{FIT.replace('a.npy', 'deep.npy')} --set l2=0.5").code == 0
    model, _ = load_model("m")
    expected = LinearHead(l2=0.5).fit(
        EmbeddedPreferences.from_arrays(
            flat, [[r["chosen"], r["rejected"]] for r in rows], prompt_of=np.arange(80) // 4
        )
    )
    np.testing.assert_array_equal(model.coef_, expected.coef_)


def test_the_split_column_selects(cli, vectors) -> None:
    rows = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    _pairs([{**row, "split": "test" if i < 10 else "train"} for i, row in enumerate(rows)])
    assert cli(f"{FIT} --json").json()["pairs"] == 30
    report = cli("evaluate m --vectors a.npy --pairs p.jsonl --json")
    assert "10 of 40 pairs are in the split 'test'" in report.err
    assert not any("exactly these pairs" in note for note in report.json()["notes"])
    assert cli(f"{FIT} --overwrite --split dev").code == 2
    assert cli(f"{FIT} --overwrite --split all --json").json()["pairs"] == 40


def test_domain_and_group_are_the_prompts(cli, vectors) -> None:
    from embedrm.cli._common import Console
    from embedrm.cli._vectors import VectorFiles

    _pairs(
        [
            {"chosen": 0, "rejected": 1, "domain": "x", "group": "g"},
            {"chosen": 1, "rejected": 2},
            {"chosen": 3, "rejected": 4, "group": "g"},
            {"chosen": 5, "rejected": 6},
        ]
    )
    made = VectorFiles(["a.npy"], "p.jsonl").preferences(None, "train", Console(True, False))
    assert made.domain.tolist() == ["x", "x", "default", "default"]
    assert made.groups.tolist()[:3] == ["g", "g", "g"]
    assert made.groups[3] != "g"
    assert isinstance(made.responses.views["response:final"], np.memmap)


def test_one_prompt_has_one_domain(cli, vectors) -> None:
    _pairs([{"chosen": 0, "rejected": 1, "domain": "x"}, {"chosen": 2, "rejected": 1, "domain": "y"}])
    outcome = cli(FIT)
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith(
        "error: p.jsonl:2: domain 'y' here and 'x' in line 1 are of one prompt"
    )
    assert "--prompt-of" in outcome.err


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"chosen": 0}, "there is no 'rejected'"),
        ({"chosen": 0, "rejected": 80}, "rejected must be a whole number from 0 to 79, got 80"),
        ({"chosen": -1, "rejected": 2}, "from 0 to 79, got -1"),
        ({"chosen": 0.5, "rejected": 2}, "whole number"),
        ({"chosen": "first", "rejected": 2}, "chosen must be a number, got the text 'first'"),
        ({"chosen": True, "rejected": 2}, "chosen must be a number"),
        ({"chosen": 3, "rejected": 3}, "the same row"),
        ({"chosen": 0, "rejected": 1, "outcome": 0.2}, "outcome must lie in 0.5 to 1"),
        ({"chosen": 0, "rejected": 1, "weight": -1}, "weight must not be negative"),
        ({"chosen": 0, "rejected": 1, "margin": "much"}, "margin must be a number"),
        ({"chosen": 1e300, "rejected": 1}, "whole number"),
        ([1, 2], "expected one JSON object"),
    ],
)
def test_bad_pairs_are_told_with_their_line(cli, vectors, row: object, said: str) -> None:
    Path("p.jsonl").write_text(json.dumps({"chosen": 0, "rejected": 1}) + "\n" + json.dumps(row) + "\n")
    outcome = cli(FIT)
    assert outcome.code == 2, outcome.err
    assert outcome.err.startswith("error: p.jsonl:2: ")
    assert said in outcome.err
    assert outcome.out == ""


def test_bad_pairs_can_be_left_out_and_are_counted(cli, vectors) -> None:
    with open("p.jsonl", "a", encoding="utf-8") as file:
        file.write('{"chosen": 0, "rejected": 99}\n')
    outcome = cli(f"{FIT} --on-error skip --json")
    assert outcome.json()["pairs"] == 40
    assert "skipped 1 bad rows" in outcome.err
    assert "p.jsonl:41" in outcome.err
    assert cli(f"{FIT} --on-error cry --overwrite").code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fit --vectors a.npy --output m", "--vectors needs --pairs"),
        ("fit --pairs p.jsonl --output m", "belong to --vectors"),
        ("fit --vectors nothere.npy --pairs p.jsonl --output m", "nothere.npy: there is no such file"),
        ("fit --vectors a.npy --pairs nothere.csv --output m", "nothere.csv: there is no such file"),
        ("fit --vectors p.jsonl --pairs p.jsonl --output m", "expected one array of numbers"),
        ("fit --vectors a.npy --vectors a.npy --pairs p.jsonl --output m", "given twice"),
        ("fit --vectors x=a.npy --pairs p.jsonl --output m", "layer number or 'final'"),
        ("fit --vectors prompt:3=a.npy --pairs p.jsonl --output m", "no view of the response side"),
        ("fit --vectors a.npy --pairs p.jsonl --prompt-vectors a.npy --output m", "needs --prompt-of"),
        ("fit --vectors a.npy --pairs p.jsonl --prompt-of a.npy --output m", "prompt_of must hold integers"),
        ("fit --vectors a.npy --pairs p.jsonl --output m --encoder hashing", "--encoder is for texts"),
        ("fit --vectors a.npy --pairs p.jsonl --output m --terms p*r", "prompt view"),
        ("fit --vectors a.npy --pairs p.jsonl --output m --routed", "prompt view"),
        ("fit --vectors a.npy --pairs p.jsonl --output m --head length", "covariate"),
    ],
)
def test_misuse_is_one_line(cli, vectors, words: str, said: str) -> None:
    outcome = cli(words)
    assert outcome.code == 2, outcome.err
    assert said in outcome.err
    assert outcome.err.splitlines()[-1].startswith("error: ")
    assert not Path("m").exists()


def test_arrays_that_are_no_vectors_are_one_line(cli, vectors) -> None:
    bad = {
        "pickle": np.array([{"a": 1}], dtype=object),
        "text": np.array([["a"]]),
        "whole": np.ones((80, 3), dtype=np.int64),
        "number": np.float32(3),
        "flat": np.ones(80, dtype=np.float32),
        "deep4": np.ones((2, 2, 2, 2), dtype=np.float32),
        "empty": np.ones((0, 4), dtype=np.float32),
        "nan": np.full((80, 3), np.nan, dtype=np.float32),
    }
    for name, array in bad.items():
        np.save("bad.npy", array, allow_pickle=True)
        outcome = cli("fit --vectors bad.npy --pairs p.jsonl --output m")
        assert outcome.code == 2, (name, outcome.err)
        assert "error: " in outcome.err, name
        assert "Traceback" not in outcome.err, name
    np.savez("many.npz", a=np.ones((80, 3)))
    outcome = cli("fit --vectors many.npz --pairs p.jsonl --output m")
    assert "archive" in outcome.err
    whole = Path("a.npy").read_bytes()
    for cut in (0, 3, 20, 100, len(whole) - 1):
        Path("cut.npy").write_bytes(whole[:cut])
        outcome = cli("fit --vectors cut.npy --pairs p.jsonl --output m")
        assert outcome.code == 2, (cut, outcome.err)
        assert outcome.err.startswith("error: cut.npy: "), cut


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace"))))
def test_no_bytes_as_pairs_or_vectors_make_a_traceback(cli, vectors, content: bytes) -> None:
    for name in ("x.jsonl", "x.csv", "x.parquet", "x.npy"):
        Path(name).write_bytes(content)
        words = f"--vectors {name} --pairs p.jsonl" if name == "x.npy" else f"--vectors a.npy --pairs {name}"
        outcome = cli(f"fit {words} --output never")
        assert outcome.code == 2, outcome.err
        assert "Traceback" not in outcome.err
        assert name in outcome.err


def test_a_text_model_takes_vectors_with_a_warning_and_the_other_way_says_what_to_do(cli, vectors, models) -> None:
    np.save("w.npy", np.zeros((80, 256), dtype=np.float32))
    outcome = cli("evaluate", models["linear"], "--vectors", "w.npy", "--pairs", "p.jsonl")
    assert outcome.code == 0, outcome.err
    assert "nothing can tell whether these vectors are its own" in outcome.err
    assert cli(FIT).code == 0
    back = cli("evaluate", "m", models["data"])
    assert back.code == 2
    assert "give it vectors with --vectors" in back.err
