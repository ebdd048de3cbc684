"""What the Reusing-Embeddings study is run on: generated arrays with known gold, and encoded data with graded responses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.annotation import annotate
from embedrm.datasets.candidate_arrays import map_candidates
from embedrm.datasets.drawing import draw_pairs
from embedrm.datasets.teachers import Teacher
from embedrm.errors import InvalidInputError
from embedrm.evaluation.over_optimisation import ChoiceJudge
from embedrm.experiments.reuse_plan import RANDOM, Arm, ReusePreset
from embedrm.numerics.annotation import GLOBAL_STD, KEY, Annotator
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses

CENTRE = Teacher(256, "network")
"""Gold of the centre: a network of one hidden layer over normal vectors."""
PEAKED = Teacher(256, "peaked", tail=6.0)
"""Gold that falls again far out, over vectors with heavy tails: where more is not always better."""

_MATCHING = 0x5EED
_ROUNDS = 200


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

        Across prompts, the first response of each pair meets the second of another one, of the same domain: the middle
        responses each other, the worst of one prompt the best of another. Every response is shown as often as within
        prompts, so that nothing but the matching differs. First and second of a random pair, and of
        pairs whose ranks are not kept, are in random order.
        """
        drawn = draw_pairs(self.train, arm.selection, arm.n, random_state=seed)
        if not arm.cross:
            return drawn
        rng = np.random.default_rng([seed, _MATCHING])
        pairs = drawn.pairs
        loose = arm.selection == RANDOM or not arm.ranks
        if loose:
            turned = rng.random(len(pairs)) < 0.5
            pairs = np.where(turned[:, None], pairs[:, ::-1], pairs)
        return _ordered(self.train, rematched(self.train, pairs, rng, roles=not loose))

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
        f"{preset.n_test:,} test prompts with {preset.k_test}; gold by a teacher of the kind {made.kind}, "
        f"standard deviation 1, {made.alike:.0%} of the vectors' variance shared by the responses to a prompt"
    )
    return Setting(name, train, ChoiceJudge(test, ns=[n for n in preset.ns if n <= preset.k_test]), told)


@dataclass(frozen=True)
class Recipe:
    """How the arrays of one seed are made: small enough to be sent to another process, which makes them there."""

    preset: ReusePreset
    teacher: Teacher = CENTRE
    alike: float = 0.5
    name: str = "generated arrays"


Source = Setting | Recipe


def recipes(
    preset: ReusePreset, teacher: Teacher = CENTRE, *, alike: float = 0.5, name: str = "generated arrays"
) -> list[Recipe]:
    """Return a recipe for each seed, of the same kind: vectors and function of gold are drawn by the seed."""
    return [
        Recipe(preset, replace(teacher, random_state=teacher.random_state + seed), alike, name)
        for seed in range(preset.seeds)
    ]


def open_setting(source: Source) -> Setting:
    """Return the setting of a source; the last one that a process made is kept there."""
    return source if isinstance(source, Setting) else _made(source)


@lru_cache(maxsize=1)
def _made(recipe: Recipe) -> Setting:
    return generated(recipe.preset, recipe.teacher, alike=recipe.alike, name=recipe.name)


def rematched(
    responses: EmbeddedResponses, pairs: NDArray[np.intp], rng: np.random.Generator, roles: bool = True
) -> NDArray[np.intp]:
    """Match the first responses of pairs (n, 2) with the seconds of others of their domain, of another prompt and gold.

    Without ``roles``, a first response may end as a second one.

    Raises
    ------
    InvalidInputError
        Where no such matching is found, as in a domain with a single prompt.
    """
    domain, prompt = responses.domain[responses.prompt_of[pairs[:, 0]]], responses.prompt_of
    made = pairs.copy()

    def bad(first: NDArray[np.intp], other: NDArray[np.intp]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (prompt[first] == prompt[other]) | (responses.gold[first] == responses.gold[other])
        return found

    for name in np.unique(domain):
        here = np.flatnonzero(domain == name)
        first, other = pairs[here, 0], pairs[here, 1][rng.permutation(len(here))]
        for _ in range(_ROUNDS):
            wrong = np.flatnonzero(bad(first, other))
            if not len(wrong):
                break
            for i in wrong:
                # half of the time one that is wrong too: of two values of gold, only such two can help each other
                k = int(rng.choice(wrong)) if rng.random() < 0.5 else int(rng.integers(len(here)))
                if not roles and rng.random() < 0.5:
                    first[k], other[k] = other[k], first[k]
                swapped = other[[k, i]]
                if not bad(first[[i, k]], swapped).any():
                    other[[i, k]] = swapped
        if bad(first, other).any():
            raise InvalidInputError(
                f"the pairs of the domain {str(name)!r} cannot be matched across prompts: expected responses of different "
                f"gold to other prompts, got {len(here)} pairs; give more prompts"
            )
        made[here] = np.stack([first, other], axis=1)
    return made


def _ordered(responses: EmbeddedResponses, pairs: NDArray[np.intp]) -> EmbeddedPreferences:
    """Pairs with the response of higher gold first."""
    gap = responses.gold[pairs[:, 0]] - responses.gold[pairs[:, 1]]
    return EmbeddedPreferences(responses, np.where((gap < 0)[:, None], pairs[:, ::-1], pairs), margin=np.abs(gap))


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
