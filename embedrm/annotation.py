"""Label noise that is known: the same pairs as a simulated annotator would have labelled them."""

from __future__ import annotations

from copy import copy
from typing import TypeVar

import numpy as np

from embedrm.datasets.preference import PreferenceDataset
from embedrm.errors import InvalidInputError
from embedrm.numerics.annotation import Annotator
from embedrm.numerics.annotator_pool import AnnotatorPool, draw_labels
from embedrm.preferences import EmbeddedPreferences

Data = TypeVar("Data", EmbeddedPreferences, PreferenceDataset)


def annotate(data: Data, annotator: Annotator | AnnotatorPool, *, random_state: int = 0) -> Data:
    """Return the pairs as a simulated annotator, or several, would label them.

    Parameters
    ----------
    data : EmbeddedPreferences or PreferenceDataset
        Pairs whose labels are right, such as those of the bundled data, or what :func:`embedrm.draw_pairs` gives. Ties
        (outcome 0.5) stay as they are.
    annotator : Annotator or AnnotatorPool
        What it gets wrong, and how often.
    random_state : int
        Seed of its errors; one draw a pair (for a pool one for each answer), in their order.

    Returns
    -------
    EmbeddedPreferences or PreferenceDataset
        As it came: the same pairs in the same order, the mistaken ones turned round. ``margin`` is NaN throughout, since
        the annotator does not tell it; ``outcome`` is the share of votes where a pool gives several. ``info["label_noise"]``
        (of ``responses`` in embedded data) holds the noise with the scale of rewards it refers to, as a number, and how many
        labels it turned round; reports take the noise ceiling from it. Texts and vectors are shared.

    Raises
    ------
    InvalidInputError
        For labels that are vote shares or noisy already, and where ``beta`` meets a pair without gold.

    Examples
    --------
    >>> import numpy as np
    >>> from embedrm import Annotator, EmbeddedPreferences, annotate
    >>> clean = EmbeddedPreferences.from_arrays(np.eye(4), [[0, 1], [2, 3]] * 500)
    >>> noisy = annotate(clean, Annotator(flip_rate=0.2))
    >>> noisy.responses.info["label_noise"]["flipped"]
    193
    """
    if isinstance(data, EmbeddedPreferences):
        gold, pairs = data.responses.gold, data.pairs
        drawn = draw_labels(annotator, data.responses.info, data.outcome, gold, pairs, data.prompt_rows, random_state)
        flips, outcome, info = drawn
        responses = copy(data.responses)
        responses.info = {**data.responses.info, **info}
        turned = np.where(flips[:, None], pairs[:, ::-1], pairs)
        return EmbeddedPreferences(responses, turned, weight=data.weight, outcome=outcome)
    if not isinstance(data, PreferenceDataset):
        raise InvalidInputError(
            f"annotate: expected EmbeddedPreferences or a PreferenceDataset, got {type(data).__name__}"
        )
    gold = data.responses["gold"].to_numpy()
    rows = data.pairs[["chosen", "rejected"]].to_numpy()
    unit = data.responses["prompt_of"].to_numpy()[rows[:, 0]]
    flips, outcome, info = draw_labels(
        annotator, data.info, data.pairs["outcome"].to_numpy(), gold, rows, unit, random_state
    )
    turned = np.where(flips[:, None], rows[:, ::-1], rows)
    table = data.pairs.assign(chosen=turned[:, 0], rejected=turned[:, 1], margin=np.nan, outcome=outcome)
    return PreferenceDataset(data.prompts, data.responses, table, name=data.name, info={**data.info, **info})
