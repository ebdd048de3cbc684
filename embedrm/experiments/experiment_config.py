"""A checked configuration: its sections, the parts of its model, its seeds and what varies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from embedrm.errors import unknown_name
from embedrm.experiments.experiment_files import Misfit, Place
from embedrm.experiments.experiment_sections import (
    DataSection,
    EncoderSection,
    EvaluationSection,
    Section,
    TrainingSection,
)
from embedrm.experiments.experiment_values import check_value

MOST_SEEDS, LARGEST_SEED = 100_000, 2**31 - 1

SECTIONS: dict[str, type[Section]] = {
    "data": DataSection,
    "encoder": EncoderSection,
    "training": TrainingSection,
    "evaluation": EvaluationSection,
}
MODEL_PARTS = {
    "featurizer": "terms",
    "head": "name",
    "model": "name",
    "router": "name",
    "ensemble": "n_members",
    "calibrated": "method",
}
"""The sections that make the model, each with its main value."""
KEYS = ("title", "data", "encoder", "training", *MODEL_PARTS, "evaluation", "seeds", "sweep")


@dataclass(frozen=True)
class Config:
    """A checked configuration; :class:`embedrm.experiments.experiment.Experiment` is made of one.

    Attributes
    ----------
    title : str
    data, encoder, training, evaluation : Section
    parts : dict of str to dict
        The sections that make the model, as plain data.
    seeds : tuple of int
        Each trains once; see :func:`embedrm.experiments.experiment_models.seeded`.
    sweep : dict
        What varies, for a sweep; see :mod:`embedrm.experiments.sweep_space`.
    """

    title: str
    data: DataSection
    encoder: EncoderSection
    training: TrainingSection
    evaluation: EvaluationSection
    parts: dict[str, dict[str, Any]]
    seeds: tuple[int, ...]
    sweep: dict[str, Any]

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Config:
        """Return the configuration of plain data.

        Raises
        ------
        Misfit
            For an unknown key, with the nearest one, and a value of a wrong type, with its place.
        """
        for key in data:
            if key not in KEYS:
                raise Misfit(_unknown(key), (str(key),))
        given = {name: {} if data.get(name) is None else data[name] for name in SECTIONS}
        parts = {name: _part(data[name], name) for name in MODEL_PARTS if data.get(name) is not None}
        title = check_value(data.get("title", ""), str, "title", "an experiment", ("title",))
        sweep = data.get("sweep") or {}
        if not isinstance(sweep, Mapping):
            raise Misfit(f"'sweep' must be a mapping, got {sweep!r:.80}.", ("sweep",))
        return cls(
            title,
            DataSection.read(given["data"], "data"),
            EncoderSection.read(given["encoder"], "encoder"),
            TrainingSection.read(given["training"], "training"),
            EvaluationSection.read(given["evaluation"], "evaluation"),
            parts,
            read_seeds(data.get("seeds", 1)),
            dict(sweep),
        )

    def written(self) -> dict[str, Any]:
        """Return plain data that :meth:`read` reads back, without what is default."""
        out: dict[str, Any] = {"title": self.title} if self.title else {}
        for name in KEYS:
            if name in SECTIONS:
                values = getattr(self, name).written()
                if name in ("data", "encoder"):
                    # said always, default or not
                    main = SECTIONS[name].main
                    values = {main: getattr(getattr(self, name), main), **values}
                if values:
                    out[name] = values
            elif name in self.parts:
                out[name] = self.parts[name]
        if self.seeds != (0,):
            whole = self.seeds == tuple(range(len(self.seeds)))
            out["seeds"] = len(self.seeds) if whole else list(self.seeds)
        if self.sweep:
            out["sweep"] = self.sweep
        return out


def _part(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    return {MODEL_PARTS[name]: value}


def _unknown(key: Any) -> str:
    """Say that a key is not known, with the nearest one: of the sections, or of what is in one of them."""
    message = str(unknown_name("key of an experiment", key, KEYS))
    homes = [name for name, kind in SECTIONS.items() if key in {f.name for f in fields(kind)}]
    return message + (f" It is a key of the section {homes[0]!r}." if homes else "")


def read_seeds(value: Any, place: Place = ("seeds",)) -> tuple[int, ...]:
    """Return seeds: a number n means 0 to n - 1, a list means itself."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_SEEDS:
        return tuple(range(value))
    whole = isinstance(value, (list, tuple)) and bool(value)
    if whole and all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= LARGEST_SEED for v in value):
        if len(set(value)) < len(value):
            raise Misfit("'seeds' names one seed twice; name each once.", place)
        return tuple(value)
    known = f"a number of seeds from 1 to {MOST_SEEDS:,}, or a list of whole numbers from 0 to {LARGEST_SEED:,}"
    raise Misfit(f"'seeds' must be {known}; got {value!r:.80}.", place)


def names_of(value: str | Iterable[str] | None) -> list[str] | None:
    """Return one name or several as a sorted list without repeats; None for all."""
    if value is None:
        return None
    return sorted({value} if isinstance(value, str) else set(value))
