"""The clustered bootstrap: means by hand, intervals that cover, pairing of columns."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from embedrm.errors import InvalidInputError
from embedrm.numerics import bootstrap
from embedrm.numerics.bootstrap import Clustered, percentile_interval, two_sided_p


def test_means_by_hand():
    values = [1.0, 0.0, 1.0, 1.0, 0.5]
    table = Clustered.from_rows(values, ["p", "p", "q", "r", "r"], ["x", "x", "x", "y", "y"])
    assert table.strata.tolist() == ["x", "y"]
    assert table.n_clusters == 3
    # strata 2/3 and 3/4; micro 3.5/5; macro their mean
    np.testing.assert_allclose(table.means()[0, :, 0], [2 / 3, 3 / 4, 3.5 / 5, (2 / 3 + 3 / 4) / 2])


def test_a_resample_counts_whole_clusters():
    table = Clustered.from_rows([1.0, 0.0, 1.0, 0.25], ["p", "p", "q", "r"], ["x", "x", "x", "y"])
    # p twice, q never, r once
    means = table.means(np.array([[2.0, 0.0, 1.0]]))[0, :, 0]
    np.testing.assert_allclose(means, [0.5, 0.25, 2.25 / 5, 0.375])


def test_a_stratum_that_a_resample_misses_is_nan_and_left_out_of_macro():
    table = Clustered.from_rows([1.0, 0.0], ["p", "r"], ["x", "y"])
    np.testing.assert_array_equal(table.means(np.array([[2.0, 0.0]]))[0, :, 0], [1.0, np.nan, 1.0, 1.0])


def test_a_group_in_two_domains_is_one_cluster():
    table = Clustered.from_rows([1.0, 0.0], ["p", "p"], ["x", "y"])
    assert table.n_clusters == 1
    assert np.ptp(table.resample(50), axis=0).max() == 0.0


def test_draws_are_reproducible_whatever_the_block(monkeypatch):
    rng = np.random.default_rng(0)
    table = Clustered.from_rows(rng.random((40, 2)), np.arange(40) // 2, np.arange(40) % 3)
    draws = table.resample(64, random_state=5)
    assert draws.shape == (64, 5, 2)
    np.testing.assert_array_equal(table.resample(64, random_state=5), draws)
    assert (table.resample(64, random_state=6) != draws).any()
    seen = []
    means = Clustered.means
    monkeypatch.setattr(Clustered, "means", lambda self, m: (seen.append(len(m)), means(self, m))[1])
    monkeypatch.setattr(bootstrap, "max", lambda *a: 7, raising=False)
    np.testing.assert_allclose(table.resample(64, random_state=5), draws, rtol=1e-12)
    assert seen[0] == 7


def test_columns_share_their_draws():
    rng = np.random.default_rng(1)
    a = rng.random(30)
    table = Clustered.from_rows(np.stack([a, a + 0.25], axis=1), np.arange(30), np.zeros(30))
    draws = table.resample(100)
    np.testing.assert_allclose(draws[..., 1] - draws[..., 0], 0.25)


def test_interval_covers_the_truth_for_independent_clusters():
    """Share of simulated data sets whose interval holds the true mean, against a binomial check."""
    rng = np.random.default_rng(2)
    n_sets, covered = 600, 0
    for seed in range(n_sets):
        # 60 clusters of 1 to 6 pairs that all share their fate, drawn with chance 0.7
        size = rng.integers(1, 7, size=60)
        fate = (rng.random(60) < 0.7).astype(float)
        table = Clustered.from_rows(np.repeat(fate, size), np.repeat(np.arange(60), size), np.zeros(size.sum()))
        low, high = percentile_interval(table.resample(200, seed))[:, 1, 0]
        covered += low <= 0.7 <= high
    # percentile intervals of 60 clusters fall a little short of 0.95; ignoring the clusters would give about 0.7
    assert binom.ppf(1e-3, n_sets, 0.92) <= covered <= binom.ppf(0.999, n_sets, 0.965)


def test_interval_of_pairs_as_if_independent_would_not_cover():
    """The same data with every pair its own cluster: the intervals are too short, which is why clusters exist."""
    rng = np.random.default_rng(2)
    widths = []
    size = np.full(60, 6)
    fate = (rng.random(60) < 0.7).astype(float)
    for clusters in (np.repeat(np.arange(60), 6), np.arange(360)):
        table = Clustered.from_rows(np.repeat(fate, size), clusters, np.zeros(360))
        low, high = percentile_interval(table.resample(400))[:, 1, 0]
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(6), rel=0.2)


def test_percentile_interval_by_hand_and_without_nan():
    draws = np.append(np.arange(101.0), np.nan)[:, None]
    np.testing.assert_allclose(percentile_interval(draws, 0.9), [[5.0], [95.0]])


def test_two_sided_p_counts_the_observed_sample_on_both_sides():
    assert two_sided_p(np.array([1.0] * 97 + [-1.0] * 2)) == pytest.approx(2 * 3 / 100)
    assert two_sided_p(np.ones(99)) == pytest.approx(2 / 100)
    assert two_sided_p(np.zeros(99)) == 1.0
    assert two_sided_p(np.array([1.0, -1.0, np.nan])) == 1.0


def test_no_rows_are_refused():
    with pytest.raises(InvalidInputError, match="at least one pair to evaluate"):
        Clustered.from_rows([], [], [])
