"""What is learned in LightGBM's text format of trees."""

from __future__ import annotations

import re

_LEAVES = re.compile(r"^num_leaves=(\d+)$", re.MULTILINE)


def tree_parameters(text: str) -> dict[str, int]:
    """Count ``trees``, ``leaves`` (values), ``thresholds`` (one for each split), and the ``total`` of the last two."""
    sizes = [int(n) for n in _LEAVES.findall(text)]
    leaves = sum(sizes)
    thresholds = leaves - len(sizes)
    return {"trees": len(sizes), "leaves": leaves, "thresholds": thresholds, "total": leaves + thresholds}
