"""Where bundles of trials run: processes or threads of this machine, or a cluster of dask or ray, by joblib's backends."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from embedrm.errors import InvalidInputError, MissingDependencyError, unknown_name
from embedrm.experiments.sweep_workers import Bundle, Shared, run_bundle

BACKENDS = ("loky", "threading", "dask", "ray")
# Seconds that a cluster is given to answer.
_ANSWER = 30

Task = tuple[Bundle, Shared]


def run_apart(task: Task) -> bool:
    """Run a bundle in one process of its own; False where that process died."""
    from joblib.externals.loky import ProcessPoolExecutor

    with ProcessPoolExecutor(max_workers=1) as executor:
        try:
            executor.submit(run_bundle, *task).result()
        except died():
            return False
    return True


def died() -> tuple[type[Exception], ...]:
    """Return the errors by which joblib tells that a worker was killed: by the system for its memory, or by hand."""
    from concurrent.futures.process import BrokenProcessPool

    return (BrokenProcessPool,)


def sees(folder: str, session: str) -> bool:
    """Whether this process, a worker of a cluster, sees the folder in which a sweep is at work."""
    return (Path(folder) / session).exists()


class Backend:
    """What runs bundles; a context manager that closes what was opened when the first one was to be run.

    Parameters
    ----------
    name : {"loky", "threading", "dask", "ray"}
    jobs : int
        Workers; -1 means every core of this machine, or all that the cluster has.
    address : str, optional
        Of the scheduler of ``dask`` or the head of ``ray``; the folder of the sweep must be the same path there.
    """

    def __init__(self, name: str, jobs: int, address: str | None = None) -> None:
        if name not in BACKENDS:
            raise unknown_name("backend", name, BACKENDS)
        if address is not None and name not in ("dask", "ray"):
            raise InvalidInputError(f"an address belongs to the backends dask and ray, and the backend is {name!r}")
        if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs == 0 or jobs < -1:
            raise InvalidInputError(f"jobs must be a whole number from 1, or -1 for every core, got {jobs!r}")
        self.name, self.jobs, self.address = name, jobs, address
        self.client: Any = None
        self.cluster: Any = None
        self.ready = False

    @property
    def alone(self) -> bool:
        """Whether trials run in this very process, one after another."""
        return self.jobs == 1 and self.name == "loky"

    @property
    def processes(self) -> bool:
        """Whether a worker that is killed leaves this process alive."""
        return not self.alone and self.name != "threading"

    def __enter__(self) -> Backend:
        return self

    def _open(self) -> None:
        if not self.ready and self.name in ("dask", "ray"):
            (self._open_dask if self.name == "dask" else self._open_ray)()
        self.ready = True

    def __exit__(self, *error: object) -> None:
        if self.client is not None:
            self.client.close()
        if self.cluster is not None:
            self.cluster.close()
        self.client = self.cluster = None
        self.ready = False

    def run(self, tasks: Iterator[Task]) -> Iterator[tuple[list[str], float]]:
        """Run bundles, taken as workers become free, and give what each finished, as it comes."""
        if self.alone:
            yield from (run_bundle(*task) for task in tasks)
            return
        import joblib

        self._open()
        if self.name == "dask" and sum(self.client.ncores().values()) < 2:
            yield from map(self._submit, tasks)
            return
        options: dict[str, Any] = {"n_jobs": self.jobs, "batch_size": 1}
        with joblib.parallel_config(backend=self.name, **self._options()):
            if self.name == "ray":
                # joblib's backend for it gives all results at once
                while some := list(islice(tasks, 2 * self.n_workers())):
                    yield from joblib.Parallel(**options)(joblib.delayed(run_bundle)(*task) for task in some)
                return
            options |= {"return_as": "generator_unordered", "pre_dispatch": "2*n_jobs"}
            yield from joblib.Parallel(**options)(joblib.delayed(run_bundle)(*task) for task in tasks)

    def n_workers(self) -> int:
        """Return how many bundles run at once, as far as it is known here."""
        import joblib

        if self.jobs > 0:
            return self.jobs
        if self.name == "ray":
            import ray

            return max(1, int(ray.cluster_resources().get("CPU", 1)))
        return int(joblib.cpu_count())

    def alone_with(self, task: Task) -> list[tuple[list[str], float]]:
        """Run one bundle while nothing else runs, and never in this process where there are others."""
        if self.name == "dask":
            return [self._submit(task)]
        return list(self.run(iter([task]))) if self.processes else [run_bundle(*task)]

    def _submit(self, task: Task) -> tuple[list[str], float]:
        """Run one bundle on the cluster: joblib runs what has one core to run on in the calling process."""
        done: tuple[list[str], float] = self.client.submit(run_bundle, *task, pure=False).result()
        return done

    def _options(self) -> dict[str, Any]:
        import joblib

        if self.name != "loky":
            return {"client": self.client} if self.name == "dask" else {}
        threads = max(1, (joblib.cpu_count() or 1) // self.jobs) if self.jobs > 0 else 1
        return {"inner_max_num_threads": threads}

    def _open_dask(self) -> None:
        try:
            from distributed import Client, LocalCluster
        except ImportError:
            raise MissingDependencyError("distributed", "the backend dask", "dask") from None
        import joblib

        try:
            if self.address is not None:
                self.client = Client(self.address, timeout=_ANSWER)
            else:
                workers = self.jobs if self.jobs > 0 else joblib.cpu_count()
                options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
                self.cluster = LocalCluster(**options)
                self.client = Client(self.cluster)
        except OSError as error:
            raise InvalidInputError(
                f"no scheduler of dask answers at {self.address}: {' '.join(str(error).split())}; start one with "
                "'dask scheduler', or leave out the address for workers on this machine"
            ) from None

    def check(self, folder: str, session: str) -> None:
        """Refuse a cluster whose workers cannot see the folder, or cannot import this package, before anything is sent."""
        self._open()
        if self.name != "dask":
            return
        try:
            self.client.wait_for_workers(1, timeout=_ANSWER)
            answers = self.client.run(sees, folder, session)
        except TimeoutError:
            raise InvalidInputError(
                f"the cluster at {self.address} has no workers; start some with 'dask worker {self.address}'"
            ) from None
        except Exception as error:  # whatever a worker of another installation raises is its answer
            raise InvalidInputError(
                f"a worker of the cluster cannot run embedrm: {' '.join(str(error).split())[:200]}; install the same "
                "version there"
            ) from None
        blind = sorted(worker for worker, answer in answers.items() if not answer)
        if blind:
            raise InvalidInputError(
                f"{len(blind)} of {len(answers)} workers, {blind[0]} first, do not see {folder}; results are shared by "
                "path: name a folder that is the same on every machine"
            )

    def _open_ray(self) -> None:
        try:
            import ray
            from ray.util.joblib import register_ray
        except ImportError:
            raise MissingDependencyError("ray", "the backend ray", "ray") from None
        if not ray.is_initialized():
            options: dict[str, Any] = {"address": self.address} if self.address else {}
            if not self.address and self.jobs > 0:
                options["num_cpus"] = self.jobs
            # left running for the next sweep of this process, and ended with it
            ray.init(log_to_driver=False, **options)
        register_ray()
