"""What a merged folder has beside its weights, taken from the first model, and how tensors of a model are looked at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.merging.encoder_inputs import RECORD, MergeInput
from embedrm.merging.rotation import rotated
from embedrm.merging.safetensor_files import Array
from embedrm.store.files import write_json
from embedrm.tuning.saving import FACTS, HEAD

_COPIED = ("*.json", "*.txt", "*.model", "*.bpe", "*.tiktoken", "*.jinja")
_NOT_COPIED = (
    FACTS,
    RECORD,
    "base.json",
    "data_config.json",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)


class View(Mapping[str, Array]):
    """Some tensors of a model, in a common type, read when asked for."""

    def __init__(self, tensors: Mapping[str, Array], names: Sequence[str], types: Mapping[str, Any]) -> None:
        self.tensors, self.names, self.types = tensors, list(names), types

    def __getitem__(self, name: str) -> Array:
        return self.tensors[name].astype(self.types[name], copy=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class Rotated(Mapping[str, Array]):
    """A model's tensors with its token table rotated."""

    def __init__(self, tensors: Mapping[str, Array], table: str, rotation: NDArray[np.float64]) -> None:
        self.tensors, self.table, self.rotation = tensors, table, rotation

    def __getitem__(self, name: str) -> Array:
        found = self.tensors[name]
        return rotated(found, self.rotation) if name == self.table else found

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def copy_small_files(first: MergeInput, folder: Path) -> None:
    """Copy settings, tokenizer and modules of the first model: everything that loading reads but the weights."""
    files = first.files
    places = dict.fromkeys([files.folder, *(files.folder / module.path for module in files.modules)])
    for place in places:
        if not place.is_dir():
            continue
        target = folder / place.relative_to(files.folder)
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted({p for pattern in _COPIED for p in place.glob(pattern)}):
            if path.is_file() and path.name not in _NOT_COPIED:
                shutil.copyfile(path, target / path.name)


def keep_head(first: MergeInput, folder: Path, record: dict[str, Any]) -> None:
    """Keep the first model's reward head, and the facts that go with it, which name the merge."""
    if first.tuned is None:
        return
    if (first.files.folder / HEAD).is_file():
        shutil.copyfile(first.files.folder / HEAD, folder / HEAD)
    facts = {**first.tuned, "merge": record}
    facts.pop("base_digest", None)
    if record["base_digest"] is not None:
        facts["base_digest"] = record["base_digest"]
    write_json(folder, FACTS, facts)
