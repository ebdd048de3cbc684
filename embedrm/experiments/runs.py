"""Folders of results: what is in them, how two results differ, and taking one away."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedrm.errors import DataError, InvalidInputError
from embedrm.experiments.experiment_run import SAVED, SAVED_SWEEP, leaves
from embedrm.experiments.sweep import MEMO
from embedrm.experiments.sweep_claims import Claims
from embedrm.experiments.sweep_trials import FILE, OK, TrialFile
from embedrm.experiments.trial_metrics import recorded

RUN, SWEEP = "run", "sweep"
# What runs and sweeps write into their folder; nothing else is ever deleted. The results go last.
REPORT_FILES = ("report.html", "report.md", "report.json")
OWN_FILES = ("trials.parquet", "trials.csv", MEMO, SAVED_SWEEP, SAVED, FILE)
OWN_FOLDERS = ("figures", "claims", "running", "search")
# Reports and figures of theirs, by which those of other commands in the same folder are told apart.
KINDS = ("experiment", "sweep")
_FIGURES = ("accuracy-by-domain-", "over-", "cost-", "best-of-n")
_SESSION = re.compile(r"\.gate|.+-\d+-[0-9a-f]{8}")
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
        """Read a folder; one without results raises, and so does a file of that name that is something else."""
        root = Path(folder)
        if not (root / FILE).is_file():
            raise DataError(
                f"there are no results here: a folder of 'embedrm run --output' or 'embedrm sweep' has a {FILE}.", root
            )
        trials = TrialFile(root)
        trials.read()
        whole = [record for record in trials.records.values() if _whole(record)]
        torn = trials.torn + len(trials.records) - len(whole)
        if torn and not whole:
            raise DataError(
                f"none of its {torn:,} lines is a result of 'embedrm run' or 'embedrm sweep'; it is something else, or of "
                "another version.",
                root / FILE,
            )
        return cls(root, RUN if (root / SAVED).is_file() else SWEEP, whole, torn)

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
    """Return the runs and sweeps in a folder and at most six folders below it, by path; hidden ones are not looked into."""
    top = Path(root)
    if not top.is_dir():
        raise DataError("there is no such folder; name one that holds runs.", top)
    found = []
    for folder in sorted(_folders(top)):
        # another program's file of that name is no run
        with suppress(DataError):
            found.append(Run.load(folder))
    return found


def _whole(record: Mapping[str, Any]) -> bool:
    """Whether a line has what every result of this package has."""
    if not isinstance(record.get("seed"), int) or not isinstance(record.get("settings"), Mapping):
        return False
    if not isinstance(record.get("experiment"), Mapping):
        return False
    if record["status"] != OK:
        return isinstance(record.get("error"), Mapping)
    splits = record.get("metrics")
    return isinstance(splits, Mapping) and all(isinstance(m, Mapping) and "micro" in m for m in splits.values())


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
        each split and measure the two means over seeds and their difference; ``seeds``: those of each; ``versions``: of
        the package that computed each.
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
        "seeds": [sorted(record["seed"] for record in records) for records in chosen],
        "versions": [sorted({str(record.get("version", "unknown")) for record in records}) for records in chosen],
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
        _drop(run.folder)
    return {"folder": str(run.folder), "bytes_freed": freed, "kept": kept}


def _clear(folder: Path) -> int:
    """Delete what is a run's or a sweep's own in one folder; return the bytes. Links to folders are not followed."""
    freed = 0
    for other in folder.glob("sweep-*"):
        if (other / SAVED_SWEEP).is_file() and not other.is_symlink():
            freed += _clear(other)
            _drop(other)
    own = [*_report_files(folder), *_session_files(folder)]
    own += [folder / name for name in OWN_FILES if name != MEMO or _is_memo(folder / name)]
    for path in own:
        if path.is_file():
            freed += path.lstat().st_size
            path.unlink()
    for name in OWN_FOLDERS:
        place = folder / name
        for inner in () if place.is_symlink() else (*place.glob("*/"), place):
            _drop(inner)
    return freed


def _drop(folder: Path) -> None:
    """Remove a folder in which nothing is left."""
    if folder.is_dir() and not folder.is_symlink():
        # somebody stands in it, or has just put something there
        with suppress(OSError):
            folder.rmdir()


def _report_files(folder: Path) -> list[Path]:
    """Return the report of a run or sweep with its figures, and those of earlier reports; none of another command's."""
    from embedrm.reporting import Report

    names: set[str] = set()
    try:
        report = Report.load(folder)
    except DataError:
        reports = []
    else:
        if report.kind not in KINDS:
            return []
        names, reports = set(report.figures), [folder / name for name in REPORT_FILES]
    place = folder / "figures"
    drawn = [] if place.is_symlink() else [p for p in place.glob("*") if p.suffix in (".svg", ".png")]
    return [*(p for p in drawn if p.stem in names or p.stem.startswith(_FIGURES)), *reports]


def _session_files(folder: Path) -> list[Path]:
    """Return what sessions left in their own folders."""
    places = [folder / name for name in ("claims", "running")]
    found = [p for place in places if not place.is_symlink() for p in place.glob("*") if _SESSION.fullmatch(p.name)]
    inner = [p for place in found if place.is_dir() and not place.is_symlink() for p in place.iterdir()]
    search = folder / "search"
    if not search.is_symlink():
        found += [p for p in search.glob("*") if p.suffix in (".journal", ".lock") or p.name == ".asking"]
    return [p for p in (*found, *inner) if p.is_file()]


def _is_memo(path: Path) -> bool:
    """Whether this is what a sweep knows of data, and not somebody's data."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and all(isinstance(v, dict) and "digest" in v for v in found.values())
