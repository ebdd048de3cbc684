"""How hard domains are pulled towards the shared head: chosen on held-out prompt groups, all folds in lockstep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.composites._pooled_problem import PooledProblem
from embedrm.numerics.bradley_terry import log_loss
from embedrm.numerics.folds import group_folds
from embedrm.numerics.ties import pair_credit
from embedrm.preferences import EmbeddedPreferences

Array = NDArray[np.float64]

# Objective gap to which the folds are solved; held-out losses differ by far more between candidates.
FOLD_TOL = 1e-3
# Steps down the path of strengths that make nothing better, after which it is not followed any further.
_PATIENCE = 2


@dataclass
class Choice:
    """What was chosen: ``l2``, one ``strength`` a domain, the ``common`` one, and the candidates' ``results``."""

    l2: float
    common: float
    strength: Array
    results: list[dict[str, Any]] = field(default_factory=list)


class HeldOut:
    """Losses of pairs by models that have not seen their prompt group.

    Parameters
    ----------
    problem : PooledProblem
        On all the pairs. Its features, which no label has touched, serve every fold.
    prefs : EmbeddedPreferences
    cv : int
        Folds of whole prompt groups.
    """

    def __init__(self, problem: PooledProblem, prefs: EmbeddedPreferences, cv: int, max_iter: int, who: str) -> None:
        self.problem, self.prefs, self.max_iter, self.who = problem, prefs, max_iter, who
        self.folds = list(group_folds(prefs.groups, cv, who, prefs.weight))
        self.weight = np.repeat(prefs.weight[:, None], len(self.folds), axis=1)
        for k, (_, held_out) in enumerate(self.folds):
            self.weight[held_out, k] = 0.0
        _, self.group = np.unique(prefs.groups, return_inverse=True)
        self.logits = problem.objective.margins_are_logits
        self.at: Array | None = None

    def losses(self, l2: float, strength: Array | None) -> tuple[Array, Array]:
        """Loss of every pair, (n_pairs,), and its margin; the next call begins where this one ended.

        Under an objective whose margins are no logits, the loss of a pair is the mean of the objective itself over the
        held-out pairs of its domain and fold.
        """
        problem = self.problem
        self.at = problem.solve(
            l2,
            strength,
            self.weight,
            self.at,
            tol=FOLD_TOL,
            max_iter=self.max_iter,
            precise=False,
            who=self.who,
        )
        rewards = problem.forward(self.at.reshape(-1, len(self.folds)))
        pairs = problem.comparisons.pairs
        margins, losses = np.empty(len(pairs)), np.empty(len(pairs))
        for k, (_, held_out) in enumerate(self.folds):
            own = rewards[:, k]
            margins[held_out] = own[pairs[held_out, 0]] - own[pairs[held_out, 1]]
            if not self.logits:
                for d in np.unique(problem.pair_code[held_out]):
                    part = held_out[problem.pair_code[held_out] == d]
                    losses[part] = self._mean_objective(part, own)
        if self.logits:
            losses = log_loss(margins, self.prefs.outcome)
        return losses, margins

    def _mean_objective(self, part: NDArray[np.intp], rewards: Array) -> float:
        if not self.prefs.weight[part].sum() > 0:
            return 0.0
        comparisons = self.problem.comparisons
        touched = np.unique(comparisons.pairs[part])
        return float(self.problem.objective.loss(comparisons.take(part)).evaluate(rewards[touched]).value)

    def mean(self, losses: Array, mine: NDArray[np.bool_] | None = None) -> float:
        """Mean by weight, of all pairs or of ``mine``."""
        weight = self.prefs.weight
        return float(np.average(losses, weights=weight if mine is None else np.where(mine, weight, 0.0)))

    def n_groups(self, mine: NDArray[np.bool_]) -> int:
        """Prompt groups of the pairs that count among ``mine``."""
        return len(np.unique(self.group[mine & (self.prefs.weight > 0)]))

    def gain(self, losses: Array, other: Array, mine: NDArray[np.bool_]) -> tuple[float, float]:
        """By how much ``other`` is lower, a pair of ``mine`` on average, and its standard error over prompt groups."""
        mine = mine & (self.prefs.weight > 0)
        if not mine.any():
            return 0.0, 0.0
        weight = self.prefs.weight[mine] / self.prefs.weight[mine].sum()
        difference = losses[mine] - other[mine]
        mean = float(weight @ difference)
        _, group = np.unique(self.group[mine], return_inverse=True)
        by_group = np.bincount(group, weights=weight * (difference - mean))
        n = len(by_group)
        return mean, float(np.sqrt(n / max(1, n - 1) * (by_group**2).sum()))

    def result(self, l2: float, strength: float, losses: Array, margins: Array) -> dict[str, Any]:
        """One candidate's row for a report."""
        labelled = ~self.prefs.ties
        hits = pair_credit(margins[labelled])
        return {
            "l2": l2,
            "strength": strength,
            "log_loss" if self.logits else "loss": self.mean(losses),
            "accuracy": float(hits.mean()) if len(hits) else 0.0,
        }


def choose(
    held: HeldOut,
    l2_grid: list[float],
    strength_grid: list[float],
    search: bool,
    power: float,
    min_groups: int | None,
) -> Choice:
    """Choose the shared head's penalty without deviations, the strength of the pull with it, and both around that once more.

    Beside deviations the shared head has less to say: a penalty fit for it alone is often too weak where domains disagree.
    So stronger ones are tried under the chosen strength, and then the strengths next to it under the better penalty.

    Parameters
    ----------
    l2_grid, strength_grid : list of float
        Falling. Infinity, no deviations, is always among the strengths.
    search : bool
        Whether to choose among the strengths; otherwise the first one is taken.
    power : float
        tau of a domain with share pi of the pairs is ``strength * pi ** power``.
    min_groups : int, optional
        Prompt groups from which on a domain may have a strength of its own: where the held-out loss of its own pairs is
        lower than under the common strength by more than one standard error. None: never.
    """
    problem = held.problem
    results: list[dict[str, Any]] = []
    shared = {}
    for l2 in l2_grid:
        shared[l2] = (*held.losses(l2, None), held.at)
        results.append(held.result(l2, np.inf, *shared[l2][:2]))
    l2 = min(l2_grid, key=lambda v: held.mean(shared[v][0]))
    scale = problem.share**power
    if not search:
        common = strength_grid[0]
        return Choice(l2, common, np.full(problem.n_domains, common) * (1.0 if np.isinf(common) else scale), results)
    losses = {np.inf: shared[l2][0]}
    held.at = shared[l2][2]
    own = [problem.pair_code == d for d in range(problem.n_domains)]
    alone = [min_groups is not None and held.n_groups(mine) >= min_groups for mine in own]
    judged = [None, *(mine for mine, free in zip(own, alone) if free)]
    best = [held.mean(losses[np.inf], mine) for mine in judged]
    idle, points = 0, {}
    for strength in strength_grid:
        if np.isinf(strength):
            continue
        losses[strength], margins = held.losses(l2, strength * scale)
        results.append(held.result(l2, strength, losses[strength], margins))
        points[strength] = held.at
        now = [held.mean(losses[strength], mine) for mine in judged]
        idle = idle + 1 if all(b <= a for a, b in zip(now, best)) else 0
        best = [min(a, b) for a, b in zip(now, best)]
        if idle == _PATIENCE:
            break
    common = min(losses, key=lambda s: held.mean(losses[s]))
    if np.isfinite(common):
        first, held.at = l2, points[common]
        for stronger in sorted(v for v in l2_grid if v > first):
            loss, margins = held.losses(stronger, common * scale)
            results.append(held.result(stronger, common, loss, margins))
            if held.mean(loss) >= held.mean(losses[common]):
                break
            l2, losses[common] = stronger, loss
        if l2 > first:
            tried = sorted(points)
            at = tried.index(common)
            losses = {common: losses[common]}
            for strength in (*tried[at + 1 : at + 2], *tried[max(0, at - 1) : at]):
                losses[strength], margins = held.losses(l2, strength * scale)
                results.append(held.result(l2, strength, losses[strength], margins))
            common = min(losses, key=lambda s: held.mean(losses[s]))
    chosen = np.full(problem.n_domains, common)
    for d, (mine, free) in enumerate(zip(own, alone)):
        gains = {s: held.gain(losses[common], loss, mine) for s, loss in losses.items()} if free else {}
        better = {s: gain for s, (gain, error) in gains.items() if gain > error}
        if better:
            chosen[d] = max(better, key=lambda s: better[s])
    return Choice(l2, float(common), chosen * np.where(np.isinf(chosen), 1.0, scale), results)
