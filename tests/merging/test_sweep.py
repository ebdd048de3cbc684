"""Sweeps over lambda: curves agree with merged heads, the choice is made on validation, one pass for linear heads."""

import json

import numpy as np
import pytest

from embedrm import EmbeddedPreferences, Featurizer, LengthHead, LinearHead, MLPHead, merge_heads
from embedrm.checks import example_preferences
from embedrm.errors import InvalidInputError
from embedrm.featurizers.linear_map import LinearMap
from embedrm.merging.sweep import LAMBDAS, choose_lambda, sweep_heads, sweep_margins
from embedrm.merging.trunks import train_trunk
from embedrm.numerics.bradley_terry import log_loss

PREFS, _ = example_preferences(31)
TRAIN, VALIDATION, TEST = (PREFS[np.isin(PREFS.groups, np.unique(PREFS.groups)[k::3])] for k in range(3))
RAW = Featurizer(scale="none")
MLP = {"hidden": (8,), "max_epochs": 5, "early_stopping": False}


def linear_pair(**options):
    return LinearHead(**options).fit(TRAIN), LinearHead(**options).fit(TRAIN.in_domain("alpha"))


def check_against_merged(facts, general, domain, prefs, split, **options):
    kept = prefs[~prefs.ties]
    for i, lam in enumerate(facts["lambdas"]):
        merged = merge_heads([general, domain], [1 - lam, lam], **options)
        margins = merged.margins(kept)
        assert facts[split]["accuracy"][i] == pytest.approx(merged.score(prefs))
        assert facts[split]["log_loss"][i] == pytest.approx(log_loss(margins, kept.outcome).mean())
        assert facts[split]["margin_mean"][i] == pytest.approx(margins.mean())
        assert facts[split]["margin_sd"][i] == pytest.approx(margins.std())
        for name in prefs.domains:
            inside = merged.score(prefs.in_domain(name))
            assert facts[split]["by_domain"][name]["accuracy"][i] == pytest.approx(inside)


def test_the_grid_of_the_paper():
    assert len(LAMBDAS) == 21
    np.testing.assert_allclose(LAMBDAS, np.arange(21) / 20)


@pytest.mark.parametrize("terms", [("r",), ("r", "p*r")])
@pytest.mark.parametrize("scale", ["none", "rms"])
def test_a_linear_sweep_is_that_of_merged_heads(terms, scale):
    general, domain = linear_pair(featurizer=Featurizer(terms, scale=scale))
    facts = sweep_heads(general, domain, VALIDATION, TEST, rescale=True, quantiles=(0.0, 0.5, 1.0))
    for split, prefs in (("validation", VALIDATION), ("test", TEST)):
        check_against_merged(facts, general, domain, prefs, split, rescale=True)
    assert json.loads(json.dumps(facts)) == facts
    low, middle, high = np.array(facts["test"]["margin_quantiles"]).T
    margins = general.margins(TEST)
    np.testing.assert_allclose([low[0], middle[0], high[0]], [margins.min(), np.median(margins), margins.max()])
    assert sum(facts["test"]["n_by_domain"].values()) == facts["test"]["n_pairs"] == len(TEST)


@pytest.mark.parametrize("terms, expected", [(("r",), [(6,), (6,)]), (("r", "p*r"), [(12, 2)])])
def test_a_linear_sweep_is_two_products_with_the_vectors(monkeypatch, terms, expected):
    general, domain = linear_pair(featurizer=Featurizer(terms, scale="none"))
    passes = []
    forward = LinearMap.forward
    monkeypatch.setattr(LinearMap, "forward", lambda self, theta: passes.append(theta.shape) or forward(self, theta))
    sweep_heads(general, domain, VALIDATION, TEST)
    assert passes == expected * 2


def test_the_ends_are_the_two_models():
    general, domain = linear_pair(featurizer=RAW)
    facts = sweep_heads(general, domain, VALIDATION, lambdas=(0, 1))
    assert facts["validation"]["accuracy"] == [general.score(VALIDATION), domain.score(VALIDATION)]
    assert "test" not in facts


def test_a_sweep_of_forked_trunks():
    start = MLPHead(**MLP).initialise(TRAIN)
    general = MLPHead(**MLP).fit_from(TRAIN, start)
    domain = train_trunk(start, TRAIN.in_domain("beta"), "denoise", max_epochs=3)
    facts = sweep_heads(general, domain, VALIDATION, TEST, layers="trunk", lambdas=(0, 0.3, 1), by="log_loss")
    check_against_merged(facts, general, domain, TEST, "test", layers="trunk")
    assert facts["validation"]["accuracy"][0] == general.score(VALIDATION)
    losses = facts["validation"]["log_loss"]
    assert facts["chosen"]["lambda"] == [0, 0.3, 1][int(np.argmin(losses))]
    other = MLPHead(**MLP).fit_from(TRAIN.in_domain("beta"), start)
    for method, options in (("ties", {"density": 0.5}), ("slerp", {})):
        base = {"base": start} if method == "ties" else {}
        facts = sweep_heads(general, other, VALIDATION, lambdas=(0.2, 0.6), method=method, **base, **options)
        check_against_merged(facts, general, other, VALIDATION, "validation", method=method, **base, **options)


def columns(weights):
    """A linear head with given weights on two columns."""
    head = LinearHead(RAW).fit(EmbeddedPreferences.from_arrays(np.eye(2), [[0, 1]]))
    head.coef_ = np.array(weights, dtype=float)
    return head


def by_hand():
    """Two validation pairs of domain a, which the first column ranks rightly, and one of b, which the second does."""
    x = np.array([[1.0, -0.9], [0, 0], [1, 0], [0, 0], [-0.5, 1], [0, 0]])
    return EmbeddedPreferences.from_arrays(
        x, [[0, 1], [2, 3], [4, 5]], prompt_of=[0, 0, 1, 1, 2, 2], domain=["a", "a", "b"]
    )


def test_choice_by_hand_with_ties_to_the_smallest_lambda():
    prefs = by_hand()
    # margins at lambda: 1 - 1.9 lam, 1 - lam, -0.5 + 1.5 lam: all right between 1/3 and 10/19
    facts = sweep_heads(columns([1, 0]), columns([0, 1]), prefs)
    assert facts["chosen"] == {
        "lambda": 0.35,
        "by": "accuracy",
        "domain": None,
        "n_pairs": 3,
        "value": 1.0,
        "n_tied": 4,
    }
    assert facts["validation"]["n_by_domain"] == {"a": 2, "b": 1}
    at_one = {name: curve["accuracy"][-1] for name, curve in facts["validation"]["by_domain"].items()}
    assert at_one == {"a": 0.25, "b": 1.0}  # the second pair of a is a tie in rewards
    assert sweep_heads(columns([1, 0]), columns([0, 1]), prefs, of_domain="a")["chosen"]["lambda"] == 0.0
    chosen = sweep_heads(columns([1, 0]), columns([0, 1]), prefs, of_domain="b", by="log_loss")["chosen"]
    assert (chosen["lambda"], chosen["n_pairs"], chosen["n_tied"]) == (1.0, 1, 1)
    # the order of lambdas does not matter to the rule
    back = sweep_heads(columns([1, 0]), columns([0, 1]), prefs, lambdas=LAMBDAS[::-1])
    assert back["chosen"]["lambda"] == 0.35


def test_the_test_split_chooses_nothing():
    prefs = by_hand()
    turned = prefs.swapped()
    one, other = (sweep_heads(columns([1, 0]), columns([0, 1]), prefs, test) for test in (prefs, turned))
    assert one["chosen"] == other["chosen"]
    assert one["test"] != other["test"]


def test_pairs_labelled_ties_are_left_out_and_counted():
    prefs = by_hand()
    tied = EmbeddedPreferences(prefs.responses, prefs.pairs, outcome=[1, 0.5, 1])
    facts = sweep_heads(columns([1, 0]), columns([0, 1]), tied)
    assert (facts["validation"]["n_pairs"], facts["validation"]["n_ties"]) == (2, 1)
    assert facts["validation"]["accuracy"][0] == 0.5
    none = EmbeddedPreferences(prefs.responses, prefs.pairs, outcome=[0.5, 0.5, 0.5])
    with pytest.raises(InvalidInputError, match="at least one pair that is not a tie"):
        sweep_heads(columns([1, 0]), columns([0, 1]), none)


def test_votes_count_in_the_log_loss():
    prefs = by_hand()
    voted = EmbeddedPreferences(prefs.responses, prefs.pairs, outcome=[0.7, 1, 0.9])
    facts = sweep_heads(columns([40, 0]), columns([0, -30]), voted)
    for lam, loss in zip(facts["lambdas"], facts["validation"]["log_loss"]):
        margins = np.array([40 * (1 - lam) + 27 * lam, 40 * (1 - lam), -20 * (1 - lam) - 30 * lam])
        assert loss == pytest.approx(log_loss(margins, voted.outcome).mean(), rel=1e-6)


def test_no_log_loss_where_margins_are_no_logits():
    general, domain = linear_pair(featurizer=RAW, objective="hinge")
    facts = sweep_heads(general, domain, VALIDATION)
    assert facts["validation"]["log_loss"] is None
    with pytest.raises(InvalidInputError, match="choose by='accuracy'"):
        sweep_heads(general, domain, VALIDATION, by="log_loss")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lambdas": []}, "list of numbers in"),
        ({"lambdas": [0, 1.2]}, "list of numbers in"),
        ({"lambdas": [0, np.nan]}, "list of numbers in"),
        ({"lambdas": ["x"]}, "list of numbers in"),
        ({"lambdas": [0, 0]}, "each lambda once"),
        ({"by": "auc"}, "unknown criterion"),
        ({"of_domain": "gamme"}, "unknown domain of the validation pairs 'gamme'. Did you mean 'gamma'"),
        ({"weights": [1, 2]}, "sets the weights itself"),
        ({"layers": "trunk"}, "a linear head has no trunk"),
        ({"method": "model_soup"}, "weights that differ"),
        ({"densty": 0.3}, "unknown option"),
        ({"normalise": False}, "unknown option"),
    ],
)
def test_refusals(options, message):
    general, domain = linear_pair(featurizer=RAW)
    with pytest.raises(InvalidInputError, match=message):
        sweep_heads(general, domain, VALIDATION, **options)


def test_a_scale_that_must_be_measured_first_is_measured():
    general, domain = linear_pair(featurizer=RAW)
    domain.coef_ = 5 * domain.coef_
    options = {"calibration": TRAIN, "equalise": True}
    facts = sweep_heads(general, domain, VALIDATION, lambdas=(0.0, 0.5, 1.0), **options)
    check_against_merged(facts, general, domain, VALIDATION, "validation", **options)


def test_models_that_do_not_fit_together_are_refused():
    with pytest.raises(InvalidInputError, match=r"sweep_heads refuses .* standardiser"):
        sweep_heads(*linear_pair(), VALIDATION)
    with pytest.raises(InvalidInputError, match="LengthHead for general"):
        sweep_heads(LengthHead().fit(TRAIN), linear_pair()[0], VALIDATION)


@pytest.mark.parametrize("hidden", [(8,), (6, 4), (5, 4, 3)])
@pytest.mark.parametrize("layers", ["all", "trunk"])
def test_margins_of_perceptrons_on_the_line_between_two(hidden, layers):
    options = {**MLP, "hidden": hidden}
    start = MLPHead(**options).initialise(TRAIN)
    general = MLPHead(**options).fit_from(TRAIN, start)
    domain = MLPHead(**options).fit_from(TRAIN.in_domain("alpha"), start)
    found = sweep_margins(general, domain, {"test": TEST, "some": TEST[:5]}, layers=layers)
    np.testing.assert_array_equal(found["test"][0], general.margins(TEST))
    for i in (3, 10, 20):
        merged = merge_heads([general, domain], [1 - LAMBDAS[i], LAMBDAS[i]], layers=layers)
        for name, prefs in (("test", TEST), ("some", TEST[:5])):
            np.testing.assert_allclose(found[name][i], merged.margins(prefs), rtol=1e-4, atol=1e-5)


def test_margins_of_perceptrons_that_are_aligned_first():
    one, other = (MLPHead(**MLP, random_state=seed).fit(TRAIN) for seed in (0, 1))
    with pytest.raises(InvalidInputError, match="align=True"):
        sweep_margins(one, other, {"test": TEST})
    found = sweep_margins(one, other, {"test": TEST}, align=True)["test"]
    merged = merge_heads([one, other], [0.6, 0.4], align=True)
    np.testing.assert_allclose(found[8], merged.margins(TEST), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[-1], other.margins(TEST), rtol=1e-4, atol=1e-5)


def test_vectors_that_are_not_finite_are_told_of(monkeypatch):
    start = MLPHead(**MLP).initialise(TRAIN)
    heads = [MLPHead(**MLP).fit_from(prefs, start) for prefs in (TRAIN, TRAIN.in_domain("alpha"))]
    responses = TEST.responses
    broken = responses.view("response:final").copy()
    broken[TEST.active[0]] = np.nan
    views = {**responses.views, "response:final": broken}
    monkeypatch.setattr(responses, "views", views)
    with pytest.raises(InvalidInputError, match=f"no finite reward for 1 of {len(TEST.active)} responses"):
        sweep_margins(*heads, {"test": TEST})


def test_the_choice_among_equals():
    assert choose_lambda((0.0, 0.5, 1.0), [0.2, 0.7, 0.7 - 1e-14]) == (0.5, 0.7, 2)
    assert choose_lambda((1.0, 0.5, 0.0), [0.7, 0.7, 0.2]) == (0.5, 0.7, 2)
    assert choose_lambda((0.0, 0.5, 1.0), [0.2, 0.1, 0.3], lowest=True) == (0.5, 0.1, 1)
