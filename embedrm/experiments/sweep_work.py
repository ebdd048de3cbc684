"""The unfinished trials of one sweep: claimed in bundles, sent to workers, and seen to their end."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from embedrm.errors import EmbedRMError
from embedrm.experiments.experiment_run import record_facts
from embedrm.experiments.running import Workbench
from embedrm.experiments.sweep_claims import Claims
from embedrm.experiments.sweep_trials import TrialFile
from embedrm.experiments.sweep_workers import Bundle, Job, died, failure, run_apart, run_bundle, run_parallel
from embedrm.progress import Progress

if TYPE_CHECKING:
    from embedrm.experiments.sweep import Outcome, Sweep, Trial

# Seconds between looks at what other sweeps of the folder are doing.
_PATIENCE = 0.3
# A bundle is as many trials as take about this many seconds: what one costs to send is then little, and progress is seen.
_BUNDLE_SECONDS = 1.0
_MOST_IN_A_BUNDLE = 32
MARKS = "running"


class WorkerDiedError(Exception):
    """What is recorded of a trial whose process was killed twice."""


class Work:
    """The unfinished trials of one call of :meth:`Sweep.run`.

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
        self.sweep, self.root, self.bench, self.trials, self.outcome = sweep, root, bench, trials, outcome
        self.limit, self.wanted, self.left, self.sent = limit, wanted, set(wanted), set[str]()
        self.trial_of: dict[str, Trial] = {}
        for trial in outcome.trials:
            self.trial_of.setdefault(trial.fingerprint, trial)
        trials.news.clear()

    def run(self, jobs: int, backend: str, address: str | None, progress: Progress) -> None:
        """Compute until nothing is left, the time is over, or all that is left is in the hands of other processes."""
        import joblib

        # vectors have a progress of their own, and are no part of the pace of trials
        with suppress(EmbedRMError, MemoryError):
            self.bench.prepared(self.sweep.variants[self.trial_of[self.wanted[0]].variant].config)
        total, began_with = self.outcome.distinct, len(self.left)
        step = progress("sweep (trials)")
        alone = jobs == 1 and backend == "loky"
        workers = joblib.cpu_count() if jobs == -1 else jobs
        # in the last rounds every worker should have something to do
        self.fair = max(1, began_with // (4 * max(1, workers)))
        with Claims(self.root) as claims:
            self.session = claims.session
            marks = None if alone or backend != "loky" else self.root / MARKS / claims.session
            if marks is not None:
                marks.mkdir(parents=True, exist_ok=True)
            try:
                while True:
                    bundles = self._bundles(claims, timed=backend != "threading", marks=marks)
                    results = map(run_bundle, bundles) if alone else run_parallel(bundles, jobs, backend, address)
                    try:
                        for done, seconds in results:
                            self.outcome.computed += len(done)
                            self.outcome.model_seconds += seconds
                            self._look()
                            step(total - len(self.left), total)
                    except died():
                        self._after_death(marks)
                    self._look()
                    if not self.left or self._late():
                        break
                    # what is left is in the hands of other processes: it is theirs unless they die
                    time.sleep(_PATIENCE)
            finally:
                if marks is not None:
                    shutil.rmtree(marks, ignore_errors=True)

    def _look(self) -> None:
        self.trials.read()
        self.left -= self.trials.news
        self.trials.news.clear()

    def _late(self) -> bool:
        return self.limit is not None and time.time() > self.limit

    def _size(self) -> int:
        done = self.outcome.computed
        if not done:
            return 1
        each = max(self.outcome.model_seconds / done, 1e-6)
        return int(max(1, min(_MOST_IN_A_BUNDLE, self.fair, _BUNDLE_SECONDS / each)))

    def _bundles(self, claims: Claims, timed: bool, marks: Path | None) -> Iterator[Bundle]:
        """Claim and give one bundle after another: those of one training set together, equal features side by side."""
        groups: dict[str, list[str]] = {}
        for name in self.wanted:
            if name in self.left and name not in self.sent:
                groups.setdefault(self._sharing(self.trial_of[name]), []).append(name)
        for key, names in groups.items():
            names.sort(key=lambda name: self._nearness(self.trial_of[name]))
            start = 0
            while start < len(names):
                if self._late():
                    return
                size = self._size()
                mine = claims.take(names[start : start + size], self.trials)
                start += size
                if not mine:
                    continue
                self.sent |= set(mine)
                made = self._bundle(key, mine, timed, marks)
                if made is not None:
                    yield made

    def _bundle(self, key: str, names: list[str], timed: bool, marks: Path | None) -> Bundle | None:
        jobs = tuple(self._job(name) for name in names)
        first = self.sweep.variants[self.trial_of[names[0]].variant].config
        try:
            prepared = self.bench.prepared(first)
        except (EmbedRMError, MemoryError) as error:
            # data that one variant cannot have are that variant's failure
            self.outcome.computed += len(jobs)
            for job in jobs:
                self.trials.append(failure(job, error))
            return None
        token = blake2b(key.encode(), digest_size=16).hexdigest()
        where = None if marks is None else str(marks)
        return Bundle(str(self.root), token, prepared, jobs, self.limit, self.trials.read_to, timed, where)

    def _after_death(self, marks: Path | None) -> None:
        """A worker was killed, and the others with it: find the trial that did it, and let the rest be sent again."""
        self._look()
        suspects = [] if marks is None else [(file, file.read_text(encoding="ascii")) for file in marks.iterdir()]
        for file, name in suspects:
            file.unlink(missing_ok=True)
            if name not in self.left:
                continue
            bundle = self._bundle(self._sharing(self.trial_of[name]), [name], True, None)
            self.outcome.computed += 1
            if bundle is not None and not run_apart(bundle):
                reason = (
                    "the process that computed it was killed, and once more by itself: most often for want of memory"
                )
                self.trials.append(failure(self._job(name), WorkerDiedError(reason)))
            self._look()
        self.sent &= set(self.wanted) - self.left

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
