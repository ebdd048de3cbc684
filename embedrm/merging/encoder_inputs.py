"""Encoders that are to be merged, described from their files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from embedrm.encoders.files import ModelFiles, read_json
from embedrm.encoders.merged import ENCODER_KINDS
from embedrm.encoders.sentence import SentenceEncoder
from embedrm.errors import InvalidInputError, ModelError
from embedrm.merging.kinds.base import EncoderKind, EncoderTensors
from embedrm.merging.vocabulary import Vocabulary
from embedrm.tuning.base import base_digest
from embedrm.tuning.saving import FACTS, HEAD, read_facts

RECORD = "merge.json"
_POOLING = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max",
            "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens": "weightedmean",
            "pooling_mode_lasttoken": "lasttoken"}  # fmt: skip


@dataclass(frozen=True)
class MergeInput:
    """One encoder that is to be merged, described from its files; tensors and tokenizer are read when asked for."""

    name: str
    encoder: SentenceEncoder

    @property
    def files(self) -> ModelFiles:
        """Its files."""
        return self.encoder.files

    @cached_property
    def kind(self) -> EncoderKind:
        """How it is read."""
        found: EncoderKind = ENCODER_KINDS.get(self.files.kind)()
        return found

    @cached_property
    def tensors(self) -> EncoderTensors:
        """Its tensors by name."""
        return self.kind.tensors(self.files)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Its tokens."""
        return self.kind.vocabulary(self.files)

    @cached_property
    def digest(self) -> str:
        """Name of its weights, tokenizer and modules."""
        return base_digest(self.encoder)

    @cached_property
    def tuned(self) -> dict[str, Any] | None:
        """What ``tuning.json`` says, None where there is none."""
        return read_facts(self.files.folder) if (self.files.folder / FACTS).is_file() else None

    @cached_property
    def origin(self) -> str | None:
        """Digest of the base it was tuned from (or all that it was merged of were), where a file says so."""
        record = self.tuned or read_json(self.files.folder / RECORD) or {}
        found = record.get("base_digest")
        return found if isinstance(found, str) else None

    @cached_property
    def pooling(self) -> list[Any]:
        """Modules after the first one but for normalisation, in one form whichever version wrote them."""
        found: list[Any] = []
        for module in self.files.modules[1:]:
            config = read_json(self.files.folder / module.path / "config.json") if module.path else None
            if module.kind == "Pooling":
                found.append(["Pooling", *_pooling_modes(config or {})])
            elif module.kind != "Normalize":
                found.append([module.kind, config or {}])
        cut = self.files.settings.get("truncate_dim")
        return found if cut is None else [*found, ["truncate_dim", cut]]

    def identity(self) -> dict[str, str]:
        """Digests by which the input can be known again."""
        fingerprint = self.encoder.fingerprint()
        return {
            "name": self.name,
            "digest": self.digest,
            **{key: fingerprint[key] for key in ("weights", "tokenizer", "modules")},
        }

    def facts(self) -> dict[str, Any]:
        """Plain facts for a report."""
        files, tuned = self.files, self.tuned
        types = sorted({kind for kind, _ in self.tensors.entries.values()})
        return {
            **self.identity(),
            "kind": files.kind,
            "architecture": files.config.get("model_type", files.kind),
            "parameters": files.n_parameters(),
            "tensors": len(self.tensors),
            "types": types,
            "max_length": files.own_limit,
            "pooling": json.dumps(self.pooling),
            "normalises": files.normalises,
            "prompt": files.prompt,
            "base": self.origin,
            "tuned_by": None if tuned is None else tuned["config"]["objective"],
            "reward_head": (files.folder / HEAD).is_file(),
        }


def open_inputs(
    models: Sequence[str | Path], names: Sequence[str] | None, base: str | Path | None, who: str
) -> tuple[list[MergeInput], MergeInput | None]:
    """Find the encoders; names are those of their folders where none are given, numbered where two are alike."""
    if isinstance(models, (str, Path)) or not len(models):
        raise InvalidInputError(f"{who} needs a list of at least one encoder, got {models!r}")
    if names is None:
        short = [Path(str(m)).name or str(m) for m in models]
        names = [n if short.count(n) == 1 else f"{n} ({i + 1})" for i, n in enumerate(short)]
    if len(names) != len(models):
        raise InvalidInputError(f"{who} needs one name for each of {len(models)} encoders, got {len(names)}")
    found = [MergeInput(str(n), SentenceEncoder(str(m))) for n, m in zip(names, models)]
    origin = None if base is None else MergeInput("the base", SentenceEncoder(str(base)))
    for one in [*found, *([] if origin is None else [origin])]:
        if one.files.kind not in ENCODER_KINDS:
            raise ModelError(f"{one.files.folder}: a {one.files.kind} cannot be merged")
    return found, origin


def _pooling_modes(config: dict[str, Any]) -> list[Any]:
    on = sorted(name for key, name in _POOLING.items() if config.get(key) is True)
    mode = config.get("pooling_mode")
    if mode is not None:
        on = sorted([mode] if isinstance(mode, str) else mode)
    return [on or ["mean"], bool(config.get("include_prompt", True))]
