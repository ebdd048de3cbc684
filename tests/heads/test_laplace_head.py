"""LaplaceHead: closed forms, a bootstrap, and what it refuses."""

import numpy as np
import pytest
from scipy.special import expit

from embedrm import EmbeddedPreferences, Featurizer, LinearHead
from embedrm.composites.ensemble import EnsembleRewardModel
from embedrm.errors import InvalidInputError
from embedrm.heads import laplace
from embedrm.heads.laplace import LaplaceHead
from embedrm.objectives.bradley_terry import BradleyTerry
from embedrm.objectives.bt_margin import BTMargin
from embedrm.persistence import load_model, save_model

RAW = Featurizer(scale="none")


def problem(n_prompts=150, k=2, dim=6, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_prompts, k, dim)).astype(dtype)
    prefs = EmbeddedPreferences.from_arrays(x, rewards=x @ (np.arange(dim) - 2.0))
    lost = rng.random(len(prefs)) > expit(prefs.margin)
    return EmbeddedPreferences(
        prefs.responses,
        np.where(lost[:, None], prefs.pairs[:, ::-1], prefs.pairs),
        weight=rng.uniform(0.5, 2.0, size=len(prefs)),
        outcome=rng.choice([0.7, 1.0], size=len(prefs)),
    )


def covariance_by_definition(head, prefs):
    x = prefs.responses.view("response:final")
    d = x[prefs.pairs[:, 0]] - x[prefs.pairs[:, 1]]
    p = expit(d @ head.coef_)
    h = (d * (prefs.weight * p * (1 - p))[:, None]).T @ d
    return np.linalg.inv(h + head.l2 * prefs.weight.sum() * np.eye(d.shape[1]))


def test_one_weight_by_hand():
    # two pairs with difference 1, one each way: w = 0, curvature 1/4 each, so the precision is 1/2 + l2 * 2
    prefs = EmbeddedPreferences.from_arrays(np.array([[1.0], [0.0], [0.0], [1.0]]), [[0, 1], [2, 3]])
    head = LaplaceHead(RAW, l2=0.5).fit(prefs)
    assert head.coef_ == pytest.approx([0.0])
    assert head.covariance == pytest.approx(np.array([[1 / 1.5]]))
    np.testing.assert_allclose(head.uncertainty(np.array([[3.0], [0.0]])), [3 / np.sqrt(1.5), 0.0])
    np.testing.assert_allclose(head.margin_uncertainty(prefs), [1 / np.sqrt(1.5)] * 2)


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("l2", [1e-3, 0.3])
def test_the_covariance_is_the_closed_form(monkeypatch, k, l2):
    # many small blocks
    monkeypatch.setattr(laplace, "_BLOCK_ENTRIES", 200)
    prefs = problem(k=k)
    head = LaplaceHead(RAW, l2=l2, tol=1e-13).fit(prefs)
    wanted = covariance_by_definition(head, prefs)
    np.testing.assert_allclose(head.covariance, wanted, rtol=1e-8, atol=1e-12)
    x = prefs.responses.view("response:final")
    np.testing.assert_allclose(head.uncertainty(prefs), np.sqrt(np.einsum("ij,jk,ik->i", x, wanted, x)), rtol=1e-8)
    d = x[prefs.pairs[:, 0]] - x[prefs.pairs[:, 1]]
    np.testing.assert_allclose(
        head.margin_uncertainty(prefs), np.sqrt(np.einsum("ij,jk,ik->i", d, wanted, d)), rtol=1e-8
    )


def test_it_is_the_second_derivative_of_the_loss_with_interactions_and_centring():
    rng = np.random.default_rng(1)
    base = problem(40, k=3, dim=3)
    prefs = EmbeddedPreferences.from_arrays(
        base.responses.view("response:final").reshape(40, 3, 3),
        base.pairs,
        prompt=rng.normal(size=(40, 3)),
        weight=base.weight,
        margin=rng.uniform(0, 1, size=len(base)),
    )
    for objective in (BradleyTerry(centring=0.2), BTMargin(flip_rate=0.1)):
        head = LaplaceHead(Featurizer(("r", "p*r"), scale="rms"), l2=0.1, objective=objective, tol=1e-13).fit(prefs)
        from embedrm.heads._linear_problem import Problem

        one = Problem(head, objective, head.featurizer_, prefs)
        step = 1e-5 * np.eye(head.n_features_in_)
        ahead, behind = (
            np.array([one.value_and_gradient(head.coef_ + s * e, 0.1)[1] for e in step]) for s in (1.0, -1.0)
        )
        precision = prefs.weight.sum() * (ahead - behind) / 2e-5
        np.testing.assert_allclose(np.linalg.inv(head.covariance), precision, rtol=1e-6, atol=1e-5)


def test_weights_and_predictions_are_the_linear_heads():
    prefs = problem()
    head, plain = LaplaceHead().fit(prefs), LinearHead().fit(prefs)
    np.testing.assert_array_equal(head.coef_, plain.coef_)
    np.testing.assert_array_equal(head.predict(prefs), plain.predict(prefs))


def test_it_agrees_with_a_bootstrap_where_the_model_is_true_and_the_prior_weak():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3000, 2, 6))
    prefs = EmbeddedPreferences.from_arrays(x, rewards=x @ np.array([1.0, -1, 0.5, 0, 0, 0]))
    lost = rng.random(len(prefs)) > expit(prefs.margin)
    prefs = EmbeddedPreferences(prefs.responses, np.where(lost[:, None], prefs.pairs[:, ::-1], prefs.pairs))
    options = {"featurizer": RAW, "l2": 1e-6}
    head = LaplaceHead(**options).fit(prefs)
    ensemble = EnsembleRewardModel(LinearHead(**options), n_members=200, standardise=False).fit(prefs)
    expected, found = head.margin_uncertainty(prefs), ensemble.margin_uncertainty(prefs)
    # 200 members give each standard deviation to 5 %, and directions share their errors
    assert np.median(found / expected) == pytest.approx(1.0, abs=0.06)
    assert np.corrcoef(found, expected)[0, 1] > 0.95


def test_truth_lies_within_the_stated_spread():
    truth = np.array([1.0, -1, 0.5, 0])
    scores = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(200, 2, 4))
        prefs = EmbeddedPreferences.from_arrays(x, rewards=x @ truth)
        lost = rng.random(200) > expit(prefs.margin)
        prefs = EmbeddedPreferences(prefs.responses, np.where(lost[:, None], prefs.pairs[:, ::-1], prefs.pairs))
        head = LaplaceHead(RAW, l2=1e-4).fit(prefs)
        scores.append((head.coef_ - truth) / np.sqrt(np.diag(head.covariance)))
    # 240 standard scores, nearly normal: their root mean square is 1 to 3 standard errors of 1 / sqrt(2 * 240)
    assert np.sqrt(np.mean(np.square(scores))) == pytest.approx(1.0, abs=0.14)


def test_more_data_and_more_weight_are_surer():
    prefs = problem()
    head = LaplaceHead(RAW, tol=1e-13).fit(prefs)
    doubled = LaplaceHead(RAW, tol=1e-13).fit(prefs.weighted(2 * prefs.weight))
    np.testing.assert_allclose(doubled.covariance, head.covariance / 2, rtol=1e-6)
    twice = LaplaceHead(RAW, tol=1e-13).fit(prefs[np.tile(np.arange(len(prefs)), 2)])
    np.testing.assert_allclose(twice.covariance, head.covariance / 2, rtol=1e-6)


def test_single_precision_is_enough():
    double, single = (LaplaceHead().fit(problem(dtype=dtype)) for dtype in (np.float64, np.float32))
    prefs = problem()
    np.testing.assert_allclose(single.margin_uncertainty(prefs), double.margin_uncertainty(prefs), rtol=1e-3)


def test_saving_keeps_the_spread(tmp_path):
    prefs = problem()
    head = LaplaceHead().fit(prefs)
    loaded, _ = load_model(save_model(head, tmp_path / "m"))
    np.testing.assert_array_equal(loaded.uncertainty(prefs), head.uncertainty(prefs))


def test_an_ensemble_of_them_has_a_covariance_for_each():
    prefs = problem()
    ensemble = EnsembleRewardModel(LaplaceHead(), n_members=2).fit(prefs)
    one, other = (member.covariance for member in ensemble.members_)
    assert not np.allclose(one, other)


def test_what_has_no_covariance_is_refused():
    prefs = problem()
    with pytest.raises(InvalidInputError, match=r"needs an objective .* got 'hinge'"):
        LaplaceHead(objective="hinge").fit(prefs)
    flat = EmbeddedPreferences.from_arrays(np.array([[1.0, 0], [0, 0], [2, 0], [1, 0]]), [[0, 1], [3, 2]])
    with pytest.raises(InvalidInputError, match="give l2 > 0"):
        LaplaceHead(RAW, l2=0.0).fit(flat)
