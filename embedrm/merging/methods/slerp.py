"""Spherical interpolation of whole tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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
    check_sum,
    check_weights,
    in_pieces,
    merged_sum,
    weighted_sum,
)

# Beyond this cosine the angle says less than rounding does, and the interpolation is linear.
PARALLEL = 0.9995
_STEPS, _TOLERANCE = 10_000, 1e-12


def slerp(tensors: Sequence[ArrayLike], weights: ArrayLike | None = None, *, t: float | None = None) -> Array:
    r"""Interpolation along the sphere; of two tensors at angle :math:`\Omega`, with :math:`t = w_2 / (w_1 + w_2)`,

    .. math:: \frac{\sin((1 - t)\Omega)}{\sin\Omega} \theta_1 + \frac{\sin(t\,\Omega)}{\sin\Omega} \theta_2 .

    The angle is that between the tensors as vectors; the coefficients multiply the tensors at their own lengths. Of more
    than two, the coefficients are those that make the weighted spherical mean of their directions out of the directions
    (the point q with :math:`\sum_i w_i \log_q u_i = 0`), which for two are the ones above; no order among models is needed.

    Parameters
    ----------
    tensors : sequence of array-like, of one shape
    weights : array-like of shape (n,), optional
        Not negative; divided by their sum.
    t : float in [0, 1], optional
        For two tensors, instead of weights: 0 is the first (the base model), 1 the second.

    Notes
    -----
    Where all directions are within a cosine of 0.9995 of each other, two are that close to opposite, or one tensor is zero,
    the weighted mean is taken instead.

    References
    ----------
    Shoemake (1985), "Animating rotation with quaternion curves"; Buss and Fillmore (2001), "Spherical averages and
    applications to spherical splines and interpolation" (the mean of several).
    """
    arrays = check_arrays(tensors, "slerp")
    given = None if weights is None else check_weights(weights, len(arrays), "slerp")
    return in_pieces(begin_slerp, arrays, given, t=t)


def begin_slerp(pieces: Pieces, weights: Weights | None, *, t: float | None) -> Step:
    """Find the angles between whole tensors; return what merges a piece."""
    n = pieces.n_models
    if t is not None:
        is_number = isinstance(t, (int, float, np.integer, np.floating)) and not isinstance(t, bool)
        if weights is not None or n != 2 or not is_number or not 0 <= t <= 1:
            raise InvalidInputError(
                f"slerp takes t in [0, 1] for two tensors without weights, got t={t!r} for {n} tensors "
                f"{'with' if weights is not None else 'without'} weights"
            )
        weights = np.array([1.0 - t, t])
    w = check_weights(weights, n, "slerp")
    if (w < 0).any():
        raise InvalidInputError("slerp needs weights that are not negative: it stays between the tensors; use linear")
    w = w / check_sum(w, "slerp")
    used = np.flatnonzero(w).tolist()
    coefficients = _coefficients(_products(pieces, used), w[used])

    def step(tensors: Sequence[Array]) -> Array:
        if coefficients is None:
            return merged_sum(tensors, w, True, "slerp")
        return weighted_sum([tensors[i] for i in used], coefficients)

    return step


def _products(pieces: Pieces, used: Sequence[int]) -> Weights:
    """Return the inner products of the tensors as vectors, (n, n)."""
    out = np.zeros((len(used), len(used)))
    for part in pieces.parts if len(used) > 1 else ():
        found = [pieces.read(i, part) for i in used]
        # not np.dot, whose threads wait for each other longer than a piece takes
        out += [[np.einsum("i,i->", a, b) for b in found] for a in found]
    return out


def _coefficients(gram: Weights, w: Weights) -> Weights | None:
    """Return what multiplies each tensor; None where the mean is to be linear. They follow from the cosines alone."""
    lengths = np.sqrt(np.diag(gram))
    if len(w) == 1 or not lengths.all():
        return None
    cosine = np.clip(gram / np.outer(lengths, lengths), -1.0, 1.0)
    others = cosine[~np.eye(len(w), dtype=bool)]
    if (others > PARALLEL).all() or (others < -PARALLEL).any():
        return None
    if len(w) == 2:
        angle = np.arccos(cosine[0, 1])
        found: Weights = np.sin(w * angle) / np.sin(angle)
        return found
    c = w / np.sqrt(w @ cosine @ w)
    for _ in range(_STEPS):
        along = np.clip(cosine @ c, -1.0, 1.0)
        # sum of w log_q u, with log_q u = (angle / sin angle) (u - cos(angle) q), in coefficients of the directions
        pull = w / np.sinc(np.arccos(along) / np.pi)
        step = pull - (pull @ along) * c
        length = float(np.sqrt(max(step @ cosine @ step, 0.0)))
        if length < _TOLERANCE:
            return c
        c = np.cos(length) * c + np.sinc(length / np.pi) * step
        c /= np.sqrt(c @ cosine @ c)
    raise InvalidInputError(
        f"slerp found no spherical mean of {len(w)} tensors that point in nearly opposite directions; use linear"
    )


@MERGE_METHODS.register("slerp")
class Slerp(MergeMethod):
    """Interpolation along the sphere."""

    merge = staticmethod(slerp)
    begin = staticmethod(begin_slerp)
    citation = "Shoemake (1985); of several: Buss and Fillmore (2001)"
