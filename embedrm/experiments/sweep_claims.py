"""Who computes what: processes that share a folder claim trials, and claims end with the process that holds them.

Each process keeps one file ``claims/SESSION``, which it holds locked for as long as it lives and to which it writes the
fingerprints that it has taken. A claim counts while its file is locked. So a process that was killed leaves no claim
behind, no clock is compared, and nothing has to be cleaned up by hand.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from embedrm.errors import InvalidInputError
from embedrm.experiments.sweep_trials import TrialFile, locked, write_all

FOLDER = "claims"
_GATE = ".gate"


def alive(folder: str | Path, session: str) -> bool:
    """Whether the process of a session is at work still; asked by its workers, which may outlive it.

    Parameters
    ----------
    folder : path-like
        The folder of the trials.
    session : str
        :attr:`Claims.session`.
    """
    import fcntl

    try:
        descriptor = os.open(Path(folder) / FOLDER / session, os.O_RDWR)
    except OSError:
        return False
    try:
        # shared, so that workers that ask at once do not take each other for the session
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


class Claims:
    """The claims of this process in a folder; a context manager that lets go of them.

    Parameters
    ----------
    folder : path-like
        The folder of the trials.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder) / FOLDER
        host = "".join(c if c.isalnum() else "-" for c in socket.gethostname())[:40]
        self.session = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        self._own: int | None = None
        self._gate: int | None = None

    def __enter__(self) -> Claims:
        import fcntl

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._gate = os.open(self.folder / _GATE, os.O_RDWR | os.O_CREAT, 0o666)
            with locked(self._gate):
                # locked before anyone may look whether it is
                self._own = os.open(self.folder / self.session, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
                fcntl.flock(self._own, fcntl.LOCK_EX)
        except OSError as error:
            raise InvalidInputError(
                f"cannot write {self.folder}: {error.strerror or error}; choose another folder"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            with suppress(OSError):
                (self.folder / self.session).unlink()
            os.close(self._own)
        if self._gate is not None:
            os.close(self._gate)
        self._own = self._gate = None

    def take(self, wanted: Sequence[str], trials: TrialFile) -> list[str]:
        """Claim those of the wanted trials that nobody else has claimed or finished; return them.

        Parameters
        ----------
        wanted : sequence of str
            Not finished as far as the caller has read.
        trials : TrialFile
            Read again inside the lock: what another process finished, and let go of, a moment ago is in its ``news``, which
            must have begun before the caller chose what is wanted.
        """
        gate, own = self._opened()
        with locked(gate):
            others = self._others()
            trials.read()
            mine = [name for name in wanted if name not in others and name not in trials.news]
            if mine:
                write_all(own, "".join(f"{name}\n" for name in mine).encode(), self.folder / self.session)
        return mine

    def _opened(self) -> tuple[int, int]:
        if self._gate is None or self._own is None:
            raise RuntimeError("claims are taken inside 'with Claims(folder) as claims'")
        return self._gate, self._own

    def _others(self) -> set[str]:
        """Return what living processes have claimed; files of dead ones are removed."""
        import fcntl

        out: set[str] = set()
        for path in self.folder.iterdir():
            if path.name in (_GATE, self.session):
                continue
            try:
                descriptor = os.open(path, os.O_RDWR)
            except OSError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                out |= set(path.read_text(encoding="ascii").split())
            else:
                with suppress(OSError):
                    path.unlink()
            finally:
                os.close(descriptor)
        return out

    def living(self) -> list[str]:
        """Return the other sessions that are at work in this folder."""
        with locked(self._opened()[0]):
            self._others()
            return sorted(p.name for p in self.folder.iterdir() if p.name not in (_GATE, self.session))
