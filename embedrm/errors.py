"""Every error a user can cause, with one grammar: what was expected, what came, where, what to do.

All of them derive from :class:`EmbedRMError`, which the command line turns into one line and exit code 2. Messages
name shapes, counts and paths; they never print an array.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class EmbedRMError(Exception):
    """Base of every error that a user's input or environment can cause."""


class InvalidInputError(EmbedRMError, ValueError):
    """An argument, array or configuration is not what the caller must supply."""


class DataError(EmbedRMError, ValueError):
    """A data file or one of its rows cannot be used.

    Parameters
    ----------
    message : str
        What was expected, what came, and what to do.
    path : path-like, optional
        The file.
    line : int, optional
        The line (or row) in the file, counted from 1.
    """

    def __init__(self, message: str, path: str | Path | None = None, line: int | None = None) -> None:
        self.message = message
        self.path = None if path is None else str(path)
        self.line = line
        place = "" if path is None else f"{path}:{line}: " if line is not None else f"{path}: "
        super().__init__(place + message)


class StoreError(EmbedRMError, RuntimeError):
    """The embedding store on disk is damaged, full, or not a store."""


class ModelError(EmbedRMError, RuntimeError):
    """An encoder's model or a saved reward model cannot be found, or is not the one it claims to be."""


class MissingDependencyError(EmbedRMError, ImportError):
    """An optional package is needed; the message gives the exact install line.

    Parameters
    ----------
    package : str
        The missing import name.
    purpose : str
        What needs it, as the subject of a sentence ("FastEncoder").
    extra : str
        The extra of embedrm that installs it.
    """

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        self.package, self.purpose, self.extra = package, purpose, extra
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'embedrm[{extra}]'"
        )


def unknown_name(kind: str, name: object, known: Iterable[str]) -> InvalidInputError:
    """Build the one error for an unknown name, with the nearest known ones.

    Parameters
    ----------
    kind : str
        What the name should have been ("head", "layer", "column").
    name : object
        What came.
    known : iterable of str
        The names that would have been accepted, in the order to show them.
    """
    names = [str(k) for k in known]
    close = get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return InvalidInputError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}.")
