"""A reject option around any router: unsure, or nothing like the training prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.numerics.distances import BLOCK_ENTRIES, BLOCK_POINTS, nearest
from embedrm.numerics.folds import group_folds
from embedrm.routers import ROUTERS
from embedrm.routers._calibrated import mean_and_spread
from embedrm.routers.base import Router, check_vectors, takes_weights
from embedrm.routers.logistic import LogisticRouter

Array = NDArray[np.float64]

TARGETS = ("coverage", "accuracy")
OUTLIERS = ("centroid", "knn")
N_NEIGHBOURS = 5


@ROUTERS.register("rejecting")
class RejectingRouter(Router):
    r"""Another router that abstains where :math:`\max_d p(d \mid x) < t_{d^*}`, or x is far from every training prompt.

    Thresholds and the limit of distance are fitted to out-of-fold probabilities and distances of the training prompts, whole
    prompt groups held out. A routed model sends the prompts that ``accept`` leaves to its general head.

    Parameters
    ----------
    router : Router, optional
        Cloned and fitted; ``LogisticRouter()`` where absent.
    target : {"coverage", "accuracy"}
        What the thresholds promise: the share of prompts that are sure enough, or the share of these whose domain is right.
    level : float in (0, 1]
        That share. Under ``"accuracy"`` the lowest threshold that reaches it is taken, which is optimistic by the noise of
        as many prompts as there are.
    per_route : bool
        A threshold for each domain that prompts are routed to, each fulfilling the target on its own. Under ``"accuracy"`` a
        route that never reaches the level is closed (its threshold is infinite), and so is one that no training prompt takes
        out of fold, of whose accuracy nothing is known. Under ``"coverage"`` such a route has the threshold of all prompts
        together.
    outliers : {"centroid", "knn"} or None
        The distance: to the nearest mean prompt of a domain, columns in units of their spread within domains; or to the
        fifth nearest training prompt, columns in units of their spread. None: no prompt is too far.
    quantile : float in (0, 1)
        Share of the training prompts that are near enough.
    view : str, optional
        Prompt view of the router, in place of its own.
    cv : int
        Folds.

    Attributes
    ----------
    router_ : Router
    thresholds_ : ndarray of shape (n_domains,)
        Least probability that a prompt routed to each domain needs.
    limit_ : float
        Largest distance; infinite without ``outliers``.
    points_ : ndarray of shape (n_points, dim)
        Centroids, or training prompts, on the scale of distances. Empty without ``outliers``.
    centre_, spread_ : ndarray of shape (dim,)
    classes_ : ndarray of shape (n_domains,)
    out_of_fold_ : dict
        ``coverage``, ``accuracy`` of the accepted and ``accuracy_of_all``, of the training prompts out of fold.

    References
    ----------
    Chow (1970), "On optimum recognition error and reject tradeoff": with calibrated probabilities no other rule is more
    accurate at its coverage. The distance is for prompts of a kind for which probabilities mean nothing.
    """

    can_reject = True

    def __init__(
        self,
        router: Router | None = None,
        target: str = "coverage",
        level: float = 0.95,
        per_route: bool = False,
        outliers: str | None = "centroid",
        quantile: float = 0.99,
        view: str | None = None,
        cv: int = 5,
    ) -> None:
        self.router = router
        self.target = target
        self.level = level
        self.per_route = per_route
        self.outliers = outliers
        self.quantile = quantile
        self.view = view
        self.cv = cv

    def fit(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> RejectingRouter:
        """Fit the router, then thresholds and distances; prompts count by their weights in all of them.

        Prompts of weight zero are as good as absent: they are in no fold, and no threshold or distance is measured from
        them.
        """
        self._check_parameters()
        matrix, labels = check_vectors(X, "RejectingRouter"), np.asarray(y).astype(str)
        group = np.arange(len(matrix)) if groups is None else np.asarray(groups)
        inner = self._inner()
        if sample_weight is not None and not takes_weights(inner):
            raise InvalidInputError(
                f"the fit of {type(inner).__name__} takes no sample_weight, so prompts cannot weigh"
            )
        extra = {} if sample_weight is None else {"sample_weight": np.asarray(sample_weight, dtype=np.float64)}
        self.router_ = inner.fit(matrix, labels, group, **extra)
        self.classes_, self.n_features_in_ = self.router_.classes_, matrix.shape[1]
        weight = extra.get("sample_weight", np.ones(len(matrix)))
        if not (counted := weight > 0).all():
            matrix, labels, group, weight = matrix[counted], labels[counted], group[counted], weight[counted]
            extra = {"sample_weight": weight}
        # one domain leaves nothing to be unsure of, and nothing to hold out
        one = len(self.classes_) == 1
        p = (
            np.ones((len(matrix), 1))
            if one
            else self.router_.out_of_fold_proba(matrix, labels, group, cv=self.cv, **extra)
        )
        route = p.argmax(axis=1)
        sure, right = p.max(axis=1), self.classes_[route] == labels
        self.thresholds_ = self._thresholds(sure, right, route, weight)
        accepted = sure >= self.thresholds_[route]
        self.points_, self.limit_ = np.zeros((0, matrix.shape[1])), float(np.inf)
        self.centre_, self.spread_ = np.zeros(matrix.shape[1]), np.ones(matrix.shape[1])
        if self.outliers is not None:
            accepted &= self._learn_distances(matrix, labels, group, weight) <= self.limit_
        self.out_of_fold_ = {
            "coverage": float(np.average(accepted, weights=weight)),
            "accuracy": float(np.average(right[accepted], weights=weight[accepted])) if weight[accepted].sum() else 0.0,
            "accuracy_of_all": float(np.average(right, weights=weight)),
        }
        return self

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities of the router inside; shape (n_prompts, n_domains)."""
        check_is_fitted(self, "router_")
        return self.router_.predict_proba(check_vectors(X, "RejectingRouter", self.n_features_in_))

    def accept(self, X: ArrayLike) -> NDArray[np.bool_]:
        """Say which prompts are routed; shape (n_prompts,)."""
        p = self.predict_proba(X)
        accepted = p.max(axis=1) >= self.thresholds_[p.argmax(axis=1)]
        if self.outliers is not None:
            accepted &= self.distances(X) <= self.limit_
        return np.asarray(accepted) & self.router_.accept(X)

    def distances(self, X: ArrayLike) -> Array:
        """Distance of each prompt to what training has seen, in the unit of ``limit_``; shape (n_prompts,)."""
        check_is_fitted(self, "router_")
        if self.outliers is None:
            raise InvalidInputError("RejectingRouter(outliers=None) keeps no distances; choose 'centroid' or 'knn'")
        matrix = check_vectors(X, "RejectingRouter", self.n_features_in_)
        return _distances(matrix, self.points_, self.centre_, self.spread_, self._n_nearest())

    def resolve_views(self, views: Any) -> list[str]:
        """Views of the router inside."""
        return self._inner().resolve_views(views)

    def _inner(self) -> Router:
        inner: Router = LogisticRouter() if self.router is None else clone(self.router)
        return inner if self.view is None else inner.set_params(view=self.view)

    def _n_nearest(self) -> int:
        return N_NEIGHBOURS if self.outliers == "knn" else 1

    def _thresholds(self, sure: Array, right: NDArray[np.bool_], route: NDArray[np.intp], weight: Array) -> Array:
        n_domains = len(self.classes_)
        if not self.per_route:
            threshold = _threshold(sure, right, weight, self.target, self.level)
            if not np.isfinite(threshold):
                top = np.average(right[sure == sure.max()], weights=weight[sure == sure.max()])
                raise InvalidInputError(
                    f"RejectingRouter(target='accuracy', level={self.level}) is out of reach: even the surest of "
                    f"{len(sure)} training prompts are routed with accuracy {top:.3f} out of fold; lower the level, or "
                    "give a better router"
                )
            return np.full(n_domains, threshold)
        # of routes that nobody takes
        idle = _threshold(sure, right, weight, self.target, self.level) if self.target == "coverage" else np.inf
        thresholds = np.full(n_domains, idle)
        for d in np.unique(route):
            mine = route == d
            thresholds[d] = _threshold(sure[mine], right[mine], weight[mine], self.target, self.level)
        return thresholds

    def _learn_distances(
        self, matrix: NDArray[Any], labels: NDArray[Any], groups: NDArray[Any], weight: Array
    ) -> Array:
        """Set what distances are measured from, and their limit; return those of the training prompts out of fold."""
        far = np.zeros(len(matrix))
        for train, held_out in group_folds(groups, self.cv, "RejectingRouter(outliers=...)", weight):
            points, centre, spread = self._reference(matrix[train], labels[train], weight[train])
            far[held_out] = _distances(matrix[held_out], points, centre, spread, self._n_nearest())
        order = np.argsort(far, kind="stable")
        reached = np.cumsum(weight[order]) >= self.quantile * weight.sum() * (1.0 - 1e-12)
        self.limit_ = float(far[order][np.argmax(reached)])
        self.points_, self.centre_, self.spread_ = self._reference(matrix, labels, weight)
        return far

    def _reference(self, matrix: NDArray[Any], labels: NDArray[Any], weight: Array) -> tuple[Array, Array, Array]:
        """Points on the scale of distances, and that scale."""
        if self.outliers == "knn":
            centre, spread = mean_and_spread(matrix, weight)
            return (matrix - centre) / spread, centre, spread
        names, code = np.unique(labels, return_inverse=True)
        means = np.stack([mean_and_spread(matrix[code == d], weight[code == d])[0] for d in range(len(names))])
        _, spread = mean_and_spread(matrix - means[code], weight)
        centre = means.mean(axis=0)
        return (means - centre) / spread, centre, spread

    def _check_parameters(self) -> None:
        who = "RejectingRouter"
        if self.router is not None and not isinstance(self.router, Router):
            raise InvalidInputError(f"{who} needs router to be a router, got {type(self.router).__name__}")
        if self.target not in TARGETS:
            raise unknown_name("target", self.target, TARGETS)
        if self.outliers is not None and self.outliers not in OUTLIERS:
            raise unknown_name("kind of outliers", self.outliers, OUTLIERS)
        if not 0 < self.level <= 1:
            raise InvalidInputError(f"{who} needs level in (0, 1], got {self.level!r}")
        if not 0 < self.quantile < 1:
            raise InvalidInputError(f"{who} needs quantile in (0, 1), got {self.quantile!r}")


def _threshold(sure: Array, right: NDArray[np.bool_], weight: Array, target: str, level: float) -> float:
    """Lowest (accuracy) or highest (coverage) of the prompts' own probabilities that keeps the promise; inf if none does."""
    values, code = np.unique(sure, return_inverse=True)
    total = np.bincount(code, weights=weight)
    hits = np.bincount(code, weights=weight * right)
    # sums over the prompts at least as sure as each value
    kept, found = np.cumsum(total[::-1])[::-1], np.cumsum(hits[::-1])[::-1]
    if target == "coverage":
        enough = kept >= level * kept[0] * (1.0 - 1e-12)
        return float(values[np.flatnonzero(enough)[-1]])
    enough = (found >= level * kept * (1.0 - 1e-12)) & (kept > 0)
    return float(values[np.flatnonzero(enough)[0]]) if enough.any() else float(np.inf)


def _distances(matrix: NDArray[Any], points: Array, centre: Array, spread: Array, n_nearest: int) -> Array:
    """Root mean squared difference, by column, to the n-th nearest point; (n,)."""
    out = np.empty(len(matrix))
    step = max(1, BLOCK_ENTRIES // BLOCK_POINTS)
    for start in range(0, len(matrix), step):
        part = slice(start, start + step)
        out[part] = nearest((matrix[part] - centre) / spread, points, min(n_nearest, len(points)))[0][:, -1]
    return np.sqrt(out / matrix.shape[1])
