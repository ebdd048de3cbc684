"""Folds by group: no prompt is ever on both sides of a split, whatever the order of the rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.errors import InvalidInputError


def group_folds(
    groups: ArrayLike, n_splits: int, who: str = "cross-validation", weight: ArrayLike | None = None
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield (train rows, held-out rows) for at most ``n_splits`` folds with whole groups on one side.

    Groups are dealt, largest first and equal sizes by name, to the smallest fold so far, so the folds depend on the
    groups and not on the order of rows. With fewer groups than ``n_splits`` there are as many folds as groups.

    Parameters
    ----------
    groups : array-like of shape (n,)
        Group of each row.
    n_splits : int
        Folds wanted, at least 2.
    who : str
        Who asks, for the error.
    weight : array-like of shape (n,), optional
        Counts a row as so many, so that a row of weight 2 and the row twice give the same folds. 1 where absent.

    Raises
    ------
    InvalidInputError
        With fewer than two groups or two folds.
    """
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    if n_splits < 2 or len(names) < 2:
        raise InvalidInputError(
            f"{who} needs at least 2 folds and 2 prompt groups to hold one out, got n_splits={n_splits} and "
            f"{len(names)} group(s); give a fixed value instead, or more prompts"
        )
    n_splits = min(n_splits, len(names))
    counts = np.bincount(codes, weights=None if weight is None else np.asarray(weight, dtype=np.float64))
    # in units of the largest group and rounded: sums of equal weights in another order are still equal
    share = np.round(counts / max(float(counts.max()), np.finfo(float).tiny), 9)
    size = np.zeros(n_splits)
    fold_of = np.empty(len(names), dtype=np.intp)
    for group in np.argsort(-share, kind="stable"):
        fold = int(np.argmin(np.round(size, 9)))
        fold_of[group] = fold
        size[fold] += share[group]
    row_fold = fold_of[codes]
    for fold in range(n_splits):
        yield np.flatnonzero(row_fold != fold), np.flatnonzero(row_fold == fold)


def hold_out(
    groups: ArrayLike, fraction: float, random_state: int, who: str, remedy: str, weight: ArrayLike | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return (rows to train on, rows to stop by), whole groups on one side.

    Parameters
    ----------
    groups : array-like of shape (n,)
        Group of each row.
    fraction : float
        Share of the groups to hold out; at least one is, and at least one is not.
    random_state : int
        Which of them.
    who, remedy : str
        Who asks, and what to do instead, for the error.
    weight : array-like of shape (n,), optional
        A group without weight is never held out: it would be nothing to stop by. 1 where absent.

    Raises
    ------
    InvalidInputError
        With one group only.
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    candidates = np.arange(len(names))
    if weight is not None:
        candidates = np.flatnonzero(np.bincount(group, weights=np.asarray(weight, dtype=np.float64)) > 0)
        if not len(candidates):
            raise InvalidInputError(f"{who} needs pairs with positive weight, got only zeros")
    if len(candidates) < 2:
        raise InvalidInputError(
            f"{who} holds out prompt groups to stop by, and these pairs have one group only; give more prompts, or {remedy}"
        )
    wanted = min(len(candidates) - 1, max(1, round(fraction * len(candidates))))
    held = np.zeros(len(names), dtype=bool)
    held[candidates[np.random.default_rng(random_state).permutation(len(candidates))[:wanted]]] = True
    return np.flatnonzero(~held[group]), np.flatnonzero(held[group])
