"""What Lin et al. (2024) merge, on small encoders: tuned from one base, kept in a work folder, found there again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedrm.datasets.template import PLAIN
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.experiments.literal_arms import LiteralPreset, tuning_base
from embedrm.merging.sweep import LAMBDAS
from embedrm.numerics.ties import is_tie
from embedrm.progress import Progress, silent
from embedrm.store.stats import default_path
from embedrm.tuning.config import TuningConfig
from embedrm.tuning.texts import plain_texts

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
    from embedrm.encoders import Encoder

GENERAL = "general"
TENTHS = LAMBDAS[::2]
FIFTHS = LAMBDAS[::4]
MIDDLE = 0.35
"""Of the paper's range of good lambdas: where other methods are shown if validation chose 0, at which all are alike."""
KNOWN_TARGETS = {
    "math": "math",
    "maths": "math",
    "arithmetic": "math",
    "gsm8k": "math",
    "kwise_gsm8k": "math",
    "code": "code",
    "humanevalpack": "code",
    "medical": "medical",
    "mediqa": "medical",
    "medical_qa": "medical",
    "kwise_medical_qa": "medical",
}
"""Domains of data sets, and which of the paper's kinds of domain they are."""
STAND_IN = ("medical", "science")
"""Where no domain is medical, questions of science are taken, under their own name."""


@dataclass(frozen=True)
class MergePreset:
    """How much is tuned and read.

    Attributes
    ----------
    n_pairs : int or None
        Training pairs of the general reward encoder; all there are where None.
    epochs, text_epochs : int
        Passes over the pairs, and over a domain's plain texts.
    lambdas, base_lambdas : tuple of float
        Of the sweeps, and of those that start from the unmoved base.
    n_texts, n_base_texts : int or None
        Unique joint texts of the test split in each domain, and of those the ones that the arm of the unmoved base reads.
    batch_tokens, max_length : int
        Tokens of a step, and the most of a text.
    """

    n_pairs: int | None
    epochs: int = 2
    text_epochs: int = 5
    lambdas: tuple[float, ...] = LAMBDAS
    base_lambdas: tuple[float, ...] = TENTHS
    n_texts: int | None = None
    n_base_texts: int | None = None
    batch_tokens: int = 1024
    max_length: int = 128


MERGE_PRESETS = {
    "quick": MergePreset(3_000, lambdas=TENTHS, base_lambdas=FIFTHS, n_texts=200, n_base_texts=100),
    "full": MergePreset(None, epochs=3, text_epochs=10),
}


@dataclass(frozen=True)
class Target:
    """A kind of domain to merge towards, such as math.

    Attributes
    ----------
    name : str
    domains : tuple of str
        Of the data set.
    note : str
        What a reader must know of the choice; empty where it is plain.
    """

    name: str
    domains: tuple[str, ...]
    note: str = ""


def find_targets(domains: Sequence[str], chosen: Mapping[str, str] | None = None) -> list[Target]:
    """Return the targets of a data set, sorted by name.

    Parameters
    ----------
    domains : sequence of str
        Of the data set.
    chosen : mapping of domain to target's name, optional
        Instead of what :data:`KNOWN_TARGETS` and :data:`STAND_IN` say.

    Raises
    ------
    InvalidInputError
        An unknown domain, no target at all, or none left to be the general ones.
    """
    there = sorted(set(domains))
    for name in chosen or {}:
        if name not in there:
            raise unknown_name("domain to merge towards", name, there)
    known = dict(KNOWN_TARGETS if chosen is None else chosen)
    missing, stand_in = STAND_IN
    notes = {}
    if chosen is None and stand_in in there and not any(known.get(d) == missing for d in there):
        known[stand_in] = stand_in
        notes[stand_in] = f"no domain of these data is {missing}; {stand_in} stands in its place, under its own name"
    named: dict[str, list[str]] = {}
    for domain in there:
        if domain in known:
            named.setdefault(known[domain], []).append(domain)
    if not named or sum(len(own) for own in named.values()) == len(there):
        raise InvalidInputError(
            "merging needs at least one domain to merge towards and one general domain beside it; the domains are "
            f"{', '.join(there) or 'none'}, and those known as targets are {', '.join(sorted(known))}. Give a mapping of "
            "domain to target, such as {'sums': 'math'}."
        )
    return [Target(name, tuple(own), notes.get(name, "")) for name, own in sorted(named.items())]


@dataclass(frozen=True)
class MergeArm:
    """One encoder to tune.

    Attributes
    ----------
    name : str
        ``"general"``, or that of a target.
    config : TuningConfig
    data : PreferenceDataset or tuple of str
        Pairs of the general domains, or plain texts of a target's.
    groups : tuple of str
        Prompt groups of the texts.
    """

    name: str
    config: TuningConfig
    data: Any
    groups: tuple[str, ...] = field(default=(), repr=False)

    @property
    def options(self) -> dict[str, Any]:
        """What ``fit`` and ``estimate`` need beside the data."""
        return {"groups": list(self.groups)} if self.groups else {}

    @property
    def texts(self) -> Any:
        """The data as ``fit`` takes them."""
        return list(self.data) if isinstance(self.data, tuple) else self.data

    @property
    def folder(self) -> Path:
        """Its place under EMBEDRM_HOME: one for each configuration, base and set of pairs or texts."""
        from embedrm.tuning.base import base_digest, find_base

        settings = self.config.to_dict()
        for free in ("base", "revision", "checkpoint_every", "threads"):
            del settings[free]
        data = [self.data, self.groups] if isinstance(self.data, tuple) else self.data.fingerprint()
        facts = {"config": settings, "base": base_digest(find_base(self.config)), "data": data}
        key = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8).hexdigest()
        return merging_folder() / f"{GENERAL if self.name == GENERAL else 'domain'}-{key}"


def merging_folder() -> Path:
    """Return the folder of everything that merging studies make and keep."""
    return default_path().parent / "merging"


def general_config(encoder: Encoder | str | None, preset: MergePreset) -> TuningConfig:
    """Return how the general reward encoder is tuned: all weights, by Bradley-Terry with a linear head."""
    return tuning_base(
        encoder,
        LiteralPreset(None, epochs=preset.epochs, batch_tokens=preset.batch_tokens, max_length=preset.max_length),
    )


def merge_arms(
    train: PreferenceDataset,
    texts: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    config: TuningConfig,
    preset: MergePreset,
    objective: str = "masked-token",
) -> list[MergeArm]:
    """Return everything that is tuned, the general encoder first.

    Parameters
    ----------
    train : PreferenceDataset
        Training pairs of the general domains.
    texts : mapping of target to (texts, groups)
        Of :func:`domain_texts`.
    config : TuningConfig
        Of :func:`general_config`.
    preset : MergePreset
    objective : {"masked-token", "contrastive"}
        Of the domain encoders: text alone, no preference is read.
    """
    if objective not in ("masked-token", "contrastive"):
        raise unknown_name("objective of a domain encoder", objective, ("masked-token", "contrastive"))
    own = replace(config, objective=objective, epochs=preset.text_epochs)
    domains = [MergeArm(name, own, tuple(found), tuple(groups)) for name, (found, groups) in sorted(texts.items())]
    return [MergeArm(GENERAL, config, train), *domains]


def domain_texts(data: PreferenceDataset, target: Target, bundled: bool) -> tuple[list[str], list[str]]:
    """Return (texts, prompt groups) of a target's training split; no preference is read.

    Of the bundled data the table ``texts`` (prompts and best responses), of others the prompts and all their responses.

    Raises
    ------
    InvalidInputError
        There is none.
    """
    if bundled:
        from embedrm.datasets.bundled import load_bundled_table

        table = load_bundled_table("texts")
        own = table[table["domain"].isin(target.domains) & (table["split"] == "train")]
        found, groups = plain_texts(own["text"].tolist(), own["group"].tolist(), PLAIN)
    else:
        splits = data.response_splits()[data.pairs["chosen"].to_numpy()]
        rows = np.flatnonzero((splits == "train") & np.isin(data.pair_domains().astype(str), target.domains))
        found, groups = plain_texts(data.subset(rows), None, PLAIN) if len(rows) else ([], [])
    if not found:
        raise InvalidInputError(
            f"a domain encoder for {target.name} needs training text of {', '.join(target.domains)}, and there is none. "
            "Give data whose training split has that domain."
        )
    return found, groups


def labelled(data: PreferenceDataset, split: str, domains: Sequence[str] | None = None) -> np.ndarray:
    """Rows of the pairs of a split (and of some domains) that have a preference."""
    wanted = data.response_splits()[data.pairs["chosen"].to_numpy()] == split
    wanted &= ~is_tie(data.pairs["outcome"].to_numpy(dtype=np.float64))
    if domains is not None:
        wanted &= np.isin(data.pair_domains().astype(str), list(domains))
    return np.flatnonzero(wanted)


def drawn_texts(data: PreferenceDataset, rows: np.ndarray, n_texts: int | None, random_state: int = 0) -> np.ndarray:
    """Return those rows of pairs whose prompt groups were drawn: in each domain whole groups, until there are enough texts.

    Parameters
    ----------
    data : PreferenceDataset
    rows : ndarray of int
        Pairs to draw from.
    n_texts : int or None
        Unique joint texts wanted of each domain; the last group may exceed it. All where None. A larger number draws the
        same groups and more.
    """
    if n_texts is None:
        return rows
    texts, both = data.joint_texts(), data.pairs[["chosen", "rejected"]].to_numpy()
    domains, groups = data.pair_domains().astype(str), data.pair_groups().astype(str)
    kept: list[np.ndarray] = []
    for domain in np.unique(domains[rows]).tolist():
        own = rows[domains[rows] == domain]
        names, code = np.unique(groups[own], return_inverse=True)
        seen: set[str] = set()
        for g in np.random.default_rng([random_state, *domain.encode()]).permutation(len(names)):
            if len(seen) >= n_texts:
                break
            part = own[code == g]
            kept.append(part)
            seen.update(texts[row] for row in both[part].ravel().tolist())
    return np.sort(np.concatenate(kept)) if kept else rows[:0]


def tune_merge_arms(wanted: Sequence[MergeArm], progress: Progress = silent) -> dict[str, Any]:
    """Tune what is not there yet, and return all encoders by name.

    A kill loses the steps since the last checkpoint of the encoder at hand; those before it are found again.
    """
    from embedrm.tuning.tuned import TunedEncoder

    found: dict[str, Any] = {}
    for i, arm in enumerate(wanted):
        folder = arm.folder
        if folder.is_dir():
            found[arm.name] = TunedEncoder.load(folder)
            continue
        label = f"tune {arm.name} encoder ({i + 1} of {len(wanted)})"
        found[arm.name] = TunedEncoder(arm.config).fit(
            arm.texts, folder, progress=_labelled(progress, label), **arm.options
        )
    return found


def _labelled(progress: Progress, label: str) -> Progress:
    return lambda own: progress(label)


def estimate_merge_arms(wanted: Sequence[MergeArm]) -> dict[str, float]:
    """Estimate what is left to tune, from a few timed steps of each objective.

    Returns
    -------
    dict
        ``arms`` (how many are left), ``seconds``, ``memory_bytes``, ``disk_bytes``.
    """
    from embedrm.tuning.tuned import TunedEncoder

    left = [arm for arm in wanted if not arm.folder.is_dir()]
    rates: dict[str, tuple[float, int]] = {}
    seconds = memory = disk = 0.0
    for arm in left:
        size = len(arm.data) if arm.name == GENERAL else sum(len(text) for text in arm.data)
        if arm.config.objective not in rates:
            one = TunedEncoder(arm.config).estimate(arm.texts, **arm.options)
            rates[arm.config.objective] = (one.seconds, size)
            memory, disk = max(memory, one.memory_bytes), disk + one.disk_bytes
        timed, of = rates[arm.config.objective]
        seconds += timed * size / of
    return {"arms": len(left), "seconds": seconds, "memory_bytes": memory, "disk_bytes": disk}
