"""Schemes that compare two fixed ranks of every prompt's responses."""

from __future__ import annotations

import numpy as np

from embedrm.datasets.pairing.base import PairingScheme, Pool, Rows


class RankScheme(PairingScheme):
    """One pair a prompt: the responses at two ranks by gold. Prompts where these have equal gold have no pair."""

    def places(self, sizes: Rows) -> tuple[Rows, Rows]:
        """Return the two ranks, from 0 for the worst, in lists of these sizes."""
        raise TypeError(f"{type(self).__name__} does not implement places")

    def _pairs(self, pool: Pool) -> Rows:
        wide = pool.sizes >= 2
        low, high = self.places(pool.sizes[wide])
        pairs = pool.starts[wide][:, None] + np.stack([low, high], axis=1)
        kept: Rows = pairs[pool.gold[pairs[:, 0]] != pool.gold[pairs[:, 1]]]
        return kept

    def most(self, pool: Pool) -> int:
        """Return the number of prompts with a pair."""
        return len(self._pairs(pool))

    def one_each(self, pool: Pool) -> int:
        """Return the number of prompts with a pair: all there are."""
        return self.most(pool)

    def draw(self, pool: Pool, n: int, rng: np.random.Generator) -> Rows:
        """Return the pairs of prompts in random order."""
        pairs = self._pairs(pool)
        drawn: Rows = pairs[rng.permutation(len(pairs))[:n]]
        return drawn
