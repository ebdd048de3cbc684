"""MLPHead: gradients, members trained together, stopping, batches, and the problems it is made for."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.special import expit

from embedrm import EmbeddedPreferences, Featurizer, LinearHead
from embedrm.checks.data import map_views
from embedrm.errors import InvalidInputError
from embedrm.featurizers import rows as feature_rows
from embedrm.heads import _mlp_training
from embedrm.heads._mlp_training import _Batches
from embedrm.heads._network import Adam, Network
from embedrm.heads.mlp import PRESETS, MLPHead
from embedrm.numerics.folds import hold_out
from embedrm.objectives import OBJECTIVES, Comparisons
from embedrm.objectives.bt_smoothed import BTSmoothed


def problem(reward, n_prompts=1500, k=4, dim=8, seed=0):
    """Bradley–Terry labels of a known reward; returns (train, test, Bayes rate on test)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_prompts, k, dim)).astype(np.float32)
    prefs = EmbeddedPreferences.from_arrays(x, rewards=reward(x))
    wins = expit(prefs.margin)
    flip = rng.random(len(prefs)) > wins
    noisy = EmbeddedPreferences(prefs.responses, np.where(flip[:, None], prefs.pairs[:, ::-1], prefs.pairs))
    test = noisy.prompt_rows >= 0.7 * n_prompts
    return noisy[~test], noisy[test], float(1 - flip[test].mean())


def bent(x):
    return 3 * np.abs(x[..., 0]) - 2 * np.maximum(x[..., 1], 0) + x[..., 2] * x[..., 3]


def small(n=60):
    return problem(lambda x: 3 * x[..., 0], n_prompts=n)[0]


def test_the_gradient_equals_finite_differences():
    rng = np.random.default_rng(0)
    network = Network.new((5, 4, 3, 1), [np.random.default_rng(s) for s in (1, 2)])
    network = Network([w.astype(np.float64) for w in network.weights], [b.astype(np.float64) for b in network.biases])
    x, slope = rng.normal(size=(7, 5)), rng.normal(size=(7, 2))
    _, kept = network.forward(x, 0.0, rng)
    gradient = network.backward(x, kept, slope, 0.0)

    def value():
        return float((slope * network.forward(x, 0.0, rng)[0]).sum())

    for parameter, found in zip(network.parameters(), gradient.parameters()):
        for i in range(0, parameter.size, 3):
            at = np.unravel_index(i, parameter.shape)
            before = parameter[at]
            parameter[at] = before + 1e-6
            ahead = value()
            parameter[at] = before - 1e-6
            behind = value()
            parameter[at] = before
            # slopes are handed back in float32
            assert found[at] == pytest.approx((ahead - behind) / 2e-6, rel=1e-4, abs=1e-5)


def test_dropout_keeps_the_mean_and_its_mask_in_the_gradient():
    network = Network.new((6, 400, 1), [np.random.default_rng(0)])
    x = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)
    plain = network.predict(x)
    drawn = np.mean([network.forward(x, 0.5, np.random.default_rng(s))[0] for s in range(200)], axis=0)
    assert np.abs(drawn - plain).max() < 0.1
    _, kept = network.forward(x, 0.5, np.random.default_rng(3))
    gradient = network.backward(x, kept, np.ones((50, 1), dtype=np.float32), 0.5)
    silent = (kept[0] == 0).all(axis=1)[0]
    assert (gradient.weights[0][0][:, silent] == 0).all()


def test_adam_takes_the_steps_of_its_definition():
    network = Network([np.array([[[1.0], [-2.0]]], dtype=np.float32)], [np.array([[0.5]], dtype=np.float32)])
    adam = Adam(network, 0.1, 0.01, 0.5)
    w, b, m, v = np.array([1.0, -2.0]), 0.5, np.zeros(3), np.zeros(3)
    for t in range(1, 6):
        slope = Network([np.array([[[0.3 * t], [-1.0]]], dtype=np.float32)], [np.array([[2.0]], dtype=np.float32)])
        adam.step(slope)
        g = np.array([0.3 * t + 0.5 * w[0], -1 + 0.5 * w[1], 2.0])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        step = 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        w, b = w * (1 - 0.1 * 0.01) - step[:2], b - step[2]
    np.testing.assert_allclose(network.weights[0].ravel(), w, rtol=1e-5)
    assert network.biases[0][0, 0] == pytest.approx(b, abs=1e-6)


def test_a_linear_teacher_is_learned_to_within_a_point_of_its_bayes_rate():
    train, test, bayes = problem(lambda x: 2 * x[..., 0] - x[..., 1], n_prompts=3000)
    assert MLPHead().fit(train).score(test) > bayes - 0.01


def test_a_bent_teacher_is_learned_and_a_line_is_not_enough():
    train, test, bayes = problem(bent, n_prompts=3000)
    mlp = MLPHead().fit(train).score(test)
    assert mlp > bayes - 0.03
    assert mlp > LinearHead().fit(train).score(test) + 0.1


@pytest.mark.parametrize("objective", OBJECTIVES.names())
def test_every_objective_trains(objective):
    train, test, bayes = problem(lambda x: 3 * x[..., 0], n_prompts=600)
    head = MLPHead(objective=objective, hidden=(16,)).fit(train)
    assert head.score(test) > bayes - 0.06
    assert head.margins_are_logits is OBJECTIVES.get(objective).margins_are_logits


def test_members_trained_together_are_those_trained_alone():
    train, test, _ = problem(bent, n_prompts=300)
    head = MLPHead(max_epochs=6, early_stopping=False)
    together = head.train_members(train, [11, 12, 13])
    alone = [MLPHead(max_epochs=6, early_stopping=False).train_members(train, [s]) for s in (11, 12, 13)]
    # batches follow the first seed and the number of members, so the paths differ; the first weights do not
    assert len({head.member(together, m).predict(test).tobytes() for m in range(3)}) == 3
    for m, one in enumerate(alone):
        accuracy = head.member(together, m).score(test), head.member(one, 0).score(test)
        assert accuracy[0] == pytest.approx(accuracy[1], abs=0.05)


def test_weights_of_members_are_their_own():
    train, test, _ = problem(lambda x: 3 * x[..., 0], n_prompts=400)
    n = len(train)
    backwards = EmbeddedPreferences(
        train.responses,
        np.concatenate([train.pairs, train.pairs[:, ::-1]]),
    )
    weight = np.zeros((2 * n, 2))
    weight[:n, 0] = weight[n:, 1] = 1
    head = MLPHead(early_stopping=False, max_epochs=20)
    trained = head.train_members(backwards, [0, 1], weight)
    right, wrong = (head.member(trained, m).score(test) for m in (0, 1))
    assert right > 0.8
    assert wrong < 0.2


def test_masked_features_are_not_read():
    train, test, _ = problem(lambda x: 3 * x[..., 0], n_prompts=300)
    masks = np.ones((2, 8), dtype=bool)
    masks[1, 0] = False
    head = MLPHead(max_epochs=15)
    trained = head.train_members(train, [0, 1], masks=masks)
    seeing, blind = (head.member(trained, m) for m in (0, 1))
    assert seeing.score(test) > 0.8
    assert blind.score(test) < 0.6
    assert (blind.weights_[0][0] == 0).all()


def test_the_best_epoch_is_kept():
    train, _, _ = problem(bent, n_prompts=200)
    head = MLPHead(patience=4, learning_rate=0.01).fit(train)
    losses = head.validation_losses_
    assert head.n_epochs_ == losses.argmin() + 1
    assert len(losses) == len(head.train_losses_) == head.n_epochs_ + 4
    stopped = MLPHead(max_epochs=3, early_stopping=False).fit(train)
    assert stopped.n_epochs_ == 3
    assert len(stopped.validation_losses_) == 0


def test_l2_shrinks_weights_and_decay_does_too():
    train = small()
    options = {"early_stopping": False, "max_epochs": 40}
    sizes = [
        sum(float((w**2).sum()) for w in MLPHead(**options, **more).fit(train).weights_)
        for more in ({"l2": 0}, {"l2": 0.1}, {"l2": 0, "weight_decay": 1.0})
    ]
    assert sizes[1] < 0.8 * sizes[0]
    assert sizes[2] < 0.99 * sizes[0]


def test_a_cosine_takes_the_rate_from_all_of_it_to_nothing(monkeypatch):
    rates = []

    class Recorded(Adam):
        def step(self, gradient):
            rates.append(self.rate)
            super().step(gradient)

    monkeypatch.setattr(_mlp_training, "Adam", Recorded)
    train = small(57)
    options = {"early_stopping": False, "max_epochs": 3, "learning_rate": 0.02, "batch_rows": 32}
    MLPHead(**options).fit(train)
    assert set(rates) == {0.02}
    n_steps = len(rates)
    rates.clear()
    MLPHead(rate_schedule="cosine", **options).fit(train)
    # five batches of eight prompts an epoch, so the steps share the half period evenly
    assert len(rates) == n_steps == 15
    np.testing.assert_allclose(rates, 0.01 * (1 + np.cos(np.pi * np.arange(n_steps) / n_steps)))


def test_a_cosine_of_half_the_epochs_does_no_worse_than_a_rate_that_stays():
    train, test, _ = problem(bent, n_prompts=600)
    options = {"early_stopping": False, "learning_rate": 0.01}
    falling = MLPHead(rate_schedule="cosine", max_epochs=10, **options).fit(train)
    staying = MLPHead(max_epochs=20, **options).fit(train)
    assert falling.score(test) > staying.score(test)


def test_a_seed_gives_the_same_bits_and_another_others():
    train = small()
    one, same, other = (MLPHead(dropout=0.2, max_epochs=5, random_state=s).fit(train) for s in (4, 4, 5))
    assert one.predict(train).tobytes() == same.predict(train).tobytes()
    assert one.predict(train).tobytes() != other.predict(train).tobytes()


def test_features_made_block_by_block_train_the_same_model(monkeypatch):
    train = small()
    held = MLPHead(max_epochs=4).fit(train).predict(train)
    monkeypatch.setattr(feature_rows, "HELD_LIMIT_BYTES", 0)
    streamed = MLPHead(max_epochs=4).fit(train).predict(train)
    np.testing.assert_allclose(streamed, held, atol=1e-6)


def test_batches_hold_every_pair_once_and_whole_prompts():
    prefs = small(100)
    comparisons = Comparisons.of(prefs)
    batches = _Batches(comparisons, 64)
    epoch = list(batches.epoch(np.random.default_rng(0)))
    assert sorted(np.concatenate(epoch).tolist()) == list(range(len(prefs)))
    owner = comparisons.prompt_of[comparisons.pairs[:, 0]]
    for one, other in pairwise(epoch):
        assert not set(owner[one]) & set(owner[other])
    sizes = [len(np.unique(comparisons.pairs[part])) for part in epoch]
    assert max(sizes) <= batches.batch_rows + 3


def test_a_prompt_counts_its_responses_once_and_those_of_others_too():
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 40, size=(120, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    prefs = EmbeddedPreferences.from_arrays(rng.normal(size=(40, 2)), pairs, prompt_of=rng.integers(0, 9, size=40))
    comparisons = Comparisons.of(prefs)
    batches = _Batches(comparisons, 64)
    owner = comparisons.prompt_of[comparisons.pairs[:, 0]]
    expected = [len(np.unique(comparisons.pairs[owner == one])) for one in np.unique(owner)]
    assert batches.rows_of.tolist() == expected


def test_a_prompt_larger_than_a_batch_is_cut():
    x = np.random.default_rng(0).normal(size=(3, 60, 4))
    prefs = EmbeddedPreferences.from_arrays(x, rewards=x[..., 0])
    epoch = list(_Batches(Comparisons.of(prefs), 32).epoch(np.random.default_rng(0)))
    assert sorted(np.concatenate(epoch).tolist()) == list(range(len(prefs)))
    assert len(epoch) > 30
    assert MLPHead(hidden=(8,), batch_rows=32).fit(prefs).score(prefs) > 0.9


def test_presets_are_the_named_sizes():
    head = MLPHead(hidden="1024-512-1", max_epochs=1).fit(small())
    assert [w.shape for w in head.weights_] == [(8, 1024), (1024, 512), (512, 1)]
    assert PRESETS["64-64-64-1"] == (64, 64, 64)


def test_interactions_are_read():
    rng = np.random.default_rng(0)
    p = rng.choice([-1.0, 1.0], size=(800, 1))
    x = rng.normal(size=(800, 2, 1))
    prefs = EmbeddedPreferences.from_arrays(x, rewards=x[..., 0] * p, prompt=p)
    assert MLPHead().fit(prefs).score(prefs) < 0.6
    assert MLPHead(Featurizer(["r", "p*r"])).fit(prefs).score(prefs) > 0.95


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"hidden": ()}, "widths of at least 1"),
        ({"hidden": 64}, "widths of at least 1"),
        ({"hidden": (4, 0)}, "widths of at least 1"),
        ({"hidden": "64-64"}, "64-64-64-1"),
        ({"dropout": 1.0}, r"dropout in \[0, 1\)"),
        ({"l2": -1}, "l2 to be a number >= 0"),
        ({"learning_rate": 0}, "learning_rate > 0"),
        ({"rate_schedule": "cosin"}, "cosine"),
        ({"validation_fraction": 1.0}, r"validation_fraction in \(0, 1\)"),
        ({"patience": 0}, "patience to be a whole number"),
        ({"batch_rows": 2.5}, "batch_rows to be a whole number"),
        ({"objective": BTSmoothed(0.7)}, "flip_rate"),
    ],
)
def test_wrong_parameters_are_refused(parameters, message):
    with pytest.raises(InvalidInputError, match=message):
        MLPHead(**parameters).fit(small())


def test_one_group_cannot_be_stopped_by():
    x = np.random.default_rng(0).normal(size=(1, 6, 4))
    prefs = EmbeddedPreferences.from_arrays(x, rewards=x[..., 0])
    with pytest.raises(InvalidInputError, match="early_stopping=False"):
        MLPHead().fit(prefs)
    assert MLPHead(early_stopping=False, max_epochs=5).fit(prefs).n_epochs_ == 5


def test_a_rate_that_explodes_is_told():
    with np.errstate(all="ignore"), pytest.raises(InvalidInputError, match="lower learning_rate"):
        MLPHead(learning_rate=1e30, early_stopping=False).fit(small())


def test_training_is_stopped_by_pairs_that_count():
    prefs = small()
    # hardly a prompt has weight; drawn from all, those held out would have none
    weight = np.isin(prefs.prompt_rows, prefs.active_prompts[:3]).astype(float)
    head = MLPHead(hidden=(4,), max_epochs=3).fit(prefs.weighted(weight))
    assert len(head.validation_losses_)
    assert np.isfinite(head.validation_losses_).all()


def test_a_held_out_loss_that_is_never_finite_is_told():
    prefs = problem(lambda x: 3 * x[..., 0], n_prompts=60, dim=400)[0]
    head = MLPHead(featurizer=Featurizer(scale="none"), hidden=(16, 16), max_epochs=3)
    _, out = hold_out(prefs.groups, head.validation_fraction, head.random_state, "a test", "more")
    held = np.isin(prefs.responses.prompt_of, prefs.prompt_rows[out])
    # finite by themselves, and beyond float32 once multiplied
    far = map_views(prefs, lambda name, x: np.where(held[:, None], np.copysign(3e38, x), x).astype(np.float32))
    with np.errstate(all="ignore"), pytest.raises(InvalidInputError, match="not finite in each of 3 epochs"):
        head.fit(far)
