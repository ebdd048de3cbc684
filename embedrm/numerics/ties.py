"""The tie rule. It exists once, here; nothing else in the package compares a margin with zero."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.errors import InvalidInputError


def pair_credit(margins: ArrayLike) -> NDArray[np.float64]:
    """Credit of each pair: 1 where the chosen response has the higher reward, 0 where lower, one half where equal.

    Parameters
    ----------
    margins : array-like of shape (n_pairs,)
        Reward of the chosen response minus reward of the rejected one.

    Returns
    -------
    ndarray of shape (n_pairs,), float64
        Values in {0, 0.5, 1}; their mean is the pairwise accuracy, i.e. the area under the ROC curve of a comparison.

    Raises
    ------
    InvalidInputError
        If a margin is NaN: a reward that is not a number is neither right nor wrong.
    """
    m = np.asarray(margins, dtype=np.float64)
    n_bad = int(np.isnan(m).sum())
    if n_bad:
        raise InvalidInputError(
            f"expected finite margins, got NaN in {n_bad} of {m.size} pairs; score those pairs first"
        )
    return 0.5 * (np.sign(m) + 1.0)


def is_tie(outcome: ArrayLike) -> NDArray[np.bool_]:
    """Say which pairs are labelled ties (vote share one half): they teach, but accuracy leaves them out."""
    return np.asarray(outcome, dtype=np.float64) == 0.5
