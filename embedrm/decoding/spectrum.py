"""The rank of a reward matrix, prefixes by tokens, at a stated cut-off, and what another cut-off would have said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.decoding.arm import ARMHead
from embedrm.decoding.base import Array, PrefixHead
from embedrm.decoding.rad import RADHead
from embedrm.errors import InvalidInputError

CUTOFFS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Cut-offs, as shares of the largest singular value, at which ranks are told."""

Extend = Callable[[int], NDArray[Any]]
"""(prefix) -> states (k, dim) after that prefix and each of k candidate tokens."""


@dataclass(frozen=True)
class Spectrum:
    """Singular values of a matrix, and the ranks that follow from cut-offs.

    Attributes
    ----------
    values : ndarray of shape (min(shape),), float64
        Falling.
    shape : (int, int)
    precision : float
        Relative precision of what the matrix was computed in: singular values below ``precision * max(shape)`` of the
        largest are noise (the rule of ``numpy.linalg.matrix_rank``).
    """

    values: Array
    shape: tuple[int, int]
    precision: float

    @property
    def noise(self) -> float:
        """Cut-off below which singular values are rounding."""
        return self.precision * max(self.shape)

    def rank(self, cutoff: float | None = None) -> int:
        """Singular values above ``cutoff`` times the largest; at the rounding's own cut-off where None.

        Raises
        ------
        InvalidInputError
            For a cut-off that is not in (0, 1), or below the rounding.
        """
        if cutoff is None:
            cutoff = self.noise
        elif not 0 < cutoff < 1 or cutoff < self.noise:
            raise InvalidInputError(
                f"a rank needs a cut-off from {self.noise:.1e} (the rounding of this matrix) to 1, got {cutoff!r}"
            )
        return int((self.values > cutoff * self.values[0]).sum()) if self.values[0] > 0 else 0

    def energy_rank(self, share: float = 0.99) -> int:
        """Fewest singular values whose squares make up this share of the sum of squares."""
        squares = self.values**2
        if not squares.sum() > 0:
            return 0
        return int(np.searchsorted(np.cumsum(squares) / squares.sum(), share) + 1)

    def effective_rank(self) -> float:
        """Exponential of the entropy of the singular values' shares (Roy and Vetterli 2007); needs no cut-off."""
        share = self.values / max(float(self.values.sum()), np.finfo(float).tiny)
        share = share[share > 0]
        return float(np.exp(-(share * np.log(share)).sum())) if len(share) else 0.0

    def facts(self, cutoffs: Sequence[float] = CUTOFFS) -> dict[str, Any]:
        """Ranks at cut-offs (those above the rounding), and measures without one, for a report."""
        ranks = {f"{cutoff:g}": self.rank(cutoff) for cutoff in cutoffs if cutoff >= self.noise}
        return {
            "shape": list(self.shape),
            "ranks": ranks,
            "noise_cutoff": self.noise,
            "rank_above_noise": self.rank(),
            "energy_rank_99": self.energy_rank(),
            "effective_rank": self.effective_rank(),
        }


def spectrum(matrix: ArrayLike) -> Spectrum:
    """Singular values, in float64, of a matrix in the precision that it has.

    Parameters
    ----------
    matrix : array-like of shape (n_prefixes, n_tokens)
        float32 or float64, which tells how far its small singular values can be believed.
    """
    given = np.asarray(matrix)
    if given.ndim != 2 or not given.size or given.dtype.kind != "f" or not np.isfinite(given).all():
        raise InvalidInputError(
            f"a spectrum needs a finite matrix of floating point, got {given.dtype} of shape {given.shape}"
        )
    values = np.linalg.svd(given.astype(np.float64), compute_uv=False)
    return Spectrum(values, (given.shape[0], given.shape[1]), float(np.finfo(given.dtype).eps))


def rank_by_prefixes(
    matrix: ArrayLike, counts: Sequence[int], cutoffs: Sequence[float] = (1e-3,)
) -> list[dict[str, float]]:
    """Rank of the first N rows, for growing N (Troshin et al. 2024, Fig. 1).

    Parameters
    ----------
    matrix : array-like of shape (n_prefixes, n_tokens)
        Prefixes in random order.
    counts : sequence of int
        N, each at most n_prefixes.
    cutoffs : sequence of float

    Returns
    -------
    list of dict
        ``prefixes``, ``cutoff`` and ``rank``.
    """
    given = np.asarray(matrix)
    if not len(counts) or min(counts) < 1 or max(counts) > len(given):
        raise InvalidInputError(f"rank_by_prefixes needs counts from 1 to the {len(given)} prefixes")
    rows = []
    for n in counts:
        at = spectrum(given[:n])
        rows += [{"prefixes": int(n), "cutoff": float(cutoff), "rank": at.rank(cutoff)} for cutoff in cutoffs]
    return rows


def reward_matrix(
    head: PrefixHead,
    prefixes: NDArray[Any],
    *,
    extend: Extend | None = None,
    ids: ArrayLike | None = None,
    attribute: str | int = 0,
) -> Array:
    """Scores of next tokens after prefixes, (n_prefixes, n_tokens), float64, before any link.

    Parameters
    ----------
    head : ARMHead or RADHead
    prefixes : ndarray of shape (n_prefixes, dim)
        States after the prefixes.
    extend : callable, optional
        For a RADHead, which rewards prefixes: ``extend(i)`` is the states (k, dim) after prefix i and each candidate token.
    ids : array-like of shape (k,), optional
        For an ARMHead: tokens; the whole vocabulary where absent.
    attribute : str or int
    """
    column = head.attribute(attribute)
    if isinstance(head, ARMHead):
        exact = np.asarray(prefixes, dtype=np.float64)
        return np.asarray(head.next_scores(exact, ids)[:, :, column])
    if not isinstance(head, RADHead):
        raise InvalidInputError(f"reward_matrix needs an ARMHead or a RADHead, got {type(head).__name__}")
    if extend is None:
        raise InvalidInputError(
            "a RADHead rewards prefixes: reward_matrix needs extend, the states after prefix and token"
        )
    return np.stack([head.scores(np.asarray(extend(i), dtype=np.float64))[:, column] for i in range(len(prefixes))])
