"""Groups and splits: nothing of a group on two sides, shares kept in every domain, no influence of row order."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from datasets_files import row, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

from embedrm.datasets import PreferenceDataset, normalise_prompt, prompt_group, read_preferences
from embedrm.datasets.groups import assign_splits, unify_groups
from embedrm.errors import DataError, InvalidInputError


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is COPD?", "  what is  copd "),
        ("Straße", "STRASSE"),
        ("ﬁne “quoted”", "Fine quoted”"),
        ("cafe\u0301", "CAFÉ."),
        ("１２ apples!", "12 Apples"),
        ("a\n\nb", "A B"),
    ],
)
def test_prompts_that_are_one_question(one, other):
    if "quoted" in one:
        other = "fine “quoted"
    assert normalise_prompt(one) == normalise_prompt(other)
    assert prompt_group(one) == prompt_group(other)


@pytest.mark.parametrize(("one", "other"), [("-5", "5%"), ("a b", "ab"), ("C++", "C"), ("?", "!"), ("a", "b")])
def test_prompts_that_are_two(one, other):
    assert prompt_group(one) != prompt_group(other)


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    once = normalise_prompt(text)
    assert normalise_prompt(once) == once


def test_a_context_makes_another_group():
    assert prompt_group("Summarise.", "one") != prompt_group("Summarise.", "two")
    assert prompt_group("Summarise.", "One.") == prompt_group("summarise", "one")
    assert len(prompt_group("x")) == 32


def test_groups_are_chained_through_names_and_texts():
    groups, merged = unify_groups([("g1",), ("g2",), ("g2",), (), ("g3",)], ["t1", "t1", "t2", "t2", "t3"])
    assert groups == ["g1", "g1", "g1", "g1", "g3"]
    assert merged == 1
    assert unify_groups([(), ()], ["t1", "t2"]) == (["t1", "t2"], 0)


def test_a_stated_group_is_used_and_equal_prompts_join_groups():
    data = PreferenceDataset.from_records(
        [row(1, group="a"), row(2, group="a"), row(3, group="b", domain="x"), row(3, group="c", domain="y"), row(4)]
    )
    assert data.prompts["group"].tolist()[:4] == ["a", "a", "b", "b"]
    assert data.prompts["group"][4] == prompt_group("What is 4?")
    assert data.info["counts"] == {"groups merged because their normalised prompts are equal": 1}


# -- leaks in files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (row(1), row(1, chosen="other")),  # the same prompt
        (row(1), row(1, domain="elsewhere")),  # the same prompt in another domain
        (row(1, group="g"), row(2, group="g")),  # the same stated group
    ],
)
def test_a_prompt_in_two_splits_is_an_error_with_both_places(tmp_path, first, second):
    rows = [row(7), {**first, "split": "train"}, {**second, "split": "test"}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError) as caught:
        read_preferences(path)
    assert caught.value.line == 3
    assert f"train ({path}:2)" in str(caught.value)
    assert f"test ({path}:3)" in str(caught.value)
    assert "allow_group_leak=True" in str(caught.value)
    data = read_preferences(path, allow_group_leak=True)
    assert data.n_pairs == 3
    assert (data.info["group_leak"]["groups"], data.info["group_leak"]["exact"]) == (1, 1)
    assert data.split("test").n_pairs == data.split("train").n_pairs == 1
    # A new deal heals it.
    again = data.with_split({"train": 0.5, "test": 0.5})
    assert "group_leak" not in again.info
    assert again.n_pairs == 3
    PreferenceDataset(again.prompts, again.responses, again.pairs)


def test_splits_that_divide_nearly_equal_prompts_are_told_and_not_refused():
    rows = [row(1, split="train"), {**row(1, split="test"), "prompt": "what is 1"}]
    data = PreferenceDataset.from_records(rows)
    assert data.info["group_leak"]["exact"] == 0
    assert "records:2" in data.info["group_leak"]["examples"][0]
    assert data.summary()["group_leak"]["groups"] == 1


def test_unpaired_texts_in_two_splits():
    rows = [{"text": "same", "label": 1, "split": "train"}, {"text": "same", "label": 1, "split": "test"}]
    with pytest.raises(DataError, match="'same' is in train"):
        PreferenceDataset.from_records(rows)


def test_no_split_is_no_leak_and_takes_the_split_of_its_equal():
    data = PreferenceDataset.from_records([row(1), {**row(1, split="test"), "chosen": "x"}])
    assert data.n_prompts == 1
    assert data.split("test").n_pairs == 2


# -- with_split ------------------------------------------------------------------------------------------------------


@st.composite
def datasets(draw):
    """Rows of a few domains in which groups have several prompts and occur in several domains."""
    n = draw(st.integers(12, 60))
    seed = draw(st.integers(0, 999))
    rng = np.random.default_rng(seed)
    return [
        row(int(rng.integers(0, 40)), group=f"g{rng.integers(0, 30)}", domain="xyz"[rng.integers(0, 3)])
        for _ in range(n)
    ]


@settings(max_examples=60, deadline=None)
@given(datasets(), st.integers(0, 5), st.randoms(use_true_random=False))
def test_no_group_is_divided_and_row_order_plays_no_part(rows, seed, random):
    data = PreferenceDataset.from_records(rows)
    shares = {"train": 0.5, "validation": 0.2, "test": 0.3}
    try:
        split = data.with_split(shares, random_state=seed)
    except InvalidInputError:
        assert data.prompts["group"].nunique() < 12
        return
    table = split.prompts
    assert (table.groupby("group")["split"].nunique() == 1).all()
    assert (table.groupby("prompt")["split"].nunique() == 1).all()
    assert split.pairs.equals(data.pairs)
    shuffled = list(rows)
    random.shuffle(shuffled)
    other = PreferenceDataset.from_records(shuffled).with_split(shares, random_state=seed)
    assert dict(zip(other.prompts["group"], other.prompts["split"])) == dict(zip(table["group"], table["split"]))
    assert other.fingerprint() == split.fingerprint()


def test_shares_hold_in_every_domain():
    sizes = {"a": 500, "b": 100, "c": 37, "d": 10}
    rows = [row(f"{domain}{i}", domain=domain) for domain, size in sizes.items() for i in range(size)]
    data = PreferenceDataset.from_records(rows)
    for seed in range(5):
        split = data.with_split(random_state=seed)
        counts = Counter(zip(split.prompts["domain"], split.prompts["split"]))
        for domain, size in sizes.items():
            for name, share in {"train": 0.8, "validation": 0.1, "test": 0.1}.items():
                assert abs(counts[domain, name] - share * size) <= 1.5
    one, other = (data.with_split(random_state=seed).prompts["split"].tolist() for seed in (0, 1))
    assert one != other
    assert data.with_split(random_state=0).prompts["split"].tolist() == one
    # Two independent deals agree by chance only: 0.8^2 + 0.1^2 + 0.1^2 = 0.66.
    assert 0.55 < np.mean(np.array(one) == np.array(other)) < 0.75


def test_large_groups_do_not_break_the_shares():
    rng = np.random.default_rng(0)
    sizes = {f"g{i}": int(size) for i, size in enumerate(rng.integers(1, 30, 300))}
    split_of = assign_splits({name: ["x"] for name in sizes}, sizes, {"train": 0.7, "test": 0.3}, 0)
    filled = Counter()
    for name, split in split_of.items():
        filled[split] += sizes[name]
    assert abs(filled["test"] / sum(sizes.values()) - 0.3) < 30 / sum(sizes.values())


def test_a_deal_is_pinned():
    """The hash is keyed by text alone: the same data give the same splits on every machine and in every version."""
    data = PreferenceDataset.from_records([row(i) for i in range(10)])
    splits = data.with_split({"train": 0.6, "test": 0.4}, random_state=3).prompts["split"]
    assert [i for i, split in enumerate(splits) if split == "test"] == PINNED


PINNED = [2, 4, 5, 6]


def test_the_old_split_is_replaced_and_what_was_asked_is_told():
    data = PreferenceDataset.from_records([row(i, split="test") for i in range(20)])
    split = data.with_split({"train": 0.5, "test": 0.5})
    assert Counter(split.prompts["split"]) == {"train": 10, "test": 10}
    assert split.info["assigned_splits"] == {"shares": {"train": 0.5, "test": 0.5}, "random_state": 0, "by": "group"}


def test_pairs_across_prompts_stay_on_one_side():
    prompts = pd.DataFrame({"prompt": [f"p{i}" for i in range(20)]})
    responses = pd.DataFrame({"response": ["a", "b"] * 20, "prompt_of": np.repeat(np.arange(20), 2)})
    pairs = pd.DataFrame({"chosen": np.arange(0, 40, 4), "rejected": np.arange(3, 40, 4)})
    split = PreferenceDataset(prompts, responses, pairs).with_split({"train": 0.5, "test": 0.5})
    sides = split.prompts["split"].to_numpy()
    assert (sides[0::2] == sides[1::2]).all()
    assert Counter(sides) == {"train": 10, "test": 10}


@pytest.mark.parametrize(
    "shares",
    [
        {},
        {"train": 1.5, "test": -0.5},
        {"train": 0.5},
        {"train": 0.5, "dev": 0.5},
        {"train": float("nan"), "test": 1},
        {"train": "all"},
    ],
)
def test_shares_are_checked(shares):
    data = PreferenceDataset.from_records([row(i) for i in range(10)])
    with pytest.raises(InvalidInputError, match="sum to 1"):
        data.with_split(shares)


def test_other_arguments_are_checked():
    data = PreferenceDataset.from_records([row(i) for i in range(3)])
    with pytest.raises(InvalidInputError, match="leave 'validation' and 'test' empty"):
        data.with_split()
    with pytest.raises(InvalidInputError, match="random_state"):
        data.with_split({"train": 1.0}, random_state=None)
    with pytest.raises(InvalidInputError, match="by"):
        data.with_split({"train": 1.0}, by="row")
