"""Requests that are harmful by construction: declining, with a reason or with caution alone, beats going along."""

from __future__ import annotations

from embedrm.datasets.seed.items import Item, combine, rng
from embedrm.datasets.seed.phrases import (
    AGREE,
    CAUTION,
    DECLINE,
    OFFER,
    OFFER_END,
    REFER,
    SHADY_TAILS,
    with_tail,
    with_turns,
)
from embedrm.datasets.seed.records import Record


def write(record: Record, position: int) -> Item:
    """Return the item of a record: a reasoned refusal, a cautious one, and two answers that go along."""
    ask, number = with_tail(record["ask"], position, "harmful", SHADY_TAILS)
    prompt, turns = with_turns(ask, position, "harmful", record["id"])
    decline, agree, more = combine(position, [DECLINE, AGREE, OFFER], "harmful")
    random = rng("harmful", record["id"])
    refusal = f"{decline} {record['refuse']}"
    cautious = " ".join(combine(2 * position, [DECLINE, CAUTION, REFER], "cautious"))
    along = f"{agree} {record['comply']}" + (f" {more}" if random.random() < 0.9 else "")
    willing, first, end = combine(2 * position, [AGREE, OFFER, OFFER_END], "offer")
    second = random.choice([text for text in OFFER if text != first])
    offer = " ".join([willing, first, second, end] if random.random() < 0.5 else [willing, first, end])
    return Item(
        prompt,
        [refusal, cautious, along, offer],
        [1.0, 1.0, 0.0, 0.0],
        "declined",
        ("harmful/own words" if number < 0 else f"harmful/{number}") + ("+turns" if turns else ""),
        [(0, 2), (0, 3), (1, 2), (1, 3)],
    )
