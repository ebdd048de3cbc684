"""l2="cv": the penalty of a head, by the loss of whole prompt groups that its fits have not seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError
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
    prefs = preferences[preferences.weight > 0]
    name = "log_loss" if objective.margins_are_logits else "loss"
    losses, hits, total, labelled = np.zeros(len(grid)), np.zeros(len(grid)), 0.0, 0
    for train, held_out in group_folds(prefs.groups, head.cv, f"{who}(l2='cv')", prefs.weight):
        outside = prefs[held_out]
        share = float(outside.weight.sum())
        for k, (rewards, stated) in enumerate(path(prefs[train], outside, grid)):
            margins = gather_margins(rewards, outside.local_pairs)
            if stated is not None:
                name, loss = "loss", stated
            elif objective.margins_are_logits:
                loss = float(np.average(log_loss(margins, outside.outcome), weights=outside.weight))
            else:
                loss = float(objective.loss(Comparisons.of(outside)).evaluate(rewards).value)
            losses[k] += share * loss
            hits[k] += float(pair_credit(margins[~outside.ties]).sum())
        total += share
        labelled += int((~outside.ties).sum())
    results = [
        {"l2": l2, name: float(loss / total), "accuracy": float(hit / max(1, labelled))}
        for l2, loss, hit in zip(grid, losses, hits)
    ]
    return grid[int(np.argmin(losses))], results
