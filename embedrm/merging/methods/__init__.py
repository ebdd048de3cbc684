"""Merge methods: pure functions from several tensors, or several deltas, to one. One family, one file."""

from __future__ import annotations

from embedrm.registry import Registry

MERGE_METHODS: Registry = Registry("merge method", "embedrm.merging.methods")

from embedrm.merging.methods.base import MergeMethod, make_method  # noqa: E402  (the registry must exist before a class registers)

__all__ = ["MERGE_METHODS", "MergeMethod", "make_method"]
