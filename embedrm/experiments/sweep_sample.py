"""A random sample of a sweep's plan, drawn by strata of what decides the cost of a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedrm.errors import InvalidInputError
from embedrm.experiments.experiment import Experiment
from embedrm.experiments.experiment_config import MODEL_PARTS
from embedrm.experiments.experiment_run import shown
from embedrm.experiments.running import Workbench
from embedrm.experiments.sweep import Sweep, Trial
from embedrm.experiments.sweep_space import Space
from embedrm.experiments.sweep_tidy import axis_values
from embedrm.experiments.value_labels import value_labels

# Fewer trials a stratum have no variance.
_LEAST = 2
_STREAM = 0x5A3
SIZES = ("training.n_annotations", "training.size")


@dataclass(frozen=True)
class Stratum:
    """Trials of a plan that are alike in what decides their cost.

    Attributes
    ----------
    values : dict of str to str
        Values of the axes, by their short names.
    size : int
        Different trials of the plan in it.
    drawn : list of int
        Places in the plan of those that were drawn, ascending.
    """

    values: dict[str, str]
    size: int
    drawn: list[int]


@dataclass(frozen=True)
class Sample:
    """What was drawn of a plan.

    Attributes
    ----------
    planned, different : int
        Trials of the plan, and different computations among them: each of these can be drawn.
    axes : list of str
        Paths by whose values the strata are made; none for a simple random sample.
    strata : list of Stratum
    random_state : int
    """

    planned: int
    different: int
    axes: list[str]
    strata: list[Stratum]
    random_state: int

    @property
    def drawn(self) -> list[int]:
        """Places in the plan of all that were drawn, ascending."""
        return sorted(number for stratum in self.strata for number in stratum.drawn)

    def to_dict(self) -> dict[str, Any]:
        """Return the sample as plain data."""
        return asdict(self)


def draw_sample(strata: Mapping[tuple[str, ...], Sequence[int]], n: int, random_state: int) -> dict[Any, list[int]]:
    """Draw n members of all strata together, without replacement.

    Parameters
    ----------
    strata : mapping of key to members
    n : int
        All members are taken where there are no more.
    random_state : int

    Returns
    -------
    dict of key to list
        Members drawn, in their order. Two of every stratum (or the one that there is), as far as n allows; what is left goes
        in proportion to size. Within a stratum every member is as likely to be drawn as any other.
    """
    sizes = {key: len(members) for key, members in strata.items()}
    total = sum(sizes.values())
    take = dict.fromkeys(sizes, 0)
    for _ in range(min(n, total)):
        # first whoever has least of two, then whoever is furthest below a share in proportion
        open_ = [key for key in sizes if take[key] < sizes[key]]
        short = [key for key in open_ if take[key] < _LEAST]
        if short:
            chosen = min(short, key=lambda key: take[key])
        else:
            chosen = max(open_, key=lambda key: sizes[key] * n / total - take[key])
        take[chosen] += 1
    rng = np.random.default_rng([random_state, _STREAM])
    return {
        key: sorted(int(m) for m in rng.choice(np.asarray(members), take[key], replace=False))
        for key, members in strata.items()
    }


class SampledSweep(Sweep):
    """A sweep of which a random sample of trials is computed: what a whole plan costs, measured on a part of it.

    Parameters
    ----------
    experiment, space, seeds
        See :class:`embedrm.experiments.sweep.Sweep`.
    n : int
        Trials to draw, at least 2. They are finished for the whole sweep too, when it is run in the same folder.
    random_state : int
        Of the draw.

    Notes
    -----
    Strata are made by the settings of the model that vary and by the number of annotations, as many of these as leave two
    trials a stratum; :func:`embedrm.experiments.sweep_cost.plan_cost` weighs each by its size.
    """

    def __init__(
        self,
        experiment: Experiment | Mapping[str, Any],
        space: Space | Mapping[str, Any] | None = None,
        seeds: int | Sequence[int] | None = None,
        *,
        n: int,
        random_state: int = 0,
    ) -> None:
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < _LEAST:
            raise InvalidInputError(f"a sample of a plan needs at least {_LEAST} trials, got {n!r}")
        super().__init__(experiment, space, seeds)
        self.n, self.random_state = int(n), random_state

    @classmethod
    def of(cls, sweep: Sweep, n: int, random_state: int = 0) -> SampledSweep:
        """Return the sampled form of a sweep."""
        return cls(sweep.experiment, sweep.space, sweep.seeds, n=n, random_state=random_state)

    def plan(self, bench: Workbench | None = None) -> list[Trial]:
        """Return the trials that were drawn, in the order of the whole plan."""
        whole = super().plan(bench)
        values = {}
        for path, found in axis_values(self).items():
            labels = value_labels(found)
            values[path] = [labels[shown(value)] for value in found]
        alone = [trial for trial in whole if not trial.shared]
        axes = [path for path in values if path.partition(".")[0] in MODEL_PARTS and len(set(values[path])) > 1]
        axes += [path for path in SIZES if path in values and len(set(values[path])) > 1]
        strata = _strata(alone, values, axes)
        while axes and len(strata) * _LEAST > self.n:
            axes = axes[:-1]
            strata = _strata(alone, values, axes)
        drawn = draw_sample(strata, self.n, self.random_state)
        self.sample = Sample(
            len(whole),
            len(alone),
            axes,
            [Stratum(dict(zip(axes, key)), len(members), drawn[key]) for key, members in strata.items()],
            self.random_state,
        )
        return [whole[number] for number in self.sample.drawn]

    def look(self, folder: str | Path, **options: Any) -> dict[str, int]:
        """Count as :meth:`Sweep.look` does, of the sample; ``whole_plan`` are the trials that it is drawn from."""
        found = super().look(folder, **options)
        return found if self.sample is None else {**found, "whole_plan": self.sample.planned}


def _strata(
    trials: Sequence[Trial], values: Mapping[str, Sequence[str]], axes: Sequence[str]
) -> dict[tuple[str, ...], list[int]]:
    """Places in the plan by the values of the axes."""
    out: dict[tuple[str, ...], list[int]] = {}
    for trial in trials:
        out.setdefault(tuple(values[path][trial.variant] for path in axes), []).append(trial.number)
    return out
