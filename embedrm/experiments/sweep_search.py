"""A sweep whose random axes are searched rather than drawn blindly: Optuna proposes settings, the sweep engine tries them.

What was tried is in ``trials.jsonl`` like any trial; what was proposed, and what came of it, is in Optuna's journal beside
it. Any number of processes may search together, and be killed: a proposal of a process that died is tried by another one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.experiments.running import Workbench
from embedrm.experiments.sweep import Outcome, Sweep, open_bench, time_limit
from embedrm.experiments.sweep_backends import Backend
from embedrm.experiments.sweep_claims import Claims
from embedrm.experiments.sweep_space import Draw, Space
from embedrm.experiments.sweep_suggest import DONE, FAILED, RUNNING, SAMPLERS, Journal, Proposal
from embedrm.experiments.sweep_trials import OK, TrialFile
from embedrm.experiments.sweep_work import PATIENCE
from embedrm.experiments.trial_metrics import check_metric, lower_is_better
from embedrm.progress import Progress, silent

if TYPE_CHECKING:
    from embedrm.preferences import EmbeddedPreferences
    from embedrm.store import EmbeddingStore

JOURNALS = "search"
CHOOSES = "validation"


@dataclass
class Found:
    """What a search has found so far.

    Attributes
    ----------
    sweep : Sweep
        The different settings that were proposed, in their order: a list.
    outcome : Outcome
        Of their trials.
    proposals : list of Proposal
    errors : dict of int to str
        Why proposals failed, by their number.
    sampler, metric, split : str
    """

    sweep: Sweep
    outcome: Outcome
    proposals: list[Proposal]
    errors: dict[int, str]
    sampler: str
    metric: str
    split: str

    @property
    def best(self) -> Proposal | None:
        """The proposal with the best value; the earlier one of equals."""
        sign = 1.0 if lower_is_better(self.metric) else -1.0
        known = [one for one in self.proposals if one.value is not None]
        return min(known, key=lambda one: (sign * (one.value or 0.0), one.number)) if known else None


class Search:
    """Choose settings by what earlier ones achieved on a validation split.

    The random axes of the sweep are what is searched, each value of a grid being a choice; ``samples`` is how many settings
    are proposed. A proposal's value is the mean of the metric over the seeds; it has failed where one of its seeds failed.
    The sampler is seeded by ``random_state`` and the number of the proposal alone, so that a search that one process with
    one worker runs gives the same proposals however often it is killed.

    Parameters
    ----------
    sweep : Sweep
        With random axes, and without lists and axes in turn.
    sampler : {"tpe", "gp", "qmc"}
        Tree-structured Parzen estimator, Gaussian process, or a quasi-random sequence.
    metric : str
        See :mod:`embedrm.experiments.trial_metrics`.
    split : str, optional
        What the search chooses by: "validation" where absent. The test split is refused.
    """

    def __init__(self, sweep: Sweep, sampler: str = "tpe", metric: str = "micro", split: str | None = None) -> None:
        if sampler not in SAMPLERS:
            raise unknown_name("search", sampler, SAMPLERS)
        space = sweep.space
        if space.variants or space.around:
            raise InvalidInputError(
                "a search takes random axes and the values of a grid; the sweep also has "
                f"{'a list' if space.variants else 'axes in turn (around)'}: run those without --search"
            )
        if not space.random:
            raise InvalidInputError(
                "a search needs random axes to search in: --random 'head.l2=loguniform(1e-4, 1)' --samples 50"
            )
        if split == "test":
            raise InvalidInputError(
                "a search chooses by what it sees, and nothing may be chosen on the test split; name another one"
            )
        check_metric(metric, (variant.config for variant in sweep.variants))
        self.sweep, self.sampler, self.metric, self.split = sweep, sampler, metric, split
        choices = {path: Draw("choice", tuple(values)) for path, values in space.grid.items()}
        self.axes: dict[str, Draw] = {**space.random, **choices}

    def identity(self, bench: Workbench) -> str:
        """Return what tells this search from others of a folder: everything but how many settings are proposed."""
        config = self.sweep.experiment.config
        centre = self.sweep.to_dict()
        centre["sweep"] = {key: value for key, value in centre["sweep"].items() if key != "samples"}
        centre.pop("title", None)
        facts = bench.data_facts(config)["digest"], bench.vector_facts(config)
        text = json.dumps([centre, facts, self.sampler, self.metric, self.split], sort_keys=True)
        return blake2b(text.encode(), digest_size=4).hexdigest()

    def _journal(self, root: Path, bench: Workbench) -> Journal:
        state = self.sweep.space.random_state
        return Journal(self._path(root, bench), self.axes, self.sampler, state, lower_is_better(self.metric))

    def _path(self, root: Path, bench: Workbench) -> Path:
        return root / JOURNALS / f"{self.identity(bench)}.journal"

    def run(
        self,
        folder: str | Path,
        *,
        jobs: int = 1,
        backend: str = "loky",
        address: str | None = None,
        max_hours: float | None = None,
        store: EmbeddingStore | bool | None = None,
        preferences: EmbeddedPreferences | None = None,
        progress: Progress = silent,
    ) -> Found:
        """Propose and try settings until there are as many as wanted; see :meth:`Sweep.run` for the parameters.

        With several workers so many settings are tried at once that every worker has a seed to fit.
        """
        began, limit = time.perf_counter(), time_limit(max_hours)
        root = Path(folder)
        bench = open_bench(root, store, preferences, progress)
        split = self._chooses_by(bench)
        trials = TrialFile(root)
        trials.read()
        journal, wanted = self._journal(root, bench), self.sweep.space.samples
        step, parts = progress("search (settings)"), []
        with Backend(backend, jobs, address) as workers, Claims(root) as claims:

            def compute(part: Sweep) -> Outcome:
                parts.append(part.compute(bench, trials, workers, limit=limit))
                return parts[-1]

            while limit is None or time.time() < limit:
                batch = journal.next(claims, self._at_once(workers), wanted)
                if batch:
                    self._try(journal, batch, compute, split)
                known = journal.proposals()
                step(sum(one.state != RUNNING for one in known), max(wanted, len(known)))
                if not batch:
                    if all(one.state != RUNNING for one in known):
                        break
                    # in the hands of other processes: theirs unless they die
                    time.sleep(PATIENCE)
        found = self._found(journal.proposals(), bench, trials, split)
        outcome = found.outcome
        outcome.computed = sum(part.computed for part in parts)
        outcome.found -= outcome.computed
        outcome.model_seconds = sum(part.model_seconds for part in parts)
        outcome.seconds = time.perf_counter() - began
        return found

    def look(self, folder: str | Path, **options: Any) -> dict[str, int]:
        """Count the settings wanted, proposed, finished and failed, and those left to try; nothing is computed."""
        root = Path(folder)
        bench = open_bench(root, options.get("store"), options.get("preferences"))
        known = self._journal(root, bench).proposals() if self._path(root, bench).exists() else []
        states = [one.state for one in known]
        wanted = max(self.sweep.space.samples, len(known))
        counts = {name: states.count(state) for name, state in (("finished", DONE), ("failed", FAILED))}
        return {"settings": wanted, "proposed": len(known), **counts, "to_try": wanted - sum(counts.values())}

    def _chooses_by(self, bench: Workbench) -> str:
        """Return the split that the search chooses by, which every variant is judged on."""
        judged = bench.judged_splits(self.sweep.experiment.config)
        wanted = self.split or CHOOSES
        if wanted in judged:
            return wanted
        if self.split is not None:
            raise unknown_name("split that is evaluated on", wanted, [name for name in judged if name != "test"])
        raise InvalidInputError(
            f"a search chooses by a validation split, and the trials are judged on {', '.join(judged)} alone; nothing may "
            "be chosen on the test split: make a validation split (data.shares), or name another one of yours "
            "(--search-split)"
        )

    def _at_once(self, workers: Backend) -> int:
        import joblib

        jobs = joblib.cpu_count() if workers.jobs == -1 else workers.jobs
        seeds = len(self.sweep.seeds) if any(variant.seed_matters() for variant in self.sweep.variants) else 1
        return max(1, math.ceil(jobs / seeds))

    def _part(self, settings: list[dict[str, Any]]) -> Sweep:
        different = {json.dumps(one, sort_keys=True): one for one in settings}
        return Sweep(self.sweep.experiment, Space(variants=list(different.values())), list(self.sweep.seeds))

    def _try(
        self,
        journal: Journal,
        batch: list[tuple[int, dict[str, Any]]],
        compute: Callable[[Sweep], Outcome],
        split: str,
    ) -> None:
        possible = []
        for number, settings in batch:
            if self._impossible(settings) is None:
                possible.append((number, settings))
            else:
                journal.tell(number, None)
        if not possible:
            return
        records = _by_settings(compute(self._part([settings for _, settings in possible])))
        for number, settings in possible:
            mine = records[_key(settings)]
            # where the time was over, the next process goes on with it
            if all(record is not None for record in mine):
                journal.tell(number, self._value(mine, split)[0])

    def _impossible(self, settings: dict[str, Any]) -> str | None:
        """Return why settings do not go together; those drawn when the sweep was made were checked then."""
        try:
            self._part([settings])
        except InvalidInputError as error:
            return str(error)
        return None

    def _value(self, records: Sequence[Mapping[str, Any] | None], split: str) -> tuple[float | None, str | None]:
        """Return the mean over seeds, or else why there is none."""
        values = []
        for record in records:
            if record is None:
                return None, None
            if record["status"] != OK:
                return None, f"{record['error']['type']}: {record['error']['message']}"
            value = record["metrics"][split].get(self.metric)
            if value is None:
                return None, f"the model tells no {self.metric}"
            values.append(value)
        return float(np.mean(values)), None

    def _found(self, proposals: list[Proposal], bench: Workbench, trials: TrialFile, split: str) -> Found:
        trials.read()
        why = {one.number: self._impossible(one.settings) for one in proposals}
        possible = [one.settings for one in proposals if why[one.number] is None]
        sweep = self._part(possible or [{}])
        outcome = Outcome(sweep.plan(bench), trials.records)
        records = _by_settings(outcome)
        for one in proposals:
            if one.state == FAILED and why[one.number] is None:
                why[one.number] = self._value(records[_key(one.settings)], split)[1]
        names = {trial.fingerprint for trial in outcome.trials}
        states = [trials.records[name]["status"] for name in names if name in trials.records]
        outcome.found, outcome.left = len(states), len(names) - len(states)
        outcome.failed = len(states) - states.count(OK)
        errors = {number: said for number, said in why.items() if said is not None}
        return Found(sweep, outcome, proposals, errors, self.sampler, self.metric, split)


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _by_settings(outcome: Outcome) -> dict[str, list[dict[str, Any] | None]]:
    """Return the records of each settings, one for each different fit."""
    out: dict[str, dict[str, dict[str, Any] | None]] = {}
    for trial in outcome.trials:
        out.setdefault(_key(trial.settings), {})[trial.fingerprint] = outcome.records.get(trial.fingerprint)
    return {key: list(held.values()) for key, held in out.items()}
