"""Which texts begin alike, and are read together up to there: a pure function of their token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

# A shorter common beginning is not worth a pass of its own.
LEAST_SHARED = 8


@dataclass(frozen=True)
class SharedPrefix:
    """Rows that begin with the same tokens.

    Attributes
    ----------
    length : int
        How many tokens they share; every row has at least one more.
    rows : tuple of int
    """

    length: int
    rows: tuple[int, ...]


def shared_prefixes(texts: Sequence[Sequence[int]], least: int = LEAST_SHARED) -> list[SharedPrefix]:
    """Group texts by common beginnings so that the fewest tokens are read.

    Sorted, texts that share a beginning lie side by side, and a group of k texts with a common beginning of p tokens saves
    (k - 1) p. The partition of the sorted texts into such groups that saves most is found exactly, by comparing each
    stretch with its two parts on either side of its shortest common beginning.

    Parameters
    ----------
    texts : sequence of sequences of int
        Token ids, none empty.
    least : int
        The shortest beginning that is shared.

    Returns
    -------
    list of SharedPrefix
        With at least two rows each; a row is in one of them at most. The same for the same texts in the same order.
    """
    order = sorted(range(len(texts)), key=lambda i: tuple(texts[i]))
    common = np.array([_common(texts[a], texts[b]) for a, b in pairwise(order)], dtype=np.int64)
    saved: dict[tuple[int, int], int] = {}
    cut: dict[tuple[int, int], int] = {}
    # stretches of sorted texts, both ends included; each is judged after its parts
    stack: list[tuple[int, int, bool]] = [(0, len(order) - 1, False)] if order else []
    while stack:
        first, last, ready = stack.pop()
        if first >= last:
            saved[first, last] = 0
            continue
        at = cut.setdefault((first, last), first + int(common[first:last].argmin()))
        if not ready:
            stack += [(first, last, True), (first, at, False), (at + 1, last, False)]
            continue
        parts = saved[first, at] + saved[at + 1, last]
        whole = int(common[at]) * (last - first) if common[at] >= least else 0
        saved[first, last] = max(whole, parts)
        if whole > 0 and whole >= parts:
            cut[first, last] = -1
    found: list[SharedPrefix] = []
    stretches = [(0, len(order) - 1)] if order else []
    while stretches:
        first, last = stretches.pop()
        if first >= last or not saved[first, last]:
            continue
        at = cut[first, last]
        if at < 0:
            found.append(SharedPrefix(int(common[first:last].min()), tuple(order[first : last + 1])))
        else:
            stretches += [(at + 1, last), (first, at)]
    return found


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the common beginning that leaves each at least one token."""
    n = min(len(a), len(b)) - 1
    if n < 1 or a[0] != b[0]:
        return 0
    left: npt.NDArray[np.int64] = np.asarray(a[:n])
    other = np.flatnonzero(left != np.asarray(b[:n]))
    return int(other[0]) if len(other) else n
