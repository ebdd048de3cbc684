"""embedrm encode: what is stored, what was there, and where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ENCODE = "encode --encoder hashing"


def test_a_second_run_encodes_nothing(cli, pairs_file: str, home: Path) -> None:
    first = cli(f"{ENCODE} {pairs_file} --json").json()
    assert first["store"] == str(home / "store")
    response, prompt = first["sides"]["response"], first["sides"]["prompt"]
    assert (response["texts"], prompt["texts"]) == (96, 48)
    assert response["encoded"] == response["unique_texts"] > 0
    assert response["stored_before"] == 0
    second = cli(f"{ENCODE} {pairs_file} --json").json()
    assert [side["encoded"] for side in second["sides"].values()] == [0, 0]
    assert second["sides"]["response"]["stored_before"] == response["unique_texts"]
    assert second["encoder"] == first["encoder"]


def test_the_tables_and_notes(cli, pairs_file: str) -> None:
    outcome = cli(f"{ENCODE} {pairs_file}")
    header, _, response, prompt = outcome.out.splitlines()[:4]
    assert header.split()[0] == "side"
    assert response.split()[:3] == ["response", "final", "96"]
    assert prompt.split()[:3] == ["prompt", "final", "48"]
    assert "pairs whose two response texts are the same once cut: 0" in outcome.out
    assert "texts are still to be encoded" in outcome.err
    assert cli(f"{ENCODE} {pairs_file} --quiet").err == ""


def test_sides_store_and_options_are_obeyed(cli, pairs_file: str, home: Path) -> None:
    facts = cli(f"{ENCODE} {pairs_file} --side joint --store elsewhere --encoder-option dim=32 --json").json()
    assert list(facts["sides"]) == ["joint"]
    assert facts["encoder"]["dim"] == 32
    assert facts["store"] == "elsewhere"
    assert not home.exists()
    assert [e["texts"] for e in cli("cache stats --store elsewhere --json").json()["encoders"]] == [96 + 8]


def test_layers_for_one_side(cli, pairs_file: str) -> None:
    facts = cli(f"{ENCODE} {pairs_file} --layers response=final --layers prompt=final --json").json()
    assert {side: f["layers"] for side, f in facts["sides"].items()} == {"response": ["final"], "prompt": ["final"]}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--layers 3", "unknown layer"),
        ("--layers x", "layer number or 'final'"),
        ("--layers 3 --layers 4", "one choice for all sides"),
        ("--layers response=final --layers 4", "one choice for all sides"),
        ("--layers response=final --layers response=final", "one choice for all sides"),
        ("--layers respnse=final", "unknown side in --layers 'respnse'. Did you mean 'response'?"),
        ("--layers joint=final", "unknown side in --layers 'joint'"),
        ("--side answer", "unknown side 'answer'"),
        ("--encoder-option dmi=3", "Did you mean 'dim'?"),
        ("--encoder-option dim=wide", "'dim' of encoder 'hashing' must be a whole number, got 'wide'"),
        ("--encoder-option dim=0", "dim must be"),
        ("--encoder-option dim", "NAME=VALUE"),
        ("--store pairs.jsonl", "pairs.jsonl"),
    ],
)
def test_bad_options_are_one_line(cli, pairs_file: str, options: str, said: str) -> None:
    outcome = cli(f"{ENCODE} {pairs_file} {options}")
    assert outcome.code == 2, outcome.err
    assert said in outcome.err
    assert outcome.err.splitlines()[-1].startswith("error: ")
    assert outcome.out == ""


def test_truncation_is_told(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedrm.encoders.hashing import HashingEncoder

    # an encoder that reads four words: both responses begin alike, so they are one text once cut
    monkeypatch.setattr(
        HashingEncoder,
        "count_tokens",
        lambda self, texts: (
            (n := __import__("numpy").array([len(t.split()) for t in texts])),
            (n - 4).clip(0),
        ),
    )
    monkeypatch.setattr(
        HashingEncoder, "effective_digests", lambda self, texts: [" ".join(t.split()[:4]).encode() for t in texts]
    )
    row = {"prompt": "p", "chosen": "one two three four five", "rejected": "one two three four six seven"}
    Path("d.jsonl").write_text(json.dumps(row) + "\n")
    facts = cli(f"{ENCODE} d.jsonl --json").json()["sides"]["response"]
    assert (facts["truncated"], facts["tokens_cut"], facts["pairs_made_identical"]) == (2, 3, 1)
    notes = cli("fit d.jsonl --encoder hashing -o m").err
    assert "2 of 2 response texts are longer than the encoder reads; 3 of 11 tokens were cut off" in notes
    assert "1 pairs have two response texts that are the same once cut" in notes
