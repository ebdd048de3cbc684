"""Weights of few draws in a bootstrap: their variance is the unbiased one, and intervals cover as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from embedrm.numerics.draws import draw_weights


def picked(n: int, size: int = 4000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=size)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_they_sum_to_one_and_deviate_by_students_t(n):
    weights = draw_weights(picked(n))
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    values = np.random.default_rng(n).normal(size=n)
    spread = (weights @ values).std()
    expected = values.std(ddof=1) / np.sqrt(n) * stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975)
    assert spread == pytest.approx(expected, rel=0.05)


def test_one_draw_is_itself():
    np.testing.assert_array_equal(draw_weights(picked(1, 3)), np.ones((3, 1)))


def test_many_draws_are_nearly_a_plain_bootstrap():
    picks = picked(400, 50)
    np.testing.assert_allclose(draw_weights(picks), picks / 400, atol=3e-4)


def test_intervals_of_few_draws_cover_as_often_as_they_say():
    rng = np.random.default_rng(1)
    for n, plain_covers in ((3, 0.80), (5, 0.88)):
        hits = {"plain": 0, "here": 0}
        picks = picked(n, 400)
        for _ in range(600):
            values = rng.normal(size=n)
            for name, weights in (("plain", picks / n), ("here", draw_weights(picks))):
                low, high = np.percentile(weights @ values, [2.5, 97.5])
                hits[name] += low <= 0 <= high
        assert hits["plain"] / 600 < plain_covers
        assert hits["here"] / 600 > 0.92
