"""One name for a set of named arrays: equal names, shapes, types and bits give equal digests, in any order."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray


def array_digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """BLAKE2b-128 of the arrays, as 32 hexadecimal digits; one array is read at a time."""
    digest = blake2b(digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
