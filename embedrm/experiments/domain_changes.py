"""What happens when domains come and go: adding one without retraining the others, and meeting one never trained on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.composites.routed import RoutedRewardModel
from embedrm.errors import InvalidInputError
from embedrm.evaluation import accuracy_facts, comparison_facts
from embedrm.numerics.bootstrap import N_RESAMPLES
from embedrm.preferences import EmbeddedPreferences
from embedrm.progress import Progress, silent
from embedrm.reward_model import RewardModel


def added_domain_facts(
    full: RoutedRewardModel,
    fixed: RoutedRewardModel,
    full_seconds: float,
    train: EmbeddedPreferences,
    test: EmbeddedPreferences,
    domains: Sequence[str],
    progress: Progress = silent,
    n_resamples: int = N_RESAMPLES,
) -> list[dict[str, Any]]:
    """Train without a domain, add it, and compare with having trained on all from the start.

    Parameters
    ----------
    full : RoutedRewardModel
        With independent experts, fitted on all training pairs in ``full_seconds``.
    fixed : RoutedRewardModel
        The same experts, and a router that chooses nothing anew when domains are dropped; adding them fits ``full``'s.
    domains : sequence of str
        Each is left out and added in turn.

    Returns
    -------
    list of dict
        ``domain``; ``changed``: the largest change of another expert's reward of any test response, 0 where no bit
        differs; ``before``, ``after``, ``full``: accuracy on the domain's test pairs without it, with it added, and trained
        on all (cells); ``difference``: after less full, over all test pairs, paired (cell); ``seconds`` of adding and its
        ``ratio`` to those of training on all.
    """
    step = progress("add a domain")
    full_margins = full.margins(test)
    rows = []
    for done, domain in enumerate(domains, start=1):
        without = fixed.drop_domain(domain, train)
        without.router = full.router
        start = time.perf_counter()
        added = without.add_domain(train)
        seconds = time.perf_counter() - start
        old, new = (_rewards_by_expert(model, test) for model in (without, added))
        own = test[test.domain == domain]
        margins = {"before": without.margins(own), "after": added.margins(own), "full": full.margins(own)}
        facts = accuracy_facts(margins, own, n_resamples=n_resamples)
        after = comparison_facts(added.margins(test), full_margins, test, n_resamples=n_resamples)
        rows.append(
            {
                "domain": domain,
                "changed": max(float(np.abs(new[name] - rewards).max()) for name, rewards in old.items()),
                **{row["model"]: row["micro"] for row in facts["rows"]},
                "difference": {key: after["micro"][key] for key in ("value", "low", "high")},
                "seconds": seconds,
                "ratio": seconds / full_seconds,
            }
        )
        step(done, len(domains))
    return rows


def _rewards_by_expert(model: RoutedRewardModel, prefs: EmbeddedPreferences) -> dict[str, NDArray[np.float64]]:
    """Rewards of the active responses by each expert alone, as hard routing gives them to its domain.

    All experts in one product may round differently by how many they are.
    """
    responses = prefs.responses.take(prefs.active)
    parts = zip(model.domains_, model.experts_, model.offset_, model.scale_)
    return {name: (expert.predict(responses) - offset) * scale for name, expert, offset, scale in parts}


def left_out_facts(
    make: Mapping[str, Callable[[int], RewardModel]],
    routed: Mapping[str, RoutedRewardModel],
    train: EmbeddedPreferences,
    test: EmbeddedPreferences,
    seeds: Sequence[int],
    seeded: frozenset[str],
    progress: Progress = silent,
    n_resamples: int = N_RESAMPLES,
) -> dict[str, Any]:
    """Accuracy on each domain of models that were trained on all the others.

    Parameters
    ----------
    make : mapping of name to callable
        Unfitted models, as functions of the seed; those in ``seeded`` are fitted for every seed.
    routed : mapping of name to RoutedRewardModel
        With independent experts, fitted on all training pairs: each domain's expert is dropped in turn, which is what
        fitting without the domain gives.

    Returns
    -------
    dict
        As :func:`embedrm.evaluation.accuracy_facts`: each test pair is judged by models that have not seen its domain.
    """
    domains = sorted(set(train.domains) & set(test.domains))
    if len(domains) < 3:
        raise InvalidInputError(f"leaving a domain out needs at least 3 domains, got {', '.join(domains) or 'none'}")
    judged = test[np.isin(test.domain, domains)]
    step = progress("leave a domain out")
    margins = {name: np.zeros((len(seeds) if name in seeded else 1, len(judged))) for name in (*make, *routed)}
    for done, domain in enumerate(domains, start=1):
        rest, own = train[train.domain != domain], np.flatnonzero(judged.domain == domain)
        for name, factory in make.items():
            for s in range(len(margins[name])):
                margins[name][s, own] = factory(seeds[s]).fit(rest).margins(judged[own])
        for name, model in routed.items():
            margins[name][0, own] = model.drop_domain(domain, train).margins(judged[own])
        step(done, len(domains))
    return accuracy_facts(margins, judged, n_resamples=n_resamples)
