"""Encoding of what a store lacks: in blocks of texts of like length, committed as it goes.

The blocks depend on nothing but the missing texts, so two runs give an encoder the same batches. Their order is drawn
afresh by each process, and each looks at the folder between blocks: processes that were given the same texts then
share the work without a lock, and the rate so far is an unbiased estimate of the rate to come.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedrm.errors import StoreError, unknown_name
from embedrm.store.canary import read_canaries
from embedrm.store.digest import Keys, TextEncoder, Words, array_name, key_words, text_keys
from embedrm.store.files import disk_error
from embedrm.store.folder import Folder
from embedrm.store.index import Snapshot
from embedrm.views import Layer

Progress = Callable[[int, int], None]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]

# A block is full at this many characters once it has enough texts for a batch: long texts get small blocks, so that
# the time between two looks at the clock stays short.
_BLOCK_CHARACTERS = 128 * 1024
_BLOCK_LEAST = 64
_LOOK_SECONDS = 0.5


def find_missing(snapshot: Snapshot, layers: Sequence[Layer], words: Words) -> Bools:
    """Return (n, n_layers) bool: which layers of which keys are not stored."""
    return np.stack([snapshot.find(layer, words)[0] < 0 for layer in layers], axis=1)


def unique_rows(keys: Keys, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return those rows that are the first of their key, in order."""
    first: dict[bytes, int] = {}
    for row in rows.tolist():
        first.setdefault(keys[row].tobytes(), row)
    return np.fromiter(first.values(), np.intp, len(first))


def plan_blocks(texts: Sequence[str], missing: Bools, most: int) -> list[list[int]]:
    """Cut the texts into blocks: one set of missing layers each, longest first, at most ``most`` texts.

    Parameters
    ----------
    texts : sequence of str, length n
    missing : ndarray of bool, shape (n, n_layers)
    most : int

    Returns
    -------
    list of lists of rows
    """
    lengths = [len(text) for text in texts]
    patterns = [row.tobytes() for row in missing]
    order = sorted(range(len(texts)), key=lambda i: (patterns[i], -lengths[i], texts[i]))
    least = min(_BLOCK_LEAST, most)
    blocks: list[list[int]] = []
    characters = 0
    for i in order:
        fresh = not blocks or patterns[blocks[-1][0]] != patterns[i]
        full = bool(blocks) and (
            len(blocks[-1]) >= most or (len(blocks[-1]) >= least and characters + lengths[i] > _BLOCK_CHARACTERS)
        )
        if fresh or full:
            blocks.append([])
            characters = 0
        blocks[-1].append(i)
        characters += lengths[i]
    return blocks


class Filler:
    """Encodes and commits the missing layers of unique texts.

    Parameters
    ----------
    folder : Folder
    encoder : TextEncoder
    layers : sequence of Layer
    segment_bytes : int
        Commit when the vectors not yet on disk reach this size.
    segment_seconds : float
        Commit when this much time has passed since the last commit.
    block_texts : int
        Most texts given to the encoder at once.
    """

    def __init__(
        self,
        folder: Folder,
        encoder: TextEncoder,
        layers: Sequence[Layer],
        *,
        segment_bytes: int,
        segment_seconds: float,
        block_texts: int,
    ) -> None:
        for layer in layers:
            if layer not in encoder.layers:
                raise unknown_name("layer", layer, map(str, encoder.layers))
        self.folder, self.encoder, self.layers = folder, encoder, tuple(layers)
        self.segment_bytes, self.segment_seconds, self.block_texts = segment_bytes, segment_seconds, block_texts
        self.dims = {layer: int(encoder.dim(layer)) for layer in layers}
        self.fingerprint = encoder.fingerprint()
        self.committed = 0
        self._waiting: dict[tuple[Layer, ...], list[tuple[Keys, dict[Layer, Floats]]]] = {}
        self._bytes = 0
        self._since = time.monotonic()
        self._write_failed = False

    def run(self, texts: Sequence[str], keys: Keys, progress: Progress | None) -> None:
        """Encode what is missing of n unique texts; ``progress(done, total)`` counts them, canaries aside.

        Raises
        ------
        StoreError
            The encoder's answer cannot be stored, or the disk is full or not writable. Vectors that were encoded
            before are committed, here and on any other exception, as far as the disk allows.
        """
        snapshot = self.folder.refresh(lenient=True)
        for layer in self.layers:
            stored = snapshot.dim(layer)
            if stored not in (None, self.dims[layer]):
                raise StoreError(
                    f"the store holds {stored}-wide vectors of layer {layer!r} for this encoder's fingerprint, but the "
                    f"encoder says its width is {self.dims[layer]}. Make its fingerprint() name what has changed."
                )
        known = {key.tobytes() for key in keys}
        canaries = [t for t in read_canaries(self.folder.path) if text_keys([t]).tobytes() not in known]
        first = len(canaries)
        everything = [*canaries, *texts]
        every_key = np.concatenate([text_keys(canaries), keys])
        missing = find_missing(snapshot, self.layers, key_words(every_key))
        blocks = [[i + first for i in block] for block in plan_blocks(texts, missing[first:], self.block_texts)]
        # Unseeded on purpose: two processes must not walk in step. The order changes no vector.
        np.random.default_rng().shuffle(blocks)
        done, total, looked = 0, len(texts), time.monotonic()
        if progress is not None:
            progress(done, total)
        try:
            for block in [list(range(first)), *blocks]:
                if time.monotonic() - looked > _LOOK_SECONDS:
                    snapshot, looked = self.folder.refresh(lenient=True), time.monotonic()
                self._encode(everything, every_key, block, snapshot)
                if block and block[0] >= first:
                    done += len(block)
                    if progress is not None:
                        progress(done, total)
                if self._bytes >= self.segment_bytes or time.monotonic() - self._since > self.segment_seconds:
                    self._flush()
            self._flush()
        except BaseException:
            if not self._write_failed:
                with contextlib.suppress(StoreError):
                    self._flush()
            raise

    def _encode(self, texts: Sequence[str], keys: Keys, block: Sequence[int], snapshot: Snapshot) -> None:
        rows = np.asarray(block, np.intp)
        missing = find_missing(snapshot, self.layers, key_words(keys[rows]))
        for pattern in np.unique(missing, axis=0):
            if not pattern.any():
                continue
            mine = rows[(missing == pattern).all(axis=1)]
            layers = tuple(layer for layer, absent in zip(self.layers, pattern) if absent)
            batch = [texts[i] for i in mine]
            answer = self.encoder.encode(batch, layers)
            vectors = {layer: self._checked(answer, layer, batch) for layer in layers}
            self._waiting.setdefault(layers, []).append((keys[mine], vectors))
            self._bytes += sum(v.nbytes for v in vectors.values())

    def _checked(self, answer: Any, layer: Layer, batch: Sequence[str]) -> Floats:
        who = f"{type(self.encoder).__name__}.encode"
        try:
            vectors = np.asarray(answer[layer])
        except (KeyError, TypeError, IndexError):
            raise StoreError(f"{who} was asked for layer {layer!r} and did not return it. Fix the encoder.") from None
        shape = (len(batch), self.dims[layer])
        if vectors.shape != shape or vectors.dtype.kind != "f":
            raise StoreError(
                f"{who} must return floats of shape {shape} for layer {layer!r} and returned {vectors.dtype} of shape "
                f"{vectors.shape}. Nothing of this block was stored. Fix the encoder."
            )
        with np.errstate(over="ignore"):
            out: Floats = vectors.astype(self.folder.dtype)
        bad = np.flatnonzero(~np.isfinite(out).all(axis=1))
        if bad.size:
            narrow = bool(np.isfinite(vectors[bad]).all())
            why = (
                f"values beyond the range of {self.folder.dtype}; store this encoder as float32"
                if narrow and self.folder.dtype == "float16"
                else "infinite or NaN values; nothing of this block was stored. Fix the encoder or drop the text"
            )
            raise StoreError(
                f"{who} gave layer {layer!r} of {bad.size} of {len(batch)} texts {why}. "
                f"The first such text begins {batch[int(bad[0])][:60]!r}."
            )
        return out

    def _flush(self) -> None:
        while self._waiting:
            layers = next(iter(self._waiting))
            parts = self._waiting[layers]
            arrays: dict[str, Any] = {"keys": np.concatenate([key for key, _ in parts])}
            arrays |= {array_name(layer): np.concatenate([vectors[layer] for _, vectors in parts]) for layer in layers}
            try:
                self.folder.commit(arrays, self.fingerprint)
            except OSError as err:
                self._write_failed = True
                said = f"{self.committed} vectors of this call were committed."
                raise disk_error(err, self.folder.path, "write vectors", said) from err
            self.committed += len(arrays["keys"]) * len(layers)
            del self._waiting[layers]
        self._bytes = 0
        self._since = time.monotonic()
