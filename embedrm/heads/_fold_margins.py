"""Held-out margins of the folds that choose a penalty, for a calibration that would fit them again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from embedrm.heads._groups import group_ranks
from embedrm.heads._penalty import Path, Penalised
from embedrm.numerics.folds import group_folds
from embedrm.numerics.graph import gather_margins
from embedrm.preferences import EmbeddedPreferences

Array = NDArray[np.float64]


class FoldMargins:
    """A path for :func:`embedrm.heads._penalty.choose_l2` that remembers what it has given."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[list[Array]] = []

    def __call__(
        self, inside: EmbeddedPreferences, outside: EmbeddedPreferences, grid: Sequence[float]
    ) -> Iterator[tuple[Array, float | None]]:
        """As the path inside."""
        self.found.append([])
        for rewards, loss in self.path(inside, outside, grid):
            self.found[-1].append(gather_margins(rewards, outside.local_pairs))
            yield rewards, loss

    def chosen(self, head: Penalised, preferences: EmbeddedPreferences, k: int, who: str) -> Array:
        """Margins (n_pairs,) at the k-th penalty of the falling grid; 0 for pairs of weight zero."""
        counted = np.flatnonzero(preferences.weight > 0)
        prefs = preferences[counted]
        margins = np.zeros(len(preferences))
        # the folds of choose_l2, in its order
        for (_, held_out), of_fold in zip(group_folds(group_ranks(prefs), head.cv, who, prefs.weight), self.found):
            margins[counted[held_out]] = of_fold[k]
        return margins
