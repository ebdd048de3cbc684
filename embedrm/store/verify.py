"""Verification: every byte of every segment against its name, every description against its folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embedrm.errors import StoreError
from embedrm.store.canary import FILE as CANARY_FILE
from embedrm.store.canary import CanaryCheck, read_canaries
from embedrm.store.files import REMOVED_PREFIX, TEMP_PREFIX, hash_file, make_folder, sync_folder
from embedrm.store.folder import ENCODER_FILE, QUARANTINE, Folder
from embedrm.store.segment import SUFFIX, DamagedSegmentError, NewerSegmentError, SegmentGoneError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Damage:
    """One damaged file, why it is, and where it was moved (None if it was not)."""

    path: str
    reason: str
    quarantined: str | None = None


@dataclass
class VerifyReport:
    """What verification found.

    Attributes
    ----------
    segments : int
        Whole segments.
    vectors : int
        Vectors in them, over all layers; a key that two segments hold counts twice.
    bytes : int
        Size of the whole segments.
    damaged : list of Damage
    leftovers : list of str
        Temporary files of dead (or still writing) processes; harmless, ``compact()`` removes them when they are old.
    unknown : list of str
        Files that the store did not write, or that a newer version wrote; nothing reads or moves them.
    canaries : list of CanaryCheck
        One for each layer, when an encoder was given.
    """

    segments: int = 0
    vectors: int = 0
    bytes: int = 0
    damaged: list[Damage] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    canaries: list[CanaryCheck] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was damaged and every canary is as it was; repaired damage counts as found."""
        return not self.damaged and all(check.ok for check in self.canaries)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values (an infinite canary gap is the string ``"inf"``)."""
        out = asdict(self)
        for row, check in zip(out["canaries"], self.canaries):
            row["ok"] = check.ok
            row["worst"] = "inf" if check.worst == float("inf") else check.worst
        return {**out, "clean": self.clean}


class Verifier:
    """Goes through folders and fills one report.

    Parameters
    ----------
    repair : bool
        Move what is damaged to the folder's ``quarantine/``.
    progress : callable, optional
        ``progress(done_bytes, total_bytes)``.
    total : int
        Expected bytes, for the progress.
    """

    def __init__(self, repair: bool, progress: Progress | None, total: int) -> None:
        self.report = VerifyReport()
        self._repair, self._progress = repair, progress
        self._done, self._total = 0, total

    def folder(self, folder: Folder) -> None:
        """Verify one encoder's folder."""
        seen: set[str] = set()
        for _ in range(50):
            # Segments that another process merges meanwhile vanish, and the merged one appears: look again.
            new = sorted(folder.names() - seen)
            if not new:
                break
            for name in new:
                self._segment(folder, name)
            seen.update(new)
        self._others(folder)
        try:
            fingerprint = folder.identity()
            if fingerprint is None and seen:
                path = folder.path / ENCODER_FILE
                reason = "it is missing; the next request of this encoder writes it again"
                self.report.damaged.append(Damage(str(path), reason))
        except StoreError as err:
            self._damage(folder, folder.path / ENCODER_FILE, str(err))
        try:
            read_canaries(folder.path)
        except StoreError as err:
            self._damage(folder, folder.path / CANARY_FILE, str(err))

    def _segment(self, folder: Folder, name: str) -> None:
        path = folder.path / name
        try:
            digest, size = hash_file(path, self._tick)
            if digest + SUFFIX != name:
                self._damage(folder, path, f"its {size} bytes do not have the hash that is its name")
                return
            segment = folder.open(name)
        except (FileNotFoundError, SegmentGoneError):
            return
        except NewerSegmentError as err:
            self.report.unknown.append(str(err))
            return
        except DamagedSegmentError as err:
            self._damage(folder, path, err.reason)
            return
        except OSError as err:
            self._damage(folder, path, f"it cannot be read: {err.strerror}")
            return
        self.report.segments += 1
        self.report.bytes += size
        self.report.vectors += segment.records * len(segment.layers)

    def _tick(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, max(self._total, self._done))

    def _others(self, folder: Folder) -> None:
        known = {ENCODER_FILE, CANARY_FILE, QUARANTINE}
        for name in sorted(os.listdir(folder.path)):
            path = folder.path / name
            if name.startswith((TEMP_PREFIX, REMOVED_PREFIX)):
                self.report.leftovers.append(str(path))
            elif name.endswith(SUFFIX):
                if len(name) != 32 + len(SUFFIX) or not set(name[:32]) <= set("0123456789abcdef"):
                    self._damage(folder, path, "its name is not a content hash")
            elif name not in known:
                self.report.unknown.append(str(path))

    def _damage(self, folder: Folder, path: Path, reason: str) -> None:
        moved: str | None = None
        if self._repair:
            with contextlib.suppress(FileNotFoundError):
                moved = str(quarantine(folder.path, path))
        self.report.damaged.append(Damage(str(path), reason, moved))


def quarantine(folder: Path, path: Path) -> Path:
    """Move a file to the folder's ``quarantine/``, under a free name, and return where it is."""
    try:
        make_folder(folder / QUARANTINE)
        target, number = folder / QUARANTINE / path.name, 1
        while target.exists():
            target = folder / QUARANTINE / f"{path.name}.{number}"
            number += 1
        os.replace(path, target)
        sync_folder(folder / QUARANTINE)
        sync_folder(folder)
    except FileNotFoundError:
        raise
    except OSError as err:
        raise StoreError(f"cannot move {path} to quarantine: {err.strerror}. Check permissions and space.") from err
    return target
