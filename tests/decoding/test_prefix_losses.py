"""Losses of prefix heads: by hand, their slopes against finite differences, weights of positions."""

import numpy as np
import pytest
from prefix_problems import random_states

from embedrm.decoding._bilinear import BilinearOperator, TokenIndex
from embedrm.decoding._linear import LinearOperator
from embedrm.decoding._perceptron import backward, forward
from embedrm.decoding._spaces import LeftSpace, ProjectedSpace
from embedrm.decoding._thin import ThinOperator
from embedrm.decoding.losses import (
    CrossEntropy,
    Pairs,
    Squares,
    WithRegulariser,
    cross_entropy,
    cumulative_weights,
    increments,
    last_weights,
    pair_loss,
    positions_in_text,
    squared_error,
    uniform_weights,
)


def test_cumulative_weights_by_hand():
    # 2t / (l (l + 1)) / 2 texts: l = 1 gives 1; l = 3 gives 1/6, 2/6, 3/6
    np.testing.assert_allclose(cumulative_weights([1, 3]), [1 / 2, 1 / 12, 2 / 12, 3 / 12])
    np.testing.assert_allclose(cumulative_weights([1, 3], [3, 1]), [3 / 4, 1 / 24, 2 / 24, 3 / 24])


@pytest.mark.parametrize("lengths", [[1], [1, 50, 7], [2, 2, 2, 1000]])
def test_cumulative_weights_of_a_text_sum_to_its_share(lengths):
    weights = cumulative_weights(lengths)
    text = np.repeat(np.arange(len(lengths)), lengths)
    np.testing.assert_allclose(np.bincount(text, weights), 1 / len(lengths))


def test_other_weights_by_hand():
    np.testing.assert_allclose(uniform_weights([1, 3]), [1 / 4] * 4)
    np.testing.assert_allclose(uniform_weights([1, 2], [2, 1]), [2 / 4, 1 / 4, 1 / 4])
    np.testing.assert_allclose(last_weights([1, 3], [3, 1]), [3 / 4, 0, 0, 1 / 4])


def test_positions_in_text():
    np.testing.assert_array_equal(positions_in_text([2, 1, 3]), [0, 1, 0, 0, 1, 2])


def test_losses_by_hand():
    weights = cumulative_weights([2])
    assert squared_error(np.array([0.5, 0.0]), np.array([1.0, 1.0]), weights) == pytest.approx(0.25 / 3 + 2 / 3)
    assert cross_entropy(np.zeros(2), np.array([0.2, 0.9]), weights) == pytest.approx(np.log(2))
    one = np.array([1.0])
    assert pair_loss(np.array([3.0, 1.0]), np.array([[0, 1]]), one, one) == pytest.approx(np.log1p(np.exp(-2)))
    tie = pair_loss(np.array([3.0, 1.0]), np.array([[0, 1]]), np.array([0.5]), one)
    assert tie == pytest.approx((np.log1p(np.exp(-2)) + np.log1p(np.exp(2))) / 2)


def test_distillation_is_zero_exactly_at_equality_and_nowhere_else():
    rng = np.random.default_rng(0)
    teacher, weights = rng.random(7), uniform_weights([3, 4])
    assert squared_error(teacher.copy(), teacher, weights) == 0.0
    for i in range(7):
        student = teacher.copy()
        student[i] = np.nextafter(student[i], 2)
        assert squared_error(student, teacher, weights) > 0.0


def test_increments_by_hand():
    rewards = np.array([[0.5], [0.7], [0.4], [9.0], [8.0]])
    got = increments(rewards, np.array([0, 3]), np.array([2, 1]))
    np.testing.assert_allclose(got, [[0.2], [-0.3], [-1.0]])


def losses():
    rng = np.random.default_rng(3)
    weights, targets = rng.random(9) / 9, rng.random(9)
    pairs, outcome = rng.integers(0, 9, (6, 2)), rng.uniform(0.5, 1, 6)
    paired = Pairs(9, pairs, outcome, rng.random(6))
    extra = rng.random((9, 2))
    return {
        "squares": (Squares(targets, weights), (9,)),
        "entropy": (CrossEntropy(targets, weights), (9,)),
        "pairs": (paired, (9,)),
        "regularised": (WithRegulariser(CrossEntropy(targets, weights), extra), (9, 3)),
        "pairs, regularised": (WithRegulariser(paired, extra), (9, 3)),
    }


@pytest.mark.parametrize("name", losses())
def test_slopes_and_curvatures_are_finite_differences(name):
    loss, shape = losses()[name]
    rng = np.random.default_rng(4)
    outputs, direction, step = rng.standard_normal(shape), rng.standard_normal(shape), 1e-5
    at = loss.evaluate(outputs)
    ahead, behind = loss.evaluate(outputs + step * direction), loss.evaluate(outputs - step * direction)
    assert (at.slope * direction).sum() == pytest.approx((ahead.value - behind.value) / (2 * step), rel=1e-6)
    np.testing.assert_allclose(loss.second(at, direction), (ahead.slope - behind.slope) / (2 * step), atol=1e-8)
    if at.curvature is not None:
        np.testing.assert_allclose(loss.second(at, direction), at.curvature * direction)
    zero = loss.evaluate(np.zeros(shape))
    if zero.curvature is not None:
        np.testing.assert_allclose(loss.curvature_bound(), zero.curvature)


def operators():
    rng = np.random.default_rng(5)
    states, e = random_states(40, dim=5, vocab=11, seed=2)
    rows = np.flatnonzero(states.ids)
    wide = np.concatenate([e, rng.standard_normal((11, 2)).astype(np.float32)], axis=1)
    tokens = np.column_stack([states.ids[rows], rng.integers(0, 11, (len(rows), 2))])
    left, right = np.linalg.qr(rng.standard_normal((7, 3)))[0], np.linalg.qr(rng.standard_normal((5, 2)))[0]
    spaces = {
        "W": ProjectedSpace((7, 5), False, False),
        "W, w, b": ProjectedSpace((7, 5), True, True),
        "left held": ProjectedSpace((7, 5), True, True, left),
        "right held": LeftSpace((7, 5), True, True, right),
    }
    moments = (0.7, np.eye(7) + 0.1, np.eye(5) + 0.2)
    made = {
        name: BilinearOperator(states.states, rows - 1, TokenIndex(tokens, 5), wide, (1.5, 0.8), space, 0.3, moments)
        for name, space in spaces.items()
    }
    for name in ("left held", "right held"):
        at = TokenIndex(tokens, 5)
        made[f"{name}, thin"] = ThinOperator(states.states, rows - 1, at, wide, (1.5, 0.8), spaces[name], 0.3, moments)
    one = ProjectedSpace((7, 5), True, False)
    at = TokenIndex(tokens[:, :1], 5)
    made["no random tokens"] = BilinearOperator(states.states, rows - 1, at, wide, (1.0, 1.0), one, 0.1)
    made["linear"] = LinearOperator(states.states, rows, 1.3, 0.2)
    return made


def size(operator):
    return operator.size if isinstance(operator, LinearOperator) else operator.space.size


@pytest.mark.parametrize("name", operators())
def test_the_adjoint_is_the_transpose_of_the_map_and_the_fused_pass_is_both(name):
    operator = operators()[name]
    rng = np.random.default_rng(6)
    theta = rng.standard_normal(size(operator))
    outputs = operator.forward(theta)
    slope = rng.random(outputs.shape)
    assert (slope * outputs).sum() == pytest.approx(operator.adjoint(slope) @ theta, rel=1e-10)
    again, pushed = operator.normal(theta, slope)
    np.testing.assert_allclose(again, outputs, atol=1e-12)
    np.testing.assert_allclose(pushed, operator.adjoint(slope * outputs), atol=1e-10)


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize("side", ["left held", "right held"])
def test_thin_factors_give_the_map_of_the_whole_w(side, baseline, monkeypatch):
    whole = operators()[side]
    space = whole.space
    held = space.left if side == "left held" else space.right
    space = type(space)((7, 5), baseline, baseline, held)
    # several blocks, the last one short
    monkeypatch.setattr("embedrm.decoding._bilinear.block_rows", lambda dim: 9)
    monkeypatch.setattr("embedrm.decoding._thin.TABLE_ROWS", 4)
    index = TokenIndex(whole.known[whole.tokens], 5)
    parts = whole.states, whole.rows, index, whole.embeddings, whole.units, space, 0.3
    dense, thin = BilinearOperator(*parts), ThinOperator(*parts)
    rng = np.random.default_rng(3)
    for _ in range(2):
        theta = rng.standard_normal(space.size)
        outputs = dense.forward(theta)
        np.testing.assert_allclose(thin.forward(theta), outputs, atol=1e-12)
        slope = rng.standard_normal(outputs.shape)
        np.testing.assert_allclose(thin.adjoint(slope), dense.adjoint(slope), atol=1e-11)
        for given, want in zip(thin.normal(theta, slope), dense.normal(theta, slope)):
            np.testing.assert_allclose(given, want, atol=1e-11)


@pytest.mark.parametrize("name", operators())
def test_the_penalty_is_symmetric_and_its_value_is_that_of_the_weights(name):
    operator = operators()[name]
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((2, size(operator)))
    assert a @ operator.penalty(b) == pytest.approx(b @ operator.penalty(a), rel=1e-10)
    if name == "linear":
        assert a @ operator.penalty(a) == pytest.approx(0.2 * (a[:-1] @ a[:-1]))
        return
    weight, w, _ = operator.space.expand(a)
    want = operator.l2 * ((weight**2).sum() + (0 if w is None else w @ w))
    if operator.expected is not None:
        rho, c, h = operator.expected
        want += 2 * rho * np.trace(weight @ h @ weight.T @ c)
    assert a @ operator.penalty(a) == pytest.approx(want, rel=1e-10)


def test_the_operator_is_the_formula():
    operator = operators()["W, w, b"]
    rng = np.random.default_rng(8)
    theta = rng.standard_normal(operator.space.size)
    m = theta[:-1].reshape(8, 5)
    h = operator.states[operator.rows].astype(float) / 1.5
    e = operator.embeddings.astype(float) / 0.8
    tokens = operator.known[operator.tokens]
    want = np.einsum("nke,ed,nd->nk", e[tokens], m[:7], h)
    want[:, 0] += h @ m[7] + theta[-1]
    np.testing.assert_allclose(operator.forward(theta), want, atol=1e-12)


@pytest.mark.parametrize("name", ["W", "W, w, b", "left held", "right held, thin", "no random tokens", "linear"])
def test_preconditioners_are_symmetric_and_positive(name):
    operator = operators()[name]
    curvature = np.random.default_rng(9).random(operator.forward(np.ones(size(operator))).shape)
    if name == "linear":
        operator.prepare(curvature)
    else:
        operator.space.prepare(operator.moments(curvature), operator.l2)
    a, b = np.random.default_rng(10).standard_normal((2, size(operator)))
    assert a @ operator.precondition(b) == pytest.approx(b @ operator.precondition(a), rel=1e-8)
    assert a @ operator.precondition(a) > 0


def test_the_linear_preconditioner_is_the_inverse_hessian():
    operator = operators()["linear"]
    curvature = np.random.default_rng(9).random(len(operator.rows))
    operator.prepare(curvature)
    theta = np.random.default_rng(11).standard_normal(operator.size)
    bent = operator.normal(theta, curvature)[1] + operator.penalty(theta)
    np.testing.assert_allclose(operator.precondition(bent), theta, rtol=1e-5)


def test_perceptron_gradients_are_finite_differences():
    rng = np.random.default_rng(12)
    sizes = [(4, 5), (5, 3), (3, 2)]
    weights, biases = [rng.standard_normal(s) for s in sizes], [rng.standard_normal(s[1]) for s in sizes]
    x, slope, step = rng.standard_normal((6, 4)), rng.standard_normal((6, 2)), 1e-6
    _, kept = forward(weights, biases, x)
    by_weight, by_bias = backward(weights, x, kept, slope)
    for layer in range(3):
        for values, gradient in ((weights, by_weight), (biases, by_bias)):
            moved = rng.standard_normal(values[layer].shape)
            original = values[layer]
            values[layer] = original + step * moved
            ahead = (slope * forward(weights, biases, x)[0]).sum()
            values[layer] = original - step * moved
            behind = (slope * forward(weights, biases, x)[0]).sum()
            values[layer] = original
            assert (gradient[layer] * moved).sum() == pytest.approx((ahead - behind) / (2 * step), rel=1e-5)
