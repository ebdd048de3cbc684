"""Rewards of prefixes and next tokens: heads on a frozen language model's states, and decoding guided by them."""

from __future__ import annotations

from embedrm.registry import Registry

PREFIX_HEADS = Registry("prefix head", "embedrm.decoding")

__all__ = ["PREFIX_HEADS"]
