"""RADHead: against independent fits, its weights of positions, missing labels, refusals, files."""

import itertools
import warnings

import numpy as np
import pytest
from prefix_problems import (
    labels_of,
    positions_by_hand,
    random_states,
    running_means,
    with_states,
)
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from embedrm.decoding import PREFIX_HEADS
from embedrm.decoding._lesson import preferred
from embedrm.decoding.rad import RADHead
from embedrm.errors import InvalidInputError
from embedrm.numerics.folds import hold_out
from embedrm.parameters import n_parameters
from embedrm.persistence import load_model, save_model

SMALL = {"hidden": (8,), "max_epochs": 12, "patience": 12, "batch_rows": 32}


def fit_perceptron(states, labels, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return RADHead(**{**SMALL, **options}).fit(states, labels)


def dense(states, labels, l2, weights=None, uniform=False):
    """Ridge regression with the weights of positions, one attribute, by the normal equations."""
    omega = np.ones(len(states)) if weights is None else np.asarray(weights, dtype=float)
    rows, share, target, text = [], [], [], []
    for i, t, row, _ in positions_by_hand(states, 0):
        if np.isnan(labels[i]) or not omega[i]:
            continue
        length = states.lengths[i]
        rows.append(row)
        text.append(i)
        share.append(omega[i] * (1.0 if uniform else 2 * t / (length * (length + 1))))
        target.append(labels[i])
    h, share, target = states.states[rows].astype(float), np.array(share), np.array(target)
    share /= share.sum()
    even = omega[text] / omega[text].sum()
    unit = np.sqrt(even @ (h**2).sum(axis=1))
    x = np.column_stack([h / unit, np.ones(len(h))])
    penalty = np.diag([l2] * h.shape[1] + [0.0])
    theta = np.linalg.solve(2 * x.T @ (x * share[:, None]) + penalty, 2 * x.T @ (share * target))
    return theta[:-1] / unit, theta[-1]


@pytest.mark.parametrize("l2", [0.0, 1e-3, 0.3])
@pytest.mark.parametrize("positions", ["cumulative", "uniform"])
def test_a_linear_head_is_ridge_regression(l2, positions):
    states, _ = random_states()
    labels = labels_of(states, 2, missing=0.2)
    weights = np.random.default_rng(2).integers(0, 3, len(states))
    head = RADHead(l2=l2, positions=positions, tol=1e-14).fit(states, labels, weights=weights)
    assert head.converged_
    for a in range(2):
        coef, bias = dense(states, labels[:, a], l2, weights, positions == "uniform")
        np.testing.assert_allclose(head.weights_[0][:, a], coef, atol=1e-6)
        np.testing.assert_allclose(head.biases_[0][a], bias, atol=1e-6)
    h = states.states.astype(np.float64)
    np.testing.assert_allclose(head.rewards(states.states), h @ head.weights_[0] + head.biases_[0], rtol=1e-12)


def test_long_and_short_texts_count_equally():
    states, _ = random_states(lengths=[1, 99])
    blank = with_states(states, np.zeros_like(states.states))
    labels = np.array([0.0, 1.0])
    assert RADHead().fit(blank, labels).biases_[0][0] == pytest.approx(0.5, abs=1e-6)
    assert RADHead(positions="uniform").fit(blank, labels).biases_[0][0] == pytest.approx(0.99, abs=1e-6)
    assert RADHead().fit(blank, labels, weights=[1, 3]).biases_[0][0] == pytest.approx(0.75, abs=1e-6)


def test_the_last_positions_alone():
    states, _ = random_states()
    labels = labels_of(states)
    only_last = np.full_like(states.states, np.nan)
    only_last[states.last_rows()] = states.states[states.last_rows()]
    a = RADHead(positions="last").fit(states, labels)
    b = RADHead(positions="last").fit(with_states(states, only_last), labels)
    np.testing.assert_array_equal(a.weights_[0], b.weights_[0])


def test_cross_entropy_is_logistic_regression():
    states, _ = random_states(200, dim=4)
    labels = np.random.default_rng(3).integers(0, 2, len(states)).astype(float)
    head = RADHead(objective="cumulative-ce", l2=1e-2, tol=1e-14).fit(states, labels)
    places = positions_by_hand(states, 0)
    h = states.states[[row for _, _, row, _ in places]].astype(float)
    unit = np.sqrt((h**2).sum(axis=1).mean())
    share = np.array([2 * t / (states.lengths[i] * (states.lengths[i] + 1)) for i, t, _, _ in places]) / len(states)
    other = LogisticRegression(C=1 / 1e-2, tol=1e-12, max_iter=1000)
    other.fit(h / unit, labels[[i for i, _, _, _ in places]], sample_weight=share)
    np.testing.assert_allclose(head.weights_[0][:, 0], other.coef_[0] / unit, rtol=1e-4)
    np.testing.assert_allclose(head.rewards(h)[:, 0], other.predict_proba(h / unit)[:, 1], atol=1e-5)
    assert head.link_ == "logistic"
    assert head.bounded_


def test_pairs_are_bradley_terry_on_last_states():
    states, _ = random_states(50, dim=4)
    rng = np.random.default_rng(4)
    pairs = rng.integers(0, 50, (80, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    outcome, weights = rng.choice([0.5, 0.8, 1.0], len(pairs)), rng.integers(0, 3, len(pairs))
    head = RADHead(objective="bradley-terry", l2=1e-2, tol=1e-14)
    head.fit(states, pairs=pairs, outcome=outcome, weights=weights)
    used = np.unique(pairs[weights > 0])
    h = states.states[states.last_rows()].astype(float)
    h /= (unit := np.sqrt((h[used] ** 2).sum(axis=1).mean()))
    d = h[pairs[:, 0]] - h[pairs[:, 1]]

    def objective(w):
        m = d @ w
        loss = outcome * np.logaddexp(0, -m) + (1 - outcome) * np.logaddexp(0, m)
        return weights @ loss / weights.sum() + 0.5e-2 * w @ w

    best = minimize(objective, np.zeros(4), method="BFGS", options={"gtol": 1e-10}).x
    np.testing.assert_allclose(head.weights_[0][:, 0], best / unit, atol=1e-5)
    assert not head.bounded_
    assert head.attributes_ == ("reward",)


def test_a_linear_head_on_means_of_token_vectors_has_rank_two():
    states, e = running_means(120)
    head = RADHead(l2=0.0).fit(states, labels_of(states))
    prefixes = np.flatnonzero(states.ids)[:60]
    length = np.concatenate([np.arange(n + 1) for n in states.lengths])[prefixes]
    extended = states.states[prefixes, None, 1:] * (length + 1)[:, None, None] + e[None, 1:, 1:]
    extended = extended / (length + 2)[:, None, None]
    h = np.concatenate([np.ones((*extended.shape[:2], 1)), extended], axis=2).astype(np.float64)
    matrix = head.rewards(h.reshape(-1, h.shape[2])).reshape(h.shape[:2])
    values = np.linalg.svd(matrix, compute_uv=False)
    assert values[1] > 1e-4 * values[0]
    assert values[2] < 1e-9 * values[0]
    crooked = fit_perceptron(states, labels_of(states), max_epochs=40)
    values = np.linalg.svd(crooked.rewards(h.reshape(-1, h.shape[2])).reshape(h.shape[:2]), compute_uv=False)
    assert values[2] > 1e-6 * values[0]


def test_rows_that_teach_nothing_are_not_read():
    states, _ = random_states()
    labels = labels_of(states, 2)
    weights = np.ones(len(states))
    labels[::4] = np.nan
    weights[1::4] = 0
    blank = np.array(states.states)
    for i in (*range(0, len(states), 4), *range(1, len(states), 4)):
        blank[states.offsets[i] : states.offsets[i + 1]] = np.nan
    blank[states.offsets[:-1]] = np.nan
    for options in ({}, {"hidden": (4,), "max_epochs": 3}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            a = RADHead(**options).fit(states, labels, weights=weights)
            b = RADHead(**options).fit(with_states(states, blank), labels, weights=weights)
        np.testing.assert_array_equal(a.weights_[0], b.weights_[0])


def test_a_perceptron_learns_what_a_line_cannot():
    states, _ = random_states(600, dim=3, longest=3, seed=5)
    h = np.array(states.states)
    last = np.repeat(states.last_rows(), states.lengths + 1)
    h[:] = h[last]
    states = with_states(states, h)
    labels = (h[states.last_rows(), 0] * h[states.last_rows(), 1] > 0).astype(float)
    line = RADHead().fit(states, labels)
    bent = RADHead(hidden=(32,), max_epochs=150, patience=150, learning_rate=1e-2, batch_rows=64, early_stopping=False)
    bent.fit(states, labels)
    assert np.mean((line.text_rewards(states)[:, 0] - labels) ** 2) > 0.22
    assert np.mean((bent.text_rewards(states)[:, 0] - labels) ** 2) < 0.06


def test_the_epoch_kept_is_the_best_and_groups_stay_whole():
    states, _ = random_states(90)
    labels, groups = labels_of(states), np.repeat(np.arange(30), 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        head = RADHead(**SMALL, validation_fraction=0.2, random_state=3).fit(states, labels, groups=groups)
    assert head.n_epochs_ == int(np.argmin(head.validation_losses_)) + 1
    outside = hold_out(groups, 0.2, 3, "", "")[1]
    assert len(outside) == 18
    rewards, total = head.rewards(states.states)[:, 0], 0.0
    for i in outside:
        t = np.arange(1, states.lengths[i] + 1)
        part = rewards[states.offsets[i] + t] - labels[i, 0]
        total += (2 * t / (t[-1] * (t[-1] + 1)) * part**2).sum()
    assert head.validation_losses_.min() == pytest.approx(total / len(outside), rel=1e-4)


def test_training_that_did_not_end_by_itself_says_so():
    states, _ = random_states()
    with pytest.warns(ConvergenceWarning, match="RADHead ran all 1 epochs"):
        head = RADHead(hidden=(4,), max_epochs=1).fit(states, labels_of(states))
    assert not head.converged_
    with pytest.warns(ConvergenceWarning, match="stopped after"):
        RADHead(objective="cumulative-ce", max_passes=3, tol=1e-15).fit(states, labels_of(states))


def test_the_penalty_of_cross_validation_has_the_smallest_held_out_loss():
    states, _ = random_states(40, dim=12)
    labels = labels_of(states)
    head = RADHead(l2="cv", cv=4, l2_grid=(1e-4, 1.0, 1e-2)).fit(states, labels)
    losses = {row["l2"]: row["loss"] for row in head.cv_results_}
    assert head.l2_ == min(losses, key=losses.get)
    assert list(losses) == [1.0, 1e-2, 1e-4]
    np.testing.assert_array_equal(head.weights_[0], RADHead(l2=head.l2_).fit(states, labels).weights_[0])


def test_attributes_are_fitted_as_if_alone_and_named():
    states, _ = random_states()
    labels = labels_of(states, 2, missing=0.3)
    both = RADHead().fit(states, {"kind": labels[:, 0], "true": labels[:, 1]})
    assert both.attributes_ == ("kind", "true")
    assert both.attribute("true") == 1 == both.attribute(1)
    alone = RADHead().fit(states, labels[:, 1])
    np.testing.assert_allclose(both.weights_[0][:, 1], alone.weights_[0][:, 0], rtol=1e-10)
    with pytest.raises(InvalidInputError, match=r"unknown attribute 'treu'\. Did you mean 'true'"):
        both.attribute("treu")


@pytest.mark.parametrize("options", [{}, {"hidden": (8, 4)}, {"objective": "cumulative-ce"}])
def test_saved_and_loaded_to_the_bit_and_seeds_repeat(options, tmp_path):
    states, _ = random_states()
    labels = labels_of(states, 2)
    options = {**SMALL, "hidden": (), **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        head, again = (RADHead(**options).fit(states, labels) for _ in range(2))
        other = RADHead(**options, random_state=1).fit(states, labels)
    loaded, _ = load_model(save_model(head, tmp_path / "head"))
    np.testing.assert_array_equal(loaded.token_rewards(states), head.token_rewards(states))
    np.testing.assert_array_equal(again.token_rewards(states), head.token_rewards(states))
    assert np.array_equal(other.token_rewards(states), head.token_rewards(states)) == (not options["hidden"])
    assert loaded.get_params() == head.get_params()
    assert loaded.attributes_ == head.attributes_
    sizes = [6, *options["hidden"], 2]
    assert n_parameters(head) == sum((a + 1) * b for a, b in itertools.pairwise(sizes))


def test_mapped_and_half_precision_states(tmp_path):
    states, _ = random_states(400, dim=6)
    labels = labels_of(states)
    np.save(tmp_path / "h.npy", states.states)
    mapped = with_states(states, np.load(tmp_path / "h.npy", mmap_mode="r"))
    a, b = RADHead().fit(states, labels), RADHead().fit(mapped, labels)
    np.testing.assert_array_equal(a.weights_[0], b.weights_[0])
    half = with_states(states, states.states.astype(np.float16))
    np.testing.assert_allclose(RADHead().fit(half, labels).weights_[0], a.weights_[0], atol=2e-3)


def test_torch_tensors():
    states, _ = random_states()
    head = fit_perceptron(states, labels_of(states))
    parts = head.torch_tensors()
    h = states.states @ parts["weights"][0].numpy() + parts["biases"][0].numpy()
    h = np.maximum(h, 0) @ parts["weights"][1].numpy() + parts["biases"][1].numpy()
    np.testing.assert_allclose(head.rewards(states.states), h, atol=1e-5)


@pytest.mark.parametrize(
    "labels, match",
    [
        (None, "needs labels of the 60 texts in \\[0, 1\\], got none"),
        (np.full(60, np.nan), "got no label of the attribute 'reward': all 60 are NaN"),
        (np.full(60, 1.5), "needs labels in \\[0, 1\\], or NaN where there is none, and 60 of 60 are not"),
        (np.full(60, -np.inf), "60 of 60 are not"),
        (np.zeros(59), "needs labels \\(n_texts, n_attributes\\) of 60 texts, got \\(59,\\)"),
        (np.zeros((60, 0)), "needs labels"),
        ({"a": np.zeros(3)}, "'a' has another shape"),
        ({}, "at least one attribute"),
    ],
)
def test_labels_that_are_refused(labels, match):
    with pytest.raises(InvalidInputError, match=match):
        RADHead().fit(random_states()[0], labels)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"objective": "cumulative-mes"}, "Did you mean 'cumulative-mse'"),
        ({"positions": "first"}, "unknown positions of RADHead 'first'"),
        ({"l2": -1}, "needs l2"),
        ({"l2": "auto"}, "needs l2"),
        ({"hidden": "64"}, "needs hidden to be widths"),
        ({"hidden": (0,)}, "needs hidden to be widths"),
        ({"hidden": (4,), "l2": "cv"}, "for linear heads only"),
        ({"hidden": (4,), "max_epochs": 0}, "max_epochs"),
        ({"hidden": (4,), "learning_rate": 0}, "learning_rate"),
        ({"tol": 0}, "tol"),
        ({"max_passes": 0}, "max_passes"),
        ({"l2": "cv", "l2_grid": ()}, "l2_grid"),
        ({"l2": "cv", "cv": 1}, "at least 2 folds"),
    ],
)
def test_parameters_that_are_refused(options, match):
    states = random_states()[0]
    with pytest.raises(InvalidInputError, match=match):
        RADHead(**options).fit(states, labels_of(states))


def test_other_inputs_that_are_refused():
    states, _ = random_states()
    labels = labels_of(states)
    head = RADHead().fit(states, labels)
    with pytest.raises(
        InvalidInputError, match="RADHead was fitted on states of the language model lm, got those of other"
    ):
        head.token_rewards(random_states(model="other")[0])
    with pytest.raises(InvalidInputError, match=r"RADHead expects states of shape \(n, 6\), got \(3, 5\)"):
        head.rewards(np.zeros((3, 5)))
    with pytest.raises(InvalidInputError, match="no finite reward"):
        head.rewards(np.full((3, 6), np.nan))
    with pytest.raises(InvalidInputError, match="token states, got list without"):
        RADHead().fit([1, 2], labels)
    with pytest.raises(InvalidInputError, match="reads pairs with objective='bradley-terry' only"):
        RADHead().fit(states, labels, pairs=[[0, 1]])
    with pytest.raises(InvalidInputError, match="reads no labels"):
        RADHead(objective="bradley-terry").fit(states, labels, pairs=[[0, 1]])
    with pytest.raises(InvalidInputError, match="pairs of texts 0 to 59, got 0 to 60"):
        RADHead(objective="bradley-terry").fit(states, pairs=[[0, 60]])
    with pytest.raises(InvalidInputError, match="one outcome in"):
        RADHead(objective="bradley-terry").fit(states, pairs=[[0, 1]], outcome=[0.4])
    with pytest.raises(InvalidInputError, match="one weight >= 0 for each of 60 texts"):
        RADHead().fit(states, labels, weights=np.zeros(60))
    with pytest.raises(InvalidInputError, match="a group for each of 60 texts"):
        RADHead().fit(states, labels, groups=[1, 2])
    with pytest.raises(InvalidInputError, match=r"1 text\(s\) without a token after BOS"):
        RADHead().fit(random_states(lengths=[0, 3, 4])[0], np.zeros(3))
    with pytest.raises(InvalidInputError, match="not finite"):
        RADHead().fit(with_states(states, np.full_like(states.states, np.nan)), labels)
    with pytest.raises(InvalidInputError, match="not finite in epoch 1"):
        RADHead(hidden=(4,)).fit(with_states(states, np.full_like(states.states, np.nan)), labels)


def test_it_is_registered():
    assert PREFIX_HEADS.get("rad") is RADHead


def test_the_batches_of_an_epoch_make_up_the_mean_loss():
    states, _ = random_states(300)
    labels = labels_of(states, 2, missing=0.3)
    still = {"hidden": (4,), "learning_rate": 1e-12, "max_epochs": 1, "early_stopping": False, "batch_rows": 32}
    head = RADHead(**still).fit(states, labels)
    rewards, total = head.rewards(states.states), 0.0
    for a in range(2):
        known = np.flatnonzero(~np.isnan(labels[:, a]))
        for i in known:
            t = np.arange(1, states.lengths[i] + 1)
            gap = rewards[states.offsets[i] + t, a] - labels[i, a]
            total += (2 * t / (t[-1] * (t[-1] + 1)) * gap**2).sum() / len(known)
    assert head.train_losses_[0] == pytest.approx(total, rel=0.02)
    pairs = np.random.default_rng(0).integers(0, 300, (400, 2))
    paired = RADHead(objective="bradley-terry", **still).fit(states, pairs=pairs)
    scores = paired.text_rewards(states)[:, 0]
    margins = scores[pairs[:, 0]] - scores[pairs[:, 1]]
    assert paired.train_losses_[0] == pytest.approx(np.logaddexp(0, -margins).mean(), rel=0.02)


def test_held_out_groups_stop_and_do_not_teach():
    states, _ = random_states(90)
    labels, groups = labels_of(states), np.repeat(np.arange(30), 3)
    other = labels.copy()
    outside = hold_out(groups, 0.2, 3, "", "")[1]
    other[outside] = 1 - other[outside]
    heads = []
    for y in (labels, other):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            head = RADHead(hidden=(8,), max_epochs=1, validation_fraction=0.2, random_state=3)
            heads.append(head.fit(states, y, groups=groups))
    np.testing.assert_array_equal(heads[0].weights_[0], heads[1].weights_[0])
    assert heads[0].validation_losses_[0] != heads[1].validation_losses_[0]


def test_pairs_that_share_a_text_or_a_prompt_stay_together():
    states, _ = random_states(8)
    pairs = [[0, 1], [1, 2], [3, 4], [5, 6]]
    apart = preferred(states, pairs, None, None, None, None, "").groups
    assert apart[0] == apart[1]
    assert len(set(apart)) == 3
    joined = preferred(states, pairs, None, None, [0, 1, 2, 2, 3, 4, 5, 6], None, "").groups
    assert joined[0] == joined[1] == joined[2] != joined[3]
