"""A frozen causal language model with its tokenizer: states at every position, probabilities of texts, output embeddings."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embedrm.encoders.base import check_texts
from embedrm.encoders.batching import plan_batches
from embedrm.encoders.causal_backbone import CLOSE, CausalBackbone
from embedrm.encoders.files import ModelFiles
from embedrm.encoders.token_states import TokenStates
from embedrm.errors import InvalidInputError, ModelError, unknown_name
from embedrm.language_models.perplexity import Perplexity
from embedrm.language_models.states import cached_states
from embedrm.progress import Progress, silent

BATCH_TOKENS = 1024
TRUNCATIONS = ("error", "head")
# Two token ids that every vocabulary has.
_PROBE = (0, 1, 1, 0, 1)


class LanguageModel:
    """A frozen causal language model, in float32 on the CPU.

    Parameters
    ----------
    files : ModelFiles
        Where it is, from :func:`embedrm.encoders.resolve.resolve`.
    name : str
        What to call it in messages and reports.
    max_length : int, optional
        The most tokens it reads, BOS included; its own limit where absent.
    facts : dict, optional
        How it came about, for reports.

    Notes
    -----
    Every text is read after one BOS token, so that its first token has something to be predicted from: the tokenizer's
    own beginning of a text, or where it has none its end of a text, as GPT-2 was trained.
    """

    def __init__(
        self, files: ModelFiles, name: str, *, max_length: int | None = None, facts: dict[str, Any] | None = None
    ) -> None:
        self.files = files
        self.name = name
        self.facts = dict(facts or {})
        self._max_length = max_length
        self._backbone: CausalBackbone | None = None
        self._loading = threading.Lock()

    def __repr__(self) -> str:
        return f"LanguageModel({self.name!r})"

    @property
    def backbone(self) -> CausalBackbone:
        """The loaded model; loaded when it is first asked for."""
        with self._loading:
            if self._backbone is None:
                self._backbone = self._checked(CausalBackbone(self.files))
        return self._backbone

    @property
    def model(self) -> Any:
        """The transformers model with its head, for ``model.generate``."""
        return self.backbone.model

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""
        return self.backbone.tokenizer

    @property
    def bos_id(self) -> int:
        """The token that every text is read after."""
        return int(self.backbone.bos_id or 0)

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text; None where the model knows none."""
        return self.backbone.eos_id

    @property
    def dim(self) -> int:
        """Width of a state, and of an output embedding."""
        return int(self.output_embeddings().shape[1])

    @property
    def vocab_size(self) -> int:
        """Rows of the output embeddings; may exceed the tokens of the tokenizer."""
        return int(self.output_embeddings().shape[0])

    @property
    def n_parameters(self) -> int:
        """Number of weights, tied ones once."""
        return self.files.n_parameters()

    @property
    def max_length(self) -> int | None:
        """The most tokens it reads, BOS included; None for no limit."""
        own = self.files.own_limit
        if self._max_length is None:
            return own
        if own is not None and self._max_length > own:
            raise InvalidInputError(
                f"max_length={self._max_length} is more than the {own} tokens that {self.name} can read"
            )
        return self._max_length

    def identity(self) -> dict[str, Any]:
        """Return what decides its states, as JSON values: digests of weights, tokenizer and configuration."""
        files = self.files
        return {
            "kind": "causal-lm",
            "model": f"{files.config.get('model_type', 'transformer')}-{files.n_layers}x{files.hidden_size}",
            "weights": files.weights_digest(),
            "tokenizer": files.tokenizer_digest(),
            "modules": files.modules_digest(),
            "precision": "float32",
        }

    def fingerprint(self) -> str:
        """Return 32 hex digits that name it: BLAKE2b-128 of :meth:`identity`; the same wherever it was found."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode("ascii"), digest_size=16).hexdigest()

    def describe(self) -> str:
        """Say in one sentence which language model this is, for reports."""
        told = (
            self.facts.get("description")
            or f"the causal language model {self.name!r} as it was found, not trained here"
        )
        found = self.identity()
        return (
            f"{told} ({found['model']}, {self.n_parameters / 1e6:.1f} million weights, {self.vocab_size:,} tokens, "
            f"digest {self.fingerprint()[:8]})"
        )

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, BOS not among them."""
        return list(self._ids([text])[0])

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids; special tokens are left out."""
        whole = [int(i) for i in ids]
        text: str = self.tokenizer.decode(whole, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def output_embeddings(self) -> npt.NDArray[np.float32]:
        """Return e(v), the frozen table of the language modelling head; (vocab_size, dim) float32, shared, not copied."""
        return self.backbone.output_embeddings()

    def token_states(
        self,
        texts: Sequence[str],
        *,
        store_dir: str | Path | Literal[False] | None = None,
        dtype: str = "float32",
        truncation: str = "error",
        progress: Progress = silent,
    ) -> TokenStates:
        """Return the states at every position of some texts.

        Parameters
        ----------
        texts : sequence of str
            An empty one has the BOS row alone.
        store_dir : path or False, optional
            Where states are kept, memory-mapped; ``$EMBEDRM_HOME/token_states`` where absent. False keeps them in memory
            alone.
        dtype : {"float32", "float16"}
            float16 takes half the room; ``info["rounding"]`` tells the largest error, and the root mean square error,
            each relative to the root mean square of the states.
        truncation : {"error", "head"}
            For texts longer than ``max_length``: refuse them, or read their beginning; ``info`` counts those cut.
        progress : Progress
            Called as ``progress(label)``, then ``(done, total)`` in tokens; not called where all is on disk.

        Returns
        -------
        TokenStates

        Raises
        ------
        InvalidInputError
            Texts that are not strings, or too long; an unknown dtype or truncation.
        StoreError
            What is on disk is damaged, or cannot be written.
        ModelError
            States that are not finite, or beyond the range of float16.
        """
        rows = check_texts(texts)
        for kind, value, known in (("dtype of token states", dtype, ("float32", "float16")),
                                   ("truncation of token states", truncation, TRUNCATIONS)):  # fmt: skip
            if value not in known:
                raise unknown_name(kind, value, known)
        return cached_states(self, rows, store_dir, dtype, truncation, progress)

    def state_batches(self, rows: Sequence[Sequence[int]]) -> Any:
        """Yield (places, list of states) of batches of token ids, BOS included; states are (tokens, dim) float32."""
        import torch

        for batch in plan_batches([len(row) for row in rows], BATCH_TOKENS):
            with torch.inference_mode():
                ids, mask = self.backbone.pad([rows[i] for i in batch])
                states = self.backbone.run(ids, mask).last_hidden_state.float().numpy()
            found = [states[k, : len(rows[i])] for k, i in enumerate(batch)]
            if not all(np.isfinite(one).all() for one in found):
                raise ModelError(
                    f"{self.name} gives states that are not finite for text {batch[0]} or another of its batch. Its weights "
                    "are damaged or overflow; use another."
                )
            yield batch, found

    def read(self, texts: Sequence[str], truncation: str = "error") -> tuple[list[list[int]], dict[str, int]]:
        """Return the ids of texts with BOS, and how many texts and tokens were cut off."""
        limit = self.max_length
        rows = [[self.bos_id, *ids] for ids in self._ids(texts)]
        long = [i for i, row in enumerate(rows) if limit is not None and len(row) > limit]
        if long and truncation == "error":
            raise InvalidInputError(
                f"{len(long)} of {len(rows)} texts have more than the {limit} tokens that {self.name} reads, BOS included "
                f"(first: text {long[0]} with {len(rows[long[0]])}). Leave them out, or give truncation='head' to read "
                "their beginning."
            )
        cut = sum(len(rows[i]) - (limit or 0) for i in long)
        for i in long:
            rows[i] = rows[i][:limit]
        return rows, {"texts_cut": len(long), "tokens_cut": cut}

    def perplexity(
        self, texts: Sequence[str], prompts: Sequence[str] | None = None, *, progress: Progress = silent
    ) -> Perplexity:
        """Judge texts by the likelihood of their tokens.

        Parameters
        ----------
        texts : sequence of str
        prompts : sequence of str, optional
            One for each text, read before it and not judged; put a separator into one of the two where one is wanted.
            Prompt and text are tokenised apart, as they are where a model continues a prompt.
        progress : Progress

        Returns
        -------
        Perplexity
            The end of a text is not judged.

        Raises
        ------
        InvalidInputError
            Texts that are not strings or too long with their prompts, or not one prompt for each text.
        """
        import torch

        after = check_texts(texts)
        before = [""] * len(after) if prompts is None else check_texts(prompts)
        if len(before) != len(after):
            raise InvalidInputError(
                f"perplexity needs one prompt for each text; got {len(before)} for {len(after)} texts"
            )
        starts = [[self.bos_id, *ids] for ids in self._ids(before)]
        rows = [[*start, *ids] for start, ids in zip(starts, self._ids(after))]
        limit = self.max_length
        long = [i for i, row in enumerate(rows) if limit is not None and len(row) > limit]
        if long:
            raise InvalidInputError(
                f"{len(long)} of {len(rows)} texts have with their prompts more than the {limit} tokens that {self.name} "
                f"reads (first: text {long[0]} with {len(rows[long[0]])}). Shorten them or leave them out."
            )
        nll = np.full(len(rows), np.nan)
        counts = np.array([len(row) - len(start) for row, start in zip(rows, starts)], dtype=np.int64)
        judged = np.flatnonzero(counts)
        step, done = progress("perplexity"), 0
        for batch in plan_batches([len(rows[i]) for i in judged], BATCH_TOKENS):
            places = judged[batch]
            with torch.inference_mode():
                ids, mask = self.backbone.pad([rows[i] for i in places])
                states = self.backbone.run(ids, mask).last_hidden_state
                for k, i in enumerate(places):
                    first, last = len(starts[i]), len(rows[i])
                    told = self.head(states[k, first - 1 : last - 1]).log_softmax(dim=-1)
                    chosen = told.gather(1, ids[k, first:last, None]).double()
                    nll[i] = -float(chosen.mean())
            done += len(batch)
            step(done, len(judged))
        return Perplexity(nll, counts, np.array([len(text) for text in after], dtype=np.int64))

    def head(self, states: Any) -> Any:
        """Return the logits of the next token from states, both tensors."""
        return self.model.get_output_embeddings()(states)

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        encode = self.backbone.backend.encode_batch
        return [list(one.ids) for one in encode(list(texts), add_special_tokens=False)]

    def _checked(self, backbone: CausalBackbone) -> CausalBackbone:
        """Refuse a model without BOS, or whose head reads something else than its last states."""
        import torch

        if backbone.bos_id is None:
            raise ModelError(f"{self.name} has neither a BOS nor an EOS token; every text is read after one.")
        backbone.backend.no_truncation()
        backbone.backend.no_padding()
        settings = backbone.model.generation_config
        if settings is not None and settings.pad_token_id is None:
            settings.pad_token_id = backbone.eos_id if backbone.eos_id is not None else backbone.bos_id
        with torch.inference_mode():
            ids, mask = backbone.pad([[backbone.bos_id, *_PROBE]])
            states = backbone.run(ids, mask).last_hidden_state
            want = backbone.model(input_ids=ids, attention_mask=mask).logits
            head = backbone.model.get_output_embeddings()
            got = None if head is None else head(states)
        if got is None or got.shape != want.shape or not torch.allclose(
            got, want, rtol=CLOSE, atol=CLOSE * float(want.abs().max())
        ):  # fmt: skip
            raise ModelError(
                f"the head of {self.name} ({type(backbone.model).__name__}) does not read its last hidden states as "
                "they are, so that rewards of tokens cannot be read from them. Use another language model."
            )
        return backbone
