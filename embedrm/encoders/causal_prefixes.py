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

    A group of k texts with a common beginning of p tokens saves (k - 1) p. Sorted, texts that share a beginning lie side by
    side; a stretch of them falls into parts at its shortest common beginning, m tokens long. Each part is best read by
    groups of its own, or joins one group over m, whichever saves more, so that the most is found exactly.

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
    joined: dict[tuple[int, int], list[tuple[int, int]]] = {}
    parts: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # stretches of sorted texts, both ends included; each is judged after its parts
    stack: list[tuple[int, int]] = [(0, len(order) - 1)] if order else []
    while stack:
        node = first, last = stack.pop()
        if first == last:
            saved[node] = 0
            continue
        here = common[first:last]
        shortest = int(here.min())
        if node not in parts:
            ends = (first + np.flatnonzero(here == shortest)).tolist()
            parts[node] = list(zip([first, *(end + 1 for end in ends)], [*ends, last]))
            stack += [node, *parts[node]]
            continue
        alone = sum(saved[part] for part in parts[node])
        joining = [part for part in parts[node] if shortest * (part[1] - part[0] + 1) >= saved[part]]
        together = alone + sum(shortest * (b - a + 1) - saved[a, b] for a, b in joining) - shortest
        better = shortest >= least and together > alone
        saved[node], joined[node] = (together, joining) if better else (alone, [])
    found: list[SharedPrefix] = []
    stretches = [(0, len(order) - 1)] if order else []
    while stretches:
        node = stretches.pop()
        if not saved[node]:
            continue
        inside = joined[node]
        if inside:
            rows = tuple(row for a, b in inside for row in order[a : b + 1])
            found.append(SharedPrefix(int(common[node[0] : node[1]].min()), rows))
        stretches += [part for part in reversed(parts[node]) if part not in inside]
    return found


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the common beginning that leaves each at least one token."""
    n = min(len(a), len(b)) - 1
    if n < 1 or a[0] != b[0]:
        return 0
    left: npt.NDArray[np.int64] = np.asarray(a[:n])
    other = np.flatnonzero(left != np.asarray(b[:n]))
    return int(other[0]) if len(other) else n
