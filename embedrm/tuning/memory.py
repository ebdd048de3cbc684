"""Memory that the C library keeps after it was freed, given back to the system.

Batches of text differ in shape from step to step, and between the pieces that live on the allocator's heap fragments: on
the default encoder the process doubles in a hundred steps. Asking now and then keeps it level, and changes no result.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1)
def _trim() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library than glibc
        return None


def give_back() -> None:
    """Return freed memory to the system, where the C library can."""
    trim = _trim()
    if trim is not None:
        trim(0)


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak: Any = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
