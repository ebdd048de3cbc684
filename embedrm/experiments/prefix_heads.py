"""Heads on cached token states, their settings chosen on validation texts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding.arm import ARMHead
from embedrm.decoding.base import PrefixHead
from embedrm.decoding.losses import cumulative_weights
from embedrm.decoding.rad import RADHead
from embedrm.encoders.token_states import TokenStates
from embedrm.experiments.prefix_shelf import Shelf, head_digest
from embedrm.experiments.prefix_texts import Part
from embedrm.language_models.model import LanguageModel
from embedrm.numerics.bootstrap import N_RESAMPLES
from embedrm.numerics.digest import array_digest
from embedrm.progress import Progress, silent

Array = NDArray[np.float64]

RAD_HIDDEN = (64,)
RAD_GRID = (1e-4, 1e-2)
ARM_GRID = (1e-5, 1e-4)
"""Penalties that validation texts choose from."""
TOL = 1e-4
"""Gap to the minimum, as a share of the loss of scores that are zero: a tighter one moves the third digit of the loss."""


@dataclass(frozen=True)
class Lessons:
    """States of one language model on the texts of a corpus.

    Attributes
    ----------
    train, validation, test : TokenStates
    parts : dict of str to Part
        Their texts.
    attribute : str
    embeddings : ndarray of shape (V, d)
    shelf : Shelf
        Where fitted heads are kept.
    """

    train: TokenStates
    validation: TokenStates
    test: TokenStates
    parts: dict[str, Part]
    attribute: str
    embeddings: NDArray[Any]
    shelf: Shelf

    @cached_property
    def digest(self) -> str:
        """Name of the training states and their labels."""
        return self.train.fingerprint() + array_digest({"scores": self.parts["train"].scores})

    def labels(self, part: str) -> dict[str, Array]:
        """Return scores under the attribute's name."""
        return {self.attribute: self.parts[part].scores}


def read_lessons(
    lm: LanguageModel, parts: dict[str, Part], attribute: str, shelf: Shelf, progress: Progress = silent
) -> tuple[Lessons, dict[str, int]]:
    """Read the texts once; states are kept on disk. Returns the lessons, and how many texts and tokens were cut off."""
    found = {
        name: lm.token_states(parts[name].texts, truncation="head", progress=progress)
        for name in ("train", "validation", "test")
    }
    cut = {key: sum(int(one.info.get(key, 0)) for one in found.values()) for key in ("texts_cut", "tokens_cut")}
    return Lessons(**found, parts=parts, attribute=attribute, embeddings=lm.output_embeddings(), shelf=shelf), cut


def choose(heads: Sequence[PrefixHead], losses: Sequence[float]) -> int:
    """Place of the smallest validation loss; of equals, that of the stronger penalty, which stands later."""
    values = np.asarray(losses)
    return len(heads) - 1 - int(np.argmin(values[::-1]))


def fit_rad(lessons: Lessons, hidden: Sequence[int] = RAD_HIDDEN) -> tuple[RADHead, list[dict[str, Any]]]:
    """Fit RAD at each penalty, keep the one with the least validation loss; returns (head, what was tried)."""
    settings: dict[str, Any] = {"hidden": tuple(hidden), "max_epochs": 20, "patience": 2} if hidden else {}
    fitted = [new_rad(lessons, l2=l2, **settings) for l2 in RAD_GRID]
    losses = [label_loss(head, lessons, "validation") for head in fitted]
    best = choose(fitted, losses)
    return fitted[best], _tried("RAD", RAD_GRID, losses, best)


def new_rad(lessons: Lessons, **options: Any) -> RADHead:
    """Fit one RAD head on labels, or find it where it was fitted before."""

    def fit() -> RADHead:
        with _quiet():
            return RADHead(**options).fit(lessons.train, lessons.labels("train"), groups=lessons.parts["train"].groups)

    return cast(RADHead, lessons.shelf.head(["rad", options, lessons.digest], fit, lessons.embeddings))


def fit_arm(
    lessons: Lessons,
    teacher: PrefixHead | None = None,
    *,
    judge: PrefixHead | None = None,
    grid: Sequence[float] = ARM_GRID,
    **options: Any,
) -> tuple[ARMHead, list[dict[str, Any]]]:
    """Fit ARM at each penalty: distilled where there is a teacher, else on labels; as :func:`fit_rad`.

    The validation loss is the one that is trained on, without the regulariser; ``judge`` is the teacher on validation texts,
    where that is another object.
    """
    fitted, losses = [], []
    for l2 in grid:
        fitted.append(new_arm(lessons, teacher, l2=l2, **options))
        losses.append(
            label_loss(fitted[-1], lessons, "validation")
            if teacher is None
            else teacher_loss(fitted[-1], judge or teacher, lessons.validation)
        )
    best = choose(fitted, losses)
    name = "ARM responses-only" if teacher is None else "ARM distilled"
    return fitted[best], _tried(name, grid, losses, best)


def new_arm(lessons: Lessons, teacher: PrefixHead | None = None, **options: Any) -> ARMHead:
    """Fit one ARM head, on labels or on a teacher's rewards, or find it where it was fitted before."""
    settings: dict[str, Any] = {"negatives": "all", "tol": TOL, "keep_embeddings": False, **options}
    settings["loss"] = "responses" if teacher is None else "distillation"
    told = None if teacher is None else head_digest(teacher)

    def fit() -> ARMHead:
        head = ARMHead(**settings)
        with _quiet():
            if teacher is None:
                return head.fit(lessons.train, lessons.labels("train"), embeddings=lessons.embeddings)
            return head.fit(lessons.train, embeddings=lessons.embeddings, teacher=teacher)

    identity = ["arm", settings, lessons.digest, told]
    return cast(ARMHead, lessons.shelf.head(identity, fit, lessons.embeddings))


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out warnings of heads that stopped near their minimum: their losses are shown."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def label_loss(head: PrefixHead, lessons: Lessons, part: str) -> float:
    """Cumulative squared error from labels, mean over texts: the loss of RAD and of responses-only ARM."""
    states: TokenStates = getattr(lessons, part)
    rewards, scores = head.token_rewards(states)[:, 0], lessons.parts[part].scores
    read = np.ones(len(rewards), dtype=bool)
    read[states.offsets[:-1]] = False
    there = states.lengths > 0
    errors = (rewards[read] - np.repeat(scores, states.lengths)) ** 2
    return float(cumulative_weights(states.lengths[there]) @ errors)


def teacher_loss(head: PrefixHead, teacher: PrefixHead, states: TokenStates) -> float:
    """Mean squared difference from the teacher's rewards over all tokens."""
    own, other = head.token_rewards(states)[:, 0], teacher.token_rewards(states)[:, 0]
    read = np.ones(len(own), dtype=bool)
    read[states.offsets[:-1]] = False
    return float(((own - other)[read] ** 2).mean())


def auc(scores: Array, positive: NDArray[np.bool_]) -> float:
    """Chance that a text of the upper end is rewarded above one of the lower; ties count one half."""
    from scipy.stats import rankdata

    ranks, n = rankdata(scores), int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n)))


def head_row(
    name: str, head: PrefixHead, lessons: Lessons, teacher: PrefixHead | None, n_resamples: int = N_RESAMPLES
) -> dict[str, Any]:
    """Facts of a head on test texts: AUC of whole texts with an interval over groups, losses, parameters."""
    part = lessons.parts["test"]
    rewards = head.text_rewards(lessons.test)[:, 0]
    keep = part.decided
    value, positive, groups = rewards[keep], part.positive[keep], part.groups[keep]
    drawn = _group_draws(groups, min(n_resamples, 400))
    values = [auc(value[rows], positive[rows]) for rows in drawn if 0 < positive[rows].sum() < len(rows)]
    low, high = np.percentile(values, [2.5, 97.5])
    whole = auc(value, positive)
    return {
        "name": name,
        "auc": {"value": whole, "low": min(float(low), whole), "high": max(float(high), whole)},
        "label_loss": label_loss(head, lessons, "test"),
        "teacher_loss": None if teacher is None else teacher_loss(head, teacher, lessons.test),
        "parameters": n_parameters(head),
    }


def n_parameters(head: PrefixHead) -> int:
    """Numbers that a head learned."""
    if isinstance(head, ARMHead):
        return int(head.parameter_counts()["total"])
    return sum(int(a.size) for name in ("weights_", "biases_") for a in getattr(head, name))


def _group_draws(groups: NDArray[Any], n: int) -> list[NDArray[np.intp]]:
    """Rows of whole groups drawn with replacement."""
    _, cluster = np.unique(groups, return_inverse=True)
    order = np.argsort(cluster, kind="stable")
    pieces = np.split(order, np.cumsum(np.bincount(cluster))[:-1])
    rng = np.random.default_rng(0)
    return [np.concatenate([pieces[g] for g in rng.integers(0, len(pieces), len(pieces))]) for _ in range(n)]


def _tried(name: str, grid: Sequence[float], losses: Sequence[float], best: int) -> list[dict[str, Any]]:
    return [
        {"head": name, "l2": l2, "loss": float(loss), "chosen": "chosen" if i == best else None}
        for i, (l2, loss) in enumerate(zip(grid, losses))
    ]
