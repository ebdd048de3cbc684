"""The wrong-expert matrix: accuracy of the expert of one domain on the pairs of another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError
from embedrm.numerics.ties import pair_credit
from embedrm.preferences import EmbeddedPreferences


def wrong_expert_facts(
    margins: NDArray[np.float64], experts: list[str], preferences: EmbeddedPreferences
) -> dict[str, Any]:
    """Accuracy of every expert on every domain.

    Parameters
    ----------
    margins : ndarray of shape (n_pairs, n_experts)
        Margin of each pair under each expert.
    experts : list of str
        Domain of each expert.
    preferences : EmbeddedPreferences
        Gives the domains of the pairs and which are ties (left out). Its vectors are not read.

    Returns
    -------
    dict
        ``experts`` (rows), ``domains`` (columns), ``accuracy`` (list of rows) and ``n_by_domain``. The diagonal is
        oracle routing.
    """
    if margins.shape != (len(preferences), len(experts)):
        raise InvalidInputError(f"expected margins of shape ({len(preferences)}, {len(experts)}), got {margins.shape}")
    labelled = ~preferences.ties
    domain = preferences.domain[labelled]
    names = np.unique(domain).tolist()
    credit = np.stack([pair_credit(margins[labelled, k]) for k in range(len(experts))])
    return {
        "experts": list(experts),
        "domains": names,
        "accuracy": [[float(row[domain == d].mean()) for d in names] for row in credit],
        "n_by_domain": {d: int((domain == d).sum()) for d in names},
    }
