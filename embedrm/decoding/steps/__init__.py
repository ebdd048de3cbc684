"""One reward for a chain of reasoning steps, from a reward for each step. One rule, one file."""

from __future__ import annotations

from embedrm.registry import Registry

AGGREGATIONS: Registry = Registry("aggregation of step rewards", "embedrm.decoding.steps")

from embedrm.decoding.steps.base import Aggregation, aggregate  # noqa: E402

__all__ = ["AGGREGATIONS", "Aggregation", "aggregate"]
