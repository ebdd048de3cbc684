"""The hand-written tables of the grammar: records of phrases, separated by semicolons."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from embedrm.datasets.domains.records import Record, parse

REVIEWS = (
    *("film", "restaurant", "hotel", "book", "concert", "phone"),
    *("museum", "theatre", "course", "shop", "game", "journey"),
)
"""Topics of reviews; each has a table of its name."""


@cache
def table(name: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return a table: for each record, by id, the phrases of each field, in order."""
    records = parse(_text(name), f"{name}.txt")
    return {record["id"]: _fields(record, whole=name == "messages") for record in records}


def _fields(record: Record, whole: bool) -> dict[str, tuple[str, ...]]:
    """Split the fields; templates may hold semicolons of their own, so those of messages are one a line."""
    found = {}
    for field in record:
        if field != "id":
            lines = record.all(field)
            templates = (whole and field != "text") or record["id"] in ("same", "mixed")
            found[field] = tuple(lines) if templates else tuple(_parts(lines))
    return found


def _parts(lines: list[str]) -> Iterator[str]:
    for line in lines:
        yield from (part.strip() for part in line.split(";") if part.strip())


def _text(name: str) -> str:
    return files(__package__).joinpath("tables", f"{name}.txt").read_text(encoding="utf-8")


def tables_digest() -> str:
    """Return 32 hex digits that name the content of all tables."""
    digest = hashlib.blake2b(digest_size=16)
    for name in (*REVIEWS, "reviews", "messages", "situations"):
        digest.update(f"{name}\n{_text(name)}\n".encode())
    return digest.hexdigest()
