"""Task arithmetic: weighted sums of deltas."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from embedrm.merging.methods import MERGE_METHODS
from embedrm.merging.methods.base import Array, MergeMethod, check_arrays, check_weights, merged_sum


def task_arithmetic(
    deltas: Sequence[ArrayLike], weights: ArrayLike | None = None, *, normalize: bool = False, lambda_: float = 1.0
) -> Array:
    r"""Sum of task vectors :math:`\lambda \sum_i w_i \delta_i`, :math:`\delta_i = \theta_i - \theta_{\mathrm{base}}`.

    Parameters
    ----------
    deltas : sequence of array-like, of one shape
    weights : array-like of shape (n,), optional
        A negative one forgets a task; equal weights that sum to one where absent.
    normalize : bool
        Divide by the sum of the weights.
    lambda_ : float
        What multiplies the sum.

    References
    ----------
    Ilharco et al. (2023), "Editing models with task arithmetic", section 2.
    """
    arrays = check_arrays(deltas, "task_arithmetic")
    w = check_weights(weights, len(arrays), "task_arithmetic")
    return lambda_ * merged_sum(arrays, w, normalize, "task_arithmetic")


@MERGE_METHODS.register("task_arithmetic")
class TaskArithmetic(MergeMethod):
    """Weighted sum of the deltas."""

    merge = staticmethod(task_arithmetic)
    on = "deltas"
    citation = "Ilharco et al. (2023), Editing models with task arithmetic, section 2"
    elementwise = True
