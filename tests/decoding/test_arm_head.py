"""ARMHead: laws of its matrix, an independent dense solution, planted rewards, distillation, factors, refusals, files."""

import itertools
import warnings

import numpy as np
import pytest
from prefix_problems import (
    labels_of,
    positions_by_hand,
    random_states,
    sums_of_tokens,
    with_states,
)
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from embedrm.decoding import PREFIX_HEADS
from embedrm.decoding.arm import ARMHead
from embedrm.decoding.rad import RADHead
from embedrm.encoders.token_states import TokenStates
from embedrm.errors import InvalidInputError
from embedrm.parameters import n_parameters
from embedrm.persistence import load_model, save_model


def fitted(n_attributes=2, states=None, **options):
    made, e = random_states()
    states = made if states is None else states
    return ARMHead(**options).fit(states, labels_of(states, n_attributes), embeddings=e), states, e


def kronecker_rows(h, e):
    """Features of W in the order of its rows: outer(e, h) flattened."""
    return np.einsum("ne,nd->ned", e, h).reshape(len(h), -1)


def dense(states, e, labels, negatives, l2, rho, weights=None, baseline=True, bias=False, uniform=False):
    """The fit of one attribute by one dense system, position by position; negatives (n_rows, K) or "all"."""
    omega = np.ones(len(states)) if weights is None else np.asarray(weights, dtype=float)
    places = [p for p in positions_by_hand(states, 1) if omega[p[0]] and not np.isnan(labels[p[0]])]
    text = np.array([p[0] for p in places])
    t = np.array([p[1] for p in places])
    length = states.lengths[text]
    share = omega[text] * (1.0 if uniform else 2 * t / (length * (length + 1.0)))
    share = share / share.sum()
    even = omega[text] / omega[text].sum()
    h = states.states[[p[2] for p in places]].astype(float)
    e = e.astype(float)
    of_h, of_e = np.sqrt(even @ (h**2).sum(axis=1)), np.sqrt((e**2).sum(axis=1).mean())
    h, e = h / of_h, e / of_e
    x = kronecker_rows(h, e[[p[3] for p in places]])
    extra = np.concatenate([h] * baseline + [np.ones((len(h), 1))] * bias + [np.zeros((len(h), 0))], axis=1)
    full = np.concatenate([x, extra], axis=1)
    hessian = 2 * full.T @ (full * share[:, None])
    pull = 2 * full.T @ (share * labels[text])
    m = x.shape[1]
    if isinstance(negatives, str):
        c, second = e.T @ e / len(e), h.T @ (h * even[:, None])
        hessian[:m, :m] += 2 * rho * np.kron(c, second)
    else:
        rows = [p[2] + 1 for p in places]
        for k in range(negatives.shape[1]):
            z = kronecker_rows(h, e[negatives[rows, k]])
            hessian[:m, :m] += 2 * rho / negatives.shape[1] * z.T @ (z * even[:, None])
    penalty = np.full(len(hessian), l2)
    if bias:
        penalty[-1] = 0.0
    theta = np.linalg.lstsq(hessian + np.diag(penalty), pull, rcond=None)[0]
    d = h.shape[1]
    w = theta[m : m + d] / of_h if baseline else np.zeros(d)
    return theta[:m].reshape(e.shape[1], d) / (of_h * of_e), w, theta[-1] if bias else 0.0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"regulariser": 0.3, "negatives": 3},
        {"negatives": "all", "regulariser": 2.0},
        {"bias": True, "positions": "uniform"},
        {"baseline": False, "l2": 0.1},
        {"regulariser": 0.0, "l2": 1e-3},
    ],
)
def test_responses_only_is_an_independent_dense_solution(options):
    states, e = random_states(150, dim=4)
    e = e[:, :3]
    labels = labels_of(states, 2, missing=0.2)
    weights = np.random.default_rng(2).integers(0, 3, len(states))
    head = ARMHead(**options, tol=1e-16).fit(states, labels, embeddings=e, weights=weights)
    assert head.converged_
    drawn = "all" if head.negatives == "all" else head._random_tokens(states)
    for a in range(2):
        w, base, bias = dense(
            states,
            e,
            labels[:, a],
            drawn,
            head.l2,
            head.regulariser,
            weights,
            head.baseline,
            head.bias,
            head.positions == "uniform",
        )
        np.testing.assert_allclose(head.weight_[a], w, atol=1e-6)
        np.testing.assert_allclose(head.baseline_weight_[a], base, atol=1e-6)
        np.testing.assert_allclose(head.bias_[a], bias, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"rank": 2, "bias": True}, {"loss": "responses-ce"}])
def test_the_whole_vocabulary_is_what_gathering_gives(options):
    head, states, _e = fitted(**options)
    for h in (states.states[:7], states.states[:7].astype(np.float64)):
        every = head.next_rewards(h)
        assert every.shape == (7, 20, 2)
        assert every.dtype == h.dtype
        ids = np.array([3, 0, 19, 3])
        np.testing.assert_allclose(head.next_rewards(h, ids), every[:, ids], atol=1e-6)
        own = np.random.default_rng(0).integers(0, 20, (7, 5))
        np.testing.assert_allclose(
            head.next_rewards(h, own), np.take_along_axis(every, own[:, :, None], axis=1), atol=1e-6
        )
    assert head.next_rewards(states.states[:7].astype(np.float16)).dtype == np.float32


def test_a_score_is_the_formula():
    head, states, e = fitted(bias=True)
    h = states.states[5].astype(np.float64)
    for a in range(2):
        want = h @ head.baseline_weight_[a] + head.bias_[a] + (head.weight_[a] @ h) @ e[7].astype(np.float64)
        assert head.next_rewards(h[None], [7])[0, 0, a] == pytest.approx(want, rel=1e-12)
    np.testing.assert_allclose(
        head.next_rewards(h[None]), head.baseline_scores(h[None])[:, None] + head.delta_scores(h[None])
    )
    entropy, _, _ = fitted(loss="responses-ce")
    np.testing.assert_allclose(entropy.next_rewards(h[None]), 1 / (1 + np.exp(-entropy.next_scores(h[None]))))


@pytest.mark.parametrize(
    "options, bound", [({}, 6), ({"bias": True}, 7), ({"rank": 2}, 3), ({"rank": 2, "bias": True}, 3)]
)
def test_the_rank_of_the_matrix_is_bounded(options, bound):
    # d = 6; with a rank r, baseline and bias together add one
    head, states, _ = fitted(regulariser=0.0, **options)
    matrix = head.next_rewards(states.states[:100].astype(np.float64))[:, :, 0]
    values = np.linalg.svd(matrix, compute_uv=False)
    assert values[bound - 1] > 1e-8 * values[0]
    assert values[bound] < 1e-12 * values[0]


def test_delta_zero_gives_the_baseline_for_every_token():
    head, states, _ = fitted()
    head.factors_ = {"weight": np.zeros_like(head.factors_["weight"])}
    h = states.states[:9]
    np.testing.assert_array_equal(head.next_rewards(h), np.repeat(head.baseline_scores(h)[:, None], 20, axis=1))


@pytest.mark.parametrize("negatives", [1, "all"])
def test_a_regulariser_without_bound_leaves_the_baseline(negatives):
    sizes = []
    for rho in (0.0, 1.0, 1e3, 1e6):
        head, states, _ = fitted(regulariser=rho, negatives=negatives, l2=1e-6)
        sizes.append(np.abs(head.delta_scores(states.states)).max())
    assert sizes[0] > sizes[1] > sizes[2] > 1e2 * sizes[3]
    assert sizes[3] < 1e-4
    # and the baseline is then that of a head on the state before each token, without any delta
    places = positions_by_hand(states, 1)
    h = states.states[[row for _, _, row, _ in places]].astype(float)
    share = np.array([2 * t / (states.lengths[i] * (states.lengths[i] + 1.0)) for i, t, _, _ in places])
    y = labels_of(states, 2)[[i for i, _, _, _ in places], 0]
    alone = np.linalg.lstsq(h * np.sqrt(share)[:, None], y * np.sqrt(share), rcond=None)[0]
    np.testing.assert_allclose(head.baseline_weight_[0], alone, atol=2e-4)


def test_random_tokens_are_those_of_the_seed_and_their_average_the_expectation():
    states, e = random_states(300)
    labels = labels_of(states)

    def fit(**options):
        return ARMHead(**options).fit(states, labels, embeddings=e).weight_

    np.testing.assert_array_equal(fit(random_state=1), fit(random_state=1))
    assert not np.array_equal(fit(random_state=1), fit(random_state=2))
    exact = fit(negatives="all")
    few, many = (np.abs(fit(negatives=k) - exact).max() for k in (1, 200))
    assert many < 0.2 * few


def test_a_planted_token_reward_is_found_at_the_state_before_the_token():
    # one-token texts: what precedes the token is BOS alone, so its reward is <W h_BOS, e(v)> = the planted one
    rng = np.random.default_rng(0)
    vocab, dim, n = 9, 10, 400
    e = np.eye(vocab, dim, dtype=np.float32)
    planted = rng.random(vocab)
    token = rng.integers(1, vocab, n)
    ids = np.stack([np.zeros(n), token], axis=1).ravel().astype(np.int32)
    h = rng.standard_normal((2 * n, dim)).astype(np.float32)
    h[::2] = h[0]
    states = TokenStates(h, ids, np.arange(0, 2 * n + 1, 2), "lm", vocab)
    head = ARMHead(regulariser=0.0, l2=0.0, tol=1e-16).fit(states, planted[token], embeddings=e)
    np.testing.assert_allclose(head.next_rewards(h[:1])[0, 1:, 0], planted[1:], atol=1e-5)
    np.testing.assert_allclose(head.text_rewards(states)[:, 0], planted[token], atol=1e-5)


@pytest.mark.parametrize("loss", ["distillation", "delta-distillation"])
def test_a_teacher_in_the_class_is_learned_exactly(loss):
    # states are (1, sum of token vectors), so a linear teacher's reward of x + v is linear in the state and in e(v)
    states, e = sums_of_tokens()
    teacher = RADHead(l2=1e-3).fit(states, labels_of(states, 2))
    head = ARMHead(loss=loss, regulariser=0.0, l2=0.0, tol=1e-20).fit(states, embeddings=e, teacher=teacher)
    rewards, want = head.token_rewards(states), teacher.token_rewards(states)
    read = states.ids > 0
    np.testing.assert_allclose(rewards[read], want[read], atol=1e-6)
    # tokens that did not come, too: the teacher's reward of the state that they would lead to
    rows = np.flatnonzero(read)[:20]
    after = states.states[rows].astype(np.float64)[:, None] + e.astype(np.float64)[None]
    want = teacher.rewards(after.reshape(-1, 6)).reshape(20, 12, 2)[:, 1:]
    h = states.states[rows].astype(np.float64)
    prefix = teacher.rewards(h) if loss == "delta-distillation" else None
    np.testing.assert_allclose(head.next_rewards(h, prefix=prefix)[:, 1:], want, atol=1e-6)


def test_a_student_of_increments_begins_at_the_teachers_reward_of_bos():
    states, e = sums_of_tokens()
    teacher = RADHead().fit(states, labels_of(states, 2))
    head = ARMHead(loss="delta-distillation").fit(states, embeddings=e, teacher=teacher)
    assert head.increments_
    np.testing.assert_allclose(head.start_, teacher.rewards(states.states[:1])[0])
    rewards = head.token_rewards(states)
    np.testing.assert_allclose(rewards[states.offsets[:-1]], np.tile(head.start_, (len(states), 1)))
    first, last = states.offsets[3:5]
    steps = [
        head.next_scores(states.states[r : r + 1].astype(float), [states.ids[r + 1]]) for r in range(first, last - 1)
    ]
    np.testing.assert_allclose(rewards[last - 1], head.start_ + np.sum(steps, axis=0)[0, 0], atol=1e-10)
    with pytest.raises(InvalidInputError, match="gives increments; give the rewards of the prefixes"):
        head.next_rewards(states.states[:1])


def test_distillation_counts_every_token_alike():
    states, e = random_states(lengths=[1, 99])
    blank = with_states(states, np.ones_like(states.states))
    rng = np.random.default_rng(0)
    teacher = RADHead(hidden=(4,), max_epochs=1, early_stopping=False).fit(states, rng.random(2))
    teacher.weights_, teacher.biases_ = [np.eye(6)[:, :1]], [np.zeros(1)]
    made = np.array(blank.states)
    made[states.offsets[1] :, 0] = 2.0
    student = ARMHead(loss="distillation", regulariser=1e6, negatives="all", bias=True, baseline=False)
    student.fit(with_states(states, made), embeddings=e, teacher=teacher)
    assert student.bias_[0] == pytest.approx(1.99, abs=1e-4)
    even = student.set_params(positions="cumulative")
    even.fit(with_states(states, made), embeddings=e, teacher=teacher)
    assert even.bias_[0] == pytest.approx(1.5, abs=1e-4)


def test_long_and_short_texts_count_equally():
    states, e = random_states(lengths=[1, 99])
    options = {"regulariser": 1e6, "bias": True, "baseline": False}
    labels = np.array([0.0, 1.0])
    assert ARMHead(**options).fit(states, labels, embeddings=e).bias_[0] == pytest.approx(0.5, abs=1e-3)
    uniform = ARMHead(**options, positions="uniform").fit(states, labels, embeddings=e)
    assert uniform.bias_[0] == pytest.approx(0.99, abs=1e-3)


def test_cross_entropy_finds_the_minimum():
    states, e = random_states(60, dim=3, vocab=8)
    e, labels = e[:, :2], labels_of(states)
    head = ARMHead(loss="responses-ce", regulariser=0.0, l2=1e-2, tol=1e-16).fit(states, labels, embeddings=e)
    places = positions_by_hand(states, 1)
    h = states.states[[p[2] for p in places]].astype(float)
    table = e.astype(float) / (of_e := np.sqrt((e.astype(float) ** 2).sum(axis=1).mean()))
    h /= (of_h := np.sqrt((h**2).sum(axis=1).mean()))
    x = np.concatenate([kronecker_rows(h, table[[p[3] for p in places]]), h], axis=1)
    share = np.array([2 * t / (states.lengths[i] * (states.lengths[i] + 1.0)) for i, t, _, _ in places]) / 60
    y = labels[[p[0] for p in places], 0]

    def objective(theta):
        s = x @ theta
        return share @ (np.logaddexp(0, s) - y * s) + 0.5e-2 * theta @ theta

    best = minimize(objective, np.zeros(9), method="BFGS", options={"gtol": 1e-10}).x
    np.testing.assert_allclose(head.weight_[0], best[:6].reshape(2, 3) / (of_e * of_h), atol=1e-5)
    np.testing.assert_allclose(head.baseline_weight_[0], best[6:] / of_h, atol=1e-5)


def test_pairs_find_the_minimum_of_bradley_terry_on_last_tokens():
    states, e = random_states(40, dim=3, vocab=8)
    e = e[:, :2]
    rng = np.random.default_rng(4)
    pairs = rng.integers(0, 40, (60, 2))
    outcome, weights = rng.choice([0.5, 0.7, 1.0], 60), rng.integers(0, 3, 60)
    head = ARMHead(loss="bradley-terry", regulariser=0.0, l2=1e-2, tol=1e-16)
    head.fit(states, embeddings=e, pairs=pairs, outcome=outcome, weights=weights)
    assert head.converged_
    assert not head.bounded_
    used = np.unique(pairs[weights > 0])
    h = states.states[states.last_rows() - 1].astype(float)
    h /= (of_h := np.sqrt((h[used] ** 2).sum(axis=1).mean()))
    table = e.astype(float) / (of_e := np.sqrt((e.astype(float) ** 2).sum(axis=1).mean()))
    x = np.concatenate([kronecker_rows(h, table[states.ids[states.last_rows()]]), h], axis=1)
    d = x[pairs[:, 0]] - x[pairs[:, 1]]

    def objective(theta):
        m = d @ theta
        loss = outcome * np.logaddexp(0, -m) + (1 - outcome) * np.logaddexp(0, m)
        return weights @ loss / weights.sum() + 0.5e-2 * theta @ theta

    best = minimize(objective, np.zeros(9), method="BFGS", options={"gtol": 1e-10}).x
    np.testing.assert_allclose(head.weight_[0], best[:6].reshape(2, 3) / (of_e * of_h), atol=1e-5)


def objective_of(head, states, e, labels, l2):
    """Loss, regulariser and penalty of a fitted head of one attribute, without the code that fits."""
    places = positions_by_hand(states, 1)
    h = states.states[[p[2] for p in places]].astype(float)
    of_h = np.sqrt((h**2).sum(axis=1).mean())
    of_e = np.sqrt((e.astype(float) ** 2).sum(axis=1).mean())
    share = np.array([2 * t / (states.lengths[i] * (states.lengths[i] + 1.0)) for i, t, _, _ in places]) / len(states)
    every = head.next_scores(h)[:, :, 0]
    got = every[np.arange(len(h)), [p[3] for p in places]]
    loss = share @ (got - labels[[p[0] for p in places], 0]) ** 2
    loss += head.regulariser * (head.delta_scores(h) ** 2).mean()
    size = ((head.weight_ * of_h * of_e) ** 2).sum() + ((head.baseline_weight_ * of_h) ** 2).sum()
    return loss + 0.5 * l2 * size


def test_factors_fall_between_no_delta_and_all_of_w():
    states, e = random_states(200, dim=5)
    labels = labels_of(states)
    values = []
    for rank in (1, 2, 3, 4, 5, None):
        head = ARMHead(rank=rank, negatives="all", regulariser=0.1).fit(states, labels, embeddings=e)
        assert head.converged_
        if rank is not None:
            assert head.factors_["left"].shape == (1, 5, rank) == head.factors_["right"].shape
            assert np.linalg.matrix_rank(head.weight_[0]) == rank
        values.append(objective_of(head, states, e, labels, head.l2))
    assert all(a > b - 1e-9 for a, b in itertools.pairwise(values))
    assert values[0] > values[-1] + 1e-4
    assert values[-2] == pytest.approx(values[-1], rel=1e-6)


def test_factors_are_at_a_stationary_point():
    states, e = random_states(200, dim=5)
    labels = labels_of(states)
    head = ARMHead(rank=2, negatives="all", regulariser=0.1, tol=1e-12, max_rounds=400)
    head.fit(states, labels, embeddings=e)
    start = objective_of(head, states, e, labels, head.l2)
    left, right = head.factors_["left"].copy(), head.factors_["right"].copy()
    rng = np.random.default_rng(0)
    for _ in range(20):
        for name, value in (("left", left), ("right", right)):
            step = 1e-3 * np.abs(value).mean() * rng.standard_normal(value.shape)
            head.factors_[name] = value + step
            assert objective_of(head, states, e, labels, head.l2) > start - 1e-9
            head.factors_[name] = value


def test_a_planted_matrix_of_rank_one_is_found():
    rng = np.random.default_rng(1)
    states, e = random_states(500, dim=6, longest=3)
    left, right = rng.standard_normal((2, 6))
    h, e64 = states.states.astype(float), e.astype(float)
    true = np.outer(left, right) / 40
    teacher = RADHead().fit(states, labels_of(states))
    scores = np.zeros((len(states.ids), 1))
    scores[1:, 0] = np.einsum("nd,nd->n", h[:-1] @ true.T, e64[states.ids[1:]])
    teacher.rewards = lambda rows: scores
    head = ARMHead(loss="distillation", rank=1, regulariser=0.0, l2=0.0, tol=1e-14)
    head.fit(states, embeddings=e, teacher=teacher)
    np.testing.assert_allclose(head.weight_[0], true, atol=1e-4 * np.abs(true).max())


def test_weight_two_is_the_text_twice():
    states, e = random_states(30)
    labels, weights = labels_of(states, 2, missing=0.2), np.array([2, 1, 1] * 10)
    twice = np.sort(np.concatenate([np.arange(30), np.arange(0, 30, 3)]))
    options = {"negatives": "all", "tol": 1e-18}
    a = ARMHead(**options).fit(states, labels, embeddings=e, weights=weights)
    b = ARMHead(**options).fit(states.subset(twice), labels[twice], embeddings=e)
    np.testing.assert_allclose(a.weight_, b.weight_, atol=1e-9)
    np.testing.assert_allclose(a.baseline_weight_, b.baseline_weight_, atol=1e-9)


def test_rows_that_teach_nothing_are_not_read():
    states, e = random_states()
    labels, weights = labels_of(states), np.ones(len(states))
    labels[::4], weights[1::4] = np.nan, 0
    blank = np.array(states.states)
    for i in (*range(0, len(states), 4), *range(1, len(states), 4)):
        blank[states.offsets[i] : states.offsets[i + 1]] = np.nan
    # nor the state after a text's last token
    blank[states.last_rows()] = np.nan
    for options in ({}, {"negatives": "all"}, {"rank": 2}, {"l2": "cv", "cv": 2, "l2_grid": (1e-4, 1e-2)}):
        a = ARMHead(**options).fit(states, labels, embeddings=e, weights=weights)
        b = ARMHead(**options).fit(with_states(states, blank), labels, embeddings=e, weights=weights)
        np.testing.assert_array_equal(a.weight_, b.weight_)


def test_attributes_are_fitted_as_if_alone():
    states, e = random_states()
    labels = labels_of(states, 2, missing=0.3)
    both = ARMHead().fit(states, {"kind": labels[:, 0], "true": labels[:, 1]}, embeddings=e)
    alone = ARMHead().fit(states, labels[:, 1], embeddings=e)
    np.testing.assert_allclose(both.weight_[1], alone.weight_[0], rtol=1e-10)
    assert both.attributes_ == ("kind", "true")


def test_the_penalty_of_cross_validation_has_the_smallest_held_out_loss():
    states, e = random_states(60)
    labels, groups = labels_of(states), np.repeat(np.arange(20), 3)
    head = ARMHead(l2="cv", cv=4, l2_grid=(1e-4, 1e-2, 1.0)).fit(states, labels, embeddings=e, groups=groups)
    losses = {row["l2"]: row["loss"] for row in head.cv_results_}
    assert head.l2_ == min(losses, key=losses.get)
    assert len(losses) == 3
    again = ARMHead(l2=head.l2_).fit(states, labels, embeddings=e)
    np.testing.assert_allclose(head.weight_, again.weight_)


def test_the_held_out_loss_is_that_of_texts_a_fit_has_not_seen():
    states, e = random_states(10)
    labels, groups = labels_of(states)[:, 0], np.array([0] * 5 + [1] * 5)
    head = ARMHead(l2="cv", cv=2, l2_grid=(0.1,), regulariser=0.0, tol=1e-16)
    head.fit(states, labels, embeddings=e, groups=groups)
    total = 0.0
    for inside, outside in ((groups == 0, groups == 1), (groups == 1, groups == 0)):
        other = ARMHead(l2=0.1, regulariser=0.0, tol=1e-16)
        other.fit(states, np.where(inside, labels, np.nan), embeddings=e)
        rewards = other.token_rewards(states)[:, 0]
        for i in np.flatnonzero(outside):
            t = np.arange(1, states.lengths[i] + 1)
            total += (2 * t / (t[-1] * (t[-1] + 1)) * (rewards[states.offsets[i] + t] - labels[i]) ** 2).sum() / 10
    assert head.cv_results_[0]["loss"] == pytest.approx(total, rel=1e-6)


def test_a_fit_that_stops_early_says_so():
    with pytest.warns(ConvergenceWarning, match=r"ARMHead \(attribute 'reward'\) stopped after . passes"):
        head, _, _ = fitted(1, max_passes=3, tol=1e-15)
    assert not head.converged_
    assert head.gap_ > 1e-15
    with pytest.warns(ConvergenceWarning, match="stopped its factors after"):
        fitted(1, rank=2, max_rounds=1)


@pytest.mark.parametrize("options", [{}, {"rank": 2, "bias": True}, {"loss": "responses-ce"}])
def test_saved_and_loaded_to_the_bit(options, tmp_path):
    head, states, _e = fitted(**options)
    loaded, _ = load_model(save_model(head, tmp_path / "head"))
    np.testing.assert_array_equal(loaded.next_rewards(states.states), head.next_rewards(states.states))
    np.testing.assert_array_equal(loaded.token_rewards(states), head.token_rewards(states))
    assert loaded.get_params() == head.get_params()
    assert loaded.converged_ == head.converged_
    sizes = {None: 6 * 6, 2: 2 * 12}
    assert n_parameters(head) == 2 * (sizes[head.rank] + 6 + head.bias)
    again, _, _ = fitted(**options)
    np.testing.assert_array_equal(again.weight_, head.weight_)


def test_a_head_saved_without_its_table_asks_for_it(tmp_path):
    head, states, e = fitted(keep_embeddings=False)
    loaded, _ = load_model(save_model(head, tmp_path / "head"))
    assert "embeddings_" not in vars(loaded)
    with pytest.raises(InvalidInputError, match="saved without its embeddings"):
        loaded.next_rewards(states.states[:1])
    with pytest.raises(InvalidInputError, match="fitted with other output embeddings"):
        loaded.attach(e + 1)
    np.testing.assert_array_equal(loaded.attach(e).next_rewards(states.states), head.next_rewards(states.states))


def test_mapped_states_give_the_same(tmp_path):
    states, e = random_states(300)
    np.save(tmp_path / "h.npy", states.states)
    mapped = with_states(states, np.load(tmp_path / "h.npy", mmap_mode="r"))
    labels = labels_of(states)
    a, b = (ARMHead().fit(s, labels, embeddings=e) for s in (states, mapped))
    np.testing.assert_array_equal(a.weight_, b.weight_)
    half = ARMHead().fit(with_states(states, states.states.astype(np.float16)), labels, embeddings=e)
    np.testing.assert_allclose(half.weight_, a.weight_, atol=2e-3)


def test_blocks_do_not_change_the_fit(monkeypatch):
    states, e = random_states(400)
    labels = labels_of(states)
    whole = ARMHead().fit(states, labels, embeddings=e)
    monkeypatch.setattr("embedrm.decoding._bilinear.block_rows", lambda dim: 7)
    monkeypatch.setattr("embedrm.decoding._bilinear.TABLE_ROWS", 3)
    np.testing.assert_allclose(ARMHead().fit(states, labels, embeddings=e).weight_, whole.weight_, atol=1e-12)


def test_token_rewards_are_next_rewards_of_the_state_before():
    head, states, _ = fitted()
    rewards = head.token_rewards(states)
    assert np.isnan(rewards[states.offsets[:-1]]).all()
    h = states.states.astype(np.float64)
    for i, t, row, token in positions_by_hand(states, 1)[:40]:
        np.testing.assert_allclose(
            rewards[states.offsets[i] + t], head.next_rewards(h[[row]], [token])[0, 0], atol=1e-12
        )
    np.testing.assert_array_equal(head.text_rewards(states), rewards[states.last_rows()])


def test_torch_tensors():
    for rank in (None, 2):
        head, states, e = fitted(rank=rank)
        parts = {k: v.numpy() for k, v in head.torch_tensors().items()}
        weight = parts["weight"] if rank is None else parts["left"] @ parts["right"].transpose(0, 2, 1)
        scores = np.einsum("aed,nd,ve->nva", weight, states.states, e)
        scores += (states.states @ parts["baseline"].T + parts["bias"])[:, None]
        np.testing.assert_allclose(head.next_rewards(states.states), scores, atol=1e-5)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"loss": "response"}, "Did you mean 'responses'"),
        ({"rank": 0}, "rank"),
        ({"rank": 7}, "rank to be at most 6 here, got 7"),
        ({"negatives": 0}, "negatives"),
        ({"negatives": "some"}, "negatives"),
        ({"regulariser": -1}, "regulariser"),
        ({"regulariser": np.inf}, "regulariser"),
        ({"positions": "lats"}, "Did you mean 'last'"),
        ({"l2": -1}, "l2"),
        ({"tol": 0.0}, "tol"),
        ({"max_passes": 1}, "max_passes"),
        ({"max_rounds": 0}, "max_rounds"),
        ({"loss": "distillation"}, "reads no labels"),
        ({"loss": "bradley-terry"}, "reads no labels"),
    ],
)
def test_parameters_that_are_refused(options, match):
    with pytest.raises(InvalidInputError, match=match):
        fitted(**options)


def test_other_inputs_that_are_refused():
    head, states, e = fitted()
    labels = labels_of(states)
    for wrong, match in (
        (labels + 1, "60 of 60 are not"),
        (labels * np.nan, "all 60 are NaN"),
        (labels[:-1], "of 60 texts"),
    ):
        with pytest.raises(InvalidInputError, match=match):
            ARMHead().fit(states, wrong, embeddings=e)
    with pytest.raises(InvalidInputError, match=r"a row for each of 20 tokens, got float32 \(19, 6\)"):
        ARMHead().fit(states, labels, embeddings=e[:-1])
    with pytest.raises(InvalidInputError, match="finite embeddings"):
        ARMHead().fit(states, labels, embeddings=e * np.nan)
    with pytest.raises(InvalidInputError, match="states that are not finite"):
        ARMHead().fit(with_states(states, states.states * np.nan), labels, embeddings=e)
    with pytest.raises(InvalidInputError, match="needs a fitted RADHead as teacher"):
        ARMHead(loss="distillation").fit(states, embeddings=e)
    with pytest.raises(InvalidInputError, match="a teacher rewards prefixes"):
        ARMHead(loss="distillation").fit(states, embeddings=e, teacher=head)
    teacher = RADHead().fit(random_states(model="another")[0], labels)
    with pytest.raises(
        InvalidInputError, match="RADHead was fitted on states of the language model another, got those of lm"
    ):
        ARMHead(loss="distillation").fit(states, embeddings=e, teacher=teacher)
    with pytest.raises(InvalidInputError, match="has no teacher"):
        ARMHead().fit(states, labels, embeddings=e, teacher=teacher)
    with pytest.raises(InvalidInputError, match="reads pairs with"):
        ARMHead().fit(states, labels, embeddings=e, pairs=[[0, 1]])
    with pytest.raises(
        InvalidInputError, match="ARMHead was fitted on states of the language model lm, got those of other"
    ):
        head.token_rewards(random_states(model="other")[0])
    with pytest.raises(InvalidInputError, match=r"expects states of shape \(n, 6\), got \(2, 7\)"):
        head.next_rewards(np.zeros((2, 7)))
    with pytest.raises(InvalidInputError, match="ids from 0 to 19, got 3 to 20"):
        head.next_rewards(states.states[:2], [3, 20])
    with pytest.raises(InvalidInputError, match=r"expects ids \(k,\) or \(2, k\)"):
        head.next_rewards(states.states[:2], np.zeros((3, 1), dtype=int))
    with pytest.raises(InvalidInputError, match="reads prefix only with"):
        head.next_rewards(states.states[:2], prefix=np.zeros((2, 2)))
    with pytest.raises(InvalidInputError, match="1 text"):
        head.text_rewards(random_states(lengths=[0, 2])[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ARMHead(regulariser=0.0, l2=0.0, baseline=False).fit(states, np.zeros(60), embeddings=e)


def test_it_is_registered():
    assert PREFIX_HEADS.get("arm") is ARMHead
