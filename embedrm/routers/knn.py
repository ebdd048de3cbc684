"""Nearest neighbours: a prompt belongs where the training prompts next to it belong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.numerics.distances import BLOCK_ENTRIES, BLOCK_POINTS, nearest
from embedrm.routers import ROUTERS
from embedrm.routers._calibrated import Array, CalibratedRouter, mean_and_spread, whole_number

METRICS = ("cosine", "euclidean")
K_GRID = (5, 15, 45)


@ROUTERS.register("knn")
class KNNRouter(CalibratedRouter):
    r"""Votes of the k nearest training prompts, :math:`s_d = \log \frac{v_d + \pi_d}{\sum v + 1}`.

    :math:`v_d` is the summed weight of the neighbours in the domain and :math:`\pi_d` the domain's share of the training
    weight: one more vote, spread as the domains are, so that no domain is impossible. Columns are centred and divided by
    their standard deviation first. The search is exact, in blocks of bounded size. Softmax of s / T, T fitted out of fold.

    Parameters
    ----------
    view : str, optional
        Prompt view; see :class:`embedrm.routers.base.Router`.
    k : int or "cv"
        Neighbours, as many as there are where fewer; ``"cv"`` picks from ``k_grid`` by out-of-fold cross-entropy.
    k_grid : sequence of int
    metric : {"cosine", "euclidean"}
        Of the standardised columns.
    calibrate : bool
        Fit T; otherwise T = 1.
    cv : int
        Folds for T and ``k="cv"``.
    class_weight : "balanced", mapping of domain to number, or None
        As in :class:`embedrm.routers.logistic.LogisticRouter`: the weight of a neighbour's vote.

    Attributes
    ----------
    points_ : ndarray of shape (n_prompts, dim)
        Standardised (under the cosine, unit) training prompts, in the precision of the vectors; they are saved.
    votes_ : ndarray of shape (n_prompts,)
        Weight of each, in units of their mean.
    codes_ : ndarray of shape (n_prompts,), int
        Domain of each.
    centre_, spread_ : ndarray of shape (dim,)
    shares_ : ndarray of shape (n_domains,)
    k_ : int
    temperature_ : float
    classes_ : ndarray of shape (n_domains,)
    out_of_fold_ : dict
    """

    def __init__(
        self,
        view: str | None = None,
        k: int | str = "cv",
        k_grid: Iterable[int] = K_GRID,
        metric: str = "cosine",
        calibrate: bool = True,
        cv: int = 5,
        class_weight: str | Mapping[str, float] | None = None,
    ) -> None:
        self.view = view
        self.k = k
        self.k_grid = k_grid
        self.metric = metric
        self.calibrate = calibrate
        self.cv = cv
        self.class_weight = class_weight

    def _check_parameters(self) -> None:
        if self.metric not in METRICS:
            raise unknown_name("metric", self.metric, METRICS)
        if self.k != "cv" and not whole_number(self.k, 1):
            raise InvalidInputError(f"KNNRouter needs k to be a whole number >= 1 or 'cv', got {self.k!r}")

    def _settings(self) -> list[int]:
        grid = list(self.k_grid) if self.k == "cv" else [int(self.k)]
        if not grid or not all(whole_number(v, 1) for v in grid):
            raise InvalidInputError(f"KNNRouter(k='cv') needs k_grid of whole numbers >= 1, got {tuple(self.k_grid)!r}")
        return [int(v) for v in grid]

    def _chosen(self) -> int:
        return self.k_

    def _learn(
        self, matrix: NDArray[Any], codes: NDArray[np.intp], weight: Array, n_domains: int, setting: Any
    ) -> None:
        self.k_ = int(setting)
        known = weight > 0
        if not known.all():
            matrix, codes, weight = matrix[known], codes[known], weight[known]
        self.centre_, self.spread_ = mean_and_spread(matrix, weight)
        # sums of float16 would overflow
        self.points_ = self._place(matrix).astype(matrix.dtype if matrix.dtype != np.float16 else np.float32)
        self.codes_, self.votes_ = codes, weight / weight.mean()
        self.shares_ = np.bincount(codes, weights=weight, minlength=n_domains) / weight.sum()

    def _place(self, matrix: NDArray[Any]) -> Array:
        """Standardised vectors, float64; of length one under the cosine (a prompt at the centre stays there)."""
        z: Array = (matrix - self.centre_) / self.spread_
        if self.metric == "cosine":
            length = np.sqrt(np.einsum("ij,ij->i", z, z))[:, None]
            z /= np.where(length > 0, length, 1.0)
        return z

    def _neighbours(self, matrix: NDArray[Any], k: int) -> NDArray[np.intp]:
        """Rows of ``points_`` nearest to each vector, nearest first; (n, k)."""
        k = min(k, len(self.points_))
        out = np.empty((len(matrix), k), dtype=np.intp)
        step = max(1, BLOCK_ENTRIES // BLOCK_POINTS)
        for start in range(0, len(matrix), step):
            part = slice(start, start + step)
            out[part] = nearest(self._place(matrix[part]), self.points_, k)[1]
        return out

    def _scores_of(self, neighbours: NDArray[np.intp]) -> Array:
        votes = np.zeros((len(neighbours), len(self.shares_)))
        rows = np.repeat(np.arange(len(neighbours)), neighbours.shape[1])
        np.add.at(votes, (rows, self.codes_[neighbours].ravel()), self.votes_[neighbours].ravel())
        with np.errstate(divide="ignore"):
            return np.log((votes + self.shares_) / (votes.sum(axis=1, keepdims=True) + 1.0))

    def _log_scores(self, matrix: NDArray[Any]) -> Array:
        return self._scores_of(self._neighbours(matrix, self.k_))

    def _fold_scores(
        self,
        train: tuple[NDArray[Any], NDArray[np.intp], Array],
        held_out: NDArray[Any],
        n_domains: int,
        settings: Sequence[Any],
    ) -> Array:
        part = KNNRouter(metric=self.metric)
        part._learn(*train, n_domains, max(settings))
        # the nearest of many are among the nearest of more
        found = part._neighbours(held_out, max(settings))
        return np.stack([part._scores_of(found[:, :k]) for k in settings])
