"""Data sets that come with the package: found in the installed wheel, or in the checkout beside the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedrm.errors import DataError, unknown_name

if TYPE_CHECKING:
    from embedrm.datasets.preference import PreferenceDataset

_FILES = {"seed": ("seed_pairs.jsonl.gz", "seed_kwise.jsonl.gz")}
_PACKAGE = Path(__file__).resolve().parent.parent


def bundled_names() -> list[str]:
    """Return the names that :func:`load_bundled` knows, sorted."""
    return sorted(_FILES)


def _folders() -> list[Path]:
    return [_PACKAGE / "_data", _PACKAGE.parent / "data"]


def data_folder() -> Path:
    """Return the folder of the bundled data.

    Raises
    ------
    DataError
        Where the package has none, naming the places that were tried.
    """
    for folder in _folders():
        if folder.is_dir():
            return folder
    raise _missing("the folder of the bundled data")


def _missing(what: str) -> DataError:
    places = " or ".join(str(folder) for folder in _folders())
    return DataError(
        f"{what} was not found in {places}. Install the package again from its wheel or a full checkout; in a "
        "checkout, 'python -m embedrm.datasets.seed' writes the files anew."
    )


def bundled_paths(name: str = "seed") -> list[Path]:
    """Return the files of a bundled data set.

    Parameters
    ----------
    name : str
        One of :func:`bundled_names`.

    Raises
    ------
    InvalidInputError
        For an unknown name.
    DataError
        Where a file is not there, naming the places that were tried.
    """
    if name not in _FILES:
        raise unknown_name("bundled data set", name, bundled_names())
    for folder in _folders():
        paths = [folder / file for file in _FILES[name]]
        if all(path.is_file() for path in paths):
            return paths
    raise _missing(f"the bundled data set {name!r} ({', '.join(_FILES[name])})")


def load_bundled(name: str = "seed") -> PreferenceDataset:
    """Return a bundled data set.

    Parameters
    ----------
    name : str
        ``"seed"``: eight domains with about a hundred prompts each, written for this project; every label is earned by
        a check. Its card is ``data/README.md``.

    Returns
    -------
    PreferenceDataset
        With the splits, groups and golds of the files.

    Raises
    ------
    InvalidInputError
        For an unknown name.
    DataError
        Where a file is missing or damaged.
    """
    from embedrm.datasets.loading import read_preferences

    return read_preferences(list(bundled_paths(name)), name=name)
