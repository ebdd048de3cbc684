"""Tests on paired outcomes: McNemar's exact test and Holm's step-down correction."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from embedrm.errors import InvalidInputError


def mcnemar_exact(credit_a: ArrayLike, credit_b: ArrayLike) -> dict[str, float | int]:
    """McNemar's exact test on two models' pair credits; pairs on which either has half credit are left out, counted.

    Parameters
    ----------
    credit_a, credit_b : array-like of shape (n_pairs,)
        Credits in {0, 0.5, 1} of the same pairs.

    Returns
    -------
    dict
        ``only_a`` (a right, b wrong), ``only_b``, ``half_credit`` (pairs left out) and the two-sided ``p`` under
        Binomial(only_a + only_b, 1/2).

    Notes
    -----
    It treats pairs as independent. Where prompts have several pairs it is too optimistic; the clustered bootstrap
    beside it is the one to quote.

    References
    ----------
    McNemar (1947), "Note on the sampling error of the difference between correlated proportions or percentages".
    """
    a, b = np.asarray(credit_a, dtype=np.float64), np.asarray(credit_b, dtype=np.float64)
    half = (a == 0.5) | (b == 0.5)
    only_a = int(((a > b) & ~half).sum())
    only_b = int(((b > a) & ~half).sum())
    n = only_a + only_b
    p = 1.0 if n == 0 else min(1.0, 2.0 * float(binom.cdf(min(only_a, only_b), n, 0.5)))
    return {"only_a": only_a, "only_b": only_b, "half_credit": int(half.sum()), "p": p}


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm-adjusted p-values, in the order given: ``max`` over smaller ones of ``(n - rank) * p``, at most 1.

    References
    ----------
    Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or np.isnan(p).any():
        raise InvalidInputError(f"expected a vector of p-values without NaN, got shape {p.shape}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
