"""Linear Bradley–Terry head on the comparison graph."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from embedrm.errors import InvalidInputError
from embedrm.featurizers import Featurizer
from embedrm.featurizers.linear_map import LinearMap
from embedrm.heads import HEADS
from embedrm.heads._fold_margins import FoldMargins
from embedrm.heads._penalty import L2_GRID, check_l2, choose_l2
from embedrm.heads.base import FeatureHead
from embedrm.numerics.solver import metric_transform, minimise
from embedrm.numerics.solver_many import minimise_many
from embedrm.numerics.threads import threads_for
from embedrm.objectives import Comparisons, Objective, make_objective
from embedrm.objectives._pairwise import PairwiseLoss
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.reward_model import check_finite, check_preferences

# Pairs sampled for the metric of the solver, per feature; it shapes the path to the optimum, not the optimum.
_METRIC_PAIRS_PER_FEATURE = 4
_METRIC_MIN_PAIRS = 2_048
_METRIC_MAX_PAIRS = 16_384
# Pairs a feature for the metric of members, which is paid for once and shortens the way of all of them; the smallest
# objective gap to which the solution of all pairs, their common start, is worth taking; the largest number of entries of
# metrics of their own, beyond which members that leave features out get a diagonal one.
_MEMBER_PAIRS_PER_FEATURE = 24
_MEMBER_START_TOL = 1e-2
_MEMBER_METRIC_ENTRIES = 2**25


@HEADS.register("linear")
class LinearHead(FeatureHead):
    r"""Linear reward :math:`r = \phi \cdot w`, fitted by penalised maximum likelihood on unique responses.

    .. math:: \min_w \; f(\Phi w) + \tfrac{1}{2} \lambda \lVert w \rVert^2

    with features :math:`\Phi` of the unique responses, the mean loss f of the objective on their rewards, and
    :math:`\lambda` = ``l2``. Under Bradley–Terry the optimum equals scikit-learn's
    ``LogisticRegression(C=1/(l2*n), fit_intercept=False)`` on randomly sign-flipped differences; the cost grows with
    the responses, not with the pairs.

    Parameters
    ----------
    featurizer : Featurizer, optional
        Which terms over which views; all response views as they are, side by side, where absent.
    l2 : float or "cv"
        Multiplies half the squared norm against the mean loss. ``"cv"`` picks from ``l2_grid`` by the mean held-out log
        loss of ``cv`` folds of whole prompt groups of the training pairs; under an objective whose margins are no logits,
        by the held-out mean of the objective itself. Every fold fits the featurizer on its own training pairs, projections
        and whitening too, as a head on them would: what a penalty is judged on has told them nothing.
    l2_grid : sequence of float
        Candidates of ``l2="cv"``.
    cv : int
        Folds of ``l2="cv"``.
    objective : str or Objective
        What is minimised: the name of an objective with its default parameters, or an object with others, such as
        ``BTSmoothed(flip_rate=0.2)``. All of :mod:`embedrm.objectives` are convex in the weights.
    tol : float
        Objective gap to reach (see :func:`embedrm.numerics.solver.minimise`).
    max_iter : int
        Most iterations.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features_in_,), float64
        Weights on the (scaled) features.
    l2_ : float
        The penalty used.
    cv_results_ : list of dict
        For ``l2="cv"``: ``l2``, held-out ``log_loss`` and ``accuracy`` of each candidate.
    objective_ : float
        The objective at the optimum.
    n_features_in_ : int
        Number of features.

    References
    ----------
    Bradley and Terry (1952); used as a reward model by Ouyang et al. (2022), section 3.5.

    Examples
    --------
    >>> import numpy as np
    >>> from embedrm import EmbeddedPreferences, LinearHead
    >>> x = np.eye(3, dtype="float32")
    >>> prefs = EmbeddedPreferences.from_arrays(x, [[0, 1], [1, 2]])
    >>> LinearHead(l2=0.1).fit(prefs).predict(x).argmax()
    np.int64(0)
    """

    def __init__(
        self,
        featurizer: Featurizer | None = None,
        l2: float | str = 1e-2,
        l2_grid: Iterable[float] = L2_GRID,
        cv: int = 5,
        objective: str | Objective = "bradley-terry",
        tol: float = 1e-9,
        max_iter: int = 500,
    ) -> None:
        self.featurizer = featurizer
        self.l2 = l2
        self.l2_grid = l2_grid
        self.cv = cv
        self.objective = objective
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, preferences: EmbeddedPreferences, y: None = None) -> LinearHead:
        """Fit the weights; see the class for the objective. Reads only the active rows. Returns self."""
        return self._fit(preferences, None)

    def fit_and_hold_out(self, preferences: EmbeddedPreferences) -> tuple[LinearHead, NDArray[np.float64]]:
        """Fit, and return the head with the out-of-fold margins (n_pairs,) of its own folds, at the penalty they chose.

        Folds are solved to a gap of 1e-6; pairs of weight zero are in none, and have margin 0. InvalidInputError unless
        ``l2="cv"``.
        """
        if self.l2 != "cv":
            raise InvalidInputError(
                f"LinearHead.fit_and_hold_out needs l2='cv', whose folds hold pairs out, got {self.l2!r}; use fit"
            )
        kept: list[NDArray[np.float64]] = []
        self._fit(preferences, kept)
        return self, kept[0]

    def _fit(self, preferences: EmbeddedPreferences, kept: list[NDArray[np.float64]] | None) -> LinearHead:
        prefs = check_preferences(preferences, type(self).__name__)
        self._check_parameters()
        objective = make_objective(self.objective)
        self.featurizer_ = self._new_featurizer().fit(prefs)
        with threads_for(len(prefs.active) * self.featurizer_.dim_):
            problem = _Problem(self, objective, self.featurizer_, prefs)
            self.l2_, self.cv_results_ = (
                self._choose_l2(prefs, problem, kept) if self.l2 == "cv" else (float(self.l2), [])
            )
            self.coef_, self.objective_ = problem.solve(self.l2_, None)
        self.n_features_in_ = self.featurizer_.dim_
        self.__dict__.pop("merge_", None)  # of weights that these replace
        return self

    @property
    def margins_are_logits(self) -> bool:
        """As the objective has it."""
        return make_objective(self.objective).margins_are_logits

    def fit_members(
        self,
        preferences: EmbeddedPreferences,
        seeds: Sequence[int],
        weight: NDArray[np.float64] | None = None,
        masks: NDArray[np.bool_] | None = None,
    ) -> list[LinearHead]:
        """Fit several heads in lockstep: every pass over the vectors serves all of them.

        The featurizer, and with ``l2="cv"`` the penalty, are those of all pairs with their own weights. The problem is
        convex, so seeds alone change nothing.
        """
        prefs = check_preferences(preferences, "LinearHead")
        k = len(seeds)
        if weight is None and masks is None:
            one = clone(self).fit(prefs)
            return [copy.deepcopy(one) for _ in seeds]
        self._check_parameters()
        weight = np.repeat(prefs.weight[:, None], k, axis=1) if weight is None else weight
        objective = make_objective(self.objective)
        featurizer = self._new_featurizer().fit(prefs)
        readable = None if masks is None else masks.T
        with threads_for(len(prefs.active) * featurizer.dim_ * k):
            problem = _Problem(self, objective, featurizer, prefs)
            l2, results = self._choose_l2(prefs, problem) if self.l2 == "cv" else (float(self.l2), [])
            start, transform = problem.member_start(l2, k, readable)
            found = minimise_many(
                problem.map.forward,
                problem.map.adjoint,
                objective.loss(Comparisons.of(prefs).weighted(weight)),
                l2,
                start,
                transform,
                tol=self.tol,
                max_iter=self.max_iter,
                rounding=float(np.finfo(problem.map.dtype).eps),
                readable=readable,
                dtype=problem.map.dtype,
                who="LinearHead",
            )
        if not np.isfinite(found.value).all():
            problem.find_bad_rows()
        members = []
        for m in range(k):
            head: LinearHead = clone(self)
            head.featurizer_, head.n_features_in_ = featurizer, featurizer.dim_
            head.l2_, head.cv_results_ = l2, results
            head.coef_, head.objective_ = found.x[:, m].copy(), float(found.value[m])
            members.append(head)
        return members

    def member_features(self, preferences: EmbeddedPreferences) -> int:
        """Number of the featurizer's features."""
        return self._new_featurizer().fit(check_preferences(preferences, "LinearHead")).dim_

    def _rewards(self, responses: EmbeddedResponses, rows: Rows | None) -> NDArray[np.float64]:
        check_is_fitted(self, "coef_")
        self.featurizer_.check(responses, type(self).__name__)
        return check_finite(LinearMap(self.featurizer_, responses, rows).forward(self.coef_), type(self).__name__)

    def _new_featurizer(self) -> Featurizer:
        return Featurizer() if self.featurizer is None else clone(self.featurizer)

    def _check_parameters(self) -> None:
        check_l2(self, "LinearHead")
        if not self.tol > 0.0:
            raise InvalidInputError(f"LinearHead needs tol > 0, got {self.tol!r}")
        if not (isinstance(self.max_iter, int) and self.max_iter >= 1):
            raise InvalidInputError(f"LinearHead needs max_iter to be a whole number >= 1, got {self.max_iter!r}")

    def _choose_l2(
        self, prefs: EmbeddedPreferences, whole: _Problem, kept: list[NDArray[np.float64]] | None = None
    ) -> tuple[float, list[dict[str, float]]]:
        """Penalty, and facts of all candidates; to ``kept`` the held-out margins at that penalty are added."""
        path = partial(self._held_out, whole)
        if kept is None:
            return choose_l2(self, prefs, path, whole.objective, "LinearHead")
        margins = FoldMargins(path)
        l2, results = choose_l2(self, prefs, margins, whole.objective, "LinearHead")
        kept.append(margins.chosen(self, prefs, [row["l2"] for row in results].index(l2), "LinearHead"))
        return l2, results

    def _held_out(
        self, whole: _Problem, inside: EmbeddedPreferences, outside: EmbeddedPreferences, grid: Sequence[float]
    ) -> Iterator[tuple[NDArray[np.float64], None]]:
        """Rewards of held-out responses by weights fitted on the inside, at each penalty, each starting at the last."""
        featurizer = self._new_featurizer().fit(inside)
        problem = _Problem(self, whole.objective, featurizer, inside, whole)
        scorer = LinearMap(featurizer, outside.responses, outside.active)
        theta = None
        for l2 in grid:
            theta, _ = problem.solve(l2, theta, tol=max(self.tol, 1e-6))
            yield check_finite(scorer.forward(theta), "LinearHead.fit"), None


class _Problem:
    """One training set's objective and the coordinates in which it is solved.

    A fold may take over the coordinates of the ``whole`` training set: any will do, since they shape the path to the
    optimum and not the optimum.
    """

    def __init__(
        self,
        head: LinearHead,
        objective: Objective,
        featurizer: Featurizer,
        prefs: EmbeddedPreferences,
        whole: _Problem | None = None,
    ) -> None:
        self.head, self.objective = head, objective
        self.whole = whole
        self.map = LinearMap(featurizer, prefs.responses, prefs.active)
        self.loss = objective.loss(Comparisons.of(prefs))
        self._metric: Any = None

    def value_and_gradient(self, theta: NDArray[np.float64], l2: float) -> tuple[float, NDArray[np.float64]]:
        """Return the penalised objective and its gradient; the solver takes its parts, tests take the whole."""
        at = self.loss.evaluate(self.map.forward(theta))
        return at.value + 0.5 * l2 * float(theta @ theta), self.map.adjoint(at.slope) + l2 * theta

    def solve(
        self, l2: float, start: NDArray[np.float64] | None, tol: float | None = None
    ) -> tuple[NDArray[np.float64], float]:
        metric = self.metric()
        basis, scale = (metric[0], 1.0 / np.sqrt(metric[1] + l2)) if isinstance(metric, tuple) else (None, None)
        solution = minimise(
            self.map.forward,
            self.map.adjoint,
            self.loss,
            l2,
            np.zeros(self.map.dim) if start is None else start,
            self.transform(l2) if basis is None else basis,
            scale=scale,
            tol=self.head.tol if tol is None else tol,
            max_iter=self.head.max_iter,
            rounding=float(np.finfo(self.map.dtype).eps),
            who="LinearHead",
        )
        if not np.isfinite(solution.gap):
            self.find_bad_rows()
        return solution.x, solution.value

    def member_start(self, l2: float, k: int, readable: NDArray[np.bool_] | None) -> tuple[NDArray[np.float64], Any]:
        """First points (dim, k) of members whose problems are near this one, and coordinates for all or one for each.

        Members with other weights start from this problem's own solution, in the metric of the curvatures there: they
        differ from it by the noise of sampling alone. Members that leave features out start at zero.
        """
        if readable is not None:
            start, h = np.zeros((self.map.dim, k)), self._moment(len(self.loss.pairs))
            h[np.diag_indices_from(h)] += l2
            rows = [np.flatnonzero(column) for column in readable.T]
            if sum(len(mine) ** 2 for mine in rows) > _MEMBER_METRIC_ENTRIES:
                return start, [1.0 / np.sqrt(np.diag(h)[mine]) for mine in rows]
            return start, [metric_transform(h[np.ix_(mine, mine)]) for mine in rows]
        theta, _ = self.solve(l2, None, tol=max(self.head.tol, _MEMBER_START_TOL))
        start = np.repeat(theta[:, None], k, axis=1)
        if not (self.is_wide and isinstance(self.loss, PairwiseLoss)):
            return start, self.transform(l2)
        at = self.loss.evaluate(self.map.forward(theta))
        h = self._moment(len(self.loss.pairs), _MEMBER_PAIRS_PER_FEATURE, at.state)
        h[np.diag_indices_from(h)] += l2
        return start, metric_transform(h)

    def find_bad_rows(self) -> None:
        """Raise, counting the responses whose features are not finite."""
        check_finite(self.map.forward(np.ones(self.map.dim)), "LinearHead.fit")
        raise InvalidInputError(
            "LinearHead.fit met an objective that is not finite though every vector is; their values are too large: scale "
            "them, for example with Featurizer(scale='rms')"
        )

    def transform(self, l2: float) -> NDArray[np.float64]:
        """Whitening of an estimate of the Hessian at zero."""
        metric = self.metric()
        if isinstance(metric, tuple):
            basis, curvature = metric
            return basis / np.sqrt(curvature + l2)
        h = metric.copy()
        h[np.diag_indices_from(h)] += l2
        return metric_transform(h)

    def metric(self) -> Any:
        """The Hessian estimate without its penalty, as a matrix or as (eigenvectors, eigenvalues)."""
        if self._metric is None:
            n_pairs = len(self.loss.pairs)
            # With fewer pairs than features, an optimum in the span of the differences is looked for there.
            if n_pairs < self.map.dim and self.objective.spans_differences():
                self._metric = self._span()
            elif self.whole is not None and self.whole.is_wide:
                self._metric = self.whole.metric()
            elif self.head.l2 == "cv":
                # one factorisation then serves every penalty and every fold
                eigenvalues, vectors = np.linalg.eigh(self._moment(n_pairs))
                self._metric = vectors, eigenvalues
            else:
                self._metric = self._moment(n_pairs)
        return self._metric

    @property
    def is_wide(self) -> bool:
        """Whether the coordinates span every feature, and so serve any training set."""
        return len(self.loss.pairs) >= self.map.dim or not self.objective.spans_differences()

    def _span(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Orthonormal basis (dim, rank) of the pairs' differences, and the Hessian's eigenvalues on it."""
        d = self.map.differences(self.loss.pairs).astype(np.float64)
        if not np.isfinite(d).all():
            self.find_bad_rows()
        eigenvalues, vectors = np.linalg.eigh(d @ d.T)
        kept = eigenvalues > 1e-12 * max(float(eigenvalues[-1]), 1e-300)
        eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
        basis = (d.T @ vectors) / np.sqrt(eigenvalues)
        return basis, eigenvalues * (self.loss.bend / len(d)) + 1e-12

    def _moment(
        self,
        n_pairs: int,
        per_feature: int = _METRIC_PAIRS_PER_FEATURE,
        curvature: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """Estimate of the unpenalised Hessian (dim, dim), at zero or with curvatures (n_pairs,) that hold weights."""
        wanted = min(_METRIC_MAX_PAIRS, max(_METRIC_MIN_PAIRS, per_feature * self.map.dim))
        pointwise = self.objective.pointwise
        n = self.map.n if pointwise else n_pairs
        sample = np.unique(np.linspace(0, n - 1, min(wanted, n)).astype(np.intp))
        moment = np.zeros((self.map.dim, self.map.dim), dtype=self.map.dtype)
        for block in np.array_split(sample, max(1, len(sample) // 2048)):
            if pointwise:
                d = self.map.features(block)
                d -= d.mean(axis=0)
            else:
                d = self.map.differences(self.loss.pairs[block])
                if curvature is not None:
                    d *= np.sqrt(curvature[block] * (n_pairs / self.loss.bend)).astype(d.dtype)[:, None]
            moment += d.T @ d
        if not np.isfinite(np.diag(moment)).all():
            self.find_bad_rows()
        h = moment.astype(np.float64) * (self.loss.bend / len(sample))
        # The sample may miss directions that the data has; a floor keeps the metric defined, and mild, there.
        h[np.diag_indices_from(h)] += 1e-3 * max(float(np.trace(h)) / len(h), 1e-12)
        return h
