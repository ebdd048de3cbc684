"""GBDTHead: gradients, LightGBM's own objectives as references, stopping, binning, refusals, and known problems."""

import subprocess
import sys
import threading

import lightgbm
import numpy as np
import pytest
from scipy.special import expit

from embedrm import EmbeddedPreferences, Featurizer, LinearHead
from embedrm.errors import InvalidInputError
from embedrm.heads import _gbdt_data, _gbdt_training
from embedrm.heads._gbdt_training import FLAT_FLOOR, FLOOR, GraphLoss, fixed_point
from embedrm.heads.gbdt import FAST_BINS, GBDTHead
from embedrm.numerics.folds import hold_out
from embedrm.objectives import OBJECTIVES, Comparisons, make_objective
from embedrm.objectives.bt_smoothed import BTSmoothed
from embedrm.persistence import load_model, save_model

QUICK = {"max_trees": 15, "early_stopping": False}


def problem(reward, n_prompts=600, k=4, dim=6, seed=0, values=None):
    """Bradley–Terry labels of a known reward; returns (train, test, Bayes rate on test)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_prompts, k, dim)) if values is None else rng.integers(values, size=(n_prompts, k, dim))
    x = x.astype(np.float32)
    prefs = EmbeddedPreferences.from_arrays(x, rewards=reward(x) + 1e-9 * rng.random((n_prompts, k)))
    wins = expit(prefs.margin)
    flip = rng.random(len(prefs)) > wins
    noisy = EmbeddedPreferences(
        prefs.responses, np.where(flip[:, None], prefs.pairs[:, ::-1], prefs.pairs), margin=prefs.margin
    )
    test = noisy.prompt_rows >= 0.7 * n_prompts
    # a pair of equal rewards is a coin, whatever one does
    best = np.where(wins > 0.5 + 1e-6, ~flip, 0.5)
    return noisy[~test], noisy[test], float(best[test].mean())


def line(x):
    return 3.0 * x[..., 0]


def boxes(x):
    """Sum of three small trees."""
    return (
        np.where(x[..., 0] > 0, np.where(x[..., 1] > 0.5, 3.0, -1.0), np.where(x[..., 2] > -0.5, 0.5, -2.0))
        + np.where(x[..., 3] > 1, 2.0, 0.0)
        - np.where(np.abs(x[..., 1]) < 0.3, 1.5, 0.0)
    )


def view(prefs):
    return prefs.responses.views["response:final"]


def booster(head):
    return lightgbm.Booster(model_str=head.booster_)


def splits(model):
    """Feature and threshold of every split, tree by tree."""
    table = model.trees_to_dataframe()
    inner = table[table.split_feature.notna()]
    return list(zip(inner.tree_index, inner.split_feature, inner.threshold.round(6)))


# -- slopes and curvatures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES.names())
def test_gradients_equal_finite_differences_of_the_scaled_loss(objective):
    train, _, _ = problem(line, n_prompts=8)
    train = EmbeddedPreferences(
        train.responses, train.pairs, margin=train.margin, outcome=np.tile([1, 0.8, 0.5], len(train) // 3)
    )
    comparisons = Comparisons.of(train)
    graph = GraphLoss(comparisons, make_objective(objective))
    rewards = np.random.default_rng(1).normal(size=comparisons.n_responses)
    graph.look(rewards)
    slope, hessian = graph.gradients()
    for i in range(0, len(rewards), 3):
        step = np.zeros(len(rewards))
        step[i] = 1e-5
        rise = graph.scale * (graph.look(rewards + step) - graph.look(rewards - step)) / 2e-5
        assert slope[i] == pytest.approx(rise, rel=1e-5, abs=1e-6)
    assert (hessian > 0).all()


def test_gradients_of_a_hand_counted_graph():
    # 0 beats 1 and 2; a mean over two pairs, times three responses
    x = np.arange(3.0)[:, None]
    graph = GraphLoss(
        Comparisons.of(EmbeddedPreferences.from_arrays(x, [[0, 1], [0, 2]])), make_objective("bradley-terry")
    )
    slope, hessian = graph.gradients()
    np.testing.assert_allclose(slope, 3 * np.array([-0.5, 0.25, 0.25]))
    np.testing.assert_allclose(hessian, 3 * np.array([0.25, 0.125, 0.125]))


def test_l2_halves_a_leaf_whose_share_of_the_curvature_equals_it():
    x = np.repeat([1.0, 0.0], 30)[:, None]
    prefs = EmbeddedPreferences.from_arrays(x, np.stack([np.arange(30), np.arange(30, 60)], axis=1))
    stump = {"max_trees": 1, "learning_rate": 1.0, "num_leaves": 2, "early_stopping": False}
    # in the mean loss each of the two leaves has slope 1/2 and curvature 1/4
    for l2, value in ((0.0, 2.0), (0.25, 1.0), (0.75, 0.5)):
        head = GBDTHead(l2=l2, **stump).fit(prefs)
        np.testing.assert_allclose(head.predict(np.array([[1.0], [0.0]])), [value, -value], rtol=1e-6)


def test_sums_of_rounded_slopes_are_exact_in_any_order():
    rng = np.random.default_rng(0)
    values = rng.normal(size=100_000) * 10.0 ** rng.integers(-9, 3, size=100_000)
    rounded = fixed_point(values)
    assert np.abs(rounded - values).max() <= np.abs(values).max() * 2.0**-24
    assert (rounded.astype(np.float32) == rounded).all()
    assert len({float(np.cumsum(rng.permutation(rounded))[-1]) for _ in range(5)}) == 1
    assert len({float(np.cumsum(rng.permutation(values))[-1]) for _ in range(5)}) > 1
    assert fixed_point(np.zeros(3)).tolist() == [0, 0, 0]


def test_flat_losses_get_a_floor_and_curved_ones_hardly_any():
    train, test, bayes = problem(line)
    comparisons = Comparisons.of(train)
    degree = np.bincount(comparisons.pairs.ravel())
    for objective, floor in (("hinge", FLAT_FLOOR), ("bradley-terry", FLOOR)):
        graph = GraphLoss(comparisons, make_objective(objective))
        np.testing.assert_allclose(graph.least, floor * 0.25 * degree / len(train))
    head = GBDTHead(objective="hinge").fit(train)
    assert np.abs(head.predict(train)).max() < 20
    assert head.score(test) > bayes - 0.05
    higher = GBDTHead(hessian_floor=4.0, **QUICK).fit(train)
    assert higher.predict(train).std() < 0.5 * GBDTHead(**QUICK).fit(train).predict(train).std()


# -- LightGBM's own objectives as references -------------------------------------------------------------------------


def reference(x, params, head, rounds, **data):
    """LightGBM alone, with the head's settings and an objective of its own."""
    settings = _gbdt_training.parameters(head._plan(), len(x), x.shape[1], "test")
    # its built-in objectives must start where the head does
    settings |= {"metric": "none", "boost_from_average": False, **params}
    return lightgbm.train(settings, lightgbm.Dataset(x, **data), rounds)


def test_pairs_apart_are_lambdarank_with_groups_of_two():
    train, _, _ = problem(line, n_prompts=700, k=2, values=12)
    head = GBDTHead(l2=0.0, max_trees=10, early_stopping=False).fit(train)
    order = train.pairs.ravel()
    # one pair's gain is 1 and its discounts are 1 and 1/log2(3); the head's gradients are those of a mean, times two
    factor = 1 - 1 / np.log2(3)
    model = reference(
        view(train)[order],
        {"objective": "lambdarank", "lambdarank_norm": False, "min_sum_hessian_in_leaf": 1e-3 * factor / 2},
        head,
        10,
        label=np.tile([1, 0], len(train)),
        group=np.full(len(train), 2),
    )
    ours, theirs = head.predict(train)[order], model.predict(view(train)[order])
    assert splits(booster(head)) == splits(model)
    # lambdarank reads its sigmoid from a table
    np.testing.assert_allclose(ours, theirs, atol=2e-3 * ours.std())


def test_classification_is_the_binary_objective_on_two_weighted_rows_a_response():
    train, _, _ = problem(line, values=12)
    n = train.responses.n_responses
    wins, losses = (np.bincount(train.pairs[:, side], minlength=n).astype(float) for side in (0, 1))
    rows = np.flatnonzero(wins + losses)
    x = np.concatenate([view(train)[rows]] * 2)
    label = np.repeat([1, 0], len(rows))
    # the head's rows weigh one on average
    weight = np.concatenate([wins[rows], losses[rows]]) * len(rows) / (2 * len(train))
    for rounds, exact in ((1, True), (30, False)):
        head = GBDTHead(objective="classification", max_trees=rounds, early_stopping=False, min_data_in_leaf=20).fit(
            train
        )
        twice = {"objective": "binary", "min_data_in_leaf": 40, "lambda_l2": 1e-3 * len(rows), "min_data_in_bin": 1}
        model = reference(x, twice, head, rounds, label=label, weight=weight)
        ours, theirs = head.predict(train)[rows], model.predict(x[: len(rows)], raw_score=True)
        if exact:
            assert splits(booster(head)) == splits(model)
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
        else:
            # from then on the head has an intercept at its best, and the binary objective has none
            assert np.corrcoef(ours, theirs)[0, 1] > 0.999


def test_regression_is_the_built_in_one():
    train, _, _ = problem(line, values=12)
    rows, gold = train.active, train.responses.gold
    head = GBDTHead(objective="regression", max_trees=10, early_stopping=False).fit(train)
    weight = np.bincount(train.pairs.ravel(), minlength=len(gold))[rows]
    centred = gold[rows] - np.average(gold[rows], weights=weight)
    model = reference(
        view(train)[rows], {"objective": "regression"}, head, 10, label=centred, weight=weight / weight.mean()
    )
    ours = head.predict(train)[rows]
    assert np.corrcoef(ours, model.predict(view(train)[rows]))[0, 1] > 0.9999


# -- learning --------------------------------------------------------------------------------------------------------


def test_a_tree_like_teacher_is_learned_to_within_a_point_of_its_bayes_rate():
    train, test, bayes = problem(boxes, n_prompts=4000)
    score = GBDTHead().fit(train).score(test)
    assert score > bayes - 0.01
    assert score > LinearHead().fit(train).score(test) + 0.05


@pytest.mark.parametrize("objective", OBJECTIVES.names())
def test_every_objective_trains_and_its_loss_falls_with_every_tree(objective):
    train, test, bayes = problem(line)
    head = GBDTHead(objective=objective).fit(train)
    assert head.score(test) > bayes - 0.06
    assert head.margins_are_logits is OBJECTIVES.get(objective).margins_are_logits
    assert (np.diff(head.train_losses_) < 0).all()


def test_interactions_are_read():
    rng = np.random.default_rng(0)
    p = rng.choice([-1.0, 1.0], size=(800, 1))
    x = rng.normal(size=(800, 2, 1))
    prefs = EmbeddedPreferences.from_arrays(x, rewards=x[..., 0] * p, prompt=p)
    assert GBDTHead().fit(prefs).score(prefs) < 0.6
    assert GBDTHead(Featurizer(["r", "p*r"])).fit(prefs).score(prefs) > 0.95


def test_gains_are_those_of_the_features_that_matter():
    train, test, bayes = problem(boxes)
    head = GBDTHead(feature_fraction=0.5, max_trees=40, num_leaves=8).fit(train)
    assert head.feature_importances_.shape == (6,)
    assert head.feature_importances_[:4].min() > 3 * head.feature_importances_[4:].max()
    assert head.score(test) > bayes - 0.05


def test_the_trees_with_the_least_held_out_loss_are_kept():
    train, _, _ = problem(boxes, n_prompts=200)
    head = GBDTHead(patience=4, learning_rate=0.3).fit(train)
    losses = head.validation_losses_
    assert head.n_trees_ == losses.argmin() + 1 == booster(head).num_trees()
    assert len(losses) == len(head.train_losses_) == head.n_trees_ + 4
    everything = GBDTHead(**QUICK).fit(train)
    assert everything.n_trees_ == 15 == booster(everything).num_trees()
    assert len(everything.validation_losses_) == 0


def test_held_out_losses_are_those_of_whole_groups_that_are_not_trained_on():
    train, _, _ = problem(boxes, n_prompts=200)
    inside, outside = hold_out(train.groups, 0.1, 0, "test", "remedy")
    assert sorted([*inside, *outside]) == list(range(len(train)))
    assert not set(train.groups[inside]) & set(train.groups[outside])
    assert len(set(train.groups[outside])) == 14
    head = GBDTHead(max_trees=12, patience=12).fit(train)
    loss = make_objective("bradley-terry").loss(Comparisons.of(train[outside]))
    # the trees kept give the least of the losses
    value = loss.evaluate(head.predict(train.responses.take(train[outside].active))).value
    assert value == pytest.approx(head.validation_losses_.min(), rel=1e-9)


# -- bits ------------------------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_bits_whatever_the_threads_and_another_seed_others():
    train, _, _ = problem(boxes, n_prompts=300)
    few = {"max_trees": 4, "num_leaves": 8, "feature_fraction": 0.5}
    one, same, threads = (GBDTHead(threads=t, **few).fit(train) for t in (1, 1, 2))
    other = GBDTHead(random_state=1, **few).fit(train)
    assert one.booster_ == same.booster_
    assert one.predict(train).tobytes() == same.predict(train).tobytes() == threads.predict(train).tobytes()
    assert one.predict(train).tobytes() != other.predict(train).tobytes()


def test_the_layout_of_histograms_changes_no_bit(monkeypatch):
    train, test, _ = problem(boxes, n_prompts=300)
    by_rows = GBDTHead(**QUICK).fit(train)
    monkeypatch.setattr(_gbdt_training, "ROW_WISE_ENTRIES", 0)
    by_columns = GBDTHead(**QUICK).fit(train)
    assert "[force_row_wise: 1]" in by_rows.booster_
    assert "[force_col_wise: 1]" in by_columns.booster_
    assert by_columns.predict(test).tobytes() == by_rows.predict(test).tobytes()


def test_predictions_are_lightgbms_raw_scores_before_and_after_loading(tmp_path):
    train, test, _ = problem(boxes, n_prompts=300)
    head = GBDTHead(**QUICK).fit(train)
    expected = booster(head).predict(view(test), raw_score=True)
    loaded, _ = load_model(save_model(head, tmp_path / "model"))
    assert head.predict(test).tobytes() == expected.tobytes() == loaded.predict(test).tobytes()
    assert loaded.booster_ == head.booster_
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["arrays.safetensors", "model.json"]


def test_blocks_of_any_size_make_the_same_model(monkeypatch):
    train, test, _ = problem(boxes, n_prompts=300)
    whole = GBDTHead(**QUICK).fit(train)
    expected = whole.predict(test).tobytes()
    monkeypatch.setattr(_gbdt_data, "BLOCK_BYTES", 1)
    assert _gbdt_data.block_rows(6) == 64
    assert GBDTHead(**QUICK).fit(train).booster_ == whole.booster_
    assert whole.predict(test).tobytes() == expected


def test_bin_limits_come_from_a_sample_of_the_active_rows(monkeypatch):
    train, test, _ = problem(boxes)
    whole = GBDTHead(**QUICK).fit(train)
    monkeypatch.setattr(_gbdt_training, "SAMPLE_ROWS", 400)
    sampled = GBDTHead(**QUICK).fit(train)
    assert sampled.booster_ != whole.booster_
    assert sampled.score(test) > whole.score(test) - 0.02


def test_lightgbm_says_nothing_on_stdout_in_a_thread_of_its_own(monkeypatch, capfd):
    # its level of messages belongs to a thread, and a sample of a small share of the rows is what it warns about
    monkeypatch.setattr(_gbdt_training, "SAMPLE_ROWS", 40)
    train = problem(lambda x: x[..., 0], n_prompts=200)[0]
    fit = threading.Thread(target=GBDTHead(**QUICK).fit, args=(train,))
    fit.start()
    fit.join()
    assert capfd.readouterr().out == ""


def test_max_bin_bounds_the_values_told_apart():
    train, _, _ = problem(line)
    thresholds = {
        bins: len({split[1:] for split in splits(booster(GBDTHead(max_bin=bins, max_trees=60).fit(train)))})
        for bins in ("fast", FAST_BINS, 63)
    }
    assert thresholds["fast"] == thresholds[FAST_BINS] <= 6 * (FAST_BINS - 1)
    assert thresholds[63] > 2 * thresholds["fast"]


def test_lightgbm_is_imported_where_it_is_used_only():
    code = "import sys, embedrm.heads.gbdt; sys.exit('lightgbm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Quantised gradients have crashed whole processes in some versions of LightGBM, so that they are tried in one apart.
_QUANTISED = """
import sys
import numpy as np
from embedrm import EmbeddedPreferences
from embedrm.heads.gbdt import GBDTHead
x = np.random.default_rng(0).normal(size=(800, 4, 12)).astype("float32")
prefs = EmbeddedPreferences.from_arrays(x, rewards=np.abs(x[..., 0]) + x[..., 1])
test = prefs.prompt_rows >= 500
for objective in ("bradley-terry", "hinge", "classification"):
    plain, coarse, again = (
        GBDTHead(objective=objective, max_trees=60, threads=1, quantized=q).fit(prefs[~test]) for q in (False, True, True)
    )
    assert coarse.booster_ == again.booster_ != plain.booster_
    assert coarse.score(prefs[test]) > plain.score(prefs[test]) - 0.02, objective
small = GBDTHead(quantized=True, l2=0.0, min_data_in_leaf=1, early_stopping=False, max_trees=30).fit(prefs[:12])
assert np.isfinite(small.predict(prefs)).all()
"""


def test_quantised_gradients_neither_crash_nor_lose_quality():
    done = subprocess.run([sys.executable, "-c", _QUANTISED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_quantised_gradients_of_old_versions_are_refused(monkeypatch):
    monkeypatch.setattr(lightgbm, "__version__", "4.3.0")
    with pytest.raises(InvalidInputError, match=r"needs LightGBM 4\.4 or later, and this is 4\.3\.0"):
        GBDTHead(quantized=True).fit(problem(line, n_prompts=40)[0])


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"max_bin": 256}, "max_bin to be a whole number from 2 to 255 or 'fast', got 256"),
        ({"max_bin": "slow"}, "or 'fast', got 'slow'"),
        ({"max_trees": 0}, "max_trees to be a whole number >= 1"),
        ({"num_leaves": 1}, "num_leaves to be a whole number >= 2"),
        ({"max_depth": 0}, "max_depth to be a whole number >= 1 or -1"),
        ({"min_data_in_leaf": 0}, "min_data_in_leaf to be a whole number >= 1 or None"),
        ({"threads": 1.5}, "threads to be a whole number >= 1 or None"),
        ({"learning_rate": 0}, r"learning_rate in \(0, 1\]"),
        ({"feature_fraction": 1.5}, r"feature_fraction in \(0, 1\]"),
        ({"l2": -1}, "l2 to be a number >= 0"),
        ({"hessian_floor": np.inf}, "hessian_floor to be a number >= 0 or None"),
        ({"quantized": "yes"}, "quantized to be True or False"),
        ({"validation_fraction": 1.0}, r"validation_fraction in \(0, 1\)"),
        ({"patience": 0}, "patience to be a whole number"),
        ({"random_state": -1}, "random_state to be a whole number >= 0"),
        ({"objective": BTSmoothed(0.7)}, "flip_rate"),
        ({"min_data_in_leaf": 200}, "at least 400 responses to make two leaves of min_data_in_leaf=200"),
    ],
)
def test_wrong_parameters_are_refused(parameters, message):
    with pytest.raises(InvalidInputError, match=message):
        GBDTHead(**parameters).fit(problem(line, n_prompts=60)[0])


def test_one_group_cannot_be_stopped_by():
    x = np.random.default_rng(0).normal(size=(1, 30, 4))
    prefs = EmbeddedPreferences.from_arrays(x, rewards=x[..., 0])
    with pytest.raises(InvalidInputError, match="early_stopping=False"):
        GBDTHead().fit(prefs)
    assert GBDTHead(early_stopping=False).fit(prefs).score(prefs) > 0.8


def test_what_gives_no_tree_is_told():
    x = np.ones((40, 2, 3), dtype=np.float32)
    rewards = np.random.default_rng(0).normal(size=(40, 2))
    with pytest.raises(InvalidInputError, match="all 3 features are constant over the 72 responses"):
        GBDTHead().fit(EmbeddedPreferences.from_arrays(x, rewards=rewards))
    x = np.random.default_rng(1).normal(size=(40, 2, 3))
    prefs = EmbeddedPreferences.from_arrays(x, rewards=rewards)
    ties = EmbeddedPreferences(prefs.responses, prefs.pairs, outcome=np.full(40, 0.5))
    for fraction in (1.0, 0.5):
        with pytest.raises(InvalidInputError, match=r"could not grow a tree: no split of the 72 .*ties alone do not"):
            GBDTHead(feature_fraction=fraction).fit(ties)
    with pytest.raises(InvalidInputError, match=r"needs at least 6 responses .* there are 4"):
        GBDTHead(early_stopping=False).fit(prefs[:2])


def test_nan_is_counted_and_placed():
    train, _, _ = problem(line, n_prompts=60)
    view(train)[7, 2] = np.nan
    with pytest.raises(InvalidInputError, match=r"NaN or infinity in 1 of rows 0 to 167 of 168 active responses"):
        GBDTHead(early_stopping=False).fit(train)


def test_training_is_stopped_by_pairs_that_count():
    prefs = problem(line, n_prompts=60)[0]
    # hardly a prompt has weight; drawn from all, those held out would have none
    weight = np.isin(prefs.prompt_rows, prefs.active_prompts[:3]).astype(float)
    head = GBDTHead(max_trees=5).fit(prefs.weighted(weight))
    assert len(head.validation_losses_)
    assert np.isfinite(head.validation_losses_).all()
