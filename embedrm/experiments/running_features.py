"""Fitted features that trials share: the same featurizer on the same pairs is fitted once."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

from embedrm.experiments.experiment_models import identity
from embedrm.featurizers import Featurizer
from embedrm.preferences import EmbeddedPreferences
from embedrm.reward_model import RewardModel

_KEPT = 32


class _Memory:
    """The latest fits of this process; a copy of a model shares it, and another process has its own."""

    def __init__(self) -> None:
        self.fits: OrderedDict[Any, tuple[Any, dict[str, Any]]] = OrderedDict()


_MEMORY = _Memory()


class RememberingFeaturizer(Featurizer):
    """A featurizer that looks up whether it was fitted on these pairs before; otherwise like any."""

    def fit(self, preferences: EmbeddedPreferences) -> RememberingFeaturizer:
        """Fit, or take over an equal fit."""
        # a fit depends on the active rows and on nothing else of the pairs
        rows = preferences.active
        key = (
            json.dumps(identity(self)),
            id(preferences.responses),
            rows.tobytes() if len(rows) < 1 << 22 else id(rows),
        )
        found = _MEMORY.fits.get(key)
        # the responses are held by the entry, so that their id stays theirs
        if found is not None and found[0] is preferences.responses:
            _MEMORY.fits.move_to_end(key)
            vars(self).update(found[1])
            return self
        super().fit(preferences)
        learned = {name: value for name, value in vars(self).items() if name.endswith("_") and not name.startswith("_")}
        _MEMORY.fits[key] = (preferences.responses, learned)
        while len(_MEMORY.fits) > _KEPT:
            _MEMORY.fits.popitem(last=False)
        return self


def remember_features(model: RewardModel) -> RewardModel:
    """Return the unfitted model with every featurizer in it exchanged for one that remembers."""
    exchanged = {
        name: RememberingFeaturizer(**value.get_params(deep=False))
        for name, value in model.get_params().items()
        if type(value) is Featurizer
    }
    if exchanged:
        model.set_params(**exchanged)
    return model


def forget_features() -> None:
    """Drop what is remembered."""
    _MEMORY.fits.clear()
