"""Over-optimisation: what the best of n is worth by gold while its reward rises, over models, noise and draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.evaluation._best_of_n_rows import MIN_GROUPS, interval_cell
from embedrm.evaluation._candidates import Scored, scored_candidates
from embedrm.evaluation.best_of_n import ESTIMATORS, ORACLE, RANDOM, SUN_NS, standing
from embedrm.numerics import best_of_n as bon
from embedrm.numerics.bootstrap import CONFIDENCE, N_RESAMPLES, Clustered, two_sided_p
from embedrm.numerics.draws import draw_weights
from embedrm.preferences import EmbeddedResponses

Array = NDArray[np.float64]

GOLD, PROXY, QUANTILE = range(3)
_COLUMNS = 3


class ChoiceJudge:
    """Candidates with gold, and what any reward's choices among them are worth, prompt by prompt.

    Parameters
    ----------
    responses : EmbeddedResponses
        Gives gold, prompts and groups. Its vectors are not read.
    ns : sequence of int, optional
        Numbers of candidates; 1 is always among them. Absent: every n to the largest that half of the prompts can serve
        where that is at most 16, and otherwise those of Sun et al. (2025) below it and itself.
    prompts : array-like of int, or mask over the prompts, optional
    estimator : {"unbiased", "lin2024", "sun2025"}
        See :data:`embedrm.evaluation.best_of_n.ESTIMATORS`.
    missing, gold : str
        As in :func:`embedrm.evaluation.best_of_n.best_of_n_facts`.
    n_permutations, random_state : int
        Of the estimator "sun2025".

    Attributes
    ----------
    ns : list of int
        Ascending. Every n is judged on the prompts that have candidates for the largest, so that a curve is of one sample.
    scored : Scored
    """

    def __init__(
        self,
        responses: EmbeddedResponses,
        *,
        ns: Sequence[int] | None = None,
        prompts: ArrayLike | None = None,
        estimator: str = "unbiased",
        missing: str = "raise",
        gold: str = "raw",
        n_permutations: int = 100,
        random_state: int = 0,
    ) -> None:
        if estimator not in ESTIMATORS:
            raise unknown_name("estimator of best-of-n", estimator, ESTIMATORS)
        if isinstance(n_permutations, bool) or not isinstance(n_permutations, (int, np.integer)) or n_permutations < 1:
            raise InvalidInputError(
                f"best-of-n needs n_permutations to be a whole number from 1, got {n_permutations!r}"
            )
        nothing = {"nothing": np.zeros(responses.n_responses)}
        scored = scored_candidates(nothing, responses, prompts, missing, gold)
        self.ns = _grid(ns, scored)
        self.scored = scored.with_at_least(self.ns[-1])
        self.responses, self.estimator = responses, estimator
        self.n_permutations = n_permutations if estimator == "sun2025" else None
        scheme = {"unbiased": bon.unbiased, "lin2024": bon.prefixes}.get(estimator)
        self._scheme: Any = scheme or partial(
            bon.permutations, n_permutations=n_permutations, random_state=random_state
        )
        self._quantile = bon.beaten_share(self.scored.gold, self.scored.candidates)

    def curves(self, rewards: ArrayLike, name: str = "rewards") -> tuple[Array, Array]:
        """Judge the choices by some rewards (n_responses,).

        Returns
        -------
        curves : ndarray of shape (n_prompts, len(ns), 3)
            Gold of the choice; its reward above its prompt's mean, in pooled standard deviations within prompts; the
            share of the other candidates with lower gold, equal ones one half (one half at random, one for the best).
        spearman : ndarray of shape (n_prompts,)
            Rank correlation of rewards with gold; NaN where gold does not vary.
        """
        values = np.asarray(rewards, dtype=np.float64)
        if values.shape != (self.responses.n_responses,):
            raise InvalidInputError(
                f"rewards of {name!r} must have shape ({self.responses.n_responses},), one a response, got {values.shape}"
            )
        candidates, gold = self.scored.candidates, self.scored.gold
        own = values[candidates.rows]
        n_bad = int((~np.isfinite(own)).sum())
        if n_bad:
            raise InvalidInputError(
                f"rewards of {name!r} must be finite, got NaN or infinity for {n_bad:,} of {len(own):,} candidates"
            )
        columns = np.stack([gold, standing(own, candidates)[0], self._quantile], axis=1)
        made: Array = self._scheme(own, columns, candidates, self.ns)
        return made, bon.spearman(own, gold, candidates)

    def without_vectors(self) -> ChoiceJudge:
        """Return the same judge with the candidates' gold and prompts alone: small enough to be sent about."""
        made, whole = copy(self), self.responses
        made.responses = EmbeddedResponses({}, whole.prompt_of, domain=whole.domain, group=whole.group, gold=whole.gold)
        return made

    @property
    def mean_gold(self) -> Array:
        """Mean gold of each prompt's candidates, what a random choice is worth; (n_prompts,)."""
        return self.scored.candidates.means(self.scored.gold)


def over_optimisation_facts(
    judge: ChoiceJudge | Sequence[ChoiceJudge],
    curves: Mapping[str, Mapping[str, Sequence[tuple[Array, Array]]]],
    *,
    reference: str,
    n_resamples: int = N_RESAMPLES,
    random_state: int = 0,
) -> dict[str, Any]:
    r"""Means, intervals, peaks and differences of the curves of several models at several levels of noise.

    Parameters
    ----------
    judge : ChoiceJudge or sequence of ChoiceJudge
        One for all draws, or one for each draw where candidates or gold are drawn anew: of as many prompts in the same
        groups, and the same numbers of candidates. Prompt i of one draw may be another than prompt i of the next; they are
        resampled together, which is right for prompts that have nothing to do with each other too.
    curves : mapping of level to mapping of model to sequence of (curves, spearman)
        As :meth:`ChoiceJudge.curves` gives them, one for each draw (of the wrong labels, and of the models' seeds). Every
        level has the same models, every model as many draws, and draw d is the same for all.
    reference : str
        The model that the others are compared with.
    n_resamples, random_state : int
        Of the bootstrap: whole prompt groups and draws, both with replacement, the same for every model and level. Draws are
        few, and deviate by more for it (:func:`embedrm.numerics.draws.draw_weights`).

    Returns
    -------
    dict
        ``ns``, ``kl`` (nats, an upper bound), ``levels``, ``models``, ``reference``, ``n_draws``, ``n_settings`` (how many
        different judges), ``candidates`` (of the first draw), ``gold`` (means over draws), ``estimator``; ``random`` and
        ``oracle``, cells of gold; ``rows``, one a level and model:

        - ``gold``, ``reward``, ``gain_sd``, ``quantile``: a cell ``{value, low, high}`` an n; reward and gain in standard
          deviations within prompts; ``captured``, the gain over the oracle's at the largest n;
        - ``spearman``: mean over prompts; ``peak``: the n of the highest mean gold;
        - ``lost``: gold at the peak less gold at the largest n. The peak of one half of the prompt groups is read on the
          other, so that nothing is lost by chance alone;

        ``differences``, one a level and model: gold less the reference's, a cell with ``p`` an n, and ``spearman``; and
        ``changes``, one a model: its difference at the largest n at the last level less that at the first.

    Raises
    ------
    InvalidInputError
        For levels with other models or another number of draws, and an unknown reference.

    Notes
    -----
    Ends of intervals and p are None where fewer than ten prompt groups are judged. With one draw, intervals are over prompts
    alone.
    """
    levels, models, n_draws = _checked(curves, reference)
    judges = _judges(judge, n_draws)
    first, ns = judges[0], judges[0].ns
    own = {id(one): (one.mean_gold, one.curves(_gold_of(one), ORACLE)[0][:, :, GOLD]) for one in judges}
    mean, oracle = (np.stack([own[id(one)][i] for one in judges], axis=1) for i in (0, 1))
    sds = np.array([one.scored.gold_facts["within_sd"] for one in judges])
    sample = _Sample(first.scored, n_draws, n_resamples, random_state)
    halves = _halves(first.scored.group)
    known = ~np.isnan(curves[levels[0]][models[0]][0][1])
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for level in levels:
        for model, means in sample.rows(curves[level], halves, mean, sds).items():
            found[level, model] = means
    bounds = sample.means({RANDOM: mean[:, :, None], ORACLE: oracle, "most": oracle - mean[:, :, None]})
    at_random, most = bounds[RANDOM], bounds["most"]
    rows, differences = [], []
    for (level, model), one in found.items():
        gain = tuple(a - b for a, b in zip(one["gold"], at_random))
        cells = {key: sample.cells(one[key]) for key in ("gold", "reward", "quantile")}
        row: dict[str, Any] = {"level": level, "model": model, **cells}
        row["gain_sd"] = sample.cells(one["gain"]) if (sds > 0).all() else None
        row["captured"] = sample.share(gain, most)
        row["spearman"] = sample.cells(one["spearman"])[0] if known.any() else None
        rows.append(row | {"peak": ns[int(one["gold"][0].argmax())], "lost": sample.cells(one["lost"])[0]})
        if model != reference:
            base = found[level, reference]
            less = {key: tuple(a - b for a, b in zip(one[key], base[key])) for key in ("gold", "spearman", "lost")}
            differences.append(
                {
                    "level": level,
                    "model": model,
                    "reference": reference,
                    "gold": sample.cells(less["gold"], tested=True),
                }
                | {"spearman": sample.cells(less["spearman"], tested=True)[0] if known.any() else None}
                | {"lost": sample.cells(less["lost"], tested=True)[0]}
            )
    begin, end = levels[0], levels[-1]
    changes = []
    for model in models:
        if model != reference and len(levels) > 1:
            parts = [
                tuple(a - b for a, b in zip(found[level, model]["gold"], found[level, reference]["gold"]))
                for level in (begin, end)
            ]
            cell = sample.cells(tuple(b - a for a, b in zip(*parts)), tested=True)[-1]
            changes.append({"model": model, "reference": reference, "from": begin, "to": end, "gold": cell})
    return {
        "estimator": first.estimator,
        "n_permutations": first.n_permutations,
        "ns": ns,
        "kl": bon.divergence(ns).tolist(),
        "levels": levels,
        "models": models,
        "reference": reference,
        "n_draws": n_draws,
        "n_settings": len(own),
        "n_prompts": first.scored.candidates.n_prompts,
        "candidates": first.scored.counts,
        "gold": _gold_facts(judges),
        "confidence": CONFIDENCE,
        "n_resamples": n_resamples,
        "random_state": random_state,
        RANDOM: sample.cells(at_random)[0],
        ORACLE: sample.cells(bounds[ORACLE]),
        "rows": rows,
        "differences": differences,
        "changes": changes,
    }


Drawn = tuple[Array, Array]
"""Means (n_columns,) and their bootstrap draws (n_resamples, n_columns)."""


class _Sample:
    """One bootstrap over prompt groups and draws, shared by everything that is compared."""

    def __init__(self, scored: Scored, n_draws: int, n_resamples: int, random_state: int) -> None:
        self.group, self.n_draws = scored.group, n_draws
        self.n_resamples, self.random_state = n_resamples, random_state
        picks = np.random.default_rng([random_state, 1]).multinomial(
            n_draws, np.full(n_draws, 1 / n_draws), size=n_resamples
        )
        self._picked = draw_weights(picks)
        self.enough = len(np.unique(self.group)) >= MIN_GROUPS

    def means(self, blocks: Mapping[Any, Array]) -> dict[Any, Drawn]:
        """Means over prompts and draws of blocks (n_prompts, n_draws, n_columns), all by the same bootstrap draws.

        NaN is no value, and a prompt has one in all draws or in none; its place among the clusters stays.
        """
        parts, ends = [], []
        for values in blocks.values():
            kept = ~np.isnan(values[:, :1, 0])
            parts += [np.where(kept, values.reshape(len(values), -1), 0.0), kept.astype(np.float64)]
            ends += [parts[-2].shape[1], 1]
        table = Clustered.from_rows(np.concatenate(parts, axis=1), self.group, np.full(len(self.group), "all"))
        drawn = np.split(table.resample(self.n_resamples, self.random_state)[:, 0], np.cumsum(ends)[:-1], axis=1)
        out = {}
        for i, (key, values) in enumerate(blocks.items()):
            n_columns = values.shape[2]
            kept = ~np.isnan(values[:, 0, 0])
            by_draw = drawn[2 * i] / np.maximum(drawn[2 * i + 1], np.finfo(float).tiny)
            shaped = by_draw.reshape(self.n_resamples, self.n_draws, n_columns)
            point = values[kept].mean(axis=(0, 1)) if kept.any() else np.zeros(n_columns)
            out[key] = point, np.einsum("bd,bdc->bc", self._picked, shaped)
        return out

    def rows(
        self,
        curves: Mapping[str, Sequence[tuple[Array, Array]]],
        halves: NDArray[np.bool_],
        mean: Array,
        sds: Array,
    ) -> dict[str, dict[str, Drawn]]:
        """Means of the models of one level.

        ``halves`` (n_prompts,) says which half each prompt is in; ``mean`` (n_prompts, n_draws) is what a random choice is
        worth, and ``sds`` (n_draws,) the deviation of gold within prompts.
        """
        blocks: dict[tuple[str, str], Array] = {}
        for model, draws in curves.items():
            stacked = np.stack([one for one, _ in draws], axis=1)
            gold = stacked[:, :, :, GOLD]
            lost = np.empty((*gold.shape[:2], 1))
            for half in (halves, ~halves):
                # the peak of the other half; of all, where there is no other
                other = ~half if (~half).any() else half
                peak = int(gold[other].mean(axis=(0, 1)).argmax())
                lost[half, :, 0] = gold[half][:, :, peak] - gold[half][:, :, -1]
            gain = (gold - mean[:, :, None]) / np.where(sds > 0, sds, 1.0)[:, None]
            blocks |= {(model, "gold"): gold, (model, "lost"): lost, (model, "gain"): gain}
            blocks |= {(model, "reward"): stacked[:, :, :, PROXY], (model, "quantile"): stacked[:, :, :, QUANTILE]}
            blocks[model, "spearman"] = np.stack([rho for _, rho in draws], axis=1)[:, :, None]
        found = self.means(blocks)
        return {model: {what: found[model, what] for m, what in blocks if m == model} for model in curves}

    def cells(self, drawn: Drawn, tested: bool = False) -> list[dict[str, Any]]:
        point, draws = drawn
        made = [interval_cell(float(value), draws[:, j], self.enough) for j, value in enumerate(point)]
        if tested:
            for j, cell in enumerate(made):
                cell["p"] = two_sided_p(draws[:, j]) if self.enough else None
        return made

    def share(self, gain: Drawn, most: Drawn) -> dict[str, Any] | None:
        """Gain over the oracle's, at the largest n; None where the oracle gains nothing."""
        least = 1e-12 * max(1.0, float(np.abs(most[0]).max()))
        if most[0][-1] <= least:
            return None
        draws = np.where(most[1][:, -1] > least, gain[1][:, -1] / np.maximum(most[1][:, -1], least), np.nan)
        return interval_cell(float(gain[0][-1] / most[0][-1]), draws, self.enough)


def _judges(judge: ChoiceJudge | Sequence[ChoiceJudge], n_draws: int) -> list[ChoiceJudge]:
    """One judge a draw."""
    judges = [judge] * n_draws if isinstance(judge, ChoiceJudge) else list(judge)
    if len(judges) != n_draws:
        raise InvalidInputError(
            f"over-optimisation needs one judge or one a draw, got {len(judges)} for {n_draws} draws"
        )
    first = judges[0]
    for one in judges[1:]:
        alike = one.ns == first.ns and np.array_equal(one.scored.group, first.scored.group)
        if not alike or not np.array_equal(one.scored.candidates.size, first.scored.candidates.size):
            raise InvalidInputError(
                "over-optimisation needs judges of the same ns, prompt groups and numbers of candidates for all draws"
            )
    return judges


def _gold_facts(judges: Sequence[ChoiceJudge]) -> dict[str, Any]:
    """Facts of gold, means over the draws."""
    facts = [one.scored.gold_facts for one in judges]
    made = facts[0] | {key: float(np.mean([one[key] for one in facts])) for key in ("mean", "sd", "within_sd")}
    ends = {"low": min(one["low"] for one in facts), "high": max(one["high"] for one in facts)}
    return made | ends | {"binary": all(one["binary"] for one in facts)}


def _gold_of(judge: ChoiceJudge) -> Array:
    """Gold as rewards of all responses; zero where it is not asked about."""
    out = np.zeros(judge.responses.n_responses)
    out[judge.scored.candidates.rows] = judge.scored.gold
    return out


def _halves(group: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Every other prompt group, by name."""
    halves: NDArray[np.bool_] = np.unique(group, return_inverse=True)[1] % 2 == 0
    return halves


def _checked(curves: Mapping[str, Mapping[str, Sequence[Any]]], reference: str) -> tuple[list[str], list[str], int]:
    levels = list(curves)
    if not levels or not curves[levels[0]]:
        raise InvalidInputError("over-optimisation needs curves of at least one model at one level, got none")
    models = list(curves[levels[0]])
    if reference not in models:
        raise unknown_name("reference of over-optimisation", reference, models)
    n_draws = len(curves[levels[0]][models[0]])
    for level in levels:
        if list(curves[level]) != models or any(len(curves[level][m]) != n_draws for m in models) or not n_draws:
            raise InvalidInputError(
                f"over-optimisation needs the same models at every level, each with as many draws; {level!r} has others"
            )
    return levels, models, n_draws


def _grid(ns: Sequence[int] | None, scored: Scored) -> list[int]:
    size = scored.candidates.size
    if ns is None:
        most = int(np.sort(size)[len(size) // 2])
        return list(range(1, most + 1)) if most <= 16 else sorted({*(n for n in SUN_NS if n < most), most})
    grid = list(ns)
    if not grid or any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1 for n in grid):
        raise InvalidInputError("best-of-n needs ns to be a list of whole numbers from 1")
    if max(grid) > size.max():
        raise InvalidInputError(
            f"best of {max(grid)} was asked for, and no prompt has more than {int(size.max())} candidates with gold; ask "
            "for less"
        )
    return sorted({1, *(int(n) for n in grid)})
