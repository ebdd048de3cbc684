"""What an encoder is: text in, vectors of chosen layers out, and a fingerprint of everything that changes a vector."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from embedrm.encoders.truncation import SHORTENING_POLICIES
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.registry import Registry
from embedrm.views import Layer

__all__ = ["DEFAULT_ENCODER", "ENCODERS", "Encoder", "Layer", "TruncationReport", "check_texts"]

ENCODERS = Registry("encoder", "embedrm.encoders")
DEFAULT_ENCODER = "all-MiniLM-L6-v2"

Step = Callable[[int, int], None]


@dataclass(frozen=True)
class TruncationReport:
    """What a truncation policy does to some texts.

    Attributes
    ----------
    texts : int
        Number of texts.
    truncated : int
        How many have more than ``max_length`` tokens. Under ``drop`` and ``error`` they are not encoded at all.
    tokens : int
        Tokens of all texts in full, special tokens included.
    tokens_cut : int
        How many of them are beyond ``max_length`` and so never reach the model.
    longest : int
        Tokens of the longest text; 0 where there is none.
    max_length : int or None
        The most tokens the encoder reads, None for no limit.
    policy : str
        The truncation policy.
    """

    texts: int
    truncated: int
    tokens: int
    tokens_cut: int
    longest: int
    max_length: int | None
    policy: str

    def to_dict(self) -> dict[str, int | str | None]:
        """Return the fields as a plain dict."""
        return asdict(self)

    def __str__(self) -> str:
        if not self.truncated:
            limit = "no limit" if self.max_length is None else f"limit {self.max_length}"
            return f"{self.texts} texts, none too long (longest {self.longest} tokens, {limit})"
        did = f"cut ({self.policy})" if self.policy in SHORTENING_POLICIES else f"too long ({self.policy})"
        return (
            f"{self.truncated} of {self.texts} texts {did}: {self.tokens_cut} of {self.tokens} tokens beyond "
            f"{self.max_length}, longest {self.longest}"
        )


def check_texts(texts: Sequence[str]) -> list[str]:
    """Return the texts as a list of strings that can be encoded as UTF-8.

    Raises
    ------
    InvalidInputError
        For one bare string (it would be taken letter by letter), an item that is no string, or a string with a lone
        surrogate; the message names the row.
    """
    if isinstance(texts, (str, bytes)):
        raise InvalidInputError(
            f"texts must be a sequence of strings, but one {type(texts).__name__} came. Put it in a list: [text]."
        )
    rows = list(texts)
    for i, text in enumerate(rows):
        if not isinstance(text, str):
            raise InvalidInputError(
                f"texts must be strings, but text {i} is {type(text).__name__}. Convert it, or leave the row out."
            )
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as err:
                raise InvalidInputError(
                    f"text {i} is not valid Unicode: a lone surrogate at character {err.start}. Read the file as UTF-8 "
                    "with errors='replace', or leave the row out."
                ) from None
    # A str subclass (numpy.str_) is turned into a plain string, which is what tokenizers take.
    return [text if type(text) is str else str(text) for text in rows]


class Encoder(ABC):
    """Text to vectors, frozen.

    An encoder never sees a label, and row i of its output depends on text i only, to the tolerance it states. Its
    constructor only stores its arguments, so that building one costs nothing; whatever must be loaded is loaded on
    first use. Treat it as immutable after that.
    """

    registered_name: ClassVar[str]
    truncation: str = "error"
    """The truncation policy, one of :data:`embedrm.encoders.truncation.TRUNCATION_POLICIES`."""

    @property
    @abstractmethod
    def layers(self) -> tuple[Layer, ...]:
        """Every layer that can be asked for: block numbers, 0 for the embedding output, and ``"final"``."""

    @property
    @abstractmethod
    def default_layers(self) -> tuple[Layer, ...]:
        """The layers taken when a request names none."""

    @abstractmethod
    def dim(self, layer: Layer) -> int:
        """Width of one layer's vectors."""

    @abstractmethod
    def encode(
        self, texts: Sequence[str], layers: Sequence[Layer] | None = None, *, progress: Step | None = None
    ) -> dict[Layer, npt.NDArray[np.float32]]:
        """Encode texts.

        Parameters
        ----------
        texts : sequence of str, length n
        layers : sequence of Layer, optional
            ``default_layers`` where absent.
        progress : callable, optional
            Called as ``progress(done, total)`` in texts while the work goes on.

        Returns
        -------
        dict of Layer to ndarray of shape (n, dim(layer)), float32, C-contiguous
            Rows in the order of ``texts``.

        Raises
        ------
        InvalidInputError
            Texts that are not strings, or a layer the encoder does not have.
        """

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Everything that changes a vector except the layer, as JSON values; the same wherever the model was found."""

    @abstractmethod
    def count_tokens(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Count tokens without encoding.

        Returns
        -------
        tokens : ndarray of shape (n,), int64
            Tokens of each text in full, special tokens included.
        cut : ndarray of shape (n,), int64
            How many of them exceed the encoder's limit. Where it is not 0 the text is shortened, or under the policies
            ``drop`` and ``error`` refused by :meth:`encode`.
        """

    def effective_digests(self, texts: Sequence[str]) -> list[bytes]:
        """Digest of what the model reads of each text (16 bytes): equal for texts that truncation makes identical.

        Here, of the text itself: right for an encoder that cuts nothing. One that truncates overrides it.
        """
        return [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in check_texts(texts)]

    @property
    def token_limit(self) -> int | None:
        """The most tokens of a text that are read, special tokens included; None for no limit."""
        return None

    def n_parameters(self) -> int:
        """Return the number of weights; 0 for an encoder that has none."""
        return 0

    def fingerprint_digest(self) -> str:
        """Return 32 hex digits that name the fingerprint: BLAKE2b-128 of it as JSON, keys sorted, without spaces."""
        text = json.dumps(self.fingerprint(), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode("ascii"), digest_size=16).hexdigest()

    def truncation_report(self, texts: Sequence[str]) -> TruncationReport:
        """Say what the truncation policy does to these texts."""
        tokens, cut = self.count_tokens(texts)
        return TruncationReport(
            texts=len(tokens),
            truncated=int((cut > 0).sum()),
            tokens=int(tokens.sum()),
            tokens_cut=int(cut.sum()),
            longest=int(tokens.max(initial=0)),
            max_length=self.token_limit,
            policy=self.truncation,
        )

    def spec(self) -> dict[str, Any]:
        """Return a JSON mapping from which :func:`embedrm.encoders.encoder_from_spec` builds the same encoder."""
        return {"encoder": self.registered_name, **self.get_params()}

    def get_params(self) -> dict[str, Any]:
        """Return the constructor's arguments, as JSON values."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        values = {name: getattr(self, name) for name in names}
        return {name: _plain(value) for name, value in values.items()}

    @classmethod
    def from_text(cls, text: str, options: Mapping[str, Any]) -> Encoder:
        """Build the encoder from what follows the colon in ``"name:text"``; ``text`` may be empty."""
        if text:
            raise InvalidInputError(f"the encoder {cls.registered_name!r} takes nothing after a colon; got {text!r}")
        return cls(**options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_params().items())})"

    def _wanted(self, layers: Sequence[Layer] | None) -> tuple[Layer, ...]:
        """Resolve a choice of layers, in its order."""
        if layers is None:
            return self.default_layers
        if isinstance(layers, (str, int)):
            raise InvalidInputError(f"layers must be a sequence such as (3, 6) or ('final',); got {layers!r}")
        available = self.layers
        wanted: list[Layer] = []
        for layer in layers:
            plain: Any = int(layer) if isinstance(layer, np.integer) else layer
            if isinstance(plain, (bool, float)) or plain not in available:
                raise unknown_name(f"layer of {type(self).__name__}", layer, [str(known) for known in available])
            if plain not in wanted:
                wanted.append(plain)
        if not wanted:
            raise InvalidInputError("encode needs at least one layer, got none; leave layers out for the default ones")
        return tuple(wanted)


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return list(value) if isinstance(value, tuple) else value
