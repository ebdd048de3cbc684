"""Names by content: the key of a text, the digest of a fingerprint, the array name of a layer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from embedrm.errors import InvalidInputError
from embedrm.views import Layer

KEY_BYTES = 16
LAYER_PREFIX = "layer:"

Keys: TypeAlias = npt.NDArray[np.uint8]
Words: TypeAlias = npt.NDArray[np.uint64]


class TextEncoder(Protocol):
    """The part of an encoder that the store uses (the full contract is in ``embedrm.encoders``)."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer that can be asked for."""

    @property
    def default_layers(self) -> tuple[Layer, ...]:
        """The layers taken when a request names none."""

    def dim(self, layer: Layer) -> int:
        """Width of one layer's vectors."""

    def encode(self, texts: Sequence[str], layers: Sequence[Layer] | None = None) -> Mapping[Layer, npt.NDArray[Any]]:
        """Return ``{layer: (n, dim) float32}`` with the rows in the order of ``texts``."""

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything that changes a vector, except the layer, as JSON values."""

    def fingerprint_digest(self) -> str:
        """The 32 hex digits of :func:`fingerprint_digest` of the fingerprint."""


def check_texts(texts: Iterable[str]) -> list[str]:
    """Return the texts as a list; one bare string is refused, because it would be taken letter by letter."""
    if isinstance(texts, (str, bytes)):
        raise InvalidInputError(
            f"texts must be a sequence of strings, but one {type(texts).__name__} came. Put it in a list: [text]."
        )
    return list(texts)


def text_keys(texts: Sequence[str]) -> Keys:
    """Return the keys of texts: BLAKE2b-128 of their UTF-8 bytes.

    Parameters
    ----------
    texts : sequence of str, length n
        Taken as they are: no Unicode normalisation, no stripping.

    Returns
    -------
    ndarray of uint8, shape (n, 16)

    Raises
    ------
    InvalidInputError
        An element is not a string, or holds a lone surrogate and so has no UTF-8 form; the message gives its index.
    """
    blake, encode = hashlib.blake2b, str.encode
    try:
        joined = b"".join([blake(encode(text), digest_size=KEY_BYTES).digest() for text in texts])
    except (TypeError, UnicodeEncodeError):
        raise _bad_text(texts) from None
    return np.frombuffer(joined or bytearray(), dtype=np.uint8).reshape(-1, KEY_BYTES)


def _bad_text(texts: Sequence[object]) -> InvalidInputError:
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            return InvalidInputError(
                f"texts[{i}] must be a string, but {type(text).__name__} came. "
                "Drop or fill missing values before encoding."
            )
        try:
            text.encode()
        except UnicodeEncodeError as err:
            return InvalidInputError(
                f"texts[{i}] holds a lone surrogate (U+{ord(text[err.start]):04X} at character {err.start}), which "
                "is not valid Unicode text and has no UTF-8 form. Read the file with the encoding it was written in, "
                "or replace it: text.encode('utf-8', 'replace').decode()."
            )
    return InvalidInputError("texts must be strings")  # pragma: no cover - the list changed while it was read


def key_words(keys: Keys) -> Words:
    """Return (n, 16) uint8 keys as (n, 2) native uint64 words, most significant first (their order is the keys')."""
    return np.ascontiguousarray(keys).view(">u8").astype(np.uint64)


def fingerprint_digest(fingerprint: Mapping[str, Any]) -> str:
    """Return the 32 hex digits that name an encoder: BLAKE2b-128 of its fingerprint as canonical JSON.

    Canonical means sorted keys, no spaces, and non-ASCII characters escaped.
    """
    return _digest_json(fingerprint, ensure_ascii=True)


def matches_digest(fingerprint: Mapping[str, Any], digest: str) -> bool:
    """Whether a fingerprint has this digest, with non-ASCII characters escaped or not."""
    return digest in {_digest_json(fingerprint, ensure_ascii=flag) for flag in (True, False)}


def _digest_json(fingerprint: Mapping[str, Any], *, ensure_ascii: bool) -> str:
    text = json.dumps(dict(fingerprint), sort_keys=True, separators=(",", ":"), ensure_ascii=ensure_ascii)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def array_name(layer: Layer) -> str:
    """Return the name of a layer's array in a segment: ``layer:3``, ``layer:final``."""
    return f"{LAYER_PREFIX}{layer}"


def layer_of(name: str) -> Layer | None:
    """Return the layer of an array name, or None if it is not the name of a layer's array."""
    if not name.startswith(LAYER_PREFIX):
        return None
    tail = name[len(LAYER_PREFIX) :]
    if tail == "final":
        return "final"
    # "03" or "٣" would be a second name for layer 3.
    return int(tail) if tail.isascii() and tail.isdigit() and str(int(tail)) == tail else None


def check_layers(layers: Iterable[object]) -> tuple[Layer, ...]:
    """Return the layers without repeats, in the order given; anything but an int >= 0 or ``"final"`` is refused."""
    if isinstance(layers, (str, int)):
        raise InvalidInputError(f"layers must be a sequence such as [3, 6] or ['final'], but {layers!r} came.")
    out: dict[Layer, None] = {}
    for layer in layers:
        if isinstance(layer, (int, np.integer)) and not isinstance(layer, bool) and layer >= 0:
            out[int(layer)] = None
        elif layer == "final":
            out["final"] = None
        else:
            raise InvalidInputError(
                f"a layer is an integer from 0 or 'final', but {layer!r} came. Write 3 for the state after block 3."
            )
    if not out:
        raise InvalidInputError("layers is empty: name at least one layer, or leave it out for the encoder's default.")
    return tuple(out)


def layer_sort_key(layer: Layer) -> tuple[int, int]:
    """Sort integers first, in order, then ``"final"``."""
    return (1, 0) if layer == "final" else (0, layer)
