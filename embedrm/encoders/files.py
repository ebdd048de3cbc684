"""What is in a model's folder, read from its small files alone: modules, sizes, limits, digests. No torch."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from embedrm.errors import ModelError

# Kinds of module that can come first, that is, that can read text here.
TRANSFORMER, STATIC = "Transformer", "StaticEmbedding"

_PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_TOKENIZER_FILES = ("added_tokens.json", "merges.txt", "special_tokens_map.json", "tokenizer.json",
                    "tokenizer_config.json", "vocab.json", "vocab.txt", "*.model", "*.bpe", "*.tiktoken")  # fmt: skip
# Notes that loaders leave in JSON files (where a model came from, what wrote it), or that we decide ourselves.
_NOTES = frozenset({"_name_or_path", "name_or_path", "transformers_version", "__version__", "tokenizer_file",
                    "special_tokens_map_file", "cache_dir", "torch_dtype", "dtype", "max_seq_length",
                    "model_max_length"})  # fmt: skip
_OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer"})
_NO_LIMIT = 10**6
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})

_hashes: dict[tuple[str, int, int], str] = {}


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex; kept within the process for an unchanged (path, size, time of change)."""
    try:
        real = path.resolve()
        stat = real.stat()
        key = (str(real), stat.st_size, stat.st_mtime_ns)
        if key not in _hashes:
            digest = hashlib.sha256()
            with real.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            _hashes[key] = digest.hexdigest()
    except OSError as err:
        raise ModelError(f"cannot read {path}: {err.strerror or err}. Check the file and its permissions.") from err
    return _hashes[key]


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, None if there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as err:
        raise ModelError(f"cannot read {path}: {err.strerror or err}. Check the file and its permissions.") from err
    except ValueError as err:
        raise ModelError(f"{path} is not JSON ({err}). Download the model again.") from err


@dataclass(frozen=True)
class Module:
    """One step of a sentence-transformers model: its class name, and its folder below the model's."""

    kind: str
    path: str


@dataclass(frozen=True)
class ModelFiles:
    """A model's folder.

    Attributes
    ----------
    folder : Path
        Where the model is.
    modules : tuple of Module
        In their order; for a plain Hugging Face folder the Transformer and the pooling sentence-transformers adds.
    """

    folder: Path
    modules: tuple[Module, ...]

    @property
    def first(self) -> Path:
        """Folder of the module that reads text."""
        return self.folder / self.modules[0].path

    @property
    def kind(self) -> str:
        """Class name of the module that reads text."""
        return self.modules[0].kind

    @cached_property
    def config(self) -> dict[str, Any]:
        """The transformer's own config.json, its text part where it has several; empty for a static embedding."""
        config = self._json(self.first / "config.json")
        text = config.get("text_config")
        return {**config, **text} if isinstance(text, dict) else config

    @cached_property
    def n_layers(self) -> int | None:
        """Number of transformer blocks, None where there are none or the configuration does not say."""
        if self.kind != TRANSFORMER:
            return None
        return self._number("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers")

    @cached_property
    def hidden_size(self) -> int | None:
        """Width of the hidden states."""
        return self._number("hidden_size", "n_embd", "dim", "d_model") if self.kind == TRANSFORMER else None

    @cached_property
    def final_dim(self) -> int | None:
        """Width of the model's own sentence embedding; None where only loading the model can tell."""
        cut = self.settings.get("truncate_dim")
        width = self.hidden_size if self.kind == TRANSFORMER else _static_width(self.first / "model.safetensors")
        for module in self.modules[1:]:
            config = self._json(self.folder / module.path / "config.json")
            if module.kind == "Pooling":
                mode = config.get("pooling_mode", "mean")
                legacy = sum(value is True for key, value in config.items() if key.startswith("pooling_mode_"))
                each = config.get("embedding_dimension", config.get("word_embedding_dimension", width))
                width = None if each is None else int(each) * (legacy or (1 if isinstance(mode, str) else len(mode)))
            elif module.kind == "Dense":
                width = config.get("out_features")
            elif module.kind not in ("Normalize", "Dropout", "LayerNorm"):
                return None
        return width if cut is None or width is None else min(int(cut), int(width))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The model's config_sentence_transformers.json (prompts, truncate_dim), empty where there is none."""
        return self._json(self.folder / "config_sentence_transformers.json")

    @property
    def prompt(self) -> str | None:
        """The text that sentence-transformers puts before every input of this model unless told otherwise."""
        name = self.settings.get("default_prompt_name")
        prompts = self.settings.get("prompts")
        return prompts.get(name) or None if name and isinstance(prompts, dict) else None

    @property
    def normalises(self) -> bool:
        """Whether the model's own sentence embedding has length 1."""
        return any(module.kind == "Normalize" for module in self.modules)

    @cached_property
    def positions(self) -> int | None:
        """The most tokens the model has positions for, None where it has no such table."""
        if self.kind != TRANSFORMER:
            return None
        most = self._number("max_position_embeddings", "n_positions")
        if most is None or most < 1:
            return None
        offset = self.config.get("model_type") in _OFFSET_POSITIONS
        return most - (int(self.config.get("pad_token_id") or 0) + 1) if offset else most

    @cached_property
    def own_limit(self) -> int | None:
        """The most tokens the model reads by its own settings, as sentence-transformers takes them; None for any."""
        if self.kind != TRANSFORMER:
            return None
        wrapper = self._wrapper()
        for place in (wrapper.get("processor_kwargs"), wrapper.get("tokenizer_args"), wrapper):
            for key in ("model_max_length", "max_seq_length"):
                if isinstance(place, dict) and isinstance(place.get(key), int):
                    return int(place[key])
        stated = self._json(self.first / "tokenizer_config.json").get("model_max_length")
        limits = [self.positions, stated if isinstance(stated, (int, float)) and stated < _NO_LIMIT else None]
        return min((int(limit) for limit in limits if limit is not None), default=None)

    def weights(self) -> list[Path]:
        """Return the safetensors files of all modules, the first module's first."""
        places = dict.fromkeys(self.folder / module.path for module in self.modules)
        return [path for place in places for path in _safetensors(place)]

    def n_parameters(self) -> int:
        """Count the floating-point weights of all modules, from the files' headers."""
        entries = (entry for path in self.weights() for name, entry in _header(path).items() if name != "__metadata__")
        return sum(math.prod(entry["shape"]) for entry in entries if entry["dtype"] in _FLOATS)

    def weights_digest(self) -> str:
        """SHA-256 of the weights: of the file where there is one, else of the names and digests of all."""
        paths = self.weights()
        if len(paths) == 1:
            return sha256_of(paths[0])
        lines = [f"{_relative(path, self.folder)} {sha256_of(path)}\n" for path in paths]
        return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()

    def tokenizer_digest(self) -> str:
        """Digest of the tokenizer's files; JSON settings by their content, the rest by their bytes."""
        found = sorted({path for name in _TOKENIZER_FILES for path in self.first.glob(name)})
        content = {
            path.name: _without_notes(read_json(path)) if path.name == "tokenizer_config.json" else sha256_of(path)
            for path in found
        }
        return _digest([content, bool(self._wrapper().get("do_lower_case"))])

    def modules_digest(self) -> str:
        """Digest of the modules' order and settings, the transformer's configuration included."""
        parts = []
        for i, module in enumerate(self.modules):
            config = _without_notes(self._json(self.folder / module.path / "config.json"))
            parts.append([module.kind, config, _without_notes(self._wrapper()) if i == 0 else {}])
        return _digest([parts, self.settings.get("truncate_dim")])

    def _wrapper(self) -> dict[str, Any]:
        found = sorted(self.first.glob("sentence_*_config.json"))
        return self._json(found[0]) if found else {}

    def _number(self, *names: str) -> int | None:
        values = (self.config.get(name) for name in names)
        return next((int(value) for value in values if isinstance(value, int)), None)

    @staticmethod
    def _json(path: Path) -> dict[str, Any]:
        content = read_json(path)
        if content is not None and not isinstance(content, dict):
            raise ModelError(f"{path} must hold a JSON object, not {type(content).__name__}. Download the model again.")
        return content or {}


def is_model_folder(folder: Path) -> bool:
    """Whether a folder looks like a model of sentence-transformers or of transformers."""
    return (folder / "modules.json").is_file() or (folder / "config.json").is_file()


def read_model(folder: Path) -> ModelFiles:
    """Describe a model's folder.

    Raises
    ------
    ModelError
        It is no model, needs code of its own, or has no safetensors weights; the message says which and what to do.
    """
    entries = read_json(folder / "modules.json")
    if (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder} holds a PEFT adapter without its base model. Merge it into the model, save, and "
                         "give that folder.")  # fmt: skip
    if entries is not None:
        modules = tuple(_module(entry, folder) for entry in entries)
    elif (config := read_json(folder / "config.json")) is not None:
        modules = _bare_modules(config)
    else:
        raise ModelError(f"{folder} must hold a model (modules.json or config.json), and neither file is there.")
    if not modules or modules[0].kind not in (TRANSFORMER, STATIC):
        first = modules[0].kind if modules else "none"
        raise ModelError(
            f"{folder}: the first module must be a {TRANSFORMER} or a {STATIC}, and it is {first}. Its own tokenisation "
            "could shorten texts unseen, so it is not supported; use another model."
        )
    files = ModelFiles(folder, modules)
    _check_weights(files)
    return files


def _bare_modules(config: Any) -> tuple[Module, ...]:
    """Modules of a folder without a list of them: those of model2vec as it once saved, or of a plain transformer."""
    if isinstance(config, dict) and config.get("model_type") == "model2vec":
        return (Module(STATIC, ""), *([Module("Normalize", "")] if config.get("normalize") else []))
    return (Module(TRANSFORMER, ""), Module("Pooling", "1_Pooling"))


def missing_weights(folder: Path) -> str | None:
    """Say which safetensors file a model's folder lacks, None if nothing is missing."""
    index = read_json(folder / "model.safetensors.index.json")
    if (folder / "model.safetensors").is_file():
        return None
    if isinstance(index, dict) and isinstance(index.get("weight_map"), dict):
        lacking = sorted({str(n) for n in index["weight_map"].values() if not (folder / str(n)).is_file()})
        return lacking[0] if lacking else None
    return "model.safetensors"


def _module(entry: Any, folder: Path) -> Module:
    kind = entry.get("type") if isinstance(entry, dict) else None
    path = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(kind, str) or not isinstance(path, str):
        raise ModelError(
            f"{folder / 'modules.json'} must list modules with a type and a path. Download the model again."
        )
    if not kind.startswith("sentence_transformers."):
        raise ModelError(f"{folder} needs the module {kind}, which is not part of sentence-transformers. Code that comes "
                         "with a model is never run; use another model.")  # fmt: skip
    if PurePosixPath(path).is_absolute() or ".." in Path(path).parts:
        raise ModelError(
            f"{folder / 'modules.json'} points outside the model's folder ({path}). Do not use this model."
        )
    return Module(kind.rpartition(".")[2], path)


def _check_weights(files: ModelFiles) -> None:
    for i, module in enumerate(files.modules):
        place = files.folder / module.path
        if i > 0 and (module.path == "" or not place.is_dir()):
            continue
        pickled = sorted(path.name for pattern in _PICKLED for path in place.glob(pattern))
        lacking = missing_weights(place)
        if lacking and pickled:
            raise ModelError(
                f"{place} has weights only as {pickled[0]}, a pickle, which can run code when it is read; only safetensors "
                "is loaded. Save the model with safe_serialization=True on a machine that trusts it, or use another."
            )
        if lacking and i == 0:
            raise ModelError(f"{place} must hold the weights, and {lacking} is missing. Download the model again.")


def _safetensors(place: Path) -> list[Path]:
    single = place / "model.safetensors"
    return [single] if single.is_file() else sorted(place.glob("model-*.safetensors"))


def _static_width(path: Path) -> int | None:
    """Width of a static embedding's table."""
    header = _header(path)
    shape = next((header[key]["shape"] for key in ("embedding.weight", "embeddings") if key in header), None)
    return int(shape[1]) if shape else None


def _header(path: Path) -> dict[str, Any]:
    """Header of a safetensors file: its length, then JSON."""
    with path.open("rb") as file:
        header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _without_notes(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_notes(value) for key, value in content.items() if key not in _NOTES}
    return content


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("ascii"), digest_size=16).hexdigest()
