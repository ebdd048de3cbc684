"""Merging encoders: counters and poolers, further modules, shards, added tokens, damaged files, the laws of a base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_merge_encoders import TABLE, edit, moved, tokens_of, vectors, weights_of
from tuning_base import TEXTS

from embedrm import SentenceEncoder
from embedrm.errors import InvalidInputError, ModelError
from embedrm.merging.encoder_report import compare_encoders
from embedrm.merging.encoders import merge_encoders
from embedrm.merging.safetensor_files import SafetensorFiles, write_safetensors
from embedrm.merging.vocabulary import Vocabulary


@pytest.fixture
def two(base_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    return moved(base_folder, tmp_path / "a", 1), moved(base_folder, tmp_path / "b", 2)


def rewrite(folder: Path, drop: str = "", **more: np.ndarray) -> None:
    arrays = {k: v for k, v in weights_of(folder).items() if not drop or not k.startswith(drop)}
    save_file({**arrays, **more}, folder / "model.safetensors", metadata={"format": "pt"})


def add_token(folder: Path, token: str, row: np.ndarray, *, special: bool = False) -> int:
    """Append a token that is found in the text as it stands."""
    description = json.loads((folder / "tokenizer.json").read_text())
    i = len(description["model"]["vocab"]) + sum(
        e["content"] not in description["model"]["vocab"] for e in description["added_tokens"]
    )
    entry = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    description["added_tokens"].append({"id": i, "content": token, **entry})
    (folder / "tokenizer.json").write_text(json.dumps(description))
    rewrite(folder, **{TABLE: np.concatenate([weights_of(folder)[TABLE], row[None].astype(np.float32)])})
    edit(folder, vocab_size=i + 1)
    return i


def test_counters_and_poolers_of_one_alone_are_told_and_kept_with_the_first(two, tmp_path) -> None:
    a, b = two
    rewrite(a, **{"embeddings.position_ids": np.arange(64)[None]})
    rewrite(b, drop="pooler.")
    for order, kept, left in (
        ((a, b), {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}, set()),
        ((b, a), set(), {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}),
    ):
        out = tmp_path / f"m{len(kept)}"
        facts = merge_encoders(order, out, [0.5, 0.5])
        assert set(facts["tensors_kept"]) == kept
        assert set(facts["tensors_left_out"]) == left
        assert set(weights_of(out)) == set(weights_of(order[0]))
        for name in kept:
            np.testing.assert_array_equal(weights_of(out)[name], weights_of(a)[name])
        assert sum("no vector depends on" in told for told in facts["differences"]) >= 1


def test_layers_after_the_transformer_are_merged(two, tmp_path) -> None:
    for seed, folder in enumerate(two):
        place = folder / "2_Dense"
        place.mkdir()
        config = {
            "in_features": 32,
            "out_features": 8,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        }
        (place / "config.json").write_text(json.dumps(config))
        rng = np.random.default_rng(seed)
        arrays = {"linear.weight": rng.normal(size=(8, 32)), "linear.bias": rng.normal(size=8)}
        save_file({k: v.astype(np.float32) for k, v in arrays.items()}, place / "model.safetensors")
        entries = json.loads((folder / "modules.json").read_text())
        entries[2] = {**entries[2], "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
        (folder / "modules.json").write_text(json.dumps(entries))
    merge_encoders(two, tmp_path / "m", [0.25, 0.75])
    a, b, m = (load_file(f / "2_Dense" / "model.safetensors") for f in (*two, tmp_path / "m"))
    for name in a:
        np.testing.assert_allclose(m[name], 0.25 * a[name].astype(np.float64) + 0.75 * b[name], atol=1e-7)
    assert SentenceEncoder(str(tmp_path / "m")).encode(TEXTS, ("final",))["final"].shape == (len(TEXTS), 8)


def test_shards_are_one_model(two, tmp_path) -> None:
    a, b = two
    split = Path(shutil.copytree(b, tmp_path / "split"))
    arrays = weights_of(split)
    names = sorted(arrays)
    (split / "model.safetensors").unlink()
    places = {}
    for i, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-0000{i}-of-00002.safetensors"
        save_file({n: arrays[n] for n in part}, split / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(part, file))
    (split / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    merge_encoders([a, b], tmp_path / "m", [0.5, 0.5])
    merge_encoders([split, a], tmp_path / "n", [0.5, 0.5])
    assert not (tmp_path / "n" / "model.safetensors.index.json").exists()
    for name, array in weights_of(tmp_path / "m").items():
        np.testing.assert_allclose(weights_of(tmp_path / "n")[name], array, atol=1e-7)


def test_a_token_added_to_a_text_is_appended_as_such(two, tmp_path) -> None:
    a, b = two
    row = np.linspace(-1, 1, 32)
    i = add_token(b, "<lemma>", row)
    add_token(a, "<joke>", -row)
    facts = merge_encoders([a, b], tmp_path / "m", [0.5, 0.5])
    assert facts["tokens"]["appended"] == 1
    table = weights_of(tmp_path / "m")[TABLE]
    np.testing.assert_array_equal(table[i], -row.astype(np.float32))
    np.testing.assert_array_equal(table[i + 1], row.astype(np.float32))
    text = "the <lemma> is <joke> red"
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    assert {i, i + 1} <= set(model.tokenizer(text)["input_ids"])
    np.testing.assert_allclose(
        SentenceEncoder(str(tmp_path / "m")).encode([text], ("final",))["final"], model.encode([text]), atol=1e-6
    )


def test_a_token_that_is_special_in_one_is_refused(two, tmp_path) -> None:
    add_token(two[0], "<lemma>", np.ones(32))
    add_token(two[1], "<lemma>", np.ones(32), special=True)
    with pytest.raises(InvalidInputError, match=r"special tokens .*<lemma>"):
        merge_encoders(two, tmp_path / "m")


def test_rows_without_a_token_are_the_first_models(two, tmp_path) -> None:
    a, b = two
    padding = np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32)
    n = len(tokens_of(a))
    rewrite(a, **{TABLE: np.concatenate([weights_of(a)[TABLE], padding])})
    edit(a, vocab_size=n + 4)
    merge_encoders([a, b], tmp_path / "m", [0.5, 0.5])
    merged = weights_of(tmp_path / "m")[TABLE]
    np.testing.assert_array_equal(merged[n:], padding)
    np.testing.assert_allclose(
        merged[:n], (weights_of(a)[TABLE][:n].astype(np.float64) + weights_of(b)[TABLE]) / 2, atol=1e-7
    )
    # a token more takes the first row that is free
    add_token(b, "<lemma>", np.ones(32))
    merge_encoders([a, b], tmp_path / "n", [0.5, 0.5])
    np.testing.assert_array_equal(
        weights_of(tmp_path / "n")[TABLE][n:], np.concatenate([np.ones((1, 32)), padding[1:]])
    )


def test_a_token_without_a_row_is_refused(two, tmp_path) -> None:
    a, b = two
    rewrite(b, **{TABLE: weights_of(b)[TABLE][:-1].copy()})
    edit(b, vocab_size=len(tokens_of(b)) - 1)
    (b / "tokenizer_config.json").write_text(
        (b / "tokenizer_config.json").read_text().replace('"model_max', '"x": 1, "model_max')
    )
    for models in ((a, b), (b, a), (a, b, b)):
        report = compare_encoders(models)
        assert {(d.what, d.in_b) for d in report.fatal} == {("tokens without a row", f"{len(tokens_of(b)) - 1} rows")}
    with pytest.raises(
        InvalidInputError, match=rf"tokenizer of b: ids up to {len(tokens_of(b)) - 1};.* belong together"
    ):
        merge_encoders([a, b], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_new_tokens_come_after_the_highest_id_also_where_ids_have_gaps() -> None:
    one, two = (
        Vocabulary.of({"model": {"type": "WordLevel", "vocab": vocab}, "added_tokens": []})
        for vocab in ({"[UNK]": 0, "cat": 1, "dog": 7}, {"[UNK]": 0, "prime": 1, "cat": 2, "lemma": 3})
    )
    assert one.appended([two]).ids == {"[UNK]": 0, "cat": 1, "dog": 7, "prime": 8, "lemma": 9}


def test_older_and_newer_files_of_one_model_are_compatible(two, tmp_path) -> None:
    """Settings that equal the library's defaults may be left out, and pooling may be written in either form."""
    a, b = two
    config = json.loads((b / "config.json").read_text())
    for name in ("layer_norm_eps", "type_vocab_size", "is_decoder"):
        config.pop(name, None)
    (b / "config.json").write_text(json.dumps({**config, "written_by": "an older version"}))
    (b / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 32, "pooling_mode": "mean"}))
    assert compare_encoders([a, b]).compatible
    edit(b, layer_norm_eps=1e-5)
    assert "layer_norm_eps 1e-12" in str(compare_encoders([a, b]).fatal[0])


def test_what_of_dare_is_drawn_follows_the_seed(base_folder, two, tmp_path) -> None:
    how = {"method": "dare_linear", "base": base_folder}
    names = [k for k in ("p", "density") if k in _options("dare_linear")]
    options = dict.fromkeys(names, 0.5)
    for name, seed in (("a0", 0), ("b0", 0), ("a1", 1)):
        merge_encoders(two, tmp_path / name, [0.5, 0.5], **how, **options, random_state=seed)
    np.testing.assert_array_equal(vectors(tmp_path / "a0"), vectors(tmp_path / "b0"))
    assert not np.array_equal(vectors(tmp_path / "a0"), vectors(tmp_path / "a1"))


def _options(method: str) -> dict[str, object]:
    from embedrm.merging import MERGE_METHODS

    return MERGE_METHODS.get(method).options()


# -- safetensors -----------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_by_the_library_and_by_us(tmp_path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.normal(size=(3, 5)).astype(np.float16),
        "b": rng.normal(size=7),
        "c": np.array(3.5, dtype=np.float32),
        "d": np.arange(5),
        "e": np.zeros((0, 4), dtype=np.float32),
        "f": np.array([True, False, True]),
    }
    kinds = {"a": "F16", "b": "F64", "c": "F32", "d": "I64", "e": "F32", "f": "BOOL"}
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {n: (kinds[n], arrays[n].shape) for n in arrays}, reversed(arrays.items()))
    theirs, ours = load_file(path), SafetensorFiles([path])
    assert set(theirs) == set(ours) == set(arrays)
    for name, array in arrays.items():
        for found in (theirs[name], ours[name]):
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array)
    with pytest.raises(ModelError, match="never came"):
        write_safetensors(path, {"a": ("F32", (2,))}, [])
    with pytest.raises(ModelError, match="came twice or as"):
        write_safetensors(path, {"a": ("F32", (2,))}, [("a", np.zeros(3, np.float32))])


@pytest.mark.parametrize("keep", [4, 40, -8])
def test_a_file_that_was_cut_off_is_refused(two, tmp_path, keep) -> None:
    path = two[1] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="no whole safetensors file"):
        merge_encoders(two, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_unigram_vocabularies_are_not_joined() -> None:
    pieces = [["<unk>", 0.0], ["a", -1.0], ["b", -2.0]]
    one, two = (
        Vocabulary.of({"model": {"type": "Unigram", "vocab": vocab}, "added_tokens": []})
        for vocab in (pieces, [*pieces, ["ab", -3.0]])
    )
    assert one.ids == {"<unk>": 0, "a": 1, "b": 2}
    assert "log-probabilities" in str(one.why_not_appendable(two))
    assert "other merges or scores" in str(two.why_not_appendable(one))
