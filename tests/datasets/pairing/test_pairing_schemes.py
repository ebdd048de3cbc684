"""Pairing schemes: which pairs they draw, that none crosses a split, and that fewer are the first of more."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedrm import EmbeddedPreferences, EmbeddedResponses, PreferenceDataset, annotate, draw_pairs, with_gold
from embedrm.datasets.pairing import PAIRINGS, make_scheme
from embedrm.errors import InvalidInputError
from embedrm.numerics.annotation import KEY, Annotator

SCHEMES = ["same-prompt", "similar", "diversified", "cross-prompt"]


def responses(gold, prompt_of=None, split=None, group=None, domain=None):
    gold = np.asarray(gold, dtype=float)
    if prompt_of is None:
        prompt_of = np.repeat(np.arange(gold.shape[0]), gold.shape[1])
    n = int(np.max(prompt_of)) + 1
    return EmbeddedResponses(
        {"response:final": np.zeros((gold.size, 2))},
        prompt_of,
        gold=gold.ravel(),
        split=split,
        group=group,
        domain=["d"] * n if domain is None else domain,
    )


def ragged(seed, n_prompts=30, levels=None, splits=("train", "test"), longest=6):
    """Lists of 1 to ``longest`` responses, in a shuffled order of rows, some without gold; gold tied where ``levels``."""
    rng = np.random.default_rng(seed)
    prompt_of = np.repeat(np.arange(n_prompts), rng.integers(1, longest + 1, n_prompts))
    rng.shuffle(prompt_of)
    gold = (
        rng.normal(size=len(prompt_of)) if levels is None else rng.integers(levels, size=len(prompt_of)).astype(float)
    )
    gold[rng.random(len(gold)) < 0.1] = np.nan
    group = rng.integers(n_prompts // 2, size=n_prompts)
    # a group is in one split
    split = np.asarray(splits)[group % len(splits)]
    return responses(gold, prompt_of, split, group, np.where(rng.random(n_prompts) < 0.5, "a", "b"))


def legal(r, scheme):
    """Every pair that a scheme of random pairs may draw, by its definition; a set of frozen sets."""
    out = set()
    for i in range(len(r)):
        for j in range(i):
            p, q = r.prompt_of[i], r.prompt_of[j]
            if np.isnan(r.gold[i]) or np.isnan(r.gold[j]) or r.gold[i] == r.gold[j]:
                continue
            same = p == q
            across = r.group[p] != r.group[q] and r.split[p] == r.split[q]
            if same if scheme == "same-prompt" else across:
                out.add(frozenset((i, j)))
    return out


def as_sets(prefs):
    return [frozenset(pair) for pair in prefs.pairs.tolist()]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("levels", [None, 3])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_scheme_gives_different_legal_pairs_the_better_first(scheme, levels, seed):
    r = ragged(seed, levels=levels)
    drawn = draw_pairs(r, scheme, random_state=seed)
    pairs = drawn.pairs
    assert (r.gold[pairs[:, 0]] > r.gold[pairs[:, 1]]).all()
    assert np.array_equal(drawn.margin, r.gold[pairs[:, 0]] - r.gold[pairs[:, 1]])
    assert len(set(as_sets(drawn))) == len(drawn)
    splits = r.split[r.prompt_of[pairs]]
    assert (splits[:, 0] == splits[:, 1]).all()
    assert drawn.cross_prompt.all() if scheme == "cross-prompt" else not drawn.cross_prompt.any()
    if scheme == "cross-prompt":
        groups = r.group[r.prompt_of[pairs]]
        assert (groups[:, 0] != groups[:, 1]).all()
    assert (drawn.weight == 1).all()
    assert (drawn.outcome == 1).all()


@pytest.mark.parametrize("scheme", ["same-prompt", "cross-prompt"])
@pytest.mark.parametrize("levels", [None, 3])
def test_all_legal_pairs_can_be_drawn_and_no_other(scheme, levels):
    for seed in range(4):
        r = ragged(seed, n_prompts=12, levels=levels)
        wanted = legal(r, scheme)
        assert set(as_sets(draw_pairs(r, scheme, len(wanted), random_state=seed))) == wanted
        with pytest.raises(InvalidInputError, match=rf"has {len(wanted):,} different ones"):
            draw_pairs(r, scheme, len(wanted) + 1)


def test_long_lists_give_every_pair_too():
    # 26 responses have 325 pairs, more than are shuffled whole
    rng = np.random.default_rng(0)
    for gold in (rng.normal(size=(2, 26)), rng.integers(3, size=(2, 26)), np.r_[np.zeros(25), 1.0][None]):
        r = responses(gold)
        wanted = legal(r, "same-prompt")
        assert set(as_sets(draw_pairs(r, "same-prompt", len(wanted)))) == wanted


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("longest", [6, 40])
def test_fewer_pairs_are_the_first_of_more(scheme, longest):
    r = ragged(5, n_prompts=40, longest=longest)
    n = 20 if scheme in ("similar", "diversified") else 60
    most = draw_pairs(r, scheme, n, random_state=3).pairs
    for fewer in (1, 7, n - 1):
        assert np.array_equal(draw_pairs(r, scheme, fewer, random_state=3).pairs, most[:fewer])
    assert np.array_equal(draw_pairs(r, scheme, n, random_state=3).pairs, most)
    assert not np.array_equal(draw_pairs(r, scheme, n, random_state=4).pairs, most)


def test_ranks_by_hand():
    # ranks 5 and 6 of ten, and the worst against the best, in whatever order the responses are
    order = np.random.default_rng(1).permutation(10)
    r = responses(order[None].astype(float))
    at = np.argsort(order)
    assert draw_pairs(r, "similar").pairs.tolist() == [[at[5], at[4]]]
    assert draw_pairs(r, "diversified").pairs.tolist() == [[at[9], at[0]]]
    # of five the second and the third, of two both, of one none; equal gold at these ranks is no pair
    r = responses([1, 2, 3, 4, 5, 7, 6, 9, 1, 1, 1, 8], [0] * 5 + [1, 1] + [2] + [3] * 4)
    assert sorted(draw_pairs(r, "similar").pairs.tolist()) == [[2, 1], [5, 6]]
    assert sorted(draw_pairs(r, "diversified").pairs.tolist()) == [[4, 0], [5, 6], [11, 8]]


def test_prompts_take_turns():
    r = responses(np.random.default_rng(0).normal(size=(50, 4)))
    for n, least, most in ((30, 0, 1), (50, 1, 1), (120, 2, 3), (300, 6, 6)):
        counts = np.bincount(r.prompt_of[draw_pairs(r, "same-prompt", n).pairs[:, 0]], minlength=50)
        assert (counts.min(), counts.max()) == (least, most)
    assert len(draw_pairs(r, "same-prompt")) == 50
    # in an order that is drawn anew for each round
    order = r.prompt_of[draw_pairs(r, "same-prompt", 100).pairs[:, 0]]
    assert sorted(order[:50]) == sorted(order[50:]) == list(range(50))
    assert len({tuple(order[:50]), tuple(order[50:]), tuple(range(50))}) == 3


def test_pairs_within_a_prompt_are_drawn_alike():
    r = responses(np.random.default_rng(0).normal(size=(6000, 4)))
    pairs = np.sort(draw_pairs(r, "same-prompt").pairs, axis=1) % 4
    counts = np.bincount(pairs[:, 0] * 4 + pairs[:, 1])
    counts = counts[counts > 0]
    assert len(counts) == 6
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_prompts_across_are_in_two_pairs_a_round_and_partners_drawn_alike():
    r = responses(np.random.default_rng(0).normal(size=(5, 1000)))
    drawn = draw_pairs(r, "cross-prompt", 5000)
    prompts = np.sort(r.prompt_of[drawn.pairs], axis=1)
    counts = np.bincount(prompts[:, 0] * 5 + prompts[:, 1])
    counts = counts[counts > 0]
    assert len(counts) == 10
    assert np.abs(counts - 500).max() < 5 * np.sqrt(500)
    one_round = draw_pairs(responses(np.random.default_rng(1).normal(size=(300, 3))), "cross-prompt")
    seen = np.bincount(one_round.responses.prompt_of[one_round.pairs].ravel(), minlength=300)
    assert len(one_round) == 300
    assert seen.min() >= 1
    assert seen.mean() == 2


def test_a_domain_can_be_kept():
    r = ragged(2, n_prompts=60)
    domain = r.domain[r.prompt_of[draw_pairs(r, {"name": "cross-prompt", "same_domain": True}, 80).pairs]]
    assert (domain[:, 0] == domain[:, 1]).all()
    assert set(domain[:, 0]) == {"a", "b"}
    domain = r.domain[r.prompt_of[draw_pairs(r, "cross-prompt", 80).pairs]]
    assert (domain[:, 0] != domain[:, 1]).any()


def test_a_split_is_kept_and_named_in_info():
    r = ragged(3, n_prompts=60)
    drawn = draw_pairs(r, "cross-prompt", 40, split="test", random_state=7)
    assert set(r.split[r.prompt_of[drawn.pairs]].ravel()) == {"test"}
    assert drawn.responses.info["pairing"] == {
        "scheme": "cross-prompt",
        "same_domain": False,
        "n_pairs": 40,
        "random_state": 7,
        "split": "test",
    }
    assert drawn.responses.info[KEY] == Annotator().to_info()
    assert "pairing" not in r.info
    with pytest.raises(InvalidInputError, match="Known: test, train"):
        draw_pairs(r, split="tset")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_part_of_the_data_stays_that_part(scheme):
    gold = np.random.default_rng(0).normal(size=(20, 5))
    prefs = EmbeddedPreferences.from_arrays(np.zeros((20, 5, 2)), rewards=gold)
    part = prefs[prefs.prompt_rows < 8]
    assert set(part.responses.prompt_of[draw_pairs(part, scheme, 8).active]) <= set(range(8))
    assert max(part.responses.prompt_of[draw_pairs(part, scheme, 20, prompts="all").active]) > 8
    # all responses to its prompts take part, whether a pair touched them or not
    first = part[(part.pairs < 100).all(axis=1) & ~np.isin(part.pairs, np.arange(0, 100, 5)).any(axis=1)]
    assert len(draw_pairs(first, "same-prompt", 80)) == 80
    with pytest.raises(InvalidInputError, match="prompts='all'"):
        draw_pairs(prefs[[]], scheme)


def test_vectors_are_shared_and_texts_are_drawn_alike():
    rows = [{"prompt": f"p{i}", "responses": ["a", "b", "c"], "gold": [0.0, 1 + i / 50, 3.0]} for i in range(30)]
    data = PreferenceDataset.from_records(rows).with_split(random_state=1)
    vectors = EmbeddedResponses(
        {"response:final": np.zeros((90, 2))},
        data.responses["prompt_of"].to_numpy(),
        gold=data.responses["gold"].to_numpy(),
        split=data.prompts["split"].to_numpy(),
        group=data.prompts["group"].to_numpy(),
        domain=data.prompts["domain"].to_numpy(),
    )
    for scheme in SCHEMES:
        texts, drawn = draw_pairs(data, scheme, 20), draw_pairs(vectors, scheme, 20)
        assert np.array_equal(texts.pairs[["chosen", "rejected"]].to_numpy(), drawn.pairs)
        assert texts.info["pairing"] == drawn.responses.info["pairing"]
        assert texts.responses is data.responses or texts.responses.equals(data.responses)
    assert drawn.responses.views["response:final"] is vectors.views["response:final"]
    noisy = annotate(draw_pairs(data, "cross-prompt", 20), Annotator(beta=1.0, scale="global-std"))
    assert noisy.info[KEY]["scale"] == pytest.approx(data.responses["gold"].std(ddof=0))
    assert noisy.info["pairing"]["n_pairs"] == 20


def test_what_cannot_be_drawn_is_refused():
    r = responses(np.arange(8.0).reshape(2, 4))
    for scheme, message in (
        ("same-promt", "Did you mean 'same-prompt'"),
        ({"name": "cross-prompt", "same_domian": True}, "Did you mean 'same_domain'"),
        ({"name": "cross-prompt", "same_domain": 1}, "true or false"),
        ({"same_domain": True}, "key 'name'"),
        (3, "got int"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            draw_pairs(r, scheme)
    for options, message in (
        ({"n": 0}, "from 1"),
        ({"n": True}, "from 1"),
        ({"random_state": -1}, "from 0"),
        ({"prompts": "pared"}, "Did you mean 'paired'"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            draw_pairs(r, **options)
    with pytest.raises(InvalidInputError, match="similar' has 2 different ones on 2 prompts"):
        draw_pairs(r, "similar", 3)
    with pytest.raises(InvalidInputError, match="no pair of different gold among 0 responses"):
        draw_pairs(responses(np.full((2, 3), np.nan)))
    with pytest.raises(InvalidInputError, match="no pair of different gold"):
        draw_pairs(responses(np.arange(4.0)[None]), "cross-prompt")
    with pytest.raises(InvalidInputError, match="got DataFrame"):
        draw_pairs(pd.DataFrame())


def test_schemes_are_found_by_their_files():
    assert PAIRINGS.names() == sorted(SCHEMES)
    scheme = PAIRINGS.get("cross-prompt")(same_domain=True)
    assert make_scheme(scheme) is scheme
    assert make_scheme({"name": "cross-prompt", "same_domain": True}) == scheme


class TestGold:
    def test_gold_is_put_on_every_kind_of_data(self):
        gold = np.arange(6.0)
        prefs = EmbeddedPreferences.from_arrays(np.zeros((6, 2)), [[0, 1], [3, 2]], prompt_of=[0, 0, 0, 1, 1, 1])
        scored = with_gold(prefs, gold[:, None], source="a rule")
        assert np.array_equal(scored.responses.gold, gold)
        assert np.array_equal(scored.pairs, prefs.pairs)
        assert scored.responses.info["gold"] == {"source": "a rule"}
        assert np.isnan(prefs.responses.gold).all()
        assert "gold" not in prefs.responses.info
        assert np.array_equal(with_gold(prefs.responses, gold, source="a rule").gold, gold)
        gold[0] = 99
        assert scored.responses.gold[0] == 0
        data = PreferenceDataset.from_records([{"prompt": "p", "chosen": "a", "rejected": "b"}])
        assert with_gold(data, [1.0, 2.0], source="a rule").responses["gold"].tolist() == [1.0, 2.0]
        assert draw_pairs(with_gold(data, [1.0, 2.0], source="a rule")).pairs["chosen"].tolist() == [1]

    def test_what_is_no_gold_is_refused(self):
        prefs = EmbeddedPreferences.from_arrays(np.zeros((2, 2)), [[0, 1]])
        for gold, source, message in (
            ([1.0], "x", r"shape \(2,\)"),
            ([1.0, np.inf], "x", "1 infinite"),
            ([np.nan, np.nan], "x", "2 missing"),
            ([1.0, 2.0], "", "source"),
        ):
            with pytest.raises(InvalidInputError, match=message):
                with_gold(prefs, gold, source=source)
        with pytest.raises(InvalidInputError, match="got int"):
            with_gold(3, [1.0], source="x")
