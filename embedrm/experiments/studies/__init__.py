"""Experiment files that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def study_names() -> list[str]:
    """Return the names of the experiment files that come with the package."""
    return sorted(path.stem for path in _HERE.glob("*.yaml"))


def find_file(file: str) -> str:
    """Return the path of an experiment file: a path is itself, and the name of a shipped one is where that is.

    A file of the user's, if there is one of that name, comes first.
    """
    if not Path(file).exists() and file in study_names():
        return str(_HERE / f"{file}.yaml")
    return file
