"""Several bundled models at once: those that are missing are trained beside the first, in processes of their own."""

from __future__ import annotations

from typing import ClassVar

import pytest

from embedrm.language_models import load_language_models, loading


class Process:
    """A stand-in for a process."""

    begun: ClassVar[list[Process]] = []

    def __init__(self, command, **options) -> None:
        self.name, self.options, self.ended, self.stopped = command[-1], options, False, False
        compile(command[2], "<command>", "exec")
        Process.begun.append(self)

    def wait(self) -> None:
        self.ended = True

    def terminate(self) -> None:
        self.stopped = True


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("EMBEDRM_HOME", str(tmp_path))
    monkeypatch.setattr(loading.subprocess, "Popen", Process)
    monkeypatch.setattr(loading.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(Process, "begun", [])
    return tmp_path


def test_the_first_is_loaded_here_and_the_others_are_trained_meanwhile(home, monkeypatch):
    seen = []

    def load(name, options):
        seen.append((name, sorted(options), [process.ended for process in Process.begun]))
        return name

    monkeypatch.setattr(loading, "load", load)
    assert load_language_models("bundled", "some/folder", "bundled:judge") == [
        "bundled",
        "some/folder",
        "bundled:judge",
    ]
    assert [process.name for process in Process.begun] == ["bundled:judge"]
    assert Process.begun[0].options["env"]["OMP_NUM_THREADS"] == "1"
    # the judge is asked for when its process has ended
    assert seen == [
        ("bundled", ["progress"], [False]),
        ("some/folder", [], [True]),
        ("bundled:judge", ["progress"], [True]),
    ]


def test_what_is_there_already_is_not_trained(home):
    loading._place("bundled:judge").mkdir(parents=True)
    with loading.trained_beside(["bundled:judge"]):
        pass
    assert Process.begun == []


def test_a_machine_of_one_core_trains_one_after_the_other(home, monkeypatch):
    monkeypatch.setattr(loading.os, "cpu_count", lambda: 1)
    with loading.trained_beside(["bundled:judge"]):
        pass
    assert Process.begun == []


def test_an_interruption_stops_the_other_processes(home):
    with pytest.raises(KeyboardInterrupt), loading.trained_beside(["bundled:judge"]):
        raise KeyboardInterrupt
    assert Process.begun[0].stopped
    assert Process.begun[0].ended


def test_the_folder_that_is_looked_for_is_the_one_that_training_writes(home, monkeypatch):
    asked = []

    def fail(documents, settings, progress):
        asked.append(len(documents))
        raise RuntimeError("enough")

    monkeypatch.setattr(loading, "train", fail)
    monkeypatch.setattr(loading, "bundled_documents", lambda half: [half])
    with pytest.raises(RuntimeError, match="enough"):
        loading.bundled_model("bundled")
    place = loading._place("bundled")
    assert not place.exists()
    place.mkdir(parents=True)
    assert loading.bundled_model("bundled") == place
    assert asked == [1]
