"""Pairs of the worst and the best of each prompt's list: the easiest comparisons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedrm.datasets.pairing import PAIRINGS
from embedrm.datasets.pairing._ranks import RankScheme
from embedrm.datasets.pairing.base import Rows


@PAIRINGS.register("diversified")
@dataclass(frozen=True)
class Diversified(RankScheme):
    """The worst against the best of each prompt's responses by gold: one pair a prompt.

    References
    ----------
    Sun, Shen and Ton (2024), "Rethinking Bradley-Terry models in preference-based reward modeling", the diversified pairs of
    the comparison of same-prompt with cross-prompt annotation.
    """

    def places(self, sizes: Rows) -> tuple[Rows, Rows]:
        """Return the first and the last rank."""
        return np.zeros_like(sizes), sizes - 1
