"""What the commands on experiment files share: reading a file with --set on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embedrm.errors import InvalidInputError

if TYPE_CHECKING:
    from embedrm.experiments.experiment import Experiment
    from embedrm.experiments.sweep import Sweep


def load_experiment(file: str, settings: Sequence[str] | None) -> Experiment:
    """Return the experiment of a file with the words of ``--set`` in place of its own settings.

    Raises
    ------
    DataError
        For what is wrong in the file, with the line.
    InvalidInputError
        For what is wrong in a word, with the nearest name.
    """
    from embedrm.experiments.experiment import Experiment, read_settings
    from embedrm.experiments.studies import find_file

    given = read_settings(settings)
    experiment = Experiment.from_file(find_file(file))
    if not given:
        return experiment
    try:
        return experiment.with_settings(given)
    except InvalidInputError as error:
        raise InvalidInputError(f"--set {' '.join(settings or ())}: {error}") from None


def build_sweep(
    file: str,
    settings: Sequence[str] | None,
    *,
    grid: Sequence[str] | None,
    around: Sequence[str] | None,
    random: Sequence[str] | None,
    samples: int | None,
    random_state: int,
    seeds: int | None,
) -> Sweep:
    """Return the sweep of a file and the options: axes of the options are added to those of the file, or replace them."""
    from embedrm.experiments.experiment import read_words
    from embedrm.experiments.studies import find_file
    from embedrm.experiments.sweep import Sweep
    from embedrm.experiments.sweep_space import axes_of, read_axes

    if settings is None and not any((grid, around, random, samples)):
        made = Sweep.from_file(find_file(file)) if seeds is None else Sweep(load_experiment(file, None), seeds=seeds)
        if not made.space.paths and len(made.seeds) == 1:
            raise _nothing_varies(file)
        return made
    experiment = load_experiment(file, settings)
    space = dict(experiment.config.sweep)
    given: dict[str, dict[str, Any]] = {
        "grid": read_axes(grid, "--grid"),
        "around": read_axes(around, "--around"),
        "random": read_words(random, "--random"),
    }
    named = {path for axes in given.values() for path in axes}
    for kind, axes in given.items():
        # an axis of the command line takes the place of the file's, of whatever kind that is
        kept = {path: values for path, values in axes_of(space.get(kind), kind).items() if path not in named}
        space[kind] = {**kept, **axes}
        if not space[kind]:
            del space[kind]
    if random:
        space["random_state"] = random_state
    if "random" not in space:
        space.pop("samples", None)
    if samples is not None:
        space["samples"] = samples
    if not space and seeds in (None, 1):
        raise _nothing_varies(file)
    return Sweep(experiment, space, seeds)


def _nothing_varies(file: str) -> InvalidInputError:
    return InvalidInputError(
        f"nothing varies: {file} has no section 'sweep'; give --grid, --around, --random or --seeds, or use 'embedrm run'"
    )
