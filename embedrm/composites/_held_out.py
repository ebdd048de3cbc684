"""Margins of pairs by models that have not seen their prompts: what a calibration is fitted on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from embedrm.errors import InvalidInputError
from embedrm.heads.linear import LinearHead
from embedrm.numerics.folds import group_folds
from embedrm.preferences import EmbeddedPreferences
from embedrm.reward_model import RewardModel


def out_of_fold_margins(
    fitted: RewardModel, preferences: EmbeddedPreferences, cv: int, who: str
) -> NDArray[np.float64]:
    """Margin of every pair by a refit on the folds that do not hold its prompt group; shape (n_pairs,).

    Pairs of weight zero are as good as absent: they make no fold, teach no refit, and their own margin is 0.

    Parameters
    ----------
    fitted : RewardModel
        Fitted on all these pairs; its parameters are those of the refits.
    preferences : EmbeddedPreferences
    cv : int
        Folds, at least 2; with fewer prompt groups there are as many folds as groups.
    who : str
        Who asks, for the errors.

    Raises
    ------
    InvalidInputError
        Where pairs of positive weight are none, or of fewer than two prompt groups.
    """
    template = _for_refits(fitted)
    counted = _counted(preferences.weight > 0, who)
    prefs = preferences[counted]
    margins = np.zeros(len(preferences))
    for train, held_out in group_folds(prefs.groups, cv, who, prefs.weight):
        margins[counted[held_out]] = clone(template).fit(prefs[train]).margins(prefs[held_out])
    return margins


def fit_and_hold_out(
    template: RewardModel, preferences: EmbeddedPreferences, cv: int, who: str
) -> tuple[RewardModel, NDArray[np.float64]]:
    """Fit a clone of the template, and return it with what :func:`out_of_fold_margins` gives for it.

    A linear head that chooses its penalty on as many folds has fitted them already, and its margins there are taken; they
    are those of the refits to the tolerance of its folds.
    """
    model: RewardModel = clone(template)
    if type(model) is LinearHead and model.l2 == "cv" and model.cv == cv:
        return model.fit_and_hold_out(preferences)
    model.fit(preferences)
    return model, out_of_fold_margins(model, preferences, cv, who)


def members_out_of_fold(
    template: RewardModel,
    members: Sequence[RewardModel],
    preferences: EmbeddedPreferences,
    seeds: Sequence[int],
    weight: NDArray[np.float64] | None,
    masks: NDArray[np.bool_] | None,
    cv: int,
    who: str,
) -> NDArray[np.float64]:
    """Out-of-fold margins of several members, each fold's refits in one pass; shape (n_pairs, n_members).

    Folds are those of the pairs with their own weights, the same for all members. A member to which one of them would leave
    nothing to learn from, or that chose a penalty of its own, has folds by its own weights, and refits of its own.

    Parameters
    ----------
    template : RewardModel
        What ``fit_members`` made the members from.
    members : sequence of RewardModel
        Fitted on all these pairs.
    preferences : EmbeddedPreferences
    seeds, weight, masks
        As ``fit_members`` was given them.
    cv, who
        As in :func:`out_of_fold_margins`.
    """
    drawn = preferences.weight[:, None] if weight is None else weight
    counted = _counted(drawn.max(axis=1) > 0, who)
    prefs, drawn = preferences[counted], drawn[counted]
    folds = list(group_folds(prefs.groups, cv, who, prefs.weight if prefs.weight.any() else None))
    alike = all(_chosen(member) == _chosen(members[0]) for member in members)
    taught = np.all([drawn[train].sum(axis=0) > 0 for train, _ in folds], axis=0)
    shared = np.flatnonzero(np.broadcast_to(taught & alike, len(members)))
    margins = np.zeros((len(preferences), len(members)))
    refit = _for_refits(members[0], template)
    for train, held_out in folds if len(shared) else ():
        refits = refit.fit_members(
            prefs[train],
            [seeds[m] for m in shared.tolist()],
            None if weight is None else drawn[np.ix_(train, shared)],
            None if masks is None else masks[shared],
        )
        for m, one in zip(shared, refits):
            margins[counted[held_out], m] = one.margins(prefs[held_out])
    for m in np.setdiff1d(np.arange(len(members)), shared):
        own = preferences if weight is None else preferences.weighted(weight[:, m])
        mask = None if masks is None else masks[[m]]
        margins[:, [m]] = members_out_of_fold(template, [members[m]], own, [seeds[m]], None, mask, cv, who)
    return margins


def _for_refits(fitted: RewardModel, template: RewardModel | None = None) -> RewardModel:
    """Return the unfitted model that is refitted on folds: the fitted one's parameters, or a template's."""
    model: RewardModel = clone(fitted if template is None else template)
    # Penalties are kept, not chosen again inside each fold: a calibration is for the model that predicts, whose margins
    # have the scale of its penalty, and one number chosen on all pairs tells a fold next to nothing of its own labels.
    # Choosing again multiplies the fits by the inner folds and the grid. It is still done where no parameter holds the
    # choice: members of an ensemble that chose differently.
    model.set_params(**_chosen(fitted))
    few = [name for name in model.get_params() if name.rpartition("__")[2] == "few_groups"]
    # what could be fitted on all groups is not refused on some of them
    model.set_params(**dict.fromkeys(few, "adapt"))
    return model


def _chosen(fitted: RewardModel) -> dict[str, float]:
    """Penalties that a fit chose, by their parameters: its own, those of named members, and those others agree on."""
    found = {"l2": float(getattr(fitted, "l2_", 0.0))} if getattr(fitted, "l2", None) == "cv" else {}
    if getattr(fitted, "members", None) is not None:
        for name, model in zip(getattr(fitted, "names_", []), getattr(fitted, "members_", [])):
            found |= {f"{name}__{key}": value for key, value in _chosen(model).items()}
    for name, inside in (("model", [getattr(fitted, "model_", None)]), ("member", getattr(fitted, "members_", []))):
        models = [model for model in inside if isinstance(model, RewardModel)]
        # a model that is absent is one by default, and has no parameters to set
        if models and getattr(fitted, name, None) is not None:
            first, *rest = [_chosen(model) for model in models]
            found |= {f"{name}__{key}": value for key, value in first.items() if all(first == other for other in rest)}
    return found


def _counted(has_weight: NDArray[np.bool_], who: str) -> NDArray[np.intp]:
    if not has_weight.any():
        raise InvalidInputError(f"{who} needs pairs with positive weight to hold some of them out, got only zeros")
    return np.flatnonzero(has_weight)
