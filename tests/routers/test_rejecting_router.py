"""A router that abstains: thresholds by counting, distances by hand."""

from __future__ import annotations

import numpy as np
import pytest

from embedrm import LogisticRouter
from embedrm.errors import InvalidInputError
from embedrm.numerics.folds import group_folds
from embedrm.persistence import load_model, save_model
from embedrm.routers.base import Router
from embedrm.routers.centroid import CentroidRouter
from embedrm.routers.rejecting import RejectingRouter

NAMES = np.array(["code", "math", "talk"])


def data(n=120, seed=0, spread=1.5):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % 3
    x = rng.normal(size=(n, 5))
    x[np.arange(n), codes] += spread
    return x, NAMES[codes]


class _Fixed(Router):
    """The first three columns are the probabilities."""

    def __init__(self, view=None):
        self.view = view

    def fit(self, X, y, groups=None):
        self.classes_ = NAMES
        return self

    def predict_proba(self, X):
        return np.asarray(X)[:, :3]


def table():
    """Ten prompts: sure ones are right, unsure ones are not."""
    sure = np.array([0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5])
    route = np.array([0, 1, 2, 0, 1, 0, 0, 1, 2, 0])
    p = np.repeat(((1 - sure) / 2)[:, None], 3, axis=1)
    p[np.arange(10), route] = sure
    right = np.array([1, 1, 1, 1, 1, 1, 0, 1, 0, 0], dtype=bool)
    return p, NAMES[np.where(right, route, (route + 1) % 3)]


@pytest.mark.parametrize("level, lowest, n", [(0.5, 0.75, 5), (0.45, 0.75, 5), (1.0, 0.5, 10), (0.1, 0.95, 1)])
def test_coverage_is_the_share_of_the_surest(level, lowest, n):
    x, y = table()
    router = RejectingRouter(_Fixed(), level=level, outliers=None).fit(x, y)
    np.testing.assert_array_equal(router.thresholds_, np.full(3, lowest))
    assert router.accept(x).sum() == n
    assert router.out_of_fold_["coverage"] == n / 10
    assert router.out_of_fold_["accuracy_of_all"] == 0.7


@pytest.mark.parametrize("level, n", [(1.0, 6), (0.87, 8), (0.7, 10)])
def test_accuracy_takes_the_lowest_threshold_that_reaches_it(level, n):
    # right among the first 6: 6/6, 7: 6/7, 8: 7/8, 9: 7/9, 10: 7/10
    x, y = table()
    router = RejectingRouter(_Fixed(), target="accuracy", level=level, outliers=None).fit(x, y)
    assert router.accept(x).sum() == n
    assert router.out_of_fold_["accuracy"] >= level


def test_thresholds_of_single_routes():
    x, y = table()
    router = RejectingRouter(_Fixed(), target="accuracy", level=1.0, per_route=True, outliers=None).fit(x, y)
    # route 0: 0.95, 0.8, 0.7 right; route 1: all right; route 2: 0.85 right, 0.55 wrong
    np.testing.assert_array_equal(router.thresholds_, [0.7, 0.6, 0.85])
    # a route whose prompts are never its own is closed, however sure
    closed = RejectingRouter(_Fixed(), target="accuracy", level=1.0, per_route=True, outliers=None)
    closed.fit(x, np.where(x.argmax(axis=1) == 2, "math", y))
    assert np.isinf(closed.thresholds_[2])
    assert closed.accept(np.array([[0.02, 0.03, 0.95], [0.95, 0.02, 0.03]])).tolist() == [False, True]


def test_an_accuracy_out_of_reach_is_an_error():
    x, y = table()
    wrong = np.roll(NAMES, 1)[np.searchsorted(NAMES, y)]
    with pytest.raises(InvalidInputError, match="out of reach: even the surest of 10 training prompts"):
        RejectingRouter(_Fixed(), target="accuracy", level=0.95, outliers=None).fit(x, wrong)


def test_weights_count_prompts():
    x, y = table()
    x, y = np.vstack([x, x[:5]]), np.append(y, y[:5])
    twice = RejectingRouter(LogisticRouter(l2=0.1), outliers=None, level=0.5)
    assert twice.fit(x, y, np.arange(15), np.ones(15)).thresholds_[0] == twice.fit(x, y, np.arange(15)).thresholds_[0]
    with pytest.raises(InvalidInputError, match="_Fixed takes no sample_weight"):
        RejectingRouter(_Fixed()).fit(x, y, sample_weight=np.ones(15))


def test_distances_are_measured_from_prompts_by_their_weights():
    x, y = data(60)
    times = np.random.default_rng(3).integers(0, 3, size=60)
    rows = np.repeat(np.arange(60), times)
    once = RejectingRouter(LogisticRouter(l2=0.1)).fit(x, y, np.arange(60), times.astype(float))
    twice = RejectingRouter(LogisticRouter(l2=0.1)).fit(x[rows], y[rows], rows)
    for name in ("points_", "centre_", "spread_"):
        np.testing.assert_allclose(getattr(once, name), getattr(twice, name), rtol=1e-9, atol=1e-12)
    near = RejectingRouter(LogisticRouter(l2=0.1), outliers="knn").fit(x, y, np.arange(60), times.astype(float))
    assert len(near.points_) == (times > 0).sum()


@pytest.mark.parametrize("outliers", ["centroid", "knn"])
def test_what_is_far_from_all_training_is_rejected_however_sure(outliers):
    x, y = data()
    router = RejectingRouter(LogisticRouter(l2=0.1), outliers=outliers, level=1.0).fit(x, y)
    assert router.accept(x).mean() > 0.9
    far = np.array([[60.0, 0, 0, 0, 0]])
    assert router.predict_proba(far).max() > 0.99
    assert not router.accept(far)[0]
    assert RejectingRouter(LogisticRouter(l2=0.1), outliers=None, level=1.0).fit(x, y).accept(far)[0]
    fresh = data(seed=1)[0]
    assert 0.85 < router.accept(fresh).mean() <= 1.0


def test_distances_by_hand():
    x, y = data()
    router = RejectingRouter(CentroidRouter(shrinkage=0.5), outliers="centroid").fit(x, y)
    means = np.stack([x[y == d].mean(axis=0) for d in NAMES])
    spread = (x - means[np.searchsorted(NAMES, y)]).std(axis=0)
    expected = np.sqrt((((x[:, None] - means) / spread) ** 2).mean(axis=2).min(axis=1))
    np.testing.assert_allclose(router.distances(x), expected, rtol=1e-9)
    near = RejectingRouter(CentroidRouter(shrinkage=0.5), outliers="knn").fit(x, y)
    away = np.sort(np.sqrt((((x[:, None] - x) / x.std(axis=0)) ** 2).mean(axis=2)), axis=1)[:, 4]
    np.testing.assert_allclose(near.distances(x), away, rtol=1e-6)


def test_saving_keeps_every_bit(tmp_path):
    x, y = data()
    for outliers in ("centroid", "knn", None):
        router = RejectingRouter(per_route=True, outliers=outliers, level=0.8).fit(x, y)
        loaded, _ = load_model(save_model(router, tmp_path / str(outliers)))
        np.testing.assert_array_equal(loaded.accept(x), router.accept(x))
        np.testing.assert_array_equal(loaded.predict_proba(x), router.predict_proba(x))
        assert 0.5 < router.accept(x).mean() < 1.0


def test_views_and_one_domain():
    assert RejectingRouter(LogisticRouter("3")).resolve_views(["prompt:3", "prompt:6"]) == ["prompt:3"]
    assert RejectingRouter(view="6").resolve_views(["prompt:3", "prompt:6"]) == ["prompt:6"]
    router = RejectingRouter().fit(np.random.default_rng(0).normal(size=(30, 3)), ["only"] * 30)
    assert router.accept(np.zeros((1, 3)))[0]
    assert not router.accept(np.full((1, 3), 50.0))[0]


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"target": "precision"}, "unknown target"),
        ({"outliers": "lof"}, "unknown kind of outliers"),
        ({"level": 0.0}, r"level in \(0, 1\], got 0.0"),
        ({"quantile": 1.0}, r"quantile in \(0, 1\), got 1.0"),
        ({"router": 3}, "router to be a router, got int"),
    ],
)
def test_wrong_parameters_are_refused(parameters, message):
    with pytest.raises(InvalidInputError, match=message):
        RejectingRouter(**parameters).fit(*data())


def test_distances_need_to_be_kept():
    with pytest.raises(InvalidInputError, match="keeps no distances"):
        RejectingRouter(outliers=None).fit(*data()).distances(data()[0])


def test_thresholds_are_fitted_to_prompts_that_the_router_has_not_seen():
    # more columns than prompts: noise is learnt by heart, and known only for it
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 80)), NAMES[rng.integers(0, 3, size=60)]
    router = RejectingRouter(LogisticRouter(l2=1e-3, calibrate=False), outliers=None, level=0.5).fit(x, y)
    assert router.router_.score(x, y) == 1.0
    assert router.out_of_fold_["accuracy_of_all"] < 0.6
    assert router.accept(x).mean() > 0.9


def test_the_limit_is_a_distance_of_prompts_that_were_held_out():
    x, y = data(30)
    router = RejectingRouter(LogisticRouter(l2=0.1), outliers="knn", quantile=0.8, cv=3).fit(x, y)
    far = np.zeros(30)
    for train, held_out in group_folds(np.arange(30), 3):
        z = (x - x[train].mean(axis=0)) / x[train].std(axis=0)
        squares = ((z[held_out][:, None] - z[train][None]) ** 2).mean(axis=2)
        far[held_out] = np.sqrt(np.sort(squares, axis=1)[:, 4])
    assert router.limit_ == pytest.approx(np.sort(far)[23])


@pytest.mark.parametrize("outliers", ["centroid", "knn"])
@pytest.mark.parametrize("per_route", [False, True])
def test_prompts_of_weight_zero_are_as_if_absent(outliers, per_route):
    x, y = data(90)
    more, of = data(40, seed=5, spread=0.3)
    weight = np.random.default_rng(1).uniform(0.5, 2.0, 90)
    # names that come first, so that they would be dealt first
    groups = np.array([f"g{i // 2:03d}" for i in range(90)])
    make = {"outliers": outliers, "per_route": per_route, "router": LogisticRouter(l2=0.1)}
    one = RejectingRouter(**make).fit(x, y, groups, weight)
    two = RejectingRouter(**make).fit(
        np.concatenate([9.0 * more, x]),
        np.concatenate([of, y]),
        np.concatenate([[f"a{i:03d}" for i in range(40)], groups]),
        np.concatenate([np.zeros(40), weight]),
    )
    np.testing.assert_allclose(one.thresholds_, two.thresholds_, atol=2e-3)
    assert one.limit_ == pytest.approx(two.limit_, rel=1e-6)
    assert one.out_of_fold_["coverage"] == pytest.approx(two.out_of_fold_["coverage"], abs=0.03)
    np.testing.assert_allclose(one.distances(x), two.distances(x), rtol=1e-6)


def test_a_route_that_nobody_takes_has_the_common_threshold_or_is_closed():
    x, y = table()
    # the third route is never the most probable
    taken = x.argmax(axis=1) != 2
    x, y = x[taken], y[taken]
    by_route, common = (
        RejectingRouter(_Fixed(), level=0.5, per_route=p, outliers=None).fit(x, y).thresholds_ for p in (True, False)
    )
    assert by_route[2] == common[2] == np.sort(x.max(axis=1))[::-1][3]
    closed = RejectingRouter(_Fixed(), "accuracy", 0.8, per_route=True, outliers=None).fit(x, y)
    assert closed.thresholds_[2] == np.inf
    assert np.isfinite(closed.thresholds_[:2]).all()
    assert not closed.accept(np.array([[0.0, 0.0, 1.0]])).any()
