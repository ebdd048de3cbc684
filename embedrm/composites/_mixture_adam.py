"""Adam on batches of prompts, for mixtures of perceptrons and for noise and dropout of experts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embedrm.composites._mixture_gate import Start, sparse_softmax
from embedrm.composites._mixture_training import Batch, Parameters, Prompts, Settings, mix, prompt_shares
from embedrm.featurizers.rows import FeatureRows
from embedrm.heads._diverged import loss_not_finite, no_epoch_can_be_chosen
from embedrm.heads._network import Adam, Network
from embedrm.objectives import Comparisons, Objective
from embedrm.objectives.base import total_weight
from embedrm.preferences import Rows

Array = NDArray[np.float64]

_LEAST_STEPS = 8
_LEAST_ROWS = 32
_BLOCK_ROWS = 4096


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
    n_batches = max(1, round(n_rows / min(schedule.batch_rows, max(_LEAST_ROWS, n_rows // _LEAST_STEPS))))
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
            prompt_weight = prompt_shares(local[part.pairs[:, 0]], part.weight, len(here), settings.by_pairs)
            batch = Batch(settings, objective.loss(part), local, prompt_weight, few)
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
            raise loss_not_finite(who, epoch)
        if held is None:
            best_epoch = epoch
            continue
        held_out.append(
            _held_out_loss(settings, objective, features, comparisons, held, position, prompts, network, gate)
        )
        if held_out[-1] < best_loss:
            best = _parameters(schedule, network.copy(), gate)
            best_loss, best_epoch, idle = held_out[-1], epoch, 0
        else:
            idle += 1
            if schedule.patience is not None and idle >= schedule.patience:
                break
    if held is not None and best is None:
        raise no_epoch_can_be_chosen(who, len(held_out))
    return Trained(best or _parameters(schedule, network, gate), best_epoch, losses, held_out)


def _parameters(schedule: Schedule, network: Network, gate: Network) -> Parameters:
    if schedule.hidden:
        return Parameters(None, network, *_gate_of(gate))
    return Parameters(network.weights[0][:, :, 0].T.astype(np.float64), None, *_gate_of(gate))


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
    for begin in range(0, len(rows), _BLOCK_ROWS):
        columns[begin : begin + _BLOCK_ROWS] = network.predict(features.take(rows[begin : begin + _BLOCK_ROWS]))
    weights, bias = _gate_of(gate)
    here, local = np.unique(position[rows], return_inverse=True)
    mixed = mix(columns, sparse_softmax(prompts.z[here] @ weights + bias, settings.k)[local], settings.n_experts)
    return float(objective.loss(held).evaluate(mixed).value)
