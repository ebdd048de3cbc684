"""RODOS: experts behind a router that sees the prompt only."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from embedrm import EmbeddedPreferences, LengthHead, LinearHead, LogisticRouter, MLPHead, RoutedRewardModel
from embedrm.checks import example_preferences
from embedrm.checks.data import map_views, with_pairs, with_responses
from embedrm.composites.routed import ROUTINGS
from embedrm.errors import InvalidInputError
from embedrm.evaluation import accuracy_facts, wrong_expert_facts
from embedrm.numerics.calibration import fit_margin_scale
from embedrm.numerics.folds import group_folds
from embedrm.preferences import EmbeddedResponses
from embedrm.routers.base import Router


def conflicting(n_prompts=48, seed=0, separation=6.0):
    """Two domains that reward opposite directions, told apart by the prompt."""
    rng = np.random.default_rng(seed)
    domain = np.where(np.arange(n_prompts) % 2, "verse", "code")
    prompt = rng.normal(size=(n_prompts, 4))
    prompt[:, 0] += np.where(domain == "code", separation, -separation)
    response = rng.normal(size=(2 * n_prompts, 4))
    prompt_of = np.repeat(np.arange(n_prompts), 2)
    reward = response @ [1.0, 0.5, 0.0, 0.0] * np.where(domain[prompt_of] == "code", 1.0, -1.0)
    first = reward[::2] > reward[1::2]
    pairs = np.where(first[:, None], [[0, 1]], [[1, 0]]) + 2 * np.arange(n_prompts)[:, None]
    return EmbeddedPreferences.from_arrays(
        response,
        pairs,
        prompt=prompt,
        prompt_of=prompt_of,
        domain=domain,
        covariates={"characters": rng.permutation(len(response))},
    )


def model(**parameters):
    return RoutedRewardModel(**{"expert": LinearHead(l2=0.01), "router": LogisticRouter(l2=1e-3), **parameters})


def test_oracle_routing_is_each_domains_own_head_to_the_bit():
    prefs, _ = example_preferences()
    routed = model(routing="oracle", calibrate=False).fit(prefs)
    margins = routed.margins(prefs)
    for k, domain in enumerate(prefs.domains):
        own = prefs.in_domain(domain)
        head = LinearHead(l2=0.01).fit(own)
        np.testing.assert_array_equal(head.coef_, routed.experts_[k].coef_)
        np.testing.assert_allclose(margins[prefs.domain == domain], head.margins(own), rtol=1e-12)
        np.testing.assert_array_equal(routed.margins(own), head.margins(own))


def test_calibration_scales_and_shifts_but_never_reorders_a_prompt():
    prefs, _ = example_preferences()
    plain, calibrated = (model(routing="oracle", calibrate=c).fit(prefs) for c in (False, True))
    ratio = calibrated.margins(prefs) / plain.margins(prefs)
    for k, domain in enumerate(prefs.domains):
        np.testing.assert_allclose(ratio[prefs.domain == domain], calibrated.scale_[k], rtol=1e-9)
    assert (calibrated.scale_ > 0).all()
    assert calibrated.score(prefs) == plain.score(prefs)


def test_scale_and_offset_by_hand():
    prefs, _ = example_preferences()
    prefs = with_pairs(prefs, weight=np.random.default_rng(0).uniform(0.5, 2, len(prefs)))
    routed = model(cv=3).fit(prefs)
    for k, domain in enumerate(routed.domains_):
        own = prefs.in_domain(domain)
        margins = np.zeros(len(own))
        for train, test in group_folds(own.groups, 3, weight=own.weight):
            margins[test] = LinearHead(l2=0.01).fit(own[train]).margins(own[test])
        assert routed.scale_[k] == pytest.approx(
            fit_margin_scale(margins, own.outcome, own.weight, len(np.unique(own.groups))), rel=1e-9
        )
        rewards = LinearHead(l2=0.01).fit(own).predict(own.responses)[own.active]
        assert routed.offset_[k] == pytest.approx(rewards.mean(), rel=1e-9)


def test_calibrated_rewards_of_a_domain_average_zero_over_its_training_responses():
    prefs, _ = example_preferences()
    routed = model(routing="oracle").fit(prefs)
    rewards = routed.predict(prefs)
    for domain in prefs.domains:
        assert rewards[prefs.in_domain(domain).active].mean() == pytest.approx(0.0, abs=1e-9)


def test_hard_routing_with_a_perfect_router_is_oracle_routing():
    prefs = conflicting()
    routed = model().fit(prefs)
    assert routed.router_.score(prefs.responses.views["prompt:final"], prefs.responses.domain) == 1.0
    hard, oracle = (routed.with_routing(r).margins(prefs) for r in ("hard", "oracle"))
    np.testing.assert_array_equal(hard, oracle)


def test_routing_beats_one_head_where_domains_conflict():
    train, test = conflicting(seed=0), conflicting(seed=1)
    routed = model().fit(train)
    accuracy = {routing: routed.with_routing(routing).score(test) for routing in ROUTINGS}
    assert accuracy["soft"] > 0.9
    assert accuracy["hard"] > 0.9
    assert accuracy["oracle"] > 0.9
    assert accuracy["random"] < 0.75
    assert LinearHead(l2=0.01).fit(train).score(test) < 0.75


@pytest.mark.parametrize("routing", ROUTINGS)
def test_gates_are_weights_and_a_hard_gate_is_one_expert(routing):
    prefs = conflicting(separation=0.5)
    routed = model(routing=routing).fit(prefs)
    gates = routed.gates(prefs.responses)
    assert gates.shape == (48, 2)
    np.testing.assert_allclose(gates.sum(axis=1), 1.0, rtol=1e-12)
    assert (gates >= 0).all()
    if routing in ("soft", "top-k"):
        assert ((gates > 0.01) & (gates < 0.99)).any()
    else:
        np.testing.assert_array_equal(np.sort(gates, axis=1), np.tile([0.0, 1.0], (48, 1)))
    np.testing.assert_array_equal(routed.gates(prefs.responses, np.array([5, 2])), gates[[5, 2]])


@pytest.mark.parametrize("routing", ROUTINGS)
def test_rewards_are_the_gated_sum_of_expert_rewards(routing):
    prefs = conflicting(separation=0.5)
    routed = model(routing=routing).fit(prefs)
    responses = prefs.responses
    expected = (routed.gates(responses)[responses.prompt_of] * routed.expert_rewards(responses)).sum(axis=1)
    np.testing.assert_allclose(routed.predict(responses), expected, rtol=1e-9)
    some = np.array([7, 3, 90, 3])
    np.testing.assert_allclose(routed._rewards(responses, some), expected[some], rtol=1e-9)


def test_the_gate_sees_the_prompt_only():
    prefs = conflicting(separation=0.5)
    routed = model().fit(prefs)
    other = map_views(prefs, lambda name, m: m if name.startswith("prompt:") else m[::-1] * 3)
    np.testing.assert_array_equal(routed.gates(other.responses), routed.gates(prefs.responses))


@pytest.mark.parametrize("routing", ["soft", "hard", "oracle"])
def test_names_of_domains_do_not_matter(routing):
    prefs, _ = example_preferences()
    renamed = {"alpha": "zebra", "beta": "aardvark", "gamma": "moose"}
    domain = np.array([renamed[d] for d in prefs.responses.domain])
    other = with_pairs(prefs, with_responses(prefs.responses, domain=domain))
    a, b = model(routing=routing).fit(prefs), model(routing=routing).fit(other)
    assert b.domains_ == ["aardvark", "moose", "zebra"]
    np.testing.assert_allclose(b.margins(other), a.margins(prefs), rtol=1e-3, atol=1e-4)


class TestRandomRouting:
    def test_it_depends_on_the_group_and_the_seed_only(self):
        prefs, _ = example_preferences()
        routed = model(routing="random").fit(prefs)
        responses = prefs.responses
        expert = routed.gates(responses).argmax(axis=1)
        for group in np.unique(responses.group):
            assert len(set(expert[responses.group == group])) == 1
        scrambled = with_responses(
            map_views(prefs, lambda name, m: m[::-1]).responses, domain=np.full(responses.n_prompts, "elsewhere")
        )
        np.testing.assert_array_equal(routed.gates(scrambled).argmax(axis=1), expert)
        order = np.random.default_rng(0).permutation(responses.n_prompts)
        np.testing.assert_array_equal(routed.gates(responses, order).argmax(axis=1), expert[order])

    def test_every_expert_is_drawn_about_equally_often(self):
        prefs, _ = example_preferences()
        routed = model(routing="random").fit(prefs)
        n = 900
        many = EmbeddedResponses({}, [0], domain=np.full(n, "x"), group=[f"g{i}" for i in range(n)])
        counts = routed.gates(many).sum(axis=0)
        assert np.abs(counts - n / 3).max() < 4 * np.sqrt(n * 2 / 9)
        other = routed.with_routing("random", random_state=1).gates(many)
        assert 0.2 < (other.argmax(axis=1) == routed.gates(many).argmax(axis=1)).mean() < 0.47

    def test_the_seed_of_a_copy_is_its_own(self):
        prefs, _ = example_preferences()
        routed = model(routing="random", random_state=3).fit(prefs)
        copy = routed.with_routing("random", random_state=4)
        assert (routed.random_state, copy.random_state) == (3, 4)
        assert routed.with_routing("random").random_state == 3


def test_another_routing_refits_and_copies_nothing():
    prefs = conflicting()
    routed = model().fit(prefs)
    other = routed.with_routing("oracle")
    assert other.experts_ is routed.experts_
    assert other.router_ is routed.router_
    assert routed.routing == "soft"
    direct = model(routing="oracle").fit(prefs)
    np.testing.assert_array_equal(other.predict(prefs), direct.predict(prefs))


def test_the_diagonal_of_the_wrong_expert_matrix_is_oracle_routing():
    prefs = conflicting(separation=0.5)
    for calibrate in (True, False):
        routed = model(calibrate=calibrate).fit(prefs)
        rewards = routed.expert_rewards(prefs.responses)
        margins = rewards[prefs.pairs[:, 0]] - rewards[prefs.pairs[:, 1]]
        facts = wrong_expert_facts(margins, routed.domains_, prefs)
        oracle = accuracy_facts({"oracle": routed.with_routing("oracle").margins(prefs)}, prefs, n_resamples=2)
        per_domain = oracle["rows"][0]["domains"]
        assert [facts["accuracy"][k][k] for k in range(2)] == [per_domain[d]["value"] for d in routed.domains_]
        # the domains reward opposite directions, so the wrong expert is worse than chance
        assert max(facts["accuracy"][0][1], facts["accuracy"][1][0]) < 0.4


def test_models_nest():
    prefs = conflicting()
    inner = model(routing="hard")
    outer = model(expert=inner).fit(prefs)
    assert outer.score(prefs) > 0.9
    assert all(isinstance(e, RoutedRewardModel) for e in outer.experts_)
    assert inner.__dict__.keys() == inner.get_params(deep=False).keys()


def test_experts_need_not_be_linear():
    prefs = conflicting()
    routed = model(expert=LengthHead(), routing="oracle", calibrate=False).fit(prefs)
    np.testing.assert_array_equal(routed.margins(prefs), LengthHead().fit(prefs).margins(prefs))


def test_the_penalty_is_chosen_for_each_domain():
    prefs, _ = example_preferences(31)
    # one domain's labels are noise
    rng = np.random.default_rng(0)
    noisy = (prefs.domain == "beta") & (rng.random(len(prefs)) < 0.5)
    prefs = with_pairs(prefs, pairs=np.where(noisy[:, None], prefs.pairs[:, ::-1], prefs.pairs))
    routed = model(expert=LinearHead(l2="cv")).fit(prefs)
    chosen = dict(zip(routed.domains_, (e.l2_ for e in routed.experts_)))
    assert chosen["beta"] > max(chosen["alpha"], chosen["gamma"])
    assert dict(zip(routed.domains_, routed.scale_))["beta"] < 0.7


class TestCrossPromptPairs:
    def data(self):
        prefs = conflicting()
        crossed = prefs.pairs.copy()
        crossed[0, 1] = prefs.pairs[2, 1]
        return prefs, with_pairs(prefs, pairs=crossed)

    def test_they_need_calibrated_experts(self):
        prefs, crossed = self.data()
        message = r"^1 of 48 pairs compare responses to different prompts, .* use calibrate=True, or drop those pairs$"
        with pytest.raises(InvalidInputError, match=message):
            model(calibrate=False).fit(crossed)
        with pytest.raises(InvalidInputError, match=message):
            model(calibrate=False).fit(prefs).margins(crossed)
        assert np.isfinite(model().fit(crossed).margins(crossed)).all()

    def test_a_domain_that_only_loses_has_no_expert(self):
        prefs = conflicting()
        code, verse = prefs.in_domain("code"), prefs.in_domain("verse")
        pairs = np.concatenate([code.pairs, np.stack([code.pairs[:, 0], verse.pairs[:, 1]], axis=1)])
        with pytest.raises(InvalidInputError, match=r"^the domain\(s\) verse appear among the pairs only as rejected"):
            model().fit(EmbeddedPreferences(prefs.responses, pairs))


class TestErrors:
    def test_an_unseen_domain_stops_the_oracle_and_nothing_else(self):
        prefs, _ = example_preferences()
        routed = model().fit(prefs[prefs.domain != "beta"])
        assert routed.domains_ == ["alpha", "gamma"]
        for routing in ("soft", "hard", "random"):
            assert np.isfinite(routed.with_routing(routing).predict(prefs)).all()
        with pytest.raises(InvalidInputError) as caught:
            routed.with_routing("oracle").predict(prefs)
        assert str(caught.value) == (
            "oracle routing needs an expert for every domain; none was fitted for beta. Use another routing, fit on data "
            "with these domains, or fit with fallback=True, so that a general head answers for them"
        )

    def test_a_domain_with_one_group_is_named(self):
        prefs, _ = example_preferences()
        few = prefs[(prefs.domain != "beta") | (prefs.groups == prefs.in_domain("beta").groups[0])]
        n = len(few.in_domain("beta"))
        with pytest.raises(InvalidInputError) as caught:
            model(expert=LinearHead(l2="cv")).fit(few)
        assert str(caught.value) == (
            f"the expert of domain 'beta' ({n} pairs): LinearHead(l2='cv') needs at least 2 folds and 2 prompt groups to "
            "hold one out, got n_splits=5 and 1 group(s); give a fixed value instead, or more prompts"
        )
        # with a fixed penalty there is nothing to hold out for the scale either, and it stays one
        routed = model().fit(few)
        assert routed.scale_[routed.domains_.index("beta")] == 1.0
        assert (routed.scale_ != 1.0).sum() == 2

    @pytest.mark.parametrize("routing", ["Hard", "", None])
    def test_an_unknown_routing_is_refused_whenever_it_is_set(self, routing):
        prefs = conflicting()
        with pytest.raises(InvalidInputError, match=r"unknown routing .* Known: soft, hard, top-k, oracle, random\."):
            model(routing=routing).fit(prefs)
        fitted = model().fit(prefs)
        with pytest.raises(InvalidInputError, match="unknown routing"):
            fitted.with_routing(routing)
        with pytest.raises(InvalidInputError, match="unknown routing"):
            fitted.set_params(routing=routing).predict(prefs)

    @pytest.mark.parametrize("k", [0, -1, 1.5, True])
    def test_a_wrong_k_is_refused_whenever_it_is_set(self, k):
        with pytest.raises(InvalidInputError, match="RoutedRewardModel needs k to be a whole number >= 1"):
            model().fit(conflicting()).with_routing("top-k", k=k)

    def test_a_router_needs_a_prompt_view(self):
        prefs = EmbeddedPreferences.from_arrays(np.eye(4), [[0, 1], [2, 3]])
        with pytest.raises(InvalidInputError, match="LogisticRouter needs at least one prompt view, got none"):
            model(calibrate=False).fit(prefs)

    def test_a_bare_matrix_is_refused(self):
        with pytest.raises(InvalidInputError, match="needs prompts or several views"):
            model().fit(conflicting()).predict(np.ones((2, 4)))

    def test_unfitted_is_refused(self):
        prefs = conflicting()
        for call in (
            lambda: model().with_routing("hard"),
            lambda: model().gates(prefs.responses),
            lambda: model().expert_rewards(prefs.responses),
            lambda: model().required_views(),
        ):
            with pytest.raises(NotFittedError):
                call()

    def test_a_broken_expert_is_named_with_its_domain(self):
        prefs = conflicting()
        row = prefs.in_domain("verse").pairs[0, 0]
        prefs.responses.views["response:final"][row] = np.nan
        with pytest.raises(
            InvalidInputError, match=r"^the expert of domain 'verse' \(24 pairs\): Featurizer expects finite"
        ):
            model().fit(prefs)


def test_uncalibrated_margins_are_what_the_experts_margins_are():
    for objective, logits in (("bradley-terry", True), ("hinge", False)):
        head = LinearHead(objective=objective)
        assert model(expert=head, calibrate=False).margins_are_logits is logits
        assert model(expert=head).margins_are_logits is True


def test_required_views_follow_the_routing():
    routed = model().fit(conflicting())
    assert routed.required_views() == ("prompt:final", "response:final")
    assert routed.with_routing("oracle").required_views() == ("response:final",)


class _Coin(Router):
    """A router that knows nothing: every domain is as probable as every other."""

    def __init__(self, view=None):
        self.view = view

    def fit(self, X, y, groups=None):
        self.classes_ = np.unique(np.asarray(y).astype(str))
        return self

    def predict_proba(self, X):
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


def test_any_router_serves_and_an_ignorant_one_averages_the_experts():
    prefs, _ = example_preferences()
    routed = model(router=_Coin()).fit(prefs)
    expected = routed.expert_rewards(prefs.responses).mean(axis=1)
    np.testing.assert_allclose(routed.predict(prefs), expected, rtol=1e-9)


def test_members_of_an_ensemble_seed_their_experts_too():
    prefs = conflicting()
    routed = model(expert=MLPHead(hidden=(4,), max_epochs=3, early_stopping=False), routing="oracle", calibrate=False)
    one, same, other = routed.fit_members(prefs, [1, 1, 2])
    assert [expert.random_state for expert in (one.expert, other.expert)] == [1, 2]
    np.testing.assert_array_equal(one.predict(prefs), same.predict(prefs))
    assert (one.predict(prefs) != other.predict(prefs)).any()
    assert routed.expert.random_state == 0
