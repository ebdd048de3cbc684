"""Make ``store_fakes`` importable (the fault tests also run it as a script), and spare the disk.

No test here can pull the plug, so waiting for the disk shows nothing; that fsync is called, and when, has its own test.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: os.fstat(fd))
