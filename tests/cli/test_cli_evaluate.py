"""embedrm evaluate and compare: the reports of the Python interface, for saved models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedrm import Report, RewardPipeline, compare, evaluate, read_preferences


@pytest.fixture
def data(models: dict[str, str]) -> str:
    return models["data"]


def _facts(report: Report) -> list[dict]:
    """The tables of a report; how long it took does not belong to the comparison."""
    return json.loads(json.dumps([table.to_dict() for table in report.tables.values()]))


def _test_pairs(pipeline: RewardPipeline, data: str):
    return pipeline.encode(read_preferences(data).split("test").compact())


def test_evaluate_reports_what_python_reports(cli, models: dict[str, str], data: str) -> None:
    outcome = cli("evaluate", models["linear"], data, "--no-store", "--json")
    assert outcome.code == 0, outcome.err
    report = Report.from_dict(outcome.json())
    pipeline = RewardPipeline.load(models["linear"], store=False)
    expected = evaluate({"linear": pipeline.model}, _test_pairs(pipeline, data))
    assert _facts(report) == _facts(expected)
    assert "24 of 48 pairs are in the split 'test'" in outcome.err


def test_the_report_knows_its_command_its_models_and_its_data(cli, models: dict[str, str], data: str) -> None:
    provenance = cli("evaluate", models["linear"], data, "--json").json()["provenance"]
    assert provenance["command"] == f"embedrm evaluate {models['linear']} {data} --json"
    assert provenance["models"]["linear"]["training"]["n_pairs"] == 24
    assert provenance["encoder"]["kind"] == "hashing"
    assert provenance["data"]["fingerprint"] == read_preferences(data).split("test").compact().fingerprint()
    assert provenance["truncation"]["response"]["truncated"] == 0


def test_several_models_stand_in_one_table(cli, models: dict[str, str], data: str) -> None:
    words = ["evaluate", models["linear"], data, "--also", models["routed"], "--also", f"own name={models['length']}"]
    report = Report.from_dict(cli(*words, "--json").json())
    rows = [row["model"] for row in report.tables["accuracy"].rows]
    assert rows == ["linear", "routed", "own name", "length only"]


def test_models_of_different_encoders_are_asked_on_their_own_vectors(cli, models: dict[str, str], data: str) -> None:
    both = Report.from_dict(cli("evaluate", models["linear"], data, "--also", models["wide"], "--json").json())
    alone = Report.from_dict(cli("evaluate", models["wide"], data, "--json").json())
    (in_both,) = [row for row in both.tables["accuracy"].rows if row["model"] == "wide"]
    (by_itself,) = [row for row in alone.tables["accuracy"].rows if row["model"] == "wide"]
    assert in_both == by_itself


def test_compare_reports_what_python_reports(cli, models: dict[str, str], data: str) -> None:
    outcome = cli("compare", models["linear"], models["routed"], data, "--json", "--n-resamples", "200")
    report = Report.from_dict(outcome.json())
    a, b = (RewardPipeline.load(models[name], store=False) for name in ("linear", "routed"))
    pipeline = RewardPipeline.load(models["routed"], store=False)
    expected = compare(a.model, b.model, _test_pairs(pipeline, data), names=("linear", "routed"), n_resamples=200)
    assert _facts(report) == _facts(expected)
    assert report.summary == expected.summary


def test_compare_across_encoders(cli, models: dict[str, str], data: str) -> None:
    forth = cli("compare", models["linear"], models["wide"], data, "--json").json()
    back = cli("compare", models["wide"], models["linear"], data, "--json").json()

    def micro(report: dict) -> float:
        (table,) = [t for s in report["sections"] for t in s["tables"] if t["name"] == "comparison"]
        value = table["rows"][0]["difference"]
        return value["value"] if isinstance(value, dict) else value

    assert micro(forth) == -micro(back)


def test_reports_are_written_and_their_places_said(cli, models: dict[str, str], data: str) -> None:
    outcome = cli("evaluate", models["linear"], data, "--output", "runs/e")
    assert outcome.code == 0
    for name in ("report.html", "report.md", "report.json"):
        assert f"runs/e/{name}" in outcome.out
        assert Path("runs/e", name).is_file()
    assert outcome.out.startswith("Evaluation\n")
    as_json = cli("evaluate", models["linear"], data, "--output", "runs/e", "--json")
    assert as_json.json() == json.loads(Path("runs/e/report.json").read_text())
    assert "runs/e/report.html" in as_json.err
    assert cli("evaluate", models["linear"], data, "--output", "runs/e", "--json", "--quiet").err == ""


def test_training_pairs_are_called_training_pairs(cli, models: dict[str, str], data: str) -> None:
    report = cli("evaluate", models["linear"], data, "--split", "train", "--json").json()
    assert any("fitted on exactly these pairs" in note for note in report["notes"])
    report = cli("evaluate", models["linear"], data, "--json").json()
    assert not any("fitted on exactly these pairs" in note for note in report["notes"])


def test_a_name_used_twice_needs_names(cli, models: dict[str, str], data: str) -> None:
    outcome = cli("compare", models["linear"], models["linear"], data)
    assert outcome.code == 2
    assert "name them apart with NAME=FOLDER" in outcome.err
    assert cli("compare", f"a={models['linear']}", f"b={models['linear']}", data).code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("evaluate nothere {data}", "nothere holds no saved model"),
        ("evaluate {data} {data}", "model"),
        ("evaluate {linear}", "expected a bundled data set"),
        ("evaluate {linear} nothere.jsonl", "nothere.jsonl: there is no such file"),
        ("evaluate {linear} {data} --split validation", "no prompt is in 'validation'"),
        ("evaluate {linear} {data} --encoder hashing:7", "was trained with another encoder"),
        ("evaluate {linear} {data} --also {routed} --also {routed}", "name them apart"),
        ("evaluate {linear} {data} --output {data}/x", "is not a folder"),
        ("evaluate {linear} {data} --prompt-of x.npy", "give texts or vectors, not both"),
        ("evaluate {linear} --pairs p.jsonl", "belong to --vectors"),
        ("compare {linear} {routed}", "expected a bundled data set"),
    ],
)
def test_bad_input_is_one_line(cli, models: dict[str, str], words: str, said: str) -> None:
    outcome = cli(words.format(**models))
    assert outcome.code == 2, outcome.err
    assert outcome.err.splitlines()[-1].startswith("error: ")
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


def test_an_encoder_found_elsewhere_keeps_its_saved_options(cli, models: dict[str, str], data: str) -> None:
    plain = cli("evaluate", models["wide"], data, "--json").json()
    given = cli("evaluate", models["wide"], data, "--encoder", "hashing:64", "--json").json()
    assert plain["sections"] == given["sections"]


def test_a_damaged_or_unfitted_model_is_one_line(cli, data: str) -> None:
    from embedrm import HashingEncoder, LinearHead

    RewardPipeline(HashingEncoder(), LinearHead(), store=False).save("unfitted")
    outcome = cli("evaluate", "unfitted", data)
    assert outcome.code == 2
    assert "never fitted" in outcome.err
    model = Path("unfitted/model.json")
    for text in (
        "",
        "[]",
        "{}",
        '{"format": 1}',
        '{"format": 1, "model": 3, "extra": {}}',
        '{"format": 1, "model": {}, "extra": 3}',
    ):
        model.write_text(text)
        outcome = cli("evaluate", "unfitted", data)
        assert outcome.code == 2, (text, outcome.err)
        assert outcome.err.count("\n") == 1
