"""How well prompts are routed, and what wrong routes cost, as plain facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.errors import InvalidInputError
from embedrm.evaluation.comparison import comparison_facts
from embedrm.numerics.bootstrap import CONFIDENCE, N_RESAMPLES, Clustered, percentile_interval
from embedrm.numerics.reliability import N_BINS, bin_edges, bin_of, error_by_chance
from embedrm.numerics.ties import pair_credit
from embedrm.preferences import EmbeddedPreferences

Array = NDArray[np.float64]

MOST_MISROUTED = 20


def router_facts(
    proba: ArrayLike,
    classes: Sequence[str],
    truth: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    accepted: ArrayLike | None = None,
    texts: Sequence[str] | None = None,
    n_misrouted: int = MOST_MISROUTED,
    n_bins: int = N_BINS,
    n_resamples: int = N_RESAMPLES,
    random_state: int = 0,
) -> dict[str, Any]:
    """Judge the probabilities of a router on prompts whose domain is known.

    Parameters
    ----------
    proba : array-like of shape (n_prompts, n_classes)
        Probability of each domain.
    classes : sequence of str
        Domains of the columns.
    truth : array-like of shape (n_prompts,), str
        True domains; those that the router does not know count as misrouted, and are listed in ``unknown``.
    groups : array-like of shape (n_prompts,), optional
        Prompt groups, for intervals; every prompt its own where absent.
    accepted : array-like of shape (n_prompts,), bool, optional
        What a router with a reject option accepts; all where absent.
    texts : sequence of str, optional
        The prompts' texts, shown with the misrouted ones; vectors do not have them.
    n_misrouted : int
        How many misrouted prompts to list, the most confidently wrong ones first.
    n_bins : int
        Most bins of the calibration error.
    n_resamples, random_state : int
        Bootstrap draws of whole prompt groups, and their seed.

    Returns
    -------
    dict
        ``n``, ``n_groups``, ``accuracy`` and ``macro_recall`` (``{value, low, high, n}``), ``macro_f1`` (over the true
        domains), ``log_loss`` (nats, on prompts of known domains; None without any), ``classes``: for each domain
        ``{domain, precision, recall, f1, n, n_routed}`` (None where nothing was routed there, or nothing is from there);
        ``confusion``: ``{domains, classes, counts}``, rows the true domains; ``calibration``: ``{ece, ece_by_chance,
        confidence, n_bins, bins}`` of the probability of the route; ``rejection``: ``{coverage, accuracy,
        accuracy_of_rejected}``; ``unknown`` (domain to number of prompts); ``misrouted``: ``{row, domain, routed,
        probability, margin}`` and ``text``, ``margin`` being the probability of the route less that of the true domain;
        ``n_misrouted`` (all of them), ``confidence`` and ``n_resamples`` of the intervals.

    Notes
    -----
    The calibration error has equal-mass bins of the largest probability (Guo et al. 2017, "On calibration of modern neural
    networks", section 2). Equal probabilities are routed to the first domain by column.
    """
    p, true, names = _checked(proba, truth, classes)
    n = len(p)
    group = np.arange(n).astype(str) if groups is None else np.asarray(groups).astype(str)
    accept = np.ones(n, dtype=bool) if accepted is None else np.asarray(accepted, dtype=bool)
    for what, length in (
        ("groups", len(group)),
        ("accepted", len(accept)),
        ("texts", n if texts is None else len(texts)),
    ):
        if length != n:
            raise InvalidInputError(f"router_facts expects {what} for each of {n} prompts, got {length}")
    route = p.argmax(axis=1)
    routed, sure = names[route], p.max(axis=1)
    right = routed == true
    known = np.isin(true, names)
    column = np.searchsorted(np.sort(names), true[known])
    own = np.zeros(n)
    own[known] = p[np.flatnonzero(known), np.argsort(names, kind="stable")[column]]
    domains = np.unique(true)
    table = Clustered.from_rows(right, group, true)
    point = table.means()[0, :, 0]
    low, high = percentile_interval(table.resample(n_resamples, random_state)[:, :, 0])
    counts = [[int(((true == a) & (routed == b)).sum()) for b in names] for a in domains]
    rows = [_class_row(str(d), true == d, routed == d) for d in sorted({*names.tolist(), *domains.tolist()})]
    wrong = np.flatnonzero(~right)
    margin = sure - own
    listed = wrong[np.argsort(-margin[wrong], kind="stable")][: max(0, n_misrouted)]
    with np.errstate(divide="ignore"):
        losses = -np.log(np.maximum(own[known], np.finfo(float).tiny))
    f1 = [0.0 if row["f1"] is None else row["f1"] for row in rows if row["n"]]

    def cell(i: int, count: int) -> dict[str, Any]:
        return {"value": float(point[i]), "low": float(low[i]), "high": float(high[i]), "n": count}

    return {
        "n": n,
        "n_groups": table.n_clusters,
        "accuracy": cell(len(domains), n),
        "macro_recall": cell(len(domains) + 1, len(domains)),
        "macro_f1": float(np.mean(f1)),
        "log_loss": float(losses.mean()) if known.any() else None,
        "classes": rows,
        "confusion": {"domains": domains.tolist(), "classes": names.tolist(), "counts": counts},
        "calibration": _calibration(sure, right, n_bins),
        "rejection": {
            "coverage": float(accept.mean()),
            "accuracy": float(right[accept].mean()) if accept.any() else None,
            "accuracy_of_rejected": float(right[~accept].mean()) if not accept.all() else None,
        },
        "unknown": {str(d): int((true == d).sum()) for d in domains if d not in names},
        "n_misrouted": len(wrong),
        "misrouted": [
            {
                "row": int(i),
                "domain": str(true[i]),
                "routed": str(routed[i]),
                "probability": float(sure[i]),
                "margin": float(margin[i]),
                **({} if texts is None else {"text": str(texts[i])}),
            }
            for i in listed
        ],
        "confidence": CONFIDENCE,
        "n_resamples": n_resamples,
    }


def regret_facts(
    oracle: Array,
    routed: Mapping[str, Array],
    preferences: EmbeddedPreferences,
    *,
    misrouted: ArrayLike | None = None,
    n_resamples: int = N_RESAMPLES,
    random_state: int = 0,
) -> dict[str, Any]:
    """Regret of routings: accuracy under oracle routing less accuracy under each of them, on the same pairs.

    Parameters
    ----------
    oracle : ndarray of shape (n_pairs,)
        Margins under oracle routing.
    routed : mapping of name to ndarray of shape (n_pairs,) or (n_draws, n_pairs)
        Margins under other routings of the same experts; of several draws, each pair has its mean accuracy.
    preferences : EmbeddedPreferences
        Gives domains, prompt groups and ties. Its vectors are not read.
    misrouted : array-like of shape (n_pairs,), bool, optional
        Pairs whose prompt the router sends to another domain than its own.
    n_resamples, random_state : int
        Bootstrap draws of whole prompt groups, the same for all routings, and their seed.

    Returns
    -------
    dict
        ``n_pairs``, ``n_ties``, ``n_groups``, ``domains``, ``n_by_domain``, ``confidence``, ``n_resamples``, ``oracle``
        (accuracy, ``{micro, macro}``) and ``rows``: for each routing ``routing``, ``accuracy`` (micro), and ``micro``,
        ``macro`` and ``domains`` (by name) of the regret, ``{value, low, high, p}`` each, ``n`` by domain; with
        ``misrouted`` also ``misrouted`` and ``well_routed``: the regret on either kind of pairs, ``{value, n}``. A negative
        regret is an accuracy above the oracle's, which soft routing can reach.
    """
    if not routed:
        raise InvalidInputError("regret_facts expects at least one routing's margins, got none")
    options = {"n_resamples": n_resamples, "random_state": random_state}
    compared = {name: comparison_facts(oracle, margins, preferences, **options) for name, margins in routed.items()}
    labelled = ~preferences.ties
    kept = preferences[labelled]
    best = pair_credit(np.asarray(oracle, dtype=np.float64)[labelled])
    wrong = None if misrouted is None else np.asarray(misrouted, dtype=bool)
    if wrong is not None and wrong.shape != (len(preferences),):
        raise InvalidInputError(f"misrouted must have shape ({len(preferences)},), one a pair, got {wrong.shape}")
    names, counts = np.unique(kept.domain, return_counts=True)
    rows = []
    for name, facts in compared.items():
        credit = pair_credit(np.atleast_2d(np.asarray(routed[name], dtype=np.float64))[:, labelled]).mean(axis=0)
        row: dict[str, Any] = {
            "routing": name,
            "accuracy": float(credit.mean()),
            "micro": facts["micro"],
            "macro": facts["macro"],
            "domains": {
                d: {key: cell[key] for key in ("value", "low", "high", "p", "n")}
                for d, cell in facts["domains"].items()
            },
        }
        if wrong is not None:
            lost, mask = best - credit, wrong[labelled]
            for what, part in (("misrouted", mask), ("well_routed", ~mask)):
                row[what] = {"value": float(lost[part].mean()) if part.any() else None, "n": int(part.sum())}
        rows.append(row)
    return {
        "n_pairs": len(kept),
        "n_ties": int((~labelled).sum()),
        "n_groups": len(np.unique(kept.groups)),
        "domains": names.tolist(),
        "n_by_domain": dict(zip(names.tolist(), counts.tolist())),
        "confidence": CONFIDENCE,
        "n_resamples": n_resamples,
        "oracle": {
            "micro": float(best.mean()),
            "macro": float(np.mean([best[kept.domain == d].mean() for d in names])),
        },
        "rows": rows,
    }


def _checked(
    proba: ArrayLike, truth: ArrayLike, classes: Sequence[str]
) -> tuple[Array, NDArray[np.str_], NDArray[np.str_]]:
    p, true, names = np.asarray(proba, dtype=np.float64), np.asarray(truth).astype(str), np.asarray(classes).astype(str)
    if p.ndim != 2 or p.shape[1] != len(names) or true.shape != (len(p),):
        raise InvalidInputError(
            f"router_facts expects probabilities (n_prompts, {len(names)}) and a true domain for each prompt, got shapes "
            f"{p.shape} and {true.shape}"
        )
    if not len(p):
        raise InvalidInputError("router_facts needs at least one prompt, got none; check the split and the filters")
    if len(np.unique(names)) != len(names):
        raise InvalidInputError("router_facts expects different names of classes; name each domain once")
    if not np.isfinite(p).all() or (p < 0).any() or not np.allclose(p.sum(axis=1), 1.0, atol=1e-6):
        raise InvalidInputError("router_facts expects probabilities: not negative, each row with the sum one")
    return p, true, names


def _class_row(domain: str, is_true: NDArray[np.bool_], is_routed: NDArray[np.bool_]) -> dict[str, Any]:
    n, n_routed, hits = int(is_true.sum()), int(is_routed.sum()), int((is_true & is_routed).sum())
    return {
        "domain": domain,
        "precision": hits / n_routed if n_routed else None,
        "recall": hits / n if n else None,
        "f1": 2.0 * hits / (n + n_routed) if n + n_routed else None,
        "n": n,
        "n_routed": n_routed,
    }


def _calibration(sure: Array, right: NDArray[np.bool_], n_bins: int) -> dict[str, Any]:
    bins = bin_of(sure, bin_edges(sure, n_bins))
    used, size = np.unique(bins, return_counts=True)
    gaps = np.bincount(bins, weights=right - sure)
    return {
        "ece": float(np.abs(gaps).sum() / len(sure)),
        "ece_by_chance": error_by_chance(sure, bins),
        "confidence": float(sure.mean()),
        "n_bins": int(n_bins),
        "bins": [
            {"n": int(k), "confidence": float(sure[bins == b].mean()), "observed": float(right[bins == b].mean())}
            for b, k in zip(used, size)
        ],
    }
