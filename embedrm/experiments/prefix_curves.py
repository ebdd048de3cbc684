"""Attribute against fluency over beta, with intervals over prompts, and the gap of two curves at equal perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.experiments.prefix_steering import COLUMNS, UNGUIDED, Steering
from embedrm.numerics.bootstrap import N_RESAMPLES, Clustered, percentile_interval

Array = NDArray[np.float64]
MEASURES = ("positive", "perplexity", "distinct1", "distinct2", "distinct3")
# Places between two betas at which a curve is looked at.
_FINE = 24


@dataclass(frozen=True)
class Curves:
    """Measures of every (arm, beta), and the same in resamples of whole prompts.

    Attributes
    ----------
    order : list of (arm, beta)
    point : dict of measure to ndarray of shape (n,)
    draws : dict of measure to ndarray of shape (n_resamples, n)
        A resample draws the same prompts for all arms, so that differences are paired.
    n_prompts : int
    """

    order: list[tuple[str, float]]
    point: dict[str, Array]
    draws: dict[str, Array]
    n_prompts: int

    @classmethod
    def of(cls, steering: Steering, n_resamples: int = N_RESAMPLES) -> Curves:
        """Collect everything that was decoded."""
        order = list(steering.points)
        rows = np.concatenate([steering.points[key] for key in order], axis=1)
        table = Clustered.from_rows(rows, np.arange(len(rows)), np.zeros(len(rows)))
        # a prompt is a cluster of one row, so that ratios of means are ratios of sums
        point = table.means()[:, 0].reshape(1, len(order), len(COLUMNS))
        draws = table.resample(n_resamples)[:, 0].reshape(-1, len(order), len(COLUMNS))
        return cls(order, {k: v[0] for k, v in _measures(point).items()}, _measures(draws), len(rows))

    def cell(self, arm: str, beta: float, measure: str) -> dict[str, float]:
        """Return value, low and high."""
        i = self.order.index((arm, float(beta)))
        low, high = percentile_interval(self.draws[measure][:, i])
        return {"value": float(self.point[measure][i]), "low": float(low), "high": float(high)}

    def rows(self, arms: Sequence[str]) -> list[dict[str, Any]]:
        """Return facts of arms by beta: ``arm``, ``beta`` and a cell for each measure."""
        return [
            {"arm": arm, "beta": beta, **{m: self.cell(arm, beta, m) for m in MEASURES}}
            for arm in arms
            for beta in self.betas(arm)
        ]

    def betas(self, arm: str) -> list[float]:
        """Betas of an arm, rising."""
        return sorted(beta for name, beta in self.order if name == arm)

    def gap(self, arm: str, reference: str) -> dict[str, dict[str, float]] | None:
        """Compare two arms at equal perplexity; see :func:`gap_at_equal_perplexity`.

        Returns
        -------
        dict
            Cells ``gap`` (of positive rates), ``shift`` (of the reference against no guidance) and ``relative``; None where
            the curves share no perplexity, or the reference shifts nothing for certain.
        """
        paths = [self._path(name) for name in (arm, reference)]
        value = gap_at_equal_perplexity(*(self._at(self.point, p) for p in paths))
        if value is None:
            return None
        found = [
            gap_at_equal_perplexity(*(self._at({m: d[b] for m, d in self.draws.items()}, p) for p in paths))
            for b in range(len(self.draws["positive"]))
        ]
        draws = np.array([(math.nan, math.nan) if one is None else one for one in found])
        known = ~np.isnan(draws[:, 0])
        shift = percentile_interval(draws[:, 1])
        if known.mean() < 0.9 or shift[0] <= 0:
            return None
        # a resample in which the reference shifts nothing has no share of it
        share = np.divide(draws[:, 0], draws[:, 1], out=np.full(len(draws), math.nan), where=draws[:, 1] > 0)
        kinds = {"gap": draws[:, 0], "shift": draws[:, 1], "relative": share}
        values = {"gap": value[0], "shift": value[1], "relative": value[0] / value[1]}
        cells = {}
        for name, drawn in kinds.items():
            low, high = percentile_interval(drawn)
            cells[name] = {"value": values[name], "low": float(low), "high": float(high)}
        return cells

    def _path(self, arm: str) -> list[int]:
        """Places of an arm's points by beta, unguided decoding first."""
        return [
            self.order.index((UNGUIDED, 0.0)),
            *(self.order.index((arm, beta)) for beta in self.betas(arm) if beta > 0),
        ]

    @staticmethod
    def _at(measures: dict[str, Array], path: list[int]) -> Array:
        return np.stack([np.log(measures["perplexity"][path]), measures["positive"][path]], axis=1)


def _measures(columns: Array) -> dict[str, Array]:
    """Measures (..., n) from sums (..., n, 7)."""
    by = {name: columns[..., i] for i, name in enumerate(COLUMNS)}
    found = {
        "positive": by["positive"] / by["texts"],
        "perplexity": np.exp(by["nll"] / np.maximum(by["tokens"], 1e-12)),
    }
    return found | {name: by[name] for name in ("distinct1", "distinct2", "distinct3")}


def frontier(path: Array, at: Array) -> Array:
    """Highest rate along a curve at no more than each perplexity; NaN below the curve's least and beyond its largest.

    Parameters
    ----------
    path : ndarray of shape (n, 2)
        Log perplexity and positive rate by rising beta; straight lines between.
    at : ndarray of shape (m,)
        Log perplexities.

    Notes
    -----
    A small beta may lower the perplexity, so that a curve can turn back; of what is no less fluent, the best counts.
    """
    place = np.linspace(0.0, len(path) - 1.0, _FINE * (len(path) - 1) + 1)
    knots = np.arange(len(path))
    x, y = np.interp(place, knots, path[:, 0]), np.interp(place, knots, path[:, 1])
    # the places asked for may be knots of this very curve: rounding must not move them past it
    fits = x[None, :] <= at[:, None] + 1e-12
    best = np.where(fits, y[None, :], -np.inf).max(axis=1)
    return np.where(fits.any(axis=1) & (at <= x.max() + 1e-12), best, np.nan)


def gap_at_equal_perplexity(path: Array, reference: Array) -> tuple[float, float] | None:
    """Mean difference of two frontiers at the perplexities of the reference's own points.

    Parameters
    ----------
    path, reference : ndarray of shape (n, 2)
        As in :func:`frontier`; both begin with unguided decoding.

    Returns
    -------
    (float, float) or None
        The gap of rates, and the reference's own shift at the same places; None where the curves share no place.
    """
    at = reference[1:, 0]
    own, other = frontier(path, at), frontier(reference, at)
    known = ~np.isnan(own)
    if not known.any():
        return None
    return float((own - other)[known].mean()), float((other[known] - reference[0, 1]).mean())
