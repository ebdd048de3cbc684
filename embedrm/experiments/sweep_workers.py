"""Bundles of trials that share their data, run where the work is: in this process, or by joblib's backends elsewhere."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedrm.errors import InvalidInputError, MissingDependencyError, unknown_name
from embedrm.experiments.running import run_trial
from embedrm.experiments.sweep_trials import FAILED, OK, TrialFile
from embedrm.experiments.training_sets import Prepared

BACKENDS = ("loky", "threading", "dask", "ray")

# What a worker holds from one bundle to the next, so that equal data arrive once and fitted features are found again.
_HELD: dict[str, Prepared] = {}
_HELD_LOCK = threading.Lock()


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

    ``read_from`` is the length of the file of results when they were claimed: a cluster may run a bundle again whose worker
    died, and what that one finished is found from there on. ``marks`` is a folder in which
    a worker says what it is at, for the case that it is killed.
    """

    folder: str
    token: str
    prepared: Prepared
    jobs: tuple[Job, ...]
    deadline: float | None
    read_from: int = 0
    timed_cores: bool = True
    marks: str | None = None


def run_bundle(bundle: Bundle) -> tuple[list[str], float]:
    """Run the trials of a bundle and append each result as it comes.

    Returns
    -------
    done : list of str
        Fingerprints; those that the deadline left out are missing.
    seconds : float
        Of the models' own fits and scores, for the accounting of overhead.
    """
    with _HELD_LOCK:
        if bundle.token not in _HELD:
            _HELD.clear()
            _HELD[bundle.token] = bundle.prepared
        prepared = _HELD[bundle.token]
    trials = TrialFile(bundle.folder, bundle.read_from)
    mark = None if bundle.marks is None else Path(bundle.marks) / str(os.getpid())
    done, seconds = [], 0.0
    try:
        before = set(trials.read())
        for job in bundle.jobs:
            if job.fingerprint in before:
                done.append(job.fingerprint)
                continue
            if bundle.deadline is not None and time.time() > bundle.deadline:
                break
            if mark is not None:
                mark.write_text(job.fingerprint, encoding="ascii")
            record = run_job(job, prepared)
            if not bundle.timed_cores:
                # other threads of this process are in the figure
                record["core_seconds"] = None
            trials.append(record)
            done.append(job.fingerprint)
            seconds += record["seconds"] + record.get("score_seconds", 0.0) - record.get("spared_seconds", 0.0)
    finally:
        if mark is not None:
            mark.unlink(missing_ok=True)
        # the sweep brings the file to the disk when it ends
        trials.close(sync=False)
    return done, seconds


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


def run_parallel(
    bundles: Iterable[Bundle], jobs: int, backend: str = "loky", address: str | None = None
) -> Iterator[tuple[list[str], float]]:
    """Run bundles on several workers and give what each finished, as it comes.

    Parameters
    ----------
    bundles : iterable of Bundle
        Taken from as workers become free.
    jobs : int
        Workers; for ``dask`` and ``ray`` -1 means all that the cluster has.
    backend : {"loky", "threading", "dask", "ray"}
    address : str, optional
        Of the scheduler of ``dask`` or the head of ``ray``; the folder of the sweep must be the same path there.
    """
    import joblib

    with _backend(backend, jobs, address) as chosen:
        running = joblib.Parallel(
            n_jobs=jobs, return_as="generator_unordered", pre_dispatch="2*n_jobs", batch_size=1, **chosen
        )
        yield from running(joblib.delayed(run_bundle)(bundle) for bundle in bundles)


def run_apart(bundle: Bundle) -> bool:
    """Run a bundle in one process of its own; False where that process died."""
    from joblib.externals.loky import ProcessPoolExecutor

    with ProcessPoolExecutor(max_workers=1) as executor:
        try:
            executor.submit(run_bundle, bundle).result()
        except died():
            return False
    return True


def died() -> tuple[type[Exception], ...]:
    """Return the errors by which joblib tells that a worker was killed: by the system for its memory, or by hand."""
    from concurrent.futures.process import BrokenProcessPool

    return (BrokenProcessPool,)


class _backend:
    """Open what a backend needs for the time of the sweep."""

    def __init__(self, name: str, jobs: int, address: str | None) -> None:
        if name not in BACKENDS:
            raise unknown_name("backend", name, BACKENDS)
        if address is not None and name not in ("dask", "ray"):
            raise InvalidInputError(f"an address belongs to the backends dask and ray, and the backend is {name!r}")
        self.name, self.jobs, self.address = name, jobs, address
        self.client: Any = None

    def __enter__(self) -> dict[str, Any]:
        import joblib

        threads = max(1, (joblib.cpu_count() or 1) // max(1, self.jobs)) if self.jobs > 0 else 1
        if self.name == "loky":
            self.config = joblib.parallel_config(backend="loky", inner_max_num_threads=threads)
        elif self.name == "threading":
            self.config = joblib.parallel_config(backend="threading")
        elif self.name == "dask":
            self.config = joblib.parallel_config(backend="dask", **self._dask())
        else:
            self.config = joblib.parallel_config(backend=self._ray())
        self.config.__enter__()
        return {}

    def _dask(self) -> dict[str, Any]:
        try:
            from distributed import Client
        except ImportError:
            raise MissingDependencyError("distributed", "the backend dask", "dask") from None
        self.client = (
            Client(self.address) if self.address else Client(n_workers=max(1, self.jobs), threads_per_worker=1)
        )
        return {}

    def _ray(self) -> str:
        try:
            import ray
            from ray.util.joblib import register_ray
        except ImportError:
            raise MissingDependencyError("ray", "the backend ray", "ray") from None
        if not ray.is_initialized():
            ray.init(address=self.address)
        register_ray()
        return "ray"

    def __exit__(self, *error: Any) -> None:
        self.config.__exit__(*error)
        if self.client is not None:
            self.client.close()
