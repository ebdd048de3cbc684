"""Cells of a study in several processes, each on one thread, so that the bits do not depend on how many there are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from embedrm.numerics.threads import threads_for

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_JOBS = 8
"""Processes at most: each holds the arrays it works on."""


def usable_jobs() -> int:
    """Processes to use where nobody says: one a core, at most :data:`MOST_JOBS`."""
    import joblib

    return max(1, min(int(joblib.cpu_count()), MOST_JOBS))


def in_processes(work: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> Iterator[Result]:
    """Yield results of ``work`` in the order of ``items``, from so many processes.

    ``work`` is a function of a module, and items and results can be sent about. An error of one is raised here.
    """
    if jobs == 1 or len(items) < 2:
        for item in items:
            yield _on_one_thread(work, item)
        return
    import joblib

    # loky replaces a worker that holds on to memory, arrays that it has made here, and warns of it; nothing is lost
    warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given to the executor")
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        running = joblib.Parallel(n_jobs=min(jobs, len(items)), return_as="generator", batch_size=1)
        results = running(joblib.delayed(_on_one_thread)(work, item) for item in items)
    yield from results


def _on_one_thread(work: Callable[[Item], Result], item: Item) -> Result:
    with threads_for(0):
        return work(item)
