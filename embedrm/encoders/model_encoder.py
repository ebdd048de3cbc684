"""What encoders that are models in a folder share: files found on first use, limits, token counts, windows of texts."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedrm.encoders.base import Encoder, Layer, Step, check_texts
from embedrm.encoders.files import ModelFiles
from embedrm.encoders.resolve import resolve
from embedrm.encoders.truncation import SHORTENING_POLICIES, check_policy, tokens_cut
from embedrm.errors import InvalidInputError, ModelError

DEFAULT_BATCH_TOKENS = 1024
# Texts tokenised, sorted and encoded at a time: bounds the memory of token ids, and is enough to sort well and to find
# what begins alike.
WINDOW = 4096

Vectors = Mapping[Layer, npt.NDArray[np.float32]]


class ModelEncoder(Encoder):
    """An encoder with the arguments ``model, revision, max_length, truncation, batch_tokens, threads, offline``.

    A subclass says how texts become token ids (``_token_ids``) and ids become vectors (``_vectors``).
    """

    model: str
    revision: str | None
    max_length: int | None
    batch_tokens: int
    threads: int | None
    offline: bool
    _files: ModelFiles | None

    @abstractmethod
    def _forget(self) -> None:
        """Drop everything that was loaded or computed."""

    @abstractmethod
    def _load(self) -> Any:
        """Load the model, once."""

    def _check_own_arguments(self) -> None:
        """Raise for arguments that only this encoder has."""

    @abstractmethod
    def _token_ids(self, rows: list[str], limit: int | None) -> Iterable[list[int]]:
        """Token ids of texts as the model reads them; shortened by the policy where there is a limit."""

    @abstractmethod
    def _token_counts(self, rows: list[str]) -> list[int]:
        """Tokens of texts in full, special ones included."""

    @abstractmethod
    def _vectors(self, ids: list[list[int]], wanted: tuple[Layer, ...]) -> Iterable[tuple[Sequence[int], Vectors]]:
        """Yield places in ``ids``, and the vectors of the texts there, until all have come."""

    @abstractmethod
    def _why_empty(self) -> str | None:
        """Why a text may have no token, and is then refused; None where it is not."""

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process loads the model itself: cheaper than sending it, and safe.
        return self.get_params()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    @property
    def files(self) -> ModelFiles:
        """The model's files, found on first use; nothing is loaded."""
        if self._files is None:
            files = resolve(self.model, revision=self.revision, offline=self.offline)
            self._check_arguments(files)
            self._files = files
        return self._files

    def n_parameters(self) -> int:
        """Count the weights of the model, with a language model's head."""
        return self.files.n_parameters()

    @property
    def token_limit(self) -> int | None:
        """The most tokens of a text that are read, special tokens included; None for no limit."""
        return self.files.own_limit if self.max_length is None else self.max_length

    def count_tokens(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Count tokens; see :meth:`Encoder.count_tokens`. Without torch where the tokenizer needs none."""
        rows = check_texts(texts)
        limit = self.token_limit
        counts = self._token_counts(rows) if rows else []
        cut = [tokens_cut(count, limit) for count in counts]
        return np.array(counts, dtype=np.int64), np.array(cut, dtype=np.int64)

    def effective_digests(self, texts: Sequence[str]) -> list[bytes]:
        """Digest of each text's token ids after truncation; see :meth:`Encoder.effective_digests`.

        Under ``drop`` and ``error`` nothing is shortened, and the digest is of all the ids.
        """
        rows = check_texts(texts)
        limit = self.token_limit if self.truncation in SHORTENING_POLICIES else None
        read = self._token_ids(rows, limit) if rows else []
        return [hashlib.blake2b(np.array(ids, dtype="<i4").tobytes(), digest_size=16).digest() for ids in read]

    def encode(
        self, texts: Sequence[str], layers: Sequence[Layer] | None = None, *, progress: Step | None = None
    ) -> dict[Layer, npt.NDArray[np.float32]]:
        """Encode texts; see :meth:`Encoder.encode`.

        Raises
        ------
        InvalidInputError
            Texts that are not strings, a layer the model does not have, a text without any token, and under ``drop`` or
            ``error`` a text longer than the limit.
        ModelError
            The model cannot be found or loaded, is of the wrong kind, or gives values that are not finite.
        """
        rows = check_texts(texts)
        wanted = self._wanted(layers)
        out: dict[Layer, npt.NDArray[np.float32]] = {
            layer: np.empty((len(rows), self.dim(layer)), dtype=np.float32) for layer in wanted
        }
        if not rows:
            return out
        if self.truncation not in SHORTENING_POLICIES:
            self._refuse_long(rows)
        from embedrm.encoders.backbone import torch_threads

        # in the process's own threads: what is tried out while loading should find what will be
        self._load()
        done = 0
        with torch_threads(self.threads):
            for start in range(0, len(rows), WINDOW):
                ids = list(self._token_ids(rows[start : start + WINDOW], self.token_limit))
                self._refuse_empty(ids, start)
                for places, vectors in self._vectors(ids, wanted):
                    at = start + np.array(places)
                    for layer in wanted:
                        if not np.isfinite(vectors[layer]).all():
                            raise ModelError(
                                f"the model in {self.files.folder} gives values that are not finite for text {at[0]} or "
                                f"another of its batch, layer {layer!r}. Its weights are damaged or overflow; use another."
                            )
                        out[layer][at] = vectors[layer]
                    done += len(places)
                    if progress is not None:
                        progress(done, len(rows))
        return out

    def _check_arguments(self, files: ModelFiles) -> None:
        check_policy(self.truncation)
        for name in ("max_length", "threads"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidInputError(f"{name} must be a positive whole number or None; got {value!r}")
        self._check_own_arguments()
        if self.max_length is not None and files.positions is not None and self.max_length > files.positions:
            raise InvalidInputError(
                f"max_length={self.max_length} is more than the {files.positions} positions the model {self.model!r} has. "
                "Give at most that."
            )

    def _check_room(self, n_kept: int, kept: str) -> None:
        """Raise where the limit leaves no token for a text beside ``n_kept`` others."""
        limit = self.token_limit
        if limit is not None and limit <= n_kept:
            raise InvalidInputError(
                f"max_length must leave room for a token of the text beside {n_kept} {kept} tokens; got {limit}"
            )

    def _refuse_long(self, rows: list[str]) -> None:
        tokens, cut = self.count_tokens(rows)
        long = np.flatnonzero(cut)
        if not long.size:
            return
        do = (
            "Leave those rows out of the data set first (count_tokens marks them)"
            if self.truncation == "drop"
            else f"Raise max_length, leave those rows out, or let them be cut: {', '.join(SHORTENING_POLICIES)}"
        )
        raise InvalidInputError(
            f"truncation={self.truncation!r} encodes no text of more than {self.token_limit} tokens, and {long.size} of "
            f"{len(rows)} texts have more (longest {int(tokens.max())}; first: text {int(long[0])} with "
            f"{int(tokens[long[0]])}). {do}."
        )

    def _refuse_empty(self, ids: list[list[int]], start: int) -> None:
        why = self._why_empty()
        empty = None if why is None else next((row for row, text in enumerate(ids) if not text), None)
        if empty is not None:
            raise InvalidInputError(f"text {start + empty} has no token ({why}). Leave the row out.")
