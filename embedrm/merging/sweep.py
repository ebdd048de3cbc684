"""The weight of the domain model, lambda, from 0 to 1: curves on several splits, and the lambda chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.featurizers.linear_map import LinearMap
from embedrm.featurizers.rows import FeatureRows
from embedrm.heads.linear import LinearHead
from embedrm.heads.mlp import MLPHead
from embedrm.merging.compatibility import Head, compare_heads
from embedrm.merging.heads import merge_heads
from embedrm.merging.methods.base import MergeMethod, make_method
from embedrm.merging.scalers import fold, same_standardiser
from embedrm.numerics.graph import gather_margins
from embedrm.numerics.ties import pair_credit
from embedrm.preferences import EmbeddedPreferences
from embedrm.reward_model import check_finite, check_preferences

LAMBDAS: tuple[float, ...] = tuple(round(0.05 * i, 2) for i in range(21))
"""0 to 1 by 0.05, the grid of Lin et al. (2024)."""
CRITERIA = ("accuracy", "log_loss")
TIE_RULE = "the smallest lambda among the best: of equals, the one that changes the general model least"


def sweep_heads(
    general: Head,
    domain: Head,
    validation: EmbeddedPreferences,
    test: EmbeddedPreferences | None = None,
    *,
    lambdas: Sequence[float] = LAMBDAS,
    by: str = "accuracy",
    of_domain: str | None = None,
    method: str | type[MergeMethod] = "linear",
    quantiles: Sequence[float] = (),
    **options: Any,
) -> dict[str, Any]:
    r"""Merge two heads at every lambda, the domain model's weight, and choose one on validation pairs.

    Parameters
    ----------
    general, domain : LinearHead or MLPHead
        Fitted; lambda = 0 is the general model.
    validation : EmbeddedPreferences
        Pairs by which lambda is chosen.
    test : EmbeddedPreferences, optional
        Pairs for a second curve, which chooses nothing.
    lambdas : sequence of float in [0, 1]
    by : {"accuracy", "log_loss"}
        What chooses: the highest accuracy, or the lowest log loss, over the validation pairs.
    of_domain : str, optional
        Choose by the validation pairs of this domain alone.
    method : str or MergeMethod
    quantiles : sequence of float in [0, 1]
        Of the margins, to show their distribution at each lambda.
    **options
        Of :func:`embedrm.merge_heads`: ``layers``, ``rescale``, ``base``, ... and of the method.

    Returns
    -------
    dict
        Plain facts: ``method``, ``lambdas``, ``by``, ``tie_rule``, ``validation`` and ``test``, each with ``n_pairs``
        (without ties), ``n_ties``, ``n_by_domain``, ``accuracy`` and ``log_loss`` (one a lambda; the latter None where
        margins are no logits), ``by_domain`` (name to the same two), ``margin_mean``, ``margin_sd``, and
        ``margin_quantiles`` (one list a lambda); and ``chosen`` with ``lambda``, ``by``, ``domain``, ``n_pairs``, the
        validation ``value`` and the number ``n_tied`` of equally good lambdas.

    Notes
    -----
    For linear heads under the linear method rewards are linear in lambda, so that the sweep is two products with the
    vectors, and everything else is about pairs; margins agree with the merged head's up to rounding.
    For perceptrons under the linear method the first layer is two products as well, and the layers after it are those of
    each merged head. Otherwise each lambda is a merged head's pass. Nothing is fitted again in any case.

    An interval for the accuracy at the chosen lambda belongs on the test pairs; the best point of the test curve is not an
    estimate of anything.
    """
    kind = make_method(method)
    check_preferences(validation, "sweep_heads")
    grid = _grid(lambdas)
    if by not in CRITERIA:
        raise unknown_name("criterion of sweep_heads (by)", by, CRITERIA)
    if by == "log_loss" and not general.margins_are_logits:
        raise InvalidInputError("sweep_heads(by='log_loss') needs margins that are log-odds; choose by='accuracy'")
    if of_domain is not None and of_domain not in validation.domains:
        raise unknown_name("domain of the validation pairs", of_domain, validation.domains)
    splits = {"validation": validation} | ({} if test is None else {"test": check_preferences(test, "sweep_heads")})
    margins = sweep_margins(general, domain, splits, lambdas=lambdas, method=kind, **options)
    facts: dict[str, Any] = {
        "method": kind.registered_name,
        "lambdas": grid.tolist(),
        "by": by,
        "tie_rule": TIE_RULE,
    }
    for name, prefs in splits.items():
        facts[name] = _curves(margins[name], prefs, general.margins_are_logits, quantiles)
    facts["chosen"] = _chosen(facts, by, of_domain)
    return facts


def sweep_margins(
    general: Head,
    domain: Head,
    splits: Mapping[str, EmbeddedPreferences],
    *,
    lambdas: Sequence[float] = LAMBDAS,
    method: str | type[MergeMethod] = "linear",
    **options: Any,
) -> dict[str, NDArray[np.float64]]:
    """Margins of the merged head at every lambda, on several sets of pairs; nothing is chosen.

    Parameters
    ----------
    general, domain, lambdas, method, **options
        As in :func:`sweep_heads`.
    splits : mapping of name to EmbeddedPreferences

    Returns
    -------
    dict of name to ndarray of shape (n_lambdas, n_pairs)
    """
    kind, grid = make_method(method), _grid(lambdas)
    if "weights" in options:
        raise InvalidInputError("sweep_heads sets the weights itself, to 1 - lambda and lambda; leave weights out")
    if _is_linear(general, domain, kind, options):
        return {name: _linear(general, domain, prefs, grid, options) for name, prefs in splits.items()}
    options = {"names": ["general", "domain"]} | options
    if kind.registered_name == "linear" and isinstance(general, MLPHead) and isinstance(domain, MLPHead):
        ends = [merge_heads([general, domain], weights, kind, **options) for weights in ([1.0, 0.0], [0.0, 1.0])]
        return {name: _between(ends, prefs, grid) for name, prefs in splits.items()}
    margins = {name: np.empty((len(grid), len(prefs))) for name, prefs in splits.items()}
    for i, lam in enumerate(grid):
        merged = merge_heads([general, domain], [1.0 - lam, lam], kind, **options)
        for name, prefs in splits.items():
            margins[name][i] = merged.margins(prefs)
    return margins


def choose_lambda(lambdas: Sequence[float], values: ArrayLike, *, lowest: bool = False) -> tuple[float, float, int]:
    """Return the lambda of the best value by :data:`TIE_RULE`, that value, and how many lambdas are as good.

    Parameters
    ----------
    lambdas : sequence of float
    values : array-like of shape (n_lambdas,)
        Of validation pairs.
    lowest : bool
        Whether the lowest value is best (a loss).
    """
    found = np.asarray(values, dtype=np.float64)
    best = found.min() if lowest else found.max()
    # equal but for the rounding of a mean
    tied = np.asarray(lambdas)[np.abs(found - best) <= 1e-12 * max(1.0, abs(best))]
    return float(tied.min()), float(best), len(tied)


def _grid(lambdas: ArrayLike) -> NDArray[np.float64]:
    try:
        grid = np.asarray(lambdas, dtype=np.float64)
    except (TypeError, ValueError):
        grid = np.empty(0)
    if grid.ndim != 1 or not len(grid) or not ((grid >= 0) & (grid <= 1)).all():
        raise InvalidInputError("sweep_heads needs lambdas to be a list of numbers in [0, 1]")
    if len(np.unique(grid)) < len(grid):
        raise InvalidInputError("sweep_heads needs each lambda once")
    return grid


def _is_linear(general: Head, domain: Head, kind: type[MergeMethod], options: dict[str, Any]) -> bool:
    """Whether the rewards are linear in lambda, with no scale to be measured first."""
    return (
        isinstance(general, LinearHead)
        and isinstance(domain, LinearHead)
        and kind.registered_name == "linear"
        and not set(options) - {"rescale", "layers", "normalize", "names"}
        and options.get("layers", "all") == "all"
    )


def _linear(
    general: Head, domain: Head, prefs: EmbeddedPreferences, grid: NDArray[np.float64], options: dict[str, Any]
) -> NDArray[np.float64]:
    """Margins (n_lambdas, n_pairs) by two products with the vectors."""
    names = options.get("names", ["general", "domain"])
    compare_heads([general, domain], names, rescale=bool(options.get("rescale", False))).require("sweep_heads")
    own = domain.coef_
    if not same_standardiser(general.featurizer_, domain.featurizer_):
        own = fold(own, domain.featurizer_, general.featurizer_)
    everything = len(prefs.active) == prefs.responses.n_responses
    rows = None if everything else prefs.active
    scorer = LinearMap(general.featurizer_, prefs.responses, rows)
    if general.featurizer_.terms_ == ("r",):
        # two products with a vector are faster than one with two columns; products of vectors are worth making once
        rewards = [scorer.forward(general.coef_), scorer.forward(own)]
    else:
        rewards = list(scorer.forward(np.stack([general.coef_, own], axis=1)).T)
    two = [gather_margins(check_finite(r, "sweep_heads"), prefs.local_pairs) for r in rewards]
    margins: NDArray[np.float64] = np.stack([1.0 - grid, grid], axis=1) @ np.stack(two)
    return margins


def _between(ends: list[Any], prefs: EmbeddedPreferences, grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Margins (n_lambdas, n_pairs) of perceptrons on the line between two.

    What enters the first layer's rectifiers is linear in lambda, so that this layer, which is most of the cost, is two
    products for all lambdas.
    """
    one = ends[0]
    after = [(end.weights_[1:], end.biases_[1:]) for end in ends]
    layers = [[_line(a, b, grid) for a, b in zip(mine, theirs)] for mine, theirs in zip(*after)]
    everything = len(prefs.active) == prefs.responses.n_responses
    features = FeatureRows(one.featurizer_, prefs.responses, None if everything else prefs.active, hold=False)
    rewards = np.empty((len(grid), len(features)))
    for part, x in features.blocks():
        first = [x @ end.weights_[0] + end.biases_[0] for end in ends]
        for i, lam in enumerate(grid.tolist()):
            h = ((1.0 - lam) * first[0] + lam * first[1])[None]
            for w, b in zip(*layers):
                np.maximum(h, 0.0, out=h)
                h = np.matmul(h, w[i][None]) + b[i]
            rewards[i, part] = h[0, :, 0]
    return np.stack([gather_margins(check_finite(own, "sweep_heads"), prefs.local_pairs) for own in rewards])


def _line(one: NDArray[np.float32], other: NDArray[np.float32], grid: NDArray[np.float64]) -> NDArray[np.float32]:
    """Merged parameters of one layer, (n_lambdas, ...)."""
    lam = grid.reshape(-1, *(1 for _ in one.shape))
    merged: NDArray[np.float32] = ((1.0 - lam) * one + lam * other).astype(np.float32)
    return merged


def _curves(
    margins: NDArray[np.float64], prefs: EmbeddedPreferences, logits: bool, quantiles: Sequence[float]
) -> dict[str, Any]:
    labelled = ~prefs.ties
    if not labelled.any():
        raise InvalidInputError("sweep_heads needs at least one pair that is not a tie in every split, got none")
    kept = margins if labelled.all() else margins[:, labelled]
    names, code = np.unique(prefs.domain[labelled], return_inverse=True)
    domains, counts = names.tolist(), np.bincount(code)
    share = np.zeros((len(code), len(domains)))
    share[np.arange(len(code)), code] = 1.0 / counts[code]
    # by domain, then over all pairs
    credit = _means(pair_credit(kept), share)
    loss = _means(_log_losses(kept, prefs.outcome[labelled]), share) if logits else None
    return {
        "n_pairs": int(labelled.sum()),
        "n_ties": int((~labelled).sum()),
        "n_by_domain": dict(zip(domains, counts.tolist())),
        "accuracy": credit[:, -1].tolist(),
        "log_loss": None if loss is None else loss[:, -1].tolist(),
        "by_domain": {
            name: {
                "accuracy": credit[:, d].tolist(),
                "log_loss": None if loss is None else loss[:, d].tolist(),
            }
            for d, name in enumerate(domains)
        },
        "margin_mean": kept.mean(axis=1).tolist(),
        "margin_sd": kept.std(axis=1).tolist(),
        "quantiles": [float(q) for q in quantiles],
        "margin_quantiles": np.quantile(kept, list(quantiles), axis=1).T.tolist() if len(quantiles) else [],
    }


def _means(values: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over the pairs of each domain, then over all of them."""
    return np.concatenate([values @ share, values.mean(axis=1, keepdims=True)], axis=1)


def _log_losses(margins: NDArray[np.float64], outcome: NDArray[np.float64]) -> NDArray[np.float64]:
    """:func:`embedrm.numerics.bradley_terry.log_loss` to 1e-15, at a fraction of its time: most of a sweep is this."""
    # in place, since fresh memory of this size costs more than the arithmetic
    losses = np.abs(margins)
    np.negative(losses, out=losses)
    np.exp(losses, out=losses)
    losses += 1.0
    np.log(losses, out=losses)
    losses -= np.minimum(margins, 0.0)
    if (outcome != 1.0).any():
        losses += (1.0 - outcome) * margins
    return losses


def _chosen(facts: dict[str, Any], by: str, of_domain: str | None) -> dict[str, Any]:
    curve = facts["validation"] if of_domain is None else facts["validation"]["by_domain"][of_domain]
    lam, best, n_tied = choose_lambda(facts["lambdas"], curve[by], lowest=by == "log_loss")
    n = facts["validation"]["n_pairs"] if of_domain is None else facts["validation"]["n_by_domain"][of_domain]
    return {
        "lambda": lam,
        "by": by,
        "domain": of_domain,
        "n_pairs": n,
        "value": best,
        "n_tied": n_tied,
    }
