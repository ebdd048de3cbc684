"""Merging of small segments: write the new, make it durable, then unlink the old.

What a reader gets for a key is the same bytes before, during and after, and after a kill at any moment:

* a merged segment takes, for each key and layer, the row that readers get now (the first segment by name wins);
* every segment that holds a repeated key takes part, so no other copy can come to the front afterwards;
* the old segments are unlinked in falling order of name, so the copy that wins is the last to go.

Two processes may compact one folder at once: a segment is unlinked only after its rows are durable in another.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedrm.store.digest import KEY_BYTES, Keys, Words, array_name
from embedrm.store.files import age_of, disk_error, hash_file, leftovers, sync_folder
from embedrm.store.folder import Folder
from embedrm.store.index import Snapshot, repeated_keys
from embedrm.store.segment import DamagedSegmentError, Segment, SegmentGoneError
from embedrm.views import Layer

Progress = Callable[[int, int], None]


def compact_folder(
    folder: Folder, *, target_bytes: int, small_bytes: int, progress: Progress | None = None
) -> dict[str, int]:
    """Merge the small segments of a folder and those with repeated keys.

    Returns
    -------
    dict
        ``merged`` (old segments that are gone), ``written`` (new ones), ``bytes_freed`` (of repeated rows and headers).

    Raises
    ------
    StoreError
        A segment is damaged (its whole content is checked first, so that no damage is copied under a good name),
        or the disk is full; the store is as it was, or holds some rows twice until the next compaction.
    """
    for _ in range(5):
        snapshot = folder.refresh()
        sources = _choose(snapshot, small_bytes)
        try:
            return _merge(folder, sources, target_bytes, progress)
        except SegmentGoneError:
            continue  # another process compacted first
    return {"merged": 0, "written": 0, "bytes_freed": 0}


def _choose(snapshot: Snapshot, small_bytes: int) -> list[Segment]:
    chosen = {i for i, segment in enumerate(snapshot.segments) if segment.size < small_bytes}
    return [snapshot.segments[i] for i in sorted(chosen | _with_repeats(snapshot))]


def _with_repeats(snapshot: Snapshot) -> set[int]:
    out: set[int] = set()
    for layer in snapshot.layers():
        members = snapshot.members(layer)
        out |= {members[i] for i in repeated_keys([snapshot.segments[i].words for i in members])}
    return out


def _merge(folder: Folder, sources: list[Segment], target_bytes: int, progress: Progress | None) -> dict[str, int]:
    view = Snapshot(sources, str(folder.path))
    groups = _groups(view)
    lone = _unchanged(view, groups)
    if lone:
        return _merge(folder, [s for s in sources if s.name not in lone], target_bytes, progress)
    if not sources:
        return {"merged": 0, "written": 0, "bytes_freed": 0}
    total, done = sum(s.size for s in sources), 0
    for segment in sources:
        try:
            digest, _ = hash_file(segment.path)
        except FileNotFoundError:
            raise SegmentGoneError(f"segment {segment.path} is gone") from None
        if not segment.name.startswith(digest):
            raise DamagedSegmentError(segment.path, "its content does not have the hash that is its name")
        done += segment.size
        if progress is not None:
            progress(done, 2 * total)
    names: dict[str, int] = {}
    for layers, words in groups:
        width = sum(view.dim(layer) or 0 for layer in layers) * np.dtype(folder.dtype).itemsize + KEY_BYTES
        pieces = max(1, -(-len(words) * width // target_bytes))
        for piece in np.array_split(words, min(pieces, len(words))):
            arrays: dict[str, npt.NDArray[Any]] = {"keys": _key_bytes(piece)}
            for layer in layers:
                arrays[array_name(layer)] = view.gather(layer, *view.find(layer, piece), dtype=folder.dtype)
            try:
                path = folder.commit(arrays)
            except OSError as err:
                raise disk_error(err, folder.path, "compact", "Nothing was lost.") from err
            names[path.name] = path.stat().st_size if path.exists() else 0
            done += len(piece) * width
            if progress is not None:
                progress(min(done, 2 * total), 2 * total)
    old = [s for s in sorted(sources, key=lambda s: s.name, reverse=True) if s.name not in names]
    repeats = {view.segments[i].name for i in _with_repeats(view)}
    for segment in old:
        with contextlib.suppress(PermissionError):  # Windows keeps a mapped file; the next compaction takes it
            segment.path.unlink(missing_ok=True)
            if segment.name in repeats:  # the order must hold on the disk too, should the power fail
                sync_folder(folder.path)
    sync_folder(folder.path)
    if progress is not None:
        progress(2 * total, 2 * total)
    kept = sum(s.size for s in sources if s.name in names)
    return {
        "merged": len(old),
        "written": len(set(names) - {s.name for s in sources}),
        "bytes_freed": sum(s.size for s in old) + kept - sum(names.values()),
    }


def _groups(view: Snapshot) -> list[tuple[tuple[Layer, ...], Words]]:
    """Return the keys by the set of layers that are stored for them, each in sorted order."""
    words, layers = view.unique_words(), view.layers()
    if not len(words):
        return []
    stored = np.stack([view.find(layer, words)[0] >= 0 for layer in layers], axis=1)
    out = []
    for pattern in np.unique(stored, axis=0):
        mine = words[(stored == pattern).all(axis=1)]
        out.append((tuple(layer for layer, there in zip(layers, pattern) if there), mine))
    return out


def _unchanged(view: Snapshot, groups: list[tuple[tuple[Layer, ...], Words]]) -> set[str]:
    """Return the segments that would be merged with nothing: rewriting them would gain nothing, each time anew."""
    out: set[str] = set()
    repeats = _with_repeats(view)
    for layers, words in groups:
        used = {int(i) for layer in layers for i in np.unique(view.find(layer, words)[0])}
        # One with repeats must take part even so: its other copies would come to the front of what is merged.
        if len(used) == 1 and not used & repeats:
            segment = view.segments[used.pop()]
            if segment.records == len(words) and set(segment.layers) == set(layers):
                out.add(segment.name)
    return out


def _key_bytes(words: Words) -> Keys:
    return np.ascontiguousarray(words.astype(">u8")).view(np.uint8).reshape(-1, KEY_BYTES)


def remove_leftovers(path: Path, age: float) -> int:
    """Remove what dead writers left in a folder, if it is older than ``age`` seconds; return how many."""
    count = 0
    for left in leftovers(path):
        if age_of(left) >= age:
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
            count += 1
    return count
