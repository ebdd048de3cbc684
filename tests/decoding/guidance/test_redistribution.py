"""Dense rewards: the pieces sum to the scalar to the bit, and each is what the text gains or loses by it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedrm.decoding.redistribution import increments, leave_one_out, redistribute, split_sentences, split_words
from embedrm.errors import InvalidInputError

REWARDS = st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=1, max_size=30)
POINTS = {"good": 2.0, "bad": -3.0, "fine": 0.5}


class Points:
    """Adds points of words; a response that has both good and fine gets ten more."""

    calls = 0

    def score(self, prompts, responses):
        self.calls += 1
        assert len(prompts) == len(responses)
        assert all(responses), "an empty response was scored"
        found = [[word.strip(".!,") for word in text.split()] for text in responses]
        bonus = [10.0 * ({"good", "fine"} <= set(words)) for words in found]
        return np.array([1.0 + sum(POINTS.get(w, 0.0) for w in words) + b for words, b in zip(found, bonus)])


def sums_to(pieces, total):
    """As nearly as doubles can: a sum of multiples of a spacing is a multiple of it."""
    return abs(math.fsum([total, *(-pieces)])) <= np.spacing(np.abs(pieces).min())


class TestSums:
    @given(REWARDS)
    @example([0.0, 0.0, 2.0, 0.999, 3.8701734306647926e-108, 1.6507762357547692e-236, 1.3117540190280606e-240])
    @settings(max_examples=300, deadline=None)
    def test_increments(self, rewards):
        found = increments(rewards)
        assert sums_to(found, rewards[-1])
        scale = max(map(abs, rewards))
        np.testing.assert_allclose(found, np.diff(rewards, prepend=0.0), rtol=0, atol=1e-14 * max(scale, 1e-300))

    @given(REWARDS, st.floats(-1e9, 1e9, allow_subnormal=False))
    @settings(max_examples=300, deadline=None)
    def test_leave_one_out(self, without, total):
        shared, spread = leave_one_out(total, without)
        assert sums_to(shared, total)
        scale = max(abs(total), *map(abs, without))
        np.testing.assert_allclose(shared, total - np.array(without) + spread, rtol=0, atol=1e-12 * max(scale, 1e-300))

    @given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=30), st.integers(-(2**40), 2**40))
    @settings(max_examples=200, deadline=None)
    def test_to_the_bit_where_nothing_is_rounded(self, without, total):
        assert math.fsum(increments(np.array(without) / 2.0**30)) == without[-1] / 2.0**30
        while len(without) & (len(without) - 1):
            without.pop()
        assert math.fsum(leave_one_out(total / 2.0**30, np.array(without) / 2.0**30)[0]) == total / 2.0**30

    def test_where_plain_differences_do_not_sum(self):
        rewards = [0.1, 0.7, 0.3, 1e-9, 0.6, 0.9]
        found = increments(rewards)
        assert math.fsum(np.diff(rewards, prepend=0.0)) != 0.9
        assert math.fsum(found) == 0.9
        np.testing.assert_allclose(found, np.diff(rewards, prepend=0.0), rtol=0, atol=1e-15)


class TestTexts:
    def test_increments_are_what_each_word_adds(self):
        scorer = Points()
        made = redistribute(scorer, "p", "good and fine, bad.", pieces=["good", " and", " fine", ",", " bad."])
        # the first piece has the constant too, the third the bonus of good and fine
        assert made.rewards.tolist() == [3.0, 0.0, 10.5, 0.0, -3.0]
        assert (made.total, made.spread, scorer.calls) == (10.5, 0.0, 1)

    def test_leave_one_out_is_what_the_text_loses(self):
        made = redistribute(Points(), "p", "good and fine", pieces="words", method="leave-one-out")
        # lost: good 12, and 0, fine 10.5; the total is 13.5, so each has 3 taken away
        assert made.total == 13.5
        assert made.spread == -3.0
        assert made.rewards.tolist() == [9.0, -3.0, 7.5]

    def test_by_sentence(self):
        made = redistribute(Points(), "p", "It is good. It is bad! So.")
        assert made.pieces == ("It is good. ", "It is bad! ", "So.")
        assert made.rewards.tolist() == [3.0, -3.0, 0.0]

    @pytest.mark.parametrize("method", ["increments", "leave-one-out"])
    def test_one_piece_has_it_all(self, method):
        made = redistribute(Points(), "p", "good", method=method)
        assert (made.rewards.tolist(), made.total) == ([3.0], 3.0)


class TestSplitting:
    @given(st.text(alphabet="ab. !?\n\t'3,", max_size=40))
    @settings(max_examples=300, deadline=None)
    def test_pieces_make_up_the_text(self, text):
        for split in (split_words, split_sentences):
            parts = split(text)
            assert "".join(parts) == text or not text.strip()

    def test_sentences(self):
        assert split_sentences("It cost 3.50 in all. Well!  Why?\nSo 'tis.") == [
            "It cost 3.50 in all. ",
            "Well!  ",
            "Why?\n",
            "So 'tis.",
        ]
        assert split_sentences("e.g. this one, etc. and so on") == ["e.g. this one, etc. and so on"]
        assert split_words(" a b  c\n") == [" a", " b", "  c\n"]


@pytest.mark.parametrize(
    "words, message",
    [
        ({"method": "loo"}, "unknown method of redistribution 'loo'"),
        ({"pieces": "tokens"}, "unknown unit of redistribution 'tokens'"),
        ({"pieces": ["good", "bad"]}, "make up the response when joined"),
    ],
)
def test_refusals(words, message):
    with pytest.raises(InvalidInputError, match=message):
        redistribute(Points(), "p", "good bad", **words)


def test_no_pieces_and_no_numbers():
    with pytest.raises(InvalidInputError, match="got an empty one"):
        redistribute(Points(), "p", "")
    with pytest.raises(InvalidInputError, match="1 of 2 are not"):
        increments([0.5, np.inf])
    with pytest.raises(InvalidInputError, match="finite total"):
        leave_one_out(np.nan, [0.5])
