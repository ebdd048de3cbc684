"""Export to a folder or tar file, and import from either; each segment is checked against its name on the way.

An exported folder is itself a store. A tar file holds the same tree, uncompressed (vectors hardly compress).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from embedrm.errors import InvalidInputError, StoreError
from embedrm.store.canary import FILE as CANARY_FILE
from embedrm.store.canary import read_canaries
from embedrm.store.files import (
    TEMP_PREFIX,
    content_hasher,
    disk_error,
    make_folder,
    sync_folder,
    write_atomic,
)
from embedrm.store.folder import ENCODER_FILE, Folder, check_identity, parse_folder_name
from embedrm.store.segment import NAME, SUFFIX, DamagedSegmentError

_CHUNK = 4 << 20
_WRONG_HASH = "its content does not have the hash that is its name"


def export_folders(folders: Sequence[Folder], target: Path) -> dict[str, int]:
    """Copy whole folders to a new folder, or to a tar file if the name ends in ``.tar``.

    Returns
    -------
    dict
        ``encoders``, ``segments`` and ``bytes`` copied.

    Raises
    ------
    StoreError
        The target exists, there is no room for it, or a segment is damaged; nothing is left at the target.
    """
    if target.exists():
        raise StoreError(f"{target} exists. Name a new file or folder, or remove it first.")
    counts = {"encoders": 0, "segments": 0, "bytes": 0}
    temp = target.parent / f"{TEMP_PREFIX}{secrets.token_hex(8)}"
    try:
        make_folder(target.parent)
        if target.suffix == ".tar":
            with open(temp, "wb") as file:
                with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                    _copy_out(folders, lambda folder, path: _add_to_tar(archive, folder, path), counts)
                file.flush()
                os.fsync(file.fileno())
        else:
            temp.mkdir()
            _copy_out(folders, lambda folder, path: _add_to_folder(temp / folder, path), counts)
        os.replace(temp, target)
        sync_folder(target.parent)
    except OSError as err:
        raise disk_error(err, target.parent, "export", "Nothing was left there.") from err
    finally:
        if temp.is_dir():
            shutil.rmtree(temp, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                temp.unlink(missing_ok=True)
    return counts


def _copy_out(folders: Sequence[Folder], add: Callable[[str, Path], int], counts: dict[str, int]) -> None:
    for folder in folders:
        if folder.identity() is None:
            raise StoreError(f"{folder.path} has no {ENCODER_FILE}; ask for some vectors of its encoder to restore it.")
        read_canaries(folder.path)
        for name in (ENCODER_FILE, CANARY_FILE):
            if (folder.path / name).exists():
                counts["bytes"] += add(folder.name, folder.path / name)
        seen: set[str] = set()
        # A segment that is compacted away meanwhile comes back merged, in the next listing.
        while new := sorted(folder.names() - seen):
            for name in new:
                with contextlib.suppress(FileNotFoundError):
                    counts["bytes"] += add(folder.name, folder.path / name)
                    counts["segments"] += 1
            seen.update(new)
        counts["encoders"] += 1


class _HashingReader:
    """A file whose content is hashed as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.hasher = content_hasher()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.hasher.update(data)
        return data


def _add_to_tar(archive: tarfile.TarFile, folder: str, path: Path) -> int:
    with open(path, "rb") as file:
        info = tarfile.TarInfo(f"{folder}/{path.name}")
        info.size = os.fstat(file.fileno()).st_size
        info.mode = 0o644
        reader = _HashingReader(file)
        archive.addfile(info, reader)
    if NAME.fullmatch(path.name) and reader.hasher.hexdigest() + SUFFIX != path.name:
        raise DamagedSegmentError(path, _WRONG_HASH)
    return info.size


def _add_to_folder(target: Path, path: Path) -> int:
    with open(path, "rb") as file:
        make_folder(target)
        return write_atomic(target, _chunks(file), _expect(path)).stat().st_size


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while data := file.read(_CHUNK):
        yield data


def _expect(path: Path) -> Callable[[str], str]:
    """Return the naming function that accepts a segment only under its own hash, and other files as they are."""

    def name(digest: str) -> str:
        if NAME.fullmatch(path.name) and digest + SUFFIX != path.name:
            raise DamagedSegmentError(path, _WRONG_HASH)
        return path.name

    return name


def import_folders(root: Path, source: Path) -> dict[str, int]:
    """Take the segments of an export (or of any store's folder) into a store.

    Returns
    -------
    dict
        ``encoders``; ``segments`` and ``bytes`` taken; ``present``, segments that were there.

    Raises
    ------
    StoreError
        Some segment does not have the hash that is its name, or does not belong to its folder: it was not taken, every
        whole one was. Or the source is no export, or there is no room.
    """
    counts = {"encoders": 0, "segments": 0, "bytes": 0, "present": 0}
    bad: list[str] = []
    try:
        with _open_source(source) as files:
            for name in sorted({folder for folder, _ in files}):
                _take_folder(root, name, {f: o for (folder, f), o in files.items() if folder == name}, counts, bad)
    except OSError as err:
        raise disk_error(err, root, "import", f"{counts['segments']} segments were taken.") from err
    if bad:
        raise StoreError(
            f"{len(bad)} of {len(bad) + counts['segments'] + counts['present']} segments of {source} are damaged and "
            f"were not taken, the others were. First: {bad[0]}. Export again from the original store."
        )
    return counts


Opener = Callable[[], IO[bytes]]


def _take_folder(root: Path, name: str, files: dict[str, Opener], counts: dict[str, int], bad: list[str]) -> None:
    parsed = parse_folder_name(name)
    if parsed is None:  # pragma: no cover - _open_source lets no other name through
        raise InvalidInputError(f"{name} is not the folder of an encoder.")
    folder = Folder(root, *parsed)
    label = Path(name)
    if ENCODER_FILE not in files:
        raise StoreError(f"the folder {name} to import has no {ENCODER_FILE}; export it again.")
    identity = _read(files[ENCODER_FILE])
    check_identity(label / ENCODER_FILE, _parse(identity), *parsed)
    folder.identity()
    make_folder(folder.path)
    if not (folder.path / ENCODER_FILE).exists():
        write_atomic(folder.path, [identity], ENCODER_FILE)
    if CANARY_FILE in files and not (folder.path / CANARY_FILE).exists():
        write_atomic(folder.path, [_read(files[CANARY_FILE])], CANARY_FILE, check=_check_canaries)
    for file in sorted(f for f in files if NAME.fullmatch(f)):
        if (folder.path / file).exists():
            counts["present"] += 1
            continue
        try:
            with files[file]() as stream:
                path = write_atomic(
                    folder.path, _chunks(stream), _expect(label / file), check=partial(folder.check, file)
                )
        except DamagedSegmentError as err:
            bad.append(f"{name}/{file}: {err.reason}")
            continue
        counts["segments"] += 1
        counts["bytes"] += path.stat().st_size
    counts["encoders"] += 1


def _check_canaries(temp: Path) -> None:
    read_canaries(temp.parent, temp.name)


def _read(opener: Opener) -> bytes:
    with opener() as stream:
        return stream.read()


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


@contextlib.contextmanager
def _open_source(source: Path) -> Iterator[dict[tuple[str, str], Opener]]:
    """Yield ``{(folder, file): opener}``; only names that a store writes are looked at."""
    if source.is_dir():
        found: dict[tuple[str, str], Opener] = {}
        for folder in sorted(source.iterdir()):
            if parse_folder_name(folder.name) and folder.is_dir():
                for path in sorted(folder.iterdir()):
                    if _wanted(path.name) and path.is_file():
                        found[folder.name, path.name] = partial(_open_file, path)
        if not found:
            raise StoreError(f"{source} holds no encoder's folder. Name a store, or what `embedrm cache export` wrote.")
        yield found
        return
    try:
        archive = tarfile.open(source, mode="r:")  # noqa: SIM115 - closed below; only the opening may fail so
    except FileNotFoundError:
        raise StoreError(f"{source} does not exist. Name the folder or tar file to import.") from None
    except tarfile.TarError:
        raise StoreError(f"{source} is not an uncompressed tar file written by `embedrm cache export`.") from None
    with archive:
        yield _tar_members(archive, source)


def _tar_members(archive: tarfile.TarFile, source: Path) -> dict[tuple[str, str], Opener]:
    found: dict[tuple[str, str], Opener] = {}
    try:
        members = archive.getmembers()
    except tarfile.TarError:
        raise StoreError(f"{source} is damaged: its list of files cannot be read. Export it again.") from None
    for member in members:
        folder, _, file = member.name.partition("/")
        # Nothing is unpacked by the archive's own paths; a name that a store does not write ends the import.
        if not (member.isreg() and parse_folder_name(folder) and _wanted(file)):
            raise StoreError(f"{source} holds {member.name!r}, which is not a file of an exported store; not imported.")
        found[folder, file] = partial(_extract, archive, member)
    return found


def _open_file(path: Path) -> IO[bytes]:
    return open(path, "rb")


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(member)
    if stream is None:  # pragma: no cover - members are regular files
        raise StoreError(f"{member.name} cannot be read from the archive.")
    return stream


def _wanted(file: str) -> bool:
    return file in (ENCODER_FILE, CANARY_FILE) or NAME.fullmatch(file) is not None
