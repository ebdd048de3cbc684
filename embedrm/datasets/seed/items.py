"""What a domain module makes of a record, and the random choices that stay put when tables grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random

SEED = 20260101
_SPLITS = ("train", "test", "train", "train", "validation", "train", "test", "train", "train", "test")


@dataclass
class Item:
    """One prompt with its responses.

    Parameters
    ----------
    prompt : str
    responses : list of str
    gold : list of float
        The grade that the check gives each response.
    pairs : list of (int, int)
        Rows of responses, chosen first; empty for K-wise items.
    check : str
        The check that earned the labels.
    template : str
        The phrasing of the prompt, for splits that hold phrasings out.
    """

    prompt: str
    responses: list[str]
    gold: list[float]
    check: str
    template: str
    pairs: list[tuple[int, int]] = field(default_factory=list)


def rng(*key: str) -> Random:
    """Return a generator that depends on the key alone, so that one record's draws never move another's."""
    return Random("/".join([str(SEED), *key]))


def split_of(position: int) -> str:
    """Return the split of the record at a position of its table: six parts train, one validation, three test.

    The position decides, because it never changes: tables are only appended to.
    """
    return _SPLITS[position % len(_SPLITS)]


def deal(position: int, n: int, *key: str) -> int:
    """Return a number below ``n`` for a position, every number once in each round of ``n`` positions."""
    cards = list(range(n))
    rng("deal", str(position // n), *key).shuffle(cards)
    return cards[position % n]


def combine(position: int, pools: Sequence[Sequence[str]], *key: str) -> list[str]:
    """Return one element of each pool at random; no two positions of a key get the same combination.

    The combinations are drawn one after another, position by position, and one that was drawn before is drawn again;
    once all have been used, the next round begins. A position's draw does not depend on later ones.
    """
    total = 1
    for pool in pools:
        total *= len(pool)
    drawn = _drawn(total, *key)
    turn, place = divmod(position, total)
    while len(drawn.order) <= place:
        drawn.draw()
    index = (drawn.order[place] + turn) % total
    picked = []
    for pool in pools:
        index, rest = divmod(index, len(pool))
        picked.append(pool[rest])
    return picked


class _Drawn:
    def __init__(self, total: int, *key: str) -> None:
        self.total, self.random = total, rng("combine", *key)
        self.order: list[int] = []
        self.seen: set[int] = set()

    def draw(self) -> None:
        while (index := self.random.randrange(self.total)) in self.seen:
            pass
        self.seen.add(index)
        self.order.append(index)


@cache
def _drawn(total: int, *key: str) -> _Drawn:
    return _Drawn(total, *key)


def words(text: str) -> int:
    """Number of words, counted as runs of non-space."""
    return len(text.split())


def lower_first(text: str) -> str:
    """Return the text with a small first letter."""
    return text[:1].lower() + text[1:]
