"""Learned reward matrices, prefixes by tokens: their singular values, their ranks, and how these hang on the cut-off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding.arm import ARMHead
from embedrm.decoding.base import PrefixHead
from embedrm.decoding.rad import RADHead
from embedrm.decoding.spectrum import rank_by_prefixes, reward_matrix, spectrum
from embedrm.encoders.token_states import TokenStates
from embedrm.experiments.prefix_shelf import Shelf, head_digest
from embedrm.language_models.model import LanguageModel
from embedrm.progress import Progress, silent

CUTOFF = 1e-2
"""The stated cut-off, as a share of the largest singular value: what the rounding rule of float32 gives, in round numbers,
at the size of the paper's vocabulary (50,257 times 1.2e-7, that is 6e-3)."""
CUTOFFS = (1e-1, 1e-2, 1e-3, 1e-4)
_BATCH = 6
_HALVES = 20


@dataclass(frozen=True)
class Grid:
    """Prefixes and tokens at which reward matrices are looked at.

    Attributes
    ----------
    rows : ndarray of shape (n_prefixes,)
        Rows of the training states, in random order, of different texts where there are enough.
    prefixes : list of list of int
        Their tokens, BOS first.
    tokens : ndarray of shape (n_tokens,)
        Drawn from the whole vocabulary.
    """

    rows: NDArray[np.intp]
    prefixes: list[list[int]]
    tokens: NDArray[np.intp]


def draw_grid(states: TokenStates, n_prefixes: int, n_tokens: int, random_state: int = 0) -> Grid:
    """Draw prefixes of training texts (BOS alone is none), a text again only after all others, and tokens."""
    rng = np.random.default_rng(random_state)
    long = np.flatnonzero(states.lengths > 0)
    texts = np.concatenate([rng.permutation(long) for _ in range(-(-n_prefixes // len(long)))])[:n_prefixes]
    steps = 1 + np.floor(rng.random(len(texts)) * states.lengths[texts]).astype(np.intp)
    first = states.offsets[texts]
    prefixes = [[int(i) for i in states.ids[a : a + t + 1]] for a, t in zip(first, steps)]
    tokens = np.sort(rng.permutation(states.vocab_size)[:n_tokens])
    return Grid((first + steps).astype(np.intp), prefixes, tokens.astype(np.intp))


def rad_matrices(
    lm: LanguageModel,
    heads: Mapping[str, RADHead],
    grid: Grid,
    shelf: Shelf,
    progress: Progress = silent,
) -> dict[str, NDArray[np.float32]]:
    """Rewards of every prefix followed by every token: one state of the language model for each entry.

    Returns
    -------
    dict of str to ndarray of shape (n_prefixes, n_tokens), float32
        The precision of the states.
    """
    identity: list[Any] = [lm.fingerprint(), {name: head_digest(head) for name, head in heads.items()}]
    identity += [grid.prefixes, grid.tokens.tolist()]
    found = shelf.arrays("rewards", identity, lambda: _rad_matrices(lm, heads, grid, progress))
    return {name: found[name] for name in heads}


def _rad_matrices(
    lm: LanguageModel, heads: Mapping[str, RADHead], grid: Grid, progress: Progress
) -> dict[str, NDArray[Any]]:
    import torch

    from embedrm.decoding.generation import padded
    from embedrm.decoding.guidance_cache import candidate_states, check_shareable

    check_shareable(lm.model, "the reward matrix of RAD")
    step = progress("reward matrix of RAD")
    n, k = len(grid.prefixes), len(grid.tokens)
    out = {name: np.empty((n, k), dtype=np.float32) for name in heads}
    # prefixes of like length together, so that little is padding
    order = np.argsort([len(prefix) for prefix in grid.prefixes], kind="stable")
    candidates = torch.from_numpy(grid.tokens.astype(np.int64))
    for start in range(0, n, _BATCH):
        part = order[start : start + _BATCH]
        ids, mask = padded([grid.prefixes[i] for i in part], lm.bos_id)
        with torch.inference_mode():
            places = (mask.cumsum(dim=-1) - 1).clamp(min=0)
            base = lm.model.base_model(ids, attention_mask=mask, position_ids=places, use_cache=True)
            states, _ = candidate_states(
                lm.model, base.past_key_values, mask, ids, candidates.expand(len(part), k), "the reward matrix of RAD"
            )
        flat = states.reshape(-1, states.shape[-1]).float().numpy()
        for name, head in heads.items():
            out[name][part] = head.scores(flat)[:, 0].reshape(len(part), k)
        step(min(start + _BATCH, n), n)
    return dict(out)


def arm_matrix(head: ARMHead, states: TokenStates, grid: Grid) -> NDArray[np.float64]:
    """Rewards of all tokens of the grid after each prefix: products alone, in float64."""
    return reward_matrix(head, np.asarray(states.states[grid.rows], dtype=np.float64), ids=grid.tokens)


def pooled(states: TokenStates, table: NDArray[Any]) -> TokenStates:
    """States that know no order: the mean of the static vectors of BOS and the tokens read so far."""
    e = np.asarray(table, dtype=np.float64)
    means = np.empty((len(states.ids), e.shape[1]), dtype=np.float32)
    for first, last in zip(states.offsets[:-1], states.offsets[1:]):
        total = np.cumsum(e[states.ids[first:last]], axis=0)
        means[first:last] = total / np.arange(1, last - first + 1)[:, None]
    return TokenStates(means, states.ids, states.offsets, f"mean of {states.model}", states.vocab_size)


def pooled_matrix(head: RADHead, grid: Grid, table: NDArray[Any]) -> NDArray[np.float64]:
    """Rewards of every prefix followed by every token where states are means of static vectors, in float64."""
    e = np.asarray(table, dtype=np.float64)

    def extend(i: int) -> NDArray[np.float64]:
        prefix = grid.prefixes[i]
        longer: NDArray[np.float64] = (e[prefix].sum(axis=0) + e[grid.tokens]) / (len(prefix) + 1)
        return longer

    first = np.zeros((len(grid.prefixes), e.shape[1]))
    return reward_matrix(head, first, extend=extend)


def rank_row(name: str, matrix: NDArray[Any], parameters: int, bound: int | None = None) -> dict[str, Any]:
    """Facts of one matrix: ranks at cut-offs and measures without one."""
    at = spectrum(matrix)
    facts: dict[str, Any] = {
        "name": name,
        "ranks": {cutoff: at.rank(cutoff) for cutoff in CUTOFFS if cutoff >= at.noise},
        "above_rounding": at.rank(),
        "energy": at.energy_rank(),
        "effective": at.effective_rank(),
        "bound": bound,
        "parameters": parameters,
        "values": at.values.tolist(),
        "interval": rank_interval(matrix),
    }
    return facts


def rank_interval(matrix: NDArray[Any], cutoff: float = CUTOFF, random_state: int = 0) -> dict[str, float]:
    """Rank at the stated cut-off; low and high are those of random halves of the prefixes, all tokens kept."""
    rng = np.random.default_rng(random_state)
    n = len(matrix)
    halves = [spectrum(matrix[rng.permutation(n)[: max(2, n // 2)]]).rank(cutoff) for _ in range(_HALVES)]
    whole = spectrum(matrix).rank(cutoff)
    return {"value": float(whole), "low": float(min(whole, *halves)), "high": float(max(whole, *halves))}


def ranks_over_prefixes(matrices: Mapping[str, NDArray[Any]], counts: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """Rank of the first N rows, at the stated cut-off, for growing N (the paper's Fig. 1)."""
    return {name: rank_by_prefixes(matrix, counts, (CUTOFF,)) for name, matrix in matrices.items()}


def bound_of(head: PrefixHead) -> int | None:
    """Return the largest rank that the head's form allows; None of a RAD head.

    d of ARM, r and one for the baseline where W has rank r, and one more with a bias.
    """
    if not isinstance(head, ARMHead):
        return None
    d = head.n_features_in_
    return (d if head.rank is None else min(d, head.rank + int(head.baseline))) + int(head.bias)


def rank_ratio(matrix: NDArray[Any], other: NDArray[Any], random_state: int = 0) -> dict[str, float]:
    """Rank of one matrix over that of another; low and high are those of the same random halves of the prefixes."""
    rng = np.random.default_rng(random_state)
    n = len(matrix)

    def ratio(rows: Any) -> float:
        return spectrum(matrix[rows]).rank(CUTOFF) / max(1, spectrum(other[rows]).rank(CUTOFF))

    halves = [ratio(rng.permutation(n)[: max(2, n // 2)]) for _ in range(_HALVES)]
    whole = ratio(slice(None))
    return {"value": whole, "low": min(whole, *halves), "high": max(whole, *halves)}


def shape_sentence(shape: tuple[int, int], vocabulary: int, dim: int) -> str:
    """Say what the matrices are of."""
    n, k = shape
    return (
        f"Rows are {n:,} prefixes drawn from the training texts, columns {k:,} tokens drawn from the vocabulary of "
        f"{vocabulary:,}; a state has {dim} numbers. The rank of such a part bounds that of the whole matrix from below."
    )
