"""The contract of a reproduced paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedrm.errors import unknown_name
from embedrm.progress import Progress, silent

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
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
    """

    registered_name: str
    title: str
    citation: str
    setting: str

    def estimate(self, preset: str = "quick", data: PreferenceDataset | None = None) -> str:
        """Say how long the study of these data (the bundled ones where absent) takes, before it starts."""
        raise TypeError(f"{type(self).__name__} does not implement estimate")

    def tour(self, data: StudyData, progress: Progress = silent) -> tuple[list[str], Section]:
        """One table and one figure on the data: (findings, section)."""
        raise TypeError(f"{type(self).__name__} does not implement tour")

    def study(self, data: StudyData, preset: str, progress: Progress = silent) -> Report:
        """Make the full study."""
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
    ) -> tuple[Report, dict[str, Path]]:
        """Prepare the data, make the study, save its report; returns (report, files)."""
        import time

        from embedrm.experiments.study import prepare, save_report

        if preset not in PRESETS:
            raise unknown_name("preset", preset, PRESETS)
        started = time.perf_counter()
        prepared = prepare(data, encoder=encoder, store=store, progress=progress)
        report = self.study(prepared, preset, progress)
        report.provenance = prepared.provenance(started, command, seeds=0)
        return report, save_report(report, output, f"{self.registered_name}-{preset}")
