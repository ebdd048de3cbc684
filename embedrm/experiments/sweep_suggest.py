"""What Optuna proposes and is told: settings of random axes, in a journal that any number of processes share."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedrm.errors import InvalidInputError, MissingDependencyError, unknown_name
from embedrm.experiments.sweep_claims import Claims
from embedrm.experiments.sweep_space import Draw

SAMPLERS = ("tpe", "gp", "qmc")
FAILED, RUNNING, DONE = "failed", "running", "done"


@dataclass(frozen=True)
class Proposal:
    """One proposal of a search, in the order in which they were made.

    Attributes
    ----------
    number : int
    settings : dict
        By dotted path.
    state : {"done", "failed", "running"}
    value : float or None
        Mean of the metric over the seeds, on the split that the search chooses by.
    best : float or None
        The best value up to here.
    """

    number: int
    settings: dict[str, Any]
    state: str
    value: float | None
    best: float | None = None


class _Lock:
    """A lock for Optuna's journal that ends with the process that holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: int | None = None

    def acquire(self) -> bool:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._held = descriptor
        return True

    def release(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None


class Journal:
    """The proposals of one search.

    Parameters
    ----------
    path : Path
        Optuna's journal; made where there is none.
    axes : dict of str to Draw
    sampler : {"tpe", "gp", "qmc"}
        Tree-structured Parzen estimator, Gaussian process, or a quasi-random sequence.
    random_state : int
        The sampler is seeded by it and by the number of the proposal alone.
    lower : bool
        Whether less is better.
    """

    def __init__(self, path: Path, axes: Mapping[str, Draw], sampler: str, random_state: int, lower: bool) -> None:
        if sampler not in SAMPLERS:
            raise unknown_name("search", sampler, SAMPLERS)
        self.axes, self.sampler, self.random_state, self.lower = dict(axes), sampler, random_state, lower
        self.folder, self.optuna = path.parent, _optuna()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInputError(
                f"cannot write {self.folder}: {error.strerror or error}; choose another folder"
            ) from None
        backend = self.optuna.storages.journal.JournalFileBackend(str(path), _Lock(path.with_suffix(".lock")))
        with _quiet(self.optuna), _asking(self.folder):
            self.study = self.optuna.create_study(
                storage=self.optuna.storages.JournalStorage(backend),
                study_name="search",
                direction="minimize" if lower else "maximize",
                load_if_exists=True,
                sampler=self.optuna.samplers.RandomSampler(seed=0),
            )

    def next(self, claims: Claims, n: int, wanted: int) -> list[tuple[int, dict[str, Any]]]:
        """Return up to n proposals to try now: first those of processes that died, then new ones up to all wanted."""
        states = self.optuna.trial.TrialState
        with _quiet(self.optuna), _asking(self.folder):
            known = self.study.get_trials(deepcopy=False)
            living = {*claims.living(), claims.session}
            mine: list[tuple[int, dict[str, Any]]] = []
            for trial in known:
                if trial.state != states.RUNNING:
                    continue
                session = trial.user_attrs.get("session")
                if session is None:
                    # killed while it was asked for: it was never a proposal
                    self.study.tell(trial.number, state=states.FAIL)
                elif session not in living and len(mine) < n:
                    mine.append((trial.number, trial.user_attrs["settings"]))
            made = sum("session" in trial.user_attrs for trial in known)
            while len(mine) < n and made < wanted:
                self.study.sampler = self._sampler(made)
                trial = self.study.ask(self._distributions())
                settings = self._settings(trial.params)
                trial.set_user_attr("settings", settings)
                trial.set_user_attr("session", claims.session)
                mine.append((trial.number, settings))
                made += 1
        return mine

    def tell(self, number: int, value: float | None) -> None:
        """Say what a proposal achieved; None where it failed. Whoever is first is heard."""
        failed = self.optuna.trial.TrialState.FAIL
        with _quiet(self.optuna):
            if value is None:
                self.study.tell(number, state=failed, skip_if_finished=True)
            else:
                self.study.tell(number, value, skip_if_finished=True)

    def proposals(self) -> list[Proposal]:
        """Return all proposals in their order."""
        states = self.optuna.trial.TrialState
        names = {states.COMPLETE: DONE, states.FAIL: FAILED}
        sign = 1.0 if self.lower else -1.0
        out: list[Proposal] = []
        best: float | None = None
        for trial in self.study.get_trials(deepcopy=False):
            if "session" not in trial.user_attrs:
                continue
            if trial.value is not None and (best is None or sign * trial.value < sign * best):
                best = trial.value
            state = names.get(trial.state, RUNNING)
            out.append(Proposal(len(out), trial.user_attrs["settings"], state, trial.value, best))
        return out

    def _distributions(self) -> dict[str, Any]:
        d = self.optuna.distributions
        out: dict[str, Any] = {}
        for path, draw in self.axes.items():
            if draw.kind == "choice":
                # lists and mappings are values, too
                out[path] = d.CategoricalDistribution([json.dumps(value, sort_keys=True) for value in draw.values])
            elif draw.kind.endswith("integers"):
                out[path] = d.IntDistribution(*draw.values, log=draw.kind.startswith("log"))
            else:
                out[path] = d.FloatDistribution(*draw.values, log=draw.kind.startswith("log"))
        return out

    def _settings(self, params: Mapping[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for path, draw in self.axes.items():
            value = params[path]
            if draw.kind == "choice":
                value = json.loads(value)
            elif isinstance(value, float):
                # as Draw.sample does: the same when read back from a table
                value = float(f"{value:.6g}")
            out[path] = value
        return out

    def _sampler(self, number: int) -> Any:
        s = self.optuna.samplers
        seed = int(np.random.SeedSequence([self.random_state, number]).generate_state(1)[0])
        if self.sampler == "gp":
            return s.GPSampler(seed=seed)
        if self.sampler == "qmc":
            # one sequence, whose places the journal counts
            return s.QMCSampler(scramble=True, seed=self.random_state, independent_sampler=s.RandomSampler(seed=seed))
        return s.TPESampler(seed=seed, constant_liar=True)


@contextmanager
def _asking(folder: Path) -> Iterator[None]:
    """Hold the lock under which proposals are made, so that their number is exact."""
    lock = _Lock(folder / ".asking")
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Keep Optuna's own log from the screen, without changing it for the caller."""
    import warnings

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _optuna() -> Any:
    try:
        import optuna
        import optuna.storages.journal
    except ImportError:
        raise MissingDependencyError("optuna", "a search", "optuna") from None
    return optuna
