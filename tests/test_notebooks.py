"""Every notebook runs from a clean kernel, offline, and shows no error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert NOTEBOOKS


def put_small_language_models(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put models of a few seconds where the bundled ones are looked for, which take minutes: the code is what is tested."""
    from embedrm.language_models import SmallLM, corpus, loading

    monkeypatch.setenv("EMBEDRM_HOME", str(home))
    for name in loading.BUNDLED:
        place = loading._place(name)
        if not place.is_dir():
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(corpus.GENERATED_TEXTS, "train", 2000)
                tiny = SmallLM(layers=1, width=64, heads=1, vocabulary=1000, random_state=loading.BUNDLED[name][1])
                loading.bundled_model(name, config=tiny).rename(place)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs_from_a_clean_kernel(path, tmp_path, shared_home, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("EMBEDRM_HOME", os.environ.get("EMBEDRM_TEST_HOME", str(shared_home)))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if path.stem == "token_rewards":
        put_small_language_models(tmp_path / "home", monkeypatch)
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert outputs
    assert not [o for o in outputs if o.output_type == "error"]
    # a warning on stderr is noise that a reader would have to explain away
    assert not [o for o in outputs if o.output_type == "stream" and o.name == "stderr"]
