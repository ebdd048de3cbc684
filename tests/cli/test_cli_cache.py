"""embedrm cache: what the store says of itself, and what is asked before anything is deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedrm.store import EmbeddingStore


@pytest.fixture
def filled(cli, pairs_file: str, home: Path) -> str:
    facts = cli(f"encode --encoder hashing {pairs_file} --json").json()
    cli(f"encode --encoder hashing:32 {pairs_file}")
    return facts["encoder"]["digest"]


def _segments(home: Path, digest: str) -> list[Path]:
    return sorted((home / "store" / digest).glob("*.safetensors"))


def test_path_follows_the_environment_and_the_option(cli, home: Path) -> None:
    assert cli("cache path").out == f"{home}/store\n"
    assert cli("cache path --store here").out == "here\n"
    assert cli("cache path --json").json() == {"path": f"{home}/store"}


def test_an_empty_store_is_no_error(cli) -> None:
    for words in ("stats", "verify", "compact"):
        assert cli(f"cache {words}").code == 0
    assert cli("cache stats --json").json()["encoders"] == []


def test_stats_are_those_of_the_store(cli, filled: str, home: Path) -> None:
    assert cli("cache stats --json").json() == EmbeddingStore.default().stats()
    text = cli("cache stats").out
    assert filled in text
    assert "2 encoders" in text


def test_verify_finds_a_flipped_bit_and_repair_sets_it_aside(cli, filled: str, home: Path) -> None:
    clean = cli("cache verify")
    assert clean.code == 0
    assert "damaged are 0 files" in clean.out
    segment = _segments(home, filled)[0]
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    segment.write_bytes(bytes(content))
    found = cli("cache verify")
    assert found.code == 1
    assert str(segment) in found.out
    assert "--repair" in found.out
    assert cli("cache verify --json").json()["clean"] is False
    repaired = cli("cache verify --repair")
    assert repaired.code == 0
    assert "moved to" in repaired.out
    assert cli("cache verify").code == 0


def test_verify_encodes_the_canaries_again(cli, filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "layer final: as it was" in cli("cache verify --encoder hashing").out
    assert "holds no canary texts" in cli("cache verify --encoder hashing:48").out
    from embedrm.encoders.hashing import HashingEncoder

    honest = HashingEncoder.encode
    monkeypatch.setattr(
        HashingEncoder,
        "encode",
        lambda self, texts, layers=None, **more: {
            layer: matrix[:, ::-1].copy() for layer, matrix in honest(self, texts, layers, **more).items()
        },
    )
    changed = cli("cache verify --encoder hashing")
    assert changed.code == 1
    assert "NOT as it was" in changed.out


def test_compact_keeps_every_vector(cli, filled: str, home: Path) -> None:
    before = cli("cache stats --json").json()
    facts = cli(f"cache compact --digest {filled} --json").json()
    assert facts["merged"] >= 2
    after = cli("cache stats --json").json()
    assert [e["vectors"] for e in after["encoders"]] == [e["vectors"] for e in before["encoders"]]


@pytest.mark.parametrize("target", ["out", "out.tar"])
def test_export_and_import(cli, filled: str, home: Path, target: str) -> None:
    exported = cli(f"cache export {target} --digest {filled[:8]} --json").json()
    assert exported["encoders"] == 1
    imported = cli(f"cache import {target} --store other --json").json()
    assert imported["segments"] == exported["segments"]
    assert [e["digest"] for e in cli("cache stats --store other --json").json()["encoders"]] == [filled]
    again = cli(f"cache import {target} --store other")
    assert f"already there: {exported['segments']:,}" in again.out
    taken = cli(f"cache export {target}")
    assert taken.code == 2
    assert taken.err.startswith("error: ")


def test_remove_wants_a_yes(cli, filled: str) -> None:
    refused = cli(f"cache remove {filled}")
    assert refused.code == 2
    assert "say --yes to mean it" in refused.err
    assert len(cli("cache stats --json").json()["encoders"]) == 2
    done = cli(f"cache remove {filled[:6]} --yes")
    assert done.code == 0
    assert f"{filled} removed" in done.out
    assert len(cli("cache stats --json").json()["encoders"]) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("remove 0123456789 --yes", "unknown encoder in the store"),
        ("remove '' --yes", "unknown encoder in the store"),
        ("compact --digest zz", "unknown encoder in the store"),
        ("export pairs.jsonl", "pairs.jsonl"),
        ("import nothere", "nothere"),
        ("import pairs.jsonl", "pairs.jsonl"),
        ("stats --store pairs.jsonl", "pairs.jsonl"),
        ("verify --encoder ''", "an encoder is named by"),
    ],
)
def test_misuse_is_one_line(cli, filled: str, words: str, said: str) -> None:
    outcome = cli(f"cache {words}")
    assert outcome.code == 2, outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("error: ")
    assert said in outcome.err
