"""Experiment files that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from embedrm.errors import unknown_name

_HERE = Path(__file__).parent
EXAMPLE = "example"


def study_names() -> list[str]:
    """Return the names of the experiment files that come with the package."""
    return sorted(path.stem for path in _HERE.glob("*.yaml"))


def example_text() -> str:
    """Return the file that names every key, with its comments."""
    return (_HERE / f"{EXAMPLE}.yaml").read_text(encoding="utf-8")


def find_file(file: str) -> str:
    """Return the path of an experiment file: a path is itself, and the name of a shipped one is where that is.

    A file of the user's, if there is one of that name, comes first. A word that can be neither raises with the nearest name.
    """
    if Path(file).exists() or Path(file).suffix or "/" in file:
        return file
    names = study_names()
    if file not in names:
        raise unknown_name("experiment (and no such file)", file, names)
    return str(_HERE / f"{file}.yaml")
