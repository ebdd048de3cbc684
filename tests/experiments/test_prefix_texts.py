"""Texts with an attribute: parts that share nothing, files, beginnings to continue."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embedrm.errors import DataError, InvalidInputError
from embedrm.experiments.prefix_judge import distinct, train_judge
from embedrm.experiments.prefix_texts import PARTS, AttributeTexts, Part, bundled_texts, read_attribute_texts

SIZES = {"train": 60, "validation": 20, "test": 40, "judge": 80, "judge-test": 40}


@pytest.fixture(scope="module")
def bundled():
    return bundled_texts(SIZES)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(n=120, **more):
    words = ["dull", "cold", "grey", "slow", "bright", "warm", "quick", "new"]
    return [
        {"text": f"The {words[i % 8]} thing number {i} came by.", "label": i % 2, "attribute": "pace", **more}
        for i in range(n)
    ]


def test_parts_share_no_text(bundled):
    found = [set(bundled[name].texts) for name in PARTS]
    assert [len(part) for part in found] == [SIZES[name] for name in PARTS]
    assert len(set().union(*found)) == sum(SIZES.values())
    assert bundled.end == "positive"


def test_the_digest_names_texts_and_scores(bundled):
    assert bundled.fingerprint() == bundled_texts(SIZES).fingerprint()
    part = bundled["test"]
    other = AttributeTexts("x", "sentiment", {**bundled.parts, "test": Part(part.texts, 1 - part.scores, part.groups)})
    assert other.fingerprint() != bundled.fingerprint()


def test_beginnings_are_of_neutral_test_texts_and_differ(bundled):
    prompts = bundled.prompts(6)
    assert len(set(prompts)) == len(prompts) >= 2
    neutral = [t for t, s in zip(bundled["test"].texts, bundled["test"].scores) if s == 0.5]
    assert all(any(text.startswith(prompt + " ") for text in neutral) for prompt in prompts)
    assert all(len(prompt.split()) == 3 for prompt in prompts)
    assert bundled.prompts(6) == prompts


def test_a_file_is_cut_into_halves_and_splits_by_group(tmp_path):
    texts = read_attribute_texts(write(tmp_path / "a.jsonl", rows(400)), dict.fromkeys(PARTS, 1000))
    found = [set(texts[name].texts) for name in PARTS]
    assert sum(map(len, found)) == len(set().union(*found)) == 400
    assert all(found)
    assert texts.attribute == "pace"
    assert texts.end == "high in pace"
    assert len(texts.notes) == 2
    assert not texts.neutral_prompts()
    assert len(texts.prompts(2)) == 2


def test_a_file_s_own_splits_are_kept(tmp_path):
    made = [{**row, "split": ("train", "dev", "test")[i % 3]} for i, row in enumerate(rows(600))]
    texts = read_attribute_texts(write(tmp_path / "a.jsonl", made), dict.fromkeys(PARTS, 1000))
    place = {row["text"]: row["split"] for row in made}
    for name, splits in {"train": {"train"}, "validation": {"dev"}, "test": {"test"}, "judge-test": {"test"}}.items():
        assert {place[text] for text in texts[name].texts} == splits
    assert texts.notes == []


def test_texts_that_are_there_twice_are_read_once(tmp_path):
    made = rows(400)
    texts = read_attribute_texts(write(tmp_path / "a.jsonl", [*made, *made[:7]]), dict.fromkeys(PARTS, 1000))
    assert "7 texts that were there twice" in texts.notes[0]


def test_what_is_to_be_avoided_is_turned_round(tmp_path):
    made = rows(400, attribute="toxicity")
    texts = read_attribute_texts(write(tmp_path / "a.jsonl", made), dict.fromkeys(PARTS, 1000))
    label = {row["text"]: row["label"] for row in made}
    assert texts.end == "not toxic"
    assert "turned round" in texts.notes[0]
    assert all(score == 1 - label[text] for text, score in zip(texts["train"].texts, texts["train"].scores))


def test_sizes_limit_every_part(tmp_path):
    texts = read_attribute_texts(write(tmp_path / "a.jsonl", rows(600)), dict.fromkeys(PARTS, 9))
    assert [len(texts[name]) for name in PARTS] == [9] * 5


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "", "label": 1}, "expected a column 'text'"),
        ({"label": 1}, "expected a column 'text'"),
        ({"text": "a", "label": 2}, "from 0 to 1, got 2"),
        ({"text": "a", "label": "yes"}, "from 0 to 1, got 'yes'"),
        ({"text": "a"}, "from 0 to 1, got None"),
        ({"text": "a", "label": 1, "attribute": "other"}, "texts of one attribute, got 2"),
        ({"text": "a", "label": 1, "attribute": "pace", "split": "held"}, "got held"),
    ],
)
def test_files_that_are_refused(tmp_path, row, said):
    with pytest.raises(DataError, match=said):
        read_attribute_texts(write(tmp_path / "a.jsonl", [*rows(40), row]), SIZES)


def test_a_part_without_both_ends_is_refused(tmp_path):
    with pytest.raises(DataError, match="needs texts of both ends"):
        read_attribute_texts(write(tmp_path / "a.jsonl", rows(5)), SIZES)


def test_too_few_beginnings_are_refused(bundled):
    few = AttributeTexts("few", "sentiment", {**bundled.parts, "test": bundled["test"].first(1)})
    with pytest.raises(InvalidInputError, match="give 1 beginnings of 3 words"):
        few.prompts(4)


def test_the_judge_is_tested_on_texts_it_has_not_seen(bundled):
    judge = train_judge(bundled["judge"], bundled["judge-test"])
    part = bundled["judge-test"]
    own = judge.positive(part.texts)[part.decided] == part.positive[part.decided]
    assert judge.accuracy["value"] == pytest.approx(own.mean())
    assert judge.accuracy["low"] <= judge.accuracy["value"] <= judge.accuracy["high"]
    assert judge.accuracy["n"] == int((part.scores != 0.5).sum()) < len(part)
    flipped = Part(bundled["judge"].texts, 1 - bundled["judge"].scores, bundled["judge"].groups)
    assert (train_judge(flipped, part).positive(part.texts) != judge.positive(part.texts)).mean() > 0.9


def test_distinct_by_hand():
    texts = [[1, 2, 1], [1, 2]]
    assert distinct(texts, 1) == pytest.approx(2 / 5)
    assert distinct(texts, 2) == pytest.approx(2 / 3)
    assert distinct(texts, 3) == 1.0
    assert distinct([[]], 1) == 0.0
    assert np.isfinite(distinct(texts, 4))
