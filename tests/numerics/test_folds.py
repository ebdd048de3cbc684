"""Folds by group: laws, and small cases by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedrm.errors import InvalidInputError
from embedrm.numerics.folds import group_folds, hold_out

some_groups = st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda g: len(set(g)) >= 2)


def _fold_of(groups, n_splits, **options):
    fold = np.full(len(groups), -1)
    for k, (_, held_out) in enumerate(group_folds(groups, n_splits, **options)):
        assert (fold[held_out] == -1).all()
        fold[held_out] = k
    return fold


@settings(max_examples=60)
@given(some_groups, st.integers(2, 7))
def test_every_row_is_held_out_once_and_no_group_is_on_both_sides(groups, n_splits):
    groups = np.array(groups)
    n_folds = 0
    held = []
    for train, held_out in group_folds(groups, n_splits):
        n_folds += 1
        assert len(train)
        assert len(held_out)
        assert not set(groups[train]) & set(groups[held_out])
        assert sorted([*train, *held_out]) == list(range(len(groups)))
        held += held_out.tolist()
    assert sorted(held) == list(range(len(groups)))
    assert n_folds == min(n_splits, len(set(groups.tolist())))


@settings(max_examples=60)
@given(some_groups, st.integers(2, 7), st.randoms(use_true_random=False))
def test_folds_depend_on_the_groups_and_not_on_the_order_of_rows(groups, n_splits, random):
    order = list(range(len(groups)))
    random.shuffle(order)
    shuffled = [groups[i] for i in order]
    a, b = _fold_of(groups, n_splits), _fold_of(shuffled, n_splits)
    np.testing.assert_array_equal(a[order], b)


@settings(max_examples=60)
@given(some_groups, st.integers(2, 7), st.sampled_from([1.0, 1 / 3, 0.1]))
def test_a_row_of_weight_three_and_the_row_three_times_give_the_same_folds(groups, n_splits, unit):
    times = np.random.default_rng(len(groups)).integers(1, 4, size=len(groups))
    repeated = np.repeat(groups, times)
    weighted = _fold_of(groups, n_splits, weight=times * unit)
    np.testing.assert_array_equal(_fold_of(repeated, n_splits), np.repeat(weighted, times))
    np.testing.assert_array_equal(
        _fold_of(repeated, n_splits, weight=np.full(len(repeated), unit)), np.repeat(weighted, times)
    )


def test_largest_groups_are_dealt_first_to_the_smallest_fold():
    # sizes: a 4, b 3, c 2, d 2 -> a | b, then c to b's fold (5), then d to a's (6)
    groups = list("aaaabbbccdd")
    fold = _fold_of(groups, 2)
    assert {g: int(fold[groups.index(g)]) for g in "abcd"} == {"a": 0, "b": 1, "c": 1, "d": 0}


def test_equal_groups_are_dealt_by_name():
    assert _fold_of(["d", "c", "b", "a"], 3).tolist() == [0, 2, 1, 0]


def test_sums_that_differ_in_their_last_bit_are_equal():
    # 0.1 + 0.1 + 0.1 > 0.3 in floating point; by name, a comes first
    assert 0.1 + 0.1 + 0.1 != 0.3
    assert _fold_of(["b", "b", "b", "a"], 2, weight=[0.1, 0.1, 0.1, 0.3]).tolist() == [1, 1, 1, 0]


def test_groups_without_weight_are_still_held_out_once():
    assert sorted(set(_fold_of(list("aabbcc"), 2, weight=[0, 0, 1, 1, 1, 1]))) == [0, 1]
    assert (_fold_of(list("abc"), 3, weight=np.zeros(3)) >= 0).all()


@pytest.mark.parametrize("groups, n_splits", [(["a", "a"], 5), (["a", "b"], 1), ([], 3)])
def test_too_few_groups_or_folds_are_refused(groups, n_splits):
    with pytest.raises(
        InvalidInputError, match=rf"^the tuner needs at least 2 folds and 2 prompt groups .* n_splits={n_splits} and "
    ):
        list(group_folds(groups, n_splits, "the tuner"))


@settings(max_examples=60)
@given(some_groups, st.floats(0.01, 0.99), st.integers(0, 3))
def test_groups_without_weight_are_never_held_out_and_change_no_other(groups, fraction, seed):
    groups = np.array(groups)
    more = np.concatenate([groups, [99, -98, 99]])
    weight = np.concatenate([np.ones(len(groups)), np.zeros(3)])
    train, held = hold_out(groups, fraction, seed, "a test", "more")
    n = len(groups)
    with_more = hold_out(more, fraction, seed, "a test", "more", weight)
    np.testing.assert_array_equal(with_more[0], [*train, n, n + 1, n + 2])
    np.testing.assert_array_equal(with_more[1], held)


def test_what_cannot_be_held_out_is_told():
    with pytest.raises(InvalidInputError, match=r"^the tuner holds out prompt groups .* or wait"):
        hold_out(["a", "b", "b"], 0.5, 0, "the tuner", "wait", [0.0, 1.0, 1.0])
    with pytest.raises(InvalidInputError, match=r"^the tuner needs pairs with positive weight, got only zeros"):
        hold_out(["a", "b"], 0.5, 0, "the tuner", "wait", [0.0, 0.0])
