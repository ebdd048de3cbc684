"""Messages of three degrees of politeness: requests and replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from embedrm.datasets.attribute_texts.draws import Draw, fill, spell
from embedrm.datasets.attribute_texts.tables import table

_FIELDS = {1.0: "polite", 0.5: "neutral", 0.0: "rude"}


@cache
def situations() -> Mapping[str, Sequence[str]]:
    """Return the situations of each topic, in order."""
    found: dict[str, list[str]] = {}
    for name, fields in table("situations").items():
        found.setdefault(fields["topic"][0], []).append(name)
    return found


def write_message(topic: str, score: float, draw: Draw) -> str:
    """Return a message on one topic; ``score`` is 1 (polite), 0.5 (plain) or 0 (rude)."""
    about = table("situations")[draw.one(situations()[topic])]
    shared = table("messages")
    templates = shared["reply" if "matter" in about else "request"][_FIELDS[score]]
    ask, _, asking = draw.one(about["ask"]).partition("|")

    def slot(name: str) -> str:
        if name in ("ask", "asking"):
            return (ask if name == "ask" else asking).strip()
        return draw.one(about[name] if name in about else shared[name]["text"])

    return spell(fill(draw.one(templates), slot))
