"""The contract of a selection strategy: it sees pairs without their labels."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from embedrm.errors import InvalidInputError
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.reward_model import RewardModel, check_preferences


@dataclass(frozen=True)
class Strategy:
    """Base class of selection strategies: a frozen data class whose fields are its parameters."""

    registered_name: ClassVar[str] = ""

    def choose(
        self,
        candidates: EmbeddedPreferences,
        n: int,
        model: RewardModel,
        labelled: EmbeddedPreferences,
        rng: np.random.Generator,
    ) -> Rows:
        """Return ``n`` different rows of the candidates, most wanted first.

        Parameters
        ----------
        candidates : EmbeddedPreferences
            As :func:`unlabelled` gives them.
        n : int
            At most as many as there are.
        model : RewardModel
            Fitted on ``labelled``.
        labelled : EmbeddedPreferences
            What is labelled already, as :func:`labels_alone` gives it.
        rng : numpy Generator
        """
        raise TypeError(f"{type(self).__name__} does not implement choose")

    def to_info(self) -> dict[str, Any]:
        """Return name and parameters as plain facts."""
        return {"strategy": self.registered_name, **asdict(self)}


def make_strategy(strategy: str | Mapping[str, Any] | Strategy) -> Strategy:
    """Return a strategy by its name, by ``{"name": NAME, PARAMETER: VALUE}``, or as it is."""
    from embedrm.active import STRATEGIES

    if isinstance(strategy, Strategy):
        return strategy
    made: Strategy = STRATEGIES.make(strategy)
    return made


def unlabelled(preferences: EmbeddedPreferences) -> EmbeddedPreferences:
    """Return the pairs without what tells their labels: by row, without outcome, weight, margin and gold."""
    return EmbeddedPreferences(_without_gold(preferences), np.sort(preferences.pairs, axis=1))


def labels_alone(preferences: EmbeddedPreferences) -> EmbeddedPreferences:
    """Return labelled pairs with their labels and without gold: their responses are often those of the candidates too."""
    return EmbeddedPreferences(
        _without_gold(preferences), preferences.pairs, weight=preferences.weight, outcome=preferences.outcome
    )


def _without_gold(preferences: EmbeddedPreferences) -> EmbeddedResponses:
    responses = copy(preferences.responses)
    responses.gold = np.full(responses.n_responses, np.nan)
    return responses


def select_pairs(
    candidates: EmbeddedPreferences,
    n: int,
    strategy: str | Mapping[str, Any] | Strategy = "d-optimal",
    *,
    model: RewardModel,
    labelled: EmbeddedPreferences,
    random_state: int = 0,
) -> Rows:
    """Choose the pairs to have labelled next.

    Parameters
    ----------
    candidates : EmbeddedPreferences
        Pairs that could be labelled; their order, outcomes and gold are not seen by the strategy.
    n : int
        How many.
    strategy : str, mapping or Strategy
        ``"d-optimal"``, ``"margin"``, ``"uncertainty"``, ``"random"``, or ``{"name": ..., PARAMETER: ...}``; see
        :mod:`embedrm.active`.
    model : RewardModel
        Fitted on ``labelled``.
    labelled : EmbeddedPreferences
        Pairs that have labels. They are not looked for among the candidates: leave them out there.
    random_state : int

    Returns
    -------
    ndarray of shape (n,), int
        Rows of the candidates, most wanted first.
    """
    made, who = make_strategy(strategy), "select_pairs"
    check_preferences(candidates, who)
    check_preferences(labelled, who)
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= len(candidates):
        raise InvalidInputError(f"{who}: n must be a whole number from 1 to {len(candidates):,} candidates, got {n!r}")
    return made.choose(
        unlabelled(candidates), int(n), model, labels_alone(labelled), np.random.default_rng(random_state)
    )


def first_by(key: np.ndarray, n: int, rng: np.random.Generator) -> Rows:
    """Return the rows of the n smallest keys, ascending; equal ones in random order."""
    shuffled = rng.permutation(len(key))
    chosen: Rows = shuffled[np.argsort(key[shuffled], kind="stable")[:n]]
    return chosen
