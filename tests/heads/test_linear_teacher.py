"""Linear heads on a linear reward: within a point of the Bayes rate, and at chance where labels are drawn by lot."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from embedrm import EmbeddedPreferences, LinearHead
from embedrm.heads.laplace import LaplaceHead

HEADS = [LinearHead(), LinearHead(l2="cv"), LinearHead(objective="hinge"), LaplaceHead()]


def problem(shuffled: bool) -> tuple[EmbeddedPreferences, EmbeddedPreferences, float]:
    """3,000 prompts × 4 responses × 8 dimensions; returns (train, test, Bayes rate on test)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 4, 8)).astype(np.float32)
    prefs = EmbeddedPreferences.from_arrays(x, rewards=2 * x[..., 0] - x[..., 1])
    flip = rng.random(len(prefs)) > (0.5 if shuffled else expit(prefs.margin))
    noisy = EmbeddedPreferences(prefs.responses, np.where(flip[:, None], prefs.pairs[:, ::-1], prefs.pairs))
    test = noisy.prompt_rows >= 2100
    return noisy[~test], noisy[test], float(1 - flip[test].mean())


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_within_a_point_of_the_bayes_rate(head):
    train, test, bayes = problem(shuffled=False)
    assert 0.7 < bayes < 0.9
    assert bayes - 0.01 < head.fit(train).score(test) < bayes + 0.01


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_at_chance_on_labels_drawn_by_lot(head):
    train, test, _ = problem(shuffled=True)
    # 900 test prompts of six pairs each: four standard errors of prompts that stand or fall together
    assert abs(head.fit(train).score(test) - 0.5) < 0.03
