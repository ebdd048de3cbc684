"""Tuning encoders on a CPU: all weights, the top blocks or low-rank adapters. Importing this package loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedrm.tuning.config import TuningConfig

if TYPE_CHECKING:
    from embedrm.tuning.estimate import TuningEstimate
    from embedrm.tuning.switch import AdapterSwitch
    from embedrm.tuning.tuned import TunedEncoder

__all__ = ["AdapterSwitch", "TunedEncoder", "TuningConfig", "TuningEstimate"]

_LAZY = {
    "AdapterSwitch": "embedrm.tuning.switch",
    "TunedEncoder": "embedrm.tuning.tuned",
    "TuningEstimate": "embedrm.tuning.estimate",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
