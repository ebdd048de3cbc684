"""Laws of what must not matter: swaps, order, repetition, idle rows, precision, batches."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from embedrm.checks.base import law, require, same
from embedrm.checks.data import example_preferences, idle_rows, map_views, reorder, with_pairs, with_responses
from embedrm.preferences import EmbeddedPreferences
from embedrm.reward_model import RewardModel

# Two fits that reach one optimum by different paths agree to about the square root of the solver's objective gap.
REFIT = 2e-2


def _margins(model: RewardModel, train: EmbeddedPreferences, test: EmbeddedPreferences) -> NDArray[np.float64]:
    return clone(model).fit(train).margins(test)


@law("exchanging the responses of a pair turns its margin round")
def antisymmetry(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    model.fit(preferences)
    same(model.margins(preferences.swapped()), -model.margins(preferences), tolerance, "margins of swapped pairs")


@law(
    "the order within training pairs is the label: trained on swapped pairs, every margin turns round", tolerance=REFIT
)
def order_is_the_label(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    expected = -_margins(model, preferences, preferences)
    same(_margins(model, preferences.swapped(), preferences), expected, tolerance, "margins trained on swapped pairs")


@law("rows that no pair touches are not read: NaN in their vectors and covariates, or another domain, changes no bit")
def idle_rows_are_unread(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    responses, (idle, idle_prompts) = preferences.responses, idle_rows(preferences)

    def spoil(name: str, matrix: NDArray[Any]) -> NDArray[Any]:
        return np.where((idle_prompts if name.startswith("prompt:") else idle)[:, None], np.nan, matrix)

    spoilt = with_responses(
        map_views(preferences, spoil).responses,
        domain=np.where(idle_prompts, "unheard of", responses.domain),
        group=np.where(idle_prompts, "unheard of", responses.group),
        gold=np.where(idle, np.nan, responses.gold),
        covariates={name: np.where(idle, np.nan, column) for name, column in responses.covariates.items()},
    )
    spoilt_preferences = with_pairs(preferences, spoilt)
    fitted, expected = clone(model).fit(spoilt_preferences), clone(model).fit(preferences)
    same(fitted.margins(spoilt_preferences), expected.margins(preferences), tolerance, "margins beside NaN rows")
    active = responses.take(preferences.active)
    same(fitted.predict(active), expected.predict(active), tolerance, "rewards trained beside NaN rows")


@law("only the compared rows matter: copied out on their own, they train the same model", tolerance=1e-6)
def compact_is_equivalent(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    same(
        _margins(model, preferences.compact(), preferences),
        _margins(model, preferences, preferences),
        tolerance,
        "margins trained on the active rows alone",
    )


@law("the order of prompts, responses and pairs does not matter", tolerance=REFIT)
def order_of_rows(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    moved, pair_order, order = reorder(preferences)
    fitted, expected = clone(model).fit(moved), clone(model).fit(preferences)
    same(fitted.margins(moved), expected.margins(preferences)[pair_order], tolerance, "margins in another order")
    # rewards may differ by a constant, which Bradley–Terry leaves free
    a, b = fitted.predict(moved), expected.predict(preferences)[order]
    same(a - a.mean(), b - b.mean(), tolerance, "rewards in another order")


@law("adding one vector to every response changes no margin", tolerance=REFIT)
def shift_of_responses(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    shift = np.random.default_rng(2).normal(size=preferences.responses.view("response:final").shape[1])
    moved = map_views(preferences, lambda name, m: m + shift if name.startswith("response:") else m)
    fitted, expected = clone(model).fit(preferences), _margins(model, preferences, preferences)
    same(_margins(model, moved, moved), expected, tolerance, "margins trained on shifted responses")
    same(fitted.margins(moved), expected, tolerance, "margins of shifted responses")


@law("a pair of weight 2 teaches what the pair twice does", tolerance=REFIT)
def weight_is_repetition(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    times = np.random.default_rng(3).integers(1, 4, size=len(preferences))
    repeated = preferences[np.repeat(np.arange(len(preferences)), times)]
    same(
        _margins(model, with_pairs(preferences, weight=times), preferences),
        _margins(model, repeated, preferences),
        tolerance,
        "margins trained with weights and with repeated pairs",
    )


@law("a factor on all weights does not matter: the loss is a mean, and l2 stands against it", tolerance=REFIT)
def factor_of_weights(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    weight = np.random.default_rng(4).uniform(0.5, 2.0, size=len(preferences))
    same(
        _margins(model, with_pairs(preferences, weight=1e-3 * weight), preferences),
        _margins(model, with_pairs(preferences, weight=weight), preferences),
        tolerance,
        "margins trained with weights a thousand times smaller",
    )


@law("weights are read: training with weights on some pairs differs from training without")
def weights_are_read(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    weight = np.where(np.arange(len(preferences)) % 2, 1.0, 20.0)
    plain = _margins(model, preferences, preferences)
    moved = np.abs(_margins(model, with_pairs(preferences, weight=weight), preferences) - plain).max()
    require(moved > 0.01 * plain.std(), "weights changed no margin by more than 0.01 standard deviations")


@law("an outcome q is the pair with weight q and its swap with weight 1 - q", tolerance=REFIT)
def outcome_is_a_share(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    # a target margin belongs to a pair that has a winner; none here
    preferences = with_pairs(preferences, margin=None)
    q = np.random.default_rng(5).choice([0.5, 0.7, 1.0], size=len(preferences))
    both_ways = EmbeddedPreferences(
        preferences.responses,
        np.concatenate([preferences.pairs, preferences.pairs[:, ::-1]]),
        weight=np.concatenate([q, 1.0 - q]),
    )
    same(
        _margins(model, with_pairs(preferences, outcome=q), preferences),
        _margins(model, both_ways, preferences),
        tolerance,
        "margins trained with outcomes and with pairs both ways",
    )


@law("a response scored alone gets the reward it gets among others", tolerance=1e-9)
def batch_is_one_by_one(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    responses = preferences.responses
    rewards = model.fit(preferences).predict(responses)
    rng = np.random.default_rng(6)
    batches = [rng.integers(responses.n_responses, size=size) for size in (1, 1, 1, 1, 2, 9)]
    for rows in batches:
        expected = rewards - rewards.mean()
        got = rewards.copy()
        got[rows] = model.predict(responses.take(rows))
        same(got - rewards.mean(), expected, tolerance, f"rewards of {len(rows)} response(s) scored apart")


@law("margins of some pairs are those of all pairs, at the same places", tolerance=1e-9)
def slices_of_pairs(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    margins = model.fit(preferences).margins(preferences)
    mask = np.arange(len(preferences)) % 3 == 1
    for index in (slice(2, 9), mask, np.array([5, 1, 1]), [3], (mask, slice(None)), (np.array([4, 2]), ...)):
        rows = index[0] if isinstance(index, tuple) else index
        got = margins.copy()
        got[rows] = model.margins(preferences[index])
        same(got, margins, tolerance, "margins of a slice")
    same(
        [*margins[1:], model.margins(preferences[7])[0]],
        [*margins[1:], margins[7]],
        tolerance,
        "the margin of one pair",
    )


@law("the same data and parameters give the same bits; what was fitted before does not matter")
def same_seed_same_bits(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    other, _ = example_preferences(10, random_state=9)
    expected = clone(model).fit(preferences).predict(preferences)
    same(clone(model).fit(preferences).predict(preferences), expected, tolerance, "rewards of a second fit")
    same(model.fit(other).fit(preferences).predict(preferences), expected, tolerance, "rewards of a refit")


@law("fit and predict change nothing in their input, and take read-only arrays")
def input_is_untouched(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    expected = _margins(model, preferences, preferences)
    responses = preferences.responses
    arrays = [preferences.pairs, preferences.weight, preferences.margin, preferences.outcome, responses.prompt_of]
    arrays += [
        responses.gold,
        responses.domain,
        responses.group,
        *responses.covariates.values(),
        *responses.views.values(),
    ]
    before = [a.tobytes() for a in arrays]
    for a in arrays:
        a.flags.writeable = False
    same(model.fit(preferences).margins(preferences), expected, tolerance, "margins on read-only arrays")
    model.predict(preferences)
    require([a.tobytes() for a in arrays] == before, "an input array changed")


@law("float32, float16 and memory-mapped copies of the vectors train the same model", tolerance=1e-2)
def precision_of_views(model: RewardModel, tolerance: float) -> None:  # noqa: D103
    preferences, _ = example_preferences()
    expected = _margins(model, preferences, preferences)
    singles = map_views(preferences, lambda name, m: m.astype(np.float32))
    halves = map_views(preferences, lambda name, m: m.astype(np.float16))
    for copies in (singles, halves):
        dtype = copies.responses.view("response:final").dtype
        same(_margins(model, copies, copies), expected, tolerance, f"margins in {dtype}")
    with tempfile.TemporaryDirectory() as folder:

        def mapped(name: str, matrix: NDArray[Any]) -> NDArray[Any]:
            path = Path(folder) / f"{name.replace(':', '-')}.npy"
            np.save(path, matrix)
            return np.load(path, mmap_mode="r")

        maps = map_views(preferences, mapped)
        require(
            all(isinstance(m, np.memmap) for m in maps.responses.views.values()), "the views were copied into memory"
        )
        margins = _margins(model, maps, maps)
        same(margins, expected, 0.0, "margins from memory maps")
        require(type(margins) is np.ndarray, f"margins from memory maps are a {type(margins).__name__}")
        del maps
