"""Best-of-n: every estimate against an enumeration of subsets, counted cases, and laws."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from embedrm.errors import InvalidInputError
from embedrm.evaluation.best_of_n import (
    ESTIMATORS,
    FIRST,
    LENGTH,
    ORACLE,
    RANDOM,
    best_of_n_facts,
    select_best,
)
from embedrm.numerics import best_of_n as bon
from embedrm.preferences import EmbeddedResponses

QUICK: dict[str, Any] = {"n_resamples": 40}


def data(
    sizes: list[int], gold: Any, *, domain: Any = None, group: Any = None, characters: Any = None
) -> EmbeddedResponses:
    prompt_of = np.repeat(np.arange(len(sizes)), sizes)
    covariates = None if characters is None else {"characters": characters}
    names = np.full(len(sizes), "d") if domain is None else domain
    return EmbeddedResponses({}, prompt_of, domain=names, group=group, gold=gold, covariates=covariates)


def ragged(seed: int = 0, n_prompts: int = 30, most: int = 6, levels: int = 4) -> tuple[EmbeddedResponses, np.ndarray]:
    """Prompts with 1 to ``most`` candidates, rewards and golds with many ties, rows of prompts interleaved."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, most + 1, n_prompts)
    sizes[0] = most
    prompt_of = rng.permutation(np.repeat(np.arange(n_prompts), sizes))
    gold = rng.integers(0, levels, len(prompt_of)).astype(float)
    responses = EmbeddedResponses(
        {},
        prompt_of,
        domain=np.array(["a", "b", "c"])[np.arange(n_prompts) % 3],
        group=[f"g{i // 2}" for i in range(n_prompts)],
        gold=gold,
        covariates={"characters": rng.integers(1, 5, len(prompt_of))},
    )
    return responses, rng.integers(0, levels, len(prompt_of)).astype(float)


def enumerated(reward: np.ndarray, gold: np.ndarray, n: int) -> float:
    """Mean over all subsets of n of the mean gold of those with the subset's highest reward."""
    worth = []
    for subset in combinations(range(len(reward)), n):
        own = list(subset)
        worth.append(gold[own][reward[own] == reward[own].max()].mean())
    return float(np.mean(worth))


def row(facts: dict[str, Any], model: str) -> dict[str, Any]:
    (found,) = [row for row in facts["rows"] if row["model"] == model]
    return found


def values(facts: dict[str, Any], model: str, key: str = "micro") -> list[float]:
    return [cell["value"] for cell in row(facts, model)[key]]


class TestWeights:
    def test_they_are_the_binomials(self):
        for k in (1, 2, 5, 13):
            ns = list(range(1, k + 1))
            exact = [[Fraction(math.comb(i - 1, n - 1), math.comb(k, n)) for i in range(1, k + 1)] for n in ns]
            np.testing.assert_allclose(bon.rank_weights(k, ns), np.array(exact, dtype=float), rtol=1e-13)

    def test_five_hundred_candidates_neither_overflow_nor_cancel(self):
        ns = [1, 2, 30, 250, 499, 500]
        weights = bon.rank_weights(500, ns)
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-12)
        for n, w in zip(ns, weights):
            exact = [float(Fraction(math.comb(i - 1, n - 1), math.comb(500, n))) for i in range(1, 501)]
            np.testing.assert_allclose(w, exact, rtol=1e-11, atol=1e-300)

    def test_the_order_of_n_is_the_callers(self):
        np.testing.assert_array_equal(bon.rank_weights(4, [3, 1]), bon.rank_weights(4, [1, 3])[::-1])


class TestUnbiased:
    @pytest.mark.parametrize("seed", range(3))
    def test_every_prompt_is_the_mean_over_all_subsets(self, seed):
        responses, reward = ragged(seed)
        found = bon.Candidates.of(responses.prompt_of, np.arange(len(responses)))
        gold = responses.gold
        ns = list(range(1, 7))
        columns = gold[found.rows][:, None]
        out = bon.unbiased(reward[found.rows], columns, found, ns)[:, :, 0]
        for p in range(responses.n_prompts):
            mine = np.flatnonzero(responses.prompt_of == p)
            for n in ns:
                if n <= len(mine):
                    assert out[p, n - 1] == pytest.approx(enumerated(reward[mine], gold[mine], n), abs=1e-12)
                else:
                    assert math.isnan(out[p, n - 1])

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 2), st.integers(-3, 3)), min_size=1, max_size=7))
    def test_any_ties(self, pairs):
        reward, gold = np.array(pairs, dtype=float).T
        facts = best_of_n_facts({"m": reward}, data([len(pairs)], gold), n_resamples=2)
        expected = [enumerated(reward, gold, n) for n in facts["ns"]]
        np.testing.assert_allclose(values(facts, "m"), expected, atol=1e-12)

    def test_by_hand_with_a_tie(self):
        # rewards 1, 2, 2; gold 0, 1, 0: pairs {1,2a}, {1,2b}, {2a,2b} give 1, 0 and one half
        facts = best_of_n_facts({"m": [1.0, 2.0, 2.0]}, data([3], [0.0, 1.0, 0.0]), **QUICK)
        np.testing.assert_allclose(values(facts, "m"), [1 / 3, 1 / 2, 1 / 2])
        # best of 2 finds the one right answer unless it is left out: pass@2 = 2/3
        np.testing.assert_allclose(values(facts, ORACLE), [1 / 3, 2 / 3, 1.0])
        assert row(facts, "m")["n_top_ties"] == 1

    def test_one_is_random_and_all_is_the_argmax(self):
        rng = np.random.default_rng(1)
        reward, gold = rng.standard_normal((2, 40, 7))
        facts = best_of_n_facts({"m": reward.ravel()}, data([7] * 40, gold.ravel()), **QUICK)
        assert values(facts, "m")[0] == pytest.approx(gold.mean(axis=1).mean(), abs=1e-12)
        chosen = gold[np.arange(40), reward.argmax(axis=1)]
        assert values(facts, "m")[-1] == pytest.approx(chosen.mean(), abs=1e-12)
        assert values(facts, ORACLE)[-1] == pytest.approx(gold.max(axis=1).mean(), abs=1e-12)
        assert values(facts, RANDOM) == pytest.approx([gold.mean(axis=1).mean()] * 7, abs=1e-12)

    def test_all_equal_rewards_choose_at_random_for_every_n(self):
        responses, _ = ragged(5)
        facts = best_of_n_facts({"m": np.full(len(responses), 3.0)}, responses, **QUICK)
        np.testing.assert_allclose(values(facts, "m"), values(facts, RANDOM), atol=1e-12)
        assert row(facts, "m")["spearman"]["value"] == 0.0
        np.testing.assert_allclose(values(facts, "m", "quantile"), 0.5)

    def test_the_oracle_is_the_upper_bound_and_a_planted_reward_reaches_it(self):
        responses, reward = ragged(2)
        planted = np.exp(responses.gold)
        facts = best_of_n_facts({"m": reward, "planted": planted}, responses, **QUICK)
        bound = np.array(values(facts, ORACLE))
        for name in ("m", RANDOM, LENGTH):
            assert (np.array(values(facts, name)) <= bound + 1e-12).all()
        np.testing.assert_allclose(values(facts, "planted"), bound, rtol=1e-12)
        # the first response is one draw, which may be a lucky one where the bound is of one draw too
        assert values(facts, FIRST)[-1] <= bound[-1]
        captured = row(facts, "planted")["captured"]
        assert captured[0] is None
        assert all(cell["value"] == pytest.approx(1.0) for cell in captured[1:])
        assert row(facts, "planted")["spearman"]["value"] == pytest.approx(1.0)

    def test_an_inverted_reward_is_the_worst_of_n(self):
        facts = best_of_n_facts({"m": [3.0, 2.0, 1.0]}, data([3], [1.0, 2.0, 3.0]), **QUICK)
        np.testing.assert_allclose(values(facts, "m"), [2.0, (1 + 1 + 2) / 3, 1.0])

    def test_permuting_the_responses_changes_nothing(self):
        responses, reward = ragged(3)
        order = np.random.default_rng(9).permutation(len(responses))
        moved = EmbeddedResponses(
            {},
            responses.prompt_of[order],
            domain=responses.domain,
            group=responses.group,
            gold=responses.gold[order],
            covariates={"characters": responses.covariates["characters"][order]},
        )
        one = best_of_n_facts({"m": reward}, responses, **QUICK)
        other = best_of_n_facts({"m": reward[order]}, moved, **QUICK)
        for name in ("m", RANDOM, LENGTH, ORACLE):
            for key in ("micro", "macro", "gain", "proxy", "quantile"):
                if row(one, name)[key][0] is not None:
                    for end in ("value", "low", "high"):
                        a, b = (
                            [math.nan if cell[end] is None else cell[end] for cell in row(f, name)[key]]
                            for f in (one, other)
                        )
                        np.testing.assert_allclose(a, b, atol=1e-12, err_msg=f"{name} {key} {end}")

    def test_a_monotone_change_of_rewards_changes_no_choice(self):
        responses, reward = ragged(4)
        shift = np.random.default_rng(0).normal(size=responses.n_prompts)[responses.prompt_of]
        models = {"m": reward, "other": 0.5 * reward**3 + shift}
        facts = best_of_n_facts(models, responses, ns=[1, 2, 3], **QUICK)
        assert values(facts, "m") == pytest.approx(values(facts, "other"), abs=1e-12)
        last = facts["differences"][0]["micro"][-1]
        assert (last["value"], last["p"]) == (pytest.approx(0.0, abs=1e-12), 1.0)


class TestSchemesOfPapers:
    def test_prefixes_by_hand(self):
        # prompt one: best of the first 1, 2, 3, 4 is rows 0, 1, 1 (the tie goes to the earlier), 3
        reward = [1.0, 5.0, 5.0, 9.0, 4.0, 3.0]
        gold = [10.0, 20.0, 30.0, 40.0, 7.0, 8.0]
        facts = best_of_n_facts({"m": reward}, data([4, 2], gold), estimator="lin2024", **QUICK)
        np.testing.assert_allclose(values(facts, "m"), [(10 + 7) / 2, (20 + 7) / 2, 20, 40])
        np.testing.assert_allclose(values(facts, ORACLE), [(10 + 7) / 2, (20 + 8) / 2, 30, 40])

    def test_prefixes_follow_the_order_of_the_data(self):
        one = best_of_n_facts({"m": [2.0, 1.0]}, data([2], [1.0, 0.0]), estimator="lin2024", **QUICK)
        other = best_of_n_facts({"m": [1.0, 2.0]}, data([2], [0.0, 1.0]), estimator="lin2024", **QUICK)
        assert values(one, "m") == [1.0, 1.0]
        assert values(other, "m") == [0.0, 1.0]

    def test_one_candidate_captures_nothing(self):
        # the first of two happens to be the better one; nothing was chosen
        facts = best_of_n_facts({"m": [1.0, 2.0]}, data([2], [1.0, 0.0]), estimator="lin2024", **QUICK)
        assert row(facts, ORACLE)["captured"][0] is None
        assert row(facts, ORACLE)["captured"][1]["value"] == 1.0

    def test_permutations_tend_to_the_unbiased_estimate(self):
        responses, reward = ragged(6, n_prompts=20)
        options = {"estimator": "sun2025", "n_resamples": 5}
        exact = np.array(values(best_of_n_facts({"m": reward}, responses, **QUICK), "m"))
        errors = [
            np.abs(values(best_of_n_facts({"m": reward}, responses, n_permutations=n, **options), "m") - exact).max()
            for n in (10, 4000)
        ]
        assert errors[1] < 0.02 < errors[0]

    def test_permutations_are_seeded_and_shared_by_the_models(self):
        responses, reward = ragged(7)
        options = {"estimator": "sun2025", "n_permutations": 7, "n_resamples": 5}
        one = best_of_n_facts({"m": reward, "same": reward.copy()}, responses, **options)
        assert values(one, "m") == values(one, "same")
        assert one == best_of_n_facts({"m": reward, "same": reward.copy()}, responses, **options)
        other = best_of_n_facts({"m": reward, "same": reward}, responses, random_state=1, **options)
        assert values(one, "m") != values(other, "m")
        assert (one["n_permutations"], best_of_n_facts({"m": reward}, responses, **QUICK)["n_permutations"]) == (
            7,
            None,
        )

    def test_one_permutation_takes_each_candidate_first_alike(self):
        gold = np.eye(3).ravel()
        responses = data([3] * 3, gold)
        facts = best_of_n_facts({"m": np.zeros(9)}, responses, estimator="sun2025", n_permutations=6000, n_resamples=2)
        # equal rewards: the first of a random order
        np.testing.assert_allclose(values(facts, "m"), 1 / 3, atol=0.02)

    @pytest.mark.parametrize("estimator", ESTIMATORS)
    def test_all_candidates_without_ties_are_the_same_choice_for_every_scheme(self, estimator):
        rng = np.random.default_rng(3)
        reward, gold = rng.standard_normal((2, 60))
        facts = best_of_n_facts({"m": reward}, data([5] * 12, gold), estimator=estimator, n_permutations=3, **QUICK)
        best = reward.reshape(12, 5).argmax(axis=1)
        assert values(facts, "m")[-1] == pytest.approx(gold.reshape(12, 5)[np.arange(12), best].mean())


class TestCounts:
    def test_prompts_with_too_few_candidates_are_left_out_and_counted(self):
        facts = best_of_n_facts({"m": np.arange(6.0)}, data([1, 2, 3], [5.0, 0.0, 1.0, 1.0, 1.0, 1.0]), **QUICK)
        assert facts["ns"] == [1, 2, 3]
        assert facts["n_prompts"] == [3, 2, 1]
        assert facts["n_excluded"] == [0, 1, 2]
        assert facts["headline"] == 2
        found = facts["candidates"]
        assert (found["k_min"], found["k_max"], found["k_mean"]) == (1, 3, 2.0)
        assert found["by_k"] == {"1": 1, "2": 1, "3": 1}
        # one candidate, and three of one gold
        assert found["n_uninformative"] == 2
        assert row(facts, "m")["n_spearman"] == 1
        np.testing.assert_allclose(values(facts, "m"), [(5 + 0.5 + 1) / 3, 1.0, 1.0])
        np.testing.assert_allclose(values(facts, RANDOM), [(5 + 0.5 + 1) / 3, 0.75, 1.0])

    def test_a_single_candidate_is_its_own_choice(self):
        facts = best_of_n_facts({"m": [0.0, 0.0]}, data([1, 1], [2.0, 4.0]), **QUICK)
        assert facts["ns"] == [1]
        for name in ("m", FIRST, RANDOM, ORACLE):
            assert values(facts, name) == [3.0]
        assert row(facts, "m")["spearman"] is None
        assert row(facts, "m")["quantile"][0]["value"] == 0.5
        assert row(facts, "m")["gain_sd"] == [None]

    def test_same_prompts_keeps_one_sample(self):
        responses, reward = ragged(8)
        facts = best_of_n_facts({"m": reward}, responses, ns=[1, 2, 4], same_prompts=True, **QUICK)
        enough = np.bincount(responses.prompt_of) >= 4
        assert facts["n_prompts"] == [int(enough.sum())] * 3
        assert facts["candidates"]["left_out"]["prompts_with_too_few"] == int((~enough).sum())
        kept = best_of_n_facts({"m": reward}, responses, ns=[1, 2, 4], prompts=enough, **QUICK)
        assert facts["rows"] == kept["rows"]

    def test_curves_are_of_one_sample(self):
        responses, _ = ragged(16, n_prompts=60)
        reward = np.random.default_rng(0).normal(size=len(responses))
        facts = best_of_n_facts({"m": reward}, responses, **QUICK)
        n = facts["headline"]
        assert facts["n_prompts"][0] > facts["curve"]["n_prompts"] == facts["n_prompts"][facts["ns"].index(n)]
        enough = np.bincount(responses.prompt_of) >= n
        alone = best_of_n_facts({"m": reward}, responses, prompts=enough, ns=list(range(1, n + 1)), **QUICK)
        assert facts["curve"]["ns"] == alone["ns"]
        for one, other in zip(facts["curve"]["rows"], alone["rows"]):
            np.testing.assert_allclose(
                [cell["value"] for cell in one["micro"]], [cell["value"] for cell in other["micro"]], atol=1e-12
            )
        proxy = [cell["value"] for cell in facts["curve"]["rows"][0]["proxy"]]
        assert (np.diff(proxy) > 0).all()

    def test_prompts_by_rows_and_by_mask(self):
        responses, reward = ragged(9)
        mask = np.arange(responses.n_prompts) % 3 == 0
        one = best_of_n_facts({"m": reward}, responses, prompts=mask, **QUICK)
        other = best_of_n_facts({"m": reward}, responses, prompts=np.flatnonzero(mask), **QUICK)
        assert one == other
        assert one["domains"] == ["a"]
        assert one["candidates"]["n_prompts"] == mask.sum()

    def test_rewards_of_prompts_not_asked_about_are_not_read(self):
        responses, reward = ragged(10)
        mask = np.arange(responses.n_prompts) < 10
        holes = np.where(mask[responses.prompt_of], reward, np.nan)
        one = best_of_n_facts({"m": holes}, responses, prompts=mask, **QUICK)
        assert one == best_of_n_facts({"m": reward}, responses, prompts=mask, **QUICK)

    def test_many_candidates_are_judged_where_sun_et_al_read_them(self):
        reward = np.arange(40.0)
        assert best_of_n_facts({"m": reward}, data([40], reward), n_resamples=2)["ns"] == [1, 2, 5, 10, 30, 40]
        assert best_of_n_facts({"m": reward[:16]}, data([16], reward[:16]), n_resamples=2)["ns"] == list(range(1, 17))

    def test_the_divergence(self):
        facts = best_of_n_facts({"m": np.arange(4.0)}, data([4], np.arange(4.0)), **QUICK)
        assert facts["kl"] == pytest.approx([0.0, math.log(2) - 0.5, math.log(3) - 2 / 3, math.log(4) - 3 / 4])


class TestGold:
    def test_missing_everywhere_in_a_prompt_is_left_out_and_counted(self):
        facts = best_of_n_facts({"m": np.arange(4.0)}, data([2, 2], [np.nan, np.nan, 0.0, 1.0]), **QUICK)
        assert facts["candidates"]["left_out"]["prompts_without_gold"] == 1
        assert facts["n_prompts"] == [1, 1]

    def test_missing_in_part_is_an_error_or_a_counted_exclusion(self):
        responses = data([3, 2], [0.0, 1.0, np.nan, 0.0, 1.0])
        reward = np.arange(5.0)
        with pytest.raises(
            InvalidInputError, match=r"gold is missing of 1 responses of 1 prompts .* missing='drop-prom"
        ):
            best_of_n_facts({"m": reward}, responses, **QUICK)
        dropped = best_of_n_facts({"m": reward}, responses, missing="drop-prompts", **QUICK)
        assert dropped["candidates"]["left_out"]["prompts_with_gold_missing"] == 1
        assert dropped["n_prompts"] == [1, 1]
        rest = best_of_n_facts({"m": reward}, responses, missing="drop-responses", **QUICK)
        assert rest["candidates"]["left_out"]["responses_without_gold"] == 1
        assert rest["n_prompts"] == [2, 2]
        assert values(rest, "m")[-1] == 1.0

    def test_no_gold_at_all(self):
        with pytest.raises(InvalidInputError, match="no response with gold"):
            best_of_n_facts({"m": [1.0, 2.0]}, data([2], None), **QUICK)

    def test_raw_by_default_and_standardised_within_domains(self):
        rng = np.random.default_rng(0)
        gold = np.concatenate([rng.normal(3.0, 1.0, 30), rng.normal(70.0, 20.0, 30)])
        responses = data([3] * 20, gold, domain=["a"] * 10 + ["b"] * 10)
        raw = best_of_n_facts({"m": gold}, responses, **QUICK)
        assert raw["gold"]["scale"] == "raw"
        assert raw["gold"]["mean"] == pytest.approx(gold.mean())
        facts = best_of_n_facts({"m": gold}, responses, gold="standard", **QUICK)
        z = np.concatenate([(g - g.mean()) / g.std() for g in (gold[:30], gold[30:])]).reshape(20, 3)
        assert values(facts, "m")[-1] == pytest.approx(z.max(axis=1).mean())
        assert (facts["gold"]["mean"], facts["gold"]["sd"]) == (pytest.approx(0.0, abs=1e-12), pytest.approx(1.0))
        best = row(facts, "m")["domains"]["b"][-1]["value"]
        assert best == pytest.approx(z[10:].max(axis=1).mean())

    def test_equal_gold_everywhere_gains_nothing(self):
        facts = best_of_n_facts({"m": np.arange(4.0)}, data([2, 2], np.ones(4)), **QUICK)
        assert row(facts, "m")["captured"] == [None, None]
        assert row(facts, "m")["spearman"] is None
        assert facts["candidates"]["n_uninformative"] == 2
        standard = best_of_n_facts({"m": np.arange(4.0)}, data([2, 2], np.ones(4)), gold="standard", **QUICK)
        assert values(standard, "m") == [0.0, 0.0]

    def test_binary_gold_is_known(self):
        assert best_of_n_facts({"m": [1.0, 2.0]}, data([2], [0.0, 1.0]), **QUICK)["gold"]["binary"]
        assert not best_of_n_facts({"m": [1.0, 2.0]}, data([2], [0.0, 2.0]), **QUICK)["gold"]["binary"]


class TestOtherColumns:
    def test_quantile_and_reward_of_the_choice_by_hand(self):
        facts = best_of_n_facts({"m": [1.0, 2.0, 6.0]}, data([3], [5.0, 5.0, 1.0]), **QUICK)
        # gold: two beat one other and tie with one (0.75), the last beats none
        np.testing.assert_allclose(values(facts, "m", "quantile"), [0.5, (0.75 + 0 + 0) / 3, 0.0], atol=1e-12)
        above = np.array([1.0, 2.0, 6.0]) - 3.0
        sd = math.sqrt((above**2).mean())
        assert values(facts, "m", "proxy")[-1] == pytest.approx(3.0 / sd)
        assert values(facts, "m", "proxy")[0] == pytest.approx(0.0, abs=1e-12)
        golds = np.array([5.0, 5.0, 1.0])
        assert values(facts, "m", "gain_sd")[-1] == pytest.approx((1.0 - golds.mean()) / golds.std())

    def test_the_reward_of_the_choice_ignores_scale_and_prompt_offsets_and_grows(self):
        responses, _ = ragged(11, most=4)
        reward = np.random.default_rng(2).normal(size=len(responses))
        shift = 100.0 * np.arange(responses.n_prompts)[responses.prompt_of]
        facts = best_of_n_facts({"m": reward, "moved": 7.0 * reward + shift}, responses, same_prompts=True, **QUICK)
        np.testing.assert_allclose(values(facts, "m", "proxy"), values(facts, "moved", "proxy"), atol=1e-9)
        assert (np.diff(values(facts, "m", "proxy")) > 0).all()

    def test_spearman_is_scipys_in_every_prompt(self):
        responses, reward = ragged(12, most=8)
        found = []
        for p in range(responses.n_prompts):
            mine = responses.prompt_of == p
            if len(np.unique(responses.gold[mine])) > 1:
                constant = len(np.unique(reward[mine])) == 1
                found.append(0.0 if constant else spearmanr(reward[mine], responses.gold[mine]).statistic)
        facts = best_of_n_facts({"m": reward}, responses, **QUICK)
        assert row(facts, "m")["spearman"]["value"] == pytest.approx(np.mean(found))
        assert row(facts, "m")["n_spearman"] == len(found)

    def test_first_and_length_are_rows_of_their_own(self):
        responses = data([2, 2], [1.0, 2.0, 3.0, 4.0], characters=[9, 1, 1, 9])
        facts = best_of_n_facts({"m": np.zeros(4)}, responses, **QUICK)
        assert values(facts, FIRST) == [2.0, 2.0]
        assert values(facts, LENGTH) == [2.5, 2.5]
        assert [r["kind"] for r in facts["rows"]] == ["model", "baseline", "baseline", "baseline", "bound"]
        bare = best_of_n_facts({"m": np.zeros(4)}, data([2, 2], [1.0, 2.0, 3.0, 4.0]), **QUICK)
        assert [r["model"] for r in bare["rows"]] == ["m", FIRST, RANDOM, ORACLE]


class TestDifferences:
    def test_they_are_paired_and_antisymmetric(self):
        responses, reward = ragged(13)
        models = {"a": reward, "b": responses.gold + reward, "c": responses.gold}
        facts = best_of_n_facts(models, responses, compare=[("a", "b"), ("c", LENGTH)], ns=[1, 2, 3], **QUICK)
        named = {(d["model"], d["reference"]): d for d in facts["differences"]}
        assert list(named) == [("b", "a"), ("c", "a"), ("a", "b"), ("c", LENGTH)]
        there, back = named["b", "a"]["micro"], named["a", "b"]["micro"]
        for one, other in zip(there, back):
            assert one["value"] == pytest.approx(-other["value"], abs=1e-12)
            assert one["low"] == pytest.approx(-other["high"], abs=1e-12)
        points = np.array(values(facts, "b")) - np.array(values(facts, "a"))
        np.testing.assert_allclose([cell["value"] for cell in there], points, atol=1e-12)

    def test_holm_corrects_over_n_above_one(self):
        responses, reward = ragged(14)
        options = {"reference": "a", "ns": [1, 2, 3], "n_resamples": 400}
        facts = best_of_n_facts({"a": reward, "b": responses.gold}, responses, **options)
        cells = facts["differences"][0]["micro"]
        assert (cells[0]["value"], cells[0]["p"]) == (pytest.approx(0.0, abs=1e-12), 1.0)
        ps = [cell["p"] for cell in cells[1:]]
        assert min(cell["p_holm"] for cell in cells[1:]) == pytest.approx(min(1.0, min(ps) * len(ps)))

    def test_intervals_are_clustered_by_prompt_group(self):
        rng = np.random.default_rng(5)
        gold, reward = rng.normal(size=(2, 80 * 4))
        alone = best_of_n_facts({"m": reward}, data([4] * 80, gold), n_resamples=400)
        # every prompt three times in one group says no more than once
        tripled = data([4] * 240, np.tile(gold, 3), group=[f"g{i}" for i in np.tile(np.arange(80), 3)])
        grouped = best_of_n_facts({"m": np.tile(reward, 3)}, tripled, n_resamples=400)
        apart = best_of_n_facts({"m": np.tile(reward, 3)}, data([4] * 240, np.tile(gold, 3)), n_resamples=400)

        def width(facts: dict[str, Any]) -> float:
            cell = row(facts, "m")["micro"][-1]
            return cell["high"] - cell["low"]

        assert width(grouped) == pytest.approx(width(alone), rel=0.2)
        assert width(apart) < 0.7 * width(alone)

    def test_a_handful_of_groups_has_no_interval_and_no_p(self):
        rng = np.random.default_rng(0)
        sizes = [3] * 9 + [2] * 12
        gold, reward = rng.normal(size=(2, sum(sizes)))
        domain = ["a"] * 9 + ["b"] * 12
        facts = best_of_n_facts({"m": reward, "k": gold}, data(sizes, gold, domain=domain), **QUICK)
        micro = facts["differences"][0]["micro"]
        # nine prompts have three candidates
        assert [cell["low"] is None for cell in row(facts, "m")["micro"]] == [False, False, True]
        assert [cell["p"] is None for cell in micro] == [False, False, True]
        assert (micro[2]["p_holm"], micro[1]["p_holm"]) == (None, micro[1]["p"])
        assert [cell["low"] is None for cell in row(facts, "m")["domains"]["a"]] == [True] * 3
        assert [cell["low"] is None for cell in row(facts, "m")["domains"]["b"][:2]] == [False, False]
        assert row(facts, "k")["captured"][2] == {"value": 1.0, "low": None, "high": None}
        # one group of many prompts is one group
        one = best_of_n_facts({"m": reward}, data(sizes, gold, group=["g"] * 21), **QUICK)
        assert row(one, "m")["micro"][0]["low"] is None
        assert row(one, "m")["spearman"]["low"] is None

    def test_macro_counts_domains_once(self):
        gold = np.array([0.0, 1.0] * 4)
        responses = data([2] * 4, gold, domain=["a", "a", "a", "b"])
        facts = best_of_n_facts({"m": [0, 1, 0, 1, 0, 1, 1, 0]}, responses, **QUICK)
        assert values(facts, "m") == pytest.approx([0.5, 0.75])
        assert values(facts, "m", "macro") == pytest.approx([0.5, 0.5])

    def test_a_domain_without_enough_candidates_has_no_cell(self):
        responses = data([3, 2], np.arange(5.0), domain=["a", "b"])
        facts = best_of_n_facts({"m": np.arange(5.0), "k": np.zeros(5)}, responses, **QUICK)
        assert row(facts, "m")["domains"]["b"][2] is None
        assert facts["differences"][0]["domains"]["b"][2] is None
        assert row(facts, "m")["domains"]["a"][2]["value"] == 2.0


class TestSelect:
    def test_the_best_of_all_or_of_the_first_n(self):
        responses = data([3, 2, 1], None)
        reward = [1.0, 3.0, 2.0, 4.0, 4.0, 0.0]
        chosen = select_best(reward, responses)
        assert chosen["rows"].tolist() == [1, 3, 5]
        assert (chosen["n"].tolist(), chosen["n_ties"], chosen["n_excluded"]) == ([3, 2, 1], 1, 0)
        two = select_best(reward, responses, n=2, prompts=[0, 2])
        assert (two["rows"].tolist(), two["n_excluded"]) == ([1], 1)

    def test_what_is_chosen_is_worth_what_the_facts_say(self):
        rng = np.random.default_rng(0)
        reward, gold = rng.standard_normal((2, 50))
        responses = data([5] * 10, gold)
        facts = best_of_n_facts({"m": reward}, responses, estimator="lin2024", **QUICK)
        for n in (1, 3, 5):
            rows = select_best(reward, responses, n=n)["rows"]
            assert gold[rows].mean() == pytest.approx(values(facts, "m")[n - 1])


def test_facts_are_plain_and_reproducible():
    responses, reward = ragged(15)
    facts = best_of_n_facts({"m": reward, "k": responses.gold}, responses, **QUICK)
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts == best_of_n_facts({"m": reward, "k": responses.gold}, responses, **QUICK)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"estimator": "unbaised"}, "Did you mean 'unbiased'"),
        ({"reference": "k"}, "unknown model to compare with in best-of-n 'k'"),
        ({"compare": [("m", "nothing")]}, "unknown model to compare with"),
        ({"missing": "drop"}, "unknown treatment of missing gold"),
        ({"gold": "z"}, "unknown scale of gold"),
        ({"ns": [3]}, "no prompt has more than 2 candidates"),
        ({"ns": []}, "whole numbers from 1"),
        ({"ns": [0, 1]}, "whole numbers from 1"),
        ({"ns": [1.5]}, "whole numbers from 1"),
        ({"prompts": [7]}, "prompts must be a mask of 2 prompts or rows"),
        ({"prompts": [False, False]}, "no response with gold"),
        ({"n_permutations": 0}, "n_permutations to be a whole number from 1"),
        ({"n_resamples": 0}, "n_resamples to be a whole number from 1"),
        ({"rewards": {}}, "rewards of at least one model"),
        ({"rewards": {"m": [1.0, 2.0]}}, r"rewards of 'm' must have shape \(4,\)"),
        ({"rewards": {"m": [1.0, np.nan, 2.0, np.inf]}}, "NaN or infinity for 2 of 4 candidates"),
        ({"rewards": {"oracle": np.zeros(4)}}, "cannot be called 'oracle'"),
    ],
)
def test_errors_say_what_is_wrong(options, said):
    rewards = options.pop("rewards", {"m": np.arange(4.0)})
    with pytest.raises(InvalidInputError, match=said):
        best_of_n_facts(rewards, data([2, 2], np.arange(4.0)), **({"n_resamples": 5} | options))


def test_gold_must_be_finite_and_n_a_number():
    with pytest.raises(InvalidInputError, match="gold must be finite"):
        best_of_n_facts({"m": [1.0, 2.0]}, data([2], [np.inf, 1.0]), **QUICK)
    with pytest.raises(InvalidInputError, match="select_best needs n"):
        select_best([1.0, 2.0], data([2], None), n=0)
