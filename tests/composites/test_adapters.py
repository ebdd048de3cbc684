"""ARLISS: one trunk, low-rank adapters for its domains, and a router adapter on the same trunk."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from embedrm import EmbeddedPreferences, Featurizer, LinearHead, LogisticRouter, MLPHead
from embedrm.checks.data import map_views, with_pairs, with_responses
from embedrm.composites._adapter_fitting import PRIOR_GROUPS, held_out_groups
from embedrm.composites.adapters import AdapterRewardModel
from embedrm.errors import InvalidInputError
from embedrm.numerics.calibration import fit_margin_scale, fit_softmax_temperature
from embedrm.persistence import load_model, save_model
from embedrm.routers.base import prompt_vectors

DIM = 6
OPPOSITE = {"code": [1.0, 0.5, 0, 0, 0, 0], "verse": [-1.0, -0.5, 0, 0, 0, 0], "maths": [0, 0, 1.0, -1.0, 0, 0]}


def planted(n_prompts=240, seed=0, directions=OPPOSITE, dim=DIM, separation=3.0):
    """Domains that reward different directions, told apart by the prompt."""
    rng = np.random.default_rng(seed)
    names = np.array(sorted(directions))
    code = np.arange(n_prompts) % len(names)
    prompt = rng.normal(size=(n_prompts, dim))
    prompt[np.arange(n_prompts), code] += separation
    response = rng.normal(size=(2 * n_prompts, dim))
    prompt_of = np.repeat(np.arange(n_prompts), 2)
    reward = np.einsum("ij,ij->i", response, np.array([directions[n] for n in names])[code[prompt_of]])
    first = reward[::2] > reward[1::2]
    pairs = np.where(first[:, None], [[0, 1]], [[1, 0]]) + 2 * np.arange(n_prompts)[:, None]
    return EmbeddedPreferences.from_arrays(
        response,
        pairs,
        prompt=prompt,
        prompt_of=prompt_of,
        domain=names[code],
        group=[f"g{i}" for i in range(n_prompts)],
    )


def model(**parameters):
    trunk = MLPHead(hidden=(12, 8), max_epochs=15)
    return AdapterRewardModel(**{"trunk": trunk, "rank": 3, "router_rank": 6, "max_epochs": 40, **parameters})


@pytest.fixture(scope="module")
def train():
    return planted()


@pytest.fixture(scope="module")
def fitted(train):
    return model().fit(train)


def zeroed(fitted):
    other = clone(fitted)
    other.__dict__.update(fitted.__dict__)
    other.adapters_ = [
        {name: a if name.startswith("A") else np.zeros_like(a) for name, a in adapter.items()}
        for adapter in fitted.adapters_
    ]
    return other


def test_with_zero_b_every_domain_is_the_trunk(fitted, train):
    trunk = fitted.trunk_.predict(train)
    for expert in zeroed(fitted).experts_:
        np.testing.assert_allclose(expert.predict(train), trunk, rtol=1e-5, atol=1e-6)
    # and the fitted adapters are not zero, so that this says something
    for expert in fitted.experts_:
        assert np.abs(expert.predict(train) - trunk).max() > 0.1


@pytest.mark.parametrize("last", ["own", "adapted", "shared"])
def test_an_adapter_that_was_not_trained_is_the_trunk(train, last):
    # one group a domain is held out, so adapters stop at once when no epoch can help: none is run
    few = train[np.isin(train.groups, ["g0", "g1", "g2", "g3"])]
    routed = model(last=last).fit(few)
    for domain, n in zip(routed.domains_, routed.n_held_out_):
        k = routed.domains_.index(domain)
        if n == 0:
            assert routed.epochs_[k] == 0
            np.testing.assert_allclose(routed.experts_[k].predict(train), routed.trunk_.predict(train), rtol=1e-5)


def test_adapters_recover_what_the_trunk_cannot(fitted):
    test = planted(450, seed=1)
    scores = {routing: fitted.with_routing(routing).score(test) for routing in ("soft", "hard", "oracle", "random")}
    assert fitted.trunk_.score(test) < 0.75
    assert scores["oracle"] > 0.85
    assert scores["hard"] > 0.85
    assert scores["soft"] > 0.85
    assert scores["random"] < 0.75
    rows = test.active_prompts
    routes = fitted.router_.predict(prompt_vectors(test.responses, fitted.router_views_, rows))
    assert (routes == test.responses.domain[rows]).mean() > 0.85


def test_full_rank_adapters_represent_an_expert_of_their_own_for_each_domain(fitted, train):
    """RODOS with perceptrons of the trunk's shape: the differences, factored by SVD, give the same rewards."""
    rodos = [
        MLPHead(hidden=(12, 8), max_epochs=6, early_stopping=False, random_state=k).fit(train.in_domain(d))
        for k, d in enumerate(fitted.domains_)
    ]
    arliss = zeroed(fitted)
    featurizer = Featurizer(scale="none").fit(train)
    arliss.trunk_ = copy.copy(fitted.trunk_)
    arliss.trunk_.featurizer_ = featurizer
    for expert in rodos:
        expert.featurizer_ = featurizer
    trunk = fitted.trunk_
    arliss.adapters_ = []
    for expert in rodos:
        adapter = {}
        for layer in range(2):
            u, s, v = np.linalg.svd(
                (expert.weights_[layer] - trunk.weights_[layer]) / fitted.scaling_, full_matrices=False
            )
            adapter[f"A{layer}"], adapter[f"B{layer}"] = u * s, v
            adapter[f"bias{layer}"] = expert.biases_[layer] - trunk.biases_[layer]
        adapter["head"] = expert.weights_[2] - trunk.weights_[2]
        arliss.adapters_.append(adapter)
    arliss.scale_, arliss.offset_ = np.ones(3), np.zeros(3)
    by_domain = {d: e.margins(train) for d, e in zip(fitted.domains_, rodos)}
    expected = np.choose(np.searchsorted(fitted.domains_, train.domain), [by_domain[d] for d in fitted.domains_])
    np.testing.assert_allclose(arliss.with_routing("oracle").margins(train), expected, rtol=1e-4, atol=1e-5)


class TestSwitching:
    def test_merged_weights_give_the_applied_rewards(self, fitted, train):
        for domain, expert in zip(fitted.domains_, fitted.experts_):
            applied, merged = expert.predict(train), fitted.merged(domain).predict(train)
            assert np.abs(merged - applied).max() <= 1e-5 * np.abs(applied).max()

    def test_nothing_of_another_domain_is_left(self, fitted, train):
        before = {d: fitted.merged(d) for d in fitted.domains_}
        for d in reversed(fitted.domains_):
            again = fitted.merged(d)
            for a, b in zip((*again.weights_, *again.biases_), (*before[d].weights_, *before[d].biases_)):
                np.testing.assert_array_equal(a, b)
        alone = clone(fitted)
        alone.__dict__.update(fitted.__dict__)
        alone.adapters_ = [
            a if d == "maths" else {name: np.full_like(v, np.nan) for name, v in a.items()}
            for d, a in zip(fitted.domains_, fitted.adapters_)
        ]
        own = train.in_domain("maths")
        np.testing.assert_array_equal(
            alone.with_routing("oracle").margins(own), fitted.with_routing("oracle").margins(own)
        )
        np.testing.assert_array_equal(alone.merged("maths").predict(train), fitted.merged("maths").predict(train))

    def test_merging_changes_neither_trunk_nor_adapter(self, fitted):
        arrays = [*fitted.trunk_.weights_, *(a for adapter in fitted.adapters_ for a in adapter.values())]
        before = [a.copy() for a in arrays]
        head = fitted.merged("code")
        head.weights_[0] += 1.0
        head.biases_[-1] += 1.0
        for a, b in zip(arrays, before):
            np.testing.assert_array_equal(a, b)

    def test_expert_rewards_are_those_of_the_experts(self, fitted, train):
        rewards = fitted.expert_rewards(train.responses)
        for k, expert in enumerate(fitted.experts_):
            expected = (expert.predict(train) - fitted.offset_[k]) * fitted.scale_[k]
            np.testing.assert_allclose(rewards[:, k], expected, rtol=1e-6, atol=1e-6)

    def test_an_unknown_domain_is_refused(self, fitted):
        with pytest.raises(InvalidInputError, match="unknown domain 'cod'"):
            fitted.merged("cod")


@pytest.mark.parametrize("routing", ["soft", "hard", "oracle"])
def test_neither_names_nor_order_of_domains_matter(train, fitted, routing):
    renamed = {"code": "zebra", "maths": "moose", "verse": "aardvark"}
    other = with_pairs(train, with_responses(train.responses, domain=[renamed[d] for d in train.responses.domain]))
    permuted = model().fit(other)
    assert permuted.domains_ == ["aardvark", "moose", "zebra"]
    for d, name in renamed.items():
        a, b = (m.adapters_[m.domains_.index(x)] for m, x in ((fitted, d), (permuted, name)))
        for key in a:
            np.testing.assert_array_equal(b[key], a[key])
    expected = fitted.with_routing(routing).margins(train)
    # the pooled scale is fitted to margins in another order; routers are trained with their classes in another order
    tolerance = 1e-9 if routing == "oracle" else 0.05
    assert np.abs(permuted.with_routing(routing).margins(other) - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("routing", ["soft", "hard", "oracle", "random"])
def test_margins_of_swapped_pairs_are_turned_round_exactly(fitted, train, routing):
    routed = fitted.with_routing(routing)
    np.testing.assert_array_equal(routed.margins(train.swapped()), -routed.margins(train))


def test_the_gate_sees_the_prompt_only(fitted, train):
    other = map_views(train, lambda name, m: m if name.startswith("prompt:") else m[::-1] * 3)
    np.testing.assert_array_equal(fitted.gates(other.responses), fitted.gates(train.responses))


def test_pairs_across_prompts_need_calibrated_adapters(train):
    crossed = train.pairs.copy()
    crossed[0, 1] = train.pairs[3, 1]
    crossed = with_pairs(train, pairs=crossed)
    with pytest.raises(InvalidInputError, match="1 of 240 pairs compare responses to different prompts"):
        model(calibrate=False).fit(crossed)
    assert np.isfinite(model(max_epochs=2).fit(crossed).margins(crossed)).all()


def test_scale_and_offset_by_hand(fitted, train):
    margins, tests = [], []
    held = held_out(fitted, train)
    for expert, domain in zip(fitted.experts_, fitted.domains_):
        own = train.in_domain(domain)
        tests.append(own[np.isin(own.groups, held)])
        margins.append(expert.margins(tests[-1]))
    pooled = fit_margin_scale(np.concatenate(margins), 1.0, None, sum(len(t) for t in tests))
    assert fitted.pooled_scale_ == pytest.approx(pooled, rel=1e-6)
    for k, (m, t, domain) in enumerate(zip(margins, tests, fitted.domains_)):
        n = len(np.unique(t.groups))
        assert n == fitted.n_held_out_[k] == 8
        own = fit_margin_scale(m, 1.0, None, n)
        expected = (own**n * pooled**PRIOR_GROUPS) ** (1 / (n + PRIOR_GROUPS))
        assert fitted.scale_[k] == pytest.approx(expected, rel=1e-6)
        rewards = fitted.experts_[k].predict(train)[train.in_domain(domain).active]
        assert fitted.offset_[k] == pytest.approx(rewards.mean(), rel=1e-5)


def test_the_router_is_calibrated_on_held_out_prompts(fitted, train):
    responses, router = train.responses, fitted.router_
    rows = np.isin(responses.group, held_out(fitted, train))
    scores = router.scores(router.inputs(responses.views["prompt:final"]))
    codes = np.searchsorted(fitted.domains_, responses.domain)
    temperature = fit_softmax_temperature(scores[rows], codes[rows])
    assert fitted.router_temperature_ == pytest.approx(temperature, rel=1e-6)
    expected = softmax(scores / temperature, axis=1)
    np.testing.assert_allclose(fitted.with_routing("soft").gates(responses), expected, rtol=1e-6)
    assert model(calibrate=False, max_epochs=2).fit(train).router_temperature_ == 1.0


def held_out(fitted, prefs):
    """Held-out groups, drawn again: a tenth of each domain's, by its sorted names and the seed."""
    out = []
    for domain in prefs.domains:
        names = np.unique(prefs.in_domain(domain).groups)
        order = np.random.default_rng(fitted.random_state).permutation(len(names))
        out.append(names[order[: max(1, round(0.1 * len(names)))]])
    return np.concatenate(out)


def test_a_saved_model_gives_the_same_bits(fitted, train, tmp_path):
    loaded, _ = load_model(save_model(fitted, tmp_path / "model"))
    for routing in ("soft", "hard"):
        np.testing.assert_array_equal(
            loaded.with_routing(routing).predict(train), fitted.with_routing(routing).predict(train)
        )
    np.testing.assert_array_equal(loaded.merged("code").predict(train), fitted.merged("code").predict(train))
    assert loaded.parameter_counts() == fitted.parameter_counts()


def test_parameters_by_hand(fitted):
    counts = fitted.parameter_counts()
    trunk = 6 * 12 + 12 + 12 * 8 + 8 + 8 + 1
    adapter = 3 * (6 + 12) + 12 + 3 * (12 + 8) + 8 + 8
    # the smaller side of the first matrix is 6
    router = 6 * (6 + 12) + 12 + 6 * (12 + 8) + 8 + 8 * 3 + 3
    assert counts == {"trunk": trunk, "adapters": 3 * adapter, "router": router, "total": trunk + 3 * adapter + router}
    assert fitted.adapter_sizes() == {
        domain: {"parameters": adapter, "bytes": 4 * adapter} for domain in fitted.domains_
    }


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({"layers": (1,)}, {"A1", "B1", "bias0", "bias1", "head"}),
        ({"layers": (), "adapt_biases": False}, {"head"}),
        ({"last": "adapted", "adapt_biases": False}, {"A0", "B0", "A1", "B1", "A2", "B2"}),
        ({"last": "shared", "layers": (0,), "adapt_biases": False}, {"A0", "B0"}),
    ],
)
def test_what_is_adapted_is_a_choice(train, parameters, names):
    routed = model(**parameters, max_epochs=3).fit(train)
    assert all(set(adapter) == names for adapter in routed.adapters_)
    assert np.isfinite(routed.margins(train)).all()
    assert routed.scaling_ == 1.0
    assert model(alpha=6.0, **parameters, max_epochs=1).fit(train).scaling_ == 2.0


class TestAddingADomain:
    def test_others_keep_every_bit_and_the_new_one_is_as_if_fitted(self, train):
        base = model().fit(train[train.domain != "maths"])
        before = base.predict(train.responses)
        more = base.add_domain(train)
        assert more.domains_ == ["code", "maths", "verse"]
        assert base.domains_ == ["code", "verse"]
        np.testing.assert_array_equal(base.predict(train.responses), before)
        old = [0, 2]
        np.testing.assert_array_equal(
            more.expert_rewards(train.responses)[:, old], base.expert_rewards(train.responses)
        )
        for domain in base.domains_:
            own = train.in_domain(domain)
            np.testing.assert_array_equal(
                more.with_routing("oracle").margins(own), base.with_routing("oracle").margins(own)
            )
        assert more.trunk_ is base.trunk_
        test = planted(seed=1)
        assert more.with_routing("oracle").score(test.in_domain("maths")) > 0.8
        assert more.score(test) > 0.8
        assert more.router_.classes_.tolist() == more.domains_

    def test_it_says_what_it_needs(self, train):
        base = model(max_epochs=2).fit(train[train.domain != "maths"])
        with pytest.raises(InvalidInputError, match="needs pairs of a domain without an adapter, got only code, verse"):
            base.add_domain(train[train.domain != "maths"])
        with pytest.raises(
            InvalidInputError, match="needs prompts of every domain, got none of code, verse; pass the pairs"
        ):
            base.add_domain(train.in_domain("maths"))
        with pytest.raises(NotFittedError):
            model().add_domain(train)


def test_pairs_that_are_held_out_teach_nothing_but_scales(train):
    trunk = MLPHead(hidden=(12, 8), max_epochs=3, early_stopping=False)
    options = {"trunk": trunk, "early_stopping": False, "max_epochs": 3, "routing": "oracle"}
    held = np.isin(train.groups, held_out_groups(train, 0.1, 0))
    assert 0 < held.mean() < 0.2
    turned = with_pairs(train, pairs=np.where(held[:, None], train.pairs[:, ::-1], train.pairs))
    one, other = (model(**options).fit(prefs) for prefs in (train, turned))
    for a, b in zip(one.trunk_.weights_, other.trunk_.weights_):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(one.adapters_, other.adapters_):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert (one.scale_ > other.scale_).all()


class TestDroppingADomain:
    def test_others_keep_every_bit_and_nothing_of_it_is_left(self, train, fitted):
        less = fitted.drop_domain("maths", train)
        assert less.domains_ == less.router_.classes_.tolist() == ["code", "verse"]
        np.testing.assert_array_equal(
            less.expert_rewards(train.responses), fitted.expert_rewards(train.responses)[:, [0, 2]]
        )
        for name in ("epochs_", "n_held_out_", "scale_", "offset_"):
            np.testing.assert_array_equal(getattr(less, name), getattr(fitted, name)[[0, 2]])
        rest = train[train.domain != "maths"]
        assert less.gates(train.responses).shape == (train.responses.n_prompts, 2)
        assert less.score(rest) > 0.8
        assert fitted.domains_ == ["code", "maths", "verse"]

    def test_another_router_is_refused_weights_that_it_would_not_get(self, train, fitted):
        other = fitted.with_router(LogisticRouter(l2=0.1), train)
        assert isinstance(other.router_, LogisticRouter)
        with pytest.raises(InvalidInputError, match="AdapterRewardModel has no prompt_weight"):
            fitted.with_router(LogisticRouter(l2=0.1), train, prompt_weight="pairs")

    def test_a_router_of_its_own_is_fitted_anew_too(self, train):
        base = model(router=LogisticRouter(l2=0.1), max_epochs=2).fit(train)
        assert base.drop_domain("code", train).router_.classes_.tolist() == ["maths", "verse"]
        with pytest.raises(InvalidInputError, match="unknown domain with an expert 'cod'"):
            base.drop_domain("cod", train)


class TestSmallDomains:
    def test_a_domain_of_one_group_is_the_trunk_with_the_pooled_scale(self, train):
        few = train[(train.domain != "maths") | (train.groups == train.in_domain("maths").groups[0])]
        routed = model(max_epochs=3).fit(few)
        k = routed.domains_.index("maths")
        assert routed.epochs_[k] == routed.n_held_out_[k] == 0
        assert routed.scale_[k] == pytest.approx(routed.pooled_scale_)
        np.testing.assert_allclose(routed.experts_[k].predict(few), routed.trunk_.predict(few), rtol=1e-5, atol=1e-6)

    def test_an_unseen_domain_stops_the_oracle_and_nothing_else(self, train):
        routed = model(max_epochs=3).fit(train[train.domain != "maths"])
        assert np.isfinite(routed.predict(train)).all()
        with pytest.raises(InvalidInputError, match="none was fitted for maths"):
            routed.with_routing("oracle").predict(train)

    def test_groups_alone_in_their_domains_leave_nothing_to_hold_out(self, train):
        alone = train[:3]
        with pytest.raises(
            InvalidInputError, match=r"each of these 3 domain\(s\) has one group only; give more prompts"
        ):
            model().fit(alone)
        trunk = MLPHead(hidden=(4,), early_stopping=False, max_epochs=2)
        routed = model(trunk=trunk, early_stopping=False, calibrate=False, max_epochs=2).fit(alone)
        assert np.isfinite(routed.margins(alone)).all()


class ShyRouter(LogisticRouter):
    """Rejects prompts that lie far out on the first axis."""

    can_reject = True

    def accept(self, X):
        return np.asarray(X)[:, 0] < 3.0


class TestFallback:
    def test_the_trunk_answers_for_rejected_prompts(self, train):
        routed = model(router=ShyRouter(l2=1e-2), max_epochs=3).fit(train)
        left = train.responses.views["prompt:final"][train.responses.prompt_of, 0] >= 3.0
        assert 0.1 < left.mean() < 0.9
        rewards, trunk = routed.predict(train), routed.trunk_.predict(train)
        expected = (trunk - trunk.mean()) * routed.pooled_scale_
        np.testing.assert_allclose(rewards[left], expected[left], rtol=1e-5, atol=1e-6)
        assert np.abs(rewards[~left] - expected[~left]).max() > 1e-2
        with pytest.raises(InvalidInputError, match="ShyRouter may reject prompts, and fallback=False leaves nobody"):
            model(router=ShyRouter(), fallback=False).fit(train)

    def test_and_for_the_oracle_in_a_new_domain(self, train):
        routed = model(max_epochs=3, fallback=True, routing="oracle").fit(train[train.domain != "maths"])
        own = train.in_domain("maths")
        expected = routed.pooled_scale_ * routed.trunk_.margins(own)
        np.testing.assert_allclose(routed.margins(own), expected, rtol=1e-5, atol=1e-6)


def test_top_k_of_all_is_soft_and_of_one_is_hard(fitted, train):
    for k, routing in ((3, "soft"), (1, "hard")):
        expected = fitted.with_routing(routing).predict(train)
        np.testing.assert_allclose(fitted.with_routing("top-k", k=k).predict(train), expected, rtol=1e-5, atol=1e-6)


class TestWhatTheRouterReads:
    def data(self, prompt=None, response=None):
        train = planted(60)
        views = train.responses.views
        r, p = views["response:final"], views["prompt:final"]
        responses = {"response:3": r, "response:6": r * 2} if response is None else response(r)
        prompts = {"prompt:3": p, "prompt:6": p * 3 + 1} if prompt is None else prompt(p)
        return with_pairs(train, with_responses(train.responses, views={**responses, **prompts}))

    def test_with_products_it_uses_the_block_of_r(self):
        prefs = self.data()
        trunk = MLPHead(Featurizer(["p*r", "r"]), hidden=(10,), max_epochs=5)
        routed = model(trunk=trunk).fit(prefs)
        assert routed.router_views_ == ["prompt:3", "prompt:6"]
        # four products, then two blocks of r
        np.testing.assert_array_equal(routed.router_.trunk.weights[0], routed.trunk_.weights_[0][4 * DIM :])
        assert (
            routed.router_.score(
                prompt_vectors(prefs.responses, routed.router_views_, prefs.active_prompts), prefs.responses.domain
            )
            > 0.8
        )

    def test_a_layer_without_prompts_counts_as_zero(self):
        prefs = self.data(prompt=lambda p: {"prompt:6": p})
        routed = model(max_epochs=3).fit(prefs)
        assert routed.router_views_ == ["prompt:6"]
        np.testing.assert_array_equal(routed.router_.trunk.weights[0], routed.trunk_.weights_[0][DIM:])

    def test_prompts_are_scaled_by_their_own_moments(self):
        prefs = self.data(prompt=lambda p: {"prompt:6": p})
        routed = model(max_epochs=3).fit(prefs)
        z = routed.router_.inputs(prefs.responses.views["prompt:6"])
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-6)
        assert (z**2).mean() == pytest.approx(1.0, rel=1e-5)

    @pytest.mark.parametrize(
        ("prompt", "terms", "message"),
        [
            (
                lambda p: {"prompt:6": p[:, :4]},
                ["r"],
                "in the place of response:6 and expects 6 columns, got 4; encode the",
            ),
            (lambda p: {"prompt:9": p}, ["r"], r"of the layers it reads \(prompt:3, prompt:6\), got prompt:9; encode"),
            (lambda p: {"prompt:6": p}, ["p*r"], r"its features are p\*r; add the term r, or give a router of its own"),
        ],
    )
    def test_what_cannot_go_through_is_refused_and_a_router_of_its_own_helps(self, prompt, terms, message):
        prefs = self.data(prompt=prompt)
        trunk = MLPHead(Featurizer(terms), hidden=(6,), max_epochs=2)
        with pytest.raises(InvalidInputError, match=message):
            model(trunk=trunk, max_epochs=2).fit(prefs)
        routed = model(trunk=trunk, max_epochs=2, router=LogisticRouter(l2=1e-2)).fit(prefs)
        assert isinstance(routed.router_, LogisticRouter)
        assert np.isfinite(routed.margins(prefs)).all()
        assert routed.parameter_counts()["router"] >= 3 * prefs.responses.views[routed.router_views_[0]].shape[1]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"trunk": LinearHead()}, "needs trunk to be an MLPHead, got LinearHead"),
        ({"router": LinearHead()}, "needs router to be a Router, got LinearHead"),
        ({"rank": 0}, "needs rank to be a whole number >= 1, got 0"),
        ({"alpha": -1.0}, "needs alpha to be a number > 0"),
        ({"layers": (2,)}, "needs layers to be different numbers from 0 to 1"),
        ({"layers": (0, 0)}, "needs layers to be different numbers"),
        ({"layers": (), "last": "shared", "adapt_biases": False}, "has nothing to adapt"),
        ({"last": "mine"}, "unknown last layer .* 'mine'"),
        ({"routing": "Hard"}, "unknown routing"),
        ({"l2": -1.0}, "needs l2 to be a number >= 0"),
        ({"validation_fraction": 1.0}, r"needs validation_fraction in \(0, 1\)"),
        ({"patience": 2.5}, "needs patience to be a whole number"),
    ],
)
def test_bad_parameters_are_refused(train, parameters, message):
    with pytest.raises(InvalidInputError, match=message):
        model(**parameters).fit(train)


def test_pairs_of_weight_zero_are_not_there(train):
    weight = np.where(train.domain == "maths", 0.0, 1.0)
    routed = model(max_epochs=2).fit(with_pairs(train, weight=weight))
    assert routed.domains_ == ["code", "verse"]
    expected = model(max_epochs=2).fit(train[train.domain != "maths"])
    np.testing.assert_array_equal(routed.predict(train), expected.predict(train))
    with pytest.raises(InvalidInputError, match="pairs with positive weight, got only zeros"):
        model().fit(with_pairs(train, weight=np.zeros(240)))
