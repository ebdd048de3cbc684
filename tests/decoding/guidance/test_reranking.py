"""Best of n and search by steps against choices made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from guidance_base import tiny_lm

from embedrm.decoding.reranking import best_of_n, language_model_steps, search_steps, step_rewards
from embedrm.errors import InvalidInputError


class Letters:
    """The share of a's in a response."""

    def __init__(self):
        self.calls = 0

    def score(self, prompts, responses):
        self.calls += 1
        assert all(prompt == "p" for prompt in prompts)
        return np.array([text.count("a") / max(len(text), 1) for text in responses])


class TestBestOfN:
    def test_the_highest_reward_of_each_prompt(self):
        scorer = Letters()
        made = best_of_n(["p", "p"], [["b", "a", "ab"], ["bb"]], scorer)
        assert [(c.index, c.response, c.reward) for c in made] == [(1, "a", 1.0), (0, "bb", 0.0)]
        assert made[0].rewards.tolist() == [0.0, 1.0, 0.5]
        assert scorer.calls == 1

    def test_the_first_of_those_that_tie(self):
        assert best_of_n(["p"], [["b", "aa", "a"]], Letters())[0].index == 1

    def test_a_pipeline_is_a_scorer(self):
        from embedrm import HashingEncoder, LinearHead, RewardPipeline, load_bundled

        data = load_bundled().split("validation")
        pipeline = RewardPipeline(HashingEncoder(dim=64), LinearHead(), store=False).fit(data)
        responses = ["It is 5.", "5", "Five, I think."]
        (choice,) = best_of_n(["What is 2 + 3?"], [responses], pipeline)
        assert choice.rewards.tolist() == pipeline.score("What is 2 + 3?", responses).tolist()
        assert choice.response == responses[int(np.argmax(choice.rewards))]

    def test_refusals(self):
        with pytest.raises(InvalidInputError, match="each of 2 prompts, got those of 1"):
            best_of_n(["p", "p"], [["a"]], Letters())
        with pytest.raises(InvalidInputError, match="prompt 1 has none"):
            best_of_n(["p", "p"], [["a"], []], Letters())

        class Broken:
            def score(self, prompts, responses):
                return np.full(len(responses), np.nan)

        with pytest.raises(InvalidInputError, match="gave 1 of 1 that are not"):
            best_of_n(["p"], [["a"]], Broken())


def test_step_rewards_by_view():
    steps = ["a", "b", "aab"]
    assert step_rewards(Letters(), "p", steps).tolist() == [1.0, 0.5, 0.6]
    assert step_rewards(Letters(), "p", steps, view="step").tolist() == [1.0, 0.0, 2 / 3]
    with pytest.raises(InvalidInputError, match="unknown view of a step 'both'"):
        step_rewards(Letters(), "p", steps, view="both")


# A greedy choice takes "ab" first, after which only b's follow; "bb" leads to the best end.
TREE = {
    (): ["ab", "bb", "ab"],
    ("ab",): ["bb", "bbbb"],
    ("bb",): ["aaaa", "bb"],
}


def tree(prompt, steps, n):
    return TREE.get(tuple(steps), [])[:n]


class TestSearch:
    def test_one_chain_goes_on_from_the_best_step(self):
        made = search_steps("p", tree, Letters())
        assert made.steps == ("ab", "bb")
        assert made.rewards == (0.5, 0.25)
        assert (made.text, made.reward, made.ended) == ("abbb", 0.25, True)

    def test_two_chains_find_what_one_misses(self):
        made = search_steps("p", tree, Letters(), width=2)
        assert (made.text, made.reward) == ("bbaaaa", 4 / 6)

    def test_the_rule_decides(self):
        wide = {"width": 4, "view": "step"}
        assert search_steps("p", tree, Letters(), rule="min", **wide).text == "abbb"
        assert search_steps("p", tree, Letters(), rule="mean", **wide).text == "bbaaaa"

    def test_it_stops_at_the_last_step_and_scores_once_a_step(self):
        scorer = Letters()
        made = search_steps("p", lambda prompt, steps, n: ["ab"], scorer, max_steps=3)
        assert (made.text, made.ended, scorer.calls) == ("ababab", False, 3)

    def test_refusals(self):
        with pytest.raises(InvalidInputError, match="no step at all"):
            search_steps("p", lambda prompt, steps, n: [], Letters())
        with pytest.raises(InvalidInputError, match="width of at least 1"):
            search_steps("p", tree, Letters(), width=0)
        with pytest.raises(InvalidInputError, match="unknown aggregation"):
            search_steps("p", tree, Letters(), rule="medain")


def test_a_language_model_proposes_steps():
    lm = tiny_lm()
    propose = language_model_steps(lm, end="w3", max_new_tokens=12, top_p=None)
    found = propose("w4 w5", ["w6"], 6)
    assert len(found) == 6
    assert all("w3" not in step or step.index("w3") + 2 == len(step) for step in found)
    assert found == propose("w4 w5", ["w6"], 6)
    assert found != propose("w4 w5", ["w6", "w6"], 6)


def test_the_search_runs_on_a_language_model():
    class Threes:
        def score(self, prompts, responses):
            return np.array([text.count("3") for text in responses])

    propose = language_model_steps(tiny_lm(), end="w3", max_new_tokens=6)
    made = search_steps("w4 ", propose, Threes(), n=4, max_steps=3)
    assert len(made.steps) == 3
    assert list(made.rewards) == [float("".join(made.steps[: t + 1]).count("3")) for t in range(3)]
