"""Rows of best-of-n at one n, and differences between them, with intervals: clustered by prompt group, paired draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.evaluation._candidates import Scored
from embedrm.numerics.bootstrap import Clustered, percentile_interval, two_sided_p
from embedrm.numerics.significance import holm

Array = NDArray[np.float64]
Cell = dict[str, Any]

MIN_GROUPS = 10
"""Fewer prompt groups give no interval and no p: a bootstrap of one group is certain of whatever it holds."""

FIRST, RANDOM, LENGTH, ORACLE = "first response", "random", "length only", "oracle"


class AtOneN:
    """All rows at one n, on the prompts that have n candidates (or more): estimates and draws, the same for every row."""

    def __init__(
        self,
        values: Mapping[str, Array],
        scored: Scored,
        j: int,
        n: int,
        at_least: int = 1,
        *,
        n_resamples: int,
        random_state: int,
    ) -> None:
        kept = scored.candidates.size >= max(n, at_least)
        self.n, self.n_prompts = n, int(kept.sum())
        self.place = {name: 3 * i for i, name in enumerate(values)}
        stacked = np.concatenate([v[kept, j] for v in values.values()], axis=1)
        table = Clustered.from_rows(stacked, scored.group[kept], scored.domain[kept])
        self.strata = table.strata.tolist()
        self.point = table.means()[0]
        self.draws = table.resample(n_resamples, random_state)
        # of each domain, and of both means over all
        groups = [*(table.counts > 0).sum(axis=0).tolist(), *[table.n_clusters] * 2]
        self.enough = [count >= MIN_GROUPS for count in groups]
        self.gold_sd = scored.gold_facts["within_sd"]
        self.informative = self.gold_sd > 0

    def _cell(self, point: float, draws: Array, stratum: int) -> Cell:
        return interval_cell(point, draws, self.enough[stratum])

    def row(self, name: str) -> dict[str, Any]:
        c, r, o = self.place[name], self.place[RANDOM], self.place[ORACLE]
        s = len(self.strata)
        gain, most = (self.point[s, i] - self.point[s, r] for i in (c, o))
        gains, mosts = (self.draws[:, s, i] - self.draws[:, s, r] for i in (c, o))
        out: dict[str, Any] = {
            "micro": self._cell(self.point[s, c], self.draws[:, s, c], s),
            "macro": self._cell(self.point[s + 1, c], self.draws[:, s + 1, c], s),
            "domains": {d: self._cell(self.point[i, c], self.draws[:, i, c], i) for i, d in enumerate(self.strata)},
            "gain": self._cell(gain, gains, s),
            "captured": None,
            "gain_sd": self._cell(gain / self.gold_sd, gains / self.gold_sd, s) if self.informative else None,
            "proxy": None if name in (FIRST, RANDOM) else self._cell(self.point[s, c + 1], self.draws[:, s, c + 1], s),
            "quantile": self._cell(self.point[s, c + 2], self.draws[:, s, c + 2], s),
        }
        # rounding alone is no gain to have a share of; a draw of prompts whose golds are all equal has none either
        least = 1e-12 * max(1.0, abs(self.point[s, o]))
        if self.n > 1 and most > least:
            shares = np.where(mosts > least, gains / np.maximum(mosts, least), np.nan)
            out["captured"] = self._cell(gain / most, shares, s)
        return out

    def difference(self, a: str, b: str, stratum: int) -> Cell:
        draws = self.draws[:, stratum, self.place[a]] - self.draws[:, stratum, self.place[b]]
        point = self.point[stratum, self.place[a]] - self.point[stratum, self.place[b]]
        return self._cell(point, draws, stratum) | {"p": two_sided_p(draws) if self.enough[stratum] else None}


def curve_facts(
    rows: list[dict[str, Any]], tables: list[AtOneN], headline: int, again: Callable[[int, int], AtOneN]
) -> dict[str, Any]:
    """Every n up to the headline on the prompts that can serve the headline: one sample, along which curves may be read."""
    places = [j for j, table in enumerate(tables) if table.n <= headline]
    last = tables[places[-1]]
    same = [tables[j] if tables[j].n_prompts == last.n_prompts else again(j, tables[j].n) for j in places]
    found = []
    for row in rows:
        cells = [table.row(row["model"]) for table in same]
        keys = ("micro", "proxy", "gain_sd")
        found.append(
            {key: row[key] for key in ("model", "kind")} | {key: [cell[key] for cell in cells] for key in keys}
        )
    return {"ns": [table.n for table in same], "n_prompts": last.n_prompts, "rows": found}


def difference_facts(a: str, b: str, grid: list[int], tables: list[AtOneN], domains: Sequence[str]) -> dict[str, Any]:
    """One row less another at every n; among two choices out of one candidate there is no difference, and no test."""
    out: dict[str, Any] = {"model": a, "reference": b}
    place = {"micro": [len(t.strata) for t in tables], "macro": [len(t.strata) + 1 for t in tables]}
    for what, strata in place.items():
        out[what] = _corrected([t.difference(a, b, s) for t, s in zip(tables, strata)], grid)
    out["domains"] = {
        d: _corrected([t.difference(a, b, t.strata.index(d)) if d in t.strata else None for t in tables], grid)
        for d in domains
    }
    return out


def _corrected(cells: list[Cell | None], grid: list[int]) -> list[Cell | None]:
    """Add Holm's p over the n above one; a choice among one candidate is no hypothesis, and keeps its p of one."""
    known = [(cell, n) for cell, n in zip(cells, grid) if cell is not None]
    for cell, _ in known:
        cell["p_holm"] = cell["p"]
    tested = [cell for cell, n in known if n > 1 and cell["p"] is not None]
    for cell, adjusted in zip(tested, holm([cell["p"] for cell in tested])):
        cell["p_holm"] = float(adjusted)
    return cells


def interval_cell(point: float, draws: Array, enough: bool = True) -> Cell:
    """A value with its percentile interval, without one where there are too few prompt groups for it."""
    if not enough:
        return {"value": float(point), "low": None, "high": None}
    low, high = percentile_interval(draws)
    return {"value": float(point), "low": float(low), "high": float(high)}
