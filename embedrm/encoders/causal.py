"""Any Hugging Face causal language model as a frozen encoder: last-token or mean vectors of any hidden layer."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from embedrm.encoders.base import ENCODERS, Layer
from embedrm.encoders.batching import plan_batches
from embedrm.encoders.causal_prefixes import SharedPrefix, shared_prefixes
from embedrm.encoders.files import ModelFiles
from embedrm.encoders.model_encoder import DEFAULT_BATCH_TOKENS, ModelEncoder, Vectors
from embedrm.encoders.tokens import TextTokens
from embedrm.encoders.truncation import truncate
from embedrm.errors import InvalidInputError, ModelError, unknown_name

if TYPE_CHECKING:
    from embedrm.encoders.causal_pooling import CausalPooling

# Sharing costs two passes instead of one: it must save at least this share of the tokens.
_WORTH_SHARING = 0.05

_loading = threading.Lock()


@ENCODERS.register("causal")
class CausalEncoder(ModelEncoder):
    """A frozen causal language model (GPT-2, Llama and their kind) on the CPU, in float32.

    Parameters
    ----------
    model : str
        A folder, or a name on the Hugging Face hub; found as :class:`SentenceEncoder` finds its own. Only safetensors
        weights are read, and no code that comes with a model is run.
    pooling : {"last", "mean"}
        The state of a text's last token, found by its length and never by a place in the padded batch; or the mean over
        its tokens, special tokens before it left out.
    bos : bool
        Read every text after the tokenizer's beginning of a text (its end of a text where it has no other), unless the
        tokenizer puts one there itself. Without it the first token is predicted from nothing, and an empty text has no
        state.
    revision : str, optional
        Branch, tag or commit on the hub.
    max_length : int, optional
        The most tokens of a text that are read, special tokens included; the model's own limit where absent.
    truncation : {"head", "tail", "middle", "drop", "error"}
        For longer texts, as in :class:`SentenceEncoder`. A last-token vector of a text that lost its end is another
        vector: for those ``middle`` or ``tail`` keep the last token.
    share_prefixes : bool
        Read what several texts begin with once, through keys and values: many responses to one prompt, encoded jointly
        with it, then cost one prompt. The vectors are the same up to rounding (1e-4 of the largest value); models whose
        attention looks back over a window, or for which a trial shows a difference, read whole texts nevertheless.
    batch_tokens : int
        Padded tokens that go through the model together.
    threads : int, optional
        Threads torch uses while encoding; its own setting where absent. It is put back afterwards.
    offline : bool
        Never ask the hub. So does the environment variable HF_HUB_OFFLINE.

    Notes
    -----
    Layer k, 0 to the number of blocks, is hidden state k as transformers counts them; the last one has passed the last
    normalisation, is what the language modelling head reads, and is ``"final"`` too. Nothing is normalised, and a chat
    template is never applied.

    Row i depends on text i alone up to the order of floating-point sums, which changes with the other rows of its batch
    and with what is shared.

    Examples
    --------
    >>> encoder = CausalEncoder("gpt2", pooling="mean")
    >>> encoder.encode(["Yes.", "No, never."], layers=(6, 12))  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str = "gpt2",
        *,
        pooling: str = "last",
        bos: bool = True,
        revision: str | None = None,
        max_length: int | None = None,
        truncation: str = "head",
        share_prefixes: bool = True,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        threads: int | None = None,
        offline: bool = False,
    ) -> None:
        self.model = model
        self.pooling = pooling
        self.bos = bos
        self.revision = revision
        self.max_length = max_length
        self.truncation = truncation
        self.share_prefixes = share_prefixes
        self.batch_tokens = batch_tokens
        self.threads = threads
        self.offline = offline
        self._forget()

    def _forget(self) -> None:
        self._files: ModelFiles | None = None
        self._pooler: CausalPooling | None = None
        self._shares = False
        self._tokens: tuple[TextTokens, tuple[int, ...]] | None = None
        self._fingerprint: dict[str, Any] | None = None

    @classmethod
    def from_text(cls, text: str, options: Mapping[str, Any]) -> CausalEncoder:
        """Build from ``"causal:MODEL"``; the model may be among the options instead."""
        if text and "model" in options:
            raise InvalidInputError(f"the model is named twice: causal:{text} and model={options['model']}")
        return cls(text, **options) if text else cls(**options)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """0 to the number of blocks, and ``"final"``, which is the last of them."""
        return (*range(self._n_layers + 1), "final")

    @property
    def default_layers(self) -> tuple[Layer, ...]:
        """Hidden layers at one third, two thirds and the end, as of a :class:`SentenceEncoder`."""
        n = self._n_layers
        return tuple(sorted({max(1, round(n / 3)), max(1, round(2 * n / 3)), n}))

    @property
    def _n_layers(self) -> int:
        found = self.files.n_layers
        if not found:
            raise ModelError(f"{self.files.folder}: its config.json does not state the number of its blocks.")
        return found

    def dim(self, layer: Layer) -> int:
        """Width of one layer's vectors, read from the model's configuration."""
        self._wanted((layer,))
        if self.files.hidden_size is None:
            raise ModelError(f"{self.files.folder}: its config.json does not state the width of its hidden states.")
        return self.files.hidden_size

    @property
    def shares_prefixes(self) -> bool:
        """Whether common beginnings are read once: asked for, and the model passed the trial. Loads the model."""
        self._load()
        return self._shares

    def fingerprint(self) -> dict[str, Any]:
        """Everything that changes a vector except the layer, as JSON values; computed from the files, without torch."""
        if self._fingerprint is None:
            files = self.files
            self._fingerprint = {
                "kind": "causal",
                "model": f"{files.config.get('model_type', 'transformer')}-{files.n_layers}x{files.hidden_size}",
                "weights": files.weights_digest(),
                "tokenizer": files.tokenizer_digest(),
                "modules": files.modules_digest(),
                "max_length": self.token_limit,
                "truncation": self.truncation,
                "template": "none",
                "pooling": self.pooling,
                "bos": self.bos,
                "normalise": False,
                "precision": "float32",
            }
        return dict(self._fingerprint)

    def _token_counts(self, rows: list[str]) -> list[int]:
        tokens, before = self._tokenizer()
        return [len(before) + len(ids) for ids in tokens.ids(rows)]

    def _why_empty(self) -> str | None:
        return "nothing is put before an empty text with bos=False or a tokenizer without one"

    def _vectors(self, ids: list[list[int]], wanted: tuple[Layer, ...]) -> Iterable[tuple[Sequence[int], Vectors]]:
        pooler = self._load()
        groups: list[SharedPrefix] = []
        if self._shares:
            groups = shared_prefixes(ids)
            if sum(one.length * (len(one.rows) - 1) for one in groups) < _WORTH_SHARING * sum(map(len, ids)):
                groups = []
        for batch in plan_batches([one.length for one in groups], self.batch_tokens):
            yield from pooler.shared(ids, [groups[i] for i in batch], wanted, self.batch_tokens)
        together = {row for one in groups for row in one.rows}
        alone = [row for row in range(len(ids)) if row not in together]
        for batch in plan_batches([len(ids[row]) for row in alone], self.batch_tokens):
            places = [alone[i] for i in batch]
            yield places, pooler.whole([ids[row] for row in places], wanted)

    def _token_ids(self, rows: list[str], limit: int | None) -> list[list[int]]:
        tokens, before = self._tokenizer()
        first, last = len(before) + len(tokens.prefix), len(tokens.suffix)
        return [
            truncate([*before, *ids], limit, self.truncation, n_prefix=first, n_suffix=last) for ids in tokens.ids(rows)
        ]

    def _load(self) -> CausalPooling:
        if self._pooler is None:
            from embedrm.encoders.causal_backbone import CausalBackbone
            from embedrm.encoders.causal_pooling import CausalPooling
            from embedrm.encoders.onednn import use_onednn

            with _loading:
                if self._pooler is None:
                    backbone = CausalBackbone(self.files)
                    use_onednn(backbone.core, backbone.probe)
                    tokens, before = self._tokenizer()
                    self._shares = self.share_prefixes and backbone.can_share()
                    self._pooler = CausalPooling(backbone, self.pooling, len(before) + len(tokens.prefix))
        return self._pooler

    def _tokenizer(self) -> tuple[TextTokens, tuple[int, ...]]:
        """Return the tokenizer, and what is put before every text that it does not put there itself."""
        if self._tokens is None:
            from embedrm.encoders.causal_backbone import bos_of, fast_backend, load_tokenizer

            tokenizer = load_tokenizer(self.files)
            tokens = TextTokens.of(fast_backend(tokenizer, self.files))
            bos = bos_of(tokenizer) if self.bos else None
            before = () if bos is None or bos in tokens.prefix else (bos,)
            self._check_room(len(before) + tokens.n_kept, "special")
            self._tokens = tokens, before
        return self._tokens

    def _check_own_arguments(self) -> None:
        if self.pooling not in ("last", "mean"):
            raise unknown_name("pooling of a causal encoder", self.pooling, ("last", "mean"))
        for name in ("bos", "share_prefixes"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidInputError(f"{name} must be True or False; got {getattr(self, name)!r}")
