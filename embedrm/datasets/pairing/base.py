"""The contract of a pairing scheme, and the responses it chooses from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Pool:
    """Responses with gold that may be compared, by prompt and from worst to best within each.

    Attributes
    ----------
    rows : ndarray of shape (n,), int
        Rows of responses in the data; everything else here is in this order.
    gold : ndarray of shape (n,)
    prompt : ndarray of shape (n,), int
        Place of the prompt in the arrays below, ascending.
    starts, sizes : ndarray of shape (n_prompts,), int
        Where a prompt's responses begin, and how many there are.
    group, split, domain : ndarray of shape (n_prompts,), int
        Codes of the prompts' group, split and domain.
    """

    rows: Rows
    gold: NDArray[np.float64]
    prompt: Rows
    starts: Rows
    sizes: Rows
    group: Rows
    split: Rows
    domain: Rows

    @classmethod
    def of(
        cls,
        prompt_of: NDArray[np.integer[Any]],
        gold: NDArray[np.float64],
        kept: NDArray[np.bool_],
        names: Mapping[str, NDArray[Any]],
    ) -> Pool:
        """Build the pool of the responses with gold to the prompts of a mask (n_prompts,); ``names`` by prompt."""
        usable = np.flatnonzero(~np.isnan(gold) & kept[prompt_of])
        rows = usable[np.lexsort((usable, gold[usable], prompt_of[usable]))]
        prompts, starts, sizes = np.unique(prompt_of[rows], return_index=True, return_counts=True)
        codes = {name: np.unique(values[prompts].astype(str), return_inverse=True)[1] for name, values in names.items()}
        place = np.repeat(np.arange(len(prompts)), sizes)
        return cls(rows, gold[rows], place, starts, sizes, codes["group"], codes["split"], codes["domain"])

    @property
    def n_prompts(self) -> int:
        """Number of prompts with a response that has gold."""
        return len(self.starts)


@dataclass(frozen=True)
class PairingScheme:
    """Base class of pairing schemes: a frozen data class whose fields are its parameters.

    A scheme gives pairs of places in a :class:`Pool`, in the order in which they would be annotated. It reads which gold is
    higher only as far as its definition needs, and never draws a pair of equal gold, which has no right label.
    """

    registered_name: ClassVar[str] = ""

    def most(self, pool: Pool) -> int:
        """Return how many different pairs there are."""
        raise TypeError(f"{type(self).__name__} does not implement most")

    def draw(self, pool: Pool, n: int, rng: np.random.Generator) -> Rows:
        """Return ``n`` different pairs (n, 2) of places in the pool; of equal generators, fewer are the first of more."""
        raise TypeError(f"{type(self).__name__} does not implement draw")

    def one_each(self, pool: Pool) -> int:
        """Return the number of pairs where none is asked for: one for each prompt that can have one."""
        raise TypeError(f"{type(self).__name__} does not implement one_each")

    def to_info(self) -> dict[str, Any]:
        """Return name and parameters as plain facts."""
        return {"scheme": self.registered_name, **asdict(self)}


def make_scheme(scheme: str | Mapping[str, Any] | PairingScheme) -> PairingScheme:
    """Return a scheme by its name, by ``{"name": NAME, PARAMETER: VALUE}``, or as it is."""
    from embedrm.datasets.pairing import PAIRINGS

    if isinstance(scheme, PairingScheme):
        return scheme
    made: PairingScheme = PAIRINGS.make(scheme)
    return made


def distinct_pairs(block: Rows, gold: NDArray[np.float64]) -> int:
    """Return how many pairs of different gold there are within blocks, given by code; exact."""

    def pairs(counts: Rows) -> int:
        return int((counts * (counts - 1) // 2).sum())

    if not len(block):
        return 0
    values = np.unique(gold, return_inverse=True)[1]
    equal = np.unique(block * (int(values.max()) + 1) + values, return_counts=True)[1]
    return pairs(np.bincount(block)) - pairs(equal)
