from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from embedrm.encoders import HashingEncoder, encoder_from_spec, load_encoder
from embedrm.encoders.hashing import _hash_word
from embedrm.errors import InvalidInputError

TEXTS = ["The cat sat.", "the CAT sat .", "naïve café 猫 🙂", "", "x\x00y", "a" * 300]


def test_bits_are_pinned() -> None:
    # Whole-number sums and one rounded division: any platform must give these bytes. A change is a new scheme number.
    vectors = HashingEncoder(32).encode(TEXTS)["final"]
    assert hashlib.blake2b(vectors.astype("<f4").tobytes(), digest_size=16).hexdigest() == PINNED


PINNED = "e416fb6f1134a5aac599d6e154b07cd7"


def test_the_hash_seed_of_python_does_not_matter() -> None:
    code = (
        "from embedrm.encoders import HashingEncoder as H; print(H(16).encode(['a b c', 'd'])['final'].tobytes().hex())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_vectors_by_hand_without_ngrams() -> None:
    encoder = HashingEncoder(1 << 20, ngrams=None)
    one = encoder.encode(["cat"])["final"][0]
    assert np.flatnonzero(one).size == 1
    assert abs(one).max() == 1.0
    both = encoder.encode(["cat cat dog"])["final"][0]
    np.testing.assert_allclose(sorted(abs(both[both != 0])), [1 / 5**0.5, 2 / 5**0.5], rtol=1e-6)


def test_shape_norm_and_the_empty_text() -> None:
    vectors = HashingEncoder().encode(TEXTS)["final"]
    assert vectors.shape == (len(TEXTS), 256)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    norms = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(norms, [1, 1, 1, 0, 1, 1], atol=1e-6)
    assert HashingEncoder().encode([])["final"].shape == (0, 256)


def test_case_and_spaces_do_not_matter_and_words_do() -> None:
    vectors = HashingEncoder().encode(["The cat sat.", "the CAT  sat .", "the dog sat."])["final"]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert vectors[0] @ vectors[2] < 0.9


def test_shared_pieces_bring_words_together() -> None:
    running, runner, zebra = HashingEncoder(4096).encode(["running", "runner", "zebra"])["final"]
    assert running @ runner > 0.1 > abs(running @ zebra)


def test_a_linear_head_can_learn_a_word() -> None:
    rng = np.random.default_rng(0)
    vocabulary = [f"word{i}" for i in range(50)]
    texts, labels = [], []
    for _ in range(400):
        words = list(rng.choice(vocabulary, size=8))
        labels.append("word7" in words)
        texts.append(" ".join(words))
    x = HashingEncoder(256).encode(texts)["final"].astype(np.float64)
    y = np.array(labels) * 2.0 - 1
    w = np.linalg.solve(x[:300].T @ x[:300] + 0.1 * np.eye(256), x[:300].T @ y[:300])
    scores, truth = x[300:] @ w, y[300:] > 0
    assert np.mean(scores[truth][:, None] > scores[~truth]) > 0.95


def test_rows_depend_on_their_text_only_to_the_bit() -> None:
    encoder = HashingEncoder(64)
    together = encoder.encode(TEXTS)["final"]
    for i, text in enumerate(TEXTS):
        np.testing.assert_array_equal(encoder.encode([text])["final"][0], together[i])


def test_a_very_long_word_is_not_kept() -> None:
    before = _hash_word.cache_info().currsize
    vector = HashingEncoder(64).encode(["猫" * 100_000])["final"]
    assert np.linalg.norm(vector) == pytest.approx(1.0)
    assert _hash_word.cache_info().currsize == before


def test_counts_and_digests() -> None:
    encoder = HashingEncoder()
    tokens, cut = encoder.count_tokens(["a b, c", ""])
    assert tokens.tolist() == [4, 0]
    assert cut.tolist() == [0, 0]
    assert tokens.dtype == cut.dtype == np.int64
    one, two, three = encoder.effective_digests(["a  B", "A b", "ab"])
    assert one == two != three
    assert len(one) == 16
    report = encoder.truncation_report(["a b", "c"])
    assert (report.texts, report.truncated, report.tokens, report.longest, report.max_length) == (2, 0, 3, 2, None)


def test_progress_counts_texts() -> None:
    seen: list[tuple[int, int]] = []
    HashingEncoder(8).encode(["a"] * 300, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(256, 300), (300, 300)]


def test_names_and_specs() -> None:
    assert load_encoder("hashing").dim("final") == 256
    assert load_encoder("hashing:64").dim("final") == 64
    encoder = load_encoder("hashing:64", ngrams=(2, 3))
    assert encoder.spec() == {"encoder": "hashing", "dim": 64, "ngrams": [2, 3]}
    again = encoder_from_spec(encoder.spec())
    assert again.fingerprint() == encoder.fingerprint()
    np.testing.assert_array_equal(again.encode(["hello"])["final"], encoder.encode(["hello"])["final"])
    assert repr(encoder) == "HashingEncoder(dim=64, ngrams=[2, 3])"


def test_the_fingerprint_names_what_matters() -> None:
    encoders = [HashingEncoder(), HashingEncoder(128), HashingEncoder(ngrams=None), HashingEncoder(ngrams=(3, 4))]
    assert len({encoder.fingerprint_digest() for encoder in encoders}) == 4
    assert HashingEncoder(ngrams=[3, 5]).fingerprint() == HashingEncoder().fingerprint()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HashingEncoder(0), "dim must be a positive whole number; got 0"),
        (lambda: HashingEncoder(True), "dim must be a positive whole number"),
        (lambda: HashingEncoder(8, ngrams=(3, 2)), "ngrams must be"),
        (lambda: HashingEncoder(8, ngrams=3), "ngrams must be"),
        (lambda: load_encoder("hashing:many"), "expected hashing:WIDTH"),
    ],
)
def test_bad_arguments(make: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make().encode(["a"])  # type: ignore[operator]


def test_it_has_one_layer() -> None:
    with pytest.raises(InvalidInputError, match="unknown layer of HashingEncoder 3"):
        HashingEncoder().encode(["a"], layers=(3,))
