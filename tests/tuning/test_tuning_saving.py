"""What tuning saves: an ordinary encoder for every library, a head, an adapter, and facts."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from tuning_base import TEXTS, make_preferences

from embedrm import EmbeddingStore, LinearHead, RewardPipeline, SentenceEncoder, TunedEncoder, encode
from embedrm.errors import InvalidInputError, ModelError

FAST = {"epochs": 2, "batch_tokens": 200, "max_length": 32, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def tuned(base_folder, preferences, tmp_path_factory):
    """One tuned encoder of each method, by pairs."""
    place = tmp_path_factory.mktemp("saved")
    return {
        method: TunedEncoder(base=str(base_folder), method=method, n_layers=1, **FAST).fit(preferences, place / method)
        for method in ("lora", "top", "full")
    }


@pytest.fixture(scope="module")
def by_domain(base_folder, preferences, tmp_path_factory):
    config = {**FAST, "epochs": 6}
    tuner = TunedEncoder(base=str(base_folder), objective="domain", **config)
    return tuner.fit(preferences, tmp_path_factory.mktemp("saved") / "domain")


@pytest.mark.parametrize("method", ["lora", "top", "full"])
def test_sentence_transformers_loads_it_and_gives_the_same_vectors(tuned, method):
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(str(tuned[method].folder), device="cpu").encode(TEXTS, show_progress_bar=False)
    ours = tuned[method].encoder().encode(TEXTS, ("final",))["final"]
    np.testing.assert_allclose(ours, plain, atol=1e-6)


@pytest.mark.parametrize("method", ["lora", "top", "full"])
def test_the_saved_encoder_gives_the_vectors_of_the_one_in_memory(
    base_folder, preferences, tmp_path, method, monkeypatch
):
    import embedrm.tuning.tuned as module

    kept = {}
    save = module.save_tuned

    def keep(folder, base, adapters, head, facts):
        kept["vectors"] = base.pooled(base.ids(TEXTS)).detach().numpy()
        save(folder, base, adapters, head, facts)

    monkeypatch.setattr(module, "save_tuned", keep)
    one = TunedEncoder(base=str(base_folder), method=method, n_layers=1, **FAST).fit(preferences, tmp_path / "a")
    saved = one.joint_encoder().encode(TEXTS, (2,))[2]
    np.testing.assert_allclose(saved, kept["vectors"], atol=1e-5)
    base = SentenceEncoder(str(base_folder)).encode(TEXTS, (2,))[2]
    assert np.abs(saved - base).max() > 1e-3


def test_each_has_a_fingerprint_of_its_own_that_tells_the_base_apart(tuned, base_folder):
    digests = {one.encoder().fingerprint_digest() for one in tuned.values()}
    digests.add(SentenceEncoder(str(base_folder)).fingerprint_digest())
    assert len(digests) == 4


def test_its_vectors_are_stored_like_any_encoders(tuned, base_folder, preferences, tmp_path, monkeypatch):
    store = EmbeddingStore(tmp_path / "store")
    encoder = tuned["lora"].encoder()
    store.get(SentenceEncoder(str(base_folder)), TEXTS, ("final",))
    first = store.get(encoder, TEXTS, ("final",))["final"]
    np.testing.assert_array_equal(first, encoder.encode(TEXTS, ("final",))["final"])
    again = TunedEncoder.load(tuned["lora"].folder).encoder()
    monkeypatch.setattr(SentenceEncoder, "encode", lambda *a, **k: pytest.fail("encoded twice"))
    np.testing.assert_array_equal(store.get(again, TEXTS, ("final",))["final"], first)


def test_it_is_an_encoder_for_pipelines(tuned, preferences, tmp_path):
    pipeline = RewardPipeline(tuned["full"].encoder(), LinearHead(), store=False).fit(preferences)
    pipeline.save(tmp_path / "pipeline")
    loaded = RewardPipeline.load(tmp_path / "pipeline", store=False)
    responses = ["it is kind", "it is rude"]
    np.testing.assert_array_equal(
        loaded.score("name a red shirt.", responses), pipeline.score("name a red shirt.", responses)
    )


def test_rewards_are_linear_in_the_stored_joint_vectors(tuned, preferences, tmp_path):
    from safetensors.numpy import load_file

    one = tuned["full"]
    store = EmbeddingStore(tmp_path / "store")
    weight = load_file(one.folder / "tuning_head.safetensors")["weight"][0].astype(float)
    embedded = encode(preferences, one.joint_encoder(), sides=("joint",), layers=(2,), store=store)
    want = np.asarray(embedded.responses.views["joint:2"], dtype=float) @ weight
    np.testing.assert_allclose(one.rewards(preferences), want, atol=1e-5)
    np.testing.assert_allclose(one.rewards(preferences, store=store), want, atol=1e-12)
    chosen, rejected = preferences.pairs[["chosen", "rejected"]].to_numpy().T
    np.testing.assert_allclose(one.margins(preferences), want[chosen] - want[rejected], atol=1e-5)
    asked, said = preferences.prompts["prompt"][3], preferences.response_texts()[9:12]
    np.testing.assert_allclose(one.reward(asked, said), want[9:12], atol=1e-5)
    np.testing.assert_allclose(one.reward([asked] * 3, said), want[9:12], atol=1e-5)


def test_score_counts_ties_of_rewards_one_half_and_leaves_out_labelled_ties(tuned, preferences, monkeypatch):
    from embedrm import PreferenceDataset

    frame = preferences.pairs[:4].assign(outcome=[1.0, 1.0, 1.0, 0.5], weight=[1.0, 2.0, 1.0, 5.0])
    data = PreferenceDataset(preferences.prompts, preferences.responses, frame)
    monkeypatch.setattr(TunedEncoder, "margins", lambda *a, **k: np.array([1.0, 0.0, -1.0, -9.0]))
    assert tuned["full"].score(data) == 0.5


def test_what_is_loaded_gives_the_same_rewards_and_facts(tuned, preferences):
    for method, one in tuned.items():
        loaded = TunedEncoder.load(one.folder)
        assert loaded.config == one.config
        assert loaded.history_ == one.history_
        assert loaded.facts_["config"]["method"] == method
        np.testing.assert_array_equal(loaded.rewards(preferences), one.rewards(preferences))


def test_the_facts_say_how_it_came_about(tuned, base_folder, preferences):
    facts = json.loads((tuned["lora"].folder / "tuning.json").read_text())
    assert facts["data_digest"] == preferences.fingerprint()
    assert facts["data"]["pairs"] == 80
    assert {"torch", "transformers", "peft"} <= set(facts["versions"])
    # 2 blocks: four square layers, and two between 32 and 64; rank 8; the head has 32
    assert facts["parameters_tuned"] == 2 * 8 * (4 * (32 + 32) + 2 * (32 + 64)) + 32
    assert facts["history"][-1]["epoch"] == 2
    assert tuned["top"].facts_["base_digest"] == facts["base_digest"]


def test_domains_are_told_apart(by_domain, preferences):
    asked = preferences.prompt_texts()
    found = by_domain.domain_probabilities(asked)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    assert by_domain.classes_ == ["house", "shirt"]
    right = np.array(by_domain.classes_)[found.argmax(axis=1)] == preferences.prompts["domain"].to_numpy()
    assert right.mean() > 0.9


def test_a_head_that_is_not_there_is_an_error(by_domain, tuned, preferences, base_folder, tmp_path):
    with pytest.raises(ModelError, match=r"objective='domain' and has no head.*objective='bradley-terry'"):
        by_domain.rewards(preferences)
    with pytest.raises(ModelError, match=r"has no head.*objective='domain'"):
        tuned["full"].domain_probabilities(["name a house"])
    plain = TunedEncoder(base=str(base_folder), objective="contrastive", **{**FAST, "epochs": 1})
    plain.fit(preferences, tmp_path / "plain")
    assert not (plain.folder / "tuning_head.safetensors").exists()
    with pytest.raises(ModelError, match="no head"):
        plain.score(preferences)
    with pytest.raises(ModelError, match="no adapter: it was tuned with method='full'"):
        tuned["full"].adapter  # noqa: B018


def test_what_is_no_tuned_folder_is_an_error(base_folder, tuned, tmp_path):
    with pytest.raises(ModelError, match=r"tuning\.json is missing"):
        TunedEncoder.load(base_folder)
    with pytest.raises(InvalidInputError, match="not tuned yet"):
        TunedEncoder().encoder()
    (tmp_path / "tuning.json").write_text(json.dumps({**tuned["full"].facts_, "format": 99}))
    with pytest.raises(ModelError, match="has format 99, expected 1"):
        TunedEncoder.load(tmp_path)


def test_a_tuned_encoder_is_a_base_like_any_other(tuned, preferences, tmp_path):
    next_one = TunedEncoder(base=str(tuned["full"].folder), method="top", n_layers=1, **FAST)
    next_one.fit(preferences, tmp_path / "next")
    assert next_one.facts_["base_digest"] != tuned["full"].facts_["base_digest"]


def test_nothing_saved_is_a_pickle_or_names_this_machine(tuned):
    for one in tuned.values():
        suffixes = {path.suffix for path in one.folder.rglob("*") if path.is_file()}
        assert suffixes == {".json", ".safetensors"}
        assert not list(one.folder.parent.glob(".*"))
    settings = json.loads((tuned["lora"].adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == tuned["lora"].config.base


def test_peft_loads_the_adapter(tuned, base_folder):
    import torch
    from peft import PeftModel
    from transformers import AutoModel

    adapted = PeftModel.from_pretrained(AutoModel.from_pretrained(base_folder), tuned["lora"].adapter).eval()
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    with torch.no_grad():
        states = adapted(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.mean(dim=1)
    text = "name a the"
    want = tuned["lora"].encoder().encode([text], (2,))[2]
    np.testing.assert_allclose(states.numpy(), want, atol=1e-5)


def test_another_pooling_is_tuned_through_the_models_own_modules(base_folder, preferences, tmp_path):
    import shutil

    folder = tmp_path / "cls"
    shutil.copytree(base_folder, folder)
    settings = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    one = TunedEncoder(base=str(folder), **FAST).fit(preferences, tmp_path / "a")
    assert one.facts_["layer"] == "final"
    vectors = one.joint_encoder().encode(preferences.joint_texts(), ("final",))["final"]
    from safetensors.numpy import load_file

    weight = load_file(one.folder / "tuning_head.safetensors")["weight"][0]
    np.testing.assert_allclose(one.rewards(preferences), vectors @ weight, atol=1e-5)


def test_importing_loads_neither_torch_nor_peft():
    code = (
        "import sys; from embedrm import TunedEncoder, TuningConfig; from embedrm.tuning import AdapterSwitch; "
        "TunedEncoder(); "
        "loaded = [m for m in ('torch', 'peft', 'transformers') if m in sys.modules]; assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_heldout_data_are_judged_too(tuned):
    assert 0.0 <= tuned["full"].score(make_preferences(12)) <= 1.0


def test_saving_asks_nobody(base_folder, preferences, tmp_path, monkeypatch):
    import socket
    import warnings

    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("asked the network"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("asked the network"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        TunedEncoder(base=str(base_folder), **{**FAST, "epochs": 1}).fit(preferences, tmp_path / "a")
