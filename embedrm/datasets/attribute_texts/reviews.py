"""Reviews of positive, negative or mixed sentiment."""

from __future__ import annotations

from embedrm.datasets.attribute_texts.draws import PERSONS, Draw, fill, spell
from embedrm.datasets.attribute_texts.tables import table

_GOOD, _BAD = "good", "bad"
_VERDICTS_OF_THE_TOPIC = 0.7
_ACTIVE, _TWO, _FOUND, _GRADED = 0.3, 0.15, 0.35, 0.4


def write_review(topic: str, score: float, draw: Draw) -> str:
    """Return a review of one topic; ``score`` is 1 (positive), 0 (negative) or 0.5 (mixed)."""
    return spell(_Review(topic, score, draw).text())


class _Review:
    def __init__(self, topic: str, score: float, draw: Draw) -> None:
        self.draw, self.score = draw, score
        self.shared, self.sides = table("reviews"), dict(table(topic))
        self.topic = self.sides.pop(topic)
        whole = self.sides.pop("whole")
        names = draw.several(list(self.sides), 3)
        self.about = {"S": whole, **{slot: self.sides[name] for slot, name in zip("ABC", names, strict=True)}}
        self.person = PERSONS[draw.chance(0.4)]
        self.good = score == 1.0 or (score == 0.5 and draw.chance(0.5))

    def text(self) -> str:
        kind = "mixed" if self.score == 0.5 else "same"
        return fill(fill(self.draw.one(self.shared[kind]["text"]), self.slot), self.slot)

    def slot(self, name: str) -> str:
        if name in self.person:
            return self.person[name]
        if name in ("setting", "it", "seen", "waiting"):
            return self.inner(self.draw.one(self.topic[name]))
        if name == "verdict":
            return self.inner(self.verdict())
        if name == "reaction":
            return self.inner(self.draw.one(self.topic[f"reaction_{self.side(self.good)}"]))
        if name == "a":
            return f"a {self.described()} {self.draw.one(self.topic['head'])}"
        if name == "most":
            return f"the {'best' if self.good else 'worst'}"
        return self.inner(self.opinion(name))

    def inner(self, phrase: str) -> str:
        return fill(phrase, lambda name: self.person.get(name) or self.slot(name))

    def side(self, good: bool) -> str:
        return _GOOD if good else _BAD

    def verdict(self) -> str:
        which = "mixed" if self.score == 0.5 else self.side(self.good)
        own = self.draw.chance(_VERDICTS_OF_THE_TOPIC)
        return self.draw.one(
            (self.topic if own else self.shared[f"verdict_{which}"])[f"verdict_{which}" if own else "text"]
        )

    def described(self) -> str:
        words = self.topic[f"attr_{self.side(self.good)}"]
        return ", ".join(self.draw.several(words, 1 + self.draw.chance(0.3)))

    def opinion(self, name: str) -> str:
        """Return a clause: S, A, B or C; after a t as somebody's opinion, before a ' turned round, before a 0 lukewarm."""
        about = self.about[name.strip("t'0")]
        side = self.side(self.good is not name.endswith("'"))
        noun, verb = self.subject(about)
        if name.endswith("0"):
            return self.whose(name, f"{noun} {verb} {self.draw.one(self.shared['fair']['text'])}")
        if name.startswith("t") and self.draw.chance(_FOUND):
            return f"{{I}} found {noun} {self.said(about, side)}"
        if f"does_{side}" in about and self.draw.chance(_ACTIVE):
            return self.whose(name, f"{noun} {self.draw.one(about[f'does_{side}'])}")
        told = self.said(about, side)
        if self.draw.chance(_TWO) and " and " not in told and "," not in told:
            other = self.draw.one([one for one in about[side] if " and " not in one and one.strip("~") not in told])
            told = f"{told} and {self.graded(other)}"
        return self.whose(name, f"{noun} {verb} {told}")

    def subject(self, about: dict[str, tuple[str, ...]]) -> tuple[str, str]:
        one, many = about.get("one", ()), about.get("many", ())
        noun = self.draw.one((*one, *many))
        return noun, "was" if noun in one else "were"

    def said(self, about: dict[str, tuple[str, ...]], side: str) -> str:
        return self.graded(self.draw.one(about[side]))

    def graded(self, phrase: str) -> str:
        """A ~ stands before what comes in degrees."""
        more = "~" in phrase and self.draw.chance(_GRADED)
        plain = phrase.replace("~", "")
        return f"{self.draw.one(self.shared['degree']['text'])} {plain}" if more else plain

    def whose(self, name: str, clause: str) -> str:
        return f"{self.draw.one(self.shared['whose']['text'])} {clause}" if name.startswith("t") else clause
