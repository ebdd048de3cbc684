"""Learning curves: what more prompts, more pairs a prompt or more responses a prompt bring.

Models are fitted on nested subsets (:mod:`embedrm.experiments.subsets`) for several draws, and judged on other prompts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from embedrm.errors import InvalidInputError
from embedrm.evaluation import accuracy_facts
from embedrm.evaluation.noise_ceiling import ceiling_facts
from embedrm.experiments.subsets import curve_sizes, joining_sizes
from embedrm.heads.length import LengthHead
from embedrm.numerics.bootstrap import CONFIDENCE, N_RESAMPLES, Clustered, percentile_interval
from embedrm.numerics.ties import pair_credit
from embedrm.preferences import EmbeddedPreferences, Rows
from embedrm.progress import Progress, silent
from embedrm.reporting import Report, collect
from embedrm.reporting.curve import UNITS, curve_report
from embedrm.reporting.evaluation import LENGTH_ROW
from embedrm.reward_model import RewardModel, check_preferences

_COUNTS = ("n_pairs", "n_responses", "n_prompts")


def curve_facts(
    models: Mapping[str, RewardModel],
    training: EmbeddedPreferences,
    evaluation: EmbeddedPreferences,
    *,
    by: str = "prompts",
    sizes: Sequence[int | str] | None = None,
    steps: int = 6,
    n_seeds: int = 3,
    random_state: int = 0,
    n_resamples: int = N_RESAMPLES,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Fit models on nested subsets of the training pairs and evaluate them, as plain facts.

    Parameters
    ----------
    models : mapping of name to RewardModel
        Unfitted; they are cloned, never changed.
    training : EmbeddedPreferences
        The pairs that subsets are drawn from.
    evaluation : EmbeddedPreferences
        Pairs of other prompts. They are read once a fit is done; nothing is chosen on them.
    by, sizes, steps
        What grows, and how far; see :func:`joining_sizes` and :func:`curve_sizes`.
    n_seeds : int
        Independent draws. Draw s also adds s to every whole-number ``random_state`` of a model.
    random_state : int
        Seed of the draws and of the bootstrap.
    n_resamples : int
        Bootstrap draws of whole prompt groups of ``evaluation``.
    progress : Progress
        Counts training pairs, over all fits.

    Returns
    -------
    dict
        ``by``, ``sizes``, ``n_seeds``, ``training`` (``n_pairs``, ``n_responses``, ``n_prompts``), ``n_shared_groups``
        (prompt groups on both sides; None where the two are not parts of one set of responses); of the evaluation
        what :func:`embedrm.evaluation.accuracy_facts` says; ``rows``, one for each model and size: ``model``, ``size``,
        ``n_pairs``, ``n_responses`` (touched by pairs), ``n_prompts``, ``fit_seconds`` (means over the draws), ``micro``,
        ``macro`` and ``domains`` (``{value, low, high, n}``), ``spread`` (standard deviation over the draws of micro and
        macro; None for one draw) and ``seeds`` (the draws one by one); ``gains``: for each model the difference of
        the last two sizes; ``baselines``: the length-only row where lengths are known.

    Notes
    -----
    The value at a size is the mean over draws of the pairwise accuracy, equal rewards counting one half and pairs
    labelled ties left out. Its interval resamples the prompt groups of the evaluation pairs; how much the draw of the
    training set matters is in ``spread``. At a size that takes everything the draws are the same set, and a model
    without a ``random_state`` is fitted once.
    """
    _check(models, training, evaluation, n_seeds)
    grid = curve_sizes(training, by, sizes, steps)
    joins = [joining_sizes(training, by, (random_state, seed)) for seed in range(n_seeds)]
    kept = evaluation[~evaluation.ties]
    points = _fit_all(models, training, kept, grid, joins, by, progress)
    # one table for all, so that differences of columns are paired
    table = Clustered.from_rows(
        np.stack([np.mean(point["credits"], axis=0) for point in points], axis=1), kept.groups, kept.domain
    )
    means, draws = table.means()[0], table.resample(n_resamples, random_state)
    low, high = percentile_interval(draws)
    domains = table.strata.tolist()
    n_by_domain = dict(zip(domains, table.counts.sum(axis=0).astype(int).tolist()))
    counts = [*n_by_domain.values(), len(kept), len(domains)]

    def cell(stratum: int, column: int) -> dict[str, Any]:
        at = (stratum, column)
        return {"value": float(means[at]), "low": float(low[at]), "high": float(high[at]), "n": counts[stratum]}

    micro, macro = len(domains), len(domains) + 1
    rows, gains = [], []
    for j, point in enumerate(points):
        per_seed = Clustered.from_rows(np.stack(point.pop("credits"), axis=1), kept.groups, kept.domain).means()[0]
        drawn = [
            {**facts, "micro": float(per_seed[micro, s]), "macro": float(per_seed[macro, s])}
            for s, facts in enumerate(point.pop("seeds"))
        ]
        rows.append(
            {
                **point,
                **{key: float(np.mean([one[key] for one in drawn])) for key in (*_COUNTS, "fit_seconds")},
                "micro": cell(micro, j),
                "macro": cell(macro, j),
                "domains": {domain: cell(i, j) for i, domain in enumerate(domains)},
                "spread": {
                    key: float(np.std([one[key] for one in drawn], ddof=1)) if n_seeds > 1 else None
                    for key in ("micro", "macro")
                },
                "seeds": drawn,
            }
        )
    for m, name in enumerate(models if len(grid) > 1 else ()):
        last = (m + 1) * len(grid) - 1
        difference = draws[:, :, last] - draws[:, :, last - 1]
        ends = percentile_interval(difference)
        gains.append(
            {
                "model": name,
                "from": grid[-2],
                "to": grid[-1],
                **{
                    key: {
                        "value": float(means[at, last] - means[at, last - 1]),
                        "low": float(ends[0, at]),
                        "high": float(ends[1, at]),
                    }
                    for key, at in (("micro", micro), ("macro", macro))
                },
            }
        )
    return {
        "by": by,
        "sizes": grid,
        "n_seeds": n_seeds,
        "training": _counts(training),
        "n_shared_groups": _shared(training, evaluation),
        "n_pairs": len(kept),
        "n_ties": len(evaluation) - len(kept),
        "n_groups": table.n_clusters,
        "domains": domains,
        "n_by_domain": n_by_domain,
        "confidence": CONFIDENCE,
        "n_resamples": n_resamples,
        "ceiling": ceiling_facts(evaluation),
        "rows": rows,
        "gains": gains,
        "baselines": _baselines(evaluation, n_resamples, random_state),
    }


def learning_curve(
    models: Mapping[str, RewardModel],
    training: EmbeddedPreferences,
    evaluation: EmbeddedPreferences,
    *,
    title: str = "Learning curve",
    notes: Sequence[str] = (),
    command: str | None = None,
    random_state: int = 0,
    n_seeds: int = 3,
    **options: Any,
) -> Report:
    """Return the learning curve of models as a report; parameters as in :func:`curve_facts`.

    Returns
    -------
    Report
        Table ``learning-curve`` and one figure for each of the axes that the kind of curve varies.
    """
    started = time.perf_counter()
    facts = curve_facts(models, training, evaluation, random_state=random_state, n_seeds=n_seeds, **options)
    report = curve_report(facts, title, notes)
    info = training.responses.info
    report.provenance = collect(
        command=command,
        seeds={"random_state": random_state, "n_seeds": n_seeds},
        encoder=info.get("encoder"),
        data=info.get("data"),
        started=started,
        extra={key: info[key] for key in ("truncation",) if key in info},
    )
    return report


def _counts(preferences: EmbeddedPreferences) -> dict[str, int]:
    sizes = (len(preferences), len(preferences.active), len(preferences.active_prompts))
    return dict(zip(_COUNTS, sizes))


def _check(
    models: Mapping[str, RewardModel], training: EmbeddedPreferences, evaluation: EmbeddedPreferences, n_seeds: int
) -> None:
    check_preferences(training, "a learning curve")
    check_preferences(evaluation, "a learning curve")
    if not models:
        raise InvalidInputError("a learning curve expects at least one model, got none")
    if LENGTH_ROW in models:
        raise InvalidInputError(f"{LENGTH_ROW!r} is the name of the baseline; give the model another one")
    if evaluation.ties.all():
        raise InvalidInputError(
            f"all {len(evaluation)} evaluation pairs are labelled ties, on which no accuracy can be told; choose other pairs"
        )
    if n_seeds < 1:
        raise InvalidInputError(f"a learning curve needs at least 1 draw, got n_seeds={n_seeds}")


def _fit_all(
    models: Mapping[str, RewardModel],
    training: EmbeddedPreferences,
    kept: EmbeddedPreferences,
    grid: list[int],
    joins: list[Rows],
    by: str,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Fit every model on every subset; one entry for each model and size, by model, then by size."""
    step = progress(f"fitting {', '.join(models)} (training pairs)")
    total = len(models) * sum(int((join <= size).sum()) for join in joins for size in grid)
    done = 0
    points: dict[tuple[str, int], dict[str, Any]] = {}
    # small sizes first: what cannot be fitted on few pairs fails before the long fits
    for size in grid:
        for seed, join in enumerate(joins):
            rows = np.flatnonzero(join <= size)
            subset, same = training[rows], np.array_equal(rows, np.flatnonzero(joins[0] <= size))
            for name, model in models.items():
                point = points.setdefault((name, size), {"model": name, "size": size, "credits": [], "seeds": []})
                seeds = _seeds(model, seed)
                if seed and same and not seeds:
                    credit, seconds = point["credits"][0], point["seeds"][0]["fit_seconds"]
                else:
                    credit, seconds = _fit(name, model, seeds, subset, kept, f"{size} {UNITS[by]}")
                point["credits"].append(credit)
                point["seeds"].append({"seed": seed, **_counts(subset), "fit_seconds": seconds})
                done += len(rows)
                step(done, total)
    return [points[name, size] for name in models for size in grid]


def _seeds(model: RewardModel, seed: int) -> dict[str, int]:
    """Return the random states of a model and of what is inside it, for one draw."""
    return {
        key: value + seed
        for key, value in model.get_params().items()
        if key.rpartition("__")[2] == "random_state" and isinstance(value, int) and not isinstance(value, bool)
    }


def _fit(
    name: str,
    model: RewardModel,
    seeds: dict[str, int],
    subset: EmbeddedPreferences,
    kept: EmbeddedPreferences,
    where: str,
) -> tuple[NDArray[np.float64], float]:
    """Return the credit of each evaluation pair, and the seconds of the fit."""
    fresh: RewardModel = clone(model).set_params(**seeds)
    started = time.perf_counter()
    try:
        fresh.fit(subset)
    except InvalidInputError as error:
        raise InvalidInputError(f"{name} on {where} ({len(subset)} pairs): {error}") from error
    seconds = time.perf_counter() - started
    return pair_credit(fresh.margins(kept)), seconds


def _shared(training: EmbeddedPreferences, evaluation: EmbeddedPreferences) -> int | None:
    """Prompt groups on both sides; groups of different sets of responses need not mean the same prompts."""
    if training.responses is not evaluation.responses:
        return None
    return len(np.intersect1d(training.groups, evaluation.groups))


def _baselines(evaluation: EmbeddedPreferences, n_resamples: int, random_state: int) -> list[dict[str, Any]]:
    if "characters" not in evaluation.responses.covariates:
        return []
    margins = {LENGTH_ROW: LengthHead().fit(evaluation).margins(evaluation)}
    facts = accuracy_facts(margins, evaluation, n_resamples=n_resamples, random_state=random_state)
    return [{key: row[key] for key in ("model", "micro", "macro", "domains")} for row in facts["rows"]]
