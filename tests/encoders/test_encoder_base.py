from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embedrm.encoders import ENCODERS, Encoder, HashingEncoder, SentenceEncoder, encoder_from_spec, load_encoder
from embedrm.encoders.base import TruncationReport, check_texts
from embedrm.errors import InvalidInputError


def test_texts_that_are_fine() -> None:
    texts = ["", "a", "\x00", "🙂", "e\u0301"]
    assert check_texts(texts) == texts
    assert check_texts(tuple(texts)) == texts
    (plain,) = check_texts(np.array(["word"]))  # type: ignore[arg-type]
    assert type(plain) is str


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", "one str came. Put it in a list"),
        (b"bytes", "one bytes came"),
        (["a", None], "text 1 is NoneType"),
        (["a", "b", 3.0], "text 2 is float"),
        (["ok", "ab\ud800"], "text 1 is not valid Unicode: a lone surrogate at character 2"),
    ],
)
def test_texts_that_are_not(texts: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        check_texts(texts)  # type: ignore[arg-type]


def test_load_encoder_knows_names_and_models() -> None:
    assert isinstance(load_encoder("hashing"), HashingEncoder)
    for spec, model in [
        ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("./folder", "./folder"),
        ("sentence:org/name", "org/name"),
        ("sentence", "all-MiniLM-L6-v2"),
        ("C:\\models\\mine", "C:\\models\\mine"),
    ]:
        encoder = load_encoder(spec)
        assert isinstance(encoder, SentenceEncoder)
        assert encoder.model == model
    default = load_encoder()
    assert isinstance(default, SentenceEncoder)
    assert default.model == "all-MiniLM-L6-v2"
    assert load_encoder("x", truncation="tail").truncation == "tail"


@pytest.mark.parametrize("spec", ["", "  ", None, 3])
def test_load_encoder_wants_a_name(spec: object) -> None:
    with pytest.raises(InvalidInputError, match="an encoder is named by a string"):
        load_encoder(spec)  # type: ignore[arg-type]


def test_a_folder_may_be_a_path(tmp_path: Path) -> None:
    for encoder in (load_encoder(tmp_path), SentenceEncoder(tmp_path)):  # type: ignore[arg-type]
        assert encoder.spec()["model"] == str(tmp_path)


def test_unknown_options_are_named() -> None:
    with pytest.raises(InvalidInputError, match=r"cannot take these options.*colour"):
        load_encoder("hashing", colour="red")
    with pytest.raises(InvalidInputError, match=r"cannot take these options.*colour"):
        encoder_from_spec({"encoder": "sentence", "colour": "red"})


def test_specs_round_trip_through_json() -> None:
    encoder = load_encoder("org/name", max_length=12, truncation="middle", prompt="query: ", offline=True)
    spec = json.loads(json.dumps(encoder.spec()))
    assert spec["encoder"] == "sentence"
    assert encoder_from_spec(spec).spec() == encoder.spec()


@pytest.mark.parametrize("spec", [{}, {"encoder": 3}, "hashing", None])
def test_bad_specs(spec: object) -> None:
    with pytest.raises(InvalidInputError, match="must be a mapping with the key 'encoder'"):
        encoder_from_spec(spec)  # type: ignore[arg-type]


def test_unknown_encoders_in_specs_are_named_with_the_nearest() -> None:
    with pytest.raises(InvalidInputError, match=r"unknown encoder 'hashin'. Did you mean 'hashing'"):
        encoder_from_spec({"encoder": "hashin"})


def test_the_registry_has_both() -> None:
    assert {"hashing", "sentence"} <= set(ENCODERS.names())
    assert ENCODERS.name_of(SentenceEncoder) == "sentence"


def test_digest_is_that_of_canonical_json() -> None:
    encoder = HashingEncoder(8)
    text = json.dumps(encoder.fingerprint(), sort_keys=True, separators=(",", ":"))
    assert encoder.fingerprint_digest() == hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    assert len(encoder.fingerprint_digest()) == 32


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "at least one layer"),
        ("final", r"layers must be a sequence"),
        (3, "layers must be a sequence"),
        (["finale"], "unknown layer of HashingEncoder 'finale'. Did you mean 'final'"),
        ([True], "unknown layer"),
    ],
)
def test_bad_layers(layers: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        HashingEncoder(8).encode(["a"], layers=layers)  # type: ignore[arg-type]


def test_truncation_report_reads_well() -> None:
    report = TruncationReport(10, 2, 900, 310, 400, 256, "head")
    assert str(report) == "2 of 10 texts cut (head): 310 of 900 tokens beyond 256, longest 400"
    assert json.loads(json.dumps(report.to_dict()))["tokens_cut"] == 310
    assert "none too long" in str(TruncationReport(10, 0, 900, 0, 200, 256, "head"))
    assert "too long (drop)" in str(TruncationReport(10, 2, 900, 310, 400, 256, "drop"))


def test_building_and_naming_an_encoder_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from embedrm.encoders import load_encoder, SentenceEncoder\n"
        "load_encoder('no/such-model'); load_encoder('hashing').encode(['a'])\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'pandas', 'sklearn', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_every_encoder_is_an_encoder() -> None:
    for _, cls in ENCODERS:
        assert issubclass(cls, Encoder)
        assert cls.__doc__
