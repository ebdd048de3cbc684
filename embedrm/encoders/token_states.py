"""States of a causal language model at every position of some texts: what rewards of prefixes are trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embedrm.errors import InvalidInputError

_CHUNK_ROWS = 1 << 14


@dataclass(frozen=True)
class TokenStates:
    """What a language model's head reads, at every position of some texts.

    Text i has the rows ``offsets[i]`` to ``offsets[i+1] - 1``. Row ``offsets[i] + t`` is the state after reading
    BOS, x_1, ..., x_t, from which the model predicts x_{t+1}; ``ids`` there is x_t, and the BOS token for t = 0. So a reward
    of the prefix x_{1:t} reads row t, and a reward of the next token x_t given x_{1:t-1} reads row t - 1.

    Parameters
    ----------
    states : ndarray of shape (n_states, dim), float32 or float16
        Last hidden states after the last normalisation; may be a read-only memory map.
    ids : ndarray of shape (n_states,), int32
    offsets : ndarray of shape (n_texts + 1,), int64
    model : str
        Digest of the language model, from :meth:`LanguageModel.fingerprint`.
    vocab_size : int
        Rows of the model's output embeddings.
    info : dict
        What is worth telling of how they came about: tokens cut off, and for float16 the error of rounding.

    Raises
    ------
    InvalidInputError
        Shapes or types that do not fit together.
    """

    states: npt.NDArray[Any]
    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    model: str
    vocab_size: int
    info: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        states, ids, offsets = self.states, self.ids, self.offsets
        if states.ndim != 2 or states.dtype not in (np.float32, np.float16):
            raise InvalidInputError(
                f"TokenStates: states must be (n_states, dim) of float32 or float16; got {states.shape} of {states.dtype}"
            )
        if ids.shape != (len(states),) or ids.dtype != np.int32:
            raise InvalidInputError(
                f"TokenStates: ids must be ({len(states)},) of int32, one for each state; got {ids.shape} of {ids.dtype}"
            )
        if offsets.ndim != 1 or offsets.dtype != np.int64 or not len(offsets) or offsets[0] != 0:
            raise InvalidInputError("TokenStates: offsets must be (n_texts + 1,) of int64 and begin with 0")
        if offsets[-1] != len(states) or (np.diff(offsets) < 1).any():
            raise InvalidInputError(
                f"TokenStates: offsets must end with the number of states ({len(states)}) and give every text at least its "
                f"BOS row; the last one is {int(offsets[-1])}, the shortest text has {int(np.diff(offsets).min(initial=1))}"
            )

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        return (
            f"TokenStates({len(self)} texts, {len(self.states)} states of {self.dim} x {self.states.dtype}, "
            f"model {self.model[:8]})"
        )

    @property
    def dim(self) -> int:
        """Width of a state."""
        return int(self.states.shape[1])

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each text, without BOS; (n_texts,)."""
        return np.diff(self.offsets) - 1

    def text(self, i: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
        """Return the states and the ids of text i, its BOS row first; views, nothing is copied.

        Raises
        ------
        InvalidInputError
            There is no such text.
        """
        if not -len(self) <= i < len(self):
            raise InvalidInputError(f"TokenStates: there is no text {i}; there are {len(self)}, counted from 0")
        at = i % len(self)
        rows = slice(int(self.offsets[at]), int(self.offsets[at + 1]))
        return self.states[rows], self.ids[rows]

    def last_rows(self) -> npt.NDArray[np.int64]:
        """Return the row of each text's last state: of the whole text, or of BOS where it is empty."""
        return self.offsets[1:] - 1

    def text_of(self) -> npt.NDArray[np.int64]:
        """Return the text of each state, (n_states,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    def subset(self, rows: Sequence[int] | npt.NDArray[Any] | slice) -> TokenStates:
        """Return some of the texts, in the order given.

        Texts that lie side by side, such as those of a slice, stay views of the same memory; others are gathered.

        Parameters
        ----------
        rows : sequence of int, mask of bool, or slice
            Texts.
        """
        chosen = np.arange(len(self))[rows if isinstance(rows, slice) else _index(rows, len(self))]
        lengths = np.diff(self.offsets)[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        start = int(self.offsets[chosen[0]]) if len(chosen) else 0
        if not len(chosen) or (np.diff(chosen) == 1).all():
            states, ids = self.states[start : start + offsets[-1]], self.ids[start : start + offsets[-1]]
        else:
            at = np.repeat(self.offsets[chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
            states, ids = np.asarray(self.states)[at], np.asarray(self.ids)[at]
        return TokenStates(states, ids, offsets, self.model, self.vocab_size, dict(self.info))

    def fingerprint(self) -> str:
        """Return 32 hex digits that name the states, ids, texts and model: BLAKE2b-128 of all of them."""
        digest = hashlib.blake2b(
            f"{self.model} {self.vocab_size} {self.states.dtype} {self.dim}\n".encode(), digest_size=16
        )
        digest.update(np.ascontiguousarray(self.offsets, dtype="<i8").tobytes())
        digest.update(np.ascontiguousarray(self.ids, dtype="<i4").tobytes())
        for start in range(0, len(self.states), _CHUNK_ROWS):
            digest.update(np.ascontiguousarray(self.states[start : start + _CHUNK_ROWS]).tobytes())
        return digest.hexdigest()


def _index(rows: Any, n: int) -> npt.NDArray[Any]:
    found = np.asarray(rows)
    if found.dtype == bool and found.shape == (n,):
        return np.flatnonzero(found)
    if not found.size:
        return np.empty(0, dtype=np.intp)
    if found.ndim != 1 or found.dtype.kind not in "iu" or found.min() < -n or found.max() >= n:
        raise InvalidInputError(f"TokenStates: texts are chosen by whole numbers from 0 to {n - 1}, a mask or a slice")
    return found.astype(np.intp)
