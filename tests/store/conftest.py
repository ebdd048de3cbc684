"""Make ``store_fakes`` importable: the same module is run as a script by the fault tests' processes."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
