"""One domain's reward: the trunk with that domain's adapter on it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedrm.composites._adapter_factors import Adapter, Trunk, first_product, forward
from embedrm.featurizers import Featurizer
from embedrm.featurizers.rows import FeatureRows
from embedrm.heads.base import FeatureHead
from embedrm.preferences import EmbeddedResponses, Rows
from embedrm.reward_model import check_finite


class AdapterExpert(FeatureHead):
    """A view on the arrays of an ``AdapterRewardModel``: made when asked for, holding no copy, not saved by itself.

    Parameters
    ----------
    trunk : Trunk
    adapter : dict of str to ndarray
    scale : float
        alpha / rank.
    featurizer : Featurizer
        Fitted.
    """

    def __init__(self, trunk: Trunk, adapter: Adapter, scale: float, featurizer: Featurizer) -> None:
        self.trunk = trunk
        self.adapter = adapter
        self.scale = scale
        self.featurizer = featurizer

    @property
    def featurizer_(self) -> Featurizer:  # type: ignore[override]
        """The trunk's."""
        return self.featurizer

    def _rewards(self, responses: EmbeddedResponses, rows: Rows | None) -> NDArray[np.float64]:
        rewards = expert_outputs(self.trunk, [self.adapter], self.scale, self.featurizer, responses, rows)
        return check_finite(rewards[:, 0], "AdapterRewardModel")


def expert_outputs(
    trunk: Trunk,
    adapters: list[Adapter],
    scale: float,
    featurizer: Featurizer,
    responses: EmbeddedResponses,
    rows: Rows | None,
) -> NDArray[np.float64]:
    """Rewards of responses under every adapter (n, n_adapters); the features and their first product are made once."""
    featurizer.check(responses, "AdapterRewardModel")
    features = FeatureRows(featurizer, responses, rows, hold=False)
    out = np.empty((len(features), len(adapters)))
    for part, x in features.blocks():
        first = first_product(trunk, x)
        for k, adapter in enumerate(adapters):
            out[part, k] = forward(trunk, adapter, scale, x, first).outputs[:, 0]
    return out
