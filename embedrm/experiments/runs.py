"""Folders of results: what is in them, how two results differ, and taking one away."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedrm.errors import DataError, InvalidInputError
from embedrm.experiments.experiment_run import SAVED, leaves
from embedrm.experiments.sweep_claims import Claims
from embedrm.experiments.sweep_trials import FILE, OK, TrialFile
from embedrm.experiments.trial_metrics import recorded

RUN, SWEEP = "run", "sweep"
# What runs and sweeps write into their folder; nothing else is ever deleted.
OWN_FILES = (
    FILE,
    SAVED,
    "sweep.yaml",
    "data.json",
    "trials.csv",
    "trials.parquet",
    "report.json",
    "report.md",
    "report.html",
)
OWN_FOLDERS = ("figures", "claims", "running")
_MAX_DEPTH = 6


@dataclass(frozen=True)
class Run:
    """One folder of results.

    Attributes
    ----------
    folder : Path
    kind : {"run", "sweep"}
    records : list of dict
        Finished trials, in the order of the file.
    torn : int
        Lines that are no whole record.
    """

    folder: Path
    kind: str
    records: list[dict[str, Any]]
    torn: int

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read a folder; one without results raises."""
        root = Path(folder)
        if not (root / FILE).is_file():
            raise DataError(
                f"there are no results here: a folder of 'embedrm run --output' or 'embedrm sweep' has a {FILE}.", root
            )
        trials = TrialFile(root)
        trials.read()
        return cls(root, RUN if (root / SAVED).is_file() else SWEEP, list(trials.records.values()), trials.torn)

    @property
    def title(self) -> str:
        """The title of its report, "" where none was written yet."""
        from embedrm.reporting import Report

        try:
            return Report.load(self.folder).title
        except DataError:
            return ""

    def facts(self) -> dict[str, Any]:
        """Return what a list says of it."""
        failed = sum(record["status"] != OK for record in self.records)
        times = [record["time"] for record in self.records if "time" in record]
        return {
            "folder": str(self.folder),
            "kind": self.kind,
            "title": self.title,
            "finished": len(self.records) - failed,
            "failed": failed,
            "last": max(times, default=None),
            "seconds": float(sum(record.get("seconds") or 0.0 for record in self.records)),
        }

    def find(self, beginning: str) -> dict[str, Any]:
        """Return the one record whose fingerprint begins so."""
        found = [record for record in self.records if record["fingerprint"].startswith(beginning.lower())]
        if len(found) == 1:
            return found[0]
        said = "none" if not found else f"{len(found)}"
        raise InvalidInputError(
            f"{said} of {len(self.records)} fingerprints in {self.folder} begin with {beginning!r}; 'embedrm runs show "
            f"{self.folder}' lists them"
        )


def find_runs(root: str | Path) -> list[Run]:
    """Return the runs and sweeps in a folder and below it, by their path; hidden folders are not looked into."""
    top = Path(root)
    if not top.is_dir():
        raise DataError("there is no such folder; name one that holds runs.", top)
    return [Run.load(folder) for folder in sorted(_folders(top))]


def _folders(top: Path) -> Iterator[Path]:
    for here, names, files in os.walk(top):
        depth = len(Path(here).relative_to(top).parts)
        names[:] = [n for n in sorted(names) if not n.startswith(".") and n not in OWN_FOLDERS and depth < _MAX_DEPTH]
        if FILE in files:
            yield Path(here)


def split_name(text: str) -> tuple[str, str | None]:
    """Split ``FOLDER`` or ``FOLDER:FINGERPRINT``; what exists as a folder is one."""
    folder, colon, name = text.rpartition(":")
    if not colon or Path(text).exists() or not folder:
        return text, None
    return folder, name


def diff_facts(first: str, second: str) -> dict[str, Any]:
    """Compare two results.

    Parameters
    ----------
    first, second : str
        ``FOLDER`` of one variant, whatever its seeds, or ``FOLDER:FINGERPRINT`` of one trial of many.

    Returns
    -------
    dict
        ``names``; ``settings``: those that differ, by path, as two values (None where one is not set); ``metrics``: for
        each split and measure the two means over seeds and their difference; ``seeds``: how many of each.
    """
    chosen = [_variant(text) for text in (first, second)]
    settings = [_settings(records[0]) for records in chosen]
    paths = list(dict.fromkeys([*settings[0], *settings[1]]))
    different = {p: [s.get(p) for s in settings] for p in paths if settings[0].get(p) != settings[1].get(p)}
    means = [_means(records) for records in chosen]
    metrics = {
        name: {"first": means[0][name], "second": means[1][name], "difference": means[1][name] - means[0][name]}
        for name in means[0]
        if name in means[1]
    }
    return {
        "names": [first, second],
        "seeds": [len(records) for records in chosen],
        "settings": different,
        "metrics": metrics,
    }


def _variant(text: str) -> list[dict[str, Any]]:
    folder, name = split_name(text)
    run = Run.load(folder)
    if name is not None:
        record = run.find(name)
        if record["status"] != OK:
            raise InvalidInputError(f"{text} failed ({record['error']['message']:.200}); there is nothing to compare")
        return [record]
    good = [record for record in run.records if record["status"] == OK]
    if not good:
        raise InvalidInputError(f"{folder} has no finished trial to compare")
    kinds = {str(sorted(_settings(record).items(), key=str)) for record in good}
    if len(kinds) > 1:
        raise InvalidInputError(
            f"{folder} has {len(kinds)} variants; say which: {folder}:FINGERPRINT, see 'embedrm runs show {folder}'"
        )
    return good


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    return leaves(record.get("experiment") or {})


def _means(records: list[dict[str, Any]]) -> dict[str, float]:
    out: dict[str, list[float]] = {}
    for record in records:
        for split, facts in record["metrics"].items():
            for name in recorded(facts):
                out.setdefault(f"{split} {name}", []).append(facts[name])
        for name in ("parameters", "seconds"):
            out.setdefault(name, []).append(record[name])
    return {name: float(np.mean(values)) for name, values in out.items() if len(values) == len(records)}


def remove_run(folder: str | Path) -> dict[str, Any]:
    """Delete what a run or sweep wrote; anything else in the folder stays, and the folder with it.

    Returns
    -------
    dict
        ``folder``, ``bytes_freed``, and ``kept``: names of what is not its own.

    Raises
    ------
    InvalidInputError
        While a process is at work in it.
    """
    run = Run.load(folder)
    if (run.folder / "claims").is_dir():
        with Claims(run.folder) as claims:
            working = claims.living()
        if working:
            raise InvalidInputError(f"a sweep is at work in {run.folder} ({', '.join(working)}); stop it first")
    freed = _clear(run.folder)
    kept = sorted(path.name for path in run.folder.iterdir())
    if not kept:
        run.folder.rmdir()
    return {"folder": str(run.folder), "bytes_freed": freed, "kept": kept}


def _clear(folder: Path) -> int:
    """Delete what is a run's or a sweep's own in one folder; return the bytes. The results go last."""
    figures = [p for p in (folder / "figures").glob("*") if p.suffix in (".svg", ".png")]
    inner = [p for name in ("claims", "running") for p in (folder / name).rglob("*") if p.is_file()]
    freed = 0
    for other in folder.glob("sweep-*"):
        if (other / "sweep.yaml").is_file():
            freed += _clear(other)
            if not any(other.iterdir()):
                other.rmdir()
    for path in (*figures, *inner, *(folder / name for name in reversed(OWN_FILES))):
        if path.is_file():
            freed += path.stat().st_size
            path.unlink()
    for name in OWN_FOLDERS:
        for place in (*(folder / name).glob("*/"), folder / name):
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
    return freed
