"""Experiments on arrays of candidates, and the study that comes with the package."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

from embedrm.datasets.candidate_arrays import load_release, release_paths
from embedrm.datasets.teachers import Teacher, write_candidates
from embedrm.errors import DataError, InvalidInputError
from embedrm.experiments.experiment import Experiment
from embedrm.experiments.experiment_run import run_experiment
from embedrm.experiments.running import Workbench
from embedrm.experiments.studies import find_file, study_names
from embedrm.experiments.sweep import Sweep

ARRAYS = "released/Gemma2b_Gemma2b_Helpful"
HEAD = {"name": "linear", "l2": 0.01}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("arrays")
    teacher = Teacher(dim=8)
    write_candidates(teacher, where / "released", "Gemma2b_Gemma2b_Helpful", "train", 80, 10)
    write_candidates(teacher, where / "released", "Gemma2b_Gemma2b_Helpful", "test", 40, 20)
    return where


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def experiment(**sections: object) -> Experiment:
    return Experiment({"data": {"release": ARRAYS}, "encoder": "hashing", "head": HEAD, **sections})


@pytest.mark.usefixtures("here")
def test_each_split_has_vectors_of_its_own() -> None:
    one = experiment(training={"pairing": "cross-prompt", "n_annotations": 150, "annotation": {"beta": 1.0}})
    prepared = Workbench().prepared(one.config)
    drawn = prepared.draw(0)
    assert len(drawn) == 150
    assert drawn.cross_prompt.all()
    train, test = (load_release("released", "Gemma2b_Gemma2b_Helpful", split) for split in ("train", "test"))
    assert np.array_equal(drawn.responses.views["response:final"], train.views["response:final"])
    (judged,) = prepared.judged
    assert judged.name == "test"
    assert np.array_equal(judged.preferences.responses.views["response:final"], test.views["response:final"])
    # a pair for each test prompt, by gold and without errors
    assert sorted(judged.preferences.prompt_rows.tolist()) == list(range(40))
    assert (judged.preferences.margin > 0).all()


@pytest.mark.usefixtures("here")
def test_an_experiment_learns_from_them_without_an_encoder() -> None:
    report = run_experiment(experiment(training={"pairing": "same-prompt", "n_annotations": 600}))
    facts = report.to_dict()
    assert "Gemma2b_Gemma2b_Helpful" in str(facts)
    prepared = Workbench().prepared(experiment().config)
    model = experiment().model.fit(prepared.draw(0))
    assert model.score(prepared.judged[0].preferences) > 0.6


@pytest.mark.usefixtures("here")
def test_what_the_files_hold_is_in_the_fingerprint(tmp_path: Path) -> None:
    first = experiment().fingerprint()
    assert first == experiment().fingerprint()
    assert first != experiment(data={"release": ARRAYS, "random_state": 1}).fingerprint()
    shutil.copytree("released", tmp_path / "released")
    moved = experiment(data={"release": str(tmp_path / ARRAYS)})
    assert moved.fingerprint() == first
    rewards = release_paths(tmp_path / "released", "Gemma2b_Gemma2b_Helpful", "train")[1]
    changed = np.load(rewards)
    changed[3, 2] += 1
    np.save(rewards, changed)
    assert moved.fingerprint() != first


@pytest.mark.usefixtures("here")
def test_what_is_not_there_is_told() -> None:
    with pytest.raises(DataError, match=r"embd_nothing_train\.npy and .*; there is none"):
        experiment(data={"release": "released/nothing"}).fingerprint()
    with pytest.raises(InvalidInputError, match="takes the place of 'files'"):
        experiment(data={"release": ARRAYS, "files": "pairs.jsonl"})
    with pytest.raises(InvalidInputError, match="unknown split"):
        Workbench().prepared(experiment(evaluation="validation").config)


def test_the_study_of_the_paper_is_12960_trials(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "bradley-terry" in study_names()
    sweep = Sweep.from_file(find_file("bradley-terry"))
    assert len(sweep.settings) * len(sweep.seeds) == 12_960
    counts = {path: len({str(s[path]) for s in sweep.settings}) for path in sweep.settings[0]}
    assert counts == {
        "data.release": 12,
        "training.pairing": 3,
        "training.annotation.beta": 6,
        "training.n_annotations": 4,
        "head": 3,
    }
    names = sorted({s["data.release"] for s in sweep.settings})
    for i, name in enumerate(names):
        for split in ("train", "test"):
            for old, new in zip(
                release_paths(folder / "released", "Gemma2b_Gemma2b_Helpful", split),
                release_paths(tmp_path / "released", Path(name).name, split),
            ):
                new.parent.mkdir(exist_ok=True)
                array = np.load(old)
                np.save(new, array + np.float32(i) if "reward" in new.name else array)
    monkeypatch.chdir(tmp_path)
    assert len({trial.fingerprint for trial in sweep.plan()}) == 12_960
    # one of everything is run, on as many annotations and candidates as these small arrays have
    small = Sweep(
        Experiment(sweep.experiment.to_dict()).with_settings(
            {"training.n_annotations": 60, "evaluation.best_of_n": [2, 20]}
        ),
        {
            "grid": {
                "data.release": names[:2],
                "training.pairing": ["same-prompt", "similar", "diversified"],
                "head": sweep.space.grid["head"],
            }
        },
        seeds=1,
    )
    outcome = small.run(tmp_path / "out")
    assert (outcome.computed, outcome.failed) == (18, 0)
    assert {row["n_train"] for row in outcome.records.values()} == {60}
    assert all(row["metrics"]["test"]["n_candidates"] == 800 for row in outcome.records.values())


def test_a_file_of_the_user_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_file("bradley-terry").endswith("bradley-terry.yaml")
    assert find_file("elsewhere.yaml") == "elsewhere.yaml"
    Path("bradley-terry").write_text("seeds: 3\n", encoding="utf-8")
    assert find_file("bradley-terry") == "bradley-terry"


def test_perceptrons_of_the_study_are_as_small_as_it_says() -> None:
    sweep = Sweep.from_file(find_file("bradley-terry"))
    for head in sweep.space.grid["head"][:2]:
        sizes = [2048, *head["hidden"], 1]
        assert sum((a + 1) * b for a, b in itertools.pairwise(sizes)) == 270_593
    assert sweep.experiment.config.evaluation.best_of_n == [2, 5, 10, 30, 50, 100, 300, 500]
