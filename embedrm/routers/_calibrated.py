"""What routers share that score domains and are calibrated out of fold: weights, folds, choice of settings, temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.numerics.calibration import fit_softmax_temperature
from embedrm.numerics.folds import group_folds
from embedrm.numerics.threads import allowed_threads, in_threads, threads_for
from embedrm.routers.base import Router, check_vectors

Array = NDArray[np.float64]
Self = TypeVar("Self", bound="CalibratedRouter")

UNSEEN = -30.0
"""Log-probability of a domain that a fold's training part does not have."""
BLOCK_ENTRIES = 2**22
"""Entries of the prompt matrix that are scored at once."""


class CalibratedRouter(Router):
    r"""A router with log-scores :math:`s_d(x)`, and :math:`p(d \mid x) = \mathrm{softmax}(s(x) / T)_d`.

    A subclass implements ``_learn`` and ``_log_scores``, and where it has candidates of a setting ``_settings``. The
    temperature T, and the setting, are chosen by the cross-entropy of out-of-fold scores, whole prompt groups held out. Held
    out prompts of a domain that the rest of the data does not have say nothing about a router that knows the domain: they
    are left out of that choice, and counted in ``out_of_fold_["unseen"]``. Prompts of weight zero are as good as absent:
    they make no fold, choose nothing and teach nothing; only their domains are among ``classes_``.
    """

    calibrate: bool
    cv: int
    class_weight: str | Mapping[str, float] | None
    parallel_folds: ClassVar[bool] = False
    """Whether folds may be fitted in threads beside each other: where products of matrices take nearly all the time."""

    def fit(
        self: Self,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit on prompt vectors (n_prompts, dim), domains (n_prompts,), prompt groups and weights (n_prompts,)."""
        who = type(self).__name__
        matrix = check_vectors(X, who)
        labels = np.asarray(y).astype(str)
        if labels.shape != (len(matrix),):
            raise InvalidInputError(f"{who} expects one domain for each of {len(matrix)} prompts, got {labels.shape}")
        self._check_parameters()
        settings = self._settings()
        self.n_features_in_ = matrix.shape[1]
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self.out_of_fold_: dict[str, float] = {}
        self.temperature_ = 1.0
        weight = self._weights(codes, sample_weight)
        group = np.arange(len(matrix)) if groups is None else np.asarray(groups)
        at_once = self._folds_at_once()
        # NumPy's and SciPy's BLAS bring a pool of threads each; on problems of this size, waiting for one another costs
        # several times the arithmetic
        with threads_for(0):
            chosen = settings[0]
            if len(self.classes_) > 1 and (self.calibrate or len(settings) > 1):
                chosen = self._choose(*_counted(matrix, codes, group, weight), settings, at_once)
            self._learn(matrix, codes, weight, len(self.classes_), chosen)
        return self

    def predict_proba(self, X: ArrayLike) -> Array:
        """Calibrated probability of each domain; shape (n_prompts, n_domains)."""
        check_is_fitted(self, "temperature_")
        matrix = check_vectors(X, type(self).__name__, self.n_features_in_)
        out = np.empty((len(matrix), len(self.classes_)))
        step = max(1, BLOCK_ENTRIES // self.n_features_in_)
        for start in range(0, len(matrix), step):
            part = slice(start, start + step)
            out[part] = softmax(self._log_scores(matrix[part]) / self.temperature_, axis=1)
        return out

    def out_of_fold_proba(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        cv: int = 5,
    ) -> Array:
        """As the base class; refits take the chosen setting and the temperature of the whole.

        Prompts of weight zero have taught this router nothing, and get its own probabilities.
        """
        check_is_fitted(self, "temperature_")
        matrix = check_vectors(X, type(self).__name__, self.n_features_in_)
        codes = np.searchsorted(self.classes_, np.asarray(y).astype(str))
        group = np.arange(len(matrix)) if groups is None else np.asarray(groups)
        if len(self.classes_) == 1:
            return np.ones((len(matrix), 1))
        weight = self._weights(codes, sample_weight)
        at_once = self._folds_at_once()
        with threads_for(0):
            scores, unseen = self._held_out(*_counted(matrix, codes, group, weight), [self._chosen()], cv, at_once)
        # left out before the softmax, or a high temperature would leave a share of the row with them
        shares = softmax(np.where(unseen, -np.inf, scores[0] / self.temperature_), axis=1)
        counted = weight > 0
        if counted.all():
            return shares
        out = np.empty((len(matrix), len(self.classes_)))
        out[counted], out[~counted] = shares, self.predict_proba(matrix[~counted])
        return out

    # -- what a subclass says of itself ----------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        """Raise InvalidInputError for a parameter that cannot be."""

    def _settings(self) -> Sequence[Any]:
        """Candidates of what is chosen on folds; one where nothing is."""
        return [None]

    def _chosen(self) -> Any:
        """Return the setting of a fitted router, as in :meth:`_settings`."""
        return None

    def _learn(
        self, matrix: NDArray[Any], codes: NDArray[np.intp], weight: Array, n_domains: int, setting: Any
    ) -> None:
        """Set the fitted attributes; ``weight`` has mean one, and some of the domains may have no prompt."""
        raise TypeError(f"{type(self).__name__} does not implement _learn")

    def _log_scores(self, matrix: NDArray[Any]) -> Array:
        """Log-scores s(x) of checked vectors; (n, n_domains)."""
        raise TypeError(f"{type(self).__name__} does not implement _log_scores")

    def _fold_scores(
        self,
        train: tuple[NDArray[Any], NDArray[np.intp], Array],
        held_out: NDArray[Any],
        n_domains: int,
        settings: Sequence[Any],
    ) -> Array:
        """Log-scores of held-out prompts under each setting; (n_settings, n, n_domains)."""
        out = np.empty((len(settings), len(held_out), n_domains))
        for k, setting in enumerate(settings):
            part = clone(self)
            part._learn(*train, n_domains, setting)
            out[k] = part._log_scores(held_out)
        return out

    # -- folds -----------------------------------------------------------------------------------------------------------

    def _choose(
        self,
        matrix: NDArray[Any],
        codes: NDArray[np.intp],
        groups: NDArray[Any],
        weight: Array,
        settings: Sequence[Any],
        at_once: int,
    ) -> Any:
        scores, unseen = self._held_out(matrix, codes, groups, weight, settings, self.cv, at_once)
        rows = np.flatnonzero(~unseen[np.arange(len(codes)), codes])
        self.out_of_fold_ = {"unseen": float(len(codes) - len(rows))}
        if not len(rows) or not weight[rows].sum() > 0:
            return settings[0]
        scores, codes, weight = scores[:, rows], codes[rows], weight[rows]
        best = (np.inf, 0, 1.0, 0.0)
        for k in range(len(settings)):
            temperature = fit_softmax_temperature(scores[k], codes, weight) if self.calibrate else 1.0
            own = log_softmax(scores[k] / temperature, axis=1)[np.arange(len(codes)), codes]
            accuracy = float(np.average(scores[k].argmax(axis=1) == codes, weights=weight))
            best = min(best, (-float(np.average(own, weights=weight)), k, temperature, accuracy))
        loss, chosen, self.temperature_, accuracy = best
        self.out_of_fold_ |= {"log_loss": loss, "accuracy": accuracy}
        return settings[chosen]

    def _held_out(
        self,
        matrix: NDArray[Any],
        codes: NDArray[np.intp],
        groups: NDArray[Any],
        weight: Array,
        settings: Sequence[Any],
        cv: int,
        at_once: int,
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Out-of-fold log-scores (n_settings, n, n_domains), and where a domain was unknown to the fold (n, n_domains).

        All weights are above zero, and folds are dealt by them.
        """
        n_domains = len(self.classes_)
        unseen = np.zeros((len(matrix), n_domains), dtype=bool)

        folds = list(group_folds(groups, cv, type(self).__name__, weight))
        for train, held_out in folds:
            unseen[held_out] = np.bincount(codes[train], weights=weight[train], minlength=n_domains) <= 0
        scores = self._scores_of_folds(matrix, codes, weight, folds, settings, at_once)
        scores[:, unseen] = -np.inf
        scores = log_softmax(scores, axis=2)
        scores[:, unseen] = UNSEEN
        return scores, unseen

    def _scores_of_folds(
        self,
        matrix: NDArray[Any],
        codes: NDArray[np.intp],
        weight: Array,
        folds: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
        settings: Sequence[Any],
        at_once: int,
    ) -> Array:
        """Log-scores of every prompt by the fold that holds it out, under each setting; (n_settings, n, n_domains)."""
        n_domains = len(self.classes_)
        scores = np.zeros((len(settings), len(matrix), n_domains))

        def fold(rows: tuple[NDArray[np.intp], NDArray[np.intp]]) -> None:
            train, held_out = rows
            own = weight[train] / weight[train].mean()
            scores[:, held_out] = self._fold_scores(
                (matrix[train], codes[train], own), matrix[held_out], n_domains, settings
            )

        in_threads(fold, folds, at_once)
        return scores

    def _folds_at_once(self) -> int:
        return allowed_threads() if self.parallel_folds else 1

    def _weights(self, codes: NDArray[np.intp], sample_weight: ArrayLike | None) -> Array:
        """Weight of each prompt, with mean one: what was given, times the weight of its domain."""
        who, n = type(self).__name__, len(codes)
        weight = np.ones(n) if sample_weight is None else np.array(sample_weight, dtype=np.float64)
        if weight.shape != (n,) or not np.isfinite(weight).all() or (weight < 0).any() or not weight.sum() > 0:
            raise InvalidInputError(
                f"{who} needs sample_weight to be {n} finite numbers >= 0 that are not all zero, got shape {weight.shape}; "
                "give one weight a prompt"
            )
        totals = np.bincount(codes, weights=weight, minlength=len(self.classes_))
        if self.class_weight == "balanced":
            weight *= np.divide(1.0, totals, out=np.zeros_like(totals), where=totals > 0)[codes]
        elif isinstance(self.class_weight, Mapping):
            for name in self.class_weight:
                if name not in self.classes_:
                    raise unknown_name(f"domain in class_weight of {who}:", name, self.classes_)
            factors = np.array([float(self.class_weight.get(str(name), 1.0)) for name in self.classes_])
            if not (np.isfinite(factors).all() and (factors > 0).all()):
                raise InvalidInputError(
                    f"{who} needs class_weight of finite numbers > 0, got {dict(self.class_weight)!r}"
                )
            weight *= factors[codes]
        elif self.class_weight is not None:
            raise InvalidInputError(
                f"{who} needs class_weight to be 'balanced', a mapping of domain to number, or None, got "
                f"{self.class_weight!r}"
            )
        return weight / weight.mean()


def _counted(
    matrix: NDArray[Any], codes: NDArray[np.intp], groups: NDArray[Any], weight: Array
) -> tuple[NDArray[Any], NDArray[np.intp], NDArray[Any], Array]:
    """Prompts of positive weight."""
    known = weight > 0
    return (
        (matrix, codes, groups, weight) if known.all() else (matrix[known], codes[known], groups[known], weight[known])
    )


def whole_number(value: object, least: int) -> bool:
    """Whether a parameter is a whole number of at least ``least``."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)


def mean_and_spread(matrix: NDArray[Any], weight: Array) -> tuple[Array, Array]:
    """Weighted mean and standard deviation of every column, each (dim,); the spread of a constant column is one."""
    if (weight == weight[0]).all():
        mean, spread = matrix.mean(axis=0, dtype=np.float64), matrix.std(axis=0, dtype=np.float64)
    else:
        mean = np.average(matrix, axis=0, weights=weight)
        spread = np.sqrt(np.average((matrix - mean) ** 2, axis=0, weights=weight))
    # the variation of such a column is rounding of its mean
    spread[spread <= 1e-6 * np.abs(mean)] = 1.0
    spread[spread == 0] = 1.0
    return mean, spread
