"""Members' rewards on one scale: the mean and standard deviation that each is put to 0 and 1 by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedrm.composites._member_rewards import member_rewards
from embedrm.preferences import EmbeddedResponses, Rows
from embedrm.reward_model import RewardModel

Array = NDArray[np.float64]


def means_and_scales(members: Sequence[RewardModel], responses: EmbeddedResponses, rows: Rows) -> tuple[Array, Array]:
    """Return what is subtracted from each member's rewards, and what they are then divided by; shapes (n_members,).

    Parameters
    ----------
    members : sequence of RewardModel
        Fitted.
    responses : EmbeddedResponses
    rows : array of int
        The responses whose rewards have mean 0 and standard deviation 1 afterwards; each counts once.
    """
    means, scales = np.zeros(len(members)), np.ones(len(members))
    for m, rewards in enumerate(np.ascontiguousarray(member_rewards(members, responses, rows).T)):
        spread = float(rewards.std())
        means[m] = rewards.mean()
        # a member that gives every response one reward has no scale, and none is needed
        scales[m] = spread if spread > 0 else 1.0
    return means, scales
