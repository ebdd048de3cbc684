"""Small problems run on one BLAS thread: threads that wait for each other cost more there than they save."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# Matrix entries below which a second thread was found not to help (16 MiB of float32).
SMALL_ENTRIES = 4_000_000


@contextmanager
def threads_for(entries: int) -> Iterator[None]:
    """Limit BLAS to one thread inside the block if the matrices hold fewer than ``SMALL_ENTRIES`` entries.

    The setting of the process is put back at the end; larger problems run as the user set them.
    """
    if entries >= SMALL_ENTRIES:
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield
