"""Fingerprints, summaries, joining, writing: what a data set says of itself."""

import copy
import gzip
import json
import math
import os
import warnings

import numpy as np
import pandas as pd
import pytest
from datasets_files import row, write_jsonl

from embedrm.datasets import PreferenceDataset, read_preferences
from embedrm.errors import DataError, InvalidInputError


def read(*rows, **options):
    return PreferenceDataset.from_records(rows, **options)


FULL = [
    row(1, domain="x", group="g", system="s", context="c", source="o", split="train", weight=2.0, margin=0.5),
    row(2, domain="y", outcome=0.75, gold_chosen=2, gold_rejected=1),
    row(2, domain="y", chosen="Third."),
    row(3, outcome=0.5, split="test"),
]


# -- fingerprint -----------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_pinned():
    """It names caches and reports, so it may not change between versions, machines or pandas releases."""
    fingerprint = read(*FULL).fingerprint()
    assert fingerprint == PINNED


PINNED = "ad8fcc4612ef3590c238d24b0bfd23cc"


def test_what_plays_no_part():
    data = read(*FULL)
    same = data.fingerprint()
    assert read(*FULL[::-1], name="another name").fingerprint() == same
    assert read(*[{**fields, "remark": "x"} for fields in FULL]).fingerprint() == same
    frames = [
        data.prompts.astype(object),
        data.responses.assign(prompt_of=data.responses["prompt_of"].astype(np.int32), words=0),
        data.pairs.assign(chosen=data.pairs["chosen"].astype(np.uint8)),
    ]
    assert PreferenceDataset(*frames).fingerprint() == same
    assert (
        PreferenceDataset(data.prompts, data.responses[data.responses.columns[::-1]], data.pairs).fingerprint() == same
    )


@pytest.mark.parametrize(
    ("number", "field", "value"),
    [
        (0, "prompt", "p"),
        (0, "chosen", "p"),
        (0, "rejected", "p"),
        (0, "domain", "z"),
        (0, "group", "h"),
        (0, "system", "t"),
        (0, "context", "d"),
        (0, "source", "q"),
        (0, "split", "test"),
        (0, "weight", 2.5),
        (0, "margin", 0.25),
        (1, "outcome", 0.625),
        (1, "gold_chosen", 3),
    ],
)
def test_everything_that_is_said_plays_a_part(number, field, value):
    rows = copy.deepcopy(FULL)
    rows[number][field] = value
    assert read(*rows).fingerprint() != read(*FULL).fingerprint()


def test_order_inside_a_pair_and_repeats_play_a_part():
    one = {"prompt": "p", "chosen": "a", "rejected": "b"}
    other = {"prompt": "p", "chosen": "b", "rejected": "a"}
    found = {read(*rows).fingerprint() for rows in ([one], [other], [one, one], [one, other], [other, other])}
    assert len(found) == 5


def test_texts_do_not_run_together():
    one = read({"prompt": "ab", "system": "c", "chosen": "x", "rejected": "y", "group": "g"})
    other = read({"prompt": "a", "system": "bc", "chosen": "x", "rejected": "y", "group": "g"})
    assert one.fingerprint() != other.fingerprint()


# -- summary ---------------------------------------------------------------------------------------------------------


def test_a_summary_counted_by_hand():
    data = read(
        {"prompt": "p", "chosen": "long a", "rejected": "b", "domain": "x", "split": "train"},
        {"prompt": "p", "chosen": "b", "rejected": "long a", "domain": "x", "split": "train"},  # the other way
        {"prompt": "p", "chosen": "long a", "rejected": "b", "domain": "x", "split": "train"},  # once more
        {"prompt": "p", "chosen": "long a", "rejected": "b", "domain": "y"},  # another domain is no disagreement
        {"prompt": "q", "chosen": "a", "rejected": "b", "domain": "x", "split": "test"},  # equally long
        {"prompt": "q", "chosen": "b", "rejected": "c", "domain": "x", "outcome": 0.5},
        {"prompt": "q", "chosen": "c", "rejected": "b", "domain": "x", "outcome": 0.5},  # ties disagree with nothing
        {"prompt": "r", "chosen": "", "rejected": "b"},
        on_error="skip",
        name="mine",
    )
    summary = data.summary()
    assert summary["name"] == "mine"
    assert summary["total"] == {
        "prompts": 3,
        "groups": 2,
        "responses": 7,
        "responses_in_pairs": 7,
        "responses_with_gold": 0,
        "pairs": 7,
        "ties": 2,
        "disagreements": 1,
        "repeated_pairs": 1,
        "pairs_across_prompts": 0,
        "longer_chosen": (1 + 0 + 1 + 1 + 0.5) / 5,
    }
    assert summary["domains"]["y"]["longer_chosen"] == 1.0
    assert summary["domains"]["x"]["disagreements"] == 1
    assert summary["domains"]["x"]["splits"]["train"]["pairs"] == 3
    assert {name: part["pairs"] for name, part in summary["splits"].items()} == {"": 1, "test": 3, "train": 3}
    assert summary["skipped"]["reasons"] == {"empty": 1}
    assert summary["files"] == [{"path": "mine", "form": "pair", "rows": 8, "used": 7, "blank_lines": 0}]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_a_summary_without_pairs():
    summary = read({"text": "a", "label": 1}, {"text": "b", "label": 0}).summary()
    assert summary["total"]["responses_with_gold"] == 2
    assert summary["total"]["longer_chosen"] is None


def test_two_responses_that_disagree_many_times_are_one_disagreement():
    rows = [{"prompt": "p", "chosen": a, "rejected": b} for a, b in ("ab", "ba", "ab", "ba", "ac", "bc")]
    assert read(*rows).summary()["total"]["disagreements"] == 1


def test_repr_and_truth():
    data = read(row(1), name="mine")
    assert repr(data) == "PreferenceDataset('mine', 1 prompts, 2 responses, 1 pairs, 1 domains)"
    assert data.subset([])


# -- concat ----------------------------------------------------------------------------------------------------------


def test_joining_parts_gives_the_whole():
    whole = read(*FULL)
    parts = [read(*FULL[:2], name="one"), read(*FULL[2:], name="two")]
    joined = PreferenceDataset.concat(parts)
    assert joined.fingerprint() == whole.fingerprint()
    assert PreferenceDataset.concat(parts[::-1]).fingerprint() == whole.fingerprint()
    assert joined.name == "one+two"
    assert [entry["path"] for entry in joined.info["files"]] == ["one", "two"]


def test_joining_unites_sources_groups_and_golds():
    one = read(
        row(1, source="a", group="g"),
        {"prompt": "p", "responses": ["x", "y"], "gold": [1, 0]},
        form="pair",
        on_error="skip",
    )
    other = read(row(1, source="b", gold_chosen=4), row(1, domain="z", source="a"))
    joined = PreferenceDataset.concat([one, other])
    assert joined.prompts["source"].tolist() == ["a; b", "a"]
    assert joined.prompts["group"].tolist() == ["g", "g"]
    assert joined.responses["gold"].tolist()[0] == 4
    assert math.isnan(joined.responses["gold"].tolist()[1])
    assert joined.info["skipped"]["reasons"] == {"missing field": 1}
    assert joined.n_pairs == 3
    assert joined.summary()["total"]["repeated_pairs"] == 1


def test_joining_adds_up_counts():
    swapped = {"pairs swapped because the outcome favoured rejected": 1}
    one, other = (read(row(i, outcome=0.25)) for i in (1, 2))
    assert one.info["counts"] == swapped
    assert PreferenceDataset.concat([one, other]).info["counts"] == dict.fromkeys(swapped, 2)


def test_joining_unpaired_data_keeps_texts_apart():
    one = read({"text": "a", "label": 1}, {"text": "b", "label": 0})
    other = read({"text": "b", "label": 0}, {"text": "c", "label": 0})
    assert PreferenceDataset.concat([one, other]).n_prompts == 3


def test_joining_finds_leaks():
    parts = [read(row(1, split="train"), name="one"), read(row(1, split="test", domain="x"), name="two")]
    with pytest.raises(DataError, match=r"in train \(one\) and test \(two\)"):
        PreferenceDataset.concat(parts)
    assert PreferenceDataset.concat(parts, allow_group_leak=True).info["group_leak"]["exact"] == 1
    for wrong in ([], [1]):
        with pytest.raises(InvalidInputError, match="at least one PreferenceDataset"):
            PreferenceDataset.concat(wrong)


# -- to_jsonl --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_what_is_written_reads_back_to_the_same_content(tmp_path, name):
    data = read(*FULL, row(9, chosen="Ünïcode\u2028 “text”\r\n\ttabs \U0001f600"))
    path = tmp_path / name
    assert data.to_jsonl(path) == {"rows": 5, "responses_left_out": 0}
    again = read_preferences(path)
    assert again.fingerprint() == data.fingerprint()
    assert again.column_note() == ""
    assert again.info["unused_columns"] == {str(path): []}
    first = path.read_bytes()
    again.to_jsonl(path)
    assert path.read_bytes() == first
    assert os.listdir(tmp_path) == [name]
    if name.endswith(".gz"):
        assert first[4:8] == bytes(4)  # no time
        assert b"a.jsonl" not in first[:30]
        assert gzip.decompress(first).count(b"\n") == 5


def test_unpaired_data_read_back(tmp_path):
    data = read({"text": "a", "label": 1, "domain": "x", "split": "test"}, {"text": "b", "label": 0.5, "group": "g"})
    data.to_jsonl(tmp_path / "a.jsonl")
    assert read_preferences(tmp_path / "a.jsonl").fingerprint() == data.fingerprint()


def test_kwise_data_read_back_as_pairs_with_gold(tmp_path):
    data = read({"prompt": "p", "responses": ["a", "b", "c"], "gold": [1, 2, 3]}).subset([0, 1, 2]).compact()
    data.to_jsonl(tmp_path / "a.jsonl")
    assert read_preferences(tmp_path / "a.jsonl").fingerprint() == data.fingerprint()


def test_what_cannot_be_written_is_told(tmp_path):
    data = read({"prompt": "p", "responses": ["a", "b", "c"], "gold": [1, 2, 2]})
    with pytest.warns(UserWarning, match="1 responses have gold but are in no pair"):
        assert data.subset([0]).to_jsonl(tmp_path / "a.jsonl") == {"rows": 1, "responses_left_out": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(row(1), row(2)).subset([0]).to_jsonl(tmp_path / "a.jsonl")["responses_left_out"] == 2
        assert data.subset([0]).compact().n_responses == 3
    prompts = pd.DataFrame({"prompt": ["p", "q", ""]})
    responses = pd.DataFrame({"response": ["a", "b", "c", "d"], "prompt_of": [0, 1, 2, 2]})
    for pair in ([0, 1], [2, 3]):
        broken = PreferenceDataset(prompts, responses, pd.DataFrame([pair], columns=["chosen", "rejected"]))
        with pytest.raises(InvalidInputError, match="a line holds one prompt"):
            broken.to_jsonl(tmp_path / "b.jsonl")
    with pytest.raises(InvalidInputError, match="responses without gold"):
        broken.subset([]).to_jsonl(tmp_path / "b.jsonl")
    with pytest.raises(InvalidInputError, match=r"ends in \.jsonl"):
        data.to_jsonl(tmp_path / "b.csv")
    with pytest.raises(InvalidInputError, match="cannot write"):
        data.to_jsonl(tmp_path / "missing" / "b.jsonl")
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_frames_csv_and_parquet_say_the_same(tmp_path):
    rows = [row(i, margin=i / 4, domain="x", split="train") for i in range(5)]
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    paths = [write_jsonl(tmp_path / "a.jsonl", rows), tmp_path / "a.csv", tmp_path / "a.parquet"]
    assert len({read_preferences(path).fingerprint() for path in paths}) == 1


def test_progress_is_told(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [row(i) for i in range(3000)])
    calls = []
    read_preferences(path, progress=lambda label: lambda done, total: calls.append((label, done, total)))
    assert len(calls) == 2
    assert calls[0][0] == "read a.jsonl"
    assert 0 < calls[0][1] <= calls[1][1] <= calls[1][2] == path.stat().st_size
