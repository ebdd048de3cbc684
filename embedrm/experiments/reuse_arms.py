"""Models fitted on the labels of an arm and judged by best-of-n, once for each arm, model and seed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.evaluation.over_optimisation import ChoiceJudge, over_optimisation_facts
from embedrm.experiments.reuse_plan import MODELS, Arm
from embedrm.experiments.reuse_settings import Setting
from embedrm.preferences import EmbeddedPreferences
from embedrm.progress import Step
from embedrm.reward_model import RewardModel

Array = NDArray[np.float64]
Judged = tuple[Array, Array]
SAME, CROSS = "same prompt", "across prompts"


def fit(model: str, pairs: EmbeddedPreferences, seed: int) -> RewardModel:
    """Fit one of :data:`MODELS` with its seeds set."""
    made = MODELS[model]()
    seeded = [key for key in made.get_params() if key.rpartition("__")[2] == "random_state"]
    made.set_params(**dict.fromkeys(seeded, seed))
    fitted: RewardModel = made.fit(pairs)
    return fitted


class Cells:
    """The judged cells of a setting; what several factors share is fitted once.

    Parameters
    ----------
    setting : Setting
    models : sequence of str
    seeds : int
    keep : Arm, optional
        The arm whose rewards of the first seed are kept.

    Attributes
    ----------
    judged : dict of (arm, model) to list of (curves, spearman), one a seed
    labels : dict of arm to list of facts of the labels, one a seed
    rewards : dict of model to ndarray of shape (n_candidates,)
    fit_seconds, n_fits : float, int
        Of all fits together.
    """

    def __init__(self, setting: Setting, models: Sequence[str], seeds: int, keep: Arm | None = None) -> None:
        self.setting, self.models, self.seeds, self.keep = setting, tuple(models), seeds, keep
        self.judged: dict[tuple[Arm, str], list[Judged]] = {}
        self.labels: dict[Arm, list[dict[str, float]]] = {}
        self.rewards: dict[str, Array] = {}
        self.fit_seconds, self.n_fits = 0.0, 0

    def run(self, arms: Sequence[Arm], step: Step, done: int = 0, total: int | None = None) -> int:
        """Fit and judge the arms that are new; returns how many cells are done."""
        wanted = list(dict.fromkeys(arms))
        total = len(wanted) if total is None else total
        for arm in wanted:
            if arm not in self.labels:
                self._run(arm)
            done += 1
            step(done, total)
        return done

    def _run(self, arm: Arm) -> None:
        labels = []
        for seed in range(self.seeds):
            pairs, facts = self.setting.labelled(arm, seed)
            labels.append(facts)
            for model in self.models:
                started = time.perf_counter()
                fitted = fit(model, pairs, seed)
                self.fit_seconds += time.perf_counter() - started
                self.n_fits += 1
                rewards = fitted.predict(self.setting.candidates)
                self.judged.setdefault((arm, model), []).append(self.setting.judge.curves(rewards, model))
                if seed == 0 and arm == self.keep:
                    self.rewards[model] = rewards
        self.labels[arm] = labels

    def label(self, arm: Arm, key: str) -> float:
        """Mean over seeds of a fact of the labels: ``error``, ``wrong`` or ``gap``."""
        return float(np.mean([facts[key] for facts in self.labels[arm]]))

    def compare(self, levels: Mapping[str, Arm], reference: str, n_resamples: int) -> dict[str, Any]:
        """Over-optimisation facts with arms as levels, and every model against one."""
        curves = {name: {model: self.judged[arm, model] for model in self.models} for name, arm in levels.items()}
        return over_optimisation_facts(self.setting.judge, curves, reference=reference, n_resamples=n_resamples)

    def crossed(self, model: str, levels: Mapping[str, tuple[Arm, Arm]], n_resamples: int) -> dict[str, Any]:
        """Over-optimisation facts of one model, across prompts against the same prompt."""
        curves = {
            name: {SAME: self.judged[same, model], CROSS: self.judged[cross, model]}
            for name, (same, cross) in levels.items()
        }
        return over_optimisation_facts(self.setting.judge, curves, reference=SAME, n_resamples=n_resamples)


def estimators(cells: Cells, n_permutations: int) -> list[dict[str, Any]]:
    """Gold of the choice by both estimators, for the rewards that were kept.

    Returns
    -------
    list of dict
        ``model``, ``ns``, ``unbiased`` and ``permutations`` (mean gold over prompts, one an n), ``most``, the largest
        absolute difference between them.
    """
    judge = cells.setting.judge
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
