"""Any Hugging Face causal language model as a frozen encoder: last-token or mean vectors of any hidden layer."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedrm.encoders.base import ENCODERS, Encoder, Layer, Step, check_texts
from embedrm.encoders.batching import plan_batches
from embedrm.encoders.causal_prefixes import SharedPrefix, shared_prefixes
from embedrm.encoders.files import ModelFiles
from embedrm.encoders.resolve import resolve
from embedrm.encoders.sentence import DEFAULT_BATCH_TOKENS
from embedrm.encoders.tokens import TextTokens
from embedrm.encoders.truncation import SHORTENING_POLICIES, check_policy, tokens_cut, truncate
from embedrm.errors import InvalidInputError, ModelError, unknown_name

if TYPE_CHECKING:
    from embedrm.encoders.causal_pooling import CausalPooling

# Texts tokenised, sorted and encoded at a time: bounds the memory of token ids, and is enough to find what begins alike.
_WINDOW = 4096
# Sharing costs two passes instead of one: it must save at least this share of the tokens.
_WORTH_SHARING = 0.05

_loading = threading.Lock()


@ENCODERS.register("causal")
class CausalEncoder(Encoder):
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

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process loads the model itself: cheaper than sending it, and safe.
        return self.get_params()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

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
    def files(self) -> ModelFiles:
        """The model's files, found on first use; nothing is loaded."""
        if self._files is None:
            files = resolve(self.model, revision=self.revision, offline=self.offline)
            self._check_arguments(files)
            self._files = files
        return self._files

    def n_parameters(self) -> int:
        """Count the weights of the model, its head's included."""
        return self.files.n_parameters()

    @property
    def token_limit(self) -> int | None:
        """The most tokens of a text that are read, special tokens included; None for no limit."""
        return self.files.own_limit if self.max_length is None else self.max_length

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

    def count_tokens(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Count tokens; see :meth:`Encoder.count_tokens`."""
        tokens, before = self._tokenizer()
        counts = [len(before) + len(ids) for ids in tokens.ids(check_texts(texts))]
        cut = [tokens_cut(count, self.token_limit) for count in counts]
        return np.array(counts, dtype=np.int64), np.array(cut, dtype=np.int64)

    def effective_digests(self, texts: Sequence[str]) -> list[bytes]:
        """Digest of each text's token ids after truncation; see :meth:`Encoder.effective_digests`."""
        shortens = self.truncation in SHORTENING_POLICIES
        read = self._read(check_texts(texts), self.token_limit if shortens else None)
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
            The model cannot be found or loaded, is no causal language model, or gives values that are not finite.
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

        pooler = self._load()
        done = 0
        with torch_threads(self.threads):
            for start in range(0, len(rows), _WINDOW):
                ids = self._read(rows[start : start + _WINDOW], self.token_limit)
                self._refuse_empty(ids, start)
                for places, vectors in self._batches(pooler, ids, wanted):
                    for layer in wanted:
                        if not np.isfinite(vectors[layer]).all():
                            raise ModelError(
                                f"the model in {self.files.folder} gives values that are not finite for text "
                                f"{start + places[0]} or another of its batch, layer {layer!r}. Its weights are damaged or "
                                "overflow; use another."
                            )
                        out[layer][start + np.array(places)] = vectors[layer]
                    done += len(places)
                    if progress is not None:
                        progress(done, len(rows))
        return out

    def _batches(self, pooler: CausalPooling, ids: list[list[int]], wanted: tuple[Layer, ...]) -> Any:
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

    def _read(self, texts: list[str], limit: int | None) -> list[list[int]]:
        tokens, before = self._tokenizer()
        first, last = len(before) + len(tokens.prefix), len(tokens.suffix)
        return [
            truncate([*before, *ids], limit, self.truncation, n_prefix=first, n_suffix=last)
            for ids in tokens.ids(texts)
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
            limit, kept = self.token_limit, len(before) + tokens.n_kept
            if limit is not None and limit <= kept:
                raise InvalidInputError(
                    f"max_length must leave room for a token of the text beside {kept} special tokens; got {limit}"
                )
            self._tokens = tokens, before
        return self._tokens

    def _check_arguments(self, files: ModelFiles) -> None:
        check_policy(self.truncation)
        if self.pooling not in ("last", "mean"):
            raise unknown_name("pooling of a causal encoder", self.pooling, ("last", "mean"))
        for name in ("bos", "share_prefixes"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidInputError(f"{name} must be True or False; got {getattr(self, name)!r}")
        for name in ("max_length", "threads"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidInputError(f"{name} must be a positive whole number or None; got {value!r}")
        if self.max_length is not None and files.positions is not None and self.max_length > files.positions:
            raise InvalidInputError(
                f"max_length={self.max_length} is more than the {files.positions} positions the model {self.model!r} has. "
                "Give at most that."
            )

    def _refuse_long(self, rows: list[str]) -> None:
        tokens, cut = self.count_tokens(rows)
        long = np.flatnonzero(cut)
        if long.size:
            raise InvalidInputError(
                f"truncation={self.truncation!r} encodes no text of more than {self.token_limit} tokens, and {long.size} of "
                f"{len(rows)} texts have more (longest {int(tokens.max())}; first: text {int(long[0])} with "
                f"{int(tokens[long[0]])}). Leave those rows out (count_tokens marks them), or let them be cut: "
                f"{', '.join(SHORTENING_POLICIES)}."
            )

    def _refuse_empty(self, ids: list[list[int]], start: int) -> None:
        empty = next((row for row, text in enumerate(ids) if not text), None)
        if empty is not None:
            raise InvalidInputError(
                f"text {start + empty} has no token (nothing is put before an empty text with bos=False or a tokenizer "
                "without one). Leave the row out."
            )
