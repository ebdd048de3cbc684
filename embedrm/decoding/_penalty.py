"""l2="cv" of prefix heads: the penalty with the smallest held-out loss of whole groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from embedrm.decoding._lesson import Lesson
from embedrm.errors import InvalidInputError
from embedrm.numerics.folds import group_folds

L2_GRID = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)

Path = Callable[[Lesson, Lesson, Sequence[float]], Iterable[float]]
"""(inside, outside, falling penalties) -> the outside's mean loss at each."""


def choose_l2(
    grid: Iterable[float], folds: int, lesson: Lesson, path: Path, who: str
) -> tuple[float, list[dict[str, float]]]:
    """Return the penalty, and the held-out ``loss`` of each, falling; equal losses go to the larger penalty.

    Parameters
    ----------
    grid : iterable of float
    folds : int
        Folds of whole groups of texts (or of texts that pairs connect).
    lesson : Lesson
    path : callable
        See :data:`Path`.
    who : str
        Name in errors.
    """
    penalties = sorted({float(v) for v in grid}, reverse=True)
    if not penalties or not np.isfinite(penalties).all() or penalties[-1] < 0:
        raise InvalidInputError(f"{who}(l2='cv') needs l2_grid of numbers >= 0, got {tuple(grid)!r}")
    counted = np.flatnonzero(lesson.weights > 0)
    sums = np.zeros(len(penalties))
    weight = lesson.weights[counted]
    for train, held_out in group_folds(lesson.groups[counted], folds, f"{who}(l2='cv')", weight):
        outside = lesson.take(counted[held_out])
        share = float(outside.weights.sum() / weight.sum())
        sums += share * np.array(list(path(lesson.take(counted[train]), outside, penalties)))
    results = [{"l2": l2, "loss": float(loss)} for l2, loss in zip(penalties, sums)]
    return penalties[int(np.argmin(sums))], results
