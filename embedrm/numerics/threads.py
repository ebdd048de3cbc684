"""Small problems run on one BLAS thread: threads that wait for each other cost more there than they save."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

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


def allowed_threads() -> int:
    """Threads that BLAS may use at present: as many as the user allows it, or as there are cores."""
    from threadpoolctl import threadpool_info

    return max([int(pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas"], default=1)


def in_threads(work: Callable[[Item], Result], items: Iterable[Item], n_threads: int) -> list[Result]:
    """Results of ``work`` in the order of ``items``, so many at once; for work that is mostly products of matrices.

    Call it inside ``threads_for(0)``, so that every one of them has one thread. The error of the first item that has one is
    raised, and none is at work any more when it is.
    """
    if n_threads < 2:
        return [work(item) for item in items]
    # waits for what has begun, where others that are free to go on would not: work that limits BLAS itself would put back
    # the limit that it found after the caller has put back its own
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(work, items))
