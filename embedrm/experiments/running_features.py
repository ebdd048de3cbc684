"""What trials share while they run: fitted features, and whatever heads make of them that another trial would make again."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from embedrm.experiments.experiment_models import identity
from embedrm.featurizers import Featurizer
from embedrm.featurizers.shared import names, sources
from embedrm.numerics.sharing import Shelf, once, sharing
from embedrm.preferences import EmbeddedPreferences
from embedrm.reward_model import RewardModel

if TYPE_CHECKING:
    from embedrm.experiments.training_sets import Prepared

Result = TypeVar("Result")


class _Memory(threading.local):
    """One thread's shelf."""

    def __init__(self) -> None:
        self.shelf = Shelf()


_MEMORY = _Memory()


class RememberingFeaturizer(Featurizer):
    """A featurizer that looks up whether it was fitted on these rows before; otherwise like any."""

    def fit(self, preferences: EmbeddedPreferences) -> RememberingFeaturizer:
        """Fit, or take over an equal fit."""

        def learn() -> dict[str, Any]:
            super(RememberingFeaturizer, self).fit(preferences)
            return {name: value for name, value in vars(self).items() if name.endswith("_")}

        responses = preferences.responses
        # of the pairs, a fit depends on nothing but the active rows
        given = (names(responses), json.dumps(identity(self)), preferences.active)
        self.__dict__.update(once("features", sources(responses), given, learn, _bytes))
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


def sharing_work(run: Callable[..., Result]) -> Callable[..., Result]:
    """Let ``run(parts, seed, prepared)`` find what earlier runs in this thread made of the same vectors.

    Results are the same to the bit. What was made of other vectors than those of ``prepared`` is dropped first, and what
    is made of others inside is not held.
    """

    @wraps(run)
    def inner(parts: Any, seed: int, prepared: Prepared) -> Result:
        _MEMORY.shelf.begin(prepared.vectors())
        with sharing(_MEMORY.shelf):
            return run(parts, seed, prepared)

    return inner


def spared() -> tuple[float, float]:
    """Return the seconds, and seconds of all cores, that this thread has been spared since the last call."""
    return _MEMORY.shelf.take_spared()


def forget_features() -> None:
    """Drop what this thread remembers."""
    _MEMORY.shelf.clear()


def _bytes(value: Any) -> int:
    """Bytes of the arrays in what a featurizer learned."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    return sum(map(_bytes, value.values())) if isinstance(value, dict) else 0
