"""Model breadcrumbs: leave out the largest and the smallest entries of each delta."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from numpy.typing import ArrayLike

from embedrm.errors import InvalidInputError
from embedrm.merging.methods import MERGE_METHODS
from embedrm.merging.methods.base import (
    Array,
    MergeMethod,
    Pieces,
    Step,
    Weights,
    check_arrays,
    check_shares,
    check_weights,
    in_pieces,
    merged_sum,
)
from embedrm.merging.windows import Window


def breadcrumbs(
    deltas: Sequence[ArrayLike],
    weights: ArrayLike | None = None,
    *,
    density: float | Sequence[float],
    gamma: float | Sequence[float] = 0.01,
    normalize: bool = False,
    lambda_: float = 1.0,
) -> Array:
    r"""Sum :math:`\lambda \sum_i w_i\, m_i \circ \delta_i`, where :math:`m_i` leaves out both tails of the magnitudes.

    Parameters
    ----------
    deltas : sequence of array-like, of one shape
    weights : array-like of shape (n,), optional
        Equal weights that sum to one where absent.
    density : float in (0, 1], or one for each delta
        Share of entries that is kept, in each tensor; with ``gamma`` at most 1.
    gamma : float in [0, 1], or one for each delta
        Share of the entries of largest magnitude that is left out (outliers). The smallest 1 - density - gamma are left out
        too. Shares are rounded to whole entries.
    normalize : bool
        Divide by the sum of the weights.
    lambda_ : float
        What multiplies the sum.

    Notes
    -----
    Of equal magnitudes, the earlier entry counts as the smaller.

    References
    ----------
    Davari and Belilovsky (2024), "Model breadcrumbs: Scaling multi-task model merging with sparse masks", section 3.
    """
    arrays = check_arrays(deltas, "breadcrumbs")
    w = check_weights(weights, len(arrays), "breadcrumbs")
    options: dict[str, Any] = {"density": density, "gamma": gamma, "normalize": normalize, "lambda_": lambda_}
    return in_pieces(begin_breadcrumbs, arrays, w, **options)


def begin_breadcrumbs(
    pieces: Pieces,
    weights: Weights,
    *,
    density: float | Sequence[float],
    gamma: float | Sequence[float],
    normalize: bool,
    lambda_: float,
) -> Step:
    """Find what of each delta is kept; return what merges a piece."""
    n, windows = pieces.n_entries, []
    kept = check_shares(density, pieces.n_models, "density", "breadcrumbs")
    left_out = check_shares(gamma, pieces.n_models, "gamma", "breadcrumbs", zero=True)
    for i, (share, top) in enumerate(zip(kept, left_out)):
        if share + top > 1 + 1e-12:
            raise InvalidInputError(
                f"breadcrumbs keeps a share of {share!r} and leaves out the largest {top!r}, together more than all; "
                "lower one of them"
            )
        stop = n - round(top * n)
        windows.append(Window(partial(pieces, i), n, max(0, stop - round(share * n)), stop))

    def step(deltas: Sequence[Array]) -> Array:
        middle = [window.kept(delta) for window, delta in zip(windows, deltas)]
        return lambda_ * merged_sum(middle, weights, normalize, "breadcrumbs")

    return step


@MERGE_METHODS.register("breadcrumbs")
class Breadcrumbs(MergeMethod):
    """Sum of deltas without their largest and smallest entries."""

    merge = staticmethod(breadcrumbs)
    begin = staticmethod(begin_breadcrumbs)
    on = "deltas"
    each = ("density", "gamma")
    citation = "Davari and Belilovsky (2024), Model breadcrumbs, section 3"
