"""One encoder at one precision: a folder of segments with the fingerprint beside them.

``<digest>`` holds float32 and ``<digest>-f16`` float16: precision belongs to the folder, so that a request for one
precision can never be answered with the other.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedrm.errors import InvalidInputError, StoreError
from embedrm.store.canary import FILE as CANARY_FILE
from embedrm.store.canary import write_canaries
from embedrm.store.digest import matches_digest
from embedrm.store.files import make_folder, write_json
from embedrm.store.index import Snapshot
from embedrm.store.segment import (
    NAME,
    Array,
    DamagedSegmentError,
    NewerSegmentError,
    Segment,
    SegmentGoneError,
    write_segment,
)

ENCODER_FILE = "encoder.json"
QUARANTINE = "quarantine"
SUFFIXES = {"float32": "", "float16": "-f16"}
_NAME = re.compile(r"([0-9a-f]{32})(-f16)?")
_TRIES = 50


def parse_folder_name(name: str) -> tuple[str, str] | None:
    """Return ``(digest, dtype)`` of a folder name, or None if it is not one."""
    match = _NAME.fullmatch(name)
    return None if match is None else (match[1], "float16" if match[2] else "float32")


class Folder:
    """Lists, opens and adds segments.

    Parameters
    ----------
    root : Path
        The store.
    digest : str
        32 hex digits of the encoder's fingerprint.
    dtype : {"float32", "float16"}
    """

    def __init__(self, root: Path, digest: str, dtype: str) -> None:
        self.digest, self.dtype = digest, dtype
        self.name = digest + SUFFIXES[dtype]
        self.path = root / self.name
        self.damaged: dict[str, StoreError] = {}
        self._snapshot = Snapshot([], str(self.path))
        self._segments: dict[str, Segment] = {}

    def names(self) -> frozenset[str]:
        """File names of the segments there are.

        A listing that runs while another process compacts may miss both the merged segment, written behind its back,
        and the old ones, removed before it came to them; so a change counts only when two listings agree.
        """
        known = frozenset(self._segments) | frozenset(self.damaged)
        before: frozenset[str] | None = None
        for _ in range(_TRIES):
            try:
                with os.scandir(self.path) as entries:
                    now = frozenset(e.name for e in entries if NAME.fullmatch(e.name))
            except FileNotFoundError:
                now = frozenset()
            except OSError as err:
                raise StoreError(f"cannot list {self.path}: {err.strerror}. Check the path and permissions.") from err
            if now in (known, before):
                return now
            before = now
        return now

    def refresh(self, *, lenient: bool = False) -> Snapshot:
        """List again, open what is new, and return the segments there are.

        Parameters
        ----------
        lenient : bool
            Leave damaged segments aside (they stay in ``damaged``) where the default raises.

        Raises
        ------
        StoreError
            Some segment is damaged or newer than this version.
        """
        for _ in range(_TRIES):
            names = self.names()
            if names != frozenset(self._segments) or self.damaged:
                try:
                    self._open(names)
                except SegmentGoneError:
                    continue
            if self.damaged and not lenient:
                raise self._damage()
            return self._snapshot
        raise StoreError(f"segments of {self.path} vanish faster than they can be opened; stop the other processes.")

    def _open(self, names: frozenset[str]) -> None:
        segments: dict[str, Segment] = {}
        damaged: dict[str, StoreError] = {}
        for name in sorted(names):
            try:
                segments[name] = self._segments.get(name) or self.open(name)
            except (DamagedSegmentError, NewerSegmentError) as err:
                damaged[name] = err
        if segments != self._segments:
            self._snapshot = Snapshot(segments.values(), str(self.path))
        self._segments, self.damaged = segments, damaged

    def open(self, name: str, path: Path | None = None) -> Segment:
        """Open a segment of this folder (or of ``path``, before it is taken in) and check that it belongs here."""
        segment = Segment(path or self.path / name)
        if (segment.encoder, segment.dtype) != (self.digest, self.dtype):
            raise DamagedSegmentError(
                self.path / name, f"it holds {segment.dtype} vectors of encoder {segment.encoder}, not of this folder"
            )
        return segment

    def check(self, name: str, path: Path) -> None:
        """Check a segment that is not in place yet, as :meth:`open` does."""
        self.open(name, path)

    def _damage(self) -> StoreError:
        errors = list(self.damaged.values())
        first = next((e for e in errors if isinstance(e, DamagedSegmentError)), None)
        if first is None or len(errors) == 1:
            return errors[0]
        return DamagedSegmentError(first.path, f"{first.reason} (and {len(errors) - 1} more in this folder)")

    def identity(self) -> dict[str, Any] | None:
        """Return the fingerprint in encoder.json, None if there is no such file (yet).

        Raises
        ------
        StoreError
            The file is not JSON, is newer, or its fingerprint does not have the digest that names the folder.
        """
        path = self.path / ENCODER_FILE
        try:
            value = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            value = None
        except OSError as err:
            raise StoreError(f"cannot read {path}: {err.strerror}. Check the path and permissions.") from err
        return check_identity(path, value, self.digest, self.dtype)

    def ensure(self, fingerprint: Mapping[str, Any]) -> None:
        """Create the folder with encoder.json and canaries.json, where they are not there."""
        if not matches_digest(fingerprint, self.digest):
            raise InvalidInputError(
                f"the encoder's fingerprint_digest() is {self.digest}, which is not the digest of its fingerprint(). "
                "Return embedrm.store.fingerprint_digest(self.fingerprint()) from it."
            )
        make_folder(self.path)
        if not (self.path / ENCODER_FILE).exists():
            write_json(
                self.path,
                ENCODER_FILE,
                {"version": 1, "digest": self.digest, "dtype": self.dtype, "fingerprint": dict(fingerprint)},
            )
        if not (self.path / CANARY_FILE).exists():
            write_canaries(self.path)

    def commit(self, arrays: Mapping[str, Array], fingerprint: Mapping[str, Any] | None = None) -> Path:
        """Write one segment; with a fingerprint, a folder that is not there (or was just removed) is made first."""
        if fingerprint is not None:
            self.ensure(fingerprint)
        return write_segment(self.path, arrays, encoder=self.digest, dtype=self.dtype)


def check_identity(path: Path, value: object, digest: str, dtype: str) -> dict[str, Any]:
    """Return the fingerprint in the parsed encoder.json of the folder of this digest and precision, or raise."""
    fix = (
        "Run `embedrm cache verify --repair`: it moves the file to quarantine/, and the next request of this encoder "
        "writes it again."
    )
    if isinstance(value, dict) and isinstance(value.get("version"), int) and value["version"] > 1:
        raise StoreError(f"{path} has version {value['version']}; this embedrm reads 1. Upgrade embedrm.")
    if not isinstance(value, dict) or not isinstance(value.get("fingerprint"), dict):
        raise StoreError(f"{path} is damaged: it is not a JSON object with a fingerprint. {fix}")
    fingerprint: dict[str, Any] = value["fingerprint"]
    if value.get("version") != 1 or (value.get("digest"), value.get("dtype")) != (digest, dtype):
        raise StoreError(
            f"{path} disagrees with the name of its folder: it says digest {value.get('digest')!r}, precision "
            f"{value.get('dtype')!r} and version {value.get('version')!r}. {fix}"
        )
    if not matches_digest(fingerprint, digest):
        raise StoreError(f"{path} disagrees with the name of its folder: its fingerprint has another digest. {fix}")
    return fingerprint
