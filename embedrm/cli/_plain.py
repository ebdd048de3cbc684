"""Plain text for a command: files of one text a line, bundled texts, or the texts of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedrm.cli._common import Console, plural
from embedrm.cli._data import ALL, Reading, load, take_split
from embedrm.errors import DataError, InvalidInputError, unknown_name

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset

BUNDLED = "texts"


@dataclass(frozen=True)
class Material:
    """What an encoder is tuned on.

    Attributes
    ----------
    data : PreferenceDataset or list of str
    groups : list of str or None
        Of plain texts: what may not be divided; None where each text stands alone.
    """

    data: PreferenceDataset | list[str]
    groups: list[str] | None = None


def is_text_file(path: str) -> bool:
    """Whether a path is read as one text a line, by its suffix; it may be packed."""
    return path.lower().removesuffix(".gz").endswith(".txt")


def read_material(
    paths: Sequence[str] | None, split: str | None, reading: Reading, labelled: bool, console: Console
) -> Material:
    """Return preference data for a labelled objective, and texts or preference data for the others.

    Raises
    ------
    InvalidInputError
        Plain text for a labelled objective, plain text beside other files, or a split of text that has none.
    DataError
        A file that cannot be read, with its path and line.
    """
    plain = [path for path in paths or () if is_text_file(path) or (path == BUNDLED and not Path(path).exists())]
    if not plain:
        data = take_split(load(paths, reading, console), split, "train", console)
        return Material(data) if labelled or data.n_pairs else _unpaired(data)
    if labelled:
        raise InvalidInputError(
            f"{plain[0]} is plain text, which has no pairs and no domains; give preference data, or "
            "--objective masked-token or contrastive"
        )
    if len(plain) < len(paths or ()):
        other = next(path for path in paths or () if path not in plain)
        raise InvalidInputError(f"give plain text or preference data, not both; got {plain[0]} and {other}")
    if reading != Reading():
        raise InvalidInputError("--form, --column, --on-error, --ties and --allow-group-leak are for preference data")
    if BUNDLED in plain:
        if len(plain) > 1:
            raise InvalidInputError(f"{BUNDLED!r} is bundled text and is read alone; got {len(plain)} names")
        return _bundled(split, console)
    if split is not None:
        raise InvalidInputError(f"{plain[0]} is plain text, which has no splits; leave --split out")
    texts: list[str] = []
    for path in plain:
        found, blank = text_lines(path)
        texts += found
        console.note(f"reading: {plural(len(found), 'text')} in {path}" + (f", {blank:,} blank" if blank else ""))
    return Material(texts)


def text_lines(path: str) -> tuple[list[str], int]:
    """Return (texts, number of blank lines) of a file with one text a line."""
    from embedrm.datasets.readers import Row, TextSource, decode
    from embedrm.datasets.validate import RowError

    class TextLines(TextSource):
        def rows(self, wanted: Sequence[str] | None = None) -> Iterator[Row]:
            for number, raw in self.lines():
                try:
                    text = decode(raw).strip()
                except RowError as error:
                    yield number, error
                    continue
                if text:
                    yield number, {"text": text}
                else:
                    self.blank += 1

    source = TextLines(path)
    texts: list[str] = []
    for number, row in source.rows():
        if isinstance(row, RowError):
            raise DataError(f"{row}.", path, number)
        texts.append(row["text"])
    if not texts:
        raise DataError("the file holds no text; put one text on each line.", path)
    return texts, source.blank


def _bundled(split: str | None, console: Console) -> Material:
    from embedrm.datasets.bundled import load_bundled_table

    table = load_bundled_table(BUNDLED)
    wanted = split or "train"
    known = sorted(set(table["split"]))
    if wanted != ALL:
        if wanted not in known:
            raise unknown_name("split of the bundled texts", wanted, (*known, ALL))
        table = table[table["split"] == wanted]
    console.note(f"reading: {len(table):,} bundled texts of the split {wanted!r}")
    return Material(table["text"].tolist(), table["group"].tolist())


def _unpaired(data: PreferenceDataset) -> Material:
    """Return all responses of data without pairs, under the groups of their prompts; those without one stand alone."""
    group = data.prompts["group"].tolist()
    return Material(data.response_texts(), [group[p] for p in data.responses["prompt_of"].tolist()])
