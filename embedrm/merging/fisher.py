"""Diagonal Fisher informations of heads on pairs, for Fisher-weighted merging."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError
from embedrm.featurizers.rows import FeatureRows
from embedrm.heads.mlp import MLPHead
from embedrm.merging.compatibility import Head, head_tensors
from embedrm.numerics.bradley_terry import log_loss_curvature
from embedrm.objectives.base import total_weight
from embedrm.preferences import EmbeddedPreferences
from embedrm.reward_model import check_preferences

Array = NDArray[np.float64]
_BLOCK_PAIRS = 1024


def fisher_moments(model: Head, preferences: EmbeddedPreferences) -> dict[str, Array]:
    r"""Expected squared slope of the log-likelihood by each parameter.

    .. math:: F_j = E[\sigma(m)\,\sigma(-m)\,(\partial m/\partial\theta_j)^2]

    The expectation over the label is exact (Bradley–Terry, under the model itself), that over pairs their weighted mean.

    Parameters
    ----------
    model : LinearHead or MLPHead
        Fitted.
    preferences : EmbeddedPreferences
        Those the model was trained on, or others of their kind.

    Returns
    -------
    dict of str to ndarray, float64
        By the names and in the shapes of the model's parameters.

    References
    ----------
    Matena and Raffel (2022), "Merging models with Fisher-weighted averaging", section 3.1.
    """
    who = "fisher_moments"
    prefs = check_preferences(preferences, who)
    if not model.margins_are_logits:
        raise InvalidInputError(f"{who} needs margins that are log-odds; {type(model).__name__}'s objective gives none")
    shapes = {name: array.shape for name, array in head_tensors(model).items()}
    out = {name: np.zeros(shape) for name, shape in shapes.items()}
    features = FeatureRows(model.featurizer_, prefs.responses, prefs.active, dtype=np.float64)
    share = total_weight(prefs.weight, who)
    for start in range(0, len(prefs), _BLOCK_PAIRS):
        part = slice(start, start + _BLOCK_PAIRS)
        x, y = (features.take(side) for side in prefs.local_pairs[part].T)
        if not isinstance(model, MLPHead):
            margins = (x - y) @ model.coef_
            out["coef"] += (share[part] * log_loss_curvature(margins)) @ (x - y) ** 2
            continue
        (r_x, h_x, d_x), (r_y, h_y, d_y) = _slopes(model, x), _slopes(model, y)
        v = (share[part] * log_loss_curvature(r_x - r_y))[:, None]
        names = [name.removesuffix(".weight") for name in shapes if name.endswith(".weight")]
        for name, a, b, p, q in zip(names, h_x, h_y, d_x, d_y):
            # (a p - b q)^2 of each pair, summed, without an outer product a pair
            out[f"{name}.weight"] += (a**2).T @ (v * p**2) + (b**2).T @ (v * q**2) - 2 * (a * b).T @ (v * p * q)
            out[f"{name}.bias"] += (v * (p - q) ** 2).sum(axis=0)
    # rounding of differences
    return {name: np.maximum(f, 0.0) for name, f in out.items()}


def _slopes(model: MLPHead, x: Array) -> tuple[Array, list[Array], list[Array]]:
    """Rewards (n,), the input of every layer, and the reward's slope by every layer's output."""
    inputs = [x]
    for w, b in zip(model.weights_[:-1], model.biases_[:-1]):
        inputs.append(np.maximum(inputs[-1] @ w.astype(np.float64) + b, 0.0))
    rewards = inputs[-1] @ model.weights_[-1].astype(np.float64) + model.biases_[-1]
    slopes = [np.ones((len(x), 1))]
    for h, w in zip(inputs[:0:-1], model.weights_[:0:-1]):
        slopes.insert(0, (slopes[0] @ w.astype(np.float64).T) * (h > 0))
    return rewards[:, 0], inputs, slopes
