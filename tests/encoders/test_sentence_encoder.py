from __future__ import annotations

import json
import logging
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedrm.encoders import SentenceEncoder
from embedrm.encoders.base import Layer
from embedrm.errors import InvalidInputError, ModelError

TOLERANCE = 1e-5


def reference(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def hidden_means(folder: Path, texts: list[str], limit: int = 32) -> list[np.ndarray]:
    """Mean of every hidden state, one text at a time, by transformers alone."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")
        with torch.inference_mode():
            states = model.eval()(**ids, output_hidden_states=True).hidden_states
        rows.append([state[0].mean(0).numpy() for state in states])
    return [np.stack(layer) for layer in zip(*rows)]


def encoder_of(folder: Path, **options: Any) -> SentenceEncoder:
    return SentenceEncoder(str(folder), **options)


# What the vectors are


def test_final_is_what_sentence_transformers_gives(tiny_folder: Path, texts: list[str]) -> None:
    got = encoder_of(tiny_folder).encode(texts, ("final",))["final"]
    np.testing.assert_allclose(got, reference(tiny_folder).encode(texts), atol=TOLERANCE)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)


def test_layers_are_means_of_hidden_states(tiny_folder: Path, texts: list[str]) -> None:
    encoder = encoder_of(tiny_folder, batch_tokens=100)
    assert encoder.layers == (0, 1, 2, "final")
    assert encoder.default_layers == (1, 2)
    got = encoder.encode(texts, encoder.layers)
    assert list(got) == [0, 1, 2, "final"]
    for layer, want in enumerate(hidden_means(tiny_folder, texts)):
        vectors = got[layer]
        assert vectors.shape == (len(texts), 16)
        assert vectors.dtype == np.float32
        assert vectors.flags.c_contiguous
        np.testing.assert_allclose(vectors, want, atol=TOLERANCE)


def test_a_plain_folder_gets_mean_pooling(plain_folder: Path, texts: list[str]) -> None:
    got = encoder_of(plain_folder).encode(texts, (2, "final"))
    np.testing.assert_allclose(got["final"], reference(plain_folder).encode(texts), atol=TOLERANCE)
    np.testing.assert_allclose(got[2], got["final"], atol=1e-6)


@pytest.mark.parametrize("layers", [(0,), (1,), (0, 1), (1, "final"), (2,), ("final", 0)])
def test_a_choice_of_layers_gives_the_same_bits(tiny_folder: Path, texts: list[str], layers: tuple[Layer, ...]) -> None:
    encoder = encoder_of(tiny_folder)
    everything = encoder.encode(texts, encoder.layers)
    some = encoder.encode(texts, layers)
    assert tuple(some) == layers
    for layer in layers:
        np.testing.assert_array_equal(some[layer], everything[layer])


def test_blocks_above_the_highest_layer_are_not_run(tiny_folder: Path, texts: list[str]) -> None:
    encoder = encoder_of(tiny_folder)
    encoder.encode(texts[:1], (1,))
    blocks = encoder._load().model[0].auto_model.encoder.layer
    ran: list[int] = []
    for i, block in enumerate(blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    encoder.encode(texts[:1], (0,))
    assert ran == []
    encoder.encode(texts[:1], (0, 1))
    assert ran == [0]
    encoder.encode(texts[:1], (1, "final"))
    assert ran == [0, 0, 1]
    assert not any(block._forward_pre_hooks for block in blocks)


def test_other_poolings_and_dense_modules(tiny_copy: Path, texts: list[str]) -> None:
    import torch
    from safetensors.torch import save_file

    (tiny_copy / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 16, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    )
    dense = tiny_copy / "2_Dense"
    dense.mkdir()
    (dense / "config.json").write_text(
        json.dumps(
            {
                "in_features": 16,
                "out_features": 5,
                "bias": True,
                "activation_function": "torch.nn.modules.activation.Tanh",
            }
        )
    )
    torch.manual_seed(1)
    save_file({"linear.weight": torch.randn(5, 16), "linear.bias": torch.randn(5)}, dense / "model.safetensors")
    modules = json.loads((tiny_copy / "modules.json").read_text())
    modules[2] = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    (tiny_copy / "modules.json").write_text(json.dumps(modules))
    encoder = encoder_of(tiny_copy)
    assert (encoder.dim("final"), encoder.dim(2)) == (5, 16)
    assert len(encoder.files.weights()) == 2
    got = encoder.encode(texts, ("final", 2))
    np.testing.assert_allclose(got["final"], reference(tiny_copy).encode(texts), atol=TOLERANCE)
    np.testing.assert_allclose(got[2], hidden_means(tiny_copy, texts)[2], atol=TOLERANCE)


def test_a_static_embedding_has_only_final(tmp_path: Path, plain_folder: Path, texts: list[str]) -> None:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer

    torch.manual_seed(0)
    tokenizer = Tokenizer.from_file(str(plain_folder / "tokenizer.json"))
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=7)], device="cpu")
    model.save(str(tmp_path / "static"))
    encoder = encoder_of(tmp_path / "static")
    assert encoder.layers == encoder.default_layers == ("final",)
    assert encoder.dim("final") == 7
    assert encoder.fingerprint()["model"] == "static"
    got = encoder.encode(texts)["final"]
    np.testing.assert_allclose(got, model.encode(texts), atol=TOLERANCE)
    assert not got[texts.index("")].any()
    tokens, cut = encoder.count_tokens(["the cat", ""])
    assert tokens.tolist() == [2, 0]
    assert not cut.any()
    short = encoder_of(tmp_path / "static", max_length=2, truncation="tail")
    np.testing.assert_allclose(short.encode(["the cat sat"])["final"], encoder.encode(["cat sat"])["final"], atol=1e-7)


@pytest.fixture(scope="session")
def decoder_folder(tmp_path_factory: pytest.TempPathFactory, plain_folder: Path) -> Path:
    """A causal decoder whose tokenizer adds nothing and pads on the left, with last-token pooling."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("decoder") / "model"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=28, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=32, max_position_embeddings=64, initializer_range=0.2, pad_token_id=0,
        bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(plain_folder / name, folder / name)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "padding_side": "left"}))
    return folder


def test_a_decoder(decoder_folder: Path, texts: list[str]) -> None:
    texts = [text for text in texts if text]
    encoder = encoder_of(decoder_folder, max_length=32)
    assert encoder.layers == (0, 1, 2, 3, "final")
    got = encoder.encode(texts, encoder.layers)
    for layer, want in enumerate(hidden_means(decoder_folder, texts)):
        np.testing.assert_allclose(got[layer], want, atol=TOLERANCE)
    model = reference(decoder_folder)
    model.max_seq_length = 32
    np.testing.assert_allclose(got["final"], model.encode(texts), atol=TOLERANCE)


def test_a_chat_template_is_not_applied(decoder_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(decoder_folder, tmp_path / "chat"))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}very {{ m['content'] }} bad{% endfor %}")
    got = encoder_of(folder).encode(["the cat"], (1, "final"))
    want = encoder_of(decoder_folder).encode(["the cat"], (1, "final"))
    for layer in want:
        np.testing.assert_allclose(got[layer], want[layer], atol=1e-6)


def test_a_text_without_any_token_is_refused(decoder_folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="text 1 has no token"):
        encoder_of(decoder_folder).encode(["the cat", ""])


def test_an_architecture_with_shared_blocks(tmp_path: Path, plain_folder: Path, texts: list[str]) -> None:
    """ALBERT runs one block several times: no list of blocks to tap, so transformers collects the states."""
    import torch
    from transformers import AlbertConfig, AlbertModel

    torch.manual_seed(0)
    config = AlbertConfig(
        vocab_size=28, hidden_size=16, embedding_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, initializer_range=0.2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    AlbertModel(config).save_pretrained(tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(plain_folder / name, tmp_path / "m" / name)
    encoder = encoder_of(tmp_path / "m", max_length=32)
    got = encoder.encode(texts, encoder.layers)
    assert len(got) == 5
    for layer, want in enumerate(hidden_means(tmp_path / "m", texts)):
        np.testing.assert_allclose(got[layer], want, atol=TOLERANCE)


def test_half_precision_weights_are_run_in_float32(tiny_copy: Path, texts: list[str]) -> None:
    from safetensors.torch import load_file, save_file

    weights = {name: tensor.half() for name, tensor in load_file(tiny_copy / "model.safetensors").items()}
    save_file(weights, tiny_copy / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tiny_copy / "config.json").read_text())
    (tiny_copy / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    encoder = encoder_of(tiny_copy)
    encoder.encode(texts[:1])
    assert {str(p.dtype) for p in encoder._load().model.parameters()} == {"torch.float32"}


# Order, batches, determinism


def test_rows_come_in_the_order_of_the_texts(tiny_folder: Path, texts: list[str]) -> None:
    encoder = encoder_of(tiny_folder, batch_tokens=40)
    forward = encoder.encode(texts, (1, "final"))
    backward = encoder.encode(texts[::-1], (1, "final"))
    for layer in forward:
        np.testing.assert_allclose(forward[layer], backward[layer][::-1], atol=1e-6)


@pytest.mark.parametrize("batch_tokens", [1, 33, 64, 10_000])
def test_a_row_depends_on_its_text_only(tiny_folder: Path, texts: list[str], batch_tokens: int) -> None:
    together = encoder_of(tiny_folder, batch_tokens=batch_tokens).encode(texts, (0, 1, 2, "final"))
    alone = encoder_of(tiny_folder)
    for i, text in enumerate(texts):
        for layer, vector in alone.encode([text], (0, 1, 2, "final")).items():
            np.testing.assert_allclose(together[layer][i], vector[0], atol=2e-6)


def test_padding_never_goes_beyond_the_positions(tmp_path: Path, new_bert: Callable[..., Path]) -> None:
    folder = new_bert(tmp_path / "m", positions=43)
    texts = ["very " * n for n in (40, 41, 60)]
    encoder = encoder_of(folder)
    assert encoder.token_limit == 43
    np.testing.assert_allclose(encoder.encode(texts)[2], hidden_means(folder, texts, 43)[2], atol=TOLERANCE)


def test_windows_do_not_matter(tiny_folder: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    want = encoder_of(tiny_folder).encode(texts, (2,))[2]
    monkeypatch.setattr("embedrm.encoders.model_encoder.WINDOW", 5)
    monkeypatch.setattr("embedrm.encoders.tokens._CHUNK", 3)
    seen: list[tuple[int, int]] = []
    got = encoder_of(tiny_folder).encode(texts, (2,), progress=lambda done, total: seen.append((done, total)))[2]
    np.testing.assert_allclose(got, want, atol=2e-6)
    assert seen[-1] == (len(texts), len(texts))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_the_same_texts_give_the_same_bytes(tiny_folder: Path, texts: list[str]) -> None:
    encoder = encoder_of(tiny_folder, batch_tokens=50)
    one, two = encoder.encode(texts, encoder.layers), encoder.encode(texts, encoder.layers)
    other = encoder_of(tiny_folder, batch_tokens=50).encode(texts, encoder.layers)
    for layer in encoder.layers:
        assert one[layer].tobytes() == two[layer].tobytes() == other[layer].tobytes()


def test_threads_are_put_back(tiny_folder: Path, texts: list[str]) -> None:
    import torch

    before = torch.get_num_threads()
    seen = []
    encoder = encoder_of(tiny_folder, threads=before + 1)
    encoder.encode(texts, progress=lambda done, total: seen.append(torch.get_num_threads()))
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder.encode(texts, progress=stop)
    assert torch.get_num_threads() == before


def test_two_threads_on_one_encoder(tiny_folder: Path, texts: list[str]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    encoder = encoder_of(tiny_folder, batch_tokens=40)
    want = encoder_of(tiny_folder, batch_tokens=40).encode(texts, (0, 1))
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: encoder.encode(texts, (0, 1)), range(12)):
            for layer in (0, 1):
                np.testing.assert_array_equal(got[layer], want[layer])


def test_a_pickled_encoder_loads_its_model_again(tiny_folder: Path, texts: list[str]) -> None:
    encoder = encoder_of(tiny_folder, truncation="tail")
    want = encoder.encode(texts)
    sent = pickle.dumps(encoder)
    assert len(sent) < 1000
    again = pickle.loads(sent)
    assert again.spec() == encoder.spec()
    for layer, vectors in again.encode(texts).items():
        np.testing.assert_array_equal(vectors, want[layer])


# Truncation


def test_counts_are_exact_beyond_the_limit(tiny_folder: Path) -> None:
    encoder = encoder_of(tiny_folder)
    tokens, cut = encoder.count_tokens(["the cat", "", "very " * 38, "very " * 30])
    assert tokens.tolist() == [4, 2, 40, 32]
    assert cut.tolist() == [0, 0, 8, 0]
    assert tokens.dtype == cut.dtype == np.int64
    report = encoder.truncation_report(["the cat", "very " * 38])
    assert report.to_dict() == {
        "texts": 2, "truncated": 1, "tokens": 44, "tokens_cut": 8, "longest": 40, "max_length": 32, "policy": "head"
    }  # fmt: skip
    assert [len(a) for a in encoder.count_tokens([])] == [0, 0]


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("head", "the cat sat"), ("tail", "very good dog"), ("middle", "the cat dog")],
)
def test_a_truncated_text_is_the_text_that_is_left(tiny_folder: Path, policy: str, kept: str) -> None:
    encoder = encoder_of(tiny_folder, max_length=5, truncation=policy)
    got = encoder.encode(["the cat sat on the mat, a very good dog"], encoder.layers)
    want = encoder.encode([kept], encoder.layers)
    for layer in encoder.layers:
        np.testing.assert_allclose(got[layer], want[layer], atol=1e-6)


def test_digests_find_texts_that_truncation_makes_one(tiny_folder: Path) -> None:
    chosen, rejected = "the cat sat. good", "the cat sat. bad"
    head, tail = (encoder_of(tiny_folder, max_length=6, truncation=policy) for policy in ("head", "tail"))
    assert len(set(head.effective_digests([chosen, rejected]))) == 1
    assert len(set(tail.effective_digests([chosen, rejected]))) == 2
    assert len(set(encoder_of(tiny_folder).effective_digests([chosen, rejected]))) == 2
    assert len(set(encoder_of(tiny_folder, max_length=6, truncation="drop").effective_digests([chosen, rejected]))) == 2
    assert [len(d) for d in head.effective_digests(["a"])] == [16]
    assert head.effective_digests([]) == []


@pytest.mark.parametrize(
    ("policy", "remedy"), [("drop", "Leave those rows out of the data set first"), ("error", "Raise max_length")]
)
def test_long_texts_are_refused_before_anything_is_encoded(tiny_folder: Path, policy: str, remedy: str) -> None:
    encoder = encoder_of(tiny_folder, truncation=policy)
    texts = ["a", "very " * 38, "a", "very " * 35]
    message = (
        rf"no text of more than 32 tokens, and 2 of 4 texts have more \(longest 40; first: text 1 with 40\)\. {remedy}"
    )
    with pytest.raises(InvalidInputError, match=message):
        encoder.encode(texts, progress=lambda done, total: pytest.fail("encoded"))
    _, cut = encoder.count_tokens(texts)
    assert cut.tolist() == [0, 8, 0, 5]
    kept = [text for text, n in zip(texts, cut) if not n]
    assert encoder.encode(kept)[1].shape == (2, 16)


def test_no_room_for_the_text(tiny_folder: Path) -> None:
    with pytest.raises(
        InvalidInputError, match="room for a token of the text beside 2 special or prompt tokens; got 2"
    ):
        encoder_of(tiny_folder, max_length=2).encode(["the cat"])


# Prompts


def test_the_models_own_prompt(tiny_copy: Path, texts: list[str]) -> None:
    settings = {"prompts": {"query": "yes the "}, "default_prompt_name": "query"}
    (tiny_copy / "config_sentence_transformers.json").write_text(json.dumps(settings))
    encoder = encoder_of(tiny_copy)
    assert encoder.fingerprint()["prompt"] == "yes the "
    got = encoder.encode(texts, ("final",))["final"]
    np.testing.assert_allclose(got, reference(tiny_copy).encode(texts), atol=TOLERANCE)
    without = encoder_of(tiny_copy, prompt="")
    assert without.fingerprint()["prompt"] is None
    np.testing.assert_allclose(
        without.encode(texts, ("final",))["final"], reference(tiny_copy).encode(texts, prompt=""), atol=TOLERANCE
    )
    assert encoder.count_tokens(["cat"])[0].tolist() == [5]


def test_a_prompt_that_pooling_leaves_out(tiny_copy: Path, texts: list[str]) -> None:
    pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True, "include_prompt": False}
    (tiny_copy / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    got = encoder_of(tiny_copy, prompt="yes the ").encode(texts, ("final",))["final"]
    np.testing.assert_allclose(got, reference(tiny_copy).encode(texts, prompt="yes the "), atol=TOLERANCE)


def test_a_prompt_is_never_cut(tiny_folder: Path) -> None:
    encoder = encoder_of(tiny_folder, prompt="yes the ", truncation="tail", max_length=6)
    plain = encoder_of(tiny_folder)
    got = encoder.encode(["cat sat on a mat"], (2,))[2]
    np.testing.assert_allclose(got, plain.encode(["yes the a mat"], (2,))[2], atol=1e-6)


# Odd texts and bad input


@pytest.mark.parametrize(
    "text", ["", " ", "\x00", "a\x00b", "🙂🙃", "猫 " * 50, "cat " * 25_000, "a" * 100_000, "\n\t", "[CLS] [SEP]"]
)
def test_odd_texts_work(tiny_folder: Path, text: str) -> None:
    encoder = encoder_of(tiny_folder)
    both = encoder.encode([text, "the cat"], (1, "final"))
    for vectors in both.values():
        assert np.isfinite(vectors).all()
    np.testing.assert_allclose(both["final"], reference(tiny_folder).encode([text, "the cat"]), atol=TOLERANCE)


def test_no_texts(tiny_folder: Path) -> None:
    got = encoder_of(tiny_folder).encode([], (0, "final"))
    assert {layer: vectors.shape for layer, vectors in got.items()} == {0: (0, 16), "final": (0, 16)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.encode("text"), "one str came"),
        (lambda e: e.encode(["a", None]), "text 1 is NoneType"),
        (lambda e: e.encode(["\udfff"]), "text 0 is not valid Unicode"),
        (lambda e: e.count_tokens(["\udfff"]), "text 0 is not valid Unicode"),
        (lambda e: e.encode(["a"], (3,)), "unknown layer of SentenceEncoder 3"),
        (lambda e: e.encode(["a"], ()), "at least one layer"),
        (lambda e: e.dim(7), "unknown layer of SentenceEncoder 7"),
    ],
)
def test_bad_calls(tiny_folder: Path, call: Callable[[SentenceEncoder], object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call(encoder_of(tiny_folder))


def test_bad_batch_tokens(tiny_folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="batch_tokens must be a positive"):
        encoder_of(tiny_folder, batch_tokens=0).encode(["a"])


def test_weights_that_are_not_in_the_file_are_not_made_up(tiny_copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(tiny_copy / "model.safetensors")
    gone = next(name for name in weights if "layer.1.output.dense.weight" in name)
    del weights[gone]
    save_file(weights, tiny_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"incomplete: 1 of the model's arrays, \S*layer\.1\.output\.dense\.weight"):
        encoder_of(tiny_copy).encode(["a"])


def test_a_missing_pooler_is_not_minded(tiny_copy: Path, tiny_folder: Path, texts: list[str]) -> None:
    from safetensors.torch import load_file, save_file

    weights = {k: v for k, v in load_file(tiny_copy / "model.safetensors").items() if "pooler" not in k}
    save_file(weights, tiny_copy / "model.safetensors", metadata={"format": "pt"})
    for layer, vectors in encoder_of(tiny_copy).encode(texts).items():
        np.testing.assert_array_equal(vectors, encoder_of(tiny_folder).encode(texts)[layer])


def test_damaged_weights(tiny_copy: Path) -> None:
    content = (tiny_copy / "model.safetensors").read_bytes()
    (tiny_copy / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="cannot load the model in"):
        encoder_of(tiny_copy).encode(["a"])


def test_weights_that_give_nan(tiny_copy: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(tiny_copy / "model.safetensors")
    name = next(name for name in weights if "layer.1.output.dense.weight" in name)
    weights[name] = torch.full_like(weights[name], float("nan"))
    save_file(weights, tiny_copy / "model.safetensors", metadata={"format": "pt"})
    assert np.isfinite(encoder_of(tiny_copy).encode(["a"], (1,))[1]).all()
    with pytest.raises(ModelError, match="not finite"):
        encoder_of(tiny_copy).encode(["a"], (2,))


# Manners


def test_loading_says_nothing_and_leaves_logging_alone(tiny_folder: Path) -> None:
    """In a fresh process, where the libraries' own handlers and bars are as they are for a user."""
    code = f"""
import logging
from embedrm.encoders import load_encoder
import transformers, sentence_transformers, huggingface_hub
from transformers.utils import logging as hf
def state():
    loggers = [logging.getLogger(n) for n in ("transformers", "sentence_transformers", "huggingface_hub")]
    return [(l.level, tuple(map(repr, l.handlers)), l.propagate) for l in loggers], hf.is_progress_bar_enabled(), \\
        huggingface_hub.utils.are_progress_bars_disabled()
before = state()
encoder = load_encoder({str(tiny_folder)!r})
encoder.encode(["very " * 100, "cat"], encoder.layers)
assert state() == before, (before, state())
transformers.utils.logging.disable_progress_bar()
before = state()
load_encoder({str(tiny_folder)!r}).encode(["cat"])
assert state() == before, (before, state())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_logging_is_put_back_after_a_failure(tiny_copy: Path) -> None:
    logger = logging.getLogger("transformers")
    before = (logger.level, logger.handlers[:], logger.propagate)
    (tiny_copy / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError):
        encoder_of(tiny_copy).encode(["a"])
    assert (logger.level, logger.handlers[:], logger.propagate) == before
