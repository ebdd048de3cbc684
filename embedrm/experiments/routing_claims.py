"""The claims of Namgoong et al. (2024), and how each is judged here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedrm.evaluation.claims import Claim, Region
from embedrm.experiments.variants import ARLISS, MORE, RODOS, SINGLE

PAPER = "Namgoong et al. (2024)"
COMPARABLE_POINT = 0.01
"""A loss of less than one point of accuracy counts as comparable."""

MOST_ACCURATE = Claim(
    "rodos-most-accurate",
    "RODOS is the most accurate of the three variants",
    f"{PAPER}, main result, as summaries restate it",
    "analogue",
    "accuracy of RODOS less that of the better of MoRE and ARLISS (macro)",
    Region(least=0.0),
)
COMPARABLE = {
    name: Claim(
        f"{key}-comparable",
        f"{key} is comparable to one reward model for all domains",
        f"{PAPER}, abstract",
        "analogue",
        f"accuracy of {key} less that of the single head (macro)",
        Region(least=-COMPARABLE_POINT),
    )
    for key, name in (("RODOS", RODOS), ("MoRE", MORE), ("ARLISS", ARLISS))
}
SAVING = {
    name: Claim(
        f"{key.lower()}-halves-parameters",
        f"{key} needs about half of the parameters ({figure} fewer)",
        f"{PAPER}, reduction of the total parameter size, as summaries restate it",
        "analogue",
        f"share of parameters saved by {key} against RODOS, each model with an encoder of its own as in the paper",
        Region(least=0.5, closed=True),
    )
    for key, name, figure in (("MoRE", MORE, "52 %"), ("ARLISS", ARLISS, "55 %"))
}
UNCHANGED = Claim(
    "domains-extensible",
    "A domain is added without training the others again",
    f"{PAPER}, motivation of external routers",
    "analogue",
    "largest change of another expert's reward when a domain is added",
    Region(0.0, 0.0, closed=True),
)
AS_GOOD = Claim(
    "added-as-good",
    "A domain that is added later is served as if it had been there from the start",
    f"{PAPER}, motivation of external routers",
    "analogue",
    "accuracy with a domain added less that of training on all, over all test pairs",
    Region(least=-COMPARABLE_POINT),
)


def judge(
    compared: Mapping[tuple[str, str], Mapping[str, Any]],
    accounting: Sequence[Mapping[str, Any]],
    added: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Judge every claim.

    Parameters
    ----------
    compared : mapping of (variant, variant) to comparison facts
        :func:`embedrm.evaluation.comparison_facts` of RODOS against MoRE and ARLISS, and of the three against the single
        head.
    accounting : sequence of dict
        :func:`embedrm.experiments.accounting.accounting_rows`; where the encoder has no weights (or their number is not
        known), no copy of it can be saved, and the claims on parameters are left out.
    added : sequence of dict
        :func:`embedrm.experiments.domain_changes.added_domain_facts`; without any, its claims are left out.
    """
    saved = {row["variant"]: row["reduction_paper"] for row in accounting}
    facts = [MOST_ACCURATE.all_of([compared[RODOS, other]["macro"] for other in (MORE, ARLISS)])]
    for name, claim in COMPARABLE.items():
        cell = compared[name, SINGLE]["macro"]
        facts.append(claim.judge(cell["value"], cell["low"], cell["high"]))
    if all(row["shared"] > row["heads"] for row in accounting):
        facts += [claim.judge(saved[name]) for name, claim in SAVING.items()]
    if added:
        facts.append(UNCHANGED.judge(max(row["changed"] for row in added)))
        facts.append(AS_GOOD.all_of([row["difference"] for row in added]))
    return facts
