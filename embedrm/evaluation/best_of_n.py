"""Best-of-n: what the candidate that a reward model likes best of n is worth, by gold scores; as plain facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.evaluation._best_of_n_rows import (
    FIRST,
    LENGTH,
    MIN_GROUPS,
    ORACLE,
    RANDOM,
    AtOneN,
    curve_facts,
    difference_facts,
    interval_cell,
)
from embedrm.evaluation._candidates import GOLD_SCALES, MISSING, Scored, scored_candidates
from embedrm.numerics import best_of_n as bon
from embedrm.numerics.bootstrap import CONFIDENCE, N_RESAMPLES, Clustered
from embedrm.preferences import EmbeddedResponses

Array = NDArray[np.float64]

ESTIMATORS = {
    "unbiased": "the mean over all subsets of n of a prompt's K candidates; equal rewards share the choice",
    "lin2024": "the first n of a prompt's K candidates, the earliest of equal rewards (the scheme of Lin et al. 2024)",
    "sun2025": "the first n in random orders of a prompt's K candidates (the scheme of Sun et al. 2025)",
}
"""Schemes by which the best of n is estimated from K candidates."""

MODEL, BASELINE, BOUND = "model", "baseline", "bound"
SUN_NS = (1, 2, 5, 10, 30, 50, 100, 300, 500)
"""Where Sun et al. (2025) read best-of-n, and one; taken by default where prompts have more than 16 candidates."""


def best_of_n_facts(
    rewards: Mapping[str, ArrayLike],
    responses: EmbeddedResponses,
    *,
    ns: Sequence[int] | None = None,
    estimator: str = "unbiased",
    reference: str | None = None,
    compare: Sequence[tuple[str, str]] = (),
    prompts: ArrayLike | None = None,
    missing: str = "raise",
    gold: str = "raw",
    same_prompts: bool = False,
    n_permutations: int = 100,
    n_resamples: int = N_RESAMPLES,
    random_state: int = 0,
) -> dict[str, Any]:
    r"""Judge choices among candidates by their gold, for every n, beside baselines and the bound.

    Parameters
    ----------
    rewards : mapping of model name to array-like of shape (n_responses,)
        Of every response; those of prompts that are not asked about are not read.
    responses : EmbeddedResponses
        Gives gold, prompts, domains, prompt groups and the length. Its vectors are not read.
    ns : sequence of int, optional
        Numbers of candidates; 1 to the largest K where that is at most 16, :data:`SUN_NS` and the largest K otherwise.
    estimator : {"unbiased", "lin2024", "sun2025"}
        See :data:`ESTIMATORS`. Only the unbiased one uses all candidates at every n.
    reference : str, optional
        What the others are compared with; the first model where absent.
    compare : sequence of (str, str)
        Further differences, the first less the second; baselines may be named.
    prompts : array-like of int, or mask over the prompts, optional
        The prompts asked about; all where absent.
    missing : {"raise", "drop-prompts", "drop-responses"}
        What to do where a prompt has responses with and without gold. Prompts without any are left out and counted.
    gold : {"raw", "standard"}
        As it is, or standardised within each domain over the candidates judged (mean 0, standard deviation 1), so that
        domains graded on different scales can be averaged.
    same_prompts : bool
        Judge every n on the prompts that have enough candidates for the largest n. Otherwise each n is judged on all
        prompts that have n candidates; rows of one n are of the same prompts, those of several n need not be.
    n_permutations : int
        Of the estimator "sun2025".
    n_resamples : int
        Bootstrap draws of whole prompt groups.
    random_state : int
        Seed of the bootstrap, and of the permutations.

    Returns
    -------
    dict
        ``ns``, ``headline`` (the largest n that at least half of the prompts can serve), ``kl`` (nats, one an n),
        ``n_prompts`` and ``n_excluded`` (prompts with fewer candidates; one an n), ``candidates`` (counts; ``by_k``: K to
        prompts), ``gold`` (its scale and statistics), ``domains`` and ``n_by_domain``, ``rows``: for each model, baseline
        and bound

        - ``model`` and ``kind`` ("model", "baseline", "bound");
        - one cell ``{value, low, high}`` an n: ``micro`` (mean gold over prompts), ``macro`` (over domains), ``domains``
          (name to cells, None where no prompt has n candidates), ``gain`` (micro less random, the same prompts),
          ``captured`` (gain over the oracle's gain; None where the oracle gains nothing), ``proxy`` (reward of the choice
          above its prompt's mean) and ``gain_sd`` (the same of gold), both in pooled standard deviations within prompts,
          ``quantile`` (share of the other candidates with lower gold, equal ones one half: one half at random);
        - ``spearman`` (mean over prompts of the rank correlation with gold), ``n_spearman`` (prompts whose gold varies),
          ``n_top_ties`` (prompts with several candidates of the highest reward);

        ``curve``: ``ns`` to the headline, ``n_prompts`` and ``rows`` (``micro``, ``proxy``, ``gain_sd``), all on the prompts
        that have as many candidates as the headline, so that rows may be followed along n; and ``differences``: ``model``,
        ``reference``, ``micro``, ``macro`` and ``domains`` as above with ``p`` (clustered bootstrap) and ``p_holm``
        (corrected over the n above one).

    Raises
    ------
    InvalidInputError
        For gold that is missing, rewards that are not one finite number a candidate, an n that no prompt can serve.

    Notes
    -----
    Ends of intervals and p are None where fewer than ten prompt groups are judged.

    With K candidates in ascending order of the reward, the unbiased estimate is
    :math:`\sum_{i \ge n} \binom{i-1}{n-1} / \binom{K}{n} \, g_{(i)}`. For gold of 0 and 1 the oracle row is then pass@n
    (Chen et al. 2021, section 2.1). The divergence ``ln n - (n - 1) / n`` is of best-of-n from the policy that candidates
    are drawn from; candidates of several systems, or retrieved ones, have no such policy.

    References
    ----------
    Lin et al. (2024), "DogeRM: equipping reward models with domain knowledge through model merging"; Sun, Shen and Ton
    (2025), "Rethinking Bradley-Terry models in preference-based reward modeling"; Chen et al. (2021), "Evaluating large
    language models trained on code".
    """
    if estimator not in ESTIMATORS:
        raise unknown_name("estimator of best-of-n", estimator, ESTIMATORS)
    for what, value in (("n_permutations", n_permutations), ("n_resamples", n_resamples)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise InvalidInputError(f"best-of-n needs {what} to be a whole number from 1, got {value!r}")
    scored = scored_candidates(rewards, responses, prompts, missing, gold, reserved=(FIRST, RANDOM, LENGTH, ORACLE))
    grid = _grid(ns, scored)
    if same_prompts:
        scored = scored.with_at_least(max(grid))
    models = list(scored.rewards)
    reference = models[0] if reference is None else reference
    length = _length(responses, scored)
    asked = [*models, FIRST, RANDOM, *([LENGTH] if length is not None else []), ORACLE]
    wanted = [(name, reference) for name in models if name != reference]
    wanted += [pair for pair in compare if tuple(pair) not in wanted]
    for name in (reference, *(name for pair in compare for name in pair)):
        if name not in asked:
            raise unknown_name("model to compare with in best-of-n", name, asked)
    schemes: dict[str, Callable[..., Array]] = {"unbiased": bon.unbiased, "lin2024": bon.prefixes}
    schemes["sun2025"] = partial(bon.permutations, n_permutations=n_permutations, random_state=random_state)
    proxies = {**scored.rewards, **({} if length is None else {LENGTH: length}), ORACLE: scored.gold}
    values = _values(proxies, scored, grid, schemes[estimator])
    values = {name: values[name] for name in asked}
    bootstrap = {"n_resamples": n_resamples, "random_state": random_state}
    tables = [AtOneN(values, scored, j, n, **bootstrap) for j, n in enumerate(grid)]
    counts = [table.n_prompts for table in tables]
    headline = max(n for n, count in zip(grid, counts) if 2 * count >= max(counts))
    kind = {FIRST: BASELINE, RANDOM: BASELINE, LENGTH: BASELINE, ORACLE: BOUND}
    correlations = _correlations(proxies, scored, n_resamples, random_state)
    rows = []
    for name in asked:
        cells = [table.row(name) for table in tables]
        rows.append(
            {"model": name, "kind": kind.get(name, MODEL)}
            | {key: [cell[key] for cell in cells] for key in cells[0] if key != "domains"}
            | {"domains": {d: [cell["domains"].get(d) for cell in cells] for d in scored.domains}}
            | correlations.get(name, {"spearman": None, "n_spearman": 0})
            | {"n_top_ties": _top_ties(proxies[name], scored.candidates) if name in proxies else None}
        )
    return {
        "estimator": estimator,
        "n_permutations": n_permutations if estimator == "sun2025" else None,
        "ns": grid,
        "headline": headline,
        "kl": bon.divergence(grid).tolist(),
        "n_prompts": counts,
        "n_excluded": [scored.candidates.n_prompts - count for count in counts],
        "candidates": scored.counts,
        "gold": scored.gold_facts,
        "domains": list(scored.domains),
        "n_by_domain": scored.n_by_domain,
        "confidence": CONFIDENCE,
        "n_resamples": n_resamples,
        "random_state": random_state,
        "reference": reference,
        "rows": rows,
        "curve": curve_facts(rows, tables, headline, lambda j, n: AtOneN(values, scored, j, n, headline, **bootstrap)),
        "differences": [difference_facts(a, b, grid, tables, scored.domains) for a, b in wanted],
    }


def select_best(
    rewards: ArrayLike, responses: EmbeddedResponses, *, n: int | None = None, prompts: ArrayLike | None = None
) -> dict[str, Any]:
    """Choose one response a prompt: that of the highest reward among its first n, the earliest of equal ones.

    Parameters
    ----------
    rewards : array-like of shape (n_responses,)
    responses : EmbeddedResponses
        Gives the prompts. Gold is not read.
    n : int, optional
        All candidates where absent. Prompts with fewer are left out.
    prompts : array-like of int, or mask over the prompts, optional
        All that have responses where absent.

    Returns
    -------
    dict
        ``rows`` (m,) int, the responses chosen, by prompt; ``n`` (m,) int, among how many; ``n_excluded``, the prompts
        left out; ``n_ties``, those where another candidate has the same reward as the choice.
    """
    if n is not None and (isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1):
        raise InvalidInputError(f"select_best needs n to be a whole number from 1, got {n!r}")
    scored = scored_candidates({"rewards": rewards}, responses, prompts, "raise", "raw", with_gold=False)
    candidates, proxy = scored.candidates, scored.rewards["rewards"]
    chosen, among, ties, excluded = [], [], 0, 0
    for k, own, places in candidates.by_size():
        if n is not None and k < n:
            excluded += len(own)
            continue
        values = proxy[places[:, : k if n is None else n]]
        best = values.argmax(axis=1)
        ties += int(((values == values.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
        chosen.append(candidates.rows[places[np.arange(len(own)), best]])
        among.append(np.full(len(own), values.shape[1]))
    rows = np.concatenate(chosen) if chosen else np.empty(0, dtype=np.intp)
    sizes = np.concatenate(among) if among else np.empty(0, dtype=np.intp)
    order = np.argsort(responses.prompt_of[rows], kind="stable")
    return {"rows": rows[order], "n": sizes[order], "n_excluded": excluded, "n_ties": ties}


def _grid(ns: Sequence[int] | None, scored: Scored) -> list[int]:
    most = int(scored.candidates.size.max())
    if ns is None:
        return list(range(1, most + 1)) if most <= 16 else [*(n for n in SUN_NS if n < most), most]
    grid = list(ns)
    if not grid or any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1 for n in grid):
        raise InvalidInputError("best-of-n needs ns to be a list of whole numbers from 1")
    if max(grid) > most:
        raise InvalidInputError(
            f"best of {max(grid)} was asked for, and no prompt has more than {most} candidates with gold; ask for less"
        )
    return sorted({int(n) for n in grid})


def _length(responses: EmbeddedResponses, scored: Scored) -> Array | None:
    if "characters" not in responses.covariates:
        return None
    return responses.covariates["characters"][scored.candidates.rows]


def _values(
    proxies: Mapping[str, Array], scored: Scored, grid: list[int], scheme: Callable[..., Array]
) -> dict[str, Array]:
    """What each row has at each prompt and n: gold, standardised proxy, quantile; (n_prompts, len(grid), 3)."""
    candidates, gold = scored.candidates, scored.gold
    quantile = bon.beaten_share(gold, candidates)
    fits = candidates.size[:, None] >= np.array(grid)
    out = {}
    for name, proxy in proxies.items():
        above, _ = standing(proxy, candidates)
        out[name] = scheme(proxy, np.stack([gold, above, quantile], axis=1), candidates, grid)
    first, mean = gold[candidates.start], candidates.means(gold)
    for name, of_prompt, beaten in (
        (FIRST, first, quantile[candidates.start]),
        (RANDOM, mean, np.full(candidates.n_prompts, 0.5)),
    ):
        columns = np.stack([of_prompt, np.zeros(len(mean)), beaten], axis=1)
        out[name] = np.where(fits[:, :, None], columns[:, None, :], np.nan)
    return out


def standing(values: Array, candidates: bon.Candidates) -> tuple[Array, float]:
    """Values above their prompt's mean in pooled standard deviations within prompts, and that deviation; zeros of zero."""
    above = values - candidates.means(values)[candidates.prompt]
    scale = float(np.sqrt(np.mean(above * above)))
    return (above / scale if scale > 0 else np.zeros(len(above))), scale


def _correlations(
    proxies: Mapping[str, Array], scored: Scored, n_resamples: int, random_state: int
) -> dict[str, dict[str, Any]]:
    rho = {name: bon.spearman(proxy, scored.gold, scored.candidates) for name, proxy in proxies.items()}
    known = ~np.isnan(rho[ORACLE])
    if not known.any():
        return {}
    stacked = np.stack([values[known] for values in rho.values()], axis=1)
    table = Clustered.from_rows(stacked, scored.group[known], scored.domain[known])
    micro = len(table.strata)
    point, draws = table.means()[0, micro], table.resample(n_resamples, random_state)[:, micro]
    enough = table.n_clusters >= MIN_GROUPS
    return {
        name: {"spearman": interval_cell(point[i], draws[:, i], enough), "n_spearman": int(known.sum())}
        for i, name in enumerate(rho)
    }


def _top_ties(proxy: Array, candidates: bon.Candidates) -> int:
    top = np.maximum.reduceat(proxy, candidates.start)[candidates.prompt]
    return int((candidates.sums((proxy == top).astype(np.float64)) > 1).sum())


__all__ = [
    "ESTIMATORS",
    "FIRST",
    "GOLD_SCALES",
    "LENGTH",
    "MISSING",
    "ORACLE",
    "RANDOM",
    "best_of_n_facts",
    "select_best",
]
