"""Estimators of scikit-learn to bytes and back, by skops: no pickle, and types of scikit-learn alone."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError, MissingDependencyError, ModelError

TRUSTED = "sklearn."
"""Beginning of the names that are trusted, beside skops' own list of NumPy's, SciPy's and Python's plain types."""


def to_bytes(estimator: Any, who: str) -> NDArray[np.uint8]:
    """Return an estimator, fitted or not, as bytes (n,).

    Raises
    ------
    MissingDependencyError
        Without skops.
    InvalidInputError
        If it holds anything but plain values and scikit-learn's types.
    """
    sio = _skops(who)
    name = type(estimator).__name__
    try:
        data = sio.dumps(estimator)
        strangers = _strangers(sio, data)
    # skops asks every object inside how it is to be written, and those may raise what they like
    except Exception as error:
        raise InvalidInputError(
            f"{who} could not write a {name} without pickle ({type(error).__name__}: {error}); give an estimator that is "
            "made of scikit-learn's parts alone"
        ) from error
    if strangers:
        raise InvalidInputError(
            f"{who} keeps an estimator only if it is made of scikit-learn's parts; this {name} holds "
            f"{', '.join(strangers)}. Leave them out, or write a router of your own as CONTRIBUTING.md shows"
        )
    return np.frombuffer(data, dtype=np.uint8).copy()


def from_bytes(data: NDArray[np.uint8], who: str) -> Any:
    """Undo :func:`to_bytes`; bytes that name another type are refused before anything is built from them."""
    return _parsed(data.tobytes(), who)


@lru_cache(maxsize=8)
def _parsed(data: bytes, who: str) -> Any:
    sio = _skops(who)
    try:
        strangers = _strangers(sio, data)
        if not strangers:
            return sio.loads(data, trusted=sio.get_untrusted_types(data=data))
    # bytes that were tampered with can fail anywhere in them
    except Exception as error:
        raise ModelError(f"{who} holds a damaged estimator ({type(error).__name__}: {error}); save it again") from error
    raise ModelError(
        f"{who} holds an estimator with {', '.join(strangers)}, which are not scikit-learn's; it is not read. Only models "
        "that embedrm saved can be loaded"
    )


def _strangers(sio: Any, data: bytes) -> list[str]:
    return sorted(name for name in sio.get_untrusted_types(data=data) if not name.startswith(TRUSTED))


def _skops(who: str) -> Any:
    try:
        import skops.io
    except ImportError as error:
        raise MissingDependencyError("skops", f"{who} (it keeps its estimator without pickle)", "skops") from error
    return skops.io
