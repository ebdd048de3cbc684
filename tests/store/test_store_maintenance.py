from __future__ import annotations

import io
import json
import os
import tarfile
import time

import numpy as np
import pytest
from store_fakes import FakeEncoder, SilentEncoder, poke, texts_of

from embedrm.errors import InvalidInputError, StoreError
from embedrm.store import CANARY_TEXTS, EmbeddingStore, Segment, write_segment
from embedrm.store.index import Snapshot

LAYERS = [3, "final"]


def filled(path, n=30, encoder=None):
    store = EmbeddingStore(path, block_texts=5)
    store.get(encoder or FakeEncoder(), texts_of(0, n), LAYERS, batch_segment_bytes=5 * 14 * 4)
    return store


def folder_of(store, suffix=""):
    return store.path / (FakeEncoder().fingerprint_digest() + suffix)


def segments_of(store):
    return sorted(folder_of(store).glob("*.safetensors"))


def expect(store, texts, layers=LAYERS, encoder=None):
    got = store.get(encoder or SilentEncoder(), texts, layers)
    for layer in layers:
        np.testing.assert_array_equal(got[layer], FakeEncoder().expected(texts, layer))


# --- layout -----------------------------------------------------------------------------------------------------


def test_a_folder_names_its_encoder_in_readable_json(tmp_path):
    store = filled(tmp_path)
    value = json.loads((folder_of(store) / "encoder.json").read_text())
    assert value["fingerprint"] == FakeEncoder().fingerprint()
    assert value["dtype"] == "float32"
    assert folder_of(store).name == value["digest"] == FakeEncoder().fingerprint_digest()
    assert not list(folder_of(store).glob(".tmp*"))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("128", "129"),
        lambda text: text.replace("float32", "float16"),
        lambda text: text[:-10],
        lambda text: "[]",
        lambda text: text.replace('"version": 1', '"version": "1"'),
    ],
)
def test_an_encoder_json_that_disagrees_is_an_error_until_repaired(tmp_path, change):
    store = filled(tmp_path)
    path = folder_of(store) / "encoder.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(StoreError, match=r"encoder\.json.*verify --repair"):
        store.get(FakeEncoder(), ["text number 0"])
    assert not store.verify().clean
    assert len(store.verify(repair=True).damaged) == 1
    expect(store, texts_of(0, 30))
    store.get(FakeEncoder(), ["new"])
    assert store.verify().clean
    assert json.loads(path.read_text())["fingerprint"] == FakeEncoder().fingerprint()


def test_a_newer_encoder_json_is_left_alone(tmp_path):
    store = filled(tmp_path)
    path = folder_of(store) / "encoder.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(StoreError, match="Upgrade embedrm"):
        store.get(FakeEncoder(), ["text number 0"])


def test_stats_count_what_is_stored(tmp_path):
    store = filled(tmp_path, 30)
    store.get(FakeEncoder(), texts_of(0, 10), [0])
    store.get(FakeEncoder(), texts_of(0, 4), dtype="float16")
    (folder_of(store) / ".tmp-1-dead").write_bytes(b"x")
    stats = store.stats()
    assert json.loads(json.dumps(stats)) == stats
    plain, half = stats["encoders"]
    extra = len(CANARY_TEXTS)
    assert plain["model"] == "fake"
    assert plain["texts"] == 30 + extra
    assert plain["layers"] == {"0": 10 + extra, "3": 30 + extra, "final": 30 + extra}
    assert plain["vectors"] == sum(plain["layers"].values())
    assert plain["bytes"] == sum(p.stat().st_size for p in segments_of(store))
    assert plain["segments"] == len(segments_of(store))
    assert [os.path.basename(p) for p in plain["leftovers"]] == [".tmp-1-dead"]
    assert half["dtype"] == "float16"
    assert half["texts"] == 4 + extra
    assert stats["bytes"] == plain["bytes"] + half["bytes"]


# --- verify -----------------------------------------------------------------------------------------------------


def test_verify_finds_a_flipped_bit_at_every_position_and_repair_costs_only_that_segment(tmp_path):
    store = EmbeddingStore(tmp_path)
    store.get(FakeEncoder(), ["a"], LAYERS)
    store.get(FakeEncoder(), ["b"], LAYERS)
    path = min(segments_of(store), key=lambda p: p.stat().st_size)  # the one without canaries
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    assert store.verify().clean
    for i in range(len(whole)):
        bit = int(rng.integers(8))
        poke(path, i, whole[i] ^ 1 << bit)
        report = store.verify()
        assert [d.path for d in report.damaged] == [str(path)], (i, bit)
        assert not report.clean
        assert report.segments == 1
        if i + 1 < len(whole):
            poke(path, i, whole[i])
    report = store.verify(repair=True)
    assert report.damaged[0].quarantined == str(path.parent / "quarantine" / path.name)
    assert not path.exists()
    assert store.verify().clean
    encoder = FakeEncoder()
    expect(store, ["a", "b"], encoder=encoder)
    assert encoder.user_counts() == {("b", 3): 1, ("b", "final"): 1}
    assert path.exists()
    assert store.stats()["encoders"][0]["quarantined"] == [path.name]


@pytest.mark.parametrize("keep", [0, 3, 8, 60, 500, -1])
def test_a_truncated_segment_gives_one_clear_error_and_repair_makes_the_store_whole(tmp_path, keep):
    store = filled(tmp_path)
    path = segments_of(store)[2]
    path.write_bytes(path.read_bytes()[:keep])
    for reader in (store, EmbeddingStore(tmp_path)):
        for _ in range(2):
            with pytest.raises(StoreError, match=f"{path.name} is damaged.*verify --repair"):
                reader.get(FakeEncoder(), texts_of(0, 30), LAYERS)
    assert store.stats()["encoders"][0]["segments"] >= 5
    assert len(store.verify(repair=True).damaged) == 1
    encoder = FakeEncoder()
    expect(store, texts_of(0, 30), encoder=encoder)
    assert 0 < len(encoder.counts) <= 2 * len(CANARY_TEXTS)
    assert store.verify().clean


def test_several_damaged_segments_give_one_error(tmp_path):
    store = filled(tmp_path)
    for path in segments_of(store)[:3]:
        path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(StoreError, match="and 2 more in this folder"):
        EmbeddingStore(tmp_path).get(FakeEncoder(), texts_of(0, 30), LAYERS)


def test_damage_while_encoding_does_not_stop_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("embedrm.store.fill._LOOK_SECONDS", 0.0)
    store = filled(tmp_path)
    path = segments_of(store)[0]

    class Unlucky(FakeEncoder):
        def encode(self, texts, layers=None, *, progress=None):
            if len(self.batches) == 1:
                (path.parent / ("0" * 32 + ".safetensors")).write_bytes(b"half")
            return super().encode(texts, layers)

    with pytest.raises(StoreError, match="is damaged"):
        store.get(Unlucky(), texts_of(30, 60), LAYERS)
    store.verify(repair=True)
    expect(store, texts_of(0, 60))


def test_a_second_damaged_file_of_one_name_is_kept_too(tmp_path):
    store = EmbeddingStore(tmp_path)
    for _ in range(2):
        store.get(FakeEncoder(), ["a"])
        (path,) = segments_of(store)
        path.write_bytes(path.read_bytes()[:-1])
        store.verify(repair=True)
    assert store.stats()["encoders"][0]["quarantined"] == [path.name, path.name + ".1"]


def test_a_segment_of_another_encoder_or_precision_does_not_belong(tmp_path):
    store = filled(tmp_path)
    arrays = {"keys": np.zeros((1, 16), np.uint8), "layer:3": np.ones((1, 8), np.float32)}
    for encoder, dtype in (("0" * 32, "float32"), (FakeEncoder().fingerprint_digest(), "float16")):
        path = write_segment(folder_of(store), arrays, encoder=encoder, dtype=dtype)
        with pytest.raises(StoreError, match="not of this folder"):
            store.get(SilentEncoder(), ["text number 0"])
        assert [d.path for d in store.verify(repair=True).damaged] == [str(path)]
    expect(store, texts_of(0, 30))


def test_verify_reports_strangers_and_leftovers_and_stays_clean(tmp_path):
    store = filled(tmp_path)
    (folder_of(store) / "notes.txt").write_text("mine")
    (folder_of(store) / ".tmp-7-x").write_text("dead")
    report = store.verify()
    assert report.clean
    assert [os.path.basename(p) for p in report.unknown] == ["notes.txt"]
    assert [os.path.basename(p) for p in report.leftovers] == [".tmp-7-x"]
    (folder_of(store) / "copy of.safetensors").write_text("?")
    report = store.verify(repair=True)
    assert report.damaged[0].reason == "its name is not a content hash"
    assert (folder_of(store) / "quarantine" / "copy of.safetensors").exists()
    assert (folder_of(store) / "notes.txt").exists()


def test_a_ragged_segment_lives_beside_the_others_and_is_left_as_it_is(tmp_path):
    store = filled(tmp_path)
    arrays = {
        "keys": np.zeros((1, 16), np.uint8),
        "tokens:3": np.ones((4, 8), np.float32),
        "tokens:3.offsets": np.array([0, 4]),
    }
    path = write_segment(folder_of(store), arrays, encoder=folder_of(store).name, dtype="float32")
    assert store.verify().clean
    store.compact()
    assert path.exists()
    expect(store, texts_of(0, 30))


def test_verify_counts_and_reports_progress(tmp_path):
    store, calls = filled(tmp_path), []
    report = store.verify(progress=lambda done, total: calls.append((done, total)))
    assert report.segments == len(segments_of(store))
    assert report.bytes == sum(p.stat().st_size for p in segments_of(store))
    assert report.vectors == 2 * (30 + len(CANARY_TEXTS))
    assert calls[-1][0] == report.bytes
    assert json.loads(json.dumps(report.to_dict()))["clean"] is True


# --- canaries ---------------------------------------------------------------------------------------------------


def test_canaries_are_stored_with_the_first_vectors_of_each_layer(tmp_path):
    store = EmbeddingStore(tmp_path)
    store.get(FakeEncoder(), ["a"], [3])
    expect(store, list(CANARY_TEXTS), [3])
    store.get(FakeEncoder(), ["a"], ["final"])
    expect(store, list(CANARY_TEXTS), ["final"])
    encoder = FakeEncoder()
    store.get(encoder, ["b"], LAYERS)
    assert {text for text, _ in encoder.counts} == {"b"}
    assert len(CANARY_TEXTS) >= 8


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_silently_changed_model_is_caught(tmp_path, dtype):
    store = EmbeddingStore(tmp_path)
    store.get(FakeEncoder(), ["a"], LAYERS, dtype=dtype)
    report = store.verify(encoder=FakeEncoder())
    assert report.clean
    assert [(c.layer, c.checked, c.ok) for c in report.canaries] == [(3, 8, True), ("final", 8, True)]

    class Drifted(FakeEncoder):
        def encode(self, texts, layers=None, *, progress=None):
            out = super().encode(texts, layers)
            out["final"] = out["final"] * np.float32(1.01)
            return out

    report = store.verify(encoder=Drifted())
    assert not report.clean
    assert [c.ok for c in report.canaries] == [True, False]
    assert report.canaries[1].worst == pytest.approx(0.01, rel=0.1)
    assert store.verify(encoder=Drifted(), tolerance=0.02).clean
    assert not store.verify(encoder=FakeEncoder(dims={0: 4, 3: 8, "final": 5})).clean


def test_changed_canary_texts_are_damage(tmp_path):
    store = filled(tmp_path)
    path = folder_of(store) / "canaries.json"
    path.write_text(path.read_text().replace("seven ships", "eight ships"))
    report = store.verify(repair=True, encoder=FakeEncoder())
    assert [d.path for d in report.damaged] == [str(path)]
    store.get(FakeEncoder(), ["new"])
    assert store.verify(encoder=FakeEncoder()).clean


# --- compact ----------------------------------------------------------------------------------------------------


def test_compact_merges_and_loses_nothing(tmp_path):
    store = filled(tmp_path, 60)
    store.get(FakeEncoder(), texts_of(10, 20), [0], batch_segment_bytes=1)
    before = segments_of(store)
    done = store.compact()
    after = segments_of(store)
    assert done["merged"] == len(before)
    assert len(after) == done["written"] == 2  # texts with two layers, texts with three
    assert done["bytes_freed"] > 0  # the keys of ten texts were there twice, and a header for each segment
    for reader in (store, EmbeddingStore(tmp_path)):
        expect(reader, texts_of(0, 60))
        expect(reader, texts_of(10, 20), [0, 3, "final"])
    assert store.verify().clean
    assert store.compact()["merged"] == 0
    assert segments_of(store) == after


def test_compact_cuts_at_the_target_and_comes_to_rest(tmp_path):
    store = filled(tmp_path, 200)
    store.compact(target_bytes=4000, small_bytes=1500)
    sizes = [p.stat().st_size for p in segments_of(store)]
    assert len(sizes) == 4  # 208 texts of 72 bytes are 14976, in equal pieces of at most 4000
    names = segments_of(store)
    assert store.compact(target_bytes=4000, small_bytes=1500)["merged"] == 0
    assert segments_of(store) == names
    expect(store, texts_of(0, 200))


@pytest.mark.parametrize("seed", range(8))
def test_compact_drops_repeats_and_keeps_the_vector_that_readers_got(tmp_path, seed):
    """Two writers whose vectors differ (as batches do, in the last bits): the one that answered must go on to."""
    rng = np.random.default_rng(seed)
    stores = []
    for i in range(4):
        store = EmbeddingStore(tmp_path / str(i), block_texts=7)
        encoder = FakeEncoder(salt=f"{seed} {i}")
        for layer in LAYERS:
            picks = [f"t{j}" for j in rng.choice(40, 15, replace=False)]
            store.get(encoder, picks, [layer], batch_segment_bytes=int(rng.integers(1, 500)))
        stores.append(store)
    for store in stores[1:]:
        stores[0].import_(store.path)
    store = stores[0]
    texts = [f"t{j}" for j in range(40)]
    stored = {la: [t for t in texts if store.plan(SilentEncoder(), [t], [la])["stored"]] for la in LAYERS}
    before = {la: store.get(SilentEncoder(), stored[la], [la])[la] for la in LAYERS}
    total = store.verify().vectors
    small = int(rng.integers(0, 1500))  # below it some big segments stay out, unless they hold repeats
    store.compact(small_bytes=small, target_bytes=int(rng.integers(500, 5000)))
    for reader in (store, EmbeddingStore(store.path)):
        for layer in LAYERS:
            got = reader.get(SilentEncoder(), stored[layer], [layer])[layer]
            np.testing.assert_array_equal(got, before[layer])
    report = store.verify()
    assert report.clean
    assert report.vectors == store.stats()["encoders"][0]["vectors"] < total


def test_compact_does_not_copy_damage_under_a_good_name(tmp_path):
    store = filled(tmp_path)
    path = segments_of(store)[0]
    at = Segment(path).layers[3].offset
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    Segment(path)  # opens: the bit is in a vector
    names = segments_of(store)
    with pytest.raises(StoreError, match="does not have the hash"):
        store.compact()
    assert segments_of(store) == names
    store.verify(repair=True)
    store.compact()
    expect(store, texts_of(0, 30), encoder=FakeEncoder())


def test_compact_removes_only_old_leftovers(tmp_path):
    store = filled(tmp_path)
    old, young = folder_of(store) / ".tmp-1-old", folder_of(store) / ".tmp-2-young"
    stray = store.path / ".removed-x"
    stray.mkdir()
    (stray / "file").write_text("x")
    for path in (old, young):
        path.write_text("half a segment")
    past = time.time() - 7200
    for path in (old, stray):
        os.utime(path, (past, past))
    assert store.compact()["leftovers_removed"] == 2
    assert young.exists()
    assert not old.exists()
    assert not stray.exists()
    assert store.compact(leftover_age=0)["leftovers_removed"] == 1


def test_a_reader_whose_segments_are_merged_under_it_lists_again(tmp_path, monkeypatch):
    store = filled(tmp_path)
    reader = EmbeddingStore(tmp_path)
    gather, calls = Snapshot.gather, []

    def late(self, *args, **kwargs):
        if not calls:
            calls.append(1)
            store.compact()
        return gather(self, *args, **kwargs)

    monkeypatch.setattr(Snapshot, "gather", late)
    expect(reader, texts_of(0, 30))
    assert calls


def test_a_listing_that_missed_both_old_and_new_is_not_believed(tmp_path, monkeypatch):
    store = filled(tmp_path)
    whole = {p.name for p in segments_of(store)}
    real, calls = os.scandir, []

    class Part(list):
        def __enter__(self):
            return self

        def __exit__(self, *args):
            return None

    def partial(path):
        calls.append(path)
        with real(path) as entries:
            found = sorted(entries, key=lambda e: e.name)
        return Part(found[:2] if len(calls) == 1 else found)

    monkeypatch.setattr(os, "scandir", partial)
    folder = EmbeddingStore(store.path)._open(folder_of(store).name, "float32")
    assert folder.names() == whole
    assert len(calls) == 3


# --- export, import, remove ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["copy", "copy.tar"])
def test_what_was_exported_can_be_imported_elsewhere(tmp_path, name):
    store = filled(tmp_path / "a")
    store.get(FakeEncoder(), ["half"], dtype="float16")
    done = store.export(tmp_path / "out" / name)
    assert done["encoders"] == 2
    assert done["segments"] == len(segments_of(store)) + 1
    other = EmbeddingStore(tmp_path / "b")
    taken = other.import_(tmp_path / "out" / name)
    assert taken["segments"] == done["segments"]
    assert taken["present"] == 0
    expect(other, texts_of(0, 30))
    other.get(SilentEncoder(), ["half"], dtype="float16")
    assert other.verify(encoder=FakeEncoder()).clean
    assert other.import_(tmp_path / "out" / name)["present"] == done["segments"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == [name]
    with pytest.raises(StoreError, match="exists"):
        store.export(tmp_path / "out" / name)


def test_an_exported_folder_is_a_store(tmp_path):
    filled(tmp_path / "a").export(tmp_path / "b")
    expect(EmbeddingStore(tmp_path / "b"), texts_of(0, 30))


def test_export_of_one_encoder_or_precision(tmp_path):
    store = filled(tmp_path / "a")
    store.get(FakeEncoder(), ["x"], dtype="float16")
    store.get(FakeEncoder(name="other"), ["x"])
    digest = FakeEncoder().fingerprint_digest()
    assert store.export(tmp_path / "1", digest)["encoders"] == 2
    assert store.export(tmp_path / "2", digest + "-f16")["encoders"] == 1
    assert store.export(tmp_path / "3", digest, dtype="float32")["encoders"] == 1
    assert store.export(tmp_path / "4")["encoders"] == 3
    with pytest.raises(InvalidInputError, match="unknown encoder"):
        store.export(tmp_path / "5", "0" * 32)
    assert not (tmp_path / "5").exists()


@pytest.mark.parametrize("name", ["copy", "copy.tar"])
def test_a_damaged_segment_is_neither_exported_nor_imported(tmp_path, name):
    store = filled(tmp_path / "a")
    store.export(tmp_path / name)
    n = len(segments_of(store))
    victim = segments_of(store)[1]
    flipped = bytearray(victim.read_bytes())
    flipped[700] ^= 4
    # In the copy: what is whole is taken, what is not is named.
    if name == "copy":
        (tmp_path / name / victim.parent.name / victim.name).write_bytes(flipped)
    else:
        raw = (tmp_path / name).read_bytes()
        assert raw.count(victim.read_bytes()) == 1
        (tmp_path / name).write_bytes(raw.replace(victim.read_bytes(), bytes(flipped)))
    other = EmbeddingStore(tmp_path / "b")
    with pytest.raises(StoreError, match=f"1 of {n} segments.*{victim.name}"):
        other.import_(tmp_path / name)
    assert other.verify().clean
    assert other.stats()["encoders"][0]["segments"] == n - 1
    # In the store: nothing is left at the target.
    victim.write_bytes(flipped)
    with pytest.raises(StoreError, match=f"{victim.name} is damaged"):
        store.export(tmp_path / f"again-{name}")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a", "b", name])


@pytest.mark.parametrize(
    "member, kind",
    [
        ("../evil", tarfile.REGTYPE),
        ("/etc/evil", tarfile.REGTYPE),
        ("0" * 32 + "/../../x", tarfile.REGTYPE),
        ("0" * 32 + "/encoder.json", tarfile.SYMTYPE),
        ("readme", tarfile.REGTYPE),
    ],
)
def test_a_tar_file_with_anything_else_in_it_is_refused(tmp_path, member, kind):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo(member)
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info, io.BytesIO())
    with pytest.raises(StoreError, match="is not a file of an exported store"):
        EmbeddingStore(tmp_path / "s").import_(tmp_path / "x.tar")
    assert [p.name for p in tmp_path.iterdir()] == ["x.tar"]


def test_import_of_what_is_no_export(tmp_path):
    store = EmbeddingStore(tmp_path / "s")
    (tmp_path / "file").write_text("not a tar")
    (tmp_path / "empty").mkdir()
    for name, message in [("none", "does not exist"), ("file", "not an uncompressed tar"), ("empty", "holds no")]:
        with pytest.raises(StoreError, match=message):
            store.import_(tmp_path / name)
    filled(tmp_path / "a").export(tmp_path / "whole.tar")
    raw = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(StoreError):
        store.import_(tmp_path / "cut.tar")
    assert store.verify().clean


def test_import_refuses_a_folder_whose_encoder_json_disagrees(tmp_path):
    filled(tmp_path / "a").export(tmp_path / "copy")
    (path,) = (tmp_path / "copy").glob("*/encoder.json")
    path.write_text(path.read_text().replace("128", "127"))
    with pytest.raises(StoreError, match="disagrees with the name of its folder"):
        EmbeddingStore(tmp_path / "b").import_(tmp_path / "copy")
    path.unlink()
    with pytest.raises(StoreError, match=r"no encoder\.json"):
        EmbeddingStore(tmp_path / "b").import_(tmp_path / "copy")


def test_remove_deletes_only_what_is_named(tmp_path):
    store = filled(tmp_path)
    store.get(FakeEncoder(), ["x"], dtype="float16")
    store.get(FakeEncoder(name="other"), ["x"])
    digest = FakeEncoder().fingerprint_digest()
    with pytest.raises(InvalidInputError, match="unknown encoder"):
        store.remove("0" * 32)
    assert store.remove(digest, dtype="float16") > 0
    expect(store, texts_of(0, 30))
    assert store.remove(digest) > 0
    assert [e["model"] for e in store.stats()["encoders"]] == ["other"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [FakeEncoder(name="other").fingerprint_digest()]
    encoder = FakeEncoder()
    expect(store, texts_of(0, 3), encoder=encoder)
    assert len(encoder.user_counts()) == 6
