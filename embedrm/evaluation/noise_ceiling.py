"""The accuracy that a perfect reward model would reach on labels of known noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.numerics.annotator_pool import known_annotator
from embedrm.numerics.bootstrap import Clustered
from embedrm.preferences import EmbeddedPreferences


def label_agreement(preferences: EmbeddedPreferences) -> NDArray[np.float64] | None:
    """Return the probability that each pair's label is right; (n_pairs,), None where the noise is not known.

    It is known where the data's ``info`` has ``label_noise``: in the bundled data, whose labels are checked, and after
    :func:`embedrm.annotate`.
    """
    annotator = known_annotator(preferences.responses.info)
    if annotator is None:
        return None
    gold, pairs = preferences.responses.gold, preferences.pairs
    return annotator.agreement(gold[pairs[:, 0]] - gold[pairs[:, 1]])


def ceiling_facts(preferences: EmbeddedPreferences) -> dict[str, Any] | None:
    """Return the noise ceiling as plain facts, None where the noise of the labels is not known.

    Returns
    -------
    dict or None
        ``domains`` (name to share), ``micro`` and ``macro``: expected accuracy of the true order, by the annotator's
        model and without ties. No interval: it is computed, not estimated.
    """
    kept = preferences[~preferences.ties]
    agreement = label_agreement(kept)
    if agreement is None or not len(kept):
        return None
    table = Clustered.from_rows(agreement, kept.groups, kept.domain)
    *domains, micro, macro = table.means()[0, :, 0].tolist()
    return {"domains": dict(zip(table.strata.tolist(), domains)), "micro": micro, "macro": macro}
