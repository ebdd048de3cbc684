"""What a merged folder has beside its weights, taken from the first model, and how tensors of a model are looked at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.encoders.files import STATIC, sha256_of
from embedrm.errors import InvalidInputError
from embedrm.merging.encoder_inputs import RECORD, MergeInput
from embedrm.merging.rotation import rotated
from embedrm.merging.safetensor_files import REAL_TYPES, Array, SafetensorFiles
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
    """Some tensors of a model, in a common type (or their own), read when asked for."""

    def __init__(
        self, tensors: Mapping[str, Array], names: Sequence[str], types: Mapping[str, Any] | None = None
    ) -> None:
        self.tensors, self.names, self.types = tensors, list(names), types

    def __getitem__(self, name: str) -> Array:
        found = self.tensors[name]
        return found if self.types is None else found.astype(self.types[name], copy=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class Moments(Mapping[str, Array]):
    """Moments of one model from a file: arrays of the shapes of its tensors, none negative."""

    def __init__(self, path: Path, model: MergeInput, who: str) -> None:
        self.path, self._files = path, SafetensorFiles([path])
        stated = self._files.metadata.get("model")
        if stated is not None and stated != model.digest:
            raise InvalidInputError(
                f"{who}: the moments in {path} are those of another model than {model.name}; give one file for each model, "
                "in the order of the models"
            )

    def check(self, model: MergeInput, names: Sequence[str], who: str) -> None:
        """Raise unless there are moments of all these tensors, of their shapes."""
        entries = model.tensors.entries
        lacking = [name for name in names if name not in self._files]
        if lacking:
            raise InvalidInputError(
                f"{who}: {self.path} has no moments of {lacking[0]!r}"
                + (f" and {len(lacking) - 1} more tensors" if len(lacking) > 1 else "")
                + f" of {model.name}; write the moments of this very model"
            )
        for name in names:
            found = self._files.entries[name][1]
            if found != entries[name][1]:
                raise InvalidInputError(
                    f"{who}: moments of {name!r} in {self.path} have shape {list(found)}, and the tensor of {model.name} "
                    f"{list(entries[name][1])}; write the moments of this very model"
                )

    def facts(self) -> dict[str, str]:
        """Name of the file, and the digest of its content."""
        return {"file": self.path.name, "digest": sha256_of(self.path)}

    def __getitem__(self, name: str) -> Array:
        return self._files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def open_moments(
    paths: Sequence[str | Path], inputs: Sequence[MergeInput], names: Sequence[str], rotation: str, who: str
) -> list[Moments]:
    """Open a file of moments for each model, and check it against the tensors that are to be merged."""
    if isinstance(paths, (str, Path)) or len(paths) != len(inputs):
        n = 1 if isinstance(paths, (str, Path)) else len(paths)
        raise InvalidInputError(
            f"{who} needs moments as a list of {len(inputs)} files, one for each model in their order; got {n}"
        )
    if rotation != "none":
        raise InvalidInputError(
            f"{who} cannot rotate moments, which belong to the axes as they are; leave rotation out"
        )
    found = [Moments(Path(path).expanduser(), one, who) for path, one in zip(paths, inputs)]
    for moments, one in zip(found, inputs):
        moments.check(one, [n for n in names if one.tensors.entries[n][0] in REAL_TYPES], who)
    return found


def mean_moment(moments: Sequence[Moments]) -> float:
    """Return the mean over all entries of several models' moments."""
    total, n = 0.0, 0
    for one in moments:
        for array in one.values():
            total += float(array.sum(dtype=np.float64))
            n += array.size
    # numbers that are not finite are told by name later
    if total == 0:
        raise InvalidInputError(
            f"the moments in {', '.join(str(one.path) for one in moments)} are all zero: no pair says anything of any "
            "weight; take other pairs, or another method"
        )
    return total / n if np.isfinite(total) and total > 0 else 1.0


class Rotated(Mapping[str, Array]):
    """A model's tensors with its token table rotated."""

    def __init__(self, tensors: Mapping[str, Array], table: str, rotation: NDArray[np.float64]) -> None:
        self.tensors, self.table, self.rotation = tensors, table, rotation
        self._rotated: Array | None = None

    def __getitem__(self, name: str) -> Array:
        if name != self.table:
            return self.tensors[name]
        if self._rotated is None:
            self._rotated = rotated(self.tensors[name], self.rotation)
        return self._rotated

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
    if files.kind == STATIC and not (files.folder / "modules.json").is_file():
        # model2vec's files of old list no modules, without which sentence-transformers takes a folder for a transformer
        kinds = [module.kind for module in files.modules]
        entries = [
            {
                "idx": i,
                "name": str(i),
                "path": f"{i}_{kind}" if i else "",
                "type": f"sentence_transformers.models.{kind}",
            }
            for i, kind in enumerate(kinds)
        ]
        write_json(folder, "modules.json", entries)


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
