"""Several encoders of one base merged into one: DogeRM's general and domain models, frozen."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedrm.encoders.base import ENCODERS, Encoder, Layer, Step
from embedrm.encoders.files import sha256_of
from embedrm.encoders.model_encoder import DEFAULT_BATCH_TOKENS
from embedrm.encoders.sentence import SentenceEncoder
from embedrm.errors import InvalidInputError
from embedrm.registry import Registry

# How encoders are read and merged; whatever merges parameters comes after encoders, and is found by its folder.
ENCODER_KINDS: Registry = Registry("kind of encoder that can be merged", "embedrm.merging.kinds")

_merging = threading.RLock()


@ENCODERS.register("merged")
class MergedEncoder(Encoder):
    """Encoders of one architecture and base, merged tensor by tensor; nothing is trained.

    It has a fingerprint of its own, made of the inputs' digests, the method, the weights and options: vectors in the store
    are kept for every lambda, and are found again without merging anew. The merged model is written to a folder when it
    is first needed, with the same bytes every time.

    Parameters
    ----------
    models : sequence of str
        Folders or names of encoders (see :class:`SentenceEncoder`). The first is the general model, whose vocabulary comes
        first and whose limits, pooling and prompts are kept.
    weights : sequence of float, optional
        One for each model; ``[1 - lam, lam]`` for DogeRM. Equal where absent. Nothing is taken of a model of weight zero,
        not even its tokens.
    method : str
        A name of :data:`embedrm.merging.MERGE_METHODS`.
    base : str, optional
        The encoder that all came from, for methods on deltas.
    options : mapping, optional
        Of the method, such as ``{"density": 0.5}``.
    accept : sequence of str
        Differences that shall not forbid merging; see :func:`embedrm.merging.encoder_report.compare_encoders`.
    rotation : {"none", "procrustes"}
        For static tables in different bases.
    moments : sequence of str, optional
        For ``fisher``: a file for each model; see :func:`embedrm.write_encoder_moments`.
    max_length, truncation, prompt, batch_tokens, threads
        As in :class:`SentenceEncoder`.
    cache : str, optional
        A folder in which merged encoders are kept, by their digest; otherwise a temporary folder, removed with this object.

    Examples
    --------
    >>> encoder = MergedEncoder(["runs/general", "runs/maths"], [0.7, 0.3])
    >>> encoder.encode(["Why is 7 prime?"])  # doctest: +SKIP
    """

    def __init__(
        self,
        models: Sequence[str] = (),
        weights: Sequence[float] | None = None,
        *,
        method: str = "linear",
        base: str | None = None,
        options: Mapping[str, Any] | None = None,
        accept: Sequence[str] = (),
        rotation: str = "none",
        moments: Sequence[str] | None = None,
        max_length: int | None = None,
        truncation: str = "head",
        prompt: str | None = None,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        threads: int | None = None,
        cache: str | None = None,
    ) -> None:
        self.models = models
        self.weights = weights
        self.method = method
        self.base = base
        self.options = options
        self.accept = accept
        self.rotation = rotation
        self.moments = moments
        self.max_length = max_length
        self.truncation = truncation
        self.prompt = prompt
        self.batch_tokens = batch_tokens
        self.threads = threads
        self.cache = cache
        self._forget()

    def _forget(self) -> None:
        self._inputs: list[SentenceEncoder] | None = None
        self._whole: SentenceEncoder | None = None
        self._fingerprint: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: vars(self)[name] for name in self.get_params()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def get_params(self) -> dict[str, Any]:
        """Return the constructor's arguments, as JSON values."""
        found = super().get_params()
        found["models"] = [str(model) for model in self.models]
        found["weights"] = None if self.weights is None else [float(w) for w in self.weights]
        found["options"] = None if self.options is None else dict(self.options)
        found["base"] = None if self.base is None else str(self.base)
        found["moments"] = None if self.moments is None else [str(path) for path in self.moments]
        return found

    @property
    def general(self) -> SentenceEncoder:
        """The first model, with the limits given here."""
        return self._opened()[0]

    def _opened(self) -> list[SentenceEncoder]:
        if self._inputs is None:
            if isinstance(self.models, str) or not len(self.models):
                raise InvalidInputError(f"MergedEncoder needs a list of at least one encoder, got {self.models!r}")
            self._inputs = [SentenceEncoder(str(model), **self._limits()) for model in self.models]
        return self._inputs

    def _limits(self) -> dict[str, Any]:
        names = ("max_length", "truncation", "prompt", "batch_tokens", "threads")
        return {name: getattr(self, name) for name in names}

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Those of the first model."""
        return self.general.layers

    @property
    def default_layers(self) -> tuple[Layer, ...]:
        """Those of the first model."""
        return self.general.default_layers

    @property
    def token_limit(self) -> int | None:
        """The most tokens of a text that are read; the first model's limit."""
        return self.general.token_limit

    def dim(self, layer: Layer) -> int:
        """Width of one layer's vectors."""
        return self.general.dim(layer)

    def n_parameters(self) -> int:
        """Count the weights of the merged model."""
        return self._reader().n_parameters()

    def fingerprint(self) -> dict[str, Any]:
        """Digests of the inputs, method, weights and options, and what else changes a vector; nothing is merged for it."""
        if self._fingerprint is None:
            kind = ENCODER_KINDS.get(self.general.files.kind)()
            options = kind.plan(self.method, dict(self.options or {}))
            parts = [_identity(encoder) for encoder in self._opened()]
            first = self.general.fingerprint()
            self._fingerprint = {
                **{
                    key: value
                    for key, value in first.items()
                    if key not in ("weights", "tokenizer", "modules", "model")
                },
                "kind": "merged",
                "scheme": 1,
                "models": parts,
                "weights": self._plain_weights(options),
                "method": self.method,
                "options": options,
                "base": None if self.base is None else _identity(SentenceEncoder(str(self.base))),
                "rotation": self.rotation,
                **(
                    {} if self.moments is None else {"moments": [sha256_of(Path(m).expanduser()) for m in self.moments]}
                ),
            }
        return dict(self._fingerprint)

    def _plain_weights(self, options: Mapping[str, Any]) -> list[float] | None:
        """Weights as numbers: none given are equal ones, unless an option stands for them."""
        if self.weights is None:
            return None if options.get("t") is not None else [1.0 / len(self.models)] * len(self.models)
        return [float(weight) for weight in self.weights]

    def materialise(self) -> Path:
        """Merge now, if that has not been done, and return the folder: an ordinary sentence-transformers model."""
        return Path(self._merged().model)

    def release(self) -> None:
        """Let go of the loaded model's memory; the merged folder stays, and is loaded again when it is needed."""
        if self._whole is not None:
            self._whole.release()

    def _merged(self) -> SentenceEncoder:
        with _merging:
            if self._whole is None:
                self._whole = SentenceEncoder(str(self._folder()), **self._limits())
            return self._whole

    def _folder(self) -> Path:
        digest = self.fingerprint_digest()
        if self.cache is None:
            parent = Path(tempfile.mkdtemp(prefix="embedrm-merged-"))
            weakref.finalize(self, shutil.rmtree, parent, ignore_errors=True)
        else:
            parent = Path(self.cache).expanduser()
        place = parent / digest
        if place.is_dir():
            return place
        try:
            ENCODER_KINDS.get(self.general.files.kind)().merge(
                [str(model) for model in self.models],
                place,
                self.weights,
                self.method,
                base=self.base,
                accept=self.accept,
                rotation=self.rotation,
                moments=self.moments,
                **dict(self.options or {}),
            )
        except (OSError, InvalidInputError):
            # another process may have put the same folder there meanwhile, and it is whole
            if not place.is_dir():
                raise
        return place

    def _reader(self) -> SentenceEncoder:
        """Return who knows the merged tokens: the first model where all tokenizers are the same, without merging."""
        digests = {encoder.files.tokenizer_digest() for encoder in self._opened()}
        return self.general if len(digests) == 1 and self._whole is None else self._merged()

    def encode(
        self, texts: Sequence[str], layers: Sequence[Layer] | None = None, *, progress: Step | None = None
    ) -> dict[Layer, npt.NDArray[np.float32]]:
        """Encode texts; see :meth:`Encoder.encode`. The first call merges.

        Raises
        ------
        InvalidInputError
            As for :meth:`SentenceEncoder.encode`, and with every difference that forbids merging.
        ModelError
            A model that cannot be found or loaded.
        """
        return self._merged().encode(texts, layers, progress=progress)

    def count_tokens(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Count tokens; see :meth:`Encoder.count_tokens`."""
        return self._reader().count_tokens(texts)

    def effective_digests(self, texts: Sequence[str]) -> list[bytes]:
        """Digest of what is read of each text; see :meth:`Encoder.effective_digests`."""
        return self._reader().effective_digests(texts)


def _identity(encoder: SentenceEncoder) -> dict[str, Any]:
    found = encoder.fingerprint()
    return {key: found[key] for key in ("weights", "tokenizer", "modules")}
