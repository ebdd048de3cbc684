"""l2="cv": the penalty of a head, by the loss of whole prompt groups that its fits have not seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError
from embedrm.heads._groups import group_ranks
from embedrm.numerics.bradley_terry import log_loss
from embedrm.numerics.folds import group_folds
from embedrm.numerics.graph import gather_margins
from embedrm.numerics.ties import pair_credit
from embedrm.objectives import Comparisons, Objective
from embedrm.preferences import EmbeddedPreferences

Array = NDArray[np.float64]

L2_GRID = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


class Penalised(Protocol):
    """A head with a penalty that may be chosen."""

    l2: float | str
    l2_grid: Iterable[float]
    cv: int


class Path(Protocol):
    """Fits on some pairs at every penalty, seen from others."""

    def __call__(
        self, inside: EmbeddedPreferences, outside: EmbeddedPreferences, grid: Sequence[float]
    ) -> Iterable[tuple[Array, float | None]]:
        """For each penalty of the falling grid, what a fit on ``inside`` gives ``outside``.

        That is the rewards of its active responses, and their mean loss where that is not for the objective to say.
        """
        ...


def check_l2(head: Penalised, who: str) -> None:
    """Raise unless the penalty is a number >= 0 or "cv"."""
    l2 = head.l2
    if l2 != "cv" and not (
        isinstance(l2, (int, float, np.number)) and not isinstance(l2, bool) and np.isfinite(l2) and l2 >= 0
    ):
        raise InvalidInputError(f"{who} needs l2 to be a number >= 0 or 'cv', got {l2!r}")


def choose_l2(
    head: Penalised,
    preferences: EmbeddedPreferences,
    path: Path,
    objective: Objective,
    who: str,
) -> tuple[float, list[dict[str, float]]]:
    """Return the penalty of ``l2_grid`` with the smallest held-out loss, and the facts of all.

    Folds are ``head.cv`` of whole prompt groups; pairs of weight zero are in none. Equal losses go to the larger penalty.

    Parameters
    ----------
    head : Penalised
    preferences : EmbeddedPreferences
        Training pairs.
    path : Path
    objective : Objective
        Judges by the log loss where its margins are logits, and by its own mean loss where not.
    who : str
        Class of the head, for the errors.

    Returns
    -------
    l2 : float
    results : list of dict
        ``l2``, ``log_loss`` (``loss`` where it is another one) and ``accuracy`` of each penalty, falling.
    """
    grid = sorted({float(v) for v in head.l2_grid}, reverse=True)
    if not grid or not np.isfinite(grid).all() or grid[-1] < 0:
        raise InvalidInputError(f"{who}(l2='cv') needs l2_grid of numbers >= 0, got {tuple(head.l2_grid)!r}")
    counted = preferences.weight > 0
    prefs = preferences if counted.all() else preferences[counted]
    stated = False
    sums, total, labelled = np.zeros((2, len(grid))), 0.0, 0
    for train, held_out in group_folds(group_ranks(prefs), head.cv, f"{who}(l2='cv')", prefs.weight):
        outside = prefs[held_out]
        # nothing of a fold outlives the call: the next one would hold its own beside it
        of_fold, stated = _judge(path, prefs[train], outside, grid, objective)
        sums += of_fold
        total += float(outside.weight.sum())
        labelled += int((~outside.ties).sum())
    name = "log_loss" if objective.margins_are_logits and not stated else "loss"
    results = [
        {"l2": l2, name: float(loss / total), "accuracy": float(hit / max(1, labelled))}
        for l2, loss, hit in zip(grid, *sums)
    ]
    return grid[int(np.argmin(sums[0]))], results


def _judge(
    path: Path, inside: EmbeddedPreferences, outside: EmbeddedPreferences, grid: Sequence[float], objective: Objective
) -> tuple[Array, bool]:
    """Summed held-out loss and credit (2, len(grid)) of each penalty, and whether the path stated the losses."""
    sums, stated = np.zeros((2, len(grid))), False
    unseen = None if objective.margins_are_logits else objective.loss(Comparisons.of(outside))
    share = float(outside.weight.sum())
    for k, (rewards, loss) in enumerate(path(inside, outside, grid)):
        margins = gather_margins(rewards, outside.local_pairs)
        stated = loss is not None
        if loss is not None:
            sums[0, k] = share * loss
        elif unseen is None:
            sums[0, k] = outside.weight @ log_loss(margins, outside.outcome)
        else:
            sums[0, k] = share * unseen.evaluate(rewards).value
        sums[1, k] = pair_credit(margins[~outside.ties]).sum()
    return sums, stated
