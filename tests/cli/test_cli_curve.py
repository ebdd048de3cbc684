"""embedrm curve: what is drawn is what Python draws; what is ambiguous or makes no sense is said in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embedrm import (
    LinearHead,
    MixtureRewardModel,
    PooledRewardModel,
    Report,
    RoutedRewardModel,
    encode,
    read_preferences,
)
from embedrm.cli.curve import build_models, read_sizes
from embedrm.errors import InvalidInputError
from embedrm.experiments.curve import learning_curve
from embedrm.heads.prototype import PrototypeHead

CURVE = "curve --encoder hashing --no-store --n-resamples 50"


def rows(report: Report) -> list[dict]:
    """The table without what takes another time in each run."""
    table = report.tables["learning-curve"].rows
    return [{key: value for key, value in row.items() if key != "fit_seconds"} for row in table]


def without_splits(path: str) -> str:
    kept = [json.loads(line) for line in Path(path).read_text().splitlines()]
    text = "".join(json.dumps({k: v for k, v in row.items() if k != "split"}) + "\n" for row in kept)
    Path("n.jsonl").write_text(text)
    return "n.jsonl"


def write_kwise() -> str:
    """Lists of four responses, best first, a fifth of the prompts to test on."""
    words = ["a kettle", "a cup", "a bucket", "a shoe"]
    lines = [
        {
            "prompt": f"Where does the tea go, question {i}?",
            "responses": [f"Into {word}, number {i % 7}." for word in words],
            "gold": [3, 2, 1, 0],
            "split": "test" if i % 5 == 4 else "train",
        }
        for i in range(40)
    ]
    Path("k.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return "k.jsonl"


def test_the_curve_is_the_one_that_python_draws(cli, pairs_file: str) -> None:
    words = f"{CURVE} {pairs_file} --set l2=0.3 --sizes 6,12,all --seeds 2 --random-state 4 --json"
    outcome = cli(words)
    assert outcome.code == 0, outcome.err
    report = Report.from_dict(outcome.json())
    encoded = encode(read_preferences(pairs_file), "hashing", store=False)
    expected = learning_curve(
        {"linear": LinearHead(l2=0.3)},
        encoded.in_split("train"),
        encoded.in_split("test"),
        sizes=[6, 12, "all"],
        n_seeds=2,
        random_state=4,
        n_resamples=50,
    )
    assert rows(report) == rows(expected)
    assert report.summary == expected.summary
    assert [row["size"] for row in rows(report)] == ["6", "12", "24", "length only"]
    assert report.provenance["command"] == f"embedrm {words}"
    assert report.provenance["models"] == {"linear": "LinearHead(l2=0.3)"}
    assert "24 of 48 pairs are in the split 'train'" in outcome.err
    assert "24 of 48 pairs are in the split 'test'" in outcome.err


def test_splits_can_be_turned_round(cli, pairs_file: str) -> None:
    report = Report.from_dict(cli(f"{CURVE} {pairs_file} --split-train test --split train --steps 2 --json").json())
    encoded = encode(read_preferences(pairs_file), "hashing", store=False)
    expected = learning_curve(
        {"linear": LinearHead()}, encoded.in_split("test"), encoded.in_split("train"), steps=2, n_resamples=50
    )
    assert rows(report) == rows(expected)


def test_several_heads_with_parameters_of_their_own_stand_in_one_report(cli, pairs_file: str) -> None:
    heads = "--head linear --head stiff=linear --head length --set stiff.l2=10 --set linear.l2=0.1"
    outcome = cli(f"{CURVE} {pairs_file} {heads} --steps 2 --output runs/c")
    assert outcome.code == 0, outcome.err
    report = Report.load("runs/c")
    groups = list(dict.fromkeys(row["group"] for row in rows(report)))
    assert groups == ["linear", "stiff", "length", "trivial baseline"]
    assert report.provenance["models"]["stiff"] == "LinearHead(l2=10)"
    assert report.provenance["models"]["linear"] == "LinearHead(l2=0.1)"
    for name in ("report.html", "report.md", "figures/learning-curve-prompts.svg"):
        assert (Path("runs/c") / name).is_file()
    assert "runs/c/report.html" in outcome.out


def test_models_that_treat_domains_stand_beside_heads(cli, pairs_file: str) -> None:
    models = "--head linear --model routed --model a=pooled --model mixture"
    items = ("linear.l2=0.3", "routed.cv=3", "a.l2=0.1", "a.pooled.strength=2.0", "mixture.k=1")
    given = " ".join(f"--set {item}" for item in items)
    outcome = cli(f"{CURVE} {pairs_file} {models} {given} --sizes 12,all --seeds 1 --json")
    assert outcome.code == 0, outcome.err
    encoded = encode(read_preferences(pairs_file), "hashing", store=False)
    expected = learning_curve(
        {
            "linear": LinearHead(l2=0.3),
            "routed": RoutedRewardModel(cv=3),
            "a": PooledRewardModel(LinearHead(l2=0.1), strength=2.0),
            "mixture": MixtureRewardModel(k=1),
        },
        encoded.in_split("train"),
        encoded.in_split("test"),
        sizes=[12, "all"],
        n_seeds=1,
        n_resamples=50,
    )
    assert rows(Report.from_dict(outcome.json())) == rows(expected)


def test_parameters_of_a_model_and_of_its_head() -> None:
    one = build_models(None, ["l2=0.1", "pooled.strength=2.0", "router.l2=0.5"], ["pooled"])["pooled"]
    assert (one.strength, one.expert.l2, one.router.l2) == (2.0, 0.1, 0.5)
    items = ["linear.l2=3", "a.l2=0.1", "a.pooled.strength=2.0", "b.mixture.k=1"]
    named = build_models(["linear"], items, ["a=pooled", "b=mixture"])
    assert list(named) == ["linear", "a", "b"]
    assert (named["linear"].l2, named["a"].strength, named["a"].expert.l2) == (3, 2.0, 0.1)
    assert named["b"].k == 1


def test_several_models_come_without_a_linear_head() -> None:
    assert list(build_models(None, None, ["mixture", "adapters"])) == ["mixture", "adapters"]


@pytest.mark.parametrize(("by", "sizes"), [("pairs", ["1", "2", "3", "6"]), ("responses", ["2", "4"])])
def test_lists_of_responses_grow_within_their_prompts(cli, by: str, sizes: list[str]) -> None:
    outcome = cli(f"{CURVE} {write_kwise()} --by {by} --seeds 2 --json")
    table = rows(Report.from_dict(outcome.json()))[:-1]
    assert [row["size"] for row in table] == sizes
    assert {row["n_prompts"] for row in table} == {32}
    if by == "pairs":
        assert [row["n_pairs"] for row in table] == [32 * int(size) for size in sizes]
    else:
        assert [row["n_responses"] for row in table] == [32 * int(size) for size in sizes]
        assert [row["n_pairs"] for row in table] == [32, 32 * 6]


def test_data_without_splits_have_a_fifth_held_out_and_that_is_said(cli, pairs_file: str) -> None:
    outcome = cli(f"{CURVE} {without_splits(pairs_file)} --steps 2 --json")
    report = Report.from_dict(outcome.json())
    said = "20% of the prompt groups, 10 pairs, were held out for evaluation (random_state 0)"
    assert said in outcome.err
    assert any(said in note for note in report.notes)
    assert rows(report)[1]["n_pairs"] == 38
    assert "10 pairs of 10 prompt groups" in report.tables["learning-curve"].caption
    assert not [note for note in report.notes if "too high" in note]


def test_vectors_of_ones_own(cli, vectors: dict[str, str]) -> None:
    words = "curve --vectors a.npy --pairs {} --n-resamples 50 --steps 3 --json"
    outcome = cli(words.format("p.jsonl"))
    report = Report.from_dict(outcome.json())
    assert "8 pairs, were held out" in outcome.err
    assert [row["n_pairs"] for row in rows(report)] == [8, 16, 32]
    assert any("length-only row is absent" in note for note in report.notes)
    lines = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    split = [{**line, "split": "test" if i % 4 == 0 else "train"} for i, line in enumerate(lines)]
    Path("s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in split))
    named = Report.from_dict(cli(words.format("s.jsonl")).json())
    assert rows(named)[-1]["n_pairs"] == 30
    x = np.load("a.npy")
    pairs = np.array([[line["chosen"], line["rejected"]] for line in lines])
    test = np.arange(40) % 4 == 0
    from embedrm import EmbeddedPreferences

    head = LinearHead().fit(EmbeddedPreferences.from_arrays(x, pairs[~test]))
    expected = head.score(EmbeddedPreferences.from_arrays(x, pairs[test]))
    assert rows(named)[-1]["micro"]["value"] == pytest.approx(expected)


def test_results_on_stdout_and_nothing_else_when_quiet(cli, pairs_file: str) -> None:
    outcome = cli(f"{CURVE} {pairs_file} --steps 2 --quiet")
    assert outcome.err == ""
    assert outcome.out.startswith("Learning curve\n")
    assert " curve " in cli("--help").out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--head linaer", "unknown head 'linaer'. Did you mean 'linear'?"),
        ("--head linear --head linear", "two models are called 'linear'; name them apart: --head NAME=linear"),
        ("--head =linear", "--head expects HEAD or NAME=HEAD"),
        ("--head a.b=linear", "a NAME that has no dot"),
        ("--head objective=linear", "is none of objective"),
        ("--head linear --head length --set l2=1", "does not say which of 2 models it is for; write --set linear.l2=1"),
        ("--head linear --head gbdt --set objective.flip_rate=0.1", "write --set linear.objective.flip_rate=0.1"),
        ("--head linear --head gbdt --set gbtd.max_trees=5", "unknown model in --set 'gbtd'. Did you mean 'gbdt'?"),
        ("--set linear.l2_gird=[1]", "Did you mean 'l2_grid'?"),
        ("--set l2=-1", "linear: LinearHead needs l2 to be a number >= 0"),
        ("--sizes 10,x", "--sizes expects whole numbers or 'all' with commas between them, got 'x'"),
        ("--sizes 10,", "got ''"),
        ("--sizes 10,25", "the size 25 is beyond the training data, which have at most 24 prompts"),
        ("--sizes 1,10", "whole numbers of prompts from 2"),
        ("--sizes 10 --steps 3", "contradict each other"),
        ("--by prompt", "unknown kind of learning curve (--by) 'prompt'. Did you mean 'prompts'?"),
        ("--by pairs", "grow the set by prompts instead"),
        ("--by responses", "grow the set by prompts instead"),
        ("--split train", "name two different splits"),
        ("--split-train test", "name two different splits"),
        ("--split-train all", "name two different splits"),
        ("--split validation", "no prompt is in 'validation'"),
        ("--split tset", "unknown split 'tset'. Did you mean 'test'?"),
        ("--vectors a.npy", "give texts or vectors, not both"),
        ("--output pairs.jsonl/x", "is not a folder"),
        ("--set pooled.strength=1", "for a model that is not in this curve; add --model pooled"),
        ("--model pooled --set mixture.k=1", "for a model that is not in this curve; add --model mixture"),
        (
            "--model a=pooled --model b=pooled --set pooled.strength=1",
            "write --set a.pooled.strength=1 or --set b.pooled",
        ),
        ("--set router.view=6", "is for a router, and nothing is routed; add --model routed"),
        ("--set calibrated.cv=3", "is for a model around others, and learning curves are of heads and of models that"),
        ("--head linear --model pooled --set strength=1", "or --set pooled.strength=1"),
        # under its own name a model has no parameters of its head or router
        ("--head linear --model pooled --set l2=1", "--set linear.l2=1 or --model NAME=pooled --set NAME.l2=1"),
        ("--head linear --model routed --set router.l2=1", "or --model NAME=routed --set NAME.router.l2=1"),
        ("--model poold", "unknown model 'poold'. Did you mean 'pooled'?"),
        ("--model linear", "'linear' is a head; write --head linear"),
        ("--model ensemble", "goes around other models; use --members"),
        ("--model mixture=pooled", "--model expects MODEL or NAME=MODEL, with a NAME that has no dot and is none of"),
        ("--head routed=linear", "--head expects HEAD or NAME=HEAD, with a NAME that has no dot and is none of"),
        ("--model pooled --model pooled", "two models are called 'pooled'; name them apart: --model NAME=pooled"),
        ("--model mixture --set mixture.k=0", "needs k to be a whole number >= 1 or None, got 0"),
        ("--model mixture --side response", "sends prompts to its experts, and --side leaves prompts out"),
    ],
)
def test_bad_input_is_one_line(cli, pairs_file: str, options: str, said: str) -> None:
    outcome = cli(f"{CURVE} {pairs_file} {options}")
    assert outcome.code == 2, outcome.err
    assert outcome.err.splitlines()[-1].startswith("error: ")
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("curve", "expected a bundled data set"),
        ("curve --vectors a.npy", "needs --pairs"),
        ("curve --vectors a.npy --pairs p.jsonl --split dev", "has no column 'split'"),
        ("curve --vectors a.npy --pairs p.jsonl --encoder hashing", "give texts or vectors, not both; got '--encoder'"),
    ],
)
def test_bad_sources_are_one_line(cli, vectors: dict[str, str], words: str, said: str) -> None:
    outcome = cli(words)
    assert outcome.code == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err


def test_a_parameter_needs_no_name_where_there_is_one_head() -> None:
    for items in (["l2=0.5", "featurizer.scale=none"], ["linear.l2=0.5", "linear.featurizer.scale=none"]):
        (model,) = build_models(None, items).values()
        assert (model.l2, model.featurizer.scale) == (0.5, "none")
    models = build_models(["a=prototype", "b=prototype"], ["b.n_prototypes=3"])
    assert list(models) == ["a", "b"]
    assert models["b"].n_prototypes == 3 != PrototypeHead().n_prototypes == models["a"].n_prototypes


def test_sizes_are_read_in_any_order() -> None:
    assert read_sizes("100, 30,all") == [100, 30, "all"]
    for text in ("", "-3", "1e3", "²", "9" * 20):
        with pytest.raises(InvalidInputError, match="--sizes"):
            read_sizes(text)
