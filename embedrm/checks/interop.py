"""Laws of working inside scikit-learn's model selection."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, LeaveOneGroupOut, cross_val_score, learning_curve

from embedrm.checks.base import law, require, same
from embedrm.checks.data import example_preferences
from embedrm.errors import InvalidInputError
from embedrm.preferences import EmbeddedResponses
from embedrm.reward_model import RewardModel


@law("cross_val_score with GroupKFold gives the scores of fitting and scoring by hand")
def cross_validation(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    folds = GroupKFold(3)
    scores = cross_val_score(model, preferences, groups=preferences.groups, cv=folds, error_score="raise")
    by_hand = [
        clone(model).fit(preferences[train]).score(preferences[test])
        for train, test in folds.split(preferences, groups=preferences.groups)
    ]
    same(scores, by_hand, 0.0, "scores of cross_val_score")


@law("leave-one-domain-out works: a model scores a domain it has not seen")
def leave_one_domain_out(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = cross_val_score(model, preferences, groups=preferences.domain, cv=LeaveOneGroupOut())
    require(len(scores) == 3, f"expected three scores, got {len(scores)}")
    require(np.isfinite(scores).all(), "a domain left out could not be scored")


@law("GridSearchCV searches over any parameter, and its best model predicts")
def grid_search(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    name, value = next(iter(model.get_params(deep=False).items()))
    search = GridSearchCV(model, {name: [value]}, cv=GroupKFold(2), error_score="raise")
    search.fit(preferences, groups=preferences.groups)
    expected = clone(model).fit(preferences).margins(preferences)
    same(search.best_estimator_.margins(preferences), expected, 0.0, "margins of the best model")
    require(0.0 <= search.best_score_ <= 1.0, f"the best score is {search.best_score_}")


@law("learning_curve works: it passes y=None to fit and score")
def learning_curves(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    sizes, train_scores, test_scores = learning_curve(
        model,
        preferences,
        None,
        groups=preferences.groups,
        cv=GroupKFold(2),
        train_sizes=[0.7, 1.0],
        shuffle=True,
        random_state=0,
        error_score="raise",
    )
    require(len(sizes) == 2, f"expected two sizes, got {len(sizes)}")
    require(np.isfinite(train_scores).all(), "a training score is not finite")
    require(np.isfinite(test_scores).all(), "a test score is not finite")


@law("a bare matrix is scored as the model's only view, or refused where it needs more", tolerance=1e-9)
def bare_matrix(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    matrix = preferences.responses.view("response:final")
    alone = EmbeddedResponses({"response:final": matrix}, np.zeros(len(matrix), dtype=np.intp))
    model.fit(preferences)
    try:
        rewards = model.predict(matrix)
    except InvalidInputError as error:
        require("EmbeddedResponses" in str(error), f"the error for a bare matrix does not say what to pass: {error}")
    else:
        require(model.required_views() == ("response:final",), "a bare matrix was scored by a model that reads more")
        same(rewards, model.predict(alone), tolerance, "rewards of a bare matrix")
