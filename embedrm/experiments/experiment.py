"""An experiment: a file of settings that says everything its result depends on, and runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from embedrm.errors import DataError, InvalidInputError
from embedrm.experiments.experiment_config import MODEL_PARTS, SECTIONS, Config
from embedrm.experiments.experiment_files import Misfit, line_of, read_file, read_value, to_yaml
from embedrm.experiments.experiment_models import build_model, identity, reads_prompts, seeded, seeds_of
from embedrm.experiments.running import Workbench

SCHEMA = 1


class Experiment:
    """One configuration: data, encoder, training set, model, evaluation and seeds.

    Parameters
    ----------
    data : mapping, optional
        The sections ``title, data, encoder, training, featurizer, head, model, router, ensemble, calibrated, evaluation,
        seeds`` and ``sweep``, as plain data. What is absent is default; a section may be written as its main value.

    Raises
    ------
    InvalidInputError
        For anything that is not known, with the nearest name, and for values of a wrong type.

    Examples
    --------
    >>> from embedrm.experiments.experiment import Experiment
    >>> experiment = Experiment({"head": {"name": "linear", "l2": 1}, "encoder": "hashing"})
    >>> experiment.with_settings({"head.l2": 0.1}).to_dict()["head"]
    {'name': 'linear', 'l2': 0.1}
    """

    def __init__(self, data: Mapping[str, Any] | None = None) -> None:
        self._data = _expanded(data or {})
        self.config = Config.read(self._data)
        self.model = build_model(self.config.parts)
        self._draws = bool(seeds_of(self.model))
        if reads_prompts(self.config.parts) and "prompt" not in self.config.encoder.sides:
            raise Misfit(
                "the model sends prompts to its experts, and encoder.sides leaves them out; add prompt.",
                ("encoder", "sides"),
            )

    @classmethod
    def from_file(cls, path: str | Path) -> Experiment:
        """Read a YAML or TOML file; what is wrong in it raises DataError with the line."""
        data, lines = read_file(path)
        try:
            return cls(data)
        except Misfit as error:
            raise DataError(str(error), path, line_of(lines, error.place)) from None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that give this experiment again, without what is default."""
        plain: dict[str, Any] = json.loads(json.dumps(self.config.written()))
        return plain

    def to_yaml(self) -> str:
        """Return the experiment as YAML."""
        return to_yaml(self.to_dict())

    def with_settings(self, settings: Mapping[str, Any]) -> Experiment:
        """Return the experiment with some values changed.

        Parameters
        ----------
        settings : mapping of dotted path to value
            Such as ``{"head.l2": 0.1, "encoder": "hashing", "head.objective.flip_rate": 0.2}``. A section that is named
            alone is replaced as a whole by a mapping; by a simple value its main value is, and where that names another
            head, model, router or encoder the parameters of the old one go with it. None takes a part of the model out.
        """
        return Experiment(changed(self._data, settings))

    def seed_matters(self) -> bool:
        """Whether a seed changes the result: the model draws, or the training set is drawn or annotated."""
        return self.config.training.draws or self._draws

    def identity(self, bench: Workbench, seed: int = 0) -> dict[str, Any]:
        """Return all that the result for one seed depends on, as JSON values; what :meth:`fingerprint` digests."""
        config = self.config
        facts = bench.data_facts(config)
        chosen = bench.judged_splits(config)
        made = None if facts["splits"] else {"shares": config.data.shares, "random_state": config.data.random_state}
        training: dict[str, Any] = {"split": config.training.split, "domains": _domains(config.training.domains)}
        if config.training.draws:
            training |= config.training.drawn_facts() | {"draw": seed}
        return {
            "schema": SCHEMA,
            "data": {"digest": facts["digest"], "made_splits": made, "domains": _domains(config.data.domains)},
            "vectors": bench.vector_facts(config),
            "training": training,
            "evaluation": {
                # their order changes no result
                "splits": sorted(chosen, reverse=True),
                "domains": _domains(config.evaluation.domains),
                **config.evaluation.choice_facts(),
            },
            "model": identity(seeded(build_model(config.parts), seed) if seed and self._draws else self.model),
        }

    def fingerprint(self, bench: Workbench | None = None, seed: int = 0) -> str:
        """Return 32 hex digits that change whenever the result for this seed may change.

        Data count by their content, the encoder by its weights and settings, the model by every parameter, default ones
        too. Titles, paths, the order of keys, how intervals are drawn and versions do not count; versions are told with
        every result, and a report says where results of several stand side by side. A seed that nothing draws by gives the
        fingerprint of any other seed. A part of a composite that is written out, where the composite would make the same
        one by itself, counts as another: it is computed again, never mistaken.
        """
        text = json.dumps(self.identity(bench or Workbench(), seed), sort_keys=True, separators=(",", ":"))
        return blake2b(text.encode(), digest_size=16).hexdigest()

    def run(self, **options: Any) -> Any:
        """Run every seed and return the report; see :func:`embedrm.experiments.experiment_run.run_experiment`."""
        from embedrm.experiments.experiment_run import run_experiment

        return run_experiment(self, **options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Experiment) and self.to_dict() == other.to_dict()

    def __repr__(self) -> str:
        name = f"{self.config.title!r}, " if self.config.title else ""
        return f"Experiment({name}{' '.join(repr(self.model).split())}, seeds={list(self.config.seeds)})"

    __hash__ = None  # type: ignore[assignment]


def _domains(value: Any) -> list[str] | None:
    from embedrm.experiments.experiment_config import names_of

    return names_of(value)


def section_mains() -> dict[str, str]:
    """Return the key of each section that a simple value in its place stands for."""
    return {**{name: kind.main for name, kind in SECTIONS.items()}, **MODEL_PARTS}


def _expanded(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data with every section that is a simple value written as a mapping; nested data are copied."""
    mains = section_mains()
    out: dict[str, Any] = {}
    for key, value in data.items():
        if key in mains and value is None:
            continue
        if key in mains and not isinstance(value, Mapping):
            value = {mains[key]: value}
        out[key] = _copied(value)
    return out


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, (list, tuple)) else value


# Parts that are named, whose parameters belong to the one that is named.
_NAMED = ("head", "model", "router", "encoder", "objective", "project", "pairing")


def changed(data: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data with dotted paths set; whole sections first, so that ``head=mlp head.l2=1`` means what it says."""
    mains = section_mains()
    out: dict[str, Any] = dict(data)
    for path in sorted(settings, key=lambda p: p.count(".")):
        value, names = _copied(settings[path]), path.split(".")
        if not all(names):
            raise InvalidInputError(f"a setting is named like head.l2, and {path!r} came")
        top = names[0]
        if len(names) == 1 and top in mains:
            if value is None and top in MODEL_PARTS:
                out.pop(top, None)
            elif isinstance(value, Mapping):
                out[top] = value
            else:
                before = dict(out.get(top) or {})
                renamed = top in _NAMED and before.get(mains[top]) != value
                out[top] = {mains[top]: value} if renamed else {**before, mains[top]: value}
            continue
        if len(names) == 1:
            out[top] = value
            continue
        # every mapping on the way is copied: others share the data
        here = out[top] = dict(out.get(top) or {})
        for i, name in enumerate(names[1:-1], 1):
            inside = here.get(name)
            if isinstance(inside, str) and name in _NAMED:
                inside = {"name": inside}
            if inside is not None and not isinstance(inside, Mapping):
                raise Misfit(f"{'.'.join(names[: i + 1])!r} is {inside!r:.40}, which has no {names[i + 1]!r}.", names)
            here[name] = dict(inside or {})
            here = here[name]
        last = names[-1]
        if last == "name" and len(names) == 2 and top in _NAMED and here.get("name") != value:
            here.clear()
        here[last] = value
    return out


def read_settings(items: Sequence[str] | None, option: str = "--set") -> dict[str, Any]:
    """Read ``PATH=VALUE`` words; a path that comes twice, and one without a value, raise."""
    return {path: read_value(text) for path, text in read_words(items, option).items()}


def read_words(items: Sequence[str] | None, option: str) -> dict[str, str]:
    """Read ``PATH=TEXT`` words as they are."""
    out: dict[str, str] = {}
    for item in items or ():
        path, equals, text = item.partition("=")
        path = path.strip()
        if not equals or not path:
            raise InvalidInputError(f"{option} expects PATH=VALUE such as head.l2=0.1, got {item!r}")
        if path in out:
            raise InvalidInputError(f"{option} gives {path!r} twice; give it once")
        out[path] = text.strip()
    return out
