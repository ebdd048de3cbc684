"""The claims of Troshin et al. (2024) and of RAD, stated before they are measured, and how each is judged here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedrm.evaluation.claims import Claim, Region
from embedrm.experiments.prefix_synthetic import ARM_NAME, RAD_NAME, find

PAPER = "Troshin et al. (2024)"
HERE = "re-implementation"
AIM = 0.05
"""Share of RAD's shift that the gap of distilled ARM may have."""
FLAT = 0.15
"""Share by which ARM's time may change from the fewest candidates to the most and still be called constant."""

LOW_RANK = Claim(
    "rad-learns-low-rank",
    "The reward matrix that RAD learns has a rank far below the size of a state, and so of the vocabulary",
    f"{PAPER}, Fig. 1 (about 100 of 768 and 50,257, as summaries restate it)",
    HERE,
    "rank at the stated cut-off over the size of a state, its range that of random halves of the prefixes",
    Region(most=0.5),
)
BOUNDED = Claim(
    "arm-bounded-by-d",
    "ARM's reward matrix has a rank of at most the size of a state",
    f"{PAPER}, section 3.2",
    HERE,
    "rank above rounding over the size of a state",
    Region(most=1.0, closed=True),
)
STATIC = Claim(
    "linear-rad-on-means",
    "A linear RAD head on means of static vectors has a reward matrix of rank two, whatever it learns",
    "a consequence of the definitions; no claim of the paper",
    HERE,
    "rank above rounding",
    Region(most=2.0, closed=True),
)
REGULARISER = Claim(
    "regulariser-lowers-rank",
    "The random-token regulariser lowers the rank of ARM",
    f"{PAPER}, Fig. 5 (about 50 to about 15, as summaries restate it)",
    HERE,
    "rank at the stated cut-off with the regulariser over that without, distilled with baseline; range over random halves",
    Region(most=1.0),
)
DISTILLED = Claim(
    "distilled-arm-matches-rad",
    "ARM distilled from RAD steers as well as RAD at equal fluency",
    f"{PAPER}, Fig. 3 and 4 (plots)",
    HERE,
    "positive rate of ARM less that of RAD at equal perplexity, as a share of RAD's shift from no guidance",
    Region(least=-AIM),
)
BETTER = Claim(
    "distilled-arm-better-on-sentiment",
    "On sentiment distilled ARM is slightly better than its teacher",
    f"{PAPER}, Fig. 4 (plot)",
    HERE,
    "the same quantity",
    Region(least=0.0),
)
RESPONSES = Claim(
    "responses-only-lags",
    "ARM trained on responses only falls behind RAD on sentiment",
    f"{PAPER}, Fig. 4 (plot)",
    HERE,
    "positive rate of responses-only ARM less that of RAD at equal perplexity, as a share of RAD's shift",
    Region(most=0.0),
)
CONSTANT = Claim(
    "arm-time-constant",
    "ARM's time per token does not depend on the number of candidates",
    f"{PAPER}, Fig. 6",
    HERE,
    "time at the most candidates over time at the fewest, interval of the median of paired runs, shared states",
    Region(1.0 - FLAT, 1.0 + FLAT),
)
SYNTHETIC = {
    "identity": "RAD fits an identity matrix of full rank, which ARM cannot",
    "upper-triangular": "RAD fits a triangular matrix of full rank, which ARM cannot",
}


def faster(k: int) -> Claim:
    """Return the claim on speed at k candidates."""
    told, least = {20: ("about 3 times", 2.0), 80: ("about 10 times", 4.0)}.get(k, ("several times", 1.0))
    return Claim(
        f"arm-faster-{k}",
        f"At {k} candidates ARM is {told} as fast as RAD",
        f"{PAPER}, Fig. 6 (one GPU, as summaries restate it)",
        HERE,
        "RAD's time per token (all candidates in one batched pass) over ARM's, interval of the median of paired runs",
        Region(least=least),
    )


def calls(k: int) -> Claim:
    """Return the claim on what a token costs."""
    return Claim(
        f"states-per-token-{k}",
        "RAD reads a state for each candidate, ARM one for all",
        f"{PAPER}, Table 1",
        HERE,
        f"states that the reward of RAD reads a token at {k} candidates, over ARM's",
        Region(k, k, closed=True),
    )


def full_rank(matrix: str) -> Claim:
    """Return the claim on one synthetic matrix."""
    return Claim(
        f"synthetic-{matrix}",
        SYNTHETIC[matrix],
        f"{PAPER}, appendix C.1",
        HERE,
        "RAD's root mean square error over ARM's, frozen random states smaller than the matrix",
        Region(most=1.0),
    )


def judge_prefixes(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Judge every claim that the facts of a study can decide.

    Parameters
    ----------
    facts : mapping
        ``dim``; ``matrices`` (rows of :func:`embedrm.experiments.prefix_spectra.rank_row` by name),
        ``regulariser_ratio``, ``gaps`` (by arm, None where undefined), ``timing``, ``synthetic``.
    """
    by = {row["name"]: row for row in facts["matrices"]}
    dim = facts["dim"]
    found = [_share(LOW_RANK, by["RAD"]["interval"], dim), BOUNDED.judge(by["ARM distilled"]["above_rounding"] / dim)]
    found.append(STATIC.judge(float(by["RAD, linear, means of static vectors"]["above_rounding"])))
    found.append(REGULARISER.judge(**facts["regulariser_ratio"]))
    gaps = facts["gaps"]
    for claim, arm in ((DISTILLED, "ARM distilled"), (BETTER, "ARM distilled"), (RESPONSES, "ARM responses-only")):
        if gaps.get(arm) is not None:
            found.append(claim.judge(**gaps[arm]["relative"]))
    found += _timed(facts["timing"])
    for matrix in SYNTHETIC:
        rad = find(facts["synthetic"], matrix, RAD_NAME)
        found.append(full_rank(matrix).judge(rad["error"] / find(facts["synthetic"], matrix, ARM_NAME)["error"]))
    return found


def _share(claim: Claim, cell: Mapping[str, float], of: float) -> dict[str, Any]:
    return claim.judge(cell["value"] / of, cell["low"] / of, cell["high"] / of)


def _timed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    at = {(row["way"], row["k"]): row for row in rows}
    ks = sorted({row["k"] for row in rows})
    found = [CONSTANT.judge(**at["ARM", ks[-1]]["against_first"])]
    for k in ks:
        if k in (20, 80):
            found.append(faster(k).judge(**at["RAD", k]["against_arm"]))
    return [*found, calls(ks[-1]).judge(at["RAD", ks[-1]]["states"] / at["ARM", ks[-1]]["states"])]
