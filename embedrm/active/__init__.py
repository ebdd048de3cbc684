"""Which pairs to have labelled next. One strategy, one file; :func:`embedrm.label_actively` runs them in rounds."""

from __future__ import annotations

from embedrm.registry import Registry

STRATEGIES: Registry = Registry("selection strategy", "embedrm.active")

from embedrm.active.base import Strategy, make_strategy, select_pairs, unlabelled  # noqa: E402

__all__ = ["STRATEGIES", "Strategy", "make_strategy", "select_pairs", "unlabelled"]
