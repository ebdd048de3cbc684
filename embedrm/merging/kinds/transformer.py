"""Transformers: Hugging Face encoders and sentence-transformers models around one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from embedrm.encoders.files import ModelFiles
from embedrm.encoders.merged import ENCODER_KINDS
from embedrm.encoders.quiet import quiet_loading
from embedrm.errors import ModelError
from embedrm.merging.kinds.base import EncoderKind, Entries
from embedrm.merging.vocabulary import Vocabulary

# How architectures call the table of input embeddings.
_TABLES = (
    "word_embeddings.weight",
    "embed_tokens.weight",
    "tok_embeddings.weight",
    "wte.weight",
    "shared.weight",
    "token_embedding.weight",
)
# Settings that change no vector of a frozen encoder, or that are compared elsewhere.
_FREE = frozenset({"_name_or_path", "architectures", "transformers_version", "torch_dtype", "dtype", "vocab_size",
                   "use_cache", "gradient_checkpointing", "initializer_range", "initializer_factor", "output_attentions",
                   "output_hidden_states", "return_dict", "problem_type", "id2label", "label2id", "finetuning_task",
                   "classifier_dropout", "tie_word_embeddings", "torchscript"})  # fmt: skip


@ENCODER_KINDS.register("Transformer")
class TransformerKind(EncoderKind):
    """Transformers: token embeddings and all other weights, the tokenizer as transformers builds it."""

    def table(self, entries: Entries) -> str | None:
        """Return the one tensor that is named as architectures name their input embeddings."""
        found = [name for name in entries if name.endswith(_TABLES) and "/" not in name]
        return found[0] if len(found) == 1 else None

    def vocabulary(self, files: ModelFiles) -> Vocabulary:
        """Return the vocabulary of the fast tokenizer."""
        from transformers import AutoTokenizer

        try:
            with quiet_loading():
                tokenizer = AutoTokenizer.from_pretrained(
                    str(files.first), local_files_only=True, trust_remote_code=False
                )
        except Exception as err:  # the loaders raise whatever their formats raise
            reason = (str(err).strip().splitlines() or [""])[0][:200]
            raise ModelError(f"cannot load the tokenizer in {files.first}: {type(err).__name__}: {reason}.") from err
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelError(
                f"{files.folder}: the tokenizer {type(tokenizer).__name__} has no fast version, which telling its tokens "
                "needs. Use a model with a tokenizer.json."
            )
        return Vocabulary.of(json.loads(backend.to_str()))

    def settings(self, files: Sequence[ModelFiles]) -> list[dict[str, Any]]:
        """Return the configurations; settings that one leaves out have the library's defaults.

        A setting that the library does not know is read by nobody, and is compared only where all have it.
        """
        configs = [_told(f.config) for f in files]
        if all(set(c) == set(configs[0]) for c in configs):
            return configs
        from transformers import AutoConfig

        try:
            known = _told(AutoConfig.for_model(str(files[0].config.get("model_type"))).to_dict())
        except ValueError:
            return configs
        everywhere = set.intersection(*(set(c) for c in configs))
        return [{k: v for k, v in {**known, **c}.items() if k in known or k in everywhere} for c in configs]

    def grown_settings(self, config: dict[str, Any], n_rows: int) -> dict[str, Any]:
        """Return the configuration with the new size of the vocabulary."""
        if isinstance(config.get("text_config"), dict):
            return {**config, "text_config": {**config["text_config"], "vocab_size": n_rows}}
        return {**config, "vocab_size": n_rows}


def _told(config: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k not in _FREE and "dropout" not in k and v is not None}
