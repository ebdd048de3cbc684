"""Sun et al. (2025), reward-model research on reused embeddings, and the Bradley-Terry study behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedrm.errors import InvalidInputError
from embedrm.experiments.papers import PAPERS
from embedrm.experiments.papers.base import Paper
from embedrm.experiments.reuse_data import EncodedData, prepare_reuse
from embedrm.experiments.reuse_plan import REUSE_PRESETS
from embedrm.experiments.study import StudyData, duration
from embedrm.progress import Progress, silent
from embedrm.reporting import Report
from embedrm.reporting.report import Section

if TYPE_CHECKING:
    from embedrm.encoders import Encoder

# Seconds on two cores that others used too, encoding apart. The full preset has not been run: its figure is a guess from the
# sizes.
SECONDS = {"quick": 220.0, "full": 21600.0}


@PAPERS.register("sun2025")
class Sun2025(Paper):
    """Reward models on reused embeddings.

    Parameters
    ----------
    against : Encoder or str, optional
        A second encoder, judged on the same data beside the first: a base model beside a tuned one.
    """

    title = "Reward models on reused embeddings"
    citation = (
        "Sun, Shen, Ton and van der Schaar (2025), Reusing Embeddings: Reproducible Reward Model Research in Large Language "
        "Model Alignment without GPUs, and Sun, Shen and Ton (2024), Rethinking Bradley-Terry Models in Preference-Based "
        "Reward Modeling, ICLR 2025."
    )
    setting = (
        "an analogue: the models and the study are re-implemented, the data are others. Best-of-n up to 500 is on generated "
        "arrays of the layout that the paper released, with gold by a known function; the paper's are embeddings of sampled "
        "answers with gold by golden reward models. Beside it, a smaller study on encoded data with graded responses."
    )

    options = ("against",)

    def __init__(self, against: Encoder | str | None = None) -> None:
        self.against = against

    def estimate(self, preset: str = "quick", data: Any = None) -> str:
        """Say how long the study takes; encoding apart."""
        told = f"about {duration(SECONDS[preset])} on two cores, encoding apart"
        return told if preset == "quick" else f"{told}: a guess from the sizes, which nobody has run"

    def prepare(
        self, data: Any, preset: str, *, encoder: Any = None, store: Any = None, progress: Progress = silent
    ) -> EncodedData:
        """Encode the data for the part that is not on generated arrays."""
        return prepare_reuse(data, encoder, self.against, store=store, progress=progress)

    def tour(self, data: StudyData, progress: Progress = silent) -> tuple[list[str], Section]:
        """Bradley-Terry and classification, linear on all views, over labels that are turned round."""
        from embedrm.experiments.reuse_tour import FLIPS, tour_facts, tour_figure, tour_table

        try:
            facts = tour_facts(data, progress)
        except InvalidInputError as error:
            return [f"No labels were turned round: {error}"], Section(self.title, f"Left out: {error}")
        worst = facts[-1]
        found = (
            f"With {FLIPS[-1]:.0%} of the training labels turned round, accuracy is {worst['bt']['value']:.3f} by a "
            f"Bradley-Terry head and {worst['clf']['value']:.3f} by a classifier of single responses."
        )
        text = (
            "Two ways to train one linear head on the same pairs: by which of the two was chosen (Bradley-Terry), or by "
            "whether a response was chosen at all (classification), with some of the training labels turned round. The full "
            "study adds perceptrons, trees, best-of-n, pairing and ensembles: embedrm reproduce sun2025."
        )
        return [found], Section(self.title, text, [tour_table(facts)], [tour_figure(facts)])

    def study(self, data: Any, preset: str, progress: Progress = silent, *, literal: Any = None) -> Report:
        """Noise, annotations, pairing, ensembles, cost, encoded data, claims."""
        from embedrm.experiments.reuse_report import add_sections, findings, notes
        from embedrm.experiments.reuse_study import ReuseStudy

        report = Report("reproduction", self.title)
        study = ReuseStudy(REUSE_PRESETS[preset], data, progress)
        report.notes = [*data.told, f"{self.citation} Here: {self.setting}", *notes(study)]
        report.summary += findings(study)
        report.claims = study.claims
        add_sections(study, report)
        return report
