"""Prompt groups as numbers: names of a million groups are a hundred megabytes, and sorting them takes copies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedrm.preferences import EmbeddedPreferences

_BLOCK = 65_536


def group_ranks(preferences: EmbeddedPreferences) -> NDArray[np.intp]:
    """Rank of each pair's prompt group among the names of the groups; shape (n_pairs,).

    Folds of the ranks are folds of the names: equal where the names are, and in their order.
    """
    prompts = preferences.active_prompts
    names = preferences.responses.group
    if len(prompts) < len(names):
        names = names[prompts]
    order = np.argsort(names, kind="stable")
    step = np.zeros(len(order), dtype=np.intp)
    # some at a time: a sorted copy of all names is what is to be avoided
    for start in range(0, len(order) - 1, _BLOCK):
        block = names[order[start : start + _BLOCK + 1]]
        step[start + 1 : start + len(block)] = block[1:] != block[:-1]
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.cumsum(step, out=step)
    return rank[np.searchsorted(prompts, preferences.prompt_rows)]
