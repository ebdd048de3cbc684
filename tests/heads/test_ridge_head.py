"""RidgeHead: scikit-learn's Ridge attribute by attribute, masks, length taken out, weights, and errors."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, Ridge

from embedrm import EmbeddedPreferences, Featurizer, LinearHead
from embedrm.checks import example_preferences
from embedrm.errors import InvalidInputError
from embedrm.heads import ridge as ridge_module
from embedrm.heads.ridge import RidgeHead
from embedrm.numerics.bradley_terry import log_loss
from embedrm.numerics.folds import group_folds
from embedrm.objectives import OBJECTIVES
from embedrm.persistence import load_model, save_model
from embedrm.preferences import EmbeddedResponses

NAMES = ("helpful", "correct", "brief")
PLAIN = Featurizer(scale="none")


def rated(n_prompts=1000, k=3, dim=12, noise=0.5, present=0.4, seed=0, shuffled=False):
    """Three linear attributes, rated with noise here and there, and pairs of their weighted sum."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_prompts * k, dim)).astype(np.float32)
    truth = x @ (rng.normal(size=(dim, 3)) / np.sqrt(dim))
    ratings = 3 + truth + noise * rng.normal(size=truth.shape)
    ratings[rng.random(truth.shape) > present] = np.nan
    reward = truth @ np.array([2.0, 1.0, -1.5])
    prompt_of = np.repeat(np.arange(n_prompts), k)
    pairs = np.concatenate(
        [np.stack([prompt_of * k + i, prompt_of * k + j], 1)[::k] for i, j in ((0, 1), (0, 2), (1, 2))]
    )
    chance = 0.5 if shuffled else expit(reward[pairs[:, 0]] - reward[pairs[:, 1]])
    pairs = np.where((rng.random(len(pairs)) < chance)[:, None], pairs, pairs[:, ::-1])
    best = np.mean(reward[pairs[:, 0]] > reward[pairs[:, 1]], where=prompt_of[pairs[:, 0]] >= 0.7 * n_prompts)
    length = np.exp(5 + 0.5 * truth[:, 0] + 0.3 * rng.normal(size=len(x)))
    prefs = EmbeddedPreferences.from_arrays(
        x,
        pairs,
        prompt_of=prompt_of,
        covariates={**dict(zip(NAMES, ratings.T)), "characters": length},
    )
    test = prefs.prompt_rows >= 0.7 * n_prompts
    return prefs[~test], prefs[test], float(best)


def test_linear_attributes_are_learned_to_within_a_point_of_the_bayes_rate():
    train, test, bayes = rated(n_prompts=2000)
    head = RidgeHead(NAMES).fit(train)
    assert head.score(test) > bayes - 0.01
    # in proportion to the true 2, 1 and -1.5
    np.testing.assert_allclose(head.weights_ / head.weights_[0], [1, 0.5, -0.75], atol=0.12)


def test_one_attribute_alone_is_not_enough():
    train, test, bayes = rated()
    assert RidgeHead(["helpful"]).fit(train).score(test) < bayes - 0.05


def test_few_labels_and_many_ratings_beat_the_linear_head():
    train, test, _ = rated(present=1.0)
    few = EmbeddedPreferences(train.responses, train.pairs, weight=np.where(np.arange(len(train)) % 60, 1e-12, 1.0))
    assert RidgeHead(NAMES).fit(few).score(test) > LinearHead().fit(few).score(test) + 0.02


def test_shuffled_labels_teach_nothing():
    train, test, _ = rated(shuffled=True)
    assert RidgeHead(NAMES).fit(train).score(test) == pytest.approx(0.5, abs=4.5 * 0.5 / np.sqrt(len(test)))


@pytest.mark.parametrize("block_rows", [7, 1024])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_every_attribute_is_scikit_learns_ridge(monkeypatch, block_rows, offset):
    monkeypatch.setattr(ridge_module, "BLOCK_ROWS", block_rows)
    train, test, _ = rated(n_prompts=60)
    moved = EmbeddedResponses(
        {"response:final": train.responses.view("response:final").astype(np.float64) + offset},
        train.responses.prompt_of,
        covariates=train.responses.covariates,
    )
    train, test = (EmbeddedPreferences(moved, part.pairs) for part in (train, test))
    l2 = 0.3
    head = RidgeHead(NAMES, PLAIN, l2=l2).fit(train)
    x, rows = moved.view("response:final"), train.active
    for k, name in enumerate(NAMES):
        y = moved.covariates[name][rows]
        kept = ~np.isnan(y)
        peer = Ridge(alpha=l2 * kept.sum(), solver="svd").fit(x[rows][kept], y[kept])
        np.testing.assert_allclose(head.coef_[k], peer.coef_, atol=1e-9)
        np.testing.assert_allclose(head.attribute_rewards(test)[:, k], peer.predict(x), atol=1e-7)
        assert head.n_ratings_[k] == kept.sum()


@pytest.mark.parametrize(
    "featurizer",
    [
        Featurizer(("r", "p*r")),
        Featurizer(scale="standard", covariates=("words",)),
        Featurizer(residualise=("words",)),
        Featurizer(project="pca"),
    ],
    ids=["products", "covariates", "residualise", "pca"],
)
def test_attributes_are_linear_in_any_features(featurizer):
    prefs, _ = example_preferences()
    head = RidgeHead(featurizer=featurizer).fit(prefs)
    phi = head.featurizer_.transform(prefs.responses)
    np.testing.assert_allclose(head.attribute_rewards(prefs), phi @ head.coef_.T + head.intercept_, atol=1e-10)
    kept = prefs.active
    y = prefs.responses.gold[kept]
    np.testing.assert_allclose(
        head.coef_[0], Ridge(alpha=1e-2 * len(kept), solver="svd").fit(phi[kept], y).coef_, atol=1e-9
    )


def test_gold_is_the_default_attribute():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 2, 3))
    prefs = EmbeddedPreferences.from_arrays(x, rewards=x[..., 0] + 5)
    head = RidgeHead(l2=1e-9).fit(prefs)
    np.testing.assert_allclose(head.attribute_rewards(prefs)[:, 0], prefs.responses.gold, atol=1e-6)
    assert head.weights_[0] > 0
    assert head.score(prefs) == 1.0


def test_masks_that_agree_are_solved_together_as_alone():
    train, _, _ = rated(n_prompts=80)
    responses = train.responses
    shared = np.where(np.isnan(responses.covariates["helpful"]), np.nan, responses.covariates["characters"])
    both = EmbeddedPreferences.from_arrays(
        responses.views,
        train.pairs,
        prompt_of=responses.prompt_of,
        covariates={"a": responses.covariates["helpful"], "b": shared, "c": responses.covariates["brief"]},
    )
    together = RidgeHead("a, b, c").fit(both)
    assert together.attributes_ == ("a", "b", "c")
    for k, name in enumerate("abc"):
        alone = RidgeHead([name]).fit(both)
        np.testing.assert_allclose(together.coef_[k], alone.coef_[0], rtol=1e-10, atol=1e-12)


def test_without_a_penalty_the_solution_of_least_norm_is_taken():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 2, 20))
    prefs = EmbeddedPreferences.from_arrays(x, rewards=rng.normal(size=(6, 2)))
    head = RidgeHead(featurizer=PLAIN, l2=0.0).fit(prefs)
    np.testing.assert_allclose(head.attribute_rewards(prefs)[:, 0], prefs.responses.gold, atol=1e-8)
    z, y = x.reshape(12, 20) - x.reshape(12, 20).mean(axis=0), prefs.responses.gold
    np.testing.assert_allclose(head.coef_[0], np.linalg.pinv(z) @ (y - y.mean()), atol=1e-8)


def test_length_is_taken_out_on_the_training_responses():
    train, test, _ = rated()
    rows = train.active
    log_length = np.log1p(train.responses.covariates["characters"])
    plain, head = (RidgeHead(NAMES, decorrelate=d).fit(train) for d in (None, "characters"))

    def correlation(model, at):
        return [np.corrcoef(a, log_length[at])[0, 1] for a in model.attribute_rewards(train)[at].T]

    assert correlation(plain, rows)[0] > 0.5
    np.testing.assert_allclose(correlation(head, rows), 0.0, atol=1e-9)
    assert abs(correlation(head, test.active)[0]) < 0.1
    expected = np.polyfit(log_length[rows], plain.attribute_rewards(train)[rows], 1)[0]
    np.testing.assert_allclose(head.length_slope_, expected, rtol=1e-6)
    np.testing.assert_allclose(head.predict(train), head.attribute_rewards(train) @ head.weights_)


def test_only_a_decorrelated_prediction_needs_the_length():
    train, _, _ = rated(n_prompts=80)
    matrix = train.responses.view("response:final")
    bare = EmbeddedResponses({"response:final": matrix}, np.zeros(len(matrix), dtype=int))
    plain, head = (RidgeHead(NAMES, decorrelate=d).fit(train) for d in (None, "characters"))
    np.testing.assert_array_equal(plain.predict(bare), plain.predict(train))
    assert plain.attribute_rewards(matrix).shape == (len(matrix), 3)
    with pytest.raises(InvalidInputError, match="needs the covariate 'characters', but these responses carry none"):
        head.predict(bare)
    with pytest.raises(InvalidInputError, match="EmbeddedResponses"):
        head.predict(matrix)
    holes = np.where(np.arange(len(matrix)) == 3, np.nan, train.responses.covariates["characters"])
    part = EmbeddedResponses({"response:final": matrix}, bare.prompt_of, covariates={"characters": holes})
    with pytest.raises(InvalidInputError, match=f"1 of {len(matrix)} have none"):
        head.predict(part)


def test_one_length_for_all_leaves_nothing_to_take_out():
    train, _, _ = rated(n_prompts=50)
    responses = train.responses
    constant = {**responses.covariates, "characters": np.full(responses.n_responses, 7.0)}
    same = EmbeddedPreferences.from_arrays(
        responses.views, train.pairs, prompt_of=responses.prompt_of, covariates=constant
    )
    head = RidgeHead(NAMES, decorrelate="characters").fit(same)
    assert not head.length_slope_.any()
    np.testing.assert_array_equal(head.predict(same), RidgeHead(NAMES).fit(same).predict(same))


@pytest.mark.parametrize("decorrelate", [None, "characters"])
def test_fitted_weights_are_those_of_logistic_regression(decorrelate):
    train, _, _ = rated(n_prompts=200)
    head = RidgeHead(NAMES, weights_l2=0.05, tol=1e-14, decorrelate=decorrelate).fit(train)
    a = head.attribute_rewards(train)
    spread = a[train.active].std(axis=0)
    d = (a[train.pairs[:, 0]] - a[train.pairs[:, 1]]) / spread
    sign = np.where(np.arange(len(d)) % 2, 1, -1)
    peer = LogisticRegression(C=1 / (0.05 * len(d)), fit_intercept=False, tol=1e-12, max_iter=10_000)
    peer.fit(d * sign[:, None], sign)
    np.testing.assert_allclose(head.weights_ * spread, peer.coef_[0], atol=1e-6)
    assert head.margins_are_logits


def test_given_weights_are_taken_as_they_are():
    train, _, _ = rated(n_prompts=50)
    head = RidgeHead(NAMES, weights=(1, 0.5, 0)).fit(train)
    np.testing.assert_array_equal(head.weights_, [1, 0.5, 0])
    np.testing.assert_allclose(head.predict(train), head.attribute_rewards(train) @ [1, 0.5, 0])
    assert not head.margins_are_logits


def test_a_rating_that_is_always_the_same_has_no_say():
    train, _, _ = rated(n_prompts=50)
    responses = train.responses
    flat = EmbeddedPreferences.from_arrays(
        responses.views,
        train.pairs,
        prompt_of=responses.prompt_of,
        covariates={"flat": np.full(responses.n_responses, 4.0), "helpful": responses.covariates["helpful"]},
    )
    head = RidgeHead(["flat", "helpful"]).fit(flat)
    assert head.weights_[0] == 0.0
    assert np.isfinite(head.predict(flat)).all()


@pytest.mark.parametrize("objective", OBJECTIVES.names())
def test_every_objective_combines(objective):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 3, 4))
    prefs = EmbeddedPreferences.from_arrays(x, rewards=x[..., 0] - x[..., 1])
    head = RidgeHead(objective=objective).fit(prefs)
    assert head.score(prefs) > 0.98
    assert head.margins_are_logits is OBJECTIVES.get(objective).margins_are_logits


def test_files_keep_every_bit(tmp_path):
    train, test, _ = rated(n_prompts=80)
    head = RidgeHead(NAMES, decorrelate="characters").fit(train)
    loaded, _ = load_model(save_model(head, tmp_path / "model"))
    assert loaded.predict(test).tobytes() == head.predict(test).tobytes()
    assert loaded.attribute_rewards(test).tobytes() == head.attribute_rewards(test).tobytes()
    assert loaded.attributes_ == NAMES


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"attributes": ()}, "attributes to be one or more names"),
        ({"attributes": ("helpful", "helpful")}, "each once"),
        ({"attributes": (3,)}, "attributes to be one or more names"),
        ({"attributes": ("helpfull",)}, "helpful"),
        ({"attributes": ("gold",)}, "at least 2 responses in pairs with a rating of 'gold', got 0"),
        ({"decorrelate": "character"}, "characters"),
        ({"decorrelate": "helpful"}, "needs a length >= 0 of every response"),
        ({"l2": -1}, "l2 to be a number >= 0 or 'cv'"),
        ({"l2": "cw"}, "l2 to be a number >= 0 or 'cv'"),
        ({"l2": "cv", "l2_grid": (-1.0,)}, "l2_grid of numbers >= 0"),
        ({"l2": "cv", "cv": 1}, r"RidgeHead\(l2='cv'\) needs at least 2 folds"),
        ({"weights_l2": np.inf}, "weights_l2 to be a number >= 0"),
        ({"weights": "equal"}, "weights to be numbers or 'fit'"),
        ({"weights": (1.0,)}, r"one finite weight for each of 3 attribute\(s\)"),
        ({"tol": 0}, "tol > 0"),
    ],
)
def test_wrong_parameters_are_refused(parameters, message):
    train, _, _ = rated(n_prompts=20)
    with pytest.raises(InvalidInputError, match=message):
        RidgeHead(**{"attributes": NAMES, **parameters}).fit(train)


def test_attributes_without_covariates_are_refused():
    prefs = EmbeddedPreferences.from_arrays(np.eye(3), [[0, 1]])
    with pytest.raises(InvalidInputError, match="needs the covariate 'helpful', but these responses carry none"):
        RidgeHead(["helpful"]).fit(prefs)
    infinite = EmbeddedPreferences.from_arrays(np.eye(2), [[0, 1]], covariates={"a": [1.0, np.inf]})
    with pytest.raises(InvalidInputError, match="infinite values in 'a'"):
        RidgeHead(["a"]).fit(infinite)


def by_folds(prefs, cv):
    return [(prefs[inside], prefs[outside]) for inside, outside in group_folds(prefs.groups, cv, weight=prefs.weight)]


@pytest.mark.parametrize("decorrelate", [None, "characters"])
def test_cv_judges_fitted_weights_by_the_pairs(decorrelate):
    train, _, _ = rated(n_prompts=60)
    train = train.weighted(np.arange(len(train)) % 3 + 0.5)
    grid = (1e-3, 0.1, 10.0)
    options = {"attributes": NAMES, "decorrelate": decorrelate}
    head = RidgeHead(l2="cv", l2_grid=grid, cv=3, **options).fit(train)
    for row in head.cv_results_:
        loss = 0.0
        for inside, outside in by_folds(train, 3):
            fitted = RidgeHead(l2=row["l2"], **options).fit(inside)
            loss += outside.weight @ log_loss(fitted.margins(outside), outside.outcome)
        assert row["log_loss"] == pytest.approx(loss / train.weight.sum(), rel=1e-6)
    assert head.l2_ == min(head.cv_results_, key=lambda row: row["log_loss"])["l2"]
    fixed = RidgeHead(l2=head.l2_, **options).fit(train)
    np.testing.assert_array_equal(head.predict(train), fixed.predict(train))
    assert (fixed.l2_, fixed.cv_results_) == (head.l2_, [])


@pytest.mark.parametrize("decorrelate", [None, "characters"])
def test_cv_judges_given_weights_by_the_ratings(decorrelate):
    train, _, _ = rated(n_prompts=60)
    options = {"attributes": NAMES, "weights": (1.0, 0.0, 0.0), "decorrelate": decorrelate}
    head = RidgeHead(l2="cv", l2_grid=(1e-2, 1.0), cv=3, **options).fit(train)
    for row in head.cv_results_:
        loss = 0.0
        for inside, outside in by_folds(train, 3):
            # length is taken out of rewards, and is in the ratings
            fitted = RidgeHead(l2=row["l2"], **{**options, "decorrelate": None}).fit(inside)
            predicted = fitted.attribute_rewards(train)[outside.active]
            squares = np.empty_like(predicted)
            for k, name in enumerate(NAMES):
                ratings = train.responses.covariates[name]
                squares[:, k] = (predicted[:, k] - ratings[outside.active]) ** 2 / np.nanvar(ratings[inside.active])
            loss += len(outside) * np.nanmean(squares)
        assert row["loss"] == pytest.approx(loss / len(train), rel=1e-6)
    assert head.l2_ == min(head.cv_results_, key=lambda row: row["loss"])["l2"]


def stated(ratings):
    """The pairs of ``rated`` with one rating for some responses."""
    train, _, _ = rated(n_prompts=60)
    return train, EmbeddedPreferences.from_arrays(
        train.responses.view("response:final"),
        train.pairs,
        prompt_of=train.responses.prompt_of,
        covariates={"score": ratings(train)},
    )


def test_one_pass_over_the_features_serves_every_penalty(monkeypatch):
    _, prefs = stated(lambda train: train.responses.view("response:final")[:, 0])
    penalties, plain = [], ridge_module.ridge

    def counting(features, targets, grid):
        penalties.append(len(grid))
        return plain(features, targets, grid)

    monkeypatch.setattr(ridge_module, "ridge", counting)
    RidgeHead("score", l2="cv", cv=3).fit(prefs)
    assert penalties == [5, 5, 5, 1]


def test_a_fold_without_ratings_says_so():
    def ratings(train):
        out = np.full(train.responses.n_responses, np.nan)
        out[train[train.groups == train.groups[0]].active] = [1.0, 2.0, 3.0]
        return out

    _, prefs = stated(ratings)
    RidgeHead("score").fit(prefs)
    with pytest.raises(
        InvalidInputError, match=r"a fold of RidgeHead\(l2='cv'\) has too few .*; or give l2 as a number"
    ):
        RidgeHead("score", l2="cv").fit(prefs)
