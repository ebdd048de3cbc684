"""The study of prefix rewards: heads, curves, spectra, ablations, backbones, time; and claims from all of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from embedrm.decoding.arm import ARMHead
from embedrm.decoding.base import PrefixHead
from embedrm.experiments import prefix_heads as heads_
from embedrm.experiments import prefix_spectra as spectra
from embedrm.experiments.prefix_claims import judge_prefixes
from embedrm.experiments.prefix_curves import Curves
from embedrm.experiments.prefix_data import PrefixData, PrefixPreset
from embedrm.experiments.prefix_judge import train_judge
from embedrm.experiments.prefix_steering import UNGUIDED, Decoding, Steering
from embedrm.experiments.prefix_synthetic import synthetic_facts
from embedrm.experiments.prefix_timing import time_per_token
from embedrm.experiments.prefix_tuned import DISTILLED, RAD, RESPONSES, Arm, frozen_arms, tuned_arms, why_not_tuned
from embedrm.progress import Progress, silent

ARMS = (RAD, DISTILLED, RESPONSES)
FROZEN = ", frozen"
STATIC_LINEAR, STATIC = "RAD, linear, means of static vectors", "RAD, perceptron, means of static vectors"
VARIANTS: dict[str, dict[str, Any]] = {
    "baseline, regulariser": {},
    "baseline, no regulariser": {"regulariser": 0.0},
    "no baseline, regulariser": {"baseline": False},
    "no baseline, no regulariser": {"baseline": False, "regulariser": 0.0},
}
"""The ablation of the paper's Fig. 5; all distilled."""
BIASED = "baseline, regulariser, bias"


class PrefixStudy:
    """Everything that ``embedrm reproduce troshin2024`` measures.

    Parameters
    ----------
    data : PrefixData
    preset : PrefixPreset
    progress : Progress

    Attributes
    ----------
    facts : dict
        Plain facts of every part, which tables, figures and claims read.
    claims : list of dict
    curves : Curves
    steering : Steering
        With what was decoded.
    main, frozen : dict of str to Arm
        Arms on tuned backbones, and on the frozen one; the same where none is tuned.
    """

    def __init__(self, data: PrefixData, preset: PrefixPreset, progress: Progress = silent) -> None:
        self.data, self.preset, self.progress = data, preset, progress
        self.facts: dict[str, Any] = {"dim": data.lm.dim, "vocabulary": data.lm.vocab_size, "beta": preset.beta}
        self.judge = train_judge(data.texts["judge"], data.texts["judge-test"])
        self.facts["judge"] = self.judge.accuracy
        self._fit()
        self._steer()
        self._spectra()
        self._ablate()
        self._sweep_ranks()
        self.facts["timing"] = time_per_token(
            data.lm,
            {"ARM": self.frozen[DISTILLED].head, "RAD": self.frozen[RAD].head},
            self.steering.decoding.prompts[0],
            [k for k in preset.ks if k < data.lm.vocab_size],
            attribute=data.texts.attribute,
            tokens=preset.timed_tokens,
            repeats=preset.repeats,
            progress=progress,
        )
        self.facts["synthetic"] = synthetic_facts(epochs=preset.epochs, progress=progress)
        self.curves = Curves.of(self.steering, preset.n_resamples)
        self._collect()
        self.claims = judge_prefixes(self.facts)

    def _fit(self) -> None:
        data, preset = self.data, self.preset
        self.lessons, self.cut = heads_.read_lessons(
            data.lm, data.texts.parts, data.texts.attribute, data.shelf, self.progress
        )
        self.not_tuned = why_not_tuned(data.lm, preset.tuning)
        self.frozen, tried = frozen_arms(self.lessons, "" if self.not_tuned else FROZEN)
        self.main = self.frozen
        if not self.not_tuned and preset.tuning is not None:
            self.main, more = tuned_arms(data, self.lessons, preset.tuning, self.progress)
            tried = [*more, *tried]
        self.facts["tried"] = tried
        self.facts["heads"] = [arm.row() for arm in self._arms()]

    def _arms(self) -> list[Arm]:
        """All arms, those on the curves first."""
        return [*self.main.values(), *([] if self.not_tuned else self.frozen.values())]

    def _steer(self) -> None:
        data, preset = self.data, self.preset
        prompts = data.texts.prompts(preset.n_prompts)
        decoding = Decoding(tuple(prompts), preset.n, preset.new_tokens, min(preset.top_k, data.lm.vocab_size))
        self.steering = Steering(data.lm, data.fluency, self.judge, decoding, data.texts.attribute, data.shelf)
        self.steering.run(UNGUIDED, None, [0.0], progress=self.progress)
        for arm in self._arms():
            betas = preset.betas if arm in self.main.values() else [preset.beta]
            self.steering.run(arm.name, arm.head, betas, reward_lm=arm.reader, progress=self.progress)

    def _spectra(self) -> None:
        data, lessons = self.data, self.lessons
        # the same texts have the same rows in all states
        self.grid = grid = spectra.draw_grid(lessons.train, self.preset.n_prefixes, self.preset.n_tokens)
        matrices: dict[str, Any] = {}
        fitted: dict[str, PrefixHead] = {arm.name: arm.head for arm in self._arms()}
        for arm in self._arms():
            if isinstance(arm.head, ARMHead):
                matrices[arm.name] = spectra.arm_matrix(arm.head, arm.lessons.train, grid)
            else:
                reader = arm.reader or data.lm
                found = spectra.rad_matrices(reader, {arm.name: arm.head}, grid, data.shelf, self.progress)
                matrices[arm.name] = found[arm.name]
        static = replace(lessons, train=spectra.pooled(lessons.train, lessons.embeddings))
        l2 = self.frozen[RAD].head.l2_
        more = {
            STATIC_LINEAR: heads_.new_rad(static, l2=l2),
            STATIC: heads_.new_rad(static, hidden=heads_.RAD_HIDDEN, max_epochs=5, early_stopping=False),
        }
        matrices |= {name: spectra.pooled_matrix(head, grid, lessons.embeddings) for name, head in more.items()}
        fitted |= more
        self.facts["matrices"] = [
            spectra.rank_row(name, matrix, heads_.n_parameters(fitted[name]), spectra.bound_of(fitted[name]))
            for name, matrix in matrices.items()
        ]
        counts = [n for n in self.preset.counts if n <= len(grid.prefixes)]
        shown = {arm.name: matrices[arm.name] for arm in self._arms()}
        self.facts["over_prefixes"] = spectra.ranks_over_prefixes(shown, counts)
        self.facts["shape"] = spectra.shape_sentence(matrices[RAD].shape, data.lm.vocab_size, data.lm.dim)

    def _ablate(self) -> None:
        step = self.progress("ablation")
        arm, rows, found = self.main[DISTILLED], [], {}
        for done, (name, options) in enumerate({**VARIANTS, BIASED: {"bias": True}}.items(), start=1):
            head = arm.distil(**options) if options else arm.head
            found[name] = spectra.arm_matrix(head, arm.lessons.train, self.grid)
            rows.append(self._variant(f"ablation: {name}" if options else arm.name, name, head, found[name]))
            step(done, len(VARIANTS) + 1)
        self.facts["ablation"] = rows
        names = list(VARIANTS)
        self.facts["regulariser_ratio"] = spectra.rank_ratio(found[names[0]], found[names[1]])

    def _sweep_ranks(self) -> None:
        step = self.progress("rank-r heads")
        arm, rows = self.main[DISTILLED], []
        ranks = [r for r in self.preset.ranks if r < self.data.lm.dim]
        for done, r in enumerate(ranks, start=1):
            head = arm.distil(rank=r, max_rounds=3)
            matrix = spectra.arm_matrix(head, arm.lessons.train, self.grid)
            rows.append(self._variant(f"rank {r}", f"r = {r}", head, matrix) | {"r": r})
            step(done, len(ranks))
        matrix = spectra.arm_matrix(arm.head, arm.lessons.train, self.grid)
        rows.append(self._variant(arm.name, "all of W", arm.head, matrix) | {"r": self.data.lm.dim})
        self.facts["rank_sweep"] = rows

    def _variant(self, key: str, name: str, head: ARMHead, matrix: Any) -> dict[str, Any]:
        """Decode a variant of distilled ARM at the one beta, and note losses and ranks."""
        arm = self.main[DISTILLED]
        if (key, self.preset.beta) not in self.steering.points:
            self.steering.run(key, head, [self.preset.beta], reward_lm=arm.reader)
        facts = arm.row(head, name)
        ranks = spectra.rank_row(name, matrix, facts["parameters"], spectra.bound_of(head))
        return {**facts, "arm": key, "ranks": ranks}

    def _collect(self) -> None:
        """Read from the curves what tables and claims need."""
        curves, beta = self.curves, self.preset.beta
        self.facts["curves"] = curves.rows([UNGUIDED, *ARMS])
        self.facts["gaps"] = {arm: curves.gap(arm, RAD) for arm in (DISTILLED, RESPONSES)}
        for row in (*self.facts["ablation"], *self.facts["rank_sweep"]):
            row |= {m: curves.cell(row["arm"], beta, m) for m in ("positive", "perplexity")}
        ranks = {row["name"]: row["interval"] for row in self.facts["matrices"]}
        self.facts["backbones"] = [
            {**row, "rank": ranks[row["name"]], "beta": beta}
            | {m: curves.cell(row["name"], beta, m) for m in ("positive", "perplexity")}
            for row in self.facts["heads"]
        ]
        shown = [(UNGUIDED, 0.0), *((arm, beta) for arm in ARMS)]
        self.facts["examples"] = [
            {"arm": arm, "beta": at, "prompt": prompt, "text": text}
            for arm, at in shown
            for prompt, text in self.steering.examples[arm, at][:3]
        ]
