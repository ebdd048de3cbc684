"""Models fitted on the labels of an arm and judged by best-of-n, once for each arm, model and seed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from embedrm.evaluation.over_optimisation import ChoiceJudge, over_optimisation_facts
from embedrm.experiments.reuse_plan import MODELS, WIDER, Arm
from embedrm.experiments.reuse_settings import Source, open_setting
from embedrm.experiments.reuse_workers import in_processes
from embedrm.preferences import EmbeddedPreferences
from embedrm.progress import Step
from embedrm.reward_model import RewardModel

Array = NDArray[np.float64]
Judged = tuple[Array, Array]
SAME, CROSS = "same prompt", "across prompts"


def fit(model: RewardModel, pairs: EmbeddedPreferences, seed: int) -> RewardModel:
    """Fit a copy of a model with its seeds set."""
    made: RewardModel = clone(model)
    seeded = [key for key in made.get_params() if key.rpartition("__")[2] == "random_state"]
    made.set_params(**dict.fromkeys(seeded, seed))
    fitted: RewardModel = made.fit(pairs)
    return fitted


@dataclass(frozen=True)
class Task:
    """The models of one arm and seed, to be fitted and judged; ``keep`` says whether their rewards are wanted too."""

    source: Source
    arm: Arm
    seed: int
    models: Mapping[str, RewardModel]
    keep: bool


@dataclass(frozen=True)
class Done:
    """What came of a :class:`Task`: facts of the labels, judged choices and rewards by model, seconds of all fits."""

    label: dict[str, float]
    judged: dict[str, Judged]
    rewards: dict[str, Array]
    seconds: float


def do(task: Task) -> Done:
    """Draw the labels of a task, fit every model on them, and judge what it chooses."""
    setting = open_setting(task.source)
    pairs, label = setting.labelled(task.arm, task.seed)
    judged, rewards, seconds = {}, {}, 0.0
    for name, model in task.models.items():
        started = time.perf_counter()
        fitted = fit(model, pairs, task.seed)
        seconds += time.perf_counter() - started
        given = fitted.predict(setting.candidates)
        judged[name] = setting.judge.curves(given, name)
        if task.keep:
            rewards[name] = given
    return Done(label, judged, rewards, seconds)


def judge_of(source: Source) -> ChoiceJudge:
    """Return the judge of a source, without its vectors."""
    return open_setting(source).judge.without_vectors()


class Cells:
    """The judged cells of a study, a source for each seed; what several factors share is fitted once.

    Parameters
    ----------
    sources : sequence of Setting or Recipe
        One for each seed; the same one several times where only labels and models differ between seeds.
    models : sequence of str
        Of :data:`MODELS` and :data:`WIDER`.
    keep : Arm, optional
        The arm whose rewards of the first seed are kept.
    jobs : int
        Processes.

    Attributes
    ----------
    judges : list of ChoiceJudge
        One for each seed.
    judged : dict of (arm, model) to list of (curves, spearman), one a seed
    labels : dict of arm to list of facts of the labels, one a seed
    rewards : dict of model to ndarray of shape (n_candidates,)
    fit_seconds, n_fits : float, int
        Of all fits together, whatever process they were in.
    """

    def __init__(
        self, sources: Sequence[Source], models: Sequence[str], keep: Arm | None = None, jobs: int = 1
    ) -> None:
        self.sources, self.models, self.keep, self.jobs = list(sources), tuple(models), keep, jobs
        different = list(dict.fromkeys(map(id, self.sources)))
        by_id = {id(source): source for source in self.sources}
        judges = in_processes(judge_of, [by_id[i] for i in different], jobs)
        found = dict(zip(different, judges))
        self.judges = [found[id(source)] for source in self.sources]
        self.judged: dict[tuple[Arm, str], list[Judged]] = {}
        self.labels: dict[Arm, list[dict[str, float]]] = {}
        self.rewards: dict[str, Array] = {}
        self.fit_seconds, self.n_fits = 0.0, 0

    def run(self, arms: Sequence[Arm], step: Step) -> None:
        """Fit and judge the arms that are new."""
        wanted = [arm for arm in dict.fromkeys(arms) if arm not in self.labels]
        models = {name: (MODELS[name] if name in MODELS else WIDER[name])() for name in self.models}
        # by seed, so that a process makes the arrays of one after those of another
        tasks = [
            Task(source, arm, seed, models, seed == 0 and arm == self.keep)
            for seed, source in enumerate(self.sources)
            for arm in wanted
        ]
        done: dict[Arm, list[Done]] = {arm: [] for arm in wanted}
        for i, (task, one) in enumerate(zip(tasks, in_processes(do, tasks, self.jobs)), start=1):
            done[task.arm].append(one)
            step(i, len(tasks))
        for arm, parts in done.items():
            self.labels[arm] = [one.label for one in parts]
            for name in self.models:
                self.judged[arm, name] = [one.judged[name] for one in parts]
            for one in parts:
                self.rewards |= one.rewards
                self.fit_seconds += one.seconds
                self.n_fits += len(one.judged)

    def label(self, arm: Arm, key: str) -> float:
        """Mean over seeds of a fact of the labels: ``error``, ``wrong`` or ``gap``."""
        return float(np.mean([facts[key] for facts in self.labels[arm]]))

    def compare(self, levels: Mapping[str, Arm], reference: str, n_resamples: int) -> dict[str, Any]:
        """Over-optimisation facts with arms as levels, and every model against one."""
        curves = {name: {model: self.judged[arm, model] for model in self.models} for name, arm in levels.items()}
        return over_optimisation_facts(self.judges, curves, reference=reference, n_resamples=n_resamples)

    def crossed(self, model: str, levels: Mapping[str, tuple[Arm, Arm]], n_resamples: int) -> dict[str, Any]:
        """Over-optimisation facts of one model, across prompts against the same prompt."""
        curves = {
            name: {SAME: self.judged[same, model], CROSS: self.judged[cross, model]}
            for name, (same, cross) in levels.items()
        }
        return over_optimisation_facts(self.judges, curves, reference=SAME, n_resamples=n_resamples)


def estimators(cells: Cells, n_permutations: int) -> list[dict[str, Any]]:
    """Gold of the choice by both estimators, for the rewards that were kept.

    Returns
    -------
    list of dict
        ``model``, ``ns``, ``unbiased`` and ``permutations`` (mean gold over prompts, one an n), ``most``, the largest
        absolute difference between them.
    """
    judge = cells.judges[0]
    permuted = ChoiceJudge(judge.responses, ns=judge.ns, estimator="sun2025", n_permutations=n_permutations)
    out = []
    for model, rewards in cells.rewards.items():
        first, second = (one.curves(rewards, model)[0][:, :, 0].mean(axis=0) for one in (judge, permuted))
        out.append(
            {
                "model": model,
                "ns": judge.ns,
                "unbiased": first.tolist(),
                "permutations": second.tolist(),
                "most": float(np.abs(first - second).max()),
            }
        )
    return out


def row_of(facts: Mapping[str, Any], where: str, level: str, model: str) -> dict[str, Any]:
    """Return the row of one level and model, of ``rows`` or ``differences``."""
    one: dict[str, Any] = next(r for r in facts[where] if (r["level"], r["model"]) == (level, model))
    return one
