"""What partial pooling promises: no cost where domains agree, no loss where they differ; and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize

from embedrm import EmbeddedPreferences, LinearHead, LogisticRouter, MLPHead, RoutedRewardModel
from embedrm.checks import example_preferences
from embedrm.composites._pooled_strength import HeldOut, choose
from embedrm.composites.pooled import PooledRewardModel
from embedrm.errors import InvalidInputError
from embedrm.evaluation import comparison_facts
from embedrm.numerics.calibration import fit_margin_scale

N_DOMAINS, N_TRAIN, N_TEST = 8, 1_200, 8_000


def pooled(expert=None, **parameters):
    expert = LinearHead(l2=0.05, tol=1e-13) if expert is None else expert
    router = LogisticRouter(l2=1e-2)
    return PooledRewardModel(expert, **{"router": router, "routing": "oracle", "strength": 0.3, **parameters})


def domains(signs, n_prompts, seed, dim=24, teacher=7):
    """Pairs of domains whose teachers are one direction times a sign, told apart by the prompt; Bradley–Terry labels."""
    rng = np.random.default_rng([seed, 1])
    w = np.random.default_rng(teacher).normal(size=dim)
    w *= 2.0 / np.linalg.norm(w)
    domain = np.arange(n_prompts) % len(signs)
    prompt = rng.normal(size=(n_prompts, dim))
    prompt[np.arange(n_prompts), domain] += 6.0
    response = rng.normal(size=(2 * n_prompts, dim))
    gap = (response[::2] - response[1::2]) @ w * np.array(signs)[domain]
    first = rng.random(n_prompts) < 1.0 / (1.0 + np.exp(-gap))
    pairs = np.where(first[:, None], [[0, 1]], [[1, 0]]) + 2 * np.arange(n_prompts)[:, None]
    return EmbeddedPreferences.from_arrays(
        response,
        pairs,
        prompt=prompt,
        prompt_of=np.repeat(np.arange(n_prompts), 2),
        domain=[f"domain {d}" for d in domain],
    )


def _fitted(signs):
    train, test = domains(signs, N_TRAIN, seed=1), domains(signs, N_TEST, seed=2)
    head = LinearHead(l2="cv")
    models = {
        "single": head.fit(train),
        "independent": RoutedRewardModel(head, pooled().router, routing="oracle", calibrate=False).fit(train),
        "pooled": pooled(head, strength="cv").fit(train),
    }
    return {name: model.margins(test) for name, model in models.items()}, test


def compared(a, b, test):
    return comparison_facts(a, b, test, n_resamples=300)


def test_one_teacher_pooling_costs_nothing_where_independent_heads_do():
    margins, test = _fitted([1.0] * N_DOMAINS)
    against = {n: compared(margins[n], margins["single"], test) for n in ("pooled", "independent")}
    for average in ("micro", "macro"):
        assert against["pooled"][average]["high"] >= 0.0
        assert against["pooled"][average]["value"] > -0.005
        assert against["independent"][average]["high"] < 0.0
    # one of several heads is no longer better by accident either
    both = compared(margins["pooled"], margins["independent"], test)["micro"]
    assert both["low"] > 0.0


def test_opposite_teachers_pooling_is_as_good_as_independent_heads():
    margins, test = _fitted([1.0, -1.0] * (N_DOMAINS // 2))
    assert compared(margins["pooled"], margins["independent"], test)["micro"]["high"] >= 0.0
    assert compared(margins["pooled"], margins["independent"], test)["micro"]["value"] > -0.005
    assert compared(margins["pooled"], margins["single"], test)["micro"]["low"] > 0.1


@pytest.mark.parametrize("signs", [[1.0] * 4, [1.0, -1.0, 1.0, 1.0]])
def test_margins_are_calibrated_without_a_scale(signs):
    model = pooled(LinearHead(l2="cv"), strength="cv").fit(domains(signs, N_TRAIN, seed=3))
    test = domains(signs, N_TEST, seed=4)
    for d in test.domains:
        own = test.in_domain(d)
        assert 0.75 < fit_margin_scale(model.margins(own), smooth=False) < 1.35


def test_a_domain_that_differs_gets_a_strength_of_its_own():
    prefs = domains([1.0, 1.0, 1.0, -1.0], n_prompts=400, seed=0)
    free = pooled(LinearHead(l2=0.01), strength="cv", min_groups=20).fit(prefs)
    tied = pooled(LinearHead(l2=0.01), strength="cv", min_groups=None).fit(prefs)
    share = np.sqrt(np.full(4, 0.25))
    np.testing.assert_allclose(tied.tau_, tied.strength_ * share)
    assert (free.tau_ / share)[3] <= tied.strength_
    assert (free.tau_ / share)[:3].min() >= (free.tau_ / share)[3]
    assert len(set((free.tau_ / share).round(6))) > 1
    few = pooled(LinearHead(l2=0.01), strength="cv", min_groups=10_000).fit(prefs)
    np.testing.assert_array_equal(few.tau_, tied.tau_)


def test_held_out_losses_count_by_weight_in_a_domain_too():
    # four pairs of four prompts; the third has no weight
    prefs = EmbeddedPreferences.from_arrays(
        np.zeros((8, 1)), np.arange(8).reshape(4, 2), prompt_of=np.repeat(np.arange(4), 2), weight=[1.0, 3.0, 0.0, 2.0]
    )
    held = HeldOut(SimpleNamespace(objective=SimpleNamespace(margins_are_logits=True)), prefs, 2, 1, "a test")
    losses, mine = np.array([1.0, 2.0, 50.0, 4.0]), np.array([True, True, True, False])
    assert held.mean(losses) == pytest.approx((1 + 6 + 8) / 6)
    assert held.mean(losses, mine) == pytest.approx((1 + 6) / 4)
    assert (held.n_groups(mine), held.n_groups(~mine)) == (2, 1)
    gain, error = held.gain(losses, np.zeros(4), mine)
    assert gain == pytest.approx((1 + 6) / 4)
    # two prompts, off by -3/4 with weight 1/4 and by 1/4 with weight 3/4
    assert error == pytest.approx(np.sqrt(2.0 * (0.1875**2 + 0.1875**2)))


def test_a_domain_leaves_the_common_strength_for_more_than_a_standard_error_only():
    n = 8
    prefs = EmbeddedPreferences.from_arrays(
        np.zeros((6 * n, 1)), np.arange(6 * n).reshape(-1, 2), prompt_of=np.repeat(np.arange(3 * n), 2)
    )
    code, sign = np.repeat(np.arange(3), n), np.tile([1.0, -1.0], 3 * n // 2)
    # under the weak pull the first domain is better, the second by a hair and not surely, the third worse
    weak = np.array([0.3, 0.49, 0.9])[code] + np.array([0.01, 0.3, 0.01])[code] * sign
    scripted = {np.inf: np.ones(3 * n), 1.0: np.full(3 * n, 0.5), 0.1: weak}

    class Scripted(HeldOut):
        def losses(self, l2, strength):
            return scripted[np.inf if strength is None else float(strength[0])], np.zeros(3 * n)

    problem = SimpleNamespace(
        objective=SimpleNamespace(margins_are_logits=True), n_domains=3, pair_code=code, share=np.full(3, 1 / 3)
    )
    found = choose(Scripted(problem, prefs, 2, 1, "a test"), [0.1], [1.0, 0.1], True, 0.0, 2)
    assert found.common == 1.0
    np.testing.assert_array_equal(found.strength, [0.1, 1.0, 1.0])


def test_a_domain_of_five_pairs_and_one_of_one_group_have_experts():
    prefs, _ = example_preferences(31)
    few = np.flatnonzero(prefs.domain == "beta")[:5]
    one = np.flatnonzero(prefs.groups == prefs.in_domain("gamma").groups[0])
    prefs = prefs[np.concatenate([np.flatnonzero(prefs.domain == "alpha"), few, one])]
    model = pooled(LinearHead(l2="cv"), strength="cv").fit(prefs)
    assert model.domains_ == ["alpha", "beta", "gamma"]
    assert np.isfinite(model.margins(prefs)).all()


def test_unseen_domains_are_routed_and_stop_the_oracle():
    prefs, _ = example_preferences()
    model = pooled(routing="hard").fit(prefs[prefs.domain != "beta"])
    assert np.isfinite(model.predict(prefs)).all()
    with pytest.raises(InvalidInputError, match="none was fitted for beta"):
        model.with_routing("oracle").predict(prefs)
    assert np.isfinite(model.shared_.predict(prefs)).all()


def test_a_refit_is_the_same_to_the_bit():
    prefs = example_preferences()[0]
    a, b = (pooled(LinearHead(l2="cv"), strength="cv").fit(prefs) for _ in range(2))
    for one, two in zip(a.experts_, b.experts_):
        np.testing.assert_array_equal(one.coef_, two.coef_)


class TestAddDomain:
    def test_the_new_deviation_is_fitted_beside_a_shared_head_that_stays(self):
        prefs = domains([1.0, 1.0, -1.0], 600, seed=5, dim=6)
        first = pooled(LinearHead(l2=0.05, tol=1e-13), strength=0.02, fallback=True).fit(
            prefs[prefs.domain != "domain 2"]
        )
        second = first.add_domain(prefs)
        assert second.domains_ == ["domain 0", "domain 1", "domain 2"]
        assert second.experts_[0] is first.experts_[0]
        assert second.general_ is first.shared_
        own = prefs.in_domain("domain 2")
        share = 1 / 3
        penalty = 0.02 * share**0.5 / share
        x = LinearHead().fit(own).featurizer_.transform(own.responses)
        pull = x[own.pairs[:, 0]] - x[own.pairs[:, 1]]
        base = first.shared_.margins(own)

        def value(v):
            m = base + pull @ v
            return np.logaddexp(0, -m).mean() + 0.5 * penalty * v @ v

        found = minimize(value, np.zeros(6), method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(second.margins(own), base + pull @ found.x, rtol=1e-3, atol=1e-4)
        assert second.score(own) > 0.7 > 0.4 > first.shared_.score(own)
        assert (
            pooled(strength=np.inf).fit(prefs[prefs.domain != "domain 2"]).add_domain(prefs).experts_[2].score(own)
            < 0.4
        )

    def test_pulls_follow_their_domains(self):
        prefs = domains([1.0, 1.0, -1.0], 600, seed=5, dim=6)
        weight = np.where(prefs.domain == "domain 1", 2.0, 1.0)
        prefs = prefs.weighted(weight)
        first = pooled(strength=0.02).fit(prefs[prefs.domain != "domain 1"])
        second = first.add_domain(prefs)
        np.testing.assert_allclose(second.tau_, 0.02 * np.sqrt([0.5, 400 / 800, 0.5]))
        np.testing.assert_array_equal(first.tau_, second.tau_[[0, 2]])
        whole = pooled(strength=0.02).fit(prefs)
        np.testing.assert_array_equal(whole.drop_domain("domain 0", prefs).tau_, whole.tau_[1:])


class TestErrors:
    def test_messages_name_this_model(self):
        with pytest.raises(InvalidInputError, match=r"^PooledRewardModel expects EmbeddedPreferences, got int"):
            pooled().fit(3)
        with pytest.raises(InvalidInputError, match=r"^PooledRewardModel needs k"):
            pooled(k=0).fit(example_preferences()[0])

    def test_other_experts_are_refused(self):
        prefs = example_preferences()[0]
        message = (
            r"^PooledRewardModel pools the weights of LinearHead experts, got MLPHead; use RoutedRewardModel for other"
        )
        with pytest.raises(InvalidInputError, match=message):
            pooled(MLPHead()).fit(prefs)

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"strength": -1.0}, r"needs strength to be a number >= 0 or 'cv', got -1\.0"),
            ({"strength": "auto"}, r"needs strength to be a number >= 0 or 'cv', got 'auto'"),
            ({"strength": float("nan")}, "needs strength to be a number >= 0 or 'cv', got nan"),
            ({"strength": True}, "needs strength to be a number >= 0 or 'cv', got True"),
            ({"strength": "cv", "strength_grid": ()}, r"needs strength_grid of numbers >= 0, got \(\)"),
            ({"strength": "cv", "strength_grid": (1.0, -1.0)}, "needs strength_grid of numbers >= 0"),
            ({"share_power": 1.5}, r"needs share_power in \[0, 1\], got 1\.5"),
            ({"min_groups": 1}, "needs min_groups to be a whole number >= 2 or None, got 1"),
            ({"min_groups": 2.5}, "needs min_groups to be a whole number >= 2 or None, got 2.5"),
        ],
    )
    def test_bad_parameters_are_refused_in_fit(self, parameters, message):
        with pytest.raises(InvalidInputError, match=message):
            pooled(**parameters).fit(example_preferences()[0])

    def test_penalties_of_the_expert_are_checked(self):
        with pytest.raises(InvalidInputError, match="needs l2 to be a number >= 0 or 'cv', got -1"):
            pooled(LinearHead(l2=-1)).fit(example_preferences()[0])
        with pytest.raises(InvalidInputError, match=r"needs l2_grid of numbers >= 0, got \(\)"):
            pooled(LinearHead(l2="cv", l2_grid=())).fit(example_preferences()[0])

    def test_one_prompt_group_needs_a_fixed_strength(self):
        prefs, _ = example_preferences()
        one = prefs[prefs.groups == prefs.groups[0]]
        with pytest.raises(
            InvalidInputError, match=r"^PooledRewardModel\(strength='cv'\) needs at least 2 folds and 2"
        ):
            pooled(strength="cv").fit(one)
        assert np.isfinite(pooled(strength=1.0).fit(one).margins(one)).all()

    def test_pairs_across_prompts_need_levels(self):
        prefs, _ = example_preferences()
        pairs = prefs.pairs.copy()
        pairs[0, 1] = prefs.pairs[prefs.groups != prefs.groups[0]][0, 1]
        crossed = type(prefs)(prefs.responses, pairs)
        assert crossed.cross_prompt.any()
        with pytest.raises(InvalidInputError, match="use calibrate=True, or drop those pairs"):
            pooled(calibrate=False).fit(crossed)
