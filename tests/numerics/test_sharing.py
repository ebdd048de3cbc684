"""A shelf: what counts as an equal request, what is held and how long, and who is told what it cost."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from embedrm.numerics.sharing import MOST_ENTRIES, Shelf, once, same, sharing


class Maker:
    """Counts how often something is made, and makes another object each time."""

    def __init__(self, shelf: Shelf, *sources: Any) -> None:
        self.shelf, self.sources, self.n = shelf, sources, 0
        shelf.begin(sources)

    def ask(self, given: Any = None, kind: str = "x", sources: tuple[Any, ...] | None = None, size: int = 1) -> Any:
        def make() -> list[int]:
            self.n += 1
            return [self.n]

        wanted = self.sources if sources is None else sources
        with sharing(self.shelf):
            return once(kind, wanted, given, make, lambda value: size)


@pytest.fixture
def maker() -> Maker:
    return Maker(Shelf(most_bytes=100), np.arange(5.0), np.arange(3))


EQUAL = [
    (np.arange(4), np.arange(4)),
    (np.array([np.nan, 0.0]), np.array([np.nan, 0.0])),
    (np.array(["a", "bc"]), np.array(["a", "bc"])),
    (np.arange(12.0).reshape(3, 4)[:, ::2], np.arange(12.0).reshape(3, 4)[:, ::2].copy()),
    (np.zeros((0, 3)), np.zeros((0, 3))),
    ({"a": [1, (2.0, None)], "b": np.ones(2)}, {"b": np.ones(2), "a": [1, (2.0, None)]}),
]
DIFFERENT = [
    (np.arange(4), np.arange(4.0)),
    (np.array([0.0]), np.array([-0.0])),
    (np.zeros((2, 3)), np.zeros((3, 2))),
    (np.zeros((0, 3)), np.zeros((0, 2))),
    (np.array([None]), np.array([None])),
    (1, 1.0),
    (1, True),
    ("r", ("r",)),
    ((1, 2), (1, 2, 3)),
    ({"a": 1}, {"a": 1, "b": 2}),
    ({"a": np.arange(3)}, {"a": np.array([0, 1, 3])}),
    (float("nan"), float("nan") * 2),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_bits_are_found(maker: Maker, one: Any, other: Any) -> None:
    assert same(one, other)
    assert maker.ask(one) is maker.ask(other)
    assert maker.n == 1


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_differs_in_a_bit_or_a_type_is_made_anew(maker: Maker, one: Any, other: Any) -> None:
    assert not same(one, other)
    assert maker.ask(one) is not maker.ask(other)
    assert maker.n == 2


def test_kinds_and_sources_are_told_apart(maker: Maker) -> None:
    a, b = maker.sources
    found = [maker.ask(), maker.ask(kind="y"), maker.ask(sources=(a,)), maker.ask(sources=(b, a))]
    assert len({id(value) for value in found}) == 4
    assert maker.ask(sources=(b, a)) is found[3]


def test_sources_are_known_by_identity_and_others_are_not_held(maker: Maker) -> None:
    a, b = maker.sources
    held = maker.ask()
    for _ in range(2):
        assert maker.ask(sources=(a.copy(), b)) is not held
    assert (maker.n, len(maker.shelf)) == (3, 1)


def test_other_sources_drop_what_was_made_of_these(maker: Maker) -> None:
    a, b = maker.sources
    both, first = maker.ask(), maker.ask(sources=(a,))
    maker.shelf.begin([a, np.ones(1)])
    assert len(maker.shelf) == 1
    assert maker.ask(sources=(a,)) is first
    maker.shelf.begin([a, b])
    assert maker.ask() is not both


def test_the_oldest_go_when_it_is_full(maker: Maker) -> None:
    first = maker.ask(0, size=40)
    second = maker.ask(1, size=40)
    assert maker.ask(0, size=40) is first
    maker.ask(2, size=40)
    assert len(maker.shelf) == 2
    assert maker.ask(0, size=40) is first
    assert maker.ask(1, size=40) is not second


def test_what_is_larger_than_the_shelf_is_not_held_and_pushes_nothing_out(maker: Maker) -> None:
    small = maker.ask(0, size=90)
    assert maker.ask(1, size=101) is not maker.ask(1, size=101)
    assert maker.ask(0) is small


def test_values_that_grow_are_measured_again() -> None:
    shelf, sizes = Shelf(most_bytes=100), {0: 10, 1: 10, 2: 10}
    shelf.begin(())
    for i in (0, 1):
        shelf.once("x", (), i, lambda i=i: i, lambda value: sizes[value])
    sizes[0] = 95
    shelf.once("x", (), 2, lambda: 2, lambda value: sizes[value])
    made = []
    shelf.once("x", (), 1, lambda: made.append(1), lambda value: 0)
    shelf.once("x", (), 0, lambda: made.append(0), lambda value: 0)
    assert made == [0]


def test_there_are_only_so_many(maker: Maker) -> None:
    for i in range(MOST_ENTRIES + 5):
        maker.ask(i, size=0)
    assert len(maker.shelf) == MOST_ENTRIES


def test_what_was_spared_is_what_making_it_had_cost() -> None:
    shelf = Shelf()
    shelf.begin(())

    def slow(name: str, seconds: float, *inside: Any) -> str:
        def make() -> str:
            for other in inside:
                slow(*other)
            time.sleep(seconds)
            return name

        return shelf.once("x", (), name, make, len)

    slow("a", 0.02)
    assert shelf.take_spared() == (0.0, 0.0)
    # b is made with a found: that is spared now, and part of what b costs whoever finds it
    slow("b", 0.01, ("a", 0.02))
    assert 0.02 <= shelf.take_spared()[0] < 0.03
    slow("b", 0.01, ("a", 0.02))
    assert 0.03 <= shelf.take_spared()[0] < 0.06
    assert shelf.take_spared() == (0.0, 0.0)


def test_work_of_the_processor_is_counted_too(maker: Maker) -> None:
    def make() -> float:
        began = time.process_time()
        while time.process_time() < began + 0.02:
            pass
        return 0.0

    for _ in range(2):
        maker.shelf.once("x", (), "busy", make, lambda value: 8)
    assert maker.shelf.take_spared()[1] >= 0.02


def test_what_fails_is_not_held(maker: Maker) -> None:
    with sharing(maker.shelf), pytest.raises(ZeroDivisionError):
        once("x", maker.sources, None, lambda: 1 // 0, lambda value: 1)
    assert maker.ask() == [1]


def test_a_shelf_is_open_in_its_block_and_thread_alone(maker: Maker) -> None:
    held = maker.ask()

    def ask() -> Any:
        return once("x", maker.sources, None, lambda: "made", lambda value: 1)

    assert ask() == "made"
    with sharing(maker.shelf):
        assert ask() is held
        with sharing(None):
            assert ask() == "made"
        assert ask() is held
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(ask()))
        thread.start()
        thread.join()
        assert found == ["made"]
    assert ask() == "made"
