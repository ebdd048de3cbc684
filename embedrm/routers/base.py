"""The contract of a router, and how one is fitted on a comparison graph."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone

from embedrm.errors import InvalidInputError
from embedrm.numerics.folds import group_folds
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.reward_model import check_preferences
from embedrm.views import select_views

Self = TypeVar("Self", bound="Router")


class Router(BaseEstimator):
    """Base class: a classifier of prompt vectors into domains.

    A subclass implements ``fit`` and ``predict_proba`` on plain arrays. It sees the prompt only: with one gate for both
    responses of a pair, the free constants of the experts cancel in the margin. A ``fit`` that takes ``sample_weight``
    (n_prompts,) can be told how much each prompt counts.

    Parameters
    ----------
    view : str, optional
        Prompt views it reads, side by side: layers such as ``"6"``, ``"2,4,6"`` or ``"final"``, or full names. All prompt
        views present where absent.

    Attributes
    ----------
    classes_ : ndarray of shape (n_domains,), str
        The domains, sorted; the columns of ``predict_proba``.
    """

    registered_name: str
    view: str | None = None
    can_reject: bool = False
    """Whether ``accept`` may say no, so that somebody must answer for the prompts it leaves."""
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

    def out_of_fold_proba(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        cv: int = 5,
    ) -> NDArray[np.float64]:
        """Probabilities of the training prompts by refits that have not seen their groups.

        Parameters
        ----------
        X, y, groups, sample_weight
            What this router was fitted on.
        cv : int
            Folds, at least 2.

        Returns
        -------
        ndarray of shape (n_prompts, n_domains)
            Columns as in ``classes_``. A domain that a fold's refit has not seen has probability 0 there. Prompts of weight
            zero are in no fold: they have taught this router nothing, and get its own probabilities.
        """
        matrix, labels = np.asarray(X), np.asarray(y).astype(str)
        group = np.arange(len(matrix)) if groups is None else np.asarray(groups)
        weight = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        out = np.zeros((len(matrix), len(self.classes_)))
        counted = np.arange(len(matrix)) if weight is None else np.flatnonzero(weight > 0)
        if len(counted) < len(matrix):
            absent = np.setdiff1d(np.arange(len(matrix)), counted)
            out[absent] = self.predict_proba(matrix[absent])
        folds = group_folds(group[counted], cv, type(self).__name__, None if weight is None else weight[counted])
        for inside, outside in folds:
            train, held_out = counted[inside], counted[outside]
            extra = {} if weight is None else {"sample_weight": weight[train]}
            part = clone(self).fit(matrix[train], labels[train], group[train], **extra)
            out[np.ix_(held_out, np.searchsorted(self.classes_, part.classes_))] = part.predict_proba(matrix[held_out])
        return out

    def resolve_views(self, views: Any) -> list[str]:
        """Names of the prompt views to read, among those present."""
        who = type(self).__name__ if self.view is None else f"{type(self).__name__}(view=...)"
        return list(select_views(self.view, views, "prompt", who))


def prompt_vectors(responses: EmbeddedResponses, views: Sequence[str], rows: Rows) -> NDArray[np.floating[Any]]:
    """Vectors of some prompts in the views that a router reads, side by side; (n, dim)."""
    # all of them in order need no copy
    whole = len(rows) == responses.n_prompts and np.array_equal(rows, np.arange(len(rows)))
    parts = [responses.view(view) if whole else responses.view(view)[rows] for view in views]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def prompt_examples(
    preferences: EmbeddedPreferences, views: Sequence[str], who: str
) -> tuple[NDArray[Any], NDArray[np.str_], NDArray[np.str_]]:
    """Unique prompts of the pairs, each once: vectors (n, dim), domains (n,), groups (n,)."""
    prefs = check_preferences(preferences, who)
    rows = prefs.active_prompts
    responses = prefs.responses
    return prompt_vectors(responses, views, rows), responses.domain[rows], responses.group[rows]


def prompt_pair_weights(preferences: EmbeddedPreferences) -> NDArray[np.float64]:
    """Summed weight of the pairs of each prompt, in the order of :func:`prompt_examples`; shape (n,).

    A pair across prompts counts for both, one half each.
    """
    rows = preferences.active_prompts
    of_pair = np.searchsorted(rows, preferences.responses.prompt_of[preferences.pairs])
    half = np.repeat(0.5 * preferences.weight, 2)
    return np.bincount(of_pair.ravel(), weights=half, minlength=len(rows)).astype(np.float64)


def takes_weights(router: Router) -> bool:
    """Whether a router's ``fit`` has the parameter ``sample_weight``."""
    return "sample_weight" in inspect.signature(router.fit).parameters


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
