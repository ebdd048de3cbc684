"""Laws of learning: a known reward is found, and noise is not."""

from __future__ import annotations

import numpy as np

from embedrm.checks.base import law, require
from embedrm.checks.data import example_preferences
from embedrm.preferences import EmbeddedPreferences
from embedrm.reward_model import RewardModel

GOOD_ENOUGH = 0.85
# 4.5 standard deviations of the share of heads in as many fair coins
_CHANCE_SIGMAS = 4.5


def _halves(flipped: float) -> tuple[EmbeddedPreferences, EmbeddedPreferences]:
    """Training and test pairs of different prompt groups."""
    preferences, _ = example_preferences(61, flipped=flipped)
    _, group = np.unique(preferences.groups, return_inverse=True)
    in_test = group % 2 == 1
    return preferences[~in_test], preferences[in_test]


@law(f"a known linear reward is found: accuracy on held-out prompts is at least {GOOD_ENOUGH}")
def learns_a_known_reward(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    train, test = _halves(flipped=0.0)
    accuracy = model.fit(train).score(test)
    require(accuracy >= GOOD_ENOUGH, f"accuracy on held-out prompts is {accuracy:.3f}")


@law("labels at random teach nothing: accuracy on held-out random labels is that of a coin")
def noise_teaches_nothing(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    train, test = _halves(flipped=0.5)
    accuracy = model.fit(train).score(test)
    allowed = _CHANCE_SIGMAS * 0.5 / np.sqrt(len(test))
    require(
        abs(accuracy - 0.5) <= allowed, f"accuracy on random labels is {accuracy:.3f}, allowed 0.5 +- {allowed:.3f}"
    )
