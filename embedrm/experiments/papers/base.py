"""The contract of a reproduced paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.progress import Progress, silent

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
    from embedrm.experiments.literal_study import LiteralPlan
    from embedrm.experiments.study import StudyData
    from embedrm.reporting import Report
    from embedrm.reporting.report import Section

PRESETS = ("quick", "full")


class Paper:
    """Base class of papers; a subclass fills in the attributes and implements ``tour`` and ``study``.

    Attributes
    ----------
    title, citation : str
    setting : str
        "re-implementation" or "analogue", and in what.
    has_literal : bool
        Whether the paper's own models can be tuned beside the analogues (:meth:`plan_literal`).
    """

    registered_name: str
    title: str
    citation: str
    setting: str
    has_literal: bool = False

    def estimate(self, preset: str = "quick", data: PreferenceDataset | None = None) -> str:
        """Say how long the study of these data (the bundled ones where absent) takes, before it starts."""
        raise TypeError(f"{type(self).__name__} does not implement estimate")

    def tour(self, data: StudyData, progress: Progress = silent) -> tuple[list[str], Section]:
        """One table and one figure on the data: (findings, section)."""
        raise TypeError(f"{type(self).__name__} does not implement tour")

    def plan_literal(self, preset: str = "quick", data: Any = None, encoder: Any = None) -> LiteralPlan:
        """Lay out what ``literal`` tunes; nothing is tuned. The plan's ``estimate()`` says how long it takes.

        Raises
        ------
        InvalidInputError
            A paper without literal arms, or an encoder or data that they cannot be made on.
        """
        raise InvalidInputError(
            f"{self.registered_name} has no literal arms: nothing is tuned in it. Leave literal out, or take a paper that "
            "has some."
        )

    def study(
        self, data: StudyData, preset: str, progress: Progress = silent, *, literal: LiteralPlan | None = None
    ) -> Report:
        """Make the full study; with the arms of ``literal`` where given."""
        raise TypeError(f"{type(self).__name__} does not implement study")

    def run(
        self,
        *,
        preset: str = "quick",
        data: Any = None,
        output: str | Path | None = None,
        encoder: Any = None,
        store: Any = None,
        progress: Progress = silent,
        command: str | None = None,
        literal: bool | LiteralPlan = False,
    ) -> tuple[Report, dict[str, Path]]:
        """Prepare the data, make the study, save its report; returns (report, files).

        ``literal`` tunes the paper's own models too, as planned by :meth:`plan_literal`.
        """
        import time

        from embedrm.experiments.study import prepare, save_report

        if preset not in PRESETS:
            raise unknown_name("preset", preset, PRESETS)
        started = time.perf_counter()
        plan = self.plan_literal(preset, data, encoder) if literal is True else literal or None
        if plan is not None:
            plan.store = store
        prepared = prepare(data, encoder=encoder, store=store, progress=progress)
        more: dict[str, Any] = {} if plan is None else {"literal": plan}
        report = self.study(prepared, preset, progress, **more)
        report.provenance = prepared.provenance(started, command, seeds=0)
        name = f"{self.registered_name}-{preset}" + ("" if plan is None else "-literal")
        return report, save_report(report, output, name)
