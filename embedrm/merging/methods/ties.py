"""TIES: trim, elect a sign, merge what agrees with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from embedrm.errors import InvalidInputError, unknown_name
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
)
from embedrm.merging.windows import Reader, Window

SCOPES = ("tensor", "model")


def ties(
    deltas: Sequence[ArrayLike],
    weights: ArrayLike | None = None,
    *,
    density: float | Sequence[float] = 0.2,
    normalize: bool = True,
    lambda_: float = 1.0,
    scope: str = "tensor",
) -> Array:
    r"""Mean of the trimmed deltas that have the elected sign.

    With :math:`\tau_i` the delta i of which the share ``density`` of largest magnitude is kept and the rest is zero, and
    the elected sign :math:`\gamma = \mathrm{sgn} \sum_i w_i \tau_i` of each entry,

    .. math:: \lambda \Bigl(\sum_{i \in A} w_i \tau_i\Bigr) \Big/ \Bigl(\sum_{i \in A} w_i\Bigr),
              \qquad A = \{i : \mathrm{sgn}\,\tau_i = \gamma\} .

    Parameters
    ----------
    deltas : sequence of array-like, of one shape
    weights : array-like of shape (n,), optional
        Not negative; equal weights that sum to one where absent.
    density : float in (0, 1], or one for each delta
        Share of each delta's entries that is kept, rounded to a whole number and at least one; the paper keeps 20 %.
    normalize : bool
        Divide by the weights of those that agree; False leaves the sum.
    lambda_ : float
        What multiplies the result.
    scope : {"tensor", "model"}
        Among which entries the largest are sought where models of several tensors are merged: each tensor's own, so that
        every tensor keeps its share, as is common for large models; or, as in the paper, all of the model's together, so
        that a tensor that hardly moved may keep nothing. For the single tensor that is given here they are the same.

    Notes
    -----
    An entry that is zero in a delta has no sign: it neither votes nor divides. Where votes cancel exactly, the entry is 0.
    Of equal magnitudes, the earlier entry counts as the smaller.

    References
    ----------
    Yadav et al. (2023), "TIES-Merging: Resolving interference when merging models", section 4.
    """
    arrays = check_arrays(deltas, "ties")
    w = check_weights(weights, len(arrays), "ties")
    options: dict[str, Any] = {"density": density, "normalize": normalize, "lambda_": lambda_, "scope": scope}
    return in_pieces(begin_ties, arrays, w, **options)


def begin_ties(
    pieces: Pieces,
    weights: Weights,
    *,
    density: float | Sequence[float],
    normalize: bool,
    lambda_: float,
    scope: str = "tensor",
    windows: Sequence[Window] | None = None,
) -> Step:
    """Find what of each delta is kept, unless ``windows`` of whole models tell; return what merges a piece."""
    shares = _checked(density, pieces.n_models, scope)
    if windows is None:
        n = pieces.n_entries
        windows = [trimmed(partial(pieces, i), n, share) for i, share in enumerate(shares)]
    found = list(windows)

    def step(deltas: Sequence[Array]) -> Array:
        kept = [window.kept(delta) for window, delta in zip(found, deltas)]
        return lambda_ * elected(kept, weights, normalize, "ties")

    return step


def trimmed(read: Reader, n: int, density: float) -> Window:
    """Return the window of the share of n entries of largest magnitude."""
    return Window(read, n, n - max(1, round(density * n)), n)


def _checked(density: Any, n: int, scope: Any) -> list[float]:
    if scope not in SCOPES:
        raise unknown_name("scope of ties", scope, SCOPES)
    return check_shares(density, n, "density", "ties")


def elected(deltas: Sequence[Array], weights: Weights, normalize: bool, who: str) -> Array:
    """Sum, or mean, of those entries that have the sign of the weighted sum."""
    if (weights < 0).any():
        raise InvalidInputError(
            f"{who} needs weights that are not negative, since signs are elected by them; use task_arithmetic"
        )
    votes = np.zeros(deltas[0].shape)
    for delta, weight in zip(deltas, weights):
        votes += weight * delta
    sign = np.sign(votes)
    total, share = np.zeros(votes.shape), np.zeros(votes.shape)
    for delta, weight in zip(deltas, weights):
        agrees = (np.sign(delta) == sign) & (sign != 0)
        total += np.where(agrees, weight * delta, 0.0)
        share += weight * agrees
    return np.divide(total, share, out=np.zeros_like(total), where=share > 0) if normalize else total


@MERGE_METHODS.register("ties")
class Ties(MergeMethod):
    """Mean of the trimmed deltas that have the elected sign."""

    merge = staticmethod(ties)
    begin = staticmethod(begin_ties)
    on = "deltas"
    each = ("density",)
    citation = "Yadav et al. (2023), TIES-Merging, section 4"

    @classmethod
    def survey(cls, models: Sequence[Callable[[], Iterator[Array]]], options: Mapping[str, Any]) -> dict[str, Any]:
        """Find what of each model's whole delta is kept, under ``scope="model"``."""
        shares = _checked(options["density"], len(models), options["scope"])
        if options["scope"] == "tensor":
            return {}
        sizes = [sum(piece.size for piece in read()) for read in models]
        return {"windows": [trimmed(read, n, share) for read, n, share in zip(models, sizes, shares)]}
