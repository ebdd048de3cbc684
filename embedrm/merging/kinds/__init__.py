"""Kinds of encoders whose folders can be merged, each in one file; the names are those of the module that reads text.

:class:`embedrm.encoders.merged.MergedEncoder` finds the kind here by its name.
"""

from __future__ import annotations

from embedrm.encoders.merged import ENCODER_KINDS

__all__ = ["ENCODER_KINDS"]
