"""The file of finished trials: one line each, appended whole, by any number of processes.

A line is written by one ``write`` to a file opened for appending, under a lock, so that no two mix. Where a process was
killed in the middle of one, the next writer ends the torn line first and readers skip it: the trial was not finished.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from embedrm.errors import DataError, InvalidInputError

FILE = "trials.jsonl"
# A process that is killed loses nothing that was written; a machine that loses power loses this many seconds at most.
SYNC_SECONDS = 0.5
OK, FAILED = "ok", "failed"


@contextmanager
def locked(descriptor: int) -> Iterator[None]:
    """Hold an exclusive lock on an open file; the system lets go of it when the process ends, however it ends."""
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class TrialFile:
    """Finished trials of a folder, by their fingerprint; the threads of a process may share one.

    Parameters
    ----------
    folder : path-like
        Made by the first :meth:`append`.
    read_from : int
        Bytes at the beginning of the file that are not read.

    Attributes
    ----------
    records : dict of str to dict
        What was read so far: the first success of a fingerprint, or where there is none its latest failure.
    read_to : int
        Bytes that were read, up to the end of a whole line.
    news : set of str
        Fingerprints read since :meth:`begin`, or since this was made: it only grows, so that no thread misses one.
    torn : int
        Lines that were no whole record.
    """

    def __init__(self, folder: str | Path, read_from: int = 0) -> None:
        self.path = Path(folder) / FILE
        self.records: dict[str, dict[str, Any]] = {}
        self.news: set[str] = set()
        self.torn = 0
        self.read_to = read_from
        self._descriptor: int | None = None
        self._synced = time.monotonic()
        # two threads that read the same bytes would both step over them
        self._reading = threading.Lock()

    def begin(self) -> None:
        """Forget what is new: what is read from here on is."""
        with self._reading:
            self.news = set()

    def read(self) -> list[str]:
        """Read what was added since the last call, by anyone; return the fingerprints."""
        with self._reading:
            return self._read()

    def _read(self) -> list[str]:
        try:
            with open(self.path, "rb") as file:
                file.seek(self.read_to)
                new = file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DataError(f"finished trials cannot be read ({error.strerror or error}).", self.path) from None
        # the end of a line that is being written now is read when it is whole
        end = new.rfind(b"\n") + 1
        self.read_to += end
        found = []
        for line in new[:end].splitlines():
            record = _record(line)
            if record is None:
                self.torn += bool(line.strip())
                continue
            name = record["fingerprint"]
            if self.records.get(name, {}).get("status") != OK:
                self.records[name] = record
            found.append(name)
        self.news.update(found)
        return found

    def append(self, record: dict[str, Any], once: bool = False) -> bool:
        """Add one record, whole; it is safe from the end of this process when this returns.

        With ``once`` nothing is added where somebody else has finished the trial since :meth:`begin`: a worker that outlived
        its sweep, say, or one that a cluster believed dead. A success takes the place of such a failure. Returns whether
        the record was added.
        """
        line = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        descriptor = self._open()
        with locked(descriptor):
            if once:
                # nobody else writes now
                self.read()
                name = record["fingerprint"]
                if name in self.news and (self.records[name]["status"] == OK or record["status"] != OK):
                    return False
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            write_all(descriptor, line, self.path)
        now = time.monotonic()
        if now - self._synced > SYNC_SECONDS:
            os.fsync(descriptor)
            self._synced = now
        return True

    def _open(self) -> int:
        if self._descriptor is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            except OSError as error:
                raise InvalidInputError(
                    f"cannot write {self.path}: {error.strerror or error}; choose another folder"
                ) from None
        return self._descriptor

    def close(self, sync: bool = True) -> None:
        """Bring what was written to the disk and let go of the file."""
        if self._descriptor is not None:
            if sync:
                os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def finished(self, retry: bool = False) -> set[str]:
        """Return the fingerprints that need no computing: successes, and failures unless they are to be tried again."""
        return {name for name, record in self.records.items() if record["status"] == OK or not retry}


def write_all(descriptor: int, line: bytes, path: Path) -> None:
    """Write all bytes, however many calls the system needs for it."""
    written = 0
    while written < len(line):
        try:
            written += os.write(descriptor, line[written:])
        except OSError as error:
            raise InvalidInputError(
                f"cannot write {path}: {error.strerror or error}; make room and run again"
            ) from None


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(record, dict) and isinstance(record.get("fingerprint"), str)
    return record if whole and record.get("status") in (OK, FAILED) else None


def write_whole(path: Path, data: bytes) -> None:
    """Write a file through a temporary one, so that nobody reads half of it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror or error}; choose another folder") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_once(path: Path, text: str) -> bool:
    """Write a file whole where there is none; return whether it holds this text now."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        write_whole(temporary, text.encode("utf-8"))
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError as error:
            raise InvalidInputError(f"cannot write {path}: {error.strerror or error}; choose another folder") from None
        finally:
            temporary.unlink()
    return path.read_text(encoding="utf-8") == text
