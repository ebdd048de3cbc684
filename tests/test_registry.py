"""Registries filled by folder: one new file is one new name."""

from __future__ import annotations

import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from embedrm.errors import InvalidInputError
from embedrm.registry import Registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Make an importable package, a registry over it, and a way to add modules."""
    folder = tmp_path / "toys_for_registry"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from embedrm.registry import Registry\nTOYS = Registry('toy', 'toys_for_registry')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(name, code):
        (folder / f"{name}.py").write_text("from toys_for_registry import TOYS\n" + textwrap.dedent(code))

    yield add
    for name in [n for n in sys.modules if n.partition(".")[0] == "toys_for_registry"]:
        del sys.modules[name]


def toys() -> Registry:
    from toys_for_registry import TOYS

    return TOYS


def test_a_new_file_is_found_and_named(package):
    package("ball", "@TOYS.register('ball')\nclass Ball: ...")
    package("kite", "@TOYS.register('kite')\nclass Kite: ...\n\n@TOYS.register('big-kite')\nclass BigKite(Kite): ...")
    registry = toys()
    assert registry.names() == ["ball", "big-kite", "kite"]
    assert registry.get("ball").__name__ == "Ball"
    assert registry.get("ball").registered_name == "ball"
    assert registry.name_of(registry.get("big-kite")) == "big-kite"
    assert "kite" in registry
    assert "car" not in registry
    assert [name for name, _ in registry] == registry.names()


def test_a_subclass_is_not_taken_for_its_parent(package):
    package("ball", "@TOYS.register('ball')\nclass Ball: ...\n\nclass Unregistered(Ball): ...")
    registry = toys()
    registry.discover()
    assert registry.name_of(sys.modules["toys_for_registry.ball"].Unregistered) is None


def test_base_and_private_modules_are_not_imported(package):
    package("base", "raise RuntimeError('imported')")
    package("_private", "raise RuntimeError('imported')")
    assert toys().names() == []


def test_nothing_is_imported_before_the_first_look_up(package):
    package("ball", "@TOYS.register('ball')\nclass Ball: ...")
    toys()
    assert "toys_for_registry.ball" not in sys.modules


def test_an_unknown_name_shows_the_nearest_and_the_known(package):
    package("ball", "@TOYS.register('ball')\nclass Ball: ...")
    with pytest.raises(InvalidInputError, match=r"^unknown toy 'bal'\. Did you mean 'ball'\? Known: ball\.$"):
        toys().get("bal")


def test_two_classes_of_one_name_are_a_bug(package):
    package("ball", "@TOYS.register('ball')\nclass Ball: ...\n\n@TOYS.register('ball')\nclass Other: ...")
    with pytest.raises(RuntimeError, match="toy 'ball' is registered twice"):
        toys().names()


def test_a_module_that_fails_fails_at_every_look_up(package):
    package("ball", "@TOYS.register('ball')\nclass Ball: ...")
    package("broken", "import no_such_module_anywhere")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
            toys().names()


def test_a_module_may_look_up_while_it_is_imported(package):
    package("ball", "@TOYS.register('ball')\nclass Ball: ...\nKNOWN = TOYS.names()")
    assert toys().names() == ["ball"]


def test_threads_that_look_up_first_wait_until_all_is_there(package):
    package("ball", "import time\ntime.sleep(0.2)\n@TOYS.register('ball')\nclass Ball: ...")
    registry = toys()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: registry.get("ball").__name__, range(4)))
    assert found == ["Ball"] * 4
