"""Merging parameters: methods, named tensors, heads, and sweeps over the weight (DogeRM's lambda).

Rewards are merged by :class:`embedrm.MergedRewardModel`, which needs no parameters.
"""

from embedrm.merging.methods import MERGE_METHODS

__all__ = ["MERGE_METHODS"]
