"""Pairwise accuracy, log loss and margins of several models on the same pairs, as plain facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError
from embedrm.evaluation.noise_ceiling import ceiling_facts
from embedrm.numerics.bootstrap import CONFIDENCE, N_RESAMPLES, Clustered, percentile_interval
from embedrm.numerics.bradley_terry import log_loss
from embedrm.numerics.summary import margin_statistics
from embedrm.numerics.ties import pair_credit
from embedrm.preferences import EmbeddedPreferences


def accuracy_facts(
    margins: Mapping[str, NDArray[np.float64]],
    preferences: EmbeddedPreferences,
    *,
    logits: Mapping[str, bool] | None = None,
    n_resamples: int = N_RESAMPLES,
    random_state: int = 0,
) -> dict[str, Any]:
    """Evaluate margins of one or more models on the same pairs.

    Parameters
    ----------
    margins : mapping of model name to ndarray of shape (n_pairs,) or (n_seeds, n_pairs)
        Reward of the chosen minus reward of the rejected response. Of several seeds, each pair has its mean accuracy.
    preferences : EmbeddedPreferences
        Gives domains, prompt groups, outcomes and which pairs are ties. Its vectors are not read.
    logits : mapping of model name to bool, optional
        Whether sigma(margin) is a probability; False leaves the log loss out. True where absent.
    n_resamples : int
        Bootstrap draws of whole prompt groups.
    random_state : int
        Seed of the bootstrap.

    Returns
    -------
    dict
        ``n_pairs`` (labelled, i.e. without ties), ``n_ties``, ``n_groups``, ``domains`` and ``n_by_domain``,
        ``confidence``, ``n_resamples``, ``ceiling`` (:func:`embedrm.evaluation.noise_ceiling.ceiling_facts`; None where the
        noise of the labels is not known) and ``rows``: for each model ``model``, ``domains`` (name to
        ``{value, low, high, n}``), ``micro`` (mean over pairs), ``macro`` (mean over domains, each counting once),
        ``log_loss`` in nats on the same pairs (micro; None where margins are not logits), ``margins`` (summary),
        ``n_seeds`` and ``seed_sd`` (standard deviation of micro accuracy over the seeds, with one degree of freedom
        less than seeds, as in a learning curve; None for one).

    Notes
    -----
    Accuracy counts equal rewards one half (:func:`embedrm.numerics.ties.pair_credit`) and weighs pairs equally. Pairs
    labelled ties are left out of it and counted. Intervals are percentile intervals over resampled prompt groups: they
    are about the prompts, and seeds are averaged within them.
    """
    if not margins:
        raise InvalidInputError("accuracy_facts expects at least one model's margins, got none")
    for name, m in margins.items():
        check_margins(m, preferences, name)
    labelled = ~preferences.ties
    kept = preferences[labelled]
    names = list(margins)
    values = {name: np.atleast_2d(np.asarray(margins[name], dtype=np.float64))[:, labelled] for name in names}
    by_seed = {name: pair_credit(v) for name, v in values.items()}
    credits = np.stack([by_seed[name].mean(axis=0) for name in names], axis=1)
    losses = np.stack([log_loss(values[name], kept.outcome).mean(axis=0) for name in names], axis=1)
    table = Clustered.from_rows(np.concatenate([credits, losses], axis=1), kept.groups, kept.domain)
    point = table.means()[0]
    low, high = percentile_interval(table.resample(n_resamples, random_state))
    domains = table.strata.tolist()
    n_by_domain = dict(zip(domains, table.counts.sum(axis=0).astype(int).tolist()))

    def cell(stratum: int, column: int, n: int) -> dict[str, float | int]:
        return {
            "value": float(point[stratum, column]),
            "low": float(low[stratum, column]),
            "high": float(high[stratum, column]),
            "n": n,
        }

    rows = []
    for j, name in enumerate(names):
        is_logit = True if logits is None else logits.get(name, True)
        rows.append(
            {
                "model": name,
                "domains": {d: cell(i, j, n_by_domain[d]) for i, d in enumerate(domains)},
                "micro": cell(len(domains), j, len(kept)),
                "macro": cell(len(domains) + 1, j, len(domains)),
                "log_loss": cell(len(domains), len(names) + j, len(kept)) if is_logit else None,
                "margins": margin_statistics(values[name]),
                "n_seeds": len(by_seed[name]),
                "seed_sd": float(by_seed[name].mean(axis=1).std(ddof=1)) if len(by_seed[name]) > 1 else None,
            }
        )
    return {
        "n_pairs": len(kept),
        "n_ties": int((~labelled).sum()),
        "n_groups": table.n_clusters,
        "domains": domains,
        "n_by_domain": n_by_domain,
        "confidence": CONFIDENCE,
        "n_resamples": n_resamples,
        "ceiling": ceiling_facts(preferences),
        "rows": rows,
    }


def check_margins(margins: NDArray[np.float64], preferences: EmbeddedPreferences, name: str) -> None:
    """Refuse margins that are not one for each pair, or one for each seed and pair."""
    shape = np.shape(margins)
    if shape != (len(preferences),) and not (len(shape) == 2 and shape[0] >= 1 and shape[1] == len(preferences)):
        raise InvalidInputError(
            f"margins of {name!r} must have shape ({len(preferences)},), or (n_seeds, {len(preferences)}), got {shape}"
        )
