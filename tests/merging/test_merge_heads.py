"""Merging heads: linear heads, forked trunks, alignment, what is refused."""

import json

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone

from embedrm import EmbeddedPreferences, Featurizer, LengthHead, LinearHead, MergedRewardModel, MLPHead, merge_heads
from embedrm.checks import example_preferences
from embedrm.errors import InvalidInputError
from embedrm.featurizers import PCAProjection
from embedrm.merging.alignment import align
from embedrm.merging.compatibility import compare_heads, head_tensors
from embedrm.merging.fisher import fisher_moments
from embedrm.merging.scalers import fold
from embedrm.merging.trunks import train_trunk
from embedrm.persistence import load_model, save_model

PREFS, REWARD = example_preferences(25)
ALPHA, BETA = PREFS.in_domain("alpha"), PREFS.in_domain("beta")
RAW = Featurizer(scale="none")
OPTIONS = {"hidden": (12, 8), "max_epochs": 8, "early_stopping": False, "learning_rate": 1e-2}


def linear_pair(featurizer=None):
    return [LinearHead(featurizer, l2=l2).fit(p) for p, l2 in ((PREFS, 0.01), (ALPHA, 0.1))]


@pytest.fixture(scope="module")
def fork():
    """A start, a general reward model, and a domain model that has seen no preference."""
    start = MLPHead(**OPTIONS).initialise(PREFS)
    general = MLPHead(**OPTIONS).fit_from(PREFS, start)
    domain = train_trunk(start, ALPHA, PREFS.responses.gold, max_epochs=8, random_state=1)
    return start, general, domain


class TestLinear:
    """Heads whose reward is linear in the features."""

    @pytest.mark.parametrize("weights", [[0.5, 0.5], [0.85, 0.15], [1.5, -0.5], [2, 6]])
    def test_merging_weights_is_averaging_rewards(self, weights):
        heads = linear_pair(RAW)
        merged = merge_heads(heads, weights)
        share = np.array(weights) / np.sum(weights)
        mean = MergedRewardModel.of([("a", heads[0]), ("b", heads[1])], share)
        np.testing.assert_allclose(merged.predict(PREFS), mean.predict(PREFS), rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(merged.margins(PREFS), mean.margins(PREFS), rtol=1e-6, atol=1e-12)

    @pytest.mark.parametrize("scale", ["rms", "standard"])
    @pytest.mark.parametrize("terms", [("r",), ("r", "p*r")])
    def test_rescaling_is_exact_within_prompts(self, scale, terms):
        heads = linear_pair(Featurizer(terms, scale=scale, covariates=("words",)))
        with pytest.raises(InvalidInputError, match=r"standardiser .*rescale=True"):
            merge_heads(heads)
        merged = merge_heads(heads, [0.3, 0.7], rescale=True)
        expected = 0.3 * heads[0].margins(PREFS) + 0.7 * heads[1].margins(PREFS)
        np.testing.assert_allclose(merged.margins(PREFS), expected, rtol=1e-9, atol=1e-10)
        moved = fold(heads[1].coef_, heads[1].featurizer_, heads[0].featurizer_)
        back = fold(moved, heads[0].featurizer_, heads[1].featurizer_)
        np.testing.assert_allclose(back, heads[1].coef_, rtol=1e-9)

    @pytest.mark.parametrize(
        "featurizer, why",
        [
            (Featurizer(project=PCAProjection(n_components=3)), "projection"),
            (Featurizer(residualise=("words",)), "residual"),
            (Featurizer(("r", "abs(p-r)")), "abs.p-r. is not linear"),
            (Featurizer(("p*r",)), "adds a term r"),
        ],
    )
    def test_what_cannot_be_rescaled_is_refused(self, featurizer, why):
        with pytest.raises(InvalidInputError, match=why):
            merge_heads(linear_pair(featurizer), rescale=True)

    def test_lambda_zero_is_the_general_model_bit_for_bit(self):
        heads = linear_pair()
        for options in ({}, {"method": "slerp"}, {"method": "task_arithmetic", "base": "zero"}):
            merged = merge_heads(heads, [1.0, 0.0], rescale=True, **options)
            np.testing.assert_array_equal(merged.coef_, heads[0].coef_)
            np.testing.assert_array_equal(merged.predict(PREFS), heads[0].predict(PREFS))

    def test_a_model_with_itself(self):
        head = linear_pair()[0]
        moments = fisher_moments(head, PREFS)
        for method, options in (
            ("linear", {}),
            ("slerp", {}),
            ("model_soup", {}),
            ("fisher", {"moments": [moments] * 3}),
        ):
            merged = merge_heads([head] * 3, None, method, **options)
            np.testing.assert_array_equal(merged.coef_, head.coef_)

    def test_scales_are_compared_where_they_are_measured(self):
        one, other = linear_pair(RAW)
        loud = clone(other).fit(ALPHA)
        loud.coef_ = 7 * loud.coef_
        with pytest.raises(InvalidInputError, match=r"reward scale .*equalise=True"):
            merge_heads([one, loud], calibration=PREFS)
        even = merge_heads([one, loud], calibration=PREFS, equalise=True)
        spread = [m.predict(PREFS)[PREFS.active].std() for m in (one, loud)]
        expected = 0.5 * one.predict(PREFS) + 0.5 * loud.predict(PREFS) * spread[0] / spread[1]
        np.testing.assert_allclose(even.predict(PREFS), expected, rtol=1e-9)
        same = merge_heads([one, loud], [1, 0], calibration=PREFS, equalise=True)
        np.testing.assert_array_equal(same.coef_, one.coef_)
        merge_heads([one, loud])  # not compared where nothing measures it

    def test_deltas_from_a_head_and_from_zero(self):
        base, heads = LinearHead(RAW, l2=1.0).fit(BETA), linear_pair(RAW)
        merged = merge_heads(heads, [1, 0.5], "task_arithmetic", base=base)
        expected = base.coef_ + (heads[0].coef_ - base.coef_) + 0.5 * (heads[1].coef_ - base.coef_)
        np.testing.assert_allclose(merged.coef_, expected)
        zero = merge_heads(heads, [1, 0.5], "task_arithmetic", base="zero")
        np.testing.assert_allclose(zero.coef_, heads[0].coef_ + 0.5 * heads[1].coef_)
        rescaled = linear_pair()
        away = LinearHead(l2=1.0).fit(BETA)
        merged = merge_heads(rescaled, [1, 0.5], "task_arithmetic", base=away, rescale=True)
        margins = [m.margins(PREFS) for m in (*rescaled, away)]
        np.testing.assert_allclose(merged.margins(PREFS), margins[0] + 0.5 * (margins[1] - margins[2]), atol=1e-9)

    def test_the_merged_head_says_what_it_is_and_is_saved(self, tmp_path):
        heads = linear_pair(RAW)
        merged = merge_heads(heads, [3, 1], "ties", base="zero", density=0.5, names=["general", "maths"])
        assert merged.merge_["method"] == "ties"
        assert merged.merge_["weights"] == [3, 1]
        assert merged.merge_["options"]["density"] == 0.5
        assert merged.merge_["names"] == ["general", "maths"]
        assert len(set(merged.merge_["models"])) == 2
        loaded, _ = load_model(save_model(merged, tmp_path / "m"))
        np.testing.assert_array_equal(loaded.predict(PREFS), merged.predict(PREFS))
        assert loaded.merge_ == merged.merge_
        assert not hasattr(heads[0], "merge_")

    def test_fisher_moments_by_hand(self):
        x = np.array([[1.0, 0], [0, 2], [3, 3]])
        prefs = EmbeddedPreferences.from_arrays(x, [[0, 1], [2, 1]], weight=[1, 3])
        head = LinearHead(RAW).fit(prefs)
        d = x[[0, 2]] - x[[1, 1]]
        p = 1 / (1 + np.exp(-(d @ head.coef_)))
        expected = (np.array([0.25, 0.75]) * p * (1 - p)) @ d**2
        np.testing.assert_allclose(fisher_moments(head, prefs)["coef"], expected)


class TestTrunks:
    """Perceptrons forked from one start."""

    def test_forks_of_one_start(self, fork):
        start, general, domain = fork
        assert start.init_ == general.init_ == domain.init_
        assert general.featurizer_ is start.featurizer_ is domain.featurizer_
        assert not np.array_equal(domain.weights_[0], start.weights_[0])
        np.testing.assert_array_equal(domain.weights_[-1], start.weights_[-1])
        assert domain.trunk_task_ == "regression of 1 numbers"
        plain = MLPHead(**OPTIONS).fit(PREFS)
        np.testing.assert_array_equal(general.predict(PREFS), plain.predict(PREFS))
        assert plain.init_ == start.init_
        assert MLPHead(**OPTIONS, random_state=1).initialise(PREFS).init_ != start.init_
        # going on from a trained head begins where it ended
        again = MLPHead(**OPTIONS).fit_from(PREFS, general)
        assert again.init_ != general.init_
        assert again.train_losses_[0] < general.train_losses_[0]

    def test_equal_scales_take_the_whole_last_layer(self, fork):
        _, general, _ = fork
        loud = self.copied(general)
        loud.weights_[-1], loud.biases_[-1] = 4 * general.weights_[-1], 4 * (general.biases_[-1] + 1)
        with pytest.raises(InvalidInputError, match=r"reward scale .*equalise=True"):
            merge_heads([general, loud], calibration=PREFS)
        even = merge_heads([general, loud], calibration=PREFS, equalise=True)
        # four times the reward and 4, on a quarter of its scale: the reward and 1, half of which counts
        np.testing.assert_allclose(even.predict(PREFS), general.predict(PREFS) + 0.5, atol=1e-5)

    @staticmethod
    def copied(head):
        out = clone(head)
        out.featurizer_, out.n_features_in_, out.init_ = head.featurizer_, head.n_features_in_, head.init_
        out.weights_, out.biases_ = [w.copy() for w in head.weights_], [b.copy() for b in head.biases_]
        return out

    def test_dogerm_keeps_the_reward_layer(self, fork):
        _, general, domain = fork
        merged = merge_heads([general, domain], [0.7, 0.3], layers="trunk")
        np.testing.assert_array_equal(merged.weights_[-1], general.weights_[-1])
        for layer in range(2):
            expected = 0.7 * general.weights_[layer].astype(float) + 0.3 * domain.weights_[layer]
            np.testing.assert_allclose(merged.weights_[layer], expected, rtol=1e-6, atol=1e-9)
            assert merged.weights_[layer].dtype == np.float32
        mean = 0.7 * general.predict(PREFS) + 0.3 * domain.predict(PREFS)
        assert not np.allclose(merged.predict(PREFS), mean, rtol=1e-3)

    @pytest.mark.parametrize("layers", ["trunk", "all"])
    def test_lambda_zero_is_the_general_model_bit_for_bit(self, fork, layers):
        start, general, domain = fork
        other = domain if layers == "trunk" else MLPHead(**OPTIONS).fit_from(BETA, start)
        for options in (
            {},
            {"method": "slerp"},
            {"method": "ties", "base": start, "density": 1.0},
            {"method": "dare_linear", "base": start, "density": 1.0},
        ):
            merged = merge_heads([general, other], [1, 0], layers=layers, **options)
            np.testing.assert_array_equal(merged.predict(PREFS), general.predict(PREFS))
        for k in (2, 5):
            copies = merge_heads([general] * k, layers=layers)
            np.testing.assert_array_equal(copies.predict(PREFS), general.predict(PREFS))

    def test_lambda_one_is_the_domain_trunk_under_the_general_reward_layer(self, fork):
        _, general, domain = fork
        merged = merge_heads([general, domain], [0, 1], layers="trunk")
        np.testing.assert_array_equal(merged.weights_[0], domain.weights_[0])
        np.testing.assert_array_equal(merged.biases_[-1], general.biases_[-1])

    @pytest.mark.parametrize(
        "target, says", [("denoise", "denoising"), (np.array(["a", "b", "c"]), "classification of 3 classes")]
    )
    def test_tasks_without_preferences_are_learnt(self, target, says):
        start = MLPHead(**OPTIONS).initialise(PREFS)
        if not isinstance(target, str):
            target = target[np.argmax(PREFS.responses.view("response:final")[:, :3], axis=1)]
        model = train_trunk(start, PREFS, target, max_epochs=60, patience=60, learning_rate=3e-3)
        assert model.trunk_task_ == says
        assert model.validation_losses_.min() < 0.75 * model.validation_losses_[0]
        again = train_trunk(start, PREFS, target, max_epochs=60, patience=60, learning_rate=3e-3)
        np.testing.assert_array_equal(model.weights_[0], again.weights_[0])

    def test_the_task_s_gradient_is_its_finite_difference(self):
        from embedrm.featurizers.rows import FeatureRows
        from embedrm.heads._network import Network
        from embedrm.merging.trunks import _step, _Task, _value

        start = MLPHead(**OPTIONS).initialise(PREFS)
        rows = FeatureRows(start.featurizer_, PREFS.responses, PREFS.active)
        goal = np.random.default_rng(0).normal(size=(len(rows), 2))
        task, part = _Task("", rows, goal, 2, None), np.arange(20)
        network = Network.new((rows.dim, 5, 4, 2), [np.random.default_rng(1)])
        rng = np.random.default_rng(2)
        _, gradient = _step(network, task, part, rng)
        for array, slope in zip(network.parameters(), gradient.parameters()):
            at = (0,) * array.ndim
            old = array[at]
            array[at] = old + 1e-2
            up = _value(network, task, part, rng)
            array[at] = old - 1e-2
            down = _value(network, task, part, rng)
            array[at] = old
            assert slope[at] == pytest.approx((up - down) / 2e-2, rel=2e-2, abs=2e-4)

    def test_inactive_responses_teach_the_trunk_nothing(self):
        start = MLPHead(**OPTIONS).initialise(PREFS)
        idle = np.setdiff1d(np.arange(PREFS.responses.n_responses), PREFS.active)
        gold = PREFS.responses.gold.copy()
        one = train_trunk(start, PREFS, gold, max_epochs=2)
        gold[idle] = np.nan
        np.testing.assert_array_equal(one.weights_[0], train_trunk(start, PREFS, gold, max_epochs=2).weights_[0])

    def test_fisher_moments_are_means_of_squared_slopes(self, fork):
        _, general, _ = fork
        few = PREFS[:6]
        moments = fisher_moments(general, few)
        assert list(moments) == list(head_tensors(general))
        margins = general.margins(few)
        v = 1 / (1 + np.exp(-margins)) / (1 + np.exp(margins))
        for layer, at in ((0, (2, 3)), (1, (5, 1)), (2, (4, 0))):
            probe = clone(general)
            probe.featurizer_ = general.featurizer_
            probe.biases_ = general.biases_
            slopes = []
            for step in (1e-2, -1e-2):
                probe.weights_ = [w.copy() for w in general.weights_]
                probe.weights_[layer][at] += step
                slopes.append(probe.margins(few))
            slope = (slopes[0] - slopes[1]) / 2e-2
            name = "reward.weight" if layer == 2 else f"hidden.{layer}.weight"
            assert moments[name][at] == pytest.approx((v * slope**2).mean(), rel=0.05, abs=1e-7)
        other = merge_heads([general] * 2, None, "fisher", moments=[moments, fisher_moments(general, PREFS)])
        np.testing.assert_array_equal(other.predict(PREFS), general.predict(PREFS))


class TestAlignment:
    """Weight matching of heads that began apart."""

    def shuffled(self, head, seed=0):
        """The same function under other names of its hidden units."""
        rng = np.random.default_rng(seed)
        out = clone(head)
        out.featurizer_, out.n_features_in_, out.init_ = head.featurizer_, head.n_features_in_, f"shuffled {seed}"
        out.weights_, out.biases_ = [w.copy() for w in head.weights_], [b.copy() for b in head.biases_]
        for layer in range(len(out.biases_) - 1):
            order = rng.permutation(len(out.biases_[layer]))
            out.weights_[layer], out.biases_[layer] = out.weights_[layer][:, order], out.biases_[layer][order]
            out.weights_[layer + 1] = out.weights_[layer + 1][order]
        return out

    def test_a_shuffled_head_is_found_again(self, fork):
        _, general, _ = fork
        other = self.shuffled(general)
        np.testing.assert_allclose(other.predict(PREFS), general.predict(PREFS), rtol=1e-4, atol=1e-5)
        aligned, _ = align(head_tensors(general), head_tensors(other))
        for name, array in head_tensors(general).items():
            np.testing.assert_array_equal(aligned[name], array)
        merged = merge_heads([general, other], align=True)
        np.testing.assert_array_equal(merged.predict(PREFS), general.predict(PREFS))

    def test_alignment_keeps_the_function_and_never_loses_agreement(self):
        start = MLPHead(**OPTIONS).initialise(PREFS)
        one = MLPHead(**OPTIONS).fit_from(PREFS, start)
        drawn = MLPHead(**OPTIONS, random_state=5).initialise(PREFS)
        drawn.featurizer_ = start.featurizer_
        other = MLPHead(**OPTIONS, random_state=5).fit_from(PREFS, drawn)
        a, b = head_tensors(one), head_tensors(other)
        aligned, order = align(a, b)
        assert [sorted(o.tolist()) for o in order] == [list(range(12)), list(range(8))]
        agreement = [sum(float((a[k] * x[k]).sum()) for k in a) for x in (b, aligned)]
        assert agreement[1] > agreement[0] + 0.1
        merged = merge_heads([one, other], [0, 1], align=True)
        np.testing.assert_allclose(merged.predict(PREFS), other.predict(PREFS), rtol=1e-4, atol=1e-5)
        with pytest.raises(InvalidInputError, match=r"initialisation .*fit_from.*align=True"):
            merge_heads([one, other])

    def test_every_model_is_matched_to_the_first(self, fork):
        _, general, _ = fork
        merged = merge_heads([general, self.shuffled(general), self.shuffled(general, 1)], align=True)
        np.testing.assert_array_equal(merged.predict(PREFS), general.predict(PREFS))

    @pytest.mark.parametrize("with_reward", [True, False])
    def test_no_layer_can_be_matched_better_given_the_others(self, with_reward):
        rng = np.random.default_rng(0)
        sizes = (6, 9, 8, 7, 1)
        a, b = {}, {}
        for layer in range(4):
            name = f"hidden.{layer}" if layer < 3 else "reward"
            if layer == 3 and not with_reward:
                break
            for tensors in (a, b):
                tensors[f"{name}.weight"] = rng.normal(size=sizes[layer : layer + 2])
                tensors[f"{name}.bias"] = rng.normal(size=sizes[layer + 1])
        met, _ = align(a, b)
        for layer in range(3):
            gain = a[f"hidden.{layer}.weight"].T @ met[f"hidden.{layer}.weight"]
            gain += np.outer(a[f"hidden.{layer}.bias"], met[f"hidden.{layer}.bias"])
            following = f"hidden.{layer + 1}.weight" if layer < 2 else "reward.weight"
            if following in a:
                gain += a[following] @ met[following].T
            rows, columns = linear_sum_assignment(gain, maximize=True)
            assert np.trace(gain) == pytest.approx(gain[rows, columns].sum())

    def test_refusals(self, fork):
        start, general, _ = fork
        with pytest.raises(InvalidInputError, match=r"these began alike: leave it out"):
            merge_heads([general, general], align=True)
        with pytest.raises(InvalidInputError, match=r"no common base"):
            merge_heads([general, self.shuffled(general)], None, "ties", base=start, align=True)
        with pytest.raises(InvalidInputError, match=r"no hidden units"):
            merge_heads(linear_pair(RAW), align=True)


class TestCompatibility:
    """The report, and the one error made of it."""

    def test_facts_and_differences(self, fork):
        heads = linear_pair()
        report = compare_heads(heads, ["general", "maths"], calibration=PREFS)
        assert json.loads(json.dumps(report.as_dict())) == report.as_dict()
        assert next(d.what for d in report.fatal) == "standardiser"
        assert not report.compatible
        assert report.facts[0]["tensors"] == {"coef": [6]}
        assert report.facts[1]["reward_scale"] == pytest.approx(heads[1].predict(PREFS)[PREFS.active].std())
        assert compare_heads([heads[0]] * 2).differences == []
        hinge = LinearHead(RAW, objective="hinge").fit(PREFS)
        report = compare_heads([LinearHead(RAW).fit(PREFS), hinge])
        assert [(d.what, d.fatal) for d in report.differences] == [("objective", False)]

    def test_every_fatal_difference_is_told_at_once(self, fork):
        general = fork[1]
        other = MLPHead(**OPTIONS, random_state=3).fit(ALPHA)
        with pytest.raises(InvalidInputError, match=r"standardiser .*; and in initialisation "):
            merge_heads([general, other])

    @pytest.mark.parametrize(
        "make, options, message",
        [
            (lambda: [], {}, "at least one model, got an empty list"),
            (lambda: [LengthHead().fit(PREFS)] * 2, {}, "got LengthHead for model 1; merge the rewards"),
            (
                lambda: [*linear_pair(RAW)[:1], MLPHead(**OPTIONS).fit(PREFS)],
                {},
                "kind .model 1: LinearHead; model 2: MLPHead",
            ),
            (lambda: linear_pair(RAW), {"weights": [1]}, "needs 2 weights"),
            (lambda: linear_pair(RAW), {"weights": [1, np.nan]}, "finite weights, got NaN"),
            (lambda: linear_pair(RAW), {"method": "ties"}, "needs base"),
            (lambda: linear_pair(RAW), {"method": "ties", "base": "start"}, "base='zero' for linear heads"),
            (lambda: linear_pair(RAW), {"method": "ties", "base": 3}, "fitted head or 'zero', got int"),
            (lambda: linear_pair(RAW), {"layers": "trunk"}, "a linear head has no trunk"),
            (lambda: linear_pair(RAW), {"layers": "top"}, "unknown layers"),
            (lambda: linear_pair(RAW), {"equalise": True}, "needs calibration"),
            (lambda: linear_pair(RAW), {"names": ["a"]}, "one name for each of 2"),
            (lambda: linear_pair(RAW), {"lamda": 0.5}, "unknown option of the merge method"),
            (
                lambda: linear_pair(),
                {"method": "fisher", "rescale": True, "moments": [{}, {}]},
                "standardised otherwise: they are in other units",
            ),
        ],
    )
    def test_refusals(self, make, options, message):
        with pytest.raises(InvalidInputError, match=message):
            merge_heads(make(), **options)

    def test_widths_views_terms_and_layers(self, fork):
        _, general, _ = fork
        wide = EmbeddedPreferences.from_arrays(
            np.random.default_rng(0).normal(size=(40, 9)), np.arange(40).reshape(20, 2)
        )
        one = LinearHead(RAW).fit(PREFS)
        with pytest.raises(InvalidInputError, match=r"width of the views .*final 6; .*final 9"):
            merge_heads([one, LinearHead(RAW).fit(wide)])
        with pytest.raises(InvalidInputError, match=r"terms .model 1: r; model 2: r, p.r."):
            merge_heads([one, LinearHead(Featurizer(("r", "p*r"), scale="none")).fit(PREFS)])
        small = MLPHead(**OPTIONS | {"hidden": (4,)}).fit(PREFS)
        with pytest.raises(InvalidInputError, match=r"names or shapes of the tensors"):
            merge_heads([general, small])

    def test_a_base_of_another_fork_is_refused(self, fork):
        _, general, _ = fork
        stranger = MLPHead(**OPTIONS, random_state=9).initialise(PREFS)
        with pytest.raises(InvalidInputError, match=r"base .*give the start that fit_from was given"):
            merge_heads([general, general], None, "ties", base=stranger)

    def test_an_untrained_reward_layer_is_not_used(self, fork):
        _, general, domain = fork
        with pytest.raises(
            InvalidInputError, match=r"reward layer of model 2 was trained on no pairs; use layers='trunk'"
        ):
            merge_heads([general, domain])
        with pytest.raises(InvalidInputError, match=r"name a reward model first"):
            merge_heads([domain, general], layers="trunk")

    def test_a_damaged_model_is_refused(self):
        one, other = linear_pair(RAW)
        other.coef_[2] = np.nan
        with pytest.raises(InvalidInputError, match=r"NaN or infinity in 1 of 6 numbers of 'coef' in maths"):
            merge_heads([one, other], names=["general", "maths"])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"start": LinearHead()}, "start to be an MLPHead"),
        ({"x": np.eye(3)}, "EmbeddedPreferences or EmbeddedResponses"),
        ({"target": "invent"}, "'denoise', got 'invent'"),
        ({"target": np.zeros(3)}, "a row for each response"),
        ({"target": np.full(len(PREFS.responses), "one")}, "at least two classes"),
        ({"target": np.full(len(PREFS.responses), np.nan)}, "finite targets"),
        ({"noise": -1}, "noise"),
        ({"max_epochs": 0}, "max_epochs"),
    ],
)
def test_what_train_trunk_refuses(options, message):
    given = {"start": MLPHead(**OPTIONS).initialise(PREFS), "x": PREFS, "target": "denoise"} | options
    with pytest.raises(InvalidInputError, match=message):
        train_trunk(**given)


def test_what_fit_from_refuses(fork):
    start, _, _ = fork
    with pytest.raises(InvalidInputError, match=r"start to be an MLPHead, got LinearHead"):
        MLPHead(**OPTIONS).fit_from(PREFS, LinearHead().fit(PREFS))
    with pytest.raises(InvalidInputError, match=r"hidden layers of \(5,\), got \(12, 8\)"):
        MLPHead(**OPTIONS | {"hidden": (5,)}).fit_from(PREFS, start)


class TestFittedAgain:
    """What is told of a merged head is gone once it is fitted anew."""

    def test_a_linear_head(self):
        merged = merge_heads(linear_pair(RAW))
        assert merged.merge_["method"] == "linear"
        again = merged.fit(PREFS)
        assert not hasattr(again, "merge_")
        np.testing.assert_array_equal(again.coef_, linear_pair(RAW)[0].coef_)

    def test_a_perceptron_and_a_trunk(self, fork):
        start, general, domain = fork
        merged = merge_heads([general, domain], [0.7, 0.3], layers="trunk")
        assert not hasattr(merged.fit_from(PREFS, start), "merge_")
        trunk = clone(domain).initialise(PREFS)
        trunk.trunk_task_, trunk.merge_ = domain.trunk_task_, {}
        assert not {"trunk_task_", "merge_"} & set(vars(trunk.fit(PREFS)))
