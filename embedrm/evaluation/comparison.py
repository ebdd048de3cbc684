"""Paired comparison of two models on the same pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.evaluation.pairwise import check_margins
from embedrm.numerics.bootstrap import CONFIDENCE, N_RESAMPLES, Clustered, percentile_interval, two_sided_p
from embedrm.numerics.significance import holm, mcnemar_exact
from embedrm.numerics.ties import pair_credit
from embedrm.preferences import EmbeddedPreferences


def comparison_facts(
    margins_a: NDArray[np.float64],
    margins_b: NDArray[np.float64],
    preferences: EmbeddedPreferences,
    *,
    n_resamples: int = N_RESAMPLES,
    random_state: int = 0,
) -> dict[str, Any]:
    """Accuracy of a minus accuracy of b, with intervals and tests.

    Parameters
    ----------
    margins_a, margins_b : ndarray of shape (n_pairs,) or (n_seeds, n_pairs)
        Margins of the two models on the same pairs. Of several seeds, each pair has its mean accuracy, and McNemar's test,
        which knows right and wrong only, is left out (None).
    preferences : EmbeddedPreferences
        Gives domains, prompt groups and ties. Its vectors are not read.
    n_resamples : int
        Bootstrap draws of whole prompt groups; both models see the same draws.
    random_state : int
        Seed.

    Returns
    -------
    dict
        ``micro`` and ``macro``: ``{value, low, high, p}``; ``mcnemar`` on all pairs; ``domains``: for each domain
        ``{value, low, high, n, p, p_holm, mcnemar}`` where ``p`` is the clustered bootstrap's and ``p_holm`` is
        corrected over the domains; ``n_pairs``, ``n_ties``.
    """
    credits = []
    for name, margins in (("model a", margins_a), ("model b", margins_b)):
        check_margins(margins, preferences, name)
        credits.append(pair_credit(np.atleast_2d(np.asarray(margins, dtype=np.float64))))
    labelled = ~preferences.ties
    kept = preferences[labelled]
    credit_a, credit_b = (credit[:, labelled].mean(axis=0) for credit in credits)
    single = all(len(credit) == 1 for credit in credits)
    table = Clustered.from_rows(credit_a - credit_b, kept.groups, kept.domain)
    point = table.means()[0, :, 0]
    draws = table.resample(n_resamples, random_state)[:, :, 0]
    low, high = percentile_interval(draws)
    names = table.strata.tolist()

    def cell(i: int) -> dict[str, Any]:
        return {"value": float(point[i]), "low": float(low[i]), "high": float(high[i]), "p": two_sided_p(draws[:, i])}

    domains: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(names):
        mine = kept.domain == name
        domains[name] = {
            **cell(i),
            "n": int(mine.sum()),
            "mcnemar": mcnemar_exact(credit_a[mine], credit_b[mine]) if single else None,
        }
    for name, adjusted in zip(names, holm([domains[d]["p"] for d in names])):
        domains[name]["p_holm"] = float(adjusted)
    return {
        "n_pairs": len(kept),
        "n_ties": int((~labelled).sum()),
        "confidence": CONFIDENCE,
        "n_resamples": n_resamples,
        "micro": cell(len(names)),
        "macro": cell(len(names) + 1),
        "mcnemar": mcnemar_exact(credit_a, credit_b) if single else None,
        "domains": domains,
    }
