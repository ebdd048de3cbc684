"""Tables and figures of over-optimisation facts (:func:`embedrm.evaluation.over_optimisation.over_optimisation_facts`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.reporting import best_of_n as parts
from embedrm.reporting.figures import MAX_SERIES, Figure
from embedrm.reporting.tables import Column, Table

Facts = Mapping[str, Any]

AXES = {"n": "n, candidates to choose from", "kl": "divergence of best-of-n from one draw, nats (upper bound)"}
"""What a figure can be drawn over."""


def over_optimisation_table(facts: Facts, name: str = "over-optimisation", title: str = "Over-optimisation") -> Table:
    """Every level and model at the largest n: reward, gold, and what was lost since the peak."""
    n = facts["ns"][-1]
    columns = [
        Column("model", "Chosen by"),
        Column("reward", "reward", "interval", note="of the choice, in standard deviations above its prompt's mean"),
        Column("gain", "gold", "interval", best="max", note="of the choice, in the same unit of gold"),
        Column("captured", "captured", "interval", best="max", note="gain over the oracle's"),
        Column("quantile", "beats", "interval", note="share of the other candidates with lower gold, equal ½"),
        Column("spearman", "Spearman", "interval", note="of reward and gold, mean over prompts"),
        Column("peak", "peak", "integer", note="the n of the highest mean gold"),
        Column("lost", "lost", "interval", note="gold at the peak less gold at the largest n, in the unit of the data"),
    ]
    rows = [
        {
            "level": row["level"],
            "model": row["model"],
            "reward": row["reward"][-1],
            "gain": None if row["gain_sd"] is None else row["gain_sd"][-1],
            "captured": row["captured"],
            "quantile": row["quantile"][-1],
            "spearman": row["spearman"],
            "peak": row["peak"],
            "lost": row["lost"],
        }
        for row in facts["rows"]
    ]
    caption = (
        f"The best of {n:,} of a prompt's candidates, {facts['kl'][-1]:.2f} nats from one draw at most. "
        f"{parts.how_sentence(facts)} {sample_sentence(facts)} The peak of one half of the prompt groups is read on the "
        "other, so that nothing is lost by chance alone."
    )
    return Table(name, f"{title}: best of {n:,}", columns, rows, caption=caption, row_groups="level")


def gold_table(facts: Facts, name: str = "over-optimisation-gold", title: str = "Gold over n") -> Table:
    """Mean gold of the choice at up to seven n, by level and model."""
    ns = facts["ns"]
    places = parts.shown_places({"ns": ns, "headline": ns[-1]})
    columns = [Column("model", "Chosen by")]
    columns += [
        Column(f"n{ns[j]}", f"n = {ns[j]:,}", "interval", best="max", note=f"{facts['kl'][j]:.2f} nats") for j in places
    ]
    rows = [
        {"level": row["level"], "model": row["model"]} | {f"n{ns[j]}": row["gold"][j] for j in places}
        for row in facts["rows"]
    ]
    rows.append({"level": "bound", "model": "oracle"} | {f"n{ns[j]}": facts["oracle"][j] for j in places})
    caption = (
        f"{parts.gold_sentence(facts)} A random choice has {facts['random']['value']:.3g}. {sample_sentence(facts)}"
    )
    return Table(name, title, columns, rows, caption=caption, row_groups="level")


def differences_table(facts: Facts, name: str = "over-optimisation-differences") -> Table:
    """Every model less the reference, at the largest n, by level; then how the difference changes with the noise."""
    n = facts["ns"][-1]
    columns = [
        Column("level", "level"),
        Column("gold", f"gold, best of {n:,}", "interval"),
        Column("p", "p", "p", note="bootstrap of prompt groups and draws"),
        Column("spearman", "Spearman", "interval"),
        Column("lost", "lost", "interval", note="below zero: less is lost after the peak"),
    ]
    rows = []
    for model in facts["models"]:
        for one in facts["differences"]:
            if one["model"] == model:
                rows.append(
                    {
                        "what": f"{model} − {one['reference']}",
                        "level": one["level"],
                        "gold": _ends(one["gold"][-1]),
                        "p": one["gold"][-1]["p"],
                        "spearman": _ends(one["spearman"]),
                        "lost": _ends(one["lost"]),
                    }
                )
        for one in facts["changes"]:
            if one["model"] == model:
                rows.append(
                    {
                        "what": f"{model} − {one['reference']}",
                        "level": f"{one['to']}, less {one['from']}",
                        "gold": _ends(one["gold"]),
                        "p": one["gold"]["p"],
                        "spearman": None,
                        "lost": None,
                    }
                )
    caption = (
        "Both choose for the same prompts, from the same wrong labels; p is not corrected for the number of tests."
    )
    return Table(name, "Differences", columns, rows, caption=caption, row_groups="what")


def goodhart_figure(
    facts: Facts, level: str | None = None, name: str = "goodhart", over: str = "n", title: str | None = None
) -> Figure:
    """Reward of the reference's choice, and gold of every model's, over n at one level (the last one where absent)."""
    level = facts["levels"][-1] if level is None else level
    if level not in facts["levels"]:
        raise unknown_name("level of noise", level, facts["levels"])
    if over not in AXES:
        raise unknown_name("axis of over-optimisation", over, AXES)
    found = [row for row in facts["rows"] if row["level"] == level]
    if any(row["gain_sd"] is None for row in found):
        raise InvalidInputError("gold is the same for all candidates of every prompt: there is nothing to draw")
    by_model = {row["model"]: row for row in found}
    shown = [facts["reference"], *(m for m in by_model if m != facts["reference"])][: MAX_SERIES - 1]
    x = facts["ns"] if over == "n" else facts["kl"]
    series = [{"label": f"{facts['reference']}: its reward", "x": x, **_lines(by_model[facts["reference"]]["reward"])}]
    series += [{"label": f"{model}: gold", "x": x, **_lines(by_model[model]["gain_sd"])} for model in shown]
    data: dict[str, Any] = {
        "series": series,
        "x_label": AXES[over],
        "y_label": "standard deviations above a random choice",
        "reference": [{"value": 0.0, "label": "random"}],
    }
    if over == "n":
        data |= (
            {"x_scale": "log", "x": {"ticks": x, "labels": [f"{n:,}" for n in x]}}
            if len(x) <= 12
            else {"x_scale": "log"}
        )
    caption = (
        f"{level}. Reward and gold of the choice, both in standard deviations within prompts; best of {facts['ns'][-1]:,} "
        f"is at most {facts['kl'][-1]:.2f} nats from one draw. {sample_sentence(facts)}"
    )
    return Figure(name, title or f"Reward and gold of the best of n: {level}", "lines", data, caption=caption)


def noise_figure(facts: Facts, name: str = "over-optimisation-noise") -> Figure:
    """Gold of the best of the largest n, by level and model."""
    n = facts["ns"][-1]
    by = {(row["level"], row["model"]): row for row in facts["rows"]}
    series = []
    for model in facts["models"][:MAX_SERIES]:
        cells = [by[level, model]["gold"][-1] for level in facts["levels"]]
        series.append(
            {
                "label": model,
                "values": [cell["value"] for cell in cells],
                "low": [cell["low"] for cell in cells],
                "high": [cell["high"] for cell in cells],
            }
        )
    data = {
        "categories": list(facts["levels"]),
        "series": series,
        "x_label": f"gold of the best of {n:,}",
        "y_label": "",
        "reference": [{"value": facts["random"]["value"], "label": "random"}],
    }
    return Figure(name, "Gold of the choice by noise", "intervals", data, caption=sample_sentence(facts))


def over_optimisation_findings(facts: Facts) -> list[str]:
    """What to take away: what is lost at each level, and what the others change."""
    n, reference = facts["ns"][-1], facts["reference"]
    out = []
    for row in facts["rows"]:
        if row["model"] == reference:
            gain = "" if row["gain_sd"] is None else f" and gold {_interval(row['gain_sd'][-1])}"
            out.append(
                f"{row['level']}: the best of {n:,} by the {reference} model has reward {_interval(row['reward'][-1])}"
                f"{gain} standard deviations above a random choice; gold is highest at n = {row['peak']:,}, and "
                f"{_interval(row['lost'])} is lost after it."
            )
    for one in facts["changes"]:
        at = [d["gold"][-1] for d in facts["differences"] if d["model"] == one["model"]]
        out.append(
            f"{one['model']} less {reference} in gold of the best of {n:,}: {_signed(at[0])} ({one['from']}), "
            f"{_signed(at[-1])} ({one['to']}); the change is {_signed(one['gold'])}."
        )
    return out


def sample_sentence(facts: Facts) -> str:
    """Say which prompts and draws, and what intervals are."""
    n, settings = facts["n_draws"], facts["n_settings"]
    draws = "one draw" if n == 1 else f"{n:,} draws of wrong labels and seeds"
    prompts = f"{facts['n_prompts']:,} prompts with at least {facts['ns'][-1]:,} candidates"
    if settings > 1:
        draws = f"in each of {settings:,} sets of vectors and gold" + (
            ", with labels and seeds of their own" if settings == n else f"; {draws}"
        )
    over = "prompt groups" if n == 1 else "prompt groups and draws, widened by Student's t for the few draws"
    return (
        f"{prompts}{' ' if settings > 1 else ', '}{draws}; intervals are {facts['confidence']:.0%} percentile intervals "
        f"over {facts['n_resamples']:,} bootstrap draws of {over}."
    )


def _lines(cells: list[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: [cell[end] for cell in cells] for key, end in (("y", "value"), ("low", "low"), ("high", "high"))}


def _ends(cell: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if cell is None else {key: cell[key] for key in ("value", "low", "high")}


def _interval(cell: Mapping[str, Any]) -> str:
    ends = "" if cell["low"] is None else f" [{cell['low']:.2f}, {cell['high']:.2f}]"
    return f"{cell['value']:.2f}{ends}"


def _signed(cell: Mapping[str, Any]) -> str:
    ends = "" if cell["low"] is None else f" [{cell['low']:+.2f}, {cell['high']:+.2f}]"
    return f"{cell['value']:+.2f}{ends}"
