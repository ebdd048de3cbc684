"""Durable, atomic files: write under a temporary name, fsync, rename into place, fsync the folder.

Nothing here knows what is written. A crash at any instant leaves either the old state or the new one, and at most a
temporary file that no reader looks at.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from embedrm.errors import StoreError

TEMP_PREFIX = ".tmp-"
REMOVED_PREFIX = ".removed-"
FULL_ERRNOS = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_CHUNK = 4 << 20


def content_hasher() -> hashlib.blake2b:
    """Return the hash that names a segment: BLAKE2b with 128 bits, 32 hex digits."""
    return hashlib.blake2b(digest_size=16)


def hash_file(path: Path, progress: Callable[[int], None] | None = None) -> tuple[str, int]:
    """Return the content hash and the length in bytes of a file, read once from start to end."""
    hasher, total = content_hasher(), 0
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(view[:count])
            total += count
            if progress is not None:
                progress(count)
    return hasher.hexdigest(), total


def write_all(fd: int, data: memoryview) -> None:
    """Write every byte: a single call may stop short on a nearly full disk before it fails."""
    done = 0
    while done < len(data):
        done += os.write(fd, data[done : done + _CHUNK])


def write_atomic(
    folder: Path,
    chunks: Iterable[Any],
    name: Callable[[str], str] | str,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Write a file durably and give it its name only when it is whole.

    Parameters
    ----------
    folder : Path
        An existing folder.
    chunks : iterable of bytes-like
        The content; contiguous buffers are written without a copy.
    name : str or callable
        The final name, or a function of the content hash (32 hex digits).
    check : callable, optional
        Given the finished temporary file; what it raises stops the file from being taken.

    Returns
    -------
    Path
        The file in place. A file of that name is replaced.

    Raises
    ------
    OSError
        As the system gave it; the temporary file has been removed.
    """
    temp = folder / f"{TEMP_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
    hasher = content_hasher()
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644)
    try:
        try:
            for chunk in chunks:
                data = memoryview(chunk)
                if data.nbytes:
                    flat = data.cast("B")
                    write_all(fd, flat)
                    hasher.update(flat)
            os.fsync(fd)
        finally:
            os.close(fd)
        final = folder / (name if isinstance(name, str) else name(hasher.hexdigest()))
        if check is not None:
            check(temp)
        os.replace(temp, final)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    return final


def write_json(folder: Path, name: str, value: Any) -> Path:
    """Write a value as readable JSON with :func:`write_atomic`."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return write_atomic(folder, [text.encode("utf-8", "backslashreplace")], name)


def sync_folder(folder: Path) -> None:
    """Make a rename or unlink in a folder durable (Windows has no such call and needs none)."""
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents durably; one that exists is fine."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def leftovers(folder: Path) -> list[Path]:
    """Return the temporary files (and half-removed folders) that a dead, or still living, process has in a folder."""
    with os.scandir(folder) as entries:
        return sorted(Path(e.path) for e in entries if e.name.startswith((TEMP_PREFIX, REMOVED_PREFIX)))


def age_of(path: Path) -> float:
    """Return the seconds since a path was last written; 0 if it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def is_full(err: OSError) -> bool:
    """Whether an error means that there is no room: a full disk, a quota, a file size limit."""
    return err.errno in FULL_ERRNOS


def disk_error(err: OSError, where: Path, doing: str, committed: str) -> StoreError:
    """Build the one error for a failed write.

    Parameters
    ----------
    err : OSError
        What the system said.
    where : Path
        The folder that was written to.
    doing : str
        What was tried, as in "cannot <doing>".
    committed : str
        What is safe nevertheless, a full sentence.
    """
    if is_full(err):
        return StoreError(f"no space left on {where} ({err.strerror}). {committed} Free space and run again.")
    return StoreError(
        f"cannot {doing} in {where}: {err.strerror or err}. {committed} "
        "Check that the folder is writable (EMBEDRM_HOME moves the default store) and run again."
    )
