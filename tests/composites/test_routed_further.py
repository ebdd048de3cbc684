"""Routed models: top-k, general heads, new domains, small domains, and linear experts in one pass."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from embedrm import EmbeddedPreferences, Featurizer, LinearHead, LogisticRouter, RoutedRewardModel
from embedrm.checks import example_preferences
from embedrm.checks.data import map_views, with_pairs, with_responses
from embedrm.composites._held_out import fit_and_hold_out, out_of_fold_margins
from embedrm.composites._linear_experts import LinearExperts
from embedrm.errors import InvalidInputError
from embedrm.numerics.calibration import fit_margin_scale
from embedrm.persistence import load_model, save_model
from embedrm.routers.base import Router, prompt_pair_weights
from embedrm.routers.rejecting import RejectingRouter

ROUTER = LogisticRouter(l2=0.1)


def model(**parameters):
    return RoutedRewardModel(**{"expert": LinearHead(l2=0.01), "router": ROUTER, **parameters})


def both_views(prefs):
    """The same comparisons with a second, unlike layer on either side."""
    views = dict(prefs.responses.views)
    rng = np.random.default_rng(7)
    for side in ("response", "prompt"):
        views[f"{side}:3"] = 5.0 + 3.0 * rng.normal(size=views[f"{side}:final"].shape)
    return with_pairs(prefs, with_responses(prefs.responses, views=views))


class TestTopK:
    def test_all_is_soft_and_one_is_hard_to_the_bit(self):
        prefs, _ = example_preferences()
        fitted = model().fit(prefs)
        for k, routing in ((3, "soft"), (9, "soft"), (1, "hard")):
            top = fitted.with_routing("top-k", k=k)
            np.testing.assert_array_equal(
                top.gates(prefs.responses), fitted.with_routing(routing).gates(prefs.responses)
            )
            np.testing.assert_array_equal(top.predict(prefs), fitted.with_routing(routing).predict(prefs))

    def test_two_are_the_two_most_probable_renormalised(self):
        prefs, _ = example_preferences()
        fitted = model(routing="top-k").fit(prefs)
        p = fitted.with_routing("soft").gates(prefs.responses)
        gates = fitted.gates(prefs.responses)
        for row, gate in zip(p, gates):
            first, second = np.argsort(-row, kind="stable")[:2]
            expected = np.zeros(3)
            expected[[first, second]] = row[[first, second]] / (row[first] + row[second])
            np.testing.assert_allclose(gate, expected, rtol=1e-12)
        np.testing.assert_array_equal(fitted.margins(prefs.swapped()), -fitted.margins(prefs))

    @pytest.mark.parametrize("k", [0, 1.5, True, None])
    def test_k_is_a_whole_number(self, k):
        with pytest.raises(InvalidInputError, match="k to be a whole number >= 1"):
            model(k=k).fit(example_preferences()[0])


class TestLinearExperts:
    @pytest.mark.parametrize("terms", [("r",), ("r", "p*r"), ("p*r",)])
    @pytest.mark.parametrize("scale", ["rms", "standard", "none"])
    def test_one_pass_gives_the_rewards_of_the_experts(self, terms, scale):
        prefs = both_views(example_preferences()[0])
        fitted = model(expert=LinearHead(Featurizer(terms, scale=scale), l2=0.1)).fit(prefs)
        assert LinearExperts.of(fitted.experts_, fitted.scale_, fitted.offset_) is not None
        responses = prefs.responses
        single = np.stack([e.predict(responses) for e in fitted.experts_], axis=1)
        single = (single - fitted.offset_) * fitted.scale_
        np.testing.assert_allclose(fitted.expert_rewards(responses), single, rtol=1e-9, atol=1e-9)
        expected = (fitted.gates(responses)[responses.prompt_of] * single).sum(axis=1)
        np.testing.assert_allclose(fitted.predict(responses), expected, rtol=1e-9, atol=1e-9)
        some = np.array([7, 3, 90, 3])
        np.testing.assert_allclose(fitted._rewards(responses, some), expected[some], rtol=1e-9, atol=1e-9)

    def test_single_precision_agrees_within_its_rounding(self):
        prefs = map_views(both_views(example_preferences()[0]), lambda _, m: m.astype(np.float32))
        for terms in (("r",), ("r", "p*r")):
            fitted = model(expert=LinearHead(Featurizer(terms), l2=0.1)).fit(prefs)
            double = map_views(prefs, lambda _, m: m.astype(np.float64))
            exact = fitted.predict(double)
            np.testing.assert_allclose(fitted.predict(prefs), exact, atol=1e-5 * exact.std())

    def test_a_projection_is_folded_in(self):
        prefs, _ = example_preferences()
        fitted = model(expert=LinearHead(Featurizer(project="whiten"), l2=0.1)).fit(prefs)
        single = np.stack([e.predict(prefs) for e in fitted.experts_], axis=1)
        expected = (single - fitted.offset_) * fitted.scale_
        np.testing.assert_allclose(fitted.expert_rewards(prefs.responses), expected, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize(
        "featurizer",
        [Featurizer(("r", "abs(p-r)")), Featurizer(covariates="characters"), Featurizer(residualise="characters")],
    )
    def test_what_cannot_be_folded_is_scored_one_by_one(self, featurizer):
        prefs, _ = example_preferences()
        fitted = model(expert=LinearHead(featurizer, l2=0.1)).fit(prefs)
        assert LinearExperts.of(fitted.experts_, fitted.scale_, fitted.offset_) is None
        single = np.stack([e.predict(prefs) for e in fitted.experts_], axis=1)
        expected = fitted.gates(prefs.responses)[prefs.responses.prompt_of] * (single - fitted.offset_) * fitted.scale_
        np.testing.assert_allclose(fitted.predict(prefs), expected.sum(axis=1), rtol=1e-9)

    def test_permuting_experts_with_their_gates_changes_nothing(self):
        prefs, _ = example_preferences()
        fitted = model().fit(prefs)
        before, gates = fitted.predict(prefs), fitted.gates(prefs.responses)
        order = [2, 0, 1]
        fitted.experts_ = [fitted.experts_[i] for i in order]
        fitted.scale_, fitted.offset_ = fitted.scale_[order], fitted.offset_[order]
        fitted.gates = lambda responses, prompts=None: gates[:, order][slice(None) if prompts is None else prompts]
        np.testing.assert_allclose(fitted.predict(prefs), before, rtol=1e-12, atol=1e-12)


class _Picky(Router):
    """Accepts prompts whose first number is positive."""

    can_reject = True

    def __init__(self, view=None):
        self.view = view

    def fit(self, X, y, groups=None):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return np.tile(np.arange(1.0, len(self.classes_) + 1) / np.arange(1, len(self.classes_) + 1).sum(), (len(X), 1))

    def accept(self, X):
        return np.asarray(X)[:, 0] > 0


class TestGeneralHead:
    @pytest.mark.parametrize("routing", ["soft", "hard", "top-k"])
    def test_it_answers_for_rejected_prompts_and_for_no_other(self, routing):
        prefs, _ = example_preferences()
        fitted = model(router=_Picky(), routing=routing).fit(prefs)
        responses = prefs.responses
        accepted = responses.views["prompt:final"][:, 0] > 0
        gates = fitted.gates(responses)
        np.testing.assert_allclose(gates.sum(axis=1), accepted)
        rewards, on = fitted.predict(prefs), accepted[responses.prompt_of]
        general = (LinearHead(l2=0.01).fit(prefs).predict(prefs) - fitted.general_offset_) * fitted.general_scale_
        np.testing.assert_allclose(rewards[~on], general[~on], rtol=1e-9)
        mixed = (gates[responses.prompt_of] * fitted.expert_rewards(responses)).sum(axis=1)
        np.testing.assert_allclose(rewards[on], mixed[on], rtol=1e-9)
        np.testing.assert_array_equal(fitted.margins(prefs.swapped()), -fitted.margins(prefs))

    def test_it_is_calibrated_like_an_expert(self):
        prefs, _ = example_preferences()
        fitted = model(fallback=True).fit(prefs)
        head = fitted.general_
        assert fitted.general_offset_ == pytest.approx(head.predict(prefs)[prefs.active].mean())
        margins = out_of_fold_margins(head, prefs, fitted.cv, "test")
        expected = fit_margin_scale(margins, prefs.outcome, prefs.weight, len(np.unique(prefs.groups)))
        assert fitted.general_scale_ == expected
        plain = model(fallback=True, calibrate=False).fit(prefs)
        assert (plain.general_scale_, plain.general_offset_) == (1.0, 0.0)

    def test_it_is_fitted_where_it_is_needed(self):
        prefs, _ = example_preferences()
        assert model().fit(prefs).general_ is None
        assert model(router=RejectingRouter(ROUTER)).fit(prefs).general_ is not None
        with pytest.raises(InvalidInputError, match="_Picky may reject prompts, and fallback=False leaves nobody"):
            model(router=_Picky(), fallback=False).fit(prefs)

    def test_saving_keeps_every_bit(self, tmp_path):
        prefs, _ = example_preferences()
        fitted = model(router=RejectingRouter(ROUTER, level=0.6, per_route=True)).fit(prefs)
        assert (fitted.gates(prefs.responses).sum(axis=1) == 0).any()
        loaded, _ = load_model(save_model(fitted, tmp_path / "m"))
        np.testing.assert_array_equal(loaded.predict(prefs), fitted.predict(prefs))


class TestAddDomain:
    def test_the_others_keep_their_bits(self):
        prefs, _ = example_preferences(31)
        old = prefs[prefs.domain != "beta"]
        before = model(fallback=True).fit(old)
        gates = before.gates(prefs.responses)
        more = before.add_domain(prefs)
        assert before.domains_ == ["alpha", "gamma"]
        assert more.domains_ == ["alpha", "beta", "gamma"]
        np.testing.assert_array_equal(before.gates(prefs.responses), gates)
        a, b = before.with_routing("oracle"), more.with_routing("oracle")
        np.testing.assert_array_equal(b.margins(old), a.margins(old))
        rows = old.active
        np.testing.assert_array_equal(b.predict(prefs)[rows], a.predict(old)[rows])
        np.testing.assert_array_equal(
            more.expert_rewards(prefs.responses)[:, [0, 2]], before.expert_rewards(prefs.responses)
        )
        assert more.experts_[0] is before.experts_[0]
        assert more.general_ is before.general_

    def test_it_is_the_model_fitted_on_everything(self):
        prefs, _ = example_preferences(31)
        added = model().fit(prefs[prefs.domain != "beta"]).add_domain(prefs)
        whole = model().fit(prefs)
        np.testing.assert_array_equal(added.predict(prefs), whole.predict(prefs))
        np.testing.assert_array_equal(added.router_.coef_, whole.router_.coef_)

    def test_old_pairs_teach_no_expert(self):
        prefs, _ = example_preferences(31)
        first = model().fit(prefs[prefs.domain != "beta"])
        turned = with_pairs(prefs, pairs=np.where((prefs.domain == "beta")[:, None], prefs.pairs, prefs.pairs[:, ::-1]))
        np.testing.assert_array_equal(first.add_domain(turned).predict(prefs), first.add_domain(prefs).predict(prefs))

    def test_what_is_missing_is_named(self):
        prefs, _ = example_preferences()
        old = prefs[prefs.domain != "beta"]
        fitted = model().fit(old)
        with pytest.raises(
            InvalidInputError, match="a domain without an expert, got only alpha, gamma; to train a domain"
        ):
            fitted.add_domain(old)
        with pytest.raises(InvalidInputError, match="prompts of every domain, got none of alpha; pass the pairs"):
            fitted.add_domain(prefs[prefs.domain != "alpha"])


class TestWithRouter:
    def test_the_experts_stay_and_the_routes_are_those_of_a_fit_with_that_router(self):
        prefs, _ = example_preferences(31)
        first, other = model().fit(prefs), LogisticRouter(l2=10.0)
        turned, whole = first.with_router(other, prefs), model(router=other).fit(prefs)
        assert turned.experts_[0] is first.experts_[0]
        assert first.router.l2 == 0.1
        np.testing.assert_array_equal(turned.predict(prefs), whole.predict(prefs))
        weighed = first.with_router(ROUTER, prefs, prompt_weight="pairs")
        np.testing.assert_array_equal(weighed.predict(prefs), model(prompt_weight="pairs").fit(prefs).predict(prefs))
        assert first.prompt_weight == "prompts"

    def test_a_router_that_rejects_needs_a_general_head(self):
        prefs, _ = example_preferences()
        rejecting = RejectingRouter(ROUTER, level=0.6)
        with pytest.raises(
            InvalidInputError, match="without a general head to answer for them; fit it with fallback=True"
        ):
            model().fit(prefs).with_router(rejecting, prefs)
        turned = model(fallback=True).fit(prefs).with_router(rejecting, prefs)
        assert np.isfinite(turned.predict(prefs)).all()


class TestDropDomain:
    def test_it_is_the_model_fitted_without_the_domain(self):
        prefs, _ = example_preferences(31)
        whole = model().fit(prefs)
        dropped, without = whole.drop_domain("beta", prefs), model().fit(prefs[prefs.domain != "beta"])
        assert (whole.domains_, dropped.domains_) == (["alpha", "beta", "gamma"], ["alpha", "gamma"])
        np.testing.assert_array_equal(dropped.predict(prefs), without.predict(prefs))
        np.testing.assert_array_equal(dropped.router_.coef_, without.router_.coef_)

    def test_dropped_and_added_again_nothing_has_changed(self):
        prefs, _ = example_preferences(31)
        whole = model().fit(prefs)
        np.testing.assert_array_equal(
            whole.drop_domain("gamma", prefs).add_domain(prefs).predict(prefs), whole.predict(prefs)
        )

    def test_what_cannot_be_dropped_is_named(self):
        prefs, _ = example_preferences()
        fitted = model().fit(prefs)
        with pytest.raises(InvalidInputError, match="unknown domain with an expert 'betta'"):
            fitted.drop_domain("betta", prefs)
        with pytest.raises(InvalidInputError, match="every domain that stays, got none of gamma; pass the pairs"):
            fitted.drop_domain("beta", prefs[prefs.domain != "gamma"])
        only = model().fit(prefs[prefs.domain == "beta"])
        with pytest.raises(InvalidInputError, match="every domain that stays, got none of any"):
            only.drop_domain("beta", prefs)


class TestSmallDomains:
    def test_five_pairs_make_an_expert(self):
        prefs, _ = example_preferences()
        keep = np.ones(len(prefs), dtype=bool)
        keep[np.flatnonzero(prefs.domain == "beta")[5:]] = False
        few = prefs[keep]
        fitted = model().fit(few)
        assert len(few.in_domain("beta")) == 5
        own = fitted.with_routing("oracle").margins(few)[few.domain == "beta"]
        expected = LinearHead(l2=0.01).fit(few.in_domain("beta")).margins(few.in_domain("beta"))
        np.testing.assert_allclose(own / expected, fitted.scale_[1], rtol=1e-9)

    def test_prompts_without_pairs_are_not_seen_and_their_domain_is_unseen_afterwards(self):
        prefs, _ = example_preferences()
        rest = prefs[prefs.domain != "beta"]
        assert "beta" in rest.responses.domains
        fitted = model().fit(rest)
        assert fitted.domains_ == fitted.router_.classes_.tolist() == ["alpha", "gamma"]
        for routing in ("soft", "hard", "top-k", "random"):
            np.testing.assert_allclose(fitted.with_routing(routing).gates(prefs.responses).sum(axis=1), 1.0)
        with pytest.raises(InvalidInputError, match="none was fitted for beta"):
            fitted.with_routing("oracle").margins(prefs)

    def test_the_oracle_has_the_general_head_for_them(self):
        prefs, _ = example_preferences()
        fitted = model(routing="oracle", fallback=True, calibrate=False).fit(prefs[prefs.domain != "beta"])
        margins = fitted.margins(prefs)
        beta = prefs.in_domain("beta")
        np.testing.assert_allclose(margins[prefs.domain == "beta"], fitted.general_.margins(beta), rtol=1e-12)
        assert np.isfinite(margins).all()


class TestPromptWeights:
    def test_weights_of_prompts_are_sums_over_their_pairs(self):
        x = np.zeros((6, 1))
        prefs = EmbeddedPreferences.from_arrays(
            x,
            [[0, 1], [1, 0], [2, 3], [4, 2]],
            prompt=np.ones((3, 2)),
            prompt_of=[0, 0, 1, 1, 2, 2],
            weight=[1.0, 2.0, 4.0, 8.0],
        )
        # the last pair compares a response to prompt 2 with one to prompt 1
        np.testing.assert_array_equal(prompt_pair_weights(prefs), [3.0, 8.0, 4.0])

    def test_pairs_reach_the_router(self):
        prefs, _ = example_preferences()
        prefs = with_pairs(prefs, weight=np.where(prefs.domain == "beta", 30.0, 1.0))
        prompts, pairs = (model(prompt_weight=w).fit(prefs) for w in ("prompts", "pairs"))
        assert pairs.gates(prefs.responses)[:, 1].mean() > prompts.gates(prefs.responses)[:, 1].mean() + 0.02

    def test_wrong_ones_are_refused(self):
        prefs, _ = example_preferences()
        with pytest.raises(InvalidInputError, match="unknown prompt_weight 'pair'"):
            model(prompt_weight="pair").fit(prefs)
        with pytest.raises(InvalidInputError, match="whose fit takes sample_weight, which _Picky's does not"):
            model(router=_Picky(), prompt_weight="pairs").fit(prefs)


def test_parameters_are_kept():
    routed = model(k=3, fallback=True, prompt_weight="pairs")
    assert clone(routed).get_params()["k"] == 3
    assert repr(clone(routed)) == repr(routed)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"cv": "5"}, "cv to be a whole number >= 2, got '5'"),
        ({"cv": 1}, "cv to be a whole number >= 2, got 1"),
        ({"random_state": None}, "random_state to be a whole number, got None"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_fitted(parameters, said):
    prefs, _ = example_preferences()
    with pytest.raises(InvalidInputError, match=f"RoutedRewardModel needs {said}"):
        model(**parameters).fit(prefs)


class TestPenaltiesChosenByFolds:
    CV = LinearHead(l2="cv", l2_grid=(1e-3, 0.1, 10.0))

    def test_margins_of_the_choosing_folds_are_those_of_refits(self):
        prefs, _ = example_preferences()
        weight = np.random.default_rng(0).uniform(0.5, 2.0, len(prefs))
        weight[::7] = 0.0
        prefs = prefs.weighted(weight)
        head, margins = fit_and_hold_out(self.CV, prefs, 5, "test")
        expected = out_of_fold_margins(head, prefs, 5, "test")
        np.testing.assert_allclose(margins, expected, atol=3e-3 * np.abs(expected).max())
        assert not margins[weight == 0].any()
        assert margins[weight > 0].all()
        np.testing.assert_array_equal(head.coef_, clone(self.CV).fit(prefs).coef_)

    def test_folds_of_another_number_are_refitted(self):
        prefs, _ = example_preferences()
        head, margins = fit_and_hold_out(self.CV, prefs, 3, "test")
        np.testing.assert_array_equal(margins, out_of_fold_margins(head, prefs, 3, "test"))

    def test_a_penalty_that_is_given_has_no_folds(self):
        with pytest.raises(InvalidInputError, match=r"needs l2='cv', whose folds hold pairs out, got 0\.01"):
            LinearHead(l2=0.01).fit_and_hold_out(example_preferences()[0])

    def test_experts_fitted_beside_each_other_are_the_same_bits(self, monkeypatch):
        prefs, _ = example_preferences()
        fits = []
        for n_threads in (1, 3):
            monkeypatch.setattr("embedrm.composites.routed.allowed_threads", lambda n=n_threads: n)
            fits.append(model(expert=self.CV).fit(prefs))
        one, two = fits
        np.testing.assert_array_equal(one.scale_, two.scale_)
        np.testing.assert_array_equal(one.expert_rewards(prefs.responses), two.expert_rewards(prefs.responses))
        for domain, expert in zip(one.domains_, one.experts_):
            alone = clone(self.CV).fit(prefs.in_domain(domain))
            np.testing.assert_allclose(expert.coef_, alone.coef_, rtol=1e-6, atol=1e-9)

    def test_experts_stay_with_their_domains_whatever_the_sizes(self):
        prefs, _ = example_preferences()
        # the third domain is the largest, then the first, then the second: fitted in an order that is not its own inverse
        kept = [np.flatnonzero(prefs.domain == d)[:n] for d, n in zip(prefs.domains, (14, 10, 18))]
        part = prefs[np.concatenate(kept)]
        fitted = model().fit(part)
        for domain, expert in zip(fitted.domains_, fitted.experts_):
            alone = LinearHead(l2=0.01).fit(part.in_domain(domain))
            np.testing.assert_allclose(expert.coef_, alone.coef_, rtol=1e-6, atol=1e-9)
