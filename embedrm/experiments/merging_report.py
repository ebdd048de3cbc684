"""Tables, figures and words of encoder-level merging; everything is read from its facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from embedrm.experiments.merging_arms import GENERAL, MIDDLE
from embedrm.experiments.study import duration
from embedrm.reporting.accuracy import sample_sentence
from embedrm.reporting.figures import MAX_SERIES, Figure
from embedrm.reporting.tables import Column, Table

if TYPE_CHECKING:
    from embedrm.experiments.merging_encoders import EncoderMergeStudy
    from embedrm.reporting import Report

_TAKEN = "λ chosen on validation"
_BANDS = "Bands and whiskers are 95 % intervals over prompt groups."


def signed(cell: Mapping[str, float]) -> str:
    """Return a difference with its interval, in words."""
    return f"{cell['value']:+.3f} [{cell['low']:+.3f}, {cell['high']:+.3f}]"


def _at(facts: Mapping[str, Any]) -> str:
    chosen = facts["chosen"]
    return f"{chosen['lambda']:g} [{chosen['low']:g}, {chosen['high']:g}]"


def merging_findings(study: EncoderMergeStudy) -> list[str]:
    """Return what to take away, one sentence each."""
    out = []
    for name, facts in study.sweeps.items():
        own, other = facts["compared"]["target"]["micro"], facts["compared"]["others"]
        rest = "" if other is None else f"; other domains (macro) {signed(other['macro'])}"
        out.append(
            f"Encoders, {name}: validation chooses λ = {_at(facts)}; accuracy on {name} {signed(own)} against λ = 0{rest}."
        )
    at_chance = [name for name, facts in study.sweeps.items() if _at_chance(facts)]
    if at_chance:
        out.append(
            f"On validation pairs of {' and '.join(at_chance)} the general model is at chance: there is nothing "
            "to lose in that domain, so that λ is chosen by little but noise, and other domains pay for it."
        )
    for kind, sweeps in (("general encoder unmoved", study.base_sweeps), ("static token tables", study.static_sweeps)):
        parts = [
            f"{name} λ = {facts['chosen']['lambda']:g}, {signed(facts['compared']['target']['micro'])}"
            for name, facts in sweeps.items()
        ]
        out.append(f"The same, {kind}: {'; '.join(parts)}.")
    return out


def _at_chance(facts: dict[str, Any]) -> bool:
    """Whether the interval of the general model's accuracy on the target's validation pairs holds one half."""
    start = facts["validation"]["accuracy"][0]
    return bool(start["low"] <= 0.5 <= start["high"])


def add_merging_sections(study: EncoderMergeStudy, report: Report) -> None:
    """Add everything of encoder-level merging to a report."""
    plan = study.plan
    config = plan.config
    notes = [*(f"{t.name}: {t.note}." for t in plan.targets if t.note), *plan.notes]
    names = ", ".join(f"{t.name} ({', '.join(t.domains)})" for t in plan.targets)
    objective = plan.arms[1].config.objective
    text = [
        f"The literal method on a small encoder. One base ({config.base}). The general reward encoder was moved by "
        f"Bradley–Terry with a linear reward head on {len(plan.train):,} pairs of {', '.join(plan.general_domains)}; each "
        f"domain encoder by {objective} tuning on plain text of its domain, which reads no preference. Merged are "
        "all weights and token embeddings, (1 − λ) general + λ domain; the general reward head is kept; no training "
        f"follows. Domains merged towards: {names}. One seed: intervals are over prompts, and say nothing of what another "
        "seed of the tuning would give.",
        f"λ is chosen by the accuracy on validation pairs of the target domain alone ({study_rule(study)}); test pairs "
        f"choose nothing. Test: up to {plan.preset.n_texts:,} unique texts a domain, whole prompt groups drawn."
        if plan.preset.n_texts is not None
        else f"λ is chosen by the accuracy on validation pairs of the target domain alone ({study_rule(study)}); test pairs "
        "choose nothing. Test: all pairs.",
        *notes,
    ]
    report.add_section(
        "Merging encoders: both moved",
        text,
        [
            chosen_table(study.sweeps, "merging-encoders", "λ chosen on validation, accuracy on test", _sizes(study)),
            _kinds(study),
        ],
        [f for name, facts in study.sweeps.items() for f in (_curve(name, facts), _by_domain(name, facts))],
    )
    for name, one in study.best_of_n.items():
        said = "" if study.lambdas()[name] else "Validation chose λ = 0: both rows are the general model."
        one.add_sections(report, f"best-of-n-{name}", f"Best of n with the merged reward: {name}", said)
    report.add_section(
        "Merging encoders: margins over λ",
        [
            "Reward of the chosen less reward of the rejected response under the general head. Towards λ = 1 the head reads "
            "vectors that it was never trained on.",
        ],
        figures=[_margins(name, facts) for name, facts in study.sweeps.items()],
    )
    report.add_section(
        "Merging encoders: only the domain encoder moved",
        [
            "The general model here is the unmoved base with a linear reward head fitted on the same general pairs, and is "
            "merged with each domain encoder; only one side has moved. No verdict comes from this arm. It reads "
            f"{'up to ' + format(plan.preset.n_base_texts, ',') if plan.preset.n_base_texts is not None else 'all'} unique "
            "test texts of a domain.",
        ],
        [chosen_table(study.base_sweeps, "merging-base", "λ with the unmoved base", "")],
        [curves_figure(study.base_sweeps, "merging-base-curves", "The unmoved base merged with domain encoders")],
    )
    report.add_section(
        "Merging static token tables: a second architecture",
        [
            "Each tuned encoder was distilled into a table: a token's row is the encoder's pooled vector of that token "
            "alone, weighed down where the token is frequent in training text (a / (a + p), a = 0.001); a text is the "
            "mean of its rows. Tables are merged row by row. The reward head was fitted by Bradley–Terry on the general "
            "table and the same general pairs, and is kept. A mean of rows under a linear head is linear in λ, so that "
            "merging tables is averaging rewards, which merging transformers is not; and the tables came from the very "
            "encoders merged above. So this is an analogue of the paper's second architecture, and the weaker test.",
        ],
        [chosen_table(study.static_sweeps, "merging-static", "λ for static token tables", "")],
        [curves_figure(study.static_sweeps, "merging-static-curves", "Static token tables merged")],
    )
    report.add_section(
        "Merging encoders: other methods, cost",
        tables=[_methods(study), _tuning(study), _cost(study)],
    )
    spent = study.seconds
    report.notes.append(
        f"Encoders to merge were tuned in {duration(spent['tuning'])} in all, now or earlier; merging, encoding and scoring "
        f"took {duration(spent['rest'])} in this run."
    )


def study_rule(study: EncoderMergeStudy) -> str:
    """Say how ties are broken, and on how many pairs lambda is chosen."""
    counts = ", ".join(f"{name} {facts['validation']['n_pairs']:,}" for name, facts in study.sweeps.items())
    return f"of equals the smallest λ; pairs: {counts}"


def _sizes(study: EncoderMergeStudy) -> str:
    return "Test pairs: " + ", ".join(
        f"{name} {facts['n_pairs']['target']:,}, others {facts['n_pairs']['others']:,}"
        for name, facts in study.sweeps.items()
    )


def chosen_table(sweeps: Mapping[str, Mapping[str, Any]], name: str, title: str, caption: str) -> Table:
    """Chosen lambdas by target, accuracy before and after on its own test pairs and on those of all other domains."""
    columns = [
        Column("target", "Merged with"),
        Column("lambda", "λ", "interval", digits=2, note="what resampled validation pairs would choose"),
        Column("before", "accuracy, λ = 0", "interval"),
        Column("after", "merged", "interval"),
        Column("change", "change", "interval"),
        Column("others_before", "others, λ = 0", "interval", note="all other domains, each counting once"),
        Column("others_after", "others, merged", "interval"),
        Column("others_change", "change in others", "interval"),
        Column("end", "accuracy, λ = 1", "interval", note="the general head on the domain encoder alone"),
    ]
    rows = []
    for target, facts in sweeps.items():
        i, chosen = facts["chosen"]["index"], facts["chosen"]
        row: dict[str, Any] = {
            "target": target,
            "lambda": {"value": chosen["lambda"], "low": chosen["low"], "high": chosen["high"]},
            "end": facts["test"]["target"][-1],
        }
        for key, part in (("", "target"), ("others_", "others")):
            curve, change = facts["test"][part], facts["change"][part]
            row |= {
                f"{key}before": curve and curve[0],
                f"{key}after": curve and curve[i],
                f"{key}change": change and change[i],
            }
        rows.append(row)
    text = f"λ is chosen on validation, accuracies are on test pairs. {caption}".strip()
    return Table(name, title, columns, rows, caption=text)


def _kinds(study: EncoderMergeStudy) -> Table:
    """Models by Math, Code, ... and Other."""
    facts = study.together
    names = list(study.sweeps)
    columns = [Column("model", "Model")]
    columns += [Column(f"t{i}", name.capitalize(), "interval", best="max") for i, name in enumerate(names)]
    columns += [
        Column("others", "Other", "interval", best="max", note="all domains that are no target, each counting once"),
        Column("macro", "macro", "interval", best="max"),
    ]
    rows = [
        {"model": row["model"], **{f"t{i}": row[f"target {n}"] for i, n in enumerate(names)}}
        | {"others": row["others"], "macro": row["macro"]}
        for row in facts["rows"]
    ]
    shares = ", ".join(f"{name} {share:.2f}" for name, share in facts["weights"].items())
    many = f" “All merged” gives each domain encoder its λ over their number ({shares})." if len(names) > 1 else ""
    caption = f"Each model at the λ chosen on validation.{many} {sample_sentence(facts)}"
    return Table("merging-kinds", "By kind of domain", columns, rows, caption=caption)


def _series(label: str, x: Sequence[float], cells: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {
        "label": label, "x": list(x), "y": [c["value"] for c in cells], "low": [c["low"] for c in cells],
        "high": [c["high"] for c in cells],
    }  # fmt: skip


def _curve(name: str, facts: Mapping[str, Any]) -> Figure:
    grid, i = facts["lambdas"], facts["chosen"]["index"]
    own = facts["test"]["target"]
    series = [_series(f"{name}, test", grid, own)]
    if facts["test"]["others"]:
        series.append(_series("other domains, test (macro)", grid, facts["test"]["others"]))
    series.append(
        {"label": f"{name}, validation", "x": grid, "y": [c["value"] for c in facts["validation"]["accuracy"]]}
    )
    series.append({"label": "λ = 0, the general model", "x": [0.0], "y": [own[0]["value"]]})
    series.append({"label": f"{_TAKEN}: {grid[i]:g}", "x": [grid[i]], "y": [own[i]["value"]]})
    data = {
        "series": series,
        "x_label": f"λ, the weight of the {name} encoder",
        "y_label": "pairwise accuracy",
        "reference": [{"value": own[0]["value"], "label": f"{name} at λ = 0: {own[0]['value']:.3f}"}],
    }
    caption = f"{_BANDS} The dashed line is the general model, λ = 0. The best point of a test curve estimates nothing."
    return Figure(f"merging-curve-{name}", f"Accuracy over λ: {name}", "lines", data, caption=caption)


def _by_domain(name: str, facts: Mapping[str, Any]) -> Figure:
    domains = list(facts["change"]["domains"])
    data = {
        "rows": domains,
        "columns": [f"{lam:g}" for lam in facts["lambdas"]],
        "values": [[cell["value"] for cell in facts["change"]["domains"][d]] for d in domains],
        "row_label": "test pairs of",
        "column_label": "λ",
        "value_label": "change of accuracy from λ = 0",
        "centre": 0.0,
    }
    counts = ", ".join(f"{d} {facts['n_pairs'][d]:,}" for d in domains)
    return Figure(
        f"merging-domains-{name}",
        f"What changes where: merged with {name}",
        "heatmap",
        data,
        caption=f"Pairs: {counts}.",
    )


def _margins(name: str, facts: Mapping[str, Any]) -> Figure:
    grid, found = facts["lambdas"], facts["margins"]
    curves = list(zip(*found["target"]))
    at = dict(zip(found["quantiles"], curves))
    series = [
        {"label": "median, and the middle half", "x": grid, "y": at[0.5], "low": at[0.25], "high": at[0.75]},
        {"label": "5 %", "x": grid, "y": at[0.05]},
        {"label": "95 %", "x": grid, "y": at[0.95]},
    ]
    data = {
        "series": [{k: list(v) if k != "label" else v for k, v in one.items()} for one in series],
        "x_label": f"λ, the weight of the {name} encoder",
        "y_label": "margin",
        "reference": [{"value": 0.0, "label": "undecided"}],
    }
    return Figure(
        f"merging-margins-{name}", f"Margins over λ: {name}", "lines", data,
        caption=f"Quantiles over {facts['n_pairs']['target']:,} test pairs of {name}.",
    )  # fmt: skip


def curves_figure(sweeps: Mapping[str, Mapping[str, Any]], name: str, title: str) -> Figure:
    """Accuracy over lambda on every target's own test pairs, and the lambda chosen; as many as can be told apart."""
    shown = dict(list(sweeps.items())[:MAX_SERIES])
    series = [_series(f"{t}, test", facts["lambdas"], facts["test"]["target"]) for t, facts in shown.items()]
    for t, facts in shown.items() if 2 * len(shown) <= MAX_SERIES else ():
        i = facts["chosen"]["index"]
        lam = facts["lambdas"][i]
        series.append({"label": f"{t}, chosen: {lam:g}", "x": [lam], "y": [facts["test"]["target"][i]["value"]]})
    left = ", ".join(list(sweeps)[MAX_SERIES:])
    more = f" Not drawn: {left}." if left else ""
    data = {
        "series": series,
        "x_label": "λ, the weight of the domain model",
        "y_label": "pairwise accuracy on its domain",
    }
    return Figure(name, title, "lines", data, caption=f"{_BANDS} Single points: λ chosen on validation.{more}")


def _methods(study: EncoderMergeStudy) -> Table:
    columns = [
        Column("method", "Method"),
        Column("lambda", "λ", "number", digits=2),
        Column("accuracy", "accuracy", "interval"),
    ]
    rows = [
        {
            "group": f"merged with {row['target']}, test pairs of {row['target']}",
            "method": row["method"],
            "lambda": None if row["method"] == "general alone" else row["lambda"],
            "accuracy": row["accuracy"],
        }
        for row in study.methods
    ]
    other = sorted({r["target"] for r in study.methods if r["lambda"] != r["chosen"]})
    note = f" For {', '.join(other)} validation chose an end, and {MIDDLE:g} is shown." if other else ""
    caption = (
        "All methods at the λ that validation chose for the linear one, none tuned for itself; on deltas from the base: "
        f"ties (density 0.5), dare_linear (density 0.5), breadcrumbs (density 0.9).{note}"
    )
    return Table(
        "merging-methods", "Other merge methods at the same λ", columns, rows, caption=caption, row_groups="group"
    )


def _tuning(study: EncoderMergeStudy) -> Table:
    columns = [
        Column("encoder", "Encoder"),
        Column("by", "moved by"),
        Column("on", "pairs or texts", "integer"),
        Column("steps", "steps", "integer"),
        Column("first", "held-out loss, first", "number", digits=3),
        Column("best", "best", "number", digits=3),
        Column("length", "moved", "number", digits=4, note="length of the movement over length of the base's weights"),
        Column("cosine", "same way as the general", "number", digits=3, note="cosine of the two movements"),
        Column("seconds", "tuning", "seconds"),
    ]
    rows = []
    for arm in study.plan.arms:
        facts = study.tuning[arm.name]
        losses = [h["validation_loss"] for h in facts["history"] if h.get("validation_loss") is not None]
        rows.append(
            {
                "encoder": arm.name if arm.name == GENERAL else f"{arm.name} domain",
                "by": arm.config.objective,
                "on": len(arm.data),
                "steps": facts["steps"],
                "first": losses[0] if losses else None,
                "best": min(losses) if losses else None,
                **study.moved[arm.name],
                "seconds": facts["seconds"],
            }
        )
    caption = "Losses of different objectives are not comparable. Seconds are on this machine, whatever else ran on it."
    return Table("merging-tuning", "What was tuned", columns, rows, caption=caption)


def _cost(study: EncoderMergeStudy) -> Table:
    columns = [
        Column("what", "Merge of two encoders"),
        Column("seconds", "time", "seconds"),
        Column("memory", "most memory", "bytes", note="arrays and objects at a time; mapped files do not count"),
        Column("model", "one model", "bytes"),
        Column("ratio", "memory over model", "number", digits=2),
    ]
    cost = study.cost
    row = {
        "what": "linear, to a folder", "seconds": cost["seconds"], "memory": cost["memory_bytes"],
        "model": cost["model_bytes"], "ratio": cost["ratio"],
    }  # fmt: skip
    return Table("merging-cost", "What a merge costs", columns, [row])
