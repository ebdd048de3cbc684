"""Learning curves: what each kind of subset holds, and that the numbers are those of fits done by hand."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from embedrm import Annotator, EmbeddedPreferences, LinearHead, Report, annotate
from embedrm.errors import InvalidInputError
from embedrm.evaluation import accuracy_facts, comparison_facts
from embedrm.experiments.curve import curve_facts, learning_curve
from embedrm.experiments.subsets import KINDS, curve_sizes, joining_sizes
from embedrm.heads.random import RandomHead
from embedrm.preferences import EmbeddedResponses
from embedrm.reward_model import RewardModel

DIM = 8


def make(n_prompts: int = 60, k: int = 4, *, seed: int = 0, outcome: Any = None, covariates: bool = True) -> Any:
    """K-wise lists under a linear reward; three domains of unequal size, and every fifth group has two prompts."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_prompts, k, DIM)).astype(np.float32)
    gold = x.reshape(-1, DIM) @ np.linspace(2.0, -1.0, DIM) + 0.5 * rng.standard_normal(n_prompts * k)
    return EmbeddedPreferences.from_arrays(
        x,
        rewards=np.round(gold, 1),
        domain=np.array(["a", "b", "b", "c", "c", "c", "c"])[np.arange(n_prompts) % 7],
        group=[f"g{i - (i % 5 == 4 and i % 7 == 6)}" for i in range(n_prompts)],
        covariates={"characters": rng.integers(1, 50, n_prompts * k)} if covariates else None,
    )


@pytest.fixture(scope="module")
def prefs() -> EmbeddedPreferences:
    return make()


@pytest.fixture(scope="module")
def halves() -> tuple[EmbeddedPreferences, EmbeddedPreferences]:
    everything = make(120, 3, seed=1)
    number = np.char.lstrip(everything.groups, "g").astype(int)
    return everything[number < 80], everything[number >= 80]


def subset(prefs: EmbeddedPreferences, by: str, size: int, seed: int = 0) -> EmbeddedPreferences:
    return prefs[joining_sizes(prefs, by, seed) <= size]


# -- subsets ----------------------------------------------------------------------------------------------------------


def test_prompts_come_in_whole_groups_and_no_group_more_than_needed(prefs: EmbeddedPreferences) -> None:
    assert len(np.unique(prefs.groups)) < 60  # some groups have two prompts
    joins = joining_sizes(prefs, "prompts", 3)
    exceeded = 0
    for size in range(1, 61):
        part = prefs[joins <= size]
        drawn = np.unique(part.groups)
        assert len(part) == np.isin(prefs.groups, drawn).sum()
        assert size <= len(part.active_prompts) <= size + 1
        exceeded += len(part.active_prompts) > size
    assert exceeded == 60 - len(np.unique(prefs.groups))
    assert (joins <= 60).all()


@pytest.mark.parametrize("seed", range(5))
def test_domains_keep_their_shares_at_every_size(seed: int) -> None:
    prefs = EmbeddedPreferences.from_arrays(
        np.zeros((97, 2, 1)), rewards=np.tile([1.0, 0.0], (97, 1)), domain=["a"] * 3 + ["b"] * 30 + ["c"] * 64
    )
    joins = joining_sizes(prefs, "prompts", seed)
    total = np.array([3, 30, 64])
    assert sorted(joins) == list(range(1, 98))
    for size in range(1, 98):
        count = np.array([(prefs.domain[joins <= size] == d).sum() for d in "abc"])
        # one t between all counts: floor or ceiling of n·t each
        assert ((count - 1) / total).max() < ((count + 1) / total).min()


def test_a_domain_of_one_prompt_does_not_always_come_at_the_same_place() -> None:
    prefs = EmbeddedPreferences.from_arrays(
        np.zeros((41, 2, 1)), rewards=np.tile([1.0, 0.0], (41, 1)), domain=["rare"] + ["usual"] * 40
    )
    places = [int(joining_sizes(prefs, "prompts", seed)[0]) for seed in range(200)]
    assert min(places) < 5
    assert max(places) > 37
    assert 16 < np.mean(places) < 26


def test_pairs_keeps_every_prompt_with_as_many_pairs_as_asked(prefs: EmbeddedPreferences) -> None:
    available = np.bincount(prefs.prompt_rows)
    for size in (1, 2, 4, 6):
        part = subset(prefs, "pairs", size)
        assert np.bincount(part.prompt_rows).tolist() == np.minimum(available, size).tolist()
    assert joining_sizes(prefs, "pairs", 0).max() == available.max() == 6


def test_responses_keeps_every_prompt_with_all_pairs_among_as_many_responses(prefs: EmbeddedPreferences) -> None:
    prompt_of = prefs.responses.prompt_of
    for size in (2, 3, 4):
        part = subset(prefs, "responses", size)
        assert part.active_prompts.tolist() == prefs.active_prompts.tolist()
        assert np.bincount(prompt_of[part.active]).max() == size
        assert len(part) == np.isin(prefs.pairs, part.active).all(axis=1).sum()
    assert (np.bincount(subset(prefs, "responses", 2).prompt_rows) == 1).all()
    assert len(subset(prefs, "responses", 4)) == len(prefs)


def test_a_prompt_whose_pairs_are_few_among_its_responses_is_not_lost() -> None:
    # five responses, one pair: two random responses would miss it nine times in ten
    prefs = EmbeddedPreferences.from_arrays(
        np.zeros((20, 5, 1)), rewards=np.tile([1.0, 0.0, np.nan, np.nan, np.nan], (20, 1))
    )
    chain = EmbeddedPreferences(prefs.responses, np.concatenate([prefs.pairs, prefs.pairs + 1, prefs.pairs + 2]))
    for seed in range(5):
        assert len(np.unique(subset(chain, "responses", 2, seed).prompt_rows)) == 20


@pytest.mark.parametrize("by", KINDS)
def test_draws_differ_by_seed_and_only_by_seed(prefs: EmbeddedPreferences, by: str) -> None:
    np.testing.assert_array_equal(joining_sizes(prefs, by, (0, 1)), joining_sizes(prefs, by, (0, 1)))
    assert (joining_sizes(prefs, by, (0, 1)) != joining_sizes(prefs, by, (0, 2))).any()
    # only pairs that are in the slice count, whatever else the responses hold
    some = prefs[::2]
    assert joining_sizes(some, by, 0).max() <= curve_sizes(some, by)[-1]


def test_the_order_of_rows_changes_no_draw_of_prompts(prefs: EmbeddedPreferences) -> None:
    order = np.random.default_rng(0).permutation(len(prefs))
    np.testing.assert_array_equal(joining_sizes(prefs[order], "prompts", 4), joining_sizes(prefs, "prompts", 4)[order])


def test_sizes_double_up_to_everything(prefs: EmbeddedPreferences) -> None:
    assert curve_sizes(prefs, "prompts", steps=4) == [8, 15, 30, 60]
    assert curve_sizes(prefs, "prompts", steps=50) == [2, 4, 8, 15, 30, 60]
    assert curve_sizes(prefs, "pairs") == [1, 2, 3, 6]
    assert curve_sizes(prefs, "responses") == [2, 4]
    assert curve_sizes(prefs, "prompts", ["all", 7, 20]) == [7, 20, 60]


@pytest.mark.parametrize(
    ("by", "options", "said"),
    [
        ("prompt", {}, "Did you mean 'prompts'"),
        ("prompts", {"sizes": [10, 61]}, "61 is beyond the training data, which have at most 60 prompts"),
        ("pairs", {"sizes": [7]}, "at most 6 pairs a prompt"),
        ("responses", {"sizes": [1, 2]}, "whole numbers of responses a prompt from 2"),
        ("prompts", {"sizes": [10, 60, "all"]}, "different sizes"),
        ("prompts", {"sizes": []}, "different sizes, got none"),
        ("prompts", {"sizes": [10.5]}, "whole numbers"),
        ("prompts", {"sizes": [True]}, "whole numbers"),
        ("prompts", {"steps": 1}, "at least 2 sizes"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(prefs, by: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        curve_sizes(prefs, by, **options)


@pytest.mark.parametrize("by", ["pairs", "responses"])
def test_data_of_one_pair_a_prompt_vary_by_prompts_only(by: str) -> None:
    plain = make(20, 2)
    with pytest.raises(InvalidInputError, match="grow the set by prompts"):
        curve_sizes(plain, by)
    assert curve_sizes(plain, "prompts", steps=2)[-1] == len(plain.active_prompts)


@pytest.mark.parametrize("by", KINDS)
def test_pairs_across_prompts_belong_to_no_prompt(prefs: EmbeddedPreferences, by: str) -> None:
    across = EmbeddedPreferences(prefs.responses, [[0, 1], [0, 4], [2, 9]])
    with pytest.raises(InvalidInputError, match="2 of 3 training pairs compare responses to different prompts"):
        joining_sizes(across, by)


# -- facts ------------------------------------------------------------------------------------------------------------


def test_one_draw_is_what_accuracy_facts_say_of_the_same_fits(halves) -> None:
    training, evaluation = halves
    facts = curve_facts({"linear": LinearHead(l2=0.1)}, training, evaluation, sizes=[10, 40, "all"], n_seeds=1)
    margins = {}
    for size, row in zip((10, 40, 80), facts["rows"]):
        part = training[joining_sizes(training, "prompts", (0, 0)) <= size]
        margins[str(size)] = LinearHead(l2=0.1).fit(part).margins(evaluation)
        assert (row["model"], row["size"], row["n_pairs"]) == ("linear", size, len(part))
        assert (row["n_responses"], row["n_prompts"]) == (len(part.active), len(part.active_prompts))
        assert row["spread"] == {"micro": None, "macro": None}
    expected = accuracy_facts(margins, evaluation)
    for row, by_hand in zip(facts["rows"], expected["rows"]):
        for key in ("micro", "macro", "domains"):
            assert row[key] == by_hand[key]
    for key in ("n_pairs", "n_groups", "domains", "n_by_domain", "confidence", "n_resamples"):
        assert facts[key] == expected[key]
    gain = comparison_facts(margins["80"], margins["40"], evaluation)
    (said,) = facts["gains"]
    for part in ("micro", "macro"):
        assert said[part] == pytest.approx({key: gain[part][key] for key in ("value", "low", "high")})
    assert facts["rows"][0]["micro"]["value"] < facts["rows"][2]["micro"]["value"]


def test_models_beside_it_change_nothing_for_a_model(halves) -> None:
    training, evaluation = halves
    models = {"a": LinearHead(l2=3.0), "b": LinearHead(l2=0.01), "c": RandomHead(1)}
    options = {"sizes": [10, 30, 80], "n_seeds": 2, "n_resamples": 100}
    together = curve_facts(models, training, evaluation, **options)
    for m, (name, model) in enumerate(models.items()):
        alone = curve_facts({name: model}, training, evaluation, **options)
        for row, by_itself in zip(together["rows"][3 * m : 3 * m + 3], alone["rows"]):
            assert row["model"] == name
            for key in ("size", "micro", "macro", "spread", "n_pairs"):
                assert row[key] == pytest.approx(by_itself[key])
        assert together["gains"][m]["micro"] == pytest.approx(alone["gains"][0]["micro"])


def test_several_draws_are_averaged_and_their_spread_is_told(halves) -> None:
    training, evaluation = halves
    facts = curve_facts({"linear": LinearHead(l2=0.1)}, training, evaluation, sizes=[6, 80], n_seeds=4, random_state=5)
    scores = [
        LinearHead(l2=0.1).fit(training[joining_sizes(training, "prompts", (5, s)) <= 6]).score(evaluation)
        for s in range(4)
    ]
    small, large = facts["rows"]
    assert [one["micro"] for one in small["seeds"]] == pytest.approx(scores)
    assert small["micro"]["value"] == pytest.approx(np.mean(scores))
    assert small["spread"]["micro"] == pytest.approx(np.std(scores, ddof=1)) != 0
    assert small["micro"]["low"] < small["micro"]["value"] < small["micro"]["high"]
    assert small["macro"]["value"] == pytest.approx(np.mean([one["macro"] for one in small["seeds"]]))
    assert large["spread"]["micro"] == 0
    assert large["micro"]["value"] == pytest.approx(LinearHead(l2=0.1).fit(training).score(evaluation))


class Recorder(RewardModel):
    """Remembers what it was fitted on."""

    seen: ClassVar[list[EmbeddedPreferences]] = []

    def __init__(self, expert: Any = None) -> None:
        self.expert = expert

    def fit(self, preferences: EmbeddedPreferences, y: None = None) -> Recorder:
        Recorder.seen.append(preferences)
        return self

    def _rewards(self, responses: EmbeddedResponses, rows: Any) -> Any:
        return np.zeros(responses.n_responses if rows is None else len(rows))


def test_fits_see_training_groups_only_and_the_whole_is_fitted_once(halves) -> None:
    training, evaluation = halves
    Recorder.seen.clear()
    facts = curve_facts({"r": Recorder()}, training, evaluation, sizes=[5, 20, "all"], n_seeds=3, n_resamples=10)
    assert [len(part.active_prompts) >= size for part, size in zip(Recorder.seen, [5] * 3 + [20] * 3 + [80])] == [
        True
    ] * 7
    assert len(Recorder.seen) == 7
    assert all(np.isin(part.groups, training.groups).all() for part in Recorder.seen)
    assert len(Recorder.seen[-1]) == len(training)
    # equal rewards count one half
    assert [row["micro"]["value"] for row in facts["rows"]] == [0.5] * 3


def test_a_model_that_draws_draws_anew_wherever_it_does(halves) -> None:
    training, evaluation = halves
    Recorder.seen.clear()
    models = {"random": RandomHead(7), "outer": Recorder(RandomHead(7))}
    facts = curve_facts(models, training, evaluation, sizes=["all"], n_seeds=3)
    scores = [RandomHead(7 + s).fit(training).score(evaluation) for s in range(3)]
    assert [one["micro"] for one in facts["rows"][0]["seeds"]] == scores
    assert len(set(scores)) > 1
    assert len(Recorder.seen) == 3
    assert models["random"].random_state == 7
    assert not hasattr(models["random"], "view_")
    assert facts["gains"] == []


def test_ties_of_the_evaluation_are_left_out_and_counted(halves) -> None:
    training, evaluation = halves
    outcome = np.where(np.arange(len(evaluation)) % 3 == 0, 0.5, 1.0)
    tied = EmbeddedPreferences(evaluation.responses, evaluation.pairs, outcome=outcome)
    options: dict[str, Any] = {"sizes": [20], "n_seeds": 2, "n_resamples": 50}
    facts = curve_facts({"m": LinearHead()}, training, tied, **options)
    without = curve_facts({"m": LinearHead()}, training, evaluation[outcome == 1], **options)
    assert facts["n_ties"] == (outcome == 0.5).sum()
    assert facts["rows"][0]["micro"] == without["rows"][0]["micro"]
    with pytest.raises(InvalidInputError, match="labelled ties"):
        curve_facts({"m": LinearHead()}, training, tied[outcome == 0.5])


def test_a_fit_that_fails_says_where(halves) -> None:
    training, evaluation = halves
    tied = EmbeddedPreferences(training.responses, training.pairs, outcome=np.full(len(training), 0.5))
    with pytest.raises(InvalidInputError, match=r"^mine on 3 prompts \(\d+ pairs\): .*l2"):
        curve_facts({"mine": LinearHead(l2=-1)}, tied, evaluation, sizes=[3])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": {}}, "at least one model"),
        ({"models": {"length only": LinearHead()}}, "name of the baseline"),
        ({"n_seeds": 0}, "at least 1 draw"),
        ({"training": 3}, "expects EmbeddedPreferences"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(halves, change: dict[str, Any], said: str) -> None:
    given = {"models": {"m": LinearHead()}, "training": halves[0], "evaluation": halves[1], **change}
    with pytest.raises(InvalidInputError, match=said):
        curve_facts(**given)


def test_progress_counts_training_pairs_to_the_end(halves) -> None:
    training, evaluation = halves
    calls: list[tuple[int, int]] = []
    models = {"a": LinearHead(), "b": RandomHead()}
    curve_facts(
        models,
        training,
        evaluation,
        sizes=[10, "all"],
        n_seeds=2,
        n_resamples=10,
        progress=lambda label: lambda done, total: calls.append((done, total)),
    )
    done, totals = zip(*calls)
    assert len(calls) == 8
    assert len(set(totals)) == 1
    assert list(done) == sorted(done)
    assert done[-1] == totals[0] > 4 * len(training)


# -- the report -------------------------------------------------------------------------------------------------------

AXES = {"prompts": ["prompts"], "pairs": ["pairs", "responses"], "responses": ["responses", "pairs"]}


@pytest.mark.parametrize("by", KINDS)
def test_the_report_shows_every_point_and_what_it_costs(halves, by: str) -> None:
    training, evaluation = halves
    models = {"one": LinearHead(), "two": LinearHead(l2=1.0)}
    options: dict[str, Any] = {"by": by, "steps": 2, "n_seeds": 2, "n_resamples": 50}
    report = learning_curve(models, training, evaluation, command="x", **options)
    facts = curve_facts(models, training, evaluation, **options)
    assert Report.from_json(report.to_json()) == report
    table = report.tables["learning-curve"]
    n = len(facts["rows"])
    for shown, row in zip(table.rows[:n], facts["rows"]):
        assert (shown["group"], shown["size"]) == (row["model"], str(row["size"]))
        assert (shown["micro"], shown["macro"]) == (row["micro"], row["macro"])
        assert shown["n_pairs"] == round(row["n_pairs"])
    assert [row["size"] for row in table.rows[n:]] == ["length only"]
    assert list(report.figures) == [f"learning-curve-{axis}" for axis in AXES[by]]
    series = report.figures[f"learning-curve-{by}"].data["series"]
    assert [one["label"] for one in series] == ["one", "two"]
    assert series[0]["y"] == [row["micro"]["value"] for row in facts["rows"][: n // 2]]
    assert series[0]["low"] == [row["micro"]["low"] for row in facts["rows"][: n // 2]]
    assert len(report.summary) == 2
    assert report.provenance["seeds"] == {"random_state": 0, "n_seeds": 2}
    assert not [note for note in report.notes if "both" in note]


def test_the_noise_ceiling_stands_where_it_is_known(halves) -> None:
    training, evaluation = halves
    noisy = annotate(evaluation, Annotator(flip_rate=0.25), random_state=0)
    report = learning_curve({"m": LinearHead()}, training, noisy, sizes=[10, 80], n_seeds=1, n_resamples=50)
    last = report.tables["learning-curve"].rows[-1]
    assert last["size"] == "noise ceiling"
    assert last["micro"]["value"] == pytest.approx(0.75)
    lines = report.figures["learning-curve-prompts"].data["reference"]
    assert [line["label"] for line in lines] == ["chance", "length only", "noise ceiling"]


def test_shared_prompts_and_unknown_lengths_are_told(halves) -> None:
    training = halves[0]
    report = learning_curve({"m": LinearHead()}, training, training, sizes=[10, 80], n_seeds=1, n_resamples=10)
    assert any("accuracy is too high" in note for note in report.notes)
    plain = make(20, 2, covariates=False)
    report = learning_curve({"m": LinearHead()}, plain[:12], plain[12:], sizes=[4], n_seeds=1, n_resamples=10)
    assert any("length-only row is absent" in note for note in report.notes)


def test_every_size_is_named_on_the_axis_where_there_is_room(halves) -> None:
    training, evaluation = halves
    report = learning_curve({"m": LinearHead()}, training, evaluation, sizes=[5, 78, 79, 80], n_seeds=1, n_resamples=10)
    figure = report.figures["learning-curve-prompts"]
    assert figure.data["x"]["ticks"][0] in (5, 6)
    assert figure.data["x"]["labels"][-1] == "80"
    assert len(figure.data["x"]["ticks"]) == 2
