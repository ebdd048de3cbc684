"""The objective of a linear head on one training set, and the coordinates in which it is solved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError
from embedrm.featurizers import Featurizer
from embedrm.featurizers.linear_map import LinearMap
from embedrm.featurizers.shared import once_for, shared_map
from embedrm.numerics.solver import metric_transform, minimise
from embedrm.objectives import Comparisons, Objective
from embedrm.objectives._pairwise import PairwiseLoss
from embedrm.preferences import EmbeddedPreferences
from embedrm.reward_model import check_finite

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


class Settings(Protocol):
    """What a problem reads of its head."""

    l2: float | str
    tol: float
    max_iter: int


class Problem:
    """One training set's objective and the coordinates in which it is solved.

    A fold may take over the coordinates of the ``whole`` training set: any will do, since they shape the path to the
    optimum and not the optimum.
    """

    def __init__(
        self,
        head: Settings,
        objective: Objective,
        featurizer: Featurizer,
        prefs: EmbeddedPreferences,
        whole: Problem | None = None,
    ) -> None:
        self.head, self.objective = head, objective
        self.whole = whole
        self.prefs = prefs
        # folds are fitted on once a head, and would only push out what others ask for again
        make_map = shared_map if whole is None else LinearMap
        self.map = make_map(featurizer, prefs.responses, prefs.active)
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
                self._metric = self._once("span", self._span)
            elif self.whole is not None and self.whole.is_wide:
                self._metric = self.whole.metric()
            elif self.head.l2 == "cv":
                # one factorisation then serves every penalty and every fold
                self._metric = self._once("axes", lambda: np.linalg.eigh(self._moment(n_pairs))[::-1])
            else:
                self._metric = self._once("moment", lambda: self._moment(n_pairs))
        return self._metric

    def _once(self, kind: str, make: Callable[[], Any]) -> Any:
        """Make a metric, none of which depends on the penalty, or find that of an equal problem."""
        if self.whole is not None:
            return make()
        rows, pairs = self.prefs.active, self.loss.pairs
        given = (rows, pairs, len(pairs), self.loss.bend, self.objective.pointwise, str(self.map.dtype))
        return once_for(self.map.featurizer, self.prefs.responses, kind, given, make, _bytes)

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


def _bytes(metric: Any) -> int:
    return sum(part.nbytes for part in (metric if isinstance(metric, tuple) else (metric,)))
