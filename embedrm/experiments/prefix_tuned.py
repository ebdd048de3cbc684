"""Heads on backbones: the frozen language model's own states, or copies of it that were tuned for each kind of reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embedrm.decoding.arm import ARMHead
from embedrm.decoding.base import PrefixHead
from embedrm.experiments import prefix_heads as heads_
from embedrm.experiments.prefix_data import PrefixData
from embedrm.experiments.prefix_heads import Lessons
from embedrm.experiments.prefix_tuning import LARGEST, Recorded, Tuning, tuned_model
from embedrm.language_models.model import LanguageModel
from embedrm.progress import Progress, silent

RAD, DISTILLED, RESPONSES = "RAD", "ARM distilled", "ARM responses-only"
KINDS = {RAD: "rad", DISTILLED: "arm", RESPONSES: "responses"}


@dataclass(frozen=True)
class Arm:
    """A head with the states that it was fitted on.

    Attributes
    ----------
    name : str
    head : PrefixHead
    lessons : Lessons
        States of the backbone.
    reader : LanguageModel or None
        The backbone, where it is not the guided model itself.
    teacher : PrefixHead or None
        Whose rewards of the training texts it was distilled from.
    test_teacher : PrefixHead or None
        The same teacher on test texts.
    """

    name: str
    head: Any
    lessons: Lessons
    reader: LanguageModel | None = None
    teacher: PrefixHead | None = None
    test_teacher: PrefixHead | None = None

    def row(self, head: PrefixHead | None = None, name: str | None = None) -> dict[str, Any]:
        """Facts of the head, or of another one on the same states, on test texts."""
        return heads_.head_row(name or self.name, head or self.head, self.lessons, self.test_teacher)

    def distil(self, **options: Any) -> ARMHead:
        """Distil another ARM head from the same teacher, with the same penalty."""
        return heads_.new_arm(self.lessons, self.teacher, l2=self.head.l2_, **options)


def frozen_arms(lessons: Lessons, suffix: str = "") -> tuple[dict[str, Arm], list[dict[str, Any]]]:
    """Fit RAD (a perceptron), distilled and responses-only ARM on the guided model's own states.

    Returns
    -------
    dict of str to Arm
        By the names without suffix.
    list of dict
        Penalties that were tried.
    """
    rad, tried = heads_.fit_rad(lessons)
    distilled, more = heads_.fit_arm(lessons, rad)
    responses, last = heads_.fit_arm(lessons)
    arms = {
        RAD: Arm(RAD + suffix, rad, lessons),
        DISTILLED: Arm(DISTILLED + suffix, distilled, lessons, teacher=rad, test_teacher=rad),
        RESPONSES: Arm(RESPONSES + suffix, responses, lessons),
    }
    return arms, [{**row, "head": row["head"] + suffix} for row in (*tried, *more, *last)]


def why_not_tuned(lm: LanguageModel, tuning: Tuning | None) -> str:
    """Return why no backbone is tuned; empty where it is."""
    if tuning is None:
        return "The preset tunes no backbone."
    if lm.n_parameters > LARGEST:
        return (
            f"The language model has {lm.n_parameters / 1e6:.0f} million weights; backbones of more than "
            f"{LARGEST / 1e6:.0f} million are not tuned here, since that takes hours on a CPU."
        )
    return ""


def tuned_arms(
    data: PrefixData, lessons: Lessons, tuning: Tuning, progress: Progress = silent
) -> tuple[dict[str, Arm], list[dict[str, Any]]]:
    """Tune a backbone for each kind of reward, and solve its head on the tuned states.

    RAD's head is linear here, as in the papers: what is not linear is tuned. Distilled ARM learns from the tuned RAD.

    Returns
    -------
    As :func:`frozen_arms`.
    """
    texts = data.texts
    scores = texts["train"].scores

    def tune(kind: str, teacher: Any = None) -> tuple[LanguageModel, Lessons]:
        lm = tuned_model(data.lm, lessons.train, scores, kind, tuning, data.shelf, teacher=teacher, progress=progress)
        return lm, heads_.read_lessons(lm, texts.parts, texts.attribute, data.shelf, progress)[0]

    reader, read = tune(KINDS[RAD])
    rad, tried = heads_.fit_rad(read, ())
    arms = {RAD: Arm(RAD, rad, read, reader)}
    spoken = {part: rad.token_rewards(getattr(read, part)) for part in ("train", "validation", "test")}
    reader, read = tune(KINDS[DISTILLED], spoken["train"][:, 0])
    teachers = {part: Recorded.of(rad, spoken[part], getattr(read, part)) for part in spoken}
    head, more = heads_.fit_arm(read, teachers["train"], judge=teachers["validation"])
    arms[DISTILLED] = Arm(DISTILLED, head, read, reader, teachers["train"], teachers["test"])
    reader, read = tune(KINDS[RESPONSES])
    head, last = heads_.fit_arm(read)
    arms[RESPONSES] = Arm(RESPONSES, head, read, reader)
    return arms, [*tried, *more, *last]
