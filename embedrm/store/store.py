"""The embedding store: a folder of vectors that are computed once and shared by every run."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedrm.errors import InvalidInputError, StoreError, unknown_name
from embedrm.store.canary import check_canaries, read_canaries
from embedrm.store.compact import compact_folder, remove_leftovers
from embedrm.store.digest import TextEncoder, check_layers, check_texts, key_words, text_keys
from embedrm.store.files import REMOVED_PREFIX, disk_error, leftovers, sync_folder
from embedrm.store.fill import Filler, find_missing, unique_rows
from embedrm.store.folder import SUFFIXES, Folder, parse_folder_name
from embedrm.store.segment import SegmentGoneError
from embedrm.store.stats import default_path, folder_stats
from embedrm.store.transfer import export_folders, import_folders
from embedrm.store.verify import Verifier, VerifyReport
from embedrm.views import Layer

Progress = Callable[[int, int], None]
Vectors = npt.NDArray[np.float32]

SEGMENT_BYTES = 16 << 20
SEGMENT_SECONDS = 20.0
_TRIES = 20


class EmbeddingStore:
    """Vectors on disk, keyed by encoder fingerprint, text and layer; each is computed once.

    Any number of processes, on any number of hosts, may read and write one store at once: files are immutable, named by
    their content and put in place whole, so there are no locks. A process that is killed loses the segment it was
    building and nothing else. Nothing is ever evicted.

    Parameters
    ----------
    path : str or Path
        The folder. It is created by the first write; until then a store that does not exist is an empty one.
    block_texts : int
        Most texts given to the encoder at once.

    Notes
    -----
    *Precision* belongs to the folder of an encoder: ``dtype="float32"`` and ``"float16"`` are kept apart and never
    answer for each other. Vectors are returned as float32 either way.

    *Damage*: opening a segment checks its header, keys and size, so no vector comes back under the wrong text or layer.
    A segment that fails makes ``get`` raise one StoreError that names it; ``verify(repair=True)`` moves it to
    ``quarantine/``, and the next ``get`` encodes what was in it again. A flipped bit inside a vector is found by
    ``verify()``, which reads everything.

    *Repeats*: two processes may encode one text at once. Both vectors are stored, and the segment whose name sorts
    first answers; they agree to the encoder's tolerance. ``compact()`` drops the other one.

    Examples
    --------
    >>> store = EmbeddingStore("vectors")  # doctest: +SKIP
    >>> store.get(encoder, ["a text", "another"], layers=[3, "final"])[3].shape  # doctest: +SKIP
    (2, 384)
    """

    def __init__(self, path: str | Path, *, block_texts: int = 512) -> None:
        self.path = Path(path)
        self.block_texts = block_texts
        self._folders: dict[str, Folder] = {}

    @classmethod
    def default(cls) -> EmbeddingStore:
        """Return the user's store: ``$EMBEDRM_HOME/store``, where EMBEDRM_HOME is ``~/.cache/embedrm`` if unset."""
        return cls(default_path())

    def __repr__(self) -> str:
        return f"EmbeddingStore({str(self.path)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_folders": {}}  # a worker process lists again, which is cheaper than to send keys

    def get(
        self,
        encoder: TextEncoder,
        texts: Iterable[str],
        layers: Iterable[Layer] | None = None,
        *,
        progress: Progress | None = None,
        batch_segment_bytes: int = SEGMENT_BYTES,
        batch_segment_seconds: float = SEGMENT_SECONDS,
        dtype: str = "float32",
    ) -> dict[Layer, Vectors]:
        """Return the vectors of texts, encoding and storing what is missing.

        Parameters
        ----------
        encoder : Encoder
            Its fingerprint names the folder. A layer that is not stored for a text is asked of it alone; where nothing
            is missing it is not asked to encode.
        texts : iterable of str, length n
            Repeats are welcome, and encoded once.
        layers : iterable of (int or "final"), optional
            Default: the encoder's ``default_layers``.
        progress : callable, optional
            ``progress(done, total)``, in unique texts to encode; not called if there are none.
        batch_segment_bytes : int
            Commit whenever this many bytes of new vectors are waiting,
        batch_segment_seconds : float
            or this many seconds have passed since the last commit (looked at between blocks of texts).
        dtype : {"float32", "float16"}
            Precision of storage.

        Returns
        -------
        dict of Layer to ndarray of float32, shape (n, dim)
            Rows in the order of ``texts``.

        Raises
        ------
        InvalidInputError
            A text is not a string or not valid Unicode; a layer is unknown; the dtype is.
        StoreError
            A segment is damaged; the disk is full or cannot be written; the encoder gave vectors that are not finite or
            not of the right shape.
        """
        asked = check_texts(texts)
        wanted = check_layers(encoder.default_layers if layers is None else layers)
        folder = self._folder(encoder, dtype)
        folder.identity()
        if not asked:
            return {layer: np.empty((0, self._dim(folder, encoder, layer)), np.float32) for layer in wanted}
        keys = text_keys(asked)
        words = key_words(keys)
        fills = 0
        for _ in range(_TRIES):
            snapshot = folder.refresh()
            found = {layer: snapshot.find(layer, words) for layer in wanted}
            absent = np.any([segment < 0 for segment, _ in found.values()], axis=0)
            if absent.any():
                fills += 1
                if fills > 3:
                    break
                rows = unique_rows(keys, np.flatnonzero(absent))
                filler = Filler(
                    folder,
                    encoder,
                    wanted,
                    segment_bytes=batch_segment_bytes,
                    segment_seconds=batch_segment_seconds,
                    block_texts=self.block_texts,
                )
                filler.run([asked[i] for i in rows], keys[rows], progress)
                continue
            try:
                return {layer: snapshot.gather(layer, *where) for layer, where in found.items()}
            except SegmentGoneError:
                continue
        raise StoreError(
            f"vectors that were just stored in {folder.path} keep vanishing: another process removes or moves them. "
            "Stop it and run again."
        )

    def plan(
        self, encoder: TextEncoder, texts: Iterable[str], layers: Iterable[Layer] | None = None, dtype: str = "float32"
    ) -> dict[str, int]:
        """Count what :meth:`get` would encode, without encoding.

        Returns
        -------
        dict
            ``texts``, ``unique`` texts, of which ``stored`` have every layer and ``missing`` lack at least one.
        """
        asked = check_texts(texts)
        wanted = check_layers(encoder.default_layers if layers is None else layers)
        keys = text_keys(asked)
        keys = keys[unique_rows(keys, np.arange(len(keys)))]
        snapshot = self._folder(encoder, dtype).refresh()
        missing = int(find_missing(snapshot, wanted, key_words(keys)).any(axis=1).sum())
        return {"texts": len(asked), "unique": len(keys), "stored": len(keys) - missing, "missing": missing}

    def verify(
        self,
        repair: bool = False,
        *,
        encoder: TextEncoder | None = None,
        tolerance: float | None = None,
        progress: Progress | None = None,
    ) -> VerifyReport:
        """Read every byte and compare it with the name of its segment; find any flipped bit or lost end.

        Parameters
        ----------
        repair : bool
            Move damaged files to ``quarantine/`` in their folder; what was in them is encoded again when next asked for.
        encoder : Encoder, optional
            Encode this encoder's canary texts again and compare them with their stored vectors.
        tolerance : float, optional
            Largest ``||new - stored|| / ||stored||`` of a canary; default 1e-3, and 2e-3 for float16.
        progress : callable, optional
            ``progress(done_bytes, total_bytes)``.
        """
        folders = list(self._all())
        total = sum(e.stat().st_size for f in folders for e in os.scandir(f.path) if progress and e.is_file())
        verifier = Verifier(repair, progress, total)
        for folder in folders:
            verifier.folder(folder)
        report = verifier.report
        report.leftovers += [str(p) for p in leftovers(self.path)] if self.path.is_dir() else []
        if encoder is not None:
            digest = encoder.fingerprint_digest()
            for folder in (f for f in folders if f.digest == digest):
                snapshot = folder.refresh(lenient=True)
                with contextlib.suppress(StoreError):  # damaged canaries.json: already in the report
                    texts = read_canaries(folder.path)
                    report.canaries += check_canaries(folder.name, folder.dtype, texts, snapshot, encoder, tolerance)
        return report

    def stats(self) -> dict[str, Any]:
        """Return what is stored, as JSON values.

        Returns
        -------
        dict
            ``path``, total ``bytes``, ``leftovers`` (paths) and ``encoders``: for each folder ``digest``, ``dtype``,
            ``model`` (the fingerprint's name), ``texts`` (distinct keys, canaries included), ``vectors`` (distinct key
            and layer), ``layers`` ({layer: texts}), ``segments``, ``bytes``, ``damaged`` (segments that cannot be
            opened), ``quarantined`` (files) and ``leftovers`` (paths).
        """
        encoders = [folder_stats(folder) for folder in self._all()]
        stray = [str(p) for p in leftovers(self.path)] if self.path.is_dir() else []
        return {
            "path": str(self.path),
            "bytes": sum(e["bytes"] for e in encoders),
            "leftovers": stray,
            "encoders": encoders,
        }

    def compact(
        self,
        encoder_digest: str | None = None,
        *,
        target_bytes: int = 128 << 20,
        small_bytes: int = 32 << 20,
        leftover_age: float = 3600.0,
        progress: Progress | None = None,
    ) -> dict[str, int]:
        """Merge small segments into big ones, drop repeated keys, and remove old temporary files of dead writers.

        Safe beside readers and writers, and at a kill at any moment. Needs room for a copy of what it merges.

        Parameters
        ----------
        encoder_digest : str, optional
            One encoder's digest or folder name; default all.
        target_bytes : int
            Size of a merged segment; also what is held in memory at once.
        small_bytes : int
            A segment below this size is merged.
        leftover_age : float
            Temporary files last written at least this many seconds ago are removed; a living writer's are seconds old.
        progress : callable, optional
            ``progress(done_bytes, total_bytes)``, for each folder.

        Returns
        -------
        dict
            ``merged`` (segments that are gone), ``written``, ``bytes_freed`` and ``leftovers_removed``.
        """
        out = {"merged": 0, "written": 0, "bytes_freed": 0, "leftovers_removed": 0}
        for folder in self._select(encoder_digest, None):
            done = compact_folder(folder, target_bytes=target_bytes, small_bytes=small_bytes, progress=progress)
            for name, count in done.items():
                out[name] += count
            out["leftovers_removed"] += remove_leftovers(folder.path, leftover_age)
        if self.path.is_dir():
            out["leftovers_removed"] += remove_leftovers(self.path, leftover_age)
        return out

    def export(
        self, path: str | Path, encoder_digest: str | None = None, *, dtype: str | None = None
    ) -> dict[str, int]:
        """Write a copy: a tar file if the name ends in ``.tar``, else a folder that is itself a store.

        Parameters
        ----------
        path : str or Path
            Must not exist.
        encoder_digest : str, optional
            One encoder's digest or folder name; default all.
        dtype : {"float32", "float16"}, optional
            One precision; default both.

        Returns
        -------
        dict
            ``encoders``, ``segments`` and ``bytes``.
        """
        return export_folders(self._select(encoder_digest, dtype), Path(path))

    def import_(self, path: str | Path) -> dict[str, int]:
        """Take in an export (folder or tar) or another store; every segment's hash is checked before it is taken.

        Returns
        -------
        dict
            ``encoders``; ``segments`` and ``bytes`` taken; ``present``, segments that were there already.
        """
        return import_folders(self.path, Path(path))

    def remove(self, encoder_digest: str, *, dtype: str | None = None) -> int:
        """Delete an encoder's vectors, at every precision or at one, and return the bytes freed.

        This is the only method that deletes a vector.
        """
        freed = 0
        for folder in self._select(encoder_digest, dtype):
            trash = self.path / f"{REMOVED_PREFIX}{secrets.token_hex(8)}"
            try:
                freed += sum(p.stat().st_size for p in folder.path.rglob("*") if p.is_file())
                os.replace(folder.path, trash)  # at once, so that no reader sees half of it
                sync_folder(self.path)
                shutil.rmtree(trash)
            except OSError as err:
                raise disk_error(err, self.path, f"remove {folder.name}", f"{freed} bytes were freed.") from err
            self._folders.pop(folder.name, None)
        return freed

    def _folder(self, encoder: TextEncoder, dtype: str) -> Folder:
        if dtype not in SUFFIXES:
            raise InvalidInputError(f"dtype must be 'float32' or 'float16', but {dtype!r} came.")
        digest = encoder.fingerprint_digest()
        if parse_folder_name(digest) is None or len(digest) != 32:
            raise InvalidInputError(
                f"{type(encoder).__name__}.fingerprint_digest() must return 32 hex digits, but {digest!r} came. "
                "Return embedrm.store.fingerprint_digest(self.fingerprint()) from it."
            )
        return self._open(digest, dtype)

    def _open(self, digest: str, dtype: str) -> Folder:
        name = digest + SUFFIXES[dtype]
        if name not in self._folders:
            self._folders[name] = Folder(self.path, digest, dtype)
        return self._folders[name]

    def _all(self) -> Iterator[Folder]:
        try:
            names = sorted(p.name for p in self.path.iterdir() if p.is_dir())
        except FileNotFoundError:
            return
        except OSError as err:
            raise StoreError(f"{self.path} is not a store: {err.strerror}. Name a folder.") from err
        for name in names:
            parsed = parse_folder_name(name)
            if parsed is not None:
                yield self._open(*parsed)

    def _select(self, digest: str | None, dtype: str | None) -> list[Folder]:
        """Return the folders of a digest or folder name (None: all), at one precision or both; none at all raises."""
        if dtype is not None and dtype not in SUFFIXES:
            raise InvalidInputError(f"dtype must be 'float32' or 'float16', but {dtype!r} came.")
        folders = list(self._all())
        if digest is None:
            return [f for f in folders if dtype in (None, f.dtype)]
        chosen = [f for f in folders if digest in (f.digest, f.name) and dtype in (None, f.dtype)]
        if not chosen:
            raise unknown_name("encoder", digest, sorted({f.name for f in folders}))
        return chosen

    @staticmethod
    def _dim(folder: Folder, encoder: TextEncoder, layer: Layer) -> int:
        stored = folder.refresh().dim(layer)
        return int(encoder.dim(layer)) if stored is None else stored
