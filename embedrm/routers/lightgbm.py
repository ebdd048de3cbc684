"""Boosted trees on prompt vectors, kept as LightGBM's own text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError
from embedrm.numerics.trees import tree_parameters
from embedrm.routers import ROUTERS
from embedrm.routers._calibrated import UNSEEN, Array, CalibratedRouter, whole_number


@ROUTERS.register("lightgbm")
class LightGBMRouter(CalibratedRouter):
    r"""Gradient boosted trees with the softmax loss; raw scores s(x), and :math:`p = \mathrm{softmax}(s / T)`.

    Few and small trees: one direction of an embedding means little by itself, so that boosting finds domains later than a
    linear router does. Its raw scores are too sure; T, fitted out of fold, puts that right.

    Parameters
    ----------
    view : str, optional
        Prompt view; see :class:`embedrm.routers.base.Router`.
    n_trees : int
        Boosting rounds, with one tree a domain each.
    learning_rate : float in (0, 1]
    num_leaves : int
        Most leaves of a tree, at least 2.
    min_data_in_leaf : int, optional
        One in ten of the prompts a domain has on average, from 1 to 20, where absent.
    l2 : float
        On half the squared values of leaves, against the mean loss: LightGBM's ``lambda_l2`` is this times the summed
        weight of the prompts.
    feature_fraction : float in (0, 1]
        Share of the columns that a tree may read.
    calibrate : bool
        Fit T; otherwise T = 1.
    cv : int
        Folds for T, a refit each.
    class_weight : "balanced", mapping of domain to number, or None
        As in :class:`embedrm.routers.logistic.LogisticRouter`.
    threads : int, optional
        All where absent. Trees are grown with ``deterministic``, and row by row, so that it changes no bit.
    random_state : int
        Seed of the columns drawn.

    Attributes
    ----------
    booster_ : str
        The trees in LightGBM's text format; empty where no split was worth making, or all prompts are of one domain.
    present_ : ndarray of shape (n_present,), int
        Domains with prompts, as columns of the scores.
    prior_ : ndarray of shape (n_domains,)
        Log-shares of the domains, the scores where there are no trees.
    temperature_ : float
    classes_ : ndarray of shape (n_domains,)
    out_of_fold_ : dict

    References
    ----------
    Ke et al. (2017), "LightGBM: a highly efficient gradient boosting decision tree".
    """

    def __init__(
        self,
        view: str | None = None,
        n_trees: int = 40,
        learning_rate: float = 0.2,
        num_leaves: int = 7,
        min_data_in_leaf: int | None = None,
        l2: float = 1e-3,
        feature_fraction: float = 0.2,
        calibrate: bool = True,
        cv: int = 3,
        class_weight: str | Mapping[str, float] | None = None,
        threads: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.view = view
        self.n_trees = n_trees
        self.learning_rate = learning_rate
        self.num_leaves = num_leaves
        self.min_data_in_leaf = min_data_in_leaf
        self.l2 = l2
        self.feature_fraction = feature_fraction
        self.calibrate = calibrate
        self.cv = cv
        self.class_weight = class_weight
        self.threads = threads
        self.random_state = random_state

    def _check_parameters(self) -> None:
        who = "LightGBMRouter"
        for name, least in (("n_trees", 1), ("num_leaves", 2), ("random_state", 0)):
            if not whole_number(getattr(self, name), least):
                raise InvalidInputError(
                    f"{who} needs {name} to be a whole number >= {least}, got {getattr(self, name)!r}"
                )
        for name in ("min_data_in_leaf", "threads"):
            if getattr(self, name) is not None and not whole_number(getattr(self, name), 1):
                raise InvalidInputError(
                    f"{who} needs {name} to be a whole number >= 1 or None, got {getattr(self, name)!r}"
                )
        for name in ("learning_rate", "feature_fraction"):
            if not 0 < getattr(self, name) <= 1:
                raise InvalidInputError(f"{who} needs {name} in (0, 1], got {getattr(self, name)!r}")
        if not (np.isfinite(self.l2) and self.l2 >= 0):
            raise InvalidInputError(f"{who} needs l2 to be a number >= 0, got {self.l2!r}")

    def _learn(
        self, matrix: NDArray[Any], codes: NDArray[np.intp], weight: Array, n_domains: int, setting: Any
    ) -> None:
        import lightgbm

        totals = np.bincount(codes, weights=weight, minlength=n_domains)
        self.present_ = np.flatnonzero(totals > 0)
        self.prior_ = np.full(n_domains, UNSEEN)
        self.prior_[self.present_] = np.log(totals[self.present_] / totals.sum())
        self.booster_ = ""
        if len(self.present_) == 1:
            return
        known = weight > 0
        local = np.searchsorted(self.present_, codes[known])
        smallest = min(20, max(1, int(known.sum()) // (10 * len(self.present_))))
        parameters = {
            "objective": "multiclass",
            "num_class": len(self.present_),
            "learning_rate": float(self.learning_rate),
            "num_leaves": int(self.num_leaves),
            "min_data_in_leaf": smallest if self.min_data_in_leaf is None else int(self.min_data_in_leaf),
            "lambda_l2": float(self.l2) * float(weight[known].sum()),
            "feature_fraction": float(self.feature_fraction),
            "max_bin": 63,
            "seed": int(self.random_state),
            "deterministic": True,
            "force_row_wise": True,
            "feature_pre_filter": False,
            "verbosity": -1,
            "num_threads": 0 if self.threads is None else int(self.threads),
        }
        try:
            data = lightgbm.Dataset(_wide(matrix[known]), local, weight=weight[known], params=parameters)
            data.construct()
            if not any(data.feature_num_bin(j) > 1 for j in range(matrix.shape[1])):
                return
            self.booster_ = lightgbm.train(parameters, data, num_boost_round=int(self.n_trees)).model_to_string()
        except lightgbm.basic.LightGBMError as error:
            raise InvalidInputError(
                f"LightGBMRouter: LightGBM {lightgbm.__version__} stopped on {len(matrix)} prompts in "
                f"{len(self.present_)} domains ({error}); see the parameters it was given"
            ) from error

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of the trees: ``trees``, ``leaves``, ``thresholds``, and the ``total`` of the last two."""
        return tree_parameters(self.booster_)

    def _log_scores(self, matrix: NDArray[Any]) -> Array:
        if not self.booster_ or not len(matrix):
            return np.tile(self.prior_, (len(matrix), 1))
        scores = np.full((len(matrix), len(self.prior_)), UNSEEN)
        threads = 0 if self.threads is None else int(self.threads)
        scores[:, self.present_] = _parsed(self.booster_).predict(_wide(matrix), raw_score=True, num_threads=threads)
        return scores


def _wide(matrix: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(matrix, dtype=np.float32 if matrix.dtype == np.float16 else matrix.dtype)


@lru_cache(maxsize=8)
def _parsed(text: str) -> Any:
    """Read a booster from its text; kept for the next predictions."""
    import lightgbm

    return lightgbm.Booster(model_str=text)
