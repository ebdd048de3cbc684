from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedrm.encoders.batching import padded_width, plan_batches
from embedrm.encoders.truncation import SHORTENING_POLICIES, TRUNCATION_POLICIES, tokens_cut, truncate
from embedrm.errors import InvalidInputError

IDS = [101, 1, 2, 3, 4, 5, 6, 7, 102]  # [CLS], seven tokens, [SEP]


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("head", [101, 1, 2, 3, 102]), ("tail", [101, 5, 6, 7, 102]), ("middle", [101, 1, 2, 7, 102])],
)
def test_each_policy_keeps_its_end_and_the_special_tokens(policy: str, kept: list[int]) -> None:
    assert truncate(IDS, 5, policy, n_prefix=1, n_suffix=1) == kept


def test_middle_keeps_both_ends_evenly_where_it_can() -> None:
    assert truncate(IDS, 6, "middle", n_prefix=1, n_suffix=1) == [101, 1, 2, 6, 7, 102]


def test_without_special_tokens_and_without_suffix() -> None:
    assert truncate([1, 2, 3, 4], 2, "tail") == [3, 4]
    assert truncate([9, 1, 2, 3], 2, "tail", n_prefix=1) == [9, 3]


@pytest.mark.parametrize("policy", TRUNCATION_POLICIES)
@pytest.mark.parametrize("limit", [None, len(IDS), 100])
def test_a_text_that_fits_is_left_alone(policy: str, limit: int | None) -> None:
    assert truncate(IDS, limit, policy, n_prefix=1, n_suffix=1) == IDS


@pytest.mark.parametrize("policy", ["drop", "error"])
def test_policies_that_never_shorten_refuse(policy: str) -> None:
    with pytest.raises(InvalidInputError, match="a text has 9 tokens, more than max_length=8"):
        truncate(IDS, 8, policy, n_prefix=1, n_suffix=1)


def test_no_room_between_the_special_tokens() -> None:
    with pytest.raises(InvalidInputError, match="max_length must be at least 3"):
        truncate(IDS, 2, "head", n_prefix=1, n_suffix=1)


def test_unknown_policy_names_the_nearest() -> None:
    with pytest.raises(InvalidInputError, match=r"unknown truncation policy 'heads'. Did you mean 'head'"):
        truncate(IDS, 5, "heads")


def test_tokens_cut() -> None:
    assert [tokens_cut(n, 5) for n in (0, 5, 6, 12)] == [0, 0, 1, 7]
    assert tokens_cut(12, None) == 0


@given(
    body=st.lists(st.integers(10, 99), max_size=40),
    prefix=st.integers(0, 3),
    suffix=st.integers(0, 2),
    room=st.integers(1, 20),
    policy=st.sampled_from(SHORTENING_POLICIES),
)
def test_laws(body: list[int], prefix: int, suffix: int, room: int, policy: str) -> None:
    ids = [*range(prefix), *body, *range(-suffix, 0)]
    limit = prefix + suffix + room
    kept = truncate(ids, limit, policy, n_prefix=prefix, n_suffix=suffix)
    assert len(kept) == min(len(ids), limit) == len(ids) - tokens_cut(len(ids), limit)
    assert kept[:prefix] == ids[:prefix]
    assert kept[len(kept) - suffix :] == ids[len(ids) - suffix :]
    middle = kept[prefix : len(kept) - suffix]
    cut = len(body) - len(middle)
    # what is left is the body with one run of tokens taken out
    assert any(body[:i] + body[i + cut :] == middle for i in range(len(middle) + 1))
    if policy == "head":
        assert middle == body[: len(middle)]
    if policy == "tail":
        assert middle == body[cut:]


def test_batches_by_hand() -> None:
    assert list(plan_batches([3, 5, 2, 5, 1], 10)) == [[1, 3], [0, 2, 4]]
    assert list(plan_batches([30, 1], 10)) == [[0], [1]]
    assert list(plan_batches([], 10)) == []


def test_widths_by_hand() -> None:
    assert [padded_width(n) for n in (1, 2, 17, 31, 32, 33, 63, 65, 100, 129, 255, 256, 257)] == [
        1, 2, 17, 31, 32, 34, 64, 68, 100, 136, 256, 256, 272
    ]  # fmt: skip
    assert padded_width(97, 98) == 98
    assert padded_width(97, 50) == 97
    widths = [padded_width(n) for n in range(1, 5000)]
    assert all(n <= width <= n * 17 / 16 for n, width in enumerate(widths, start=1))
    assert len(set(widths)) < 160


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 200))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(plan_batches(lengths, budget))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(max(lengths[row] for row in batch), 1)
        assert len(batch) == 1 or len(batch) * padded_width(longest) <= budget
    assert batches == list(plan_batches(lengths, budget))


@pytest.mark.parametrize("budget", [0, -1, 1.5, True, None])
def test_bad_budget(budget: object) -> None:
    with pytest.raises(InvalidInputError, match="batch_tokens must be a positive whole number"):
        list(plan_batches([1], budget))  # type: ignore[arg-type]
