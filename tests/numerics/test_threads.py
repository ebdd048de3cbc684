"""Threads beside each other, and the limit of BLAS around them."""

from __future__ import annotations

import threading
import time

import pytest
from threadpoolctl import threadpool_limits

from embedrm.numerics.threads import allowed_threads, in_threads, threads_for


def test_results_are_in_the_order_of_the_items():
    waits = [0.03, 0.0, 0.02, 0.01]

    def work(k: int) -> int:
        time.sleep(waits[k])
        return k * k

    for n_threads in (1, 2, 4):
        assert in_threads(work, range(4), n_threads) == [0, 1, 4, 9]


@pytest.mark.parametrize("n_threads", [1, 3])
def test_the_first_item_with_an_error_tells_it_whichever_is_ready_first(n_threads):
    def work(k: int) -> None:
        time.sleep(0.05 if k == 1 else 0.0)
        if k:
            raise ValueError(f"item {k}")

    with pytest.raises(ValueError, match="item 1"):
        in_threads(work, range(4), n_threads)


def test_an_error_leaves_nothing_at_work_and_the_limit_of_blas_as_it_was():
    begun, ended = threading.Event(), threading.Event()

    def work(fails: bool) -> None:
        if fails:
            begun.wait(5)
            raise ValueError("expected")
        with threads_for(0):
            begun.set()
            time.sleep(0.2)
        ended.set()

    with threadpool_limits(limits=2, user_api="blas"):
        allowed = allowed_threads()
        with pytest.raises(ValueError, match="expected"), threads_for(0):
            in_threads(work, [False, True], 2)
        at_once = ended.is_set()
        ended.wait(5)
        # what went on would put back the limit of one that it found
        time.sleep(0.05)
        assert at_once
        assert allowed_threads() == allowed
