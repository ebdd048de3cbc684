"""Random pairs of responses to two different prompts of one split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedrm.datasets.pairing import PAIRINGS
from embedrm.datasets.pairing.base import PairingScheme, Pool, Rows, distinct_pairs
from embedrm.errors import InvalidInputError

_TRIES = 64


@PAIRINGS.register("cross-prompt")
@dataclass(frozen=True)
class CrossPrompt(PairingScheme):
    """A response to each prompt against one to another prompt of the same split, both drawn at random.

    In each round every prompt, in random order, is paired with a prompt that is drawn from the others, so that a prompt is
    in two pairs a round on average and in one at least. Prompts of one group, which have one text, are not paired.

    Parameters
    ----------
    same_domain : bool, default False
        Draw the other prompt from the same domain; for gold whose scale differs between domains.

    Notes
    -----
    *Splits.* A pair is drawn inside one split: with prompts of training and test in one pair, labels of test responses would
    be trained on. Prompts without a split are one of their own.

    *Folds.* Pairs across prompts join their prompts: as a graph nearly all prompts of a split hang together after one round,
    and no fold by pairs keeps every prompt on one side. ``EmbeddedPreferences.groups`` names the prompt of the chosen
    response; folds by it hold the chosen response's prompt out and may have seen the rejected one's. Where that matters,
    split prompts first and draw pairs within each part.

    *Gold* must be comparable between prompts. Models that gate by prompt (routed, mixtures) refuse such pairs unless their
    experts are on one scale.

    References
    ----------
    Sun, Shen and Ton (2024), "Rethinking Bradley-Terry models in preference-based reward modeling", section on cross-prompt
    comparisons; one pair a prompt in their code.
    """

    same_domain: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.same_domain, bool):
            raise InvalidInputError(f"cross-prompt: same_domain must be true or false, got {self.same_domain!r:.40}")

    def most(self, pool: Pool) -> int:
        """Return the number of pairs of different gold within splits and across groups."""
        block = self._block(pool)
        together = np.unique(block * (pool.group.max(initial=0) + 1) + pool.group, return_inverse=True)[1]
        return distinct_pairs(block[pool.prompt], pool.gold) - distinct_pairs(together[pool.prompt], pool.gold)

    def one_each(self, pool: Pool) -> int:
        """Return the number of prompts that have another to be paired with."""
        block = self._block(pool)
        groups = np.unique(np.stack([block, pool.group]), axis=1)[0]
        return min(int((np.bincount(groups)[block] > 1).sum()), self.most(pool))

    def draw(self, pool: Pool, n: int, rng: np.random.Generator) -> Rows:
        """Return pairs round by round; see the class."""
        block = self._block(pool)
        order = np.argsort(block, kind="stable")
        first = np.searchsorted(block[order], block)
        width = np.bincount(block)[block] if len(block) else block
        found = np.empty((0, 2), dtype=np.intp)
        while len(found) < n:
            pairs = _one_round(pool, order, first, width, _codes(pool, found), rng)
            if not len(pairs):
                pairs = self._rest(pool, block, found, rng)
            found = np.concatenate([found, pairs])
        return found[:n]

    def _block(self, pool: Pool) -> Rows:
        """Code of what a prompt may be paired within; (n_prompts,)."""
        both = pool.split * (pool.domain.max(initial=0) + 1) + pool.domain if self.same_domain else pool.split
        block: Rows = np.unique(both, return_inverse=True)[1]
        return block

    def _rest(self, pool: Pool, block: Rows, found: Rows, rng: np.random.Generator) -> Rows:
        """Return all pairs that are not drawn yet, in random order; where a round of draws has met none."""
        parts = []
        for code in np.unique(block):
            here = np.flatnonzero(block[pool.prompt] == code)
            i, j = (here[place] for place in np.triu_indices(len(here), 1))
            parts.append(np.stack([i, j], axis=1)[_allowed(pool, i, j)])
        every = np.concatenate(parts)
        left = every[~np.isin(_codes(pool, every), _codes(pool, found))]
        drawn: Rows = left[rng.permutation(len(left))]
        return drawn


def _one_round(
    pool: Pool, order: Rows, first: Rows, width: Rows, known: Rows, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Return one new pair for each prompt that finds one, in the round's order of prompts."""
    turn = rng.permutation(pool.n_prompts)
    pairs = np.full((pool.n_prompts, 2), -1, dtype=np.intp)
    pending = np.flatnonzero(width[turn] > 1)
    for _ in range(_TRIES):
        if not len(pending):
            break
        one = turn[pending]
        other = order[first[one] + rng.integers(width[one])]
        i, j = (pool.starts[p] + rng.integers(pool.sizes[p]) for p in (one, other))
        code = _codes(pool, np.stack([i, j], axis=1))
        taken = _codes(pool, pairs[pairs[:, 0] >= 0])
        good = _allowed(pool, i, j) & ~np.isin(code, known) & ~np.isin(code, taken)
        # of two alike in one try, the first
        alone = np.zeros(len(code), dtype=bool)
        alone[np.unique(code, return_index=True)[1]] = True
        good &= alone
        pairs[pending[good]] = np.stack([i, j], axis=1)[good]
        pending = pending[~good]
    return pairs[pairs[:, 0] >= 0]


def _allowed(pool: Pool, i: Rows, j: Rows) -> NDArray[np.bool_]:
    allowed: NDArray[np.bool_] = (pool.group[pool.prompt[i]] != pool.group[pool.prompt[j]]) & (
        pool.gold[i] != pool.gold[j]
    )
    return allowed


def _codes(pool: Pool, pairs: Rows) -> Rows:
    """Return a number for each pair, whichever response comes first."""
    codes: Rows = pairs.min(axis=1) * len(pool.rows) + pairs.max(axis=1)
    return codes
