"""Tables, figure and words of the literal study; everything is read from its facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedrm.experiments.literal_arms import ARLISS, MORE, RODOS, SINGLE
from embedrm.experiments.literal_scores import PAPER_DOMAINS
from embedrm.reporting.accuracy import accuracy_table, sample_sentence
from embedrm.reporting.figures import Figure
from embedrm.reporting.routing import router_table
from embedrm.reporting.tables import Column, Table

if TYPE_CHECKING:
    from embedrm.experiments.literal_study import LiteralStudy
    from embedrm.reporting import Report

_ORDER = (SINGLE, RODOS, MORE, ARLISS)
TUNED, FROZEN, TRUE_ROUTES = "tuned (re-implementation)", "frozen (analogue)", "under the true domains"


def _signed(cell: dict[str, float]) -> str:
    return f"{cell['value']:+.3f} [{cell['low']:+.3f}, {cell['high']:+.3f}]"


def literal_findings(study: LiteralStudy) -> list[str]:
    """Return what to take away, one sentence each."""
    out = []
    for of in _ORDER:
        cell = study.compared[f"{of}, tuned", f"{of}, frozen"]["macro"]
        out.append(f"{of}, tuned less frozen on the same {len(study.plan.train):,} pairs (macro): {_signed(cell)}.")
    size = {row["variant"]: row for row in study.sizes}
    out.append(
        f"Parameters saved against RODOS, counted in the saved models: MoRE {size[MORE]['reduction']:.1%}, ARLISS "
        f"{size[ARLISS]['reduction']:.1%} with {len(study.plan.domains)} domains."
    )
    return out


def add_literal_sections(study: LiteralStudy, report: Report) -> None:
    """Add everything of the literal study to a report."""
    config = study.plan.config
    steps = {name: facts["steps"] for name, facts in study.tuned_facts.items()}
    text = [
        f"Encoders that are tuned, against heads on the frozen one, on the very same {len(study.plan.train):,} training "
        f"pairs: whole prompt groups, drawn from the {len(study.plan.domains)} domains by turns. Each tuned model reads "
        f"prompt and response as one text of at most {config.max_length} tokens, {config.epochs} epochs of AdamW, the best "
        f"state by the loss on {config.validation_fraction:.0%} of the prompt groups; one seed. So intervals are over "
        "prompts and say nothing of what another seed would give.",
        "RODOS: an encoder for each domain and a router, all weights tuned. ARLISS: low-rank adapters on one base, for each "
        "domain and for the router, switched in memory. MoRE: the feed-forward part of the top block once for each domain, "
        "two of them for each prompt, tuned by Bradley–Terry with load balance and without domain labels. Its gate reads a "
        "separate pass of the prompt alone through the blocks below, since in an encoder the states of prompt and response "
        "depend on each other; one gate decision a prompt, and experts in one block only, are simplifications.",
        f"Steps taken: {steps['single']:,} by the single encoder, {steps['more']:,} by MoRE, "
        f"{_range(steps, 'rodos-')} by an expert of RODOS and {_range(steps, 'arliss-')} by one of ARLISS: an expert sees "
        "its own domain's pairs alone.",
    ]
    report.add_section(
        "Literal arms: is a frozen encoder good enough?",
        text,
        [_accuracy(study), _differences(study)],
        [_figure(study)],
    )
    report.add_section(
        "Literal arms: routes",
        tables=[router_table(study.router[f"{of}, tuned"], f"tuned-router-{of.lower()}") for of in (RODOS, ARLISS)],
    )
    report.add_section("Literal arms: size, speed and cost", tables=[_sizes(study), _cost(study)])


def _range(steps: dict[str, int], start: str) -> str:
    own = [n for name, n in steps.items() if name.startswith(start) and not name.endswith("router")]
    return f"{min(own):,} to {max(own):,}" if min(own) < max(own) else f"{own[0]:,}"


def _accuracy(study: LiteralStudy) -> Table:
    groups = {}
    for row in study.accuracy["rows"]:
        name = row["model"]
        groups[name] = TRUE_ROUTES if name.endswith("oracle") else TUNED if name.endswith("tuned") else FROZEN
    rank = {group: i for i, group in enumerate((TUNED, FROZEN, TRUE_ROUTES))}
    order = {
        f"{of}, {kind}": i for i, (of, kind) in enumerate((of, kind) for of in _ORDER for kind in ("tuned", "frozen"))
    }
    rows = sorted(
        study.accuracy["rows"],
        key=lambda row: (rank[groups[row["model"]]], order.get(row["model"].removesuffix(", oracle"), len(order))),
    )
    caption = (
        "RODOS and ARLISS under hard routes, each by its own router. The analogues read the response apart from the prompt, "
        "which the router alone sees; tuned models read both as one text, and so does the head on joint texts."
    )
    return accuracy_table(
        {**study.accuracy, "rows": rows}, "literal", "Tuned and frozen on the same pairs", caption, groups=groups
    )


def _differences(study: LiteralStudy) -> Table:
    columns = [
        Column("what", "Difference"),
        Column("macro", "macro", "interval"),
        Column("p_macro", "p", "p", note="clustered by prompt group"),
        Column("micro", "micro", "interval"),
        Column("p_micro", "p", "p", note="clustered by prompt group"),
    ]
    rows = []
    for (a, b), facts in study.compared.items():
        row: dict[str, Any] = {"what": f"{a} − {b}"}
        for part in ("macro", "micro"):
            row |= {part: {k: facts[part][k] for k in ("value", "low", "high")}, f"p_{part}": facts[part]["p"]}
        rows.append(row)
    return Table("literal-differences", "What tuning brings", columns, rows, caption=sample_sentence(study.accuracy))


def _figure(study: LiteralStudy) -> Figure:
    domains = study.accuracy["domains"]
    series = []
    for of in _ORDER:
        facts = study.compared[f"{of}, tuned", f"{of}, frozen"]
        cells = [*(facts["domains"][d] for d in domains), facts["macro"], facts["micro"]]
        ends = (("values", "value"), ("low", "low"), ("high", "high"))
        series.append({"label": of, **{key: [cell[own] for cell in cells] for key, own in ends}})
    data = {
        "categories": [*domains, "macro", "micro"],
        "series": series,
        "x_label": "accuracy tuned less accuracy frozen, the same training pairs",
        "y_label": "domain",
        "reference": [{"value": 0.0, "label": "as good"}],
    }
    return Figure(
        "literal", "What tuning brings, by domain", "intervals", data, caption=sample_sentence(study.accuracy)
    )


def _sizes(study: LiteralStudy) -> Table:
    columns = [
        Column("variant", "Variant"),
        Column("models", "made of"),
        Column("parameters", "parameters", "integer", note="numbers in the saved models"),
        Column("reduction", "saved", "share", note="against RODOS"),
        Column(
            "at_five", f"saved with {PAPER_DOMAINS} domains", "share", note="from the mean size of an expert's part"
        ),
        Column("bytes", "on disk", "bytes"),
    ]
    rows = [{c.key: row[c.key] for c in columns} for row in study.sizes]
    caption = (
        f"{len(study.plan.domains)} domains. The paper reports 52 % (MoRE) and 55 % (ARLISS) with five domains and another "
        "model; its reference is not stated, and RODOS is taken here. The saving grows with the number of domains, and here "
        "only one block has experts, and adapters are small beside the encoder."
    )
    return Table("literal-sizes", "Parameters of the saved models", columns, rows, caption=caption)


def _cost(study: LiteralStudy) -> Table:
    columns = [
        Column("variant", "Variant"),
        Column("parameters", "parameters", "integer", note="encoders included"),
        Column("bytes", "on disk", "bytes"),
        Column("latency", "one request", "seconds", note="one prompt and one response, its route included; median"),
        Column(
            "ratio", "against the first", "number", digits=2, note="median over requests, each served by all in turn"
        ),
        Column("seconds", "training core-seconds", "seconds", note="processor time; of the frozen ones with encoding"),
    ]
    caption = (
        f"Exchanging the active adapter takes {study.switching * 1e6:.0f} µs (median), included in ARLISS. MoRE runs on the "
        "layers that it is trained with; the others on the encoder's own, packed for speed."
    )
    return Table("literal-cost", "Size, speed and cost", columns, study.cost, caption=caption)
