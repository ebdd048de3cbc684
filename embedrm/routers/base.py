"""The contract of a router, and how one is fitted on a comparison graph."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from embedrm.errors import InvalidInputError
from embedrm.preferences import EmbeddedPreferences
from embedrm.reward_model import check_preferences
from embedrm.views import select_views

Self = TypeVar("Self", bound="Router")


class Router(BaseEstimator):
    """Base class: a classifier of prompt vectors into domains.

    A subclass implements ``fit`` and ``predict_proba`` on plain arrays. It sees the prompt only: with one gate for both
    responses of a pair, the free constants of the experts cancel in the margin.

    Parameters
    ----------
    view : str, optional
        Prompt view it reads: a layer such as ``"6"`` or ``"final"``, or a full name. The last prompt view present where
        absent.

    Attributes
    ----------
    classes_ : ndarray of shape (n_domains,), str
        The domains, sorted; the columns of ``predict_proba``.
    """

    registered_name: str
    view: str | None = None
    classes_: NDArray[np.str_]

    def fit(self: Self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Fit on prompt vectors (n_prompts, dim) and their domains (n_prompts,); groups keep folds honest."""
        raise TypeError(f"{type(self).__name__} does not implement fit")

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probability of each domain; shape (n_prompts, n_domains), rows sum to one."""
        raise TypeError(f"{type(self).__name__} does not implement predict_proba")

    def predict(self, X: ArrayLike) -> NDArray[np.str_]:
        """Most probable domain of each prompt; equal probabilities go to the first by name. Shape (n_prompts,)."""
        return self.classes_[np.argmax(self.predict_proba(X), axis=1)]

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """Share of prompts whose domain is found."""
        return float((self.predict(X) == np.asarray(y).astype(str)).mean())

    def accept(self, X: ArrayLike) -> NDArray[np.bool_]:
        """Say which prompts the router is willing to route; all of them, unless a router has a reject option."""
        return np.ones(len(np.asarray(X)), dtype=bool)

    def resolve_view(self, views: Any) -> str:
        """Name of the prompt view to read, among those present."""
        if self.view is not None:
            return select_views(self.view, views, "prompt", f"{type(self).__name__}(view=...)")[0]
        return select_views(None, views, "prompt", type(self).__name__)[-1]


def prompt_examples(
    preferences: EmbeddedPreferences, view: str, who: str
) -> tuple[NDArray[Any], NDArray[np.str_], NDArray[np.str_]]:
    """Unique prompts of the pairs, each once: vectors (n, dim), domains (n,), groups (n,)."""
    prefs = check_preferences(preferences, who)
    rows = prefs.active_prompts
    responses = prefs.responses
    return responses.view(view)[rows], responses.domain[rows], responses.group[rows]


def check_vectors(X: ArrayLike, who: str, n_features: int | None = None) -> NDArray[np.floating[Any]]:
    """Return X as a finite float matrix of the expected width, or raise."""
    matrix = np.asarray(X)
    if matrix.ndim != 2:
        raise InvalidInputError(f"{who} expects prompt vectors of shape (n, dim), got {matrix.shape}")
    if n_features is not None and matrix.shape[1] != n_features:
        raise InvalidInputError(
            f"{who} was fitted on {n_features} columns, got {matrix.shape[1]}; use the encoder and layer it was trained with"
        )
    if not np.isfinite(matrix).all():
        raise InvalidInputError(f"{who} expects finite prompt vectors, got NaN or infinity; look at the embeddings")
    return matrix
