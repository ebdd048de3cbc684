"""The literal arms of Namgoong et al. (2024): encoders that are tuned, kept in a work folder, and found there again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedrm.errors import InvalidInputError
from embedrm.experiments.studied_domains import LEAST_GROUPS
from embedrm.progress import Progress, Step, silent
from embedrm.store.files import write_json
from embedrm.store.stats import default_path
from embedrm.tuning.config import TuningConfig

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
    from embedrm.encoders import Encoder

SINGLE, RODOS, MORE, ARLISS = "single encoder", "RODOS", "MoRE", "ARLISS"
_CLOCK_SECONDS = 5.0


@dataclass(frozen=True)
class LiteralPreset:
    """How much is tuned.

    Attributes
    ----------
    n_pairs : int or None
        Training pairs of all domains together, the same for every arm; all there are where None.
    epochs, router_epochs : int
        Passes over the pairs, and over the routers' prompts.
    batch_tokens, max_length : int
        Tokens of a step, and the most of a text.
    """

    n_pairs: int | None
    epochs: int = 3
    router_epochs: int = 6
    batch_tokens: int = 1024
    max_length: int = 128


LITERAL_PRESETS = {"quick": LiteralPreset(2_000), "full": LiteralPreset(None)}
"""``quick`` is the largest round number of pairs that ends within 40 minutes on two cores, with a margin for slow ones."""


@dataclass(frozen=True)
class Arm:
    """One thing to tune: an encoder with its head, or a network of experts.

    Attributes
    ----------
    name : str
        Of its folder.
    of : str
        The variant it belongs to.
    config : TuningConfig
    data : PreferenceDataset
    domain : str
        Whose reward it is; empty for all domains, and for routers.
    n_experts : int
        0 for an encoder.
    """

    name: str
    of: str
    config: TuningConfig
    data: PreferenceDataset
    domain: str = ""
    n_experts: int = 0


def tuning_base(encoder: Encoder | str | None, preset: LiteralPreset) -> TuningConfig:
    """Return the configuration that all arms share: full tuning of the encoder that the analogues keep frozen.

    Raises
    ------
    InvalidInputError
        An encoder that cannot be tuned.
    """
    from embedrm.encoders import DEFAULT_ENCODER, load_encoder
    from embedrm.encoders.sentence import SentenceEncoder
    from embedrm.tuning.base import find_base

    found = load_encoder(encoder or DEFAULT_ENCODER) if encoder is None or isinstance(encoder, str) else encoder
    if not isinstance(found, SentenceEncoder):
        raise InvalidInputError(
            f"literal arms tune the encoder, and a {type(found).__name__} cannot be tuned. Give a sentence-transformers "
            "or Hugging Face encoder, or leave the literal arms out."
        )
    limit = min(preset.max_length, found.token_limit or preset.max_length)
    config = TuningConfig(
        base=found.model, revision=found.revision, method="full", epochs=preset.epochs,
        batch_tokens=preset.batch_tokens, max_length=limit, checkpoint_every=25,
    )  # fmt: skip
    find_base(config)
    return config


def drawn_rows(data: PreferenceDataset, n_pairs: int | None, random_state: int = 0) -> np.ndarray:
    """Rows of training pairs: whole prompt groups, domains by turns, the one with the fewest pairs so far first.

    Parameters
    ----------
    data : PreferenceDataset
        With splits.
    n_pairs : int or None
        The last group drawn may exceed it; None takes all.
    """
    train, domains, groups = _training(data)
    rows = np.flatnonzero(train)
    if n_pairs is None or n_pairs >= len(rows):
        return rows
    rng = np.random.default_rng(random_state)
    waiting: dict[str, list[np.ndarray]] = {}
    for domain in np.unique(domains[rows].astype(str)).tolist():
        own = rows[domains[rows] == domain]
        names, code = np.unique(groups[own].astype(str), return_inverse=True)
        waiting[domain] = [own[code == g] for g in rng.permutation(len(names))]
    taken = dict.fromkeys(waiting, 0)
    chosen: list[np.ndarray] = []
    while sum(taken.values()) < n_pairs and any(waiting.values()):
        domain = min((d for d in waiting if waiting[d]), key=lambda d: (taken[d], d))
        part = waiting[domain].pop()
        chosen.append(part)
        taken[domain] += len(part)
    return np.sort(np.concatenate(chosen))


def _training(data: PreferenceDataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mask of the training pairs in domains that have enough prompt groups, and all pairs' domains and groups."""
    domains, groups = data.pair_domains(), data.pair_groups()
    splits = data.response_splits()[data.pairs["chosen"].to_numpy()]
    train = (splits == "train") & (data.pairs["weight"].to_numpy() > 0)
    for domain in np.unique(domains[train].astype(str)).tolist():
        own = train & (domains == domain)
        if len(np.unique(groups[own].astype(str))) < LEAST_GROUPS:
            train &= domains != domain
    return train, domains, groups


def arms(train: PreferenceDataset, config: TuningConfig, router_epochs: int) -> list[Arm]:
    """Return everything that is tuned, in the order in which it is done.

    Parameters
    ----------
    train : PreferenceDataset
        The training pairs alone.
    config : TuningConfig
        Of :func:`tuning_base`.
    """
    pairs_of = train.pair_domains()
    domains = np.unique(pairs_of.astype(str)).tolist()
    if len(domains) < 2:
        raise InvalidInputError(
            f"literal arms need training pairs of at least 2 domains, each of at least {LEAST_GROUPS} prompt groups; got "
            f"{', '.join(domains) or 'none'}. Give data of more domains."
        )
    own = {domain: train.subset(pairs_of == domain).compact() for domain in domains}
    found = [Arm("single", SINGLE, config, train)]
    lora = replace(config, method="lora")
    for of, one in ((RODOS, config), (ARLISS, lora)):
        key = of.lower()
        route = replace(one, objective="domain", epochs=router_epochs)
        found += [Arm(f"{key}-{i:02d}", of, one, own[d], d) for i, d in enumerate(domains)]
        found.append(Arm(f"{key}-router", of, route, train))
    return [*found, Arm("more", MORE, config, train, n_experts=len(domains))]


def work_folder(train: PreferenceDataset, config: TuningConfig, router_epochs: int) -> Path:
    """Return the folder of these arms under EMBEDRM_HOME: one for each configuration, base and set of pairs."""
    from embedrm.tuning.base import base_digest, find_base

    settings = config.to_dict()
    for free in ("base", "revision", "checkpoint_every", "threads"):
        del settings[free]
    facts = {
        "config": settings,
        "router_epochs": router_epochs,
        "base": base_digest(find_base(config)),
        "data": train.fingerprint(),
    }
    key = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8).hexdigest()
    return default_path().parent / "literal" / key


def open_arm(arm: Arm, folder: Path) -> Any:
    """Return a tuned arm from the work folder; None where it is not there yet."""
    from embedrm.tuning.tuned import TunedEncoder
    from embedrm.tuning.tuned_experts import TunedExperts

    place = folder / arm.name
    if not place.is_dir():
        return None
    return TunedExperts.load(place) if arm.n_experts else TunedEncoder.load(place)


def tune_arms(wanted: list[Arm], folder: Path, progress: Progress = silent) -> dict[str, Any]:
    """Tune what is not there yet, and return all arms by name.

    A kill loses the steps since the last checkpoint of the arm at hand; the arms before it are found again.
    """
    from embedrm.tuning.tuned import TunedEncoder
    from embedrm.tuning.tuned_experts import TunedExperts

    found: dict[str, Any] = {}
    for i, arm in enumerate(wanted):
        tuned = open_arm(arm, folder)
        if tuned is None:
            made = TunedExperts(arm.config, arm.n_experts) if arm.n_experts else TunedEncoder(arm.config)
            clock = _Clock(folder, arm.name, _labelled(progress, f"{arm.name} ({i + 1} of {len(wanted)})"))
            tuned = made.fit(arm.data, folder / arm.name, progress=clock)
            clock.write()
        found[arm.name] = tuned
    return found


def core_seconds(wanted: list[Arm], folder: Path) -> dict[str, float]:
    """Processor seconds of tuning by arm, over all parts of an interrupted run; up to a few seconds less than spent."""
    return {arm.name: float(_read_clock(folder, arm.name)) for arm in wanted}


def _labelled(progress: Progress, label: str) -> Progress:
    return lambda own: progress(f"tune {label}")


def _read_clock(folder: Path, name: str) -> float:
    path = folder / f"{name}.seconds.json"
    return float(json.loads(path.read_text(encoding="utf-8"))["core_seconds"]) if path.is_file() else 0.0


class _Clock:
    """A progress that also writes down the processor time spent, so that a kill does not lose it."""

    def __init__(self, folder: Path, name: str, progress: Progress) -> None:
        self.folder, self.name, self.progress = folder, name, progress
        self.before = _read_clock(folder, name)
        self.began, self.last = time.process_time(), time.monotonic()

    def __call__(self, label: str) -> Step:
        step = self.progress(label)

        def counted(done: int, total: int) -> None:
            if time.monotonic() - self.last > _CLOCK_SECONDS:
                self.write()
            step(done, total)

        return counted

    def write(self) -> None:
        """Write what was spent so far."""
        self.last = time.monotonic()
        os.makedirs(self.folder, exist_ok=True)
        spent = self.before + time.process_time() - self.began
        write_json(self.folder, f"{self.name}.seconds.json", {"core_seconds": spent})


def estimate_arms(wanted: list[Arm], folder: Path) -> Mapping[str, float]:
    """Estimate seconds, memory and disk of the arms that are not there yet, from a few timed steps of either method.

    Returns
    -------
    mapping
        ``arms`` (how many are left), ``seconds``, ``rate`` (seconds a token of the slower method), ``tokens`` (of an epoch
        over all pairs), ``memory_bytes``, ``disk_bytes``.
    """
    from embedrm.tuning.base import find_base
    from embedrm.tuning.tuned import TunedEncoder

    left = [arm for arm in wanted if not (folder / arm.name).is_dir()]
    whole = next(arm for arm in wanted if arm.of == SINGLE)
    rate: dict[str, float] = {}
    tokens = memory = 0.0
    whole_bytes = find_base(whole.config).n_parameters() * 4
    for method in sorted({arm.config.method for arm in left}):
        one = TunedEncoder(replace(whole.config, method=method, epochs=1)).estimate(whole.data)
        rate[method] = one.seconds / one.tokens
        tokens, memory = one.tokens, max(memory, one.memory_bytes)
    seconds = 0.0
    for arm in left:
        share = len(arm.data) / len(whole.data) * tokens * arm.config.epochs
        if arm.config.objective == "domain":
            share *= _PROMPTS_SHARE
        seconds += rate[arm.config.method] * share * (_EXPERTS_COST if arm.n_experts else 1.0)
    return {
        "arms": len(left),
        "seconds": seconds,
        "rate": max(rate.values(), default=0.0),
        "tokens": tokens,
        "memory_bytes": memory,
        "disk_bytes": whole_bytes * len(left),
    }


# Of the tokens of pairs, those of their prompts alone: few, and each read once. Rough, for estimates.
_PROMPTS_SHARE = 0.2
# Prompts are read once more for the gate, and two experts serve each token.
_EXPERTS_COST = 1.4
