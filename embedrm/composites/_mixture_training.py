"""Train gate and experts of a mixture together: L-BFGS on all pairs, or Adam on batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from embedrm.composites._mixture_gate import (
    Start,
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
from embedrm.heads._network import Adam, Network
from embedrm.objectives import Comparisons, Loss, Objective
from embedrm.objectives.base import total_weight
from embedrm.preferences import Rows
from embedrm.reward_model import check_finite

Array = NDArray[np.float64]

# Responses sampled for the metric of the experts' weights, a feature; it shapes the path to an optimum, not the optimum.
_METRIC_ROWS_PER_FEATURE = 2
_METRIC_ROWS = (2048, 8192)
_LEAST_STEPS = 8


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
    owner : ndarray of shape (n_pairs,)
        The same of each pair.
    weight : ndarray of shape (n_pairs,)
        Of the pairs.
    prompts : Prompts
    """

    def __init__(
        self, settings: Settings, loss: Loss, prompt_of: Rows, owner: Rows, weight: Array, prompts: Prompts
    ) -> None:
        self.settings, self.loss, self.prompt_of, self.prompts = settings, loss, prompt_of, prompts
        n = len(prompts.codes)
        share = np.bincount(owner, weights=weight, minlength=n)
        if not settings.by_pairs:
            share = (share > 0).astype(np.float64)
        self.weight = share / max(float(share.sum()), 1e-300)
        ones = np.ones(len(prompt_of))
        self._sum = csr_array((ones, (prompt_of, np.arange(len(prompt_of)))), shape=(n, len(prompt_of)))

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


def mix(columns: Array, gate: Array, n_experts: int) -> Array:
    """Rewards (n,) of columns (n, n_columns) under a gate of each response (n, n_experts)."""
    mixed: Array = np.einsum("ij,ij->i", columns[:, :n_experts], gate)
    return mixed + columns[:, n_experts] if columns.shape[1] > n_experts else mixed


@dataclass
class Parameters:
    """What is learned: experts as one network a column (a single layer where linear), and the gate."""

    network: Network
    gate_weights: Array
    gate_bias: Array

    def coefficients(self) -> Array:
        """Weights (dim, n_columns) of linear experts, float64."""
        return self.network.weights[0][:, :, 0].T.astype(np.float64)


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
    count = np.bincount(position)
    wanted = min(most, max(least, _METRIC_ROWS_PER_FEATURE * features.dim))
    step = max(1.0, len(position) / wanted)
    prompts = np.unique(np.arange(0.0, len(count), step).astype(np.intp))
    rows = np.flatnonzero(np.isin(position, prompts))
    x = np.nan_to_num(features.take(rows), nan=0.0, posinf=0.0, neginf=0.0)
    _, local = np.unique(position[rows], return_inverse=True)
    share = np.asarray(degree)[rows]
    total = np.maximum(np.bincount(local, share), 1e-300)
    weights = csr_array((share / total[local], (local, np.arange(len(rows)))))
    x -= (weights @ x)[local].astype(x.dtype)
    x *= np.sqrt(share * (len(rows) / max(float(share.sum()), 1e-300)))[:, None].astype(x.dtype)
    return Metric.of(x, 2.0 * bend)


def expert_shares(batch: Batch, gate: Array) -> Array:
    """Share of the pairs' curvature that meets each column, for the metric: the mean squared gate, and 1."""
    share = np.maximum(batch.weight @ gate**2, 1e-3)
    return np.concatenate([share, np.ones(batch.settings.n_columns - batch.settings.n_experts)])


@dataclass(frozen=True)
class Schedule:
    """How Adam steps."""

    hidden: tuple[int, ...]
    learning_rate: float
    batch_rows: int
    max_epochs: int
    patience: int | None
    random_state: int


@dataclass
class Trained:
    """Parameters, the epoch that was kept, and mean losses by epoch (the second empty without held-out pairs)."""

    parameters: Parameters
    epoch: int
    losses: list[float]
    held_out: list[float]


def _network(settings: Settings, dim: int, schedule: Schedule) -> Network:
    n = settings.n_columns
    rngs = [np.random.default_rng([schedule.random_state, 3, c]) for c in range(n)]
    network = Network.new((dim, *schedule.hidden, 1), rngs)
    if not schedule.hidden:
        network.weights[0][:] = 0.0
        network.biases[0][:] = 0.0
    return network


def _deal(owner: Rows, n_batches: int, rng: np.random.Generator) -> Iterator[Rows]:
    """Pairs of each batch, prompts in random order; a prompt may be cut where two batches meet."""
    rank = rng.permutation(int(owner.max()) + 1)
    yield from np.array_split(np.argsort(rank[owner], kind="stable"), n_batches)


def train(
    settings: Settings,
    schedule: Schedule,
    objective: Objective,
    features: FeatureRows,
    comparisons: Comparisons,
    position: Rows,
    prompts: Prompts,
    start: Start,
    inside: Rows,
    outside: Rows,
    who: str,
) -> Trained:
    """Adam on batches of prompts.

    Parameters
    ----------
    settings, schedule, objective
    features : FeatureRows
        Of the responses of ``comparisons``.
    comparisons : Comparisons
    position : ndarray of shape (n_responses,)
        Position of each response's prompt among ``prompts``.
    prompts : Prompts
    start : Start
        First gate.
    inside, outside : ndarray of int
        Pairs to train on, and pairs by whose loss training is stopped.
    who : str
        Name in errors.
    """
    rng = np.random.default_rng([schedule.random_state, 4])
    network = _network(settings, features.dim, schedule)
    gate = Network([start.weights[None].astype(np.float32).copy()], [start.bias[None].astype(np.float32).copy()])
    steps = Adam(network, schedule.learning_rate, 0.0, 0.0), Adam(gate, schedule.learning_rate, 0.0, 0.0)
    penalties = settings.penalties.astype(np.float32)[:, None, None]
    train_part, held = comparisons.take(inside), comparisons.take(outside) if len(outside) else None
    total_weight(train_part.weight, who)
    mean_weight = float(train_part.weight.mean())
    owner = position[comparisons.pairs[inside, 0]]
    n_rows = len(train_part.rows)
    n_batches = max(1, round(n_rows / min(schedule.batch_rows, max(32, n_rows // _LEAST_STEPS))))
    best: Parameters | None = None
    best_loss, best_epoch, idle = np.inf, 0, 0
    losses: list[float] = []
    held_out: list[float] = []
    for epoch in range(1, schedule.max_epochs + 1):
        total = 0.0
        for pairs in _deal(owner, n_batches, rng):
            part = comparisons.take(inside[pairs])
            weight_here = float(part.weight.sum())
            if weight_here <= 0:
                continue
            rows = np.searchsorted(comparisons.rows, part.rows)
            here, local = np.unique(position[rows], return_inverse=True)
            few = replace(prompts, z=prompts.z[here], codes=prompts.codes[here])
            batch = Batch(settings, objective.loss(part), local, local[part.pairs[:, 0]], part.weight, few)
            x = features.take(rows)
            columns, kept = network.forward(x, 0.0, rng)
            logits = (few.z @ gate.weights[0][0]).astype(np.float64) + gate.biases[0][0]
            jitter = settings.noise * rng.normal(size=logits.shape) if settings.noise else None
            dropped = rng.random(logits.shape) < settings.expert_dropout if settings.expert_dropout else None
            value, _, slope, back = batch.evaluate(columns.astype(np.float64), logits, jitter, dropped)
            share = weight_here / (mean_weight * len(pairs))
            total += value * weight_here
            gradient = network.backward(x, kept, (slope * share).astype(np.float32), 0.0)
            for g, w in zip(gradient.weights, network.weights):
                g += penalties * w
            if not schedule.hidden:
                gradient.biases[0][:] = 0.0
            back *= share
            g_gate = few.z.T @ back.astype(few.z.dtype) + settings.gate_l2 * gate.weights[0][0]
            steps[0].step(gradient)
            steps[1].step(Network([g_gate[None].astype(np.float32)], [back.sum(axis=0)[None].astype(np.float32)]))
        losses.append(total / float(train_part.weight.sum()))
        if not np.isfinite(losses[-1]):
            raise InvalidInputError(
                f"{who} met a loss that is not finite in epoch {epoch}; look for NaN or infinity in the vectors, scale them "
                "(Featurizer(scale='rms')), or lower learning_rate"
            )
        if held is None:
            best_epoch = epoch
            continue
        held_out.append(
            _held_out_loss(settings, objective, features, comparisons, held, position, prompts, network, gate)
        )
        if held_out[-1] < best_loss:
            best = Parameters(network.copy(), *_gate_of(gate))
            best_loss, best_epoch, idle = held_out[-1], epoch, 0
        else:
            idle += 1
            if schedule.patience is not None and idle >= schedule.patience:
                break
    return Trained(best or Parameters(network, *_gate_of(gate)), best_epoch, losses, held_out)


def _gate_of(gate: Network) -> tuple[Array, Array]:
    return gate.weights[0][0].astype(np.float64), gate.biases[0][0].astype(np.float64)


def _held_out_loss(
    settings: Settings,
    objective: Objective,
    features: FeatureRows,
    comparisons: Comparisons,
    held: Comparisons,
    position: Rows,
    prompts: Prompts,
    network: Network,
    gate: Network,
) -> float:
    rows = np.searchsorted(comparisons.rows, held.rows)
    columns = np.empty((len(rows), settings.n_columns))
    for begin in range(0, len(rows), 4096):
        columns[begin : begin + 4096] = network.predict(features.take(rows[begin : begin + 4096]))
    weights, bias = _gate_of(gate)
    here, local = np.unique(position[rows], return_inverse=True)
    mixed = mix(columns, sparse_softmax(prompts.z[here] @ weights + bias, settings.k)[local], settings.n_experts)
    return float(objective.loss(held).evaluate(mixed).value)
