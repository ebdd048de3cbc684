"""Draws from phrases, and the spelling of what is put together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random

_SLOT = re.compile(r"\{([^{}]+)\}")
_SENTENCE = re.compile(r"(^|[.?!] +)([a-z])")
_ARTICLE = re.compile(r"\b([Aa]) (?=(?:[aeiou]|hour|honest))(?!(?:uni(?:que|ver|t|on)|use|usu|one|eu))")
# A phrase with a mark of its own takes no full stop.
_STOPS = re.compile(r"([?!])[.?]")
PERSONS = (
    {"I": "I", "me": "me", "my": "my", "am": "am", "was": "was"},
    {"I": "we", "me": "us", "my": "our", "am": "are", "was": "were"},
)
"""What the slots of the person stand for: one writer, or several."""


class Draw:
    """Chance, and which phrases a text has used already.

    Parameters
    ----------
    seed : str
    """

    def __init__(self, seed: str) -> None:
        self._random = Random(seed)
        self._used: set[str] = set()

    def new_text(self) -> None:
        """Forget the phrases of the text before."""
        self._used.clear()

    def chance(self, share: float) -> bool:
        """Return True in this share of all cases."""
        return self._random.random() < share

    def one(self, choices: Sequence[str]) -> str:
        """Return one of several phrases, rather one that the text does not have."""
        for _ in range(4):
            found = choices[int(self._random.random() * len(choices))]
            if found not in self._used:
                break
        self._used.add(found)
        return found

    def several(self, choices: Sequence[str], n: int) -> list[str]:
        """Return n different ones, in an order of chance."""
        left = list(choices)
        return [left.pop(int(self._random.random() * len(left))) for _ in range(min(n, len(left)))]


def fill(template: str, slots: Mapping[str, str] | Callable[[str], str]) -> str:
    """Replace every ``{name}`` of a template."""
    get = slots if callable(slots) else slots.__getitem__
    return _SLOT.sub(lambda match: get(match.group(1)), template)


def spell(text: str) -> str:
    """Begin sentences with capitals, and set "an" before vowels."""
    text = _STOPS.sub(r"\1", text)
    text = _ARTICLE.sub(r"\1n ", text)
    return _SENTENCE.sub(lambda match: match.group(1) + match.group(2).upper(), text)
