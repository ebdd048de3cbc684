"""MoRE: laws of the mixture, its limits, and what it learns."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from embedrm import EmbeddedPreferences, Featurizer, LinearHead
from embedrm.checks import example_preferences
from embedrm.checks.data import map_views, with_pairs, with_responses
from embedrm.composites.mixture import MixtureRewardModel
from embedrm.errors import InvalidInputError
from embedrm.numerics.folds import hold_out
from embedrm.persistence import load_model, save_model

DIM = 5


def opposed(n_prompts=400, seed=0, separation=2.0, noise=0.0, labels=True):
    """Two kinds of prompt that reward opposite directions: no single linear head is better than a coin."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n_prompts) % 2
    prompt = rng.normal(size=(n_prompts, DIM))
    prompt[:, 1] += np.where(kind == 0, separation, -separation)
    response = rng.normal(size=(2 * n_prompts, DIM))
    margin = (response[::2] - response[1::2]) @ np.array([2.0, 1.0, 0.0, 0.0, 0.0]) * np.where(kind == 0, 1.0, -1.0)
    first = margin + noise * rng.logistic(size=n_prompts) > 0
    pairs = np.where(first[:, None], [[0, 1]], [[1, 0]]) + 2 * np.arange(n_prompts)[:, None]
    return EmbeddedPreferences.from_arrays(
        response,
        pairs,
        prompt=prompt,
        prompt_of=np.repeat(np.arange(n_prompts), 2),
        domain=np.where(kind == 0, "for", "against") if labels else None,
    )


def model(**parameters):
    return MixtureRewardModel(**{"tol": 1e-9, "max_iter": 300, **parameters})


@pytest.mark.parametrize("l2", [1e-2, 0.3])
def test_one_expert_without_a_shared_part_is_the_single_head(l2):
    prefs, _ = example_preferences()
    for featurizer in (Featurizer(), Featurizer(("r", "p*r")), Featurizer(covariates=("words",))):
        one = model(featurizer=featurizer, n_experts=1, shared=False, l2=l2, tol=1e-13).fit(prefs)
        head = LinearHead(featurizer, l2=l2, tol=1e-14).fit(prefs)
        np.testing.assert_allclose(one.coef_[:, 0], head.coef_, atol=2e-4 * np.abs(head.coef_).max())
        assert one.gate_views_ == []


def test_one_expert_with_a_shared_part_is_the_head_of_the_harmonic_penalty():
    # w0 + w1 has the penalty 1 / (1/a + 1/b), whichever of the two carries it
    prefs, _ = example_preferences()
    both = model(n_experts=1, l2=0.3, l2_shared=0.1, tol=1e-13).fit(prefs)
    head = LinearHead(l2=1 / (1 / 0.3 + 1 / 0.1), tol=1e-14).fit(prefs)
    np.testing.assert_allclose(both.coef_.sum(axis=1), head.coef_, atol=3e-4 * np.abs(head.coef_).max())
    np.testing.assert_allclose(both.coef_[:, 1], 3 * both.coef_[:, 0], rtol=1e-3, atol=1e-5)


def test_k_of_all_experts_is_the_dense_mixture_to_the_bit():
    prefs, _ = example_preferences()
    dense = model(k=None).fit(prefs)
    for k in (3, 7):
        same = model(k=k).fit(prefs)
        np.testing.assert_array_equal(same.predict(prefs), dense.predict(prefs))
    sparse = model(k=2).fit(prefs)
    assert ((sparse.gates(prefs.responses) > 0).sum(axis=1) == 2).all()
    assert (dense.gates(prefs.responses) > 0).all()
    np.testing.assert_allclose(sparse.load_.sum(), 2)


@pytest.mark.parametrize("k", [None, 2])
def test_permuting_experts_changes_nothing(k):
    prefs, _ = example_preferences()
    names = dict(zip(("alpha", "beta", "gamma"), ("zeta", "eta", "alpha")))
    renamed = with_pairs(prefs, with_responses(prefs.responses, domain=[names[str(d)] for d in prefs.responses.domain]))
    plain, moved = model(k=k).fit(prefs), model(k=k).fit(renamed)
    assert moved.expert_names_ == ["alpha", "eta", "zeta"]
    np.testing.assert_allclose(moved.predict(prefs), plain.predict(prefs), atol=1e-6)
    np.testing.assert_allclose(moved.load_, plain.load_[[2, 1, 0]])
    order = [2, 0, 1]
    turned = clone(plain).fit(prefs)
    turned.coef_ = plain.coef_[:, [*order, 3]]
    turned.gate_weights_, turned.gate_bias_ = plain.gate_weights_[:, order], plain.gate_bias_[order]
    np.testing.assert_allclose(turned.predict(prefs), plain.predict(prefs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "parameters", [{}, {"k": None}, {"hidden": (4,), "max_epochs": 3}, {"noise": 0.5, "expert_dropout": 0.2}]
)
def test_swapped_pairs_have_exactly_opposite_margins(parameters):
    prefs, _ = example_preferences()
    fitted = MixtureRewardModel(**parameters).fit(prefs)
    np.testing.assert_array_equal(fitted.margins(prefs.swapped()), -fitted.margins(prefs))


def test_reward_is_the_gate_times_the_experts_and_the_shared_part():
    prefs, _ = example_preferences()
    fitted = model().fit(prefs)
    gate = fitted.gates(prefs.responses)
    np.testing.assert_allclose(gate.sum(axis=1), 1)
    by_hand = (gate[prefs.responses.prompt_of] * fitted.expert_rewards(prefs.responses)).sum(axis=1)
    np.testing.assert_allclose(fitted.predict(prefs), by_hand, rtol=1e-10, atol=1e-12)
    features = fitted.featurizer_.transform(prefs.responses)
    np.testing.assert_allclose(
        fitted.expert_rewards(prefs.responses), features @ (fitted.coef_[:, :3] + fitted.coef_[:, 3:]), atol=1e-10
    )


def test_gate_depends_on_the_prompt_alone():
    prefs, _ = example_preferences()
    fitted = model().fit(prefs)
    moved = map_views(prefs, lambda name, m: m + 3.0 if name.startswith("response:") else m)
    np.testing.assert_array_equal(fitted.gates(moved.responses), fitted.gates(prefs.responses))


def test_opposite_rewards_are_learned_without_labels():
    train, test = opposed(), opposed(seed=1)
    assert abs(LinearHead().fit(train).score(test) - 0.5) < 0.08
    for k in (None, 1):
        fitted = model(n_experts=2, k=k, supervision=0.0, l2=1e-2).fit(train)
        assert fitted.score(test) > 0.93
        # no label was read
        unlabelled = model(n_experts=2, k=k, supervision=0.0, l2=1e-2).fit(opposed(labels=False))
        np.testing.assert_array_equal(unlabelled.predict(test), fitted.predict(test))
    assert model(l2=1e-2).fit(train).score(test) > 0.93


def test_a_noisy_planted_problem_is_learned_to_near_its_bayes_rate():
    train, test = opposed(1500, noise=1.0), opposed(3000, seed=1, noise=1.0)
    # the labels' own margins on the test pairs, of the experts that made them
    sign = np.where(test.domain == "for", 1.0, -1.0)
    x = test.responses.view("response:final")
    truth = (x[test.pairs[:, 0]] - x[test.pairs[:, 1]]) @ np.array([2.0, 1.0, 0.0, 0.0, 0.0]) * sign
    bayes = float((truth > 0).mean())
    fitted = model(n_experts=2, k=None, supervision=0.0, l2=1e-2, gate_l2=1e-3).fit(train)
    assert fitted.score(test) > bayes - 0.03


def test_adam_reaches_what_lbfgs_does():
    train, test = opposed(600), opposed(seed=1)
    for parameters in ({"noise": 0.2}, {"hidden": (16,), "shared": False}, {"expert_dropout": 0.1}):
        fitted = MixtureRewardModel(learning_rate=1e-2, max_epochs=30, **parameters).fit(train)
        assert fitted.score(test) > 0.9, parameters


def test_experts_that_agree_are_shrunk_to_the_shared_part():
    prefs, _ = example_preferences()
    strong = model(l2=100.0, l2_shared=1e-2, k=None).fit(prefs)
    head = LinearHead(l2=1e-2, tol=1e-12).fit(prefs)
    np.testing.assert_allclose(strong.margins(prefs), head.margins(prefs), atol=0.02 * head.margins(prefs).std())


def test_penalties_are_chosen_on_held_out_groups():
    prefs, _ = example_preferences(31)
    fitted = model(l2="cv", l2_shared="cv", l2_grid=(0.01, 100.0)).fit(prefs)
    assert len(fitted.cv_results_) == 4
    best = min(fitted.cv_results_, key=lambda r: r["loss"])
    assert (fitted.l2_, fitted.l2_shared_) == (best["l2"], best["l2_shared"])
    # a reward is there to be found, and two penalties of 100 find little of it
    assert (fitted.l2_, fitted.l2_shared_) != (100.0, 100.0)
    again = model(l2=fitted.l2_, l2_shared=fitted.l2_shared_).fit(prefs)
    np.testing.assert_array_equal(again.predict(prefs), fitted.predict(prefs))


def test_logged_facts_by_hand():
    prefs, _ = example_preferences()
    prefs = with_pairs(prefs, weight=np.random.default_rng(0).uniform(0.5, 2.0, len(prefs)))
    fitted = model().fit(prefs)
    gate = fitted.gates(prefs.responses)
    weight = np.bincount(prefs.prompt_rows, prefs.weight, len(gate)) / prefs.weight.sum()
    np.testing.assert_allclose(fitted.importance_, weight @ gate, rtol=1e-5)
    np.testing.assert_allclose(fitted.load_, weight @ (gate > 0), rtol=1e-9)
    entropy = -(np.where(gate > 0, gate * np.log(np.maximum(gate, 1e-300)), 0.0)).sum(axis=1)
    assert fitted.gate_entropy_ == pytest.approx(weight @ entropy, rel=1e-5)
    assert fitted.history_[-1]["objective"] < fitted.history_[0]["objective"]


def test_domains_of_few_prompts_are_found_when_prompts_count_by_their_pairs():
    # one prompt in twelve, and half of the pairs
    rng = np.random.default_rng(0)
    n = 60
    rare = np.arange(n) % 12 == 0
    prompt = rng.normal(size=(n, DIM)) + np.where(rare, 0.8, 0.0)[:, None]
    count = np.where(rare, 23, 2)
    prompt_of = np.repeat(np.arange(n), count)
    gold = rng.normal(size=len(prompt_of))
    pairs = np.concatenate(
        [[[s + j, s + j + 1] for j in range(c - 1)] for s, c in zip(np.cumsum(count) - count, count)]
    ).astype(int)
    pairs = np.where((gold[pairs[:, 0]] > gold[pairs[:, 1]])[:, None], pairs, pairs[:, ::-1])
    prefs = EmbeddedPreferences.from_arrays(
        rng.normal(size=(len(prompt_of), DIM)),
        pairs,
        prompt=prompt,
        prompt_of=prompt_of,
        domain=np.where(rare, "rare", "usual"),
    )
    found = {}
    for rule in ("pairs", "prompts"):
        fitted = model(prompt_weight=rule, k=None, gate_l2=0.1).fit(prefs)
        found[rule] = fitted.gates(prefs.responses)[rare, 0].mean()
    assert found["pairs"] > found["prompts"] + 0.1


def test_more_experts_than_domains_share_them_out():
    train = opposed(200)
    fitted = model(n_experts=5).fit(train)
    # experts of one domain begin apart, where random_state has them begin
    again, other = (model(n_experts=5, random_state=seed).fit(train) for seed in (0, 1))
    np.testing.assert_array_equal(again.gate_weights_, fitted.gate_weights_)
    assert not np.allclose(other.gate_weights_, fitted.gate_weights_, atol=1e-3)
    none_shared = [model(random_state=seed).fit(train).gate_weights_ for seed in (0, 1)]
    np.testing.assert_array_equal(*none_shared)
    assert fitted.expert_names_ == ["against", "for", "against", "for", "against"]
    gate = fitted.gates(train.responses)
    assert (gate[train.responses.domain == "for"][:, [1, 3]].sum(axis=1) > 0.5).mean() > 0.9


@pytest.mark.parametrize("parameters", [{}, {"hidden": (4,), "max_epochs": 3}, {"noise": 0.3, "max_epochs": 3}])
def test_saved_and_loaded_it_is_the_same_to_the_bit(tmp_path, parameters):
    prefs, _ = example_preferences()
    fitted = MixtureRewardModel(**parameters).fit(prefs)
    for made in (fitted, fitted.prune(prefs, 2, "likeness")):
        name = f"{made.n_experts_}"
        loaded, _ = load_model(save_model(made, tmp_path / name))
        np.testing.assert_array_equal(loaded.predict(prefs), made.predict(prefs))
        assert loaded.history_ == made.history_


def test_an_unseen_domain_is_mixed_from_the_experts():
    prefs, _ = example_preferences()
    seen = prefs[prefs.domain != "gamma"]
    fitted = model().fit(seen)
    assert np.isfinite(fitted.margins(prefs.in_domain("gamma"))).all()


def crossing():
    prefs, _ = example_preferences()
    rows = prefs.active[:: len(prefs.active) // 2][:2]
    return prefs, with_pairs(prefs, pairs=np.array([rows]), weight=None, margin=None, outcome=None)


def test_pairs_across_prompts_are_refused_unless_there_is_one_expert():
    prefs, across = crossing()
    fitted = model().fit(prefs)
    for call in (fitted.margins, lambda p: model(n_experts=2).fit(p)):
        with pytest.raises(InvalidInputError, match="1 of 1 pairs compare responses to different prompts"):
            call(across)
    assert np.isfinite(model(n_experts=1).fit(prefs).margins(across)).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_experts": 0}, "n_experts to be a whole number >= 1"),
        ({"k": 1.5}, "k to be a whole number"),
        ({"l2": -1.0}, "l2 to be a number >= 0, 'cv' or None"),
        ({"l2": "cv", "l2_grid": ()}, r"\(l2='cv'\) needs l2_grid of numbers >= 0, got \(\)"),
        ({"l2": "cv", "l2_grid": iter(())}, r"l2_grid of numbers >= 0, got \(\)"),
        ({"l2_shared": "cv", "l2_grid": 0.3}, "needs l2_grid of numbers >= 0, got"),
        ({"l2": "cv", "cv": 1}, "needs cv to be a whole number >= 2, got 1"),
        ({"random_state": -1}, "random_state to be a whole number >= 0, got -1"),
        ({"random_state": None}, "random_state to be a whole number >= 0, got None"),
        ({"l2": "cv", "noise": 0.1}, "linear experts without noise"),
        ({"gate_l2": np.nan}, "gate_l2 to be a number >= 0"),
        ({"expert_dropout": 1.0}, r"expert_dropout in \[0, 1\)"),
        ({"validation_fraction": 0.0}, r"validation_fraction in \(0, 1\)"),
        ({"prompt_weight": "pair"}, "pairs"),
        ({"hidden": ()}, "hidden to be widths"),
        ({"hidden": 0.5}, "hidden to be widths"),
        ({"tol": 0}, "tol > 0"),
        ({"max_iter": 0}, "max_iter to be a whole number >= 1"),
        ({"n_experts": 2}, "teaches the gate 3 domains with n_experts=2"),
    ],
)
def test_wrong_parameters_are_refused(parameters, message):
    prefs, _ = example_preferences()
    with pytest.raises(InvalidInputError, match=message):
        MixtureRewardModel(**parameters).fit(prefs)


def test_a_grid_may_be_given_as_an_iterator_and_is_read_once():
    train = opposed(60)
    listed = model(l2="cv", l2_grid=(0.1, 3.0)).fit(train)
    once = model(l2="cv", l2_grid=(value for value in (0.1, 3.0))).fit(train)
    assert once.cv_results_ == listed.cv_results_
    np.testing.assert_array_equal(once.coef_, listed.coef_)
    # what is left of it is nothing, and that is said
    with pytest.raises(InvalidInputError, match=r"l2_grid of numbers >= 0, got \(\)"):
        once.fit(train)


def test_training_is_stopped_by_pairs_that_count():
    prefs = opposed(60)
    # hardly a prompt has weight; drawn from all, those held out would have none
    weight = (prefs.prompt_rows < 4).astype(float)
    mixture = MixtureRewardModel(hidden=(4,), max_epochs=3).fit(prefs.weighted(weight))
    assert all(np.isfinite(facts["held_out_loss"]) for facts in mixture.history_)


def test_a_held_out_loss_that_is_never_finite_is_refused():
    prefs = opposed(60)
    _, out = hold_out(prefs.groups, 0.1, 0, "a test", "more")
    held = np.isin(prefs.responses.prompt_of, prefs.prompt_rows[out])

    # finite by themselves, and beyond float32 once multiplied
    def far(x):
        return np.where(held[:, None], np.copysign(3e38, x), x)

    large = map_views(prefs, lambda name, x: (far(x) if len(x) == len(held) else x).astype(np.float32))
    options = {"hidden": (4,), "max_epochs": 3, "featurizer": Featurizer(scale="none")}
    with (
        np.errstate(all="ignore"),
        pytest.raises(InvalidInputError, match="held-out loss that is not finite in each of 3 epochs"),
    ):
        MixtureRewardModel(**options).fit(large)


def test_penalties_are_judged_by_pairs_that_were_not_trained_on():
    prefs = opposed(200)
    coin = np.random.default_rng(0).random(len(prefs)) < 0.5
    noise = with_pairs(prefs, pairs=np.where(coin[:, None], prefs.pairs, prefs.pairs[:, ::-1]))
    fitted = model(l2="cv", l2_shared=1.0, l2_grid=(1e-3, 10.0)).fit(noise)
    strong, weak = (row["loss"] for row in fitted.cv_results_)
    # labels by coin: what fits its training pairs closely is worse than a coin on others
    assert strong < weak
    assert weak > np.log(2)
    assert fitted.l2_ == 10.0


def test_adam_shrinks_experts_and_the_shared_part_each_by_its_own_penalty():
    def norms(l2, l2_shared):
        options = {"hidden": (4,), "early_stopping": False, "max_epochs": 30, "learning_rate": 1e-2}
        fitted = MixtureRewardModel(l2=l2, l2_shared=l2_shared, **options).fit(opposed(100))
        sizes = np.sqrt(sum((w**2).sum(axis=(1, 2)) for w in fitted.weights_))
        return sizes[:2].max(), sizes[:2].min(), sizes[2]

    _, least, shared = norms(0.0, 0.0)
    most, _, alone = norms(10.0, 0.0)
    assert most < 0.1 * least
    assert alone > 0.5 * shared
    _, kept, small = norms(0.0, 10.0)
    assert small < 0.1 * shared
    assert kept > 0.5 * least


def test_a_gate_without_prompts_is_refused_and_one_expert_needs_none():
    prefs, _ = example_preferences()
    bare = with_pairs(
        prefs, with_responses(prefs.responses, views={"response:final": prefs.responses.view("response:final")})
    )
    with pytest.raises(InvalidInputError, match="prompt"):
        model().fit(bare)
    matrix = prefs.responses.view("response:final")
    one = model(n_experts=1).fit(bare)
    np.testing.assert_array_equal(one.predict(matrix), one.predict(bare))
    with pytest.raises(NotFittedError):
        model().margins(prefs)


def test_pairs_by_which_training_is_stopped_teach_nothing():
    prefs = opposed(100)
    _, out = hold_out(prefs.groups, 0.2, 0, "a test", "more")
    turned = prefs.pairs.copy()
    turned[out] = turned[out, ::-1]
    # of one epoch, that one is kept whatever the held-out loss
    options = {"hidden": (4,), "max_epochs": 1, "validation_fraction": 0.2}
    one, other = (MixtureRewardModel(**options).fit(p) for p in (prefs, with_pairs(prefs, pairs=turned)))
    for a, b in zip((*one.weights_, one.gate_weights_), (*other.weights_, other.gate_weights_)):
        np.testing.assert_array_equal(a, b)
    assert one.history_[0]["held_out_loss"] != other.history_[0]["held_out_loss"]
