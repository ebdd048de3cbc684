"""Lin et al. (2024), DogeRM: a reward model merged with domain models, on small encoders and on frozen vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embedrm.errors import InvalidInputError
from embedrm.evaluation.claims import VERDICTS
from embedrm.experiments.merging_arms import KNOWN_TARGETS, STAND_IN, Target, find_targets
from embedrm.experiments.merging_curves import sweep_facts
from embedrm.experiments.merging_report import chosen_table, curves_figure, signed
from embedrm.experiments.papers import PAPERS
from embedrm.experiments.papers.base import Paper
from embedrm.experiments.study import StudyData, duration, prepare
from embedrm.featurizers import Featurizer
from embedrm.heads.linear import LinearHead
from embedrm.merging.sweep import LAMBDAS, sweep_margins
from embedrm.numerics.bootstrap import N_RESAMPLES
from embedrm.progress import Progress, silent
from embedrm.reporting import Report
from embedrm.reporting.claims import claims_table
from embedrm.reporting.report import Section

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
    from embedrm.experiments.merging_encoders import EncoderMergeStudy
    from embedrm.experiments.merging_heads import HeadMergeStudy
    from embedrm.experiments.merging_plan import EncoderMergePlan

# Seconds of everything but the tuning on two idle cores, encoding included. The quick preset took 578 on the bundled data;
# the full one has not been run, and its figure follows from the encodings it takes.
SECONDS = {"quick": 580.0, "full": 5400.0}
STARTS = {"quick": 3, "full": 5}
"""Starts of the perceptrons whose trunks are merged."""
_VERDICTS = (
    "Where validation chooses λ = 0 the merged model is the general one: nothing rises and nothing is lost, to the bit, so "
    "that “costs nothing elsewhere” then holds by not merging. The paper's models are a thousand times larger and were "
    "trained on far more text of their domains; a verdict here is about this setting."
)


@PAPERS.register("lin2024")
class Lin2024(Paper):
    """Reward models merged with domain models.

    Parameters
    ----------
    targets : mapping of domain to str, optional
        Which domains of the data are merged towards, and under which name; known names of math, code and medicine where
        absent.
    objective : {"masked-token", "contrastive"}
        What moves the domain encoders.
    """

    title = "Reward models merged with domain models"
    citation = (
        "Lin, Li, Lee and Chen (2024), DogeRM: Equipping Reward Models with Domain Knowledge through Model Merging, "
        "EMNLP 2024."
    )
    setting = (
        "a re-implementation on a small encoder: a general reward encoder and domain encoders, tuned from one base and "
        "merged weight by weight; beside it analogues on static token tables and on heads over a frozen encoder. The paper "
        "merges language models of seven billion parameters."
    )
    has_literal = True
    always_literal = True

    def __init__(self, targets: Mapping[str, str] | None = None, objective: str = "masked-token") -> None:
        self.targets, self.objective = targets, objective

    def estimate(self, preset: str = "quick", data: PreferenceDataset | None = None) -> str:
        """Say how long merging and scoring take; tuning is estimated apart, by the plan."""
        return (
            f"about {duration(SECONDS[preset])} on two idle cores the first time, tuning apart, and under a minute "
            "when vectors are there already"
        )

    def prepare(
        self, data: Any, preset: str, *, encoder: Any = None, store: Any = None, progress: Progress = silent
    ) -> StudyData:
        """Encode preferences; lambda is chosen on validation pairs, which are held out where the data bring none."""
        return prepare(data, encoder=encoder, store=store, progress=progress, validation=True)

    def plan_literal(self, preset: str = "quick", data: Any = None, encoder: Any = None) -> EncoderMergePlan:
        """Lay out the encoders to tune and merge."""
        from embedrm.experiments.merging_plan import EncoderMergePlan

        return EncoderMergePlan(data, preset, encoder, targets=self.targets, objective=self.objective)

    def tour(self, data: StudyData, progress: Progress = silent) -> tuple[list[str], Section]:
        """Linear heads over lambda, a general one with each target's own: merged soups, and why they are averages."""
        targets, notes = _targets(data, self.targets)
        step = progress("merge linear heads")
        facts = {}
        for done, target in enumerate(targets, start=1):
            facts[target.name] = _head_sweep(data, target, targets)
            step(done, len(targets))
        text = [
            "A linear head of the general domains merged with one of a target domain, both trained on preferences: a soup "
            "of two reward models. For linear heads on the same vectors merging weights is averaging rewards. So this is "
            "not the paper's method, which merges a reward model with a model that never saw a preference; the full study "
            "does that with encoders. λ is chosen on validation pairs of the target.",
            *notes,
        ]
        if not facts:
            return [f"Nothing was merged: {' '.join(notes)}"], Section(self.title, text)
        findings = [
            f"Linear heads merged with {name}: validation chooses λ = {f['chosen']['lambda']:g}; accuracy on {name} "
            f"{signed(f['compared']['target']['micro'])} against λ = 0."
            for name, f in facts.items()
        ]
        table = chosen_table(facts, "lin2024-heads", "λ for linear heads, chosen on validation", "")
        figure = curves_figure(facts, "lin2024-heads", "Linear heads merged over λ")
        return findings, Section(self.title, text, [table], [figure])

    def study(
        self, data: StudyData, preset: str, progress: Progress = silent, *, literal: EncoderMergePlan | None = None
    ) -> Report:
        """Encoder-level merging first, then heads on frozen vectors, claims and verdicts."""
        report = Report("reproduction", self.title, notes=[data.sentence(), f"{self.citation} Here: {self.setting}"])
        n_resamples = N_RESAMPLES if preset == "quick" else 5 * N_RESAMPLES
        targets, notes = _targets(data, self.targets)
        studies: list[EncoderMergeStudy | HeadMergeStudy] = []
        if literal is not None:
            studies.append(literal.run(progress=progress, n_resamples=n_resamples))
        elif self.why_not:
            report.summary.append(self.why_not)
        general = set(data.train.domains) - {d for t in targets for d in t.domains}
        known = {*KNOWN_TARGETS, STAND_IN[1]} if self.targets is None else set(self.targets)
        if general and any(set(t.domains) & known for t in targets):
            studies.append(_heads(data, targets, preset, progress, n_resamples))
            report.notes += notes
        claims = [claim for study in studies for claim in study.claims]
        for study in studies:
            report.summary += study.findings()
        if claims:
            report.claims = claims
            counts = ", ".join(f"{sum(c['verdict'] == word for c in claims)} {word}" for word in VERDICTS)
            report.summary.append(f"Claims: {counts}.")
            report.add_section("Claims", _VERDICTS, tables=[claims_table(claims)])
        for study in studies:
            study.add_sections(report)
        if not studies:
            # no domain that the paper speaks of: what can be shown of merging without a verdict
            findings, section = self.tour(data, progress)
            report.summary += findings
            report.add_section("Linear heads: merging is averaging", section.text, section.tables, section.figures)
        return report


def _targets(data: StudyData, chosen: Mapping[str, str] | None) -> tuple[list[Target], list[str]]:
    """Targets with pairs in every split; where no domain is known as one, each domain in turn is taken."""
    trained = data.train.domains
    try:
        found, notes = find_targets(trained, chosen), []
    except InvalidInputError:
        if chosen is not None:
            raise
        found = [Target(d, (d,)) for d in trained] if len(trained) > 1 else []
        notes = [
            "None of these domains is known as math, code or medicine beside others; each is merged towards in turn."
        ]
    notes += [f"{t.name}: {t.note}." for t in found if t.note]
    kept = []
    for target in found:
        lacking = [
            name
            for name, part in (("validation", data.validation), ("test", data.test))
            if not (np.isin(part.domain.astype(str), target.domains) & ~part.ties).any()
        ]
        if lacking:
            notes.append(f"{target.name}: no pairs with a preference in the split {' or '.join(lacking)}; left aside.")
        else:
            kept.append(target)
    return kept, notes


def _heads(
    data: StudyData, targets: Sequence[Target], preset: str, progress: Progress, n_resamples: int
) -> HeadMergeStudy:
    from embedrm.experiments.merging_heads import HeadMergeStudy

    several = [t for t in targets if len(t.domains) > 1]
    study = HeadMergeStudy(
        data,
        {t.name: t.domains[0] for t in targets},
        n_seeds=STARTS[preset],
        progress=progress,
        n_resamples=n_resamples,
    )
    study.notes += [f"Heads: of {t.name}, the domain {t.domains[0]} alone is merged towards." for t in several]
    return study


def _head_sweep(data: StudyData, target: Target, targets: Sequence[Target]) -> dict[str, Any]:
    """Merge a linear head of the domains that are no target (of all others, where there is none) with the target's own."""
    domains = data.train.domain.astype(str)
    own = np.isin(domains, target.domains)
    general = ~np.isin(domains, [d for t in targets for d in t.domains])
    heads = [
        LinearHead(Featurizer(["r"], scale="rms")).fit(data.train[r]) for r in (general if general.any() else ~own, own)
    ]
    parts = {"validation": data.validation, "test": data.test}
    margins = sweep_margins(heads[0], heads[1], parts, rescale=True)
    return sweep_facts(LAMBDAS, margins["validation"], data.validation, margins["test"], data.test, target.domains)
