"""Train one adapter on a frozen trunk: for the rewards of a domain's pairs, or for the domains of prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from embedrm.composites._adapter_factors import (
    Adapter,
    Array,
    Plan,
    Trunk,
    backward,
    first_product,
    flat_views,
    forward,
)
from embedrm.featurizers.rows import BLOCK_ROWS, HELD_LIMIT_BYTES
from embedrm.heads._diverged import loss_not_finite, no_epoch_can_be_chosen
from embedrm.heads._mlp_training import _Batches
from embedrm.heads._network import Adam, Network
from embedrm.objectives import Comparisons, Objective
from embedrm.preferences import Rows

Float = NDArray[np.float64]
# A small set of prompts is still cut into this many steps an epoch.
_LEAST_STEPS = 8
_LEAST_ROWS = 32


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; see :class:`embedrm.composites.adapters.AdapterRewardModel`."""

    learning_rate: float
    l2: float
    weight_decay: float
    batch_rows: int
    max_epochs: int
    patience: int | None


class Inputs:
    """Rows of features before a trunk, with its first product, held where that is small.

    Parameters
    ----------
    take : callable
        From positions (k,) to features (k, n_in).
    n : int
        Number of rows.
    trunk : Trunk
    adapts_first : bool
        Whether features are read beside the first product.
    """

    def __init__(self, take: Callable[[Rows], Array], n: int, trunk: Trunk, adapts_first: bool) -> None:
        self._take, self._n, self._trunk, self._reads = take, n, trunk, adapts_first
        self._first: Array | None = None
        n_out, itemsize = trunk.weights[0].shape[1], trunk.weights[0].itemsize
        if n * n_out * itemsize <= HELD_LIMIT_BYTES:
            self._first = np.empty((n, n_out), trunk.weights[0].dtype)
            for rows in self._blocks():
                self._first[rows] = first_product(trunk, take(rows))

    def _blocks(self) -> Iterator[Rows]:
        for start in range(0, self._n, BLOCK_ROWS):
            yield np.arange(start, min(start + BLOCK_ROWS, self._n))

    def take(self, rows: Rows) -> tuple[Array, Array]:
        """Features and their first product at some rows; the features are empty where nothing reads them."""
        if self._first is None:
            x = self._take(rows)
            return x, first_product(self._trunk, x)
        x = self._take(rows) if self._reads else self._first[:0]
        return x, self._first[rows]

    def outputs(self, adapter: Adapter, scale: float) -> Float:
        """Outputs (n, n_out) of all rows under an adapter."""
        out = np.empty((self._n, len(self._trunk.biases[-1])))
        for rows in self._blocks():
            out[rows] = forward(self._trunk, adapter, scale, *self.take(rows)).outputs
        return out


Step = Callable[[Float], tuple[float, Float]]


class Problem(Protocol):
    """What an adapter is trained for."""

    inputs: Inputs
    held_out: Inputs | None

    def steps(self, rng: np.random.Generator) -> Iterator[tuple[Rows, Step]]:
        """Yield the rows of each step of an epoch, and from their outputs (k, n_out) the loss and its slope (k, n_out)."""

    def held_out_loss(self, outputs: Float) -> float:
        """Mean loss at the outputs of the held-out rows."""


class RewardProblem:
    """The objective on the pairs of one domain.

    Parameters
    ----------
    objective : Objective
    comparisons : Comparisons
        To train on; ``inputs`` are its responses.
    held_out : (Inputs, Comparisons), optional
    """

    def __init__(
        self,
        objective: Objective,
        inputs: Inputs,
        comparisons: Comparisons,
        held_out: tuple[Inputs, Comparisons] | None,
        batch_rows: int,
    ) -> None:
        self.inputs, self.held_out = inputs, None if held_out is None else held_out[0]
        self._objective, self._comparisons = objective, comparisons
        self._batches = _Batches(comparisons, batch_rows)
        self._mean_weight = comparisons.weight.mean()
        self._held_out_loss = None if held_out is None else objective.loss(held_out[1])

    def steps(self, rng: np.random.Generator) -> Iterator[tuple[Rows, Step]]:
        """Batches of whole prompts; each counts by the weight in it."""
        for pairs in self._batches.epoch(rng):
            part = self._comparisons.take(pairs)
            loss = self._objective.loss(part)
            share = part.weight.mean() / self._mean_weight

            def step(
                outputs: Float, loss: object = loss, share: float = share, n: int = len(pairs)
            ) -> tuple[float, Float]:
                at = loss.evaluate(outputs[:, 0])  # type: ignore[attr-defined]
                return float(at.value) * share * n, (at.slope * share)[:, None]

            yield np.searchsorted(self._comparisons.rows, part.rows), step

    def held_out_loss(self, outputs: Float) -> float:
        """The objective on the held-out pairs."""
        if self._held_out_loss is None:
            return np.nan
        return float(self._held_out_loss.evaluate(outputs[:, 0]).value)


class DomainProblem:
    """Cross-entropy of the domains of prompts.

    Parameters
    ----------
    inputs : Inputs
    codes : ndarray of shape (n,), int
        Class of each row.
    held_out : (Inputs, codes), optional
    """

    def __init__(self, inputs: Inputs, codes: Rows, held_out: tuple[Inputs, Rows] | None, batch_rows: int) -> None:
        self.inputs, self.held_out = inputs, None if held_out is None else held_out[0]
        self._codes, self._held_out_codes = codes, None if held_out is None else held_out[1]
        self._batch_rows = min(batch_rows, max(_LEAST_ROWS, len(codes) // _LEAST_STEPS))

    def steps(self, rng: np.random.Generator) -> Iterator[tuple[Rows, Step]]:
        """Batches of prompts."""
        n = len(self._codes)
        for rows in np.array_split(rng.permutation(n), max(1, round(n / self._batch_rows))):

            def step(outputs: Float, codes: Rows = self._codes[rows]) -> tuple[float, Float]:
                log_p = log_softmax(outputs, axis=1)
                slope = np.exp(log_p)
                slope[np.arange(len(codes)), codes] -= 1.0
                return -float(log_p[np.arange(len(codes)), codes].sum()), slope / len(codes)

            yield rows, step

    def held_out_loss(self, outputs: Float) -> float:
        """Cross-entropy of the held-out prompts."""
        if self._held_out_codes is None:
            return np.nan
        return -float(log_softmax(outputs, axis=1)[np.arange(len(outputs)), self._held_out_codes].mean())


def train(
    trunk: Trunk, plan: Plan, problem: Problem, schedule: Schedule, rng: np.random.Generator, who: str
) -> tuple[Adapter, int]:
    """Train a new adapter; returns it with the epoch it was kept from.

    With held-out rows the epoch of the least held-out loss is kept, and epoch 0, the trunk as it is, is one of them: an
    adapter that does not help is not used.
    """
    weights, biases, adapter = flat_views(plan.new(trunk, rng))
    slopes = flat_views(adapter)
    adam = Adam(Network([weights], [biases]), schedule.learning_rate, schedule.weight_decay, schedule.l2)
    best, best_loss, best_epoch = (weights.copy(), biases.copy()), np.inf, 0
    if problem.held_out is not None:
        best_loss = problem.held_out_loss(problem.held_out.outputs(adapter, plan.scale))
        if not np.isfinite(best_loss):
            raise no_epoch_can_be_chosen(who, 0)
    for epoch in range(1, schedule.max_epochs + 1):
        total = 0.0
        for rows, step in problem.steps(rng):
            done = forward(trunk, adapter, plan.scale, *problem.inputs.take(rows))
            value, slope = step(done.outputs.astype(np.float64))
            total += value
            backward(done, adapter, plan.scale, slope.astype(weights.dtype), slopes[2])
            adam.step(Network([slopes[0]], [slopes[1]]))
        if not np.isfinite(total):
            raise loss_not_finite(who, epoch)
        if problem.held_out is None:
            best_epoch = epoch
            continue
        loss = problem.held_out_loss(problem.held_out.outputs(adapter, plan.scale))
        if loss < best_loss:
            best, best_loss, best_epoch = (weights.copy(), biases.copy()), loss, epoch
        elif schedule.patience is not None and epoch - best_epoch >= schedule.patience:
            break
    if problem.held_out is not None:
        weights[:], biases[:] = best
    return {name: a.copy() for name, a in adapter.items()}, best_epoch
