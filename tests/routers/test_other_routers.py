"""Centroids, neighbours, trees and scikit-learn's classifiers as routers, against their definitions."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC

from embedrm import LogisticRouter
from embedrm.errors import InvalidInputError, MissingDependencyError, ModelError
from embedrm.numerics.folds import group_folds
from embedrm.persistence import load_model, save_model
from embedrm.routers import ROUTERS
from embedrm.routers.centroid import CentroidRouter
from embedrm.routers.knn import KNNRouter
from embedrm.routers.lightgbm import LightGBMRouter
from embedrm.routers.scikit import SklearnRouter

NAMES = np.array(["code", "math", "talk"])
OWN = ("logistic", "centroid", "knn", "lightgbm")


def data(n=90, dim=4, n_domains=3, spread=1.5, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_domains, size=n)
    codes[:n_domains] = np.arange(n_domains)
    x = rng.normal(size=(n, dim)) + 3.0
    x[np.arange(n), codes] += spread
    return x, NAMES[codes], codes


def make(name, **parameters):
    if name == "sklearn":
        pytest.importorskip("skops", reason="needs pip install 'embedrm[skops]'")
    return ROUTERS.get(name)(**parameters)


@pytest.mark.parametrize("covariance", ["shrunk", "diagonal"])
def test_centroids_are_the_discriminant_of_their_covariance(covariance):
    x, y, codes = data()
    router = CentroidRouter(covariance=covariance, shrinkage=0.3, calibrate=False).fit(x, y)
    within = x - np.stack([x[codes == d].mean(axis=0) for d in range(3)])[codes]
    pooled = within.T @ within / len(x)
    if covariance == "diagonal":
        pooled = np.diag(np.diag(pooled))
    inverse = np.linalg.inv(0.7 * pooled + 0.3 * np.trace(pooled) / 4 * np.eye(4))
    scores = np.empty((90, 3))
    for d in range(3):
        away = x - x[codes == d].mean(axis=0)
        scores[:, d] = np.log((codes == d).mean()) - 0.5 * np.einsum("ij,jk,ik->i", away, inverse, away)
    np.testing.assert_allclose(router.predict_proba(x), softmax(scores, axis=1), rtol=1e-8)


def test_centroids_at_full_shrinkage_are_the_nearest_means():
    x, y, _ = data()
    router = CentroidRouter(shrinkage=1.0, class_weight="balanced").fit(x, y)
    assert (router.predict(x) == NearestCentroid().fit(x, y).predict(x)).all()


def test_centroids_nearly_without_shrinkage_are_lda():
    x, y, _ = data()
    router = CentroidRouter(shrinkage=1e-9, calibrate=False).fit(x, y)
    # LDA divides the pooled covariance by n - 3
    lda = softmax(LinearDiscriminantAnalysis().fit(x, y).decision_function(x) * 90 / 87, axis=1)
    assert np.abs(router.predict_proba(x) - lda).max() < 0.02


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_vote_as_counted_one_by_one(metric):
    x, y, codes = data()
    router = KNNRouter(k=7, metric=metric, calibrate=False).fit(x, y)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    new = (data(seed=5)[0] - x.mean(axis=0)) / x.std(axis=0)
    if metric == "cosine":
        z, new = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (z, new))
    share = np.bincount(codes) / 90
    expected = np.stack(
        [(np.bincount(codes[np.argsort(((z - v) ** 2).sum(axis=1))[:7]], minlength=3) + share) / 8 for v in new]
    )
    np.testing.assert_allclose(router.predict_proba(data(seed=5)[0]), expected, rtol=1e-9)


def test_more_neighbours_than_prompts_are_all_prompts():
    x, y, codes = data(n=12)
    p = KNNRouter(k=500, calibrate=False).fit(x, y).predict_proba(x)
    np.testing.assert_allclose(p, np.tile(np.bincount(codes) / 12, (12, 1)), rtol=1e-9)


def test_trees_are_bit_reproducible_and_another_seed_is_another_router():
    x, y, _ = data(dim=8)
    p = LightGBMRouter().fit(x, y).predict_proba(x)
    np.testing.assert_array_equal(LightGBMRouter(threads=1).fit(x, y).predict_proba(x), p)
    assert (LightGBMRouter(random_state=1).fit(x, y).predict_proba(x) != p).any()


def test_trees_on_constant_vectors_give_the_shares():
    p = LightGBMRouter(calibrate=False).fit(np.ones((9, 2)), ["a"] * 6 + ["b"] * 3).predict_proba(np.ones((1, 2)))
    np.testing.assert_allclose(p, [[2 / 3, 1 / 3]])


@pytest.mark.parametrize("name", OWN)
class TestOwnRouters:
    def test_temperature_makes_no_choice_of_domain(self, name):
        x, y, _ = data(spread=0.5)
        raw, calibrated = (make(name, calibrate=c).fit(x, y) for c in (False, True))
        assert raw.temperature_ == 1.0
        assert calibrated.temperature_ != 1.0
        if name not in ("logistic", "centroid", "knn"):  # these choose a setting by calibrated losses
            np.testing.assert_array_equal(raw.predict(x), calibrated.predict(x))

    def test_out_of_fold_probabilities_have_not_seen_the_group(self, name):
        # every prompt comes twice under one group, and domains are noise: only memory could know
        rng = np.random.default_rng(2)
        x, y = np.repeat(rng.normal(size=(40, 12)), 2, axis=0), np.repeat(NAMES[rng.integers(0, 3, size=40)], 2)
        groups = np.arange(80) // 2
        router = make(name).fit(x, y, groups)
        p = router.out_of_fold_proba(x, y, groups)
        assert (router.classes_[p.argmax(axis=1)] == y).mean() < 0.65
        np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-9)

    def test_out_of_fold_probabilities_are_those_of_refits_by_hand(self, name, monkeypatch):
        # the folds of this one are solved together, on other paths than each alone
        monkeypatch.setattr("embedrm.routers.logistic._TOL", 1e-9)
        x, y, _ = data()
        fixed = {"logistic": {"l2": 0.1}, "centroid": {"shrinkage": 0.5}, "knn": {"k": 5}, "lightgbm": {}}[name]
        router = make(name, **fixed).fit(x, y)
        expected = np.zeros((90, 3))
        for train, held in group_folds(np.arange(90), 4):
            part = make(name, calibrate=False, **fixed).fit(x[train], y[train])
            expected[held] = softmax(np.log(part.predict_proba(x[held])) / router.temperature_, axis=1)
        np.testing.assert_allclose(router.out_of_fold_proba(x, y, cv=4), expected, rtol=1e-4, atol=1e-6)

    def test_a_domain_that_a_fold_has_not_seen_takes_nothing_from_the_others(self, name):
        x, y, _ = data()
        # all prompts of one domain are one group, so that the fold that holds them out does not know it
        groups = np.where(y == NAMES[0], "together", np.arange(len(y)).astype(str))
        router = make(name).fit(x, y, groups)
        router.temperature_ = 60.0
        p = router.out_of_fold_proba(x, y, groups)
        assert (p[y == NAMES[0], 0] == 0).all()
        np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-9)

    def test_a_prompt_of_weight_two_is_that_prompt_twice(self, name):
        x, y, _ = data()
        times = np.random.default_rng(1).integers(1, 4, size=90)
        fixed = {
            "logistic": {"l2": 0.1},
            "centroid": {"shrinkage": 0.5},
            "knn": {"k": 90},
            "lightgbm": {"min_data_in_leaf": 1},
        }
        one = make(name, calibrate=False, **fixed[name]).fit(x, y, sample_weight=times)
        rows = np.repeat(np.arange(90), times)
        two = make(name, calibrate=False, **(fixed[name] | ({"k": 500} if name == "knn" else {}))).fit(x[rows], y[rows])
        if name == "lightgbm":
            assert (one.predict(x) == two.predict(x)).mean() > 0.9  # bins are laid by rows
        else:
            np.testing.assert_allclose(one.predict_proba(x), two.predict_proba(x), atol=0.02 if name == "knn" else 1e-3)

    def test_prompts_of_weight_zero_make_no_fold(self, name):
        x, y, _ = data()
        more, of, _ = data(n=60, seed=8)
        # in groups that would be dealt before the others
        groups, first = np.array([f"g{i // 2:03d}" for i in range(90)]), [f"a{i:03d}" for i in range(60)]
        weight = np.random.default_rng(4).uniform(0.5, 2.0, 90)
        whole = (np.concatenate([more, x]), np.concatenate([of, y]), np.concatenate([first, groups]))
        with_zeros = np.concatenate([np.zeros(60), weight])
        one, two = make(name).fit(x, y, groups, weight), make(name).fit(*whole, with_zeros)
        assert one.temperature_ == pytest.approx(two.temperature_, rel=1e-2)
        assert one.out_of_fold_["log_loss"] == pytest.approx(two.out_of_fold_["log_loss"], rel=1e-3)
        np.testing.assert_allclose(one.predict_proba(x), two.predict_proba(x), atol=5e-3)
        held, all_held = one.out_of_fold_proba(x, y, groups, weight), two.out_of_fold_proba(*whole, with_zeros)
        np.testing.assert_allclose(all_held[60:], held, atol=5e-3)
        np.testing.assert_array_equal(all_held[:60], two.predict_proba(more))

    def test_a_prompt_of_weight_zero_is_not_there(self, name):
        x, y, _ = data()
        weight = (np.arange(90) % 4 > 0).astype(float)
        one = make(name, calibrate=False).fit(x, y, sample_weight=weight)
        spoilt = np.where(weight[:, None] > 0, x, 1e3)
        two = make(name, calibrate=False).fit(spoilt, y, sample_weight=weight)
        if name in ("logistic", "lightgbm", "knn"):
            np.testing.assert_allclose(one.predict_proba(x), two.predict_proba(x), atol=1e-6)

    def test_balanced_domains_find_the_rare_one(self, name):
        rng = np.random.default_rng(3)
        y = np.repeat(["often", "rare"], [180, 12])
        x = rng.normal(size=(192, 4))
        x[:, 0] += np.where(y == "rare", 1.5, 0.0)
        plain, balanced = (make(name, class_weight=w).fit(x, y) for w in (None, "balanced"))
        new = rng.normal(size=(400, 4))
        new[:, 0] += 1.5
        assert (balanced.predict(new) == "rare").mean() > (plain.predict(new) == "rare").mean() + 0.1

    def test_the_order_of_domains_by_name_does_not_matter(self, name):
        x, y, _ = data()
        renamed = np.array([{"code": "zebra", "math": "aardvark", "talk": "moose"}[d] for d in y])
        if name == "lightgbm":
            a, b = make(name, feature_fraction=1.0).fit(x, y), make(name, feature_fraction=1.0).fit(x, renamed)
        else:
            a, b = make(name).fit(x, y), make(name).fit(x, renamed)
        np.testing.assert_allclose(b.predict_proba(x)[:, [2, 0, 1]], a.predict_proba(x), atol=1e-3)

    def test_a_fold_may_lack_a_domain(self, name):
        x, y, _ = data(n=40, n_domains=2)
        y = np.append(y[:-1], "talk")
        router = make(name, cv=2).fit(x, y)
        assert router.out_of_fold_["unseen"] == 1.0
        assert np.isfinite(router.predict_proba(x)).all()
        assert router.temperature_ < 20

    def test_one_domain_is_certain(self, name):
        router = make(name).fit(np.eye(3), ["only"] * 3)
        np.testing.assert_array_equal(router.predict_proba(np.eye(3)), np.ones((3, 1)))

    def test_saving_keeps_every_bit(self, name, tmp_path):
        x, y, _ = data()
        router = make(name, class_weight={"code": 2.0}).fit(x.astype(np.float32), y)
        loaded, _ = load_model(save_model(router, tmp_path / "router"))
        np.testing.assert_array_equal(loaded.predict_proba(x), router.predict_proba(x))
        assert loaded.out_of_fold_ == router.out_of_fold_

    def test_wrong_weights_are_refused(self, name):
        x, y, _ = data()
        with pytest.raises(InvalidInputError, match="sample_weight to be 90 finite numbers"):
            make(name).fit(x, y, sample_weight=np.zeros(90))
        with pytest.raises(InvalidInputError, match="class_weight to be 'balanced'"):
            make(name, class_weight="even").fit(x, y)
        with pytest.raises(InvalidInputError, match="unknown domain in class_weight"):
            make(name, class_weight={"kode": 2.0}).fit(x, y)


@pytest.mark.parametrize(
    "router, message",
    [
        (CentroidRouter(covariance="full"), "unknown covariance 'full'"),
        (CentroidRouter(shrinkage=0.0), r"shrinkage to be a number in \(0, 1\] or 'cv', got 0.0"),
        (CentroidRouter(shrinkage_grid=()), "shrinkage_grid of numbers"),
        (KNNRouter(k=0), "k to be a whole number >= 1 or 'cv', got 0"),
        (KNNRouter(metric="manhattan"), "unknown metric"),
        (KNNRouter(k_grid=(5, 0)), "k_grid of whole numbers"),
        (LightGBMRouter(n_trees=0), "n_trees to be a whole number >= 1, got 0"),
        (LightGBMRouter(learning_rate=0), "learning_rate in"),
        (LightGBMRouter(threads=0), "threads to be a whole number >= 1 or None"),
        (LightGBMRouter(l2=-1), "l2 to be a number >= 0"),
        (SklearnRouter(StandardScaler()), "a classifier of scikit-learn, got StandardScaler"),
    ],
)
def test_wrong_parameters_are_refused(router, message):
    with pytest.raises(InvalidInputError, match=message):
        router.fit(*data()[:2])


class TestSklearn:
    @pytest.fixture(autouse=True)
    def _skops(self):
        pytest.importorskip("skops", reason="needs pip install 'embedrm[skops]'")

    @pytest.mark.parametrize(
        "estimator",
        [
            None,
            GaussianNB(),
            LinearSVC(random_state=0),
            RandomForestClassifier(10, random_state=0),
            make_pipeline(StandardScaler(), LogisticRegression()),
            NearestCentroid(),
        ],
        ids=lambda e: type(e).__name__,
    )
    @pytest.mark.parametrize("n_domains", [2, 3])
    def test_any_classifier_is_fitted_calibrated_and_saved(self, estimator, n_domains, tmp_path):
        x, y, _ = data(n_domains=n_domains)
        router = SklearnRouter(estimator).fit(x, y, np.arange(90))
        p = router.predict_proba(x)
        np.testing.assert_allclose(p.sum(axis=1), 1.0)
        assert router.score(x, y) > 0.6
        assert not hasattr(estimator, "classes_")
        loaded, _ = load_model(save_model(router, tmp_path / "router"))
        np.testing.assert_array_equal(loaded.predict_proba(x), p)
        assert repr(loaded) == repr(router)
        np.testing.assert_array_equal(loaded.fit(x, y, np.arange(90)).predict_proba(x), p)

    def test_without_calibration_it_is_the_estimator_up_to_one_prompt(self):
        x, y, _ = data()
        p = SklearnRouter(LogisticRegression(), calibrate=False).fit(x, y).predict_proba(x)
        expected = (90 * LogisticRegression().fit(x, y).predict_proba(x) + 1) / 93
        np.testing.assert_allclose(p, expected, rtol=1e-9)

    def test_an_overconfident_forest_is_put_right(self):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(90, 5)), NAMES[np.arange(90) % 3]
        forest = RandomForestClassifier(20, random_state=0)
        raw, calibrated = (SklearnRouter(forest, calibrate=c).fit(x, y) for c in (False, True))
        fresh = rng.normal(size=(300, 5))
        losses = [-np.log(r.predict_proba(fresh)[np.arange(300), np.arange(300) % 3]).mean() for r in (raw, calibrated)]
        assert losses[1] < losses[0]

    def test_weights_reach_the_estimator_or_are_refused(self):
        x, y, _ = data()
        weight = np.random.default_rng(0).uniform(0.5, 2, 90)
        p = SklearnRouter(LogisticRegression(), calibrate=False).fit(x, y, sample_weight=weight).predict_proba(x)
        by_hand = LogisticRegression().fit(x, y, sample_weight=weight / weight.mean()).predict_proba(x)
        np.testing.assert_allclose(p, (90 * by_hand + 1) / 93, rtol=1e-6)
        with pytest.raises(InvalidInputError, match="NearestCentroid takes no sample_weight"):
            SklearnRouter(NearestCentroid(), class_weight="balanced").fit(x, y)

    def test_a_function_inside_is_refused_at_fit(self):
        x, y, _ = data()
        with pytest.raises(InvalidInputError, match="SklearnRouter"):
            SklearnRouter(make_pipeline(FunctionTransformer(lambda z: z), GaussianNB())).fit(x, y)
        with pytest.raises(
            InvalidInputError, match=r"made of scikit-learn's parts; this Pipeline holds [\w.]*double\. Leave"
        ):
            SklearnRouter(make_pipeline(FunctionTransformer(double), GaussianNB())).fit(x, y)

    def test_bytes_that_name_another_type_are_not_read(self, tmp_path):
        import skops.io as sio

        x, y, _ = data()
        router = SklearnRouter(GaussianNB()).fit(x, y)
        strange = make_pipeline(FunctionTransformer(double), GaussianNB()).fit(x, np.arange(90) % 3)
        router.estimator_bytes_ = np.frombuffer(sio.dumps(strange), dtype=np.uint8)
        loaded, _ = load_model(save_model(router, tmp_path / "router"))
        with pytest.raises(ModelError, match="which are not scikit-learn's; it is not read"):
            loaded.predict_proba(x)
        loaded.estimator_bytes_ = loaded.estimator_bytes_[:50]
        with pytest.raises(ModelError, match="damaged estimator"):
            loaded.predict_proba(x)

    def test_without_skops_fit_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "skops.io", None)
        with pytest.raises(MissingDependencyError, match=r"pip install 'embedrm\[skops\]'"):
            SklearnRouter(GaussianNB()).fit(*data()[:2])


def double(z):
    return 2 * z


def test_logistic_with_equal_weights_is_logistic_without():
    x, y, _ = data()
    a, b = LogisticRouter().fit(x, y), LogisticRouter().fit(x, y, sample_weight=np.full(90, 7.0))
    np.testing.assert_array_equal(a.predict_proba(x), b.predict_proba(x))
