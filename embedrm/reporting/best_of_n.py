"""Tables and figures of best-of-n facts (:func:`embedrm.evaluation.best_of_n.best_of_n_facts`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from embedrm.reporting.figures import MAX_SERIES, Figure
from embedrm.reporting.tables import Column, Table

Facts = Mapping[str, Any]

_HOW = {
    "unbiased": "Each value is the mean over all subsets of n of a prompt's K candidates, drawn without replacement; "
    "candidates of equal reward share the choice.",
    "lin2024": "Each value is of the first n of a prompt's K candidates, the earliest of equal rewards: the nested scheme "
    "of the code of Lin et al. (2024), which uses the later candidates at large n only.",
    "sun2025": "Each value is a mean over {n_permutations:,} random orders of a prompt's K candidates, of which the first n "
    "are taken: the scheme of Sun et al. (2025).",
}
_PAPER_N = 16
_GROUPS = {"model": "models", "baseline": "baselines", "bound": "bound"}
_SHOWN = 6


def best_of_n_table(facts: Facts, name: str = "best-of-n", title: str = "Gold of the best of n") -> Table:
    """Models, baselines and the bound by mean gold over prompts, at up to seven n."""
    places = shown_places(facts)
    columns = [Column("model", "Chosen by")]
    for j in places:
        n, count = facts["ns"][j], facts["n_prompts"][j]
        columns.append(Column(f"n{n}", f"n = {n}", "interval", best="max", note=f"{count:,} prompts"))
    columns.append(Column("spearman", "Spearman", "interval", best="max", note="of reward and gold, mean over prompts"))
    rows = [
        {"model": row["model"], "group": _GROUPS[row["kind"]], "spearman": _ends(row["spearman"])}
        | {f"n{facts['ns'][j]}": _ends(row["micro"][j]) for j in places}
        for row in facts["rows"]
    ]
    caption = " ".join(
        [how_sentence(facts), candidates_sentence(facts), gold_sentence(facts), interval_sentence(facts)]
    )
    return Table(name, title, columns, rows, caption=caption, row_groups="group")


def detail_table(facts: Facts, name: str = "best-of-n-detail") -> Table:
    """What the choices are worth at one n, the largest that at least half of the prompts can serve."""
    n = facts["headline"]
    j = facts["ns"].index(n)
    columns = [
        Column("model", "Chosen by"),
        Column("gain", "gain", "interval", best="max", note="gold less that of a random choice, the same prompts"),
        Column("captured", "captured", "interval", best="max", note="gain over the oracle's gain"),
        Column(
            "quantile", "beats", "interval", best="max", note="share of the other candidates with lower gold, equal ½"
        ),
        Column("proxy", "reward", "interval", note="of the choice, in standard deviations above its prompt's mean"),
        Column("gain_sd", "gold", "interval", note="gain, in the same unit of gold"),
        *_macro(facts, "macro", "gold, domains counting once"),
        Column("ties", "ties", "integer", note="prompts with several candidates of the highest reward"),
    ]
    keys = [column.key for column in columns if column.kind == "interval"]
    rows = [
        {"model": row["model"], "group": _GROUPS[row["kind"]], "ties": row["n_top_ties"]}
        | {key: _ends(row[key][j]) for key in keys}
        for row in facts["rows"]
    ]
    caption = (
        f"{facts['n_prompts'][j]:,} prompts with at least {n} candidates; the divergence of best of {n} from one draw is at "
        f"most {facts['kl'][j]:.2f} nats. Deviations are pooled within prompts, over all of their candidates."
    )
    return Table(name, f"Best of {n} in detail", columns, rows, caption=caption, row_groups="group")


def differences_table(facts: Facts, name: str = "best-of-n-differences") -> Table:
    """Every difference asked for, at the n shown."""
    columns = [
        Column("n", "n", "integer"),
        Column("micro", "gold, over prompts", "interval"),
        Column("p", "p", "p", note="bootstrap clustered by prompt group"),
        Column("p_holm", "p (Holm)", "p", note="corrected over the n above one"),
        *_macro(facts, "gold, over domains"),
        Column("prompts", "prompts", "integer"),
    ]
    rows = []
    for difference in facts["differences"]:
        for j in shown_places(facts):
            cell = difference["micro"][j]
            if facts["ns"][j] > 1:
                row: dict[str, Any] = {
                    "what": f"{difference['model']} − {difference['reference']}",
                    "n": facts["ns"][j],
                    "micro": _ends(cell),
                    "p": cell["p"],
                    "p_holm": cell["p_holm"],
                    "prompts": facts["n_prompts"][j],
                }
                if len(facts["domains"]) > 1:
                    row["macro"] = _ends(difference["macro"][j])
                rows.append(row)
    caption = "Both choose for the same prompts, and the bootstrap draws the same prompt groups for both."
    return Table(name, "Differences", columns, rows, caption=caption, row_groups="what")


def domains_table(facts: Facts, name: str = "best-of-n-domains") -> Table:
    """Gold by domain at one n, the largest that at least half of the prompts can serve."""
    j = facts["ns"].index(facts["headline"])
    columns = [Column("model", "Chosen by")]
    columns += [
        Column(f"d{i}", domain, "interval", best="max", note=f"{facts['n_by_domain'][domain]:,} prompts")
        for i, domain in enumerate(facts["domains"])
    ]
    rows = [
        {"model": row["model"], "group": _GROUPS[row["kind"]]}
        | {f"d{i}": _ends(row["domains"][domain][j]) for i, domain in enumerate(facts["domains"])}
        for row in facts["rows"]
    ]
    caption = f"{gold_sentence(facts)} Prompts of a domain with fewer than {facts['headline']} candidates are left out."
    return Table(name, f"Best of {facts['headline']} by domain", columns, rows, caption=caption, row_groups="group")


def best_of_n_figure(
    facts: Facts, name: str = "best-of-n", title: str = "Gold of the best of n", models: Sequence[str] | None = None
) -> Figure:
    """Mean gold over n, with bands, of one sample of prompts; ``models`` picks and orders rows (at most :data:`MAX_SERIES`).

    The sample is of the prompts that have as many candidates as the headline, where the curves end: on what is left at each
    n they would follow which prompts are left.
    """
    curve = facts["curve"]
    rows = {row["model"]: row for row in curve["rows"]}
    left = "" if models is not None or len(rows) <= MAX_SERIES else " Some rows are in the table only."
    others = [name for name, row in rows.items() if row["kind"] != "model"]
    own = [name for name in rows if name not in others][: MAX_SERIES - len(others)]
    series = []
    for model in [*own, *others] if models is None else models:
        cells = rows[model]["micro"]
        ends = {key: [cell[end] for cell in cells] for key, end in (("y", "value"), ("low", "low"), ("high", "high"))}
        series.append({"label": model, "x": list(curve["ns"]), **ends})
    data = {
        "series": series,
        "x_label": "n, candidates to choose from",
        "y_label": f"gold of the choice{_unit(facts)}",
        "x_scale": "log",
        "x": _ticks(curve["ns"]),
    }
    return Figure(name, title, "lines", data, caption=f"{paper_sentence(facts)} {sample_sentence(facts)}{left}")


def proxy_figure(facts: Facts, name: str = "best-of-n-proxy", models: Sequence[str] | None = None) -> Figure:
    """Reward and gold of the choice over n in one unit: where the reward rises and gold does not, it is over-optimised."""
    curve = facts["curve"]
    rows = {row["model"]: row for row in curve["rows"] if row["kind"] == "model"}
    chosen = list(rows)[: MAX_SERIES // 2] if models is None else list(models)
    series = []
    for model in chosen:
        for key, what in (("proxy", "its reward"), ("gain_sd", "gold")):
            cells = rows[model][key]
            if all(cell is not None for cell in cells):
                ends = {
                    k: [cell[end] for cell in cells] for k, end in (("y", "value"), ("low", "low"), ("high", "high"))
                }
                series.append({"label": f"{model}: {what}", "x": list(curve["ns"]), **ends})
    data = {
        "series": series,
        "x_label": "n, candidates to choose from",
        "y_label": "standard deviations above a random choice",
        "x_scale": "log",
        "x": _ticks(curve["ns"]),
        "reference": [{"value": 0.0, "label": "random"}],
    }
    caption = f"Both in standard deviations within prompts. {divergence_sentence(facts)} {sample_sentence(facts)}" + (
        f" The first {len(chosen)} of {len(rows)} models." if models is None and len(rows) > len(chosen) else ""
    )
    return Figure(name, "Reward and gold of the best of n", "lines", data, caption=caption)


def best_of_n_findings(facts: Facts) -> list[str]:
    """What to take away, one sentence a model and one a difference."""
    n = facts["headline"]
    j = facts["ns"].index(n)
    rows = {row["model"]: row for row in facts["rows"]}
    if n == 1:
        return ["Most prompts have one candidate: there is nothing to choose."]
    out = []
    for row in rows.values():
        if row["kind"] == "model":
            share = row["captured"][j]
            part = "" if share is None else f", {share['value']:.0%} of what the oracle gains"
            out.append(
                f"{row['model']}: best of {n} has gold {_interval(row['micro'][j])} against "
                f"{rows['random']['micro'][j]['value']:.3f} at random: {_signed(row['gain'][j])}{part}."
            )
    for difference in facts["differences"]:
        cell = difference["micro"][j]
        out.append(
            f"{difference['model']} less {difference['reference']} at best of {n}: {_signed(cell)}"
            + ("." if cell["p"] is None else f", p = {cell['p']:.3g}.")
        )
    return out


def paper_sentence(facts: Facts) -> str:
    """Say what the paper's best-of-16 needs and what these data have."""
    found = facts["candidates"]
    have = f"here a prompt has {_span(found)} candidates"
    enough = sum(count for k, count in found["by_k"].items() if int(k) >= _PAPER_N)
    if found["k_max"] < _PAPER_N:
        end = f"{have}, so that curves end at n = {facts['headline']}"
    elif enough < found["n_prompts"]:
        end = f"{have}, and {enough:,} of {found['n_prompts']:,} have {_PAPER_N}"
    else:
        end = have
    return f"Lin et al. (2024) choose among up to {_PAPER_N} answers drawn from one language model; {end}."


def sample_sentence(facts: Facts) -> str:
    """Say which prompts the curves are of, and what the bands are."""
    curve, found = facts["curve"], facts["candidates"]
    some = curve["n_prompts"] < found["n_prompts"]
    which = (
        f"{curve['n_prompts']:,} of {found['n_prompts']:,} prompts" if some else f"All {curve['n_prompts']:,} prompts"
    )
    return (
        f"{which}, those with at least {facts['headline']} candidates, the same at every n. {interval_sentence(facts)}"
    )


def how_sentence(facts: Facts) -> str:
    """Say by which scheme."""
    return _HOW[facts["estimator"]].format(**facts)


def candidates_sentence(facts: Facts) -> str:
    """Say how many candidates there are, how K varies, where no choice matters, and what was left out."""
    found = facts["candidates"]
    by_k = ", ".join(f"{k} ({count:,})" for k, count in found["by_k"].items()) if len(found["by_k"]) <= 4 else ""
    k = f"K = {by_k} by prompts" if by_k and len(found["by_k"]) > 1 else f"K = {_span(found)}"
    varies = f", mean {found['k_mean']:.1f}" if len(found["by_k"]) > 1 else ""
    words = {
        "prompts_without_gold": "prompts without gold",
        "prompts_with_gold_missing": "prompts of which some gold is missing",
        "responses_without_gold": "responses without gold",
        "prompts_with_too_few": "prompts with too few candidates",
    }
    gone = [f"{found['left_out'][key]:,} {what}" for key, what in words.items() if found["left_out"].get(key)]
    return (
        f"{found['n_prompts']:,} prompts with {found['n_responses']:,} candidates, {k}{varies}; at "
        f"{found['n_uninformative']:,} prompts all have the same gold and any choice is as good."
        + (f" Left out: {', '.join(gone)}." if gone else "")
    )


def gold_sentence(facts: Facts) -> str:
    """Say what gold is: its scale, range and deviation."""
    gold = facts["gold"]
    if gold["scale"] == "standard":
        return "Gold is standardised within each domain over the candidates (mean 0, standard deviation 1)."
    if gold["binary"]:
        return f"Gold is 0 or 1, not standardised, {gold['mean']:.3f} on average; the oracle's row is pass@n."
    return (
        f"Gold as the data have it, not standardised: from {gold['low']:g} to {gold['high']:g}, mean {gold['mean']:.3g}, "
        f"standard deviation {gold['sd']:.3g}."
    )


def interval_sentence(facts: Facts) -> str:
    """Say what intervals are."""
    return (
        f"Intervals are {facts['confidence']:.0%} percentile intervals over {facts['n_resamples']:,} bootstrap draws of "
        "whole prompt groups; fewer than ten groups have none."
    )


def divergence_sentence(facts: Facts) -> str:
    """Say how far best-of-n is from drawing once, and of what that speaks."""
    n = facts["headline"]
    most = facts["kl"][facts["ns"].index(n)]
    return f"Best of {n} is at most {most:.2f} nats from one draw, where candidates are draws of one policy."


def shown_places(facts: Facts) -> list[int]:
    """Places of the n that a table shows: evenly on a log scale, with the headline's."""
    ns = facts["ns"]
    top = math.log(ns[-1])
    wanted = [top * i / (_SHOWN - 1) for i in range(_SHOWN)]
    near = {min(range(len(ns)), key=lambda j, w=w: abs(math.log(ns[j]) - w)) for w in wanted}  # type: ignore[misc]
    return sorted(near | {ns.index(facts["headline"])})


def _macro(facts: Facts, label: str, note: str | None = None) -> list[Column]:
    """The column of the mean over domains, where there are several."""
    return [Column("macro", label, "interval", note=note)] if len(facts["domains"]) > 1 else []


def _span(found: Facts) -> str:
    low, high = found["k_min"], found["k_max"]
    return f"{low}" if low == high else f"{low} to {high}"


def _unit(facts: Facts) -> str:
    if facts["gold"]["scale"] == "standard":
        return " (standardised by domain)"
    return " (share of ones)" if facts["gold"]["binary"] else ""


def _ticks(ns: Sequence[int]) -> dict[str, Any]:
    """Name as many n on the axis as have room, the largest first."""
    span = math.log(max(ns) / min(ns))
    ticks: list[int] = []
    for n in sorted(ns, reverse=True):
        if not ticks or math.log(ticks[-1] / n) >= 0.05 * span:
            ticks.append(n)
    ticks.reverse()
    return {"ticks": ticks, "labels": [f"{n:,}" for n in ticks]}


def _ends(cell: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if cell is None else {key: cell[key] for key in ("value", "low", "high")}


def _interval(cell: Mapping[str, Any]) -> str:
    ends = "" if cell["low"] is None else f" [{cell['low']:.3f}, {cell['high']:.3f}]"
    return f"{cell['value']:.3f}{ends}"


def _signed(cell: Mapping[str, Any]) -> str:
    ends = "" if cell["low"] is None else f" [{cell['low']:+.3f}, {cell['high']:+.3f}]"
    return f"{cell['value']:+.3f}{ends}"
