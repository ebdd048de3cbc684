"""Attribute texts in any number, for one half and one split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from embedrm.datasets.attribute_texts.draws import Draw
from embedrm.datasets.attribute_texts.messages import situations, write_message
from embedrm.datasets.attribute_texts.reviews import write_review
from embedrm.datasets.attribute_texts.tables import REVIEWS, tables_digest
from embedrm.errors import InvalidInputError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

HALVES = ("A", "B")
SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""The splits, and their shares of all texts that the grammar can write."""
ATTRIBUTES = ("sentiment", "politeness")

# Another number where the grammar changes in code: its digest is then another one.
_VERSION = 1
_UPTO = (0.8, 0.9, 1.0)
# Of five texts two are favourable, two are not, and one is in between.
_SCORES = (1.0, 0.0, 1.0, 0.0, 0.5)
_LENGTHS = ((8, 16), (17, 20), (21, 24), (25, 35))
# So often a text of the topic and length that were drawn is looked for; then others are drawn, so often.
_TRIES = 2_000
_TURNS = 20


def write_attribute_texts(
    n: int,
    *,
    half: str = "A",
    split: str = "train",
    attributes: Sequence[str] = ATTRIBUTES,
    random_state: int = 0,
) -> pd.DataFrame:
    """Write short texts with an attribute: reviews by sentiment, messages by politeness.

    A text has 8 to 35 words in one to three sentences or a few more. Topic and length are drawn before, and apart from,
    the label, so that they do not give it away; the openings are those of either label.

    Parameters
    ----------
    n : int
        How many, shared evenly among the attributes. The first texts of a larger table are those of a smaller one.
    half : {"A", "B"}
        ``A`` is for models that guide or are guided, ``B`` for those that judge them.
    split : {"train", "validation", "test"}
        Half and split of a text are a hash of the text: no two of them ever share one, whatever n and random_state.
        They do share the clauses that texts are made of.
    attributes : sequence of {"sentiment", "politeness"}
    random_state : int

    Returns
    -------
    DataFrame
        ``text``, all different; ``attribute``; ``label``: 1 positive or polite, 0 negative or rude, NaN in between;
        ``score``: 1, 0 and 0.5; ``topic``; ``group``: the text's own, by its hash; ``split``; ``half``. Of five texts
        two have label 1, two 0, and one is in between.

    Raises
    ------
    InvalidInputError
        An unknown half, split or attribute, an attribute given twice, a number that is none, or more texts than the
        grammar finds.
    """
    import pandas as pd

    for kind, name, known in (("half of the attribute texts", half, HALVES), ("split", split, SPLITS)):
        if name not in known:
            raise unknown_name(kind, name, list(known))
    for what, number in (("n", n), ("random_state", random_state)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise InvalidInputError(f"{what} must be a whole number from 0; got {number!r}")
    if isinstance(attributes, str) or not attributes or len(set(attributes)) < len(attributes):
        raise InvalidInputError(
            f"attributes must be different names out of {', '.join(ATTRIBUTES)}; got {attributes!r}"
        )
    for name in attributes:
        if name not in ATTRIBUTES:
            raise unknown_name("attribute", name, ATTRIBUTES)
    writers = [_Writer(name, half, split, random_state) for name in attributes]
    rows = [writers[i % len(writers)].row(i // len(writers)) for i in range(n)]
    columns = ["text", "attribute", "label", "score", "topic", "group", "split", "half"]
    return pd.DataFrame(rows, columns=columns).astype({"label": "float64", "score": "float64"})


def grammar_digest() -> str:
    """Return 32 hex digits that name the grammar: its tables, and the version of its code."""
    return hashlib.blake2b(f"{_VERSION} {tables_digest()}".encode("ascii"), digest_size=16).hexdigest()


def place_of(text: str) -> tuple[str, str, str]:
    """Return the half, the split and the group of a text."""
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8)
    number = int.from_bytes(digest.digest(), "big")
    half, share = HALVES[number & 1], (number >> 1) / 2.0**63
    split = next((name for name, upto in zip(SPLITS, _UPTO) if share < upto), "test")
    return half, split, f"attribute_texts/{digest.hexdigest()}"


class _Writer:
    """The texts of one attribute, one after another."""

    def __init__(self, attribute: str, half: str, split: str, random_state: int) -> None:
        self.attribute, self.half, self.split = attribute, half, split
        self.draw = Draw(f"{attribute} {half} {split} {random_state}")
        self.write = write_review if attribute == "sentiment" else write_message
        self.topics = REVIEWS if attribute == "sentiment" else tuple(situations())
        self.seen: set[str] = set()

    def row(self, i: int) -> tuple[object, ...]:
        score = _SCORES[i % len(_SCORES)]
        self.draw.new_text()
        for _ in range(_TURNS):
            topic = self.draw.one(self.topics)
            low, high = _LENGTHS[int(self.draw.one("0123"))]
            for _ in range(_TRIES):
                self.draw.new_text()
                text = self.write(topic, score, self.draw)
                if low <= text.count(" ") + 1 <= high and text not in self.seen:
                    half, split, group = place_of(text)
                    if (half, split) == (self.half, self.split):
                        self.seen.add(text)
                        label = None if score == 0.5 else score
                        return text, self.attribute, label, score, topic, group, split, half
        raise InvalidInputError(
            f"the grammar finds hardly any more {self.attribute} texts for the split {self.split!r} of half {self.half}; "
            f"{len(self.seen):,} were found. Ask for fewer."
        )
