"""What trials share, made once: data, vectors, splits, draws of training sets and fitted features; and one trial itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.experiments.choices import Choices
from embedrm.experiments.experiment_config import Config, names_of
from embedrm.experiments.experiment_models import build_model, seeded
from embedrm.experiments.judging import Judged
from embedrm.experiments.mapped_pages import give_back
from embedrm.experiments.released import candidate_facts, load_candidates
from embedrm.experiments.running_features import sharing_work, spared
from embedrm.experiments.training_sets import Prepared
from embedrm.parameters import n_parameters
from embedrm.preferences import EmbeddedPreferences
from embedrm.progress import Progress, silent

if TYPE_CHECKING:
    from embedrm.reward_model import RewardModel
    from embedrm.store import EmbeddingStore

DEFAULT_SPLITS = ("validation", "test")


class Workbench:
    """Loads and encodes what configurations name, each once.

    Parameters
    ----------
    store : EmbeddingStore, optional
        The user's default store where absent; False encodes afresh.
    preferences : EmbeddedPreferences, optional
        Vectors at hand, in place of the sections ``data`` and ``encoder`` of every configuration; with the splits and
        domains that the configuration names.
    known : mapping, optional
        Facts of data by the digest of their files, which spare reading them for a fingerprint; new ones are added.
    progress : Progress
    """

    def __init__(
        self,
        store: EmbeddingStore | bool | None = None,
        preferences: EmbeddedPreferences | None = None,
        known: dict[str, Any] | None = None,
        progress: Progress = silent,
    ) -> None:
        self.store, self.preferences, self.progress = store, preferences, progress
        self.known: dict[str, Any] = {} if known is None else known
        self._cache: dict[tuple[str, str], Any] = {}

    def _once(self, kind: str, key: Any, make: Callable[[], Any]) -> Any:
        place = (kind, repr(key))
        if place not in self._cache:
            self._cache[place] = make()
        return self._cache[place]

    # -- facts for a fingerprint -----------------------------------------------------------------------------------

    def data_facts(self, config: Config) -> dict[str, Any]:
        """Return ``digest`` (of the content), ``splits`` and ``domains`` of the data, and their ``name``."""
        if self.preferences is not None:
            return self._once("facts", "given", lambda: _given_facts(self.preferences))
        setting, seed = config.data.release, config.data.random_state
        if setting is not None:
            parts = self._released(config)
            return self._once("facts", (setting, seed), lambda: candidate_facts(parts, setting, seed))
        return self._once("facts", (config.data.paths, config.data.reading()), lambda: self._file_facts(config))

    def _file_facts(self, config: Config) -> dict[str, Any]:
        _check_name(config)
        key = _files_digest(config)
        if key is not None and key in self.known:
            return dict(self.known[key])
        data = self.dataset(config)
        facts = {
            "digest": data.fingerprint(),
            "splits": sorted(set(data.prompts["split"]) - {""}),
            "domains": list(data.domains),
            "name": data.name or "unnamed",
        }
        if key is not None:
            self.known[key] = facts
        return facts

    def splits(self, config: Config) -> list[str]:
        """Return the splits that there are: the data's own, or those that are made."""
        return self.data_facts(config)["splits"] or sorted(config.data.shares)

    def judged_splits(self, config: Config) -> list[str]:
        """Return the splits to evaluate on, checked."""
        present, wanted = self.splits(config), config.evaluation.splits
        if wanted is None:
            chosen = [split for split in DEFAULT_SPLITS if split in present]
        else:
            chosen = [wanted] if isinstance(wanted, str) else list(wanted)
        for split in (config.training.split, *chosen):
            if split not in present:
                raise unknown_name("split of the data", split, present)
        if not chosen:
            raise InvalidInputError(
                f"there is neither 'validation' nor 'test' among the splits ({', '.join(present)}); name what to evaluate "
                "on: evaluation.splits"
            )
        if config.training.split in chosen:
            raise InvalidInputError(
                f"the split {config.training.split!r} is fitted on and evaluated on; name two different ones"
            )
        held = config.parts.get("calibrated", {}).get("split")
        if held is not None and held in chosen:
            raise InvalidInputError(
                f"the split {held!r} is calibrated on and evaluated on; name others to evaluate on: evaluation.splits"
            )
        return chosen

    def encoder(self, config: Config) -> Any:
        """Return the encoder; it loads nothing until it encodes."""
        from embedrm.encoders import load_encoder

        section = config.encoder
        return self._once(
            "encoder",
            (section.name, sorted(section.options.items(), key=str)),
            lambda: load_encoder(section.name, **section.options),
        )

    def vector_facts(self, config: Config) -> dict[str, Any]:
        """Return the encoder's digest and the views that it makes."""
        if self.preferences is not None:
            return {"given": sorted(self.preferences.responses.views)}
        if config.data.release is not None:
            return {"given": sorted(self.encoded(config).responses.views)}

        def facts() -> dict[str, Any]:
            from embedrm.encoding import wanted_layers

            encoder = self.encoder(config)
            layers = wanted_layers(encoder, config.encoder.layers, tuple(config.encoder.sides))
            # features, and so what a seed draws for them, have the order of the layers
            views = {side: list(map(str, chosen)) for side, chosen in layers.items()}
            return {"encoder": encoder.fingerprint_digest(), "views": views}

        return self._once("vectors", config.encoder, facts)

    # -- what is fitted on -----------------------------------------------------------------------------------------

    def dataset(self, config: Config) -> Any:
        """Return the data as they are read, without the choice of domains."""
        section = config.data
        return self._once("data", (section.paths, section.reading()), lambda: _read(config, self.progress))

    def encoded(self, config: Config) -> EmbeddedPreferences:
        """Return all pairs with their vectors; of released arrays, those of the training split."""
        if self.preferences is not None:
            return self.preferences
        if config.data.release is not None:
            return self._released(config)[config.training.split]
        data, encoder = config.data, config.encoder

        def make() -> EmbeddedPreferences:
            from embedrm.encoding import encode

            dataset = self.dataset(config)
            if not self.data_facts(config)["splits"]:
                dataset = dataset.with_split(data.shares, random_state=data.random_state)
            options: dict[str, Any] = {"layers": encoder.layers, "sides": tuple(encoder.sides), "store": self.store}
            return encode(dataset, self.encoder(config), progress=self.progress, **options)

        return self._once("encoded", (data.paths, data.reading(), data.shares, data.random_state, encoder), make)

    def _released(self, config: Config) -> dict[str, EmbeddedPreferences]:
        setting, seed = str(config.data.release), config.data.random_state
        return self._once("released", (setting, seed), lambda: load_candidates(setting, seed))

    def prepared(self, config: Config) -> Prepared:
        """Return what every trial of this configuration shares; parts are made once, whatever configurations share them."""
        data, training, evaluation = config.data, config.training, config.evaluation
        judging = (evaluation.splits, evaluation.domains, evaluation.best_of_n, evaluation.prompts)
        key = (data, config.encoder, training, judging)

        def make() -> Prepared:
            chosen = self.judged_splits(config)
            whole = self.encoded(config)
            fitted = self._once(
                "training",
                (data, config.encoder, training.split, training.domains),
                lambda: _training(config, whole),
            )
            # released arrays have vectors of their own for each split
            apart = {} if self.preferences is not None or data.release is None else self._released(config)
            judged = [
                self._once(
                    "judged",
                    (data, config.encoder, name, evaluation.domains, evaluation.best_of_n, evaluation.prompts),
                    lambda name=name: _judged(config, apart.get(name, whole), name),  # type: ignore[misc]
                )
                for name in chosen
            ]
            # a calibration on a split of its own sees the chosen domains alone, too
            inside = whole if data.domains is None else whole[_in_domains(whole.domain, data.domains, "data.domains")]
            return Prepared(inside, fitted, judged, training)

        return self._once("prepared", key, make)


def _training(config: Config, whole: EmbeddedPreferences) -> EmbeddedPreferences:
    """Return the pairs of the training split in the chosen domains."""
    split, domain = whole.responses.split[whole.prompt_rows], whole.domain
    allowed = _in_domains(domain, config.data.domains, "data.domains")
    wanted = _in_domains(domain, config.training.domains, "training.domains")
    training = whole[(split == config.training.split) & allowed & wanted]
    if not len(training):
        raise InvalidInputError(
            f"no pair of the split {config.training.split!r} is in the chosen domains; choose others to fit on"
        )
    _ = training.active, training.local_pairs
    return training


def _judged(config: Config, whole: EmbeddedPreferences, name: str) -> Judged:
    """Return the pairs of one split in the chosen domains, to be judged on."""
    split, domain = whole.responses.split[whole.prompt_rows], whole.domain
    allowed = _in_domains(domain, config.data.domains, "data.domains")
    inside = allowed & _in_domains(domain, config.evaluation.domains, "evaluation.domains")
    part = whole[(split == name) & inside]
    if not len(part):
        raise InvalidInputError(f"no pair of the split {name!r} is in the chosen domains; choose others to evaluate on")
    section = config.evaluation
    if section.best_of_n is None:
        return Judged.of(name, part)
    # candidates are of every prompt of the split and the domains, with a pair or without
    responses = whole.responses
    mask = responses.split == name
    for names in (names_of(config.data.domains), names_of(section.domains)):
        mask &= np.isin(responses.domain, responses.domain if names is None else names)
    return Judged.of(name, part, Choices.of(name, responses, mask, section.best_of_n, section.prompts))


@sharing_work
def run_trial(parts: Mapping[str, Any], seed: int, prepared: Prepared) -> tuple[dict[str, Any], RewardModel]:
    """Fit one model for one seed and judge it.

    Returns
    -------
    facts : dict
        ``metrics`` by split (:meth:`Judged.judge`), ``n_train`` (pairs), ``parameters``, ``seconds`` and ``core_seconds``
        of the fit, and ``score_seconds`` and ``score_core_seconds``, with what an earlier trial had made for it (features,
        bins, matrices), of which ``spared_seconds`` were not spent again; and ``draw_core_seconds`` of the training set
        (near zero where an earlier trial has drawn it).
    model : RewardModel
        Fitted.
    """
    from embedrm.composites.calibrated import CalibratedRewardModel

    model = seeded(build_model(parts), seed)
    drawing = time.process_time()
    training = prepared.draw(seed)
    spared()
    began, cores = time.perf_counter(), time.process_time()
    if isinstance(model, CalibratedRewardModel) and model.split is not None:
        model.fit_apart(training, prepared.whole.in_split(model.split))
    else:
        model.fit(training)
    fitted, spent = time.perf_counter(), time.process_time() - cores
    if any(one.choices is not None for one in prepared.judged):
        # large arrays: what was read to fit makes room for what is read to choose
        give_back(training.responses)
    # what another trial paid for is part of what this one costs
    not_spent = spared()
    scoring = time.process_time()
    metrics = {one.name: one.judge(model) for one in prepared.judged}
    scored, not_scored = (time.perf_counter() - fitted, time.process_time() - scoring), spared()
    return {
        "metrics": metrics,
        "n_train": len(training),
        "parameters": n_parameters(model),
        "seconds": fitted - began + not_spent[0],
        "core_seconds": spent + not_spent[1],
        "spared_seconds": not_spent[0] + not_scored[0],
        "score_seconds": scored[0] + not_scored[0],
        "score_core_seconds": scored[1] + not_scored[1],
        "draw_core_seconds": cores - drawing,
    }, model


def _check_name(config: Config) -> None:
    """Raise for a name that is neither a file nor a bundled data set, and for a bundled one that is to be read otherwise."""
    from embedrm.datasets.bundled import bundled_names

    section, names = config.data, bundled_names()
    if len(section.paths) == 1 and section.paths[0] in names:
        default = type(section)().reading()
        given = [key for key, value in section.reading().items() if value != default[key]]
        if given:
            raise InvalidInputError(
                f"{section.paths[0]!r} is a bundled data set, read as it is; leave out data.{given[0]}"
            )
        return
    for word in section.paths:
        if not Path(word).suffix and "/" not in word and not Path(word).exists():
            raise unknown_name("data set (and no such file)", word, names)


def _read(config: Config, progress: Progress) -> Any:
    from embedrm.datasets import read_preferences
    from embedrm.datasets.bundled import bundled_names, load_bundled

    section = config.data
    if len(section.paths) == 1 and section.paths[0] in bundled_names():
        return load_bundled(section.paths[0])
    return read_preferences(section.paths, progress=progress, **section.reading())


def _files_digest(config: Config) -> str | None:
    """Digest of the bytes of the files and of how they are read; None where a path is no file."""
    from embedrm import __version__
    from embedrm.datasets.bundled import bundled_names, bundled_paths

    section = config.data
    paths: list[Any] = section.paths
    if len(paths) == 1 and paths[0] in bundled_names():
        paths = list(bundled_paths(paths[0]))
    digest = blake2b(f"{__version__}|{sorted(section.reading().items())}".encode(), digest_size=16)
    try:
        for path in paths:
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
            digest.update(b"|")
    except OSError:
        return None
    return digest.hexdigest()


def _given_facts(preferences: EmbeddedPreferences | None) -> dict[str, Any]:
    from embedrm.numerics.digest import array_digest

    assert preferences is not None
    r = preferences.responses
    arrays: dict[str, Any] = dict(r.views)
    for name in ("prompt_of", "gold"):
        arrays[f"responses/{name}"] = getattr(r, name)
    for name in ("domain", "group", "split"):
        arrays[f"prompts/{name}"] = np.asarray(getattr(r, name)).astype("S")
    for name, values in r.covariates.items():
        arrays[f"covariates/{name}"] = values
    for name in ("pairs", "weight", "margin", "outcome"):
        arrays[f"pairs/{name}"] = getattr(preferences, name)
    splits = sorted(set(r.split[np.unique(preferences.prompt_rows)].tolist()) - {""})
    return {"digest": array_digest(arrays), "splits": splits, "domains": list(preferences.domains), "name": "given"}


def _in_domains(domain: NDArray[Any], wanted: Any, who: str) -> NDArray[np.bool_]:
    names = names_of(wanted)
    if names is None:
        return np.ones(len(domain), dtype=bool)
    present = np.unique(domain).tolist()
    for name in names:
        if name not in present:
            raise unknown_name(f"domain in {who}", name, present)
    return np.isin(domain, names)
