"""The contract of a kind of encoder that can be merged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from embedrm.encoders.files import ModelFiles
from embedrm.merging.safetensor_files import Array, SafetensorFiles
from embedrm.merging.vocabulary import Vocabulary

Entries = dict[str, tuple[str, tuple[int, ...]]]


class EncoderTensors(Mapping[str, Array]):
    """All tensors of a model's modules by name, read when asked for.

    Tensors of the module that reads text have their own names, those of a later module its number, its kind and a slash
    before them.

    Attributes
    ----------
    entries : dict of str to (type, shape)
    """

    def __init__(self, parts: Mapping[str, Mapping[str, Array]], entries: Entries) -> None:
        self._parts, self.entries = parts, entries

    @classmethod
    def of(cls, files: ModelFiles) -> EncoderTensors:
        """Find the tensors of a model's folder."""
        parts: dict[str, SafetensorFiles] = {}
        entries: Entries = {}
        for prefix, place in module_places(files).items():
            found = SafetensorFiles(weight_files(place))
            parts[prefix] = found
            entries.update({prefix + name: entry for name, entry in found.entries.items()})
        return cls(parts, entries)

    def __getitem__(self, name: str) -> Array:
        prefix, slash, rest = name.partition("/")
        key = prefix + slash if slash and prefix + slash in self._parts else ""
        return self._parts[key][rest if key else name]

    def __iter__(self) -> Any:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def module_places(files: ModelFiles) -> dict[str, Path]:
    """Prefix of the tensors of each module that has weights, and its folder."""
    places = {"": files.first}
    for i, module in enumerate(files.modules[1:], start=1):
        place = files.folder / module.path
        if module.path and place.is_dir() and weight_files(place):
            places[f"{i}_{module.kind}/"] = place
    return places


def weight_files(place: Path) -> list[Path]:
    """Return the safetensors files of one module."""
    single = place / "model.safetensors"
    return [single] if single.is_file() else sorted(place.glob("model-*.safetensors"))


class EncoderKind(ABC):
    """How encoders of one kind are read, compared and merged."""

    registered_name: ClassVar[str]

    def tensors(self, files: ModelFiles) -> EncoderTensors:
        """Return the model's tensors, in the names in which they are saved."""
        return EncoderTensors.of(files)

    @abstractmethod
    def table(self, entries: Entries) -> str | None:
        """Return the name of the token table; None where it cannot be told."""

    @abstractmethod
    def vocabulary(self, files: ModelFiles) -> Vocabulary:
        """Return the tokenizer's vocabulary as the model's loader builds it."""

    def settings(self, files: Sequence[ModelFiles]) -> list[dict[str, Any]]:
        """Return settings of each model on which vectors depend, beside tensors, tokenizer and later modules."""
        return [{} for _ in files]

    def grown_settings(self, config: dict[str, Any], n_rows: int) -> dict[str, Any]:
        """Return the content of ``config.json`` for a token table of another size."""
        return config

    def merge(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Merge; see :func:`embedrm.merging.encoders.merge_encoders`."""
        from embedrm.merging.encoders import merge_encoders

        return merge_encoders(*args, **options)

    def plan(self, method: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the method's options with its defaults, or raise on an unknown one."""
        from embedrm.merging.methods.base import make_method

        return make_method(method).check_options(options)
