"""Curves over lambda from margins: the choice on validation pairs, accuracy on test pairs, each with clustered intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError
from embedrm.evaluation import comparison_facts
from embedrm.merging.sweep import TIE_RULE
from embedrm.numerics.bootstrap import N_RESAMPLES, Clustered, percentile_interval
from embedrm.numerics.ties import pair_credit
from embedrm.preferences import EmbeddedPreferences

Array = NDArray[np.float64]
Cells = list[dict[str, float]]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Equal but for the rounding of a mean.
_EQUAL = 1e-12


def choose(values: Array) -> NDArray[np.intp]:
    """Place of the best value along the last axis; of equals the first, that is, the smallest lambda."""
    best = values.max(axis=-1, keepdims=True)
    found: NDArray[np.intp] = np.argmax(values >= best - _EQUAL, axis=-1)
    return found


def chosen_facts(
    lambdas: Sequence[float] | Array, credit: Array, validation: EmbeddedPreferences, n_resamples: int
) -> tuple[Array, Array, dict[str, Any]]:
    """Choose the lambda of the highest accuracy on validation pairs, each of which counts once.

    Parameters
    ----------
    lambdas : sequence of float
        Increasing.
    credit : ndarray of shape (n_lambdas, n_pairs)
        Of every pair at every lambda.
    validation : EmbeddedPreferences
        These pairs, without ties; resampled by prompt group.
    n_resamples : int

    Returns
    -------
    curve : ndarray of shape (n_lambdas,)
        Accuracy.
    draws : ndarray of shape (n_resamples, n_lambdas)
    chosen : dict
        ``lambda``, ``index``, ``low``, ``high`` (between which resampled pairs would choose), ``n_tied``, ``tie_rule``,
        ``n_pairs``, ``n_groups``.
    """
    grid = np.asarray(lambdas, dtype=np.float64)
    # one stratum, whatever the domains
    table = Clustered.from_rows(credit.T, validation.groups, np.zeros(len(validation)))
    curve, draws = table.means()[0, 0], table.resample(n_resamples)[:, 0]
    index = int(choose(curve))
    low, high = percentile_interval(grid[choose(draws)])
    chosen = {
        "lambda": float(grid[index]),
        "index": index,
        "low": float(low),
        "high": float(high),
        "n_tied": int((curve >= curve.max() - _EQUAL).sum()),
        "tie_rule": TIE_RULE,
        "n_pairs": len(validation),
        "n_groups": table.n_clusters,
    }
    return curve, draws, chosen


def sweep_facts(
    lambdas: Sequence[float],
    validation_margins: Array,
    validation: EmbeddedPreferences,
    test_margins: Array,
    test: EmbeddedPreferences,
    domains: Sequence[str],
    *,
    n_resamples: int = N_RESAMPLES,
) -> dict[str, Any]:
    """Choose lambda on validation pairs of the target's domains, and follow accuracy over lambda on test pairs.

    Parameters
    ----------
    lambdas : sequence of float
        Increasing, from 0 (the general model).
    validation_margins, test_margins : ndarray of shape (n_lambdas, n_pairs)
    validation, test : EmbeddedPreferences
        Give domains, prompt groups and ties; their vectors are not read.
    domains : sequence of str
        Of the target; validation pairs of others are left aside.
    n_resamples : int

    Returns
    -------
    dict
        ``lambdas``; ``validation`` (``accuracy``: a cell (value, low, high) a lambda, ``n_pairs``, ``n_groups``);
        ``chosen``: ``lambda``, ``index``, ``low``, ``high`` (what resampled validation pairs would choose), ``n_tied``,
        ``tie_rule``; ``test``, ``change`` (from lambda = 0): cells by ``target`` (mean over its pairs), ``others`` (all
        other domains, each counting once) and ``domains`` (name to cells); ``others`` is None where the target's are all;
        ``n_pairs`` by the same names; ``margins``: quantiles over lambda, of the target's pairs and of others;
        ``compared``: :func:`embedrm.evaluation.comparison_facts` of the chosen lambda less lambda = 0, of both.
    """
    grid = np.asarray(lambdas, dtype=np.float64)
    if not len(grid) or grid[0] != 0.0 or (np.diff(grid) <= 0).any():
        raise InvalidInputError("a sweep needs increasing lambdas that begin at 0, the general model")
    own = np.isin(validation.domain.astype(str), list(domains)) & ~validation.ties
    if not own.any():
        raise InvalidInputError(
            f"lambda is chosen on validation pairs of {', '.join(domains)}, and there are none with a preference. Give data "
            "whose validation split has that domain."
        )
    part = validation[own]
    curve, draws, chosen = chosen_facts(grid, pair_credit(validation_margins[:, own]), part, n_resamples)
    index = chosen["index"]
    labelled = ~test.ties
    test, test_margins = test[labelled], test_margins[:, labelled]
    target = np.isin(test.domain.astype(str), list(domains))
    credit = pair_credit(test_margins)
    parts = {"target": target, "others": ~target}
    return {
        "lambdas": grid.tolist(),
        "domains": list(domains),
        "validation": {
            "accuracy": _cells(curve, draws),
            "n_pairs": chosen.pop("n_pairs"),
            "n_groups": chosen.pop("n_groups"),
        },
        "chosen": chosen,
        "test": _curves(credit, test, parts, n_resamples),
        "change": _curves(credit - credit[0], test, parts, n_resamples),
        "n_pairs": {name: int(rows.sum()) for name, rows in parts.items()}
        | {d: int((test.domain == d).sum()) for d in sorted(set(test.domain.astype(str).tolist()))},
        "margins": {
            "quantiles": list(QUANTILES),
            **{
                name: np.quantile(test_margins[:, rows], QUANTILES, axis=1).T.tolist() if rows.any() else None
                for name, rows in parts.items()
            },
        },
        "compared": {
            name: comparison_facts(
                test_margins[index, rows], test_margins[0, rows], test[rows], n_resamples=n_resamples
            )
            if rows.any()
            else None
            for name, rows in parts.items()
        },
    }


def _curves(values: Array, test: EmbeddedPreferences, parts: dict[str, Any], n_resamples: int) -> dict[str, Any]:
    """Cells over lambda of values (n_lambdas, n_pairs), by part and domain."""
    table = Clustered.from_rows(values.T, test.groups, test.domain)
    point, draws = table.means()[0], table.resample(n_resamples)
    found: dict[str, Any] = {"domains": {d: _cells(point[i], draws[:, i]) for i, d in enumerate(table.strata.tolist())}}
    for name, rows in parts.items():
        if not rows.any():
            found[name] = None
            continue
        own = Clustered.from_rows(values[:, rows].T, test.groups[rows], test.domain[rows])
        # the target's pairs count equally, other domains each once
        which = -2 if name == "target" else -1
        found[name] = _cells(own.means()[0, which], own.resample(n_resamples)[:, which])
    return found


def _cells(point: Array, draws: Array) -> Cells:
    low, high = percentile_interval(draws)
    return [{"value": float(v), "low": float(a), "high": float(b)} for v, a, b in zip(point, low, high)]
