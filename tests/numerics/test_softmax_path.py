"""Softmax regression in whitened coordinates against its own conditions for an optimum."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from embedrm.numerics import softmax as module
from embedrm.numerics.softmax import softmax_folds, softmax_path


def problem(n=400, dim=30, n_classes=4, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    z = rng.normal(size=(n, dim)) / np.sqrt(1.0 + np.arange(dim))
    z[np.arange(n), codes] += 0.7
    z = z @ np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    return (z - z.mean(axis=0)) / z.std(axis=0), codes, rng.uniform(0.2, 2.0, size=n)


def slopes(z, codes, weight, found, l2):
    """Gradient of the documented objective in the weights and in the intercepts."""
    w, b = found
    g = softmax(z @ w.T + b, axis=1)
    g[np.arange(len(z)), codes] -= 1.0
    g *= (weight / weight.sum())[:, None]
    return g.T @ z + l2 * w, g.sum(axis=0)


def path(z, codes, weight, grid, n_classes=4, tol=1e-10):
    return softmax_path(z, codes, weight, n_classes, grid, tol=tol, max_iter=500, who="test")


@pytest.mark.parametrize("full_dim", [1024, 20])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_gradient_is_zero_at_every_penalty(monkeypatch, full_dim, n_classes):
    # beyond its full width the metric keeps leading directions only; the optimum is the same
    monkeypatch.setattr(module, "_FULL_DIM", full_dim)
    z, codes, weight = problem(n_classes=n_classes)
    grid = [1e-3, 1.0, 1e-1]
    for l2, found in zip(grid, path(z, codes, weight, grid, n_classes)):
        of_weights, of_intercepts = slopes(z, codes, weight, found, l2)
        assert np.abs(of_weights).max() < 1e-5
        assert np.abs(of_intercepts).max() < 1e-5
        assert found[1].mean() == pytest.approx(0.0, abs=1e-12)


def test_a_row_of_weight_two_is_the_row_twice():
    z, codes, _ = problem()
    twice = np.where(np.arange(len(z)) < 50, 2.0, 1.0)
    again = np.concatenate([np.arange(len(z)), np.arange(50)])
    (a,), (b,) = path(z, codes, twice, [0.01]), path(z[again], codes[again], np.ones(len(again)), [0.01])
    np.testing.assert_allclose(a[0], b[0], atol=1e-4)
    np.testing.assert_allclose(a[1], b[1], atol=1e-4)


def test_more_columns_than_rows_and_single_precision():
    z, codes, weight = problem(n=40, dim=90)
    exact, narrow = path(z, codes, weight, [0.1])[0], path(z.astype(np.float32), codes, weight, [0.1], tol=1e-7)[0]
    assert np.abs(slopes(z, codes, weight, exact, 0.1)[0]).max() < 1e-5
    np.testing.assert_allclose(narrow[0], exact[0], atol=2e-3)


def test_classes_without_signal_get_their_shares():
    codes = np.repeat([0, 1, 1, 1], 25)
    ((w, b),) = path(np.random.default_rng(0).normal(size=(100, 3)), codes, np.ones(100), [1e6], 2)
    assert np.abs(w).max() < 1e-5
    np.testing.assert_allclose(softmax(b), [0.25, 0.75], atol=1e-5)


def folds_of(n, k=3):
    """Weights (n, k), a fold held out in each column."""
    weight = np.random.default_rng(1).uniform(0.2, 2.0, size=(n, k))
    weight[np.arange(n), np.arange(n) // 4 % k] = 0.0
    return weight


def test_folds_are_fits_of_their_own_rows_on_their_own_scale():
    z, codes, _ = problem()
    weight, grid = folds_of(len(z)), [1e-2, 1.0]
    for l2, (w, b) in zip(grid, softmax_folds(z, codes, weight, 4, grid, tol=1e-10, max_iter=500, who="test")):
        assert w.shape == (3, 4, 30)
        assert b.shape == (3, 4)
        for k in range(3):
            mine = weight[:, k] > 0
            share = weight[mine, k] / weight[mine, k].sum()
            mean = share @ z[mine]
            spread = np.sqrt(share @ (z[mine] - mean) ** 2)
            # the documented objective, on the fold's own vectors
            on_own = w[k] * spread, b[k] + w[k] @ mean
            steps = slopes((z[mine] - mean) / spread, codes[mine], weight[mine, k], on_own, l2)
            assert max(np.abs(step).max() for step in steps) < 1e-5


def test_a_class_that_a_fold_has_not_is_left_alone_there():
    z, codes, _ = problem()
    weight = folds_of(len(z))
    weight[codes == 2, 1] = 0.0
    ((w, b),) = softmax_folds(z, codes, weight, 4, [0.1], tol=1e-10, max_iter=500, who="test")
    assert not w[1, 2].any()
    assert w[0, 2].any()
    others = codes != 2
    ((w3, b3),) = softmax_folds(
        z[others], codes[others] - (codes[others] > 2), weight[others], 3, [0.1], tol=1e-10, max_iter=500, who="test"
    )
    np.testing.assert_allclose(w[1, [0, 1, 3]], w3[1], atol=2e-4)
    np.testing.assert_allclose(np.ptp(b[1, [0, 1, 3]] - b3[1]), 0.0, atol=2e-4)


def test_a_column_that_is_constant_in_a_fold_says_nothing_there():
    z, codes, _ = problem()
    weight = folds_of(len(z))
    # values whose squares are not exact, so that the variance there is rounding
    values = np.linspace(0.3, 3.3, 12)
    z[:, :12] = np.where(weight[:, :1] > 0, values, z[:, :12])
    ((w, _),) = softmax_folds(z.astype(np.float32), codes, weight, 4, [0.1], tol=1e-6, max_iter=500, who="test")
    assert np.abs(w[0, :, :12]).max() < 1e-3 < np.abs(w[1, :, :12]).max()


def test_the_number_of_threads_changes_no_bit(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_ROWS", 32)
    z, codes, _ = problem()
    one, two = (
        softmax_folds(
            z.astype(np.float32), codes, folds_of(len(z)), 4, [0.1], tol=1e-5, max_iter=500, n_threads=n, who="test"
        )
        for n in (1, 3)
    )
    np.testing.assert_array_equal(one[0][0], two[0][0])
    np.testing.assert_array_equal(one[0][1], two[0][1])
