"""What trials of one data set share, and the training pairs that each seed draws from it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError
from embedrm.experiments.experiment_sections import TrainingSection
from embedrm.experiments.labelling import label
from embedrm.experiments.subsets import joining_sizes
from embedrm.featurizers.sources import sources
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses

if TYPE_CHECKING:
    from embedrm.experiments.judging import Judged

_KEPT = 8

# Names of vectors that were sent from here, and vectors that arrived here under such a name and are held by something.
_SENT: WeakKeyDictionary[EmbeddedResponses, str] = WeakKeyDictionary()
_ARRIVED: WeakValueDictionary[str, EmbeddedResponses] = WeakValueDictionary()
_LOCK = threading.Lock()


@dataclass
class Prepared:
    """Everything that trials of one data set, one encoder, one training and one evaluation section share.

    Sent to another process, vectors that arrive again are those that arrived before: sections that differ in the annotator
    alone share them there as they do here, and with them what trials make of them.
    """

    whole: EmbeddedPreferences
    training: EmbeddedPreferences
    judged: list[Judged]
    section: TrainingSection

    def __post_init__(self) -> None:
        self._joins: dict[int, NDArray[np.intp]] = {}
        self._drawn: OrderedDict[int, EmbeddedPreferences] = OrderedDict()

    def draw(self, seed: int) -> EmbeddedPreferences:
        """Return the training pairs of one seed.

        All of them, or so many prompts, pairs or responses as the section says; then the pairs that its scheme draws among
        their prompts, with the labels of its annotator.
        """
        section = self.section
        if not section.draws:
            return self.training
        found = self._drawn.get(seed)
        if found is None:
            chosen = self.training if section.size is None else self._joined(section.size, seed)
            found = label(chosen, section.scheme, section.n_annotations, section.annotator, seed)
            self._drawn[seed] = found
            while len(self._drawn) > _KEPT:
                self._drawn.popitem(last=False)
        return found

    def _joined(self, size: int, seed: int) -> EmbeddedPreferences:
        if seed not in self._joins:
            self._joins[seed] = joining_sizes(self.training, self.section.by, seed)
        joins = self._joins[seed]
        if size > joins.max():
            raise InvalidInputError(
                f"training.size {size:,} is beyond the training data, which have at most {int(joins.max()):,} "
                f"{self.section.by}"
            )
        return self.training[np.flatnonzero(joins <= size)]

    def vectors(self) -> list[Any]:
        """Return the arrays that features of its trials are made from."""
        return [array for one in self._preferences() for array in sources(one.responses)]

    def _preferences(self) -> list[EmbeddedPreferences]:
        return [self.whole, self.training, *(judged.preferences for judged in self.judged)]

    def __getstate__(self) -> dict[str, Any]:
        with _LOCK:
            sent = [_SENT.setdefault(one.responses, uuid4().hex) for one in self._preferences()]
        # training sets are drawn where they are fitted on
        return {**vars(self), "_drawn": OrderedDict(), "_sent": sent}

    def __setstate__(self, state: dict[str, Any]) -> None:
        sent = state.pop("_sent")
        vars(self).update(state)
        with _LOCK:
            for one, name in zip(self._preferences(), sent):
                before = _ARRIVED.get(name)
                if before is not None:
                    # in place, since others refer to these responses too
                    vars(one.responses).update(vars(before))
                _ARRIVED[name] = one.responses
