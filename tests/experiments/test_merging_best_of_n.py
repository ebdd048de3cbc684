"""The study of best-of-n: rewards of any kind on the same candidates, tables and figures that say what the facts say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from embedrm import EmbeddedPreferences, HashingEncoder, LinearHead, PreferenceDataset, Report, RewardPipeline, encode
from embedrm.datasets.candidates import candidates, prompts_where, shared_prompts
from embedrm.errors import InvalidInputError
from embedrm.evaluation.best_of_n import best_of_n_facts
from embedrm.experiments.merging_best_of_n import BestOfNStudy
from embedrm.merging.heads import merge_heads
from embedrm.reporting import best_of_n as parts

DIM = 6


def vectors(n_prompts: int = 50, k: int = 4, seed: int = 0, binary: bool = False) -> EmbeddedPreferences:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_prompts, k, DIM)).astype(np.float32)
    gold = x.reshape(-1, DIM) @ np.linspace(2.0, -1.0, DIM)
    return EmbeddedPreferences.from_arrays(
        x,
        rewards=(gold > 0).astype(float) if binary else np.round(gold, 1),
        domain=np.array(["a", "b"])[np.arange(n_prompts) % 2],
        covariates={"characters": rng.integers(1, 50, n_prompts * k)},
    )


def texts(rows: list[tuple[str, list[str], list[float], str]], *, pairs: bool = True) -> PreferenceDataset:
    """Prompts of (text, responses, gold, split); the pairs are those of unequal gold."""
    responses = [(r, i, g) for i, (_, rs, gs, _) in enumerate(rows) for r, g in zip(rs, gs)]
    found = [
        (a, b)
        for a, (_, i, g) in enumerate(responses)
        for b, (_, j, h) in enumerate(responses)
        if pairs and i == j and g > h
    ]
    return PreferenceDataset(
        pd.DataFrame({"prompt": [p for p, *_ in rows], "split": [s for *_, s in rows]}),
        pd.DataFrame(responses, columns=["response", "prompt_of", "gold"]),
        pd.DataFrame(found, columns=["chosen", "rejected"], dtype="int64"),
        name="small",
    )


SMALL = [
    ("What is two and two?", ["4", "5", "6"], [1.0, 0.0, 0.0], "test"),
    ("What is one and one?", ["2", "2, surely"], [1.0, 1.0], "test"),
    ("What is one and two?", ["3", "4, I think"], [1.0, 0.0], "train"),
]


@pytest.fixture(scope="module")
def prefs() -> EmbeddedPreferences:
    return vectors()


@pytest.fixture(scope="module")
def heads(prefs: EmbeddedPreferences) -> dict[str, LinearHead]:
    general = LinearHead(l2=1.0).fit(prefs[prefs.domain == "a"])
    domain = LinearHead(l2=1.0).fit(prefs[prefs.domain == "b"])
    merged = merge_heads([general, domain], [0.5, 0.5], rescale=True)
    return {"general": general, "merged": merged}


@pytest.fixture(scope="module")
def report(prefs: EmbeddedPreferences, heads: dict[str, LinearHead]) -> Report:
    study = BestOfNStudy(heads, prefs, n_resamples=50)
    report = Report("best-of-n", "Test", study.findings())
    study.add_sections(report)
    study.add_sections(report, "other", "The other", "Said beside it.")
    return report


class TestStudy:
    def test_models_functions_and_arrays_are_the_same_rewards(self, prefs, heads):
        model = heads["merged"]
        given: dict[str, Any] = {"model": model, "function": model.predict, "array": model.predict(prefs).tolist()}
        study = BestOfNStudy(given, prefs, n_resamples=20)
        rows = {row["model"]: {k: v for k, v in row.items() if k != "model"} for row in study.facts()["rows"]}
        assert rows["model"] == rows["function"] == rows["array"]
        facts = best_of_n_facts({"model": model.predict(prefs)}, prefs.responses, n_resamples=20)
        assert facts["rows"][0] | {"model": ""} == rows["model"] | {"model": ""}

    def test_what_is_chosen_is_compared_with_the_reference(self, prefs, heads):
        study = BestOfNStudy(heads, prefs, compare=[("merged", "random")], n_resamples=50)
        facts = study.facts()
        assert facts["reference"] == "general"
        cell = study.difference("merged", "general")
        assert cell == facts["differences"][0]["micro"][facts["ns"].index(facts["headline"])]
        assert study.difference("merged", "random", 2)["value"] > 0
        with pytest.raises(InvalidInputError, match="general − merged at n = 4 was not measured"):
            study.difference("general", "merged")
        with pytest.raises(InvalidInputError, match="at n = 9 was not measured"):
            study.difference("merged", "general", 9)

    def test_responses_alone_and_parts_of_the_prompts(self, prefs, heads):
        mask = np.arange(prefs.responses.n_prompts) < 20
        study = BestOfNStudy(heads, prefs.responses, prompts=mask, n_resamples=20)
        assert study.facts()["candidates"]["n_prompts"] == 20
        chosen = study.selected("merged")
        assert prefs.responses.prompt_of[chosen["rows"]].tolist() == list(range(20))
        rewards = study.rewards["merged"].reshape(-1, 4)[:20]
        assert (chosen["rows"] % 4).tolist() == rewards.argmax(axis=1).tolist()
        assert study.selected("merged", 2)["n"].tolist() == [2] * 20
        with pytest.raises(InvalidInputError, match="there is no model 'own' here"):
            study.selected("own")

    def test_texts_take_pipelines_functions_and_arrays(self):
        data = texts(SMALL)
        pipeline = RewardPipeline(HashingEncoder(dim=16), LinearHead(l2=1.0), store=False).fit(data.split("train"))
        lengths = data.responses["characters"].to_numpy(dtype=float)
        models = {"pipeline": pipeline, "short": lambda d: -d.responses["characters"], "array": lengths}
        study = BestOfNStudy(models, data, n_resamples=20)
        np.testing.assert_allclose(study.rewards["pipeline"], pipeline.predict(data))
        np.testing.assert_array_equal(study.rewards["short"], -lengths)
        rows = {row["model"]: row for row in study.facts()["rows"]}
        assert rows["array"]["micro"] == rows["length only"]["micro"]

    def test_progress_is_told(self, prefs, heads):
        seen: list[Any] = []

        def progress(label: str) -> Any:
            seen.append(label)
            return lambda done, total: seen.append((done, total))

        BestOfNStudy(heads, prefs, progress=progress, n_resamples=2)
        assert seen == ["score candidates", (1, 2), (2, 2)]

    def test_what_cannot_be_read_is_said(self, prefs, heads):
        data = texts(SMALL)
        with pytest.raises(InvalidInputError, match="'general' reads vectors, and texts came"):
            BestOfNStudy(heads, data)
        pipeline = RewardPipeline(HashingEncoder(), LinearHead(), store=False)
        with pytest.raises(InvalidInputError, match="'p' reads texts, and vectors came"):
            BestOfNStudy({"p": pipeline}, prefs)
        with pytest.raises(InvalidInputError, match="at least one model"):
            BestOfNStudy({}, prefs)
        with pytest.raises(InvalidInputError, match="expects EmbeddedPreferences, EmbeddedResponses or a Preference"):
            BestOfNStudy(heads, np.zeros((3, 2)))  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match=r"rewards of 'm' must have shape \(200,\)"):
            BestOfNStudy({"m": np.zeros(3)}, prefs)


class TestReport:
    def test_it_renders_and_names_are_the_callers(self, report, tmp_path):
        assert list(report.tables)[:4] == [
            "best-of-n",
            "best-of-n-detail",
            "best-of-n-differences",
            "best-of-n-domains",
        ]
        assert list(report.figures) == ["best-of-n", "best-of-n-proxy", "other", "other-proxy"]
        files = report.save(tmp_path)
        assert files["html"].is_file()
        assert Report.from_json(report.to_json()) == report
        assert "Said beside it." in report.sections[1].text

    def test_the_table_holds_the_facts(self, prefs, heads):
        facts = BestOfNStudy(heads, prefs, n_resamples=50).facts()
        table = parts.best_of_n_table(facts)
        assert [column.key for column in table.columns] == ["model", "n1", "n2", "n3", "n4", "spearman"]
        for shown, row in zip(table.rows, facts["rows"]):
            assert shown["model"] == row["model"]
            for j, n in enumerate(facts["ns"]):
                assert shown[f"n{n}"] == row["micro"][j]
        assert [row["group"] for row in table.rows] == ["models"] * 2 + ["baselines"] * 3 + ["bound"]

    def test_long_grids_are_shown_at_a_few_n_with_the_headline(self):
        sizes = np.array([16] * 3 + [11] * 4)
        gold = np.random.default_rng(0).normal(size=sizes.sum())
        prefs = EmbeddedPreferences.from_arrays(
            np.zeros((sizes.sum(), 1)), rewards=gold, prompt_of=np.repeat(np.arange(7), sizes)
        )
        facts = BestOfNStudy({"m": gold, "k": -gold}, prefs, n_resamples=5).facts()
        shown = [facts["ns"][j] for j in parts.shown_places(facts)]
        assert (facts["headline"], shown) == (11, [1, 2, 3, 5, 9, 11, 16])
        table = parts.differences_table(facts)
        assert [row["n"] for row in table.rows] == [2, 3, 5, 9, 11, 16]
        assert [row["prompts"] for row in table.rows] == [7, 7, 7, 7, 7, 3]

    def test_the_figure_says_what_the_paper_needs_and_what_is_here(self, prefs, heads):
        caption = parts.best_of_n_figure(BestOfNStudy(heads, prefs, n_resamples=5).facts()).caption
        assert "up to 16 answers" in caption
        assert "here a prompt has 4 candidates, so that curves end at n = 4" in caption
        many = vectors(5, 20)
        study = BestOfNStudy({"m": many.responses.gold}, many, n_resamples=5)
        assert "here a prompt has 20 candidates." in parts.paper_sentence(study.facts())

    def test_a_few_prompts_with_sixteen_are_counted(self):
        sizes = np.array([16, 16, 3])
        gold = np.random.default_rng(0).normal(size=sizes.sum())
        prefs = EmbeddedPreferences.from_arrays(
            np.zeros((sizes.sum(), 1)), rewards=gold, prompt_of=np.repeat(np.arange(3), sizes)
        )
        facts = BestOfNStudy({"m": gold}, prefs, n_resamples=5).facts()
        assert "3 to 16 candidates, and 2 of 3 have 16" in parts.paper_sentence(facts)
        figure = parts.best_of_n_figure(facts)
        # one sample all along: the prompt with three candidates is in none of it
        by_label = {series["label"]: series["y"] for series in figure.data["series"]}
        assert by_label["random"] == pytest.approx([gold[:32].mean()] * 16)
        assert "2 of 3 prompts, those with at least 16 candidates, the same at every n" in figure.caption
        assert "K = 3 (1), 16 (2) by prompts" in parts.best_of_n_table(facts).caption

    def test_binary_gold_is_a_share_and_standardised_gold_is_said(self):
        prefs = vectors(binary=True)
        models = {"m": prefs.responses.gold}
        facts = BestOfNStudy(models, prefs, n_resamples=5).facts()
        assert parts.best_of_n_figure(facts).data["y_label"] == "gold of the choice (share of ones)"
        assert "the oracle's row is pass@n" in parts.gold_sentence(facts)
        standard = BestOfNStudy(models, prefs, n_resamples=5, gold="standard").facts()
        assert "standardised within each domain" in parts.gold_sentence(standard)

    @pytest.mark.parametrize("estimator", ["unbiased", "lin2024", "sun2025"])
    def test_the_scheme_is_said(self, prefs, heads, estimator):
        study = BestOfNStudy(heads, prefs, estimator=estimator, n_permutations=3, n_resamples=5)
        said = parts.how_sentence(study.facts())
        words = {"unbiased": "all subsets of n", "lin2024": "Lin et al. (2024)", "sun2025": "over 3 random orders"}
        assert words[estimator] in said
        assert said in parts.best_of_n_table(study.facts()).caption

    def test_one_candidate_each_still_makes_a_report(self):
        prefs = EmbeddedPreferences.from_arrays(np.zeros((2, 1)), [[0, 1]], prompt_of=[0, 1], rewards=[1.0, 2.0])
        study = BestOfNStudy({"m": [1.0, 2.0]}, prefs, n_resamples=5)
        report = Report("best-of-n", "One", study.findings())
        study.add_sections(report)
        assert report.summary == ["Most prompts have one candidate: there is nothing to choose."]
        assert report.text()
        assert report.html()

    def test_reward_and_gold_are_drawn_in_one_unit(self, prefs, heads):
        facts = BestOfNStudy(heads, prefs, n_resamples=5).facts()
        series = {one["label"]: one["y"] for one in parts.proxy_figure(facts).data["series"]}
        assert list(series) == ["general: its reward", "general: gold", "merged: its reward", "merged: gold"]
        (general,) = [row for row in facts["rows"] if row["model"] == "general"]
        assert series["general: gold"] == [cell["value"] for cell in general["gain_sd"]]

    def test_many_models_are_drawn_as_far_as_a_figure_goes(self, prefs):
        rng = np.random.default_rng(0)
        models = {f"m{i}": rng.normal(size=len(prefs.responses)) for i in range(15)}
        facts = BestOfNStudy(models, prefs, n_resamples=5).facts()
        figure = parts.best_of_n_figure(facts)
        labels = [series["label"] for series in figure.data["series"]]
        assert len(labels) == 12
        assert labels[-4:] == ["first response", "random", "length only", "oracle"]
        assert "Some rows are in the table only" in figure.caption
        assert parts.best_of_n_figure(facts, models=["m14"]).data["series"][0]["label"] == "m14"
        assert "The first 6 of 15 models" in parts.proxy_figure(facts).caption


class TestCandidates:
    def test_prompts_without_pairs_stay(self):
        data = texts(SMALL)
        assert data.split("test").compact().n_prompts == 1
        part = candidates(data, "test")
        assert (part.n_prompts, part.n_responses, part.n_pairs) == (2, 5, 2)
        assert part.info["candidates"] == {"other_splits": 1}
        assert part.response_texts() == ["4", "5", "6", "2", "2, surely"]
        pairs = part.pairs[["chosen", "rejected"]].to_numpy().tolist()
        assert pairs == [[0, 1], [0, 2]]

    def test_rows_follow_their_prompts(self):
        part = prompts_where(texts(SMALL), np.array([True, False, True]))
        assert part.responses["prompt_of"].tolist() == [0, 0, 0, 1, 1]
        assert part.pairs[["chosen", "rejected"]].to_numpy().tolist() == [[0, 1], [0, 2], [3, 4]]
        encoded = encode(part, HashingEncoder(dim=8), store=False, sides=("response",))
        assert encoded.responses.gold.tolist() == [1.0, 0.0, 0.0, 1.0, 0.0]

    def test_prompts_that_models_were_fitted_on_are_left_out(self):
        data = texts(SMALL)
        fitted = texts([("  what is TWO and two", ["4", "7"], [1.0, 0.0], "train")])
        assert shared_prompts(data, fitted).tolist() == [True, False, False]
        part = candidates(data, "test", without=fitted)
        assert part.prompts["prompt"].tolist() == ["What is one and one?"]
        assert part.info["candidates"] == {"other_splits": 1, "fitted_on": 1}
        with pytest.raises(InvalidInputError, match="every prompt is one that the models were fitted on"):
            candidates(data, without=data)

    def test_a_stated_group_is_a_prompt_too(self):
        data = texts(SMALL)
        grouped = PreferenceDataset(
            data.prompts.assign(group=["sum", "double", "other"]), data.responses, data.pairs, name="grouped"
        )
        # another wording of the same problem, by the group that both files state
        fitted = texts([("Add two to two.", ["4", "7"], [1.0, 0.0], "train")])
        fitted = PreferenceDataset(fitted.prompts.assign(group=["sum"]), fitted.responses, fitted.pairs)
        assert shared_prompts(grouped, fitted).tolist() == [True, False, False]

    def test_an_unknown_split_names_those_present(self):
        with pytest.raises(InvalidInputError, match=r"unknown split 'tset'\. Did you mean 'test'"):
            candidates(texts(SMALL), "tset")
