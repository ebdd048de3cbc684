"""embedrm reproduce: the tour and the papers, on small data with the hashing encoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedrm import Report, load_bundled, read_preferences

RUN = "reproduce --encoder hashing --data"


@pytest.fixture(autouse=True)
def _small_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generated arrays of sun2025, which do not depend on the data, at a toy's size."""
    from embedrm.experiments import reuse_plan

    toy = reuse_plan.ReusePreset(
        dim=4, n_train=40, n_test=10, k_test=4, annotations=(20,), seeds=1, alikes=(), members=2, noisy=(10.0, 0.5),
        data_seeds=1, paper_pairs=20, paper_dim=4, n_permutations=2, n_resamples=20, ns=(2, 4), jobs=1,
    )  # fmt: skip
    monkeypatch.setitem(reuse_plan.REUSE_PRESETS, "quick", toy)


def test_the_tour_is_printed_and_written(cli, pairs_file: str) -> None:
    outcome = cli(f"{RUN} {pairs_file}")
    assert outcome.code == 0, outcome.err
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("tour-")
    for name in ("report.html", "report.md", "report.json"):
        assert f"{folder}/{name}" in outcome.out
        assert (folder / name).is_file()
    report = Report.load(folder)
    assert report.provenance["command"] == f"embedrm {RUN} {pairs_file}"
    assert outcome.out.startswith(report.title)
    assert "[hashing]" not in outcome.err


def test_one_paper_says_its_estimate_first(cli, pairs_file: str) -> None:
    outcome = cli(f"reproduce namgoong2024 --encoder hashing --data {pairs_file} --output here --json")
    assert outcome.code == 0, outcome.err
    from embedrm.experiments.papers import PAPERS

    paper, data = PAPERS.get("namgoong2024")(), read_preferences(pairs_file)
    # its own number of training responses, not that of the bundled data
    assert f"namgoong2024 (quick): {paper.estimate('quick', data)}" in outcome.err
    assert paper.estimate("quick", data).startswith("about 20 seconds")
    assert paper.estimate("quick") == paper.estimate("quick", load_bundled()) != paper.estimate("full")
    assert outcome.json() == json.loads(Path("here/report.json").read_text())
    assert "here/report.html" in outcome.err


def test_all_papers_have_a_folder_each(cli, pairs_file: str) -> None:
    from embedrm.experiments.papers import PAPERS

    outcome = cli(f"reproduce all --encoder hashing --data {pairs_file} --output here --quiet")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    # the others are not studied on preferences
    names = [name for name, paper in PAPERS if paper.reads == "preferences"]
    assert sorted(p.name for p in Path("here").iterdir()) == names
    outcome = cli(f"reproduce all --encoder hashing --data {pairs_file} --output there --json")
    assert list(outcome.json()) == names
    assert "troshin2024 is left out: it is studied on attribute texts" in outcome.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("reproduce namgong2024", "unknown paper 'namgong2024'. Did you mean 'namgoong2024'?"),
        ("reproduce tuor", "unknown paper 'tuor'"),
        ("reproduce --preset slow", "unknown preset 'slow'"),
        ("reproduce --data nothere.jsonl", "nothere.jsonl: there is no such file"),
        ("reproduce --data pairs.jsonl --output pairs.jsonl/x", "is not a folder"),
        ("reproduce --data pairs.jsonl --encoder nothere/model/really", "no model found"),
        ("reproduce namgoong2024 --against hashing", "--against: namgoong2024 has no use for it. It is for: sun2025"),
        ("reproduce --against hashing", "--against: tour has no use for it"),
        ("reproduce sun2025 --against nothere/model/really", "no model found"),
        ("reproduce --literal", "--literal: tour has no literal arms"),
        ("reproduce namgoong2024 --literal --data pairs.jsonl --encoder hashing", "literal arms tune the encoder"),
    ],
)
def test_misuse_is_one_line(cli, pairs_file: str, words: str, said: str) -> None:
    outcome = cli(words)
    assert outcome.code == 2, outcome.err
    assert outcome.err.splitlines()[-1].startswith("error: ")
    assert said in outcome.err
    assert outcome.out == ""
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "encoders",
    [
        "--encoder hashing:16 --against hashing:8",
        "--encoder hashing:16 --against hashing:32 --encoder-option ngrams=null",
    ],
)
def test_a_second_encoder_is_compared_with_the_first(cli, encoders: str) -> None:
    prompts = [{"prompt": f"Name colour {i}.", "split": "train" if i % 3 else "test"} for i in range(60)]
    lines = [
        {
            "prompt": one["prompt"],
            "split": one["split"],
            "responses": [f"{i} red", f"{i} blue {i}"],
            "scores": [i % 2, 1 - i % 2],
        }
        for i, one in enumerate(prompts)
    ]
    Path("graded.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = cli(f"reproduce sun2025 {encoders} --data graded.jsonl --output here --quiet")
    assert outcome.code == 0, outcome.err
    report = Report.load("here")
    assert len([note for note in report.notes if note.startswith("Data: ")]) == 2
    rows = report.tables["encoders"].rows
    assert len({row["model"] for row in rows}) == 2
    # they are not one encoder twice
    assert any(row["less"] is not None and row["less"]["value"] != 0 for row in rows)
