"""Short names for the values of one axis: of mappings, only what tells them apart."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from embedrm.experiments.experiment_run import shown


def value_labels(values: Iterable[Any]) -> dict[str, str]:
    """Return a short label for each value of an axis, by how the value is shown.

    Where several values are mappings (heads with their parameters), a label has the entries that tell them apart: the first
    entry (a name, mostly), and as few others as it takes. Any other value is its own label.

    Examples
    --------
    >>> from embedrm.experiments.value_labels import value_labels
    >>> heads = [{"name": "mlp", "l2": 1, "objective": "hinge"}, {"name": "mlp", "l2": 1}, {"name": "gbdt"}]
    >>> list(value_labels(heads).values())
    ['mlp, objective=hinge', 'mlp', 'gbdt']
    """
    by_text = {shown(value): value for value in values}
    mappings = {text: value for text, value in by_text.items() if isinstance(value, Mapping) and value}
    labels = {text: text for text in by_text}
    if len(mappings) > 1:
        keys = _telling(list(mappings.values()))
        labels |= {text: _label(value, keys) for text, value in mappings.items()}
    # what is not told apart after all keeps its full name
    counts: dict[str, int] = {}
    for name in labels.values():
        counts[name] = counts.get(name, 0) + 1
    return {text: name if counts[name] == 1 else text for text, name in labels.items()}


def name_in(rows: Iterable[Mapping[str, Any]], path: str, value: Any) -> str:
    """Return the short name of a value in rows of variants, which have ``settings`` and ``labels`` by path."""
    text = shown(value)
    return next((str(row["labels"][path]) for row in rows if shown(row["settings"][path]) == text), text)


def _telling(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Choose keys, in the order of the mappings, until all of them differ: each time the one that tells most apart."""
    known = list(dict.fromkeys(key for one in mappings for key in one))
    chosen = [next(iter(mappings[0]))]

    def apart(keys: list[str]) -> int:
        return len({json.dumps([one.get(key) for key in keys], sort_keys=True) for one in mappings})

    while apart(chosen) < len(mappings):
        best = max((key for key in known if key not in chosen), key=lambda key: apart([*chosen, key]), default=None)
        if best is None or apart([*chosen, best]) == apart(chosen):
            break
        chosen.append(best)
    return chosen


def _label(value: Mapping[str, Any], keys: Sequence[str]) -> str:
    first = next(iter(value))
    parts = [shown(value[first])] if first in keys else []
    parts += [f"{key}={shown(value[key])}" for key in keys if key in value and key != first]
    return ", ".join(parts) or shown(value)
