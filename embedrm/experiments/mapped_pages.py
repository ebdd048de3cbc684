"""Pages of mapped vectors, given back when they were read: they stay in the system's cache, and are no longer held here."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.preferences import EmbeddedResponses


def give_back(responses: EmbeddedResponses, first: int = 0, end: int | None = None) -> None:
    """Let go of the mapped pages of response vectors ``first`` to ``end - 1``, of all of them by default.

    They are read again when they are needed, mostly from the system's cache. Arrays in memory stay as they are, and so does
    what a private map was changed to.
    """
    last = responses.n_responses if end is None else end
    for view, matrix in responses.views.items():
        mapped = None if view.startswith("prompt:") else map_of(matrix)
        if mapped is None:
            continue
        whole, where = mapped
        offset, width = matrix.__array_interface__["data"][0] - where, matrix.strides[0]
        # whole pages alone can be given back
        begin = -(-(offset + first * width) // mmap.PAGESIZE) * mmap.PAGESIZE
        length = offset + last * width - begin
        if length > 0:
            whole.madvise(mmap.MADV_DONTNEED, begin, length)


def map_of(matrix: NDArray[Any]) -> tuple[mmap.mmap, int] | None:
    """Return the read-only map that an array lies in, row by row, with the address where it begins; None for any other."""
    if not matrix.flags.c_contiguous or not hasattr(mmap, "MADV_DONTNEED"):
        return None
    base: Any = matrix
    while isinstance(base, np.ndarray):
        base = base.base
    # what a private map was changed to would be lost
    if not isinstance(base, mmap.mmap) or not memoryview(base).readonly:
        return None
    return base, np.frombuffer(base, dtype=np.uint8).__array_interface__["data"][0]
