"""What every objective of tuning is: items to learn from, items held out, and a loss with gradients on a batch of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.errors import InvalidInputError
from embedrm.numerics.folds import hold_out
from embedrm.tuning.base import TrainableBase
from embedrm.tuning.config import TuningConfig

Rows = NDArray[np.intp]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class BatchLoss:
    """What a batch gave.

    Attributes
    ----------
    total : torch.Tensor
        Weighted sum of the losses, a scalar with gradients.
    weight : float
        Sum of the weights.
    right, judged : float
        Weight of the items that were right, and of those that could be.
    """

    total: Any
    weight: float
    right: float
    judged: float


class Problem(ABC):
    """Items of one objective, tokenised, with prompt groups held out.

    Attributes
    ----------
    ids : list of list of int
        Token ids of the texts, each text once.
    weight : ndarray of shape (n_items,)
        Of each item in the loss.
    training, held : ndarray of int
        Rows of items.
    head : torch.nn.Module
        What is trained beside the encoder; it may be empty.
    facts : dict
        What was read and cut, as JSON values.
    """

    ids: list[list[int]]
    weight: Array
    training: Rows
    held: Rows
    head: Any
    facts: dict[str, Any]

    @abstractmethod
    def units(self) -> list[Rows]:
        """Training items that stay together in a batch, such as the pairs of one prompt."""

    @abstractmethod
    def texts_of(self, items: Rows) -> Rows:
        """Return the texts that items are about, each once."""

    @abstractmethod
    def loss(self, base: TrainableBase, items: Rows, draw: Any) -> BatchLoss:
        """Return the weighted sum of the items' losses.

        Parameters
        ----------
        base : TrainableBase
        items : ndarray of int
        draw : torch.Generator
            For whatever the loss draws.
        """

    def epoch(self, config: TuningConfig, number: int) -> list[Rows]:
        """Return the batches of an epoch: units in a random order, joined while their tokens fit."""
        rng = np.random.default_rng([config.random_state, number])
        units = self.units()
        return self.join([units[i] for i in rng.permutation(len(units))], config.batch_tokens)

    def join(self, units: Sequence[Rows], budget: int) -> list[Rows]:
        """Join units, in their order, into batches of at most ``budget`` tokens; a larger unit is a batch of its own."""
        batches: list[Rows] = []
        waiting: list[Rows] = []
        filled = 0
        for unit in units:
            size = self.tokens_of(unit)
            if waiting and filled + size > budget:
                batches.append(np.concatenate(waiting))
                waiting, filled = [], 0
            waiting.append(unit)
            filled += size
        if waiting:
            batches.append(np.concatenate(waiting))
        return batches

    def tokens_of(self, items: Rows) -> int:
        """Return the tokens of the texts that items are about."""
        return sum(len(self.ids[row]) for row in self.texts_of(items).tolist())

    def held_batches(self, config: TuningConfig) -> Iterator[Rows]:
        """Yield the held-out items in batches, in their order."""
        yield from self.join([self.held[i : i + 1] for i in range(len(self.held))], config.batch_tokens)


def divide(groups: ArrayLike, weight: Array, config: TuningConfig, what: str) -> tuple[Rows, Rows]:
    """Return (rows to train on, rows to stop by), whole prompt groups on one side."""
    if config.validation_fraction == 0.0:
        return np.arange(len(weight)), np.arange(0)
    return hold_out(
        groups,
        config.validation_fraction,
        config.random_state,
        f"tuning on {what}",
        "set validation_fraction=0",
        weight=weight,
    )


def tokenise(base: TrainableBase, texts: Sequence[str], what: str) -> tuple[list[list[int]], dict[str, Any]]:
    """Return token ids of texts, and what truncation did to them.

    Raises
    ------
    InvalidInputError
        No texts, or one without any token.
    """
    if not len(texts):
        raise InvalidInputError(f"tuning needs {what}, and there are none. Give data with at least two prompts.")
    ids = base.ids(texts)
    empty = next((i for i, row in enumerate(ids) if not row), None)
    if empty is not None:
        raise InvalidInputError(f"text {empty} of the {what} has no token. Leave the row out.")
    report = base.encoder.truncation_report(texts)
    return ids, {"texts": len(texts), "truncation": report.to_dict(), "tokens_read": sum(map(len, ids))}
