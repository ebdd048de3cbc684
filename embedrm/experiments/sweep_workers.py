"""Bundles of trials that share their data, and what a worker does with one."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from embedrm.experiments.running import run_trial
from embedrm.experiments.sweep_claims import alive
from embedrm.experiments.sweep_trials import FAILED, OK, TrialFile
from embedrm.experiments.training_sets import Prepared

# What a worker holds from one bundle to the next, so that equal data arrive once and fitted features are found again.
_HELD: dict[str, Prepared] = {}
_HELD_LOCK = threading.Lock()
# Bundles that this process is at, one entry each; and seconds between looks whether its sweep is alive.
_AT_WORK: list[str] = []
_WATCH_SECONDS = 2.0


@dataclass(frozen=True)
class Job:
    """One trial as it is sent to a worker: plain data.

    Attributes
    ----------
    fingerprint : str
    parts : dict
        The sections that make the model.
    seed : int
    facts : dict
        What the record says beside its result.
    """

    fingerprint: str
    parts: dict[str, Any]
    seed: int
    facts: dict[str, Any]


@dataclass(frozen=True)
class Bundle:
    """Trials that share data, vectors and training pairs, and the place where their results go.

    Attributes
    ----------
    folder : str
    token : str
        Of the content of what they share.
    jobs : tuple of Job
    deadline : float or None
        ``time.time()`` after which no trial begins.
    read_from : int
        Length of the file of results when the trials were claimed: a cluster may run a bundle again whose worker died, and
        what that one finished is found from there on.
    timed_cores : bool
        Whether the core-seconds of this process are those of the trial.
    marks : str or None
        Folder in which a worker says what it is at, for the case that it is killed.
    session : str or None
        Whose worker this is, on the same machine: once that session is dead, it begins no trial more.
    last_try : bool
        One trial whose worker was killed before. If this happens again, it is recorded and not run a third time.
    """

    folder: str
    token: str
    jobs: tuple[Job, ...]
    deadline: float | None
    read_from: int = 0
    timed_cores: bool = True
    marks: str | None = None
    session: str | None = None
    last_try: bool = False


@dataclass(frozen=True)
class Shared:
    """What the trials of bundles share, sent with each bundle.

    A cluster of dask would hold data that were sent once in the memory of one worker, and lose them with it.
    """

    prepared: Prepared


class WorkerDiedError(Exception):
    """What is recorded of a trial whose process was killed twice."""

    def __init__(self) -> None:
        super().__init__(
            "the process that computed it was killed, and once more by itself: most often for want of memory"
        )


def run_bundle(bundle: Bundle, shared: Shared) -> tuple[list[str], float]:
    """Run the trials of a bundle and append each result as it comes.

    Returns
    -------
    done : list of str
        Fingerprints; those are missing that the deadline left out, or that follow one whose worker was killed.
    seconds : float
        Of the models' own fits and scores, for the accounting of overhead.
    """
    if bundle.session is not None:
        _leave_with_parent()
    _AT_WORK.append(bundle.token)
    try:
        return _run(bundle, shared)
    finally:
        _AT_WORK.remove(bundle.token)


@cache
def _leave_with_parent() -> None:
    """End a worker process once the process that began it is dead and no bundle is under way.

    A program that is killed while it sends a bundle leaves its worker reading from a pipe to which nobody writes any more:
    without this the worker would stay, with all the memory that it holds.
    """
    parent = os.getppid()
    # a process of the user's own may well outlive the one that began it
    if not multiprocessing.current_process().name.startswith("Loky"):
        return

    def watch() -> None:
        while os.getppid() == parent or _AT_WORK:
            time.sleep(_WATCH_SECONDS)
        os._exit(0)

    threading.Thread(target=watch, daemon=True, name="watch-parent").start()


def _run(bundle: Bundle, shared: Shared) -> tuple[list[str], float]:
    with _HELD_LOCK:
        if bundle.token not in _HELD:
            _HELD.clear()
            _HELD[bundle.token] = shared.prepared
        prepared = _HELD[bundle.token]
    trials = TrialFile(bundle.folder, bundle.read_from)
    marks = None if bundle.marks is None else Marks(bundle.marks)
    done, seconds = [], 0.0
    try:
        before = set(trials.read())
        done = [job.fingerprint for job in bundle.jobs if job.fingerprint in before]
        left = [job for job in bundle.jobs if job.fingerprint not in before]
        if marks is not None and marks.names() & {job.fingerprint for job in left}:
            # a worker died of this bundle, and a cluster gave it to another: that trial is tried once more by itself
            if not bundle.last_try:
                return done, seconds
            trials.append(failure(left[0], WorkerDiedError()), once=True)
            return [*done, left.pop().fingerprint], seconds
        for job in left:
            if bundle.deadline is not None and time.time() > bundle.deadline:
                break
            if bundle.session is not None and not alive(bundle.folder, bundle.session):
                break
            if marks is not None:
                marks.put(job.fingerprint)
            record = run_job(job, prepared)
            if not bundle.timed_cores:
                # other threads of this process are in the figure
                record["core_seconds"] = None
            trials.append(record, once=True)
            done.append(job.fingerprint)
            seconds += record["seconds"] + record.get("score_seconds", 0.0) - record.get("spared_seconds", 0.0)
    finally:
        if marks is not None:
            marks.clear()
        # the sweep brings the file to the disk when it ends
        trials.close(sync=False)
    return done, seconds


class Marks:
    """What each worker is at: a file each in one folder, which stays where the worker is killed."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.own = self.folder / f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
        self._descriptor: int | None = None

    def put(self, name: str) -> None:
        """Say that this worker is at a trial."""
        if self._descriptor is None:
            self._descriptor = os.open(self.own, os.O_WRONLY | os.O_CREAT, 0o666)
        # names are of one length: one takes the place of the other
        os.pwrite(self._descriptor, name.encode("ascii"), 0)

    def clear(self) -> None:
        """Say that it is at none."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self.own.unlink(missing_ok=True)

    def names(self) -> set[str]:
        """Return the trials that other workers are at, living and dead ones."""
        found = set()
        for file in self.folder.iterdir():
            if file != self.own:
                with suppress(OSError):
                    found.add(file.read_text(encoding="ascii"))
        return found

    def forget(self, name: str) -> None:
        """Remove what says that a worker was at a trial."""
        for file in self.folder.iterdir():
            with suppress(OSError):
                if file.read_text(encoding="ascii") in (name, ""):
                    file.unlink()


def run_job(job: Job, prepared: Prepared) -> dict[str, Any]:
    """Run one trial and return its record; whatever it raises is recorded, and does not stop the others."""
    began = time.perf_counter()
    try:
        facts = run_trial(job.parts, job.seed, prepared)[0]
    except Exception as error:  # any failure of a model is a result of the sweep; interrupts are not Exceptions
        return failure(job, error, time.perf_counter() - began)
    return finished(job, facts)


def finished(job: Job, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a trial that came to its end."""
    return _record(job, OK) | facts


def failure(job: Job, error: BaseException, seconds: float = 0.0) -> dict[str, Any]:
    """Return the record of a trial that failed."""
    return _record(job, FAILED) | {"error": _told(error), "seconds": seconds}


def _record(job: Job, status: str) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    own = {"fingerprint": job.fingerprint, "status": status, "seed": job.seed}
    return {**own, **job.facts, "pid": os.getpid(), "time": now}


def _told(error: BaseException) -> dict[str, str]:
    message = " ".join(str(error).split()) or "no message"
    return {"type": type(error).__name__, "message": message[:500]}
