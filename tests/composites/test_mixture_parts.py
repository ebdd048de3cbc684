"""Parts of the mixture: gates and balance losses by hand, slopes by finite differences, the solver, and pruning."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from embedrm.checks import example_preferences
from embedrm.composites._mixture_gate import (
    clusters,
    importance_balance,
    kept_logits,
    label_loss,
    load_balance,
    sparse_softmax,
    squared_variation,
    switch_balance,
)
from embedrm.composites._mixture_solver import Metric, minimise
from embedrm.composites._mixture_training import Batch, Prompts, Settings, Whole, mix, prompt_shares
from embedrm.composites.mixture import MixtureRewardModel
from embedrm.errors import InvalidInputError
from embedrm.featurizers import Featurizer
from embedrm.featurizers.rows import FeatureRows
from embedrm.objectives import Comparisons, make_objective

LN2, LN3 = np.log(2.0), np.log(3.0)


def numeric_slope(function, x, step=1e-6):
    out = np.empty(x.size)
    for i in range(x.size):
        up, down = x.ravel().copy(), x.ravel().copy()
        up[i] += step
        down[i] -= step
        out[i] = (function(up.reshape(x.shape)) - function(down.reshape(x.shape))) / (2 * step)
    return out.reshape(x.shape)


def test_sparse_softmax_by_hand():
    logits = np.array([[LN3, 0.0, -50.0], [0.0, LN3, LN3 + LN2]])
    np.testing.assert_allclose(sparse_softmax(logits, 2), [[0.75, 0.25, 0.0], [0.0, 1 / 3, 2 / 3]])
    np.testing.assert_allclose(sparse_softmax(logits, 1), [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(sparse_softmax(logits, 3)[1], [0.1, 0.3, 0.6])
    # equal logits: the first is kept
    np.testing.assert_array_equal(kept_logits(np.zeros((1, 3)), 2), [[True, True, False]])
    dropped = np.array([[True, False, False], [True, True, True]])
    # who is left takes over; if all are left out, none is
    np.testing.assert_allclose(sparse_softmax(logits, 2, dropped)[0], [0.0, 1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(sparse_softmax(logits, 2, dropped)[1], [0.0, 1 / 3, 2 / 3])


def test_balance_losses_by_hand():
    # probabilities (3/4, 1/4) and (1/2, 1/2): the first is the largest of both, f = (1, 0), P = (5/8, 3/8)
    logits, even = np.array([[LN3, 0.0], [0.0, 0.0]]), np.array([0.5, 0.5])
    assert switch_balance(logits, even)[0] == pytest.approx(2 * 5 / 8)
    # by weight (1/4, 3/4): P = 3/16 + 6/16
    assert switch_balance(logits, np.array([0.25, 0.75]))[0] == pytest.approx(2 * 9 / 16)
    assert switch_balance(np.array([[9.0, 0.0], [0.0, 9.0]]), even)[0] == pytest.approx(1.0)
    # importance (5/8, 3/8): mean 1/2, variance 1/64
    assert importance_balance(sparse_softmax(logits, 2), even)[0] == pytest.approx(1 / 16)
    assert squared_variation(np.array([3.0, 1.0, 2.0]))[0] == pytest.approx((2 / 3) / 4)


def test_smooth_load_by_hand():
    # one prompt, three experts, k = 1: each against the largest noisy logit of the others
    logits, noisy = np.array([[1.0, 0.5, 0.0]]), np.array([[0.8, 1.2, 0.1]])
    load = norm.cdf((logits[0] - [1.2, 0.8, 1.2]) / 0.5)
    expected = load.var() / load.mean() ** 2
    assert load_balance(logits, noisy, 0.5, 1, np.ones(1))[0] == pytest.approx(expected)
    # k = 2: the second largest of the others
    load = norm.cdf((logits[0] - [0.1, 0.1, 0.8]) / 0.5)
    assert load_balance(logits, noisy, 0.5, 2, np.ones(1))[0] == pytest.approx(load.var() / load.mean() ** 2)
    assert load_balance(logits, noisy, 0.5, 3, np.ones(1))[0] == 0.0


def test_label_loss_by_hand():
    logits = np.array([[LN3, 0.0], [0.0, LN3]])
    value, _ = label_loss(logits, np.array([0, 0]), np.array([0, 1]), np.array([0.25, 0.75]))
    assert value == pytest.approx(-0.25 * np.log(0.75) - 0.75 * np.log(0.25))
    # two experts of one label share its probability
    logits = np.array([[0.0, 0.0, LN2]])
    assert label_loss(logits, np.array([1]), np.array([0, 1, 1]), np.ones(1))[0] == pytest.approx(-np.log(0.75))


def test_slopes_of_gate_terms_are_their_differences():
    rng = np.random.default_rng(0)
    logits, weight = rng.normal(size=(6, 4)), rng.dirichlet(np.ones(6))
    jitter, codes, label = 0.7 * rng.normal(size=(6, 4)), rng.integers(3, size=6), np.array([0, 1, 2, 0])
    for term in (
        lambda a: switch_balance(a, weight),
        lambda a: importance_balance(sparse_softmax(a, 2), weight),
        lambda a: load_balance(a, a + jitter, 0.7, 2, weight),
        lambda a: label_loss(a, codes, label, weight),
    ):
        np.testing.assert_allclose(term(logits)[1], numeric_slope(lambda a, term=term: term(a)[0], logits), atol=1e-8)


def parts(n_experts=4, k=2, shared=True, objective="bradley-terry", **parameters):
    prefs, _ = example_preferences()
    comparisons = Comparisons.of(prefs)
    rows, position = np.unique(comparisons.prompt_of, return_inverse=True)
    z = prefs.responses.view("prompt:final")[rows]
    _, codes = np.unique(prefs.responses.domain[rows], return_inverse=True)
    given = {"l2": 0.3, "l2_shared": 0.2, "gate_l2": 0.1, "supervision": 0.4, "balance": 0.2, "variation": 0.3}
    given |= {"noise": 0.5, "expert_dropout": 0.0, "by_pairs": True} | parameters
    settings = Settings(n_experts=n_experts, k=k, shared=shared, **given)
    prompts = Prompts(z, codes, np.arange(n_experts) % 3)
    shares = prompt_shares(position[comparisons.pairs[:, 0]], comparisons.weight, len(rows), settings.by_pairs)
    batch = Batch(settings, make_objective(objective).loss(comparisons), position, shares, prompts)
    features = FeatureRows(Featurizer(("r", "p*r")).fit(prefs), prefs.responses, comparisons.rows, np.float64)
    return settings, batch, features


@pytest.mark.parametrize("objective", ["bradley-terry", "hinge", "classification"])
@pytest.mark.parametrize(("k", "shared"), [(2, True), (4, True), (1, False)])
def test_slopes_of_the_whole_objective_are_its_differences(objective, k, shared):
    _, batch, features = parts(k=k, shared=shared, objective=objective)
    whole = Whole(batch.settings, features, batch, "the test")
    (dim, m), (width, n) = whole.shapes
    x = 0.3 * np.random.default_rng(1).normal(size=dim * m + width * n + n)
    np.testing.assert_allclose(
        whole.value_and_slope(x)[1], numeric_slope(lambda v: whole.value_and_slope(v)[0], x), atol=2e-7
    )


def test_slopes_under_noise_and_dropout_are_differences():
    rng = np.random.default_rng(2)
    _, batch, _ = parts()
    columns, logits = rng.normal(size=(len(batch.prompt_of), 5)), rng.normal(size=(len(batch.weight), 4))
    jitter, dropped = 0.5 * rng.normal(size=logits.shape), rng.random(logits.shape) < 0.3
    _, _, slope, back = batch.evaluate(columns, logits, jitter, dropped)
    by_columns = numeric_slope(lambda c: batch.evaluate(c, logits, jitter, dropped)[1], columns)
    np.testing.assert_allclose(slope, by_columns, atol=1e-8)
    by_logits = numeric_slope(lambda a: batch.evaluate(columns, a, jitter, dropped)[1], logits)
    np.testing.assert_allclose(back, by_logits, atol=1e-8)


def test_mix_by_hand():
    columns, gate = np.array([[1.0, 2.0, 10.0]]), np.array([[0.25, 0.75]])
    assert mix(columns, gate, 2) == pytest.approx(11.75)
    assert mix(columns[:, :2], gate, 2) == pytest.approx(1.75)


def test_prompts_count_by_their_pairs_or_alike():
    owner, weight = np.array([0, 0, 1, 2]), np.array([1.0, 2.0, 1.0, 0.0])
    np.testing.assert_allclose(prompt_shares(owner, weight, 3, True), [0.75, 0.25, 0.0])
    np.testing.assert_allclose(prompt_shares(owner, weight, 3, False), [0.5, 0.5, 0.0])


def test_clusters_do_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(3)
    z = np.concatenate([rng.normal(size=(20, 3)) + 6 * np.eye(3)[i] for i in range(3)])
    codes = clusters(z, np.full(60, 1 / 60), 3, 0)
    assert len({tuple(np.unique(codes[i * 20 : i * 20 + 20])) for i in range(3)}) == 3
    order = rng.permutation(60)
    np.testing.assert_array_equal(clusters(z[order], np.full(60, 1 / 60), 3, 0), codes[order])
    assert len(np.unique(clusters(z[:2], np.full(2, 0.5), 3, 0))) == 2


def test_solver_finds_the_minimum_of_a_quadratic_in_any_metric():
    rng = np.random.default_rng(4)
    a = rng.normal(size=(30, 8))
    h, b = a.T @ a + np.eye(8), rng.normal(size=8)

    def value_and_slope(x):
        return 0.5 * x @ h @ x - b @ x, h @ x - b

    for inverse in (np.linalg.inv(h), np.diag(1 / np.diag(h)), 1e-3 * np.eye(8)):
        found = minimise(value_and_slope, np.zeros(8), lambda g, inverse=inverse: inverse @ g, tol=1e-14, max_iter=200)
        np.testing.assert_allclose(found.x, np.linalg.solve(h, b), atol=1e-4)
        assert all(later <= earlier + 1e-12 for earlier, later in zip(found.values, found.values[1:]))


def test_metric_is_the_inverse_of_the_moments_plus_the_penalty():
    rng = np.random.default_rng(5)
    sample = rng.normal(size=(200, 6)) * np.arange(1, 7)
    metric = Metric.of(sample, 0.25)
    x, share, l2 = rng.normal(size=(6, 2)), np.array([0.5, 1.0]), np.array([0.1, 2.0])
    h = 0.25 * sample.T @ sample / 200
    expected = [np.linalg.solve(s * h + p * np.eye(6), column) for s, p, column in zip(share, l2, x.T)]
    np.testing.assert_allclose(metric.solve(x, share, l2), np.transpose(expected), rtol=1e-8)
    # beyond a width, leading directions and one number for the rest: still positive definite, and right on the leading ones
    wide = rng.normal(size=(1500, 600)) * np.r_[np.full(5, 30.0), np.ones(595)]
    metric = Metric.of(wide, 1.0)
    h = wide.T @ wide / 1500
    got, exact = metric.solve(np.eye(600)[:, :5], np.ones(5), np.ones(5)), np.linalg.inv(h + np.eye(600))[:, :5]
    np.testing.assert_allclose(np.diag(got), np.diag(exact), rtol=0.05)


@pytest.fixture(scope="module")
def fitted():
    prefs, _ = example_preferences()
    return prefs, MixtureRewardModel(k=None).fit(prefs)


def test_pruning_to_all_experts_changes_nothing_and_the_original_stays(fitted):
    prefs, model = fitted
    before = model.predict(prefs)
    for by in ("load", "likeness"):
        np.testing.assert_allclose(model.prune(prefs, 3, by).predict(prefs), before, rtol=1e-12)
        assert model.prune(prefs, 1, by).n_experts_ == 1
    np.testing.assert_allclose(model.compress(prefs, 3).predict(prefs), before, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(model.predict(prefs), before)


def test_dropping_the_least_loaded_expert_gives_its_prompts_to_the_others(fitted):
    prefs, model = fitted
    gate = model.gates(prefs.responses)
    weight = np.bincount(prefs.prompt_rows, minlength=len(gate))
    least = int(np.argmin(weight @ gate))
    kept = [e for e in range(3) if e != least]
    pruned = model.prune(prefs, 2)
    left = gate[:, kept] / gate[:, kept].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(pruned.gates(prefs.responses), left, rtol=1e-8)
    np.testing.assert_array_equal(pruned.coef_, model.coef_[:, [*kept, 3]])
    assert pruned.expert_names_ == [model.expert_names_[e] for e in kept]


def test_merging_twins_changes_nothing(fitted):
    prefs, model = fitted
    twins = model.prune(prefs, 3)
    twins.coef_ = model.coef_.copy()
    twins.coef_[:, 2] = twins.coef_[:, 0]
    merged = twins.prune(prefs, 2, "likeness")
    assert merged.expert_names_ == ["alpha + gamma", "beta"]
    np.testing.assert_allclose(merged.predict(prefs), twins.predict(prefs), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(merged.gates(prefs.responses).sum(axis=1), 1)
    # and the least loaded group can go after that
    np.testing.assert_allclose(merged.prune(prefs, 1).gates(prefs.responses), 1.0)


def test_a_merged_expert_is_the_mean_by_importance_of_the_most_alike(fitted):
    prefs, model = fitted
    columns = model.featurizer_.transform(prefs.responses) @ model.coef_[:, :3]
    margins = columns[prefs.pairs[:, 0]] - columns[prefs.pairs[:, 1]]
    cosine = {
        (a, b): margins[:, a] @ margins[:, b] / np.linalg.norm(margins[:, a]) / np.linalg.norm(margins[:, b])
        for a, b in ((0, 1), (0, 2), (1, 2))
    }
    a, b = max(cosine, key=cosine.get)
    weighted = prefs[np.repeat(np.arange(len(prefs)), np.where(prefs.domain == model.expert_names_[a], 3, 1))]
    merged = model.prune(weighted, 2, "likeness")
    name = f"{model.expert_names_[a]} + {model.expert_names_[b]}"
    gate = model.gates(prefs.responses)[weighted.prompt_rows].mean(axis=0)
    expected = (gate[a] * model.coef_[:, a] + gate[b] * model.coef_[:, b]) / (gate[a] + gate[b])
    np.testing.assert_allclose(merged.coef_[:, merged.expert_names_.index(name)], expected, rtol=1e-9)


def test_one_direction_keeps_experts_that_are_multiples_of_one(fitted):
    prefs, model = fitted
    alike = model.prune(prefs, 3)
    alike.coef_ = model.coef_.copy()
    alike.coef_[:, :3] = model.coef_[:, :1] * [1.0, -2.0, 0.5]
    small = alike.compress(prefs, 1)
    assert small.basis_.shape == (6, 1)
    np.testing.assert_allclose(small.predict(prefs), alike.predict(prefs), rtol=1e-9, atol=1e-12)
    assert not np.allclose(model.compress(prefs, 1).predict(prefs), model.predict(prefs), rtol=1e-3)
    np.testing.assert_allclose(
        small.prune(prefs, 2).predict(prefs), alike.prune(prefs, 2).predict(prefs), rtol=1e-9, atol=1e-12
    )


def test_a_pair_of_weight_three_counts_as_three_pairs_when_experts_are_made_smaller(fitted):
    prefs, model = fitted
    times = np.where(prefs.domain == "alpha", 3, 1)
    once, thrice = prefs.weighted(times.astype(float)), prefs[np.repeat(np.arange(len(prefs)), times)]
    for smaller in (lambda p: model.compress(p, 1), lambda p: model.prune(p, 2, "likeness")):
        np.testing.assert_allclose(smaller(once).predict(prefs), smaller(thrice).predict(prefs), rtol=1e-9, atol=1e-12)
    assert not np.allclose(model.compress(once, 1).predict(prefs), model.compress(prefs, 1).predict(prefs), rtol=1e-3)


def test_parameters_are_counted_by_hand(fitted):
    prefs, model = fitted
    # six features; three experts and a shared part; a gate of six columns and a bias for each expert
    assert model.parameter_counts() == {"total": 24 + 21, "active": 24 + 21, "gate": 21}
    sparse = MixtureRewardModel(k=1).fit(prefs)
    assert sparse.parameter_counts() == {"total": 24 + 21, "active": 12 + 21, "gate": 21}
    assert sparse.compress(prefs, 2).parameter_counts() == {
        "total": 6 + 12 + 6 + 21,
        "active": 6 + 12 + 2 + 21,
        "gate": 21,
    }
    network = MixtureRewardModel(k=1, hidden=(4,), max_epochs=1).fit(prefs)
    assert network.parameter_counts() == {"total": 4 * 33 + 21, "active": 2 * 33 + 21, "gate": 21}
    merged = sparse.prune(prefs, 1)
    assert merged.parameter_counts() == {"total": 12, "active": 12, "gate": 0}


def test_size_facts(fitted):
    prefs, model = fitted
    rows = model.size_facts(prefs, prefs, keep=(2,), ranks=(1,))
    assert [r["model"] for r in rows] == [
        "all experts",
        "2 experts by load",
        "2 experts by likeness",
        "experts of rank 1",
    ]
    assert rows[0]["accuracy"] == model.score(prefs)
    assert rows[0]["accuracy_per_active"] == pytest.approx(1e8 * (model.score(prefs) - 0.5) / 45)
    assert rows[3]["total_parameters"] < rows[0]["total_parameters"]


def test_pruned_perceptrons_keep_the_more_important_one():
    prefs, _ = example_preferences()
    model = MixtureRewardModel(hidden=(4,), max_epochs=2, k=None).fit(prefs)
    merged = model.prune(prefs, 1, "likeness")
    gate = model.gates(prefs.responses)
    weight = np.bincount(prefs.prompt_rows, minlength=len(gate))
    best = int(np.argmax(weight @ gate))
    np.testing.assert_allclose(
        merged.predict(prefs), model.expert_rewards(prefs.responses)[:, best], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(InvalidInputError, match="needs linear experts"):
        model.compress(prefs, 1)


def test_wrong_sizes_are_refused(fitted):
    prefs, model = fitted
    with pytest.raises(InvalidInputError, match="from 1 to 3"):
        model.prune(prefs, 4)
    with pytest.raises(InvalidInputError, match="likeness"):
        model.prune(prefs, 2, "likenes")
    with pytest.raises(InvalidInputError, match="a rank from 1 to 3"):
        model.compress(prefs, 0)
