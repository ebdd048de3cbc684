"""What trials share while they run: fitted features, and whatever heads make of them that another trial would make again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from embedrm.numerics.sharing import Shelf, sharing

if TYPE_CHECKING:
    from embedrm.experiments.training_sets import Prepared

Result = TypeVar("Result")


class _Memory(threading.local):
    """One thread's shelf."""

    def __init__(self) -> None:
        self.shelf = Shelf()


_MEMORY = _Memory()


def sharing_work(run: Callable[..., Result]) -> Callable[..., Result]:
    """Let ``run(parts, seed, prepared)`` find what earlier runs in this thread made of the same vectors.

    Results are the same to the bit. What was made of other vectors than those of ``prepared`` is dropped first, and what
    is made of others inside is not held.
    """

    @wraps(run)
    def inner(parts: Any, seed: int, prepared: Prepared) -> Result:
        _MEMORY.shelf.begin(prepared.vectors())
        with sharing(_MEMORY.shelf):
            return run(parts, seed, prepared)

    return inner


def spared() -> tuple[float, float]:
    """Return the seconds, and seconds of all cores, that this thread has been spared since the last call."""
    return _MEMORY.shelf.take_spared()


def forget_features() -> None:
    """Drop what this thread remembers."""
    _MEMORY.shelf.clear()
