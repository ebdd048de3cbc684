"""embedrm best-of-n: the report of the Python interface for saved models, and the responses they choose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedrm import Report, RewardPipeline, read_preferences
from embedrm.datasets.candidates import candidates
from embedrm.experiments.merging_best_of_n import BestOfNStudy


@pytest.fixture
def graded(home: Path) -> str:
    """Three to four answers a prompt; the better place has gold 1, and at every fifth prompt all are right."""
    rng = np.random.default_rng(1)
    better = {"tea": ("kettle", "bucket"), "sea": ("harbour", "desert")}
    rows = []
    for i in range(40):
        domain = ("tea", "sea")[i % 2]
        good, bad = better[domain]
        right = np.ones(3) if i % 5 == 0 else rng.permutation([1.0, 0.0, 0.0])
        right = [*right, 0.0] if i % 4 == 1 else [*right]
        words = [" ".join(rng.choice(["so", "very", "quite", "rather", "well"], size=4).tolist()) for _ in right]
        row: dict[str, Any] = {"prompt": f"Where do {domain} leaves go, number {i}?", "domain": domain}
        row["responses"] = [f"Into the {good if g else bad}, {w} {j}." for j, (g, w) in enumerate(zip(right, words))]
        rows.append(row | {"gold": [float(g) for g in right], "split": "train" if i < 10 else "test"})
    Path("graded.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return "graded.jsonl"


def _tables(report: Report) -> list[dict[str, Any]]:
    return json.loads(json.dumps([table.to_dict() for table in report.tables.values()]))


def test_it_reports_what_python_reports(cli, models: dict[str, str], graded: str) -> None:
    words = ["best-of-n", models["linear"], graded, "--also", models["length"], "--no-store", "--n-resamples", "100"]
    outcome = cli(*words, "--json")
    assert outcome.code == 0, outcome.err
    report = Report.from_dict(outcome.json())
    data = candidates(read_preferences(graded), "test")
    study = BestOfNStudy(
        {name: RewardPipeline.load(models[name], store=False) for name in ("linear", "length")}, data, n_resamples=100
    )
    expected = Report("best-of-n", "Best of n", study.findings())
    study.add_sections(expected)
    assert _tables(report) == _tables(expected)
    assert report.summary == expected.summary
    assert "30 of 40 prompts are in the split 'test'" in outcome.err
    rows = {row["model"]: row for row in report.tables["best-of-n"].rows}
    assert rows["linear"]["n3"]["value"] > rows["random"]["n3"]["value"] + 0.2
    assert report.provenance["models"]["linear"]["training"]["n_pairs"] == 24
    assert report.provenance["command"].startswith("embedrm best-of-n ")
    assert any("--fitted-on FILE" in note for note in report.notes)


def test_prompts_whose_gold_is_all_equal_are_kept_and_counted(cli, models: dict[str, str], graded: str) -> None:
    report = Report.from_dict(cli("best-of-n", models["linear"], graded, "--split", "all", "--json").json())
    caption = report.tables["best-of-n"].caption
    assert "40 prompts with 130 candidates, K = 3 (30), 4 (10) by prompts, mean 3.2" in caption
    assert "at 6 prompts all have the same gold" in caption


def test_options_reach_the_facts(cli, models: dict[str, str], graded: str) -> None:
    words = ["best-of-n", models["linear"], graded, "--n", "1,4", "--same-prompts", "--gold", "standard"]
    words += ["--estimator", "sun2025", "--n-permutations", "7", "--n-resamples", "30"]
    report = Report.from_dict(cli(*words, "--json").json())
    table = report.tables["best-of-n"]
    assert [c.key for c in table.columns] == ["model", "n1", "n4", "spearman"]
    assert "over 7 random orders" in table.caption
    assert "standardised within each domain" in table.caption
    assert "prompts with too few candidates" in table.caption


def test_the_choices_are_exported(cli, models: dict[str, str], graded: str) -> None:
    outcome = cli("best-of-n", models["linear"], graded, "--export", "chosen.jsonl", "--n-resamples", "5")
    assert outcome.code == 0, outcome.err
    assert "30 chosen responses of linear written to chosen.jsonl" in outcome.err
    lines = [json.loads(line) for line in Path("chosen.jsonl").read_text(encoding="utf-8").splitlines()]
    data = candidates(read_preferences(graded), "test")
    rewards = RewardPipeline.load(models["linear"], store=False).predict(data)
    owner = data.responses["prompt_of"].to_numpy()
    for p, line in enumerate(lines):
        own = np.flatnonzero(owner == p)
        best = own[rewards[own].argmax()]
        assert line == {
            "prompt": data.prompts["prompt"][p],
            "domain": data.prompts["domain"][p],
            "split": "test",
            "response": data.response_texts()[best],
            "reward": pytest.approx(float(rewards[best])),
            "gold": data.responses["gold"][best],
            "n": len(own),
            "model": "linear",
        }
    again = cli("best-of-n", models["linear"], graded, "--export", "chosen.jsonl")
    assert (again.code, "exists already" in again.err) == (2, True)
    few = cli("best-of-n", models["linear"], graded, "--export", "two.jsonl", "--export-n", "4", "--n-resamples", "5")
    assert "30 chosen" not in few.err
    assert "prompts with fewer left out" in few.err


def test_prompts_of_the_training_file_are_left_out(cli, models: dict[str, str], graded: str) -> None:
    rows = [json.loads(line) for line in Path(graded).read_text().splitlines()]
    own = [{"prompt": rows[i]["prompt"].upper(), "chosen": "a", "rejected": "b"} for i in (10, 11, 0)]
    for row, split in zip(own, ("train", "test", "train")):
        row["split"] = split
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own), encoding="utf-8")
    outcome = cli("best-of-n", models["linear"], graded, "--fitted-on", "own.jsonl", "--json", "--n-resamples", "5")
    assert "1 prompt left out, which the models were fitted on" in outcome.err
    report = Report.from_dict(outcome.json())
    assert "29 prompts with" in report.tables["best-of-n"].caption
    assert report.notes[0].startswith("1 prompt of these data left out")


def test_models_of_different_encoders_and_a_report_on_disk(cli, models: dict[str, str], graded: str) -> None:
    words = [
        "best-of-n",
        models["linear"],
        graded,
        "--also",
        models["wide"],
        "--output",
        "runs/b",
        "--n-resamples",
        "20",
    ]
    outcome = cli(*words)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("Best of n\n")
    for name in ("report.html", "report.md", "report.json"):
        assert Path("runs/b", name).is_file()
    alone = Report.from_dict(cli("best-of-n", models["wide"], graded, "--json", "--n-resamples", "20").json())
    both = Report.from_json(Path("runs/b/report.json").read_text(encoding="utf-8"))
    (in_both,) = [row for row in both.tables["best-of-n"].rows if row["model"] == "wide"]
    assert in_both == alone.tables["best-of-n"].rows[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("best-of-n {linear}", "expected a bundled data set"),
        ("best-of-n nothere graded.jsonl", "nothere holds no saved model"),
        ("best-of-n {linear} graded.jsonl --n 1,9", "no prompt has more than 4 candidates"),
        ("best-of-n {linear} graded.jsonl --n all", "--n expects whole numbers"),
        ("best-of-n {linear} graded.jsonl --n x", "expects whole numbers"),
        ("best-of-n {linear} graded.jsonl --estimator biased", "unknown estimator"),
        ("best-of-n {linear} graded.jsonl --split heldout", "unknown split 'heldout'"),
        ("best-of-n {linear} {data}", "no response with gold"),
        ("best-of-n {linear} graded.jsonl --export-n 2", "--export FILE"),
        ("best-of-n {linear} graded.jsonl --also {linear}", "name them apart"),
        ("best-of-n oracle={linear} graded.jsonl", "cannot be called 'oracle'"),
        ("best-of-n {linear} graded.jsonl --fitted-on graded.jsonl --split train", "every prompt is one"),
        ("best-of-n {linear} scored.jsonl unscored.jsonl", "say --missing drop-prompts or --missing drop-responses"),
    ],
)
def test_bad_input_is_one_line(cli, models: dict[str, str], graded: str, words: str, said: str) -> None:
    scored = [{"prompt": "p", "text": text, "label": 1.0, "split": "test"} for text in "abc"]
    Path("scored.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scored), encoding="utf-8")
    pair = {"prompt": "p", "chosen": "a", "rejected": "d", "split": "test"}
    Path("unscored.jsonl").write_text(json.dumps(pair) + "\n", encoding="utf-8")
    outcome = cli(words.format(**models))
    assert outcome.code == 2, outcome.err
    assert outcome.err.splitlines()[-1].startswith("error: ")
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
