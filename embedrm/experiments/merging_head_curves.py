"""Curves over lambda of models that were merged for several seeds: the choice on validation pairs, accuracy on test ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.experiments.merging_curves import QUANTILES, chosen_facts
from embedrm.numerics.bootstrap import N_RESAMPLES, Clustered, percentile_interval, two_sided_p
from embedrm.numerics.ties import pair_credit
from embedrm.preferences import EmbeddedPreferences

Array = NDArray[np.float64]
Names = NDArray[np.str_]
Curves = Mapping[str, Array]
"""Margins over lambda, (n_lambdas, n_pairs), by part of the data."""


def lambda_facts(
    lambdas: Sequence[float],
    margins: Mapping[str, Array],
    validation: EmbeddedPreferences,
    test: EmbeddedPreferences,
    domain: str,
    others: Sequence[str],
    *,
    n_resamples: int = N_RESAMPLES,
) -> dict[str, Any]:
    """Choose lambda on the validation pairs of one domain, and follow accuracy over lambda on test pairs.

    Parameters
    ----------
    lambdas : sequence of float
        Increasing; the first is 0, the general model.
    margins : mapping of {"validation", "test"} to ndarray of shape (n_seeds, n_lambdas, n_pairs)
    validation, test : EmbeddedPreferences
        Give domains, prompt groups and ties; their vectors are not read.
    domain : str
        The target's.
    others : sequence of str
        Domains that are looked at together, each counting once.
    n_resamples : int

    Returns
    -------
    dict
        ``chosen``: ``lambda``, its ``index``, ``low`` and ``high`` (between which resampled validation pairs would choose),
        ``n_tied``, ``tie_rule``, ``n_pairs`` and ``n_groups`` of the validation; ``validation``: accuracy a lambda;
        ``test`` and ``change`` (from lambda = 0): cells (value, low, high, p) a lambda, by ``target`` and ``others`` (None
        without any); ``domains``: accuracy a lambda by domain; ``n_target``, ``n_others`` pairs; ``seed_sd``: standard
        deviation over seeds of the target's change at the chosen lambda (None for one seed); ``margins``: quantiles a
        lambda of the target's test pairs, all seeds together.
    """
    own = (validation.domain == domain) & ~validation.ties
    part = validation[own]
    credit = pair_credit(margins["validation"][:, :, own]).mean(axis=0)
    curve, _, chosen = chosen_facts(lambdas, credit, part, n_resamples)
    index = chosen["index"]
    labelled = ~test.ties
    kept, found = test[labelled], margins["test"][:, :, labelled]
    by_seed = pair_credit(found)
    credit = by_seed.mean(axis=0)
    target, rest = kept.domain == domain, np.isin(kept.domain, list(others))
    seeds = (by_seed[:, index][:, target] - by_seed[:, 0][:, target]).mean(axis=1)
    return {
        "chosen": chosen,
        "validation": curve.tolist(),
        **_curves(credit, kept, {"target": target, "others": rest}, n_resamples),
        "domains": {name: credit[:, kept.domain == name].mean(axis=1).tolist() for name in kept.domains},
        "n_target": int(target.sum()),
        "n_others": int(rest.sum()),
        "seed_sd": float(seeds.std(ddof=1)) if len(seeds) > 1 else None,
        "margins": {
            "quantiles": list(QUANTILES),
            "target": np.quantile(found[:, :, target], QUANTILES, axis=(0, 2)).T.tolist(),
        },
    }


def _curves(credit: Array, pairs: EmbeddedPreferences, parts: Mapping[str, NDArray[np.bool_]], n_resamples: int) -> Any:
    """Accuracy over lambda and its change, by part; None where a part has no pairs."""
    found: dict[str, dict[str, Any]] = {"test": {}, "change": {}}
    both = np.concatenate([credit, credit - credit[0]])
    for name, rows in parts.items():
        known = cells(both[:, rows], pairs.groups[rows], pairs.domain[rows], n_resamples) if rows.any() else None
        found["test"][name] = None if known is None else known[: len(credit)]
        found["change"][name] = None if known is None else known[len(credit) :]
    return found


def cells(values: Array, groups: Names, domains: Names, n_resamples: int) -> list[dict[str, float]]:
    """Mean over domains, each counting once, of values (n, n_pairs), with intervals and p; one cell a row."""
    table = Clustered.from_rows(values.T, groups, domains)
    point, draws = table.means()[0, -1], table.resample(n_resamples)[:, -1]
    low, high = percentile_interval(draws)
    return [
        {"value": float(v), "low": float(a), "high": float(b), "p": two_sided_p(draws[:, i])}
        for i, (v, a, b) in enumerate(zip(point, low, high))
    ]
