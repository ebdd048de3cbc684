"""The length-only and random baselines."""

from __future__ import annotations

import numpy as np
import pytest

from embedrm import EmbeddedPreferences, EmbeddedResponses, LengthHead, RandomHead
from embedrm.errors import InvalidInputError


def data(seed=0, n=400):
    rng = np.random.default_rng(seed)
    words = np.arange(2 * n) % 7
    return EmbeddedPreferences.from_arrays(
        rng.normal(size=(2 * n, 3)),
        np.arange(2 * n).reshape(-1, 2),
        covariates={"characters": rng.permutation(2 * n), "words": words},
    )


def test_length_is_the_covariate_and_its_accuracy_the_share_of_longer_chosen():
    prefs = EmbeddedPreferences.from_arrays(
        np.zeros((6, 1)), [[0, 1], [2, 3], [4, 5]], covariates={"characters": [5, 3, 1, 2, 7, 7]}
    )
    head = LengthHead().fit(prefs)
    np.testing.assert_array_equal(head.predict(prefs), [5, 3, 1, 2, 7, 7])
    assert head.score(prefs) == (1 + 0 + 0.5) / 3
    assert not head.margins_are_logits


def test_length_needs_no_vector():
    responses = EmbeddedResponses({}, [0, 0], covariates={"words": [3, 1]})
    prefs = EmbeddedPreferences(responses, [[1, 0]])
    head = LengthHead("words").fit(prefs)
    assert head.score(prefs) == 0.0
    assert head.required_views() == ()


@pytest.mark.parametrize(
    "covariates, message",
    [
        (None, "needs the covariate 'words', but these responses carry none; encode from a dataset"),
        ({"word": [1, 2]}, r"unknown covariate 'words'\. Did you mean 'word'\?"),
    ],
)
def test_length_without_its_covariate_is_refused(covariates, message):
    prefs = EmbeddedPreferences.from_arrays(np.zeros((2, 1)), [[0, 1]], covariates=covariates)
    with pytest.raises(InvalidInputError, match=message):
        LengthHead("words").fit(prefs)


def test_length_rewards_are_a_copy():
    prefs = data()
    LengthHead().fit(prefs).predict(prefs)[:] = -1
    assert prefs.responses.covariates["characters"].min() == 0


def test_random_is_uniform_and_at_chance():
    prefs = data()
    head = RandomHead().fit(prefs)
    rewards = head.predict(prefs)
    assert ((rewards >= 0) & (rewards < 1)).all()
    assert rewards.mean() == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / len(rewards)))
    assert abs(head.score(prefs) - 0.5) < 4 * 0.5 / np.sqrt(len(prefs))
    assert not head.margins_are_logits


def test_random_depends_on_the_vector_and_the_seed_alone():
    prefs = data()
    head = RandomHead().fit(prefs)
    order = np.random.default_rng(1).permutation(prefs.responses.n_responses)
    np.testing.assert_array_equal(head.predict(prefs.responses.take(order)), head.predict(prefs)[order])
    other = RandomHead(random_state=1).fit(prefs).predict(prefs)
    assert abs(np.corrcoef(head.predict(prefs), other)[0, 1]) < 0.2
    assert (head.predict(prefs) == RandomHead(0).fit(prefs[:1]).predict(prefs)).all()


@pytest.mark.parametrize("seed", [-1, 2**63, 0])
def test_random_takes_any_seed(seed):
    prefs = data(n=3)
    assert RandomHead(seed).fit(prefs).predict(prefs).shape == (6,)
