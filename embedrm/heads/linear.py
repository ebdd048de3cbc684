"""Linear Bradley–Terry head on the comparison graph."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from embedrm.errors import InvalidInputError
from embedrm.featurizers import Featurizer
from embedrm.featurizers.linear_map import LinearMap
from embedrm.featurizers.shared import shared_map
from embedrm.heads import HEADS
from embedrm.heads._fold_margins import FoldMargins
from embedrm.heads._linear_problem import Problem
from embedrm.heads._penalty import L2_GRID, check_l2, choose_l2
from embedrm.heads.base import FeatureHead
from embedrm.numerics.solver_many import minimise_many
from embedrm.numerics.threads import threads_for
from embedrm.objectives import Comparisons, Objective, make_objective
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.reward_model import check_finite, check_preferences


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
            problem = Problem(self, objective, self.featurizer_, prefs)
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
            problem = Problem(self, objective, featurizer, prefs)
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
        return check_finite(shared_map(self.featurizer_, responses, rows).forward(self.coef_), type(self).__name__)

    def _new_featurizer(self) -> Featurizer:
        return Featurizer() if self.featurizer is None else clone(self.featurizer)

    def _check_parameters(self) -> None:
        check_l2(self, "LinearHead")
        if not self.tol > 0.0:
            raise InvalidInputError(f"LinearHead needs tol > 0, got {self.tol!r}")
        if not (isinstance(self.max_iter, int) and self.max_iter >= 1):
            raise InvalidInputError(f"LinearHead needs max_iter to be a whole number >= 1, got {self.max_iter!r}")

    def _choose_l2(
        self, prefs: EmbeddedPreferences, whole: Problem, kept: list[NDArray[np.float64]] | None = None
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
        self, whole: Problem, inside: EmbeddedPreferences, outside: EmbeddedPreferences, grid: Sequence[float]
    ) -> Iterator[tuple[NDArray[np.float64], None]]:
        """Rewards of held-out responses by weights fitted on the inside, at each penalty, each starting at the last."""
        featurizer = self._new_featurizer().fit(inside)
        problem = Problem(self, whole.objective, featurizer, inside, whole)
        scorer = LinearMap(featurizer, outside.responses, outside.active)
        theta = None
        for l2 in grid:
            theta, _ = problem.solve(l2, theta, tol=max(self.tol, 1e-6))
            yield check_finite(scorer.forward(theta), "LinearHead.fit"), None
