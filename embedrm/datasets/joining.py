"""Several data sets as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from embedrm.datasets.graph import GraphBuilder
from embedrm.datasets.groups import prompt_group
from embedrm.datasets.preference import PreferenceDataset
from embedrm.errors import InvalidInputError


def concatenate(
    datasets: Sequence[PreferenceDataset], *, name: str = "", allow_group_leak: bool = False
) -> PreferenceDataset:
    """Return several data sets as one; see :meth:`PreferenceDataset.concat`."""
    parts = list(datasets)
    if not parts or not all(isinstance(part, PreferenceDataset) for part in parts):
        raise InvalidInputError("concat: expected a list of at least one PreferenceDataset.")
    tolerated = any(part.info.get("group_leak", {}).get("exact") for part in parts)
    builder = GraphBuilder(allow_group_leak=allow_group_leak or tolerated)
    for number, part in enumerate(parts):
        columns = [part.prompts[column].tolist() for column in part.prompts]
        rows = []
        for prompt, domain, group, system, context, source, split in zip(*columns):
            empty = not (prompt or system or context)
            own = group == prompt_group(prompt, context)
            rows.append(
                builder.add_prompt(
                    (prompt, system, context, domain),
                    "" if empty or own else group,
                    source,
                    split,
                    (part.name or f"part {number + 1}", None),
                    group if empty else "",
                )
            )
        texts = [part.responses[column].tolist() for column in ("response", "prompt_of", "gold")]
        responses = [builder.add_response(rows[prompt], text, gold) for text, prompt, gold in zip(*texts)]
        for chosen, rejected, *numbers in zip(*(part.pairs[column].tolist() for column in part.pairs)):
            builder.add_pair(responses[chosen], responses[rejected], *numbers)
    tables = builder.tables()
    info = _merged_info([part.info for part in parts], builder.counts)
    info.pop("group_leak", None)
    if builder.leak:
        info["group_leak"] = builder.leak
    return PreferenceDataset(*tables, name=name or "+".join(part.name for part in parts if part.name), info=info)


def _merged_info(infos: Sequence[Mapping[str, Any]], more: Counter[str]) -> dict[str, Any]:
    """Add up what was told of each part: lists are joined, mappings by file united, counts summed."""
    counts = Counter({key: count for key, count in more.items() if count})
    reasons: Counter[str] = Counter()
    skipped: dict[str, Any] = {"rows": 0, "reasons": {}, "lines": {}, "examples": []}
    merged: dict[str, Any] = {"files": [], "columns": {}, "unused_columns": {}}
    for info in infos:
        merged["files"] += info.get("files", [])
        merged["columns"].update(info.get("columns", {}))
        merged["unused_columns"].update(info.get("unused_columns", {}))
        counts.update(info.get("counts", {}))
        mine = info.get("skipped", {})
        skipped["rows"] += mine.get("rows", 0)
        reasons.update(mine.get("reasons", {}))
        skipped["lines"].update(mine.get("lines", {}))
        skipped["examples"] += mine.get("examples", [])
    skipped["reasons"] = dict(sorted(reasons.items()))
    return {**merged, "counts": dict(sorted(counts.items())), "skipped": skipped}
