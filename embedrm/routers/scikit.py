"""Any classifier of scikit-learn as a router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.utils.validation import has_fit_parameter

from embedrm.errors import InvalidInputError
from embedrm.routers import ROUTERS
from embedrm.routers._calibrated import UNSEEN, Array, CalibratedRouter
from embedrm.routers._skops import from_bytes, to_bytes


@ROUTERS.register("sklearn")
class SklearnRouter(CalibratedRouter):
    r"""A scikit-learn classifier's log-probabilities or decision values s(x), and :math:`p = \mathrm{softmax}(s / T)`.

    The estimator is cloned. Its log-probabilities are :math:`\log\frac{n q_d + 1}{n + D}` for its probability q, the n
    prompts and D domains it was fitted on, so that a forest's zero is what n prompts can support and not certainty (the
    rule of succession). Without ``predict_proba``, s is its ``decision_function``; without either, its vote counts as
    probability one. T is fitted to out-of-fold scores of refits, so that any of them gives calibrated probabilities.

    Saving needs the extra ``skops``: the estimator is kept in its format, without pickle, and only types of scikit-learn are
    trusted in it. Without skops, or with an estimator that holds anything else (a function, another package's class),
    ``fit`` refuses, not ``save``. Predictions come from the kept form, before and after loading.

    Parameters
    ----------
    estimator : classifier, optional
        Of scikit-learn, or a pipeline of its parts that ends in one; ``LogisticRegression`` where absent. Give it a
        ``random_state`` if it draws. It is fitted on numbers of domains, so a ``class_weight`` of its own cannot name them.
    view : str, optional
        Prompt view; see :class:`embedrm.routers.base.Router`.
    calibrate : bool
        Fit T; otherwise T = 1.
    cv : int
        Folds for T, a refit each.
    class_weight : "balanced", mapping of domain to number, or None
        As in :class:`embedrm.routers.logistic.LogisticRouter`. Handed on as ``sample_weight``, which the estimator must
        take.

    Attributes
    ----------
    estimator_bytes_ : ndarray of shape (n,), uint8
        The fitted estimator in skops' format; empty with one domain alone.
    present_ : ndarray of shape (n_present,), int
        Domains it was fitted on, as columns of the scores.
    n_prompts_, n_domains_ : int
    temperature_ : float
    classes_ : ndarray of shape (n_domains,)
    out_of_fold_ : dict
    """

    def __init__(
        self,
        estimator: BaseEstimator | None = None,
        view: str | None = None,
        calibrate: bool = True,
        cv: int = 5,
        class_weight: str | Mapping[str, float] | None = None,
    ) -> None:
        self.estimator = estimator
        self.view = view
        self.calibrate = calibrate
        self.cv = cv
        self.class_weight = class_weight

    @property
    def estimator_(self) -> Any:
        """The fitted estimator, None with one domain alone; its classes are rows of ``classes_``."""
        return from_bytes(self.estimator_bytes_, "SklearnRouter") if len(self.estimator_bytes_) else None

    def _template(self) -> Any:
        if self.estimator is not None:
            return clone(self.estimator)
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=500)

    def _check_parameters(self) -> None:
        given = self.estimator
        if given is not None and not (hasattr(given, "get_params") and is_classifier(given)):
            raise InvalidInputError(
                f"SklearnRouter needs estimator to be a classifier of scikit-learn, got {type(given).__name__}"
            )
        # what cannot be kept is refused before anything is fitted
        if given is not None:
            to_bytes(given, "SklearnRouter")

    def _learn(
        self, matrix: NDArray[Any], codes: NDArray[np.intp], weight: Array, n_domains: int, setting: Any
    ) -> None:
        known = weight > 0
        self.n_domains_ = n_domains
        self.present_ = np.unique(codes[known])
        self.n_prompts_ = int(known.sum())
        self.estimator_bytes_ = np.zeros(0, dtype=np.uint8)
        if len(self.present_) > 1:
            self.estimator_bytes_ = to_bytes(self._fitted(matrix[known], codes[known], weight[known]), "SklearnRouter")

    def _fitted(self, matrix: NDArray[Any], codes: NDArray[np.intp], weight: Array) -> Any:
        model = self._template()
        if (weight == weight[0]).all():
            return model.fit(matrix, codes)
        if not has_fit_parameter(model, "sample_weight"):
            raise InvalidInputError(
                f"the fit of {type(model).__name__} takes no sample_weight, so SklearnRouter cannot weigh prompts or "
                "domains with it; leave class_weight and prompt weights out, or take another estimator"
            )
        return model.fit(matrix, codes, sample_weight=weight)

    def _log_scores(self, matrix: NDArray[Any]) -> Array:
        out = np.full((len(matrix), self.n_domains_), UNSEEN)
        model = self.estimator_
        if model is None:
            out[:, self.present_] = 0.0
        elif len(matrix):
            columns = np.asarray(model.classes_, dtype=np.intp)
            out[:, columns] = _scores(model, matrix, self.n_prompts_)
        return out

    def saved_params(self) -> dict[str, Any]:
        """Parameters with the estimator as bytes, for saving."""
        parameters: dict[str, Any] = self.get_params(deep=False)
        if self.estimator is not None:
            parameters["estimator"] = to_bytes(self.estimator, "SklearnRouter")
        return parameters

    @classmethod
    def from_saved_params(cls, **parameters: Any) -> SklearnRouter:
        """Undo :meth:`saved_params`."""
        if parameters.get("estimator") is not None:
            parameters["estimator"] = clone(from_bytes(parameters["estimator"], "SklearnRouter"))
        return cls(**parameters)


def _scores(model: Any, matrix: NDArray[Any], n_prompts: int) -> Array:
    """Log-scores of the estimator's classes; (n, n_classes)."""
    n_classes = len(model.classes_)
    if hasattr(model, "predict_proba"):
        p = np.asarray(model.predict_proba(matrix), dtype=np.float64)
    elif hasattr(model, "decision_function"):
        values = np.asarray(model.decision_function(matrix), dtype=np.float64)
        return np.stack([-values, values], axis=1) / 2.0 if values.ndim == 1 else values
    else:
        p = (np.asarray(model.predict(matrix))[:, None] == model.classes_).astype(np.float64)
    smoothed: Array = np.log((n_prompts * p + 1.0) / (n_prompts + n_classes))
    return smoothed
