"""LogisticRouter against its own definition, and its calibration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from embedrm import EmbeddedPreferences, LogisticRouter
from embedrm.errors import InvalidInputError
from embedrm.numerics.folds import group_folds
from embedrm.persistence import load_model, save_model
from embedrm.routers import ROUTERS
from embedrm.routers.base import Router, prompt_examples

NAMES = np.array(["code", "math", "talk"])


def data(n=90, dim=4, n_domains=3, spread=1.2, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_domains, size=n)
    codes[:n_domains] = np.arange(n_domains)
    x = rng.normal(size=(n, dim)) + 3.0
    x[np.arange(n), codes] += spread
    return x, NAMES[codes], codes


def penalised(x, codes, l2, n_domains=3):
    """The minimum of the documented objective, found by another solver on standardised vectors."""
    z = (x - x.mean(axis=0)) / x.std(axis=0)

    def objective(v):
        w, b = v[: n_domains * x.shape[1]].reshape(n_domains, -1), v[n_domains * x.shape[1] :]
        return -log_softmax(z @ w.T + b, axis=1)[np.arange(len(x)), codes].mean() + 0.5 * l2 * (w**2).sum()

    v = minimize(objective, np.zeros(n_domains * (x.shape[1] + 1)), method="BFGS", options={"gtol": 1e-7}).x
    return z @ v[: n_domains * x.shape[1]].reshape(n_domains, -1).T + v[n_domains * x.shape[1] :]


@pytest.mark.parametrize("l2", [0.01, 1.0])
@pytest.mark.parametrize("n_domains", [2, 3])
def test_it_minimises_its_objective(l2, n_domains):
    x, y, codes = data(n_domains=n_domains)
    router = LogisticRouter(l2=l2, calibrate=False).fit(x, y)
    assert router.temperature_ == 1.0
    scores = penalised(x, codes, l2, n_domains)
    np.testing.assert_allclose(router.predict_proba(x), softmax(scores, axis=1), atol=2e-3)


def test_probabilities_sum_to_one_and_predict_takes_the_largest():
    x, y, _ = data()
    router = LogisticRouter(l2=0.01).fit(x, y)
    p = router.predict_proba(x)
    assert p.shape == (90, 3)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-12)
    assert (p > 0).all()
    assert router.classes_.tolist() == sorted(NAMES)
    np.testing.assert_array_equal(router.predict(x), router.classes_[p.argmax(axis=1)])
    assert router.score(x, y) == (router.predict(x) == y).mean()
    assert router.accept(x).all()
    assert router.accept(x).shape == (90,)


def test_equal_probabilities_go_to_the_first_by_name():
    router = LogisticRouter(l2=0.01).fit(*data()[:2])
    router.coef_, router.intercept_ = np.zeros_like(router.coef_), np.zeros(3)
    assert router.predict(np.ones((1, 4))).tolist() == ["code"]


def test_temperature_makes_overconfident_scores_honest():
    rng = np.random.default_rng(1)
    # few prompts, many columns, hardly any signal: the scores overfit
    x, y = rng.normal(size=(60, 40)), NAMES[np.arange(60) % 3]
    raw, calibrated = (LogisticRouter(l2=1e-4, calibrate=c).fit(x, y) for c in (False, True))
    assert calibrated.temperature_ > 2.0
    fresh = rng.normal(size=(300, 40))
    true = rng.integers(0, 3, size=300)

    def loss(router):
        return -np.log(router.predict_proba(fresh)[np.arange(300), true]).mean()

    assert loss(calibrated) < loss(raw)
    np.testing.assert_array_equal(calibrated.predict(fresh), raw.predict(fresh))


def test_out_of_fold_facts_are_those_of_fits_by_hand(monkeypatch):
    # folds are solved together, on other paths than each alone
    monkeypatch.setattr("embedrm.routers.logistic._TOL", 1e-9)
    x, y, codes = data()
    groups = np.arange(90) // 3
    router = LogisticRouter(l2=0.05, cv=3).fit(x, y, groups)
    p = np.zeros((90, 3))
    for train, test in group_folds(groups, 3):
        part = LogisticRouter(l2=0.05, calibrate=False).fit(x[train], y[train])
        p[test] = softmax(np.log(part.predict_proba(x[test])) / router.temperature_, axis=1)
    assert router.out_of_fold_["log_loss"] == pytest.approx(-np.log(p[np.arange(90), codes]).mean(), rel=1e-5)
    assert router.out_of_fold_["accuracy"] == (p.argmax(axis=1) == codes).mean()


def test_groups_keep_folds_honest():
    # every prompt comes twice under one group; a fold that split them would make memory look like knowledge
    rng = np.random.default_rng(2)
    x, y = np.repeat(rng.normal(size=(30, 25)), 2, axis=0), np.repeat(NAMES[rng.integers(0, 3, size=30)], 2)
    honest, leaky = (LogisticRouter(l2=1e-3).fit(x, y, g).out_of_fold_["accuracy"] for g in (np.arange(60) // 2, None))
    assert leaky > honest + 0.2


@pytest.mark.parametrize("tol, rel", [(1e-9, 1e-5), (3e-4, 1e-3)])
def test_cv_chooses_the_penalty_of_least_out_of_fold_loss(monkeypatch, tol, rel):
    monkeypatch.setattr("embedrm.routers.logistic._FOLD_TOL", tol)
    monkeypatch.setattr("embedrm.routers.logistic._TOL", min(tol, 3e-5))
    x, y, _ = data()
    grid = (1e-3, 1e-1, 10.0)
    router = LogisticRouter(l2="cv", l2_grid=grid).fit(x, y)
    losses = {l2: LogisticRouter(l2=l2).fit(x, y).out_of_fold_["log_loss"] for l2 in grid}
    assert router.l2_ == min(losses, key=losses.get)
    assert router.out_of_fold_["log_loss"] == pytest.approx(min(losses.values()), rel=rel)


def test_the_order_of_prompts_does_not_matter():
    x, y, _ = data()
    groups = np.array([f"g{i // 2}" for i in range(90)])
    order = np.random.default_rng(3).permutation(90)
    a, b = LogisticRouter().fit(x, y, groups), LogisticRouter().fit(x[order], y[order], groups[order])
    np.testing.assert_allclose(a.predict_proba(x), b.predict_proba(x), atol=1e-4)


def test_shift_and_scale_of_a_column_do_not_matter():
    x, y, _ = data()
    factor, shift = np.array([1.0, 1e3, 1e-3, 7.0]), np.array([0.0, -50.0, 2.0, 1e3])
    a, b = (LogisticRouter(l2=0.01, calibrate=False).fit(z, y).predict_proba(z) for z in (x, x * factor + shift))
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_column_changes_nothing(value, dtype):
    x, y, _ = data()
    more = np.column_stack([x, np.full(90, value)]).astype(dtype)
    a = LogisticRouter(l2=0.01).fit(x.astype(dtype), y).predict_proba(x.astype(dtype))
    router = LogisticRouter(l2=0.01).fit(more, y)
    np.testing.assert_allclose(router.predict_proba(more), a, atol=1e-4)
    # nor does a prompt that differs there get thrown across the room
    elsewhere = more.copy()
    elsewhere[:, -1] += 1e-3
    np.testing.assert_allclose(router.predict_proba(elsewhere), a, atol=1e-2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_narrow_vectors(dtype):
    x, y, _ = data()
    x = x.astype(dtype)
    wide = LogisticRouter(l2=0.01).fit(x.astype(np.float64), y)
    np.testing.assert_allclose(LogisticRouter(l2=0.01).fit(x, y).predict_proba(x), wide.predict_proba(x), atol=1e-4)


def test_one_domain_is_certain():
    router = LogisticRouter().fit(np.ones((3, 2)), ["only"] * 3)
    np.testing.assert_array_equal(router.predict_proba(np.zeros((2, 2))), np.ones((2, 1)))
    assert router.predict(np.zeros((2, 2))).tolist() == ["only", "only"]


def test_a_fold_may_lack_a_domain():
    # domain talk has one group, so the fold that holds it out has never seen it
    x, y, _ = data(n=40, n_domains=2)
    y = y.astype(object)
    y[-1] = "talk"
    router = LogisticRouter(l2=0.01, cv=2).fit(x, y)
    assert router.classes_.tolist() == ["code", "math", "talk"]
    assert np.isfinite(router.predict_proba(x)).all()
    assert np.isfinite(router.out_of_fold_["log_loss"])


def test_saving_keeps_every_bit(tmp_path):
    x, y, _ = data()
    router = LogisticRouter().fit(x, y)
    loaded, _ = load_model(save_model(router, tmp_path / "router"))
    np.testing.assert_array_equal(loaded.predict_proba(x), router.predict_proba(x))
    np.testing.assert_array_equal(loaded.predict(x), router.predict(x))
    assert loaded.out_of_fold_ == router.out_of_fold_
    assert loaded.n_features_in_ == 4


class TestErrors:
    @pytest.mark.parametrize(
        "parameters, message",
        [
            ({"l2": 0.0}, "l2 to be a number > 0 or 'cv', got 0.0"),
            ({"l2": np.inf}, "l2 to be a number > 0 or 'cv', got inf"),
            ({"l2": "auto"}, "got 'auto'"),
            ({"l2_grid": ()}, r"l2_grid of numbers > 0, got \(\)"),
            ({"l2_grid": (0.1, 0.0)}, "l2_grid of numbers > 0"),
            ({"cv": 1}, "LogisticRouter needs at least 2 folds"),
        ],
    )
    def test_wrong_parameters_are_refused(self, parameters, message):
        with pytest.raises(InvalidInputError, match=message):
            LogisticRouter(**parameters).fit(*data()[:2])

    @pytest.mark.parametrize(
        "x, y, message",
        [
            (np.ones(3), ["a", "b", "a"], r"prompt vectors of shape \(n, dim\), got \(3,\)"),
            (np.ones((3, 2)), ["a", "b"], r"one domain for each of 3 prompts, got \(2,\)"),
            (np.full((2, 2), np.nan), ["a", "b"], "finite prompt vectors, got NaN or infinity"),
        ],
    )
    def test_wrong_arrays_are_refused(self, x, y, message):
        with pytest.raises(InvalidInputError, match=message):
            LogisticRouter().fit(x, y)

    def test_another_width_is_refused_word_for_word(self):
        router = LogisticRouter(l2=0.1).fit(*data()[:2])
        with pytest.raises(InvalidInputError) as caught:
            router.predict_proba(np.ones((1, 5)))
        assert str(caught.value) == (
            "LogisticRouter was fitted on 4 columns, got 5; use the encoder and layer it was trained with"
        )

    def test_unfitted_is_refused(self):
        with pytest.raises(NotFittedError):
            LogisticRouter().predict_proba(np.ones((1, 2)))


@pytest.mark.parametrize("name", ROUTERS.names())
class TestEveryRouter:
    """Laws of any registered router."""

    @pytest.fixture(autouse=True)
    def _extra(self, name):
        if name == "sklearn":
            pytest.importorskip("skops", reason="needs pip install 'embedrm[skops]'")

    def test_probabilities(self, name):
        x, y, _ = data()
        router = clone(ROUTERS.get(name)())
        assert router.fit(x, y, np.arange(90)) is router
        p = router.predict_proba(x)
        assert type(p) is np.ndarray
        assert p.dtype == np.float64
        np.testing.assert_allclose(p.sum(axis=1), 1.0)
        assert router.classes_.tolist() == sorted(set(y.tolist()))
        assert router.score(x, y) > 0.5
        again = clone(router).fit(x, y, np.arange(90))
        np.testing.assert_array_equal(again.predict_proba(x), p)

    def test_a_prompt_alone_is_routed_as_among_others(self, name):
        x, y, _ = data()
        router = ROUTERS.get(name)().fit(x, y, np.arange(90))
        p = router.predict_proba(x)
        for i in (0, 41):
            np.testing.assert_allclose(router.predict_proba(x[i : i + 1])[0], p[i], rtol=1e-9)


class TestViews:
    VIEWS = ("response:3", "prompt:3", "prompt:final", "joint:3")

    @pytest.mark.parametrize(
        "view, expected",
        [
            (None, ["prompt:3", "prompt:final"]),
            ("3", ["prompt:3"]),
            ("prompt:final", ["prompt:final"]),
            ("final,3", ["prompt:final", "prompt:3"]),
        ],
    )
    def test_views_are_resolved(self, view, expected):
        assert LogisticRouter(view).resolve_views(self.VIEWS) == expected

    @pytest.mark.parametrize("view", ["response:3", "joint:3", "6"])
    def test_the_gate_sees_the_prompt_only(self, view):
        with pytest.raises(InvalidInputError):
            LogisticRouter(view).resolve_views(self.VIEWS)
        with pytest.raises(InvalidInputError, match="at least one prompt view"):
            LogisticRouter().resolve_views(("response:3",))


def test_prompts_of_pairs_come_once_each():
    prefs = EmbeddedPreferences.from_arrays(
        np.zeros((6, 1)),
        [[2, 3], [3, 2], [5, 4]],
        prompt=np.arange(6.0).reshape(3, 2),
        prompt_of=[0, 0, 2, 2, 1, 1],
        domain=["a", "b", "c"],
        group=["x", "y", "z"],
    )
    vectors, domains, groups = prompt_examples(prefs, ["prompt:final"], "me")
    np.testing.assert_array_equal(vectors, [[2, 3], [4, 5]])
    assert domains.tolist() == ["b", "c"]
    assert groups.tolist() == ["y", "z"]
    with pytest.raises(InvalidInputError, match="me needs at least one pair"):
        prompt_examples(prefs[:0], ["prompt:final"], "me")


def test_a_bare_router_says_what_it_lacks():
    with pytest.raises(TypeError, match="Router does not implement fit"):
        Router().fit(np.ones((2, 2)), ["a", "b"])
    with pytest.raises(TypeError, match="does not implement predict_proba"):
        Router().predict_proba(np.ones((2, 2)))


def test_folds_side_by_side_give_the_same_bits(monkeypatch):
    x, y, _ = data(n=200)
    made = []
    for n_threads in (1, 3):
        monkeypatch.setattr("embedrm.routers._calibrated.allowed_threads", lambda n=n_threads: n)
        router = LogisticRouter().fit(x, y)
        made.append((router, router.out_of_fold_proba(x, y)))
    (one, alone), (three, beside) = made
    assert one.out_of_fold_ == three.out_of_fold_
    assert (one.l2_, one.temperature_) == (three.l2_, three.temperature_)
    np.testing.assert_array_equal(one.coef_, three.coef_)
    np.testing.assert_array_equal(alone, beside)
