from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from embedrm.encoders import SentenceEncoder
from embedrm.encoders.files import ModelFiles, Module, read_model, sha256_of
from embedrm.errors import InvalidInputError, ModelError


def change(path: Path, **values: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **values}))


def test_a_sentence_transformers_folder(tiny_folder: Path) -> None:
    files = read_model(tiny_folder)
    assert [module.kind for module in files.modules] == ["Transformer", "Pooling", "Normalize"]
    assert (files.n_layers, files.hidden_size, files.final_dim, files.positions) == (2, 16, 16, 64)
    assert files.own_limit == 32
    assert files.normalises
    assert [path.name for path in files.weights()] == ["model.safetensors"]
    assert files.weights_digest() == sha256_of(tiny_folder / "model.safetensors")


def test_a_plain_folder(plain_folder: Path) -> None:
    files = read_model(plain_folder)
    assert [module.kind for module in files.modules] == ["Transformer", "Pooling"]
    assert (files.n_layers, files.hidden_size, files.final_dim, files.own_limit) == (2, 16, 16, 64)
    assert not files.normalises


def test_the_default_model(wheel_folder: Path) -> None:
    files = read_model(wheel_folder)
    assert (files.n_layers, files.hidden_size, files.final_dim, files.positions, files.own_limit) == (
        6,
        384,
        384,
        512,
        256,
    )


@pytest.mark.parametrize(
    ("config", "width"),
    [
        ({"embedding_dimension": 16, "pooling_mode": "cls"}, 16),
        ({"embedding_dimension": 16, "pooling_mode": ["cls", "mean"]}, 32),
        ({"word_embedding_dimension": 16, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, 32),
        ({"word_embedding_dimension": 16, "pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}, 16),
    ],
)
def test_width_of_the_pooling(tiny_copy: Path, config: dict[str, object], width: int) -> None:
    (tiny_copy / "1_Pooling" / "config.json").write_text(json.dumps(config))
    assert read_model(tiny_copy).final_dim == width


@pytest.mark.parametrize(
    ("model_type", "pad", "positions"),
    [("bert", 0, 514), ("roberta", 1, 512), ("xlm-roberta", 1, 512), ("mpnet", 1, 512)],
)
def test_positions_that_padding_takes(tiny_copy: Path, model_type: str, pad: int, positions: int) -> None:
    change(tiny_copy / "config.json", model_type=model_type, pad_token_id=pad, max_position_embeddings=514)
    assert read_model(tiny_copy).positions == positions


def test_limit_without_any_statement(plain_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(plain_folder, tmp_path / "m"))
    change(folder / "tokenizer_config.json", model_max_length=int(1e30))
    assert read_model(folder).own_limit == 64
    config = json.loads((folder / "config.json").read_text())
    del config["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    assert read_model(folder).own_limit is None


def test_pickled_weights_are_refused(tiny_copy: Path) -> None:
    (tiny_copy / "model.safetensors").rename(tiny_copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only as pytorch_model\.bin, a pickle.*only safetensors is loaded"):
        read_model(tiny_copy)


def test_pickled_weights_of_a_later_module_are_refused(tiny_copy: Path) -> None:
    (tiny_copy / "2_Normalize" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"only as pytorch_model\.bin, a pickle"):
        read_model(tiny_copy)


def test_a_pickle_beside_safetensors_is_not_read_and_not_minded(tiny_copy: Path) -> None:
    (tiny_copy / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert read_model(tiny_copy).weights_digest() == sha256_of(tiny_copy / "model.safetensors")


def test_missing_weights(tiny_copy: Path) -> None:
    (tiny_copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"must hold the weights, and model\.safetensors is missing"):
        read_model(tiny_copy)


def test_a_missing_shard(tiny_copy: Path) -> None:
    (tiny_copy / "model.safetensors").rename(tiny_copy / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tiny_copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors is missing"):
        read_model(tiny_copy)
    shutil.copy(tiny_copy / "model-00001-of-00002.safetensors", tiny_copy / "model-00002-of-00002.safetensors")
    assert len(read_model(tiny_copy).weights()) == 2


def test_code_of_the_model_is_refused(tiny_copy: Path) -> None:
    modules = json.loads((tiny_copy / "modules.json").read_text())
    modules[0]["type"] = "custom_st.Transformer"
    (tiny_copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=r"needs the module custom_st\.Transformer.*never run"):
        read_model(tiny_copy)


def test_code_named_by_the_configuration_is_refused(tiny_copy: Path) -> None:
    (tiny_copy / "evil.py").write_text("raise SystemExit('code of the model was run')")
    change(tiny_copy / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModel": "evil.M"})
    with pytest.raises(ModelError, match="cannot load the model"):
        SentenceEncoder(str(tiny_copy)).encode(["a"])


@pytest.mark.parametrize("path", ["../other", "/etc"])
def test_modules_outside_the_folder_are_refused(tiny_copy: Path, path: str) -> None:
    modules = json.loads((tiny_copy / "modules.json").read_text())
    modules[1]["path"] = path
    (tiny_copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="points outside"):
        read_model(tiny_copy)


def test_adapters_are_refused(tiny_copy: Path) -> None:
    (tiny_copy / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="PEFT adapter"):
        read_model(tiny_copy)


def test_a_first_module_that_tokenises_itself_is_refused(tiny_copy: Path) -> None:
    modules = json.loads((tiny_copy / "modules.json").read_text())
    modules[0]["type"] = "sentence_transformers.models.BoW"
    (tiny_copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="first module must be a Transformer or a StaticEmbedding, and it is BoW"):
        read_model(tiny_copy)


@pytest.mark.parametrize("content", ["{", "[1, 2]", '"text"'])
def test_broken_settings_name_the_file(tiny_copy: Path, content: str) -> None:
    (tiny_copy / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        SentenceEncoder(str(tiny_copy)).layers  # noqa: B018


# Fingerprints


def test_a_fingerprint_is_the_same_from_another_folder(tiny_folder: Path, tiny_copy: Path) -> None:
    one, two = SentenceEncoder(str(tiny_folder)), SentenceEncoder(str(tiny_copy))
    assert one.fingerprint() == two.fingerprint()
    assert one.fingerprint_digest() == two.fingerprint_digest()


def test_a_fingerprint_has_no_path_and_no_version(tiny_copy: Path) -> None:
    import sentence_transformers
    import transformers

    print_ = SentenceEncoder(str(tiny_copy)).fingerprint()
    text = json.dumps(print_)
    assert print_["model"] == "bert-2x16"
    assert str(tiny_copy) not in text
    assert tiny_copy.name not in text
    assert transformers.__version__ not in text
    assert sentence_transformers.__version__ not in text
    change(tiny_copy / "config.json", transformers_version="1.2.3", _name_or_path="/home/somebody/model")
    assert SentenceEncoder(str(tiny_copy)).fingerprint() == print_


def test_the_wheel_and_a_copy_of_it_are_one_encoder(wheel_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(wheel_folder, copy, copy_function=lambda a, b: Path(b).symlink_to(a))
    here, there = SentenceEncoder(offline=True), SentenceEncoder(str(copy))
    assert there.files.folder == copy
    assert here.fingerprint() == there.fingerprint()
    assert here.fingerprint()["model"] == "all-MiniLM-L6-v2"
    assert here.fingerprint()["weights"].startswith("53aa51172d142c89")


def damage_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("field", "damage"),
    [
        ("weights", damage_weights),
        ("tokenizer", lambda f: (f / "tokenizer.json").write_text((f / "tokenizer.json").read_text() + " ")),
        ("tokenizer", lambda f: change(f / "tokenizer_config.json", do_lower_case=True)),
        ("tokenizer", lambda f: change(f / "sentence_bert_config.json", do_lower_case=True)),
        ("modules", lambda f: change(f / "1_Pooling" / "config.json", pooling_mode_cls_token=True)),
        ("modules", lambda f: change(f / "config.json", hidden_act="relu")),
        ("max_length", lambda f: change(f / "sentence_bert_config.json", max_seq_length=31)),
    ],
)
def test_whatever_changes_a_vector_changes_its_field(
    tiny_folder: Path, tiny_copy: Path, field: str, damage: object
) -> None:
    before = SentenceEncoder(str(tiny_folder)).fingerprint()
    damage(tiny_copy)  # type: ignore[operator]
    after = SentenceEncoder(str(tiny_copy)).fingerprint()
    different = {key for key in before if before[key] != after[key]}
    assert field in different
    assert different <= {field, "tokenizer", "modules"}


def test_arguments_that_change_a_vector_change_the_fingerprint(tiny_folder: Path) -> None:
    options: list[dict[str, object]] = [{}, {"max_length": 8}, {"truncation": "tail"}, {"prompt": "yes "}]
    digests = {SentenceEncoder(str(tiny_folder), **o).fingerprint_digest() for o in options}  # type: ignore[arg-type]
    assert len(digests) == 4
    same = [{"batch_tokens": 7}, {"threads": 1}, {"offline": True}, {"max_length": 32}]
    digests = {SentenceEncoder(str(tiny_folder), **o).fingerprint_digest() for o in [{}, *same]}  # type: ignore[arg-type]
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation": "heads"}, "unknown truncation policy 'heads'"),
        ({"max_length": 0}, "max_length must be a positive whole number or None; got 0"),
        ({"max_length": 65}, "max_length=65 is more than the 64 positions"),
        ({"threads": True}, "threads must be a positive whole number"),
        ({"prompt": 3}, "prompt must be a string or None; got int"),
        ({"revision": "main"}, "revision='main' means nothing for the folder"),
    ],
)
def test_bad_arguments(tiny_folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        SentenceEncoder(str(tiny_folder), **options).fingerprint()  # type: ignore[arg-type]


def test_parameters_are_counted_from_the_headers_of_all_modules(tmp_path: Path) -> None:
    for name, arrays in (
        ("0", {"a": np.zeros((3, 4), np.float32), "position_ids": np.zeros(7, np.int64)}),
        ("1", {"b": np.zeros(5, np.float16)}),
    ):
        (tmp_path / name).mkdir()
        save_file(arrays, tmp_path / name / "model.safetensors")
    files = ModelFiles(tmp_path, (Module("Transformer", "0"), Module("Dense", "1")))
    assert files.n_parameters() == 3 * 4 + 5
