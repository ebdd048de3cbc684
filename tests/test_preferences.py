"""The comparison graph: building it, slicing it, and what it refuses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, train_test_split
from sklearn.utils import _safe_indexing, indexable

from embedrm import EmbeddedPreferences, EmbeddedResponses
from embedrm.errors import InvalidInputError
from embedrm.preferences import pairs_from_gold


@pytest.fixture
def prefs():
    """Three prompts with 3, 2 and 2 responses; row 6 is in no pair."""
    rng = np.random.default_rng(0)
    return EmbeddedPreferences.from_arrays(
        {"response:3": rng.normal(size=(7, 4)), "joint:3": rng.normal(size=(7, 5))},
        [[0, 1], [2, 0], [3, 4], [2, 1]],
        prompt={"prompt:3": rng.normal(size=(3, 4))},
        prompt_of=[0, 0, 0, 1, 1, 2, 2],
        domain=["b", "a", "a"],
        group=["g", "h", "h"],
        weight=[1, 2, 3, 4],
        margin=[0.5, np.nan, 1.0, 2.0],
        outcome=[1, 0.5, 0.75, 1],
        covariates={"characters": np.arange(7) * 10},
    )


class TestFromArrays:
    def test_a_flat_matrix_with_pairs(self):
        x = np.zeros((5, 3), dtype="float32")
        prefs = EmbeddedPreferences.from_arrays(x, [[0, 1], [2, 1], [3, 4]])
        assert prefs.responses.views["response:final"] is x
        # responses that are compared, directly or not, share a prompt
        assert prefs.responses.prompt_of.tolist() == [0, 0, 0, 1, 1]
        assert prefs.weight.tolist() == [1, 1, 1]
        assert prefs.outcome.tolist() == [1, 1, 1]
        assert np.isnan(prefs.margin).all()
        assert prefs.domains == ("default",)
        assert prefs.groups.tolist() == ["0", "0", "1"]

    @pytest.mark.parametrize("rewards_shape", [(3, 4), (3, 4, 1)])
    def test_the_three_dimensional_layout_makes_all_pairs_without_a_copy(self, rewards_shape):
        rng = np.random.default_rng(1)
        x, rewards = rng.normal(size=(3, 4, 5)).astype("float32"), rng.normal(size=rewards_shape)
        prefs = EmbeddedPreferences.from_arrays(x, rewards=rewards)
        assert np.shares_memory(prefs.responses.views["response:final"], x)
        np.testing.assert_array_equal(prefs.responses.views["response:final"][5], x[1, 1])
        assert len(prefs) == 3 * 6
        gold = rewards.reshape(-1)
        assert (gold[prefs.pairs[:, 0]] > gold[prefs.pairs[:, 1]]).all()
        np.testing.assert_allclose(prefs.margin, gold[prefs.pairs[:, 0]] - gold[prefs.pairs[:, 1]])
        assert not prefs.cross_prompt.any()
        np.testing.assert_array_equal(prefs.responses.gold, gold)

    def test_a_memory_map_stays_one(self, tmp_path):
        np.save(tmp_path / "x.npy", np.random.default_rng(2).normal(size=(3, 2, 4)).astype("float16"))
        x = np.load(tmp_path / "x.npy", mmap_mode="r")
        view = EmbeddedPreferences.from_arrays(x, rewards=[[0, 1], [1, 0], [0, 2]]).responses.views["response:final"]
        assert isinstance(view, np.memmap)
        assert np.shares_memory(view, x)
        assert not view.flags.writeable

    def test_a_bare_prompt_matrix_becomes_a_view(self):
        prefs = EmbeddedPreferences.from_arrays(
            np.zeros((4, 2)), [[0, 1], [2, 3]], prompt=np.ones((2, 3)), prompt_of=[0, 0, 1, 1]
        )
        assert prefs.responses.views["prompt:final"].shape == (2, 3)

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"response": np.zeros((4, 2))}, "give pairs, or prompt_of with rewards"),
            ({"response": np.zeros((4, 2)), "prompt_of": [0, 0, 1, 1]}, "or rewards from which to make them"),
            (
                {"response": np.zeros((2, 2, 2)), "prompt_of": [0, 0, 1, 1], "rewards": np.zeros((2, 2))},
                "is implied by",
            ),
            ({"response": np.zeros((4, 2)), "pairs": [[0, 1]], "rewards": [1, 2]}, "each of 4 responses, got 2"),
            (
                {"response": np.zeros((4, 2)), "pairs": [[0, 4]]},
                "rows of responses from 0 to 3, got values from 0 to 4",
            ),
            ({"response": np.zeros((4, 2)), "pairs": [[0, -1]]}, "got values from -1 to 0"),
            ({"response": np.zeros((4, 2)), "pairs": [[0.0, 1.0]]}, "must hold integers"),
            ({"response": np.zeros((4, 2)), "pairs": [0, 1]}, r"shape \(n_pairs, 2\), chosen first, got shape \(2,\)"),
            ({"response": np.zeros((4, 2)), "pairs": [[0, 1, 2]]}, r"got shape \(1, 3\)"),
            ({"response": np.zeros((4, 2)), "pairs": [[1, 1], [0, 1]]}, "1 of 2 pairs compare a response with itself"),
            (
                {"response": np.zeros((4, 2), dtype=int), "pairs": [[0, 1]]},
                "must hold float32, float64 or float16, got int",
            ),
            ({"response": np.zeros(4), "pairs": [[0, 1]]}, r"matrix of shape \(n, dim\), got shape \(4,\)"),
            ({"response": np.zeros((4, 0)), "pairs": [[0, 1]]}, r"got shape \(4, 0\)"),
        ],
    )
    def test_wrong_arrays_are_refused(self, arguments, message):
        with pytest.raises(InvalidInputError, match=message):
            EmbeddedPreferences.from_arrays(**arguments)

    @pytest.mark.parametrize(
        "column, message",
        [
            ({"weight": [1, 2]}, r"weight must have shape \(1,\), one number a pair, got shape \(2,\)"),
            ({"weight": [-1]}, "finite and not negative"),
            ({"weight": [np.nan]}, "finite and not negative"),
            ({"margin": [np.inf]}, "margin must be finite"),
            ({"outcome": [0.4]}, r"outcome must lie in \[0.5, 1\]"),
            ({"outcome": [np.nan]}, r"outcome must lie in \[0.5, 1\]"),
            ({"group": ["a", "b"]}, r"group must have shape \(1,\), one name a prompt, got shape \(2,\)"),
            ({"prompt_of": [0, 0, 5]}, "rows of prompts from 0 to 0, got values from 0 to 5"),
            ({"prompt_of": [0, 0]}, "must have 2 rows, got 3"),
            ({"covariates": {"words": [1]}}, r"covariate 'words' must have shape \(3,\), one number a response"),
        ],
    )
    def test_wrong_columns_are_refused(self, column, message):
        arguments = {"prompt_of": [0, 0, 0], "domain": ["a"], **column}
        with pytest.raises(InvalidInputError, match=message):
            EmbeddedPreferences.from_arrays(np.zeros((3, 2)), [[0, 1]], **arguments)


def _brute_force(prompt_of, gold):
    found = {}
    for i, j in itertools.combinations(range(len(gold)), 2):
        if prompt_of[i] == prompt_of[j] and not np.isnan([gold[i], gold[j]]).any() and gold[i] != gold[j]:
            found[(i, j) if gold[i] > gold[j] else (j, i)] = abs(gold[i] - gold[j])
    return found


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([np.nan, -1.0, 0.0, 0.5, 0.5000001, 2.0])), max_size=14),
    st.randoms(use_true_random=False),
)
def test_pairs_from_gold_are_those_of_a_double_loop(rows, random):
    random.shuffle(rows)
    prompt_of, gold = np.array([p for p, _ in rows], dtype=int), np.array([g for _, g in rows], dtype=float)
    pairs, gap = pairs_from_gold(prompt_of, gold)
    assert pairs.shape == (len(gap), 2)
    got = dict(zip(map(tuple, pairs.tolist()), gap.tolist()))
    assert len(got) == len(gap), "a pair came twice"
    assert got == _brute_force(prompt_of, gold)
    # in the order of prompts, whatever the number of responses each has
    assert (np.diff(prompt_of[pairs[:, 0]]) >= 0).all()


class TestSlicing:
    @pytest.mark.parametrize(
        "index, expected",
        [
            (slice(1, 3), [1, 2]),
            (slice(None, None, -2), [3, 1]),
            (np.array([True, False, False, True]), [0, 3]),
            ([True, False, False, True], [0, 3]),
            (np.array([2, 0, 2]), [2, 0, 2]),
            ([-1], [3]),
            (2, [2]),
            (np.int64(-1), [3]),
            (np.array(1), [1]),
            ([], []),
            (slice(0, 0), []),
            ((np.array([1, 2]), slice(None)), [1, 2]),
            ((np.array([1, 2]), ...), [1, 2]),
            ((slice(1, 2), slice(None)), [1]),
        ],
    )
    def test_every_column_follows_and_the_vectors_are_shared(self, prefs, index, expected):
        part = prefs[index]
        assert part.shape == (len(expected), 2)
        assert len(part) == part.n_pairs == len(expected)
        assert part.responses is prefs.responses
        for name in ("pairs", "weight", "margin", "outcome"):
            np.testing.assert_array_equal(getattr(part, name), getattr(prefs, name)[expected])

    @pytest.mark.parametrize("index", [(0, 1), (slice(None), 0), (slice(None), slice(0, 1)), (0, slice(None), 0)])
    def test_a_pair_is_not_cut_in_two(self, prefs, index):
        with pytest.raises(InvalidInputError, match="cannot be cut in two"):
            prefs[index]

    def test_an_index_of_two_dimensions_is_refused(self, prefs):
        with pytest.raises(InvalidInputError, match=r"a vector of pairs or a mask .* shape \(2, 2\)"):
            prefs[np.array([[0, 1], [2, 3]])]

    @pytest.mark.parametrize("index", [4, [0, 9], np.array([True, False]), [0.5]])
    def test_an_index_that_does_not_fit_is_an_index_error(self, prefs, index):
        # IndexError is what ends iteration and what scikit-learn expects
        with pytest.raises(IndexError):
            prefs[index]

    def test_iterating_gives_the_pairs_one_by_one(self, prefs):
        assert [p.pairs[0].tolist() for p in prefs] == prefs.pairs.tolist()

    def test_derived_facts_are_of_the_slice(self, prefs):
        assert prefs.active.tolist() == [0, 1, 2, 3, 4]
        part = prefs[1:3]
        assert part.active.tolist() == [0, 2, 3, 4]
        assert part.local_pairs.tolist() == [[1, 0], [2, 3]]
        assert part.active_prompts.tolist() == [0, 1]
        assert prefs[:1].active_prompts.tolist() == [0]
        assert prefs[:0].active.tolist() == []

    def test_scikit_learn_takes_it_as_an_array(self, prefs):
        assert prefs.ndim == 2
        assert indexable(prefs, prefs.groups)[0] is prefs
        np.testing.assert_array_equal(_safe_indexing(prefs, np.array([3, 1])).pairs, prefs.pairs[[3, 1]])
        train, test = train_test_split(prefs, random_state=0)
        assert sorted([*train.weight, *test.weight]) == [1, 2, 3, 4]
        folds = list(GroupKFold(2).split(prefs, groups=prefs.groups))
        assert sorted(np.concatenate([test for _, test in folds]).tolist()) == [0, 1, 2, 3]


class TestFacts:
    def test_domains_groups_and_ties_are_of_the_pairs(self, prefs):
        assert prefs.domain.tolist() == ["b", "b", "a", "b"]
        assert prefs.groups.tolist() == ["g", "g", "h", "g"]
        assert prefs.domains == ("a", "b")
        assert prefs.ties.tolist() == [False, True, False, False]
        assert prefs.in_domain("a").pairs.tolist() == [[3, 4]]
        assert len(prefs.in_domain("c")) == 0
        assert prefs.responses.domains == ("a", "b")

    def test_cross_prompt_pairs_belong_to_the_prompt_of_the_chosen(self, prefs):
        mixed = EmbeddedPreferences(prefs.responses, [[0, 3], [3, 0], [0, 1]])
        assert mixed.cross_prompt.tolist() == [True, True, False]
        assert mixed.domain.tolist() == ["b", "a", "b"]

    def test_splits(self):
        responses = EmbeddedResponses({"response:0": np.zeros((4, 1))}, [0, 0, 1, 1], split=["train", "test"])
        prefs = EmbeddedPreferences(responses, [[0, 1], [3, 2]])
        assert prefs.in_split("test").pairs.tolist() == [[3, 2]]
        with pytest.raises(InvalidInputError, match=r"unknown split 'tset'\. Did you mean 'test'\? Known: test, train"):
            prefs.in_split("tset")

    def test_swapping_twice_is_nothing(self, prefs):
        swapped = prefs.swapped()
        np.testing.assert_array_equal(swapped.pairs, prefs.pairs[:, ::-1])
        np.testing.assert_array_equal(swapped.swapped().pairs, prefs.pairs)
        for name in ("weight", "margin", "outcome"):
            np.testing.assert_array_equal(getattr(swapped, name), getattr(prefs, name))

    def test_compact_keeps_every_comparison(self, prefs):
        part = prefs[1:3]
        small = part.compact()
        assert small.responses.n_responses == 4
        assert small.responses.n_prompts == 2
        for view in ("response:3", "joint:3"):
            for side in (0, 1):
                np.testing.assert_array_equal(
                    small.responses.views[view][small.pairs[:, side]], part.responses.views[view][part.pairs[:, side]]
                )
        np.testing.assert_array_equal(
            small.responses.views["prompt:3"][small.prompt_rows], part.responses.views["prompt:3"][part.prompt_rows]
        )
        for name in ("domain", "groups", "weight", "margin", "outcome"):
            np.testing.assert_array_equal(getattr(small, name), getattr(part, name))
        np.testing.assert_array_equal(
            small.responses.covariates["characters"], part.responses.covariates["characters"][part.active]
        )

    def test_take_repeats_and_reorders(self, prefs):
        taken = prefs.responses.take([4, 0, 4])
        np.testing.assert_array_equal(taken.views["response:3"], prefs.responses.views["response:3"][[4, 0, 4]])
        assert taken.domain[taken.prompt_of].tolist() == ["a", "b", "a"]
        assert taken.n_prompts == 2
        assert len(prefs.responses.take([])) == 0
        with pytest.raises(InvalidInputError, match="rows of responses from 0 to 6, got values from 7 to 7"):
            prefs.responses.take([7])

    def test_prompts_are_counted_from_what_is_there(self):
        assert EmbeddedResponses({"response:0": np.zeros((2, 1))}, [0, 3]).n_prompts == 4
        assert EmbeddedResponses({"response:0": np.zeros((2, 1))}, [0, 0], domain=["a", "b"]).n_prompts == 2
        assert EmbeddedResponses({"response:0": np.zeros((2, 1)), "prompt:0": np.zeros((5, 1))}, [0, 0]).n_prompts == 5
        assert EmbeddedResponses({}, []).n_prompts == 0

    def test_a_missing_view_shows_the_nearest(self, prefs):
        with pytest.raises(InvalidInputError, match=r"unknown view 'response:33'\. Did you mean 'response:3'\?"):
            prefs.responses.view("response:33")

    def test_representations_say_sizes_and_no_numbers(self, prefs):
        assert repr(prefs) == (
            "EmbeddedPreferences(4 pairs, 2 domains, over EmbeddedResponses(7 responses, 3 prompts, "
            "views: response:3, joint:3, prompt:3))"
        )
