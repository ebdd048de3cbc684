"""A budget of labels spent in rounds: fit, choose, have labelled, fit again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from embedrm.active.base import Strategy, labels_alone, make_strategy, unlabelled
from embedrm.errors import InvalidInputError
from embedrm.preferences import EmbeddedPreferences, Rows
from embedrm.progress import Progress, silent
from embedrm.reward_model import RewardModel, check_preferences


@dataclass(frozen=True)
class ActiveRound:
    """One round.

    Attributes
    ----------
    picked : ndarray of int
        Rows of the candidates that were labelled in this round, most wanted first.
    n_labelled : int
        Labels so far.
    model : RewardModel
        Fitted on all of them.
    """

    picked: Rows
    n_labelled: int
    model: RewardModel


@dataclass(frozen=True)
class ActiveRun:
    """What :func:`label_actively` gives.

    Attributes
    ----------
    rounds : list of ActiveRound
    facts : dict
        Strategy with its parameters, budget, rounds and seed, as plain data.
    """

    rounds: list[ActiveRound]
    facts: dict[str, Any]

    @property
    def picked(self) -> Rows:
        """Rows of all candidates that were labelled, in the order of the rounds."""
        return np.concatenate([one.picked for one in self.rounds])

    @property
    def model(self) -> RewardModel:
        """The model that was fitted on all of them."""
        return self.rounds[-1].model

    def curve(self, evaluation: EmbeddedPreferences) -> list[dict[str, float]]:
        """Return ``n_labelled`` and the pairwise ``accuracy`` on held-out pairs after each round."""
        return [{"n_labelled": one.n_labelled, "accuracy": one.model.score(evaluation)} for one in self.rounds]


def label_actively(
    model: RewardModel,
    candidates: EmbeddedPreferences,
    strategy: str | Mapping[str, Any] | Strategy = "d-optimal",
    *,
    budget: int,
    rounds: int = 5,
    random_state: int = 0,
    progress: Progress = silent,
) -> ActiveRun:
    """Spend a budget of labels in rounds, on the pairs that a strategy asks for.

    The first round is a random draw, the same for every strategy; each later one is chosen with the model that is fitted on
    all labels so far. Then the model is fitted once more.

    Parameters
    ----------
    model : RewardModel
        Cloned for every fit.
    candidates : EmbeddedPreferences
        Pairs that could be labelled, with the labels they would get (of :func:`embedrm.draw_pairs` and
        :func:`embedrm.annotate`, or of people). A label is read once its pair is picked; strategies see neither order nor
        outcome nor gold of a candidate, and a pair that is never picked may have any label.
    strategy : str, mapping or Strategy
        See :func:`embedrm.active.select_pairs`.
    budget : int
        Labels in all, at most as many as candidates.
    rounds : int
        From 1; the budget is divided as evenly as whole numbers allow.
    random_state : int
    progress : Progress

    Returns
    -------
    ActiveRun

    Notes
    -----
    *Held-out pairs* must be of other prompts: candidates that share prompts with them make any choice look good. A model
    that holds out pairs of its own (early stopping, penalties by cross-validation) does so by prompt group among the
    labelled ones. Mirrored copies of a pair (both orders as two rows) are refused: a label would be bought twice, and a
    split by rows would have most pairs on both sides.

    *The labelled set is not a sample* of the candidates once it has been chosen: accuracy on it says little, and calibration
    fitted on it is for pairs of its kind.

    Examples
    --------
    >>> import numpy as np
    >>> from embedrm import EmbeddedPreferences, LinearHead, label_actively
    >>> x = np.random.default_rng(0).normal(size=(60, 5, 4))
    >>> pool = EmbeddedPreferences.from_arrays(x, rewards=x[..., 0])
    >>> run = label_actively(LinearHead(l2=0.01), pool, "d-optimal", budget=40, rounds=4)
    >>> [one.n_labelled for one in run.rounds]
    [10, 20, 30, 40]
    """
    who = "label_actively"
    made = make_strategy(strategy)
    check_preferences(candidates, who)
    for name, value, most in (("budget", budget, len(candidates)), ("rounds", rounds, budget)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= most:
            raise InvalidInputError(
                f"{who}: {name} must be a whole number from 1 to {most:,} "
                f"({'the candidates' if name == 'budget' else 'the budget'}), got {value!r}"
            )
    blind = unlabelled(candidates)
    repeated = len(blind) - len(np.unique(blind.pairs, axis=0))
    if repeated:
        raise InvalidInputError(
            f"{who}: {repeated:,} of {len(blind):,} candidates repeat another one, in the same or the other order; give "
            "each comparison once"
        )
    rng = np.random.default_rng(random_state)
    sizes = np.diff(np.linspace(0, budget, rounds + 1).round().astype(np.intp)).tolist()
    left, taken, done = np.arange(len(candidates)), np.empty(0, dtype=np.intp), list[ActiveRound]()
    step = progress("label (rounds)")
    for size in sizes:
        if not done:
            chosen = rng.permutation(len(left))[:size]
        else:
            chosen = made.choose(blind[left], size, done[-1].model, labels_alone(candidates[taken]), rng)
        picked = left[chosen]
        left = np.delete(left, chosen)
        taken = np.concatenate([taken, picked])
        fitted: RewardModel = clone(model).fit(candidates[taken])
        done.append(ActiveRound(picked, len(taken), fitted))
        step(len(done), rounds)
    facts = made.to_info() | {"budget": int(budget), "rounds": int(rounds), "random_state": int(random_state)}
    return ActiveRun(done, facts)
