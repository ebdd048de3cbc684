"""Plain texts to tune on, each once, with the prompt group that keeps it on one side of the split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedrm.datasets import PreferenceDataset
from embedrm.datasets.template import Template
from embedrm.encoders.base import check_texts
from embedrm.errors import InvalidInputError


def plain_texts(
    data: PreferenceDataset | Sequence[str], groups: Sequence[object] | None, template: Template
) -> tuple[list[str], list[str]]:
    """Return (texts, their groups), each text once, under the first group it came with.

    Parameters
    ----------
    data : PreferenceDataset or sequence of str
        Of a data set: the prompts that its pairs touch, and their responses.
    groups : sequence, optional
        Of the texts; each text is a group of its own where absent. A data set has its own.
    """
    if isinstance(data, PreferenceDataset):
        if groups is not None:
            raise InvalidInputError("groups are for plain texts; a data set has its own. Leave them out.")
        rows = np.unique(data.pairs[["chosen", "rejected"]].to_numpy())
        owner = data.responses["prompt_of"].to_numpy()[rows]
        prompts, responses = data.prompt_texts(template), data.response_texts()
        group_of = data.prompts["group"].tolist()
        asked = np.unique(owner).tolist()
        texts = [prompts[p] for p in asked] + [responses[r] for r in rows.tolist()]
        names = [group_of[p] for p in asked] + [group_of[p] for p in owner.tolist()]
    else:
        texts = check_texts(data)
        names = list(texts) if groups is None else [str(group) for group in groups]
        if len(names) != len(texts):
            raise InvalidInputError(f"groups must be one for each of {len(texts)} texts; got {len(names)}")
    group: dict[str, str] = {}
    for text, name in zip(texts, names):
        if text.strip():
            group.setdefault(text, name)
    return list(group), list(group.values())
