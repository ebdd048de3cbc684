"""The report of a search: what a sweep's report says of the settings that were tried, and how they were found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedrm.experiments.experiment_run import shown
from embedrm.experiments.sweep_suggest import DONE, RUNNING
from embedrm.experiments.sweep_tidy import label
from embedrm.experiments.trial_metrics import lower_is_better, title
from embedrm.reporting import Column, Figure, Report, Table

if TYPE_CHECKING:
    from embedrm.experiments.sweep_search import Found

_SHOWN = 100


def search_report(found: Found, **options: Any) -> Report:
    """Return the report of a sweep with a section on the search.

    Parameters
    ----------
    found : Found
    **options
        See :func:`embedrm.experiments.sweep_report.sweep_report`; the metric is that of the search.

    Returns
    -------
    Report
        With a table ``proposals``, in their order, and a figure ``search-history``.
    """
    report = found.sweep.report(found.outcome, metric=found.metric, **options)
    states = [one.state for one in found.proposals]
    different = len({repr(one.settings) for one in found.proposals})
    said = f"Search by {found.sampler}: {len(states):,} settings proposed, {different:,} of them different"
    left = states.count(RUNNING)
    counts = {"failed": len(states) - states.count(DONE) - left, "not finished": left}
    said = ", ".join([said, *(f"{n:,} {name}" for name, n in counts.items() if n)]) + "."
    best = found.best
    if best is not None:
        what = f"{title(found.metric)} {best.value:.3f} on {found.split}, the mean over seeds"
        said += f" The best is number {best.number}, {label(best.settings)}: {what}."
    report.summary.insert(0, said)
    report.notes.append(
        f"The search saw the {found.split} split, so that its best value there is flattering; the test split, which it did "
        "not see, is the estimate."
    )
    report.add_section("Search", tables=[_proposals(found)], figures=_history(found))
    return report


def _proposals(found: Found) -> Table:
    paths = list(dict.fromkeys(path for one in found.proposals for path in one.settings))
    columns = [Column("number", "Number"), *(Column(f"a{i}", path) for i, path in enumerate(paths))]
    best = "min" if lower_is_better(found.metric) else "max"
    columns += [
        Column("value", title(found.metric), "number", digits=4, best=best),
        Column("best", "best so far", "number", digits=4),
        Column("state", "state"),
    ]
    rows = [
        {
            "number": str(one.number),
            **{f"a{i}": shown(one.settings[path]) for i, path in enumerate(paths)},
            "value": one.value,
            "best": one.best,
            "state": one.state if one.number not in found.errors else f"failed: {found.errors[one.number]}",
        }
        for one in found.proposals
    ]
    more = f" The last {_SHOWN} of {len(rows):,}." if len(rows) > _SHOWN else ""
    caption = f"In the order in which they were proposed; the mean over seeds on {found.split}.{more}"
    return Table("proposals", "Proposals", columns, rows[-_SHOWN:], caption=caption)


def _history(found: Found) -> list[Figure]:
    known = [one for one in found.proposals if one.value is not None]
    if len(known) < 2:
        return []
    numbers = [one.number for one in known]
    data = {
        "series": [
            {"label": "best so far", "x": numbers, "y": [one.best for one in known]},
            {"label": "each proposal", "x": numbers, "y": [one.value for one in known]},
        ],
        "x_label": "proposal",
        "y_label": f"{title(found.metric)} on {found.split}",
    }
    return [Figure("search-history", "What the search found", "scatter", data, caption="The mean over seeds.")]
