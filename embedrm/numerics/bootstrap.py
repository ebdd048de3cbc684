"""Bootstrap clustered by prompt group: the only source of intervals in the package."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.errors import InvalidInputError

N_RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Clustered:
    """Means of one or more columns over strata, ready to be resampled by cluster.

    Attributes
    ----------
    sums : ndarray of shape (n_clusters, n_strata, n_columns)
        Sum of the column over the cluster's rows in the stratum.
    counts : ndarray of shape (n_clusters, n_strata)
        Rows of the cluster in the stratum.
    strata : ndarray of shape (n_strata,)
        Names of the strata (domains), sorted.
    """

    sums: NDArray[np.float64]
    counts: NDArray[np.float64]
    strata: NDArray[np.str_]

    @classmethod
    def from_rows(cls, values: ArrayLike, clusters: ArrayLike, strata: ArrayLike) -> Clustered:
        """Collect rows: ``values`` (n,) or (n, n_columns), ``clusters`` (n,), ``strata`` (n,)."""
        v = np.asarray(values, dtype=np.float64)
        v = v[:, None] if v.ndim == 1 else v
        if not len(v):
            raise InvalidInputError("expected at least one pair to evaluate, got none; check the split and the filters")
        _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
        names, stratum = np.unique(np.asarray(strata).astype(str), return_inverse=True)
        shape = (int(cluster.max()) + 1, len(names))
        flat = cluster * shape[1] + stratum
        counts = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
        sums = np.stack(
            [np.bincount(flat, weights=v[:, j], minlength=shape[0] * shape[1]) for j in range(v.shape[1])], axis=-1
        ).reshape(*shape, v.shape[1])
        return cls(sums.astype(np.float64), counts, names)

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return len(self.counts)

    def means(self, multiplicity: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Stratum means, then micro, then macro: shape (n, n_strata + 2, n_columns).

        ``multiplicity`` (n, n_clusters) says how often each cluster is drawn; absent, every cluster counts once. A
        stratum that a resample misses is NaN there, and the macro mean of that resample is taken over the others.
        """
        m = np.ones((1, self.n_clusters)) if multiplicity is None else multiplicity
        n_strata, n_columns = self.sums.shape[1:]
        sums = (m @ self.sums.reshape(self.n_clusters, -1)).reshape(-1, n_strata, n_columns)
        counts = (m @ self.counts)[:, :, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            per_stratum = np.where(counts > 0, sums / counts, np.nan)
        micro = sums.sum(axis=1, keepdims=True) / counts.sum(axis=1, keepdims=True)
        macro = np.nanmean(per_stratum, axis=1, keepdims=True)
        return np.concatenate([per_stratum, micro, macro], axis=1)

    def resample(self, n_resamples: int = N_RESAMPLES, random_state: int = 0) -> NDArray[np.float64]:
        """Means of ``n_resamples`` draws of whole clusters with replacement; shape (n_resamples, n_strata + 2, n_columns).

        All columns of one draw share its clusters, so differences of columns are paired.
        """
        rng = np.random.default_rng(random_state)
        share = np.full(self.n_clusters, 1.0 / self.n_clusters)
        block = max(1, min(n_resamples, 20_000_000 // max(1, self.n_clusters)))
        draws = []
        for start in range(0, n_resamples, block):
            size = min(block, n_resamples - start)
            draws.append(self.means(rng.multinomial(self.n_clusters, share, size=size).astype(np.float64)))
        return np.concatenate(draws)


def percentile_interval(draws: NDArray[np.float64], confidence: float = CONFIDENCE) -> NDArray[np.float64]:
    """Percentile interval over the first axis; shape (2, ...). Draws that are NaN are left out."""
    tail = 50.0 * (1.0 - confidence)
    return np.nanpercentile(draws, [tail, 100.0 - tail], axis=0)


def two_sided_p(draws: NDArray[np.float64]) -> float:
    """Two-sided bootstrap p-value of a difference: twice the smaller tail on either side of zero, at least 2/(B + 1).

    The observed sample counts as one draw on each side (Davison and Hinkley 1997, section 4.4), so p is never zero.
    """
    d = draws[~np.isnan(draws)]
    tail = min(int((d <= 0).sum()), int((d >= 0).sum()))
    return min(1.0, 2.0 * (tail + 1) / (len(d) + 1))
