"""The tidy table of a sweep: one row a trial, one column a fact; and what is averaged over seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedrm.experiments.experiment import section_mains
from embedrm.experiments.experiment_run import leaves, shown
from embedrm.experiments.sweep_trials import OK, write_whole
from embedrm.experiments.trial_metrics import choice_columns
from embedrm.experiments.value_labels import value_labels

if TYPE_CHECKING:
    from embedrm.experiments.sweep import Outcome, Sweep

COSTS = (
    *("n_train", "parameters", "seconds", "core_seconds", "score_seconds", "score_core_seconds"),
    "draw_core_seconds",
)
_COLUMNS = ("micro", "macro", "log_loss", "se", "n_pairs")


def axis_values(sweep: Sweep) -> dict[str, list[Any]]:
    """Return the value of every varied path in each variant; None where the variant leaves it to the default."""
    mains = section_mains()
    written = [leaves(variant.to_dict()) for variant in sweep.variants]
    out: dict[str, list[Any]] = {}
    for path in sweep.space.paths:
        # a section that is named alone stands for its main value
        own = f"{path}.{mains[path]}" if path in mains else path
        out[path] = [
            settings[path] if path in settings else one.get(path, one.get(own))
            for settings, one in zip(sweep.settings, written)
        ]
    return out


def trial_rows(sweep: Sweep, outcome: Outcome) -> list[dict[str, Any]]:
    """Return one flat row for each trial of the plan.

    Returns
    -------
    list of dict
        ``trial``, ``variant``, ``seed``, ``status`` (``ok``, ``failed``, ``not finished``), ``shared`` (computed for an
        earlier trial), the varied paths, ``SPLIT_micro`` and so on, ``SPLIT_best_of_N`` and ``SPLIT_spearman`` where choices
        among candidates were judged, ``SPLIT_DOMAIN`` for each domain, costs, ``error`` and ``fingerprint``.
    """
    axes = axis_values(sweep)
    rows = []
    for trial in outcome.trials:
        record = outcome.records.get(trial.fingerprint)
        row: dict[str, Any] = {
            "trial": trial.number,
            "variant": trial.variant,
            "seed": trial.seed,
            "status": "not finished" if record is None else record["status"],
            "shared": trial.shared,
        }
        row |= {path: values[trial.variant] for path, values in axes.items()}
        if record is not None and record["status"] == OK:
            for split, facts in record["metrics"].items():
                row |= {f"{split}_{name}": facts[name] for name in (*_COLUMNS, *choice_columns(facts))}
                row |= {f"{split}_domain_{domain}": value for domain, value in facts["domains"].items()}
            row |= {name: record.get(name) for name in COSTS}
        error = (record or {}).get("error")
        row["error"] = None if error is None else f"{error['type']}: {error['message']}"
        row["fingerprint"] = trial.fingerprint
        rows.append(row)
    return rows


def write_tidy(rows: Sequence[Mapping[str, Any]], folder: str | Path, axes: Sequence[str] = ()) -> dict[str, Path]:
    """Write ``trials.csv`` and ``trials.parquet``; lists and mappings among the settings are JSON there."""
    import io

    import pandas as pd

    frame = pd.DataFrame([dict(row) for row in rows])
    for path in axes:
        # not from the frame, which has made NaN of what is absent
        column = [row[path] for row in rows]
        if not all(v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in column):
            # one type a column: where some are not numbers, all are written as they would be typed
            frame[path] = pd.Series([None if v is None else shown(v) for v in column], dtype=object)
    root = Path(folder)
    csv, parquet = root / "trials.csv", root / "trials.parquet"
    write_whole(csv, frame.to_csv(index=False).encode("utf-8"))
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    write_whole(parquet, buffer.getvalue())
    return {"csv": csv, "parquet": parquet}


def mean_interval(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean with its 95 % t interval over seeds; without ends for one value."""
    from scipy.special import stdtrit

    found = np.asarray(values, dtype=np.float64)
    mean = float(found.mean())
    if len(found) < 2:
        return {"value": mean, "low": None, "high": None, "n": len(found)}
    half = float(stdtrit(len(found) - 1, 0.975) * found.std(ddof=1) / np.sqrt(len(found)))
    return {"value": mean, "low": mean - half, "high": mean + half, "n": len(found)}


def variant_rows(sweep: Sweep, outcome: Outcome, metric: str = "micro") -> list[dict[str, Any]]:
    """Return one row for each variant: settings, accuracy on each split over its seeds, costs, and how many failed.

    Seeds that gave one fingerprint are one value.
    """
    axes = axis_values(sweep)
    short = {path: value_labels(values) for path, values in axes.items()}
    by_variant: dict[int, list[dict[str, Any]]] = {}
    by_seed: dict[int, dict[int, dict[str, Any]]] = {}
    failures: dict[int, int] = {}
    missing: dict[int, int] = {}
    for trial in outcome.trials:
        record = outcome.records.get(trial.fingerprint)
        held = by_variant.setdefault(trial.variant, [])
        if record is None:
            missing[trial.variant] = missing.get(trial.variant, 0) + 1
        elif record["status"] != OK:
            failures[trial.variant] = failures.get(trial.variant, 0) + 1
        else:
            by_seed.setdefault(trial.variant, {})[trial.seed] = record
            if all(record is not other for other in held):
                held.append(record)
    rows = []
    for variant, records in by_variant.items():
        row: dict[str, Any] = {
            "variant": variant,
            "name": label(sweep.settings[variant], short),
            "settings": {path: values[variant] for path, values in axes.items()},
            "labels": {path: short[path][shown(values[variant])] for path, values in axes.items()},
            # axes that are varied one at a time, and that this variant moves away from the centre
            "moved": [path for path in sweep.space.around if path in sweep.settings[variant]],
            "n_seeds": len(records),
            "failed": failures.get(variant, 0),
            "missing": missing.get(variant, 0),
            "splits": {},
            "by_seed": {},
        }
        # a head whose margins are no logits has no log loss, and then no result by it
        if records and all(r["metrics"][split].get(metric) is not None for r in records for split in r["metrics"]):
            for split in records[0]["metrics"]:
                row["splits"][split] = mean_interval([r["metrics"][split][metric] for r in records])
                row["by_seed"][split] = {s: r["metrics"][split][metric] for s, r in by_seed[variant].items()}
            row["se"] = {s: records[0]["metrics"][s]["se"] for s in records[0]["metrics"]}
            for cost in COSTS:
                known = [r[cost] for r in records if r.get(cost) is not None]
                row[cost] = float(np.mean(known)) if known else None
        rows.append(row)
    return rows


def comparable(rows: Sequence[dict[str, Any]], path: str) -> list[dict[str, Any]]:
    """Return the variants that tell what a path does: of axes varied one at a time, none but this one is moved."""
    return [row for row in rows if not set(row["moved"]) - {path}]


def over_seeds(rows: Sequence[Mapping[str, Any]], split: str) -> dict[str, Any]:
    """Return the mean of several variants with its interval over seeds: variants are averaged seed by seed.

    Only seeds that all of them have count towards the interval; where the seeds are one fit there is none.
    """
    mean = float(np.mean([row["splits"][split]["value"] for row in rows]))
    common = set.intersection(*(set(row["by_seed"][split]) for row in rows))
    values = [float(np.mean([row["by_seed"][split][seed] for row in rows])) for seed in sorted(common)]
    cell = mean_interval(values) if len(set(values)) > 1 else {"low": None, "high": None}
    if cell["low"] is None:
        return {"value": mean, "low": None, "high": None, "n": len(values)}
    # the mean of the seeds that all have is that of the interval
    return cell


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Tell which points (cost, accuracy) no other one beats: none is as cheap and as good, and better in one of them."""
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    out, best, cost = [False] * len(points), -np.inf, None
    for i in order:
        if points[i][1] > best or (points[i][1] == best and points[i][0] == cost):
            out[i], best, cost = True, points[i][1], points[i][0]
    return out


def label(settings: Mapping[str, Any], short: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """Return settings on one line, by the last word of each path; ``short`` has short names of values by path."""
    names = {path: (short or {}).get(path, {}).get(shown(value), shown(value)) for path, value in settings.items()}
    return ", ".join(f"{path.rpartition('.')[2]}={name}" for path, name in names.items()) or "the centre"


def sort_key(value: Any) -> tuple[int, Any]:
    """Order values of an axis: numbers by size, then texts."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (0, value) if number else (1, json.dumps(value, sort_keys=True))
