"""One-number calibrations recover a known scale."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax

from embedrm.numerics.bradley_terry import log_loss
from embedrm.numerics.calibration import LOG_SCALE_BOUNDS, fit_margin_scale, fit_softmax_temperature


@pytest.mark.parametrize("true_scale", [0.2, 1.0, 5.0])
def test_margin_scale_is_recovered_from_exact_shares(true_scale):
    m = np.random.default_rng(0).normal(size=400) / true_scale
    # the outcome is the true probability itself, so the minimum is at the true scale exactly
    shares = expit(true_scale * m)
    assert fit_margin_scale(m, shares, n_independent=10**9) == pytest.approx(true_scale, rel=1e-4)


def test_margin_scale_is_recovered_from_labels():
    rng = np.random.default_rng(1)
    true = rng.normal(size=4000) * 2
    won = rng.random(4000) < expit(true)
    assert fit_margin_scale(np.where(won, true, -true) * 10) == pytest.approx(0.1, rel=0.1)


def test_margin_scale_is_a_minimum():
    rng = np.random.default_rng(2)
    m, q, w = rng.normal(size=50) + 0.4, rng.uniform(0.5, 1, size=50), rng.uniform(0, 2, size=50)
    a = fit_margin_scale(m, q, w, n_independent=10**9)

    def loss(scale):
        return np.average(log_loss(scale * m, q), weights=w)

    assert loss(a) <= min(loss(a * 1.01), loss(a / 1.01))


def test_weight_two_is_the_margin_twice():
    m = np.random.default_rng(3).normal(size=30) + 0.3
    assert fit_margin_scale(m, weight=np.repeat([2.0, 1.0], 15), n_independent=30) == pytest.approx(
        fit_margin_scale(np.concatenate([m, m[:15]]), n_independent=30), rel=1e-4
    )


def test_useless_margins_end_at_the_lower_bound():
    m = np.abs(np.random.default_rng(4).normal(size=50)) + 0.1
    assert fit_margin_scale(-m) == pytest.approx(np.exp(LOG_SCALE_BOUNDS[0]), rel=0.01)


@pytest.mark.parametrize("n", [1, 10, 1000])
def test_perfect_margins_get_the_confidence_that_their_number_supports(n):
    # all margins equal one and all are right: Platt's target (n + 1) / (n + 2) is the probability, so a = log(n + 1)
    assert fit_margin_scale(np.ones(n)) == pytest.approx(np.log(n + 1), rel=1e-4)


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 4.0])
def test_softmax_temperature_is_recovered(true_temperature):
    rng = np.random.default_rng(5)
    scores = rng.normal(size=(6000, 3)) * 2 * true_temperature
    p = softmax(scores / true_temperature, axis=1)
    labels = (rng.random((6000, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=2)
    assert fit_softmax_temperature(scores, labels) == pytest.approx(true_temperature, rel=0.06)


def test_softmax_temperature_ignores_a_constant_of_each_row():
    rng = np.random.default_rng(6)
    scores, labels = rng.normal(size=(200, 3)), rng.integers(0, 3, size=200)
    shifted = scores + rng.normal(size=(200, 1)) * 5
    assert fit_softmax_temperature(shifted, labels) == pytest.approx(fit_softmax_temperature(scores, labels), rel=1e-6)
