"""Pairs about which a model with a spread is least sure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedrm.active import STRATEGIES
from embedrm.active.base import Strategy, first_by
from embedrm.errors import InvalidInputError
from embedrm.preferences import EmbeddedPreferences, Rows
from embedrm.reward_model import RewardModel


@STRATEGIES.register("uncertainty")
@dataclass(frozen=True)
class LargestUncertainty(Strategy):
    """The pairs whose margin has the largest standard deviation: over the members of an ensemble, or a posterior.

    It needs a model with ``margin_uncertainty``: :class:`embedrm.EnsembleRewardModel` or the head ``laplace``.

    References
    ----------
    Seung, Opper and Sompolinsky (1992), "Query by committee"; Gleave and Irving (2022), "Uncertainty estimation for language
    reward models".
    """

    def choose(
        self,
        candidates: EmbeddedPreferences,
        n: int,
        model: RewardModel,
        labelled: EmbeddedPreferences,
        rng: np.random.Generator,
    ) -> Rows:
        """Return the pairs by their uncertainty, descending."""
        spread = getattr(model, "margin_uncertainty", None)
        if spread is None:
            raise InvalidInputError(
                f"the selection strategy 'uncertainty' needs a model that tells how sure it is of a margin, and "
                f"{type(model).__name__} does not; use EnsembleRewardModel around it, or the head 'laplace'"
            )
        return first_by(-np.asarray(spread(candidates)), n, rng)
