"""The segment: one immutable safetensors file of vectors, named by the hash of its content.

Layout of a segment with n records::

    keys              (n, 16) uint8     BLAKE2b-128 of each text
    layer:3           (n, dim) float    one array per pooled layer; float32, or float16 if the folder's precision is
    tokens:3          (total, dim)      ragged: the rows of record i are [offsets[i], offsets[i+1])
    tokens:3.offsets  (n + 1,) int64

The metadata are flat strings: ``format``, ``version``, ``encoder`` (the fingerprint's digest), ``dtype``, ``records``
and ``check``. ``check`` is a BLAKE2b-128 over the header, the keys and the offsets. These are read anyway when a
segment is opened, so opening proves that no vector can be returned under the wrong text, layer or shape; the vectors
themselves are proved by the name, when :meth:`EmbeddingStore.verify` reads the whole file.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from embedrm.errors import InvalidInputError, StoreError
from embedrm.store.digest import KEY_BYTES, Words, key_words, layer_of
from embedrm.store.files import write_atomic
from embedrm.views import Layer

FORMAT = "embedrm-segment"
VERSION = "1"
SUFFIX = ".safetensors"
OFFSETS = ".offsets"
NAME = re.compile(r"[0-9a-f]{32}\.safetensors")
_DTYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "|u1"}
_CODES = {np.dtype(code).newbyteorder("<"): name for name, code in _DTYPES.items()}
_MAX_HEADER = 4 << 20
_ALIGN = 64

Array = npt.NDArray[Any]


class DamagedSegmentError(StoreError):
    """A segment is truncated, malformed or not what its name says; ``path`` and ``reason`` say which and how."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(
            f"{path} is damaged: {reason}. Run `embedrm cache verify --repair`: it moves damaged segments to "
            "quarantine/, and the texts that were in them are encoded again when they are next asked for."
        )


class NewerSegmentError(StoreError):
    """A segment was written by a later version of embedrm; it is whole, so nothing is moved."""


class SegmentGoneError(StoreError):
    """A segment was there a moment ago: another process has compacted it away. List the folder again."""


@dataclass(frozen=True)
class ArraySpec:
    """Where one array lies in a segment: little-endian dtype, shape, and offset in bytes from the file's start."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_segment(folder: Path, arrays: Mapping[str, Array], *, encoder: str, dtype: str) -> Path:
    """Write one segment durably; the same content always gets the same name.

    Parameters
    ----------
    folder : Path
        An existing folder.
    arrays : mapping of str to ndarray
        ``keys`` (n, 16) uint8; every other array has n rows, or is ragged and has ``name.offsets`` (n + 1,) int64
        beside it.
    encoder : str
        Digest of the encoder's fingerprint.
    dtype : str
        The precision of the folder, ``float32`` or ``float16``.

    Returns
    -------
    Path
        The segment in place.

    Raises
    ------
    InvalidInputError
        The arrays do not agree.
    OSError
        As the system gave it (see :func:`embedrm.store.files.write_atomic`).
    """
    # Widest items first, so that every array starts at a multiple of its item size without holes between them.
    packed = {name: _little_endian(name, array) for name, array in arrays.items()}
    packed = dict(sorted(packed.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))
    entries: dict[str, Any] = {}
    specs: dict[str, ArraySpec] = {}
    end = 0
    for name, array in packed.items():
        entries[name] = {
            "dtype": _CODES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        specs[name] = ArraySpec(array.dtype, array.shape, end)
        end += array.nbytes
    offsets = {name: array for name, array in packed.items() if name.endswith(OFFSETS)}
    problem = _shape_problem(specs) or _offsets_problem(specs, offsets)
    if problem is not None:
        raise InvalidInputError(f"a segment cannot be written: {problem}.")
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "encoder": encoder,
        "dtype": dtype,
        "records": str(specs["keys"].shape[0]),
    }
    small = [packed["keys"], *(packed[name] for name in sorted(offsets))]
    metadata["check"] = _check(entries, metadata, small)
    header = json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":")).encode()
    header += b" " * (-(len(header) + 8) % _ALIGN)
    chunks = [struct.pack("<Q", len(header)), header, *packed.values()]
    return write_atomic(folder, chunks, lambda digest: digest + SUFFIX)


def _little_endian(name: str, array: Array) -> Array:
    little = array.dtype.newbyteorder("<")
    if little not in _CODES:
        raise InvalidInputError(f"array {name!r} has dtype {array.dtype}; a segment holds {', '.join(_DTYPES)}.")
    return np.ascontiguousarray(array, dtype=little)


class Segment:
    """One segment, opened: header, keys and offsets are read and checked, the vectors stay on disk.

    No file handle is kept, so a store of thousands of segments needs no more of them than one.

    Attributes
    ----------
    path : Path
    size : int
        Length of the file in bytes.
    records : int
        n, the number of keys.
    encoder, dtype : str
        From the metadata.
    arrays : dict of str to ArraySpec
    layers : dict of Layer to ArraySpec
        The pooled layers among the arrays.
    pooled : bool
        Whether keys and pooled layers are all there is.
    words : ndarray of uint64, shape (n, 2)
        The keys.

    Raises
    ------
    DamagedSegmentError, NewerSegmentError, SegmentGoneError
        On construction.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb", buffering=0) as file:
                self.size = os.fstat(file.fileno()).st_size
                header, start = _read_header(path, file.fileno(), self.size)
                self.arrays = _parse_entries(path, header, start, self.size)
                small = {
                    name: _read_array(path, file.fileno(), spec)
                    for name, spec in self.arrays.items()
                    if name == "keys" or name.endswith(OFFSETS)
                }
        except FileNotFoundError:
            raise SegmentGoneError(f"segment {path} is gone") from None
        except OSError as err:
            raise StoreError(f"cannot read segment {path}: {err.strerror}. Check the disk and permissions.") from err
        metadata = dict(header.pop("__metadata__"))
        expected = metadata.pop("check", None)
        ordered = [small.pop("keys"), *(small[name] for name in sorted(small))]
        if _check(header, metadata, ordered) != expected:
            raise DamagedSegmentError(path, "its header, keys or offsets differ from their checksum")
        problem = _offsets_problem(self.arrays, small)
        if problem is not None:
            raise DamagedSegmentError(path, problem)
        self.records = self.arrays["keys"].shape[0]
        if metadata.get("records") != str(self.records):
            raise DamagedSegmentError(path, f"its metadata count {metadata.get('records')} records, not {self.records}")
        self.encoder = metadata.get("encoder", "")
        self.dtype = metadata.get("dtype", "")
        self.words: Words = key_words(ordered[0])
        found = {name: layer_of(name) for name in self.arrays if name != "keys"}
        self.layers: dict[Layer, ArraySpec] = {
            layer: self.arrays[name] for name, layer in found.items() if layer is not None
        }
        self.pooled = len(self.layers) == len(found)

    @property
    def name(self) -> str:
        """File name."""
        return self.path.name

    def map(self) -> dict[str, Array]:
        """Map the file and return every array as a read-only view of it; nothing is copied.

        The views keep the mapping alive, also after the file has been unlinked.
        """
        try:
            with open(self.path, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if size != self.size:
                    raise DamagedSegmentError(self.path, f"it has {size} bytes and had {self.size} when it was opened")
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise SegmentGoneError(f"segment {self.path} is gone") from None
        except OSError as err:
            raise StoreError(f"cannot map segment {self.path}: {err.strerror}.") from err
        return {n: np.ndarray(s.shape, s.dtype, buffer=data, offset=s.offset) for n, s in self.arrays.items()}

    def ragged(self, name: str) -> tuple[Array, Array]:
        """Return ``(values (total, ...), offsets (n + 1,))`` of a ragged array as views; see :meth:`map`."""
        if name not in self.arrays or name + OFFSETS not in self.arrays:
            raise StoreError(f"segment {self.path} has no ragged array {name!r}.")
        views = self.map()
        return views[name], views[name + OFFSETS]


def _read_header(path: Path, fd: int, size: int) -> tuple[dict[str, Any], int]:
    prefix = _read_up_to(fd, 8)
    if len(prefix) < 8:
        raise DamagedSegmentError(path, f"it has {size} bytes, less than the 8 that give the header's length")
    (length,) = struct.unpack("<Q", prefix)
    if not 2 <= length <= min(_MAX_HEADER, size - 8):
        raise DamagedSegmentError(path, f"its header claims {length} bytes in a file of {size}")
    raw = _read_up_to(fd, length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError):
        raise DamagedSegmentError(path, "its header is not JSON with distinct names") from None
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DamagedSegmentError(path, "its header has no metadata of strings")
    if metadata.get("format") != FORMAT:
        raise DamagedSegmentError(path, f"its metadata do not name the format {FORMAT!r}")
    if metadata.get("version") != VERSION:
        raise NewerSegmentError(
            f"{path} has segment format version {metadata.get('version')!r}; this embedrm reads {VERSION!r}. "
            "Upgrade embedrm, or run `embedrm cache verify` if you did not use a newer version here."
        )
    return header, 8 + length


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("repeated name")
    return out


def _parse_entries(path: Path, header: Mapping[str, Any], start: int, size: int) -> dict[str, ArraySpec]:
    """Return the arrays; they must fill the file from the header to its last byte, without hole or overlap."""
    specs: dict[str, ArraySpec] = {}
    ranges: list[tuple[int, int]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        entry = entry if isinstance(entry, dict) else {}
        shape, offsets = entry.get("shape"), entry.get("data_offsets")
        code = entry.get("dtype")
        if not (isinstance(code, str) and code in _DTYPES and _are_counts(shape) and _are_counts(offsets)):
            raise DamagedSegmentError(path, f"its header does not describe the array {name!r}")
        dtype = np.dtype(_DTYPES[code])
        if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
            raise DamagedSegmentError(path, f"shape and size of its array {name!r} disagree")
        specs[name] = ArraySpec(dtype, tuple(shape), start + offsets[0])
        ranges.append((offsets[0], offsets[1]))
    end = 0
    for begin, stop in sorted(ranges):
        if begin != end:
            raise DamagedSegmentError(path, "its arrays leave a hole or overlap")
        end = stop
    if start + end != size:
        raise DamagedSegmentError(path, f"it has {size} bytes where its header describes {start + end}")
    problem = _shape_problem(specs)
    if problem is not None:
        raise DamagedSegmentError(path, problem)
    return specs


def _are_counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in value)


def _shape_problem(specs: Mapping[str, ArraySpec]) -> str | None:
    keys = specs.get("keys")
    if keys is None or keys.dtype != np.uint8 or len(keys.shape) != 2 or keys.shape[1] != KEY_BYTES:
        return "its keys are not an (n, 16) array of uint8"
    n = keys.shape[0]
    for name, spec in specs.items():
        if name == "keys":
            continue
        if name.endswith(OFFSETS):
            if spec.dtype != np.dtype("<i8") or spec.shape != (n + 1,) or name[: -len(OFFSETS)] not in specs:
                return f"{name!r} is not the (n + 1,) int64 offsets of an array, n = {n}"
        elif layer_of(name) is not None and (len(spec.shape) != 2 or spec.dtype.kind != "f"):
            return f"{name!r} is not an (n, dim) array of floats"
        elif not spec.shape or (name + OFFSETS not in specs and spec.shape[0] != n):
            return f"{name!r} has shape {spec.shape} but there are {n} keys"
        elif layer_of(name) is not None and name + OFFSETS in specs:
            return f"{name!r} is a pooled layer and cannot be ragged"
    return None


def _offsets_problem(specs: Mapping[str, ArraySpec], offsets: Mapping[str, Array]) -> str | None:
    for name, values in offsets.items():
        total = specs[name[: -len(OFFSETS)]].shape[0]
        if values[0] != 0 or values[-1] != total or bool((np.diff(values) < 0).any()):
            return f"{name!r} does not rise from 0 to the {total} rows of its array"
    return None


def _read_up_to(fd: int, count: int) -> bytes:
    parts: list[bytes] = []
    while count and (data := os.read(fd, count)):
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


def _read_array(path: Path, fd: int, spec: ArraySpec) -> Array:
    os.lseek(fd, spec.offset, os.SEEK_SET)
    data = _read_up_to(fd, spec.nbytes)
    if len(data) != spec.nbytes:
        raise DamagedSegmentError(path, "it ends before its arrays do")
    return np.frombuffer(data, spec.dtype).reshape(spec.shape)


def _check(entries: Mapping[str, Any], metadata: Mapping[str, str], small: Sequence[Array]) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    hasher.update(json.dumps([dict(entries), dict(metadata)], sort_keys=True, separators=(",", ":")).encode())
    for array in small:
        hasher.update(np.ascontiguousarray(array).data if array.nbytes else b"")
    return hasher.hexdigest()
