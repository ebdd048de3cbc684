"""The recipes of CONTRIBUTING.md run as printed, and what they define obeys the contract."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


def recipes() -> dict[str, str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
    return {re.match(r"# (embedrm/\S+)", block).group(1): block for block in blocks}  # type: ignore[union-attr]


@pytest.fixture
def clean_registries():
    from embedrm.datasets.public import RECIPES
    from embedrm.encoders import ENCODERS
    from embedrm.heads import HEADS
    from embedrm.merging import MERGE_METHODS
    from embedrm.routers import ROUTERS

    registries = (HEADS, ROUTERS, ENCODERS, RECIPES, MERGE_METHODS)
    for registry in registries:
        registry.discover()
    before = [dict(r._classes) for r in registries]
    yield
    for registry, classes in zip(registries, before):
        registry._classes.clear()
        registry._classes.update(classes)


def define(path: str) -> dict:
    namespace = {"__name__": path.removesuffix(".py").replace("/", ".")}
    exec(compile(recipes()[path], path, "exec"), namespace)
    return namespace


def test_there_is_a_recipe_for_each_noun():
    assert {path.split("/")[1] for path in recipes()} == {"heads", "routers", "encoders", "merging", "datasets"}


@pytest.mark.parametrize("path", sorted(recipes()))
def test_the_file_of_a_recipe_would_be_new_and_in_an_existing_folder(path):
    assert not (ROOT / path).exists()
    assert (ROOT / path).parent.is_dir()


def test_the_head_passes_the_conformance_checks_and_is_saved(clean_registries, tmp_path):
    from embedrm import EmbeddedPreferences
    from embedrm.checks import yield_checks
    from embedrm.heads import HEADS
    from embedrm.persistence import load_model, save_model

    define("embedrm/heads/mean_difference.py")
    cls = HEADS.get("mean-difference")
    n = 0
    for check in yield_checks(cls()):
        check()
        n += 1
    assert n > 10
    x = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    model = cls().fit(EmbeddedPreferences.from_arrays(x, [[0, 1], [2, 3], [4, 5]]))
    save_model(model, tmp_path / "m")
    assert np.array_equal(load_model(tmp_path / "m")[0].predict(x), model.predict(x))


def test_the_router_routes_two_clusters(clean_registries):
    from embedrm.routers import ROUTERS

    define("embedrm/routers/nearest_mean.py")
    x = np.concatenate([np.zeros((5, 2)), np.full((5, 2), 4.0)])
    y = np.repeat(["a", "b"], 5)
    router = ROUTERS.get("nearest-mean")().fit(x, y)
    assert router.score(x, y) == 1.0
    assert np.allclose(router.predict_proba(x).sum(axis=1), 1.0)


def test_the_merge_method_merges_named_tensors(clean_registries):
    from embedrm.merging.tensors import merge_tensors

    define("embedrm/merging/methods/median.py")
    models = [{"w": np.array([k, -k], dtype=np.float32)} for k in (1.0, 2.0, 9.0)]
    merged = merge_tensors(models, method="median")["w"]
    np.testing.assert_array_equal(merged, np.array([2, -2], dtype=np.float32))
    assert merged.dtype == np.float32


def test_the_encoder_fills_a_store(clean_registries, tmp_path):
    from embedrm import EmbeddingStore, load_encoder

    define("embedrm/encoders/letters.py")
    store, encoder = EmbeddingStore(tmp_path / "store"), load_encoder("letters")
    vectors = store.get(encoder, ["abba", "c"])["final"]
    assert vectors[0, 0] == 2
    assert vectors[0, 1] == 2
    assert vectors[1, 2] == 1
    assert store.plan(encoder, ["abba", "c"])["missing"] == 0


def test_the_public_data_set_is_read_from_its_files(clean_registries, tmp_path):
    import json

    from embedrm.datasets import read_preferences
    from embedrm.datasets.public import RECIPES, prepare, read_public

    define("embedrm/datasets/public/riddles.py")
    (tmp_path / "riddles").mkdir()
    for split, liked in (("train", 1), ("test", 0)):
        row = {"riddle": f"What has legs in {split}?", "answers": ["crab", "table"], "liked": liked, "kind": "animals"}
        (tmp_path / "riddles" / f"{split}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert "riddles" in RECIPES.names()
    data = prepare("riddles", tmp_path)
    assert data.domains == ("animals",)
    assert data.prompts["split"].tolist() == ["train", "test"]
    chosen = data.responses["response"].iloc[data.pairs["chosen"]].tolist()
    assert chosen == ["table", "crab"]
    read_public("riddles", tmp_path).write(tmp_path / "out.jsonl")
    assert read_preferences(tmp_path / "out.jsonl").fingerprint() == data.fingerprint()
    assert json.loads(json.dumps(RECIPES.get("riddles").facts()))["licence"] == "CC0"
