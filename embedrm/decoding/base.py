"""The contract of prefix heads: rewards of prefixes and of next tokens, from a frozen language model's states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from embedrm.errors import InvalidInputError

Array = NDArray[np.float64]
Self = TypeVar("Self", bound="PrefixHead")

# Rows whose float64 copy stays near 4 MiB at 256 numbers a state: what a core's caches hold.
BLOCK_NUMBERS = 2**19


class TokenRecord(Protocol):
    """States of a language model at every position of some texts; see ``embedrm.encoders.token_states.TokenStates``.

    Row ``offsets[i]`` is the state after BOS alone, row ``offsets[i] + t`` the state after BOS and the first t tokens of
    text i: the one from which token t + 1 is predicted. ``ids`` at that row is token t.

    Attributes
    ----------
    states : ndarray of shape (n_rows, dim), float32 or float16; may be mapped from disk
    ids : ndarray of shape (n_rows,), int
    offsets : ndarray of shape (n_texts + 1,), int
    model : str
        Fingerprint of the language model.
    vocab_size : int
    """

    @property
    def states(self) -> NDArray[Any]:
        """States, row by row."""
        ...

    @property
    def ids(self) -> NDArray[Any]:
        """Token that was read last, row by row."""
        ...

    @property
    def offsets(self) -> NDArray[Any]:
        """First row of each text, and the number of rows."""
        ...

    @property
    def model(self) -> str:
        """Fingerprint of the language model."""
        ...

    @property
    def vocab_size(self) -> int:
        """Tokens that the language model knows."""
        ...


class PrefixHead(BaseEstimator):
    """Base class of heads on token states.

    Scores are linear in what is learned last (or, for a perceptron, its outputs); rewards are scores after the link: the
    scores themselves, or their logistic function where the head was trained on a cross-entropy.

    Attributes
    ----------
    attributes_ : tuple of str
        Names of the rewards, in the order of the last axis of everything that is returned.
    model_ : str
        Fingerprint of the language model whose states it was fitted on; those of another are refused.
    n_features_in_ : int
        Numbers in a state.
    vocab_size_ : int
    link_ : str
        ``"identity"`` or ``"logistic"``.
    bounded_ : bool
        Whether it was taught rewards in [0, 1], so that clamping a reward to [0, 1] is in its spirit. Not so where it was
        taught preference pairs, whose rewards have no bounds and no origin, or increments.
    """

    registered_name: str
    attributes_: tuple[str, ...]
    model_: str
    n_features_in_: int
    vocab_size_: int
    link_: str
    bounded_: bool

    @property
    def n_attributes(self) -> int:
        """Number of rewards that are given at once."""
        return len(self.attributes_)

    def attribute(self, name: str | int) -> int:
        """Position of an attribute given by name or by position.

        Raises
        ------
        InvalidInputError
            Where there is none.
        """
        from embedrm.errors import unknown_name

        check_is_fitted(self, "attributes_")
        if isinstance(name, (int, np.integer)) and not isinstance(name, bool) and 0 <= name < self.n_attributes:
            return int(name)
        if name in self.attributes_:
            return self.attributes_.index(str(name))
        raise unknown_name("attribute", name, self.attributes_)

    def token_rewards(self, states: TokenRecord) -> Array:
        """Reward of every prefix of every text.

        Parameters
        ----------
        states : TokenStates

        Returns
        -------
        ndarray of shape (n_rows, n_attributes), float64
            Entry ``offsets[i] + t`` is the reward of the first t tokens of text i: of the prefix itself (RAD), or of token t
            after the t - 1 before it (ARM). A head that scores next tokens has nothing to say of BOS: NaN there.
        """
        raise TypeError(f"{type(self).__name__} does not implement token_rewards")

    def text_rewards(self, states: TokenRecord) -> Array:
        """Reward of each whole text, that is of its last token; shape (n_texts, n_attributes), float64."""
        raise TypeError(f"{type(self).__name__} does not implement text_rewards")

    def check(self, states: TokenRecord) -> None:
        """Raise unless the states are of the language model that this head was fitted on."""
        who = type(self).__name__
        check_is_fitted(self, "model_")
        check_states(states, who)
        self.check_model(states.model)
        self._check_vectors(states.states)

    def check_model(self, model: str) -> None:
        """Raise unless ``model`` is the fingerprint of the language model that this head was fitted on."""
        check_is_fitted(self, "model_")
        if model != self.model_:
            raise InvalidInputError(
                f"{type(self).__name__} was fitted on states of the language model {self.model_[:12]}, got those of "
                f"{model[:12]}; use the same model, or fit a head on the other's states"
            )

    def _check_vectors(self, h: NDArray[Any]) -> None:
        if h.ndim != 2 or h.shape[1] != self.n_features_in_:
            raise InvalidInputError(
                f"{type(self).__name__} expects states of shape (n, {self.n_features_in_}), got {h.shape}; use the "
                "language model it was fitted on"
            )

    def _link(self, scores: NDArray[Any]) -> NDArray[Any]:
        linked: NDArray[Any] = expit(scores) if self.link_ == "logistic" else scores
        return linked


def check_states(states: TokenRecord, who: str) -> None:
    """Raise unless ``states`` has the parts of a token record, of shapes that fit together."""
    missing = [n for n in ("states", "ids", "offsets", "model", "vocab_size") if not hasattr(states, n)]
    if missing:
        raise InvalidInputError(
            f"{who} expects token states, got {type(states).__name__} without {', '.join(missing)}; make them with "
            "language_model.token_states(texts)"
        )
    h, ids, offsets = states.states, states.ids, states.offsets
    if h.ndim != 2 or h.dtype.kind != "f" or ids.shape != (len(h),):
        raise InvalidInputError(
            f"{who} expects states (n, dim) of floating point with one id each, got {h.dtype} {h.shape} and ids {ids.shape}"
        )
    if (
        offsets.ndim != 1
        or len(offsets) < 2
        or offsets[0] != 0
        or offsets[-1] != len(h)
        or (np.diff(offsets) < 1).any()
    ):
        raise InvalidInputError(
            f"{who} expects offsets that begin with 0, end with the {len(h)} rows, and give every text a row for BOS"
        )
    if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= states.vocab_size):
        raise InvalidInputError(
            f"{who} expects ids from 0 to {states.vocab_size - 1}, got {int(ids.min())} to {int(ids.max())}; the states are "
            "of another tokenizer"
        )


def block_rows(dim: int) -> int:
    """Rows that are read at a time."""
    return max(256, BLOCK_NUMBERS // max(1, dim))


def read_rows(h: NDArray[Any], rows: NDArray[np.intp] | slice) -> Array:
    """Return some rows as float64; rows that rise are read as one piece of the file where they lie close together."""
    if isinstance(rows, slice):
        return np.asarray(h[rows], dtype=np.float64)
    if len(rows) and int(rows[-1]) - int(rows[0]) < 2 * len(rows) and (np.diff(rows) > 0).all():
        first = int(rows[0])
        piece = h[first : int(rows[-1]) + 1]
        return np.asarray(piece if len(piece) == len(rows) else piece[rows - first], dtype=np.float64)
    return np.asarray(h[rows], dtype=np.float64)


def gathered(h: NDArray[Any], rows: NDArray[np.intp], vector: Array) -> Array:
    """Products of some rows with a vector, block by block."""
    out = np.empty(len(rows))
    for part in slices(len(rows), block_rows(h.shape[1])):
        out[part] = read_rows(h, rows[part]) @ vector
    return out


def slices(n: int, size: int) -> Iterator[slice]:
    """Yield slices of at most ``size`` that cover n rows."""
    for start in range(0, n, size):
        yield slice(start, min(n, start + size))


def check_scores(scores: NDArray[Any], who: str) -> NDArray[Any]:
    """Raise where a score is not finite: the states behind it hold NaN or infinity."""
    n_bad = int((~np.isfinite(scores)).sum())
    if n_bad:
        raise InvalidInputError(
            f"{who} met states that give no finite reward ({n_bad} of {scores.size} are not); look for NaN or infinity in "
            "the language model's states"
        )
    return scores
