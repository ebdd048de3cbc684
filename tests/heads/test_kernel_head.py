"""KernelHead: scikit-learn on the same features, the optimality of the kernel's own problem, and bumps."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LogisticRegression

from embedrm import EmbeddedPreferences, Featurizer, LinearHead
from embedrm.errors import InvalidInputError
from embedrm.heads import kernel
from embedrm.heads.kernel import KernelHead
from embedrm.numerics.bradley_terry import log_loss
from embedrm.numerics.folds import group_folds
from embedrm.objectives import OBJECTIVES, Comparisons, make_objective
from embedrm.persistence import load_model, save_model

PLAIN = Featurizer(scale="none")


def bumps(n_prompts=2500, k=4, seed=0, shuffled=False):
    """Eight Gaussian bumps of height +-4 in the plane; returns (train, test, Bayes rate on test)."""
    rng = np.random.default_rng(seed)
    centre, height = rng.uniform(-2, 2, size=(8, 2)), rng.choice([-4.0, 4.0], size=8)
    x = rng.uniform(-2.5, 2.5, size=(n_prompts, k, 2)).astype(np.float32)
    squares = ((x[..., None, :] - centre) ** 2).sum(axis=-1)
    prefs = EmbeddedPreferences.from_arrays(x, rewards=np.exp(-squares / (2 * 0.6**2)) @ height)
    flip = rng.random(len(prefs)) > (0.5 if shuffled else expit(prefs.margin))
    noisy = EmbeddedPreferences(prefs.responses, np.where(flip[:, None], prefs.pairs[:, ::-1], prefs.pairs))
    test = noisy.prompt_rows >= 0.7 * n_prompts
    return noisy[~test], noisy[test], float(1 - flip[test].mean())


def small(n=40, dim=3, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, 3, dim)).astype(np.float32)
    return EmbeddedPreferences.from_arrays(x, rewards=np.sin(2 * x[..., 0]) + x[..., 1])


@pytest.mark.parametrize("seed", range(3))
def test_bumps_are_learned_to_within_a_point_of_the_bayes_rate(seed):
    train, test, bayes = bumps(seed=seed)
    assert KernelHead(PLAIN, bandwidth=0.6, l2=1e-4).fit(train).score(test) > bayes - 0.01
    assert LinearHead().fit(train).score(test) < bayes - 0.1


def test_shuffled_labels_teach_nothing():
    train, test, _ = bumps(shuffled=True)
    assert KernelHead().fit(train).score(test) == pytest.approx(0.5, abs=4.5 * 0.5 / np.sqrt(len(test)))


def test_margins_are_those_of_logistic_regression_on_the_same_features():
    prefs = small(200)
    l2 = 1e-2
    head = KernelHead(PLAIN, n_components=25, bandwidth=1.3, l2=l2, tol=1e-13).fit(prefs)
    x, z = prefs.responses.view("response:final").astype(float), head.landmarks_.astype(float)
    values, vectors = np.linalg.eigh(RBF(1.3)(z))
    phi = RBF(1.3)(x, z) @ vectors / np.sqrt(values)
    d = phi[prefs.pairs[:, 0]] - phi[prefs.pairs[:, 1]]
    sign = np.where(np.arange(len(d)) % 2, 1, -1)
    peer = LogisticRegression(C=1 / (l2 * len(d)), fit_intercept=False, tol=1e-12, max_iter=10_000)
    peer.fit(d * sign[:, None], sign)
    np.testing.assert_allclose(head.margins(prefs), d @ peer.coef_[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("objective", ["bradley-terry", "classification"])
def test_with_every_response_a_landmark_it_is_the_representer_theorems_solution(objective):
    prefs = small(15)
    l2 = 0.05
    head = KernelHead(PLAIN, bandwidth=0.7, l2=l2, objective=objective, tol=1e-14).fit(prefs)
    x = prefs.responses.view("response:final")
    assert len(head.landmarks_) == len(x)
    order = [int(np.flatnonzero((x == z).all(axis=1))[0]) for z in head.landmarks_]
    at = make_objective(objective).loss(Comparisons.of(prefs)).evaluate(head.predict(prefs))
    # the gradient K (slope + l2 alpha) vanishes: alpha = -slope / l2
    np.testing.assert_allclose(head.dual_coef_, -at.slope[order] / l2, atol=1e-5)
    k = RBF(0.7)(x[order].astype(float))
    penalty = 0.5 * l2 * head.dual_coef_ @ k @ head.dual_coef_
    assert head.objective_ == pytest.approx(at.value + penalty, rel=1e-9)


def test_the_reward_is_the_sum_of_kernels():
    prefs = small()
    head = KernelHead(PLAIN, n_components=9).fit(prefs)
    x = prefs.responses.view("response:final").astype(float)
    expected = RBF(head.bandwidth_)(x, head.landmarks_.astype(float)) @ head.dual_coef_
    np.testing.assert_allclose(head.predict(prefs), expected, atol=1e-10)
    assert abs(head.predict(np.full((1, 3), 1e4, dtype=np.float32))[0]) < 1e-12


def test_the_bandwidth_is_the_median_distance():
    x = np.array([[0.0], [1.0], [1.0], [4.0]])
    # distances 1, 1, 4, 3, 3, and none between the copies
    head = KernelHead(PLAIN).fit(EmbeddedPreferences.from_arrays(x, [[0, 1], [2, 3]]))
    assert head.bandwidth_ == pytest.approx(3.0)
    same = EmbeddedPreferences.from_arrays(np.ones((4, 2)), [[0, 1], [2, 3]])
    assert KernelHead().fit(same).bandwidth_ == 1.0
    np.testing.assert_allclose(KernelHead().fit(same).margins(same), 0.0, atol=1e-12)


def test_features_made_block_by_block_train_the_same_model(monkeypatch):
    prefs = small(60)
    held = KernelHead(n_components=30, tol=1e-12).fit(prefs).predict(prefs)
    monkeypatch.setattr(kernel, "HELD_LIMIT_BYTES", 0)
    monkeypatch.setattr(kernel, "BLOCK_ROWS", 17)
    streamed = KernelHead(n_components=30, tol=1e-12).fit(prefs).predict(prefs)
    np.testing.assert_allclose(streamed, held, atol=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES.names())
def test_every_objective_trains(objective):
    train, test, bayes = bumps(n_prompts=800)
    head = KernelHead(bandwidth=0.5, n_components=150, l2=1e-4, objective=objective, tol=1e-7).fit(train)
    assert head.score(test) > bayes - 0.05
    assert head.margins_are_logits is OBJECTIVES.get(objective).margins_are_logits


def test_a_seed_gives_the_same_bits_and_files_keep_them(tmp_path):
    train, test, _ = bumps(n_prompts=300)
    one, same, other = (KernelHead(n_components=50, random_state=s).fit(train) for s in (4, 4, 5))
    assert one.predict(test).tobytes() == same.predict(test).tobytes()
    assert one.predict(test).tobytes() != other.predict(test).tobytes()
    loaded, _ = load_model(save_model(one, tmp_path / "model"))
    assert loaded.predict(test).tobytes() == one.predict(test).tobytes()


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"n_components": 0}, "n_components to be a whole number >= 1"),
        ({"n_components": 8.0}, "n_components to be a whole number >= 1"),
        ({"bandwidth": 0.0}, "bandwidth to be a number > 0 or 'median'"),
        ({"bandwidth": "mean"}, "bandwidth to be a number > 0 or 'median'"),
        ({"l2": -1}, "l2 to be a number >= 0"),
        ({"l2": "cw"}, "l2 to be a number >= 0 or 'cv'"),
        ({"l2": "cv", "l2_grid": ()}, "l2_grid of numbers >= 0"),
        ({"l2": "cv", "l2_grid": (0.1, -1)}, "l2_grid of numbers >= 0"),
        ({"l2": "cv", "cv": 1}, r"KernelHead\(l2='cv'\) needs at least 2 folds"),
        ({"tol": 0}, "tol > 0"),
        ({"random_state": -1}, "random_state to be a whole number >= 0"),
        ({"max_iter": 0}, "max_iter to be a whole number >= 1"),
        ({"objective": "bradley"}, "bradley-terry"),
    ],
)
def test_wrong_parameters_are_refused(parameters, message):
    with pytest.raises(InvalidInputError, match=message):
        KernelHead(**parameters).fit(small())


@pytest.mark.parametrize("objective", ["bradley-terry", "hinge", "classification"])
def test_cv_takes_the_penalty_with_the_least_held_out_loss(objective):
    prefs = small(60)
    prefs = prefs.weighted(np.arange(len(prefs)) % 3 + 0.5)
    grid, options = (1e-4, 1e-2, 1.0), {"n_components": 20, "objective": objective, "tol": 1e-12}
    head = KernelHead(l2="cv", l2_grid=grid, cv=3, **options).fit(prefs)
    made, name = make_objective(objective), "log_loss" if make_objective(objective).margins_are_logits else "loss"
    for row in head.cv_results_:
        loss = 0.0
        for inside, outside in group_folds(prefs.groups, 3, weight=prefs.weight):
            part, fitted = prefs[outside], KernelHead(l2=row["l2"], **options).fit(prefs[inside])
            if name == "log_loss":
                loss += part.weight @ log_loss(fitted.margins(part), part.outcome)
            else:
                unseen = made.loss(Comparisons.of(part)).evaluate(fitted.predict(prefs)[part.active])
                loss += part.weight.sum() * unseen.value
        assert row[name] == pytest.approx(loss / prefs.weight.sum(), rel=1e-3)
    assert [row["l2"] for row in head.cv_results_] == sorted(grid, reverse=True)
    assert head.l2_ == min(head.cv_results_, key=lambda row: row[name])["l2"]
    fixed = KernelHead(l2=head.l2_, **options).fit(prefs)
    np.testing.assert_array_equal(head.predict(prefs), fixed.predict(prefs))
    assert fixed.l2_ == head.l2_
    assert fixed.cv_results_ == []


def test_noise_asks_for_a_large_penalty_and_signal_for_a_small_one():
    chosen = {shuffled: KernelHead(l2="cv").fit(bumps(400, shuffled=shuffled)[0]).l2_ for shuffled in (False, True)}
    assert chosen[True] > chosen[False]


def test_pairs_of_weight_zero_are_in_no_fold():
    prefs = small(60)
    dead = np.unique(prefs.groups, return_inverse=True)[1] % 3 == 0
    one = KernelHead(l2="cv", cv=3, n_components=200).fit(prefs.weighted(~dead * 1.0))
    other = KernelHead(l2="cv", cv=3, n_components=200).fit(prefs[~dead])
    assert one.cv_results_ == other.cv_results_
