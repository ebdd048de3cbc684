"""Preference data as text: readers, validation, splits, and the tables that everything else is made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Public name -> module. The template is wanted where texts are only encoded, and then pandas is not imported.
_PUBLIC = {
    "PLAIN": "embedrm.datasets.template",
    "PreferenceDataset": "embedrm.datasets.preference",
    "Template": "embedrm.datasets.template",
    "load_hf": "embedrm.datasets.loading",
    "normalise_prompt": "embedrm.datasets.groups",
    "prompt_group": "embedrm.datasets.groups",
    "read_preferences": "embedrm.datasets.loading",
}

__all__ = [
    "PLAIN",
    "PreferenceDataset",
    "Template",
    "load_hf",
    "normalise_prompt",
    "prompt_group",
    "read_preferences",
]

if TYPE_CHECKING:
    from embedrm.datasets.groups import normalise_prompt, prompt_group
    from embedrm.datasets.loading import load_hf, read_preferences
    from embedrm.datasets.preference import PreferenceDataset
    from embedrm.datasets.template import PLAIN, Template


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'embedrm.datasets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
