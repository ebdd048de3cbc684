"""The checks themselves: a model that breaks a law is caught by that law, and by name."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.validation import check_is_fitted

from embedrm import LinearHead
from embedrm.checks import LAWS, LawBroken, example_preferences, yield_checks
from embedrm.errors import InvalidInputError
from embedrm.preferences import EmbeddedPreferences
from embedrm.reward_model import RewardModel


class _Broken(LinearHead):
    """A linear head with one fault at a time."""


class _AddsOneToTheFirst(_Broken):
    # the reward depends on the row's place in the batch
    def _rewards(self, responses, rows):
        rewards = super()._rewards(responses, rows)
        rewards[0] += 1.0
        return rewards


class _ScalesByAllRows(_Broken):
    # reads rows that no pair touches
    def fit(self, preferences, y=None):
        self.mean_ = float(np.abs(preferences.responses.view("response:final")).mean())
        return super().fit(preferences)

    def _rewards(self, responses, rows):
        return super()._rewards(responses, rows) * self.mean_


class _IgnoresWeights(_Broken):
    def fit(self, preferences, y=None):
        return super().fit(EmbeddedPreferences(preferences.responses, preferences.pairs))


class _Forgets(_Broken):
    # state that is not in an attribute ending in an underscore is not saved
    def fit(self, preferences, y=None):
        self.bonus = 1.0
        return super().fit(preferences)

    def _rewards(self, responses, rows):
        return super()._rewards(responses, rows) * (1.0 + getattr(self, "bonus", 0.0))


class _ChosenGetsMore(_Broken):
    def margins(self, preferences):
        return super().margins(preferences) + 0.1


class _WritesIntoItsInput(_Broken):
    def fit(self, preferences, y=None):
        preferences.weight[:] = 1.0
        return super().fit(preferences)


class _FixesItsParameters(_Broken):
    def fit(self, preferences, y=None):
        self.l2 = 0.5
        return super().fit(preferences)


class _Unseeded(_Broken):
    def fit(self, preferences, y=None):
        super().fit(preferences)
        self.coef_ = self.coef_ + 1e-9 * np.random.default_rng().normal(size=self.coef_.shape)
        return self


class _AnswersUnfitted(RewardModel):
    def fit(self, preferences, y=None):
        self.fitted_ = True
        return self

    def _rewards(self, responses, rows):
        return np.zeros(responses.n_responses if rows is None else len(rows))


class _SumsTheLoss(_Broken):
    # l2 against the sum of the losses instead of their mean
    def fit(self, preferences, y=None):
        honest = LinearHead(l2=self.l2 / preferences.weight.sum()).fit(preferences)
        self.__dict__.update({k: v for k, v in vars(honest).items() if k.endswith("_")})
        return self


class _CopiesMargins(_Broken):
    # trained on the labels' order only by the absolute gap
    def fit(self, preferences, y=None):
        self.direction_ = np.abs(np.asarray(preferences.responses.view("response:final"))).mean(axis=0)
        return self

    def _rewards(self, responses, rows):
        check_is_fitted(self, "direction_")
        matrix = responses.view("response:final")
        return (matrix if rows is None else matrix[rows]) @ self.direction_


FAULTS = [
    (_AddsOneToTheFirst(), {"batch_is_one_by_one", "slices_of_pairs"}),
    (_ScalesByAllRows(), {"idle_rows_are_unread", "compact_is_equivalent"}),
    (_IgnoresWeights(), {"weights_are_read", "weight_is_repetition", "outcome_is_a_share"}),
    (_Forgets(), {"saving_keeps_every_bit"}),
    (_ChosenGetsMore(), {"antisymmetry", "margins_gather_rewards"}),
    (_WritesIntoItsInput(), {"input_is_untouched"}),
    (_FixesItsParameters(), {"fit_leaves_parameters"}),
    (_Unseeded(), {"same_seed_same_bits"}),
    (_AnswersUnfitted(), {"unfitted_is_refused", "learns_a_known_reward"}),
    (_SumsTheLoss(), {"factor_of_weights"}),
    (_CopiesMargins(), {"order_is_the_label", "learns_a_known_reward", "weights_are_read"}),
]


@pytest.mark.parametrize("model, broken", FAULTS, ids=[type(model).__name__ for model, _ in FAULTS])
def test_a_fault_breaks_its_laws(model, broken, monkeypatch):
    # an unregistered class cannot be saved; the laws of saving need it registered
    from embedrm.heads import HEADS

    monkeypatch.setitem(HEADS._classes, type(model).__name__, type(model))
    checks = {check.law.name: check for check in yield_checks(model)}
    for name in broken:
        with pytest.raises((LawBroken, ValueError)) as caught:
            checks[name]()
        if isinstance(caught.value, LawBroken):
            message = str(caught.value)
            assert message.startswith(f"{type(model).__name__}-{name} does not hold ({LAWS[name].statement}): ")


def test_a_check_leaves_the_model_unfitted():
    model = LinearHead()
    for check in yield_checks(model):
        check()
    assert set(vars(model)) == set(model.get_params(deep=False))


def test_tolerances_can_be_replaced_and_must_name_laws():
    chosen = {check.law.name: check.tolerance for check in yield_checks(LinearHead(), {"order_of_rows": 1e-9})}
    assert chosen["order_of_rows"] == 1e-9
    assert chosen["weight_is_repetition"] == LAWS["weight_is_repetition"].tolerance
    with pytest.raises(InvalidInputError, match=r"unknown law 'order_of_row'\. Did you mean 'order_of_rows'\?"):
        list(yield_checks(LinearHead(), {"order_of_row": 1e-9}))


def test_the_data_of_the_checks_is_what_it_says():
    preferences, reward = example_preferences(13, flipped=0.0)
    responses = preferences.responses
    assert responses.n_prompts == 26
    assert responses.n_responses == 4 * 26
    assert len(preferences) == 3 * 24
    chosen, rejected = preferences.pairs.T
    assert (reward[chosen] > reward[rejected]).all()
    assert not preferences.cross_prompt.any()
    assert {d: len(np.unique(preferences.groups[preferences.domain == d])) for d in preferences.domains} == {
        "alpha": 4,
        "beta": 4,
        "gamma": 4,
    }
    assert len(preferences.active) == 3 * 24
    for matrix in responses.views.values():
        np.testing.assert_array_equal(matrix.astype(np.float16).astype(np.float64), matrix)
