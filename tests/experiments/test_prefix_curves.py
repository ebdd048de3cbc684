"""Curves of attribute against fluency: ratios of sums, paired resamples, and gaps at equal perplexity."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from embedrm.experiments.prefix_curves import Curves, frontier, gap_at_equal_perplexity
from embedrm.experiments.prefix_steering import UNGUIDED
from embedrm.experiments.prefix_timing import _cell

LOG = np.log


def path(*points):
    return np.array([(LOG(p), rate) for p, rate in points])


def test_a_frontier_follows_straight_lines():
    line = path((10, 0.2), (20, 0.6))
    at = np.array([LOG(10), (LOG(10) + LOG(20)) / 2, LOG(20)])
    np.testing.assert_allclose(frontier(line, at), [0.2, 0.4, 0.6])
    assert np.isnan(frontier(line, np.array([LOG(9), LOG(21)]))).all()


def test_of_what_is_no_less_fluent_the_best_counts():
    # perplexity falls first, so that the later point is better in both
    back = path((10, 0.2), (8, 0.5), (12, 0.4))
    np.testing.assert_allclose(frontier(back, LOG(np.array([8.0, 10.0, 12.0]))), [0.5, 0.5, 0.5])


def test_a_gap_by_hand():
    reference = path((10, 0.2), (20, 0.6), (40, 0.8))
    same = gap_at_equal_perplexity(reference, reference)
    assert same == pytest.approx((0.0, 0.5))
    below = path((10, 0.2), (20, 0.5), (40, 0.7))
    assert gap_at_equal_perplexity(below, reference) == pytest.approx((-0.1, 0.5))
    # reaches the first point of the reference only
    short = path((10, 0.2), (20, 0.7))
    assert gap_at_equal_perplexity(short, reference) == pytest.approx((0.1, 0.4))
    assert gap_at_equal_perplexity(path((100, 0.2), (200, 0.9)), reference) is None


def table(positive, texts=4, nll=2.0, tokens=10.0):
    positive = np.asarray(positive, dtype=float)
    ones = np.ones(len(positive))
    nlls = np.broadcast_to(np.asarray(nll, dtype=float), positive.shape)
    return np.stack([positive, texts * ones, nlls * tokens, tokens * ones, ones, 0.5 * ones, 0.25 * ones], axis=1)


def curves(points, n=200):
    return Curves.of(SimpleNamespace(points=points), n)


def test_measures_are_ratios_of_sums():
    made = curves({(UNGUIDED, 0.0): table([1, 2, 3], nll=[1.0, 2.0, 3.0])})
    assert made.cell(UNGUIDED, 0, "positive")["value"] == pytest.approx(6 / 12)
    assert made.cell(UNGUIDED, 0, "perplexity")["value"] == pytest.approx(np.exp(2.0))
    assert made.cell(UNGUIDED, 0, "distinct2") == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5})
    cell = made.cell(UNGUIDED, 0, "positive")
    assert cell["low"] < cell["value"] < cell["high"]


def test_resamples_are_shared_so_that_equal_arms_differ_by_nothing():
    rng = np.random.default_rng(0)
    free, guided = table(rng.integers(0, 3, 30), nll=2.0), table(rng.integers(2, 5, 30), nll=2.2)
    made = curves({(UNGUIDED, 0.0): free, ("RAD", 5.0): guided, ("ARM", 5.0): guided.copy()})
    gap = made.gap("ARM", "RAD")
    assert gap["relative"] == pytest.approx({"value": 0.0, "low": 0.0, "high": 0.0})
    assert gap["shift"]["value"] == pytest.approx((guided[:, 0].sum() - free[:, 0].sum()) / 120)
    assert made.betas("ARM") == [5.0]
    assert [row["arm"] for row in made.rows(["RAD", "ARM"])] == ["RAD", "ARM"]


def test_no_gap_where_the_reference_shifts_nothing_for_certain():
    free, other = table([1, 3] * 5, nll=2.0), table([3, 1] * 5, nll=2.1)
    assert curves({(UNGUIDED, 0.0): free, ("RAD", 5.0): other, ("ARM", 5.0): other}).gap("ARM", "RAD") is None


@pytest.mark.parametrize(("n", "ends"), [(3, (0, 2)), (6, (0, 5)), (9, (1, 7)), (15, (3, 11))])
def test_intervals_of_a_median_from_order_statistics(n, ends):
    cell = _cell(np.random.default_rng(n).permutation(np.arange(float(n))))
    assert (cell["low"], cell["high"]) == ends
    assert cell["value"] == (n - 1) / 2
