"""Texts with an attribute, cut into what guides, what judges and what is continued; no text is in two of these."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import DataError, InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

NEUTRAL = 0.5
ENDS = {"sentiment": "positive", "politeness": "polite", "positive_sentiment": "positive", "no toxicity": "not toxic"}
"""A word for texts of score one."""
AVOIDED = ("toxicity",)
"""Attributes to steer away from: their scores are turned round when they are read."""
PARTS = ("train", "validation", "test", "judge", "judge-test")
_SPLITS = ("train", "validation", "test")
# Shares of texts by the hash of their group, where a file names no validation split (of training) or no split at all.
_VALIDATION, _TEST = 0.1, 0.2


@dataclass(frozen=True)
class Part:
    """Some texts.

    Attributes
    ----------
    texts : list of str
    scores : ndarray of shape (n,), float64
        In [0, 1].
    groups : ndarray of shape (n,), str
    """

    texts: list[str]
    scores: Array
    groups: NDArray[Any]

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.texts)

    @property
    def decided(self) -> NDArray[np.bool_]:
        """Texts that are at one end or the other, not in the middle."""
        return np.asarray(self.scores != NEUTRAL)

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Texts on the upper side."""
        return np.asarray(self.scores > NEUTRAL)

    def first(self, n: int) -> Part:
        """The first n texts."""
        return Part(self.texts[:n], self.scores[:n], self.groups[:n])


@dataclass(frozen=True)
class AttributeTexts:
    """A corpus with one attribute, by what its texts are for.

    Attributes
    ----------
    name : str
    attribute : str
    parts : dict of str to Part
        ``train``, ``validation`` and ``test`` of half A, for what guides; ``judge`` and ``judge-test`` of half B, for what
        judges.
    notes : list of str
        What is worth telling of how they were read.
    """

    name: str
    attribute: str
    parts: dict[str, Part]
    notes: list[str] = field(default_factory=list)

    def __getitem__(self, part: str) -> Part:
        """Return one part."""
        return self.parts[part]

    @property
    def end(self) -> str:
        """Word for texts of score one."""
        return ENDS.get(self.attribute, f"high in {self.attribute}")

    def sentence(self) -> str:
        """Say how many texts there are and what they are for."""
        n = {name: len(part) for name, part in self.parts.items()}
        return (
            f"Texts: {self.name}, attribute {self.attribute}; {n['train']:,} train the heads, {n['validation']:,} choose "
            f"their settings, {n['test']:,} test them and lend beginnings to continue; the judge of the attribute learns "
            f"from {n['judge']:,} others and is tested on {n['judge-test']:,}."
        )

    def prompts(self, n: int, words: int = 3, random_state: int = 0) -> list[str]:
        """Return up to n different beginnings of test texts, neutral texts where there are some.

        Parameters
        ----------
        n, words : int
        random_state : int

        Raises
        ------
        InvalidInputError
            Fewer than two.
        """
        part = self["test"]
        neutral = ~part.decided
        rows = np.flatnonzero(neutral) if neutral.sum() >= 2 else np.arange(len(part))
        order = np.random.default_rng(random_state).permutation(rows)
        found: dict[str, None] = {}
        for row in order:
            split = part.texts[row].split()
            if len(split) > words + 2:
                found.setdefault(" ".join(split[:words]))
            if len(found) == n:
                break
        if len(found) < 2:
            raise InvalidInputError(
                f"the test texts of {self.name} give {len(found)} beginnings of {words} words to continue, and two are "
                "needed; give more texts with the split 'test'"
            )
        return list(found)

    def neutral_prompts(self) -> bool:
        """Whether beginnings come from neutral texts."""
        return int((~self["test"].decided).sum()) >= 2

    def fingerprint(self) -> str:
        """Return 32 hex digits that name all texts and scores by part."""
        digest = hashlib.blake2b(digest_size=16)
        for name in PARTS:
            part = self.parts[name]
            digest.update(json.dumps([name, part.texts, part.scores.tolist()]).encode("ascii"))
        return digest.hexdigest()


def bundled_texts(sizes: Mapping[str, int], attribute: str = "sentiment", random_state: int = 0) -> AttributeTexts:
    """Write the bundled corpus of an attribute.

    Parameters
    ----------
    sizes : mapping of part to int
        Texts of each part.
    attribute : str
    random_state : int
    """
    from embedrm.datasets.attribute_texts import write_attribute_texts

    where = {
        "train": ("A", "train"),
        "validation": ("A", "validation"),
        "test": ("A", "test"),
        "judge": ("B", "train"),
        "judge-test": ("B", "test"),
    }
    parts = {}
    for name, (half, split) in where.items():
        table = write_attribute_texts(
            sizes[name], half=half, split=split, attributes=(attribute,), random_state=random_state
        )
        parts[name] = _part(table, sizes[name], random_state)
    return AttributeTexts("bundled attribute texts", attribute, parts)


def read_attribute_texts(paths: str | Path | Sequence[str | Path], sizes: Mapping[str, int]) -> AttributeTexts:
    """Read files of texts with an attribute.

    Parameters
    ----------
    paths : path or list of paths
        JSON lines, CSV or Parquet, perhaps compressed, with the columns ``text`` and ``label`` (0 or 1) or ``score`` (in
        [0, 1]); optional ``split`` (train, validation, test), ``group`` (texts of one origin) and ``attribute``.
    sizes : mapping of part to int
        The most texts of each part; texts are drawn from those there are.

    Raises
    ------
    DataError
        A file or row that cannot be read, more than one attribute, or a part without texts of both ends.
    """
    import pandas as pd

    from embedrm.datasets.readers import open_source
    from embedrm.datasets.validate import RowError
    from embedrm.language_models.corpus import half_of

    rows: list[dict[str, Any]] = []
    many = [paths] if isinstance(paths, (str, Path)) else list(paths)
    for path in many:
        for line, row in open_source(path).rows():
            if isinstance(row, RowError):
                raise DataError(f"{path}, line {line}: {row}")
            rows.append(_row(row, f"{path}, line {line}"))
    table = pd.DataFrame(rows)
    attributes = sorted(set(table["attribute"])) if len(table) else []
    if len(attributes) != 1:
        raise DataError(
            f"{', '.join(map(str, many))}: expected texts of one attribute, got {len(attributes)} "
            f"({', '.join(attributes) or 'no rows'}); give the files of one attribute"
        )
    before = len(table)
    table = table.drop_duplicates("text").reset_index(drop=True)
    table["half"] = half_of(table["group"])
    notes = [f"{before - len(table):,} texts that were there twice were read once."] if before > len(table) else []
    attribute = attributes[0]
    if attribute in AVOIDED:
        table["score"], attribute = 1.0 - table["score"], f"no {attribute}"
        notes.append(f"The scores of {attributes[0]} were turned round, so that guidance is away from it.")
    splits, told = _splits(table)
    where = {
        "train": ("A", ("train",)),
        "validation": ("A", ("validation",)),
        "test": ("A", ("test",)),
        "judge": ("B", ("train", "validation")),
        "judge-test": ("B", ("test",)),
    }
    parts = {}
    for name, (half, names) in where.items():
        chosen = table[(table["half"] == half).to_numpy() & np.isin(splits, names)]
        parts[name] = _part(chosen, sizes[name], 0)
        if len(set(parts[name].positive[parts[name].decided])) < 2:
            raise DataError(
                f"{', '.join(map(str, many))}: the part {name!r} ({len(chosen)} texts of half {half}, split "
                f"{' or '.join(names)}) needs texts of both ends; give more texts"
            )
    name = ", ".join(Path(path).name for path in many)
    return AttributeTexts(name, attribute, parts, [*notes, *told])


def _row(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: expected a column 'text' with text in it, got {type(text).__name__}")
    given = row.get("score") if row.get("score") is not None else row.get("label")
    try:
        score = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        score = np.nan
    if not 0.0 <= score <= 1.0:
        raise DataError(f"{where}: expected a column 'score' or 'label' from 0 to 1, got {given!r}")
    split = str(row.get("split") or "")
    return {
        "text": text.strip(),
        "score": score,
        "split": {"dev": "validation", "valid": "validation"}.get(split, split),
        "group": str(row.get("group") or text.strip()),
        "attribute": str(row.get("attribute") or "attribute"),
    }


def _splits(table: pd.DataFrame) -> tuple[NDArray[Any], list[str]]:
    """The split of each text: its own, or by the hash of its group where there is none."""
    split = table["split"].to_numpy(dtype=object).copy()
    digests = [hashlib.blake2b(f"split{group}".encode(), digest_size=8).digest() for group in table["group"]]
    share = np.array([int.from_bytes(digest, "big") / 2.0**64 for digest in digests])
    unknown = sorted(set(split) - {*_SPLITS, ""})
    if unknown:
        raise DataError(f"expected the splits train, validation and test, or none; got {', '.join(unknown)}")
    notes = []
    bare = split == ""
    if bare.any():
        split[bare] = np.where(share[bare] < _TEST, "test", "train")
        notes.append(f"{int(bare.sum()):,} texts without a split were given one by the hash of their group.")
    if not (split == "validation").any():
        drawn = (split == "train") & (share >= 1.0 - _VALIDATION)
        split[drawn] = "validation"
        notes.append(
            f"Validation: {int(drawn.sum()):,} training texts, by the hash of their group; the files have none."
        )
    return split, notes


def _part(table: pd.DataFrame, n: int, random_state: int) -> Part:
    rows = np.arange(len(table))
    if len(table) > n:
        rows = np.sort(np.random.default_rng(random_state).permutation(len(table))[:n])
    chosen = table.iloc[rows]
    return Part(
        [str(text) for text in chosen["text"]],
        chosen["score"].to_numpy(dtype=np.float64),
        chosen["group"].astype(str).to_numpy(),
    )
