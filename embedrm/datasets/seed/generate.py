"""All rows of the seed data set, and the bytes of its files."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from embedrm.datasets.seed import (
    KWISE_DOMAINS,
    PAIR_DOMAINS,
    SOURCE,
    arithmetic,
    benign,
    brief,
    code,
    explain,
    harmful,
    history,
    science,
)
from embedrm.datasets.seed.checks import check_rows
from embedrm.datasets.seed.items import Item, split_of
from embedrm.datasets.seed.records import load
from embedrm.datasets.seed.sandbox import run
from embedrm.errors import DataError

_WRITERS = {
    "arithmetic": arithmetic.write,
    "brief": brief.write,
    "explain": explain.write,
    "harmful": harmful.write,
    "benign": benign.write,
    "science": science.write,
    "history": history.write,
}

FILES = ("seed_pairs.jsonl.gz", "seed_kwise.jsonl.gz")
"""The pair file and the K-wise file."""


def items(domain: str) -> list[tuple[str, str, Item]]:
    """Return (group, split, item) for every record of a domain, in the order of its table."""
    records = load(domain)
    if domain == "code":
        programs = [program for record in records for program in code.programs(record)]
        shares = [sum(passed) / len(passed) for passed in run(programs)]
        made = [code.write(record, i, shares[4 * i : 4 * i + 4]) for i, record in enumerate(records)]
    else:
        made = [_WRITERS[domain](record, i) for i, record in enumerate(records)]
    return [
        (f"{domain}/{record['id']}", split_of(position), item)
        for position, (record, item) in enumerate(zip(records, made))
    ]


def rows() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Make the data set and check it.

    Returns
    -------
    pairs, kwise : lists of dict
        Rows of the pair file (``prompt, chosen, rejected, domain, source, split, group, check, template``) and of the
        K-wise file (``responses`` and ``gold`` in place of ``chosen`` and ``rejected``).

    Raises
    ------
    DataError
        Where a check does not confirm a label, or a text occurs twice.
    """
    pairs: list[dict[str, Any]] = []
    kwise: list[dict[str, Any]] = []
    owner: dict[str, str] = {}
    for domain in (*PAIR_DOMAINS, *KWISE_DOMAINS):
        for group, split, item in items(domain):
            for text in (item.prompt, *item.responses):
                if owner.setdefault(text, group) != group or len(set(item.responses)) != len(item.responses):
                    raise DataError(f"{group} and {owner[text]} have a text in common; change one of the records.")
            tail = {"domain": domain, "source": SOURCE, "split": split, "group": group}
            tail |= {"check": item.check, "template": item.template}
            if domain in KWISE_DOMAINS:
                kwise.append({"prompt": item.prompt, "responses": item.responses, "gold": item.gold, **tail})
            for chosen, rejected in item.pairs:
                texts = {"chosen": item.responses[chosen], "rejected": item.responses[rejected]}
                pairs.append({"prompt": item.prompt, **texts, **tail})
    check_rows([*pairs, *kwise])
    return pairs, kwise


def json_lines(table: Iterable[dict[str, Any]]) -> bytes:
    """Return rows as UTF-8 JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table).encode()


def pack(content: bytes) -> bytes:
    """Return bytes packed with gzip, without a name or a time."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as stream:
        stream.write(content)
    return packed.getvalue()


def contents() -> dict[str, bytes]:
    """Return the unpacked content of each file."""
    return dict(zip(FILES, map(json_lines, rows())))


def digest(content: bytes) -> str:
    """Return 32 hex digits (BLAKE2b-128)."""
    return blake2b(content, digest_size=16).hexdigest()
