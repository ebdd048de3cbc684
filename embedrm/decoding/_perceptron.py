"""A perceptron with one output for each attribute, trained by Adam on positions, stopped by held-out groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding._lesson import Positions
from embedrm.decoding.base import Array, block_rows, read_rows, slices
from embedrm.decoding.losses import CrossEntropy, OutputLoss, Pairs, Squares
from embedrm.errors import InvalidInputError
from embedrm.heads._network import Adam, Network

Array32 = NDArray[np.float32]
# Rows that are read together and dealt to batches from memory, so that a mapped file is not read row by row.
POOL_ROWS = 16_384


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; see ``RADHead``."""

    hidden: tuple[int, ...]
    learning_rate: float
    l2: float
    batch_rows: int
    max_epochs: int
    patience: int
    random_state: int


@dataclass
class Trained:
    """Layers kept, the epoch they are of, mean losses by epoch, and whether training ended by itself."""

    weights: list[Array32]
    biases: list[Array32]
    epoch: int
    train_losses: Array
    validation_losses: Array
    converged: bool


def forward(weights: Sequence[Any], biases: Sequence[Any], x: NDArray[Any]) -> tuple[NDArray[Any], list[NDArray[Any]]]:
    """Outputs (n, n_attributes), and the rectified outputs of hidden layers."""
    kept: list[NDArray[Any]] = []
    h = x @ weights[0] + biases[0]
    for w, b in zip(weights[1:], biases[1:]):
        np.maximum(h, 0, out=h)
        kept.append(h)
        h = h @ w + b
    return h, kept


def backward(
    weights: Sequence[Any], x: NDArray[Any], kept: list[NDArray[Any]], slope: NDArray[Any]
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Gradient of ``sum(slope * outputs)`` in weights and biases."""
    inputs = [x, *kept]
    by_weight: list[NDArray[Any]] = []
    by_bias: list[NDArray[Any]] = []
    for layer in range(len(weights) - 1, -1, -1):
        by_weight.insert(0, inputs[layer].T @ slope)
        by_bias.insert(0, slope.sum(axis=0))
        if layer:
            slope = (slope @ weights[layer].T) * (inputs[layer] > 0)
    return by_weight, by_bias


class _Data:
    """Positions and their states, in units in which each coordinate has mean zero and the mean square is one."""

    def __init__(self, states: NDArray[Any], positions: Positions, entropy: bool) -> None:
        self.states, self.positions, self.entropy = states, positions, entropy
        self.centre, self.scale = np.zeros(states.shape[1]), 1.0
        self.in_pairs = positions.pairs is not None

    def measure(self) -> None:
        """Find the units, in two passes."""
        n = len(self.positions.rows)
        size = block_rows(self.states.shape[1])
        share = self.positions.even.mean(axis=1)
        self.centre = np.zeros(self.states.shape[1])
        for part in slices(n, size):
            self.centre += share[part] @ read_rows(self.states, self.positions.rows[part])
        square = 0.0
        for part in slices(n, size):
            beyond = read_rows(self.states, self.positions.rows[part]) - self.centre
            square += float(share[part] @ (beyond**2).mean(axis=1))
        self.scale = float(np.sqrt(square)) or 1.0

    def read(self, rows: NDArray[np.intp]) -> Array32:
        """States at some positions."""
        h = read_rows(self.states, self.positions.rows[rows])
        return ((h - self.centre) / self.scale).astype(np.float32)

    def outputs(self, net: Network) -> Array:
        """Outputs (n, n_attributes) at all positions."""
        weights, biases = [w[0] for w in net.weights], [b[0] for b in net.biases]
        out = np.empty((len(self.positions.rows), biases[-1].shape[0]))
        for part in slices(len(out), block_rows(self.states.shape[1])):
            out[part] = forward(weights, biases, self.read(np.arange(part.start, part.stop)))[0]
        return out

    def loss(self, outputs: Array) -> Array:
        """Mean loss of each attribute."""
        p = self.positions
        if p.pairs is not None:
            return np.array([p.loss(False).value(outputs[:, 0])])
        kind = CrossEntropy if self.entropy else Squares
        return np.array([kind(t, w).value(o) for t, w, o in zip(p.targets.T, p.weights.T, outputs.T)])

    def batches(self, rng: np.random.Generator, size: int) -> Iterator[tuple[Array32, Callable[[Array], Any]]]:
        """Yield (states, loss of outputs with its slopes) of random positions or pairs; each once an epoch.

        A batch's loss is scaled so that its expectation is the mean loss, summed over attributes.
        """
        p = self.positions
        if p.pairs is not None:
            order = rng.permutation(len(p.pairs))
            steps = max(1, round(len(order) / max(1, size // 2)))
            for chosen in np.array_split(order, steps):
                yield self._pair_batch(chosen, len(order) / len(chosen))
            return
        n = len(p.rows)
        # runs of positions are dealt to pools at random, and the positions of a pool to batches
        run = 64
        runs = rng.permutation(-(-n // run))
        for pool in np.array_split(runs, max(1, round(n / POOL_ROWS))):
            rows = np.sort((pool[:, None] * run + np.arange(run)).ravel())
            rows = rows[rows < n]
            if not len(rows):
                continue
            x = self.read(rows)
            order = rng.permutation(len(rows))
            for chosen in np.array_split(order, max(1, round(len(rows) / size))):
                at = rows[chosen]
                factor = n / len(at)
                kind = CrossEntropy if self.entropy else Squares
                yield x[chosen], kind(p.targets[at], p.weights[at] * factor).evaluate

    def _pair_batch(self, chosen: NDArray[np.intp], factor: float) -> tuple[Array32, Callable[[Array], Any]]:
        p = self.positions
        if p.pairs is None or p.outcome is None or p.pair_weights is None:
            raise TypeError("positions without pairs")
        rows, local = np.unique(p.pairs[chosen], return_inverse=True)
        loss: OutputLoss = Pairs(len(rows), local.reshape(-1, 2), p.outcome[chosen], p.pair_weights[chosen] * factor)

        def evaluate(outputs: Array) -> Any:
            at = loss.evaluate(outputs[:, 0])
            return type(at)(at.value, at.slope[:, None], None)

        return self.read(rows), evaluate


def train(
    states: NDArray[Any],
    positions: Positions,
    held_out: Positions | None,
    n_attributes: int,
    entropy: bool,
    schedule: Schedule,
    who: str,
) -> Trained:
    """Train; the units of the states are folded into the first layer at the end.

    Parameters
    ----------
    states : ndarray of shape (n_rows, dim)
    positions, held_out : Positions
        To learn from, and to stop by (all epochs are run where there are none).
    n_attributes : int
    entropy : bool
    schedule : Schedule
    who : str
        Name in errors.
    """
    data = _Data(states, positions, entropy)
    data.measure()
    rng = np.random.default_rng(schedule.random_state)
    sizes = (states.shape[1], *schedule.hidden, n_attributes)
    net = _draw(sizes, rng)
    outside = None
    if held_out is not None:
        outside = _Data(states, held_out, entropy)
        outside.centre, outside.scale = data.centre, data.scale
    adam = Adam(net, schedule.learning_rate, 0.0, schedule.l2)
    best, best_loss, best_epoch, idle = net.copy(), np.inf, 0, 0
    losses: list[float] = []
    unseen: list[float] = []
    ended = held_out is None
    for epoch in range(1, schedule.max_epochs + 1):
        total, steps = 0.0, 0
        for x, evaluate in data.batches(rng, schedule.batch_rows):
            weights = [w[0] for w in net.weights]
            outputs, kept = forward(weights, [b[0] for b in net.biases], x)
            at = evaluate(outputs.astype(np.float64))
            by_weight, by_bias = backward(weights, x, kept, at.slope.astype(np.float32))
            adam.step(Network([g[None] for g in by_weight], [g[None] for g in by_bias]))
            total, steps = total + at.value, steps + 1
        losses.append(total / steps)
        if not np.isfinite(total):
            raise InvalidInputError(
                f"{who} met a loss that is not finite in epoch {epoch}; look for NaN or infinity in the language model's "
                "states, or lower learning_rate"
            )
        if outside is None:
            best, best_epoch = net, epoch
            continue
        unseen.append(float(outside.loss(outside.outputs(net)).sum()))
        if unseen[-1] < best_loss:
            best, best_loss, best_epoch, idle = net.copy(), unseen[-1], epoch, 0
        else:
            idle += 1
        if idle >= schedule.patience:
            ended = True
            break
    weights, biases = [w[0] for w in best.weights], [b[0] for b in best.biases]
    first = weights[0].astype(np.float64) / data.scale
    biases[0] = (biases[0] - data.centre @ first).astype(np.float32)
    weights[0] = first.astype(np.float32)
    return Trained(weights, biases, best_epoch, np.array(losses), np.array(unseen), ended)


def _draw(sizes: tuple[int, ...], rng: np.random.Generator) -> Network:
    """Uniform in +-1 / sqrt(n_in), weights and biases, as the heads of responses begin."""
    weights, biases = [], []
    for n_in, n_out in pairwise(sizes):
        limit = 1 / np.sqrt(n_in)
        drawn = rng.uniform(-limit, limit, size=(n_in + 1, n_out)).astype(np.float32)
        weights.append(np.ascontiguousarray(drawn[None, :-1]))
        biases.append(drawn[None, -1].copy())
    return Network(weights, biases)
