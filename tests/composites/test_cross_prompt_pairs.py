"""Pairs across prompts: who compares them, and who refuses, however deep the model that gates by prompt is inside."""

import numpy as np
import pytest

from embedrm import (
    CalibratedRewardModel,
    EmbeddedPreferences,
    EnsembleRewardModel,
    LinearHead,
    MergedRewardModel,
    MixtureRewardModel,
    RoutedRewardModel,
    draw_pairs,
)
from embedrm.errors import InvalidInputError


def world(n_prompts=60, k=4, seed=0):
    rng = np.random.default_rng(seed)
    domain = np.where(np.arange(n_prompts) % 2, "odd", "even")
    response, prompt = rng.normal(size=(n_prompts * k, 4)), rng.normal(size=(n_prompts, 3))
    prompt[:, 0] += np.where(domain == "odd", 2.0, -2.0)
    return EmbeddedPreferences.from_arrays(
        {"response:final": response},
        prompt={"prompt:final": prompt},
        prompt_of=np.repeat(np.arange(n_prompts), k),
        rewards=response @ [1.0, -1.0, 0.5, 0.0],
        domain=domain,
    )


ROUTED = RoutedRewardModel(LinearHead(l2=0.1), calibrate=False)
CALIBRATED = RoutedRewardModel(LinearHead(l2=0.1), calibrate=True)
MIXTURE = MixtureRewardModel(n_experts=2, l2=0.1)
REFUSING = {
    "routed": ROUTED,
    "mixture": MIXTURE,
    "ensemble of routed": EnsembleRewardModel(ROUTED, n_members=2),
    "ensemble of mixtures": EnsembleRewardModel(MIXTURE, n_members=2),
    "calibrated mixture": CalibratedRewardModel(MIXTURE, cv=2),
    "ensemble of calibrated mixtures": EnsembleRewardModel(CalibratedRewardModel(MIXTURE, cv=2), n_members=2),
    "calibrated ensemble of routed": CalibratedRewardModel(EnsembleRewardModel(ROUTED, n_members=2), cv=2),
    "merged": MergedRewardModel([("one", LinearHead(l2=0.1)), ("two", ROUTED)]),
    "calibrated routed with mixtures inside": RoutedRewardModel(MIXTURE, cv=2),
    "ensemble of merged": EnsembleRewardModel(
        MergedRewardModel([("a", ROUTED), ("b", LinearHead(l2=1.0))]), n_members=2
    ),
}
COMPARING = {
    "linear": LinearHead(l2=0.1),
    "calibrated routed": CALIBRATED,
    "ensemble of calibrated routed": EnsembleRewardModel(CALIBRATED, n_members=2),
    "mixture of one": MixtureRewardModel(n_experts=1, l2=0.1),
}


@pytest.mark.parametrize("name", REFUSING)
def test_models_that_gate_by_prompt_refuse_pairs_across_prompts(name):
    within = world()
    across = draw_pairs(within, "cross-prompt")
    message = f"{len(across)} of {len(across)} pairs compare responses to different prompts"
    with pytest.raises(InvalidInputError, match=r"\d+ of \d+ pairs compare responses to different prompts"):
        REFUSING[name].fit(across)
    fitted = REFUSING[name].fit(within)
    assert np.isfinite(fitted.margins(within)).all()
    for call in ("margins", "margin_uncertainty", "predict_proba", "score"):
        if hasattr(fitted, call):
            with pytest.raises(InvalidInputError, match=message):
                getattr(fitted, call)(across)


@pytest.mark.parametrize("name", COMPARING)
def test_models_on_one_scale_compare_them(name):
    within = world()
    across = draw_pairs(within, "cross-prompt", 120)
    assert COMPARING[name].fit(across).score(across) > 0.8
    assert np.isfinite(COMPARING[name].fit(within).margins(across)).all()
