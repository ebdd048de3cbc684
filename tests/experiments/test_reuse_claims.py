"""Claims of the Reusing-Embeddings study: each verdict follows from the cells that its words name."""

from __future__ import annotations

from typing import Any

import pytest

from embedrm.experiments.reuse_arms import CROSS
from embedrm.experiments.reuse_claims import judge_reuse
from embedrm.experiments.reuse_cost import HERE, THERE
from embedrm.experiments.reuse_plan import BT_MLP, CLF_GBDT, CLF_MLP, DIVERSIFIED, LINEAR, MIXED, RANDOM, SIMILAR, WIDE

LEVELS = ["clean", "some", "noisy"]


def cell(value: float, width: float = 0.01) -> dict[str, Any]:
    return {"value": value, "low": value - width, "high": value + width, "p": 0.5}


def compared(
    levels: list[str], models: dict[str, list[float]], reference: str, lost: float = 0.0, single_lost: float = 0.5
) -> dict[str, Any]:
    """Differences by level; a decoy at a smaller n stands before what counts."""
    rows = [
        {"level": level, "model": model, "gold": [cell(-9.0), cell(values[i])], "lost": cell(lost)}
        for model, values in models.items()
        for i, level in enumerate(levels)
    ]
    changes = [{"model": model, "gold": cell(values[-1] - values[0])} for model, values in models.items()]
    single = [{"level": level, "model": reference, "lost": cell(single_lost)} for level in levels]
    return {
        "rows": single,
        "levels": levels,
        "models": [reference, *models],
        "reference": reference,
        "differences": rows,
        "changes": changes,
    }


def facts(**changed: Any) -> dict[str, Any]:
    gains = {DIVERSIFIED: 0.0, RANDOM: 0.1, SIMILAR: 0.4}
    made = {
        "cost": [
            {"size": HERE, "model": BT_MLP, "parameters": 10**9, "seconds": 10**6},
            {"size": THERE, "model": BT_MLP, "parameters": 541_057, "seconds": 20.0},
            {"size": THERE, "model": LINEAR, "parameters": 10**9, "seconds": 10**6},
        ],
        "noise": compared(LEVELS, {CLF_MLP: [-0.1, 0.1, 0.2], CLF_GBDT: [-0.5, -0.4, -0.3]}, BT_MLP),
        "errors": {"clean": 0.05, "some": 0.2, "noisy": 0.4},
        "crossed": {m: compared(list(gains), {CROSS: list(gains.values())}, "same") for m in (BT_MLP, CLF_MLP, LINEAR)},
        "similar": {other: {m: cell(0.4 - gains[other]) for m in (BT_MLP, CLF_MLP)} for other in (RANDOM, DIVERSIFIED)},
        "ensembles": compared(["clean", "noisy"], {"mean": [0.0, 0.2], "WCO": [0.1, 0.3]}, "single", lost=-0.2),
        "wide": compared(["centre"], {BT_MLP: [0.02]}, WIDE),
    }
    made["similar"] = {k: {**v, LINEAR: cell(-9.0)} for k, v in made["similar"].items()}
    return made | changed


def verdicts(found: list[dict[str, Any]]) -> dict[str, str]:
    return {claim["id"]: claim["verdict"] for claim in found}


def test_every_claim_is_judged_by_its_own_cells():
    assert verdicts(judge_reuse(facts())) == {
        "embedding-models-small": "holds",
        "embedding-models-minutes": "holds",
        "smaller-chooses-no-worse": "holds",
        "clf-better-under-noise-clf-mlp": "holds",
        "clf-loses-less-clf-mlp": "holds",
        "clf-better-under-noise-clf-lightgbm": "does not hold",
        "clf-loses-less-clf-lightgbm": "holds",
        "bt-better-when-clean": "holds",
        "cross-prompt-never-harms": "holds",
        f"cross-prompt-most-when-similar-{RANDOM}": "holds",
        f"cross-prompt-most-when-similar-{DIVERSIFIED}": "holds",
        "ensembles-mitigate": "holds",
        "ensembles-choose-better": "holds",
        "ensembles-most-under-noise": "holds",
    }


@pytest.mark.parametrize(
    ("errors", "verdict"), [({"clean": 0.11, "some": 0.2, "noisy": 0.4}, "does not hold"), (None, "holds")]
)
def test_the_line_between_clean_and_noisy_is_a_tenth_of_the_labels(errors, verdict):
    found = verdicts(judge_reuse(facts(**({} if errors is None else {"errors": errors}))))
    assert found["clf-better-under-noise-clf-mlp"] == verdict
    assert ("bt-better-when-clean" in found) == (errors is None)


def test_one_harm_is_enough_and_one_in_doubt_leaves_it_open():
    levels = [DIVERSIFIED, RANDOM, SIMILAR]
    for worst, width, verdict in ((-0.2, 0.01, "does not hold"), (-0.04, 0.03, "undecided"), (-0.03, 0.01, "holds")):
        crossed = {BT_MLP: compared(levels, {CROSS: [worst, 0.1, 0.4]}, "same")}
        crossed[BT_MLP]["differences"][0]["gold"][-1] = cell(worst, width)
        similar = {other: {BT_MLP: cell(0.1)} for other in (RANDOM, DIVERSIFIED)}
        found = judge_reuse(facts(crossed=crossed, similar=similar))
        assert verdicts(found)["cross-prompt-never-harms"] == verdict


def test_the_other_matching_is_a_claim_of_its_own():
    levels = [DIVERSIFIED, RANDOM, SIMILAR, MIXED]
    crossed = {BT_MLP: compared(levels, {CROSS: [0.0, 0.1, 0.4, -0.3]}, "same")}
    similar = {other: {BT_MLP: cell(0.1)} for other in (RANDOM, DIVERSIFIED)}
    found = verdicts(judge_reuse(facts(crossed=crossed, similar=similar)))
    assert found["cross-prompt-never-harms"] == "holds"
    assert found["cross-prompt-never-harms-ranks-not-kept"] == "does not hold"


def test_all_ensembles_must_help_and_only_the_noisiest_level_counts():
    ensembles = compared(["clean", "noisy"], {"mean": [-0.5, 0.2], "WCO": [0.3, -0.1]}, "single", lost=0.1)
    found = verdicts(judge_reuse(facts(ensembles=ensembles)))
    assert found["ensembles-choose-better"] == "does not hold"
    assert found["ensembles-most-under-noise"] == "does not hold"
    assert found["ensembles-mitigate"] == "does not hold"
    better = compared(["clean", "noisy"], {"mean": [-0.5, 0.2]}, "single", lost=-0.1)
    assert verdicts(judge_reuse(facts(ensembles=better)))["ensembles-choose-better"] == "holds"


def test_without_a_fit_at_the_papers_size_cost_is_not_judged():
    found = verdicts(judge_reuse(facts(cost=facts()["cost"][:1])))
    assert not {"embedding-models-small", "embedding-models-minutes"} & set(found)


@pytest.mark.parametrize(("single_lost", "judged"), [(0.05, True), (0.01, False), (0.0, False), (-0.1, False)])
def test_mitigation_is_judged_only_where_something_is_lost(single_lost, judged):
    """Where nothing is lost, a difference of nothing would be read as a claim that fails."""
    ensembles = compared(["clean", "noisy"], {"mean": [0.0, 0.2]}, "single", lost=0.0, single_lost=single_lost)
    found = verdicts(judge_reuse(facts(ensembles=ensembles)))
    assert ("ensembles-mitigate" in found) == judged
    assert found["ensembles-choose-better"] == "holds"


@pytest.mark.parametrize(("gap", "verdict"), [(-0.03, "holds"), (-0.05, "undecided"), (-0.3, "does not hold")])
def test_smaller_layers_are_compared_with_the_released_ones(gap, verdict):
    found = verdicts(judge_reuse(facts(wide=compared(["centre"], {BT_MLP: [gap]}, WIDE))))
    assert found["smaller-chooses-no-worse"] == verdict


def test_a_reading_added_after_a_failure_says_so():
    levels = [DIVERSIFIED, RANDOM, SIMILAR, MIXED]
    crossed = {BT_MLP: compared(levels, {CROSS: [0.0, 0.1, 0.4, -0.3]}, "same")}
    similar = {other: {BT_MLP: cell(0.1)} for other in (RANDOM, DIVERSIFIED)}
    by = {claim["id"]: claim for claim in judge_reuse(facts(crossed=crossed, similar=similar))}
    assert "added after the first had been seen to fail" in by["cross-prompt-never-harms"]["quantity"]
    assert "after the first results" in by["smaller-chooses-no-worse"]["source"]
    assert "could hardly fail" in by["embedding-models-small"]["quantity"]
