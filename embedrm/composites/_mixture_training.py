"""What a mixture minimises, and L-BFGS for linear experts on all pairs at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from embedrm.composites._mixture_gate import (
    importance_balance,
    label_loss,
    load_balance,
    softmax_slope,
    sparse_softmax,
    switch_balance,
)
from embedrm.composites._mixture_solver import Metric, minimise
from embedrm.errors import InvalidInputError
from embedrm.featurizers.rows import FeatureRows
from embedrm.heads._network import Network
from embedrm.objectives import Comparisons, Loss
from embedrm.preferences import Rows
from embedrm.reward_model import check_finite

Array = NDArray[np.float64]

# Responses sampled for the metric of the experts' weights, a feature; it shapes the path to an optimum, not the optimum.
_METRIC_ROWS_PER_FEATURE = 3
_METRIC_ROWS = (2048, 8192)
# Prompts with so many times the mean weight are all in the sample: few of them may hold many of the pairs.
_HEAVY = 8.0


@dataclass(frozen=True)
class Settings:
    """What a mixture minimises and how; see :class:`embedrm.composites.mixture.MixtureRewardModel`."""

    n_experts: int
    k: int
    shared: bool
    l2: float
    l2_shared: float
    gate_l2: float
    supervision: float
    balance: float
    variation: float
    noise: float
    expert_dropout: float
    by_pairs: bool

    @property
    def n_columns(self) -> int:
        """Reward columns: the experts, then the shared part."""
        return self.n_experts + self.shared

    @property
    def penalties(self) -> Array:
        """``l2`` of every reward column."""
        return np.array([self.l2] * self.n_experts + [self.l2_shared] * self.shared)


@dataclass(frozen=True)
class Prompts:
    """Prompts as the gate sees them: vectors (n, dim), the label's number (n,), and the label of every expert."""

    z: NDArray[Any]
    codes: Rows
    expert_label: Rows


class Batch:
    """Some pairs' loss as a function of reward columns and gate logits.

    Parameters
    ----------
    settings : Settings
    loss : Loss
        On rewards of n responses.
    prompt_of : ndarray of shape (n,)
        Position of each response's prompt among those of the gate.
    weight : ndarray of shape (n_prompts,)
        Weights of those prompts in the gate's terms, sum one.
    prompts : Prompts
    """

    def __init__(self, settings: Settings, loss: Loss, prompt_of: Rows, weight: Array, prompts: Prompts) -> None:
        self.settings, self.loss, self.prompt_of, self.prompts = settings, loss, prompt_of, prompts
        self.weight = weight
        entries = np.ones(len(prompt_of)), (prompt_of, np.arange(len(prompt_of)))
        self._sum = csr_array(entries, shape=(len(prompts.codes), len(prompt_of)))

    def rewards(self, columns: Array, gate: Array) -> Array:
        """Mix reward columns (n, n_columns) by the gate (n_prompts, n_experts)."""
        return mix(columns, gate[self.prompt_of], self.settings.n_experts)

    def evaluate(
        self, columns: Array, logits: Array, jitter: Array | None = None, dropped: NDArray[np.bool_] | None = None
    ) -> tuple[float, float, Array, Array]:
        """Loss, loss with the gate's terms, and the slopes in the columns and in the logits.

        ``jitter`` is added to the logits of the gate that mixes; ``dropped`` experts are left out of it.
        """
        s = self.settings
        n = s.n_experts
        noisy = logits if jitter is None else logits + jitter
        gate = sparse_softmax(noisy, s.k, dropped)
        at = self.loss.evaluate(self.rewards(columns, gate))
        value = float(at.value)
        slope = np.empty_like(columns)
        slope[:, :n] = at.slope[:, None] * gate[self.prompt_of]
        slope[:, n:] = at.slope[:, None]
        back = softmax_slope(gate, self._sum @ (at.slope[:, None] * columns[:, :n]))
        total = value
        terms: list[tuple[float, tuple[float, Array]]] = []
        if n > 1:
            if s.supervision:
                p = self.prompts
                terms.append((s.supervision, label_loss(logits, p.codes, p.expert_label, self.weight)))
            if s.balance:
                terms.append((s.balance, switch_balance(logits, self.weight)))
            if s.variation:
                terms.append((s.variation, importance_balance(gate, self.weight)))
                if jitter is not None:
                    terms.append((s.variation, load_balance(logits, noisy, s.noise, s.k, self.weight)))
        for factor, (term, term_slope) in terms:
            total += factor * term
            back += factor * term_slope
        return value, total, slope, back


def prompt_shares(owner: Rows, weight: Array, n_prompts: int, by_pairs: bool) -> Array:
    """Weights of prompts (n_prompts,), sum one, from the prompt and the weight of every pair: by pairs, or alike."""
    share = np.bincount(owner, weights=weight, minlength=n_prompts)
    share = share if by_pairs else (share > 0).astype(np.float64)
    return share / max(float(share.sum()), 1e-300)


def mix(columns: Array, gate: Array, n_experts: int) -> Array:
    """Rewards (n,) of columns (n, n_columns) under a gate of each response (n, n_experts)."""
    mixed: Array = np.einsum("ij,ij->i", columns[:, :n_experts], gate)
    return mixed + columns[:, n_experts] if columns.shape[1] > n_experts else mixed


@dataclass
class Parameters:
    """What is learned: weights (dim, n_columns) of linear experts or networks of perceptrons, and the gate."""

    coef: Array | None
    network: Network | None
    gate_weights: Array
    gate_bias: Array


class Whole:
    """All pairs at once, experts linear: value and slope of a vector of all parameters."""

    def __init__(self, settings: Settings, features: FeatureRows, batch: Batch, who: str) -> None:
        self.settings, self.features, self.batch = settings, features, batch
        self.who = who
        self.shapes = (features.dim, settings.n_columns), (batch.prompts.z.shape[1], settings.n_experts)

    def pack(self, coef: Array, gate_weights: Array, gate_bias: Array) -> Array:
        """One vector."""
        return np.concatenate([coef.ravel(), gate_weights.ravel(), gate_bias])

    def unpack(self, x: Array) -> tuple[Array, Array, Array]:
        """Undo :meth:`pack`."""
        (dim, m), (width, n) = self.shapes
        return (
            x[: dim * m].reshape(dim, m),
            x[dim * m : dim * m + width * n].reshape(width, n),
            x[dim * m + width * n :],
        )

    def columns(self, coef: Array) -> Array:
        """Reward columns (n, n_columns)."""
        out = np.empty((len(self.features), coef.shape[1]))
        weights = coef.astype(self.features.dtype)
        for part, block in self.features.blocks():
            out[part] = block @ weights
        return out

    def logits(self, gate_weights: Array, gate_bias: Array) -> Array:
        """Gate logits (n_prompts, n_experts)."""
        z = self.batch.prompts.z
        return (z @ gate_weights.astype(z.dtype)).astype(np.float64) + gate_bias

    def value_and_slope(self, x: Array) -> tuple[float, Array]:
        """Objective with its penalties, and its slope."""
        s = self.settings
        coef, weights, bias = self.unpack(x)
        columns = self.columns(coef)
        _, value, slope, back = self.batch.evaluate(columns, self.logits(weights, bias))
        value += 0.5 * float(((coef**2) @ s.penalties).sum()) + 0.5 * s.gate_l2 * float((weights**2).sum())
        g_coef = coef * s.penalties
        narrow = slope.astype(self.features.dtype)
        for part, block in self.features.blocks():
            g_coef += block.T @ narrow[part]
        z = self.batch.prompts.z
        g_weights = z.T @ back.astype(z.dtype) + s.gate_l2 * weights
        return value, self.pack(g_coef, g_weights, back.sum(axis=0))

    def solve(
        self, start: Array, metric: Metric, gate_metric: Metric, share: Array, tol: float, max_iter: int
    ) -> tuple[Array, list[float]]:
        """Minimise from a start; raises where the objective is not finite."""
        s = self.settings
        n_gate = self.shapes[1][1]

        def precondition(x: Array) -> Array:
            coef, weights, bias = self.unpack(x)
            whole = np.full(n_gate, 1.0 + s.supervision)
            return self.pack(
                metric.solve(coef, share, s.penalties),
                gate_metric.solve(weights, 0.3 * whole, np.full(n_gate, s.gate_l2)) if len(weights) else weights,
                4.0 * bias,
            )

        rounding = 1e-7 if self.features.dtype == np.float32 else 1e-13
        found = minimise(self.value_and_slope, start, precondition, tol=tol, max_iter=max_iter, noise=rounding)
        if not np.isfinite(found.value):
            check_finite(self.columns(np.ones(self.shapes[0])).sum(axis=1), self.who)
            raise InvalidInputError(
                f"{self.who} met an objective that is not finite though every vector is; their values are too large: scale "
                "them, for example with Featurizer(scale='rms')"
            )
        return found.x, found.values


def expert_metric(features: FeatureRows, comparisons: Comparisons, position: Rows, bend: float) -> Metric:
    """Metric of the experts' weights: second moments of responses about the mean of their prompt, by their pairs' weight.

    Of some prompts where there are many. Made of responses, not of pairs, so that a pair of weight 2 and the pair twice
    take one path: a sparse gate has more than one optimum.
    """
    least, most = _METRIC_ROWS
    degree = sum(np.bincount(comparisons.pairs[:, s], comparisons.weight, len(position)) for s in (0, 1))
    weight = np.bincount(position, degree)
    heavy = weight >= _HEAVY * weight.mean()
    light = np.flatnonzero(~heavy)
    wanted = min(most, max(least, _METRIC_ROWS_PER_FEATURE * features.dim))
    step = max(1.0, len(position) / wanted)
    some = light[np.unique(np.arange(0.0, len(light), step).astype(np.intp))]
    factor = np.where(heavy, 1.0, len(light) / max(1, len(some)))
    rows = np.flatnonzero(np.isin(position, some) | heavy[position])
    x = np.nan_to_num(features.take(rows), nan=0.0, posinf=0.0, neginf=0.0)
    _, local = np.unique(position[rows], return_inverse=True)
    share = np.asarray(degree)[rows] * factor[position[rows]]
    total = np.maximum(np.bincount(local, share), 1e-300)
    weights = csr_array((share / total[local], (local, np.arange(len(rows)))))
    x -= (weights @ x)[local].astype(x.dtype)
    x *= np.sqrt(share * (len(rows) / max(float(share.sum()), 1e-300)))[:, None].astype(x.dtype)
    return Metric.of(x, 2.0 * bend)


def expert_shares(batch: Batch, gate: Array) -> Array:
    """Share of the pairs' curvature that meets each column, for the metric: the mean squared gate, and 1."""
    share = np.maximum(batch.weight @ gate**2, 1e-3)
    return np.concatenate([share, np.ones(batch.settings.n_columns - batch.settings.n_experts)])
