"""Linear interpolation of whole tensors, and uniform soups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from embedrm.errors import InvalidInputError
from embedrm.merging.methods import MERGE_METHODS
from embedrm.merging.methods.base import Array, MergeMethod, check_arrays, check_weights, merged_sum, weighted_sum


def linear(tensors: Sequence[ArrayLike], weights: ArrayLike | None = None, *, normalize: bool = True) -> Array:
    r"""Weighted mean :math:`\sum_i w_i \theta_i / \sum_i w_i`; the sum alone under ``normalize=False``.

    Parameters
    ----------
    tensors : sequence of array-like, of one shape
    weights : array-like of shape (n,), optional
        May be negative; equal where absent.
    normalize : bool
        Divide by the sum of the weights.

    References
    ----------
    Lin et al. (2024), "DogeRM", section 3, equation of the merged transformer (weights lambda and 1 - lambda);
    Wortsman et al. (2022), "Model soups".
    """
    arrays = check_arrays(tensors, "linear")
    return merged_sum(arrays, check_weights(weights, len(arrays), "linear"), normalize, "linear")


def soup(tensors: Sequence[ArrayLike], weights: ArrayLike | None = None) -> Array:
    r"""Uniform mean :math:`\frac1n \sum_i \theta_i`; weights that differ are refused.

    References
    ----------
    Wortsman et al. (2022), "Model soups", section 2 (uniform soup); Rame et al. (2024), "WARM: On the benefits of weight
    averaged reward models", section 3: reward models fine-tuned from one start under different settings, averaged.
    """
    arrays = check_arrays(tensors, "a uniform soup")
    found = check_weights(weights, len(arrays), "a uniform soup")
    if not np.allclose(found, found[0], rtol=1e-12, atol=0.0):
        raise InvalidInputError("a uniform soup gives every model the same weight, got weights that differ; use linear")
    return weighted_sum(arrays, np.full(len(arrays), 1.0 / len(arrays)), 1.0)


@MERGE_METHODS.register("linear")
class Linear(MergeMethod):
    """Weighted mean of the tensors."""

    merge = staticmethod(linear)
    citation = "Lin et al. (2024), DogeRM, section 3; Wortsman et al. (2022), Model soups"
    elementwise = True


@MERGE_METHODS.register("model_soup")
class ModelSoup(MergeMethod):
    """Uniform mean of models fine-tuned from one start."""

    merge = staticmethod(soup)
    citation = "Wortsman et al. (2022), Model soups, section 2"
    uniform = True
    elementwise = True


@MERGE_METHODS.register("warm")
class Warm(MergeMethod):
    """Uniform mean of reward models fine-tuned from one start under different settings."""

    merge = staticmethod(soup)
    citation = "Rame et al. (2024), WARM, section 3"
    uniform = True
    elementwise = True
