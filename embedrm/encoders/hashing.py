"""An encoder that needs nothing but NumPy: hashed words and pieces of words. For tests, documentation and baselines."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from embedrm.encoders.base import ENCODERS, Encoder, Layer, Step, check_texts
from embedrm.errors import InvalidInputError

# Bytes, not characters: what counts as a letter or as lower case changes with Python's Unicode tables, ASCII does not.
_WORD = re.compile(rb"[0-9a-z_\x80-\xff]+|[!-/:-@\[-^`{-~]")
_WORD_WEIGHT, _PIECE_WEIGHT = 4, 1
_LONG_WORD = 64
_REPORT_EVERY = 256


@ENCODERS.register("hashing")
class HashingEncoder(Encoder):
    """Signed feature hashing of words and character n-grams (Weinberger et al., 2009), L2-normalised.

    A word is a run of ASCII letters, digits, underscores and non-ASCII characters, ASCII letters in lower case; every
    ASCII punctuation mark is a word of its own. A word counts 4 at one coordinate, and each of its character n-grams
    (with ``<`` and ``>`` at its ends) 1 at another; coordinates and signs come from BLAKE2b. The counts are added as
    whole numbers, so the vectors are the same to the bit on every platform and Python version. A text without a word
    gives the zero vector.

    Parameters
    ----------
    dim : int
        Width of the vectors.
    ngrams : tuple of (int, int) or None
        Shortest and longest n-gram, in characters; None for words only.

    Examples
    --------
    >>> HashingEncoder(64).encode(["a b", "b a"])["final"].shape
    (2, 64)
    """

    def __init__(self, dim: int = 256, *, ngrams: tuple[int, int] | None = (3, 5)) -> None:
        self.width = dim
        self.ngrams = ngrams

    @property
    def layers(self) -> tuple[Layer, ...]:
        """``("final",)``."""
        return ("final",)

    @property
    def default_layers(self) -> tuple[Layer, ...]:
        """``("final",)``."""
        return ("final",)

    def dim(self, layer: Layer) -> int:
        """Width of the vectors."""
        self._wanted((layer,))
        return self._check()[0]

    def get_params(self) -> dict[str, Any]:
        """Return the constructor's arguments, as JSON values."""
        return {"dim": self.width, "ngrams": None if self.ngrams is None else list(self.ngrams)}

    @classmethod
    def from_text(cls, text: str, options: Mapping[str, Any]) -> HashingEncoder:
        """Build from ``"hashing:DIM"``."""
        if not text:
            return cls(**options)
        if not text.isdecimal():
            raise InvalidInputError(
                f"expected hashing:WIDTH with a whole number, such as hashing:256; got hashing:{text}"
            )
        return cls(int(text), **options)

    def encode(
        self, texts: Sequence[str], layers: Sequence[Layer] | None = None, *, progress: Step | None = None
    ) -> dict[Layer, npt.NDArray[np.float32]]:
        """Encode texts; see :meth:`Encoder.encode`. Row i depends on text i only, to the bit."""
        rows = check_texts(texts)
        self._wanted(layers)
        dim, ngrams = self._check()
        out = np.zeros((len(rows), dim), dtype=np.float32)
        for i, text in enumerate(rows):
            counts = np.zeros(dim, dtype=np.int64)
            for word, times in Counter(_words(text)).items():
                hashed = _hash_word if len(word) <= _LONG_WORD else _hash_word.__wrapped__
                coordinates, values = hashed(word, dim, ngrams)
                counts[coordinates] += times * values
            # Whole numbers up to here, then two correctly rounded operations: the same bits everywhere.
            square = int(counts @ counts)
            if square:
                out[i] = counts / np.sqrt(np.float64(square))
            if progress is not None and ((i + 1) % _REPORT_EVERY == 0 or i + 1 == len(rows)):
                progress(i + 1, len(rows))
        return {"final": out}

    def fingerprint(self) -> dict[str, Any]:
        """Everything that changes a vector, as JSON values."""
        dim, ngrams = self._check()
        return {
            "kind": "hashing",
            "scheme": 1,
            "dim": dim,
            "ngrams": None if ngrams is None else list(ngrams),
            "max_length": None,
            "truncation": self.truncation,
            "template": "none",
            "normalise": True,
            "precision": "float32",
        }

    def count_tokens(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Count words; nothing is ever cut."""
        counts = np.array([len(_words(text)) for text in check_texts(texts)], dtype=np.int64)
        return counts, np.zeros_like(counts)

    def effective_digests(self, texts: Sequence[str]) -> list[bytes]:
        """Digest of each text's words, in their order."""
        return [hashlib.blake2b(b"\0".join(_words(text)), digest_size=16).digest() for text in check_texts(texts)]

    def _check(self) -> tuple[int, tuple[int, int] | None]:
        if isinstance(self.width, bool) or not isinstance(self.width, (int, np.integer)) or self.width < 1:
            raise InvalidInputError(f"dim must be a positive whole number; got {self.width!r}")
        if self.ngrams is None:
            return int(self.width), None
        pair = tuple(self.ngrams) if isinstance(self.ngrams, (tuple, list)) else ()
        if len(pair) != 2 or not all(isinstance(n, int) for n in pair) or not 1 <= pair[0] <= pair[1]:
            raise InvalidInputError(
                f"ngrams must be (shortest, longest) with 1 <= shortest <= longest, or None; got {self.ngrams!r}"
            )
        return int(self.width), (pair[0], pair[1])


def _words(text: str) -> list[bytes]:
    return _WORD.findall(text.encode("utf-8").lower())


@lru_cache(maxsize=1 << 16)
def _hash_word(
    word: bytes, dim: int, ngrams: tuple[int, int] | None
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Coordinates of a word, each once, and what it adds to them."""
    pieces: list[tuple[bytes, int]] = [(b"w" + word, _WORD_WEIGHT)]
    if ngrams is not None:
        marked = f"<{word.decode('utf-8')}>"
        pieces += [
            (b"n" + marked[start : start + size].encode("utf-8"), _PIECE_WEIGHT)
            for size in range(ngrams[0], min(ngrams[1], len(marked)) + 1)
            for start in range(len(marked) - size + 1)
        ]
    added: Counter[int] = Counter()
    for piece, weight in pieces:
        number = int.from_bytes(hashlib.blake2b(piece, digest_size=8).digest(), "little")
        added[(number >> 1) % dim] += weight if number & 1 else -weight
    return np.array(list(added), dtype=np.intp), np.array(list(added.values()), dtype=np.int64)
