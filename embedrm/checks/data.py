"""The synthetic preferences on which laws are checked, and ways to turn them into equivalent ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, pairs_from_gold

DIM = 6
DOMAINS = ("alpha", "beta", "gamma")
_COMPARED = 3


def example_preferences(
    n_groups: int = 13, *, flipped: float = 0.15, random_state: int = 0
) -> tuple[EmbeddedPreferences, NDArray[np.float64]]:
    """Preferences with a known linear reward; some prompts and responses are in no pair.

    Two prompts a group, three compared responses and one idle response a prompt, all three pairs; the last group is
    idle as a whole. Domains can be read off the prompt vectors, and share the active groups evenly. Every number is exact in
    float16, so that copies in another precision hold the same values. Covariates have nothing to do with the reward.

    Parameters
    ----------
    n_groups : int
        Prompt groups, at least 4; 3 k + 1 of them give k active groups a domain.
    flipped : float
        Share of pairs whose label is turned round.
    random_state : int
        Seed.

    Returns
    -------
    preferences : EmbeddedPreferences
        Views ``response:final`` and ``prompt:final``, float64.
    reward : ndarray of shape (n_responses,)
        The reward that made the labels.
    """
    rng = np.random.default_rng(random_state)
    n_prompts, k = 2 * n_groups, _COMPARED + 1
    group = np.repeat(np.arange(n_groups), 2)
    domain = np.minimum(group * len(DOMAINS) // (n_groups - 1), len(DOMAINS) - 1)
    prompt = rng.normal(size=(n_prompts, DIM))
    prompt[np.arange(n_prompts), domain] += 2.0
    response = rng.normal(size=(n_prompts * k, DIM)).astype(np.float16).astype(np.float64)
    prompt_of = np.repeat(np.arange(n_prompts), k)
    direction = rng.normal(size=DIM)
    reward = response @ (1.5 * direction / np.linalg.norm(direction))

    compared = reward.copy()
    compared[k - 1 :: k] = np.nan
    compared[prompt_of >= n_prompts - 2] = np.nan
    pairs, gap = pairs_from_gold(prompt_of, compared)
    order = rng.permutation(len(pairs))
    pairs, gap = pairs[order], gap[order]
    pairs = np.where((rng.random(len(pairs)) < flipped)[:, None], pairs[:, ::-1], pairs)
    lengths = rng.permutation(np.arange(10, 10 + len(response))).astype(np.float64)
    responses = EmbeddedResponses(
        {"response:final": response, "prompt:final": prompt.astype(np.float16).astype(np.float64)},
        prompt_of,
        domain=np.array(DOMAINS)[domain],
        group=[f"group {g:03d}" for g in group],
        gold=reward,
        covariates={"characters": lengths * 5, "words": lengths, "tokens": lengths + 2},
    )
    return EmbeddedPreferences(responses, pairs, margin=gap), reward


def with_pairs(
    preferences: EmbeddedPreferences, responses: EmbeddedResponses | None = None, **columns: Any
) -> EmbeddedPreferences:
    """Copy preferences with other responses, pairs, weight, margin or outcome."""
    given = {name: getattr(preferences, name) for name in ("pairs", "weight", "margin", "outcome")} | columns
    pairs = given.pop("pairs")
    return EmbeddedPreferences(preferences.responses if responses is None else responses, pairs, **given)


def with_responses(responses: EmbeddedResponses, **parts: Any) -> EmbeddedResponses:
    """Copy responses with other views, prompt_of, domain, group, gold or covariates."""
    names = ("domain", "group", "gold", "covariates", "split", "info")
    given = {name: getattr(responses, name) for name in ("views", "prompt_of", *names)} | parts
    return EmbeddedResponses(given.pop("views"), given.pop("prompt_of"), **given)


def map_views(
    preferences: EmbeddedPreferences, function: Callable[[str, NDArray[Any]], NDArray[Any]]
) -> EmbeddedPreferences:
    """Copy preferences with every view replaced by ``function(name, matrix)``."""
    views = {name: function(name, matrix) for name, matrix in preferences.responses.views.items()}
    return with_pairs(preferences, with_responses(preferences.responses, views=views))


def reorder(
    preferences: EmbeddedPreferences, random_state: int = 1
) -> tuple[EmbeddedPreferences, NDArray[np.intp], NDArray[np.intp]]:
    """Shuffle prompts, responses and pairs; the comparisons stay the same.

    Returns
    -------
    preferences : EmbeddedPreferences
    pair_order : ndarray of shape (n_pairs,)
        Old pair of each new pair.
    response_order : ndarray of shape (n_responses,)
        Old response of each new response.
    """
    rng = np.random.default_rng(random_state)
    old = preferences.responses
    prompt_order, order = rng.permutation(old.n_prompts), rng.permutation(old.n_responses)
    pair_order = rng.permutation(len(preferences))
    new_prompt, new_row = np.argsort(prompt_order), np.argsort(order)
    responses = EmbeddedResponses(
        {v: m[prompt_order] if v.startswith("prompt:") else m[order] for v, m in old.views.items()},
        new_prompt[old.prompt_of[order]],
        domain=old.domain[prompt_order],
        group=old.group[prompt_order],
        gold=old.gold[order],
        covariates={name: column[order] for name, column in old.covariates.items()},
    )
    moved = EmbeddedPreferences(
        responses,
        new_row[preferences.pairs[pair_order]],
        weight=preferences.weight[pair_order],
        margin=preferences.margin[pair_order],
        outcome=preferences.outcome[pair_order],
    )
    return moved, pair_order, order


def idle_rows(preferences: EmbeddedPreferences) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks of the responses (n_responses,) and prompts (n_prompts,) that no pair touches."""
    responses = np.ones(preferences.responses.n_responses, dtype=bool)
    responses[preferences.active] = False
    prompts = np.ones(preferences.responses.n_prompts, dtype=bool)
    prompts[preferences.active_prompts] = False
    return responses, prompts
