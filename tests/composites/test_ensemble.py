"""EnsembleRewardModel: kinds, aggregates by hand, standardisation, nesting and refusals."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold

from embedrm import (
    CalibratedRewardModel,
    EmbeddedPreferences,
    Featurizer,
    LengthHead,
    LinearHead,
    LogisticRouter,
    RandomHead,
    RoutedRewardModel,
)
from embedrm.checks import example_preferences
from embedrm.checks.data import with_pairs
from embedrm.composites._member_rewards import member_rewards
from embedrm.composites.ensemble import AGGREGATES, EnsembleRewardModel
from embedrm.errors import InvalidInputError
from embedrm.heads import mlp
from embedrm.heads.gbdt import GBDTHead
from embedrm.heads.mlp import MLPHead
from embedrm.numerics.folds import hold_out
from embedrm.numerics.ties import pair_credit
from embedrm.persistence import load_model, save_model
from embedrm.preferences import EmbeddedResponses
from embedrm.reward_model import RewardModel

MLP = MLPHead(hidden=(16,), max_epochs=15, early_stopping=False)


def problem(n_prompts=120, k=3, dim=5, seed=0, domains=1):
    """Bradley–Terry labels of a linear reward; returns (train, test, Bayes rate on test)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_prompts, k, dim))
    prompt = rng.normal(size=(n_prompts, dim))
    domain = np.arange(n_prompts) % domains
    prompt[np.arange(n_prompts), domain] += 3
    prefs = EmbeddedPreferences.from_arrays(
        x, rewards=2 * x[..., 0] - x[..., 1], prompt=prompt, domain=[f"domain {d}" for d in domain]
    )
    flip = rng.random(len(prefs)) > expit(prefs.margin)
    noisy = EmbeddedPreferences(prefs.responses, np.where(flip[:, None], prefs.pairs[:, ::-1], prefs.pairs))
    test = noisy.prompt_rows >= 0.7 * n_prompts
    return noisy[~test], noisy[test], float(1 - flip[test].mean())


class _Fixed(RewardModel):
    """A member whose reward is a column of the vectors, which column its seed says."""

    def __init__(self, random_state=0):
        self.random_state = random_state

    def fit(self, preferences, y=None):
        self.fitted_ = True
        return self

    def fit_members(self, preferences, seeds, weight=None, masks=None):
        return [_Fixed(m).fit(preferences) for m in range(len(seeds))]

    def _rewards(self, responses, rows):
        column = np.asarray(responses.view("response:final"), dtype=float)[:, self.random_state]
        return column if rows is None else column[rows]


def fixed(**options):
    """Two members' rewards, by hand: (1, 3, 5, 7) and (10, 10, 40, 20)."""
    x = np.array([[1.0, 10], [3, 10], [5, 40], [7, 20]])
    prefs = EmbeddedPreferences.from_arrays(x, [[1, 0], [3, 2]])
    options = {"kind": "seeds", "n_members": 2, "calibration_fraction": None, **options}
    return EnsembleRewardModel(_Fixed(), **options).fit(prefs), prefs


@pytest.mark.parametrize(
    "aggregate, k, expected",
    [
        ("mean", 0.5, [5.5, 6.5, 22.5, 13.5]),
        ("median", 0.5, [5.5, 6.5, 22.5, 13.5]),
        ("min", 0.5, [1, 3, 5, 7]),
        # standard deviations of the two: 4.5, 3.5, 17.5, 6.5
        ("lcb", 2.0, [5.5 - 9, 6.5 - 7, 22.5 - 35, 13.5 - 13]),
        ("uwo", 0.1, [5.5 - 2.025, 6.5 - 1.225, 22.5 - 30.625, 13.5 - 4.225]),
        ("uwo", 0.0, [5.5, 6.5, 22.5, 13.5]),
    ],
)
def test_aggregates_by_hand(aggregate, k, expected):
    model, prefs = fixed(aggregate=aggregate, k=k, standardise=False)
    np.testing.assert_allclose(model.predict(prefs), expected)
    np.testing.assert_allclose(model.uncertainty(prefs), [4.5, 3.5, 17.5, 6.5])
    # margins of the members: (2, 2) and (0, -20)
    np.testing.assert_allclose(model.margin_uncertainty(prefs), [1, 11])


def test_standardisation_by_hand():
    model, prefs = fixed()
    np.testing.assert_allclose(model.member_means_, [4, 20])
    np.testing.assert_allclose(model.member_scales_, [np.sqrt(5), np.sqrt(150)])
    assert model.n_calibration_ == 4
    z = np.stack([(np.array([1, 3, 5, 7]) - 4) / np.sqrt(5), (np.array([10, 10, 40, 20]) - 20) / np.sqrt(150)], axis=1)
    np.testing.assert_allclose(model.predict_members(prefs), z)
    np.testing.assert_allclose(model.predict(prefs), z.mean(axis=1))


def test_offsets_and_scales_of_members_matter_only_without_standardisation():
    # the minimum follows the member with the lowest offset, whatever it says
    raw, prefs = fixed(aggregate="min", standardise=False)
    np.testing.assert_array_equal(raw.predict(prefs), prefs.responses.view("response:final")[:, 0])
    x = prefs.responses.view("response:final")
    moved = EmbeddedPreferences.from_arrays(x * np.array([100.0, 1]) + np.array([0.0, -1000]), prefs.pairs)
    for aggregate in AGGREGATES:
        options = {"kind": "seeds", "n_members": 2, "calibration_fraction": None, "aggregate": aggregate, "k": 1.0}
        one, other = (EnsembleRewardModel(_Fixed(), **options).fit(p) for p in (prefs, moved))
        np.testing.assert_allclose(one.predict(prefs), other.predict(moved), atol=1e-12)
        np.testing.assert_allclose(one.uncertainty(prefs), other.uncertainty(moved), atol=1e-12)
    raw_moved = EnsembleRewardModel(_Fixed(), n_members=2, kind="seeds", aggregate="min", standardise=False).fit(moved)
    np.testing.assert_array_equal(raw_moved.predict(moved), moved.responses.view("response:final")[:, 1])


def test_an_offset_of_a_prompts_own_stays_in_rewards_and_not_in_margins():
    # members that disagree on how good a prompt's responses are, and agree on every comparison
    x = np.array([[0.0, 10], [1, 11], [10, 0], [11, 1]])
    prefs = EmbeddedPreferences.from_arrays(x, [[1, 0], [3, 2]])
    model = EnsembleRewardModel(_Fixed(), n_members=2, kind="seeds", calibration_fraction=None).fit(prefs)
    assert (model.uncertainty(prefs) > 0.9).all()
    np.testing.assert_allclose(model.margin_uncertainty(prefs), 0, atol=1e-12)


def test_a_member_without_spread_is_left_at_zero():
    x = np.array([[1.0, 3], [2, 3]])
    prefs = EmbeddedPreferences.from_arrays(x, [[1, 0]])
    model = EnsembleRewardModel(_Fixed(), n_members=2, kind="seeds", calibration_fraction=None).fit(prefs)
    np.testing.assert_allclose(model.predict_members(prefs), [[-1, 0], [1, 0]])


@pytest.mark.parametrize("fraction, held", [(0.25, 21), (0.001, 1), (0.999, 82)])
def test_calibration_groups_are_kept_from_the_members(fraction, held):
    train, _, _ = problem()
    assert len(np.unique(train.groups)) == 84
    model = EnsembleRewardModel(calibration_fraction=fraction).fit(train)
    assert model.n_calibration_ == 3 * held
    everything = EnsembleRewardModel(calibration_fraction=None).fit(train)
    assert everything.n_calibration_ == len(train.active)


def test_standardised_on_all_training_responses_members_have_mean_zero_and_spread_one():
    train, _, _ = problem()
    z = EnsembleRewardModel(calibration_fraction=None).fit(train).predict_members(train.responses)[train.active]
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(axis=0), 1)


def test_a_bootstrap_draws_whole_prompt_groups():
    train, _, _ = problem()
    model = EnsembleRewardModel(n_members=40, random_state=3)
    weight = model._bootstrap(train)
    per_group = np.stack([weight[train.groups == g] for g in np.unique(train.groups)])
    assert (per_group == per_group[:, :1]).all(), "pairs of a group are drawn together"
    counts = per_group[:, 0]
    np.testing.assert_array_equal(counts.sum(axis=0), 84)
    # a group is left out with probability (1 - 1/84)^84 = 0.366; 40 members, standard error about 0.003
    assert (counts == 0).mean() == pytest.approx(0.366, abs=0.02)
    assert len({tuple(c) for c in counts.T}) == 40


def test_bootstrap_members_are_heads_on_the_drawn_pairs():
    train, _, _ = problem()
    model = EnsembleRewardModel(LinearHead(tol=1e-12), standardise=False, n_members=3).fit(train)
    weight = model._bootstrap(train)
    for m, member in enumerate(model.members_):
        alone = LinearHead(tol=1e-12).fit(train.weighted(weight[:, m]))
        assert np.linalg.norm(member.coef_ - alone.coef_) < 1e-5 * np.linalg.norm(alone.coef_)


@pytest.mark.parametrize("member", [LinearHead(Featurizer(("r", "p*r"))), MLP])
def test_members_of_features_read_their_share(member):
    train, _, _ = problem()
    model = EnsembleRewardModel(member, kind="features", feature_fraction=0.4, n_members=4).fit(train)
    read = [
        one.coef_ != 0 if isinstance(one, LinearHead) else (one.weights_[0] != 0).any(axis=1) for one in model.members_
    ]
    n = model.members_[0].n_features_in_
    assert [int(r.sum()) for r in read] == [round(0.4 * n)] * 4
    assert len({tuple(r) for r in read}) > 1


def test_seeds_differ_and_are_reproducible():
    train, _, _ = problem(60)
    one, same, other = (
        EnsembleRewardModel(MLP, kind="seeds", n_members=3, random_state=s).fit(train) for s in (1, 1, 2)
    )
    assert one.predict(train).tobytes() == same.predict(train).tobytes()
    assert one.predict(train).tobytes() != other.predict(train).tobytes()
    assert len({member.random_state for member in one.members_}) == 3
    assert (one.uncertainty(train) > 0).all()


def test_seeds_of_other_models_are_fitted_one_by_one():
    train, _, _ = problem(40)
    model = EnsembleRewardModel(RandomHead(), kind="seeds", n_members=4, calibration_fraction=None).fit(train)
    # independent standard scores of four: the spread around their mean is sqrt(3/4) on average of squares
    assert np.sqrt((model.uncertainty(train) ** 2).mean()) == pytest.approx(np.sqrt(0.75), abs=0.1)
    trees = EnsembleRewardModel(GBDTHead(max_trees=5, early_stopping=False), n_members=2).fit(train)
    assert len(trees.members_) == 2


def test_equal_members_are_refused():
    train, _, _ = problem(40)
    with pytest.raises(
        InvalidInputError, match="LinearHead has none, so all members would be equal; choose kind='bootstrap'"
    ):
        EnsembleRewardModel(kind="seeds").fit(train)

    class Seeded(LinearHead):
        def __init__(self, l2=1e-2, random_state=0):
            super().__init__(l2=l2)
            self.random_state = random_state

    with pytest.raises(InvalidInputError, match="random_state changes nothing in this Seeded"):
        EnsembleRewardModel(Seeded(), kind="seeds").fit(train)


@pytest.mark.parametrize("kind, member", [("bootstrap", None), ("seeds", MLPHead(hidden=(16,))), ("features", None)])
def test_it_learns_and_is_at_chance_on_noise(kind, member):
    train, test, bayes = problem(3000, seed=1)
    fraction = {"feature_fraction": 0.8} if kind == "features" else {}
    model = EnsembleRewardModel(member, kind=kind, **fraction)
    assert model.fit(train).score(test) > bayes - (0.01 if kind != "features" else 0.04)
    rng = np.random.default_rng(5)
    turned = np.where((rng.random(len(train)) < 0.5)[:, None], train.pairs[:, ::-1], train.pairs)
    mirrored = np.where((rng.random(len(test)) < 0.5)[:, None], test.pairs[:, ::-1], test.pairs)
    shuffled = EmbeddedPreferences(train.responses, turned)
    score = model.fit(shuffled).score(EmbeddedPreferences(test.responses, mirrored))
    assert abs(score - 0.5) < 4.5 * 0.5 / np.sqrt(len(test))


def test_disagreement_is_larger_far_from_the_data():
    train, _, _ = problem(100)
    model = EnsembleRewardModel(aggregate="lcb").fit(train)
    near = np.random.default_rng(0).normal(size=(500, 5))
    assert model.uncertainty(10 * near).mean() > 5 * model.uncertainty(near).mean()


@pytest.mark.parametrize("member", [None, MLP])
@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_saved_and_loaded_it_is_the_same(tmp_path, aggregate, member):
    train, test, _ = problem(40)
    model = EnsembleRewardModel(member, aggregate=aggregate, n_members=3).fit(train)
    loaded, _ = load_model(save_model(model, tmp_path / "m"))
    for call in ("predict", "predict_members", "uncertainty", "margin_uncertainty"):
        np.testing.assert_array_equal(getattr(loaded, call)(test), getattr(model, call)(test))


def test_perceptrons_of_one_featurizer_are_scored_in_one_product(monkeypatch, tmp_path):
    train, test, _ = problem(40)
    model = EnsembleRewardModel(MLP, n_members=4, kind="seeds").fit(train)
    loaded, _ = load_model(save_model(model, tmp_path / "m"))
    own = np.stack([member.predict(test) for member in model.members_], axis=1)
    expected = (own - model.member_means_) / model.member_scales_
    made = []
    predict = mlp.predict
    monkeypatch.setattr(
        mlp, "predict", lambda network, *rest: made.append(network.n_members) or predict(network, *rest)
    )
    for one in (model, loaded):
        np.testing.assert_allclose(one.predict_members(test), expected, rtol=1e-5, atol=1e-5)
    assert made == [4, 4]
    # blocks are smaller where many heads have wide layers, and rewards are the same
    monkeypatch.setattr(mlp, "_SCORED_ENTRIES", 7 * 4 * 16)
    np.testing.assert_allclose(model.predict_members(test), expected, rtol=1e-5, atol=1e-5)


def test_perceptrons_that_read_other_features_are_scored_by_their_own():
    train, test, _ = problem(40)
    scales = [
        MLPHead(Featurizer(("r",), scale=scale), hidden=(4,), max_epochs=2).fit(train) for scale in ("rms", "none")
    ]
    layers = [MLPHead(hidden=hidden, max_epochs=2).fit(train) for hidden in ((4,), (5,), (4, 4))]
    parts = [MLPHead(hidden=(4,), max_epochs=2).fit(part) for part in (train, train[: len(train) // 2])]
    for members in (scales, layers, parts, [*layers, LinearHead().fit(train)]):
        own = np.stack([member.predict(test) for member in members], axis=1)
        np.testing.assert_array_equal(member_rewards(members, test.responses, None), own)


def test_it_nests_in_a_routed_model_and_holds_one(tmp_path):
    train, test, _ = problem(90, domains=2)
    routed = RoutedRewardModel(EnsembleRewardModel(n_members=3), LogisticRouter(l2=1e-2))
    inside_out = EnsembleRewardModel(RoutedRewardModel(LinearHead(), LogisticRouter(l2=1e-2)), n_members=2)
    twice = EnsembleRewardModel(EnsembleRewardModel(n_members=2), n_members=2)
    for name, model in (("routed", routed), ("inside out", inside_out), ("twice", twice)):
        assert repr(clone(model)) == repr(model)
        assert model.fit(train).score(test) > 0.7
        loaded, _ = load_model(save_model(model, tmp_path / name))
        np.testing.assert_array_equal(loaded.predict(test), model.predict(test))
    search = GridSearchCV(
        routed, {"expert__aggregate": ["mean", "lcb"], "expert__member": [LinearHead()]}, cv=GroupKFold(2)
    )
    search.fit(train, groups=train.groups)
    assert isinstance(search.best_estimator_.experts_[0], EnsembleRewardModel)


def test_the_aggregate_of_a_fitted_ensemble_can_be_changed():
    train, test, _ = problem(40)
    model = EnsembleRewardModel().fit(train)
    z = model.predict_members(test)
    np.testing.assert_allclose(model.set_params(aggregate="min").predict(test), z.min(axis=1))
    with pytest.raises(InvalidInputError, match="Did you mean 'mean'"):
        model.set_params(aggregate="meen").predict(test)


def test_a_bare_matrix_and_the_views_are_the_members():
    train, test, _ = problem(40)
    model = EnsembleRewardModel(LinearHead(Featurizer(response="final"))).fit(train)
    assert model.required_views() == ("response:final",)
    x = test.responses.view("response:final")
    np.testing.assert_allclose(model.uncertainty(x), model.uncertainty(test.responses))
    assert isinstance(test.responses, EmbeddedResponses)
    with pytest.raises(InvalidInputError, match="pass EmbeddedResponses"):
        EnsembleRewardModel(LinearHead(Featurizer(("r", "p*r")))).fit(train).uncertainty(x)


def test_margins_are_logits_only_for_plain_means():
    assert EnsembleRewardModel(standardise=False).margins_are_logits
    assert not EnsembleRewardModel().margins_are_logits
    assert not EnsembleRewardModel(standardise=False, aggregate="lcb").margins_are_logits
    assert not EnsembleRewardModel(LengthHead(), standardise=False).margins_are_logits


def test_averaging_helps_a_noisy_learner():
    train, test, _ = problem(150, dim=20, seed=2)
    member = MLPHead(hidden=(64,), max_epochs=60, early_stopping=False, l2=0.0)
    model = EnsembleRewardModel(member, kind="seeds", n_members=8).fit(train)
    alone = np.mean([pair_credit(one.margins(test)).mean() for one in model.members_])
    assert model.score(test) > alone


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"n_members": 1}, "n_members to be a whole number >= 2, got 1"),
        ({"n_members": 2.0}, "n_members to be a whole number"),
        ({"kind": "bootstraps"}, "Did you mean 'bootstrap'"),
        ({"aggregate": "max"}, "unknown aggregate 'max'"),
        ({"k": -1}, "k to be a number >= 0"),
        ({"feature_fraction": 0}, r"feature_fraction in \(0, 1\]"),
        ({"calibration_fraction": 1.0}, r"calibration_fraction in \(0, 1\) or None"),
        ({"member": "linear"}, "member to be a reward model, got str"),
        ({"member": GBDTHead(), "kind": "features"}, "GBDTHead cannot leave features out"),
    ],
)
def test_wrong_parameters_are_refused(parameters, message):
    with pytest.raises(InvalidInputError, match=message):
        EnsembleRewardModel(**parameters).fit(problem(20)[0])


def test_too_few_groups_are_refused_with_the_way_out():
    train, _, _ = problem(40)
    few = [train[np.isin(train.groups, np.unique(train.groups)[:n])] for n in (1, 2)]
    with pytest.raises(
        InvalidInputError, match=r"at least 3 prompt groups, one of them .* got 2; .* calibration_fraction=None"
    ):
        EnsembleRewardModel().fit(few[1])
    EnsembleRewardModel(calibration_fraction=None).fit(few[1])
    with pytest.raises(InvalidInputError, match="at least 2 prompt groups, got 1"):
        EnsembleRewardModel(standardise=False).fit(few[0])


class TestFewGroups:
    def small(self, n_groups):
        train, _, _ = problem(n_prompts=60, domains=2)
        rare = train.prompt_rows % 2 == 1
        few = rare & np.isin(train.groups, np.unique(train.groups[rare])[:n_groups])
        return train[~rare | few]

    def test_the_error_of_direct_use_stays_and_names_the_remedy(self):
        train, _, _ = problem()
        two = train[np.isin(train.groups, np.unique(train.groups)[:2])]
        with pytest.raises(InvalidInputError, match=r"needs at least 3 prompt groups.*got 2.*few_groups='adapt'"):
            EnsembleRewardModel().fit(two)

    def test_two_groups_are_standardised_on_their_own_responses(self):
        train, _, _ = problem()
        two = train[np.isin(train.groups, np.unique(train.groups)[:2])]
        adapted = EnsembleRewardModel(few_groups="adapt").fit(two)
        stated = EnsembleRewardModel(calibration_fraction=None).fit(two)
        np.testing.assert_array_equal(adapted.predict(train), stated.predict(train))
        assert adapted.standardised_on_ == stated.standardised_on_ == "training responses"
        one = EnsembleRewardModel(few_groups="adapt").fit(train[train.groups == train.groups[0]])
        np.testing.assert_allclose(one.uncertainty(train), 0, atol=1e-9)

    def test_enough_groups_are_treated_the_same_either_way(self):
        train, _, _ = problem()
        one, other = EnsembleRewardModel().fit(train), EnsembleRewardModel(few_groups="adapt").fit(train)
        np.testing.assert_array_equal(one.predict(train), other.predict(train))
        assert one.standardised_on_ == "held-out responses"
        assert EnsembleRewardModel(standardise=False).fit(train).standardised_on_ == "nothing"

    def test_a_domain_that_the_ensemble_can_fit_is_calibrated_too(self):
        # three groups: the expert has enough, and each of its folds leaves two
        routed = RoutedRewardModel(EnsembleRewardModel(n_members=3), LogisticRouter(l2=0.01)).fit(self.small(3))
        assert routed.scale_[1] != 1.0
        assert routed.experts_[1].few_groups == "raise"

    def test_a_domain_with_less_is_an_error_that_names_it_and_the_remedy(self):
        prefs, inner = self.small(2), EnsembleRewardModel(n_members=2)
        with pytest.raises(InvalidInputError, match=r"domain 'domain 1' \(\d pairs\).*few_groups='adapt'"):
            RoutedRewardModel(inner, LogisticRouter(l2=0.01)).fit(prefs)
        routed = RoutedRewardModel(clone(inner).set_params(few_groups="adapt"), LogisticRouter(l2=0.01)).fit(prefs)
        assert [expert.standardised_on_ for expert in routed.experts_] == ["held-out responses", "training responses"]

    def test_a_calibrated_ensemble_needs_no_more_groups_than_the_ensemble(self):
        three = self.small(3).in_domain("domain 1")
        model = CalibratedRewardModel(EnsembleRewardModel(n_members=2)).fit(three)
        assert model.n_groups_ == 3


def test_pairs_of_weight_zero_are_as_good_as_absent():
    train, test, _ = problem()
    weight = (np.unique(train.groups, return_inverse=True)[1] % 3 > 0) * 1.0
    for options in ({}, {"calibration_fraction": None}, {"kind": "features"}):
        one = EnsembleRewardModel(**options).fit(train.weighted(weight))
        other = EnsembleRewardModel(**options).fit(train[weight > 0])
        np.testing.assert_array_equal(one.predict(test), other.predict(test))
    with pytest.raises(InvalidInputError, match="needs pairs with positive weight"):
        EnsembleRewardModel().fit(train.weighted(0 * weight))


def test_members_do_not_learn_from_the_pairs_that_standardise_them():
    prefs, _ = example_preferences(31)
    _, out = hold_out(prefs.groups, 0.1, 0, "a test", "more")
    turned = prefs.pairs.copy()
    turned[out] = turned[out, ::-1]
    one, other = (EnsembleRewardModel(n_members=2).fit(p) for p in (prefs, with_pairs(prefs, pairs=turned)))
    assert one.standardised_on_ == "held-out responses"
    for a, b in zip(one.members_, other.members_):
        np.testing.assert_array_equal(a.coef_, b.coef_)
