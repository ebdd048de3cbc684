"""Simulated annotators: the stated probabilities, the flips they draw, and what they refuse."""

import numpy as np
import pytest

from embedrm import annotate
from embedrm.datasets import PreferenceDataset
from embedrm.errors import InvalidInputError
from embedrm.evaluation import accuracy_facts, ceiling_facts
from embedrm.numerics.annotation import KEY, Annotator
from embedrm.preferences import EmbeddedPreferences
from embedrm.reporting.accuracy import NOISE_CEILING, accuracy_table

CLEAN = {KEY: {"flip_rate": 0.0, "beta": None}}


def graph(n_prompts=400, k=4, seed=0):
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 4, size=(n_prompts, k)).astype(float)
    domain = np.where(np.arange(n_prompts) % 2, "odd", "even")
    return EmbeddedPreferences.from_arrays(rng.normal(size=(n_prompts, k, 3)), rewards=gold, domain=domain)


def test_agreement_by_hand():
    assert Annotator(flip_rate=0.1).agreement([1, 7, -2]) == pytest.approx([0.9, 0.9, 0.9])
    # sigmoid(log 3) = 3/4, whichever response is first
    assert Annotator(beta=np.log(3)).agreement([1.0, -1.0, 0.0]) == pytest.approx([0.75, 0.75, 0.5])
    assert Annotator(flip_rate=0.2, beta=np.log(3)).agreement(1.0) == pytest.approx(0.8 * 0.75 + 0.2 * 0.25)


@pytest.mark.parametrize("annotator", [Annotator(flip_rate=0.3), Annotator(beta=0.7), Annotator(0.1, 1.5)])
def test_flips_come_at_the_stated_rate_for_each_difference(annotator):
    pairs = graph(4000)
    noisy = annotate(pairs, annotator, random_state=3)
    flipped = (noisy.pairs != pairs.pairs).any(axis=1)
    assert noisy.responses.info[KEY]["flipped"] == flipped.sum()
    assert (np.sort(noisy.pairs, axis=1) == np.sort(pairs.pairs, axis=1)).all()
    delta = pairs.responses.gold[pairs.pairs[:, 0]] - pairs.responses.gold[pairs.pairs[:, 1]]
    for step in (1.0, 2.0, 3.0):
        here = delta == step
        wanted = 1 - annotator.agreement(step)
        assert flipped[here].mean() == pytest.approx(wanted, abs=4 * np.sqrt(wanted / here.sum()))


def test_the_same_seed_gives_the_same_errors():
    pairs = graph()
    one, same, other = (annotate(pairs, Annotator(0.3), random_state=s) for s in (1, 1, 2))
    assert (one.pairs == same.pairs).all()
    assert (one.pairs != other.pairs).any()


def test_the_ceiling_is_what_the_true_order_scores():
    pairs = graph(3000)
    pairs.responses.info.update(CLEAN)
    assert ceiling_facts(pairs) == {"domains": {"even": 1.0, "odd": 1.0}, "micro": 1.0, "macro": 1.0}
    noisy = annotate(pairs, Annotator(0.1, 0.8))
    gold = noisy.responses.gold
    facts = accuracy_facts({"gold": gold[noisy.pairs[:, 0]] - gold[noisy.pairs[:, 1]]}, noisy, n_resamples=200)
    (row,) = facts["rows"]
    for cell, ceiling in (
        (row["micro"], facts["ceiling"]["micro"]),
        *((row["domains"][d], facts["ceiling"]["domains"][d]) for d in ("even", "odd")),
    ):
        assert cell["low"] < ceiling < cell["high"]
        assert 0.7 < ceiling < 0.9


def test_a_subset_has_its_own_ceiling():
    noisy = annotate(graph(), Annotator(beta=1.0))
    gold = noisy.responses.gold
    close = np.abs(gold[noisy.pairs[:, 0]] - gold[noisy.pairs[:, 1]]) == 1
    assert ceiling_facts(noisy[close])["micro"] == pytest.approx(1 / (1 + np.exp(-1)))
    assert ceiling_facts(noisy[~close])["micro"] > ceiling_facts(noisy)["micro"]


def test_unknown_noise_has_no_ceiling_and_no_row():
    pairs = graph()
    facts = accuracy_facts({"m": np.ones(len(pairs))}, pairs, n_resamples=50)
    assert facts["ceiling"] is None
    assert [row["model"] for row in accuracy_table(facts).rows] == ["m"]


def test_tables_show_the_ceiling_outside_the_contest():
    noisy = annotate(graph(), Annotator(0.25))
    facts = accuracy_facts({"m": np.ones(len(noisy))}, noisy, n_resamples=50)
    model, ceiling = accuracy_table(facts).rows
    assert ceiling["model"] == NOISE_CEILING
    assert ceiling["micro"]["value"] == pytest.approx(0.75)
    assert ceiling["micro"]["low"] is None
    assert ceiling["group"] != model["group"]


def test_ties_are_left_and_margins_are_forgotten():
    pairs = EmbeddedPreferences.from_arrays(
        np.eye(4), [[0, 1], [2, 3]] * 50, outcome=[1.0, 0.5] * 50, margin=[2.0, 0.0] * 50
    )
    noisy = annotate(pairs, Annotator(0.4))
    assert (noisy.pairs[1::2] == [2, 3]).all()
    assert 0 < (noisy.pairs[::2] == [1, 0]).all(axis=1).sum() < 50
    assert np.isnan(noisy.margin).all()
    assert (noisy.outcome == pairs.outcome).all()


def test_data_sets_are_annotated_as_their_vectors_are():
    rows = [{"prompt": f"p{i}", "responses": ["a", "b", "c"], "gold": [0, 1, 3]} for i in range(60)]
    data = PreferenceDataset.from_records(rows)
    noisy = annotate(data, Annotator(0.1, 0.5), random_state=5)
    flipped = (noisy.pairs["chosen"] != data.pairs["chosen"]).to_numpy()
    stated = {"flip_rate": 0.1, "beta": 0.5, "scale": 1.0, "random_state": 5, "flipped": int(flipped.sum())}
    assert noisy.info[KEY] == stated
    assert 0 < flipped.sum() < len(flipped)
    assert (noisy.pairs["chosen"][flipped].to_numpy() == data.pairs["rejected"][flipped].to_numpy()).all()
    assert noisy.pairs["margin"].isna().all()
    assert noisy.fingerprint() != data.fingerprint()
    vectors = EmbeddedPreferences.from_arrays(
        np.zeros((180, 2)), data.pairs[["chosen", "rejected"]], prompt_of=data.responses["prompt_of"]
    )
    vectors.responses.gold = data.responses["gold"].to_numpy()
    assert (annotate(vectors, Annotator(0.1, 0.5), random_state=5).pairs[:, 0] == noisy.pairs["chosen"]).all()


@pytest.mark.parametrize(
    "wrong", [{"flip_rate": 0.5}, {"flip_rate": -0.1}, {"flip_rate": True}, {"beta": 0}, {"beta": np.inf}]
)
def test_impossible_annotators_are_refused(wrong):
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        Annotator(**wrong)


def test_what_cannot_be_annotated_is_refused():
    with pytest.raises(InvalidInputError, match="noisy already"):
        annotate(annotate(graph(), Annotator(0.1)), Annotator(0.1))
    with pytest.raises(InvalidInputError, match="got int"):
        annotate(3, Annotator(0.1))
    without_gold = EmbeddedPreferences.from_arrays(np.eye(4), [[0, 1], [2, 3]])
    with pytest.raises(InvalidInputError, match="2 of 2 pairs have none"):
        annotate(without_gold, Annotator(beta=1.0))
    assert len(annotate(without_gold, Annotator(flip_rate=0.1))) == 2
    shares = EmbeddedPreferences.from_arrays(np.eye(4), [[0, 1], [2, 3]], outcome=[0.8, 1.0])
    with pytest.raises(InvalidInputError, match="1 of 2 pairs have a vote share"):
        annotate(shares, Annotator(0.1))
