"""The claims of Lin et al. (2024) on merging encoders, stated before they are measured, and how each is judged here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedrm.evaluation.claims import Claim, Region
from embedrm.experiments.routing_claims import COMPARABLE_POINT

PAPER = "Lin et al. (2024)"
RANGE = (0.2, 0.5)
_NUMBERS = {"math": "RewardBench math 58.5 to 69.9 or 75.5", "code": "RewardBench code 72.6 to 78.0"}
ENCODERS, TABLES = "re-implementation", "analogue"


def rises(target: str) -> Claim:
    """Return the claim on a target's own test pairs, merged encoders."""
    return Claim(
        f"dogerm-rises-{target}",
        f"Merging with a {target} model raises the accuracy on {target}",
        f"{PAPER}, main results ({_NUMBERS.get(target, 'no such domain there')}, as summaries restate it)",
        ENCODERS,
        f"accuracy on {target} test pairs at the λ chosen on validation, less that at λ = 0",
        Region(least=0.0),
    )


def kept(target: str) -> Claim:
    """Return the claim on all other domains."""
    return Claim(
        f"dogerm-keeps-others-{target}",
        f"Merging with a {target} model costs nothing significant in other domains",
        f"{PAPER}, main results, as summaries restate it",
        ENCODERS,
        f"accuracy in the other domains (macro) at the λ chosen for {target}, less that at λ = 0",
        Region(least=-COMPARABLE_POINT),
    )


BEST_LAMBDA = Claim(
    "dogerm-best-lambda",
    "The best λ lies between 0.2 and 0.5",
    f"{PAPER}, analysis of λ, as summaries restate it",
    ENCODERS,
    "lambda chosen on validation pairs, its interval that of resampled validation pairs; the target that decides",
    Region(*RANGE, closed=True),
)


def second(target: str) -> Claim:
    """Return the claim on another architecture."""
    return Claim(
        f"dogerm-second-architecture-{target}",
        f"The gain on {target} is found on a second architecture too",
        f"{PAPER}, a Mistral reward model (RewardBench math 44.7 to 75.7, as summaries restate it)",
        TABLES,
        f"static token tables: accuracy on {target} test pairs at the λ chosen on validation, less that at λ = 0",
        Region(least=0.0),
    )


def best_of_n(target: str) -> Claim:
    """Return the claim on choosing among candidates."""
    return Claim(
        f"dogerm-best-of-n-{target}",
        f"The merged reward chooses better among candidates on {target}",
        f"{PAPER}, best of 16 (GSM8K 49.0 to 54.0, as summaries restate it)",
        ENCODERS,
        f"gold of the best of n on {target} test prompts, merged at the chosen λ less general alone, at the largest n "
        "that half of the prompts serve",
        Region(least=0.0),
    )


def judge_merging(
    sweeps: Mapping[str, Mapping[str, Any]],
    static: Mapping[str, Mapping[str, Any]],
    chosen_gold: Mapping[str, Mapping[str, float]],
) -> list[dict[str, Any]]:
    """Judge the claims that encoder-level merging can decide.

    Parameters
    ----------
    sweeps, static : mapping of target to facts
        :func:`embedrm.experiments.merging_curves.sweep_facts` of encoders that both moved, and of static token tables.
    chosen_gold : mapping of target to cell
        Gold of the merged model's choice less that of the general model's, for targets whose candidates are graded.
    """
    found = [_judge(rises(name), facts, "target", "micro") for name, facts in sweeps.items()]
    found += [
        _judge(kept(name), facts, "others", "macro") for name, facts in sweeps.items() if facts["compared"]["others"]
    ]
    chosen = [facts["chosen"] for facts in sweeps.values()]
    found.append(BEST_LAMBDA.all_of([{"value": c["lambda"], "low": c["low"], "high": c["high"]} for c in chosen]))
    found += [best_of_n(name).judge(c["value"], c["low"], c["high"]) for name, c in chosen_gold.items()]
    return found + [_judge(second(name), facts, "target", "micro") for name, facts in static.items()]


def _judge(claim: Claim, facts: Mapping[str, Any], part: str, mean: str) -> dict[str, Any]:
    cell = facts["compared"][part][mean]
    return claim.judge(cell["value"], cell["low"], cell["high"])
