"""Rewards of several models for the same responses: perceptrons that read the same features are one product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from embedrm.heads.mlp import MLPHead
from embedrm.preferences import EmbeddedResponses, Rows
from embedrm.reward_model import RewardModel


def member_rewards(
    members: Sequence[RewardModel], responses: EmbeddedResponses, rows: Rows | None
) -> NDArray[np.float64]:
    """Return the members' own rewards (n, n_members), before anything is standardised.

    Parameters
    ----------
    members : sequence of RewardModel
        Fitted. Perceptrons of equal layers and equal featurizers share their features and their products; of those, a
        column equals the member's own rewards up to the rounding of float32.
    responses : EmbeddedResponses
    rows : array of int, optional
        All responses where absent.
    """
    heads = [m for m in members if type(m) is MLPHead]
    if len(heads) == len(members) > 1 and all(_share_inputs(heads[0], other) for other in heads[1:]):
        return heads[0].joint_rewards(heads, responses, rows)
    return np.stack([member._rewards(responses, rows) for member in members], axis=1)


def _share_inputs(one: MLPHead, other: MLPHead) -> bool:
    layers = [[w.shape for w in head.weights_] for head in (one, other)]
    return layers[0] == layers[1] and _equal(one.featurizer_, other.featurizer_)


def _equal(a: Any, b: Any) -> bool:
    """Whether two featurizers, or parts of them, hold the same; those of a loaded ensemble are copies of one."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, BaseEstimator):
        return _equal(vars(a), vars(b))
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)
