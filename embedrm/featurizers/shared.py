"""Requests that fits on equal rows and features have in common; see :mod:`embedrm.numerics.sharing`."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any, TypeVar

from embedrm.featurizers.linear_map import LinearMap
from embedrm.featurizers.sources import names, sources
from embedrm.featurizers.terms import Featurizer
from embedrm.numerics.sharing import once
from embedrm.preferences import EmbeddedResponses, Rows

Made = TypeVar("Made")


def once_for(
    featurizer: Featurizer,
    responses: EmbeddedResponses,
    kind: str,
    given: Any,
    make: Callable[[], Made],
    size: Callable[[Made], int],
) -> Made:
    """Make something from features of responses, or find what was made of equal features.

    Parameters
    ----------
    featurizer : Featurizer
        Fitted; two that learned the same are equal, whatever they were fitted on.
    responses : EmbeddedResponses
    kind, given, make, size
        See :meth:`embedrm.numerics.sharing.Shelf.once`.
    """
    learned = {name: value for name, value in vars(featurizer).items() if name.endswith("_")}
    features = (names(responses), learned, featurizer.rescales)
    return once(kind, sources(responses), (features, given), make, size)


def shared_map(featurizer: Featurizer, responses: EmbeddedResponses, rows: Rows | None) -> LinearMap:
    """Return the linear map of some rows, whose gathered and scaled vectors an equal request may have made before."""

    def make() -> LinearMap:
        # a copy, which no later fit of the featurizer changes
        return LinearMap(copy(featurizer), responses, rows)

    return once_for(featurizer, responses, "linear map", rows, make, LinearMap.held_bytes)
