"""Choices among candidates in the report of a sweep: gold of the best of n, and Spearman, by each setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embedrm.experiments.experiment_run import shown
from embedrm.experiments.sweep_figures import groups_of, values_of
from embedrm.experiments.sweep_tidy import comparable, over_seeds, variant_rows
from embedrm.experiments.trial_metrics import METRICS, SPEARMAN, gold_name, offered, title
from embedrm.experiments.value_labels import name_in
from embedrm.reporting import Column, Figure, Table
from embedrm.reporting.figures import MAX_SERIES

if TYPE_CHECKING:
    from embedrm.experiments.sweep import Outcome, Sweep

_MAX_COLUMNS = 12
UNIT = "above a random choice, in standard deviations within prompts"


def _ns(sweep: Sweep) -> list[int]:
    """Numbers of candidates that every variant was judged on."""
    names = set(offered(variant.config for variant in sweep.variants)) - {*METRICS, SPEARMAN}
    return sorted(n for n in sweep.variants[0].config.evaluation.best_of_n or () if gold_name(n) in names)


def _done(sweep: Sweep, outcome: Outcome, metric: str) -> list[dict[str, Any]]:
    return [row for row in variant_rows(sweep, outcome, metric) if row["splits"]]


def choice_table(sweep: Sweep, outcome: Outcome, varied: Sequence[str], split: str) -> Table | None:
    """For each value of each axis Spearman and gold of the best of n; None where choices were not judged."""
    ns = _ns(sweep)
    if not ns:
        return None
    shown_ns = ns if len(ns) <= _MAX_COLUMNS else [*ns[: _MAX_COLUMNS - 1], ns[-1]]
    by_metric = {name: _done(sweep, outcome, name) for name in (SPEARMAN, *map(gold_name, shown_ns))}
    rows = []
    for path in varied or [""]:
        first = comparable(by_metric[SPEARMAN], path) if path else by_metric[SPEARMAN]
        for value in values_of(first, path) if path else [None]:
            row: dict[str, Any] = {"axis": path or "the plan", "value": name_in(first, path, value) if path else "all"}
            for name, found in by_metric.items():
                alike = comparable(found, path) if path else found
                mine = [r for r in alike if not path or shown(r["settings"][path]) == shown(value)]
                row[name] = over_seeds(mine, split)
                row["n"] = len(mine)
            rows.append(row)
    columns = [
        Column("value", "Value"),
        Column(SPEARMAN, "Spearman", "interval", note="of reward and gold, mean over prompts"),
        *(Column(gold_name(n), f"best of {n:,}", "interval", digits=2) for n in shown_ns),
        Column("n", "variants", "integer"),
    ]
    caption = (
        f"On {split}: gold of the best of n by the reward, {UNIT}; the unbiased estimator. Intervals are over seeds."
    )
    return Table("choices", "Choosing among candidates", columns, rows, caption=caption, row_groups="axis")


def choice_figure(sweep: Sweep, outcome: Outcome, varied: Sequence[str], split: str) -> Figure:
    """Gold of the best of n over n, a line for each value of the axis with the fewest (and no more lines than colours)."""
    ns = _ns(sweep)
    by_n = {n: _done(sweep, outcome, gold_name(n)) for n in ns}
    counts = {path: len(values_of(by_n[ns[0]], path)) for path in varied}
    few = [path for path in varied if 2 <= counts[path] <= MAX_SERIES]
    by = min(few, key=lambda path: counts[path]) if few else None
    series = []
    for i, (name, _) in enumerate(groups_of(by_n[ns[0]], by)):
        cells = [over_seeds(groups_of(by_n[n], by)[i][1], split) for n in ns]
        one: dict[str, Any] = {"label": name, "x": ns, "y": [c["value"] for c in cells]}
        if any(c["low"] is not None for c in cells):
            one |= {end: [c[end] for c in cells] for end in ("low", "high")}
        series.append(one)
    data: dict[str, Any] = {"series": series, "x_label": "n", "y_label": f"gold on {split} (sd within prompts)"}
    data |= {"x_scale": "log"} if len(ns) > 1 else {}
    caption = f"{title(gold_name(ns[-1])).capitalize()} and of fewer, {UNIT}; the mean over all other settings."
    return Figure("best-of-n", "Gold of the best of n", "lines", data, caption=caption)
