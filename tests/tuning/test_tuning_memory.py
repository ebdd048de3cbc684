"""Memory is given back where the C library can, and its peak is known."""

from __future__ import annotations

import sys

import numpy as np

from embedrm.tuning import memory


def test_giving_back_is_harmless_and_the_peak_never_falls():
    before = memory.peak_bytes()
    block = np.ones(2**22)
    memory.give_back()
    assert block.sum() == 2**22
    assert memory.peak_bytes() >= before


def test_another_system_gives_nothing_back(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    memory._trim.cache_clear()
    assert memory._trim() is None
    memory.give_back()
    memory._trim.cache_clear()
