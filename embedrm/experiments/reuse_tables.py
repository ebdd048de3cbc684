"""Tables and figures of the Reusing-Embeddings study; everything is read from its facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedrm.experiments.reuse_arms import CROSS, row_of
from embedrm.experiments.reuse_plan import MODELS, THEIRS
from embedrm.reporting.figures import Figure
from embedrm.reporting.over_optimisation import sample_sentence
from embedrm.reporting.tables import Column, Table

Facts = Mapping[str, Any]

GAIN = "gold gained, standard deviations within prompts"
"""By the choice, above a random one."""


def levels_table(facts: Facts, name: str, title: str, caption: str = "") -> Table:
    """Every level and model at the largest n, with what it has over the reference."""
    n = facts["ns"][-1]
    reference = facts["reference"]
    columns = [
        Column("model", "Chosen by"),
        Column(
            "gain",
            "gold",
            "interval",
            best="max",
            note=f"of the best of {n:,}, above a random choice, in standard deviations within prompts",
        ),
        Column("quantile", "beats", "interval", note="share of the other candidates with lower gold"),
        Column("spearman", "Spearman", "interval", best="max", note="of reward and gold, mean over prompts"),
        Column("less", f"less {reference}", "interval", note="gold of the choice, in the unit of gold, paired"),
        Column("p", "p", "p", note="bootstrap of prompts and draws, not corrected for the number of tests"),
    ]
    rows = []
    for row in facts["rows"]:
        other = None if row["model"] == reference else row_of(facts, "differences", row["level"], row["model"])
        cell = None if other is None else other["gold"][-1]
        rows.append(
            {
                "level": row["level"],
                "model": row["model"],
                "gain": None if row["gain_sd"] is None else row["gain_sd"][-1],
                "quantile": row["quantile"][-1],
                "spearman": row["spearman"],
                "less": None if cell is None else {key: cell[key] for key in ("value", "low", "high")},
                "p": None if cell is None else cell["p"],
            }
        )
    return Table(name, title, columns, rows, caption=f"{caption} {sample_sentence(facts)}".strip(), row_groups="level")


def models_figure(facts: Facts, level: str, name: str = "models") -> Figure:
    """Gold of the best of the largest n by model: the bar chart of the paper."""
    rows = [row_of(facts, "rows", level, model) for model in facts["models"]]
    cells = [row["gain_sd"][-1] for row in rows]
    data = {
        "categories": list(facts["models"]),
        "series": [
            {"label": level, "values": _get(cells, "value"), "low": _get(cells, "low"), "high": _get(cells, "high")}
        ],
        "x_label": f"{GAIN}; best of {facts['ns'][-1]:,}",
        "y_label": "",
    }
    return Figure(name, "Gold gained by model, at the centre", "bars", data, caption=sample_sentence(facts))


def curves_figure(facts: Facts, level: str, name: str = "best-of-n", title: str = "Best of n, at the centre") -> Figure:
    """Gold of the choice over n, a line a model."""
    ns = facts["ns"]
    series = []
    for model in facts["models"]:
        cells = row_of(facts, "rows", level, model)["gain_sd"]
        series.append(
            {"label": model, "x": ns, "y": _get(cells, "value"), "low": _get(cells, "low"), "high": _get(cells, "high")}
        )
    data = {
        "series": series,
        "x_label": "n, candidates to choose from",
        "y_label": GAIN,
        "x_scale": "log",
        "x": {"ticks": ns, "labels": [f"{n:,}" for n in ns]},
        "reference": [{"value": 0.0, "label": "random"}],
    }
    return Figure(name, title, "lines", data, caption=f"{level}. {sample_sentence(facts)}")


def factor_figure(
    facts: Facts, x: Sequence[float], name: str, title: str, x_label: str, *, log: bool = False, labels: bool = False
) -> Figure:
    """Gold of the best of the largest n over a factor, a line a model; ``x`` one number a level."""
    order = sorted(range(len(x)), key=lambda i: x[i])
    series = []
    for model in facts["models"]:
        cells = [row_of(facts, "rows", facts["levels"][i], model)["gain_sd"][-1] for i in order]
        series.append(
            {
                "label": model,
                "x": [x[i] for i in order],
                "y": _get(cells, "value"),
                "low": _get(cells, "low"),
                "high": _get(cells, "high"),
            }
        )
    data: dict[str, Any] = {"series": series, "x_label": x_label, "y_label": f"{GAIN}; best of {facts['ns'][-1]:,}"}
    if log:
        data["x_scale"] = "log"
    if labels:
        ticks = [x[i] for i in order]
        data["x"] = {"ticks": ticks, "labels": [f"{t:,g}" for t in ticks]}
    return Figure(name, title, "lines", data, caption=sample_sentence(facts))


def pairing_table(crossed: Mapping[str, Facts], gaps: Mapping[str, Any], name: str, n: int) -> Table:
    """Same prompt against across prompts, by selection of responses and model."""
    columns = [
        Column("model", "Chosen by"),
        Column(
            "same", "same prompt", "interval", best="max", note="gold of the choice, standard deviations within prompts"
        ),
        Column("cross", "across prompts", "interval", best="max"),
        Column("gain", "gain", "interval", note="across less same, in the unit of gold, paired"),
        Column("p", "p", "p"),
        Column("spearman", "gain in Spearman", "interval"),
    ]
    rows = []
    first = next(iter(crossed.values()))
    for level in first["levels"]:
        gap = gaps[level]
        head = (
            f"{level}: mean |Δr| {gap['same']['gap']:.2f} ({gap['same']['error']:.0%} wrong), across "
            f"{gap['cross']['gap']:.2f} ({gap['cross']['error']:.0%} wrong)"
        )
        for model, facts in crossed.items():
            same, cross = (row_of(facts, "rows", level, how) for how in facts["models"])
            less = row_of(facts, "differences", level, CROSS)
            cell = less["gold"][-1]
            rows.append(
                {
                    "level": head,
                    "model": model,
                    "same": None if same["gain_sd"] is None else same["gain_sd"][-1],
                    "cross": None if cross["gain_sd"] is None else cross["gain_sd"][-1],
                    "gain": _ends(cell),
                    "p": cell["p"],
                    "spearman": _ends(less["spearman"]),
                }
            )
    caption = (
        f"{n:,} annotations in every cell, of the same responses, compared within their prompt or matched anew across "
        f"prompts; differences of gold in its standard deviations. {sample_sentence(first)}"
    )
    return Table(
        name,
        f"Comparing across prompts: best of {first['ns'][-1]:,}",
        columns,
        rows,
        caption=caption,
        row_groups="level",
    )


def pairing_figure(crossed: Mapping[str, Facts], name: str = "pairing") -> Figure:
    """Gain by comparing across prompts, by selection, a series a model."""
    first = next(iter(crossed.values()))
    series = []
    for model, facts in crossed.items():
        cells = [row_of(facts, "differences", level, CROSS)["gold"][-1] for level in facts["levels"]]
        series.append(
            {"label": model, "values": _get(cells, "value"), "low": _get(cells, "low"), "high": _get(cells, "high")}
        )
    data = {
        "categories": list(first["levels"]),
        "series": series,
        "x_label": f"gold of the best of {first['ns'][-1]:,}, across prompts less same prompt",
        "y_label": "responses shown",
        "reference": [{"value": 0.0, "label": "no difference"}],
    }
    return Figure(name, "What comparing across prompts brings", "intervals", data, caption=sample_sentence(first))


def scatter_figure(points: Sequence[Facts], name: str = "gap-and-gain") -> Figure:
    """Mean |delta r| within prompts against the gain by comparing across them; a point a model and selection."""
    series = []
    for model in MODELS:
        own = [point for point in points if point["model"] == model]
        series.append(
            {
                "label": model,
                "x": [point["gap"] for point in own],
                "y": [point["gain"]["value"] for point in own],
                "low": [point["gain"]["low"] for point in own],
                "high": [point["gain"]["high"] for point in own],
                "names": [point["where"] for point in own],
            }
        )
    data = {
        "series": [one for one in series if one["x"]],
        "x_label": "mean |Δr| of pairs of one prompt, standard deviations of gold",
        "y_label": "gold gained by comparing across prompts",
        "reference": [{"value": 0.0, "label": "no difference"}],
    }
    caption = (
        "Each point is a model and a selection of responses, or arrays whose responses to a prompt share more or less. "
        "Models at one place are drawn a little apart; intervals as in the tables. Where ranks are not kept, see the table."
    )
    return Figure(
        name,
        "The more alike the responses, the more comparing across prompts brings?",
        "scatter",
        data,
        caption=caption,
    )


def cost_table(rows: Sequence[Facts], name: str = "cost") -> Table:
    """Parameters, seconds, core-seconds and memory of one fit of each model."""
    columns = [
        Column("model", "Model"),
        Column("parameters", "parameters", "integer", note="of trees: leaves and thresholds"),
        Column("seconds", "fit", "seconds", note="wall clock, one fit, not repeated"),
        Column("core_seconds", "core-seconds", "seconds", note="processor time of all threads"),
        Column("memory", "memory", "bytes", note="peak while fitting, above what was there: vectors are not counted"),
        Column("score", "score 1,000", "seconds", note="wall clock, a thousand candidates"),
    ]
    made = [
        {"size": f"{row['size']}: {row['pairs']:,} pairs, vectors of {row['dim']:,}"}
        | {column.key: row[column.key] for column in columns}
        for row in rows
    ]
    ours = ", ".join(model for model in MODELS if model not in THEIRS)
    caption = f"Without encoding, which is done once. {ours} are ours."
    return Table(name, "What training costs", columns, made, caption=caption, row_groups="size")


def estimators_table(rows: Sequence[Facts], n_permutations: int, name: str = "estimators") -> Table:
    """Both estimators of best-of-n side by side, at the centre."""
    ns = rows[0]["ns"]
    columns = [Column("model", "Chosen by"), Column("scheme", "estimator")]
    columns += [Column(f"n{n}", f"n = {n:,}", "number", digits=3) for n in ns]
    made = [
        {"model": row["model"], "scheme": label} | {f"n{n}": row[key][j] for j, n in enumerate(ns)}
        for row in rows
        for key, label in (("unbiased", "all subsets"), ("permutations", f"{n_permutations} permutations"))
    ]
    caption = (
        "Mean gold of the choice, first seed. All subsets is the mean that permutations of the candidates estimate."
    )
    return Table(name, "Two estimators of best-of-n", columns, made, caption=caption)


def _get(cells: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    return [cell[key] for cell in cells]


def _ends(cell: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if cell is None else {key: cell[key] for key in ("value", "low", "high")}
