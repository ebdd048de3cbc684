"""Partial pooling: its limits, the joint optimum against a dense reference, and what it must not cost."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from embedrm import EmbeddedPreferences, Featurizer, LinearHead, LogisticRouter
from embedrm.checks import example_preferences
from embedrm.checks.data import with_pairs
from embedrm.composites._pooled_frames import Frame, own_frame
from embedrm.composites.pooled import PooledRewardModel
from embedrm.featurizers import PCAProjection
from embedrm.numerics.bradley_terry import log_loss
from embedrm.numerics.folds import group_folds
from embedrm.objectives import Comparisons, make_objective

ROUTER = LogisticRouter(l2=1e-2)
PRODUCTS = Featurizer(("r", "p*r"))


def pooled(expert=None, **parameters):
    expert = LinearHead(l2=0.05, tol=1e-13) if expert is None else expert
    return PooledRewardModel(expert, **{"router": ROUTER, "routing": "oracle", "strength": 0.3, **parameters})


def uneven(random_state=3):
    """The example data with one large, one middling and one small domain, weighted pairs and vote shares."""
    prefs, _ = example_preferences(31, random_state=random_state)
    rng = np.random.default_rng(random_state)
    kept = np.flatnonzero(
        (prefs.domain == "alpha") | (rng.random(len(prefs)) < np.where(prefs.domain == "beta", 0.6, 0.2))
    )
    outcome = rng.choice([0.5, 0.7, 1.0], size=len(prefs), p=[0.1, 0.3, 0.6])
    return with_pairs(prefs, weight=rng.uniform(0.5, 2.0, len(prefs)), outcome=outcome)[kept]


def weighted_share(prefs):
    share = np.array([prefs.weight[prefs.domain == d].sum() for d in prefs.domains])
    return share / share.sum()


class Dense:
    """The same problem laid out: shared features, then a copy for each domain, scaled on that domain's rows alone."""

    def __init__(self, prefs, model, *, own_scale=True):
        featurizer = model.shared_.featurizer_
        template = model.expert.featurizer or Featurizer()
        self.rows, self.pairs = prefs.active, prefs.local_pairs
        responses = prefs.responses
        shared = featurizer.transform(responses, self.rows)
        domain = responses.domain[responses.prompt_of[self.rows]]
        blocks = [shared / np.sqrt(model.l2_)]
        for d, tau in zip(model.domains_, model.tau_):
            own = template.fit(prefs.in_domain(d)).transform(responses, self.rows) if own_scale else shared
            blocks.append(np.where((domain == d)[:, None], own, 0.0) / np.sqrt(tau))
        self.features = np.hstack(blocks)

    @property
    def differences(self):
        return self.features[self.pairs[:, 0]] - self.features[self.pairs[:, 1]]


class TestLimits:
    @pytest.mark.parametrize("featurizer", [None, PRODUCTS])
    def test_a_pull_without_end_is_the_single_head_in_every_domain(self, featurizer):
        prefs = uneven()
        single = LinearHead(featurizer, l2=0.05, tol=1e-13).fit(prefs)
        model = pooled(LinearHead(featurizer, l2=0.05, tol=1e-13), strength=np.inf).fit(prefs)
        for head in (model.shared_, *model.experts_):
            np.testing.assert_allclose(head.coef_, single.coef_, rtol=1e-6, atol=1e-9)
        strong = pooled(LinearHead(featurizer, l2=0.05, tol=1e-13), strength=1e7).fit(prefs)
        for head in (strong.shared_, *strong.experts_):
            np.testing.assert_allclose(head.coef_, single.coef_, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize(
        "featurizer", [None, PRODUCTS, Featurizer(("r", "p*r"), scale="standard", covariates="words")]
    )
    def test_no_shared_part_leaves_every_domain_its_own_head(self, featurizer):
        prefs = uneven()
        model = pooled(LinearHead(featurizer, l2=1e9, tol=1e-14), strength=0.1, share_power=0.3).fit(prefs)
        np.testing.assert_allclose(model.shared_.coef_, 0.0, atol=1e-6)
        for d, tau, share in zip(model.domains_, model.tau_, weighted_share(prefs)):
            own = prefs.in_domain(d)
            alone = LinearHead(featurizer, l2=tau / share, tol=1e-14).fit(own)
            np.testing.assert_allclose(model.margins(own), alone.margins(own), rtol=1e-5, atol=1e-6)

    def test_no_pull_is_every_domains_head_without_a_penalty(self):
        prefs, _ = example_preferences(31)
        model = pooled(strength=0.0).fit(prefs)
        weak = pooled(strength=1e-9).fit(prefs)
        for d in model.domains_:
            own = prefs.in_domain(d)
            alone = LinearHead(l2=0.0, tol=1e-14).fit(own).margins(own)
            np.testing.assert_allclose(model.margins(own), alone, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(weak.margins(own), alone, rtol=1e-3, atol=1e-3)

    def test_one_domain_is_one_head_with_both_penalties_in_a_row(self):
        prefs, _ = example_preferences()
        own = prefs.in_domain("beta")
        model = pooled(LinearHead(Featurizer(scale="none"), l2=0.3, tol=1e-14), strength=0.2).fit(own)
        # the least l2/2 |w0|^2 + tau/2 |w - w0|^2 over w0 is 1/2 |w|^2 with the harmonic sum of both
        alone = LinearHead(Featurizer(scale="none"), l2=0.3 * 0.2 / 0.5, tol=1e-14).fit(own)
        np.testing.assert_allclose(model.experts_[0].coef_, alone.coef_, rtol=1e-5, atol=1e-7)


class TestJointOptimum:
    @pytest.mark.parametrize("own_scale", [True, False])
    @pytest.mark.parametrize("terms", [("r",), ("r", "p*r")])
    @pytest.mark.parametrize("scale", ["rms", "standard"])
    def test_it_is_logistic_regression_on_shared_and_own_copies(self, terms, scale, own_scale):
        prefs = with_pairs(uneven(), outcome=None)
        expert = LinearHead(Featurizer(terms, scale=scale), l2=0.05, tol=1e-14)
        model = pooled(expert, own_scale=own_scale).fit(prefs)
        d = Dense(prefs, model, own_scale=own_scale).differences
        sign = np.where(np.arange(len(d)) % 2, 1.0, -1.0)
        reference = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=10_000)
        reference.fit(d * sign[:, None], sign, sample_weight=prefs.weight / prefs.weight.sum())
        np.testing.assert_allclose(model.margins(prefs), d @ reference.coef_[0], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("objective", ["bradley-terry", "hinge", "classification", "davidson"])
    def test_any_objective_reaches_the_dense_minimum(self, objective):
        prefs = uneven()
        model = pooled(LinearHead(l2=0.05, tol=1e-13, objective=objective), own_scale=False).fit(prefs)
        x = Dense(prefs, model, own_scale=False).features
        loss = make_objective(objective).loss(Comparisons.of(prefs))

        def value(w):
            at = loss.evaluate(x @ w)
            return at.value + 0.5 * w @ w, x.T @ at.slope + w

        found = minimize(
            value, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9}
        )
        rewards = x @ found.x
        expected = rewards[prefs.local_pairs[:, 0]] - rewards[prefs.local_pairs[:, 1]]
        np.testing.assert_allclose(model.margins(prefs), expected, rtol=1e-3, atol=1e-4)
        assert model.shared_.objective_ == pytest.approx(found.fun, abs=1e-8)
        assert model.margins_are_logits == make_objective(objective).margins_are_logits

    def test_more_features_than_pairs(self):
        rng = np.random.default_rng(0)
        x, p = rng.normal(size=(60, 90)), rng.normal(size=(30, 90))
        pairs = np.arange(60).reshape(30, 2)
        prefs = EmbeddedPreferences.from_arrays(
            x, pairs, prompt=p, prompt_of=np.repeat(np.arange(30), 2), domain=["a", "b"] * 15
        )
        model = pooled(LinearHead(PRODUCTS, l2=0.5, tol=1e-14)).fit(prefs)
        d = Dense(prefs, model).differences
        reference = LogisticRegression(C=1.0 / 30, fit_intercept=False, tol=1e-10, max_iter=10_000)
        sign = np.where(np.arange(30) % 2, 1.0, -1.0)
        reference.fit(d * sign[:, None], sign)
        np.testing.assert_allclose(model.margins(prefs), d @ reference.coef_[0], rtol=1e-5, atol=1e-6)

    def test_responses_of_a_pair_across_domains_are_each_read_by_their_own(self):
        prefs, _ = example_preferences(31)
        pairs = prefs.pairs.copy()
        a, b = (np.flatnonzero(prefs.domain == d)[:20] for d in ("alpha", "beta"))
        pairs[a, 1], pairs[b, 1] = prefs.pairs[b, 1], prefs.pairs[a, 1]
        crossed = with_pairs(prefs, pairs=pairs)
        model = pooled(LinearHead(Featurizer(scale="none"), l2=0.05, tol=1e-14), own_scale=False).fit(crossed)
        d = Dense(crossed, model, own_scale=False).differences
        sign = np.where(np.arange(len(d)) % 2, 1.0, -1.0)
        reference = LogisticRegression(C=1.0 / len(d), fit_intercept=False, tol=1e-10, max_iter=10_000)
        reference.fit(d * sign[:, None], sign)
        # the likelihood has compared the domains' levels, so none is taken away
        np.testing.assert_array_equal(model.offset_, 0.0)
        np.testing.assert_allclose(model.margins(crossed), d @ reference.coef_[0], rtol=1e-5, atol=1e-6)


class TestFrames:
    @pytest.mark.parametrize("scale", ["rms", "standard", "none"])
    def test_own_features_are_shared_ones_seen_through_the_map(self, scale):
        prefs = uneven()
        shared, own = (Featurizer(("r", "p*r"), scale=scale).fit(p) for p in (prefs, prefs.in_domain("gamma")))
        v = np.random.default_rng(0).normal(size=shared.dim_)
        some = prefs.in_domain("gamma")
        pairs = some.pairs

        def margins(featurizer, weights):
            rewards = featurizer.transform(prefs.responses) @ weights
            return rewards[pairs[:, 0]] - rewards[pairs[:, 1]]

        frame = own_frame(shared, own)
        np.testing.assert_allclose(margins(shared, frame.apply(v)), margins(own, v), rtol=1e-9, atol=1e-12)

    def test_transpose_and_inverses(self):
        prefs = uneven()
        featurizer = Featurizer(("p*r", "r"), covariates="words")
        frame = own_frame(
            *(Featurizer(("p*r", "r"), covariates="words").fit(p) for p in (prefs, prefs.in_domain("beta")))
        )
        dim = featurizer.fit(prefs).dim_
        eye = np.eye(dim)
        a = frame.apply(eye)
        np.testing.assert_allclose(frame.transpose(eye), a.T, atol=1e-12)
        np.testing.assert_allclose(frame.inverse(a), eye, atol=1e-12)
        np.testing.assert_allclose(frame.inverse_transpose(a.T), eye, atol=1e-12)
        np.testing.assert_allclose(frame.apply(eye[0]), a[:, 0])

    @pytest.mark.parametrize(
        "featurizer", [Featurizer("p*r"), Featurizer("r,abs(p-r)"), Featurizer(project=PCAProjection(n_components=3))]
    )
    def test_where_there_is_no_map_deviations_read_the_shared_features(self, featurizer):
        prefs = uneven()
        fitted = featurizer.fit(prefs)
        assert own_frame(fitted, fitted) == Frame()
        assert pooled(LinearHead(featurizer)).fit(prefs).score(prefs) > 0.6


class TestStrength:
    def test_tau_follows_the_share(self):
        prefs = uneven()
        share = weighted_share(prefs)
        for power in (0.0, 0.5, 1.0):
            np.testing.assert_allclose(pooled(strength=2.0, share_power=power).fit(prefs).tau_, 2.0 * share**power)

    def test_a_small_domain_is_nearer_to_the_shared_head(self):
        prefs = uneven()
        model = pooled(own_scale=False, share_power=0.0).fit(prefs)
        distance = [np.linalg.norm(e.coef_ - model.shared_.coef_) for e in model.experts_]
        assert distance[2] < distance[0]
        gone = pooled(own_scale=False, share_power=0.0).fit(
            prefs[(prefs.domain != "gamma") | (np.cumsum(prefs.domain == "gamma") == 1)]
        )
        assert np.linalg.norm(gone.experts_[2].coef_ - gone.shared_.coef_) < 0.5 * distance[2]

    @pytest.mark.parametrize("objective", ["bradley-terry", "hinge"])
    def test_held_out_losses_by_hand(self, objective):
        prefs = uneven()
        expert = LinearHead(Featurizer(scale="none"), l2=0.05, tol=1e-12, objective=objective)
        grid = (3.0, 0.3)
        chosen = pooled(
            expert, strength="cv", strength_grid=grid, share_power=0.0, own_scale=False, cv=3, min_groups=None
        ).fit(prefs)
        rows = {row["strength"]: row for row in chosen.cv_results_}
        assert list(rows) == [np.inf, 3.0, 0.3]
        for strength, row in rows.items():
            total = 0.0
            for train, test in group_folds(prefs.groups, 3, weight=prefs.weight):
                fold = pooled(expert, strength=strength, share_power=0.0, own_scale=False).fit(prefs[train])
                out = prefs[test]
                margins = fold.margins(out)
                if objective == "bradley-terry":
                    total += out.weight @ log_loss(margins, out.outcome)
                else:
                    for d in out.domains:
                        own = out.in_domain(d)
                        rewards = fold.predict(own)[own.active] + 0.0
                        total += (
                            own.weight.sum()
                            * make_objective(objective).loss(Comparisons.of(own)).evaluate(rewards).value
                        )
            name = "log_loss" if objective == "bradley-terry" else "loss"
            assert row[name] == pytest.approx(total / prefs.weight.sum(), abs=2e-3)
        name = "log_loss" if objective == "bradley-terry" else "loss"
        best = min(rows, key=lambda s: rows[s][name])
        assert chosen.strength_ == best

    def test_l2_of_the_shared_head_is_that_of_the_single_head(self):
        prefs = uneven()
        model = pooled(LinearHead(l2="cv", l2_grid=(1e-2, 0.1, 10.0))).fit(prefs)
        assert model.l2_ == LinearHead(l2="cv", l2_grid=(1e-2, 0.1, 10.0)).fit(prefs).l2_
        assert [row["l2"] for row in model.cv_results_] == [10.0, 0.1, 1e-2]


class TestScale:
    def test_nothing_is_scaled_and_domains_average_zero(self):
        prefs, _ = example_preferences(31)
        model = pooled(strength="cv").fit(prefs)
        np.testing.assert_array_equal(model.scale_, 1.0)
        rewards = model.predict(prefs)
        for d in prefs.domains:
            assert rewards[prefs.in_domain(d).active].mean() == pytest.approx(0.0, abs=1e-9)
        plain = pooled(strength="cv", calibrate=False).fit(prefs)
        np.testing.assert_array_equal(plain.offset_, 0.0)
        np.testing.assert_allclose(plain.margins(prefs), model.margins(prefs), rtol=1e-9)

    def test_a_mixture_is_the_shared_head_and_the_gated_deviations(self):
        prefs, _ = example_preferences(31)
        model = pooled(routing="soft").fit(prefs)
        x = model.shared_.featurizer_.transform(prefs.responses)
        gates = model.gates(prefs.responses)[prefs.responses.prompt_of]
        deviations = np.stack([e.coef_ - model.shared_.coef_ for e in model.experts_], axis=1)
        expected = x @ model.shared_.coef_ + (gates * (x @ deviations - model.offset_)).sum(axis=1)
        np.testing.assert_allclose(model.predict(prefs), expected, rtol=1e-9, atol=1e-12)
        rewards = np.stack([e.predict(prefs) for e in model.experts_], axis=1) - model.offset_
        np.testing.assert_allclose(model.expert_rewards(prefs.responses), rewards, rtol=1e-9, atol=1e-12)
