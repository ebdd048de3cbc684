"""What every study starts from: a data set, encoded once, cut into its own splits."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedrm.encoding import Layers, encode
from embedrm.errors import InvalidInputError
from embedrm.preferences import EmbeddedPreferences
from embedrm.progress import Progress, silent
from embedrm.reporting import Report, collect

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
    from embedrm.encoders import Encoder
    from embedrm.store import EmbeddingStore


TRAIN_SHARE = 0.7
"""Of the prompt groups, where the data bring no split."""

VALIDATION_SHARE = 0.15
"""Of the training prompts, where a study chooses something on validation pairs and the data bring none."""


@dataclass(frozen=True)
class StudyData:
    """Encoded pairs by split; no prompt group is in two of them.

    Attributes
    ----------
    name : str
        The data set's name.
    train, validation, test : EmbeddedPreferences
        ``validation`` may be empty.
    heldout : EmbeddedPreferences
        A second test split, of phrasings that training has not seen; empty where the data have none.
    held_out : bool
        Whether ``validation`` was held out of the data's own training split.
    """

    name: str
    train: EmbeddedPreferences
    validation: EmbeddedPreferences
    test: EmbeddedPreferences
    heldout: EmbeddedPreferences
    held_out: bool = False

    def sentence(self) -> str:
        """Say what was trained and tested on, with the encoder's name and what it truncated."""
        info = self.train.responses.info
        cut = info["truncation"]["response"]
        held = (
            f" The data bring no validation split: {len(self.validation):,} pairs of {VALIDATION_SHARE:.0%} of the training "
            "prompts were held out as one."
            if self.held_out
            else ""
        )
        return (
            f"Data: {self.name}; {len(self.train):,} training and {len(self.test):,} test pairs of "
            f"{self.train.responses.n_responses:,} responses to {self.train.responses.n_prompts:,} prompts. "
            f"Encoder: {info['encoder'].get('model', info['encoder'].get('kind'))}, frozen; views "
            f"{', '.join(self.train.responses.views)}; {cut['truncated']:,} of {cut['texts']:,} responses truncated.{held}"
        )

    def provenance(self, started: float, command: str | None, seeds: Any) -> dict[str, Any]:
        """Collect the facts of this run for a report."""
        info = self.train.responses.info
        extra = {"truncation": info["truncation"], "template": info["template"]}
        return collect(
            command=command, seeds=seeds, encoder=info["encoder"], data=info["data"], started=started, extra=extra
        )


def load_dataset(data: PreferenceDataset | str | Path | list[str] | None) -> PreferenceDataset:
    """Return the bundled data set, or read files, or pass a data set through."""
    from embedrm.datasets import PreferenceDataset, read_preferences
    from embedrm.datasets.bundled import load_bundled

    if data is None:
        return load_bundled()
    if isinstance(data, PreferenceDataset):
        return data
    return read_preferences(data)


def with_splits(dataset: PreferenceDataset, random_state: int = 0, *, validation: bool = False) -> PreferenceDataset:
    """Return the data with the splits that a study needs: their own, or where they have none those of :func:`prepare`.

    With ``validation``, data that have a training split and no validation split get one: a share of
    :data:`VALIDATION_SHARE` of the training prompts, whole groups, by domain. ``info["validation_held_out"]`` counts its
    pairs.

    Raises
    ------
    InvalidInputError
        Splits without ``train`` and ``test``.
    """
    splits = set(dataset.prompts["split"])
    if not splits - {""}:
        return dataset.with_split({"train": TRAIN_SHARE, "validation": 0.1, "test": 0.2}, random_state=random_state)
    if not {"train", "test"} <= splits:
        raise InvalidInputError(
            f"a study needs the splits 'train' and 'test', got {', '.join(sorted(s or 'no split' for s in splits))}; "
            "name the splits so, or leave the column out to have one made"
        )
    return _hold_out(dataset, random_state) if validation and "validation" not in splits else dataset


def _hold_out(dataset: PreferenceDataset, random_state: int) -> PreferenceDataset:
    from embedrm.datasets import PreferenceDataset

    split = dataset.response_splits()[dataset.pairs["chosen"].to_numpy()]
    own = dataset.subset(np.flatnonzero(split == "train")).compact()
    dealt = own.with_split(
        {"train": 1.0 - VALIDATION_SHARE, "validation": VALIDATION_SHARE}, random_state=random_state
    ).prompts
    held = dataset.prompts["group"].isin(dealt["group"][dealt["split"] == "validation"])
    prompts = dataset.prompts.copy()
    prompts.loc[held & (prompts["split"] == "train"), "split"] = "validation"
    made = PreferenceDataset(prompts, dataset.responses, dataset.pairs, name=dataset.name, info=dataset.info)
    found = made.response_splits()[made.pairs["chosen"].to_numpy()]
    made.info["validation_held_out"] = {
        "share": VALIDATION_SHARE,
        "random_state": random_state,
        "pairs": int((found == "validation").sum()),
    }
    return made


def training_responses(data: PreferenceDataset) -> int:
    """Count the responses of the pairs that :func:`prepare` would train on; by the share, where it makes the split."""
    pairs = data.pairs[["chosen", "rejected"]].to_numpy()
    split = data.response_splits()[pairs[:, 0]]
    if not any(split):
        return round(TRAIN_SHARE * len(np.unique(pairs)))
    return len(np.unique(pairs[split == "train"]))


def duration(seconds: float) -> str:
    """Return a time as a person says it: "40 seconds", "2 minutes", "3 hours"."""
    for unit, size, most in (("second", 1.0, 90.0), ("minute", 60.0, 5400.0), ("hour", 3600.0, math.inf)):
        if seconds < most:
            n = max(1, round(seconds / size)) if unit != "second" else max(10, 10 * round(seconds / 10))
            return f"{n} {unit}{'' if n == 1 else 's'}"
    raise InvalidInputError(f"a time is a number of seconds, got {seconds}")


def prepare(
    data: PreferenceDataset | str | Path | list[str] | None = None,
    *,
    encoder: Encoder | str | None = None,
    layers: Layers = None,
    store: EmbeddingStore | None = None,
    random_state: int = 0,
    progress: Progress = silent,
    validation: bool = False,
) -> StudyData:
    """Load, split where the data brings no split, and encode.

    Parameters
    ----------
    data : PreferenceDataset, path, list of paths, optional
        The bundled data set where absent.
    encoder, layers, store, progress
        As in :func:`embedrm.encode`.
    random_state : int
        Seed of the split, where one has to be made (70 % train, 10 % validation, 20 % test, by prompt group).
    validation : bool
        Whether something is chosen on validation pairs, so that they are held out where the data bring none; see
        :func:`with_splits`.
    """
    dataset = with_splits(load_dataset(data), random_state, validation=validation)
    preferences = encode(dataset, encoder, layers=layers, store=store, progress=progress)
    split = preferences.responses.split[preferences.prompt_rows]
    return StudyData(
        dataset.name or "unnamed",
        held_out=bool(dataset.info.get("validation_held_out")),
        train=preferences[split == "train"],
        validation=preferences[split == "validation"],
        test=preferences[split == "test"],
        heldout=preferences[split == "heldout"],
    )


def save_report(report: Report, output: str | Path | None, name: str) -> dict[str, Path]:
    """Write the report to ``output``, or to a new folder ``runs/NAME-TIME`` here."""
    folder = Path(output) if output is not None else Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return report.save(folder)
