"""The claims of Sun et al. (2025) and of the study behind it, and how each is judged.

They were stated before they were measured, but for two that say so: keeping ranks across prompts, and the released layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedrm.evaluation.claims import Claim, Region
from embedrm.experiments.reuse_arms import CROSS, row_of
from embedrm.experiments.reuse_cost import THERE
from embedrm.experiments.reuse_plan import (
    BT_MLP,
    CLF_GBDT,
    CLF_MLP,
    DIVERSIFIED,
    MIXED,
    MOST_PARAMETERS,
    RANDOM,
    THEIRS,
)

PAPER = "Sun et al. (2025)"
BEHIND = "Sun, Shen and Ton (2024)"
HERE = "analogue"
MINUTES = 300.0
NOISY = 0.10
"""Share of wrong labels above which the classifier is said to be more robust."""
HARM = 0.05
"""Standard deviations of gold that may be lost and still not be called a harm."""

SIZE = Claim(
    "embedding-models-small",
    "Embedding reward models have fewer than 0.6 million parameters",
    f"{PAPER}, as summaries restate it (the released code has 2.62 million)",
    HERE,
    "million parameters of the largest of the paper's models at its size of vectors; the layers were chosen here to fit, so "
    "that this could hardly fail",
    Region(most=MOST_PARAMETERS / 1e6),
)
SMALL_ENOUGH = Claim(
    "smaller-chooses-no-worse",
    "At that size the Bradley-Terry perceptron chooses no worse than with the released code's layers",
    "not in the paper; asked here, after the first results, since the size was ours to choose",
    HERE,
    f"gold of the best of the largest n at the centre, {BT_MLP} less the same with layers of 1,024 and 512",
    Region(least=-HARM),
)
TIME = Claim(
    "embedding-models-minutes",
    "They train in 1 to 5 minutes on a CPU",
    f"{PAPER}, as summaries restate it",
    HERE,
    "seconds of the slowest of the paper's models on 10,000 pairs of 2,048 dimensions, one fit, this machine",
    Region(most=MINUTES, closed=True),
)


def robust(model: str) -> Claim:
    """Return the claim that a classifier is better under noise."""
    return Claim(
        f"clf-better-under-noise-{model.lower()}",
        f"Above about 10 % label error {model} chooses better than {BT_MLP}",
        f"{BEHIND}, annotation quality, as summaries restate it",
        HERE,
        f"gold of the best of the largest n, {model} less {BT_MLP}, at every level of noise with more than {NOISY:.0%} of "
        "the labels wrong; the level that decides",
        Region(least=0.0),
    )


def loses_less(model: str) -> Claim:
    """Return the claim that a classifier loses less by noise."""
    return Claim(
        f"clf-loses-less-{model.lower()}",
        f"{model} loses less to label noise than {BT_MLP}",
        f"{BEHIND}, annotation quality, as summaries restate it",
        HERE,
        f"gold of the best of the largest n, {model} less {BT_MLP}: at the noisiest level less at the cleanest",
        Region(least=0.0),
    )


CLEAN = Claim(
    "bt-better-when-clean",
    "Below about 10 % label error the Bradley-Terry perceptron is slightly better",
    f"{BEHIND}, annotation quality, as summaries restate it",
    HERE,
    f"gold of the best of the largest n, {BT_MLP} less {CLF_MLP}, at every level with at most {NOISY:.0%} of the labels "
    "wrong; the level that decides",
    Region(least=0.0),
)
HARMLESS = Claim(
    "cross-prompt-never-harms",
    "Comparing across prompts never harms, where ranks are kept",
    f"{BEHIND}, cross-prompt comparisons, as summaries restate it; keeping ranks is our second reading, added after the "
    "first (ranks not kept) had been seen to fail",
    HERE,
    f"gold of the best of the largest n, across prompts less same prompt, each of {', '.join(THEIRS)} and each selection "
    "of responses, the worst against the best of another prompt; a reading added after the first had been seen to fail; the "
    "one that decides",
    Region(least=-HARM),
)
HARMLESS_MIXED = Claim(
    "cross-prompt-never-harms-ranks-not-kept",
    "Comparing across prompts never harms, where the worst and the best responses are matched at random",
    f"{BEHIND}, cross-prompt comparisons, as summaries restate it; how responses are matched there is our first reading",
    HERE,
    f"gold of the best of the largest n, across prompts less same prompt, each of {', '.join(THEIRS)}; the first reading of "
    "how responses are matched; the one that decides",
    Region(least=-HARM),
)


def most_when_similar(other: str) -> Claim:
    """Return the claim on where comparing across prompts helps most."""
    named = {RANDOM: "random", DIVERSIFIED: "the worst and the best"}[other]
    return Claim(
        f"cross-prompt-most-when-similar-{other}",
        f"It helps more where the two responses to a prompt are similar than where they are {named}",
        f"{BEHIND}, cross-prompt comparisons, as summaries restate it",
        HERE,
        f"gain by comparing across prompts, similar less {other}, each of {', '.join(THEIRS)}; the one that decides",
        Region(least=0.0),
    )


ENSEMBLES = Claim(
    "ensembles-mitigate",
    "Ensembles mitigate over-optimisation",
    f"{PAPER}, case study of ensembles (after Coste et al. 2024)",
    HERE,
    "gold lost between the peak over n and the largest n, ensemble less single model, at the noisiest level; of mean, WCO "
    "and UWO the one that decides",
    Region(most=0.0),
)
BETTER_CHOICE = Claim(
    "ensembles-choose-better",
    "Under noise ensembles choose better than a single model",
    f"{PAPER}, case study of ensembles (after Coste et al. 2024)",
    HERE,
    "gold of the best of the largest n, ensemble less single model, at the noisiest level; of mean, WCO and UWO the one "
    "that decides",
    Region(least=0.0),
)
MOST_UNDER_NOISE = Claim(
    "ensembles-most-under-noise",
    "They help most under label noise",
    f"{PAPER}, case study of ensembles (after Coste et al. 2024)",
    HERE,
    "gold of the best of the largest n, ensemble less single model: at the noisiest level less at the cleanest; of mean, "
    "WCO and UWO the one that decides",
    Region(least=0.0),
)


def judge_reuse(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Judge every claim that the facts of a study can decide.

    Parameters
    ----------
    facts : mapping
        ``cost`` (rows), ``noise`` (facts with :data:`BT_MLP` as reference), ``errors`` (level to share of wrong
        labels), ``crossed`` (model to facts over selections), ``similar`` (selection to model to a cell: the gain where
        responses are similar less that where they are not), ``ensembles`` (facts) and ``wide`` (facts with :data:`WIDE` as
        reference).

    Notes
    -----
    That ensembles mitigate over-optimisation is judged only where there is some: where the single model loses gold after
    its peak, by the whole interval, at the noisiest level. Otherwise the claim is left out.
    """
    return [
        *_cost(facts["cost"]),
        _judged(SMALL_ENOUGH, _last(facts["wide"], facts["wide"]["levels"][0], BT_MLP)),
        *_noise(facts["noise"], facts["errors"]),
        *_pairing(facts["crossed"], facts["similar"]),
        *_ensembles(facts["ensembles"]),
    ]


def _cost(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    theirs = [row for row in rows if row["size"] == THERE and row["model"] in THEIRS]
    if not theirs:
        return []
    return [
        SIZE.judge(max(row["parameters"] for row in theirs) / 1e6),
        TIME.judge(max(row["seconds"] for row in theirs)),
    ]


def _noise(facts: Mapping[str, Any], errors: Mapping[str, float]) -> list[dict[str, Any]]:
    noisy = [level for level in facts["levels"] if errors[level] > NOISY]
    clean = [level for level in facts["levels"] if errors[level] <= NOISY]
    out = []
    for model in (CLF_MLP, CLF_GBDT):
        if noisy:
            out.append(robust(model).all_of([_last(facts, level, model) for level in noisy]))
        change = next(one for one in facts["changes"] if one["model"] == model)
        out.append(_judged(loses_less(model), change["gold"]))
    if clean:
        out.append(CLEAN.all_of([_turned(_last(facts, level, CLF_MLP)) for level in clean]))
    return out


def _pairing(
    crossed: Mapping[str, Mapping[str, Any]], similar: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    gains = {
        level: [_last(facts, level, CROSS) for model, facts in crossed.items() if model in THEIRS]
        for level in next(iter(crossed.values()))["levels"]
    }
    out = [HARMLESS.all_of([cell for level, cells in gains.items() if level != MIXED for cell in cells])]
    out += [HARMLESS_MIXED.all_of(gains[MIXED])] if MIXED in gains else []
    for other in (RANDOM, DIVERSIFIED):
        out.append(most_when_similar(other).all_of([similar[other][m] for m in crossed if m in THEIRS]))
    return out


def _ensembles(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    worst = facts["levels"][-1]
    others = [model for model in facts["models"] if model != facts["reference"]]
    rows = [row_of(facts, "differences", worst, model) for model in others]
    lost = row_of(facts, "rows", worst, facts["reference"])["lost"]
    some = lost["low"] is not None and lost["low"] > 0
    return [
        *([ENSEMBLES.all_of([row["lost"] for row in rows])] if some else []),
        BETTER_CHOICE.all_of([row["gold"][-1] for row in rows]),
        MOST_UNDER_NOISE.all_of([one["gold"] for one in facts["changes"]]),
    ]


def _last(facts: Mapping[str, Any], level: str, model: str) -> dict[str, Any]:
    """What a model has over the reference at the largest n."""
    cell: dict[str, Any] = row_of(facts, "differences", level, model)["gold"][-1]
    return cell


def _turned(cell: Mapping[str, Any]) -> dict[str, Any]:
    low, high = cell["low"], cell["high"]
    return {
        "value": -cell["value"],
        "low": None if high is None else -high,
        "high": None if low is None else -low,
    }


def _judged(claim: Claim, cell: Mapping[str, Any]) -> dict[str, Any]:
    return claim.judge(cell["value"], cell["low"], cell["high"])
