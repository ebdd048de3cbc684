"""Where each key is: sorted keys in memory, rebuilt by listing a folder, and the gather that reads the rows.

The index is never stored, so it cannot disagree with the segments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedrm.errors import StoreError
from embedrm.store.digest import Words, array_name, layer_sort_key
from embedrm.store.segment import Segment
from embedrm.views import Layer

# Rows gathered in one step: about 1 MB at 384 float32, so that the copy stays in the cache.
_STEP = 512

Ints = npt.NDArray[np.int64]


class KeyIndex:
    """Sorted keys of some segments; the first segment wins where several hold one key.

    Parameters
    ----------
    words : sequence of ndarray of uint64, shape (n_i, 2)
        The keys of each segment, in the order of precedence.
    labels : sequence of int
        What :meth:`find` returns for each segment.
    """

    def __init__(self, words: Sequence[Words], labels: Sequence[int]) -> None:
        counts = [len(w) for w in words]
        both = np.concatenate(words) if words else np.empty((0, 2), np.uint64)
        # Sorted by the first 8 bytes only; stable, so equal keys stay in the order of precedence.
        order = np.argsort(both[:, 0], kind="stable")
        self.high = both[order, 0]
        self.low = both[order, 1]
        self.label = np.repeat(np.asarray(labels, np.int64), counts)[order]
        self.row = np.concatenate([np.arange(c, dtype=np.int64) for c in counts] or [np.empty(0, np.int64)])[order]

    def __len__(self) -> int:
        return len(self.high)

    def find(self, queries: Words) -> tuple[Ints, Ints]:
        """Return ``(label, row)`` of each (m, 2) key, both (m,) int64; label -1 where the key is not there."""
        label, row = np.full(len(queries), -1, np.int64), np.zeros(len(queries), np.int64)
        if not len(self) or not len(queries):
            return label, row
        position = np.searchsorted(self.high, queries[:, 0])
        todo = np.arange(len(queries))
        # One pass, but for keys that share their first 8 bytes with another key.
        while todo.size:
            at = position[todo]
            inside = at < len(self)
            todo, at = todo[inside], at[inside]
            same = self.high[at] == queries[todo, 0]
            todo, at = todo[same], at[same]
            hit = self.low[at] == queries[todo, 1]
            label[todo[hit]], row[todo[hit]] = self.label[at[hit]], self.row[at[hit]]
            todo = todo[~hit]
            position[todo] += 1
        return label, row


def repeated_keys(words: Sequence[Words]) -> list[int]:
    """Return the positions of the segments that hold a key which is there more than once."""
    if not words:
        return []
    both = np.concatenate(words)
    origin = np.repeat(np.arange(len(words)), [len(w) for w in words])
    order = np.lexsort((both[:, 1], both[:, 0]))
    both, origin = both[order], origin[order]
    same = np.flatnonzero((both[1:] == both[:-1]).all(axis=1))
    return [int(i) for i in np.unique(np.concatenate([origin[same], origin[same + 1]]))]


class Snapshot:
    """The pooled segments of one folder at one moment.

    Parameters
    ----------
    segments : iterable of Segment
        Segments that hold anything but keys and pooled layers are left aside.
    where : str
        The folder, for messages.
    """

    def __init__(self, segments: Iterable[Segment], where: str) -> None:
        self.segments = tuple(sorted((s for s in segments if s.pooled), key=lambda s: s.name))
        self.where = where
        self._indexes: dict[tuple[int, ...], KeyIndex] = {}

    def layers(self) -> list[Layer]:
        """Every layer that some segment holds, in order."""
        return sorted({layer for s in self.segments for layer in s.layers}, key=layer_sort_key)

    def members(self, layer: Layer) -> tuple[int, ...]:
        """Positions of the segments that hold a layer."""
        return tuple(i for i, s in enumerate(self.segments) if layer in s.layers)

    def index(self, layer: Layer) -> KeyIndex:
        """Return the index of a layer; layers that are held by the same segments share it."""
        members = self.members(layer)
        if members not in self._indexes:
            self._indexes[members] = KeyIndex([self.segments[i].words for i in members], members)
        return self._indexes[members]

    def find(self, layer: Layer, words: Words) -> tuple[Ints, Ints]:
        """Return ``(segment, row)`` of each key, both (m,) int64; segment -1 where it is not stored."""
        return self.index(layer).find(words)

    def dim(self, layer: Layer) -> int | None:
        """Width of a layer's vectors, None if there are none; segments that disagree raise StoreError."""
        dims = {self.segments[i].layers[layer].shape[1] for i in self.members(layer)}
        if len(dims) > 1:
            raise StoreError(
                f"segments in {self.where} give layer {layer!r} different widths {sorted(dims)}: two encoders share "
                "one fingerprint. Make the fingerprint tell them apart, remove this folder and encode again."
            )
        return dims.pop() if dims else None

    def unique_words(self) -> Words:
        """Return every distinct key, (n, 2), sorted."""
        if not self.segments:
            return np.empty((0, 2), np.uint64)
        both = np.concatenate([s.words for s in self.segments])
        both = both[np.lexsort((both[:, 1], both[:, 0]))]
        keep = np.ones(len(both), bool)
        keep[1:] = (both[1:] != both[:-1]).any(axis=1)
        return both[keep]

    def gather(self, layer: Layer, segment: Ints, row: Ints, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """Read rows from the mapped segments.

        Parameters
        ----------
        layer : Layer
        segment, row : ndarray of int64, shape (m,)
            From :meth:`find`; every segment >= 0.
        dtype : dtype
            Of the result; float16 storage is widened.

        Returns
        -------
        ndarray, shape (m, dim)

        Raises
        ------
        SegmentGoneError
            A segment has been compacted away: take a new snapshot and find again.
        DamagedSegmentError
            A segment's length has changed since it was opened.
        """
        out = np.empty((len(segment), self.dim(layer) or 0), dtype)
        order = np.argsort(segment, kind="stable")
        starts = np.searchsorted(segment[order], np.arange(len(self.segments) + 1))
        for i in self.members(layer):
            part = order[starts[i] : starts[i + 1]]
            if not part.size:
                continue
            source = self.segments[i].map()[array_name(layer)]
            for begin in range(0, part.size, _STEP):
                step = part[begin : begin + _STEP]
                out[step] = source[row[step]]
        return out
