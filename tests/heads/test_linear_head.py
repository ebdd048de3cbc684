"""LinearHead against other implementations of the same optimum, and against its own definition."""

from __future__ import annotations

import choix
import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from embedrm import EmbeddedPreferences, Featurizer, LinearHead
from embedrm.errors import InvalidInputError
from embedrm.featurizers import linear_map
from embedrm.heads._linear_problem import Problem
from embedrm.numerics.bradley_terry import log_loss
from embedrm.numerics.folds import group_folds
from embedrm.objectives import Comparisons, make_objective
from embedrm.objectives.bradley_terry import BradleyTerry
from embedrm.objectives.bt_margin import BTMargin
from embedrm.objectives.bt_smoothed import BTSmoothed
from embedrm.objectives.hinge import Hinge
from embedrm.objectives.regression import Regression
from embedrm.preferences import pairs_from_gold

N_PROMPTS, K, DIM = 30, 4, 6


def data(seed=0, dtype=np.float64, weight=None, outcome=None, margin=None):
    """All pairs of four responses to each of 30 prompts, a sixth of the labels wrong."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N_PROMPTS * K, DIM))
    prompt_of = np.repeat(np.arange(N_PROMPTS), K)
    pairs, gap = pairs_from_gold(prompt_of, x @ rng.normal(size=DIM))
    pairs = np.where((rng.random(len(pairs)) < 1 / 6)[:, None], pairs[:, ::-1], pairs)
    columns = {"weight": rng.uniform(0.2, 3, len(pairs)), "outcome": rng.uniform(0.5, 1, len(pairs)), "margin": gap}
    wanted = {"weight": weight, "outcome": outcome, "margin": margin}
    return EmbeddedPreferences.from_arrays(
        x.astype(dtype),
        pairs,
        prompt=rng.normal(size=(N_PROMPTS, DIM)).astype(dtype),
        prompt_of=prompt_of,
        **{name: columns[name] if want else None for name, want in wanted.items()},
    )


RAW = Featurizer(scale="none")


def logistic_coefficients(differences, l2, weight, seed=3):
    """Scikit-learn's estimator on differences with random signs."""
    sign = np.where(np.random.default_rng(seed).random(len(differences)) < 0.5, -1.0, 1.0)
    model = LogisticRegression(
        C=1.0 / (l2 * weight.sum()), fit_intercept=False, tol=1e-12, max_iter=10_000, solver="newton-cholesky"
    )
    return model.fit(differences * sign[:, None], sign, sample_weight=weight).coef_[0]


class TestAgainstLogisticRegression:
    @pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
    @pytest.mark.parametrize("l2", [1e-4, 1e-2, 1.0])
    @pytest.mark.parametrize(
        "featurizer",
        [RAW, None, Featurizer(("r", "p*r"), scale="none"), Featurizer(("r", "p*r", "abs(p-r)"), scale="standard")],
        ids=["r", "r scaled", "products", "all terms scaled"],
    )
    def test_coefficients_agree(self, l2, weighted, featurizer):
        prefs = data(weight=weighted)
        head = LinearHead(featurizer, l2=l2, tol=1e-12).fit(prefs)
        phi = head.featurizer_.transform(prefs.responses)
        expected = logistic_coefficients(phi[prefs.pairs[:, 0]] - phi[prefs.pairs[:, 1]], l2, prefs.weight)
        # relative to the norm: a coefficient near zero has no relative accuracy in either
        assert np.linalg.norm(head.coef_ - expected) <= 1e-6 * np.linalg.norm(expected)
        assert head.n_features_in_ == len(expected)

    def test_coefficients_agree_when_rows_are_streamed(self, monkeypatch):
        monkeypatch.setattr(linear_map, "GATHER_LIMIT_BYTES", 0)
        monkeypatch.setattr(linear_map, "BLOCK_ROWS", 7)
        prefs = data()[20:120]
        x = prefs.responses.views["response:final"]
        expected = logistic_coefficients(x[prefs.pairs[:, 0]] - x[prefs.pairs[:, 1]], 0.01, prefs.weight)
        coef = LinearHead(RAW, tol=1e-12).fit(prefs).coef_
        assert np.linalg.norm(coef - expected) <= 1e-6 * np.linalg.norm(expected)

    @pytest.mark.parametrize("dtype", [np.float32, np.float16])
    def test_narrow_vectors_agree_to_their_precision(self, dtype):
        prefs = data(dtype=dtype)
        x = prefs.responses.views["response:final"].astype(np.float64)
        expected = logistic_coefficients(x[prefs.pairs[:, 0]] - x[prefs.pairs[:, 1]], 0.01, prefs.weight)
        np.testing.assert_allclose(LinearHead(RAW).fit(prefs).coef_, expected, rtol=2e-3, atol=2e-3)


def test_one_hot_items_are_choix():
    """Choix adds alpha * sum(theta^2) to the SUM of the losses, so l2 = 2 * alpha / n_pairs."""
    rng = np.random.default_rng(1)
    strength = rng.normal(size=9)
    comparisons = []
    for _ in range(150):
        i, j = rng.choice(9, size=2, replace=False)
        comparisons.append((i, j) if rng.random() < 1 / (1 + np.exp(strength[j] - strength[i])) else (j, i))
    for alpha in (1e-2, 1.0):
        expected = choix.opt_pairwise(9, comparisons, alpha=alpha, method="Newton-CG", tol=1e-12)
        prefs = EmbeddedPreferences.from_arrays(np.eye(9), comparisons)
        head = LinearHead(RAW, l2=2 * alpha / len(comparisons), tol=1e-15).fit(prefs)
        np.testing.assert_allclose(head.coef_, expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(head.predict(prefs), expected, rtol=1e-6, atol=1e-7)


SETTINGS = {
    "plain": {},
    "products": {"featurizer": Featurizer(("r", "p*r"), scale="rms")},
    "margin": {"objective": BTMargin(scale=0.7)},
    "smoothing": {"objective": BTSmoothed(0.15)},
    "centring": {"objective": BradleyTerry(centring=0.2)},
    "all": {"objective": BTMargin(flip_rate=0.1, centring=0.05)},
}


class TestObjective:
    @pytest.mark.parametrize("name", SETTINGS)
    def test_gradient_equals_finite_differences(self, name):
        prefs = data(weight=True, outcome=True, margin=True)
        head = LinearHead(**SETTINGS[name])
        problem = Problem(head, make_objective(head.objective), head._new_featurizer().fit(prefs), prefs)
        theta = np.random.default_rng(2).normal(size=problem.map.dim)
        _, gradient = problem.value_and_gradient(theta, 0.3)
        numeric = approx_fprime(theta, lambda w: problem.value_and_gradient(w, 0.3)[0], 1e-7)
        np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-6)

    def test_value_by_definition(self):
        prefs = data(weight=True, outcome=True, margin=True)
        head = LinearHead(RAW, objective=BTMargin(scale=0.5, flip_rate=0.1, centring=0.05))
        problem = Problem(head, make_objective(head.objective), head._new_featurizer().fit(prefs), prefs)
        theta = np.random.default_rng(2).normal(size=DIM)
        r = prefs.responses.views["response:final"] @ theta
        a, b = r[prefs.pairs[:, 0]], r[prefs.pairs[:, 1]]
        q = 0.9 * prefs.outcome + 0.1 * (1 - prefs.outcome)
        terms = log_loss(a - b - 0.5 * prefs.margin, q) + 0.05 * (a + b) ** 2
        expected = prefs.weight @ terms / prefs.weight.sum() + 0.5 * 0.3 * theta @ theta
        assert problem.value_and_gradient(theta, 0.3)[0] == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("name", SETTINGS)
    def test_the_gradient_vanishes_at_the_optimum(self, name):
        prefs = data(weight=True, outcome=True, margin=True)
        head = LinearHead(tol=1e-16, **SETTINGS[name]).fit(prefs)
        value, gradient = Problem(head, make_objective(head.objective), head.featurizer_, prefs).value_and_gradient(
            head.coef_, head.l2_
        )
        assert np.linalg.norm(gradient) < 1e-7
        assert value == pytest.approx(head.objective_, rel=1e-12)

    def test_a_missing_margin_counts_as_none(self):
        prefs = data(margin=True)
        half = np.where(np.arange(len(prefs)) % 2, prefs.margin, np.nan)
        options = {"objective": "bt-margin", "tol": 1e-13}

        def fit(margin):
            return LinearHead(**options).fit(EmbeddedPreferences(prefs.responses, prefs.pairs, margin=margin)).coef_

        np.testing.assert_allclose(fit(half), fit(np.nan_to_num(half)), rtol=1e-6)
        np.testing.assert_allclose(fit(None), LinearHead(tol=1e-13).fit(prefs).coef_, rtol=1e-6)
        assert np.abs(fit(prefs.margin) - fit(None)).max() > 0.05

    def test_a_margin_asks_for_larger_gaps_and_smoothing_for_smaller(self):
        prefs = data(margin=True)
        plain, wide, smooth = (
            np.abs(LinearHead(**options).fit(prefs).margins(prefs)).mean()
            for options in ({}, {"objective": "bt-margin"}, {"objective": BTSmoothed(0.2)})
        )
        assert smooth < plain < wide

    def test_centring_takes_the_free_constant_away(self):
        x = np.random.default_rng(5).normal(size=(60, DIM)) + 3.0
        prefs = EmbeddedPreferences.from_arrays(x, np.arange(60).reshape(-1, 2))
        free, pinned = (
            LinearHead(RAW, objective=BradleyTerry(centring=c)).fit(prefs).predict(prefs) for c in (0.0, 0.5)
        )
        assert abs(pinned.mean()) < 0.1 * abs(free.mean())

    def test_ties_pull_rewards_together(self):
        x = np.array([[1.0, 0.0], [0.0, 1.0]])

        def margin(weight_of_tie):
            prefs = EmbeddedPreferences.from_arrays(
                x, [[0, 1], [0, 1]], weight=[1.0, weight_of_tie], outcome=[1.0, 0.5]
            )
            return LinearHead(l2=1e-3, tol=1e-14).fit(prefs).margins(prefs)[0]

        assert 0.0 < margin(2.0) < 0.5 * margin(0.0)
        assert margin(1e6) == pytest.approx(0.0, abs=1e-3)

    def test_an_unpenalised_optimum_matches_the_vote_shares(self):
        prefs = EmbeddedPreferences.from_arrays(np.eye(2), [[0, 1]], outcome=[0.8])
        margin = LinearHead(l2=1e-12, tol=1e-15).fit(prefs).margins(prefs)
        assert margin[0] == pytest.approx(np.log(0.8 / 0.2), rel=1e-5)


class TestChoosingL2:
    def test_the_choice_is_the_least_held_out_loss_of_the_grid(self):
        prefs = data(weight=True)
        head = LinearHead(l2="cv", l2_grid=(1e-3, 0.1, 10.0), cv=3, tol=1e-12).fit(prefs)
        table = {row["l2"]: row for row in head.cv_results_}
        assert set(table) == {1e-3, 0.1, 10.0}
        assert head.l2_ == min(table, key=lambda v: table[v]["log_loss"])
        np.testing.assert_allclose(head.coef_, LinearHead(l2=head.l2_, tol=1e-12).fit(prefs).coef_, rtol=1e-6)
        assert all(0.5 < row["accuracy"] <= 1 for row in table.values())

    def test_held_out_loss_is_that_of_fits_by_hand(self):
        from embedrm.numerics.folds import group_folds

        prefs = data(weight=True, outcome=True)
        head = LinearHead(l2="cv", l2_grid=(0.05,), cv=4, tol=1e-12).fit(prefs)
        loss = 0.0
        for train, test in group_folds(prefs.groups, 4, weight=prefs.weight):
            part = LinearHead(l2=0.05, tol=1e-12).fit(prefs[train])
            loss += prefs.weight[test] @ log_loss(part.margins(prefs[test]), prefs.outcome[test])
        assert head.cv_results_[0]["log_loss"] == pytest.approx(loss / prefs.weight.sum(), rel=1e-3)

    def test_noise_asks_for_a_large_penalty_and_signal_for_a_small_one(self):
        rng = np.random.default_rng(4)
        x = rng.normal(size=(200, 20))
        noise = EmbeddedPreferences.from_arrays(x, np.arange(200).reshape(-1, 2))
        clean = np.where((x[::2, 0] < x[1::2, 0])[:, None], noise.pairs[:, ::-1], noise.pairs)
        signal = EmbeddedPreferences(noise.responses, clean)
        assert LinearHead(l2="cv").fit(noise).l2_ > LinearHead(l2="cv").fit(signal).l2_

    def test_one_group_cannot_be_held_out(self):
        prefs = EmbeddedPreferences.from_arrays(np.eye(3), [[0, 1], [1, 2]])
        with pytest.raises(
            InvalidInputError, match=r"^LinearHead\(l2='cv'\) needs at least 2 folds and 2 prompt groups"
        ):
            LinearHead(l2="cv").fit(prefs)


class TestErrors:
    @pytest.mark.parametrize(
        "parameters, message",
        [
            ({"l2": -1.0}, "l2 to be a number >= 0 or 'cv', got -1.0"),
            ({"l2": "auto"}, "l2 to be a number >= 0 or 'cv', got 'auto'"),
            ({"l2": np.nan}, "l2 to be a number >= 0 or 'cv', got nan"),
            ({"l2": "cv", "l2_grid": ()}, "l2_grid of numbers >= 0"),
            ({"l2": "cv", "l2_grid": (0.1, -1)}, "l2_grid of numbers >= 0"),
            ({"objective": BTSmoothed(0.5)}, r"flip_rate in \[0, 0.5\), got 0.5"),
            ({"objective": BradleyTerry(centring=-0.1)}, "centring >= 0, got -0.1"),
            ({"objective": BradleyTerry(centring=np.nan)}, "centring >= 0, got nan"),
            ({"objective": "hinges"}, "unknown objective 'hinges'.*hinge"),
        ],
    )
    def test_wrong_parameters_are_refused(self, parameters, message):
        with pytest.raises(InvalidInputError, match=message):
            LinearHead(**parameters).fit(data())

    @pytest.mark.parametrize("l2", [0.1, "cv"])
    def test_weights_that_are_all_zero_are_refused(self, l2):
        prefs = data()
        zero = EmbeddedPreferences(prefs.responses, prefs.pairs, weight=np.zeros(len(prefs)))
        with pytest.raises(InvalidInputError, match="pairs with positive weight, got only zeros"):
            LinearHead(l2=l2).fit(zero)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("l2", [0.1, "cv"])
    def test_a_bad_vector_anywhere_among_many_pairs_is_found_and_counted(self, bad, l2):
        # the solver's metric looks at a sample of the pairs; what it skips must be found all the same
        n = 3000
        x = np.random.default_rng(6).normal(size=(2 * n, 2))
        for pair in (1, 2, 3, 1501, 2999):
            spoilt = x.copy()
            spoilt[2 * pair, 1] = bad
            prefs = EmbeddedPreferences.from_arrays(spoilt, np.arange(2 * n).reshape(-1, 2))
            with (
                np.errstate(invalid="ignore"),
                pytest.raises(InvalidInputError, match=r"finite (vectors|reward).* 1 of \d+ (rows|responses)"),
            ):
                LinearHead(l2=l2).fit(prefs)

    def test_another_width_is_refused_word_for_word(self):
        head = LinearHead().fit(data())
        with pytest.raises(InvalidInputError) as caught:
            head.predict(np.ones((3, DIM + 1)))
        assert str(caught.value) == (
            "LinearHead was fitted on view 'response:final' with 6 columns, got 7; encode with the encoder and layers it "
            "was trained with"
        )

    def test_it_says_when_it_stopped_early(self):
        with pytest.warns(ConvergenceWarning, match=r"^LinearHead stopped with an objective gap"):
            LinearHead(l2=1e-6, tol=1e-13, max_iter=1).fit(data())


class TestPredict:
    def test_a_bare_matrix_and_no_rows(self):
        prefs = data()
        head = LinearHead(RAW).fit(prefs)
        x = np.random.default_rng(7).normal(size=(5, DIM))
        np.testing.assert_allclose(head.predict(x), x @ head.coef_, rtol=1e-12)
        np.testing.assert_allclose(head.predict(x.tolist()), x @ head.coef_, rtol=1e-12)
        assert head.predict(np.empty((0, DIM))).shape == (0,)
        with pytest.raises(InvalidInputError, match=r"LinearHead.predict expects shape \(n, dim\), got \(6,\)"):
            head.predict(x[0])

    def test_products_need_prompts(self):
        prefs = data()
        head = LinearHead(Featurizer(("r", "p*r"))).fit(prefs)
        assert head.required_views() == ("prompt:final", "response:final")
        with pytest.raises(InvalidInputError, match="needs prompts or several views, so a bare array is not enough"):
            head.predict(np.ones((2, DIM)))

    def test_all_pairs_of_k_responses_are_one_structure_with_plain_pairs(self):
        rng = np.random.default_rng(8)
        x, gold = rng.normal(size=(20, 5, 3)), rng.normal(size=(20, 5))
        k_wise = EmbeddedPreferences.from_arrays(x, rewards=gold)
        flat = x.reshape(-1, 3)
        # the same comparisons as chosen and rejected rows of their own
        copied = np.concatenate([flat[k_wise.pairs[:, 0]], flat[k_wise.pairs[:, 1]]])
        n = len(k_wise)
        plain = EmbeddedPreferences.from_arrays(copied, np.stack([np.arange(n), np.arange(n) + n], axis=1))
        a, b = (LinearHead(tol=1e-13).fit(p).coef_ for p in (k_wise, plain))
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("objective", [Regression(scale=40.0), Hinge(), BTMargin(scale=3.0)])
def test_cv_judges_by_the_objective_where_margins_are_no_logits(objective):
    """By log loss, margins of this size look over-confident and the penalty comes out far too strong."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 3, DIM))
    gold = x @ rng.normal(size=DIM)
    prefs = EmbeddedPreferences.from_arrays(x, rewards=gold + 0.1 * rng.normal(size=gold.shape))
    grid = (1e-3, 1e-1, 10.0)
    head = LinearHead(RAW, l2="cv", l2_grid=grid, objective=objective, cv=3).fit(prefs)
    by_hand = []
    for l2 in grid:
        total = 0.0
        for inside, outside in group_folds(prefs.groups, 3):
            part = prefs[outside]
            rewards = LinearHead(RAW, l2=l2, objective=objective).fit(prefs[inside]).predict(prefs)
            total += len(part) * objective.loss(Comparisons.of(part)).evaluate(rewards[part.active]).value
        by_hand.append(total / len(prefs))
    assert head.l2_ == grid[int(np.argmin(by_hand))]
    found = {row["l2"]: row["loss"] for row in head.cv_results_}
    np.testing.assert_allclose([found[l2] for l2 in grid], by_hand, rtol=1e-3)


def test_folds_fit_features_and_weights_on_their_own_training_pairs_alone():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(24, 3)) * np.exp(rng.normal(size=(24, 1)))
    pairs = np.arange(24).reshape(12, 2)
    prefs = EmbeddedPreferences.from_arrays(x, pairs, weight=rng.uniform(0.5, 2.0, 12))
    head = LinearHead(l2="cv", l2_grid=(0.03, 0.3), cv=3).fit(prefs)
    for row in head.cv_results_:
        total = 0.0
        for train, held_out in group_folds(prefs.groups, 3, weight=prefs.weight):
            margins = LinearHead(l2=row["l2"]).fit(prefs[train]).margins(prefs[held_out])
            total += float(prefs.weight[held_out] @ np.logaddexp(0.0, -margins))
        assert row["log_loss"] == pytest.approx(total / prefs.weight.sum(), rel=1e-4)
