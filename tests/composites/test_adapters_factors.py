"""The arithmetic of adapters: gradients against finite differences, merging, and the two problems they are trained for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from embedrm.composites._adapter_factors import Plan, Trunk, backward, first_product, flat_views, forward, merge
from embedrm.composites._adapter_training import DomainProblem, Inputs, RewardProblem, Schedule, train
from embedrm.objectives import Comparisons, make_objective

WIDTHS = (5, 7, 4, 3)
PLANS = {
    "all": Plan((0, 1), 2, 1.5, True, True),
    "last by factors": Plan((0, 1, 2), 2, 0.5, False, False),
    "second layer": Plan((1,), 9, 1.0, True, False),
    "head": Plan((), 1, 1.0, False, True),
}


def trunk(rng, widths=WIDTHS):
    shapes = list(pairwise(widths))
    return Trunk([rng.normal(size=s) for s in shapes], [rng.normal(size=s[1]) for s in shapes])


def adapter(plan, base, rng):
    """An adapter away from zero."""
    return {name: a + rng.normal(size=a.shape) / 2 for name, a in plan.new(base, rng).items()}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("n_out", [1, 3])
def test_gradients_are_those_of_finite_differences(plan, n_out):
    rng = np.random.default_rng(0)
    base = trunk(rng, (5, 7, 4, n_out))
    theta = adapter(plan, base, rng)
    x, slope = rng.normal(size=(6, 5)), rng.normal(size=(6, n_out))
    first = first_product(base, x)

    def value(parameters):
        return float((slope * forward(base, parameters, plan.scale, x, first).outputs).sum())

    gradient = {name: np.full_like(a, np.nan) for name, a in theta.items()}
    backward(forward(base, theta, plan.scale, x, first), theta, plan.scale, slope, gradient)
    assert ("bias2" in theta) == (plan.head and n_out > 1)
    for name, a in theta.items():
        numeric = np.empty_like(a)
        for i in np.ndindex(a.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = {**theta, name: a.copy()}
                moved[name][i] += step
                ends.append(value(moved))
            numeric[i] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(gradient[name], numeric, rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_merged_weights_are_the_applied_adapter_and_a_new_one_is_the_trunk(plan):
    rng = np.random.default_rng(1)
    base = trunk(rng)
    x = rng.normal(size=(6, 5))
    first = first_product(base, x)

    def plain(weights, biases):
        h = x
        for w, b in zip(weights[:-1], biases[:-1]):
            h = np.maximum(h @ w + b, 0)
        return h @ weights[-1] + biases[-1]

    theta = adapter(plan, base, rng)
    expected = plain(*merge(base, theta, plan.scale))
    np.testing.assert_allclose(forward(base, theta, plan.scale, x, first).outputs, expected, rtol=1e-12)
    new = plan.new(base, rng)
    np.testing.assert_allclose(
        forward(base, new, plan.scale, x, first).outputs, plain(base.weights, base.biases), rtol=1e-12
    )


def test_by_hand():
    base = Trunk([np.eye(2), np.array([[1.0], [1.0]])], [np.zeros(2), np.zeros(1)])
    theta = {"A0": np.array([[1.0], [0.0]]), "B0": np.array([[0.0, 3.0]])}
    # W' = I + 2 A B = [[1, 6], [0, 1]]; (1, 1) goes to (1, 7)
    np.testing.assert_array_equal(merge(base, theta, 2.0)[0][0], [[1.0, 6.0], [0.0, 1.0]])
    x = np.array([[1.0, 1.0]])
    assert forward(base, theta, 2.0, x, first_product(base, x)).outputs.item() == 8.0


def test_flat_views_share_their_vectors():
    rng = np.random.default_rng(2)
    theta = adapter(PLANS["all"], trunk(rng), rng)
    weights, biases, views = flat_views(theta)
    assert len(weights) + len(biases) == sum(a.size for a in theta.values())
    assert len(biases) == sum(a.size for name, a in theta.items() if name.startswith("bias"))
    for name, a in theta.items():
        np.testing.assert_array_equal(views[name], a)
    weights[:], biases[:] = 3.0, 4.0
    assert all((a == (4.0 if name.startswith("bias") else 3.0)).all() for name, a in views.items())


def test_a_rank_beyond_the_smaller_side_is_full():
    base = trunk(np.random.default_rng(0))
    new = Plan((0, 1), 50, 1.0, False, False).new(base, np.random.default_rng(0))
    assert {name: a.shape for name, a in new.items()} == {"A0": (5, 5), "B0": (5, 7), "A1": (7, 4), "B1": (4, 4)}


class TestProblems:
    def comparisons(self, rng, n=12):
        pairs = np.stack([np.arange(n), n + np.arange(n)], axis=1)
        nan = np.full(n, np.nan)
        return Comparisons(
            np.arange(2 * n), pairs, rng.uniform(0.5, 2, n), np.ones(n), nan, np.tile(nan, 2), np.tile(np.arange(n), 2)
        )

    def test_the_slopes_of_an_epoch_average_to_that_of_the_whole(self):
        rng = np.random.default_rng(0)
        comparisons = self.comparisons(rng, 200)
        base = trunk(rng, (3, 4, 1))
        inputs = Inputs(rng.normal(size=(400, 3)).__getitem__, 400, base, True)
        problem = RewardProblem(make_objective("bradley-terry"), inputs, comparisons, None, 64)
        rewards = rng.normal(size=400)
        total, summed, n_steps = 0.0, np.zeros(400), 0
        for rows, step in problem.steps(rng):
            value, slope = step(rewards[rows][:, None])
            total += value
            summed[rows] += slope[:, 0] * len(rows) / 400
            n_steps += 1
        whole = make_objective("bradley-terry").loss(comparisons).evaluate(rewards)
        assert n_steps >= 6
        assert total / 200 == pytest.approx(whole.value, rel=1e-12)
        np.testing.assert_allclose(summed, whole.slope, rtol=1e-10, atol=1e-15)

    def test_cross_entropy_by_hand(self):
        base = trunk(np.random.default_rng(0), (3, 4, 2))
        inputs = Inputs(np.zeros((2, 3)).__getitem__, 2, base, True)
        problem = DomainProblem(inputs, np.array([0, 1]), (inputs, np.array([0, 1])), 8)
        ((rows, step),) = problem.steps(np.random.default_rng(0))
        value, slope = step(np.zeros((2, 2)))
        assert value == pytest.approx(2 * np.log(2))
        np.testing.assert_allclose(slope, np.where(np.eye(2)[rows] == 1, -0.25, 0.25))
        assert problem.held_out_loss(np.array([[3.0, 0.0], [0.0, 3.0]])) == pytest.approx(np.log1p(np.exp(-3.0)))

    def test_epoch_zero_is_kept_where_no_other_helps(self):
        rng = np.random.default_rng(3)
        comparisons = self.comparisons(rng)
        base = trunk(rng, (3, 4, 1))
        base.weights[-1][:] = 0.0
        x = rng.normal(size=(24, 3))
        inputs = Inputs(x.__getitem__, 24, base, True)
        swapped = Comparisons(
            comparisons.rows,
            comparisons.pairs[:, ::-1],
            *(getattr(comparisons, k) for k in ("weight", "outcome", "margin", "gold", "prompt_of")),
        )
        plan = PLANS["head"]
        schedule = Schedule(1e-2, 0.0, 0.0, 64, 20, 3)
        # what is learned on pairs is wrong on the same pairs the other way round
        objective = make_objective("bradley-terry")
        problem = RewardProblem(objective, inputs, comparisons, (inputs, swapped), 64)
        theta, epoch = train(base, plan, problem, schedule, np.random.default_rng(0), "the test")
        assert epoch == 0
        assert not theta["head"].any()
        problem = RewardProblem(objective, inputs, comparisons, (inputs, comparisons), 64)
        theta, epoch = train(base, plan, problem, schedule, np.random.default_rng(0), "the test")
        assert epoch > 0
        assert theta["head"].any()

    def test_a_first_product_that_is_not_held_gives_the_same_outputs(self, monkeypatch):
        rng = np.random.default_rng(4)
        base = trunk(rng, (3, 4, 1))
        theta = adapter(PLANS["head"], base, rng)
        x = rng.normal(size=(10, 3))
        held = Inputs(x.__getitem__, 10, base, False).outputs(theta, 1.0)
        monkeypatch.setattr("embedrm.composites._adapter_training.HELD_LIMIT_BYTES", 0)
        np.testing.assert_allclose(Inputs(x.__getitem__, 10, base, False).outputs(theta, 1.0), held, rtol=1e-12)
