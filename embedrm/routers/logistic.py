"""Multinomial logistic regression on prompt vectors, with probabilities calibrated out of fold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError
from embedrm.numerics.softmax import softmax_folds, softmax_path
from embedrm.routers import ROUTERS
from embedrm.routers._calibrated import UNSEEN, Array, CalibratedRouter, mean_and_spread, whole_number

L2_GRID = (1e-3, 1e-2, 1e-1, 1.0)
# Cross-entropy, in nats, that the weights may leave to be gained; the solver aims a hundred times lower.
_TOL = 3e-5
# The same in folds that choose a penalty, whose out-of-fold losses differ by more.
_FOLD_TOL = 3e-4


@ROUTERS.register("logistic")
class LogisticRouter(CalibratedRouter):
    r"""Softmax regression :math:`p(d \mid x) = \mathrm{softmax}((W z + b) / T)_d` on standardised prompt vectors z.

    W and b minimise the mean cross-entropy plus :math:`\tfrac12\lambda\lVert W\rVert^2`. The temperature T, and
    :math:`\lambda` where ``l2="cv"``, are chosen on out-of-fold scores of the training prompts, folds by prompt group, so
    that soft routing weighs experts by probabilities that were not seen in training.

    Parameters
    ----------
    view : str, optional
        Prompt view; see :class:`embedrm.routers.base.Router`.
    l2 : float or "cv"
        Multiplies half the squared norm of W against the mean loss.
    l2_grid : sequence of float
        Candidates of ``l2="cv"``, by out-of-fold cross-entropy.
    calibrate : bool
        Fit T; otherwise T = 1.
    cv : int
        Folds for T and ``l2="cv"``.
    max_iter : int
        Most iterations of the solver.
    class_weight : "balanced", mapping of domain to number, or None
        Factors on the weights of a domain's prompts, in the loss and in the calibration; ``"balanced"`` makes every domain
        count alike. The probabilities are then those of prompts drawn with these weights.

    Attributes
    ----------
    coef_, intercept_ : ndarray of shape (n_domains, dim), (n_domains,)
        On raw vectors: the standardisation is folded in.
    temperature_, l2_ : float
    classes_ : ndarray of shape (n_domains,)
    out_of_fold_ : dict
        ``log_loss`` and ``accuracy`` of the calibrated out-of-fold probabilities, and how many prompts were left out since
        their domain was ``unseen`` by the fold (empty where nothing was held out).
    """

    parallel_folds = True

    def __init__(
        self,
        view: str | None = None,
        l2: float | str = "cv",
        l2_grid: Iterable[float] = L2_GRID,
        calibrate: bool = True,
        cv: int = 5,
        max_iter: int = 500,
        class_weight: str | Mapping[str, float] | None = None,
    ) -> None:
        self.view = view
        self.l2 = l2
        self.l2_grid = l2_grid
        self.calibrate = calibrate
        self.cv = cv
        self.max_iter = max_iter
        self.class_weight = class_weight

    def _check_parameters(self) -> None:
        if self.l2 != "cv" and not (isinstance(self.l2, (int, float)) and 0 < self.l2 < np.inf):
            raise InvalidInputError(f"LogisticRouter needs l2 to be a number > 0 or 'cv', got {self.l2!r}")
        if not whole_number(self.max_iter, 1):
            raise InvalidInputError(
                f"LogisticRouter needs max_iter to be a whole number of at least 1, got {self.max_iter!r}"
            )

    def _settings(self) -> list[float]:
        grid = [float(v) for v in self.l2_grid] if self.l2 == "cv" else [float(self.l2)]
        if not grid or not all(0.0 < v < np.inf for v in grid):
            raise InvalidInputError(
                f"LogisticRouter(l2='cv') needs l2_grid of numbers > 0, got {tuple(self.l2_grid)!r}"
            )
        return grid

    def _chosen(self) -> float:
        return self.l2_

    def _learn(
        self, matrix: NDArray[Any], codes: NDArray[np.intp], weight: Array, n_domains: int, setting: Any
    ) -> None:
        self.l2_ = float(setting)
        ((self.coef_, self.intercept_),) = self._path(matrix, codes, weight, n_domains, [self.l2_])

    def _log_scores(self, matrix: NDArray[Any]) -> Array:
        scores: Array = matrix @ self.coef_.T + self.intercept_
        return scores

    def _scores_of_folds(
        self,
        matrix: NDArray[Any],
        codes: NDArray[np.intp],
        weight: Array,
        folds: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
        settings: Sequence[Any],
        at_once: int,
    ) -> Array:
        # one pass over the prompts serves all folds
        z = _standardised(matrix, *mean_and_spread(matrix, weight))
        own = np.repeat(weight[:, None], len(folds), axis=1)
        for k, (_, held_out) in enumerate(folds):
            own[held_out, k] = 0.0
        n_domains = len(self.classes_)
        found = softmax_folds(
            z,
            codes,
            own,
            n_domains,
            settings,
            tol=_TOL if len(settings) == 1 else _FOLD_TOL,
            max_iter=self.max_iter,
            n_threads=at_once,
            who="LogisticRouter",
        )
        scores = np.empty((len(settings), len(matrix), n_domains))
        for out, (weights, intercepts) in zip(scores, found):
            for k, (_, held_out) in enumerate(folds):
                out[held_out] = z[held_out] @ weights[k].T + intercepts[k]
        return scores

    def _path(
        self, matrix: NDArray[Any], codes: NDArray[np.intp], weight: Array, n_domains: int, grid: list[float]
    ) -> list[tuple[Array, Array]]:
        """Coefficients and intercepts on raw vectors for each penalty; each begins where the next stronger one ended."""
        known = weight > 0
        if not known.all():
            matrix, codes, weight = matrix[known], codes[known], weight[known]
        mean, spread = mean_and_spread(matrix, weight)
        z = _standardised(matrix, mean, spread)
        present, position = np.unique(codes, return_inverse=True)
        found: list[tuple[Array, Array]] = []
        # one domain: every prompt belongs to it with certainty, and there is nothing to fit
        parts = [(np.zeros((1, z.shape[1])), np.zeros(1))] * len(grid)
        if len(present) > 1:
            parts = softmax_path(
                z, position, weight, len(present), grid, tol=_TOL, max_iter=self.max_iter, who="LogisticRouter"
            )
        for weights, level in parts:
            coef, intercept = np.zeros((n_domains, matrix.shape[1])), np.full(n_domains, UNSEEN)
            coef[present] = weights / spread
            intercept[present] = level - coef[present] @ mean
            found.append((coef, intercept))
        return found


def _standardised(matrix: NDArray[Any], mean: Array, spread: Array) -> NDArray[Any]:
    """(matrix - mean) / spread in the precision of the matrix, float32 at least."""
    wide = np.float64 if matrix.dtype == np.float64 else np.float32
    z: NDArray[Any] = ((matrix - mean) / spread).astype(wide)
    return z
