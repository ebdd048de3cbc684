from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_fakes import FakeEncoder, SilentEncoder, texts_of

from embedrm.errors import InvalidInputError, StoreError
from embedrm.store import CANARY_TEXTS, EmbeddingStore, default_path, fingerprint_digest, text_keys
from embedrm.store.digest import check_layers, key_words, layer_of
from embedrm.store.fill import plan_blocks
from embedrm.store.index import KeyIndex


def test_rows_come_in_the_order_of_texts_and_repeats_are_encoded_once(tmp_path):
    encoder, store = FakeEncoder(), EmbeddingStore(tmp_path / "s")
    texts = ["b", "a", "b", "", "c", "a"]
    got = store.get(encoder, texts, [3, "final"])
    assert list(got) == [3, "final"]
    for layer, dim in [(3, 8), ("final", 6)]:
        assert got[layer].dtype == np.float32
        assert got[layer].shape == (6, dim)
        np.testing.assert_array_equal(got[layer], encoder.expected(texts, layer))
    assert set(encoder.user_counts().values()) == {1}
    assert len(encoder.user_counts()) == 4 * 2


def test_what_is_stored_is_not_encoded_again_by_any_later_store_object(tmp_path):
    texts = texts_of(0, 50)
    first = EmbeddingStore(tmp_path).get(FakeEncoder(), texts)["final"]
    again = EmbeddingStore(str(tmp_path)).get(SilentEncoder(), list(reversed(texts)))["final"]
    np.testing.assert_array_equal(again, first[::-1])


def test_a_later_layer_is_asked_of_the_encoder_alone_and_only_where_missing(tmp_path):
    store = EmbeddingStore(tmp_path)
    store.get(FakeEncoder(), ["a", "b"], [3])
    store.get(FakeEncoder(), ["c"], [3, "final"])
    encoder = FakeEncoder()
    got = store.get(encoder, ["a", "b", "c", "d"], [3, "final"])
    assert encoder.user_counts() == {("a", "final"): 1, ("b", "final"): 1, ("d", 3): 1, ("d", "final"): 1}
    for layer in (3, "final"):
        np.testing.assert_array_equal(got[layer], encoder.expected("abcd", layer))
    store.get(SilentEncoder(), list("dcba"), ["final", 3])


def test_plan_counts_without_encoding_or_writing(tmp_path):
    store = EmbeddingStore(tmp_path / "s")
    texts = ["a", "b", "a", "c"]
    assert store.plan(SilentEncoder(), texts, [3]) == {"texts": 4, "unique": 3, "stored": 0, "missing": 3}
    assert not (tmp_path / "s").exists()
    store.get(FakeEncoder(), ["a"], [3])
    assert store.plan(SilentEncoder(), texts, [3]) == {"texts": 4, "unique": 3, "stored": 1, "missing": 2}
    assert store.plan(SilentEncoder(), texts, [3, 0])["missing"] == 3
    assert store.plan(SilentEncoder(), [], [3]) == {"texts": 0, "unique": 0, "stored": 0, "missing": 0}


def test_progress_counts_unique_missing_texts_and_is_silent_when_there_are_none(tmp_path):
    store, calls = EmbeddingStore(tmp_path, block_texts=10), []
    store.get(FakeEncoder(), texts_of(0, 5))
    store.get(FakeEncoder(), texts_of(0, 30) * 2, progress=lambda done, total: calls.append((done, total)))
    assert calls[0] == (0, 25)
    assert calls[-1] == (25, 25)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert len(calls) == 4
    store.get(FakeEncoder(), texts_of(0, 30), progress=lambda *_: pytest.fail("nothing to encode"))


def test_nothing_is_created_before_the_first_write(tmp_path):
    store = EmbeddingStore(tmp_path / "deep" / "store")
    assert store.get(FakeEncoder(), [], [3, "final"])[3].shape == (0, 8)
    assert store.stats()["encoders"] == []
    assert store.verify().clean
    assert store.compact()["merged"] == 0
    assert not (tmp_path / "deep").exists()
    store.get(FakeEncoder(), ["x"])
    assert (tmp_path / "deep" / "store").is_dir()


def test_default_store_follows_embedrm_home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDRM_HOME", str(tmp_path))
    assert EmbeddingStore.default().path == tmp_path / "store"
    monkeypatch.delenv("EMBEDRM_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path() == tmp_path / ".cache" / "embedrm" / "store"


def test_segments_are_cut_by_bytes_and_committed_on_the_way(tmp_path):
    seen = []
    store = EmbeddingStore(tmp_path, block_texts=10)

    def look(done, total):
        seen.append(sum(e["segments"] for e in EmbeddingStore(tmp_path).stats()["encoders"]))

    store.get(FakeEncoder(), texts_of(0, 100), progress=look, batch_segment_bytes=10 * 6 * 4)
    assert seen[-1] >= 8  # before the last commit, most are on disk
    assert EmbeddingStore(tmp_path).stats()["encoders"][0]["texts"] == 100 + len(CANARY_TEXTS)


def test_segments_are_cut_by_time(tmp_path):
    store = EmbeddingStore(tmp_path, block_texts=10)
    store.get(FakeEncoder(delay=0.002), texts_of(0, 50), batch_segment_seconds=0.01)
    assert store.stats()["encoders"][0]["segments"] >= 4
    store.get(FakeEncoder(), texts_of(50, 100))
    assert store.stats()["encoders"][0]["segments"] <= 7


def test_an_encoder_that_fails_half_way_leaves_what_it_gave(tmp_path):
    class Failing(FakeEncoder):
        def encode(self, texts, layers=None, *, progress=None):
            if len(self.batches) == 4:
                raise KeyboardInterrupt
            return super().encode(texts, layers)

    store = EmbeddingStore(tmp_path, block_texts=10)
    with pytest.raises(KeyboardInterrupt):
        store.get(Failing(), texts_of(0, 100))
    assert store.plan(FakeEncoder(), texts_of(0, 100))["stored"] == 30
    encoder = FakeEncoder()
    store.get(encoder, texts_of(0, 100))
    assert sum(encoder.user_counts().values()) == 70


def test_what_another_process_stores_meanwhile_is_not_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr("embedrm.store.fill._LOOK_SECONDS", 0.0)
    texts = texts_of(0, 40)

    class Overtaken(FakeEncoder):
        def encode(self, batch, layers=None, *, progress=None):
            if len(self.batches) == 2:
                EmbeddingStore(tmp_path).get(FakeEncoder(), texts)
            return super().encode(batch, layers)

    encoder, calls = Overtaken(), []
    store = EmbeddingStore(tmp_path, block_texts=10)
    got = store.get(encoder, texts, progress=lambda done, total: calls.append(done))
    assert sum(encoder.user_counts().values()) == 20
    assert calls[-1] == 40
    np.testing.assert_array_equal(got["final"], encoder.expected(texts, "final"))


def test_blocks_hold_one_pattern_and_texts_of_like_length():
    texts = ["x" * (i % 50) for i in range(300)] + ["y" * 5000] * 100
    missing = np.ones((400, 2), bool)
    missing[::3, 1] = False
    blocks = plan_blocks(texts, missing, 128)
    assert sorted(i for block in blocks for i in block) == list(range(400))
    for block in blocks:
        assert len(block) <= 128
        assert len({missing[i].tobytes() for i in block}) == 1
        assert [len(texts[i]) for i in block] == sorted((len(texts[i]) for i in block), reverse=True)
    assert blocks == plan_blocks(texts, missing, 128)


def test_encoders_never_share_vectors(tmp_path):
    store = EmbeddingStore(tmp_path)
    one = store.get(FakeEncoder(name="m", salt="1"), ["a"])["final"]
    two = store.get(FakeEncoder(name="m", salt="2", revision="b"), ["a"])["final"]
    assert not np.array_equal(one, two)
    assert len(store.stats()["encoders"]) == 2


def test_precisions_are_kept_apart_and_returned_as_float32(tmp_path):
    store, encoder = EmbeddingStore(tmp_path), FakeEncoder()
    texts = texts_of(0, 20)
    half = store.get(encoder, texts, dtype="float16")["final"]
    exact = encoder.expected(texts, "final")
    assert half.dtype == np.float32
    np.testing.assert_array_equal(half, exact.astype(np.float16).astype(np.float32))
    assert not np.array_equal(half, exact)
    # A request for float32 is not answered with half precision: everything is encoded again.
    again = FakeEncoder()
    np.testing.assert_array_equal(store.get(again, texts)["final"], exact)
    assert len(again.user_counts()) == 20
    np.testing.assert_array_equal(store.get(SilentEncoder(), texts, dtype="float16")["final"], half)
    assert {e["dtype"] for e in store.stats()["encoders"]} == {"float32", "float16"}
    with pytest.raises(InvalidInputError, match="float64"):
        store.get(encoder, texts, dtype="float64")


def test_float16_refuses_what_it_cannot_hold(tmp_path):
    class Large(FakeEncoder):
        def encode(self, texts, layers=None, *, progress=None):
            return {k: v * np.float32(1e5) for k, v in super().encode(texts, layers).items()}

    with pytest.raises(StoreError, match="store this encoder as float32"):
        EmbeddingStore(tmp_path).get(Large(), ["a"], dtype="float16")
    assert np.isfinite(EmbeddingStore(tmp_path).get(Large(), ["a"])["final"]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused_and_not_stored(tmp_path, value):
    class Broken(FakeEncoder):
        def encode(self, texts, layers=None, *, progress=None):
            out = super().encode(texts, layers)
            if "bad text" in texts:
                out["final"][texts.index("bad text"), 2] = value
            return out

    store = EmbeddingStore(tmp_path)
    with pytest.raises(StoreError, match=r"infinite or NaN.*begins 'bad text'"):
        store.get(Broken(), ["good", "bad text"])
    assert store.plan(FakeEncoder(), ["good", "bad text"])["stored"] == 0
    store.get(Broken(), ["good"])
    assert store.verify().clean


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda v: v[:-1], "must return floats of shape"),
        (lambda v: v[:, :3], "must return floats of shape"),
        (lambda v: v.astype(np.int32), "returned int32"),
        (lambda v: v[:, None], "must return floats of shape"),
    ],
)
def test_an_encoder_with_the_wrong_shape_or_type_is_refused(tmp_path, change, message):
    class Broken(FakeEncoder):
        def encode(self, texts, layers=None, *, progress=None):
            return {k: change(v) for k, v in super().encode(texts, layers).items()}

    with pytest.raises(StoreError, match=message):
        EmbeddingStore(tmp_path).get(Broken(), ["a", "b"])


def test_an_encoder_that_forgets_a_layer_is_named(tmp_path):
    class Forgetful(FakeEncoder):
        def encode(self, texts, layers=None, *, progress=None):
            return super().encode(texts, layers[:1])

    with pytest.raises(StoreError, match="asked for layer 'final' and did not return it"):
        EmbeddingStore(tmp_path).get(Forgetful(), ["a"], [3, "final"])


def test_a_changed_width_under_one_fingerprint_is_found(tmp_path):
    store = EmbeddingStore(tmp_path)
    store.get(FakeEncoder(), ["a"])
    with pytest.raises(StoreError, match=r"6-wide vectors of layer 'final'.*width is 9"):
        store.get(FakeEncoder(dims={"final": 9}), ["b"])


@pytest.mark.parametrize(
    "texts, message",
    [
        ("one string", "Put it in a list"),
        (b"bytes", "Put it in a list"),
        (["a", None], r"texts\[1\] must be a string, but NoneType"),
        (["a", "b", 3.5], r"texts\[2\] must be a string, but float"),
        ([b"a"], r"texts\[0\] must be a string, but bytes"),
        (["fine", "a\ud800b"], r"texts\[1\] holds a lone surrogate \(U\+D800 at character 1\)"),
    ],
)
def test_texts_that_cannot_be_keyed_are_named_by_index(tmp_path, texts, message):
    with pytest.raises(InvalidInputError, match=message):
        EmbeddingStore(tmp_path / "s").get(FakeEncoder(), texts)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("layers", [["last"], [-1], [True], [1.0], [None]])
def test_layers_that_are_none_are_refused(layers):
    with pytest.raises(InvalidInputError, match="a layer is an integer"):
        check_layers(layers)


def test_layers_of_other_kinds(tmp_path):
    assert check_layers([np.int64(3), 3, "final"]) == (3, "final")
    for bad in ("final", 3):
        with pytest.raises(InvalidInputError, match="must be a sequence"):
            check_layers(bad)
    with pytest.raises(InvalidInputError, match="empty"):
        check_layers([])
    with pytest.raises(InvalidInputError, match=r"unknown layer 7.*Known: 0, 3, final"):
        EmbeddingStore(tmp_path).get(FakeEncoder(), ["a"], [7])
    assert [layer_of(n) for n in ("layer:3", "layer:final", "layer:03", "layer:x", "layer:٣", "keys")] == [
        3,
        "final",
        None,
        None,
        None,
        None,
    ]


def test_a_fingerprint_that_does_not_give_its_digest_is_refused(tmp_path):
    class Liar(FakeEncoder):
        def fingerprint_digest(self):
            return "0" * 32

    class Short(FakeEncoder):
        def fingerprint_digest(self):
            return "../evil"

    with pytest.raises(InvalidInputError, match="not the digest of its fingerprint"):
        EmbeddingStore(tmp_path / "s").get(Liar(), ["a"])
    with pytest.raises(InvalidInputError, match="must return 32 hex digits"):
        EmbeddingStore(tmp_path / "s").get(Short(), ["a"])


def test_digest_is_of_canonical_json():
    import hashlib

    value = {"b": [1, 2], "a": {"y": None, "x": "é"}}
    text = '{"a":{"x":"\\u00e9","y":null},"b":[1,2]}'
    assert fingerprint_digest(value) == hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def test_keys_are_blake2b_128_of_utf8():
    import hashlib

    keys = text_keys(["", "naïve 🦔", "a\x00"])
    assert keys.shape == (3, 16)
    assert keys.dtype == np.uint8
    for key, text in zip(keys, ["", "naïve 🦔", "a\x00"]):
        assert key.tobytes() == hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
    assert text_keys([]).shape == (0, 16)


def test_a_store_can_be_sent_to_another_process(tmp_path):
    store = EmbeddingStore(tmp_path)
    store.get(FakeEncoder(), ["a"])
    copy = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(copy.get(SilentEncoder(), ["a"])["final"], FakeEncoder().expected(["a"], "final"))


def test_a_file_is_not_a_store(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="is not a store"):
        EmbeddingStore(tmp_path / "file").stats()
    with pytest.raises(StoreError):
        EmbeddingStore(tmp_path / "file").get(FakeEncoder(), ["a"])


@given(
    words=st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=8), min_size=1, max_size=5),
    queries=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=20),
)
def test_index_finds_the_first_segment_also_where_half_keys_collide(words, queries):
    tables = [np.array(w, np.uint64).reshape(-1, 2) for w in words]
    label, row = KeyIndex(tables, range(10, 10 + len(tables))).find(np.array(queries, np.uint64).reshape(-1, 2))
    for i, query in enumerate(queries):
        expected = next(((10 + s, w.index(query)) for s, w in enumerate(words) if query in w), (-1, 0))
        assert (int(label[i]), int(row[i])) == expected


def test_words_sort_as_keys_do():
    keys = text_keys(texts_of(0, 100))
    words = key_words(keys)
    assert sorted(range(100), key=lambda i: keys[i].tobytes()) == list(np.lexsort((words[:, 1], words[:, 0])))


any_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(
        st.tuples(st.lists(any_text, max_size=8), st.sets(st.sampled_from([0, 3, "final"]), min_size=1)), max_size=5
    )
)
def test_any_sequence_of_requests_returns_each_text_s_own_vectors(tmp_path_factory, calls):
    path = tmp_path_factory.mktemp("hyp")
    encoder = FakeEncoder()
    for texts, layers in calls:
        got = EmbeddingStore(path, block_texts=3).get(encoder, texts, layers, batch_segment_bytes=100)
        assert set(got) == layers
        for layer in layers:
            assert got[layer].shape == (len(texts), encoder.dim(layer))
            if texts:
                np.testing.assert_array_equal(got[layer], encoder.expected(texts, layer))
    assert set(encoder.counts.values()) <= {1}
    store = EmbeddingStore(path)
    assert store.verify().clean
    store.compact()
    assert store.verify().clean
    for texts, layers in calls:
        if texts:
            got = store.get(SilentEncoder(), texts, layers)
            for layer in layers:
                np.testing.assert_array_equal(got[layer], encoder.expected(texts, layer))


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(categories=("Cs", "L")), min_size=1, max_size=6))
def test_surrogates_are_refused_and_nothing_else_is(text):
    lone = any(0xD800 <= ord(c) <= 0xDFFF for c in text)
    if lone:
        with pytest.raises(InvalidInputError, match="lone surrogate"):
            text_keys([text])
    else:
        assert text_keys([text]).shape == (1, 16)
