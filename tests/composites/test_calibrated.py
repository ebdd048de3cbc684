"""Calibrated models: scales by maximum likelihood, isotonic regression that knows both orders of a pair."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.base import clone
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from embedrm import CalibratedRewardModel, EmbeddedPreferences, EmbeddedResponses, LengthHead, LinearHead, RandomHead
from embedrm.checks import example_preferences
from embedrm.checks.data import with_pairs
from embedrm.composites._held_out import out_of_fold_margins
from embedrm.composites.calibrated import METHODS
from embedrm.composites.ensemble import EnsembleRewardModel
from embedrm.errors import InvalidInputError
from embedrm.numerics.bradley_terry import log_loss
from embedrm.numerics.calibration import LOG_SCALE_BOUNDS, fit_margin_scale, platt_targets
from embedrm.numerics.folds import group_folds
from embedrm.numerics.isotonic import fit_isotonic, isotonic_probability
from embedrm.numerics.reliability import expected_calibration_error
from embedrm.persistence import load_model, save_model


class Stated(LengthHead):
    """Rewards that are stated in a covariate, whatever was learned: what a calibration must mend is then known."""

    def __init__(self, covariate="characters"):
        super().__init__(covariate)


def stated(n=4000, shape=lambda m: m, seed=0, **columns):
    """Pairs with margins m as covariates, won with probability sigma(shape(m)); the prompt is the group."""
    rng = np.random.default_rng(seed)
    m = rng.normal(size=n) * 1.5
    won = rng.random(n) < expit(shape(m))
    pairs = np.arange(2 * n).reshape(n, 2)
    responses = EmbeddedResponses(
        {"response:final": np.zeros((2 * n, 1))},
        np.repeat(np.arange(n), 2),
        covariates={"characters": np.stack([m, np.zeros(n)], axis=1).ravel()},
        **columns,
    )
    return EmbeddedPreferences(responses, np.where(won[:, None], pairs, pairs[:, ::-1]))


def halves(prefs):
    return prefs[::2], prefs[1::2]


class TestScale:
    @pytest.mark.parametrize("method", ["platt", "temperature"])
    @pytest.mark.parametrize("true_scale", [0.25, 1.0, 5.0])
    def test_a_known_scale_is_found(self, method, true_scale):
        prefs = stated(6000, lambda m: true_scale * m)
        model = CalibratedRewardModel(Stated(), method).fit(prefs)
        assert model.scale_ == pytest.approx(true_scale, rel=0.1)
        np.testing.assert_array_equal(model.predict_proba(prefs), expit(model.margins(prefs)))

    def test_temperature_is_scikit_learns_logistic_regression_without_intercept(self):
        prefs = stated(800)
        margins = Stated().fit(prefs).margins(prefs)
        flip = np.random.default_rng(1).random(800) < 0.5
        reference = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10)
        reference.fit(np.where(flip, -margins, margins)[:, None], ~flip)
        model = CalibratedRewardModel(Stated(), "temperature").fit(prefs)
        assert model.scale_ == pytest.approx(reference.coef_[0, 0], rel=1e-4)

    def test_platts_targets_are_scikit_learns_on_weighted_rows(self):
        prefs = stated(300)
        margins, n = Stated().fit(prefs).margins(prefs), 300
        t = (n + 1) / (n + 2)
        reference = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10)
        reference.fit(np.tile(margins, 2)[:, None], np.repeat([1, 0], n), np.repeat([t, 1 - t], n))
        assert CalibratedRewardModel(Stated()).fit(prefs).scale_ == pytest.approx(reference.coef_[0, 0], rel=1e-4)

    def test_platt_is_finite_where_temperature_runs_to_its_bound(self):
        prefs = stated(40, lambda m: 1e6 * m)
        platt, plain = (CalibratedRewardModel(Stated(), method).fit(prefs).scale_ for method in METHODS[:2])
        assert plain == pytest.approx(np.exp(LOG_SCALE_BOUNDS[1]), rel=0.01)
        assert platt < 100

    def test_an_intercept_would_depend_on_which_response_comes_first(self):
        # what the docstring says of Platt's b: it breaks p(-m) = 1 - p(m), and runs away where the chosen comes first
        m = np.array([0.5, -0.2, 1.0])
        for b in (0.3, -2.0):
            assert not np.allclose(expit(m + b) + expit(-m + b), 1.0)
        losses = [log_loss(m + b, 1.0).mean() for b in (0, 2, 8, 32)]
        assert np.all(np.diff(losses) < 0)

    def test_out_of_fold_by_hand(self):
        prefs, _ = example_preferences()
        prefs = with_pairs(prefs, outcome=np.random.default_rng(2).choice([0.5, 0.75, 1.0], len(prefs)))
        model = CalibratedRewardModel(LinearHead(l2=0.01), cv=4).fit(prefs)
        margins = np.full(len(prefs), np.nan)
        for train, held_out in group_folds(prefs.groups, 4):
            assert not set(prefs.groups[train]) & set(prefs.groups[held_out])
            margins[held_out] = LinearHead(l2=0.01).fit(prefs[train]).margins(prefs[held_out])
        n = len(np.unique(prefs.groups))
        target = (n * prefs.outcome + 1) / (n + 2)
        best = minimize_scalar(lambda a: log_loss(a * margins, target).mean(), bounds=(0.01, 20), method="bounded")
        assert model.scale_ == pytest.approx(best.x, rel=1e-3)
        assert model.n_groups_ == n
        whole = LinearHead(l2=0.01).fit(prefs)
        np.testing.assert_allclose(model.predict(prefs), model.scale_ * whole.predict(prefs), rtol=1e-12)

    def test_an_overconfident_model_is_mended_on_other_prompts(self):
        train, test = halves(stated(40_000, lambda m: 0.2 * m))
        raw = Stated().fit(train)
        assert expected_calibration_error(raw.margins(test)) > 0.15
        for method in METHODS:
            p = CalibratedRewardModel(Stated(), method).fit(train).predict_proba(test)
            assert expected_calibration_error(np.log(p / (1 - p))) < 0.025

    def test_a_penalty_chosen_by_folds_is_not_chosen_again(self):
        prefs, _ = example_preferences()
        model = CalibratedRewardModel(LinearHead(l2="cv", l2_grid=(1e-3, 1e-1))).fit(prefs)
        fixed = CalibratedRewardModel(LinearHead(l2=model.model_.l2_)).fit(prefs)
        assert model.scale_ == pytest.approx(fixed.scale_, rel=1e-4)
        assert model.model_.l2 == "cv"
        model.model_.l2_ = 7.0
        np.testing.assert_array_equal(
            out_of_fold_margins(model.model_, prefs, 3, "a test"),
            out_of_fold_margins(LinearHead(l2=7.0).fit(prefs), prefs, 3, "a test"),
        )


class TestIsotonic:
    def fitted(self, n=60, seed=3):
        rng = np.random.default_rng(seed)
        m = np.round(rng.normal(size=n) * 2, 1)
        q, w = rng.choice([0.5, 0.8, 1.0, 0.3, 0.0], n), rng.choice([0.0, 1.0, 2.5], n)
        # equal rewards, whose labels can say nothing
        m[:4], q[:4], w[:4] = 0.0, [0.0, 0.0, 0.0, 1.0], 9.0
        return m, q, w

    def test_it_is_pav_on_margins_and_mirrored_margins(self):
        m, q, w = self.fitted()
        sizes, p = fit_isotonic(m, q, w, n_independent=50)
        target = platt_targets(q, 50)
        mirrored = IsotonicRegression(out_of_bounds="clip")
        mirrored.fit(np.concatenate([m, -m]), np.concatenate([target, 1 - target]), np.tile(w, 2))
        at = np.concatenate([m, -m, np.linspace(-9, 9, 301)])
        np.testing.assert_allclose(isotonic_probability(at, sizes, p), mirrored.predict(at), atol=1e-12)

    def test_it_is_antisymmetric_to_the_bit_and_rises(self):
        sizes, p = fit_isotonic(*self.fitted(400, 4))
        at = np.sort(np.random.default_rng(5).normal(size=999) * 3)
        one, other = isotonic_probability(at, sizes, p), isotonic_probability(-at, sizes, p)
        np.testing.assert_array_equal(other, 1.0 - one)
        np.testing.assert_array_equal(one, 1.0 - other)
        assert (np.diff(one) >= 0).all()
        assert isotonic_probability(np.zeros(1), sizes, p)[0] == 0.5

    def test_by_hand(self):
        # sizes 1, 2, 3 with shares 1, 0 and 1: the middle violates and is pooled with the first; n is so large that
        # Platt's targets are the shares
        sizes, p = fit_isotonic(np.array([1.0, -2.0, 3.0]), n_independent=10**12)
        at = np.array([1.0, 2.0, 2.5, 3.0, 8.0, -2.0, 0.5])
        np.testing.assert_allclose(isotonic_probability(at, sizes, p), [0.5, 0.5, 0.75, 1, 1, 0.5, 0.5], atol=1e-9)

    def test_swapping_a_pair_teaches_the_same(self):
        m, q, w = self.fitted()
        flip = np.arange(len(m)) % 2 == 0
        one = fit_isotonic(m, q, w)
        other = fit_isotonic(np.where(flip, -m, m), np.where(flip, 1 - q, q), w)
        for a, b in zip(one, other):
            np.testing.assert_allclose(a, b, atol=1e-12)

    def test_nothing_to_learn_from_is_a_coin(self):
        for margins in (np.zeros(4), -np.arange(1.0, 30.0)):
            p = isotonic_probability(np.array([-5.0, 0.0, 2.0]), *fit_isotonic(margins))
            np.testing.assert_array_equal(p, 0.5)

    def test_no_probability_is_certain(self):
        prefs = stated(200, lambda m: 1e6 * m)
        p = CalibratedRewardModel(Stated(), "isotonic").fit(prefs).predict_proba(prefs)
        assert p.max() == pytest.approx(201 / 202)

    def test_it_mends_a_shape_that_no_scale_mends(self):
        # sure where margins are small, and no surer where they are large
        train, test = halves(stated(6000, lambda m: 1.2 * np.sign(m)))
        losses = {}
        for method in METHODS:
            p = CalibratedRewardModel(Stated(), method).fit(train).predict_proba(test)
            losses[method] = -np.log(p).mean()
        bayes = -expit(1.2) * np.log(expit(1.2)) - expit(-1.2) * np.log(expit(-1.2))
        assert losses["isotonic"] == pytest.approx(bayes, abs=0.02)
        assert min(losses["platt"], losses["temperature"]) > losses["isotonic"] + 0.01

    def test_rewards_are_left_as_they_are(self):
        prefs, _ = example_preferences()
        model = CalibratedRewardModel(LinearHead(), "isotonic").fit(prefs)
        np.testing.assert_array_equal(model.predict(prefs), LinearHead().fit(prefs).predict(prefs))
        assert not model.margins_are_logits
        assert CalibratedRewardModel().margins_are_logits


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_the_order_of_rewards_and_the_score_are_the_models_own(self, method):
        prefs, _ = example_preferences()
        model, raw = CalibratedRewardModel(LinearHead(), method).fit(prefs), LinearHead().fit(prefs)
        np.testing.assert_array_equal(np.argsort(model.predict(prefs)), np.argsort(raw.predict(prefs)))
        assert model.score(prefs) == raw.score(prefs)

    def test_probabilities_of_a_pair_and_its_swap_sum_to_one(self, method):
        prefs, _ = example_preferences()
        model = CalibratedRewardModel(LinearHead(), method).fit(prefs)
        p = model.predict_proba(prefs)
        assert p.shape == (len(prefs),)
        np.testing.assert_allclose(p + model.predict_proba(prefs.swapped()), 1.0, rtol=1e-12)
        np.testing.assert_array_equal(p > 0.5, (p != 0.5) & (model.margins(prefs) > 0))

    def test_saving_keeps_probabilities_to_the_bit(self, method, tmp_path):
        prefs, _ = example_preferences()
        model = CalibratedRewardModel(LinearHead(), method).fit(prefs)
        loaded, _ = load_model(save_model(model, tmp_path / "m"))
        np.testing.assert_array_equal(loaded.predict_proba(prefs), model.predict_proba(prefs))

    def test_a_split_is_kept_from_the_model(self, method):
        prefs = stated(600, split=np.where(np.arange(600) % 3 == 0, "validation", "train"))
        model = CalibratedRewardModel(LengthHead(), method, split="validation").fit(prefs)
        by_hand = CalibratedRewardModel(LengthHead(), method)
        by_hand.model_ = LengthHead().fit(prefs.in_split("train"))
        by_hand.calibrate(prefs.in_split("validation"))
        np.testing.assert_array_equal(model.predict_proba(prefs), by_hand.predict_proba(prefs))
        assert model.n_groups_ == 200

    def test_weight_two_is_the_pair_twice(self, method):
        prefs = stated(200, lambda m: 0.5 * m)
        times = np.random.default_rng(6).integers(1, 4, size=200)
        repeated = prefs[np.repeat(np.arange(200), times)]
        one = CalibratedRewardModel(Stated(), method).fit(prefs.weighted(times)).predict_proba(prefs)
        other = CalibratedRewardModel(Stated(), method).fit(repeated).predict_proba(prefs)
        np.testing.assert_allclose(one, other, rtol=1e-4)
        plain = CalibratedRewardModel(Stated(), method).fit(prefs).predict_proba(prefs)
        assert np.abs(one - plain).max() > 0.005

    def test_pairs_of_weight_zero_say_nothing(self, method):
        prefs = stated(200)
        weight = np.where(np.arange(len(prefs)) % 4, 1.0, 0.0)
        model = CalibratedRewardModel(Stated(), method).fit(prefs.weighted(weight))
        without = CalibratedRewardModel(Stated(), method).fit(prefs[weight > 0])
        np.testing.assert_array_equal(model.predict_proba(prefs), without.predict_proba(prefs))
        assert model.n_groups_ == 150


def test_the_model_of_a_split_does_not_read_it():
    prefs, _ = example_preferences()
    split = np.where(np.arange(prefs.responses.n_prompts) % 4 < 2, "validation", "")
    responses = EmbeddedResponses(
        prefs.responses.views, prefs.responses.prompt_of, group=prefs.responses.group, split=split
    )
    prefs = with_pairs(prefs, responses)
    model = CalibratedRewardModel(LinearHead(), split="validation").fit(prefs)
    outside = prefs[responses.split[prefs.prompt_rows] == ""]
    assert 0 < len(outside) < len(prefs)
    np.testing.assert_array_equal(model.model_.coef_, LinearHead().fit(outside).coef_)
    assert model.scale_ == fit_margin_scale(
        model.model_.margins(prefs.in_split("validation")),
        n_independent=len(np.unique(prefs.in_split("validation").groups)),
    )


def test_calibrating_anew_keeps_the_model():
    first, second = halves(stated(2000, lambda m: 2 * m))
    model = CalibratedRewardModel(Stated()).fit(first)
    inner, before = model.model_, model.scale_
    assert model.calibrate(with_pairs(second, outcome=np.full(len(second), 0.6))) is model
    assert model.model_ is inner
    assert model.scale_ < before / 3


def test_seeds_of_members_reach_the_model_inside():
    prefs, _ = example_preferences()
    model = CalibratedRewardModel(RandomHead())
    a, b, again = model.fit_members(prefs, [1, 2, 1])
    assert not np.array_equal(a.margins(prefs), b.margins(prefs))
    np.testing.assert_array_equal(a.margins(prefs), again.margins(prefs))
    assert model.model.random_state == clone(model).model.random_state == RandomHead().random_state
    with pytest.raises(InvalidInputError, match="cannot leave features out by member"):
        model.fit_members(prefs, [0], masks=np.ones((1, 6), dtype=bool))


class CountingHead(LinearHead):
    """Counts how often members are fitted together, and alone."""

    together, alone = [], []

    def fit_members(self, preferences, seeds, weight=None, masks=None):
        self.together.append(len(seeds))
        return super().fit_members(preferences, seeds, weight, masks)

    def fit(self, preferences, y=None):
        self.alone.append(len(preferences))
        return super().fit(preferences)


def bootstraps(prefs, n, seed=0):
    names, group = np.unique(prefs.groups, return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=n)
    return (drawn.T[group] * prefs.weight[:, None]).astype(float)


@pytest.mark.parametrize("method", METHODS)
def test_members_in_one_pass_are_the_fits_one_by_one_on_the_same_folds(method):
    prefs, _ = example_preferences()
    weight = bootstraps(prefs, 3)
    head = LinearHead(l2=0.01, tol=1e-13)
    members = CalibratedRewardModel(head, method, cv=4).fit_members(prefs, [0, 1, 2], weight)
    for m, member in enumerate(members):
        w = weight[:, m]
        margins = np.zeros(len(prefs))
        for train, held_out in group_folds(prefs.groups, 4, "a test", prefs.weight):
            margins[held_out] = clone(head).fit(prefs[train].weighted(w[train])).margins(prefs[held_out])
        alone = CalibratedRewardModel(head, method)
        alone.model_ = clone(head).fit(prefs.weighted(w))
        alone._calibrate(margins, prefs.weighted(w))
        np.testing.assert_allclose(member.model_.coef_, alone.model_.coef_, atol=1e-6)
        assert member.n_groups_ == alone.n_groups_ < len(np.unique(prefs.groups))
        if method == "isotonic":
            # a step lies where a margin lies, so only the places far from steps agree
            assert np.median(np.abs(member.predict_proba(prefs) - alone.predict_proba(prefs))) < 1e-6
        else:
            assert member.scale_ == pytest.approx(alone.scale_, rel=1e-5)


def test_members_are_refitted_in_one_pass_a_fold():
    prefs, _ = example_preferences()
    CountingHead.together.clear()
    CountingHead.alone.clear()
    CalibratedRewardModel(CountingHead(), cv=4).fit_members(prefs, range(3), bootstraps(prefs, 3))
    assert CountingHead.together == [3] * 5
    assert not CountingHead.alone


def test_members_by_seeds_alone_have_the_folds_of_a_fit():
    prefs, _ = example_preferences()
    one = CalibratedRewardModel(LinearHead()).fit(prefs)
    for member in CalibratedRewardModel(LinearHead()).fit_members(prefs, [0, 1]):
        np.testing.assert_array_equal(member.predict(prefs), one.predict(prefs))


def test_a_member_that_a_common_fold_leaves_nothing_has_folds_of_its_own():
    prefs, _ = example_preferences()
    group = np.unique(prefs.groups, return_inverse=True)[1]
    fold = next(held for _, held in group_folds(prefs.groups, 2, "a test", prefs.weight))
    # all that the second member drew lies in one of two folds
    weight = np.ones((len(prefs), 2))
    weight[~np.isin(np.arange(len(prefs)), fold), 1] = 0.0
    one, other = CalibratedRewardModel(LinearHead(), cv=2).fit_members(prefs, [0, 1], weight)
    whole = CalibratedRewardModel(LinearHead(), cv=2)
    assert one.scale_ == pytest.approx(clone(whole).fit(prefs).scale_, rel=1e-4)
    assert other.scale_ == pytest.approx(clone(whole).fit(prefs[fold]).scale_, rel=1e-4)
    only = np.where(group[:, None] == 0, 1.0, weight * [1, 0])
    with pytest.raises(InvalidInputError, match="needs at least 2 folds and 2 prompt groups"):
        whole.fit_members(prefs, [0, 1], only)


def test_members_leave_features_out_where_the_model_can():
    prefs, _ = example_preferences()
    masks = np.array([[True, False] * 3, [False, True] * 3])
    model = CalibratedRewardModel(LinearHead())
    assert model.member_features(prefs) == 6
    for member, mask in zip(model.fit_members(prefs, [0, 1], masks=masks), masks):
        assert (member.model_.coef_[~mask] == 0).all()
        assert member.model_.coef_[mask].all()
        assert member.scale_ > 0


def test_members_with_a_split_are_calibrated_on_it():
    prefs = stated(300, split=np.where(np.arange(300) % 3 == 0, "validation", "train"))
    weight = bootstraps(prefs, 2)
    model = CalibratedRewardModel(Stated(), split="validation")
    for m, member in enumerate(model.fit_members(prefs, [0, 1], weight)):
        own = prefs.weighted(weight[:, m])
        assert member.scale_ == clone(model).fit(own).scale_
        assert member.n_groups_ == (weight[::3, m] > 0).sum()


class TestOutOfFold:
    @pytest.mark.parametrize("wrap", [EnsembleRewardModel, CalibratedRewardModel])
    def test_a_penalty_chosen_inside_is_not_chosen_again(self, wrap, monkeypatch):
        prefs, _ = example_preferences()
        chosen, plain = [], LinearHead._choose_l2
        monkeypatch.setattr(LinearHead, "_choose_l2", lambda self, *args: chosen.append(1) or plain(self, *args))
        fitted = wrap(LinearHead(l2="cv", l2_grid=(1e-3, 1e-1))).fit(prefs)
        assert len(chosen) == 1
        inside = fitted.members_[0] if wrap is EnsembleRewardModel else fitted.model_
        again = out_of_fold_margins(fitted, prefs, 3, "a test")
        assert len(chosen) == 1
        fixed = wrap(LinearHead(l2=inside.l2_)).fit(prefs)
        np.testing.assert_allclose(again, out_of_fold_margins(fixed, prefs, 3, "a test"), rtol=1e-3, atol=1e-3)

    def test_pairs_of_weight_zero_decide_no_fold_and_have_the_margin_zero(self):
        prefs, _ = example_preferences()
        counted = np.arange(len(prefs)) % 3 > 0
        # weight zero for whole groups and for some pairs of others
        counted &= np.unique(prefs.groups, return_inverse=True)[1] % 5 > 0
        fitted = LinearHead().fit(prefs)
        margins = out_of_fold_margins(fitted, prefs.weighted(counted * 2.0), 3, "a test")
        alone = out_of_fold_margins(fitted, prefs[counted].weighted(np.full(counted.sum(), 2.0)), 3, "a test")
        np.testing.assert_array_equal(margins[counted], alone)
        np.testing.assert_array_equal(margins[~counted], 0.0)
        assert np.abs(alone).min() > 0

    def test_groups_of_weight_zero_are_not_held_out_instead_of_others(self):
        prefs, _ = example_preferences()
        group = np.unique(prefs.groups, return_inverse=True)[1]
        fitted = LinearHead().fit(prefs)
        # two groups with weight among many without: each is held out once, and none of the rest teaches
        margins = out_of_fold_margins(fitted, prefs.weighted((group < 2) * 1.0), 5, "a test")
        by_hand = [LinearHead().fit(prefs[group == g]).margins(prefs[group == 1 - g]) for g in (0, 1)]
        np.testing.assert_array_equal(margins[group == 1], by_hand[0])
        np.testing.assert_array_equal(margins[group == 0], by_hand[1])

    def test_too_little_weight_is_refused(self):
        prefs, _ = example_preferences()
        fitted = LinearHead().fit(prefs)
        with pytest.raises(InvalidInputError, match="a test needs pairs with positive weight to hold some"):
            out_of_fold_margins(fitted, prefs.weighted(np.zeros(len(prefs))), 3, "a test")
        first = prefs.groups == prefs.groups[0]
        with pytest.raises(InvalidInputError, match="a test needs at least 2 folds and 2 prompt groups"):
            out_of_fold_margins(fitted, prefs.weighted(first * 1.0), 3, "a test")


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"method": "plat"}, "unknown method of CalibratedRewardModel 'plat'. Did you mean 'platt'"),
        ({"cv": 1}, "needs cv to be a whole number >= 2, got 1"),
        ({"cv": 2.0}, "needs cv to be a whole number >= 2, got 2.0"),
        ({"model": "linear"}, "needs model to be a reward model, got str"),
        ({"split": 3}, "needs split to be the name of a split, got 3"),
        ({"split": "validation"}, "unknown split 'validation'"),
        ({"split": "all"}, "needs pairs outside the split 'all' to fit the model on, got none"),
    ],
)
def test_wrong_parameters_are_refused(parameters, message):
    with pytest.raises(InvalidInputError, match=message):
        CalibratedRewardModel(**parameters).fit(stated(20, split=np.full(20, "all")))


def test_what_cannot_be_held_out_is_refused():
    prefs = stated(6, group=["g"] * 6)
    with pytest.raises(InvalidInputError, match="CalibratedRewardModel needs at least 2 folds and 2 prompt groups"):
        CalibratedRewardModel(LengthHead()).fit(prefs)
    model = CalibratedRewardModel(LengthHead()).fit(stated(20))
    with pytest.raises(InvalidInputError, match="calibrate needs pairs with positive weight"):
        model.calibrate(prefs.weighted(np.zeros(6)))
    with pytest.raises(InvalidInputError, match=r"CalibratedRewardModel\.calibrate needs at least one pair"):
        model.calibrate(prefs[:0])
