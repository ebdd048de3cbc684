"""Encoders merged: laws of lambda, vocabularies joined, mismatches refused, and the folder read elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tuning_base import TEXTS

from embedrm import SentenceEncoder, load_encoder
from embedrm.encoders import encoder_from_spec
from embedrm.encoders.merged import MergedEncoder
from embedrm.errors import InvalidInputError, ModelError
from embedrm.merging import MERGE_METHODS
from embedrm.merging.encoder_report import compare_encoders
from embedrm.merging.encoders import merge_encoders
from embedrm.store import EmbeddingStore
from embedrm.tuning import TunedEncoder

TABLE = "embeddings.word_embeddings.weight"
NEW = ["shirts", "##ts", "prime"]


def moved(base: Path, folder: Path, seed: int, scale: float = 0.05) -> Path:
    """Copy a model and move all its weights."""
    shutil.copytree(base, folder)
    rng = np.random.default_rng(seed)
    arrays = load_file(folder / "model.safetensors")
    for name in sorted(arrays):
        if arrays[name].dtype == np.float32:
            arrays[name] = (arrays[name] + scale * rng.normal(size=arrays[name].shape)).astype(np.float32)
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def with_vocabulary(folder: Path, tokens: list[str], seed: int) -> Path:
    """Give a WordPiece model this vocabulary; a token that it had keeps its row."""
    description = json.loads((folder / "tokenizer.json").read_text())
    before = description["model"]["vocab"]
    description["model"]["vocab"] = {token: i for i, token in enumerate(tokens)}
    arrays = load_file(folder / "model.safetensors")
    old = arrays[TABLE]
    fresh = np.random.default_rng(seed).normal(scale=0.2, size=(len(tokens), old.shape[1])).astype(np.float32)
    arrays[TABLE] = np.stack([old[before[t]] if t in before else fresh[i] for i, t in enumerate(tokens)])
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer.json").write_text(json.dumps(description))
    return edit(folder, vocab_size=len(tokens))


def edit(folder: Path, name: str = "config.json", **changes: object) -> Path:
    """Change a JSON file of a model."""
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def tokens_of(folder: Path) -> list[str]:
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    return sorted(vocabulary, key=vocabulary.__getitem__)


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def vectors(folder: Path, texts: list[str] = TEXTS) -> np.ndarray:
    found = SentenceEncoder(str(folder)).encode(texts, (0, 2, "final"))
    return np.concatenate([found[layer] for layer in (0, 2, "final")], axis=1)


@pytest.fixture(scope="session")
def general(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moved(base_folder, tmp_path_factory.mktemp("general") / "general", 1)


@pytest.fixture(scope="session")
def domain(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moved(base_folder, tmp_path_factory.mktemp("domain") / "domain", 2)


@pytest.fixture(scope="session")
def wider(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A domain model without one token of the base, with three of its own, and the others at other ids."""
    folder = moved(base_folder, tmp_path_factory.mktemp("wider") / "wider", 3)
    words = [t for t in tokens_of(folder)[5:] if t != "house"]
    return with_vocabulary(folder, [*tokens_of(folder)[:5], *NEW, *words[::-1]], 4)


@pytest.fixture
def copy(base_folder: Path, tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(base_folder, tmp_path / name))


# -- laws ------------------------------------------------------------------------------------------------------------


def test_lambda_is_dogerm_by_hand(general, domain, tmp_path) -> None:
    merge_encoders([general, domain], tmp_path / "m", [0.7, 0.3])
    a, b, m = weights_of(general), weights_of(domain), weights_of(tmp_path / "m")
    assert set(m) == set(a)
    for name in a:
        expected = (0.7 * a[name].astype(np.float64) + 0.3 * b[name]).astype(a[name].dtype)
        np.testing.assert_allclose(m[name], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("lam", [0, 1])
def test_the_ends_are_the_models_to_the_bit(general, domain, tmp_path, lam) -> None:
    merge_encoders([general, domain], tmp_path / "m", [1 - lam, lam])
    end, merged = weights_of([general, domain][lam]), weights_of(tmp_path / "m")
    for name in end:
        np.testing.assert_array_equal(merged[name], end[name])
    np.testing.assert_array_equal(vectors(tmp_path / "m"), vectors([general, domain][lam]))


def test_lambda_zero_takes_no_token_of_the_other(general, wider, tmp_path) -> None:
    merge_encoders([general, wider], tmp_path / "m", [1, 0])
    assert tokens_of(tmp_path / "m") == tokens_of(general)
    np.testing.assert_array_equal(vectors(tmp_path / "m"), vectors(general))


@pytest.mark.parametrize("method", ["linear", "slerp", "model_soup", "warm"])
@pytest.mark.parametrize("n", [2, 3])
def test_a_model_merged_with_itself_is_itself(general, tmp_path, method, n) -> None:
    merge_encoders([general] * n, tmp_path / "m", method=method)
    for name, array in weights_of(general).items():
        np.testing.assert_array_equal(weights_of(tmp_path / "m")[name], array)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare_linear", "dare_ties", "breadcrumbs"])
def test_methods_on_deltas(base_folder, general, domain, tmp_path, method) -> None:
    options = {
        name: {"p": 0.5, "density": 0.5}[name]
        for name, default in MERGE_METHODS.get(method).options().items()
        if name in ("p", "density")
    }
    merge_encoders([general, domain], tmp_path / "m", [0.7, 0.3], method, base=base_folder, **options)
    # a model that never moved leaves the base, whatever the method
    merge_encoders([base_folder, base_folder], tmp_path / "still", [0.7, 0.3], method, base=base_folder, **options)
    still, start = weights_of(tmp_path / "still"), weights_of(base_folder)
    for name in start:
        np.testing.assert_array_equal(still[name], start[name])
    assert np.isfinite(vectors(tmp_path / "m")).all()
    assert not np.array_equal(weights_of(tmp_path / "m")[TABLE], start[TABLE])


def test_task_arithmetic_by_hand(base_folder, general, domain, tmp_path) -> None:
    merge_encoders([general, domain], tmp_path / "m", [0.9, 0.6], "task_arithmetic", base=base_folder)
    o, a, b, m = (weights_of(f)[TABLE].astype(np.float64) for f in (base_folder, general, domain, tmp_path / "m"))
    np.testing.assert_allclose(m, o + 0.9 * (a - o) + 0.6 * (b - o), rtol=0, atol=1e-6)


def test_order_does_not_matter(general, domain, wider, base_folder, tmp_path) -> None:
    merge_encoders([general, domain, base_folder], tmp_path / "a", [0.5, 0.3, 0.2])
    merge_encoders([base_folder, general, domain], tmp_path / "b", [0.2, 0.5, 0.3])
    np.testing.assert_allclose(vectors(tmp_path / "a"), vectors(tmp_path / "b"), atol=1e-6)
    # nor does it where vocabularies are joined, though tokens have other ids then
    merge_encoders([general, wider], tmp_path / "c", [0.6, 0.4])
    merge_encoders([wider, general], tmp_path / "d", [0.4, 0.6])
    texts = [*TEXTS, "a house of prime shirts is shirtsts"]
    np.testing.assert_allclose(vectors(tmp_path / "c", texts), vectors(tmp_path / "d", texts), atol=1e-6)
    assert sorted(tokens_of(tmp_path / "c")) == sorted(tokens_of(tmp_path / "d"))


def test_the_same_merge_has_the_same_bytes(general, wider, tmp_path) -> None:
    for name in "ab":
        merge_encoders([general, wider], tmp_path / name, [0.6, 0.4])
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*") if p.is_file())
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


# -- vocabularies ----------------------------------------------------------------------------------------------------


def test_shared_tokens_are_merged_and_unique_ones_kept(general, wider, tmp_path) -> None:
    facts = merge_encoders([general, wider], tmp_path / "m", [0.75, 0.25])
    ours, theirs, joined = tokens_of(general), tokens_of(wider), tokens_of(tmp_path / "m")
    assert joined == [*ours, *NEW]
    assert facts["tokens"] == {"all": len(joined), "appended": 3, "of several models": len(ours) - 1}
    a, b, m = (weights_of(f)[TABLE] for f in (general, wider, tmp_path / "m"))
    for i, token in enumerate(joined):
        if token in NEW:
            np.testing.assert_array_equal(m[i], b[theirs.index(token)])
        elif token == "house":
            np.testing.assert_array_equal(m[i], a[i])
        else:
            expected = 0.75 * a[i].astype(np.float64) + 0.25 * b[theirs.index(token)]
            np.testing.assert_allclose(m[i], expected, atol=1e-7)
    assert json.loads((tmp_path / "m" / "config.json").read_text())["vocab_size"] == len(joined)


def test_at_lambda_one_texts_of_common_tokens_are_the_domain_models(general, wider, tmp_path) -> None:
    merge_encoders([general, wider], tmp_path / "m", [0, 1])
    texts = ["a prime red", "shirts", "it is very kind"]
    np.testing.assert_allclose(vectors(tmp_path / "m", texts), vectors(wider, texts), atol=1e-6)


def test_a_moved_vocabulary_is_matched_by_token(general, tmp_path) -> None:
    order = tokens_of(general)
    other = with_vocabulary(Path(shutil.copytree(general, tmp_path / "o")), [*order[:5], *order[:4:-1]], 0)
    merge_encoders([general, other], tmp_path / "m", [0.5, 0.5])
    np.testing.assert_array_equal(weights_of(tmp_path / "m")[TABLE], weights_of(general)[TABLE])


def test_tokens_of_two_of_three_are_merged_between_them(general, wider, base_folder, tmp_path) -> None:
    second = moved(wider, tmp_path / "second", 9)
    merge_encoders([general, wider, second], tmp_path / "m", [0.5, 0.3, 0.2])
    i, j = tokens_of(tmp_path / "m").index("prime"), tokens_of(wider).index("prime")
    b, c, m = (weights_of(f)[TABLE] for f in (wider, second, tmp_path / "m"))
    np.testing.assert_allclose(m[i], 0.6 * b[j].astype(np.float64) + 0.4 * c[j], atol=1e-7)
    # a token that the base lacks has no delta: it is averaged
    merge_encoders([general, wider, second], tmp_path / "t", [0.5, 0.3, 0.2], "task_arithmetic", base=base_folder)
    np.testing.assert_allclose(weights_of(tmp_path / "t")[TABLE][i], m[i], atol=1e-7)
    o, k = weights_of(base_folder)[TABLE], tokens_of(general).index("red")
    a, w = weights_of(general)[TABLE], tokens_of(wider).index("red")
    expected = o[k] + 0.5 * (a[k] - o[k]) + 0.3 * (b[w] - o[k]) + 0.2 * (c[w] - o[k])
    np.testing.assert_allclose(weights_of(tmp_path / "t")[TABLE][k], expected, atol=1e-6)


def test_weights_that_are_not_normalised_leave_no_token_short(general, wider, tmp_path) -> None:
    second = moved(wider, tmp_path / "second", 9)
    merge_encoders([general, wider, second], tmp_path / "m", [0.5, 0.3, 0.2], normalize=False)
    merge_encoders([general, wider, second], tmp_path / "n", [0.5, 0.3, 0.2])
    np.testing.assert_allclose(weights_of(tmp_path / "m")[TABLE], weights_of(tmp_path / "n")[TABLE], atol=1e-6)


def test_a_word_list_beside_the_tokenizer_does_not_contradict_it(general, wider, domain, tmp_path) -> None:
    first = Path(shutil.copytree(general, tmp_path / "first"))
    (first / "vocab.txt").write_text("\n".join(tokens_of(first)) + "\n")
    merge_encoders([first, wider], tmp_path / "m")
    assert not (tmp_path / "m" / "vocab.txt").exists()
    merge_encoders([first, domain], tmp_path / "n")
    assert (tmp_path / "n" / "vocab.txt").read_bytes() == (first / "vocab.txt").read_bytes()


def test_byte_pairs_cannot_be_joined(copy, tmp_path) -> None:
    from tokenizers import Tokenizer, models

    for name, extra in (("a", []), ("b", [("a", "b")])):
        folder = copy(name)
        ids = {
            t: i
            for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", *(["ab"] if extra else [])])
        }
        tokenizer = Tokenizer(models.BPE(ids, extra, unk_token="[UNK]"))
        tokenizer.save(str(folder / "tokenizer.json"))
        edit(folder, "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", backend="tokenizers")
    with pytest.raises(InvalidInputError, match="BPE, and a byte-pair token is reached by merges"):
        merge_encoders([tmp_path / "a", tmp_path / "b"], tmp_path / "m")


# -- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["domain", "wider"])
def test_plain_sentence_transformers_gives_the_same_vectors(general, other, tmp_path, request) -> None:
    from sentence_transformers import SentenceTransformer

    merge_encoders([general, request.getfixturevalue(other)], tmp_path / "m", [0.6, 0.4])
    texts = [*TEXTS, "prime shirts"]
    plain = SentenceTransformer(str(tmp_path / "m"), device="cpu").encode(texts)
    np.testing.assert_allclose(
        SentenceEncoder(str(tmp_path / "m")).encode(texts, ("final",))["final"], plain, atol=1e-6
    )


def test_half_precision_is_kept_and_types_are_mixed_on_request(general, domain, tmp_path) -> None:
    import torch
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file as save_torch

    for kind in (torch.float16, torch.bfloat16):
        name = str(kind).partition(".")[2]
        small = Path(shutil.copytree(general, tmp_path / name))
        before = {
            k: v.to(kind) if v.is_floating_point() else v for k, v in load_torch(small / "model.safetensors").items()
        }
        save_torch(before, small / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(InvalidInputError, match=r"type of the numbers.*accept='type'"):
            merge_encoders([small, domain], tmp_path / "no")
        merge_encoders([small, small], tmp_path / f"{name}-self")
        merge_encoders([small, domain], tmp_path / f"{name}-half", [0.5, 0.5], accept=["type"])
        own, half = (load_torch(tmp_path / f"{name}-{of}" / "model.safetensors") for of in ("self", "half"))
        theirs = load_torch(domain / "model.safetensors")
        for key, array in before.items():
            assert torch.equal(own[key], array)
            assert torch.equal(half[key], ((array.double() + theirs[key].double()) / 2).float().to(array.dtype)), key


def test_a_failure_leaves_nothing(general, domain, tmp_path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("embedrm.merging.encoders.write_json", full)
    with pytest.raises(OSError, match="No space"):
        merge_encoders([general, domain], tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(general, domain, tmp_path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine").touch()
    with pytest.raises(InvalidInputError, match="already there"):
        merge_encoders([general, domain], tmp_path / "m")


def test_the_record_names_inputs_and_method(general, domain, tmp_path) -> None:
    merge_encoders([general, domain], tmp_path / "m", [0.75, 0.25])
    # as readable as a folder that was made in the ordinary way, not a temporary folder's secret
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o755
    record = json.loads((tmp_path / "m" / "merge.json").read_text())
    assert record["method"] == "linear"
    assert record["weights"] == [0.75, 0.25]
    assert [m["name"] for m in record["models"]] == ["general", "domain"]
    assert record["models"][0]["weights"] == SentenceEncoder(str(general)).fingerprint()["weights"]
    assert str(tmp_path) not in json.dumps(record)


# -- tuned folders ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tuned(base_folder, preferences, tmp_path_factory) -> list[Path]:
    """A general model by preferences and a domain model by plain text, from one base."""
    place = tmp_path_factory.mktemp("tuned")
    common = {
        "base": str(base_folder),
        "method": "full",
        "epochs": 1,
        "batch_tokens": 400,
        "max_length": 32,
        "threads": 1,
    }
    TunedEncoder(**common, learning_rate=3e-3).fit(preferences, place / "general")
    TunedEncoder(**common, objective="masked-token").fit(TEXTS * 4, place / "domain")
    return [place / "general", place / "domain"]


def test_a_merged_tuned_folder_is_a_tuned_folder(tuned, preferences, tmp_path) -> None:
    merge_encoders(tuned, tmp_path / "m", [0.5, 0.5])
    merged, first = TunedEncoder.load(tmp_path / "m"), TunedEncoder.load(tuned[0])
    assert merged.facts_["merge"]["weights"] == [0.5, 0.5]
    assert merged.facts_["merge"]["head"] == "general"
    assert merged.facts_["base_digest"] == first.facts_["base_digest"]
    head = load_file(tuned[0] / "tuning_head.safetensors")["weight"]
    np.testing.assert_array_equal(load_file(tmp_path / "m" / "tuning_head.safetensors")["weight"], head)
    # the general head on the merged vectors
    texts = preferences.joint_texts(merged.template)
    layer = merged.facts_["layer"]
    by_hand = merged.joint_encoder().encode(texts, (layer,))[layer].astype(np.float64) @ head[0].astype(np.float64)
    np.testing.assert_allclose(merged.rewards(preferences), by_hand, atol=1e-6)
    merge_encoders(tuned, tmp_path / "zero", [1, 0])
    np.testing.assert_array_equal(TunedEncoder.load(tmp_path / "zero").rewards(preferences), first.rewards(preferences))
    merge_encoders([tmp_path / "m", tuned[1]], tmp_path / "again", [0.5, 0.5])


def test_the_unmoved_base_is_named(tuned, base_folder) -> None:
    found = compare_encoders([tuned[0], base_folder])
    assert found.compatible
    assert any("unmoved base" in d.remedy for d in found.differences)


def test_bases_that_differ_are_refused(tuned, base_folder, general, tmp_path) -> None:
    other = edit(Path(shutil.copytree(tuned[1], tmp_path / "other")), "tuning.json", base_digest="0" * 32)
    with pytest.raises(InvalidInputError, match=r"base .*: tune both from one base, or accept='base'"):
        merge_encoders([tuned[0], other], tmp_path / "m")
    facts = merge_encoders([tuned[0], other], tmp_path / "m", accept=["base"])
    assert facts["base_digest"] is None
    with pytest.raises(InvalidInputError, match="give the base it was tuned from"):
        merge_encoders(tuned, tmp_path / "n", method="task_arithmetic", base=general)
    merge_encoders(tuned, tmp_path / "n", method="task_arithmetic", base=base_folder)


# -- refusals --------------------------------------------------------------------------------------------------------


def _nan(folder: Path) -> None:
    arrays = load_file(folder / "model.safetensors")
    arrays[TABLE][3, 4] = np.nan
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})


def _without_bias(folder: Path) -> None:
    arrays = load_file(folder / "model.safetensors")
    del arrays["encoder.layer.1.output.dense.bias"]
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})


def _narrow(folder: Path) -> None:
    arrays = load_file(folder / "model.safetensors")
    name = "encoder.layer.0.intermediate.dense.bias"
    arrays[name] = arrays[name][:-1].copy()
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})


def _cased(folder: Path) -> None:
    description = json.loads((folder / "tokenizer.json").read_text())
    description["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(description))


def _not_normalised(folder: Path) -> None:
    path = folder / "modules.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:2]))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: edit(f, model_type="roberta"), "architecture .*bert.*roberta"),
        (lambda f: edit(f, num_attention_heads=4), "configuration .*num_attention_heads 2.*num_attention_heads 4"),
        (lambda f: edit(f, hidden_act="relu"), "configuration .*hidden_act gelu.*hidden_act relu"),
        (_without_bias, "names of the tensors .*encoder.layer.1.output.dense.bias.*no tensor is skipped"),
        (_narrow, r"shapes .*intermediate.dense.bias \[64\].*\[63\]"),
        (_nan, "NaN or infinite weights .*1 of 992 numbers of embeddings.word_embeddings.weight"),
        (_cased, "tokenizer .*normalizer"),
        (lambda f: edit(f, "1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_max_tokens=True),
         "pooling .*mean.*max.*accept='pooling'"),
        (_not_normalised, "normalisation .*True.*False.*accept='normalisation'"),
        (lambda f: edit(f, "sentence_bert_config.json", max_seq_length=16), "max length .*32.*16.*accept='max-length'"),
        (lambda f: (f / "config_sentence_transformers.json").write_text('{"prompts": {"query": "Q: "}}'),
         "prompts .*Q: .*accept='prompts'"),
    ],
)  # fmt: skip
def test_each_mismatch_is_one_clear_error(general, copy, tmp_path, damage, told) -> None:
    other = copy("other")
    damage(other)
    with pytest.raises(InvalidInputError, match=told) as raised:
        merge_encoders([general, other], tmp_path / "m")
    assert str(raised.value).count("; and in ") == 0, "one difference, one clause"
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("accept", "damage"),
    [
        (
            "pooling",
            lambda f: edit(f, "1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_max_tokens=True),
        ),
        ("normalisation", _not_normalised),
        ("max-length", lambda f: edit(f, "sentence_bert_config.json", max_seq_length=16)),
    ],
)
def test_what_is_accepted_keeps_the_first_models(general, copy, tmp_path, accept, damage) -> None:
    damage(other := copy("other"))
    merge_encoders([general, other], tmp_path / "m", [1.0, 0.0], accept=[accept])
    np.testing.assert_array_equal(vectors(tmp_path / "m"), vectors(general))


def test_arguments_that_cannot_be_meant(general, domain, base_folder, tmp_path) -> None:
    two, out = [general, domain], tmp_path / "m"
    for arguments, told in [
        ({"weights": [0.3]}, "needs 2 weights"),
        ({"weights": [0, 0]}, "weight that is not zero"),
        ({"method": "ties"}, "needs base"),
        ({"base": base_folder}, "no use for"),
        ({"method": "fisher"}, "needs moments .*write_encoder_moments"),
        ({"moments": ["a", "b"]}, "no use for"),
        ({"method": "fisher", "moments": ["a"]}, "list of 2 files"),
        ({"method": "tie"}, "ties"),
        ({"density": 0.5}, "density"),
        ({"accept": ["shapes"]}, "shapes"),
        ({"rotation": "procrustes"}, "cannot be rotated"),
        ({"names": ["a"]}, "one name for each"),
    ]:
        with pytest.raises(InvalidInputError, match=told):
            merge_encoders(two, out, **arguments)
    with pytest.raises(InvalidInputError, match="at least one encoder"):
        merge_encoders([], out)
    with pytest.raises(ModelError, match="no model found"):
        merge_encoders([general, tmp_path / "nowhere"], out)
    assert not out.exists()


# -- MergedEncoder ---------------------------------------------------------------------------------------------------


def test_merged_encoder_is_its_folder(general, wider, tmp_path) -> None:
    merge_encoders([general, wider], tmp_path / "m", [0.6, 0.4])
    encoder = MergedEncoder([str(general), str(wider)], [0.6, 0.4])
    texts = [*TEXTS, "prime shirts"]
    own, plain = encoder.encode(texts, (1, "final")), SentenceEncoder(str(tmp_path / "m")).encode(texts, (1, "final"))
    for layer in own:
        np.testing.assert_array_equal(own[layer], plain[layer])
    assert encoder.effective_digests(texts) == SentenceEncoder(str(tmp_path / "m")).effective_digests(texts)
    assert encoder.layers == (0, 1, 2, "final")
    assert encoder.dim("final") == 32
    again = encoder_from_spec(json.loads(json.dumps(encoder.spec())))
    assert again.fingerprint_digest() == encoder.fingerprint_digest()
    folder = encoder.materialise().parent
    assert folder.is_dir()
    del encoder
    assert not folder.exists()


def test_a_released_model_is_freed_at_once_and_loaded_again(general, domain) -> None:
    import gc
    import weakref

    encoder = MergedEncoder([str(general), str(domain)], [0.6, 0.4])
    before = encoder.encode(TEXTS)
    folder = encoder.materialise()
    held = weakref.ref(encoder._whole._backbone)
    gc.disable()
    try:
        encoder.release()
        assert held() is None
    finally:
        gc.enable()
    after = encoder.encode(TEXTS)
    for layer in before:
        np.testing.assert_array_equal(before[layer], after[layer])
    assert encoder.materialise() == folder
    MergedEncoder([str(general), str(domain)], [0.6, 0.4]).release()  # nothing was loaded


def test_every_lambda_has_its_own_vectors_in_the_store(general, domain, tmp_path, monkeypatch) -> None:
    store = EmbeddingStore(tmp_path / "store")
    pair = [str(general), str(domain)]
    first = {
        lam: store.get(MergedEncoder(pair, [1 - lam, lam]), TEXTS, ("final",))["final"].copy() for lam in (0, 0.5, 1)
    }
    assert not np.array_equal(first[0], first[0.5])
    np.testing.assert_array_equal(first[0], SentenceEncoder(str(general)).encode(TEXTS, ("final",))["final"])

    def never(*_: object, **__: object) -> None:
        raise AssertionError("stored vectors need no merging")

    monkeypatch.setattr("embedrm.merging.encoders.merge_encoders", never)
    for lam, kept in first.items():
        np.testing.assert_array_equal(store.get(MergedEncoder(pair, [1 - lam, lam]), TEXTS, ("final",))["final"], kept)


def test_the_fingerprint_follows_all_that_changes_a_vector(general, domain, base_folder) -> None:
    pair = [str(general), str(domain)]
    ties = {"method": "ties", "base": str(base_folder)}
    made = [
        MergedEncoder(pair, [0.5, 0.5]),
        MergedEncoder(pair, [0.4, 0.6]),
        MergedEncoder(pair[::-1], [0.5, 0.5]),
        MergedEncoder(pair, [0.5, 0.5], method="slerp"),
        MergedEncoder(pair, [0.5, 0.5], **ties),
        MergedEncoder(pair, [0.5, 0.5], **ties, options={"density": 0.5}),
        MergedEncoder(pair, [0.5, 0.5], max_length=16),
        MergedEncoder([str(general)] * 2, [0.5, 0.5]),
        MergedEncoder(pair, [0.5, 0.5], rotation="procrustes"),
    ]
    assert len({e.fingerprint_digest() for e in made}) == len(made)
    default = MergedEncoder(pair, [0.5, 0.5], **ties, options={"density": 0.2})
    assert default.fingerprint_digest() == made[4].fingerprint_digest()


def test_a_cache_folder_is_filled_once(general, domain, tmp_path) -> None:
    pair = [str(general), str(domain)]
    encoder = MergedEncoder(pair, [0.5, 0.5], cache=str(tmp_path / "cache"))
    folder = encoder.materialise()
    assert folder == tmp_path / "cache" / encoder.fingerprint_digest()
    before = (folder / "model.safetensors").stat().st_mtime_ns
    again = load_encoder("merged", models=pair, weights=[0.5, 0.5], cache=str(tmp_path / "cache"))
    assert (again.materialise() / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(InvalidInputError, match="at least one encoder"):
        MergedEncoder().fingerprint()


def test_merged_encoder_passes_on_what_it_is_given(general, domain, copy) -> None:
    _not_normalised(other := copy("other"))
    pair = [str(general), str(other)]
    with pytest.raises(InvalidInputError, match="normalisation"):
        MergedEncoder(pair).encode(TEXTS)
    assert MergedEncoder(pair, accept=["normalisation"]).encode(TEXTS, ("final",))["final"].shape == (len(TEXTS), 32)
    assert MergedEncoder(pair).fingerprint_digest() == MergedEncoder(pair, [0.5, 0.5]).fingerprint_digest()
    by_t = MergedEncoder([str(general), str(domain)], method="slerp", options={"t": 0.25})
    assert by_t.fingerprint()["weights"] is None
    weighted = MergedEncoder([str(general), str(domain)], [0.75, 0.25], method="slerp")
    np.testing.assert_allclose(by_t.encode(TEXTS, (1,))[1], weighted.encode(TEXTS, (1,))[1], atol=1e-6)
