"""From data and parameters of a mixture to its trained parts: the first gate, the penalties, and the way of training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from embedrm.composites._mixture_adam import Schedule, train
from embedrm.composites._mixture_gate import Start, logistic_start, sparse_softmax
from embedrm.composites._mixture_solver import Metric
from embedrm.composites._mixture_training import (
    Batch,
    Parameters,
    Prompts,
    Settings,
    Whole,
    expert_metric,
    expert_shares,
    prompt_shares,
)
from embedrm.errors import InvalidInputError
from embedrm.featurizers.rows import FeatureRows
from embedrm.numerics.folds import group_folds, hold_out
from embedrm.objectives import Comparisons, Objective
from embedrm.preferences import Rows

Array = NDArray[np.float64]

WHO = "MixtureRewardModel"
# Penalties are chosen at a looser gap than the last fit is brought to.
_CHOICE_TOL, _CHOICE_ITERATIONS = 1e-4, 30


@dataclass
class Fitted:
    """Parameters, the penalties used, the gate's logits on the training prompts and their weights, and the way there."""

    parameters: Parameters
    penalties: tuple[float, float]
    logits: Array
    weight: Array
    history: list[dict[str, float]]
    cv_results: list[dict[str, float]] = field(default_factory=list)


class Fit:
    """One training set.

    Parameters
    ----------
    settings : Settings
        Its penalties are replaced by those of the candidates.
    objective : Objective
    comparisons : Comparisons
    groups : ndarray of shape (n_pairs,)
        What is held out together.
    features : FeatureRows
        Of the responses of ``comparisons``.
    position : ndarray of shape (n_responses,)
        Position of each response's prompt among ``prompts``.
    prompts : Prompts
    random_state : int
        Of the first gate.
    """

    def __init__(
        self,
        settings: Settings,
        objective: Objective,
        comparisons: Comparisons,
        groups: NDArray[np.str_],
        features: FeatureRows,
        position: Rows,
        prompts: Prompts,
        random_state: int,
    ) -> None:
        self.random_state = random_state
        self.settings, self.objective, self.comparisons, self.groups = settings, objective, comparisons, groups
        self.features, self.position, self.prompts = features, position, prompts
        self.owner = position[comparisons.pairs[:, 0]]
        self.weight = self._shares(comparisons.weight)
        z = prompts.z
        self.gate_metric = Metric.of(z * np.sqrt(self.weight * len(z)).astype(z.dtype)[:, None], 1.0)

    def _shares(self, weight: Array) -> Array:
        return prompt_shares(self.owner, weight, len(self.prompts.codes), self.settings.by_pairs)

    def first_gate(self, weight: Array) -> Start:
        """Softmax regression of the prompts' labels, prompts by ``weight``."""
        s = self.settings
        if s.n_experts == 1:
            return Start(np.zeros((self.prompts.z.shape[1], 1)), np.zeros(1))
        share, floor = np.full(s.n_experts, 0.3), np.full(s.n_experts, max(s.gate_l2, 1e-6))
        p = self.prompts
        return logistic_start(
            p.z,
            p.codes,
            p.expert_label,
            weight,
            s.gate_l2,
            lambda w: self.gate_metric.solve(w, share, floor),
            self.random_state,
        )

    def _batch(self, weight: Array) -> Batch:
        loss = self.objective.loss(self.comparisons.weighted(weight))
        return Batch(self.settings, loss, self.position, self._shares(weight), self.prompts)

    def solve(self, candidates: list[tuple[float, float]], cv: int, tol: float, max_iter: int) -> Fitted:
        """L-BFGS for linear experts; of several candidate penalties (l2, l2_shared) the best on held-out groups."""
        batch = self._batch(self.comparisons.weight)
        metric = expert_metric(self.features, self.comparisons, self.position, batch.loss.bend)
        results: list[dict[str, float]] = []
        if len(candidates) > 1:
            results = self._choose(candidates, cv, metric, max(tol, _CHOICE_TOL), min(max_iter, _CHOICE_ITERATIONS))
            candidates = [candidates[int(np.argmin([r["loss"] for r in results]))]]
        whole = self._whole(batch, candidates[0])
        x, values = self._minimise(whole, self._start(whole, self.weight), metric, tol, max_iter)
        coef, weights, bias = whole.unpack(x)
        history = [{"step": float(i), "objective": v} for i, v in enumerate(values)]
        found = Parameters(coef, None, weights, bias)
        return Fitted(found, candidates[0], whole.logits(weights, bias), self.weight, history, results)

    def _whole(self, batch: Batch, penalties: tuple[float, float]) -> Whole:
        batch.settings = replace(self.settings, l2=penalties[0], l2_shared=penalties[1])
        return Whole(batch.settings, self.features, batch, WHO)

    def _start(self, whole: Whole, weight: Array) -> Array:
        first = self.first_gate(weight)
        return whole.pack(np.zeros(whole.shapes[0]), first.weights, first.bias)

    def _minimise(
        self, whole: Whole, start: Array, metric: Metric, tol: float, max_iter: int
    ) -> tuple[Array, list[float]]:
        _, weights, bias = whole.unpack(start)
        share = expert_shares(whole.batch, sparse_softmax(whole.logits(weights, bias), self.settings.k))
        return whole.solve(start, metric, self.gate_metric, share, tol, max_iter)

    def _choose(
        self, candidates: list[tuple[float, float]], cv: int, metric: Metric, tol: float, max_iter: int
    ) -> list[dict[str, float]]:
        """Held-out mean loss of the candidates; each begins where the one before it ended, and the gate is trained too."""
        losses, total = np.zeros(len(candidates)), 0.0
        given = self.comparisons.weight
        for inside, outside in group_folds(self.groups, cv, f"{WHO}(l2='cv')", given):
            seen, unseen = np.zeros(len(given)), np.zeros(len(given))
            seen[inside], unseen[outside] = given[inside], given[outside]
            if not (seen.any() and unseen.any()):
                continue
            part = self._batch(seen)
            judge = self.objective.loss(self.comparisons.weighted(unseen))
            x: Array | None = None
            for c, penalties in enumerate(candidates):
                whole = self._whole(part, penalties)
                start = self._start(whole, part.weight) if x is None else x
                x, _ = self._minimise(whole, start, metric, tol, max_iter)
                coef, weights, bias = whole.unpack(x)
                gate = sparse_softmax(whole.logits(weights, bias), self.settings.k)
                losses[c] += float(unseen.sum()) * float(judge.evaluate(part.rewards(whole.columns(coef), gate)).value)
            total += float(unseen.sum())
        if not total:
            raise InvalidInputError(f"{WHO}(l2='cv') needs prompt groups with positive weight in at least two folds")
        return [{"l2": c[0], "l2_shared": c[1], "loss": float(v / total)} for c, v in zip(candidates, losses)]

    def step(self, schedule: Schedule, fraction: float) -> Fitted:
        """Adam; a fraction of the groups is held out where the schedule has patience."""
        inside, outside = np.arange(len(self.groups)), np.arange(0)
        weight = self.weight
        if schedule.patience is not None:
            remedy = "early_stopping=False with a max_epochs of your choice"
            weights = self.comparisons.weight
            inside, outside = hold_out(self.groups, fraction, schedule.random_state, WHO, remedy, weights)
            # the first gate does not see the prompts by which training is stopped
            seen = np.zeros(len(self.groups))
            seen[inside] = self.comparisons.weight[inside]
            weight = self._shares(seen)
        trained = train(
            self.settings,
            schedule,
            self.objective,
            self.features,
            self.comparisons,
            self.position,
            self.prompts,
            self.first_gate(weight),
            inside,
            outside,
            WHO,
        )
        history = [{"epoch": float(i + 1), "loss": v} for i, v in enumerate(trained.losses)]
        for facts, loss in zip(history, trained.held_out):
            facts["held_out_loss"] = loss
        found = trained.parameters
        logits = self.prompts.z @ found.gate_weights + found.gate_bias
        return Fitted(found, (self.settings.l2, self.settings.l2_shared), logits, self.weight, history)


def candidates_of(
    l2: float | str | None, l2_shared: float | str | None, grid: tuple[float, ...], default: tuple[float, float]
) -> list[tuple[float, float]]:
    """Pairs of penalties to try, the strongest first; one where neither is to be chosen."""
    falling = sorted({float(v) for v in grid}, reverse=True)
    first, second = (
        falling if isinstance(p, str) else [fixed if p is None else float(p)]
        for p, fixed in zip((l2, l2_shared), default)
    )
    return list(product(first, second))
