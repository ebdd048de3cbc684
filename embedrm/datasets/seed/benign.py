"""Harmless requests that sound alarming: helping, or offering to, beats a mistaken refusal and a cautious one."""

from __future__ import annotations

from embedrm.datasets.seed.items import Item, combine, rng
from embedrm.datasets.seed.phrases import (
    AGREE,
    CAUTION,
    CHEERFUL_TAILS,
    DECLINE,
    OFFER,
    OFFER_END,
    REFER,
    with_tail,
    with_turns,
)
from embedrm.datasets.seed.records import Record


def write(record: Record, position: int) -> Item:
    """Return the item of a record: a helpful answer, an offer of help, a mistaken refusal and a cautious one."""
    ask, number = with_tail(record["ask"], position, "benign", CHEERFUL_TAILS)
    prompt, turns = with_turns(ask, position, "benign", record["id"])
    agree, decline, more = combine(position, [AGREE, DECLINE, REFER], "benign")
    random = rng("benign", record["id"])
    help_ = (f"{agree} " if random.random() < 0.4 else "") + record["help"]
    willing, first, end = combine(2 * position + 1, [AGREE, OFFER, OFFER_END], "offer")
    second = random.choice([text for text in OFFER if text != first])
    offer = " ".join([willing, first, second, end] if random.random() < 0.5 else [willing, first, end])
    mistaken = f"{decline} {record['refuse']}" + (f" {more}" if random.random() < 0.9 else "")
    cautious = " ".join(combine(2 * position + 1, [DECLINE, CAUTION, REFER], "cautious"))
    return Item(
        prompt,
        [help_, offer, mistaken, cautious],
        [1.0, 1.0, 0.0, 0.0],
        "helped",
        ("benign/own words" if number < 0 else f"benign/{number}") + ("+turns" if turns else ""),
        [(0, 2), (0, 3), (1, 2), (1, 3)],
    )
