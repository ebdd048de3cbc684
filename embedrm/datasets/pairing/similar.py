"""Pairs of neighbours in the middle of each prompt's list: the hardest comparisons."""

from __future__ import annotations

from dataclasses import dataclass

from embedrm.datasets.pairing import PAIRINGS
from embedrm.datasets.pairing._ranks import RankScheme
from embedrm.datasets.pairing.base import Rows


@PAIRINGS.register("similar")
@dataclass(frozen=True)
class Similar(RankScheme):
    """Ranks k/2 and k/2 + 1 of k responses by gold (rounded down): the fifth and the sixth of ten.

    One pair a prompt. Responses of equal gold are ranked by their rows, and a pair of equal gold is left out.

    References
    ----------
    Sun, Shen and Ton (2024), "Rethinking Bradley-Terry models in preference-based reward modeling", the similar pairs of the
    comparison of same-prompt with cross-prompt annotation.
    """

    def places(self, sizes: Rows) -> tuple[Rows, Rows]:
        """Return the middle and the rank below it."""
        return sizes // 2 - 1, sizes // 2
