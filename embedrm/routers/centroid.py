"""Nearest centroid: every domain a Gaussian cloud of prompts, all of one shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.routers import ROUTERS
from embedrm.routers._calibrated import Array, CalibratedRouter

COVARIANCES = ("diagonal", "shrunk")
SHRINKAGE_GRID = (0.9, 0.5, 0.2, 0.05)


@ROUTERS.register("centroid")
class CentroidRouter(CalibratedRouter):
    r"""Nearest centroid under one covariance for all domains, :math:`s_d = \log\pi_d - \tfrac12 d_\Sigma(x, \mu_d)^2`.

    :math:`d_\Sigma` is Mahalanobis' distance, :math:`\mu_d` is the mean prompt of a domain and :math:`\pi_d` its share of
    the prompts (of their weights). With the pooled covariance S within domains,
    :math:`\Sigma = (1 - \gamma) S + \gamma \bar s I`, where :math:`\bar s` is the mean of S's diagonal; ``"diagonal"``
    takes S's diagonal alone. One mean a domain and one matrix for all can be learnt from a handful of prompts a domain.
    Softmax of s / T, with T fitted out of fold, gives probabilities.

    Parameters
    ----------
    view : str, optional
        Prompt view; see :class:`embedrm.routers.base.Router`.
    covariance : {"shrunk", "diagonal"}
    shrinkage : float in (0, 1] or "cv"
        :math:`\gamma`; 1 is the Euclidean distance. ``"cv"`` picks from ``shrinkage_grid`` by out-of-fold cross-entropy.
    shrinkage_grid : sequence of float
    calibrate : bool
        Fit T; otherwise T = 1.
    cv : int
        Folds for T and ``shrinkage="cv"``.
    class_weight : "balanced", mapping of domain to number, or None
        As in :class:`embedrm.routers.logistic.LogisticRouter`; ``"balanced"`` makes :math:`\pi_d` equal.

    Attributes
    ----------
    means_ : ndarray of shape (n_domains, dim)
    coef_, intercept_ : ndarray of shape (n_domains, dim), (n_domains,)
        :math:`s_d` up to what all domains share is ``x @ coef_[d] + intercept_[d]``.
    temperature_, shrinkage_ : float
    classes_ : ndarray of shape (n_domains,)
    out_of_fold_ : dict

    References
    ----------
    Ledoit and Wolf (2004), "A well-conditioned estimator for large-dimensional covariance matrices", for shrinkage towards a
    multiple of the identity; the shares and means are Fisher's linear discriminant.
    """

    def __init__(
        self,
        view: str | None = None,
        covariance: str = "shrunk",
        shrinkage: float | str = "cv",
        shrinkage_grid: Iterable[float] = SHRINKAGE_GRID,
        calibrate: bool = True,
        cv: int = 5,
        class_weight: str | Mapping[str, float] | None = None,
    ) -> None:
        self.view = view
        self.covariance = covariance
        self.shrinkage = shrinkage
        self.shrinkage_grid = shrinkage_grid
        self.calibrate = calibrate
        self.cv = cv
        self.class_weight = class_weight

    def _check_parameters(self) -> None:
        if self.covariance not in COVARIANCES:
            raise unknown_name("covariance", self.covariance, COVARIANCES)
        if self.shrinkage != "cv" and not (isinstance(self.shrinkage, (int, float)) and 0 < self.shrinkage <= 1):
            raise InvalidInputError(
                f"CentroidRouter needs shrinkage to be a number in (0, 1] or 'cv', got {self.shrinkage!r}"
            )

    def _settings(self) -> list[float]:
        grid = [float(v) for v in self.shrinkage_grid] if self.shrinkage == "cv" else [float(self.shrinkage)]
        if not grid or not all(0.0 < v <= 1.0 for v in grid):
            raise InvalidInputError(
                "CentroidRouter(shrinkage='cv') needs shrinkage_grid of numbers in (0, 1], got "
                f"{tuple(self.shrinkage_grid)!r}"
            )
        return grid

    def _chosen(self) -> float:
        return self.shrinkage_

    def _learn(
        self, matrix: NDArray[Any], codes: NDArray[np.intp], weight: Array, n_domains: int, setting: Any
    ) -> None:
        self.shrinkage_ = float(setting)
        cloud = _Cloud(matrix, codes, weight, n_domains, self.covariance)
        self.means_ = cloud.means
        self.coef_, self.intercept_ = cloud.discriminant(self.shrinkage_)

    def _log_scores(self, matrix: NDArray[Any]) -> Array:
        scores: Array = matrix @ self.coef_.T + self.intercept_
        return scores

    def _fold_scores(
        self,
        train: tuple[NDArray[Any], NDArray[np.intp], Array],
        held_out: NDArray[Any],
        n_domains: int,
        settings: Sequence[Any],
    ) -> Array:
        cloud = _Cloud(*train, n_domains, self.covariance)
        found = [cloud.discriminant(setting) for setting in settings]
        return np.stack([held_out @ coef.T + intercept for coef, intercept in found])


class _Cloud:
    """Means, shares and the pooled covariance of one training set; one factorisation serves every shrinkage."""

    def __init__(
        self, matrix: NDArray[Any], codes: NDArray[np.intp], weight: Array, n_domains: int, covariance: str
    ) -> None:
        one_hot = np.zeros((n_domains, len(matrix)))
        one_hot[codes, np.arange(len(matrix))] = weight
        total = one_hot.sum(axis=1)
        # distances do not see a shift, and small numbers keep more of their digits
        self.centre = matrix.mean(axis=0, dtype=np.float64)
        x = matrix - self.centre
        present = total > 0
        self.local_means = np.zeros((n_domains, matrix.shape[1]))
        self.local_means[present] = (one_hot[present] @ x) / total[present, None]
        self.means = self.local_means + self.centre
        with np.errstate(divide="ignore"):
            self.log_shares = np.where(present, np.log(total / total.sum()), -np.inf)
        within = (x - self.local_means[codes]) * np.sqrt(weight / weight.sum())[:, None]
        self.basis: Array | None = None
        if covariance == "diagonal":
            self.variance = np.einsum("ij,ij->j", within, within)
        else:
            self.variance, self.basis = np.linalg.eigh(within.T @ within)
            self.variance = np.maximum(self.variance, 0.0)

    def discriminant(self, shrinkage: float) -> tuple[Array, Array]:
        """Coefficients (n_domains, dim) and intercepts (n_domains,) on raw vectors; -inf for a domain without prompts."""
        level = float(self.variance.mean())
        # where no domain has two different prompts there is no spread to learn, and all directions count alike
        variance = (1.0 - shrinkage) * self.variance + shrinkage * (level if level > 0 else 1.0)
        turned = self.local_means if self.basis is None else self.local_means @ self.basis
        coef = turned / variance
        squared = np.einsum("ij,ij->i", coef, turned)
        if self.basis is not None:
            coef = coef @ self.basis.T
        return coef, self.log_shares - 0.5 * squared - coef @ self.centre
