"""What the Reusing-Embeddings study is run on: generated arrays with known gold, and encoded data with graded responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.annotation import annotate
from embedrm.datasets.candidate_arrays import map_candidates
from embedrm.datasets.drawing import draw_pairs
from embedrm.datasets.gold import with_gold
from embedrm.datasets.teachers import Teacher
from embedrm.evaluation.over_optimisation import ChoiceJudge
from embedrm.experiments.reuse_plan import Arm, ReusePreset
from embedrm.numerics.annotation import GLOBAL_STD, KEY, Annotator
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses

CENTRE = Teacher(256, "network")
"""Gold of the centre: a network of one hidden layer over normal vectors."""
PEAKED = Teacher(256, "peaked", tail=6.0)
"""Gold that falls again far out, over vectors with heavy tails: where more is not always better."""


@dataclass
class Setting:
    """Responses to train on, candidates to choose among, and their judge.

    Parameters
    ----------
    name : str
    train : EmbeddedResponses
        With gold; one view.
    judge : ChoiceJudge
        Of the candidates, with the unbiased estimator.
    told : str
        What it is, in words.
    """

    name: str
    train: EmbeddedResponses
    judge: ChoiceJudge
    told: str

    @property
    def candidates(self) -> EmbeddedResponses:
        """Return the candidates."""
        return self.judge.responses

    def annotator(self, arm: Arm) -> Annotator:
        """Return the annotator of an arm, on the scale of all training responses, whichever of them are shown."""
        return Annotator(beta=arm.beta, scale=GLOBAL_STD).on_scale_of(self.train.gold)

    def pairs(self, arm: Arm, seed: int) -> EmbeddedPreferences:
        """Draw the pairs of an arm, rightly labelled.

        Across prompts, the responses are those that the same seed shows of one prompt, matched anew within their domain,
        and there are as many pairs, so that nothing but the matching differs.
        """
        drawn = draw_pairs(self.train, arm.selection, arm.n, random_state=seed)
        if not arm.cross:
            return drawn
        shown = np.full(self.train.n_responses, np.nan)
        shown[drawn.active] = self.train.gold[drawn.active]
        only = with_gold(self.train, shown, source=f"responses shown by {arm.selection}")
        return draw_pairs(only, {"name": "cross-prompt", "same_domain": True}, arm.n, random_state=seed)

    def labelled(self, arm: Arm, seed: int) -> tuple[EmbeddedPreferences, dict[str, float]]:
        """Draw and annotate; returns the pairs and what is known of their labels.

        The facts are ``error``, the expected share of wrong labels, ``wrong``, the share drawn, and ``gap``, the mean
        absolute difference of gold, in standard deviations of gold.
        """
        pairs, annotator = self.pairs(arm, seed), self.annotator(arm)
        gap = pairs.margin
        noisy = annotate(pairs, annotator, random_state=seed)
        scale = float(annotator.scale)
        return noisy, {
            "error": float((1.0 - annotator.agreement(gap)).mean()),
            "wrong": noisy.responses.info[KEY]["flipped"] / len(noisy),
            "gap": float(np.abs(gap).mean()) / scale,
        }


def generated(
    preset: ReusePreset, teacher: Teacher = CENTRE, *, alike: float = 0.5, name: str = "generated arrays"
) -> Setting:
    """Make arrays of candidates by a teacher of the preset's width."""
    made = resized(teacher, preset.dim, alike)
    train = map_candidates(*made.arrays("train", preset.n_train, preset.k_train), split="train")
    test = map_candidates(*made.arrays("test", preset.n_test, preset.k_test), split="test")
    told = (
        f"{name}: vectors of {preset.dim:,}, {preset.n_train:,} training prompts with {preset.k_train} candidates and "
        f"{preset.n_test:,} test prompts with {preset.k_test}; gold by a {made.kind} of one hidden layer, standard "
        f"deviation 1, {made.alike:.0%} of the vectors' variance shared by the responses to a prompt"
    )
    return Setting(name, train, ChoiceJudge(test, ns=[n for n in preset.ns if n <= preset.k_test]), told)


def resized(teacher: Teacher, dim: int, alike: float = 0.5) -> Teacher:
    """Return the teacher for another width."""
    return Teacher(
        dim,
        teacher.kind,
        width=teacher.width,
        alike=alike,
        tail=teacher.tail,
        random_state=teacher.random_state,
    )


def encoded(train: EmbeddedPreferences, test: EmbeddedPreferences, name: str, view: str) -> Setting | None:
    """Make a setting of graded data; None where they have no gold, or no prompt with gold that differs.

    Gold is standardised within each domain over all responses, so that a beta means one thing in all of them.
    """
    parts = [_graded(part, split, view) for part, split in ((train, "train"), (test, "test"))]
    if parts[0] is None or parts[1] is None:
        return None
    first, second = parts[0], parts[1]
    told = (
        f"{name}: {first.n_prompts:,} training and {second.n_prompts:,} test prompts with graded responses; the view "
        f"{view}, gold standardised within domains"
    )
    return Setting(name, first, ChoiceJudge(second), told)


def _graded(part: EmbeddedPreferences, split: str, view: str) -> EmbeddedResponses | None:
    """Responses to the prompts of one split whose gold is known and differs, as a matrix of their own."""
    responses = part.responses
    own = np.isin(responses.prompt_of, np.unique(part.prompt_rows)) & ~np.isnan(responses.gold)
    rows = np.flatnonzero(own)
    if not len(rows):
        return None
    gold = _standard(responses.gold[rows], responses.domain[responses.prompt_of[rows]])
    prompts, prompt_of = np.unique(responses.prompt_of[rows], return_inverse=True)
    low, high = np.full(len(prompts), np.inf), np.full(len(prompts), -np.inf)
    np.minimum.at(low, prompt_of, gold)
    np.maximum.at(high, prompt_of, gold)
    varied = high > low
    if varied.sum() < 2:
        return None
    kept = varied[prompt_of]
    info: dict[str, Any] = {key: responses.info[key] for key in ("data", "encoder") if key in responses.info}
    return EmbeddedResponses(
        {"response:final": np.asarray(responses.view(view)[rows[kept]])},
        np.unique(prompt_of[kept], return_inverse=True)[1],
        domain=responses.domain[prompts[varied]],
        group=responses.group[prompts[varied]],
        split=np.full(int(varied.sum()), split),
        gold=gold[kept],
        info=info,
    )


def _standard(gold: NDArray[np.float64], domain: NDArray[np.str_]) -> NDArray[np.float64]:
    made = np.empty(len(gold))
    for name in np.unique(domain):
        here = domain == name
        spread = float(gold[here].std())
        made[here] = (gold[here] - gold[here].mean()) / (spread if spread > 0 else 1.0)
    return made
