"""Folds by group: no prompt is ever on both sides of a split, whatever the order of the rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.errors import InvalidInputError


def group_folds(
    groups: ArrayLike, n_splits: int, who: str = "cross-validation"
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

    Raises
    ------
    InvalidInputError
        With fewer than two groups or two folds.
    """
    names, codes, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if n_splits < 2 or len(names) < 2:
        raise InvalidInputError(
            f"{who} needs at least 2 folds and 2 prompt groups to hold one out, got n_splits={n_splits} and "
            f"{len(names)} group(s); give a fixed value instead, or more prompts"
        )
    n_splits = min(n_splits, len(names))
    size = np.zeros(n_splits, dtype=np.int64)
    fold_of = np.empty(len(names), dtype=np.intp)
    for group in np.argsort(-counts, kind="stable"):
        fold = int(np.argmin(size))
        fold_of[group] = fold
        size[fold] += counts[group]
    row_fold = fold_of[codes]
    for fold in range(n_splits):
        yield np.flatnonzero(row_fold != fold), np.flatnonzero(row_fold == fold)
