"""The contract of a reproduced paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.progress import Progress, silent

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
    from embedrm.experiments.study import StudyData
    from embedrm.reporting import Report
    from embedrm.reporting.report import Section

PRESETS = ("quick", "full")
PREFERENCES, ATTRIBUTE_TEXTS = "preferences", "attribute texts"
"""What a paper is studied on."""


class Prepared(Protocol):
    """Data that are ready for a study."""

    def provenance(self, started: float, command: str | None, seeds: Any) -> dict[str, Any]:
        """Collect the facts of a run for a report."""


class Plan(Protocol):
    """What tuning a paper's own models will do, before anything is tuned."""

    store: Any

    def estimate(self) -> str:
        """Say how long it takes on this machine."""


class Paper:
    """Base class of papers; a subclass fills in the attributes and implements ``tour`` and ``study``.

    Attributes
    ----------
    title, citation : str
    setting : str
        "re-implementation" or "analogue", and in what.
    has_literal : bool
        Whether the paper's own models can be tuned beside the analogues (:meth:`plan_literal`).
    always_literal : bool
        Whether they are tuned unasked, where encoder and data allow it.
    why_not : str
        Why they were not, where :meth:`plan_if_possible` found that they cannot be; empty otherwise.
    reads : {"preferences", "attribute texts"}
        What its data are. Preferences are encoded by a sentence encoder; a paper on something else prepares its data itself
        (:meth:`read`, :meth:`prepare`), and its tour needs none.
    options : tuple of str
        Arguments of the class that ``embedrm reproduce`` gives where the flag of that name is used: ``"lm"``, the name of a
        causal language model; ``"against"``, a second encoder.
    """

    registered_name: str
    title: str
    citation: str
    setting: str
    has_literal: bool = False
    always_literal: bool = False
    why_not: str = ""
    reads: str = PREFERENCES
    options: tuple[str, ...] = ()

    def estimate(self, preset: str = "quick", data: PreferenceDataset | None = None) -> str:
        """Say how long the study of these data (the bundled ones where absent) takes, before it starts."""
        raise TypeError(f"{type(self).__name__} does not implement estimate")

    def read(self, paths: Any, preset: str = "quick") -> Any:
        """Read files into what :meth:`run` takes as ``data``."""
        from embedrm.experiments.study import load_dataset

        return load_dataset(paths)

    def prepare(
        self, data: Any, preset: str, *, encoder: Any = None, store: Any = None, progress: Progress = silent
    ) -> Any:
        """Make what :meth:`study` takes, with a ``provenance`` (:class:`Prepared`): encoded preferences, by default."""
        from embedrm.experiments.study import prepare

        return prepare(data, encoder=encoder, store=store, progress=progress)

    def tour(self, data: StudyData, progress: Progress = silent) -> tuple[list[str], Section]:
        """One table and one figure on the data: (findings, section)."""
        raise TypeError(f"{type(self).__name__} does not implement tour")

    def plan_literal(self, preset: str = "quick", data: Any = None, encoder: Any = None) -> Plan:
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

    def plan_if_possible(self, preset: str = "quick", data: Any = None, encoder: Any = None) -> Plan | None:
        """Return the plan of a paper that tunes unasked; None where it does not, or where it cannot, and says why."""
        if not self.always_literal:
            return None
        try:
            return self.plan_literal(preset, data, encoder)
        except InvalidInputError as error:
            self.why_not = f"The paper's own models were left out: {error}"
            return None

    def study(self, data: Any, preset: str, progress: Progress = silent, *, literal: Any = None) -> Report:
        """Make the full study of what :meth:`prepare` made; with the arms of ``literal`` where given."""
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
        literal: bool | Plan = False,
    ) -> tuple[Report, dict[str, Path]]:
        """Prepare the data, make the study, save its report; returns (report, files).

        ``literal`` tunes the paper's own models too, as planned by :meth:`plan_literal`; a paper that tunes unasked does so
        where it can.
        """
        import time

        from embedrm.experiments.study import save_report

        if preset not in PRESETS:
            raise unknown_name("preset", preset, PRESETS)
        started = time.perf_counter()
        if literal is True:
            plan: Plan | None = self.plan_literal(preset, data, encoder)
        else:
            plan = literal or (None if self.why_not else self.plan_if_possible(preset, data, encoder))
        if plan is not None:
            plan.store = store
        prepared: Prepared = self.prepare(data, preset, encoder=encoder, store=store, progress=progress)
        more: dict[str, Any] = {} if plan is None else {"literal": plan}
        report = self.study(prepared, preset, progress, **more)
        report.provenance = prepared.provenance(started, command, seeds=0)
        name = f"{self.registered_name}-{preset}" + ("" if plan is None or self.always_literal else "-literal")
        return report, save_report(report, output, name)
