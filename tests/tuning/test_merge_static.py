"""Static token tables merged: rows by token, model2vec's form, tables in different bases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from embedrm import SentenceEncoder
from embedrm.encoders.merged import MergedEncoder
from embedrm.errors import InvalidInputError
from embedrm.merging.encoder_report import compare_encoders
from embedrm.merging.encoders import merge_encoders
from embedrm.merging.rotation import agreement, procrustes, rotated

WORDS = ["[UNK]", "the", "cat", "sat", "on", "mat", "dog", "ran", "red", "blue", "is", "it", "a", "very", "good", "bad"]
TEXTS = ["the cat sat on the mat", "a very good dog", "it is red", "unknown words", "bad"]


def table_of(words: list[str], seed: int = 0, dim: int = 4) -> np.ndarray:
    """One row for each word, the same for a word in every vocabulary."""
    rows = [np.random.default_rng([seed, *word.encode()]).normal(size=dim) for word in words]
    return np.array(rows, dtype=np.float32)


def make_static(folder: Path, table: np.ndarray, words: list[str] = WORDS, *, arrays: dict | None = None) -> Path:
    """Write a StaticEmbedding folder, normalised."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    folder.mkdir(parents=True)
    (folder / "1_Normalize").mkdir()
    (folder / "1_Normalize" / "config.json").write_text("{}")
    entries = [("StaticEmbedding", ""), ("Normalize", "1_Normalize")]
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
                for i, (kind, path) in enumerate(entries)
            ]
        )
    )
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(arrays or {"embedding.weight": np.ascontiguousarray(table)}, folder / "model.safetensors")
    return folder


def vectors(folder: Path, texts: list[str] = TEXTS) -> np.ndarray:
    return SentenceEncoder(str(folder)).encode(texts, ("final",))["final"]


def merged_table(folder: Path) -> np.ndarray:
    return load_file(folder / "model.safetensors")["embedding.weight"]


def near(table: np.ndarray, seed: int, scale: float = 0.2) -> np.ndarray:
    return (table + scale * np.random.default_rng(seed).normal(size=table.shape)).astype(np.float32)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A general table, and a domain table with other words in another order."""
    theirs = ["[UNK]", "prime", *WORDS[:3:-1], "lemma", *WORDS[1:3]]
    a = make_static(tmp_path / "a", table_of(WORDS))
    b = make_static(tmp_path / "b", near(table_of(theirs), 1), theirs)
    return a, b


def test_rows_are_merged_by_token(two, tmp_path) -> None:
    merge_encoders(two, tmp_path / "m", [0.75, 0.25])
    words = [json.loads((f / "tokenizer.json").read_text())["model"]["vocab"] for f in (*two, tmp_path / "m")]
    tables = [merged_table(f) for f in (*two, tmp_path / "m")]
    assert list(words[2]) == [*WORDS, "prime", "lemma"]
    for word, row in words[2].items():
        found = [t[w[word]].astype(np.float64) for t, w in zip(tables[:2], words[:2]) if word in w]
        expected = found[0] if len(found) == 1 else 0.75 * found[0] + 0.25 * found[1]
        if word == "sat":
            expected = tables[0][words[0][word]]  # only the general model has it
        np.testing.assert_allclose(tables[2][row], expected, atol=1e-7)


def test_plain_sentence_transformers_gives_the_same_vectors(two, tmp_path) -> None:
    from sentence_transformers import SentenceTransformer

    merge_encoders(two, tmp_path / "m", [0.5, 0.5])
    texts = [*TEXTS, "prime lemma is good"]
    plain = SentenceTransformer(str(tmp_path / "m"), device="cpu").encode(texts)
    np.testing.assert_allclose(vectors(tmp_path / "m", texts), plain, atol=1e-6)
    own = MergedEncoder([str(f) for f in two], [0.5, 0.5]).encode(texts)["final"]
    np.testing.assert_array_equal(own, vectors(tmp_path / "m", texts))


def test_the_ends(two, tmp_path) -> None:
    for lam in (0, 1):
        merge_encoders(two, tmp_path / str(lam), [1 - lam, lam])
    np.testing.assert_array_equal(vectors(tmp_path / "0"), vectors(two[0]))
    # "sat" is the general model's alone
    texts = [text for text in TEXTS if "sat" not in text]
    np.testing.assert_array_equal(vectors(tmp_path / "1", texts), vectors(two[1], texts))


def test_a_model2vec_table_is_multiplied_out(tmp_path) -> None:
    rng = np.random.default_rng(0)
    rows, mapping = rng.normal(size=(9, 4)).astype(np.float16), rng.integers(0, 9, len(WORDS))
    weights = rng.uniform(0.5, 1.5, len(WORDS))
    a = make_static(tmp_path / "a", rows, arrays={"embeddings": rows, "mapping": mapping, "weights": weights})
    b = make_static(tmp_path / "b", (rows.astype(np.float32)[mapping] * weights[:, None]).astype(np.float32))
    merge_encoders([a, a], tmp_path / "same", [0.5, 0.5])
    np.testing.assert_array_equal(merged_table(tmp_path / "same"), merged_table(b))
    np.testing.assert_array_equal(vectors(tmp_path / "same"), vectors(a))
    c = make_static(tmp_path / "c", near(merged_table(b), 2))
    merge_encoders([a, c], tmp_path / "m", [0.5, 0.5])
    merge_encoders([b, c], tmp_path / "n", [0.5, 0.5])
    np.testing.assert_array_equal(merged_table(tmp_path / "m"), merged_table(tmp_path / "n"))


def as_model2vec(folder: Path, to: Path, *, normalise: bool, modules: bool) -> Path:
    """Write a static folder as model2vec saves it: its names, ``config.json``, and modules in its newer versions only."""
    to.mkdir()
    settings = {"model_type": "model2vec", "architectures": ["StaticModel"], "tokenizer_name": "somebody/some-model"}
    settings |= {"apply_pca": 256, "apply_zipf": True, "hidden_dim": 4, "seq_length": 1000000, "normalize": normalise}
    (to / "config.json").write_text(json.dumps(settings))
    (to / "tokenizer.json").write_text((folder / "tokenizer.json").read_text())
    save_file({"embeddings": merged_table(folder)}, to / "model.safetensors")
    (to / "README.md").write_text("---\nlibrary_name: model2vec\n---\n")
    if modules:
        kinds = [("StaticEmbedding", "."), *([("Normalize", "1_Normalize")] if normalise else [])]
        entries = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(kinds)
        ]
        (to / "modules.json").write_text(json.dumps(entries))
    return to


@pytest.mark.parametrize("modules", [True, False])
def test_folders_as_model2vec_writes_them(two, tmp_path, modules) -> None:
    from sentence_transformers import SentenceTransformer

    merge_encoders(two, tmp_path / "expected", [0.6, 0.4])
    own = [
        as_model2vec(folder, tmp_path / f"{folder.name}-model2vec", normalise=True, modules=modules) for folder in two
    ]
    for folder, same in zip(own, two):
        np.testing.assert_array_equal(vectors(folder), vectors(same))
        assert SentenceEncoder(str(folder)).dim("final") == 4
    merge_encoders(own, tmp_path / "m", [0.6, 0.4])
    np.testing.assert_array_equal(merged_table(tmp_path / "m"), merged_table(tmp_path / "expected"))
    texts = [*TEXTS, "prime lemma is good"]
    np.testing.assert_array_equal(vectors(tmp_path / "m", texts), vectors(tmp_path / "expected", texts))
    plain = SentenceTransformer(str(tmp_path / "m"), device="cpu").encode(texts)
    np.testing.assert_allclose(plain, vectors(tmp_path / "m", texts), atol=1e-6)
    # with a folder of sentence-transformers, either way round
    for name, mixed in (("one", [own[0], two[1]]), ("other", [two[0], own[1]])):
        merge_encoders(mixed, tmp_path / name, [0.6, 0.4])
        np.testing.assert_array_equal(merged_table(tmp_path / name), merged_table(tmp_path / "expected"))
    bare = as_model2vec(two[0], tmp_path / "bare", normalise=False, modules=modules)
    assert not np.allclose(np.linalg.norm(vectors(bare), axis=1), 1)
    with pytest.raises(InvalidInputError, match=r"normalisation \(a-model2vec: True; bare: False\)"):
        merge_encoders([own[0], bare], tmp_path / "refused")


def rotation(seed: int, dim: int = 4) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


def test_tables_in_different_bases_are_refused_or_rotated(tmp_path) -> None:
    table, turn = table_of(WORDS), rotation(3)
    theirs = [*WORDS[:-2], "prime"]
    a = make_static(tmp_path / "a", table)
    b = make_static(tmp_path / "b", (table_of(theirs) @ turn).astype(np.float32), theirs)
    with pytest.raises(InvalidInputError, match=r"basis .*rotation='procrustes'.*accept='basis'"):
        merge_encoders([a, b], tmp_path / "m")
    merge_encoders([a, b], tmp_path / "m", [0.5, 0.5], rotation="procrustes")
    expected = np.concatenate([table, table_of(["prime"])])
    np.testing.assert_allclose(merged_table(tmp_path / "m"), expected, atol=1e-5)
    merge_encoders([a, b], tmp_path / "as-they-are", [0.5, 0.5], accept=["basis"])
    assert not np.allclose(merged_table(tmp_path / "as-they-are"), expected, atol=0.1)
    own = MergedEncoder([str(a), str(b)], rotation="procrustes").encode(["a prime cat"])["final"]
    np.testing.assert_array_equal(own, vectors(tmp_path / "m", ["a prime cat"]))
    # distances of the domain table survive the rotation
    merge_encoders([a, b], tmp_path / "one", [0, 1], rotation="procrustes")
    known = ["the cat sat", "it is red", "a dog ran"]
    own, turned = vectors(b, known), vectors(tmp_path / "one", known)
    np.testing.assert_allclose(turned @ turned.T, own @ own.T, atol=1e-5)


def test_tables_from_one_base_are_in_one_basis(two) -> None:
    assert not [d for d in compare_encoders(two).differences if d.what.startswith("basis")]
    assert compare_encoders(two).compatible


@pytest.mark.parametrize(("share", "refused"), [(0.4, True), (0.6, False)])
def test_bases_differ_where_less_than_half_agrees(tmp_path, share, refused) -> None:
    table = table_of(WORDS)
    # one orthogonal matrix of which the trace is a share of the width, in planes that all rows have alike
    c = np.cos(np.arccos(share)) * np.eye(2)
    s = np.sin(np.arccos(share)) * np.array([[0.0, -1], [1, 0]])
    turn = np.block([[c + s, np.zeros((2, 2))], [np.zeros((2, 2)), c + s]])
    a = make_static(tmp_path / "a", table)
    b = make_static(tmp_path / "b", (table @ turn).astype(np.float32))
    found = [d for d in compare_encoders([a, b]).differences if d.what.startswith("basis")]
    assert [d.fatal for d in found] == ([True] if refused else [])


def test_procrustes_finds_the_rotation_and_nothing_better_exists() -> None:
    rng = np.random.default_rng(5)
    a, turn = rng.normal(size=(40, 4)), rotation(6)
    b, rows = a @ turn.T + 0.1 * rng.normal(size=a.shape), np.arange(40)
    found = procrustes(a, b, rows, rows)
    np.testing.assert_allclose(found @ found.T, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(found, turn, atol=0.1)
    best = np.linalg.norm(rotated(b, found) - a)
    for seed in range(20):
        nearby = np.linalg.qr(found + 0.05 * np.random.default_rng(seed).normal(size=(4, 4)))
        assert np.linalg.norm(b @ (nearby[0] * np.sign(np.diag(nearby[1]))) - a) > best
    now, after = agreement(a, b, rows, rows)
    np.testing.assert_allclose(now, (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b), atol=1e-12)
    turned = rotated(b, found)
    np.testing.assert_allclose(after, (a * turned).sum() / np.linalg.norm(a) / np.linalg.norm(b), atol=1e-12)


def test_kinds_and_widths_do_not_mix(base_folder, tmp_path) -> None:
    a = make_static(tmp_path / "a", table_of(WORDS))
    with pytest.raises(InvalidInputError, match=r"kind .*StaticEmbedding.*Transformer"):
        merge_encoders([a, base_folder], tmp_path / "m")
    wide = make_static(tmp_path / "wide", table_of(WORDS, dim=5))
    with pytest.raises(InvalidInputError, match=r"shapes .*\[16, 4\].*\[16, 5\]"):
        merge_encoders([a, wide], tmp_path / "m")
