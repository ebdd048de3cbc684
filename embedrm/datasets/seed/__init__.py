"""The seed data set's generator: prompts and responses written for this project, every label earned by a check.

``python -m embedrm.datasets.seed`` writes ``data/seed_pairs.jsonl.gz`` and ``data/seed_kwise.jsonl.gz`` again, byte for
byte. Each domain is one module here with its material in ``tables/``: a new record at the end of a table is a new
prompt, and changes none of the rows that exist.
"""

from __future__ import annotations

SOURCE = "embedrm-seed"
"""What the ``source`` field of every row says."""

PAIR_DOMAINS = ("arithmetic", "brief", "explain", "harmful", "benign")
"""Domains whose rows are chosen/rejected pairs."""

KWISE_DOMAINS = ("code", "science", "history")
"""Domains whose rows are graded lists of responses."""

DOMAINS = (*PAIR_DOMAINS, *KWISE_DOMAINS)
