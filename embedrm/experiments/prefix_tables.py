"""Tables and figures of the study of prefix rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedrm.experiments.prefix_curves import Curves
from embedrm.experiments.prefix_spectra import CUTOFF, CUTOFFS
from embedrm.experiments.prefix_steering import UNGUIDED
from embedrm.reporting.figures import Figure
from embedrm.reporting.tables import Column, Table

ARMS = ("RAD", "ARM distilled", "ARM responses-only")
NO_GAP = "the curves share no perplexity, or RAD's shift is not above zero for certain."
_BANDS = "Bands are 95 % intervals over prompts."
_SPECTRUM_PLACES = 60


def heads_table(facts: Mapping[str, Any]) -> Table:
    """Heads on test texts."""
    columns = [
        Column("name", "head"),
        Column("auc", "AUC", "interval", best="max", note="of whole texts, one end against the other"),
        Column("label_loss", "label loss", "number", digits=4, best="min", note="cumulative squared error from labels"),
        Column("teacher_loss", "teacher loss", "number", digits=5, note="mean squared difference from RAD, all tokens"),
        Column("parameters", "parameters", "integer"),
    ]
    return Table("heads", "Heads on test texts", columns, facts["heads"])


def tried_table(facts: Mapping[str, Any]) -> Table:
    """Penalties and their validation losses."""
    columns = [
        Column("head", "head"),
        Column("l2", "l2", "number"),
        Column("loss", "validation loss", "number", digits=5),
        Column("chosen", "taken"),
    ]
    caption = "Responses-only and RAD: cumulative squared error from labels; distilled: squared difference from RAD."
    return Table("penalties", "Penalties, by validation texts", columns, facts["tried"], caption)


def curves_table(facts: Mapping[str, Any], end: str) -> Table:
    """Every point of the curves."""
    columns = [
        Column("beta", "β", "number"),
        Column("positive", f"judged {end}", "interval"),
        Column("perplexity", "perplexity", "interval", digits=1),
        *(Column(f"distinct{n}", f"distinct-{n}", "interval") for n in (1, 2, 3)),
    ]
    return Table("curves", "Attribute and fluency over β", columns, facts["curves"], row_groups="arm")


def gaps_table(facts: Mapping[str, Any]) -> Table:
    """Gaps at equal perplexity."""
    columns = [
        Column("arm", "arm less RAD"),
        Column("gap", "gap of rates", "interval"),
        Column("shift", "RAD's shift", "interval"),
        Column("relative", "gap over shift", "interval"),
    ]
    rows = [{"arm": arm, **(gap or dict.fromkeys(("gap", "shift", "relative")))} for arm, gap in facts["gaps"].items()]
    return Table("gaps", "At equal perplexity", columns, rows, f"Absent where {NO_GAP}")


def examples_table(facts: Mapping[str, Any]) -> Table:
    """Some texts as they came."""
    columns = [
        Column("arm", "arm"),
        Column("beta", "β", "number"),
        Column("prompt", "prompt"),
        Column("text", "continuation"),
    ]
    return Table("examples", "The first continuation of the first prompts", columns, facts["examples"])


def tradeoff_figure(curves: Curves, end: str) -> Figure:
    """Positive rate against perplexity, one line an arm."""
    series: list[dict[str, Any]] = []
    for arm in ARMS:
        keys = [(UNGUIDED, 0.0), *((arm, beta) for beta in curves.betas(arm))]
        cells = [(curves.cell(*key, "perplexity"), curves.cell(*key, "positive")) for key in keys]
        series.append({"label": arm, "x": [p["value"] for p, _ in cells], "y": [r["value"] for _, r in cells]})
    data = {
        "series": series,
        "x_label": "perplexity under the judging model",
        "y_label": f"share judged {end}",
        "x_scale": "log",
        "x": _ticks([x for one in series for x in one["x"]]),
    }
    caption = "Each line begins at unguided decoding and follows β; up and to the left is better."
    return Figure("tradeoff", "Attribute against fluency", "lines", data, caption)


def rate_figure(curves: Curves, end: str) -> Figure:
    """Positive rate over beta with bands."""
    series = []
    for arm in ARMS:
        keys = [(UNGUIDED, 0.0), *((arm, beta) for beta in curves.betas(arm))]
        cells = [curves.cell(*key, "positive") for key in keys]
        series.append({"label": arm, "x": [beta for _, beta in keys]} | _bands(cells))
    data = {"series": series, "x_label": "β", "y_label": f"share judged {end}"}
    return Figure("rate-over-beta", f"Share judged {end} over β", "lines", data, _BANDS)


def ranks_table(facts: Mapping[str, Any]) -> Table:
    """Ranks at cut-offs."""
    columns = [
        Column("name", "head"),
        *(Column(_key(c), f"rank at {c:g}", "integer") for c in CUTOFFS),
        Column("energy", "99 % of squares", "integer", note="singular values that make up this share"),
        Column("effective", "effective rank", "number", digits=1, note="exponential of the entropy of singular values"),
        Column("above_rounding", "above rounding", "integer", note="float32 states for RAD, float64 products for ARM"),
        Column("bound", "bound", "integer"),
    ]
    rows = [_rank_cells(row) for row in facts["matrices"]]
    caption = (
        "A dash where a cut-off is below the rounding of the matrix, or where the form of the head gives no bound."
    )
    return Table("ranks", "Rank by cut-off", columns, rows, caption)


def over_prefixes_figure(facts: Mapping[str, Any]) -> Figure:
    """Rank over the number of prefixes (Fig. 1)."""
    series = [
        {"label": name, "x": [row["prefixes"] for row in rows], "y": [row["rank"] for row in rows]}
        for name, rows in facts["over_prefixes"].items()
    ]
    most = max(row["rank"] for rows in facts["over_prefixes"].values() for row in rows)
    data: dict[str, Any] = {"series": series, "x_label": "prefixes", "y_label": f"rank at {CUTOFF:g}", "x_scale": "log"}
    if facts["dim"] <= 4 * most:
        data["reference"] = [{"value": facts["dim"], "label": "size of a state"}]
    caption = f"A state has {facts['dim']} numbers, which bounds ARM's rank."
    return Figure("rank-over-prefixes", "Rank over the number of prefixes", "lines", data, caption)


def spectra_figure(facts: Mapping[str, Any]) -> Figure:
    """Singular values over the largest."""
    series = []
    for row in facts["matrices"]:
        values = [value / row["values"][0] for value in row["values"][:_SPECTRUM_PLACES]]
        shown = [value if value > 1e-7 else None for value in values]
        series.append({"label": row["name"], "x": list(range(1, len(shown) + 1)), "y": shown})
    data = {
        "series": series,
        "x_label": "singular value",
        "y_label": "over the largest",
        "y_scale": "log",
        "reference": [{"value": CUTOFF, "label": "cut-off"}],
    }
    return Figure(
        "spectra", "Singular spectra of learned reward matrices", "lines", data, f"The first {_SPECTRUM_PLACES}."
    )


def variants_table(rows: Sequence[Mapping[str, Any]], name: str, title: str, end: str) -> Table:
    """Variants of distilled ARM: rank, losses, texts."""
    columns = [
        Column("name", "head"),
        Column("rank", f"rank at {CUTOFF:g}", "integer"),
        Column("above_rounding", "above rounding", "integer"),
        Column("bound", "bound", "integer"),
        Column("positive", f"judged {end}", "interval"),
        Column("perplexity", "perplexity", "interval", digits=1),
        Column("auc", "AUC", "interval"),
        Column("teacher_loss", "teacher loss", "number", digits=5),
        Column("parameters", "parameters", "integer"),
    ]
    made = [
        {
            **{key: row[key] for key in ("name", "positive", "perplexity", "auc", "teacher_loss", "parameters")},
            "rank": row["ranks"]["ranks"].get(CUTOFF),
            "above_rounding": row["ranks"]["above_rounding"],
            "bound": row["ranks"]["bound"],
        }
        for row in rows
    ]
    return Table(name, title, columns, made)


def rank_sweep_figure(facts: Mapping[str, Any], end: str) -> Figure:
    """What a smaller W still steers."""
    rows = facts["rank_sweep"]
    data = {
        "series": [
            {"label": "ARM distilled", "x": [row["r"] for row in rows]} | _bands([row["positive"] for row in rows])
        ],
        "x_label": "rank r of W (the last: all of it)",
        "y_label": f"share judged {end}",
        "x_scale": "log",
    }
    return Figure("rank-sweep", "Steering by the rank of W", "lines", data, _BANDS)


def backbones_table(rows: Sequence[Mapping[str, Any]], end: str) -> Table:
    """Tuned and frozen side by side."""
    columns = [
        Column("name", "head"),
        Column("auc", "AUC", "interval", best="max"),
        Column("rank", f"rank at {CUTOFF:g}", "interval", digits=0),
        Column("beta", "β", "number"),
        Column("positive", f"judged {end}", "interval"),
        Column("perplexity", "perplexity", "interval", digits=1),
    ]
    made = [{key: row[key] for key in ("name", "auc", "rank", "beta", "positive", "perplexity")} for row in rows]
    return Table(
        "tuned",
        "Frozen and tuned backbones",
        columns,
        made,
        "Low and high of ranks are those of random halves of the prefixes.",
    )


def timing_table(facts: Mapping[str, Any]) -> Table:
    """Seconds and calls per token."""
    columns = [
        Column("way", "decoding"),
        Column("k", "k", "integer", note="candidates"),
        Column("milliseconds", "ms per token", "interval", digits=2),
        Column("overhead", "unguided = 1", "interval", digits=2),
        Column("against_arm", "ARM = 1", "interval", digits=2),
        Column("states", "states read", "number", digits=0, note="by the reward, per token"),
        Column(
            "passes", "more passes", "number", digits=0, note="forward passes beside the guided model's own, per token"
        ),
    ]
    keys = [column.key for column in columns if column.key != "milliseconds"]
    rows = [
        {key: row[key] for key in keys} | {"milliseconds": _milliseconds(row["seconds"])}
        for row in sorted(facts["timing"], key=lambda one: one["k"])
    ]
    return Table("timing", "Time and calls per token", columns, rows)


def timing_figure(facts: Mapping[str, Any]) -> Figure:
    """Milliseconds over k."""
    series = []
    for way in dict.fromkeys(row["way"] for row in facts["timing"]):
        rows = [row for row in facts["timing"] if row["way"] == way]
        cells = [_milliseconds(row["seconds"]) for row in rows]
        series.append({"label": way, "x": [row["k"] for row in rows]} | _bands(cells))
    data = {"series": series, "x_label": "candidates k", "y_label": "milliseconds per token", "x_scale": "log"}
    return Figure(
        "time-per-token", "Time per token", "lines", data, "Bands are intervals of the median of paired runs."
    )


def synthetic_table(facts: Mapping[str, Any]) -> Table:
    """Errors and ranks on token-pair matrices."""
    columns = [
        Column("head", "head"),
        Column("error", "rms error", "number", digits=3, best="min"),
        Column("floor", "floor", "number", digits=3),
        Column("rank", "rank at 0.01", "integer"),
        Column("rank_rounding", "rank at 1e-6", "integer"),
        Column("bound", "bound", "integer"),
    ]
    keys = [column.key for column in columns]
    rows = [{"matrix": row["matrix"], **{key: row[key] for key in keys}} for row in facts["synthetic"]]
    return Table("synthetic", "Matrices of full rank", columns, rows, row_groups="matrix")


def synthetic_figure(facts: Mapping[str, Any], name: str = "synthetic-spectra") -> Figure:
    """Singular values of what was learned."""
    series = [
        {
            "label": f"{row['head']} ({row['matrix']})",
            "x": list(range(1, len(row["values"]) + 1)),
            "y": [value if value > 1e-4 * row["values"][0] else None for value in row["values"]],
        }
        for row in facts["synthetic"]
    ]
    data = {"series": series, "x_label": "singular value", "y_label": "size", "y_scale": "log"}
    return Figure(
        name,
        "Singular values of the learned token-pair matrices",
        "lines",
        data,
        "Values below 0.0001 of the largest are left out.",
    )


def _ticks(values: Sequence[float]) -> dict[str, Any]:
    """Round places on a log axis that lie within the values, or its ends where none does."""
    least, most = min(values), max(values)
    steps = (1, 2, 5) if most > 12 * least else (1, 1.5, 2, 3, 4, 5, 6, 8)
    ticks = [m * 10**e for e in range(6) for m in steps if least <= m * 10**e <= most] or [least, most]
    return {"ticks": ticks, "labels": [f"{t:,g}" for t in ticks]}


def _milliseconds(cell: Mapping[str, float]) -> dict[str, float]:
    return {key: 1e3 * value for key, value in cell.items()}


def _key(cutoff: float) -> str:
    return f"rank_{cutoff:g}"


def _rank_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    cells = {_key(c): row["ranks"].get(c) for c in CUTOFFS}
    return cells | {key: row[key] for key in ("name", "energy", "effective", "above_rounding", "bound")}


def _bands(cells: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {key: [cell[end] for cell in cells] for key, end in (("y", "value"), ("low", "low"), ("high", "high"))}
