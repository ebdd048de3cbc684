"""One base, several adapters: what is applied equals what is merged, and a switch leaves no trace."""

from __future__ import annotations

import json
import shutil
import threading
import time

import numpy as np
import pytest
from tuning_base import TEXTS, make_base, make_preferences

from embedrm import EmbeddingStore, SentenceEncoder, TunedEncoder
from embedrm.errors import InvalidInputError, ModelError
from embedrm.tuning import AdapterSwitch

FAST = {"epochs": 3, "batch_tokens": 200, "max_length": 32, "learning_rate": 1e-2}
LAYERS = (0, 1, 2, "final")


@pytest.fixture(scope="module")
def tuned(base_folder, preferences, tmp_path_factory):
    place = tmp_path_factory.mktemp("adapters")
    one = TunedEncoder(base=str(base_folder), **FAST).fit(preferences, place / "one")
    two = TunedEncoder(base=str(base_folder), **FAST, random_state=1, rank=4, target_modules=["query", "value"])
    two.fit(preferences, place / "two")
    router = TunedEncoder(base=str(base_folder), **FAST, objective="domain").fit(preferences, place / "router")
    return {"one": one, "two": two, "router": router}


@pytest.fixture
def switch(tuned):
    made = AdapterSwitch(tuned["one"].base_encoder())
    for name, one in tuned.items():
        made.add(name, one.folder)
    return made


def vectors(encoder):
    return encoder.encode(TEXTS, LAYERS)


def assert_same_bits(one, other):
    for layer in LAYERS:
        assert one[layer].tobytes() == other[layer].tobytes(), layer


@pytest.mark.parametrize("name", ["one", "two", "router"])
def test_applied_equals_merged(tuned, switch, name):
    merged, applied = vectors(tuned[name].joint_encoder()), vectors(switch.encoder(name))
    for layer in LAYERS:
        np.testing.assert_allclose(applied[layer], merged[layer], atol=1e-5)
    assert np.abs(applied[2] - vectors(switch.encoder(None))[2]).max() > 1e-2


def test_switching_leaves_no_trace(base_folder, switch):
    alone = vectors(SentenceEncoder(str(base_folder), max_length=32, truncation="middle"))
    one, two = vectors(switch.encoder("one")), vectors(switch.encoder("two"))
    assert_same_bits(vectors(switch.encoder(None)), alone)
    assert_same_bits(vectors(switch.encoder("one")), one)
    assert_same_bits(vectors(switch.encoder("two")), two)
    assert_same_bits(vectors(switch.encoder("one")), one)
    assert_same_bits(vectors(switch.encoder(None)), alone)


def test_an_error_inside_leaves_no_trace_either(switch):
    before = vectors(switch.encoder(None))
    with pytest.raises(KeyError), switch.use("one"):
        raise KeyError
    assert_same_bits(vectors(switch.base), before)
    with switch.use("one"), switch.use("two"):
        pass
    assert_same_bits(vectors(switch.base), before)


def test_the_callers_encoder_is_never_changed(base_folder, tuned):
    mine = SentenceEncoder(str(base_folder), max_length=32, truncation="middle")
    before = vectors(mine)
    switch = AdapterSwitch(mine).add("one", tuned["one"].folder)
    with switch.use("one"):
        assert_same_bits(vectors(mine), before)


def test_b_of_zero_gives_the_base(base_folder, tuned, tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "zero"
    shutil.copytree(tuned["one"].adapter, folder)
    path = folder / "adapter_model.safetensors"
    save_file({k: v * 0 if "lora_B" in k else v for k, v in load_file(path).items()}, path)
    switch = AdapterSwitch(str(base_folder)).add("zero", folder)
    zero, base = vectors(switch.encoder("zero")), vectors(switch.encoder(None))
    for layer in LAYERS:
        np.testing.assert_array_equal(zero[layer], base[layer])


def test_before_its_first_step_an_adapter_is_the_base(base_folder, preferences):
    from embedrm.datasets.template import PLAIN
    from embedrm.tuning.config import TuningConfig
    from embedrm.tuning.methods import set_training
    from embedrm.tuning.session import open_session

    config = TuningConfig(base=str(base_folder), **FAST)
    session = open_session(config, preferences, None, PLAIN)
    set_training(session.base, config, False)
    found = session.base.pooled(session.base.ids(TEXTS)).detach().numpy()
    np.testing.assert_allclose(found, session.base.encoder.encode(TEXTS, (2,))[2], atol=1e-5)


def test_a_switch_takes_less_than_five_milliseconds(switch):
    times = []
    for name in ["one", "two", None] * 20:
        began = time.perf_counter()
        with switch.use(name):
            times.append(time.perf_counter() - began)
    assert sorted(times)[len(times) // 2] < 0.005


def test_threads_wait_for_each_other(switch):
    want = {name: vectors(switch.encoder(name)) for name in ("one", "two", None)}
    wrong = []

    def work(name):
        for _ in range(5):
            found = vectors(switch.encoder(name))
            wrong.extend(layer for layer in LAYERS if found[layer].tobytes() != want[name][layer].tobytes())

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two", None, "one")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_heads_come_with_their_adapters(tuned, switch, preferences):
    np.testing.assert_allclose(switch.rewards("one", preferences), tuned["one"].rewards(preferences), atol=1e-4)
    asked = preferences.prompt_texts()
    np.testing.assert_allclose(
        switch.domain_probabilities("router", asked), tuned["router"].domain_probabilities(asked), atol=1e-5
    )
    few = ["it is kind", "it is rude"]
    np.testing.assert_allclose(switch.reward("two", asked[0], few), tuned["two"].reward(asked[0], few), atol=1e-4)
    with pytest.raises(ModelError, match="objective='domain' and has no head"):
        switch.rewards("router", preferences)


def test_a_head_is_not_put_on_texts_of_another_length(base_folder, tuned, preferences):
    switch = AdapterSwitch(SentenceEncoder(str(base_folder), max_length=16)).add("one", tuned["one"].folder)
    with pytest.raises(InvalidInputError, match=r"cut to 32 tokens \(middle\), and this base reads 16 \(head\)"):
        switch.rewards("one", preferences)


def test_stored_vectors_of_adapters_are_kept_apart(switch, tmp_path):
    store = EmbeddingStore(tmp_path)
    for name in (None, "one", "two", None, "one"):
        encoder = switch.encoder(name)
        np.testing.assert_array_equal(store.get(encoder, TEXTS, (2,))[2], encoder.encode(TEXTS, (2,))[2])
    digests = {switch.encoder(name).fingerprint_digest() for name in (None, "one", "two", "router")}
    assert len(digests) == 4


def test_parameters_are_counted(switch, tuned):
    assert switch.adapters["one"].n_parameters == tuned["one"].facts_["parameters_tuned"] - 32
    assert switch.adapters["two"].n_parameters == 2 * 2 * 4 * (32 + 32)
    added = switch.encoder("two").n_parameters() - switch.encoder(None).n_parameters()
    assert added == switch.adapters["two"].n_parameters
    assert switch.adapters["two"].nbytes == 4 * added


def test_an_adapter_of_another_base_is_refused(tuned, tmp_path):
    other = make_base(tmp_path / "other", seed=7)
    with pytest.raises(ModelError, match=r"is for the base [0-9a-f]{32} .* and this is [0-9a-f]{32}"):
        AdapterSwitch(str(other)).add("one", tuned["one"].folder)
    # the same base elsewhere is the same base
    copied = tmp_path / "copy"
    shutil.copytree(tuned["one"].config.base, copied)
    AdapterSwitch(str(copied)).add("one", tuned["one"].folder)


def test_what_is_no_adapter_is_an_error(base_folder, tuned, switch, tmp_path):
    with pytest.raises(ModelError, match="holds no adapter"):
        AdapterSwitch(str(base_folder)).add("x", base_folder)
    with pytest.raises(InvalidInputError, match="name must be a new string; got 'one'"):
        switch.add("one", tuned["one"].folder)
    with pytest.raises(InvalidInputError, match=r"unknown adapter 'on'\. Did you mean 'one'"):
        switch.encoder("on")
    with pytest.raises(InvalidInputError, match="SentenceEncoder or its name, got int"):
        AdapterSwitch(3)
    with pytest.raises(InvalidInputError, match="lives in memory"):
        switch.encoder("one").spec()
    folder = tmp_path / "dora"
    shutil.copytree(tuned["one"].adapter, folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "use_dora": True}))
    with pytest.raises(ModelError, match="only plain LoRA adapters can be switched, and this one has use_dora"):
        AdapterSwitch(str(base_folder)).add("x", folder)
    (folder / "base.json").unlink()
    with pytest.raises(ModelError, match="does not say which base it is for"):
        AdapterSwitch(str(base_folder)).add("x", folder)


def test_margins_of_more_data(switch):
    assert switch.rewards("one", make_preferences(3)).shape == (9,)
