"""Preference data as text: readers, validation, splits, and the tables that everything else is made from."""

from embedrm.datasets.groups import normalise_prompt, prompt_group
from embedrm.datasets.loading import load_hf, read_preferences
from embedrm.datasets.preference import PreferenceDataset
from embedrm.datasets.template import PLAIN, Template

__all__ = [
    "PLAIN",
    "PreferenceDataset",
    "Template",
    "load_hf",
    "normalise_prompt",
    "prompt_group",
    "read_preferences",
]
