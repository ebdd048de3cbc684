"""What a whole plan costs, extrapolated from the measured trials of a random sample of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import stdtrit

from embedrm.experiments.sweep_trials import OK
from embedrm.reporting import Column, Report, Table

if TYPE_CHECKING:
    from embedrm.experiments.sweep import Outcome, Sweep
    from embedrm.experiments.sweep_sample import Sample

PARTS = {"draw": "draw_core_seconds", "fit": "core_seconds", "score": "score_core_seconds"}
"""What a trial's cost is made of, and where its record has it."""
ALL = "all"
_HOUR = 3600.0


def stratified_mean(values: Sequence[Sequence[float]], sizes: Sequence[int]) -> dict[str, Any]:
    r"""Estimate the mean over a population from a sample of each of its strata, drawn without replacement.

    .. math::
        \bar y = \sum_h \frac{N_h}{N} \bar y_h, \qquad
        v = \sum_h \Big(\frac{N_h}{N}\Big)^2 \Big(1 - \frac{n_h}{N_h}\Big) \frac{s_h^2}{n_h}

    with a t interval whose degrees of freedom are Satterthwaite's.

    Parameters
    ----------
    values : sequence of sequence of float
        Sampled values, stratum by stratum.
    sizes : sequence of int
        N_h.

    Returns
    -------
    dict
        ``value``, and ``low`` and ``high`` of a 95 % interval. The value is None where a stratum has no value, the ends
        where one that was not measured whole has a single one.
    """
    if any(len(one) == 0 for one in values):
        return {"value": None, "low": None, "high": None}
    arrays = [np.asarray(one, dtype=np.float64) for one in values]
    share = np.asarray(sizes, dtype=np.float64) / sum(sizes)
    mean = float(sum(w * one.mean() for w, one in zip(share, arrays)))
    parts, freedom = [], []
    for w, one, size in zip(share, arrays, sizes):
        if len(one) == size:
            continue
        if len(one) < 2:
            return {"value": mean, "low": None, "high": None}
        parts.append(w * w * (1.0 - len(one) / size) * one.var(ddof=1) / len(one))
        freedom.append(len(one) - 1)
    variance = float(sum(parts))
    if variance == 0.0:
        return {"value": mean, "low": mean, "high": mean}
    df = variance**2 / sum(part**2 / f for part, f in zip(parts, freedom))
    half = float(stdtrit(df, 0.975)) * variance**0.5
    return {"value": mean, "low": max(0.0, mean - half), "high": mean + half}


def plan_cost(sweep: Sweep, outcome: Outcome) -> dict[str, Any] | None:
    """Extrapolate the cost of the whole plan from the finished trials of a sample.

    Returns
    -------
    dict or None
        None where the sweep is no sample. ``sample`` (:class:`embedrm.experiments.sweep_sample.Sample`), ``sampled``,
        ``measured`` and ``failed`` counts; ``rows``, of all trials and of those with each value of the axes of the strata:
        ``axis``, ``value``, ``trials`` (different ones of the plan), ``measured``, core-seconds a trial of ``draw``,
        ``fit``, ``score`` and ``total``, and ``core_hours`` of all its trials, each ``{value, low, high}``; ``sentence``.

    Notes
    -----
    A trial counts as if it were alone: what it took over from another one (a fitted featurizer) is counted as if it had been
    made for it. Core-seconds are seconds of all cores that the worker's process used.
    """
    sample = sweep.sample
    if sample is None:
        return None
    records = {trial.number: outcome.records.get(trial.fingerprint) for trial in outcome.trials}
    measured: dict[int, dict[str, float]] = {}
    failed = 0
    for number, record in records.items():
        if record is None:
            continue
        if record["status"] != OK:
            failed += 1
        elif all(record.get(key) is not None for key in PARTS.values()):
            one = {name: float(record[key]) for name, key in PARTS.items()}
            measured[number] = one | {"total": sum(one.values())}
    rows = [_row(sample, measured, None, ALL)]
    for axis in sample.axes:
        values = dict.fromkeys(stratum.values[axis] for stratum in sample.strata)
        # of one value there is nothing to tell beside all
        rows += [_row(sample, measured, axis, value) for value in values]
    facts = {
        "sample": sample.to_dict(),
        "sampled": len(sample.drawn),
        "measured": len(measured),
        "failed": failed,
        "rows": rows,
    }
    return facts | {"sentence": _sentence(facts)}


def _row(sample: Sample, measured: Mapping[int, Mapping[str, float]], axis: str | None, value: str) -> dict[str, Any]:
    strata = [s for s in sample.strata if axis is None or s.values[axis] == value]
    found = [[measured[number] for number in s.drawn if number in measured] for s in strata]
    sizes = [s.size for s in strata]
    trials = sum(sizes)
    row: dict[str, Any] = {"axis": axis, "value": value, "trials": trials, "measured": sum(map(len, found))}
    for name in (*PARTS, "total"):
        row[name] = stratified_mean([[one[name] for one in part] for part in found], sizes)
    row["core_hours"] = {
        end: None if row["total"][end] is None else row["total"][end] * trials / _HOUR
        for end in ("value", "low", "high")
    }
    return row


def sample_sentence(sample: Sample) -> str:
    """Say what was drawn of the plan, and how."""
    n, by = len(sample.drawn), " and ".join(sample.axes)
    least, most = min(len(s.drawn) for s in sample.strata), max(len(s.drawn) for s in sample.strata)
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    how = f"{each} of each of {len(sample.strata):,} strata by {by}" if by else "simple"
    differ = "" if sample.different == sample.planned else f" ({sample.different:,} different computations)"
    return (
        f"{n:,} trials, a random sample of the plan of {sample.planned:,}{differ}: {how}, random_state "
        f"{sample.random_state}."
    )


def _sentence(facts: Mapping[str, Any]) -> str:
    hours, total = facts["rows"][0]["core_hours"], facts["rows"][0]["total"]
    if hours["value"] is None:
        return (
            f"What the whole plan costs cannot be told yet: {facts['measured']:,} of the {facts['sampled']:,} trials of the "
            "sample are measured, and a stratum has none."
        )
    ends = "" if hours["low"] is None else f" [{hours['low']:.3g}, {hours['high']:.3g}]"
    return (
        f"The whole plan is estimated at {hours['value']:.3g}{ends} core-hours: {facts['rows'][0]['trials']:,} different "
        f"trials at {total['value']:.3g} core-seconds, by {facts['measured']:,} measured ones."
    )


def cost_section(report: Report, facts: Mapping[str, Any]) -> None:
    """Add the section "Cost of the whole plan" to a report."""
    columns = [
        Column("value", "Trials"),
        Column("trials", "of the plan", "integer"),
        Column("measured", "measured", "integer"),
        Column("draw", "draw", "interval", digits=2, note="core-seconds a trial: pairs and labels of the training set"),
        Column("fit", "fit", "interval", digits=2, note="core-seconds a trial"),
        Column("score", "score", "interval", digits=2, note="core-seconds a trial"),
        Column("core_hours", "core-hours", "interval", digits=2, note="of all these trials of the plan"),
    ]
    rows = [{"axis": row["axis"] or "the plan", **{c.key: _cell(row[c.key]) for c in columns}} for row in facts["rows"]]
    caption = (
        "Means over the plan by a random sample, each stratum weighed by its trials, with 95 % t intervals. A trial counts "
        "as if it were alone, also where it took over what another one had made."
    )
    failed = f" {facts['failed']:,} that failed are left out." if facts["failed"] else ""
    said = [f"{sample_sentence_of(facts)}{failed}", facts["sentence"]]
    table = Table(
        "plan-cost", "Core-seconds a trial, and core-hours", columns, rows, caption=caption, row_groups="axis"
    )
    report.add_section("Cost of the whole plan", said, tables=[table])


def sample_sentence_of(facts: Mapping[str, Any]) -> str:
    """Say the sample of :func:`plan_cost`'s facts."""
    from embedrm.experiments.sweep_sample import Sample, Stratum

    given = facts["sample"]
    return sample_sentence(Sample(**{**given, "strata": [Stratum(**one) for one in given["strata"]]}))


def _cell(value: Any) -> Any:
    """A cell of a table; None for an interval of which nothing is known."""
    return None if isinstance(value, Mapping) and value["value"] is None else value
