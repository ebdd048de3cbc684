"""Pairs drawn by a scheme among responses with gold, labelled as the gold has it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from embedrm.datasets.pairing import PairingScheme, Pool, make_scheme
from embedrm.datasets.preference import PreferenceDataset
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.numerics.annotation import KEY, Annotator
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses

PROMPTS = ("paired", "all")
PAIRING = "pairing"
"""Where a data set's ``info`` tells how its pairs were drawn."""

_STREAM = 0x9A1F

Source = EmbeddedResponses | EmbeddedPreferences | PreferenceDataset


@overload
def draw_pairs(
    data: PreferenceDataset,
    scheme: str | Mapping[str, Any] | PairingScheme = ...,
    n: int | None = ...,
    *,
    split: str | None = ...,
    prompts: str = ...,
    random_state: int = ...,
) -> PreferenceDataset: ...
@overload
def draw_pairs(
    data: EmbeddedResponses | EmbeddedPreferences,
    scheme: str | Mapping[str, Any] | PairingScheme = ...,
    n: int | None = ...,
    *,
    split: str | None = ...,
    prompts: str = ...,
    random_state: int = ...,
) -> EmbeddedPreferences: ...
def draw_pairs(
    data: Source,
    scheme: str | Mapping[str, Any] | PairingScheme = "same-prompt",
    n: int | None = None,
    *,
    split: str | None = None,
    prompts: str = "paired",
    random_state: int = 0,
) -> EmbeddedPreferences | PreferenceDataset:
    """Draw the pairs that are to be annotated, among responses with gold.

    Parameters
    ----------
    data : EmbeddedResponses, EmbeddedPreferences or PreferenceDataset
        With gold. Pairs that it has are replaced, with their weights.
    scheme : str, mapping or PairingScheme
        ``"same-prompt"``, ``"similar"``, ``"diversified"``, ``"cross-prompt"``, or ``{"name": ..., PARAMETER: ...}``; see
        :mod:`embedrm.datasets.pairing`.
    n : int, optional
        Number of pairs, all different; one for each prompt that can have one where absent. For one ``random_state``, fewer
        are the first of more.
    split : str, optional
        Prompts of this split alone. Absent, all splits; no pair crosses one in either case.
    prompts : {"paired", "all"}
        Which prompts: those that a pair of the data touches, with all their responses (so that a part of the data stays that
        part), or all that are held. Responses without pairs are all taken.
    random_state : int

    Returns
    -------
    EmbeddedPreferences or PreferenceDataset
        Texts and vectors are shared. The response of higher gold is chosen, ``margin`` is the difference of gold, and
        responses of equal gold make no pair. ``info["pairing"]`` tells the scheme; the labels are right by the gold, and
        :func:`embedrm.annotate` makes them those of a simulated annotator.

    Raises
    ------
    InvalidInputError
        Where there are fewer than ``n`` pairs, or no gold.

    Examples
    --------
    >>> import numpy as np
    >>> from embedrm import EmbeddedPreferences, draw_pairs
    >>> gold = np.arange(40.0).reshape(4, 10)
    >>> lists = EmbeddedPreferences.from_arrays(np.zeros((4, 10, 2)), rewards=gold)
    >>> sorted(draw_pairs(lists, "similar").pairs.tolist())
    [[5, 4], [15, 14], [25, 24], [35, 34]]
    """
    who = "draw_pairs"
    made = make_scheme(scheme)
    if prompts not in PROMPTS:
        raise unknown_name("choice of prompts", prompts, PROMPTS)
    if isinstance(random_state, bool) or not isinstance(random_state, (int, np.integer)) or random_state < 0:
        raise InvalidInputError(f"{who}: random_state must be a whole number from 0, got {random_state!r}")
    if n is not None and (isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1):
        raise InvalidInputError(f"{who}: n must be a whole number of pairs from 1, or None; got {n!r}")
    prompt_of, gold, names, paired = _graph(data)
    kept = np.ones(len(names["split"]), dtype=bool)
    if paired is not None and prompts == "paired":
        kept = np.isin(np.arange(len(kept)), prompt_of[paired])
        if not kept.any():
            raise InvalidInputError(
                f"{who}: the data have no pairs to take prompts from; prompts='all' takes all of them"
            )
    if split is not None:
        present = sorted(set(names["split"][kept].tolist()) - {""})
        if split not in present:
            raise unknown_name("split", split, present)
        kept &= names["split"] == split
    pool = Pool.of(prompt_of, gold, kept, names)
    most = made.most(pool)
    if not most:
        raise InvalidInputError(
            f"{who}: the scheme {made.registered_name!r} finds no pair of different gold among {len(pool.rows):,} responses "
            f"with gold to {pool.n_prompts:,} prompts; give data with gold (with_gold adds it), or another scheme"
        )
    wanted = made.one_each(pool) if n is None else int(n)
    if wanted > most:
        raise InvalidInputError(
            f"{who}: {wanted:,} pairs are asked for, and the scheme {made.registered_name!r} has {most:,} different ones on "
            f"{pool.n_prompts:,} prompts; ask for fewer, or take another scheme"
        )
    # a stream apart from the annotator's, who is often given the same seed
    places = made.draw(pool, wanted, np.random.default_rng([random_state, _STREAM]))
    gap = pool.gold[places[:, 0]] - pool.gold[places[:, 1]]
    rows = pool.rows[np.where((gap < 0)[:, None], places[:, ::-1], places)]
    facts = made.to_info() | {"n_pairs": wanted, "random_state": int(random_state), "split": split}
    info = {PAIRING: facts, KEY: Annotator().to_info()}
    if isinstance(data, PreferenceDataset):
        table = pd.DataFrame(
            {"chosen": rows[:, 0], "rejected": rows[:, 1], "weight": 1.0, "margin": np.abs(gap), "outcome": 1.0}
        )
        return PreferenceDataset(data.prompts, data.responses, table, name=data.name, info={**data.info, **info})
    responses = copy(data if isinstance(data, EmbeddedResponses) else data.responses)
    responses.info = {**responses.info, **info}
    return EmbeddedPreferences(responses, rows, margin=np.abs(gap))


def _graph(
    data: Source,
) -> tuple[NDArray[np.intp], NDArray[np.float64], dict[str, NDArray[Any]], NDArray[np.intp] | None]:
    """Return the prompt and the gold of each response, names of each prompt, and the responses in pairs (None: no pairs)."""
    names = ("group", "split", "domain")
    if isinstance(data, PreferenceDataset):
        table, prompts = data.responses, data.prompts
        columns = {name: prompts[name].to_numpy(dtype=object) for name in names}
        paired = np.unique(data.pairs[["chosen", "rejected"]].to_numpy())
        return table["prompt_of"].to_numpy(), table["gold"].to_numpy(dtype=np.float64), columns, paired
    if not isinstance(data, (EmbeddedResponses, EmbeddedPreferences)):
        raise InvalidInputError(
            "draw_pairs: expected EmbeddedResponses, EmbeddedPreferences or a PreferenceDataset, got "
            f"{type(data).__name__}"
        )
    responses = data if isinstance(data, EmbeddedResponses) else data.responses
    active = None if isinstance(data, EmbeddedResponses) else data.active
    return responses.prompt_of, responses.gold, {name: getattr(responses, name) for name in names}, active
