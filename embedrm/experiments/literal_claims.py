"""The claims of Namgoong et al. (2024) on tuned encoders: the same statements, measured on a re-implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from embedrm.evaluation.claims import Claim
from embedrm.experiments import routing_claims
from embedrm.experiments import variants as v
from embedrm.experiments.literal_arms import ARLISS, MORE, RODOS, SINGLE

ENDING = "-tuned"
_ANALOGUES = {RODOS: v.RODOS, MORE: v.MORE, ARLISS: v.ARLISS}


def literal(claim: Claim, quantity: str) -> Claim:
    """Return a claim as it is measured on tuned encoders."""
    return replace(claim, id=claim.id + ENDING, setting="re-implementation", quantity=quantity)


def judge_literal(
    compared: Mapping[tuple[str, str], Mapping[str, Any]], sizes: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Judge the claims that tuned encoders can decide.

    Parameters
    ----------
    compared : mapping of (variant, variant) to comparison facts
        By the names of tuned variants (``"RODOS, tuned"``).
    sizes : sequence of dict
        :func:`embedrm.experiments.literal_scores.tuned_sizes`.
    """

    def macro(a: str, b: str) -> Mapping[str, float]:
        cell: Mapping[str, float] = compared[f"{a}, tuned", f"{b}, tuned"]["macro"]
        return cell

    saved = {row["variant"]: row["reduction"] for row in sizes}
    best = literal(
        routing_claims.MOST_ACCURATE, "accuracy of tuned RODOS less that of the better of tuned MoRE and ARLISS (macro)"
    )
    facts = [best.all_of([macro(RODOS, other) for other in (MORE, ARLISS)])]
    for name, analogue in _ANALOGUES.items():
        claim = literal(
            routing_claims.COMPARABLE[analogue], f"accuracy of tuned {name} less that of one tuned encoder (macro)"
        )
        cell = macro(name, SINGLE)
        facts.append(claim.judge(cell["value"], cell["low"], cell["high"]))
    for name in (MORE, ARLISS):
        claim = literal(
            routing_claims.SAVING[_ANALOGUES[name]],
            f"share of parameters saved by {name} against RODOS, counted in the saved models",
        )
        facts.append(claim.judge(saved[name]))
    return facts


def beside(claims: Sequence[dict[str, Any]], tuned: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return both lists as one, each claim on tuned encoders right after its analogue, or at the end without one."""
    waiting = {claim["id"]: claim for claim in tuned}
    joined = []
    for claim in claims:
        joined.append(claim)
        other = waiting.pop(claim["id"] + ENDING, None)
        joined += [] if other is None else [other]
    return [*joined, *waiting.values()]
