"""The arrays that features are made from, by which equal requests for them are known."""

from __future__ import annotations

from typing import Any

from embedrm.preferences import EmbeddedResponses


def sources(responses: EmbeddedResponses) -> tuple[Any, ...]:
    """Return the arrays that features are made from; objects that share them are one source."""
    return (*responses.views.values(), responses.prompt_of, *responses.covariates.values())


def names(responses: EmbeddedResponses) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what the arrays of :func:`sources` are called."""
    return tuple(responses.views), tuple(responses.covariates)
