"""Steps of fitting a model of adapters: what is held out, the trunk, an adapter, the scales, the router."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from embedrm.composites._adapter_factors import Adapter, Plan, Trunk
from embedrm.composites._adapter_training import DomainProblem, Inputs, RewardProblem, Schedule, train
from embedrm.errors import InvalidInputError
from embedrm.featurizers.rows import FeatureRows
from embedrm.heads._mlp_training import train as train_perceptrons
from embedrm.heads.mlp import MLPHead
from embedrm.numerics.calibration import fit_margin_scale
from embedrm.numerics.folds import hold_out
from embedrm.numerics.threads import threads_for
from embedrm.objectives import Comparisons, make_objective
from embedrm.preferences import EmbeddedPreferences
from embedrm.reward_model import RewardModel

WHO = "AdapterRewardModel"
# A domain's scale is its own as far as it held out more prompt groups than this, and the pooled one as far as not: margins
# of about so many groups tell the logarithm of a scale as well as knowing that those of domains differ by a half does.
PRIOR_GROUPS = 30
_REMEDY = "early_stopping=False and calibrate=False, with a trunk that does not stop early"


def held_out_groups(prefs: EmbeddedPreferences, fraction: float, random_state: int) -> NDArray[np.str_]:
    """Prompt groups held out of every domain that has two; a group in several domains counts for the first by name."""
    order = np.argsort(prefs.domain, kind="stable")
    names, first = np.unique(prefs.groups[order], return_index=True)
    domain = prefs.domain[order][first]
    held = []
    for d in np.unique(domain):
        own = names[domain == d]
        if len(own) > 1:
            held.append(own[hold_out(own, fraction, random_state, WHO, _REMEDY)[1]])
    if not held:
        raise InvalidInputError(
            f"{WHO} holds out prompt groups of every domain to stop by and to calibrate on, and each of these "
            f"{len(prefs.domains)} domain(s) has one group only; give more prompts, or {_REMEDY}"
        )
    return np.concatenate(held)


def trunk_of(head: MLPHead) -> Trunk:
    """Return the weights of a fitted head, shared."""
    return Trunk(head.weights_, head.biases_)


def _entries(trunk: Trunk, plan: Plan, schedule: Schedule) -> int:
    """Size of a step for ``threads_for``: of a frozen first layer only the factors are multiplied, batch by batch."""
    first = trunk.weights[0].shape[0] * plan.rank
    return max(first, *(w.size for w in trunk.weights[1:])) * schedule.batch_rows // 64


def fit_trunk(head: MLPHead, prefs: EmbeddedPreferences, held: NDArray[np.str_]) -> MLPHead:
    """Train an unfitted head on the pairs of all domains, stopped by the held-out groups if it stops early."""
    schedule = head._schedule()
    head.featurizer_ = head._new_featurizer().fit(prefs)
    head.n_features_in_ = head.featurizer_.dim_
    is_held = np.isin(prefs.groups, held)
    parts = []
    for rows in (~is_held, is_held) if head.early_stopping else (~is_held,):
        comparisons = Comparisons.of(prefs[rows])
        parts.append((FeatureRows(head.featurizer_, prefs.responses, comparisons.rows), comparisons))
    widths = (head.n_features_in_, *schedule.hidden)
    with threads_for(max(a * b for a, b in pairwise((*widths, 1))) * schedule.batch_rows // 64):
        validation = parts[1] if len(parts) > 1 else None
        objective = make_objective(head.objective)
        trained = train_perceptrons(*parts[0], validation, objective, schedule, [head.random_state], None, WHO)
    return head.member(trained, 0)


def fit_adapter(
    head: MLPHead,
    plan: Plan,
    schedule: Schedule,
    inside: EmbeddedPreferences,
    outside: EmbeddedPreferences,
    random_state: int,
) -> tuple[Adapter, int]:
    """Train an adapter on one domain's pairs; returns it with its epoch.

    Where the schedule has a patience, it is stopped by the pairs ``outside``; without any, or without pairs ``inside``, it
    stays at zero.
    """
    trunk, rng = trunk_of(head), np.random.default_rng(random_state)
    stops = schedule.patience is not None
    if not len(inside) or (stops and not len(outside)):
        return plan.new(trunk, rng), 0
    parts = []
    for prefs in (inside, outside) if stops else (inside,):
        comparisons = Comparisons.of(prefs)
        features = FeatureRows(head.featurizer_, prefs.responses, comparisons.rows)
        parts.append((Inputs(features.take, len(features), trunk, 0 in plan.layers), comparisons))
    validation = parts[1] if stops else None
    problem = RewardProblem(make_objective(head.objective), *parts[0], validation, schedule.batch_rows)
    with threads_for(_entries(trunk, plan, schedule)):
        return train(trunk, plan, problem, schedule, rng, WHO)


def fit_adapters(
    head: MLPHead,
    plan: Plan,
    schedule: Schedule,
    prefs: EmbeddedPreferences,
    domains: Sequence[str],
    held: NDArray[np.str_],
    random_state: int,
) -> tuple[list[Adapter], NDArray[np.intp], list[EmbeddedPreferences]]:
    """Train an adapter for each domain; returns them with their epochs and the held-out pairs of each domain."""
    adapters, epochs, tests = [], [], []
    for domain in domains:
        own = prefs.in_domain(domain)
        is_held = np.isin(own.groups, held)
        try:
            adapter, epoch = fit_adapter(head, plan, schedule, own[~is_held], own[is_held], random_state)
        except InvalidInputError as error:
            raise InvalidInputError(f"the adapter of domain {domain!r} ({len(own)} pairs): {error}") from error
        adapters.append(adapter)
        epochs.append(epoch)
        tests.append(own[is_held])
    return adapters, np.array(epochs, dtype=np.intp), tests


def fit_scales(
    experts: Sequence[RewardModel], tests: Sequence[EmbeddedPreferences], pooled: float | None
) -> tuple[NDArray[np.float64], float]:
    """Scales of experts from their margins of held-out pairs, each drawn towards the pooled one.

    Parameters
    ----------
    experts : sequence of RewardModel
    tests : sequence of EmbeddedPreferences
        Held-out pairs of each expert's domain, or none.
    pooled : float, optional
        The pooled scale; fitted to the margins of all experts where absent.

    Returns
    -------
    scales : ndarray of shape (n_experts,)
    pooled : float
    """
    parts = []
    for expert, test in zip(experts, tests):
        margins = expert.margins(test) if len(test) else np.zeros(0)
        parts.append((margins, test.outcome, test.weight, len(np.unique(test.groups))))
    if pooled is None:
        margins, outcome, weight = (np.concatenate([p[i] for p in parts]) for i in range(3))
        pooled = fit_margin_scale(margins, outcome, weight, sum(p[3] for p in parts))
    logs = np.full(len(parts), np.log(pooled))
    for k, (margins, outcome, weight, n) in enumerate(parts):
        if n:
            own = np.log(fit_margin_scale(margins, outcome, weight, n))
            logs[k] = (n * own + PRIOR_GROUPS * logs[k]) / (n + PRIOR_GROUPS)
    return np.exp(logs), pooled


def fit_router(
    trunk: Trunk,
    plan: Plan,
    schedule: Schedule,
    inside: tuple[NDArray[np.float32], NDArray[np.intp]],
    outside: tuple[NDArray[np.float32], NDArray[np.intp]],
    random_state: int,
) -> tuple[Adapter, int]:
    """Train a router adapter on the trunk's inputs (n, n_in) and classes (n,) of prompts; returns it with its epoch.

    It is stopped by the prompts ``outside``, where there are any and the schedule has a patience.
    """
    rng = np.random.default_rng(random_state)
    if trunk.weights[-1].shape[1] == 1:
        # one domain: every prompt belongs to it with certainty, and there is nothing to fit
        return plan.new(trunk, rng), 0
    parts = []
    for z, codes in (inside, outside) if schedule.patience is not None and len(outside[0]) else (inside,):
        parts.append((Inputs(z.__getitem__, len(z), trunk, 0 in plan.layers), codes))
    problem = DomainProblem(*parts[0], parts[1] if len(parts) > 1 else None, schedule.batch_rows)
    with threads_for(_entries(trunk, plan, schedule)):
        return train(trunk, plan, problem, schedule, rng, WHO)
