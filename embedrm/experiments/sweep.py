"""A sweep: many variants of one experiment, each computed once, whoever computes it and however often it is stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedrm.errors import DataError, InvalidInputError
from embedrm.experiments.experiment import Experiment
from embedrm.experiments.experiment_config import KEYS, read_seeds
from embedrm.experiments.experiment_files import Misfit, line_of, read_file, to_yaml
from embedrm.experiments.experiment_run import SAVED, SAVED_SWEEP
from embedrm.experiments.running import Workbench
from embedrm.experiments.sweep_backends import Backend
from embedrm.experiments.sweep_space import Space
from embedrm.experiments.sweep_trials import OK, TrialFile, write_once, write_whole
from embedrm.experiments.sweep_work import Work
from embedrm.progress import Progress, silent

if TYPE_CHECKING:
    from embedrm.experiments.sweep_sample import Sample
    from embedrm.preferences import EmbeddedPreferences
    from embedrm.reporting import Report
    from embedrm.store import EmbeddingStore

MEMO = "data.json"


@dataclass(frozen=True)
class Trial:
    """One variant for one seed.

    Attributes
    ----------
    settings : dict
        What differs from the centre, by dotted path.
    seed : int
    fingerprint : str
        Trials of one fingerprint are one computation.
    variant : int
        Number of the settings.
    shared : bool
        Whether an earlier trial of the plan has this fingerprint: a seed that nothing draws by, or equal settings.
    number : int
        Its place in the plan.
    """

    settings: dict[str, Any]
    seed: int
    fingerprint: str
    variant: int
    shared: bool
    number: int = 0


@dataclass
class Outcome:
    """What one call of :meth:`Sweep.run` did.

    Attributes
    ----------
    trials : list of Trial
        The whole plan.
    records : dict of str to dict
        By fingerprint; those not finished are missing.
    computed, found, failed, left : int
        Fingerprints computed by this call; finished before; failed, now or before; not finished yet.
    seconds : float
        Of this call.
    model_seconds : float
        Of fits and scores in them, over all workers.
    """

    trials: list[Trial]
    records: dict[str, dict[str, Any]]
    computed: int = 0
    found: int = 0
    failed: int = 0
    left: int = 0
    seconds: float = 0.0
    model_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def distinct(self) -> int:
        """Different fingerprints of the plan."""
        return len({trial.fingerprint for trial in self.trials})


class Sweep:
    """Variants of an experiment over seeds.

    Parameters
    ----------
    experiment : Experiment or mapping
        The centre; its section ``sweep`` says what varies, where ``space`` does not.
    space : Space or mapping, optional
        What varies; see :class:`embedrm.experiments.sweep_space.Space`.
    seeds : int or list of int, optional
        Those of the experiment where absent.

    Examples
    --------
    >>> from embedrm.experiments.sweep import Sweep
    >>> sweep = Sweep({"encoder": "hashing"}, {"grid": {"head.l2": [0.1, 1], "featurizer.scale": ["rms", "none"]}}, seeds=3)
    >>> len(sweep.settings), sweep.seeds
    (4, (0, 1, 2))
    """

    sample: Sample | None = None
    """What was drawn of the plan, where only a part of it is computed (:mod:`embedrm.experiments.sweep_sample`)."""

    def __init__(
        self,
        experiment: Experiment | Mapping[str, Any],
        space: Space | Mapping[str, Any] | None = None,
        seeds: int | Sequence[int] | None = None,
    ) -> None:
        self.experiment = experiment if isinstance(experiment, Experiment) else Experiment(experiment)
        own = self.experiment.config.sweep if space is None else space
        self.space = own if isinstance(own, Space) else Space.read(own)
        self.seeds = self.experiment.config.seeds if seeds is None else read_seeds(seeds)
        for path in self.space.paths:
            top, sections = path.partition(".")[0], KEYS[1:-2]
            if top not in sections:
                near = get_close_matches(top, sections, n=1)
                meant = f" Did you mean {near[0]!r}?" if near else ""
                raise Misfit(
                    f"{path!r} cannot be varied.{meant} Paths begin with a section ({', '.join(sections)}), such as "
                    "head.l2, and seeds are their own setting.",
                    ("sweep", "grid", path),
                )
        self.settings = self.space.settings()
        self.variants = [self._variant(settings) for settings in self.settings]

    @classmethod
    def from_file(cls, path: str | Path) -> Sweep:
        """Read a YAML or TOML file with a section ``sweep``; what is wrong in it raises DataError with the line."""
        data, lines = read_file(path)
        try:
            return cls(Experiment(data))
        except Misfit as error:
            raise DataError(str(error), path, line_of(lines, error.place)) from None

    def _variant(self, settings: Mapping[str, Any]) -> Experiment:
        try:
            return self.experiment.with_settings(settings)
        except InvalidInputError as error:
            said = ", ".join(f"{path}={value}" for path, value in settings.items()) or "the centre"
            place = self._place(settings, error.place if isinstance(error, Misfit) else ())
            raise Misfit(f"the variant {said}: {error}", place) from None

    def _place(self, settings: Mapping[str, Any], wrong: Sequence[str]) -> tuple[str, ...]:
        """Return the axis that set what is wrong, or else the first axis of the settings."""
        axes = [("sweep", kind, path) for kind in ("grid", "around", "random") for path in getattr(self.space, kind)]
        mine = [axis for axis in axes if axis[2] in settings]
        near = [axis for axis in mine if all(a == b for a, b in zip(axis[2].split("."), wrong))] if wrong else []
        # the longest path that leads to it
        return max(near, key=lambda axis: len(axis[2])) if near else mine[0] if mine else ("sweep", "list")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that give this sweep again."""
        centre = {k: v for k, v in self.experiment.to_dict().items() if k not in ("seeds", "sweep")}
        # as a file has it, so that a sweep and the same sweep read back are written alike
        return json.loads(json.dumps({**centre, "seeds": list(self.seeds), "sweep": self.space.written()}))

    def plan(self, bench: Workbench | None = None) -> list[Trial]:
        """Return every trial with its fingerprint: variants in their order, and the seeds of each."""
        bench = bench or Workbench()
        out: list[Trial] = []
        seen: set[str] = set()
        for number, (settings, variant) in enumerate(zip(self.settings, self.variants)):
            matters = variant.seed_matters()
            name = ""
            for i, seed in enumerate(self.seeds):
                name = variant.fingerprint(bench, seed) if matters or i == 0 else name
                out.append(Trial(settings, seed, name, number, name in seen, len(out)))
                seen.add(name)
        return out

    def run(
        self,
        folder: str | Path,
        *,
        jobs: int = 1,
        backend: str = "loky",
        address: str | None = None,
        retry: bool = False,
        max_hours: float | None = None,
        store: EmbeddingStore | bool | None = None,
        preferences: EmbeddedPreferences | None = None,
        progress: Progress = silent,
    ) -> Outcome:
        """Compute what is not finished, and return all that is.

        Parameters
        ----------
        folder : path-like
            Where results are kept, ``trials.jsonl`` among them. Any number of sweeps, in any number of processes that
            see the folder, may write to it at once; each trial is computed by one of them. A sweep that was killed goes
            on from there.
        jobs : int
            Workers.
        backend, address
            See :func:`embedrm.experiments.sweep_backends.Backend`.
        retry : bool
            Try again what failed.
        max_hours : float, optional
            Begin no trial after this time.
        store, preferences
            See :class:`embedrm.experiments.running.Workbench`.
        progress : Progress
            Counts different trials.
        """
        began, limit = time.perf_counter(), time_limit(max_hours)
        with Backend(backend, jobs, address) as workers:
            bench = open_bench(folder, store, preferences, progress)
            trials = TrialFile(folder)
            trials.read()
            outcome = self.compute(bench, trials, workers, retry=retry, limit=limit, progress=progress)
        outcome.seconds = time.perf_counter() - began
        return outcome

    def compute(
        self,
        bench: Workbench,
        trials: TrialFile,
        workers: Backend,
        *,
        retry: bool = False,
        limit: float | None = None,
        progress: Progress = silent,
    ) -> Outcome:
        """Compute what is not finished with what is at hand; :meth:`run` opens it.

        Parameters
        ----------
        bench : Workbench
        trials : TrialFile
            Read up to now.
        workers : Backend
        retry : bool
        limit : float, optional
            ``time.time()`` after which no trial begins.
        progress : Progress
        """
        began = time.perf_counter()
        root, known = trials.path.parent, dict(bench.known)
        plan = self.plan(bench)
        _write_memo(root, bench.known, known)
        outcome = Outcome(plan, trials.records)
        finished = trials.finished(retry)
        wanted = list(dict.fromkeys(trial.fingerprint for trial in plan))
        left = [name for name in wanted if name not in finished]
        outcome.found = len(wanted) - len(left)
        if left:
            Work(self, root, bench, trials, left, outcome, limit).run(workers, progress)
            trials.close()
        outcome.failed = sum(trials.records.get(name, {}).get("status", OK) != OK for name in wanted)
        outcome.left = sum(name not in trials.records for name in wanted)
        outcome.seconds = time.perf_counter() - began
        return outcome

    def look(self, folder: str | Path, **options: Any) -> dict[str, int]:
        """Count the trials planned, different, finished and failed, and those left to compute; nothing is computed."""
        plan = self.plan(open_bench(folder, options.get("store"), options.get("preferences")))
        trials = TrialFile(folder)
        trials.read()
        names = {trial.fingerprint for trial in plan}
        states = [trials.records[name]["status"] for name in names if name in trials.records]
        return {
            "planned": len(plan),
            "different": len(names),
            "finished": states.count(OK),
            "failed": len(states) - states.count(OK),
            "to_compute": len(names) - len(states),
        }

    def place(self, folder: str | Path, note: str | None = None) -> Path:
        """Return where the tables and the report of this sweep belong, and leave ``sweep.yaml`` there.

        That is the folder itself, or ``sweep-XXXXXXXX`` in it where another sweep's tables are: results are shared, and
        one sweep's tables never replace another's. A note is what tells it from a sweep of the same settings.
        """
        text = to_yaml(self.to_dict())
        if note is not None:
            text = f"# {note}\n{text}"
        root = Path(folder)
        own = root / f"sweep-{blake2b(text.encode(), digest_size=4).hexdigest()}"
        # a run's report is not replaced either
        if not (root / SAVED).is_file() and write_once(root / SAVED_SWEEP, text):
            return root
        return own if write_once(own / SAVED_SWEEP, text) else root

    def report(self, outcome: Outcome, **options: Any) -> Report:
        """Return the report of what was found; see :func:`embedrm.experiments.sweep_report.sweep_report`."""
        from embedrm.experiments.sweep_report import sweep_report

        return sweep_report(self, outcome, **options)


def time_limit(max_hours: float | None) -> float | None:
    """Return the ``time.time()`` after which no trial begins."""
    if max_hours is not None and not max_hours > 0:
        raise InvalidInputError(f"max_hours must be above 0, got {max_hours}")
    return None if max_hours is None else time.time() + 3600.0 * max_hours


def open_bench(
    folder: str | Path,
    store: EmbeddingStore | bool | None,
    preferences: EmbeddedPreferences | None,
    progress: Progress = silent,
) -> Workbench:
    """Return a workbench that knows what earlier sweeps of the folder found out about their data."""
    return Workbench(store, preferences, _read_memo(Path(folder)), progress)


def _read_memo(root: Path) -> dict[str, Any]:
    """Return what is known of data by the digest of their files; a damaged file is as good as none."""
    try:
        found = json.loads((root / MEMO).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    keys = {"digest", "splits", "domains", "name"}
    return {k: v for k, v in found.items() if isinstance(v, dict) and keys <= set(v)} if isinstance(found, dict) else {}


def _write_memo(root: Path, now: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    if now == before:
        return
    write_whole(root / MEMO, json.dumps(now, indent=1).encode())
