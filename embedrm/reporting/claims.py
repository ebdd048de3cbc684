"""The claims table: what a paper says, what was measured here, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedrm.reporting.tables import Column, Table


def claims_table(claims: Sequence[Mapping[str, Any]], name: str = "claims") -> Table:
    """Table of judged claims (:meth:`embedrm.evaluation.claims.Claim.judge`)."""
    columns = [
        Column("statement", "Claim"),
        Column("setting", "Here"),
        Column("quantity", "Measured"),
        Column("cell", "Value", "interval"),
        Column("verdict", "Verdict"),
        Column("source", "Source"),
    ]
    rows = [
        {key: claim[key] for key in ("statement", "setting", "quantity", "verdict", "source")}
        | {"cell": {"value": claim["measured"], "low": claim["interval"][0], "high": claim["interval"][1]}}
        for claim in claims
    ]
    caption = (
        "A claim holds where the whole interval lies where the claim says, does not hold where none of it does, and is "
        "undecided otherwise. A verdict speaks of this setting and these data."
    )
    return Table(name, "Claims and verdicts", columns, rows, caption=caption)
