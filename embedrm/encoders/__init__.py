"""Encoders: text in, vectors out. Importing this package loads no model and not torch.

A new encoder is one new file here: a subclass of :class:`Encoder` decorated with ``@ENCODERS.register("name")``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from embedrm.encoders.base import DEFAULT_ENCODER, ENCODERS, Encoder, Layer, TruncationReport
from embedrm.errors import InvalidInputError

if TYPE_CHECKING:
    from embedrm.encoders.causal import CausalEncoder
    from embedrm.encoders.hashing import HashingEncoder
    from embedrm.encoders.sentence import SentenceEncoder

__all__ = [
    "DEFAULT_ENCODER",
    "ENCODERS",
    "CausalEncoder",
    "Encoder",
    "HashingEncoder",
    "Layer",
    "SentenceEncoder",
    "TruncationReport",
    "encoder_from_spec",
    "load_encoder",
]

_LAZY = {
    "CausalEncoder": "embedrm.encoders.causal",
    "HashingEncoder": "embedrm.encoders.hashing",
    "SentenceEncoder": "embedrm.encoders.sentence",
}


def load_encoder(spec: str | os.PathLike[str] = DEFAULT_ENCODER, **options: Any) -> Encoder:
    """Build an encoder from its name; nothing is loaded until it is used.

    Parameters
    ----------
    spec : str or path-like
        A registered encoder (``"hashing"``, ``"hashing:256"``, ``"sentence:MODEL"``), or else a model for
        :class:`SentenceEncoder`: ``"all-MiniLM-L6-v2"``, a folder, a name on the Hugging Face hub.
    **options
        Further arguments of the encoder's constructor, such as ``truncation="tail"``.

    Raises
    ------
    InvalidInputError
        ``spec`` is no string or is empty, or an option the encoder does not have.
    """
    if isinstance(spec, os.PathLike):
        spec = os.fspath(spec)
    if not isinstance(spec, str) or not spec.strip():
        raise InvalidInputError(
            f"an encoder is named by a string such as {DEFAULT_ENCODER!r} or 'hashing:256'; got {spec!r}"
        )
    name, _, text = spec.partition(":")
    cls = ENCODERS.get(name) if name in ENCODERS else None
    try:
        if cls is not None:
            return cls.from_text(text, options)  # type: ignore[attr-defined]
        return ENCODERS.get("sentence").from_text(spec, options)  # type: ignore[attr-defined]
    except TypeError as err:
        raise InvalidInputError(f"the encoder {spec!r} cannot take these options: {err}") from err


def encoder_from_spec(spec: Mapping[str, Any]) -> Encoder:
    """Build an encoder from what :meth:`Encoder.spec` returned: ``{"encoder": registered name, **arguments}``.

    Raises
    ------
    InvalidInputError
        No mapping, an unknown encoder, or arguments it does not have.
    """
    if not isinstance(spec, Mapping) or not isinstance(spec.get("encoder"), str):
        raise InvalidInputError("an encoder's description must be a mapping with the key 'encoder'")
    options = {key: value for key, value in spec.items() if key != "encoder"}
    cls = ENCODERS.get(spec["encoder"])
    try:
        return cls(**options)
    except TypeError as err:
        raise InvalidInputError(f"the encoder {spec['encoder']!r} cannot take these options: {err}") from err


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
