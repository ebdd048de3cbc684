"""The claims of Lin et al. (2024) that merged trunks on frozen vectors can decide, as an analogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedrm.evaluation.claims import Claim, Region

PAPER = "Lin et al. (2024)"
COMPARABLE = 0.01
"""A loss of less than one point of accuracy counts as none."""

RISES = Claim(
    "doge-target-rises-trunk",
    "Merging in a domain model makes the reward model more accurate in that domain",
    f"{PAPER}, main result on math and code",
    "analogue",
    "accuracy of the merged trunk at the λ chosen on validation less that of the general model (mean of the targets)",
    Region(least=0.0),
)
KEPT = Claim(
    "doge-others-kept-trunk",
    "Other domains lose nothing that matters",
    f"{PAPER}, as summaries restate it",
    "analogue",
    "accuracy in the general model's own domains at the chosen λ less that at λ = 0 (macro), the worst target",
    Region(least=-COMPARABLE),
)
BEST_LAMBDA = Claim(
    "doge-lambda-trunk",
    "The best λ lies between 0.2 and 0.5",
    f"{PAPER}, as summaries restate it",
    "analogue",
    "lambda chosen on validation, and what resampled validation pairs would choose; the worst target",
    Region(0.2, 0.5, closed=True),
)


def judge_heads(gain: Mapping[str, float], levels: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Judge the claims.

    Parameters
    ----------
    gain : mapping
        Cell (value, low, high): change of accuracy at the chosen λ, each target counting once.
    levels : sequence of dict
        :func:`embedrm.experiments.merging_head_curves.lambda_facts` of each target, of one level.
    """
    claims = [RISES.judge(gain["value"], gain["low"], gain["high"])]
    changes = [own["change"]["others"] for own in levels]
    cells = [change[own["chosen"]["index"]] for change, own in zip(changes, levels) if change is not None]
    claims += [KEPT.all_of(cells)] if cells else []
    chosen = [{"value": own["chosen"]["lambda"], **{k: own["chosen"][k] for k in ("low", "high")}} for own in levels]
    return [*claims, BEST_LAMBDA.all_of(chosen)]
