"""Which domains of a data set a study of routers can be made on, and what is said of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedrm.errors import InvalidInputError
from embedrm.experiments.study import StudyData
from embedrm.preferences import EmbeddedPreferences

LEAST_GROUPS = 2
"""Prompt groups of positive weight that a domain needs to choose a penalty by: one to fit on and one to judge by."""
FEW_GROUPS = 10
"""Below so many prompt groups, training or test, a domain is named in the notes: its row says little."""


@dataclass(frozen=True)
class Studied:
    """The pairs of the domains that are studied, and sentences on what was left aside or is small."""

    data: StudyData
    notes: list[str]


def studied(data: StudyData) -> Studied:
    """Keep the domains that training can make an expert for.

    A domain with training pairs of positive weight of fewer than two prompt groups is left out of all splits. One without
    test pairs is trained on and has no row. Both are told, and so are domains of few prompt groups.

    Raises
    ------
    InvalidInputError
        With fewer than two domains in training or in the test pairs: nothing can be said of routes.
    """
    train = data.train
    trained = _groups(train)
    narrow = [d for d, n in trained.items() if n < LEAST_GROUPS]
    kept = [d for d in trained if d not in narrow]
    notes = []
    if narrow:
        n = int(np.isin(train.domain, narrow).sum())
        notes.append(
            f"{_names(narrow)}: {n:,} training pairs of fewer than {LEAST_GROUPS} prompt groups of positive weight a "
            "domain, of which none can be held out to choose a penalty by; left aside in all splits."
        )
    parts = {}
    for name, part in (("validation", data.validation), ("test", data.test), ("heldout", data.heldout)):
        parts[name] = part[np.isin(part.domain, kept)]
        unseen = sorted(set(part.domains) - set(trained))
        if unseen and name != "validation":
            n = int(np.isin(part.domain, unseen).sum())
            notes.append(f"{_names(unseen)}: {n:,} pairs of the {name} split, and none in training; left aside.")
    judged = parts["test"].domains
    if len(judged) < 2:
        raise InvalidInputError(
            "a study of routers needs at least 2 domains with training pairs of at least "
            f"{LEAST_GROUPS} prompt groups and with test pairs; got {', '.join(judged) or 'none'} (in training: "
            f"{', '.join(trained) or 'none'}; in the test pairs: {', '.join(data.test.domains) or 'none'}). Give data of "
            "more domains, with the same names in both splits"
        )
    untested = [d for d in kept if d not in judged]
    if untested:
        notes.append(f"{_names(untested)}: no pairs in the test split; trained on, and without a row in its tables.")
    tested = _groups(parts["test"])
    few = [d for d in judged if min(trained[d], tested[d]) < FEW_GROUPS]
    if few:
        sizes = ", ".join(f"{d} ({trained[d]} and {tested[d]})" for d in few)
        notes.append(
            f"Fewer than {FEW_GROUPS} prompt groups in training or test: {sizes}. So few say little, and their intervals, "
            "which draw whole groups, are too narrow."
        )
    return Studied(
        replace(
            data,
            train=train[np.isin(train.domain, kept)],
            validation=parts["validation"],
            test=parts["test"],
            heldout=parts["heldout"],
        ),
        notes,
    )


def _groups(prefs: EmbeddedPreferences) -> dict[str, int]:
    """Prompt groups of positive weight, by domain."""
    counted = prefs.weight > 0
    return {d: len(np.unique(prefs.groups[counted & (prefs.domain == d)])) for d in prefs.domains}


def _names(domains: Sequence[str]) -> str:
    return f"{'Domain' if len(domains) == 1 else 'Domains'} {', '.join(domains)}"
