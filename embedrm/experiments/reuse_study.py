"""The study of Reusing-Embeddings reward models: one factor at a time around a named centre."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from embedrm.errors import InvalidInputError
from embedrm.evaluation.over_optimisation import over_optimisation_facts
from embedrm.experiments import reuse_arms as arms
from embedrm.experiments.over_optimisation import OverOptimisationStudy
from embedrm.experiments.reuse_arms import Cells
from embedrm.experiments.reuse_claims import judge_reuse
from embedrm.experiments.reuse_cost import cost_rows
from embedrm.experiments.reuse_data import EncodedData
from embedrm.experiments.reuse_plan import (
    BT_MLP,
    DIVERSIFIED,
    MIXED,
    MODELS,
    RANDOM,
    SIMILAR,
    THEIRS,
    WIDE,
    Arm,
    ReusePreset,
)
from embedrm.experiments.reuse_settings import PEAKED, Recipe, Setting, open_setting, recipes
from embedrm.experiments.reuse_workers import in_processes, usable_jobs
from embedrm.numerics.annotation import GLOBAL_STD, Annotator
from embedrm.progress import Progress, silent
from embedrm.reward_model import RewardModel

PENALTY = 1.0
"""k of UWO: what a unit of the members' variance costs."""


class ReuseStudy:
    """Everything that is fitted and measured; the sections of a report are made from it.

    Parameters
    ----------
    preset : ReusePreset
    data : EncodedData, optional
        Encoded data with graded responses, for the part that is not on generated arrays.
    progress : Progress

    Attributes
    ----------
    facts : dict
        ``noise``, ``amounts``: over-optimisation facts with arms as levels and :data:`BT_MLP` as reference; ``errors``,
        level to share of wrong labels; ``wide``: the centre's perceptron against the released layers; ``crossed``, model to
        facts across against within prompts, and ``similar``, its change between selections; ``points`` of the scatter;
        ``estimators``; ``ensembles``; ``cost``; ``on_data``, the same on encoded data, one an encoder; ``encoders``, two of
        them compared (None where there is one).
    """

    def __init__(self, preset: ReusePreset, data: EncodedData | None = None, progress: Progress = silent) -> None:
        started = time.perf_counter()
        self.preset, self.data = preset, data
        self.jobs = usable_jobs() if preset.jobs is None else preset.jobs
        self.facts: dict[str, Any] = {}
        self._by_encoder: list[tuple[Setting, Cells, Arm]] = []
        sources = recipes(preset)
        first = open_setting(sources[0])
        self.told = first.told
        # each fit alone and first, before anything else is in memory
        self.facts["cost"] = cost_rows(first, preset.centre, preset, progress=progress)
        self.cells = Cells(sources, tuple(MODELS), keep=preset.centre, jobs=self.jobs)
        self._factors(progress)
        self._pairings(progress)
        self._ensembles(progress)
        self.facts["on_data"] = [self._on_data(setting, progress) for setting in (data.settings if data else [])]
        self.facts["encoders"] = self._encoders()
        self.claims = judge_reuse(self.facts)
        self.facts["fits"] = {
            "n": self.cells.n_fits,
            "seconds": self.cells.fit_seconds,
            "study_seconds": time.perf_counter() - started,
        }

    def _factors(self, progress: Progress) -> None:
        """Noise and the number of annotations."""
        preset = self.preset
        wanted = list(dict.fromkeys([*preset.noise(), *preset.amounts()]))
        self.cells.run(wanted, progress("noise and annotations"))
        names = {arm: noise_level(self.cells, arm) for arm in preset.noise()}
        self.facts["noise"] = self.cells.compare(_by_name(names), BT_MLP, preset.n_resamples)
        self.facts["errors"] = {name: self.cells.label(arm, "error") for arm, name in names.items()}
        self.facts["centre"] = names[preset.centre]
        amounts = {arm: f"{arm.n:,} annotations" for arm in preset.amounts()}
        self.facts["amounts"] = self.cells.compare(_by_name(amounts), BT_MLP, preset.n_resamples)
        self.facts["counts"] = [arm.n for arm in amounts]
        self.facts["estimators"] = arms.estimators(self.cells, preset.n_permutations)
        wide = Cells(self.cells.sources, (WIDE,), jobs=self.jobs)
        wide.run([preset.centre], progress("released layers"))
        both = {model: one.judged[preset.centre, model] for model, one in ((BT_MLP, self.cells), (WIDE, wide))}
        self.facts["wide"] = over_optimisation_facts(
            self.cells.judges, {names[preset.centre]: both}, reference=WIDE, n_resamples=preset.n_resamples
        )

    def _pairings(self, progress: Progress) -> None:
        """Same prompt against across prompts, by how alike the two responses to a prompt are."""
        preset, cells = self.preset, self.cells
        levels = preset.pairings()
        wanted = [arm for both in levels.values() for arm in both]
        cells.run(wanted, progress("pairing"))
        self.facts["crossed"] = {model: cells.crossed(model, levels, preset.n_resamples) for model in MODELS}
        self.facts["similar"] = {}
        for other in (RANDOM, DIVERSIFIED):
            two = {other: levels[other], SIMILAR: levels[SIMILAR]}
            self.facts["similar"][other] = {
                model: cells.crossed(model, two, preset.n_resamples)["changes"][0]["gold"] for model in MODELS
            }
        self.facts["gaps"] = {
            name: {"same": _label(cells, same), "cross": _label(cells, cross)} for name, (same, cross) in levels.items()
        }
        self.facts["points"] = [
            self._point(cells, self.facts["crossed"][model], model, name, same)
            for model in MODELS
            for name, (same, _) in levels.items()
            if name != MIXED
        ]
        for alike in preset.alikes:
            more = Cells(recipes(preset, alike=alike), THEIRS, jobs=self.jobs)
            one = {RANDOM: levels[RANDOM]}
            more.run(list(one[RANDOM]), progress(f"responses that share {alike:.0%}"))
            for model in THEIRS:
                facts = more.crossed(model, one, preset.n_resamples)
                point = self._point(more, facts, model, RANDOM, levels[RANDOM][0])
                self.facts["points"].append(point | {"where": f"{alike:.0%} shared"})

    def _point(
        self, cells: Cells, facts: dict[str, Any], model: str, name: str, same: Arm, where: str | None = None
    ) -> dict[str, Any]:
        """One point of the scatter: the gap of gold within prompts, and the gain by comparing across them."""
        cell = arms.row_of(facts, "differences", name, arms.CROSS)["gold"][-1]
        return {"model": model, "where": where or name, "gap": cells.label(same, "gap"), "gain": cell}

    def _ensembles(self, progress: Progress) -> None:
        preset = self.preset
        sources = recipes(preset, PEAKED, name="peaked gold, heavy tails")
        tasks = [EnsembleTask(source, seed, MODELS[BT_MLP]()) for seed, source in enumerate(sources)]
        step, parts = progress("ensembles"), []
        for part in in_processes(ensembles_of, tasks, self.jobs):
            parts.append(part)
            step(len(parts), len(tasks))
        self.ensembles = OverOptimisationStudy.pooled(parts)
        self.told_peaked = open_setting(sources[0]).told
        self.facts["ensembles"] = self.ensembles.facts()

    def _on_data(self, setting: Setting, progress: Progress) -> dict[str, Any]:
        """Noise and pairing on encoded data."""
        preset = self.preset
        cells = Cells([setting] * preset.data_seeds, tuple(MODELS), jobs=self.jobs)
        centre = Arm(setting.train.n_prompts)
        noise = [Arm(centre.n, beta=beta) for beta in preset.data_betas]
        pairing = (centre, Arm(centre.n, cross=True))
        cells.run([*noise, centre], progress(f"on {setting.name}"))
        told = [f"{setting.told}."]
        try:
            cells.run(pairing, progress(f"pairing on {setting.name}"))
        except InvalidInputError as error:
            told.append(f"Pairing was left out: {error}.")
        self._by_encoder.append((setting, cells, centre))
        names = {arm: noise_level(cells, arm) for arm in noise}
        paired = all(arm in cells.labels for arm in pairing)
        crossed = (
            {model: cells.crossed(model, {RANDOM: pairing}, preset.n_resamples) for model in MODELS} if paired else {}
        )
        return {
            "name": setting.name,
            "told": told,
            "noise": cells.compare(_by_name(names), BT_MLP, preset.n_resamples),
            "errors": {name: cells.label(arm, "error") for arm, name in names.items()},
            "crossed": crossed,
            "gaps": {RANDOM: {"same": _label(cells, pairing[0]), "cross": _label(cells, pairing[1])}} if paired else {},
            "points": [
                self._point(cells, crossed[model], model, RANDOM, centre, f"{setting.name}, random")
                for model in crossed
            ],
            "n": centre.n,
        }

    def _encoders(self) -> dict[str, Any] | None:
        """Two encoders on the same labels of the same data, models as levels; None where there is one."""
        if len(self._by_encoder) < 2:
            return None
        curves = {
            model: {setting.name: cells.judged[centre, model] for setting, cells, centre in self._by_encoder}
            for model in MODELS
        }
        first = self._by_encoder[0][0]
        return over_optimisation_facts(first.judge, curves, reference=first.name, n_resamples=self.preset.n_resamples)


@dataclass(frozen=True)
class EnsembleTask:
    """Ensembles on the arrays of one seed."""

    source: Recipe
    seed: int
    member: RewardModel


def ensembles_of(task: EnsembleTask) -> OverOptimisationStudy:
    """Study single model and ensembles on the arrays of one seed; without vectors."""
    setting, preset = open_setting(task.source), task.source.preset
    study = OverOptimisationStudy(
        setting.pairs(preset.centre, task.seed),
        setting.candidates,
        member=task.member,
        n_members=preset.members,
        kind="seeds",
        k=PENALTY,
        noise=[Annotator(beta=beta, scale=GLOBAL_STD) for beta in preset.noisy],
        n_draws=1,
        random_state=task.seed,
        n_resamples=preset.n_resamples,
        ns=list(setting.judge.ns),
    )
    return study.without_vectors()


def noise_level(cells: Cells, arm: Arm) -> str:
    """Name a level of noise by its beta and the share of labels that it gets wrong."""
    return f"β = {arm.beta:g}: {cells.label(arm, 'error'):.0%} wrong"


def _label(cells: Cells, arm: Arm) -> dict[str, float]:
    return {key: cells.label(arm, key) for key in ("gap", "error", "wrong")}


def _by_name(names: dict[Arm, str]) -> dict[str, Arm]:
    return {name: arm for arm, name in names.items()}
