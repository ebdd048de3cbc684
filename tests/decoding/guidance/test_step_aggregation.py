"""Rules by values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from embedrm.decoding.steps import AGGREGATIONS, Aggregation, aggregate
from embedrm.errors import InvalidInputError

STEPS = [0.5, 1.0, 0.25, 0.5]
BY_HAND = {
    "min": 0.25,
    "max": 1.0,
    "mean": 0.5625,
    "sum": 2.25,
    "last": 0.5,
    "product": 0.0625,
    # the fourth root of 1/16
    "length-normalised": 0.5,
}


def test_every_rule_has_a_value_here():
    assert AGGREGATIONS.names() == sorted(BY_HAND)


@pytest.mark.parametrize("rule", BY_HAND)
def test_values_by_hand(rule):
    assert aggregate(STEPS, rule) == pytest.approx(BY_HAND[rule], abs=1e-15)
    assert aggregate([0.75], rule) == pytest.approx(0.75, abs=1e-15)
    assert isinstance(aggregate(np.float32(STEPS), rule), float)


@pytest.mark.parametrize("rule", ["min", "max", "mean", "last", "length-normalised"])
def test_these_do_not_depend_on_the_number_of_steps(rule):
    assert aggregate([0.6] * 3, rule) == pytest.approx(aggregate([0.6] * 30, rule), abs=1e-12)


def test_products_and_sums_do():
    assert aggregate([0.6] * 3, "product") > aggregate([0.6] * 4, "product")
    assert aggregate([0.6] * 3, "sum") < aggregate([0.6] * 4, "sum")


def test_a_step_of_zero():
    assert aggregate([0.0, 1.0], "product") == 0.0
    with np.errstate(all="raise"):
        assert aggregate([0.0, 1.0], "length-normalised") == 0.0


def test_many_small_steps_do_not_vanish_when_normalised():
    assert aggregate([1e-3] * 400, "product") == 0.0
    assert aggregate([1e-3] * 400, "length-normalised") == pytest.approx(1e-3)


class Second(Aggregation):
    def of(self, rewards):
        return rewards[1]


def test_a_rule_of_your_own():
    assert aggregate(STEPS, Second()) == 1.0


@pytest.mark.parametrize(
    "rewards, rule, message",
    [
        ([], "min", "at least one step"),
        ([[0.5]], "min", r"shape \(n_steps,\), got \(1, 1\)"),
        ([0.5, np.nan], "mean", "1 of 2 are not"),
        ([0.5, 1.5], "product", r"'product' multiplies, and so expects rewards in \[0, 1\]"),
        ([-0.1, 0.5], "length-normalised", "got -0.1 to 0.5"),
        ([0.5], "mni", "unknown aggregation of step rewards 'mni'. Did you mean 'min'?"),
    ],
)
def test_refusals(rewards, rule, message):
    with pytest.raises(InvalidInputError, match=message):
        aggregate(rewards, rule)
