"""Where learning curves cross: the table, the figures and the sentences of frozen_or_tuned.py, from its cells alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embedrm import Report, encode
from embedrm.evaluation import accuracy_facts, comparison_facts

Cells = dict[tuple[str, int], dict[str, Any]]
COLUMNS = [
    {"key": "method", "label": "method"},
    {"key": "n", "label": "pairs", "kind": "integer"},
    {"key": "micro", "label": "test, micro", "kind": "share"},
    {"key": "macro", "label": "test, macro", "kind": "share"},
    {"key": "difference", "label": "against reference", "note": "points of micro accuracy, at the same pairs"},
    {"key": "encoding", "label": "encoding", "kind": "seconds", "note": "core-seconds, training texts once"},
    {"key": "training", "label": "training", "kind": "seconds", "note": "core-seconds"},
    {"key": "scoring", "label": "scoring", "kind": "seconds", "note": "core-seconds to encode the test texts"},
    {"key": "parameters", "label": "parameters", "kind": "integer", "note": "that were moved or fitted"},
    {"key": "settings", "label": "chosen on held-out prompts"},
]


TRIALS = [
    {"key": "method", "label": "method"},
    {"key": "settings", "label": "rate and step"},
    {"key": "loss", "label": "held-out loss", "kind": "number", "digits": 4},
    {"key": "accuracy", "label": "held-out accuracy", "kind": "share"},
    {"key": "training", "label": "training", "kind": "seconds", "note": "core-seconds"},
    {"key": "chosen", "label": "chosen"},
]


def trial_rows(work: Any, tuned: Sequence[str]) -> list[dict[str, Any]]:
    """Return what every tried learning rate gave."""
    chosen = work.factors()
    return [
        {"method": method, "settings": cell["settings"], **cell["held_out"]}
        | {"training": cell["core_seconds"]["training"], "chosen": "yes" if chosen.get(method) == factor else ""}
        for (method, n, factor), cell in sorted(work.all_cells().items())
        if method in tuned and n == work.trial_size
    ]


def cost(cell: dict[str, Any]) -> float:
    """Core-seconds from text to a model."""
    return float(sum(cell["core_seconds"].values()))


def report(
    work: Any, methods: Sequence[str], tuned: Sequence[str], reference: str, plain: str
) -> tuple[Report, list[Any]]:
    """Return the report on the cells that are there (without provenance), and those that are missing.

    Tuned methods are compared with ``reference``, by pairs and by core-seconds, and with ``plain``, by pairs.
    """
    cells: Cells = work.cells()
    missing = [(method, n) for method in methods for n in work.sizes if (method, n) not in cells]
    if not cells:
        raise SystemExit("no cell is finished; run without --report")
    test = encode(work.test, "hashing:8", sides=("response",), store=False)
    margins = {key: np.array(cell["margins"]) for key, cell in cells.items()}
    names = {key: f"{key[0]}, {key[1]:,} pairs" for key in cells}
    facts = accuracy_facts(
        {names[key]: value for key, value in margins.items()}, test, logits=dict.fromkeys(names.values(), False)
    )
    found = {row["model"]: row for row in facts["rows"]}
    against = {
        other: {
            (method, n): comparison_facts(margins[method, n], margins[other, n], test)["micro"]
            for method, n in cells
            if method != other and (other, n) in cells
        }
        for other in (reference, plain)
    }
    differences = against[reference]
    rows = []
    for method in methods:
        own = [n for n in work.sizes if (method, n) in cells]
        for n in own:
            cell, over = cells[method, n], differences.get((method, n))
            rows.append(
                {"method": method, "n": n, "micro": found[names[method, n]]["micro"]}
                | {"macro": found[names[method, n]]["macro"]}
                | {"difference": None if over is None else points(over)}
                | {key: cell["core_seconds"][key] or None for key in ("encoding", "training")}
                | {
                    "scoring": cell["scoring_core_seconds"],
                    "parameters": cell["parameters"],
                    "settings": cell["settings"],
                }
            )
    value = {key: found[name]["micro"]["value"] for key, name in names.items()}
    summary = [
        s
        for method in tuned
        for s in (
            *(by_pairs(method, other, against[other]) for other in (reference, plain)),
            by_cost(method, reference, value, cells),
        )
        if s
    ]
    made = Report("benchmark", "Frozen heads or tuned encoders, over training pairs and core-seconds", summary=summary)
    made.notes = [
        f"{facts['n_pairs']:,} test pairs of {facts['n_groups']:,} prompt groups in {len(facts['domains'])} domains, a "
        "fixed sample of the files' own test splits; intervals are clustered by prompt group and about these prompts only.",
        "One seed of the subsets and of tuning: what another draw would give is not in the intervals.",
        f"The reference is '{reference}', best by held-out loss in real_heads. A fifth of the training groups chooses l2, "
        "or stops the tuning; frozen heads are fitted again on all pairs, tuned encoders are not. Learning rates of tuned "
        f"encoders are chosen at {work.trial_size:,} pairs, by the same held-out groups, for all sizes; other settings are "
        "the defaults.",
        "Core-seconds are processor time of all threads; trials of learning rates are in a table of their own. Reading the "
        "files and loading the models is not in those of frozen heads; loading is in those of tuning.",
    ]
    if missing:
        made.notes.append(f"Not run yet: {', '.join(f'{method} at {n:,}' for method, n in missing)}.")
    made.add_section(
        "Every cell", tables=[{"name": "cells", "title": "All domains in one model", "columns": COLUMNS, "rows": rows}]
    )
    if trials := trial_rows(work, tuned):
        caption = f"Held-out loss at {work.trial_size:,} pairs; the lowest of each method is chosen."
        table = {"name": "rates", "title": "Learning rates", "columns": TRIALS, "rows": trials, "caption": caption}
        made.add_section("Learning rates", tables=[table])
    made.add_section("Curves", figures=figures(work.sizes, methods, tuned, reference, value, cells, differences))
    return made, missing


def figures(
    sizes: Sequence[int],
    methods: Sequence[str],
    tuned: Sequence[str],
    reference: str,
    value: dict[Any, float],
    cells: Cells,
    differences: dict[Any, dict[str, float]],
) -> list[dict[str, Any]]:
    """Accuracy over core-seconds and over pairs, without bands, which hide each other; and tuned minus frozen with them."""
    of = {method: [n for n in sizes if (method, n) in cells] for method in methods}
    over = {method: [n for n in sizes if (method, n) in differences] for method in tuned}
    places: dict[str, Callable[[str, int], float]] = {
        "core-seconds": lambda method, n: cost(cells[method, n]),
        "pairs": lambda method, n: n,
    }
    labels = {"core-seconds": "core-seconds from text to model", "pairs": "training pairs"}
    ticks = {"pairs": {"x": {"ticks": list(sizes), "labels": [f"{n:,}" for n in sizes]}}}
    out = [
        {
            "name": f"accuracy-{axis}",
            "title": f"Accuracy over {axis}",
            "kind": "lines",
            "data": {
                "series": [
                    {"label": m, "x": [place(m, n) for n in own], "y": [value[m, n] for n in own]}
                    for m, own in of.items()
                    if own
                ],
                "x_label": labels[axis],
                "y_label": "pairwise accuracy (micro)",
                "x_scale": "log",
                "reference": [{"value": 0.5, "label": "chance"}],
                **ticks.get(axis, {}),
            },
            "caption": "Each line goes through training sets of growing size; intervals are in the table.",
        }
        for axis, place in places.items()
    ]
    series = [
        {"label": m, "x": own}
        | {
            key: [100 * differences[m, n][end] for n in own]
            for key, end in (("y", "value"), ("low", "low"), ("high", "high"))
        }
        for m, own in over.items()
        if own
    ]
    if series:
        data = {"series": series, "x_label": labels["pairs"], "y_label": "points of micro accuracy", "x_scale": "log"}
        data |= {"reference": [{"value": 0.0, "label": "frozen"}], **ticks["pairs"]}
        caption = (
            f"At the same pairs, against '{reference}'. Bands are intervals of the difference, by test prompt group."
        )
        title = "Tuned minus frozen, over pairs"
        out.append({"name": "difference-pairs", "title": title, "kind": "lines", "data": data, "caption": caption})
    return out


def points(over: dict[str, float]) -> str:
    return f"{100 * over['value']:+.1f} [{100 * over['low']:+.1f}, {100 * over['high']:+.1f}]"


def crossings(sizes: Sequence[int], differences: Sequence[float]) -> list[tuple[int, int, float]]:
    """Return (size before, size after, place between) wherever the sign changes; straight lines over the log of the size."""
    out = []
    kept = [(n, d) for n, d in zip(sizes, differences) if d != 0.0]
    for (a, before), (b, after) in itertools.pairwise(kept):
        if before * after < 0:
            share = before / (before - after)
            out.append((a, b, math.exp(math.log(a) + share * (math.log(b) - math.log(a)))))
    return out


def by_pairs(method: str, reference: str, differences: dict[Any, dict[str, float]]) -> str:
    """Say where a tuned curve crosses the reference, over pairs."""
    sizes = sorted(n for m, n in differences if m == method)
    if not sizes:
        return ""
    over = {n: differences[method, n] for n in sizes}
    ends = f"{points(over[sizes[0]])} points at {sizes[0]:,} pairs"
    if len(sizes) > 1:
        ends += f", {points(over[sizes[-1]])} at {sizes[-1]:,}"
    crossed = crossings(sizes, [over[n]["value"] for n in sizes])
    if crossed:
        where = " and ".join(f"between {a:,} and {b:,} pairs (at about {place:,.0f})" for a, b, place in crossed)
        said = f"the curves cross {where}"
    else:
        side = "above" if over[sizes[-1]]["value"] > 0 else "below"
        said = f"the curves do not cross: it is {side} at every size"
    sure = [f"{n:,}" for n in sizes if over[n]["low"] > 0 or over[n]["high"] < 0]
    told = f"told apart at {', '.join(sure)}" if sure else "told apart at no size"
    return f"{method} against {reference}, by pairs: {ends}; {said}; {told}."


def by_cost(method: str, reference: str, value: dict[Any, float], cells: Cells) -> str:
    """Say where a tuned encoder is worth its core-seconds: against the largest reference that costs no more."""
    frozen = sorted((cost(cell), n) for (m, n), cell in cells.items() if m == reference)
    own = sorted((cost(cell), n) for (m, n), cell in cells.items() if m == method)
    if not frozen or not own:
        return ""
    start = f"{method} against {reference}, by core-seconds"
    wins, losses = [], []
    for seconds, n in own:
        afforded = [m for price, m in frozen if price <= seconds]
        if not afforded:
            continue
        best = max(afforded)
        ours, theirs = value[method, n], value[reference, best]
        word = f"{n:,} pairs, {seconds:,.0f} core-seconds: {ours:.3f} against {theirs:.3f} with {best:,}"
        (wins if ours > theirs else losses).append(word)
    if not wins and not losses:
        return f"{start}: no cell of the reference is as cheap."
    if not wins:
        return f"{start}: never above what the same core-seconds give frozen ({losses[-1]})."
    return f"{start}: above in {len(wins)} of {len(wins) + len(losses)} cells, first at {wins[0]}."
