from __future__ import annotations

import hashlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from store_fakes import poke

from embedrm.errors import InvalidInputError, StoreError
from embedrm.store import DamagedSegmentError, Segment, text_keys, write_segment
from embedrm.store.segment import NewerSegmentError, SegmentGoneError

DIGEST = "ab" * 16


def pooled(n=3, dtype=np.float32):
    rng = np.random.default_rng(n)
    return {
        "keys": text_keys([f"t{i}" for i in range(n)]),
        "layer:3": rng.standard_normal((n, 5)).astype(dtype),
        "layer:final": rng.standard_normal((n, 3)).astype(dtype),
    }


def ragged(lengths):
    rng = np.random.default_rng(len(lengths))
    return {
        "keys": text_keys([f"t{i}" for i in range(len(lengths))]),
        "tokens:3": rng.standard_normal((sum(lengths), 7)).astype(np.float16),
        "tokens:3.offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    }


def write(folder, arrays, dtype="float32"):
    return write_segment(folder, arrays, encoder=DIGEST, dtype=dtype)


def rebuild(path, folder, change):
    """Change the parsed header of a segment and write it again, checksum included where the change keeps it."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header = change(header) or header
    text = json.dumps(header).encode()
    out = folder / "changed.safetensors"
    out.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    return out


def test_name_is_the_hash_of_the_whole_file_and_the_same_content_has_one_name(tmp_path):
    path = write(tmp_path, pooled())
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    assert path.name == f"{digest}.safetensors"
    assert write(tmp_path, pooled()) == path
    assert write(tmp_path, dict(reversed(pooled().items()))) == path
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_any_safetensors_reader_reads_it(tmp_path, dtype):
    arrays = pooled(4, dtype)
    path = write(tmp_path, arrays, np.dtype(dtype).name)
    with safe_open(path, "numpy") as file:
        assert set(file.keys()) == set(arrays)
        assert file.metadata()["records"] == "4"
        assert file.metadata()["encoder"] == DIGEST
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.get_tensor(name), array)


def test_arrays_are_mapped_without_a_copy_and_aligned(tmp_path):
    arrays = pooled(5)
    segment = Segment(write(tmp_path, arrays))
    views = segment.map()
    assert segment.records == 5
    assert segment.pooled
    assert list(segment.layers) == [3, "final"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(views[name], array)
        assert not views[name].flags.owndata
        assert not views[name].flags.writeable
        assert views[name].flags.aligned
    segment.path.unlink()  # a view outlives its file
    np.testing.assert_array_equal(views["layer:3"], arrays["layer:3"])
    with pytest.raises(SegmentGoneError):
        segment.map()
    with pytest.raises(SegmentGoneError):
        Segment(segment.path)


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(0, 4), max_size=6))
def test_ragged_records_come_back_record_by_record(tmp_path_factory, lengths):
    arrays = ragged(lengths)
    segment = Segment(write(tmp_path_factory.mktemp("ragged"), arrays, "float16"))
    values, offsets = segment.ragged("tokens:3")
    assert not segment.pooled
    assert segment.layers == {}
    start = 0
    for i, length in enumerate(lengths):
        record = values[offsets[i] : offsets[i + 1]]
        assert record.shape == (length, 7)
        np.testing.assert_array_equal(record, arrays["tokens:3"][start : start + length])
        start += length
    with pytest.raises(StoreError, match="no ragged array 'layer:3'"):
        segment.ragged("layer:3")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"layer:3": np.zeros((2, 5), np.float32)}, "there are 3 keys"),
        ({"layer:3": np.zeros(3, np.float32)}, "not an .* array of floats"),
        ({"layer:3": np.zeros((3, 5), np.int64)}, "not an .* array of floats"),
        ({"keys": np.zeros((3, 8), np.uint8)}, "keys are not"),
        ({"keys": np.zeros((3, 16), np.int64)}, "keys are not"),
        ({"layer:3": np.zeros((3, 5), np.complex64)}, "complex64"),
        ({"x.offsets": np.zeros(4, np.int64)}, "offsets of an array"),
        ({"x": np.zeros((2, 2), np.float32), "x.offsets": np.array([0, 1, 2], np.int64)}, "offsets of an array"),
        ({"x": np.zeros((2, 2), np.float32), "x.offsets": np.array([0, 2, 1, 2], np.int64)}, "does not rise"),
        ({"x": np.zeros((2, 2), np.float32), "x.offsets": np.array([0, 1, 1, 1], np.int64)}, "does not rise"),
    ],
)
def test_arrays_that_disagree_are_not_written(tmp_path, change, message):
    with pytest.raises(InvalidInputError, match=message):
        write(tmp_path, {**pooled(), **change})
    assert list(tmp_path.iterdir()) == []


def _set(name, field, value):
    def change(header):
        header[name][field] = value

    return change


@pytest.mark.parametrize(
    "change, reason",
    [
        (_set("layer:3", "shape", [3, 6]), "disagree"),
        (_set("layer:3", "shape", [-3, -5]), "does not describe"),
        (_set("layer:3", "shape", [True, 15]), "does not describe"),
        (_set("layer:3", "dtype", "BF16"), "does not describe"),
        (_set("layer:3", "data_offsets", [0]), "disagree"),
        (_set("layer:3", "data_offsets", [4, 64]), "hole or overlap"),
        (_set("keys", "dtype", "F16"), "disagree"),
        (lambda h: h.pop("keys") and None, "hole or overlap|describes"),
        (lambda h: h.pop("__metadata__") and None, "no metadata"),
        (_set("__metadata__", "records", 3), "no metadata of strings"),
        (_set("__metadata__", "format", "other"), "do not name the format"),
        (_set("__metadata__", "records", "4"), "checksum"),
        (_set("__metadata__", "encoder", "cd" * 16), "checksum"),
        (_set("__metadata__", "check", "0"), "checksum"),
        (lambda h: {("layer:2" if k == "layer:3" else k): v for k, v in h.items()}, "checksum"),
        (lambda h: [h], "no metadata"),
    ],
)
def test_a_changed_header_is_damage_and_says_what_to_do(tmp_path, change, reason):
    path = rebuild(write(tmp_path, pooled()), tmp_path, change)
    with pytest.raises(DamagedSegmentError, match=reason) as caught:
        Segment(path)
    assert str(path) in str(caught.value)
    assert "embedrm cache verify --repair" in str(caught.value)


def test_an_unchanged_header_passes_the_same_way(tmp_path):
    assert Segment(rebuild(write(tmp_path, pooled()), tmp_path, lambda h: None)).records == 3


def test_a_newer_version_is_not_called_damage(tmp_path):
    path = rebuild(write(tmp_path, pooled()), tmp_path, _set("__metadata__", "version", "2"))
    with pytest.raises(NewerSegmentError, match="Upgrade embedrm"):
        Segment(path)


@pytest.mark.parametrize("claim", [0, 1, 2**40, 2**63])
def test_a_header_length_that_cannot_be_is_damage(tmp_path, claim):
    path = write(tmp_path, pooled())
    path.write_bytes(struct.pack("<Q", claim) + path.read_bytes()[8:])
    with pytest.raises(DamagedSegmentError, match="header claims"):
        Segment(path)


@pytest.mark.parametrize("header", [b"{]", b"\xff\xfe", b'{"a":1,"a":2}', b"[" * 5000, b'"x"', b"null"])
def test_a_header_that_is_not_the_json_it_should_be_is_damage(tmp_path, header):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(DamagedSegmentError):
        Segment(path)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_no_bytes_raise_anything_but_damage(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(DamagedSegmentError):
        Segment(path)


@pytest.mark.parametrize("arrays", [pooled(), ragged([2, 0, 3])])
def test_every_truncation_and_extension_is_found_on_opening(tmp_path, arrays):
    path = write(tmp_path, arrays)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedSegmentError):
            Segment(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DamagedSegmentError, match="its header describes"):
        Segment(path)


@pytest.mark.parametrize("arrays", [pooled(), ragged([2, 0, 3])])
def test_every_flipped_bit_outside_the_vectors_is_found_on_opening(tmp_path, arrays):
    path = write(tmp_path, arrays)
    whole = path.read_bytes()
    segment = Segment(path)
    vectors = [s for name, s in segment.arrays.items() if name != "keys" and not name.endswith(".offsets")]
    inside = {i for s in vectors for i in range(s.offset, s.offset + s.nbytes)}
    padding = {i for i in range(len(whole)) if i < min(s.offset for s in segment.arrays.values()) and whole[i] == 32}
    found = 0
    for i in sorted(set(range(len(whole))) - inside):
        for bit in range(8):
            poke(path, i, whole[i] ^ 1 << bit)
            try:
                again = Segment(path)
            except (DamagedSegmentError, NewerSegmentError):
                found += 1
            else:
                # Only a blank that became another blank can pass, and it changes nothing that is read.
                assert i in padding
                assert again.arrays == segment.arrays
        poke(path, i, whole[i])
    assert found > 1000


def test_a_file_that_shrinks_after_it_was_opened_is_not_mapped(tmp_path):
    path = write(tmp_path, pooled())
    segment = Segment(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedSegmentError, match="when it was opened"):
        segment.map()
