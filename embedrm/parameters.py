"""How many numbers a fitted model learned: the counts of a parameter table."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator


def n_parameters(model: BaseEstimator) -> int:
    """Count the learned numbers from which a fitted model computes its rewards or probabilities.

    Parameters
    ----------
    model : RewardModel or Router
        Fitted.

    Returns
    -------
    int
        Entries of the floating-point arrays among the fitted attributes (those that end in an underscore), in lists and
        mappings and nested models too; an object that is held twice counts once. Left out are what a class names in
        ``not_parameters`` (losses by epoch, importances), single numbers (a chosen penalty, a temperature), and the
        statistics of featurizers (means and scales of views, projections), which are measured and not trained. A class
        may count otherwise with a method ``parameter_counts``, whose ``"total"`` is taken.
    """
    return _count(model, set())


def _count(value: Any, seen: set[int]) -> int:
    from embedrm.featurizers import Featurizer

    if isinstance(value, (np.ndarray, BaseEstimator)):
        if id(value) in seen:
            return 0
        seen.add(id(value))
    if isinstance(value, np.ndarray):
        return value.size if value.dtype.kind == "f" else 0
    if isinstance(value, (list, tuple)):
        return sum(_count(v, seen) for v in value)
    if isinstance(value, dict):
        return sum(_count(v, seen) for v in value.values())
    if isinstance(value, Featurizer) or not isinstance(value, BaseEstimator):
        return 0
    own = getattr(value, "parameter_counts", None)
    if own is not None:
        return int(own()["total"])
    left_out: frozenset[str] = getattr(value, "not_parameters", frozenset())
    fitted = {k: v for k, v in vars(value).items() if k.endswith("_") and not k.startswith("_") and k not in left_out}
    return sum(_count(v, seen) for v in fitted.values())
