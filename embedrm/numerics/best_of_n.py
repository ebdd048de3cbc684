"""The best of n candidates by a proxy: what its other qualities are on average, exactly, by prefixes, by permutations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.intp]

# Entries of one block of permutations; 8 bytes each, a few blocks at a time.
_BLOCK = 1_000_000


@dataclass(frozen=True)
class Candidates:
    """Candidates of each prompt, side by side; prompts may have different numbers of them.

    Attributes
    ----------
    rows : ndarray of shape (n,), int
        Row of each candidate in the caller's arrays: by prompt, and within a prompt in the caller's order.
    prompt : ndarray of shape (n,), int
        Place of its prompt in :attr:`names`, ascending.
    names : ndarray of shape (n_prompts,), int
        The caller's number of each prompt, ascending.
    start, size : ndarray of shape (n_prompts,), int
        Where the candidates of a prompt begin, and K, how many they are.
    """

    rows: Ints
    prompt: Ints
    names: Ints
    start: Ints
    size: Ints

    @classmethod
    def of(cls, prompt_of: ArrayLike, rows: ArrayLike) -> Candidates:
        """Collect some rows by their prompts; ``prompt_of`` (n_responses,) int, ``rows`` (n,) int."""
        chosen = np.sort(np.asarray(rows, dtype=np.intp))
        names, prompt, size = np.unique(
            np.asarray(prompt_of, dtype=np.intp)[chosen], return_inverse=True, return_counts=True
        )
        order = np.argsort(prompt, kind="stable")
        return cls(chosen[order], prompt[order], names, np.cumsum(size) - size, size)

    @property
    def n_prompts(self) -> int:
        """Number of prompts."""
        return len(self.names)

    def by_size(self) -> Iterator[tuple[int, Ints, Ints]]:
        """Yield every K with the prompts that have it, (m,), and the places of their candidates, (m, K)."""
        for k in np.unique(self.size).tolist():
            prompts = np.flatnonzero(self.size == k)
            yield k, prompts, self.start[prompts][:, None] + np.arange(k)

    def sums(self, values: Array) -> Array:
        """Sum over the candidates of each prompt; ``values`` (n,)."""
        return np.bincount(self.prompt, weights=values, minlength=self.n_prompts).astype(np.float64)

    def means(self, values: Array) -> Array:
        """Mean over the candidates of each prompt; ``values`` (n,)."""
        return self.sums(values) / self.size


def rank_weights(k: int, ns: Sequence[int]) -> Array:
    r"""Probability that the best of n of K candidates, drawn without replacement, is the i-th worst of all.

    .. math:: w_n(i) = \binom{i-1}{n-1} / \binom{K}{n}

    Parameters
    ----------
    k : int
        Number of candidates.
    ns : sequence of int in 1..k

    Returns
    -------
    ndarray of shape (len(ns), k), float64
        Each row sums to one.

    Notes
    -----
    ``w_n(i) = G_n(i) n / i`` with ``G_n(i) = C(i, n) / C(K, n)``, the chance that all n are among the i worst, and
    ``G_{n+1}(i) = G_n(i) (i - n) / (K - n)``: products of positive numbers, so that nothing cancels and nothing overflows.
    """
    i = np.arange(1.0, k + 1.0)
    found: dict[int, Array] = {}
    below = i / k
    last = max(ns, default=0)
    for n in range(1, last + 1):
        if n in ns:
            found[n] = below * n / i
        if n < last:
            below = below * np.maximum(i - n, 0.0) / (k - n)
    return np.stack([found[n] for n in ns]) if ns else np.empty((0, k))


def tie_blocks(proxy: Array, candidates: Candidates) -> tuple[Ints, Ints]:
    """Sort each prompt's candidates by the proxy, the worst first.

    Returns
    -------
    order : ndarray of shape (n,), int
    block : ndarray of shape (n,), int
        Number of the block of equal proxies, in that order.
    """
    order = np.empty(len(candidates.prompt), dtype=np.intp)
    for _, _, places in candidates.by_size():
        # one sort a prompt; sorting all of them at once takes several times as long
        order[places] = np.take_along_axis(places, np.argsort(proxy[places], axis=1, kind="stable"), axis=1)
    value, prompt = proxy[order], candidates.prompt[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (value[1:] != value[:-1]) | (prompt[1:] != prompt[:-1])
    return order, np.cumsum(new) - 1


def unbiased(proxy: Array, columns: Array, candidates: Candidates, ns: Sequence[int]) -> Array:
    r"""Mean over all subsets of n candidates of what the best by the proxy has: the unbiased estimator of best-of-n.

    .. math:: E_n = \sum_i w_n(i) \, c_{(i)}

    with :math:`c_{(i)}` a column of the candidate of the i-th lowest proxy and w of :func:`rank_weights`. Of equal proxies
    each is as likely to be taken, whatever subset they are in: their columns are replaced by the mean over them.

    Parameters
    ----------
    proxy : ndarray of shape (n,)
        What chooses, candidate by candidate in the order of ``candidates``.
    columns : ndarray of shape (n, n_columns)
        What is averaged.
    candidates : Candidates
    ns : sequence of int

    Returns
    -------
    ndarray of shape (n_prompts, len(ns), n_columns), float64
        NaN where a prompt has fewer than n candidates.
    """
    order, block = tie_blocks(proxy, candidates)
    count = np.bincount(block)
    shared = np.empty_like(columns)
    for j in range(columns.shape[1]):
        shared[:, j] = (np.bincount(block, weights=columns[order, j]) / count)[block]
    out = np.full((candidates.n_prompts, len(ns), columns.shape[1]), np.nan)
    for k, prompts, places in candidates.by_size():
        fits = np.flatnonzero(np.asarray(ns, dtype=np.intp) <= k)
        if len(fits):
            weights = rank_weights(k, [ns[j] for j in fits.tolist()])
            out[np.ix_(prompts, fits)] = np.einsum("nk,pkc->pnc", weights, shared[places])
    return out


def prefixes(proxy: Array, columns: Array, candidates: Candidates, ns: Sequence[int]) -> Array:
    """Columns of the best among the first n candidates, the earliest of equal ones; as :func:`unbiased` otherwise.

    Nested, of one order: the scheme of the code released with Lin et al. (2024).
    """
    out = np.full((candidates.n_prompts, len(ns), columns.shape[1]), np.nan)
    for k, prompts, places in candidates.by_size():
        values = proxy[places]
        for j, n in enumerate(ns):
            if n <= k:
                best = values[:, :n].argmax(axis=1)
                out[prompts, j] = columns[places[np.arange(len(prompts)), best]]
    return out


def permutations(
    proxy: Array,
    columns: Array,
    candidates: Candidates,
    ns: Sequence[int],
    *,
    n_permutations: int = 100,
    random_state: int = 0,
) -> Array:
    """Mean of :func:`prefixes` over random orders of each prompt's candidates: the scheme of Sun, Shen and Ton (2025).

    The orders depend on the seed and the candidates alone, so that proxies are compared on the same ones.
    """
    rng = np.random.default_rng(random_state)
    out = np.full((candidates.n_prompts, len(ns), columns.shape[1]), np.nan)
    for k, prompts, places in candidates.by_size():
        step = max(1, _BLOCK // (k * n_permutations))
        for begin in range(0, len(prompts), step):
            own, at = prompts[begin : begin + step], places[begin : begin + step]
            drawn = rng.permuted(np.repeat(at[:, None, :], n_permutations, axis=1), axis=2)
            values = proxy[drawn]
            for j, n in enumerate(ns):
                if n <= k:
                    best = values[:, :, :n].argmax(axis=2)
                    chosen = np.take_along_axis(drawn, best[:, :, None], axis=2)[:, :, 0]
                    out[own, j] = columns[chosen].mean(axis=1)
    return out


def beaten_share(values: Array, candidates: Candidates) -> Array:
    """Share of the other candidates of its prompt that each one beats, equal ones counting one half; (n,) in [0, 1].

    It is one half on average in every prompt, and one half where there is no other candidate.
    """
    rank = mid_ranks(values, candidates)
    others = candidates.size[candidates.prompt] - 1.0
    return np.where(others > 0, (rank - 1.0) / np.maximum(others, 1.0), 0.5)


def mid_ranks(values: Array, candidates: Candidates) -> Array:
    """Rank of each candidate within its prompt, from 1 for the lowest; equal ones share the mean of their ranks; (n,)."""
    order, block = tie_blocks(values, candidates)
    place = np.arange(len(order)) - candidates.start[candidates.prompt[order]] + 1.0
    out = np.empty(len(order))
    out[order] = (np.bincount(block, weights=place) / np.bincount(block))[block]
    return out


def spearman(a: Array, b: Array, candidates: Candidates) -> Array:
    """Spearman's rank correlation of two columns within each prompt; (n_prompts,).

    NaN where ``b`` does not vary, and zero where ``b`` does and ``a`` does not: who gives all the same ranks nothing.
    """
    centred = []
    for values in (a, b):
        ranks = mid_ranks(values, candidates)
        centred.append(ranks - 0.5 * (candidates.size[candidates.prompt] + 1.0))
    square_a, square_b = (candidates.sums(c * c) for c in centred)
    both = candidates.sums(centred[0] * centred[1])
    scale = np.sqrt(square_a * square_b)
    rho = np.where(scale > 0, both / np.where(scale > 0, scale, 1.0), 0.0)
    return np.where(square_b > 0, rho, np.nan)


def divergence(ns: ArrayLike) -> Array:
    """KL divergence of best-of-n from drawing once, ``ln n - (n - 1) / n`` nats; an upper bound where answers repeat."""
    n = np.asarray(ns, dtype=np.float64)
    return np.log(n) - (n - 1.0) / n
