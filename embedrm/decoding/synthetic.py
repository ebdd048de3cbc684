"""Token-pair reward matrices that a low-rank head cannot learn: identity, triangle (Troshin et al. 2024, App. C.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding.arm import ARMHead
from embedrm.decoding.base import Array, PrefixHead
from embedrm.decoding.rad import RADHead
from embedrm.decoding.spectrum import Spectrum, reward_matrix, spectrum
from embedrm.encoders.token_states import TokenStates
from embedrm.errors import InvalidInputError, unknown_name

MODEL = "token-pairs"
"""Stands for a language model's fingerprint in states of token pairs."""


def identity_matrix(n_tokens: int) -> Array:
    """R[x, y] = 1 where y is x; of rank n with equal singular values, so that every rank short of n costs the same."""
    return np.eye(n_tokens)


def triangular_matrix(n_tokens: int) -> Array:
    """R[x, y] = 1 where y is x or comes after it; of rank n with falling singular values."""
    return np.triu(np.ones((n_tokens, n_tokens)))


MATRICES = {"identity": identity_matrix, "upper-triangular": triangular_matrix}


@dataclass(frozen=True)
class TokenPairs:
    """All texts "x y" of two tokens, with states of a fixed linear recurrence in place of a language model.

    The state after BOS is zero, and then h' = a(token) + Q h for a rotation Q and input vectors a, so that the state after
    "x y" holds both tokens and their order.

    Attributes
    ----------
    states : TokenStates
        Text x * n_tokens + y is "x y"; BOS is the token n_tokens.
    embeddings : ndarray of shape (n_tokens + 1, dim), float32
        Output embeddings e; the row of BOS is zero.
    n_tokens : int
    """

    states: TokenStates
    embeddings: NDArray[np.float32]
    n_tokens: int

    def labels(self, matrix: Array) -> Array:
        """Labels of the texts from a matrix (n_tokens, n_tokens)."""
        if np.shape(matrix) != (self.n_tokens, self.n_tokens):
            raise InvalidInputError(
                f"token pairs need a matrix ({self.n_tokens}, {self.n_tokens}), got {np.shape(matrix)}"
            )
        return np.asarray(matrix, dtype=np.float64).ravel()

    def learned(self, head: PrefixHead) -> Array:
        """Return the matrix (n_tokens, n_tokens) of a fitted head's scores, float64."""
        n = self.n_tokens
        first = self.states.states[1 :: 3 * n]
        if isinstance(head, RADHead):
            last = self.states.states[2::3].reshape(n, n, -1)
            return reward_matrix(head, first, extend=lambda i: last[i])
        return reward_matrix(head, first, ids=np.arange(n))


def token_pairs(
    n_tokens: int, dim: int, random_state: int = 0, tables: tuple[Array, Array] | None = None
) -> TokenPairs:
    """Make all texts of two tokens; see :class:`TokenPairs`.

    Parameters
    ----------
    n_tokens : int
    dim : int
        Numbers in a state, and in an embedding.
    random_state : int
        Rotation, and vectors where there are no tables.
    tables : (ndarray, ndarray), optional
        Input vectors and output embeddings, (n_tokens, dim) each; one random table of norm one for both where absent.
    """
    if n_tokens < 2 or dim < 1:
        raise InvalidInputError(f"token_pairs needs 2 tokens and dim 1 at least, got {n_tokens} and {dim}")
    rng = np.random.default_rng(random_state)
    drawn = rng.standard_normal((n_tokens, dim))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    a, e = (drawn, drawn) if tables is None else tables
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    x, y = np.divmod(np.arange(n_tokens * n_tokens), n_tokens)
    rows = np.stack([np.zeros((len(x), dim)), a[x], a[y] + a[x] @ rotation.T], axis=1)
    ids = np.stack([np.full(len(x), n_tokens), x, y], axis=1)
    states = TokenStates(
        states=rows.reshape(-1, dim).astype(np.float32),
        ids=ids.ravel().astype(np.int32),
        offsets=np.arange(len(x) + 1, dtype=np.int64) * 3,
        model=MODEL,
        vocab_size=n_tokens + 1,
    )
    return TokenPairs(states, np.vstack([e, np.zeros((1, dim))]).astype(np.float32), n_tokens)


@dataclass(frozen=True)
class SyntheticFit:
    """What a head made of a matrix.

    Attributes
    ----------
    learned : ndarray of shape (n_tokens, n_tokens)
    spectrum : Spectrum
        Of the learned matrix.
    error : float
        Root mean square difference from the true matrix.
    floor : float
        That of the best matrix of rank dim (Eckart and Young 1936): what no ARM head without a bias can fall below, whatever
        its states and embeddings.
    """

    learned: Array
    spectrum: Spectrum
    error: float
    floor: float

    def facts(self) -> dict[str, Any]:
        """Error, floor and ranks, for a report."""
        return {"error": self.error, "floor": self.floor, **self.spectrum.facts()}


def fit_matrix(
    matrix: str | Array,
    head: PrefixHead,
    *,
    n_tokens: int = 48,
    dim: int = 16,
    backbone: str = "random",
    random_state: int = 0,
) -> SyntheticFit:
    """Fit a head to a reward matrix of token pairs, and look at what it learned.

    Parameters
    ----------
    matrix : {"identity", "upper-triangular"} or ndarray of shape (n_tokens, n_tokens)
        Entries in [0, 1].
    head : RADHead or ARMHead
        Its parameter ``positions`` should be ``"last"``: a pair's label says nothing of its first token alone. Changed.
    n_tokens, dim : int
    backbone : {"random", "best"}
        Frozen random vectors of tokens; or the matrix's own leading singular vectors, left ones to read tokens by and right
        ones to score them by, which stand for a backbone that was tuned as well as any can be.
    random_state : int
        Of the states.
    """
    if backbone not in ("random", "best"):
        raise unknown_name("backbone", backbone, ("random", "best"))
    if isinstance(matrix, str):
        if matrix not in MATRICES:
            raise unknown_name("synthetic matrix", matrix, MATRICES)
        matrix = MATRICES[matrix](n_tokens)
    if np.shape(matrix) != (n_tokens, n_tokens):
        raise InvalidInputError(f"fit_matrix needs a matrix ({n_tokens}, {n_tokens}), got {np.shape(matrix)}")
    left, values, right = np.linalg.svd(matrix)
    pairs = token_pairs(n_tokens, dim, random_state, None if backbone == "random" else (left[:, :dim], right[:dim].T))
    labels = pairs.labels(matrix)
    if isinstance(head, ARMHead):
        head.fit(pairs.states, labels, embeddings=pairs.embeddings)
    elif isinstance(head, RADHead):
        head.fit(pairs.states, labels)
    else:
        raise InvalidInputError(f"fit_matrix needs an ARMHead or a RADHead, got {type(head).__name__}")
    learned = pairs.learned(head)
    floor = float(np.sqrt((values[dim:] ** 2).sum()) / n_tokens)
    return SyntheticFit(learned, spectrum(learned), float(np.sqrt(((learned - matrix) ** 2).mean())), floor)
