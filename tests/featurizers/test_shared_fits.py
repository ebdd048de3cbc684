"""Featurizers look up equal fits: what makes two fits equal, and that one that was found is nobody else's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from embedrm import EmbeddedPreferences, EmbeddedResponses
from embedrm.featurizers import Featurizer
from embedrm.featurizers.pca import PCAProjection
from embedrm.featurizers.sources import sources
from embedrm.numerics.sharing import Shelf, same, sharing

RNG = np.random.default_rng(0)
VIEWS = {
    "response:final": RNG.normal(size=(40, 4)),
    "prompt:final": RNG.normal(size=(20, 4)) * np.arange(1, 21)[:, None],
}
OF = np.repeat(np.arange(20), 2)
PAIRS = np.arange(40).reshape(-1, 2)
PREFS = EmbeddedPreferences(EmbeddedResponses(VIEWS, OF), PAIRS)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf()
    shelf.begin(sources(PREFS.responses))
    with sharing(shelf):
        yield shelf


def learned(featurizer: Featurizer) -> dict[str, object]:
    return {name: value for name, value in vars(featurizer).items() if name.endswith("_")}


def alone(featurizer: Featurizer, prefs: EmbeddedPreferences = PREFS) -> dict[str, object]:
    with sharing(None):
        return learned(Featurizer(**featurizer.get_params(deep=False)).fit(prefs))


@pytest.mark.parametrize(
    "changed",
    [
        {"project": PCAProjection(n_components=3)},
        {"project": "whiten"},
        {"scale": "none"},
        {"terms": "r"},
        {"terms": ["r", "p*r"], "response": "final"},
    ],
    ids=str,
)
@pytest.mark.usefixtures("shelf")
def test_other_parameters_are_another_fit(changed: dict[str, object]) -> None:
    base = {"terms": ["r", "p*r"], "project": PCAProjection(n_components=2), "scale": "standard"}
    for parameters in (base, base | changed, base):
        featurizer = Featurizer(**parameters)
        assert same(learned(featurizer.fit(PREFS)), alone(featurizer))


def test_equal_parameters_and_rows_are_one(shelf: Shelf) -> None:
    for prefs in (PREFS, PREFS.swapped(), PREFS[::-1]):
        Featurizer(["r"], project=PCAProjection(n_components=2)).fit(prefs)
    assert len(shelf) == 1
    Featurizer(["r"], project=PCAProjection(n_components=2)).fit(PREFS[:15])
    assert len(shelf) == 2


def test_a_projection_changed_afterwards_is_another(shelf: Shelf) -> None:
    featurizer = Featurizer(project=PCAProjection(n_components=2)).fit(PREFS)
    featurizer.set_params(project__n_components=3)
    assert featurizer.fit(PREFS).dim_ == 3
    assert Featurizer(project=PCAProjection(n_components=2)).fit(PREFS).dim_ == 2


def test_what_is_done_to_one_fit_is_not_done_to_others(shelf: Shelf) -> None:
    one, other = (Featurizer().fit(PREFS) for _ in range(2))
    one.centre_["response:final"] = np.zeros(4)
    one.spread_.clear()
    for fitted in (other, Featurizer().fit(PREFS)):
        assert same(learned(fitted), alone(fitted))


def test_the_same_vectors_to_other_prompts_are_others(shelf: Shelf) -> None:
    others = EmbeddedPreferences(EmbeddedResponses(VIEWS, OF // 2), PAIRS)
    shelf.begin([*sources(PREFS.responses), *sources(others.responses)])
    for prefs in (PREFS, others):
        featurizer = Featurizer("p*r").fit(prefs)
        assert same(learned(featurizer), alone(featurizer, prefs))
    assert len(shelf) == 2
