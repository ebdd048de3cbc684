"""The contract of every reward model: heads, ensembles, routed, mixture, adapter and merged models alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone

from embedrm.errors import InvalidInputError
from embedrm.numerics.graph import gather_margins
from embedrm.numerics.ties import pair_credit
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows

Self = TypeVar("Self", bound="RewardModel")


class RewardModel(BaseEstimator):
    """Base class: fitted on preferences, it gives one reward for each response.

    A subclass implements :meth:`fit` (reading only the active rows of its preferences) and ``_rewards``. Everything
    learned is an attribute ending in an underscore, holding numbers, strings, arrays, other models, or lists and
    mappings of those; that alone makes the model saveable.

    """

    registered_name: str

    @property
    def margins_are_logits(self) -> bool:
        """Whether sigma(margin) is the model's probability that the chosen response wins.

        Where it is not (a length baseline), reports leave out the log loss.
        """
        return True

    def fit(self: Self, preferences: EmbeddedPreferences, y: None = None) -> Self:
        """Fit on pairs; ``y`` is ignored, since the order within a pair is the label. Returns self."""
        raise TypeError(f"{type(self).__name__} does not implement fit")

    def _rewards(self, responses: EmbeddedResponses, rows: Rows | None) -> NDArray[np.float64]:
        """Rewards of ``rows`` (all responses where None), shape (n,), float64."""
        raise TypeError(f"{type(self).__name__} does not implement _rewards")

    def predict(self, x: EmbeddedResponses | EmbeddedPreferences | NDArray[Any]) -> NDArray[np.float64]:
        """Rewards of all responses.

        Parameters
        ----------
        x : EmbeddedResponses, EmbeddedPreferences or ndarray of shape (n, dim)
            A bare matrix is taken as the single response view of a model that needs no prompts.

        Returns
        -------
        ndarray of shape (n_responses,), float64
            On the model's own scale: comparable between responses to one prompt; across prompts, domains or models
            only where the model is calibrated.
        """
        if isinstance(x, EmbeddedPreferences):
            x = x.responses
        if not isinstance(x, EmbeddedResponses):
            x = self._as_responses(np.asarray(x))
        return self._rewards(x, None)

    def margins(self, preferences: EmbeddedPreferences) -> NDArray[np.float64]:
        """Reward of the chosen minus reward of the rejected response; shape (n_pairs,). Scores active rows only."""
        check_preferences(preferences, type(self).__name__)
        self.check_pairs(preferences)
        rows = preferences.active
        everything = len(rows) == preferences.responses.n_responses
        rewards = self._rewards(preferences.responses, None if everything else rows)
        return gather_margins(rewards, preferences.local_pairs)

    def check_pairs(self, preferences: EmbeddedPreferences) -> None:
        """Raise where this fitted model gives rewards that some of the pairs cannot compare; most models compare any.

        A model that gates by prompt refuses pairs across prompts unless its experts are on one scale; a model of models asks
        those inside.
        """

    def score(self, preferences: EmbeddedPreferences, y: None = None) -> float:
        """Pairwise accuracy: equal rewards count one half; pairs labelled ties are left out."""
        preferences = check_preferences(preferences, f"{type(self).__name__}.score")
        labelled = preferences[~preferences.ties]
        if not len(labelled):
            raise InvalidInputError(f"{type(self).__name__}.score needs at least one pair that is not a tie, got none")
        return float(pair_credit(self.margins(labelled)).mean())

    def fit_members(
        self: Self,
        preferences: EmbeddedPreferences,
        seeds: Sequence[int],
        weight: NDArray[np.float64] | None = None,
        masks: NDArray[np.bool_] | None = None,
    ) -> list[Self]:
        """Fit several models of this kind for an ensemble; heads that can train them in one pass override it.

        Parameters
        ----------
        preferences : EmbeddedPreferences
        seeds : sequence of int
            ``random_state`` of each member and of the models inside it, where they have one.
        weight : ndarray of shape (n_pairs, n_members), optional
            Pair weights of each member, in place of those of the preferences.
        masks : ndarray of shape (n_members, n_features), bool, optional
            Features that each member may read, of :meth:`member_features`.

        Returns
        -------
        list of RewardModel
            Fitted; this model itself is not changed.
        """
        name = type(self).__name__
        if masks is not None:
            raise InvalidInputError(f"{name} cannot leave features out by member; choose seeds or a bootstrap")
        # the models inside draw too: an expert's first weights, not only the composite's own choices
        seeded = [key for key in self.get_params() if key.rpartition("__")[2] == "random_state"]
        members = []
        for m, seed in enumerate(seeds):
            model: Self = clone(self)
            model.set_params(**dict.fromkeys(seeded, int(seed)))
            if weight is None:
                members.append(model.fit(preferences))
                continue
            # pairs that a member did not draw are not there for it: no fold and no domain is made of them
            drawn = weight[:, m] > 0
            members.append(model.fit(preferences[drawn].weighted(weight[drawn, m])))
        return members

    def member_features(self, preferences: EmbeddedPreferences) -> int:
        """Number of features among which the ``masks`` of :meth:`fit_members` choose.

        Raises
        ------
        InvalidInputError
            Where the model cannot leave features out.
        """
        raise InvalidInputError(
            f"{type(self).__name__} cannot leave features out by member; choose seeds or a bootstrap"
        )

    def required_views(self) -> tuple[str, ...]:
        """Names of the views a fitted model reads, sorted: what must be encoded before it can predict."""
        return ()

    def _as_responses(self, matrix: NDArray[Any]) -> EmbeddedResponses:
        view = self._single_view()
        if view is None:
            raise InvalidInputError(
                f"{type(self).__name__} needs prompts or several views, so a bare array is not enough; "
                "pass EmbeddedResponses"
            )
        if matrix.ndim != 2:
            raise InvalidInputError(f"{type(self).__name__}.predict expects shape (n, dim), got {matrix.shape}")
        return EmbeddedResponses({view: matrix}, np.zeros(len(matrix), dtype=np.intp))

    def _single_view(self) -> str | None:
        """Name the one response view that suffices for a prediction, or None."""
        return None


def check_preferences(preferences: object, who: str, *, need_pairs: bool = True) -> EmbeddedPreferences:
    """Raise unless ``preferences`` is an :class:`EmbeddedPreferences` with at least one pair."""
    if not isinstance(preferences, EmbeddedPreferences):
        raise InvalidInputError(
            f"{who} expects EmbeddedPreferences, got {type(preferences).__name__}; build them with "
            "embedrm.encode(dataset) or EmbeddedPreferences.from_arrays(...)"
        )
    if need_pairs and not len(preferences):
        raise InvalidInputError(f"{who} needs at least one pair, got none; check the split and the filters")
    return preferences


def check_finite(rewards: NDArray[np.float64], who: str) -> NDArray[np.float64]:
    """Raise where a reward is not finite: the vectors behind it hold NaN or infinity."""
    n_bad = int((~np.isfinite(rewards)).sum())
    if n_bad:
        raise InvalidInputError(
            f"{who} met vectors that give no finite reward for {n_bad} of {len(rewards)} responses; "
            "look for NaN or infinity in the embeddings (embedrm cache verify)"
        )
    return rewards
