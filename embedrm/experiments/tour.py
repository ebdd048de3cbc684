"""The tour: one table and one figure for each paper implemented so far, on the bundled data."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from embedrm.errors import unknown_name
from embedrm.experiments.papers import PAPERS
from embedrm.experiments.papers.base import PRESETS
from embedrm.experiments.study import prepare, save_report
from embedrm.progress import Progress, silent
from embedrm.reporting import Report


def run_tour(
    *,
    preset: str = "quick",
    data: Any = None,
    output: str | Path | None = None,
    encoder: Any = None,
    store: Any = None,
    progress: Progress = silent,
    command: str | None = None,
) -> tuple[Report, dict[str, Path]]:
    """Encode the data once, show every paper on it, and save the report.

    Parameters
    ----------
    preset : {"quick", "full"}
        The tour is the same under both; the word is accepted so that every ``reproduce`` takes it.
    data, encoder, store, progress
        As in :func:`embedrm.experiments.study.prepare`.
    output : path-like, optional
        Run folder; ``runs/tour-TIME`` where absent.
    command : str, optional
        The exact command, for the provenance.

    Returns
    -------
    report : Report
    files : dict of str to Path
        What was written.
    """
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    started = time.perf_counter()
    prepared = prepare(data, encoder=encoder, store=store, progress=progress)
    report = Report("reproduction", "A tour of embedrm", notes=[prepared.sentence()])
    for name, cls in PAPERS:
        paper = cls()
        findings, section = paper.tour(prepared, progress)
        report.summary += findings
        report.add_section(section.title, section.text, section.tables, section.figures)
        report.notes.append(f"{name}: {paper.citation} Here: {paper.setting}")
    report.provenance = prepared.provenance(started, command, seeds=0)
    return report, save_report(report, output, "tour")
