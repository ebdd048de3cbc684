"""What several fits have in common, made once: while a shelf is open, equal requests of its thread are met from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

Made = TypeVar("Made")

# What one shelf may hold: values of so many bytes beside the arrays they were made from, and so many of them.
MOST_BYTES = 256 * 2**20
MOST_ENTRIES = 64


@dataclass
class _Entry:
    kind: str
    sources: tuple[Any, ...]
    given: Any
    value: Any
    size: Callable[[Any], int]
    seconds: float
    core_seconds: float


class Shelf:
    """Values that were made on request, the latest first, for equal requests; for one thread.

    A request is named by what its value is made from: ``sources``, large arrays that nobody changes and that are known by
    identity, and ``given``, everything else, which is compared by its bits. Values are held for sources that were named
    before (:meth:`begin`) and for no others, so that no arrays live on for the sake of what was made from them.

    Parameters
    ----------
    most_bytes : int
        The oldest values are dropped beyond it; a value larger than it is not held at all.

    Attributes
    ----------
    seconds, core_seconds : float
        What making the values that were found had cost, since :meth:`take_spared`.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self.seconds = self.core_seconds = 0.0
        self._entries: list[_Entry] = []
        self._known: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, sources: Iterable[Any]) -> None:
        """Hold what is made from these alone, and drop what was made from anything else."""
        self._known = {id(source): source for source in sources}
        self._entries = [entry for entry in self._entries if self._knows(entry.sources)]

    def _knows(self, sources: Sequence[Any]) -> bool:
        return all(id(source) in self._known for source in sources)

    def once(
        self,
        kind: str,
        sources: Sequence[Any],
        given: Any,
        make: Callable[[], Made],
        size: Callable[[Made], int],
    ) -> Made:
        """Return the value of an equal request, or make it and hold it.

        Parameters
        ----------
        kind : str
            What is made.
        sources : sequence of objects
            Held as long as the value is.
        given : nested tuples, lists and mappings of arrays, numbers and strings
            Nobody may change the arrays afterwards.
        make : callable
            A pure function of ``kind``, ``sources`` and ``given``.
        size : callable
            Bytes of a value that are held for it alone; asked again whenever another is added, since values may grow.
        """
        wanted = tuple(sources)
        if not self._knows(wanted):
            return make()
        for place, entry in enumerate(self._entries):
            if entry.kind == kind and _identical(entry.sources, wanted) and same(entry.given, given):
                self._entries.insert(0, self._entries.pop(place))
                self.seconds += entry.seconds
                self.core_seconds += entry.core_seconds
                found: Made = entry.value
                return found
        # what is found inside is part of what this costs, like what is made inside
        before = self.seconds, self.core_seconds
        began, cores = time.perf_counter(), time.process_time()
        value = make()
        spent = time.perf_counter() - began, time.process_time() - cores
        inside = self.seconds - before[0], self.core_seconds - before[1]
        self._entries.insert(0, _Entry(kind, wanted, given, value, size, spent[0] + inside[0], spent[1] + inside[1]))
        self._trim()
        return value

    def _trim(self) -> None:
        held, kept = 0, []
        for entry in self._entries[:MOST_ENTRIES]:
            size = entry.size(entry.value)
            if held + size <= self.most_bytes:
                held += size
                kept.append(entry)
        self._entries = kept

    def take_spared(self) -> tuple[float, float]:
        """Return the seconds and core-seconds that were spared since the last call."""
        out = self.seconds, self.core_seconds
        self.seconds = self.core_seconds = 0.0
        return out

    def clear(self) -> None:
        """Drop everything, what is known included."""
        self.begin(())
        self.take_spared()


_OPEN: ContextVar[Shelf | None] = ContextVar("shelf", default=None)


@contextmanager
def sharing(shelf: Shelf | None) -> Iterator[None]:
    """Meet requests of the block from a shelf; threads begun inside do not see it. None for no shelf."""
    token = _OPEN.set(shelf)
    try:
        yield
    finally:
        _OPEN.reset(token)


def once(kind: str, sources: Sequence[Any], given: Any, make: Callable[[], Made], size: Callable[[Made], int]) -> Made:
    """Return what ``make`` makes, or what it made of an equal request if a shelf is open; see :meth:`Shelf.once`."""
    shelf = _OPEN.get()
    return make() if shelf is None else shelf.once(kind, sources, given, make, size)


def same(a: Any, b: Any) -> bool:
    """Whether two nested values are equal in types, shapes and bits."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape or a.dtype.hasobject:
            return False
        one, other = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (a, b))
        return bool(np.array_equal(one, other))
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def _identical(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b))
