"""Pairing and annotation as an experiment names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embedrm.annotation import annotate
from embedrm.datasets.drawing import draw_pairs
from embedrm.datasets.pairing import PAIRINGS, PairingScheme, make_scheme
from embedrm.errors import InvalidInputError
from embedrm.experiments.experiment_files import Misfit, Place
from embedrm.experiments.experiment_values import check_known, check_value, hints_of
from embedrm.numerics.annotation import Annotator
from embedrm.numerics.annotator_pool import AnnotatorPool
from embedrm.preferences import EmbeddedPreferences

_ANNOTATOR = ("flip_rate", "beta", "scale")
_POOL = ("annotators", "shares", "by", "votes")


def read_pairing(value: Any, place: Place) -> PairingScheme | None:
    """Return the scheme of a name or of ``{name: NAME, PARAMETER: VALUE}``; None where there is none."""
    if value is None:
        return None
    own = {"name": value} if isinstance(value, str) else dict(value)
    name = own.get("name")
    if not isinstance(name, str):
        raise Misfit(f"a pairing scheme is named by its key 'name', and {name!r:.40} came.", (*place, "name"))
    check_known(name, PAIRINGS.names(), "pairing scheme", (*place, "name"))
    hints = hints_of(PAIRINGS.get(name))
    for key, given in own.items():
        if key != "name":
            check_known(key, hints, f"parameter of the pairing scheme {name!r}", (*place, key))
            check_value(given, hints[key], key, f"the pairing scheme {name!r}", (*place, key))
    return make_scheme(own)


def read_annotator(value: Mapping[str, Any] | None, place: Place) -> Annotator | AnnotatorPool | None:
    """Return the annotator of ``{flip_rate, beta, scale}``, or the pool of ``{annotators, shares, by, votes}``."""
    if value is None:
        return None
    if "annotators" not in value:
        return _made(Annotator, dict(value), "annotator", _ANNOTATOR, place)
    listed = value["annotators"]
    if not isinstance(listed, (list, tuple)) or not all(isinstance(one, Mapping) for one in listed):
        raise Misfit("'annotators' is a list of mappings such as {beta: 1, scale: global-std}.", (*place, "annotators"))
    inside = tuple(_made(Annotator, dict(one), "annotator", _ANNOTATOR, (*place, "annotators")) for one in listed)
    return _made(AnnotatorPool, {**value, "annotators": inside}, "pool of annotators", _POOL, place)


def _made(cls: Any, given: dict[str, Any], what: str, known: tuple[str, ...], place: Place) -> Any:
    hints = hints_of(cls)
    for key, value in given.items():
        check_known(key, known, f"key of an {what}" if what[0] == "a" else f"key of a {what}", (*place, key))
        if key != "annotators":
            given[key] = check_value(value, hints[key], key, f"the {what}", (*place, key))
    try:
        return cls(**given)
    except InvalidInputError as error:
        raise Misfit(str(error), place) from None


def label(
    training: EmbeddedPreferences,
    pairing: PairingScheme | None,
    n_annotations: int | None,
    annotator: Annotator | AnnotatorPool | None,
    seed: int,
) -> EmbeddedPreferences:
    """Return the training pairs of one seed: drawn, counted off and annotated.

    Parameters
    ----------
    training : EmbeddedPreferences
        Pairs of one split; a scheme draws among all responses with gold to their prompts.
    pairing : PairingScheme, optional
        The pairs as they are where absent.
    n_annotations : int, optional
        Pairs; for one seed, fewer are the first of more. Where absent, as many as there are, or as
        :func:`embedrm.draw_pairs` has it.
    annotator : Annotator or AnnotatorPool, optional
        Labels as they are where absent.
    seed : int
        Of the draw of pairs and, by a stream of its own, of the errors.
    """
    if pairing is not None:
        training = draw_pairs(training, pairing, n_annotations, random_state=seed)
    elif n_annotations is not None:
        if n_annotations > len(training):
            raise InvalidInputError(
                f"training.n_annotations {n_annotations:,} is beyond the {len(training):,} training pairs; ask for fewer, "
                "or name a scheme as training.pairing"
            )
        training = training[np.random.default_rng([seed, 1]).permutation(len(training))[:n_annotations]]
    return training if annotator is None else annotate(training, annotator, random_state=seed)
