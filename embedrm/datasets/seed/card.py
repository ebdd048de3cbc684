"""The tables of the data set card, written between markers in ``data/README.md``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from embedrm.datasets.seed import DOMAINS
from embedrm.datasets.seed.generate import FILES, digest
from embedrm.datasets.seed.measure import count_table, length_table, text_table
from embedrm.errors import DataError

_MARK = re.compile(r"(<!-- seed:begin (\w+) -->\n).*?(<!-- seed:end -->)", re.DOTALL)


def tables(rows: Sequence[Mapping[str, Any]], contents: Mapping[str, bytes]) -> dict[str, str]:
    """Return the generated parts of the card by name."""
    files = ["| file | rows | bytes, unpacked | BLAKE2b-128 of the content |", "|---|---|---|---|"]
    for name in FILES:
        content = contents[name]
        cells = name, f"{content.count(b'}' + chr(10).encode()):,}", f"{len(content):,}", f"`{digest(content)}`"
        files.append("| " + " | ".join(cells) + " |")
    return {
        "files": "\n".join(files),
        "counts": count_table(rows, DOMAINS),
        "texts": text_table(rows, DOMAINS),
        "length": length_table(rows, DOMAINS),
    }


def fill(card: str, parts: Mapping[str, str]) -> str:
    """Return the card with every part between its markers.

    Raises
    ------
    DataError
        Where a part has no markers in the card, or markers have no part.
    """
    names = [found[2] for found in _MARK.finditer(card)]
    if sorted(names) != sorted(parts):
        raise DataError(f"the card has markers for {sorted(names)}, expected {sorted(parts)}.")
    return _MARK.sub(lambda found: f"{found[1]}{parts[found[2]]}\n{found[3]}", card)
