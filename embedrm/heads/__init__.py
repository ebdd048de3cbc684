"""Reward heads: one head, one file. Each registers itself; see CONTRIBUTING.md for the ten-line recipe."""

from embedrm.registry import Registry

HEADS = Registry("head", "embedrm.heads")

__all__ = ["HEADS"]
