"""DARE: drop entries of the deltas at random, rescale the rest, then merge."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
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
    merged_sum,
)
from embedrm.merging.methods.ties import elected
from embedrm.numerics.digest import array_digest

RESCALE_NORMS = ("paper", "l1")


def dare_linear(
    deltas: Sequence[ArrayLike],
    weights: ArrayLike | None = None,
    *,
    density: float | Sequence[float],
    rescale: bool = True,
    rescale_norm: str = "paper",
    normalize: bool = False,
    lambda_: float = 1.0,
    random_state: int = 0,
    keys: Sequence[str] | None = None,
) -> Array:
    r"""Sum of randomly thinned deltas :math:`\lambda \sum_i w_i\, m_i \circ \delta_i / p`, masks :math:`m_i` Bernoulli(p).

    Its expectation over seeds is that of task arithmetic with the same weights, :math:`\lambda \sum_i w_i \delta_i`.

    Parameters
    ----------
    deltas : sequence of array-like, of one shape
    weights : array-like of shape (n,), optional
        Equal weights that sum to one where absent.
    density : float in (0, 1], or one for each delta
        p, the share of entries that is kept (the paper's drop rate is 1 - p).
    rescale : bool
        Make up for what was dropped.
    rescale_norm : {"paper", "l1"}
        By what: 1/p, which leaves the expectation, or the factor that gives the thinned delta the sum of magnitudes of the
        whole one.
    normalize : bool
        Divide by the sum of the weights.
    lambda_ : float
        What multiplies the result.
    random_state : int
    keys : sequence of str, optional
        One for each delta: with ``random_state`` it decides the mask, so that models listed in another order are thinned
        alike. The digest of the delta where absent.

    References
    ----------
    Yu et al. (2024), "Language models are Super Mario: Absorbing abilities from homologous models as a free lunch",
    section 3.
    """
    arrays = check_arrays(deltas, "dare_linear")
    w = check_weights(weights, len(arrays), "dare_linear")
    options: dict[str, Any] = {"density": density, "rescale": rescale, "rescale_norm": rescale_norm}
    options |= {"normalize": normalize, "lambda_": lambda_, "random_state": random_state}
    return in_pieces(begin_dare_linear, arrays, w, keys=_keys(arrays, keys, "dare_linear"), **options)


def begin_dare_linear(pieces: Pieces, weights: Weights, **options: Any) -> Step:
    """Draw the masks as the pieces come; return what merges a piece."""
    normalize, lambda_ = options.pop("normalize"), options.pop("lambda_")
    masks = _masks(pieces, "dare_linear", **options)

    def step(deltas: Sequence[Array]) -> Array:
        thinned = [mask.thinned(delta) for mask, delta in zip(masks, deltas)]
        return lambda_ * merged_sum(thinned, weights, normalize, "dare_linear")

    return step


def dare_ties(
    deltas: Sequence[ArrayLike],
    weights: ArrayLike | None = None,
    *,
    density: float | Sequence[float],
    rescale: bool = True,
    rescale_norm: str = "paper",
    normalize: bool = False,
    lambda_: float = 1.0,
    random_state: int = 0,
    keys: Sequence[str] | None = None,
) -> Array:
    """Thin the deltas at random as :func:`dare_linear` does, then merge those of the elected sign as TIES does.

    Parameters are those of :func:`dare_linear`; ``normalize`` divides by the weights of those that agree.

    References
    ----------
    Yu et al. (2024), section 3, with Yadav et al. (2023), "TIES-Merging", section 4, in place of its trimming.
    """
    arrays = check_arrays(deltas, "dare_ties")
    w = check_weights(weights, len(arrays), "dare_ties")
    options: dict[str, Any] = {"density": density, "rescale": rescale, "rescale_norm": rescale_norm}
    options |= {"normalize": normalize, "lambda_": lambda_, "random_state": random_state}
    return in_pieces(begin_dare_ties, arrays, w, keys=_keys(arrays, keys, "dare_ties"), **options)


def begin_dare_ties(pieces: Pieces, weights: Weights, **options: Any) -> Step:
    """Draw the masks as the pieces come; return what merges a piece."""
    normalize, lambda_ = options.pop("normalize"), options.pop("lambda_")
    masks = _masks(pieces, "dare_ties", **options)

    def step(deltas: Sequence[Array]) -> Array:
        thinned = [mask.thinned(delta) for mask, delta in zip(masks, deltas)]
        return lambda_ * elected(thinned, weights, normalize, "dare_ties")

    return step


def _keys(arrays: Sequence[Array], keys: Sequence[str] | None, who: str) -> list[str]:
    found = [array_digest({"": array}) for array in arrays] if keys is None else list(keys)
    if len(found) != len(arrays):
        raise InvalidInputError(f"{who} needs one key for each of {len(arrays)} deltas, got {len(found)}")
    return found


def _masks(
    pieces: Pieces,
    who: str,
    *,
    density: float | Sequence[float],
    rescale: bool,
    rescale_norm: str,
    random_state: int,
    keys: Sequence[str],
) -> list[_Mask]:
    shares = check_shares(density, pieces.n_models, "density", who)
    if rescale_norm not in RESCALE_NORMS:
        raise unknown_name(f"rescale_norm of {who}", rescale_norm, RESCALE_NORMS)
    if isinstance(random_state, bool) or not isinstance(random_state, (int, np.integer)):
        raise InvalidInputError(f"{who} needs random_state to be a whole number, got {random_state!r}")
    masks = []
    for i, (p, key) in enumerate(zip(shares, keys)):
        seed = int.from_bytes(blake2b(f"{int(random_state)}|{key}".encode(), digest_size=16).digest(), "little")
        divisor = p if rescale and rescale_norm == "paper" else 1.0
        if rescale and rescale_norm == "l1" and p < 1.0:
            trial, whole, left = _Mask(seed, p, 1.0), 0.0, 0.0
            for delta in pieces(i):
                whole += float(np.abs(delta).sum())
                left += float(np.abs(trial.thinned(delta)).sum())
            # where nothing is left there is nothing to make up with
            divisor = left / whole if left > 0 else 1.0
        masks.append(_Mask(seed, p, divisor))
    return masks


class _Mask:
    """A Bernoulli mask, drawn as pieces come: the same numbers whatever their sizes."""

    def __init__(self, seed: int, p: float, divisor: float) -> None:
        self.rng, self.p, self.divisor = np.random.default_rng(seed), p, divisor

    def thinned(self, delta: Array) -> Array:
        if self.p == 1.0:
            return delta
        return np.where(self.rng.random(delta.shape) < self.p, delta / self.divisor, 0.0)


@MERGE_METHODS.register("dare_linear")
class DareLinear(MergeMethod):
    """Weighted sum of randomly thinned, rescaled deltas."""

    merge = staticmethod(dare_linear)
    begin = staticmethod(begin_dare_linear)
    on = "deltas"
    each = ("density",)
    citation = "Yu et al. (2024), Language models are Super Mario, section 3"
    keyed = True


@MERGE_METHODS.register("dare_ties")
class DareTies(MergeMethod):
    """Randomly thinned, rescaled deltas that have the elected sign."""

    merge = staticmethod(dare_ties)
    begin = staticmethod(begin_dare_ties)
    on = "deltas"
    each = ("density",)
    citation = "Yu et al. (2024), section 3; Yadav et al. (2023), section 4"
    keyed = True
