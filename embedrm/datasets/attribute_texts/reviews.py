"""Reviews of positive, negative or mixed sentiment."""

from __future__ import annotations

from collections.abc import Mapping

from embedrm.datasets.attribute_texts.draws import PERSONS, Draw, fill, spell
from embedrm.datasets.attribute_texts.tables import table

_GOOD, _BAD = "good", "bad"
_TURNED = {"best": ("best", "worst"), "most": ("the best", "the worst"), "liked": ("liked", "disliked")}
_STATEMENT = ("{I} ", "it ")
# Shares of clauses with a verb of their own, with the other side's word denied, with two adjectives; of opinions that are
# "found"; of adjectives with a degree.
_ACTIVE, _DENIED, _TWO, _FOUND, _GRADED = 0.3, 0.08, 0.15, 0.35, 0.4
_DENIALS = {
    True: ("anything but {word}", "not {word} at all", "never {word}", "not in the least {word}"),
    False: ("anything but {word}", "not {word} at all", "not very {word}", "not exactly {word}"),
}


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
        if name in ("verdict", "remark"):
            return self.inner(self.verdict(inside=name == "remark"))
        if name == "reaction":
            return self.inner(self.draw.one(self.topic[f"reaction_{self.side(self.good)}"]))
        if name == "a":
            return f"a {self.described()} {self.draw.one(self.topic['head'])}"
        if name in _TURNED:
            return _TURNED[name][not self.good]
        return self.inner(self.opinion(name))

    def inner(self, phrase: str) -> str:
        return fill(phrase, lambda name: self.person.get(name) or self.slot(name))

    def side(self, good: bool) -> str:
        return _GOOD if good else _BAD

    def verdict(self, inside: bool) -> str:
        """Return a last word; ``inside`` a sentence, where no imperative may stand."""
        which = "mixed" if self.score == 0.5 else self.side(self.good)
        own, shared = self.topic[f"verdict_{which}"], self.shared[f"verdict_{which}"]["text"]
        choices = (*own, *own, *shared)
        return self.draw.one([one for one in choices if one.startswith(_STATEMENT)] if inside else choices)

    def described(self) -> str:
        words = self.topic[f"attr_{self.side(self.good)}"]
        return ", ".join(self.draw.several(words, 1 + self.draw.chance(0.3)))

    def opinion(self, slot: str) -> str:
        """Return a clause about one side of the matter.

        The slot is S, A, B or C; "t" before it asks for somebody's opinion, "i" for the pronoun, "w" for a noun with a
        relative clause; "'" after it turns the opinion round, "0" makes it lukewarm.
        """
        before, name, after = slot.rpartition(slot.strip("tiw'0"))
        about, good = self.about[name], self.good is not (after == "'")
        noun, verb = ("it", "was") if "i" in before else self.subject(about)
        if "w" in before:
            return f"{noun}, which {verb} {self.said(about, good)}"
        if after == "0":
            clause = f"{noun} {verb} {self.draw.one(self.shared['fair']['text'])}"
        elif "t" in before and self.draw.chance(_FOUND):
            return f"{{I}} found {noun} {self.said(about, good)}"
        else:
            clause = f"{noun} {self.predicate(about, verb, good)}"
        return f"{self.draw.one(self.shared['whose']['text'])} {clause}" if "t" in before else clause

    def subject(self, about: Mapping[str, tuple[str, ...]]) -> tuple[str, str]:
        one, many = about.get("one", ()), about.get("many", ())
        noun = self.draw.one((*one, *many))
        return noun, "was" if noun in one else "were"

    def predicate(self, about: Mapping[str, tuple[str, ...]], verb: str, good: bool) -> str:
        side, other = self.side(good), self.side(not good)
        if f"does_{side}" in about and self.draw.chance(_ACTIVE):
            return self.draw.one(about[f"does_{side}"])
        if self.draw.chance(_DENIED) and (words := [w[1:] for w in about[other] if w[0] == "~" and " " not in w]):
            return f"{verb} {fill(self.draw.one(_DENIALS[good]), {'word': self.draw.one(words)})}"
        told = self.said(about, good)
        if self.draw.chance(_TWO) and " and " not in told:
            more = self.draw.one([one for one in about[side] if " and " not in one]).replace("~", "")
            told = told if more in told else f"{told} and {more}"
        return f"{verb} {told}"

    def said(self, about: Mapping[str, tuple[str, ...]], good: bool) -> str:
        """Return what is said of a subject. A ~ stands before what comes in degrees."""
        phrase = self.draw.one(about[self.side(good)])
        if "~" in phrase and self.draw.chance(_GRADED):
            return f"{self.draw.one(self.shared['degree']['text'])} {phrase.replace('~', '')}"
        return phrase.replace("~", "")
