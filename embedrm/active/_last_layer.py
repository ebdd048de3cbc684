"""What a model's reward is linear in: the features of a linear head, the last hidden layer of a perceptron."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError
from embedrm.featurizers.linear_map import LinearMap
from embedrm.featurizers.rows import FeatureRows
from embedrm.preferences import EmbeddedResponses, Rows
from embedrm.reward_model import RewardModel

Array = NDArray[np.float64]


def last_layer(model: RewardModel, responses: EmbeddedResponses, rows: Rows) -> Array:
    """Return the values that a fitted model's reward is a linear function of; shape (len(rows), width), float64.

    Known are linear heads (their features), perceptrons (the rectified last hidden layer), calibrated models (those of the
    model inside) and ensembles that take the mean (those of all members side by side, since the mean is linear in them).
    """
    from embedrm.composites.calibrated import CalibratedRewardModel
    from embedrm.composites.ensemble import EnsembleRewardModel
    from embedrm.heads.linear import LinearHead
    from embedrm.heads.mlp import MLPHead

    if isinstance(model, CalibratedRewardModel):
        return last_layer(model.model_, responses, rows)
    if isinstance(model, EnsembleRewardModel) and model.aggregate == "mean":
        scales = model.member_scales_.tolist()
        parts = [last_layer(member, responses, rows) / scale for member, scale in zip(model.members_, scales)]
        return np.concatenate(parts, axis=1)
    if isinstance(model, LinearHead):
        features = LinearMap(model.featurizer_, responses, rows).features(np.arange(len(rows)))
        return np.asarray(features, dtype=np.float64)
    if isinstance(model, MLPHead):
        out = np.empty((len(rows), model.weights_[-1].shape[0]))
        for part, x in FeatureRows(model.featurizer_, responses, rows, hold=False).blocks():
            h = x
            for weight, bias in zip(model.weights_[:-1], model.biases_[:-1]):
                h = np.maximum(h @ weight + bias, 0.0)
            out[part] = h
        return out
    raise InvalidInputError(
        f"the selection strategy 'd-optimal' needs a model whose reward is linear in its last layer, and "
        f"{type(model).__name__} has none that is known here; use a linear head, MLPHead, or an ensemble of these that "
        "takes the mean"
    )
