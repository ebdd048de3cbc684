"""Members trained together are the models trained one by one."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from embedrm import EmbeddedPreferences, Featurizer, LinearHead
from embedrm.errors import InvalidInputError
from embedrm.featurizers import PCAProjection
from embedrm.heads import HEADS
from embedrm.heads.kernel import KernelHead
from embedrm.heads.mlp import MLPHead
from embedrm.objectives import Comparisons
from embedrm.objectives.bradley_terry import BradleyTerry
from embedrm.objectives.bt_margin import BTMargin

# so tight that the rest is the difference between the two ways, and not where each of them stops
TIGHT = {"tol": 1e-14, "l2": 1e-2}


def problem(n_prompts=300, k=4, dim=12, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_prompts, k, dim)).astype(dtype)
    prompt = rng.normal(size=(n_prompts, dim)).astype(dtype)
    prefs = EmbeddedPreferences.from_arrays(
        x, rewards=x[..., 0] - x[..., 1] + rng.normal(size=(n_prompts, k)), prompt=prompt
    )
    outcome = rng.choice([0.5, 0.8, 1.0], p=[0.1, 0.3, 0.6], size=len(prefs))
    weight = rng.uniform(0.2, 2.0, size=len(prefs))
    return EmbeddedPreferences(prefs.responses, prefs.pairs, outcome=outcome, weight=weight, margin=prefs.margin)


def draws(prefs, n_members, seed=1):
    n = prefs.responses.n_prompts
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_members)
    return prefs.weight[:, None] * counts.T[prefs.prompt_rows]


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


HEADS_TRIED = {
    "plain": LinearHead(**TIGHT),
    "scaled": LinearHead(Featurizer(scale="standard"), **TIGHT),
    "products": LinearHead(Featurizer(("r", "p*r")), **TIGHT),
    "projected": LinearHead(Featurizer(project=PCAProjection(n_components=5)), **TIGHT),
    "classification": LinearHead(objective="classification", **TIGHT),
    "davidson": LinearHead(objective="davidson", **TIGHT),
    "hinge": LinearHead(objective="hinge", **TIGHT),
    "margin": LinearHead(objective=BTMargin(flip_rate=0.1), **TIGHT),
    "centred": LinearHead(objective=BradleyTerry(centring=0.05), **TIGHT),
}


@pytest.mark.parametrize("name", HEADS_TRIED)
def test_members_are_single_fits_on_the_weighted_pairs(name):
    head, prefs = HEADS_TRIED[name], problem()
    weight = draws(prefs, 4)
    members = head.fit_members(prefs, range(4), weight)
    for m, member in enumerate(members):
        alone = head.fit(prefs.weighted(weight[:, m]))
        assert distance(member.coef_, alone.coef_) < 1e-5
        assert member.objective_ == pytest.approx(alone.objective_, abs=1e-10)
    assert distance(members[0].coef_, members[1].coef_) > 0.01


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_members_in_single_precision_are_single_fits(scale):
    # beyond exp(88) float32 overflows; margins here reach several times that
    prefs = problem(n_prompts=2000, dim=40, dtype=np.float32)
    prefs.responses.views["response:final"] *= np.float32(scale)
    weight = draws(prefs, 3)
    members = LinearHead(l2=1e-3, tol=1e-11).fit_members(prefs, range(3), weight)
    for m, member in enumerate(members):
        alone = LinearHead(l2=1e-3, tol=1e-11).fit(prefs.weighted(weight[:, m]))
        assert distance(member.coef_, alone.coef_) < 1e-5


def test_fewer_pairs_than_features():
    prefs = problem(n_prompts=8, k=3, dim=60)
    assert len(prefs) < 60
    weight = draws(prefs, 3)
    for m, member in enumerate(LinearHead(**TIGHT).fit_members(prefs, range(3), weight)):
        assert distance(member.coef_, LinearHead(**TIGHT).fit(prefs.weighted(weight[:, m])).coef_) < 1e-5


@pytest.mark.parametrize("n_prompts", [5, 300])
@pytest.mark.parametrize("limit", [2**25, 0])
def test_a_member_without_some_features_is_the_head_on_the_others(monkeypatch, n_prompts, limit):
    monkeypatch.setattr("embedrm.heads._linear_problem._MEMBER_METRIC_ENTRIES", limit)
    prefs = problem(n_prompts=n_prompts, dim=30)
    masks = np.random.default_rng(2).random((3, 30)) < 0.6
    weight = draws(prefs, 3)
    members = LinearHead(**TIGHT).fit_members(prefs, range(3), weight, masks)
    x = prefs.responses.view("response:final")
    for m, member in enumerate(members):
        assert (member.coef_[~masks[m]] == 0).all()
        few = EmbeddedPreferences.from_arrays(
            x[:, masks[m]], prefs.pairs, prompt_of=prefs.responses.prompt_of, outcome=prefs.outcome, weight=weight[:, m]
        )
        # the scale of the shared featurizer is that of all views together
        featurizer = Featurizer(scale="none")
        alone = LinearHead(featurizer, **TIGHT).fit(few)
        mine = LinearHead(featurizer, **TIGHT).fit_members(prefs, range(3), weight, masks)[m]
        assert distance(mine.coef_[masks[m]], alone.coef_) < 1e-5


def test_the_penalty_is_chosen_once_for_all_members():
    prefs = problem()
    head = LinearHead(l2="cv", tol=1e-12)
    members = head.fit_members(prefs, range(3), draws(prefs, 3))
    assert {member.l2_ for member in members} == {head.fit(prefs).l2_}
    assert all(member.cv_results_ == head.cv_results_ for member in members)


def test_seeds_alone_are_copies_of_one_convex_fit():
    prefs = problem(50)
    members = LinearHead().fit_members(prefs, range(3))
    for member in members:
        np.testing.assert_array_equal(member.coef_, LinearHead().fit(prefs).coef_)
    members[0].coef_[:] = 0
    assert members[1].coef_.any()


def test_a_heads_own_fit_is_left_alone():
    head, prefs = LinearHead(), problem(50)
    head.fit_members(prefs, range(2), draws(prefs, 2))
    assert not hasattr(head, "coef_")


def test_other_models_are_fitted_one_after_another_on_the_pairs_they_drew():
    prefs = problem(60)
    weight = draws(prefs, 2)
    members = KernelHead(n_components=20).fit_members(prefs, [3, 4], weight)
    for m, member in enumerate(members):
        drawn = weight[:, m] > 0
        alone = KernelHead(n_components=20, random_state=3 + m).fit(prefs[drawn].weighted(weight[drawn, m]))
        np.testing.assert_array_equal(member.predict(prefs), alone.predict(prefs))


def test_a_member_of_perceptrons_is_trained_by_its_weights_and_seed():
    prefs = problem(60)
    head = MLPHead(hidden=(8,), max_epochs=3, early_stopping=False)
    one, other = head.fit_members(prefs, [5, 6], draws(prefs, 2))
    assert (one.random_state, other.random_state) == (5, 6)
    assert not np.allclose(one.predict(prefs), other.predict(prefs))


def test_features_are_counted_where_they_can_be_left_out_and_refused_where_not():
    prefs = problem(20)
    assert LinearHead(Featurizer(("r", "p*r"))).member_features(prefs) == 24
    assert MLPHead(Featurizer(("r", "p*r"))).member_features(prefs) == 24
    for name in ("gbdt", "laplace", "length"):
        with pytest.raises(InvalidInputError, match="cannot leave features out"):
            HEADS.get(name)().member_features(prefs)
        with pytest.raises(InvalidInputError, match="cannot leave features out"):
            HEADS.get(name)().fit_members(prefs, [0], masks=np.ones((1, 12), dtype=bool))


def test_bad_vectors_are_named():
    prefs = problem(20)
    prefs.responses.views["response:final"][prefs.pairs[0, 0], 3] = np.nan
    with np.errstate(invalid="ignore"), pytest.raises(InvalidInputError, match="NaN or infinity"):
        LinearHead().fit_members(prefs, range(2), draws(prefs, 2))


@pytest.mark.parametrize("objective", [BradleyTerry(), BradleyTerry(flip_rate=0.1), BTMargin()])
def test_the_loss_of_columns_in_pieces_is_that_of_each_column(monkeypatch, objective):
    monkeypatch.setattr("embedrm.objectives._columns._PIECE", 100)
    prefs = problem(40)
    weight = draws(prefs, 3)
    whole = Comparisons.of(prefs)
    rng = np.random.default_rng(3)
    rewards, direction = rng.normal(size=(2, whole.n_responses, 3))
    rewards *= 5
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        loss = objective.loss(whole.weighted(weight))
        at = loss.evaluate(rewards.astype(dtype))
        bends = loss.second_derivative(at, direction.astype(dtype))
        for j in range(3):
            one = objective.loss(whole.weighted(weight[:, j]))
            alone = one.evaluate(rewards[:, j])
            assert at.value[j] == pytest.approx(alone.value, rel=tolerance)
            np.testing.assert_allclose(at.slope[:, j], alone.slope, atol=tolerance)
            assert bends[j] == pytest.approx(one.second_derivative(alone, direction[:, j]), rel=10 * tolerance)


def test_members_that_do_not_converge_are_told_of():
    prefs = problem()
    with pytest.warns(ConvergenceWarning, match="in 3 of 3 members"):
        LinearHead(max_iter=1, l2=1e-4).fit_members(prefs, range(3), draws(prefs, 3))
