"""The unfinished trials of one sweep: claimed in bundles, sent to workers, and seen to their end."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from embedrm.errors import InvalidInputError
from embedrm.experiments.experiment_run import record_facts
from embedrm.experiments.running import Workbench
from embedrm.experiments.sweep_backends import Backend, Task, died, run_apart
from embedrm.experiments.sweep_claims import Claims
from embedrm.experiments.sweep_trials import TrialFile
from embedrm.experiments.sweep_workers import Bundle, Job, Marks, Shared, WorkerDiedError, failure
from embedrm.progress import Progress

if TYPE_CHECKING:
    from embedrm.experiments.sweep import Outcome, Sweep, Trial

# Seconds between looks at what other sweeps of the folder are doing.
PATIENCE = 0.3
# A bundle is as many trials as take about so many seconds, and no more than so many: what one costs to send is then
# little, and progress is seen. A cluster is sent the data with each.
_BUNDLE, _BUNDLE_OF_A_CLUSTER = (1.0, 32), (5.0, 256)
# Deaths of workers in a row in which no trial had begun.
_MOST_DEATHS = 3
MARKS = "running"


class Work:
    """The unfinished trials of one call of :meth:`Sweep.run`.

    Workers are sent bundles by threads of joblib's, so that what is kept here is read and changed by several: ``left``
    shrinks and ``trials.news`` grows, and nothing depends on which thread saw a result first.

    Parameters
    ----------
    sweep : Sweep
    root : Path
        The folder of results.
    bench : Workbench
    trials : TrialFile
        Read up to now.
    wanted : list of str
        Fingerprints to compute.
    outcome : Outcome
        Its counts are kept.
    limit : float or None
        ``time.time()`` after which no trial begins.
    """

    def __init__(
        self,
        sweep: Sweep,
        root: Path,
        bench: Workbench,
        trials: TrialFile,
        wanted: list[str],
        outcome: Outcome,
        limit: float | None,
    ) -> None:
        # workers of a cluster begin elsewhere
        self.root = root.absolute()
        self.sweep, self.bench, self.trials, self.outcome = sweep, bench, trials, outcome
        self.limit, self.wanted, self.left, self.sent = limit, wanted, set(wanted), set[str]()
        self.trial_of: dict[str, Trial] = {}
        for trial in outcome.trials:
            self.trial_of.setdefault(trial.fingerprint, trial)
        self.suspects: dict[str, None] = {}
        self._counting = threading.Lock()
        self._shared: dict[int, Shared] = {}
        self._refused: dict[str, Exception] = {}
        self._trouble: BaseException | None = None
        trials.begin()

    def run(self, backend: Backend, progress: Progress) -> None:
        """Compute until nothing is left, the time is over, or all that is left is in the hands of other processes."""
        import joblib

        # vectors have a progress of their own, and are no part of the pace of trials
        with suppress(Exception):
            self._prepared(self.trial_of[self.wanted[0]])
        step = progress("sweep (trials)")
        total = self.outcome.distinct
        workers = joblib.cpu_count() if backend.jobs == -1 else backend.jobs
        # in the last rounds every worker should have something to do
        self.fair = max(1, len(self.left) // (4 * max(1, workers)))
        self.backend = backend
        with Claims(self.root) as claims:
            self.claims, self.session = claims, claims.session
            backend.check(str(claims.folder), claims.session)
            self.marks = Marks(self.root / MARKS / claims.session)
            self.marks.folder.mkdir(parents=True, exist_ok=True)
            remains = self._remains()
            deaths = 0
            try:
                while True:
                    before = len(self.left), len(self.suspects)
                    died_now = self._round(lambda: step(total - len(self.left), total))
                    self._look()
                    # what begins with a bundle that found its worker's predecessor dead is sent again, too
                    self.sent -= self.left
                    if died_now and before == (len(self.left), len(self.suspects)):
                        deaths += 1
                        if deaths == _MOST_DEATHS:
                            raise InvalidInputError(
                                f"workers were killed {deaths} times before they began a trial, most often for want of "
                                "memory; run again with fewer --jobs: what is finished is kept"
                            )
                    if not died_now:
                        self._try_suspects()
                    if not self.left or self._late():
                        break
                    if not died_now:
                        # what is left is in the hands of other processes: it is theirs unless they die
                        time.sleep(PATIENCE)
                for folder in () if self.suspects else remains:
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                shutil.rmtree(self.marks.folder, ignore_errors=True)

    def _round(self, step: Callable[[], None]) -> bool:
        """Send everything that can be claimed; return whether a worker was killed."""
        tasks = self._tasks()
        # nothing is started for nothing
        first = next(tasks, None)
        if first is not None:
            try:
                for done, seconds in self.backend.run(chain([first], tasks)):
                    self._count(len(done), seconds)
                    self._look()
                    step()
            except died():
                self._look()
                self._suspect(self.marks.names())
                return True
        self._suspect(self.marks.names())
        if self._trouble is not None:
            raise self._trouble
        return False

    def _remains(self) -> list[Path]:
        """Return what sessions left that were killed; what they were at is tried last, for it may have been the cause."""
        living = {*self.claims.living(), self.session}
        folders = [path for path in (self.root / MARKS).iterdir() if path.name not in living]
        for folder in folders:
            with suppress(OSError):
                self._suspect(Marks(folder).names())
        return folders

    def _suspect(self, names: set[str]) -> None:
        self.suspects |= dict.fromkeys(name for name in self.wanted if name in names and name in self.left)

    def _try_suspects(self) -> None:
        """Run each trial by itself whose process was killed; where that one is killed as well, it has failed."""
        for name in list(self.suspects):
            if self._late():
                return
            del self.suspects[name]
            self.marks.forget(name)
            if name not in self.left or not self.claims.take([name], self.trials):
                continue
            apart = self.backend.name == "loky" and not self._only_here(name)
            task = self._task(name, [name], marks=not apart and self.backend.processes, last_try=True)
            if task is None:
                continue
            survived = run_apart(task) if apart else self._survives(task)
            if not survived:
                self.trials.append(failure(self._job(name), WorkerDiedError()), once=True)
            self._count(1)
            self._look()

    def _survives(self, task: Task) -> bool:
        try:
            for _, seconds in self.backend.alone_with(task):
                self._count(0, seconds)
        except died():
            return False
        return True

    def _only_here(self, name: str) -> bool:
        """Whether the model is made of classes that another process does not know, as those of a notebook."""
        model = self.sweep.variants[self.trial_of[name].variant].model
        return any(type(part).__module__ == "__main__" for part in (model, *model.get_params().values()))

    def _count(self, n: int, seconds: float = 0.0) -> None:
        with self._counting:
            self.outcome.computed += n
            self.outcome.model_seconds += seconds

    def _look(self) -> None:
        self.trials.read()
        self.left -= self.trials.news

    def _late(self) -> bool:
        return self.limit is not None and time.time() > self.limit

    def _size(self) -> int:
        with self._counting:
            done, seconds = self.outcome.computed, self.outcome.model_seconds
        if not done:
            return 1
        takes, most = _BUNDLE_OF_A_CLUSTER if self.backend.name in ("dask", "ray") else _BUNDLE
        return int(max(1, min(most, self.fair, takes / max(seconds / done, 1e-6))))

    def _tasks(self) -> Iterator[Task]:
        """Give bundles; what goes wrong in a thread of joblib's is kept for this one."""
        try:
            yield from self._bundles()
        except Exception as error:
            self._trouble = error

    def _bundles(self) -> Iterator[Task]:
        """Claim and give one bundle after another: those of one training set together, equal features side by side."""
        groups: dict[str, list[str]] = {}
        for name in self.wanted:
            if name in self.left and name not in self.sent and name not in self.suspects:
                groups.setdefault(self._sharing(self.trial_of[name]), []).append(name)
        for key, names in groups.items():
            names.sort(key=lambda name: self._nearness(self.trial_of[name]))
            start = 0
            while start < len(names):
                if self._late():
                    return
                size = self._size()
                mine = self.claims.take(names[start : start + size], self.trials)
                start += size
                if not mine:
                    continue
                self.sent |= set(mine)
                task = self._task(key, mine, marks=True)
                if task is not None:
                    yield task

    def _task(self, key: str, names: list[str], marks: bool, last_try: bool = False) -> Task | None:
        jobs = tuple(self._job(name) for name in names)
        trial = self.trial_of[names[0]]
        try:
            token, shared = self._prepared(trial)
        except Exception as error:
            # data that one variant cannot have are that variant's failure
            self._count(len(jobs))
            for job in jobs:
                self.trials.append(failure(job, error), once=True)
            return None
        bundle = Bundle(
            str(self.root),
            token,
            jobs,
            self.limit,
            self.trials.read_to,
            timed_cores=self.backend.name != "threading",
            marks=str(self.marks.folder) if marks else None,
            # a cluster's file system may not know of locks
            session=self.session if self.backend.name == "loky" else None,
            last_try=last_try,
        )
        return bundle, shared

    def _prepared(self, trial: Trial) -> tuple[str, Shared]:
        """Return what a trial shares with others, and the token of its content; what failed once is not tried again."""
        config = self.sweep.variants[trial.variant].config
        key = repr((config.data, config.encoder, config.training, config.evaluation))
        if key in self._refused:
            raise self._refused[key]
        try:
            prepared = self.bench.prepared(config)
            content = (key, self.bench.data_facts(config)["digest"], self.bench.vector_facts(config))
        except Exception as error:
            self._refused[key] = error
            raise
        token = blake2b(repr(content).encode(), digest_size=16).hexdigest()
        return token, self._shared.setdefault(id(prepared), Shared(prepared))

    def _sharing(self, trial: Trial) -> str:
        config = self.sweep.variants[trial.variant].config
        draw = trial.seed if config.training.draws else None
        return repr((config.data, config.encoder, config.training, config.evaluation, draw))

    def _nearness(self, trial: Trial) -> tuple[str, ...]:
        parts = self.sweep.variants[trial.variant].config.parts
        return tuple(json.dumps(parts.get(name), sort_keys=True) for name in ("featurizer", "model", "head"))

    def _job(self, name: str) -> Job:
        trial = self.trial_of[name]
        variant = self.sweep.variants[trial.variant]
        return Job(name, variant.config.parts, trial.seed, record_facts(variant, trial.settings, self.session))
