"""The experiment files that come with the package: whole, true in every commented line, and found by name."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from embedrm.errors import InvalidInputError
from embedrm.experiments.experiment import Experiment
from embedrm.experiments.experiment_config import KEYS, SECTIONS
from embedrm.experiments.studies import example_text, find_file, study_names
from embedrm.experiments.sweep import Sweep
from embedrm.experiments.sweep_space import KEYS as AXES

# What a commented line needs beside it.
TOGETHER = {"router": "model", "prompts": "best_of_n", "random": "samples", "samples": "random"}
COMMENTED = re.compile(r"( *)# (([a-z_]+): .*)")


def commented() -> list[int]:
    return [i for i, line in enumerate(example_text().splitlines()) if COMMENTED.fullmatch(line)]


def test_the_example_names_every_key() -> None:
    blocks: dict[str, set[str]] = {}
    for line in example_text().splitlines():
        top, inner = re.match(r"(?:# )?([a-z_]+):", line), re.match(r"  (?:# )?([a-z_0-9]+):", line)
        if top is not None:
            blocks[top[1]] = set()
        elif inner is not None:
            blocks[next(reversed(blocks))].add(inner[1])
    assert set(blocks) == set(KEYS)
    for name, kind in SECTIONS.items():
        assert blocks[name] == {f.name for f in fields(kind)}, name
    assert blocks["sweep"] == set(AXES)


def test_the_example_is_a_sweep() -> None:
    sweep = Sweep.from_file(find_file("example"))
    assert len(sweep.settings) == 8
    assert sweep.seeds == (0, 1, 2)


@pytest.mark.parametrize("number", commented())
def test_every_commented_line_of_the_example_is_true(tmp_path: Path, number: int) -> None:
    lines = example_text().splitlines()
    found = COMMENTED.fullmatch(lines[number])
    assert found is not None
    wanted = {number}
    for i in commented():
        other = COMMENTED.fullmatch(lines[i])
        if other is not None and other[3] == TOGETHER.get(found[3]) and abs(i - number) < 3:
            wanted.add(i)
    for i in wanted:
        lines[i] = COMMENTED.sub(r"\1\2", lines[i])
    path = tmp_path / "study.yaml"
    path.write_text("\n".join(lines) + "\n")
    Sweep.from_file(path)


@pytest.mark.parametrize("name", study_names())
def test_shipped_files_are_found_and_survive_being_written(tmp_path: Path, name: str) -> None:
    one = Experiment.from_file(find_file(name))
    path = tmp_path / "again.yaml"
    path.write_text(one.to_yaml())
    assert Experiment.from_file(path) == one


def test_a_name_that_is_neither_is_told_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="Did you mean 'bradley-terry'"):
        find_file("bradley-tery")
    for path in ("study.yaml", "folder/study"):
        assert find_file(path) == path
    Path("example").write_text("mine")
    assert find_file("example") == "example"
