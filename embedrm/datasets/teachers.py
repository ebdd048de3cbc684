"""Candidates whose gold is known: vectors and rewards of any size, drawn prompt by prompt and written chunk by chunk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from embedrm.datasets.candidate_arrays import release_paths
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.progress import Progress, silent

Vectors = NDArray[np.float32]

KINDS = ("linear", "network", "peaked")
SPLITS = ("train", "validation", "test")
_SAMPLE = 4096
# What is drawn for: first entry of a seed. Prompts of split s draw with s.
_PARAMETERS, _SCALE = 1000, 1001


@dataclass(frozen=True)
class Teacher:
    r"""Draws response vectors, and gives each a gold reward that is a known function of it.

    A response's vector is :math:`z = s\,(\sqrt{a}\,u + \sqrt{1 - a}\,v) \circ d` with standard normal u (one a prompt) and v
    (one a response), the spectrum :math:`d_k = (1 + k)^{-1/2}`, and :math:`s = 1`, or :math:`s^2 = \nu / \chi^2_\nu` where
    tails are heavy, so that a few responses are like no other. Gold is ``linear``, :math:`w \cdot z`, or that of a
    network of one hidden layer, :math:`\sum_h a_h\,g(z \cdot W_h)`: a ``network`` has :math:`g = \tanh`, and a
    ``peaked`` one :math:`g(x) = x\,e^{(1 - x^2) / 2}`. It is put to standard deviation 1 over normal vectors.

    Parameters
    ----------
    dim : int
    kind : {"linear", "network", "peaked"}
        Far out, where a student extrapolates, a linear gold goes on rising, a network's stays as it is, and a peaked one
        goes back to zero: more is better up to a point.
    width : int
        Hidden units of the network.
    alike : float in [0, 1)
        a, the share of the vectors' variance that responses to one prompt have in common.
    tail : float, optional
        nu, above 2: degrees of freedom of the vectors' multivariate t distribution. None: normal.
    random_state : int
        Of the function and of every vector.

    Notes
    -----
    Everything of prompt i of a split is drawn from a generator of its own, seeded by ``(random_state, split, i)``, and its
    rewards are products of its own matrix alone. So the same prompt is the same to the bit in any chunk, on one machine.
    """

    dim: int
    kind: str = "network"
    width: int = 32
    alike: float = 0.5
    tail: float | None = None
    random_state: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("kind of teacher", self.kind, KINDS)
        for name in ("dim", "width"):
            _whole(getattr(self, name), f"Teacher: {name}", 1)
        _whole(self.random_state, "Teacher: random_state", 0)
        if not 0 <= self.alike < 1:
            raise InvalidInputError(f"Teacher: alike must lie in [0, 1), got {self.alike!r}")
        if self.tail is not None and not 2 < self.tail < float("inf"):
            raise InvalidInputError(f"Teacher: tail must be a number above 2, or None for normal, got {self.tail!r}")

    def vectors(self, split: str, prompt: int, k: int) -> Vectors:
        """Draw the k response vectors of one prompt; shape (k, dim)."""
        if split not in SPLITS:
            raise unknown_name("split of a teacher", split, SPLITS)
        return self._draw([self.random_state, SPLITS.index(split), prompt], k)

    def rewards(self, vectors: Vectors) -> NDArray[np.float32]:
        """Return the gold of vectors (n, dim); shape (n,)."""
        made: NDArray[np.float32] = (self._raw(vectors) / self._scale).astype(np.float32)
        return made

    def chunks(
        self, split: str, n_prompts: int, k: int, chunk: int = 256
    ) -> Iterator[tuple[Vectors, NDArray[np.float32]]]:
        """Yield vectors (m, k, dim) and rewards (m, k, 1) of the prompts in order, ``chunk`` prompts at a time."""
        for what, value in (("n_prompts", n_prompts), ("k", k), ("chunk", chunk)):
            _whole(value, f"Teacher: {what}", 1)
        for start in range(0, n_prompts, chunk):
            m = min(chunk, n_prompts - start)
            vectors, rewards = np.empty((m, k, self.dim), np.float32), np.empty((m, k, 1), np.float32)
            for i in range(m):
                vectors[i] = self.vectors(split, start + i, k)
                rewards[i, :, 0] = self.rewards(vectors[i])
            yield vectors, rewards

    def arrays(self, split: str, n_prompts: int, k: int) -> tuple[Vectors, NDArray[np.float32]]:
        """Return vectors (n_prompts, k, dim) and rewards (n_prompts, k, 1) in memory."""
        ((vectors, rewards),) = self.chunks(split, n_prompts, k, n_prompts)
        return vectors, rewards

    def _draw(self, seed: list[int], k: int) -> Vectors:
        rng = np.random.default_rng(seed)
        common = rng.standard_normal(self.dim, dtype=np.float32)
        out = rng.standard_normal((k, self.dim), dtype=np.float32)
        out *= np.float32(np.sqrt(1.0 - self.alike))
        out += np.float32(np.sqrt(self.alike)) * common
        out *= self._spectrum
        if self.tail is not None:
            out *= np.sqrt(self.tail / rng.chisquare(self.tail, size=(k, 1))).astype(np.float32)
        return out

    @cached_property
    def _spectrum(self) -> Vectors:
        return (1.0 / np.sqrt(1.0 + np.arange(self.dim))).astype(np.float32)

    @cached_property
    def _parameters(self) -> tuple[Vectors, Vectors]:
        rng = np.random.default_rng([self.random_state, _PARAMETERS])
        n = 1 if self.kind == "linear" else self.width
        first = rng.standard_normal((self.dim, n), dtype=np.float32)
        # hidden units have inputs of standard deviation 1.5 (a peaked one 0.5, half way to its peak), so that they bend
        deviation = {"linear": 1.0, "network": 1.5, "peaked": 0.5}[self.kind]
        first *= deviation / np.linalg.norm(first * self._spectrum[:, None], axis=0)
        return first, rng.standard_normal(n, dtype=np.float32)

    @cached_property
    def _scale(self) -> float:
        """Standard deviation of the raw rewards: of those of normal vectors, known or from a fixed sample."""
        if self.kind == "linear":
            first, last = self._parameters
            return float(np.linalg.norm((first @ last) * self._spectrum))
        rng = np.random.default_rng([self.random_state, _SCALE])
        return float(self._raw(rng.standard_normal((_SAMPLE, self.dim), dtype=np.float32) * self._spectrum).std())

    def _raw(self, vectors: Vectors) -> NDArray[np.float64]:
        first, last = self._parameters
        met = vectors @ first
        if self.kind == "network":
            np.tanh(met, out=met)
        elif self.kind == "peaked":
            met *= np.exp(0.5 * (1.0 - met * met))
        raw: NDArray[np.float64] = (met @ last).astype(np.float64)
        return raw


def write_candidates(
    teacher: Teacher,
    folder: str | Path,
    name: str,
    split: str,
    n_prompts: int,
    k: int,
    *,
    dtype: str = "float32",
    chunk: int = 256,
    progress: Progress = silent,
) -> tuple[Path, Path]:
    """Write a teacher's candidates in the layout of the Reusing-Embeddings release, without holding them in memory.

    Parameters
    ----------
    teacher : Teacher
    folder : str or Path
        Made where it is not there.
    name, split : str
        As :func:`embedrm.datasets.candidate_arrays.load_release` reads them.
    n_prompts, k : int
        Prompts, and responses to each.
    dtype : {"float32", "float16"}
        Of the vectors on disk; rewards are float32, of the vectors before they are rounded.
    chunk : int
        Prompts made at a time. The files do not depend on it.
    progress : Progress

    Returns
    -------
    (Path, Path)
        Vectors (n_prompts, k, dim) and rewards (n_prompts, k, 1); files that were there are replaced once both are whole.

    Raises
    ------
    InvalidInputError
        Where the disk has less room than the files need, or the files cannot be written.
    """
    if dtype not in ("float32", "float16"):
        raise unknown_name("dtype of candidates on disk", dtype, ("float32", "float16"))
    for what, value in (("n_prompts", n_prompts), ("k", k)):
        _whole(value, f"write_candidates: {what}", 1)
    targets = release_paths(folder, name, split)
    shapes = ((n_prompts, k, teacher.dim), (n_prompts, k, 1))
    types = (np.dtype(dtype), np.dtype(np.float32))
    needed = sum(int(np.prod(shape)) * one.itemsize for shape, one in zip(shapes, types))
    temporary = [path.with_name(f".{path.name}.{uuid4().hex[:8]}") for path in targets]
    step = progress(f"writing {name} {split}")
    try:
        targets[0].parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(targets[0].parent).free
        if needed > free:
            raise InvalidInputError(
                f"write_candidates: {n_prompts:,} prompts with {k:,} vectors of {teacher.dim:,} need {needed:,} bytes, and "
                f"{free:,} are free in {targets[0].parent}; ask for fewer or give another folder"
            )
        with open(temporary[0], "wb") as vectors_file, open(temporary[1], "wb") as rewards_file:
            files: tuple[BinaryIO, BinaryIO] = (vectors_file, rewards_file)
            for file, shape, one in zip(files, shapes, types):
                layout: dict[str, Any] = {"descr": one.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, layout)
            done = 0
            for vectors, rewards in teacher.chunks(split, n_prompts, k, chunk):
                vectors.astype(types[0], copy=False).tofile(vectors_file)
                rewards.tofile(rewards_file)
                done += len(vectors)
                step(done, n_prompts)
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        for old, new in zip(temporary, targets):
            os.replace(old, new)
    except OSError as error:
        raise InvalidInputError(
            f"write_candidates: cannot write {targets[0].parent}: {error.strerror or error}"
        ) from None
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)
    return targets


def _whole(value: Any, what: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InvalidInputError(f"{what} must be a whole number from {least}, got {value!r}")
