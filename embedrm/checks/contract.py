"""Laws of the interface: parameters, forms of input and output, saving, and errors."""

from __future__ import annotations

import inspect
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError

from embedrm.checks.base import law, require, same
from embedrm.checks.data import DIM, example_preferences, map_views, with_pairs, with_responses
from embedrm.errors import InvalidInputError
from embedrm.numerics.ties import pair_credit
from embedrm.persistence import load_model, save_model
from embedrm.reward_model import RewardModel


def _fitted_names(model: BaseEstimator) -> list[str]:
    return [name for name in vars(model) if name.endswith("_") and not name.startswith("_")]


def _nested(model: BaseEstimator) -> list[BaseEstimator]:
    return [value for value in model.get_params(deep=True).values() if isinstance(value, BaseEstimator)]


def _message_of(call: Any, *arguments: Any) -> str:
    """Message of the InvalidInputError that a call must raise."""
    try:
        call(*arguments)
    except InvalidInputError as error:
        return str(error)
    require(False, "no InvalidInputError was raised")
    return ""


@law("the constructor stores its parameters, the same objects, and does nothing else; clone and set_params keep them")
def parameters_are_stored(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    cls = type(model)
    signature = inspect.signature(cls.__init__)
    parameters = {name: p for name, p in signature.parameters.items() if name != "self"}
    marks = {name: object() for name in parameters}
    built = cls(**marks)
    wrong = [name for name in parameters if built.get_params(deep=False).get(name) is not marks[name]]
    require(not wrong, f"the constructor changed or dropped {', '.join(wrong)}")
    require(set(vars(built)) == set(parameters), "the constructor sets attributes that are not parameters")
    copy = clone(model)
    require(repr(copy) == repr(model), "a clone has other parameters")
    copy.set_params(**model.get_params(deep=False))
    require(repr(copy) == repr(model), "set_params(**get_params()) changed the model")


@law("fit returns the model itself, and changes no parameter, its own or a nested model's")
def fit_leaves_parameters(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    before, nested = repr(model), _nested(model)
    require(model.fit(preferences) is model, "fit did not return self")
    require(repr(model) == before, "fit changed a parameter")
    fitted = [type(part).__name__ for part in nested if _fitted_names(part)]
    require(not fitted, f"fit fitted the parameter(s) {', '.join(fitted)} instead of a clone")
    require(not _fitted_names(clone(model)), "a clone of a fitted model is fitted")
    require(_fitted_names(model), "fit set no attribute that ends in an underscore")


@law("predict gives one finite float64 for each response, margins one for each pair, score their pairwise accuracy")
def forms_of_output(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    model.fit(preferences)
    rewards, margins = model.predict(preferences), model.margins(preferences)
    for what, values, n in (("rewards", rewards, preferences.responses.n_responses), ("margins", margins, 0)):
        shape = (n or len(preferences),)
        require(type(values) is np.ndarray, f"{what} are a {type(values).__name__}, expected numpy.ndarray")
        require(values.shape == shape, f"{what} have shape {values.shape}, expected {shape}")
        require(values.dtype == np.float64, f"{what} are {values.dtype}, expected float64")
        require(np.isfinite(values).all(), f"{what} are not all finite")
    same(model.predict(preferences.responses), rewards, 0.0, "rewards of responses and of their preferences")
    score = model.score(preferences)
    require(isinstance(score, float), f"score is a {type(score).__name__}, expected float")
    require(score == pair_credit(margins).mean(), "score is not the mean credit of the margins")


@law("margins gather one predict", tolerance=1e-9)
def margins_gather_rewards(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    rewards = model.fit(preferences).predict(preferences)
    chosen, rejected = preferences.pairs.T
    same(model.margins(preferences), rewards[chosen] - rewards[rejected], tolerance, "margins")


@law("pairs labelled ties are left out of the score, and a score of ties alone is refused")
def ties_are_not_scored(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    model.fit(preferences)
    tied = np.arange(len(preferences)) % 3 == 0
    with_ties = with_pairs(preferences, outcome=np.where(tied, 0.5, 1.0))
    require(model.score(with_ties) == model.score(preferences[~tied]), "ties changed the score")
    message = _message_of(model.score, with_ties[tied])
    require("not a tie" in message, f"the error of a score without labelled pairs does not say why: {message}")


@law("a model saved and loaded gives the same rewards to the bit and has the same parameters; so does an unfitted one")
def saving_keeps_every_bit(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    with tempfile.TemporaryDirectory() as folder:
        unfitted, _ = load_model(save_model(model, Path(folder) / "unfitted"))
        require(repr(unfitted) == repr(model), "loading an unfitted model changed its parameters")
        require(not _fitted_names(unfitted), "loading an unfitted model gave a fitted one")
        model.fit(preferences)
        loaded, _ = load_model(save_model(model, Path(folder) / "fitted"))
        twice, _ = load_model(save_model(loaded, Path(folder) / "twice"))
    for again in (loaded, twice):
        require(type(again) is type(model), f"loading gave a {type(again).__name__}")
        require(repr(again) == repr(model), "loading changed a parameter")
        same(again.predict(preferences), model.predict(preferences), 0.0, "rewards after loading")
        same(again.margins(preferences), model.margins(preferences), 0.0, "margins after loading")
        same(again.fit(preferences).predict(preferences), model.predict(preferences), 0.0, "rewards of a loaded refit")


@law("an unfitted model refuses predict, margins and score with scikit-learn's NotFittedError")
def unfitted_is_refused(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    for name in ("predict", "margins", "score"):
        try:
            getattr(model, name)(preferences)
        except NotFittedError as error:
            require(
                type(model).__name__ in str(error), f"the error of an unfitted {name} does not name the model: {error}"
            )
        else:
            require(False, f"an unfitted model answered {name}")


@law("a view of another width than in training is refused; the message gives the view's reader and both widths")
def wrong_width_is_refused(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    views = model.fit(preferences).required_views()
    require(views, "the model reads no view, so no width is wrong")
    for view in views:
        whole = preferences.responses.views
        narrow = with_pairs(
            preferences, with_responses(preferences.responses, views={**whole, view: whole[view][:, :-1]})
        )
        for call in (model.margins, model.predict):
            message = _message_of(call, narrow)
            require(
                re.search(rf"^\w+ was fitted on .*\b{DIM} columns, got {DIM - 1}; ", message),
                f"the error for a narrow {view} is not 'X was fitted on ... {DIM} columns, got {DIM - 1}; ...': {message}",
            )


@law("a missing view is refused by name")
def missing_view_is_refused(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    views = model.fit(preferences).required_views()
    require(views, "the model reads no view, so none can be missing")
    for view in views:
        others = {name: m for name, m in preferences.responses.views.items() if name != view}
        message = _message_of(model.predict, with_responses(preferences.responses, views=others))
        require(repr(view) in message, f"the error for a missing {view} does not name it: {message}")


@law("required_views names every view that a prediction reads")
def required_views_suffice(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    margins = model.fit(preferences).margins(preferences)
    wanted = model.required_views()
    require(wanted == tuple(sorted(wanted)), "required_views are not sorted")
    few = with_responses(preferences.responses, views={name: preferences.responses.views[name] for name in wanted})
    same(model.margins(with_pairs(preferences, few)), margins, 0.0, "margins from the required views alone")


@law("fit refuses anything but preferences with at least one pair, and says what came")
def wrong_input_is_refused(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    for wrong in (np.zeros((4, DIM)), preferences.responses, None):
        message = _message_of(model.fit, wrong)
        require(
            type(wrong).__name__ in message, f"the error does not say that a {type(wrong).__name__} came: {message}"
        )
    require("at least one pair" in _message_of(model.fit, preferences[:0]), "the error of no pairs does not say so")
    model.fit(preferences)
    require("at least one pair" in _message_of(model.margins, preferences[:0]), "margins of no pairs are not refused")


@law("NaN or infinity in a vector that is read is refused, in fit and in predict")
def bad_numbers_are_refused(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    fitted = clone(model).fit(preferences)
    row = int(preferences.pairs[0, 0])
    for value in (np.nan, np.inf):

        def spoil(name: str, matrix: Any, value: float = value) -> Any:
            out = matrix.copy()
            if name == "response:final":
                out[row, 2] = value
            return out

        spoilt = map_views(preferences, spoil)
        with np.errstate(invalid="ignore"):
            require("NaN or infinity" in _message_of(fitted.margins, spoilt), "the error does not name NaN or infinity")
            require(
                "NaN or infinity" in _message_of(clone(model).fit, spoilt), "the error does not name NaN or infinity"
            )
