"""Arms of the Reusing-Embeddings study: what is shown, how it is labelled, what is fitted, all counted again by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from embedrm import EmbeddedPreferences, EmbeddedResponses
from embedrm.errors import InvalidInputError
from embedrm.experiments import reuse_arms as arms
from embedrm.experiments import reuse_plan as plan
from embedrm.experiments.reuse_cost import HERE, THERE, _measured, cost_rows
from embedrm.experiments.reuse_plan import Arm, ReusePreset
from embedrm.experiments.reuse_settings import PEAKED, encoded, generated, open_setting, recipes, rematched, resized

SMALL = ReusePreset(
    dim=6,
    n_train=60,
    n_test=12,
    k_test=8,
    annotations=(30,),
    seeds=2,
    members=2,
    paper_pairs=40,
    paper_dim=9,
    n_resamples=40,
    ns=(2, 4, 8),
    jobs=1,
)


@pytest.fixture(scope="module")
def setting():
    return generated(SMALL)


def quiet(done: int, total: int) -> None:
    pass


class TestPairs:
    @pytest.mark.parametrize("ranks", [True, False])
    @pytest.mark.parametrize("selection", plan.SELECTIONS)
    def test_across_prompts_the_same_responses_are_shown_as_often(self, setting, selection, ranks):
        same, cross = Arm(60, selection=selection), Arm(60, selection=selection, cross=True, ranks=ranks)
        for seed in (0, 3):
            first, second = setting.pairs(same, seed), setting.pairs(cross, seed)
            assert len(first) == len(second) == 60
            assert not first.cross_prompt.any()
            assert second.cross_prompt.all()
            np.testing.assert_array_equal(np.sort(first.pairs.ravel()), np.sort(second.pairs.ravel()))
            gold = setting.train.gold
            assert (gold[second.pairs[:, 0]] > gold[second.pairs[:, 1]]).all()

    def test_selections_are_the_ranks_that_they_say(self, setting):
        gold = setting.train.gold.reshape(60, 10)
        ranks = gold.argsort(axis=1).argsort(axis=1).reshape(-1)
        expected = {plan.SIMILAR: {4, 5}, plan.DIVERSIFIED: {0, 9}}
        for selection, found in expected.items():
            assert set(ranks[setting.pairs(Arm(60, selection=selection), 0).active]) == found

    def test_across_prompts_the_ranks_are_kept(self, setting):
        gold = setting.train.gold
        ranks = gold.reshape(60, 10).argsort(axis=1).argsort(axis=1).reshape(-1)
        for selection, found in ((plan.SIMILAR, [4, 5]), (plan.DIVERSIFIED, [0, 9])):
            pairs = setting.pairs(Arm(60, selection=selection, cross=True), 0).pairs
            np.testing.assert_array_equal(np.sort(ranks[pairs], axis=1), np.tile(found, (60, 1)))
        mixed = setting.pairs(Arm(60, selection=plan.DIVERSIFIED, cross=True, ranks=False), 0).pairs
        assert 0.3 < (ranks[mixed[:, 0]] == ranks[mixed[:, 1]]).mean() < 0.7
        # of two random responses either may be the better one: the gap is that of random responses
        pairs = setting.pairs(Arm(60, cross=True), 0).pairs
        rng = np.random.default_rng(0)
        other = np.abs(gold[rng.permutation(600)] - gold).mean()
        assert np.abs(gold[pairs[:, 0]] - gold[pairs[:, 1]]).mean() == pytest.approx(other, rel=0.25)

    @pytest.mark.parametrize("seed", range(5))
    def test_two_values_of_gold_can_always_be_matched(self, seed):
        n = 261
        prefs = graded([[0, 1]] * n, ["a"] * n)
        rng = np.random.default_rng(seed)
        pairs = rng.permuted(prefs.pairs, axis=1)
        found = rematched(prefs.responses, pairs, rng, roles=False)
        gold, prompt = prefs.responses.gold[found], prefs.responses.prompt_of[found]
        assert (gold[:, 0] != gold[:, 1]).all()
        assert (prompt[:, 0] != prompt[:, 1]).all()
        np.testing.assert_array_equal(np.sort(found.ravel()), np.arange(2 * n))

    def test_what_cannot_be_matched_is_refused(self, setting):
        only = setting.train.take(range(10))
        with pytest.raises(InvalidInputError, match="give more prompts"):
            rematched(only, np.array([[0, 1]]), np.random.default_rng(0))

    def test_seeds_draw_other_pairs_and_fewer_are_the_first_of_more(self, setting):
        more, fewer = setting.pairs(Arm(60), 0), setting.pairs(Arm(20), 0)
        np.testing.assert_array_equal(more.pairs[:20], fewer.pairs)
        assert not np.array_equal(more.pairs, setting.pairs(Arm(60), 1).pairs)


class TestLabels:
    @pytest.mark.parametrize("arm", [Arm(60, 1.0), Arm(60, 0.5, plan.SIMILAR), Arm(60, 3.0, plan.SIMILAR, cross=True)])
    def test_errors_are_those_of_the_logistic_annotator_on_one_scale(self, setting, arm):
        noisy, facts = setting.labelled(arm, 1)
        gold = setting.train.gold
        delta = np.abs(gold[noisy.pairs[:, 0]] - gold[noisy.pairs[:, 1]]) / gold.std()
        assert facts["error"] == pytest.approx(expit(-arm.beta * delta).mean())
        assert facts["wrong"] == (gold[noisy.pairs[:, 0]] < gold[noisy.pairs[:, 1]]).mean()
        assert facts["gap"] == pytest.approx(delta.mean())

    def test_noise_levels_turn_round_more_and_more(self, setting):
        errors = [setting.labelled(Arm(60, beta), 0)[1]["error"] for beta in plan.BETAS]
        assert errors == sorted(errors)
        assert errors[0] < 0.12 < 0.3 < errors[-1] < 0.5


class TestGenerated:
    def test_shapes_and_what_is_told(self, setting):
        assert setting.train.n_responses == 600
        assert setting.candidates.n_responses == 96
        assert setting.judge.ns == [1, 2, 4, 8]
        assert "60 training prompts with 10 candidates and 12 test prompts with 8" in setting.told

    def test_training_and_test_prompts_share_no_vector(self, setting):
        train, test = (set(map(tuple, s.view("response:final"))) for s in (setting.train, setting.candidates))
        assert not train & test

    def test_responses_that_share_more_differ_less_within_prompts(self):
        gaps = [generated(SMALL, alike=alike).labelled(SMALL.centre, 0)[1]["gap"] for alike in (0.1, 0.9)]
        assert gaps[0] > 1.5 * gaps[1]

    def test_another_teacher_gives_another_gold(self, setting):
        assert not np.allclose(generated(SMALL, PEAKED).train.gold, setting.train.gold)


def graded(golds: list[list[float]], domains: list[str]) -> EmbeddedPreferences:
    prompt_of = np.repeat(np.arange(len(golds)), [len(g) for g in golds])
    gold = np.concatenate([np.asarray(g, dtype=float) for g in golds])
    responses = EmbeddedResponses(
        {"response:3": np.arange(2.0 * len(gold)).reshape(-1, 2).astype("float32")},
        prompt_of,
        domain=domains,
        gold=gold,
    )
    starts = np.unique(prompt_of, return_index=True)[1]
    return EmbeddedPreferences(responses, np.stack([starts, starts + 1], axis=1))


class TestEncoded:
    def test_gold_is_standard_within_domains_and_equal_lists_are_left_out(self):
        prefs = graded([[0, 1], [2, 2], [1, 0, 1], [10, 30], [20, 60]], ["a", "a", "a", "b", "b"])
        made = encoded(prefs, prefs, "mine", "response:3")
        assert made is not None
        # of the second prompt, whose responses are alike, nothing is kept, though its gold is in the scale
        a = np.array([0, 1, 2, 2, 1, 0, 1], dtype=float)
        b = np.array([10, 30, 20, 60], dtype=float)
        a, b = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
        np.testing.assert_allclose(made.train.gold, np.concatenate([a[:2], a[4:], b]))
        np.testing.assert_array_equal(made.train.prompt_of, [0, 0, 1, 1, 1, 2, 2, 3, 3])
        np.testing.assert_array_equal(made.train.view("response:final")[2], [8.0, 9.0])
        assert made.train.domain.tolist() == ["a", "a", "b", "b"]
        assert "4 training and 4 test prompts" in made.told
        pairs = made.pairs(Arm(4, cross=True), 0)
        domain = made.train.domain[made.train.prompt_of]
        assert (domain[pairs.pairs[:, 0]] == domain[pairs.pairs[:, 1]]).all()

    @pytest.mark.parametrize("gold", [[[np.nan, np.nan]] * 3, [[1, 1]] * 3])
    def test_without_gold_that_differs_there_is_no_setting(self, gold):
        prefs = graded(gold, ["a"] * 3)
        assert encoded(prefs, prefs, "mine", "response:3") is None


@pytest.fixture(scope="module")
def sources():
    return recipes(SMALL)


@pytest.fixture(scope="module")
def cells(sources):
    made = arms.Cells(sources, (plan.BT_MLP, plan.LINEAR), keep=Arm(60))
    made.run([Arm(60), Arm(60, 0.5), Arm(60)], quiet)
    return made


class TestRecipes:
    def test_each_seed_has_a_function_of_gold_and_vectors_of_its_own(self, sources):
        first, second = (open_setting(source) for source in sources)
        for one, other in ((first.train, second.train), (first.candidates, second.candidates)):
            assert not np.isin(one.view("response:final")[:, 0], other.view("response:final")[:, 0]).any()
        vectors = first.candidates.view("response:final")
        teachers = [resized(source.teacher, 6) for source in sources]
        np.testing.assert_allclose(teachers[0].rewards(vectors), first.candidates.gold)
        assert abs(np.corrcoef(teachers[1].rewards(vectors), first.candidates.gold)[0, 1]) < 0.9

    def test_judges_are_those_of_the_sources_without_vectors(self, cells, sources):
        for judge, source in zip(cells.judges, sources):
            whole = open_setting(source).judge
            assert not judge.responses.views
            np.testing.assert_array_equal(judge.mean_gold, whole.mean_gold)
            np.testing.assert_array_equal(judge.curves(whole.responses.gold)[0], whole.curves(whole.responses.gold)[0])


class TestCells:
    def test_what_is_fitted_once_is_not_fitted_again(self, cells):
        assert cells.n_fits == 8
        cells.run([Arm(60, 0.5)], quiet)
        assert cells.n_fits == 8

    def test_a_cell_is_the_model_of_its_labels_and_seed(self, cells, sources):
        setting = open_setting(sources[1])
        pairs, label = setting.labelled(Arm(60, 0.5), 1)
        made = plan.MODELS[plan.BT_MLP]().set_params(random_state=1).fit(pairs)
        expected = setting.judge.curves(made.predict(setting.candidates))
        for one, other in zip(cells.judged[Arm(60, 0.5), plan.BT_MLP][1], expected):
            np.testing.assert_array_equal(one, other)
        assert cells.labels[Arm(60, 0.5)][1] == label

    def test_rewards_kept_are_of_the_first_seed(self, cells, sources):
        curves, _ = cells.judges[0].curves(cells.rewards[plan.LINEAR])
        np.testing.assert_array_equal(curves, cells.judged[Arm(60), plan.LINEAR][0][0])

    def test_two_processes_give_the_bits_of_one(self, cells, sources):
        others = arms.Cells(sources, (plan.BT_MLP, plan.LINEAR), keep=Arm(60), jobs=2)
        others.run([Arm(60), Arm(60, 0.5)], quiet)
        assert others.labels == cells.labels
        for key, draws in cells.judged.items():
            for (curves, rho), (curves_2, rho_2) in zip(draws, others.judged[key]):
                np.testing.assert_array_equal(curves, curves_2)
                np.testing.assert_array_equal(rho, rho_2)
        np.testing.assert_array_equal(others.rewards[plan.BT_MLP], cells.rewards[plan.BT_MLP])

    @pytest.mark.parametrize("jobs", [1, 2])
    def test_what_cannot_be_drawn_is_an_error_and_leaves_no_cell(self, sources, jobs):
        more = arms.Cells(sources, (plan.LINEAR,), jobs=jobs)
        with pytest.raises(InvalidInputError, match="ask for fewer"):
            more.run([Arm(60), Arm(10_000)], quiet)
        assert not more.labels

    def test_comparisons_are_means_over_prompts_and_seeds(self, cells):
        facts = cells.compare({"some": Arm(60), "more": Arm(60, 0.5)}, plan.BT_MLP, 40)
        by = {
            model: np.mean([curves[:, -1, 0].mean() for curves, _ in cells.judged[Arm(60), model]])
            for model in cells.models
        }
        row = arms.row_of(facts, "differences", "some", plan.LINEAR)
        assert row["gold"][-1]["value"] == pytest.approx(by[plan.LINEAR] - by[plan.BT_MLP])
        assert cells.label(Arm(60), "gap") == np.mean([f["gap"] for f in cells.labels[Arm(60)]])
        # what is gained is above the random choice of the same arrays, in their own deviations
        gains = [
            (curves[:, -1, 0].mean() - judge.mean_gold.mean()) / judge.scored.gold_facts["within_sd"]
            for (curves, _), judge in zip(cells.judged[Arm(60), plan.LINEAR], cells.judges)
        ]
        assert arms.row_of(facts, "rows", "some", plan.LINEAR)["gain_sd"][-1]["value"] == pytest.approx(np.mean(gains))
        assert facts["n_settings"] == facts["n_draws"] == 2

    def test_permutations_estimate_what_all_subsets_give(self, cells):
        rows = arms.estimators(cells, 600)
        assert [row["model"] for row in rows] == list(cells.models)
        for row in rows:
            assert row["ns"] == [1, 2, 4, 8]
            assert row["unbiased"][-1] == pytest.approx(row["permutations"][-1])  # all candidates, whatever the order
            assert 0 < row["most"] < 0.1


class TestCost:
    def test_parameters_are_counted_and_sizes_are_both(self, setting):
        rows = cost_rows(setting, Arm(60), SMALL, (plan.BT_MLP, plan.LINEAR))
        assert [(r["size"], r["model"], r["pairs"], r["dim"]) for r in rows] == [
            (HERE, plan.BT_MLP, 60, 6),
            (HERE, plan.LINEAR, 60, 6),
            (THERE, plan.BT_MLP, 40, 9),
            (THERE, plan.LINEAR, 40, 9),
        ]

        def layers(dim: int) -> int:
            return dim * 256 + 256 + 256 * 64 + 64 + 64 + 1

        assert [r["parameters"] for r in rows] == [layers(6), 6, layers(9), 9]
        assert layers(2048) == 541_057 < plan.MOST_PARAMETERS
        for row in rows:
            assert row["seconds"] > 0 <= row["core_seconds"]

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by Linux alone")
    def test_memory_that_an_earlier_fit_has_freed_is_counted_again(self):
        rng = np.random.default_rng(0)
        big = EmbeddedPreferences.from_arrays(
            rng.normal(size=(1500, 2, 64)).astype("f4"), rewards=rng.normal(size=(1500, 2))
        )
        # small enough that the allocator keeps what is freed
        blocks = [np.ones(10_000) for _ in range(1500)]
        del blocks
        first, second, third = (_measured(plan.BT_MLP, big)["memory"] for _ in range(3))
        assert min(first, second, third) > 0.3 * max(first, second, third) > 1_000_000


def test_the_centre_is_in_every_factor():
    preset = plan.REUSE_PRESETS["quick"]
    assert preset.centre in preset.noise()
    assert preset.centre in preset.amounts()
    assert preset.centre in [same for same, _ in preset.pairings().values()]
    assert [arm.beta for arm in preset.noise()] == [10, 5, 3, 1, 0.7, 0.5]
    assert preset.ns == (2, 5, 10, 30, 50, 100, 300, 500)
    for full in plan.REUSE_PRESETS.values():
        assert max(full.ns) <= full.k_test
        # similar and diversified pairs are one for each prompt
        assert full.centre.n <= full.n_train
