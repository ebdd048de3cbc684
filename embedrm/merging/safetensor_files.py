"""Tensors of safetensors files by name, one in memory at a time, and a file written from tensors that come one by one."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import ModelError

Array = NDArray[Any]

_TYPES: dict[str, str] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
# NumPy has no bfloat16: such tensors are float32 in memory, and rounded when they are written.
_BFLOAT = "BF16"
REAL_TYPES = ("F64", "F32", "F16", _BFLOAT)


class SafetensorFiles(Mapping[str, Array]):
    """The tensors of one or several safetensors files; nothing is read until a tensor is asked for.

    Parameters
    ----------
    paths : sequence of Path

    Attributes
    ----------
    entries : dict of str to (type, shape)
        As the headers tell: a type is a name of the format, such as ``"F32"``.
    metadata : dict of str to str
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self.entries: dict[str, tuple[str, tuple[int, ...]]] = {}
        self.metadata: dict[str, str] = {}
        self._places: dict[str, tuple[Path, int]] = {}
        for path in paths:
            self._read_header(path)

    def _read_header(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length)) if length <= path.stat().st_size else None
            if not isinstance(header, dict):
                raise ValueError("its header is cut off")
            size = path.stat().st_size - 8 - length
            for name, entry in header.items():
                if name == "__metadata__":
                    self.metadata.update({str(key): str(value) for key, value in entry.items()})
                    continue
                start, end = entry["data_offsets"]
                if entry["dtype"] not in _TYPES and entry["dtype"] != _BFLOAT:
                    raise ModelError(
                        f"{path}: {name!r} is of type {entry['dtype']}, which cannot be merged. Save the model in float32."
                    )
                n_bytes = math.prod(entry["shape"]) * _width(entry["dtype"])
                if end - start != n_bytes or end > size:
                    raise ValueError(f"{name!r} is cut off")
                if name in self._places:
                    raise ValueError(f"{name!r} is in two files")
                self.entries[name] = (entry["dtype"], tuple(entry["shape"]))
                self._places[name] = (path, 8 + length + start)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
            raise ModelError(f"{path} is no whole safetensors file ({err}). Save or download the model again.") from err

    def __getitem__(self, name: str) -> Array:
        path, offset = self._places[name]
        kind, shape = self.entries[name]
        dtype = "<u2" if kind == _BFLOAT else _TYPES[kind]
        if not math.prod(shape):
            return np.zeros(shape, dtype="<f4" if kind == _BFLOAT else dtype)
        # a map costs no memory of its own, and pages that were read can be dropped again
        found: Array = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
        if kind == _BFLOAT:
            return (found.astype("<u4") << 16).view("<f4")
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def write_safetensors(
    path: Path,
    entries: Mapping[str, tuple[str, tuple[int, ...]]],
    tensors: Iterable[tuple[str, Array]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file from tensors that come in any order, each once; only one is in memory.

    Parameters
    ----------
    path : Path
    entries : mapping of str to (type, shape)
        Of all tensors that will come.
    tensors : iterable of (str, ndarray)
    metadata : mapping of str to str, optional
        Beside the format.

    Raises
    ------
    ModelError
        A tensor too many, too few, or of another shape: a bug of whoever calls.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    offset = 0
    # widest types first, so that all are aligned
    for name in sorted(entries, key=lambda name: (-_width(entries[name][0]), name)):
        kind, shape = entries[name]
        end = offset + math.prod(shape) * _width(kind)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    missing = set(entries)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, array in tensors:
            kind, shape = entries[name]
            if name not in missing or array.shape != shape:
                raise ModelError(f"{path}: {name!r} came twice or as {array.shape} instead of {shape}; report this")
            missing.remove(name)
            file.seek(8 + len(text) + header[name]["data_offsets"][0])
            file.write(np.ascontiguousarray(_stored(array, kind)).reshape(-1).view(np.uint8).data)
        if missing:
            raise ModelError(f"{path}: {len(missing)} tensors never came, {min(missing)!r} among them; report this")
        file.flush()
        os.fsync(file.fileno())


def in_memory(kind: str) -> Any:
    """Return NumPy's type of a tensor as it is read."""
    return np.dtype("<f4" if kind == _BFLOAT else _TYPES[kind])


def _width(kind: str) -> int:
    return 2 if kind == _BFLOAT else np.dtype(_TYPES[kind]).itemsize


def _stored(array: Array, kind: str) -> Array:
    if kind != _BFLOAT:
        return array.astype(_TYPES[kind], copy=False)
    bits = np.ascontiguousarray(array, dtype="<f4").view("<u4").astype("<u8")
    # to the nearest, ties to even
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
