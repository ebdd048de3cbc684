"""Facts of nature, graded; see :mod:`embedrm.datasets.seed.facts`."""

from __future__ import annotations

from embedrm.datasets.seed.facts import write as write_fact
from embedrm.datasets.seed.items import Item
from embedrm.datasets.seed.records import Record


def write(record: Record, position: int) -> Item:
    """Return the item of a record."""
    return write_fact(record, position, "science")
