"""Tables, figures and words of the study of merged heads; everything is read from its facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embedrm.reporting.figures import Figure
from embedrm.reporting.tables import Column, Table

if TYPE_CHECKING:
    from embedrm.experiments.merging_heads import HeadMergeStudy
    from embedrm.reporting import Report

_INTERVALS = "Intervals are 95 % percentile intervals over {n:,} bootstrap draws of whole prompt groups; {seeds}."


def head_findings(study: HeadMergeStudy) -> list[str]:
    """Return what to take away, one sentence each."""
    out = []
    for label in study.targets:
        facts = study.levels[study.primary, label]
        chosen = facts["chosen"]
        here = chosen["index"]
        rest = facts["change"]["others"]
        out.append(
            f"Merged trunk, {label}: validation chooses λ = {chosen['lambda']:.2f} (resampled: {chosen['low']:.2f} to "
            f"{chosen['high']:.2f}); accuracy {signed(facts['change']['target'][here])} on {facts['n_target']:,} test pairs"
            + (f", other domains {signed(rest[here])}." if rest else ".")
        )
    out.append(
        f"Linear heads: merging weights is averaging rewards, to {max(study.linear['difference'].values()):.1g} of the "
        f"largest margin; a sweep over {len(study.lambdas)} λ takes {study.cost['ratio']:.2f} times one evaluation."
    )
    return out


def add_head_sections(study: HeadMergeStudy, report: Report) -> None:
    """Add everything of the study to a report."""
    report.notes += study.notes
    report.add_section(
        "Head level: merging on frozen vectors",
        [*_what_is_merged(study), *_checks(study)],
        [_levels(study), _quantile_table(study)],
        [*(_curve(study, label) for label in study.targets), _by_level(study), _by_domain(study)],
    )
    report.add_section("Head level: margins over λ", figures=[_margins(study, label) for label in study.targets])
    report.add_section("Head level: methods", tables=[_methods(study)])


def signed(cell: dict[str, float]) -> str:
    """Say a difference with its interval."""
    return f"{cell['value']:+.3f} [{cell['low']:+.3f}, {cell['high']:+.3f}]"


def _what_is_merged(study: HeadMergeStudy) -> list[str]:
    named = ", ".join(label if label == domain else f"{label} ({domain})" for label, domain in study.targets.items())
    layers = " and ".join(str(width) for width in study.hidden)
    return [
        f"Targets: {named}. The general model is trained on {len(study.general_pairs):,} pairs of "
        f"{len(set(study.general_pairs.domain.tolist()))} other domains and has seen no pair of a target. Features: "
        f"{', '.join(study.featurizer.terms)} of frozen vectors. λ is the domain model's weight, chosen for each "
        "target on its validation pairs; of equals the smallest. Test pairs choose nothing, and the best point of a test "
        "curve is no estimate of anything.",
        "Two reward models, one of them trained on the target's own pairs: their rewards averaged on one scale (an "
        "ensemble), the weights of linear heads merged, and the weights of two perceptrons of one start merged, reward "
        "layers and all. The last is what is called WARM or a model soup. None of these is the paper's method, which needs "
        "no preferences in the target.",
        f"The analogue of the paper's: a trunk of {layers} units stands in the transformer's place. All trunks are forked "
        "from one start, which learnt the first task on all training responses, without a label. The general reward model "
        "goes on from there by Bradley–Terry; the domain model learns, from the target's responses alone, "
        f"{', or '.join(study.tasks)}. Trunks are merged, the general reward layer is kept. At λ = 1 that layer stands "
        "on a trunk it was never trained with: chance is what is expected there. Grades are the ones that the pairs were "
        "made of, though no pair is read. Verdicts come from the first task, chosen before anything was measured.",
    ]


def _checks(study: HeadMergeStudy) -> list[str]:
    cost = study.cost
    out = [
        "For linear heads merging weights is averaging rewards: over all λ and test pairs the largest difference is "
        f"{max(study.linear['difference'].values()):.1g} of the largest margin. The two rows differ in what λ means: "
        "rewards are averaged on one scale, weights as Bradley–Terry left them.",
        f"A sweep of linear heads over {len(study.lambdas)} λ took {1e3 * cost['sweep']:.1f} ms, one evaluation of "
        f"one head on the same pairs, without intervals, {1e3 * cost['evaluation']:.1f} ms: {cost['ratio']:.2f} times "
        "(median).",
    ]
    if study.alignment.get("refusals"):
        out.append(
            "Trunks of different starts are not merged unless their units are matched first. What is said then: "
            f"“{study.alignment['refusals'][0]}”"
        )
    return out


def _sample(study: HeadMergeStudy) -> str:
    seeds = (
        "one start"
        if len(study.seeds) == 1
        else f"perceptrons are means over {len(study.seeds)} starts, and intervals are about prompts"
    )
    return _INTERVALS.format(n=study.n_resamples, seeds=seeds)


def _levels(study: HeadMergeStudy) -> Table:
    columns = [
        Column("level", "What is merged"),
        Column("lam", "λ", "interval", digits=2, note="chosen on validation [what resampled validation pairs choose]"),
        Column("validation", "validation", "share", note="at that λ, over the pairs that chose it: too good"),
        Column("zero", "λ = 0", "interval", note="the general model"),
        Column("merged", "merged", "interval"),
        Column("change", "change", "interval"),
        Column("p", "p", "p", note="of the change, clustered by prompt group"),
        Column("seed_sd", "sd over starts", "number", digits=3, note="of the change"),
        Column("others", "other domains, change", "interval", note="each domain counting once"),
        Column("one", "λ = 1", "interval"),
    ]
    rows = []
    for label, domain in study.targets.items():
        for (level, own), facts in study.levels.items():
            if own != label:
                continue
            chosen, here = facts["chosen"], facts["chosen"]["index"]
            target, change, rest = facts["test"]["target"], facts["change"]["target"][here], facts["change"]["others"]
            rows.append(
                {
                    "group": f"{label} ({domain}): {facts['n_target']:,} test, {chosen['n_pairs']:,} validation pairs",
                    "level": level,
                    "lam": {"value": chosen["lambda"], "low": chosen["low"], "high": chosen["high"]},
                    "validation": facts["validation"][here],
                    "zero": _cell(target[0]),
                    "merged": _cell(target[here]),
                    "change": _cell(change),
                    "p": change["p"],
                    "seed_sd": facts["seed_sd"],
                    "others": _cell(rest[here]) if rest else None,
                    "one": _cell(target[-1]),
                }
            )
    caption = f"Accuracy on test pairs of the target. {_sample(study)}"
    return Table(
        "head-levels", "Merged at the λ chosen on validation", columns, rows, caption=caption, row_groups="group"
    )


def _cell(cell: dict[str, float]) -> dict[str, float]:
    return {key: cell[key] for key in ("value", "low", "high")}


def _curve(study: HeadMergeStudy, label: str) -> Figure:
    facts = study.levels[study.primary, label]
    x = list(study.lambdas)
    series = [{"label": f"{label}, validation", "x": x, "y": facts["validation"]}]
    for part, name in (("target", f"{label}, test"), ("others", "other domains, test")):
        found = facts["test"][part]
        if found is not None:
            ends = {
                key: [cell[own] for cell in found] for key, own in (("y", "value"), ("low", "low"), ("high", "high"))
            }
            series.append({"label": name, "x": x, **ends})
    data = {
        "series": series,
        "x_label": "λ, the domain trunk's weight",
        "y_label": "pairwise accuracy",
        "reference": [{"value": 0.5, "label": "chance"}],
    }
    chosen = facts["chosen"]
    caption = (
        f"{study.primary}. Validation chooses λ = {chosen['lambda']:.2f} ({chosen['n_tied']} of {len(x)} are as good). "
        + _sample(study)
    )
    return Figure(f"head-curve-{_slug(label)}", f"Merged trunks: {label}", "lines", data, caption=caption)


def _by_level(study: HeadMergeStudy) -> Figure:
    series = []
    for level in dict.fromkeys(level for level, _ in study.levels):
        curves = [[cell["value"] for cell in study.levels[level, label]["test"]["target"]] for label in study.targets]
        series.append({"label": level, "x": list(study.lambdas), "y": np.mean(curves, axis=0).tolist()})
    data = {
        "series": series,
        "x_label": "λ, the domain model's weight",
        "y_label": "accuracy on the target, mean of targets",
        "reference": [{"value": 0.5, "label": "chance"}],
    }
    caption = (
        "Test pairs; no point of a curve is chosen by it. At λ = 1 a merged trunk stands under a reward layer that is not "
        "its own."
    )
    return Figure("head-levels", "What is merged, and how far", "lines", data, caption=caption)


def _by_domain(study: HeadMergeStudy) -> Figure:
    values = []
    domains = list(next(iter(study.levels.values()))["domains"])
    for label in study.targets:
        facts = study.levels[study.primary, label]
        here = facts["chosen"]["index"]
        values.append([facts["domains"][d][here] - facts["domains"][d][0] for d in domains])
    data = {
        "rows": [f"merged for {label}" for label in study.targets],
        "columns": domains,
        "values": values,
        "row_label": "at the λ chosen for it",
        "column_label": "test pairs of",
        "value_label": "accuracy less that of λ = 0",
        "centre": 0.0,
        "digits": 3,
    }
    return Figure(
        "head-domains", "What merged trunks gain and lose, by domain", "heatmap", data, caption=f"{study.primary}."
    )


def _margins(study: HeadMergeStudy, label: str) -> Figure:
    facts = study.levels[study.primary, label]["margins"]
    series = [
        {"label": f"{q:.0%}", "x": list(study.lambdas), "y": [own[i] for own in facts["target"]]}
        for i, q in enumerate(facts["quantiles"])
    ]
    data = {
        "series": series,
        "x_label": "λ, the domain trunk's weight",
        "y_label": "margin, chosen less rejected",
        "reference": [{"value": 0.0, "label": "a tie"}],
    }
    return Figure(
        f"head-margins-{_slug(label)}",
        f"Margins on {label}, quantiles",
        "lines",
        data,
        caption=f"Test pairs of the target, all starts together; {study.primary}.",
    )


def _quantile_table(study: HeadMergeStudy) -> Table:
    quantiles = next(iter(study.levels.values()))["margins"]["quantiles"]
    columns = [Column("target", "Target"), Column("lam", "λ", "number", digits=2)]
    columns += [Column(f"q{i}", f"{q:.0%}", "number", digits=2) for i, q in enumerate(quantiles)]
    rows = []
    for label in study.targets:
        facts = study.levels[study.primary, label]
        for i in sorted({0, facts["chosen"]["index"], len(study.lambdas) - 1}):
            found = facts["margins"]["target"][i]
            rows.append({"target": label, "lam": study.lambdas[i], **{f"q{k}": value for k, value in enumerate(found)}})
    caption = f"Quantiles of the margins at λ = 0, the chosen λ, and λ = 1; {study.primary}."
    return Table("head-margins", "Margins of merged trunks on the target's test pairs", columns, rows, caption=caption)


def _methods(study: HeadMergeStudy) -> Table:
    columns = [
        Column("method", "Method"),
        Column("lam", "λ", "number", digits=2),
        Column("options", "Options"),
        Column("target", "target, change", "interval"),
        Column("p", "p", "p", note="clustered by prompt group"),
        Column("others", "other domains, change", "interval", note="each domain counting once"),
    ]
    rows = []
    for label, found in study.methods.items():
        chosen = study.levels[study.primary, label]["chosen"]["lambda"]
        told = f"chosen λ = {chosen:.2f}" if chosen else "validation chose λ = 0; compared in the middle of 0.2 to 0.5"
        for row in found:
            options = ", ".join(
                f"{key.rstrip('_')} {value}" for key, value in row["options"].items() if value is not None
            )
            rows.append(
                {
                    "group": f"{label}: {told}",
                    "method": row["method"],
                    "lam": row["lambda"],
                    "options": options or "none",
                    "target": _cell(row["target"]),
                    "p": row["target"]["p"],
                    "others": None if row["others"] is None else _cell(row["others"]),
                }
            )
    caption = (
        f"{study.primary}; accuracy less that of λ = 0, at the weights 1 − λ and λ. Options are each method's defaults; "
        "density has none in DARE and breadcrumbs, and is set. A soup takes equal weights (WARM is the same arithmetic). "
        f"{_sample(study)}"
    )
    return Table("head-methods", "Merge methods on the trunks", columns, rows, caption=caption, row_groups="group")


def _slug(label: str) -> str:
    kept = "".join(c if c.isalnum() and c.isascii() else "-" for c in label.lower()).strip("-")
    return kept or "target"
