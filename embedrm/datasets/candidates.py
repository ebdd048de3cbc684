"""The part of a data set from which responses are chosen: prompts with all their responses, whether in pairs or not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedrm.datasets.groups import prompt_group
from embedrm.datasets.preference import PreferenceDataset
from embedrm.errors import InvalidInputError, unknown_name


def candidates(
    data: PreferenceDataset, split: str | None = None, *, without: PreferenceDataset | None = None
) -> PreferenceDataset:
    """Return prompts with all their responses, for a choice among them.

    ``data.split(...)`` keeps pairs, and a prompt whose responses all have the same gold has none: judging choices on what
    is left would make every prompt one at which the choice matters.

    Parameters
    ----------
    data : PreferenceDataset
    split : str, optional
        Prompts of this split alone.
    without : PreferenceDataset, optional
        What models were fitted on: prompts that it has too, by their normalised text and context, are left out.

    Returns
    -------
    PreferenceDataset
        With the pairs among these responses. ``info["candidates"]`` counts the prompts that were left out, as
        ``other_splits`` and ``fitted_on``.

    Raises
    ------
    InvalidInputError
        For a split that no prompt is in, and where nothing is left.
    """
    prompts = data.prompts
    kept = np.ones(data.n_prompts, dtype=bool)
    if split is not None:
        named = prompts["split"].to_numpy(dtype=object)
        kept = named == split
        if not kept.any():
            raise unknown_name("split", split, sorted(set(named.tolist()) - {""}))
    counts = {"other_splits": int((~kept).sum())}
    if without is not None:
        seen = shared_prompts(data, without)
        counts["fitted_on"] = int((kept & seen).sum())
        kept &= ~seen
    if not kept.any():
        raise InvalidInputError("candidates: every prompt is one that the models were fitted on; give other data")
    return prompts_where(data, kept, counts)


def shared_prompts(data: PreferenceDataset, other: PreferenceDataset) -> NDArray[np.bool_]:
    """Return which prompts of one data set another has too, by normalised text and context or by group; (n_prompts,)."""

    def keys(one: PreferenceDataset) -> list[str]:
        return [prompt_group(p, c) for p, c in zip(one.prompts["prompt"].tolist(), one.prompts["context"].tolist())]

    own, theirs = keys(data), {*keys(other), *other.prompts["group"].tolist()}
    return np.array([k in theirs or g in theirs for k, g in zip(own, data.prompts["group"].tolist())], dtype=bool)


def prompts_where(
    data: PreferenceDataset, kept: NDArray[np.bool_], counts: dict[str, int] | None = None
) -> PreferenceDataset:
    """Return some prompts, by a mask (n_prompts,), with all their responses and the pairs among these."""
    prompt_of = data.responses["prompt_of"].to_numpy()
    inside = kept[prompt_of]
    new_prompt, new_response = np.cumsum(kept) - 1, np.cumsum(inside) - 1
    chosen, rejected = (data.pairs[side].to_numpy() for side in ("chosen", "rejected"))
    pairs = data.pairs[inside[chosen] & inside[rejected]].reset_index(drop=True)
    responses = data.responses[inside].reset_index(drop=True)
    return PreferenceDataset(
        data.prompts[kept].reset_index(drop=True),
        responses.assign(prompt_of=new_prompt[responses["prompt_of"]]),
        pairs.assign(**{side: new_response[pairs[side]] for side in ("chosen", "rejected")}),
        name=data.name,
        info=data.info | ({} if counts is None else {"candidates": counts}),
    )
