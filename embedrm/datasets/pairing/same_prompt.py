"""Random pairs of two responses to one prompt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from embedrm.datasets.pairing import PAIRINGS
from embedrm.datasets.pairing.base import PairingScheme, Pool, Rows, distinct_pairs

# Lists with at most so many pairs are shuffled whole; from longer ones pairs are drawn one by one.
_SHUFFLED = 300
_TRIES = 64


@PAIRINGS.register("same-prompt")
@dataclass(frozen=True)
class SamePrompt(PairingScheme):
    """Two different responses to one prompt, drawn at random.

    Prompts take turns in a random order that is drawn anew for each round: none has a second pair before every other prompt
    that can have one has its first. So n pairs on n prompts are one each, and 10 n are ten each.

    References
    ----------
    Sun, Shen and Ton (2024), "Rethinking Bradley-Terry models in preference-based reward modeling".
    """

    def most(self, pool: Pool) -> int:
        """Return the number of pairs of different gold within prompts."""
        return distinct_pairs(pool.prompt, pool.gold)

    def one_each(self, pool: Pool) -> int:
        """Return the number of prompts whose gold differs."""
        return int((_capacity(pool) > 0).sum())

    def draw(self, pool: Pool, n: int, rng: np.random.Generator) -> Rows:
        """Return pairs round by round; see the class."""
        rounds, found = _Rounds(pool, rng), 0
        parts = []
        while found < n:
            parts.append(rounds.next())
            found += len(parts[-1])
        return np.concatenate(parts)[:n] if parts else np.empty((0, 2), dtype=np.intp)


class _Rounds:
    """Pairs of every prompt, one a round, each pair once."""

    def __init__(self, pool: Pool, rng: np.random.Generator) -> None:
        self.pool, self.rng = pool, rng
        self.capacity = _capacity(pool)
        n_pairs = pool.sizes * (pool.sizes - 1) // 2
        self.short = n_pairs <= _SHUFFLED
        self.round = 0
        self.drawn: list[Rows] = []

    def next(self) -> Rows:
        """Return the pairs of the next round, in the round's order of prompts."""
        prompts = np.flatnonzero(self.capacity > self.round)
        prompts = prompts[self.rng.permutation(len(prompts))]
        codes = np.empty(self.pool.n_prompts, dtype=np.intp)
        short = prompts[self.short[prompts]]
        if len(short):
            codes[short] = self._shuffled[short, self.round]
        self._draw(prompts[~self.short[prompts]], codes)
        self.round += 1
        i, j = _pair_of(codes[prompts])
        start = self.pool.starts[prompts]
        return np.stack([start + i, start + j], axis=1)

    @cached_property
    def _shuffled(self) -> NDArray[np.int16]:
        """Codes of the pairs of every short list in random order, those of equal gold last; (n_prompts, longest)."""
        pool = self.pool
        n_pairs = np.where(self.short, pool.sizes * (pool.sizes - 1) // 2, 0)
        longest = int(n_pairs.max(initial=0))
        i, j = _pair_of(np.arange(longest))
        out = np.empty((pool.n_prompts, longest), dtype=np.int16)
        # in blocks, so that the keys of a few prompts are held at once
        step = max(1, 2_000_000 // max(1, longest))
        for a in range(0, pool.n_prompts, step):
            start, size = pool.starts[a : a + step, None], pool.sizes[a : a + step, None]
            there = np.arange(longest) < n_pairs[a : a + step, None]
            last = np.maximum(size - 1, 0)
            gold = [pool.gold[start + np.minimum(place, last)] for place in (i, j)]
            key = self.rng.random(there.shape) + ~(there & (gold[0] != gold[1]))
            out[a : a + step] = np.argsort(key, axis=1)
        return out

    def _draw(self, prompts: Rows, codes: Rows) -> None:
        """Draw a new pair of different gold for each of some long lists."""
        pool, pending = self.pool, prompts
        for _ in range(_TRIES):
            if not len(pending):
                break
            size = pool.sizes[pending]
            codes[pending] = self.rng.integers(size * (size - 1) // 2)
            bad = self._equal(pending, codes[pending])
            for earlier in self.drawn:
                bad |= earlier[pending] == codes[pending]
            pending = pending[bad]
        for prompt in pending.tolist():
            # few are left of this list: look at all
            every = np.arange(int(pool.sizes[prompt]) * (int(pool.sizes[prompt]) - 1) // 2)
            left = ~self._equal(np.full(len(every), prompt), every)
            left[[earlier[prompt] for earlier in self.drawn]] = False
            codes[prompt] = self.rng.choice(every[left])
        if len(prompts):
            self.drawn.append(np.where(np.isin(np.arange(len(codes)), prompts), codes, -1))

    def _equal(self, prompts: Rows, codes: Rows) -> NDArray[np.bool_]:
        i, j = _pair_of(codes)
        start = self.pool.starts[prompts]
        equal: NDArray[np.bool_] = self.pool.gold[start + i] == self.pool.gold[start + j]
        return equal


def _capacity(pool: Pool) -> Rows:
    """Pairs of different gold of each prompt; (n_prompts,)."""
    # gold ascends within a prompt, so that equal values are runs
    new = np.ones(len(pool.gold), dtype=bool)
    new[1:] = (pool.gold[1:] != pool.gold[:-1]) | (pool.prompt[1:] != pool.prompt[:-1])
    first = np.flatnonzero(new)
    length = np.diff(np.append(first, len(new)))
    equal = np.bincount(pool.prompt[first], weights=length * (length - 1) / 2, minlength=pool.n_prompts)
    return pool.sizes * (pool.sizes - 1) // 2 - equal.astype(np.intp)


def _pair_of(code: Rows) -> tuple[Rows, Rows]:
    """Return (i, j), i < j, of the code j (j - 1) / 2 + i: the same in lists of any size."""
    j = ((1 + np.sqrt(1 + 8 * code.astype(np.float64))) / 2).astype(np.intp)
    code = code.astype(np.intp)
    return code - j * (j - 1) // 2, j
