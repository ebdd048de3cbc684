"""Over-optimisation facts: choices against enumerations of subsets and orders, peaks and differences counted by hand."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest

from embedrm.errors import InvalidInputError
from embedrm.evaluation.best_of_n import ORACLE, best_of_n_facts
from embedrm.evaluation.over_optimisation import ChoiceJudge, over_optimisation_facts
from embedrm.preferences import EmbeddedResponses


def made(gold, group=None) -> EmbeddedResponses:
    gold = np.asarray(gold, dtype=float)
    n, k = gold.shape
    return EmbeddedResponses({}, np.repeat(np.arange(n), k), gold=gold.ravel(), group=group)


def drawn(n: int = 24, k: int = 6, seed: int = 0):
    rng = np.random.default_rng(seed)
    gold = rng.standard_normal((n, k))
    return made(gold), (gold + rng.standard_normal((n, k))).ravel(), (gold + 2 * rng.standard_normal((n, k))).ravel()


def facts_of(judge, models, **options):
    curves = {"level": {name: [judge.curves(r, name)] for name, r in models.items()}}
    return over_optimisation_facts(judge, curves, reference=next(iter(models)), n_resamples=50, **options)


def values(cells):
    return [cell["value"] for cell in cells]


def from_gold(gold) -> tuple[np.ndarray, np.ndarray]:
    """Curves (n_prompts, n_ns, 3) whose gold is given, and no correlation."""
    gold = np.asarray(gold, dtype=float)
    return np.stack([gold, gold, gold], axis=2), np.zeros(len(gold))


class TestChoices:
    def test_gold_and_quantile_are_means_over_all_subsets(self):
        gold, reward = np.array([3.0, 1.0, 2.0, 2.0]), np.array([0.1, 0.4, 0.3, 0.2])
        judge = ChoiceJudge(made([gold]))
        curves, rho = judge.curves(reward)
        beaten = [sum((g > h) + 0.5 * (g == h) for j, h in enumerate(gold) if j != i) / 3 for i, g in enumerate(gold)]
        for place, n in enumerate(judge.ns):
            best = [max(own, key=lambda i: reward[i]) for own in combinations(range(4), n)]
            assert curves[0, place, 0] == pytest.approx(np.mean(gold[best]))
            assert curves[0, place, 2] == pytest.approx(np.mean(np.array(beaten)[best]))
        assert judge.ns == [1, 2, 3, 4]
        assert rho[0] == pytest.approx(-0.9486832980505138)

    def test_subsets_are_what_all_orders_give(self):
        gold, reward = np.array([3.0, -1.0, 2.0, 0.5]), np.array([0.1, 0.4, 0.3, 0.2])
        exact = ChoiceJudge(made([gold])).curves(reward)[0][0, :, 0]
        orders = [list(order) for order in permutations(range(4))]
        for place, n in enumerate((1, 2, 3, 4)):
            best = [max(order[:n], key=lambda i: reward[i]) for order in orders]
            assert exact[place] == pytest.approx(gold[best].mean())

    def test_the_papers_permutations_agree_within_their_error(self):
        responses, reward, _ = drawn(40, 12)
        ns = [1, 2, 5, 10, 12]
        exact = ChoiceJudge(responses, ns=ns).curves(reward)[0][:, :, 0]
        scheme = ChoiceJudge(responses, ns=ns, estimator="sun2025", n_permutations=400)
        sampled = scheme.curves(reward)[0][:, :, 0]
        assert scheme.n_permutations == 400
        gold = responses.gold.reshape(40, 12)
        bound = 5 * gold.std(axis=1)[:, None] / math.sqrt(400) + 1e-12
        assert (np.abs(sampled - exact) < bound).all()
        assert not np.array_equal(sampled, exact)
        np.testing.assert_allclose(sampled[:, -1], exact[:, -1])

    def test_a_perfect_reward_has_quantile_one_at_all_candidates(self):
        responses, _, _ = drawn()
        judge = ChoiceJudge(responses)
        curves, rho = judge.curves(10.0 * responses.gold - 3.0)
        np.testing.assert_allclose(curves[:, -1, 2], 1.0)
        np.testing.assert_allclose(curves[:, 0, 2], 0.5)
        np.testing.assert_allclose(rho, 1.0)
        np.testing.assert_allclose(judge.curves(-responses.gold)[0][:, -1, 2], 0.0, atol=1e-12)

    def test_means_and_intervals_are_those_of_best_of_n(self):
        responses, reward, _ = drawn(30)
        judge = ChoiceJudge(responses)
        found = facts_of(judge, {"m": reward})["rows"][0]
        known = best_of_n_facts({"m": reward}, responses, n_resamples=50)
        row = known["rows"][0]
        for key, other in (("gold", "micro"), ("reward", "proxy"), ("quantile", "quantile"), ("gain_sd", "gain_sd")):
            for cell, expected in zip(found[key], row[other]):
                assert cell == {end: pytest.approx(expected[end], abs=1e-12) for end in ("value", "low", "high")}
        assert found["captured"]["value"] == pytest.approx(row["captured"][-1]["value"])
        assert found["spearman"]["value"] == pytest.approx(row["spearman"]["value"])

    def test_every_n_is_of_the_prompts_that_have_the_largest(self):
        prompt_of = np.repeat([0, 1, 2], [3, 2, 3])
        responses = EmbeddedResponses({}, prompt_of, gold=np.arange(8.0))
        judge = ChoiceJudge(responses)
        assert judge.ns == [1, 2, 3]
        assert judge.scored.counts["left_out"]["prompts_with_too_few"] == 1
        assert judge.curves(np.arange(8.0))[0].shape == (2, 3, 3)
        # half of the prompts have to serve the largest n
        sizes = np.repeat(np.arange(4), [2, 2, 5, 2])
        assert ChoiceJudge(EmbeddedResponses({}, sizes, gold=np.arange(11.0))).ns == [1, 2]
        assert ChoiceJudge(EmbeddedResponses({}, np.repeat(np.arange(4), [2, 5, 5, 2]), gold=np.zeros(14))).ns[-1] == 5

    def test_many_candidates_are_judged_where_the_paper_reads_them(self):
        responses = made(np.zeros((2, 500)))
        assert ChoiceJudge(responses).ns == [1, 2, 5, 10, 30, 50, 100, 300, 500]
        assert ChoiceJudge(responses, ns=[30, 2, 2]).ns == [1, 2, 30]

    def test_errors(self):
        responses, reward, _ = drawn()
        with pytest.raises(InvalidInputError, match="estimator"):
            ChoiceJudge(responses, estimator="unbaised")
        with pytest.raises(InvalidInputError, match=r"best of 7 was asked for, .* more than 6"):
            ChoiceJudge(responses, ns=[7])
        with pytest.raises(InvalidInputError, match="whole numbers from 1"):
            ChoiceJudge(responses, ns=[0])
        with pytest.raises(InvalidInputError, match="n_permutations"):
            ChoiceJudge(responses, n_permutations=0)
        judge = ChoiceJudge(responses)
        with pytest.raises(InvalidInputError, match=r"rewards of 'm' must have shape \(144,\)"):
            judge.curves(reward[:-1], "m")
        with pytest.raises(InvalidInputError, match="NaN or infinity for 1 of 144"):
            judge.curves(np.where(np.arange(144) == 3, np.nan, reward))


class TestFacts:
    def test_the_divergence_by_hand(self):
        facts = facts_of(ChoiceJudge(made(np.zeros((2, 5))), ns=[1, 2, 5]), {"m": np.arange(10.0)})
        assert facts["kl"] == pytest.approx([0.0, 0.19314718, 0.80943791])

    def test_what_is_lost_is_read_on_the_other_half(self):
        # groups a and c are one half, b and d the other
        judge = ChoiceJudge(made(np.arange(12.0).reshape(4, 3), group=["a", "b", "c", "d"]))
        gold = [[0, 5, 1], [0, 2, 4], [0, 7, 3], [0, 1, 2]]
        facts = over_optimisation_facts(judge, {"l": {"m": [from_gold(gold)]}}, reference="m", n_resamples=10)
        row = facts["rows"][0]
        # means 0, 15/4, 10/4: the peak is at two. That of a and c is two, that of b and d three: a and c lose nothing where
        # b and d peak, and b and d lose 2 - 4 and 1 - 2 where a and c do
        assert row["peak"] == 2
        assert row["lost"]["value"] == pytest.approx((0 + 0 - 2 - 1) / 4)

    def test_nothing_is_lost_by_chance_alone(self):
        found = []
        for seed in range(60):
            gold = np.random.default_rng(seed).standard_normal((40, 6))
            judge = ChoiceJudge(made(gold))
            # a reward that has nothing to do with gold: its curve is flat but for noise
            noise = np.random.default_rng(1000 + seed).standard_normal(gold.size)
            found.append(facts_of(judge, {"m": noise})["rows"][0]["lost"]["value"])
        error = np.std(found) / math.sqrt(len(found))
        assert abs(np.mean(found)) < 3 * error

    def test_draws_that_are_the_same_are_one_draw(self):
        responses, one, other = drawn()
        judge = ChoiceJudge(responses)
        pair = {"a": judge.curves(one), "b": judge.curves(other)}

        def facts(n_draws):
            curves = {"l": {name: [found] * n_draws for name, found in pair.items()}}
            return over_optimisation_facts(judge, curves, reference="a", n_resamples=40)

        first, third = facts(1), facts(3)
        assert (first["n_draws"], third["n_draws"]) == (1, 3)
        for key in ("gold", "reward", "quantile"):
            for a, b in zip(first["rows"][1][key], third["rows"][1][key]):
                assert a == {end: pytest.approx(b[end], abs=1e-12) for end in a}
        last = [f["differences"][0]["gold"][-1] for f in (first, third)]
        assert last[0] == {end: pytest.approx(last[1][end], abs=1e-12) for end in last[0]}

    def test_draws_that_differ_are_averaged_and_widen_the_interval(self):
        responses, one, _ = drawn()
        judge = ChoiceJudge(responses)
        good, bad = judge.curves(one), judge.curves(-one)
        curves = {"same": {"m": [good, good]}, "apart": {"m": [good, bad]}}
        rows = over_optimisation_facts(judge, curves, reference="m", n_resamples=200)["rows"]
        middle = np.mean([good[0][:, -1, 0].mean(), bad[0][:, -1, 0].mean()])
        assert rows[1]["gold"][-1]["value"] == pytest.approx(middle)
        width = [row["gold"][-1]["high"] - row["gold"][-1]["low"] for row in rows]
        assert width[1] > 2 * width[0]

    def test_differences_and_their_change_by_hand(self):
        judge = ChoiceJudge(made(np.arange(36.0).reshape(12, 3)))
        flat = np.ones((12, 3))
        curves = {
            "none": {"a": [from_gold(flat)], "b": [from_gold(flat * [1, 2, 3])]},
            "much": {"a": [from_gold(flat * [1, 1, 0.5])], "b": [from_gold(flat * [1, 2, 4])]},
        }
        facts = over_optimisation_facts(judge, curves, reference="a", n_resamples=20)
        assert [d["level"] for d in facts["differences"]] == ["none", "much"]
        assert values(facts["differences"][1]["gold"]) == pytest.approx([0, 1, 3.5])
        assert facts["changes"] == [
            {
                "model": "b",
                "reference": "a",
                "from": "none",
                "to": "much",
                "gold": {"value": pytest.approx(1.5), "low": pytest.approx(1.5), "high": pytest.approx(1.5)}
                | {"p": pytest.approx(2 / 21)},
            }
        ]
        # nothing is lost by b, half a unit by a at its peak, whichever half is read
        assert facts["differences"][1]["lost"]["value"] == pytest.approx(-0.5)

    def test_a_model_is_no_better_than_itself(self):
        responses, reward, _ = drawn()
        facts = facts_of(ChoiceJudge(responses), {"a": reward, "b": 2.0 * reward + 1.0})
        for cell in facts["differences"][0]["gold"]:
            assert (cell["value"], cell["p"]) == (pytest.approx(0.0, abs=1e-12), 1.0)

    def test_gold_lies_between_random_and_the_oracle(self):
        responses, reward, _ = drawn()
        facts = facts_of(ChoiceJudge(responses), {"m": reward})
        gold, bound = values(facts["rows"][0]["gold"]), values(facts[ORACLE])
        assert gold[0] == pytest.approx(facts["random"]["value"]) == pytest.approx(responses.gold.mean())
        assert (np.array(gold) <= np.array(bound) + 1e-12).all()
        assert bound[-1] == pytest.approx(responses.gold.reshape(24, 6).max(axis=1).mean())
        # the same for the planted reward, which captures all there is
        planted = facts_of(ChoiceJudge(responses), {"m": responses.gold})["rows"][0]
        assert planted["captured"]["value"] == pytest.approx(1.0)
        assert (planted["peak"], planted["lost"]["value"]) == (6, pytest.approx(0.0))

    def test_few_groups_have_no_interval(self):
        responses, reward, other = drawn(9)
        facts = facts_of(ChoiceJudge(responses), {"a": reward, "b": other})
        assert facts["rows"][0]["gold"][0]["low"] is None
        assert facts["differences"][0]["gold"][-1]["p"] is None

    def test_gold_that_never_varies(self):
        judge = ChoiceJudge(made(np.ones((12, 3))))
        row = facts_of(judge, {"m": np.arange(36.0)})["rows"][0]
        assert (row["gain_sd"], row["captured"], row["spearman"]) == (None, None, None)
        assert values(row["gold"]) == pytest.approx([1.0, 1.0, 1.0])

    def test_prompts_whose_gold_never_varies_have_no_correlation(self):
        gold = np.vstack([np.arange(3.0)] * 11 + [np.ones(3)])
        row = facts_of(ChoiceJudge(made(gold)), {"m": np.tile(np.arange(3.0), 12)})["rows"][0]
        assert row["spearman"] == {end: pytest.approx(1.0) for end in ("value", "low", "high")}

    def test_levels_must_agree(self):
        responses, reward, _ = drawn()
        judge = ChoiceJudge(responses)
        one = judge.curves(reward)
        for curves, message in (
            ({}, "at least one model"),
            ({"a": {"m": [one]}, "b": {"n": [one]}}, "'b' has others"),
            ({"a": {"m": [one]}, "b": {"m": [one, one]}}, "'b' has others"),
            ({"a": {"m": []}}, "'a' has others"),
        ):
            with pytest.raises(InvalidInputError, match=message):
                over_optimisation_facts(judge, curves, reference="m")
        with pytest.raises(InvalidInputError, match="reference of over-optimisation"):
            over_optimisation_facts(judge, {"a": {"m": [one]}}, reference="k")

    def test_a_judge_for_each_draw(self):
        judges = [
            ChoiceJudge(made(np.random.default_rng(seed).standard_normal((24, 6)) * (1 + seed))) for seed in (0, 1)
        ]
        perfect = [judge.curves(judge.responses.gold) for judge in judges]
        facts = over_optimisation_facts(judges, {"l": {"m": perfect}}, reference="m", n_resamples=40)
        row = facts["rows"][0]
        assert (facts["n_settings"], row["captured"]["value"]) == (2, pytest.approx(1.0))
        best = [judge.responses.gold.reshape(24, 6).max(axis=1).mean() for judge in judges]
        assert facts[ORACLE][-1]["value"] == pytest.approx(np.mean(best))
        gains = [
            (top - judge.responses.gold.mean()) / judge.scored.gold_facts["within_sd"]
            for top, judge in zip(best, judges)
        ]
        assert row["gain_sd"][-1]["value"] == pytest.approx(np.mean(gains))
        low, high = (end([judge.responses.gold for judge in judges]) for end in (np.min, np.max))
        assert (facts["gold"]["low"], facts["gold"]["high"]) == (low, high)

    def test_judges_of_draws_must_agree(self):
        first, other = ChoiceJudge(made(np.eye(12))), ChoiceJudge(made(np.eye(12)), ns=[2])
        curves = {"l": {"m": [first.curves(np.arange(144.0))] * 2}}
        for judges, message in (([first], "got 1 for 2 draws"), ([first, other], "the same ns")):
            with pytest.raises(InvalidInputError, match=message):
                over_optimisation_facts(judges, curves, reference="m")

    def test_draws_are_widened_because_they_are_few(self):
        judge = ChoiceJudge(made(np.tile(np.arange(3.0), (12, 1))))
        flat = np.ones((12, 3))
        draws = [from_gold(flat * level) for level in (1.0, 2.0, 3.0)]
        cell = over_optimisation_facts(judge, {"l": {"m": draws}}, reference="m")["rows"][0]["gold"][-1]
        # prompts are alike: what is left is the t interval of three numbers, 2 +- 4.30 / sqrt 3, cut by what can be picked
        assert cell["value"] == pytest.approx(2.0)
        assert cell["high"] - cell["low"] > 3.0
