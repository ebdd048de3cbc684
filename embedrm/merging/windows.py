"""Entries of certain ranks by magnitude, found and told piece by piece: no sorted copy of a long array is ever made."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Reader = Callable[[], Iterable[Array]]

# Numbers that are put in order at once; of more, those that matter are first found by their leading bits.
_SORTED = 1 << 20
_BITS = 16


class Cut:
    """The k entries of smallest magnitude, of equal ones the first that come.

    Parameters
    ----------
    value : float
        What is smaller is below the cut.
    equal : int
        How many of the entries that are as large are below it too.
    """

    def __init__(self, value: float, equal: int) -> None:
        self.value, self.equal = value, equal

    def below(self, magnitudes: Array) -> Mask:
        """Tell which entries of the next piece are below; pieces come in their order, each once."""
        below: Mask = magnitudes < self.value
        if self.equal:
            rows = np.flatnonzero(magnitudes == self.value)[: self.equal]
            below[rows] = True
            self.equal -= len(rows)
        return below


class Window:
    """Entries whose rank by magnitude is at least ``start`` and below ``stop``, counted from the smallest.

    Parameters
    ----------
    read : callable
        Returns the pieces of the array, 1-D and float64, in their order; called once for each pass.
    n : int
        Entries in all pieces together.
    start, stop : int

    Notes
    -----
    Of equal magnitudes, the earlier entry counts as the smaller. Two passes as a rule: one counts the leading bits of the
    numbers, which are in the order of the numbers, the other takes those numbers apart whose leading bits are the wanted
    one's.
    """

    def __init__(self, read: Reader, n: int, start: int, stop: int) -> None:
        self.whole = start <= 0 and stop >= n
        self._start = _cut(read, n, start)
        self._stop = _cut(read, n, stop)

    def kept(self, piece: Array) -> Array:
        """Return the next piece with the entries outside the window set to zero."""
        if self.whole:
            return piece
        magnitudes = np.abs(piece)
        outside = self._start.below(magnitudes)
        outside |= ~self._stop.below(magnitudes)
        return np.where(outside, 0.0, piece)


def _cut(read: Reader, n: int, k: int) -> Cut:
    if k <= 0:
        return Cut(0.0, 0)
    if k >= n:
        return Cut(np.inf, 0)
    shift, prefix, below, left = 64, 0, 0, n
    while left > _SORTED and shift:
        shift -= _BITS
        counts = np.zeros(1 << _BITS, dtype=np.int64)
        for piece in read():
            digits = (_ordered(piece, shift + _BITS, prefix) >> np.uint64(shift)) & np.uint64((1 << _BITS) - 1)
            counts += np.bincount(digits.astype(np.int64), minlength=len(counts))
        sums = np.cumsum(counts)
        digit = int(np.searchsorted(sums, k - below, side="right"))
        below += int(sums[digit] - counts[digit])
        prefix, left = (prefix << _BITS) | digit, int(counts[digit])
    if not shift:
        return Cut(float(np.array([prefix], dtype=np.uint64).view(np.float64)[0]), k - below)
    numbers = np.concatenate([_ordered(piece, shift, prefix) for piece in read()])
    if len(numbers) != left:
        raise InvalidInputError(
            f"a merge found {left:,} numbers at first and {len(numbers):,} later: a model's file changed meanwhile; merge "
            "again"
        )
    numbers.partition(k - below)
    found = numbers[k - below]
    return Cut(float(found.view(np.float64)), k - below - int((numbers[: k - below] < found).sum()))


def _ordered(piece: Array, shift: int, prefix: int) -> NDArray[np.uint64]:
    """Return the magnitudes' bits, which have the order of the magnitudes, of those that begin with a prefix."""
    bits: NDArray[np.uint64] = np.abs(piece).view(np.uint64)
    return bits if shift == 64 else bits[bits >> np.uint64(shift) == np.uint64(prefix)]
