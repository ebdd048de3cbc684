"""Troshin, Niculae and Fokkens (2024), low-rank autoregressive reward models, and RAD before them, on a frozen model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedrm.experiments.papers import PAPERS
from embedrm.experiments.papers.base import ATTRIBUTE_TEXTS, Paper
from embedrm.experiments.prefix_data import GUIDED, JUDGE, PREFIX_PRESETS, PrefixData, prepare_prefixes
from embedrm.experiments.study import StudyData, duration
from embedrm.progress import Progress, silent
from embedrm.reporting import Report
from embedrm.reporting.report import Section

if TYPE_CHECKING:
    from embedrm.experiments.prefix_texts import AttributeTexts
    from embedrm.language_models.model import LanguageModel

# Seconds on two idle cores beside the training of the bundled models, both of which take about three minutes at first use.
SECONDS = {"quick": 110.0, "full": 3600.0}
TRAINING = 190.0


@PAPERS.register("troshin2024")
class Troshin2024(Paper):
    """Prefix rewards and guided decoding.

    Parameters
    ----------
    lm : str or LanguageModel
        The guided model, whose states the heads read: ``"bundled"``, a folder, or a name on the hub.
    judge : str or LanguageModel
        The one that judges fluency.
    """

    title = "Prefix rewards and guided decoding"
    citation = (
        "Troshin, Niculae and Fokkens (2024), Efficient Controlled Language Generation with Low-Rank Autoregressive Reward "
        "Models (later: On the Low-Rank Parametrization of Reward Models for Controlled Language Generation, TMLR "
        "2025), and Deng and Raffel (2023), Reward-Augmented Decoding, EMNLP 2023."
    )
    setting = (
        "a re-implementation on the small bundled language model: backbones tuned for a short while, and beside them the "
        "frozen one (the configuration frozen_lm of the official code). The paper tunes GPT-2 and guides GPT-2-large and "
        "Llama 2."
    )
    reads = ATTRIBUTE_TEXTS
    options = ("lm",)

    def __init__(self, lm: str | LanguageModel = GUIDED, judge: str | LanguageModel = JUDGE) -> None:
        self.lm, self.judge = lm, judge

    def estimate(self, preset: str = "quick", data: Any = None) -> str:
        """Say how long the study takes with the bundled models."""
        told = (
            f"about {duration(SECONDS[preset])} on two idle cores, and {duration(TRAINING)} more to train the bundled "
            "language models at first use; less when texts were written before"
        )
        return told if self.lm == GUIDED else f"{told}. Another language model takes as much longer as it is larger"

    def read(self, paths: str | Path | Sequence[str | Path], preset: str = "quick") -> AttributeTexts:
        """Read files of texts with an attribute."""
        from embedrm.experiments.prefix_texts import read_attribute_texts

        return read_attribute_texts(paths, PREFIX_PRESETS[preset].sizes)

    def prepare(
        self, data: Any, preset: str, *, encoder: Any = None, store: Any = None, progress: Progress = silent
    ) -> PrefixData:
        """Write or read the texts and load the language models; encoder and store of vectors are not needed."""
        return prepare_prefixes(PREFIX_PRESETS[preset], data, lm=self.lm, judge=self.judge, progress=progress)

    def tour(self, data: StudyData, progress: Progress = silent) -> tuple[list[str], Section]:
        """Token-pair matrices of full rank: the one part that needs no language model, and none of the data."""
        from embedrm.experiments.prefix_synthetic import ARM_NAME, RAD_NAME, find, synthetic_facts
        from embedrm.experiments.prefix_tables import synthetic_figure, synthetic_table

        facts = {"synthetic": synthetic_facts(progress=progress)}
        arm, rad = (find(facts["synthetic"], "identity", name) for name in (ARM_NAME, RAD_NAME))
        found = (
            f"Token pairs with the identity as rewards: ARM's matrix has rank {arm['rank']} (its states have {arm['bound']} "
            f"numbers) and an error of {arm['error']:.3f}, RAD's rank {rad['rank']} and {rad['error']:.3f}."
        )
        text = [
            "Two ways to reward a next token: RAD reads a state for each candidate, ARM gives the rewards of all "
            "tokens from one state, as a matrix of no more rank than the state has numbers. On rewards of full rank "
            "the difference shows. The data of this tour are not read here. The full study trains a language model, "
            "steers it and measures the rank of what heads learn from texts: embedrm reproduce troshin2024."
        ]
        return [found], Section(self.title, text, [synthetic_table(facts)], [synthetic_figure(facts)])

    def study(self, data: Any, preset: str, progress: Progress = silent, *, literal: Any = None) -> Report:
        """Heads, curves, spectra, ablations, tuned backbones, time, claims."""
        from embedrm.experiments.prefix_report import add_sections, findings, notes
        from embedrm.experiments.prefix_study import PrefixStudy

        report = Report("reproduction", self.title)
        study = PrefixStudy(data, PREFIX_PRESETS[preset], progress)
        report.notes = [*data.sentences(), f"{self.citation} Here: {self.setting}", *notes(study)]
        report.summary += findings(study)
        report.claims = study.claims
        add_sections(study, report)
        return report
