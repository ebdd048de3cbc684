"""MergedRewardModel: means by hand, scales, fitted members, nesting and refusals."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from embedrm import (
    CalibratedRewardModel,
    EmbeddedPreferences,
    EnsembleRewardModel,
    Featurizer,
    LengthHead,
    LinearHead,
    MergedRewardModel,
    PooledRewardModel,
    RoutedRewardModel,
)
from embedrm.checks import example_preferences
from embedrm.composites._held_out import out_of_fold_margins
from embedrm.errors import InvalidInputError
from embedrm.numerics.folds import hold_out
from embedrm.persistence import load_model, save_model
from embedrm.reward_model import RewardModel


class _Column(RewardModel):
    """A member whose reward is a column of the vectors."""

    def __init__(self, column=0):
        self.column = column

    def fit(self, preferences, y=None):
        self.n_pairs_ = len(preferences)
        return self

    def _rewards(self, responses, rows):
        column = np.asarray(responses.view("response:final"), dtype=float)[:, self.column]
        return column if rows is None else column[rows]


X = np.array([[1.0, 10], [3, 10], [5, 40], [7, 20]])
PREFS = EmbeddedPreferences.from_arrays(X, [[1, 0], [3, 2]])
TWO = [("a", _Column(0)), ("b", _Column(1))]
Z = np.stack([(X[:, 0] - 4) / np.sqrt(5), (X[:, 1] - 20) / np.sqrt(150)], axis=1)


@pytest.mark.parametrize(
    "weights, expected",
    [
        (None, [5.5, 6.5, 22.5, 13.5]),
        ([0.75, 0.25], [3.25, 4.75, 13.75, 10.25]),
        ([2, -1], [-8, -4, -30, -6]),
        ([1, 0], [1, 3, 5, 7]),
    ],
)
def test_weighted_sums_by_hand(weights, expected):
    model = MergedRewardModel(TWO, weights, standardise=False).fit(PREFS)
    np.testing.assert_allclose(model.predict(PREFS), expected)
    np.testing.assert_allclose(model.margins(PREFS), [expected[1] - expected[0], expected[3] - expected[2]])
    assert model.standardised_on_ == "nothing"
    assert model.members_[0].n_pairs_ == 2  # nothing is kept apart where nothing is calibrated


def test_standardisation_by_hand():
    model = MergedRewardModel(TWO, calibration_fraction=None).fit(PREFS)
    np.testing.assert_allclose(model.member_means_, [4, 20])
    np.testing.assert_allclose(model.member_scales_, [np.sqrt(5), np.sqrt(150)])
    np.testing.assert_allclose(model.predict_members(PREFS), Z)
    np.testing.assert_allclose(model.predict(PREFS), Z.mean(axis=1))
    np.testing.assert_allclose(model.margins(PREFS), [Z[1].mean() - Z[0].mean(), Z[3].mean() - Z[2].mean()])
    assert (model.n_calibration_, model.standardised_on_) == (4, "training responses")


def test_scales_are_those_of_held_out_responses():
    prefs, _ = example_preferences()
    model = MergedRewardModel([("length", LengthHead()), ("linear", LinearHead())], random_state=3).fit(prefs)
    train, out = hold_out(prefs.groups, 0.1, 3, "test", "")
    alone = LinearHead().fit(prefs[train])
    np.testing.assert_array_equal(model.members_[1].coef_, alone.coef_)
    rewards = alone.predict(prefs)[prefs[out].active]
    np.testing.assert_allclose([model.member_means_[1], model.member_scales_[1]], [rewards.mean(), rewards.std()])
    assert (model.n_calibration_, model.standardised_on_) == (len(prefs[out].active), "held-out responses")


def test_one_hot_weights_are_that_member_bit_for_bit():
    prefs, _ = example_preferences()
    members = [("linear", LinearHead()), ("pooled", PooledRewardModel())]
    model = MergedRewardModel(members, [0.4, 0.6], standardise=False).fit(prefs)
    for m, weights in enumerate(np.eye(2)):
        model.set_params(weights=weights)
        np.testing.assert_array_equal(model.predict(prefs), model.members_[m].predict(prefs))
        np.testing.assert_array_equal(model.margins(prefs), model.members_[m].margins(prefs))
        assert model.required_views() == model.members_[m].required_views()


def test_the_order_of_members_does_not_matter():
    prefs, _ = example_preferences()
    members, weights = [("linear", LinearHead()), ("length", LengthHead()), ("routed", RoutedRewardModel())], [3, 1, 2]
    one = MergedRewardModel(members, weights).fit(prefs)
    other = MergedRewardModel(members[::-1], weights[::-1]).fit(prefs)
    np.testing.assert_allclose(one.predict(prefs), other.predict(prefs), rtol=1e-12, atol=1e-12)
    copies = MergedRewardModel([(f"copy{k}", LinearHead()) for k in range(3)], standardise=False).fit(prefs)
    np.testing.assert_allclose(copies.predict(prefs), LinearHead().fit(prefs).predict(prefs), rtol=1e-12)


@pytest.mark.parametrize(
    "members, weights, standardise, logits",
    [
        ([("a", LinearHead())], None, False, True),
        ([("a", LinearHead()), ("b", LinearHead())], [0.3, 0.7], False, True),
        ([("a", LinearHead()), ("b", LinearHead())], [0.3, 0.6], False, False),
        ([("a", LinearHead()), ("b", LinearHead())], [1.5, -0.5], False, False),
        ([("a", LinearHead()), ("b", LengthHead())], None, False, False),
        ([("a", LinearHead()), ("b", LengthHead())], [1, 0], False, True),
        ([("a", LinearHead())], None, True, False),
        ([("a", CalibratedRewardModel(LengthHead()))], None, False, True),
    ],
)
def test_margins_are_logits_of_a_mean_of_logits(members, weights, standardise, logits):
    assert MergedRewardModel(members, weights, standardise).margins_are_logits is logits


class TestFittedMembers:
    """MergedRewardModel.of."""

    def test_on_calibrated_scales_by_hand(self):
        fitted = [(name, clone(model).fit(PREFS)) for name, model in TWO]
        model = MergedRewardModel.of(fitted, [0.5, 0.5], PREFS)
        np.testing.assert_allclose(model.predict(PREFS), Z.mean(axis=1))
        assert model.members_[0] is fitted[0][1]
        assert model.standardised_on_ == "calibration responses"
        np.testing.assert_allclose(MergedRewardModel.of(fitted, None, PREFS.responses).predict(PREFS), Z.mean(axis=1))
        raw = MergedRewardModel.of(fitted, [0.5, 0.5])
        np.testing.assert_allclose(raw.predict(PREFS), X.mean(axis=1))
        assert not raw.standardise

    def test_a_scale_of_one_member_changes_nothing(self):
        prefs, _ = example_preferences()
        linear = LinearHead().fit(prefs)
        loud = clone(linear).fit(prefs)
        loud.coef_ = 100 * loud.coef_
        length = LengthHead().fit(prefs)
        one, other = (MergedRewardModel.of([("x", m), ("length", length)], None, prefs) for m in (linear, loud))
        np.testing.assert_allclose(one.predict(prefs), other.predict(prefs), rtol=1e-12, atol=1e-12)

    def test_models_of_different_data_are_merged_saved_and_fitted_anew(self, tmp_path):
        prefs, _ = example_preferences()
        general, domain = LinearHead().fit(prefs), LinearHead(Featurizer(("r", "p*r"))).fit(prefs.in_domain("alpha"))
        model = MergedRewardModel.of([("general", general), ("domain", domain)], [0.7, 0.3], prefs)
        loaded, _ = load_model(save_model(model, tmp_path / "merged"))
        np.testing.assert_array_equal(loaded.predict(prefs), model.predict(prefs))
        assert loaded.standardised_on_ == "calibration responses"
        again = clone(model).fit(prefs)
        assert again.names_ == ["general", "domain"]
        assert again.get_params()["domain__featurizer__terms"] == ("r", "p*r")

    @pytest.mark.parametrize("calibration", ["prefs", X, PREFS[:0]])
    def test_what_is_no_calibration_is_refused(self, calibration):
        with pytest.raises(InvalidInputError, match="calibration to be EmbeddedPreferences"):
            MergedRewardModel.of([("a", _Column().fit(PREFS))], None, calibration)

    def test_unfitted_members_are_refused(self):
        with pytest.raises(NotFittedError):
            MergedRewardModel.of(TWO, None, PREFS)


def test_a_member_that_refuses_pairs_is_not_bypassed():
    prefs, _ = example_preferences()
    model = MergedRewardModel([("a", LinearHead()), ("b", RoutedRewardModel(calibrate=False))]).fit(prefs)
    crossed = EmbeddedPreferences(prefs.responses, [[0, prefs.responses.n_responses - 1]])
    with pytest.raises(InvalidInputError, match="different prompts"):
        model.margins(crossed)


def test_parameters_by_member_and_nesting():
    prefs, _ = example_preferences()
    model = MergedRewardModel([("a", LinearHead()), ("b", CalibratedRewardModel(LinearHead(), cv=3))])
    model.set_params(a__l2=0.5, b__model__l2=0.25, b=CalibratedRewardModel(LinearHead(), cv=4))
    assert model.get_params()["a__l2"] == 0.5
    assert model.members[1][1].cv == 4
    model = MergedRewardModel([("a", LinearHead()), ("b", LengthHead())])
    ensemble = EnsembleRewardModel(model, n_members=2).fit(prefs)
    assert ensemble.score(prefs) > 0.6
    assert CalibratedRewardModel(model, cv=3).fit(prefs).margins_are_logits


@pytest.mark.parametrize(
    "options, message",
    [
        ({"members": []}, "at least one .name, RewardModel., got an empty list"),
        ({"members": "linear"}, "at least one"),
        ({"members": [LinearHead()]}, "every member to be .name, RewardModel."),
        ({"members": [("a", LinearHead)]}, "not a reward model"),
        ({"members": [("a", LinearHead()), ("a", LinearHead())]}, "given twice"),
        ({"members": [("weights", LinearHead())]}, "cannot call a member 'weights'"),
        ({"members": [("a__b", LinearHead())]}, "two underscores"),
        ({"weights": [1.0]}, r"needs 2 weights, one number for each member, got shape \(1,\)"),
        ({"weights": [1.0, 2.0, 3.0]}, "needs 2 weights"),
        ({"weights": "ab"}, "needs 2 weights"),
        ({"weights": ["x", "y"]}, "needs 2 weights"),
        ({"weights": [1.0, float("nan")]}, "finite weights"),
        ({"weights": [0.0, 0.0]}, "not all zero"),
        ({"calibration_fraction": 1.5}, "calibration_fraction in"),
        ({"few_groups": "skip"}, "unknown few_groups"),
        ({"random_state": None}, "random_state"),
    ],
)
def test_refusals(options, message):
    prefs, _ = example_preferences()
    with pytest.raises(InvalidInputError, match=message):
        MergedRewardModel(**options).fit(prefs)


def test_a_member_that_cannot_be_fitted_is_named():
    prefs, _ = example_preferences()
    with pytest.raises(InvalidInputError, match="the member 'bad' of MergedRewardModel"):
        MergedRewardModel([("good", LinearHead()), ("bad", LinearHead(l2=-1))]).fit(prefs)


def test_a_single_prompt_group():
    prefs, _ = example_preferences()
    one = prefs[prefs.groups == prefs.groups[0]]
    with pytest.raises(InvalidInputError, match="at least 2 prompt groups"):
        MergedRewardModel().fit(one)
    assert MergedRewardModel(few_groups="adapt").fit(one).standardised_on_ == "training responses"
    assert MergedRewardModel(standardise=False).fit(one).standardised_on_ == "nothing"


def test_penalties_that_members_chose_are_not_chosen_again_on_folds(monkeypatch):
    prefs, _ = example_preferences()
    chosen, plain = [], LinearHead._choose_l2
    monkeypatch.setattr(LinearHead, "_choose_l2", lambda self, *args: chosen.append(1) or plain(self, *args))
    grids = {"mild": (1e-4, 1e-3), "strict": (1.0, 10.0)}
    template = MergedRewardModel([(name, LinearHead(l2="cv", l2_grid=grid)) for name, grid in grids.items()])
    fitted = clone(template).fit(prefs)
    assert len(chosen) == 2
    penalties = {name: model.l2_ for name, model in zip(fitted.names_, fitted.members_)}
    assert penalties["mild"] < penalties["strict"]
    margins = out_of_fold_margins(fitted, prefs, 3, "a test")
    nested = out_of_fold_margins(CalibratedRewardModel(fitted, cv=3).fit(prefs), prefs, 3, "a test")
    assert len(chosen) == 4  # those of the fit inside the calibrated model
    pinned = clone(template).set_params(**{f"{name}__l2": l2 for name, l2 in penalties.items()}).fit(prefs)
    np.testing.assert_array_equal(margins, out_of_fold_margins(pinned, prefs, 3, "a test"))
    assert nested.shape == margins.shape
