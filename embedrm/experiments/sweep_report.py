"""The report of a sweep: variants, pivot, what each axis did, accuracy over cost, and what failed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from embedrm import __version__
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.experiments.experiment_run import settings_table, shown
from embedrm.experiments.sweep_choices import choice_figure, choice_table
from embedrm.experiments.sweep_cost import cost_section, plan_cost, sample_sentence
from embedrm.experiments.sweep_figures import axis_figures, cost_figures, values_of
from embedrm.experiments.sweep_tidy import axis_values, comparable, label, over_seeds, pareto, variant_rows
from embedrm.experiments.sweep_trials import OK
from embedrm.experiments.trial_metrics import check_metric, lower_is_better, title
from embedrm.experiments.value_labels import name_in
from embedrm.reporting import Column, Report, Table, collect

if TYPE_CHECKING:
    from embedrm.experiments.sweep import Outcome, Sweep

CHOOSES = "validation"
_SHOWN = 40
_MAX_COLUMNS = 12


def sweep_report(
    sweep: Sweep,
    outcome: Outcome,
    *,
    metric: str = "micro",
    pivot: Sequence[str] | None = None,
    command: str | None = None,
    started: float | None = None,
) -> Report:
    """Return the report of what is finished of a sweep.

    Parameters
    ----------
    sweep : Sweep
    outcome : Outcome
    metric : str
        What is shown: "micro", "macro", "log_loss", and where every variant judges choices among candidates "spearman" and
        "best_of_N".
    pivot : (str, str), optional
        Varied paths for rows and columns; the two with the most values where absent.
    command, started
        For the provenance.

    Returns
    -------
    Report
        Tables ``variants`` (best first by the validation split; where there is none, in the order of the sweep, since
        nothing may be chosen on a test split), ``pivot``, ``axes``, ``choices``, ``pareto-front`` and ``failures``; and of
        a random sample of a plan ``plan-cost``, what all of it would cost.
    """
    check_metric(metric, (variant.config for variant in sweep.variants))
    rows = variant_rows(sweep, outcome, metric)
    axes = axis_values(sweep)
    varied = [path for path, values in axes.items() if len({shown(v) for v in values}) > 1]
    done = [row for row in rows if row["splits"]]
    splits = list(done[0]["splits"]) if done else []
    splits = [split for split in splits if all(split in row["splits"] for row in done)]
    # where something is chosen: what a setting does on the test split would choose on it
    shown_on = CHOOSES if CHOOSES in splits else splits[-1] if splits else None
    report = Report("sweep", _title(sweep), _summary(sweep, outcome, done, splits, metric))
    report.notes = _notes(sweep, outcome)
    if shown_on is not None:
        best_first = _ordered(done, splits, metric)
        report.add_section("Variants", tables=[_variants(best_first, varied, splits, metric, len(rows) - len(done))])
        chosen = _pivot_axes(pivot, varied, axes)
        # settings that are varied one at a time, or drawn, meet in no table
        sparse = (sweep.space.around or sweep.space.random) and pivot is None
        table = None if chosen is None or sparse else _pivot(done, *chosen, shown_on, metric)
        drawn = sweep.space.random
        effects = _effects(done, varied, shown_on, metric, drawn)
        report.add_section(
            "What each setting did",
            tables=[t for t in (table, effects) if t is not None],
            figures=axis_figures(done, varied, shown_on, metric, drawn),
        )
        fronts, figures = _fronts(done, shown_on, metric), cost_figures(done, shown_on, metric)
        if fronts is not None:
            report.add_section("Accuracy over cost", tables=[fronts], figures=figures)
        chosen_table = choice_table(sweep, outcome, varied, shown_on)
        if chosen_table is not None:
            figure = choice_figure(sweep, outcome, varied, shown_on)
            report.add_section("Choosing among candidates", tables=[chosen_table], figures=[figure])
    cost = plan_cost(sweep, outcome)
    if cost is not None:
        report.summary.append(cost["sentence"])
        cost_section(report, cost)
    failures = _failures(outcome)
    if failures is not None:
        report.add_section("Failures", tables=[failures])
    report.add_section("The centre", tables=[settings_table(sweep.to_dict())])
    report.provenance = collect(
        command=command,
        seeds=list(sweep.seeds),
        started=started,
        extra={
            "trials": {
                "planned": len(outcome.trials),
                "different": outcome.distinct,
                "computed_now": outcome.computed,
                "finished_before": outcome.found,
                "failed": outcome.failed,
                "not_finished": outcome.left,
            },
            "experiment": sweep.to_dict(),
            **({} if cost is None else {"plan_cost": cost}),
        },
    )
    return report


def _title(sweep: Sweep) -> str:
    """Return the title of the experiment, or else what varies."""
    paths = sweep.space.paths
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return sweep.experiment.config.title or f"Sweep of {', '.join(paths[:3]) or 'seeds'}{more}"


def _ordered(done: list[dict[str, Any]], splits: Sequence[str], metric: str) -> list[dict[str, Any]]:
    """Best first by the validation split; in their own order without one."""
    if CHOOSES not in splits:
        return done
    sign = 1.0 if lower_is_better(metric) else -1.0
    return sorted(done, key=lambda row: (sign * row["splits"][CHOOSES]["value"], row["variant"]))


def _summary(
    sweep: Sweep, outcome: Outcome, done: list[dict[str, Any]], splits: Sequence[str], metric: str
) -> list[str]:
    planned, distinct = len(outcome.trials), outcome.distinct
    said = f"{planned:,} trials: {len(sweep.settings):,} variants, {_count(len(sweep.seeds), 'seed')}."
    if sweep.sample is not None:
        said = sample_sentence(sweep.sample)
    if distinct < planned:
        said += f" {distinct:,} of them differ; the others are the same computation and were done once."
    parts = [f"{outcome.computed:,} computed now", f"{outcome.found:,} finished before"]
    parts += [f"{outcome.failed:,} failed"] if outcome.failed else []
    parts += [f"{outcome.left:,} not finished"] if outcome.left else []
    out = [f"{said} {', '.join(parts)}."]
    if done and CHOOSES in splits and len(done) > 1:
        best = _ordered(done, splits, metric)[0]
        cells = ", ".join(f"{_interval(best['splits'][split])} on {split}" for split in splits)
        out.append(f"Best by {CHOOSES} {title(metric)}: {best['name']}; {cells}.")
    return out


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _interval(cell: Mapping[str, Any]) -> str:
    ends = "" if cell["low"] is None else f" [{cell['low']:.3f}, {cell['high']:.3f}]"
    return f"{cell['value']:.3f}{ends}"


def _notes(sweep: Sweep, outcome: Outcome) -> list[str]:
    notes = [
        "Intervals are 95 % t intervals over seeds; a variant that no seed changes has none. Its uncertainty over prompts "
        "is the standard error (se) of the tidy table.",
        "Nothing is chosen on the test split: variants are ordered, the best one is named, and what each setting did is "
        "shown, by the validation split, where there is one. The best of many on it is the more flattered there the more "
        "there were; the test split says what it is worth, of the one that was chosen.",
    ]
    elsewhere: dict[str, int] = {}
    for name in {trial.fingerprint for trial in outcome.trials} & set(outcome.records):
        version = outcome.records[name].get("version", __version__)
        if version != __version__:
            elsewhere[version] = elsewhere.get(version, 0) + 1
    for version, n in sorted(elsewhere.items()):
        notes.append(
            f"{n:,} of the trials were computed by embedrm {version}, not {__version__}; another folder computes them anew."
        )
    if sweep.sample is not None:
        notes.append("Tables and figures of results are of the sample alone, in which settings meet by chance.")
    if any(trial.shared for trial in outcome.trials):
        unmoved = sum(not variant.seed_matters() for variant in sweep.variants)
        if unmoved and len(sweep.seeds) > 1:
            notes.append(
                f"In {unmoved:,} of {len(sweep.variants):,} variants nothing is drawn by the seed: their "
                f"{len(sweep.seeds)} seeds are one fit."
            )
    return notes


def _variants(
    rows: list[dict[str, Any]], varied: Sequence[str], splits: Sequence[str], metric: str, n_empty: int = 0
) -> Table:
    columns = [Column("variant", "Variant")]
    columns += [Column(f"a{i}", path) for i, path in enumerate(varied)]
    best = "min" if lower_is_better(metric) else "max"
    columns += [
        Column(f"s{i}", split, "interval", best=best if split == CHOOSES else None) for i, split in enumerate(splits)
    ]
    columns += [Column("n", "fits", "integer"), Column("failed", "failed", "integer")]
    columns += [Column("parameters", "parameters", "integer"), Column("seconds", "fit", "seconds")]
    cells = [
        {
            "variant": str(row["variant"]),
            **{f"a{i}": row["labels"][path] for i, path in enumerate(varied)},
            **{f"s{i}": row["splits"][split] for i, split in enumerate(splits)},
            "n": row["n_seeds"],
            "failed": row["failed"] or None,
            "parameters": None if row["parameters"] is None else round(row["parameters"]),
            "seconds": row["seconds"],
        }
        for row in rows[:_SHOWN]
    ]
    order = f"Best first by {CHOOSES}." if CHOOSES in splits else "In the order of the sweep."
    more = f" The first {_SHOWN} of {len(rows):,}; all are in trials.csv." if len(rows) > _SHOWN else ""
    empty = f" Without a result, and so not shown: {_count(n_empty, 'variant')}." if n_empty else ""
    return Table("variants", "Variants", columns, cells, caption=f"{title(metric).capitalize()}. {order}{more}{empty}")


def _pivot_axes(
    wanted: Sequence[str] | None, varied: Sequence[str], axes: Mapping[str, list[Any]]
) -> tuple[str, str] | None:
    if wanted is not None:
        if len(wanted) != 2 or wanted[0] == wanted[1]:
            raise InvalidInputError(
                f"a pivot needs two different paths, rows and columns; got {', '.join(wanted) or 'none'}"
            )
        for path in wanted:
            if path not in varied:
                raise unknown_name("path that varies", path, varied)
        return wanted[0], wanted[1]
    if len(varied) < 2:
        return None
    sizes = {path: len({shown(v) for v in axes[path]}) for path in varied}
    narrow = [path for path in varied if sizes[path] <= _MAX_COLUMNS]
    if not narrow:
        return None
    columns = max(narrow, key=lambda path: sizes[path])
    rest = [path for path in varied if path != columns and sizes[path] <= _SHOWN]
    if not rest:
        return None
    return max(rest, key=lambda path: sizes[path]), columns


def _pivot(rows: list[dict[str, Any]], down: str, across: str, split: str, metric: str) -> Table:
    heads, sides = values_of(rows, across)[:_MAX_COLUMNS], values_of(rows, down)
    best = "min" if lower_is_better(metric) else "max"
    columns = [
        Column("row", down),
        *(Column(f"c{j}", name_in(rows, across, v), "number", digits=3) for j, v in enumerate(heads)),
    ]
    cells = []
    for value in sides:
        cell: dict[str, Any] = {"row": name_in(rows, down, value)}
        for j, head in enumerate(heads):
            found = [
                row["splits"][split]["value"]
                for row in rows
                if shown(row["settings"][down]) == shown(value) and shown(row["settings"][across]) == shown(head)
            ]
            cell[f"c{j}"] = float(np.mean(found)) if found else None
        cells.append(cell)
    caption = f"{title(metric).capitalize()} on {split}; the mean over all other settings and seeds ({best} is better)."
    return Table("pivot", f"{down} by {across}", columns, cells, caption=caption)


def _effects(
    rows: list[dict[str, Any]], varied: Sequence[str], split: str, metric: str, drawn: Collection[str] = ()
) -> Table | None:
    """For each value of each axis, or quarter of the numbers drawn, the mean and the range over the variants with it."""
    cells = []
    for path in varied:
        alike = comparable(rows, path)
        values = values_of(alike, path)
        for name, some in (
            quarters(values) if path in drawn else [(name_in(alike, path, v), [v]) for v in values[:_SHOWN]]
        ):
            texts = {shown(value) for value in some}
            mine = [row for row in alike if shown(row["settings"][path]) in texts]
            found = [row["splits"][split]["value"] for row in mine]
            cells.append(
                {
                    "axis": path,
                    "value": name,
                    "mean": over_seeds(mine, split),
                    "low": min(found),
                    "high": max(found),
                    "n": len(found),
                }
            )
    if not cells:
        return None
    columns = [
        Column("value", "Value"),
        Column("mean", "mean", "interval"),
        Column("low", "lowest", "number", digits=3),
        Column("high", "highest", "number", digits=3),
        Column("n", "variants", "integer"),
    ]
    caption = (
        f"{title(metric).capitalize()} on {split} of the variants that have the value, each averaged over its seeds."
    )
    return Table("axes", "Each setting by itself", columns, cells, caption=caption, row_groups="axis")


def quarters(values: Sequence[Any]) -> list[tuple[str, Sequence[Any]]]:
    """Return ordered values by themselves, or where they are more than a dozen numbers in four parts, with names."""
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if not numbers or len(values) <= _MAX_COLUMNS:
        return [(shown(v), [v]) for v in values]
    ends = [round(k * len(values) / 4) for k in range(5)]
    parts = [values[i:j] for i, j in pairwise(ends)]
    return [(f"{shown(part[0])} to {shown(part[-1])}", part) for part in parts]


def _fronts(rows: list[dict[str, Any]], split: str, metric: str) -> Table | None:
    sign = -1.0 if lower_is_better(metric) else 1.0
    known = [row for row in rows if row["parameters"] is not None and row["seconds"] is not None]
    if not known:
        return None
    marks = {
        cost: pareto([(row[cost], sign * row["splits"][split]["value"]) for row in known])
        for cost in ("parameters", "seconds")
    }
    columns = [
        Column("variant", "Variant"),
        Column("what", "Settings"),
        Column("value", title(metric), "number", digits=3),
        Column("parameters", "parameters", "integer"),
        Column("seconds", "fit", "seconds"),
        Column("by", "on the front of"),
    ]
    cells = []
    for i in sorted(range(len(known)), key=lambda i: (known[i]["seconds"], known[i]["variant"])):
        by = [cost for cost, front in marks.items() if front[i]]
        if by:
            row = known[i]
            cells.append(
                {
                    "variant": str(row["variant"]),
                    "what": row["name"],
                    "value": row["splits"][split]["value"],
                    "parameters": round(row["parameters"]),
                    "seconds": row["seconds"],
                    "by": " and ".join(by),
                }
            )
    caption = (
        f"Variants that no other one beats: none has as few parameters (or is as fast to fit) and is as good on {split}. "
        "A front describes; it is no choice."
    )
    return Table("pareto-front", "Pareto front", columns, cells[:_SHOWN], caption=caption)


def _failures(outcome: Outcome) -> Table | None:
    groups: dict[tuple[str, str], list[Any]] = {}
    for trial in outcome.trials:
        record = outcome.records.get(trial.fingerprint)
        if record is not None and record["status"] != OK:
            error = record["error"]
            # the same failure on other data has other counts in it
            like = re.sub(r"\d[\d.,]*", "#", error["message"])
            groups.setdefault((error["type"], like), []).append((trial, error["message"]))
    if not groups:
        return None
    columns = [Column("error", "Error"), Column("n", "trials", "integer"), Column("first", "Such as")]
    rows = [
        {
            "error": f"{kind}: {found[0][1]}",
            "n": len(found),
            "first": f"{label(found[0][0].settings)}, seed {found[0][0].seed}",
        }
        for (kind, _), found in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]
    caption = "They are not computed again unless asked for (--retry)."
    return Table("failures", "Trials that failed", columns, rows[:_SHOWN], caption=caption)
