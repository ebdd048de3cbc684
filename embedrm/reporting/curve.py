"""The report of a learning curve: one table, and a line with its band for each model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from embedrm.reporting.accuracy import NOISE_CEILING, sample_sentence
from embedrm.reporting.figures import MAX_SERIES, Figure
from embedrm.reporting.report import Report
from embedrm.reporting.tables import Column, Table

UNITS = {"prompts": "prompts", "pairs": "pairs a prompt", "responses": "responses a prompt"}
"""What the sizes of each kind of curve count."""

# The axes along which a kind of curve moves, the one that it is about first.
_AXES = {"prompts": ("prompts",), "pairs": ("pairs", "responses"), "responses": ("responses", "pairs")}
_HOW = {
    "prompts": "Training sets are whole prompt groups with all their pairs; domains keep their shares, nearly.",
    "pairs": "Training sets keep all prompts, with at most so many pairs each, drawn at random.",
    "responses": "Training sets keep all prompts, with at most so many responses each and every pair among these.",
}
_BASELINE, _BOUND = "trivial baseline", "bound by the noise of the labels"


def curve_report(facts: Mapping[str, Any], title: str = "Learning curve", notes: Sequence[str] = ()) -> Report:
    """Return the report of a curve; ``facts`` of :func:`embedrm.experiments.curve.curve_facts`."""
    report = Report("learning curve", title, _findings(facts), notes=[*notes, *_notes(facts)])
    figures = [curve_figure(facts, axis) for axis in _AXES[facts["by"]]]
    report.add_section("Accuracy over training data", tables=[curve_table(facts)], figures=figures)
    return report


def curve_table(facts: Mapping[str, Any], name: str = "learning-curve") -> Table:
    """Sizes of each model with what they cost (prompts, responses, pairs, seconds) and the accuracy that they bring."""
    columns = [
        Column("size", f"size, in {UNITS[facts['by']]}"),
        Column("micro", "micro", "interval"),
        Column("macro", "macro", "interval"),
        Column(
            "spread",
            "sd",
            "number",
            digits=3,
            note="of micro over the draws; where all is taken, the draws differ by the models' own seeds only",
        ),
        Column("n_prompts", "prompts", "integer", note="to train on, mean over the draws"),
        Column("n_responses", "responses", "integer", note="that the pairs touch: what has to be encoded"),
        Column("n_pairs", "pairs", "integer", note="what has to be labelled"),
        Column("fit_seconds", "fit", "seconds"),
    ]
    thousands = "," if max(facts["sizes"]) >= 10_000 else ""
    absent: dict[str, Any] = dict.fromkeys(("spread", "n_prompts", "n_responses", "n_pairs", "fit_seconds"))
    rows = [
        {
            "group": row["model"],
            "size": format(row["size"], thousands),
            "micro": row["micro"],
            "macro": row["macro"],
            "spread": row["spread"]["micro"],
            **{key: round(row[key]) for key in ("n_prompts", "n_responses", "n_pairs")},
            "fit_seconds": row["fit_seconds"],
        }
        for row in facts["rows"]
    ]
    for row in facts["baselines"]:
        cells = {key: row[key] for key in ("micro", "macro")}
        rows.append({"group": _BASELINE, "size": row["model"], **cells, **absent})
    if facts["ceiling"] is not None:
        known = {key: {"value": facts["ceiling"][key], "low": None, "high": None} for key in ("micro", "macro")}
        rows.append({"group": _BOUND, "size": NOISE_CEILING, **known, **absent})
    return Table(name, "Learning curve", columns, rows, caption=_caption(facts), row_groups="group")


def curve_figure(facts: Mapping[str, Any], axis: str) -> Figure:
    """Micro accuracy over training prompts, responses or pairs, on a log axis; bands are the intervals."""
    models = list(dict.fromkeys(row["model"] for row in facts["rows"]))
    series = []
    for model in models[:MAX_SERIES]:
        rows = [row for row in facts["rows"] if row["model"] == model]
        cells = [row["micro"] for row in rows]
        ends = {key: [cell[end] for cell in cells] for key, end in (("y", "value"), ("low", "low"), ("high", "high"))}
        series.append({"label": model, "x": [round(row[f"n_{axis}"]) for row in rows], **ends})
    reference = [{"value": 0.5, "label": "chance"}]
    reference += [{"value": row["micro"]["value"], "label": row["model"]} for row in facts["baselines"]]
    ceiling = facts["ceiling"]
    if ceiling is not None and ceiling["micro"] < 1.0:  # at one it would only flatten the lines
        reference.append({"value": ceiling["micro"], "label": NOISE_CEILING})
    data = {
        "series": series,
        "x_label": f"training {axis}",
        "y_label": "pairwise accuracy (micro)",
        "x_scale": "log",
        "x": _ticks([x for one in series for x in one["x"]]),
        "reference": reference,
    }
    caption = f"Bands are {facts['confidence']:.0%} intervals over {facts['n_groups']:,} evaluation prompt groups."
    if len(models) > MAX_SERIES:
        caption += f" The first {MAX_SERIES} of {len(models)} models; all are in the table."
    return Figure(f"learning-curve-{axis}", f"Accuracy over training {axis}", "lines", data, caption=caption)


def _ticks(places: Sequence[int]) -> dict[str, Any]:
    """Name the sizes themselves on the axis, the largest first, where their names do not touch."""
    span = math.log(max(places) / min(places))
    ticks: list[int] = []
    for x in sorted(set(places), reverse=True):
        if not ticks or math.log(ticks[-1] / x) >= 0.09 * span:
            ticks.append(x)
    ticks.reverse()
    return {"ticks": ticks, "labels": [f"{x:,}" for x in ticks]}


def _caption(facts: Mapping[str, Any]) -> str:
    draws = "One draw of the training set" if facts["n_seeds"] == 1 else f"Means over {facts['n_seeds']} draws"
    return (
        f"{_HOW[facts['by']]} {draws}, each set inside the next. Intervals are about the evaluation prompts, not about "
        f"the draw. {sample_sentence(facts)}"
    )


def _findings(facts: Mapping[str, Any]) -> list[str]:
    unit, by_model = UNITS[facts["by"]], {row["model"]: row for row in facts["rows"]}
    out = []
    for gain in facts["gains"]:
        last, difference = by_model[gain["model"]]["micro"], gain["micro"]
        out.append(
            f"{gain['model']}: {last['value']:.3f} [{last['low']:.3f}, {last['high']:.3f}] at {gain['to']:,} {unit} "
            f"(micro); the step from {gain['from']:,} brought {difference['value']:+.3f} [{difference['low']:+.3f}, "
            f"{difference['high']:+.3f}]."
        )
    return out


def _notes(facts: Mapping[str, Any]) -> list[str]:
    out = []
    if not facts["baselines"]:
        out.append("The length-only row is absent: these vectors came without the lengths of their texts.")
    if facts["n_shared_groups"]:
        out.append(
            f"{facts['n_shared_groups']:,} prompt groups are in training and in evaluation: the accuracy is too high."
        )
    return out
