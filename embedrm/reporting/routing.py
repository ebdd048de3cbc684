"""Tables and figures of routing facts: where prompts go, how sure the router is, and what wrong routes cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedrm.reporting.accuracy import sample_sentence
from embedrm.reporting.figures import Figure
from embedrm.reporting.tables import Column, Table

_TEXT_SHOWN = 160


def router_table(facts: Mapping[str, Any], name: str = "router") -> Table:
    """Precision, recall and F1 of every domain; ``facts`` of :func:`embedrm.evaluation.routing.router_facts`."""
    columns = [
        Column("domain", "Domain"),
        Column("recall", "recall", "share", best="max", note="share of the domain's prompts that are routed to it"),
        Column(
            "precision", "precision", "share", best="max", note="share of the prompts routed to it that are its own"
        ),
        Column("f1", "F1", "share", best="max"),
        Column("n", "prompts", "integer"),
        Column("n_routed", "routed there", "integer"),
    ]
    accuracy, calibration, rejection = facts["accuracy"], facts["calibration"], facts["rejection"]
    caption = (
        f"{facts['n']:,} prompts of {facts['n_groups']:,} prompt groups. Accuracy {accuracy['value']:.1%} "
        f"[{accuracy['low']:.1%}, {accuracy['high']:.1%}], {facts['confidence']:.0%} interval over {facts['n_resamples']:,} "
        f"bootstrap draws of whole prompt groups; mean F1 of the domains {facts['macro_f1']:.3f}. Mean probability of the "
        f"route {calibration['confidence']:.1%}, expected calibration error {calibration['ece']:.3f} "
        f"({calibration['ece_by_chance']:.3f} by chance)."
    )
    if rejection["coverage"] < 1.0:
        sure = "none" if rejection["accuracy"] is None else f"{rejection['accuracy']:.1%}"
        caption += (
            f" The router accepts {rejection['coverage']:.1%} of the prompts and routes {sure} of these rightly, "
            f"{rejection['accuracy_of_rejected']:.1%} of the others."
        )
    if facts["unknown"]:
        unknown = ", ".join(f"{domain} ({n:,})" for domain, n in facts["unknown"].items())
        caption += f" Domains that it does not know, and so misrouted: {unknown}."
    rows = [{column.key: row[column.key] for column in columns} for row in facts["classes"]]
    return Table(name, "Finding the domain", columns, rows, caption=caption)


def confusion_table(facts: Mapping[str, Any], name: str = "confusion") -> Table:
    """Counts of prompts by true domain (rows) and route (columns)."""
    confusion = facts["confusion"]
    columns = [Column("truth", "true domain")]
    columns += [Column(f"d{i}", domain, "integer") for i, domain in enumerate(confusion["classes"])]
    rows = [
        {"truth": domain, **{f"d{i}": n for i, n in enumerate(counts)}}
        for domain, counts in zip(confusion["domains"], confusion["counts"])
    ]
    caption = f"{facts['n']:,} prompts by true domain (rows) and route (columns)."
    return Table(name, "Where the router sends prompts", columns, rows, caption=caption)


def confusion_figure(facts: Mapping[str, Any], name: str = "confusion") -> Figure:
    """Heat map of the routes of each true domain, as shares of its prompts."""
    confusion = facts["confusion"]
    data = {
        "rows": confusion["domains"],
        "columns": confusion["classes"],
        "values": [[n / sum(counts) for n in counts] for counts in confusion["counts"]],
        "row_label": "true domain",
        "column_label": "routed to",
        "value_label": "share of the domain's prompts",
        "limits": [0.0, 1.0],
    }
    caption = f"Each row sums to one; the diagonal is recall. {facts['n']:,} prompts."
    return Figure(name, "Where the router sends prompts", "heatmap", data, caption=caption)


def misrouted_table(facts: Mapping[str, Any], name: str = "misrouted") -> Table:
    """List the prompts that are routed wrongly with the largest margin."""
    rows = facts["misrouted"]
    columns = [
        Column("row", "prompt", "integer", note="row among the prompts that were judged"),
        Column("domain", "true domain"),
        Column("routed", "routed to"),
        Column("probability", "probability of the route", "share"),
        Column("margin", "margin", "share", note="less the probability of the true domain"),
    ]
    with_text = any("text" in row for row in rows)
    columns += [Column("text", "text")] if with_text else []
    shown = [{column.key: row.get(column.key) for column in columns} for row in rows]
    for row in shown:
        if with_text and row["text"] is not None and len(row["text"]) > _TEXT_SHOWN:
            row["text"] = row["text"][:_TEXT_SHOWN].rstrip() + " …"
    caption = f"The {len(rows):,} most confidently misrouted of {facts['n_misrouted']:,} misrouted prompts."
    caption += f" Texts are cut after {_TEXT_SHOWN} characters." if with_text else ""
    return Table(name, "Misrouted prompts", columns, shown, caption=caption)


def regret_table(facts: Mapping[str, Any], name: str = "regret") -> Table:
    """Regret of each routing, micro, macro and by domain; ``facts`` of :func:`embedrm.evaluation.routing.regret_facts`."""
    split = any("misrouted" in row for row in facts["rows"])
    columns = [
        Column("routing", "Routing"),
        Column("accuracy", "accuracy", "share", best="max", note="micro"),
        Column("macro", "regret, macro", "interval", best="min"),
        Column("micro", "regret, micro", "interval", best="min"),
    ]
    if split:
        columns += [
            Column(
                "misrouted", "on misrouted", "number", digits=3, note="mean regret of pairs with a misrouted prompt"
            ),
            Column("n_misrouted", "misrouted pairs", "integer"),
            Column("well_routed", "on well routed", "number", digits=3),
        ]
    columns += [
        Column(f"d{i}", domain, "interval", note=f"{facts['n_by_domain'][domain]:,} pairs")
        for i, domain in enumerate(facts["domains"])
    ]
    keys = ("value", "low", "high")
    rows = []
    for row in facts["rows"]:
        shown: dict[str, Any] = {"routing": row["routing"], "accuracy": row["accuracy"]}
        shown |= {what: {key: row[what][key] for key in keys} for what in ("macro", "micro")}
        if split:
            shown |= {what: row[what]["value"] for what in ("misrouted", "well_routed")}
            shown["n_misrouted"] = row["misrouted"]["n"]
        for i, domain in enumerate(facts["domains"]):
            shown[f"d{i}"] = {key: row["domains"][domain][key] for key in keys}
        rows.append(shown)
    caption = (
        f"Accuracy under oracle routing ({facts['oracle']['micro']:.1%} micro, {facts['oracle']['macro']:.1%} macro) less "
        f"accuracy under each routing of the same experts; below zero it is above the oracle's. {sample_sentence(facts)}"
    )
    return Table(name, "What wrong routes cost", columns, rows, caption=caption)


def routing_section(router: Mapping[str, Any], regret: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the tables and figures of a report's section on routing."""
    tables = [router_table(router), confusion_table(router)]
    tables += [misrouted_table(router)] if router["misrouted"] else []
    tables += [regret_table(regret)] if regret is not None else []
    return {"tables": tables, "figures": [confusion_figure(router)]}
