"""Train several perceptrons on one comparison graph in one pass: batches of whole prompts, early stopping a member."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedrm.featurizers.rows import FeatureRows
from embedrm.heads._diverged import loss_not_finite, no_epoch_can_be_chosen
from embedrm.heads._network import Adam, Network
from embedrm.objectives import Comparisons, Loss, Objective
from embedrm.objectives.base import total_weight
from embedrm.preferences import Rows

# A small training set is still cut into this many steps an epoch.
_LEAST_STEPS = 8
_LEAST_ROWS = 32
RATE_SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; see :class:`embedrm.heads.mlp.MLPHead`."""

    hidden: tuple[int, ...]
    learning_rate: float
    l2: float
    weight_decay: float
    dropout: float
    batch_rows: int
    max_epochs: int
    patience: int | None
    rate_schedule: str = "constant"

    def rate(self, done: float) -> float:
        """Learning rate after a share of all ``max_epochs``."""
        if self.rate_schedule == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1.0 + float(np.cos(np.pi * done)))


@dataclass
class Trained:
    """What training gives: the members, the epochs each was kept from, and the mean losses of every epoch."""

    network: Network
    epochs: NDArray[np.intp]
    train_losses: NDArray[np.float64]
    validation_losses: NDArray[np.float64]
    first: Network


class _Batches:
    """Deals the pairs, prompt by prompt, into batches of about so many responses."""

    def __init__(self, comparisons: Comparisons, batch_rows: int) -> None:
        owner = comparisons.prompt_of[comparisons.pairs[:, 0]]
        self.order = np.argsort(owner, kind="stable")
        _, self.starts, counts = np.unique(owner[self.order], return_index=True, return_counts=True)
        self.ends = self.starts + counts
        n_rows = comparisons.n_responses
        self.batch_rows = min(batch_rows, max(_LEAST_ROWS, n_rows // _LEAST_STEPS))
        # Each prompt's responses, once: exact where pairs stay within prompts.
        block = np.repeat(np.arange(len(counts)), counts) * n_rows
        met = np.sort(np.concatenate([block + side[self.order] for side in comparisons.pairs.T]))
        first = np.ones(len(met), dtype=bool)
        np.not_equal(met[1:], met[:-1], out=first[1:])
        self.rows_of = np.bincount(met[first] // n_rows, minlength=len(counts))

    def epoch(self, rng: np.random.Generator) -> Iterator[Rows]:
        """Yield the pairs of each batch, every pair once."""
        held: list[Rows] = []
        n_rows = 0
        for block in rng.permutation(len(self.starts)):
            pairs = self.order[self.starts[block] : self.ends[block]]
            if self.rows_of[block] > self.batch_rows:
                # more responses than a batch holds: its pairs are shuffled and cut
                cuts = max(2, round(len(pairs) / self.batch_rows))
                yield from np.array_split(rng.permutation(pairs), cuts)
                continue
            held.append(pairs)
            n_rows += int(self.rows_of[block])
            if n_rows >= self.batch_rows:
                yield np.concatenate(held)
                held, n_rows = [], 0
        if held:
            yield np.concatenate(held)


def train(
    features: FeatureRows,
    comparisons: Comparisons,
    validation: tuple[FeatureRows, Comparisons] | None,
    objective: Objective,
    schedule: Schedule,
    seeds: Sequence[int],
    masks: NDArray[np.bool_] | None = None,
    who: str = "MLPHead",
    start: Network | None = None,
) -> Trained:
    """Train one member for each seed.

    Parameters
    ----------
    features : FeatureRows
        Of the responses of ``comparisons``, in their order.
    comparisons : Comparisons
        Weights (n_pairs,) for all members, or (n_pairs, M).
    validation : (FeatureRows, Comparisons), optional
        Held-out pairs by whose loss each member is stopped and its best epoch kept.
    objective : Objective
    schedule : Schedule
    seeds : sequence of int
        One for each member's first weights; batches and dropout follow the first, and are the same for all.
    masks : ndarray of shape (M, dim), optional
        Features that each member may read.
    who : str
        Name in errors.
    start : Network, optional
        Weights to begin with, of as many members; drawn from the seeds where absent.
    """
    sizes = (features.dim, *schedule.hidden, 1)
    network = Network.new(sizes, [np.random.default_rng(seed) for seed in seeds]) if start is None else start.copy()
    readable = None if masks is None else masks[:, :, None].astype(np.float32)
    if readable is not None:
        network.weights[0] *= readable
    first = network.copy()
    rng = np.random.default_rng([seeds[0], len(seeds)])
    adam = Adam(network, schedule.learning_rate, schedule.weight_decay, schedule.l2)
    total_weight(comparisons.weight, who)  # raises where there is none
    mean_weight = comparisons.weight.mean(axis=0)
    batches = _Batches(comparisons, schedule.batch_rows)
    held_out = None if validation is None else objective.loss(validation[1])
    best, best_loss = network.copy(), np.full(len(seeds), np.inf)
    best_epoch, idle = np.zeros(len(seeds), dtype=np.intp), np.zeros(len(seeds), dtype=np.intp)
    train_losses, validation_losses = [], []
    for epoch in range(1, schedule.max_epochs + 1):
        total = np.zeros(len(seeds))
        seen = 0
        for pairs in batches.epoch(rng):
            adam.rate = schedule.rate((epoch - 1 + seen / len(comparisons.pairs)) / schedule.max_epochs)
            seen += len(pairs)
            part = comparisons.take(pairs)
            positions = np.searchsorted(comparisons.rows, part.rows)
            x = features.take(positions)
            outputs, kept = network.forward(x, schedule.dropout, rng)
            # A batch counts by the weight in it, so that a step's expectation is the gradient of the whole mean.
            share = part.weight.sum(axis=0) / (mean_weight * len(pairs))
            at = _loss(objective, part).evaluate(outputs.astype(np.float64))
            total += np.where(share > 0, at.value, 0.0) * share * len(pairs)
            gradient = network.backward(x, kept, (at.slope * share).astype(np.float32), schedule.dropout)
            if readable is not None:
                gradient.weights[0] *= readable
            adam.step(gradient)
        if not np.isfinite(total).all():
            raise loss_not_finite(who, epoch)
        train_losses.append(total / len(comparisons.pairs))
        if validation is None or held_out is None:
            best_epoch[:] = epoch
            continue
        losses = np.asarray(held_out.evaluate(predict(network, validation[0])).value)
        validation_losses.append(losses)
        better = losses < best_loss
        best.put(network, better)
        best_loss = np.where(better, losses, best_loss)
        best_epoch[better] = epoch
        idle = np.where(better, 0, idle + 1)
        if schedule.patience is not None and (idle >= schedule.patience).all():
            break
    if validation is not None and not np.isfinite(best_loss).all():
        raise no_epoch_can_be_chosen(who, len(validation_losses))
    kept_network = network if validation is None else best
    return Trained(kept_network, best_epoch, np.array(train_losses), np.array(validation_losses), first)


def _loss(objective: Objective, part: Comparisons) -> Loss:
    """The batch's loss; where a member has no weight in it, any weight will do, since its share is zero."""
    empty = part.weight.sum(axis=0) <= 0
    return objective.loss(part.weighted(np.where(empty, 1.0, part.weight)) if empty.any() else part)


def predict(network: Network, features: FeatureRows, block_rows: int | None = None) -> NDArray[np.float64]:
    """Outputs (n, M), float64, block by block; blocks of the features' own size where ``block_rows`` is absent."""
    out = np.empty((len(features), network.n_members))
    for part, x in features.blocks() if block_rows is None else features.blocks(block_rows):
        out[part] = network.predict(x)
    return out
