"""Gold rewards from elsewhere: scores of a golden reward model, a checker or a file, put on the responses."""

from __future__ import annotations

from copy import copy
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from embedrm.datasets.preference import PreferenceDataset
from embedrm.errors import InvalidInputError
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses

Data = TypeVar("Data", EmbeddedResponses, EmbeddedPreferences, PreferenceDataset)


def with_gold(data: Data, gold: ArrayLike, *, source: str) -> Data:
    """Return the data with a gold score for each response; texts, vectors and pairs are shared.

    Parameters
    ----------
    data : EmbeddedResponses, EmbeddedPreferences or PreferenceDataset
        Gold that it has is replaced. Its pairs stay as they are, whatever the new gold says of them; :func:`draw_pairs`
        draws new ones.
    gold : array-like of shape (n_responses,) or (n_responses, 1)
        Higher is better; NaN where there is none. ``model.predict(data)`` of a reward model makes it the golden one: it must
        not have been trained on what the models under study are trained on.
    source : str
        Where the scores come from; kept as ``info["gold"]``.

    Raises
    ------
    InvalidInputError
        For another shape, or values that are infinite or all missing.
    """
    who = "with_gold"
    if not isinstance(data, (EmbeddedResponses, EmbeddedPreferences, PreferenceDataset)):
        raise InvalidInputError(
            f"{who}: expected EmbeddedResponses, EmbeddedPreferences or a PreferenceDataset, got {type(data).__name__}"
        )
    if not isinstance(source, str) or not source:
        raise InvalidInputError(f"{who}: source must say in words where the scores come from, got {source!r:.40}")
    n = data.responses.n_responses if isinstance(data, EmbeddedPreferences) else data.n_responses
    values = np.array(gold, dtype=np.float64)
    if values.shape not in ((n,), (n, 1)):
        raise InvalidInputError(f"{who}: gold must have shape ({n},), one number a response, got shape {values.shape}")
    values = values.reshape(n)
    if np.isinf(values).any() or np.isnan(values).all():
        raise InvalidInputError(
            f"{who}: gold must be finite (NaN where there is none), got {int(np.isinf(values).sum())} infinite and "
            f"{int(np.isnan(values).sum())} missing of {n}"
        )
    if isinstance(data, PreferenceDataset):
        return PreferenceDataset(
            data.prompts,
            data.responses.assign(gold=values),
            data.pairs,
            name=data.name,
            info={**data.info, "gold": {"source": source}},
        )
    responses = copy(data.responses if isinstance(data, EmbeddedPreferences) else data)
    responses.gold = values
    responses.info = {**responses.info, "gold": {"source": source}}
    if isinstance(data, EmbeddedResponses):
        return responses  # type: ignore[return-value]
    return EmbeddedPreferences(responses, data.pairs, weight=data.weight, margin=data.margin, outcome=data.outcome)
