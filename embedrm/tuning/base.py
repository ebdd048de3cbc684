"""The encoder that is tuned, in memory and trainable: token ids in, pooled vectors with gradients out."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from embedrm.encoders import load_encoder
from embedrm.encoders.batching import padded_width, plan_batches
from embedrm.encoders.files import TRANSFORMER, ModelFiles
from embedrm.encoders.hidden import find_blocks
from embedrm.encoders.sentence import SentenceEncoder
from embedrm.encoders.tokens import TextTokens
from embedrm.errors import InvalidInputError, ModelError
from embedrm.tuning.config import TuningConfig
from embedrm.tuning.linear import use_trainable_onednn
from embedrm.views import Layer

# Padded tokens that go through the model together: what suits a processor's cache, not what the optimiser sees.
CHUNK_TOKENS = 1024


def find_base(config: TuningConfig) -> SentenceEncoder:
    """Return the encoder that a configuration names, with its limits; nothing is loaded.

    Raises
    ------
    InvalidInputError
        An encoder without a tokenizer and blocks, or ``max_length`` beyond its positions.
    """
    kind = config.base.partition(":")[0]
    encoder = load_encoder(config.base) if kind in ("hashing", "sentence") else None
    if encoder is not None and not isinstance(encoder, SentenceEncoder):
        raise InvalidInputError(_no_tokenizer(config.base, type(encoder).__name__))
    model = encoder.model if encoder is not None else config.base
    found = SentenceEncoder(
        model,
        revision=config.revision,
        max_length=config.max_length,
        truncation=config.truncation,
        threads=config.threads,
    )
    if found.files.kind != TRANSFORMER:
        raise InvalidInputError(_no_tokenizer(config.base, f"{found.files.kind} model"))
    return found


def _no_tokenizer(base: str, what: str) -> str:
    return (
        f"tuning needs a transformer with a tokenizer, and {base!r} is a {what}, which has none to tune. Give a "
        "sentence-transformers or Hugging Face encoder, such as 'all-MiniLM-L6-v2'."
    )


def base_digest(encoder: SentenceEncoder) -> str:
    """Return 32 hex digits that name an encoder's weights, tokenizer and modules, wherever they lie, whatever the limits."""
    parts = {name: encoder.fingerprint()[name] for name in ("weights", "tokenizer", "modules")}
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def reward_layer(files: ModelFiles) -> Layer:
    """Return the layer that a head reads: the pooled vector before it is normalised.

    Where the model's own embedding is the mean of its last states, normalised or not, that is the last numeric layer, and
    a linear head keeps the length of the vector. Any other embedding is taken as it is (``"final"``).
    """
    kinds = [module.kind for module in files.modules]
    if kinds[:2] != [TRANSFORMER, "Pooling"] or set(kinds[2:]) - {"Normalize"} or files.n_layers is None:
        return "final"
    if len(files.modules) == 2 and not (files.folder / "modules.json").is_file():
        return files.n_layers
    place = files.folder / files.modules[1].path / "config.json"
    pooling = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
    on = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value is True]
    mean = pooling.get("pooling_mode", "mean") == "mean" and on in ([], ["pooling_mode_mean_tokens"])
    return files.n_layers if mean and pooling.get("include_prompt", True) else "final"


class TrainableBase:
    """A base in memory, in float32, with gradients.

    Parameters
    ----------
    encoder : SentenceEncoder
        From :func:`find_base`; its limit and policy decide what is read of a text.
    dropout : float, optional
        Set on every dropout of the model; its own where absent.

    Attributes
    ----------
    model : SentenceTransformer
    transformer : transformers.PreTrainedModel
        Its transformer.
    tokens : TextTokens
    layer : Layer
        What :meth:`pooled` gives; see :func:`reward_layer`.
    """

    def __init__(self, encoder: SentenceEncoder, dropout: float | None = None) -> None:
        import torch

        from embedrm.encoders.backbone import Backbone

        self.encoder, self.files = encoder, encoder.files
        with warnings.catch_warnings():
            # torch talks of graphics cards when these flags change
            warnings.simplefilter("ignore")
            # the frozen encoder packs its weights for oneDNN, after which they cannot be trained
            with torch.backends.mkldnn.flags(enabled=False):
                backbone = Backbone(self.files)
        self.model = backbone.model
        self.transformer = self.model[0].auto_model
        self.tokens = TextTokens.of(backbone.tokenizer, prompt=encoder.fingerprint()["prompt"] or "")
        self.layer = reward_layer(self.files)
        self._names = set(self.model.tokenizer.model_input_names)
        self._pad = self.model.tokenizer.pad_token_id or 0
        if dropout is not None:
            for module in self.model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = dropout
                elif isinstance(getattr(module, "dropout_prob", None), float):
                    module.dropout_prob = dropout

    def speed_up(self) -> None:
        """Let linear layers use oneDNN where that gives the same; to be called once all layers are in place."""
        use_trainable_onednn(self.model)

    @property
    def dim(self) -> int:
        """Width of :meth:`pooled`."""
        return self.encoder.dim(self.layer)

    def blocks(self) -> Any:
        """Return the transformer's list of blocks."""
        blocks = find_blocks(self.transformer, self.files.n_layers or 0)
        if blocks is None:
            raise ModelError(
                f"{self.files.folder}: the blocks of this architecture cannot be found; tune it with method='full'"
            )
        return blocks

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids that are read of each text, exactly those of the encoder."""
        return list(self.tokens.read_ids(list(texts), self.encoder.token_limit, self.encoder.truncation))

    def features(self, batch: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Pad token ids on the right, as the encoder does."""
        import torch

        lengths = np.array([len(ids) for ids in batch])
        shape = (len(batch), padded_width(int(lengths.max()), self.files.positions))
        ids = np.full(shape, self._pad, dtype=np.int64)
        for row, text in enumerate(batch):
            ids[row, : len(text)] = text
        mask = (np.arange(shape[1]) < lengths[:, None]).astype(np.int64)
        features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if "token_type_ids" in self._names:
            types = np.zeros(shape, dtype=np.int64)
            for row, length in enumerate(lengths.tolist()):
                types[row, :length] = self.tokens.types(length)
            features["token_type_ids"] = torch.from_numpy(types)
        if self.tokens.prompt_length:
            features["prompt_length"] = torch.tensor(self.tokens.prompt_length)
        return features

    def chunks(self, ids: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """Yield (rows, features) of texts of similar length that go through the model together."""
        for rows in plan_batches([len(text) for text in ids], CHUNK_TOKENS):
            yield rows, self.features([ids[row] for row in rows])

    def states(self, features: dict[str, Any]) -> Any:
        """Return the last hidden states, (n, tokens, dim)."""
        return self.model[0](dict(features))["token_embeddings"]

    def pooled(
        self, ids: Sequence[Sequence[int]], *, final: bool = False, before: Callable[[list[int]], None] | None = None
    ) -> Any:
        """Return the pooled vectors of texts, (n, dim), in their order; with ``final`` the model's own embedding.

        ``before`` is called with the rows of the texts that go through the model next.
        """
        import torch

        order: list[int] = []
        parts = []
        for rows, features in self.chunks(ids):
            order += rows
            if before is not None:
                before(rows)
            output = self.model[0](dict(features))
            if self.layer == "final" or final:
                for module in list(self.model.children())[1:]:
                    output = module(output)
                parts.append(output["sentence_embedding"])
            else:
                mask = features["attention_mask"].to(torch.float32)
                weights = (mask / mask.sum(dim=1, keepdim=True))[:, None, :]
                parts.append((weights @ output["token_embeddings"]).squeeze(1))
        return torch.cat(parts)[torch.from_numpy(np.argsort(order))]
