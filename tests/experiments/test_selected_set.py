"""The set of chosen responses as a file: the right ones, in full, with what is needed to know where they come from."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pandas as pd
import pytest

from embedrm import PreferenceDataset
from embedrm.errors import InvalidInputError
from embedrm.experiments.selected_set import write_selected


def data(gold=(0.0, 1.0, 2.0, 5.0, 4.0, 3.0)) -> PreferenceDataset:
    prompts = pd.DataFrame(
        {
            "prompt": ["Größe?", "Two?"],
            "domain": ["sizes", "numbers"],
            "system": ["Be brief.", ""],
            "split": ["train", ""],
        }
    )
    responses = pd.DataFrame(
        {"response": ["a", "b\n", "c", "d", "e", "f"], "prompt_of": [0, 0, 1, 0, 1, 1], "gold": list(gold)}
    )
    return PreferenceDataset(prompts, responses, pd.DataFrame({"chosen": [1], "rejected": [0]}), name="small")


REWARDS = np.array([0.5, 2.0, 1.0, 2.0, 7.0, 4.0])


def read(path):
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.name.endswith(".gz") else raw).decode("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_the_best_of_each_prompt_by_hand(tmp_path):
    path = tmp_path / "set.jsonl"
    facts = write_selected(path, data(), REWARDS, model="linear", provenance={"encoder": {"name": "e"}})
    # rows 1 and 3 of prompt one tie: the earlier is taken
    assert read(path) == [
        {"prompt": "Größe?", "response": "b\n", "score": 2.0, "gold": 1.0, "n": 3, "model": "linear"}
        | {"system": "Be brief.", "domain": "sizes", "split": "train"},
        {"prompt": "Two?", "response": "e", "score": 7.0, "gold": 4.0, "n": 3, "model": "linear", "domain": "numbers"},
    ]
    assert "Größe" in path.read_text(encoding="utf-8")
    beside = json.loads((tmp_path / "set.jsonl.provenance.json").read_text(encoding="utf-8"))
    assert beside == facts
    made = facts.pop("made")
    assert facts == {
        "model": "linear",
        "n": None,
        "keep": 1.0,
        "rows": 2,
        "prompts_with_fewer": 0,
        "ties": 1,
        "not_kept": 0,
        "kl": pytest.approx(math.log(3) - 2 / 3),
        "mean_score": 4.5,
        "mean_gold": 2.5,
        "mean_gold_of_candidates": 2.5,
    }
    assert made["data"] == {"name": "small", "fingerprint": data().fingerprint()}
    assert made["encoder"] == {"name": "e"}


def test_the_first_n_alone(tmp_path):
    facts = write_selected(tmp_path / "a.jsonl", data(), REWARDS, model="m", n=1)
    assert [line["response"] for line in read(tmp_path / "a.jsonl")] == ["a", "c"]
    assert (facts["kl"], facts["mean_gold"], facts["mean_gold_of_candidates"]) == (0.0, 1.0, 1.0)
    assert [line["response"] for line in read_of(tmp_path / "b.jsonl.gz", n=2)] == ["b\n", "e"]


def read_of(path, **options):
    write_selected(path, data(), REWARDS, model="m", **options)
    return read(path)


def test_the_part_that_stands_furthest_above_its_prompt(tmp_path):
    # prompt one: 2 less 1.5; prompt two: 7 less 4, and a constant of a prompt changes nothing
    shifted = REWARDS + np.array([100.0, 100.0, 0.0, 100.0, 0.0, 0.0])
    for i, rewards in enumerate((REWARDS, shifted)):
        path = tmp_path / f"{i}.jsonl"
        facts = write_selected(path, data(), rewards, model="m", keep=0.5)
        assert [line["response"] for line in read(path)] == ["e"]
        assert (facts["rows"], facts["not_kept"], facts["kl"]) == (1, 1, None)
        assert facts["mean_gold_of_candidates"] == 3.0


def test_prompts_asked_about_and_gold_that_is_not_there(tmp_path):
    path = tmp_path / "a.jsonl"
    facts = write_selected(path, data([np.nan] * 6), REWARDS, model="m", prompts=[1])
    (line,) = read(path)
    assert line["prompt"] == "Two?"
    assert "gold" not in line
    assert facts["mean_gold"] is None is facts["mean_gold_of_candidates"]


def test_prompts_with_fewer_are_counted(tmp_path):
    whole = data()
    fewer = PreferenceDataset(
        whole.prompts, whole.responses.assign(prompt_of=[0, 0, 1, 0, 1, 0]), whole.pairs, name="small"
    )
    facts = write_selected(tmp_path / "a.jsonl", fewer, REWARDS, model="m", n=3)
    assert (facts["rows"], facts["prompts_with_fewer"]) == (1, 1)
    assert write_selected(tmp_path / "b.jsonl", fewer, REWARDS, model="m")["kl"] is None
    with pytest.raises(InvalidInputError, match="no prompt has 9 candidates"):
        write_selected(tmp_path / "c.jsonl", fewer, REWARDS, model="m", n=9)
    assert not (tmp_path / "c.jsonl").exists()


def test_refusals(tmp_path):
    with pytest.raises(InvalidInputError, match=r"ends in .jsonl or .jsonl.gz, got 'a.json'"):
        write_selected(tmp_path / "a.json", data(), REWARDS, model="m")
    with pytest.raises(InvalidInputError, match=r"keep in \(0, 1\]"):
        write_selected(tmp_path / "a.jsonl", data(), REWARDS, model="m", keep=0)
    with pytest.raises(InvalidInputError, match="PreferenceDataset, whose texts are written, got list"):
        write_selected(tmp_path / "a.jsonl", [], REWARDS, model="m")
    with pytest.raises(InvalidInputError, match="finite"):
        write_selected(tmp_path / "a.jsonl", data(), REWARDS * np.nan, model="m")
    with pytest.raises(InvalidInputError, match=r"cannot write"):
        write_selected(tmp_path / "none" / "a.jsonl", data(), REWARDS, model="m")
    assert list(tmp_path.iterdir()) == []
    write_selected(tmp_path / "a.jsonl", data(), REWARDS, model="m")
    before = (tmp_path / "a.jsonl").read_bytes()
    with pytest.raises(InvalidInputError, match="exists already"):
        write_selected(tmp_path / "a.jsonl", data(), -REWARDS, model="m")
    assert (tmp_path / "a.jsonl").read_bytes() == before
