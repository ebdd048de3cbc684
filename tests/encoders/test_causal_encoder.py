"""Causal encoders: last tokens by length, means, hidden layers, truncation told, beginnings read once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from causal_models import make_causal
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from embedrm.datasets import PreferenceDataset
from embedrm.encoders import CausalEncoder, encoder_from_spec, load_encoder
from embedrm.encoders.causal_prefixes import shared_prefixes
from embedrm.encoding import encode
from embedrm.errors import InvalidInputError, ModelError
from embedrm.store import EmbeddingStore

TEXTS = ["The film was good.", "a", "", "No, never again!", "The film was", "naïve 漢", "The film was bad, I think."]
PROMPTS = ["How do I bake a loaf of bread?", "Say hello in as few words as you can."]


@pytest.fixture(scope="module", autouse=True)
def _thread(one_thread):
    pass


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return make_causal(tmp_path_factory.mktemp("gpt2") / "model")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make_causal(tmp_path_factory.mktemp("llama") / "model", "llama")


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def folder(request):
    return request.getfixturevalue(request.param)


def reference(folder: Path, text: str, *, bos: bool = True):
    """All hidden states of one text, alone and without padding, by transformers itself: (layers, tokens, dim)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = [*([0] if bos else []), *AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False).input_ids]
    with torch.inference_mode():
        return np.stack([s[0].numpy() for s in model(torch.tensor([ids]), output_hidden_states=True).hidden_states])


class TestVectors:
    def test_last_token_of_every_layer_is_what_transformers_gives_for_the_text_alone(self, folder):
        found = CausalEncoder(str(folder)).encode(TEXTS, layers=(0, 1, 2, 3, "final"))
        for i, text in enumerate(TEXTS):
            want = reference(folder, text)[:, -1]
            for layer in range(4):
                np.testing.assert_allclose(found[layer][i], want[layer], atol=2e-5)
            np.testing.assert_allclose(found["final"][i], want[3], atol=2e-5)

    def test_mean_is_over_the_text_and_not_over_what_stands_before_it(self, folder):
        found = CausalEncoder(str(folder), pooling="mean").encode(TEXTS, layers=(2, 3))
        for i, text in enumerate(TEXTS):
            states = reference(folder, text)
            want = states[:, 1:].mean(axis=1) if text else states[:, 0]
            np.testing.assert_allclose(found[2][i], want[2], atol=2e-5)
            np.testing.assert_allclose(found[3][i], want[3], atol=2e-5)

    def test_a_text_does_not_depend_on_its_neighbours(self, folder):
        encoder = CausalEncoder(str(folder))
        together = encoder.encode(TEXTS, layers=(1, 3))
        for i, text in enumerate(TEXTS):
            alone = encoder.encode([text], layers=(1, 3))
            for layer in (1, 3):
                np.testing.assert_allclose(together[layer][i], alone[layer][0], atol=2e-5)

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_the_tokenizers_padding_side_is_irrelevant(self, gpt2, tmp_path, side):
        other = make_causal(tmp_path / "model", side=side)
        assert json.loads((other / "tokenizer_config.json").read_text())["padding_side"] == side
        want = CausalEncoder(str(gpt2)).encode(TEXTS, layers=("final",))["final"]
        np.testing.assert_array_equal(CausalEncoder(str(other)).encode(TEXTS, layers=("final",))["final"], want)

    def test_batches_of_every_size_give_the_same(self, gpt2):
        want = CausalEncoder(str(gpt2)).encode(TEXTS)
        for tokens in (1, 20, 60):
            got = CausalEncoder(str(gpt2), batch_tokens=tokens).encode(TEXTS)
            for layer in want:
                np.testing.assert_allclose(got[layer], want[layer], atol=2e-5)

    def test_the_same_call_gives_the_same_bytes(self, gpt2):
        a, b = (CausalEncoder(str(gpt2)).encode(TEXTS, layers=(2,))[2] for _ in range(2))
        assert a.tobytes() == b.tobytes()
        assert a.dtype == np.float32
        assert a.flags.c_contiguous

    def test_half_precision_files_are_run_in_float32(self, gpt2, tmp_path):
        folder = make_causal(tmp_path / "model")
        arrays = {name: array.astype(np.float16) for name, array in load_file(folder / "model.safetensors").items()}
        save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
        vector = CausalEncoder(str(folder)).encode(["The film was good."], layers=("final",))["final"]
        assert vector.dtype == np.float32
        assert not np.array_equal(vector, vector.astype(np.float16).astype(np.float32))

    def test_progress_counts_every_text_once(self, gpt2):
        seen = []
        CausalEncoder(str(gpt2), batch_tokens=30).encode(
            TEXTS * 3, progress=lambda done, total: seen.append((done, total))
        )
        assert seen[-1] == (21, 21)
        assert [d for d, _ in seen] == sorted({d for d, _ in seen})


class TestBeginnings:
    def test_bos_is_put_before_a_text_unless_the_tokenizer_does_so(self, gpt2, tmp_path):
        own = make_causal(tmp_path / "own", adds_bos=True)
        plain, twice = CausalEncoder(str(gpt2)), CausalEncoder(str(own))
        np.testing.assert_array_equal(plain.count_tokens(TEXTS)[0], twice.count_tokens(TEXTS)[0])
        np.testing.assert_array_equal(plain.encode(TEXTS)[3], twice.encode(TEXTS)[3])

    def test_without_bos_the_end_of_a_text_stands_in(self, gpt2, tmp_path):
        other = make_causal(tmp_path / "model", bos=False)
        tokens, _ = CausalEncoder(str(other)).count_tokens(["abc"])
        assert tokens.tolist() == [4]
        assert CausalEncoder(str(other)).effective_digests(["a"]) != CausalEncoder(str(gpt2)).effective_digests(["a"])

    def test_it_can_be_left_out(self, gpt2):
        encoder = CausalEncoder(str(gpt2), bos=False)
        np.testing.assert_allclose(
            encoder.encode(["No!"], layers=(3,))[3][0], reference(gpt2, "No!", bos=False)[3, -1], atol=2e-5
        )
        assert encoder.fingerprint_digest() != CausalEncoder(str(gpt2)).fingerprint_digest()
        with pytest.raises(InvalidInputError, match="text 1 has no token"):
            encoder.encode(["a", ""])


class TestSharing:
    def joint(self):
        return [
            f"{prompt}\n\n{answer}" for prompt in PROMPTS for answer in ("Yes.", "No, not at all!", "Yes. No", "Hm")
        ]

    @pytest.mark.parametrize("pooling", ["last", "mean"])
    def test_sharing_equals_whole_texts(self, folder, pooling):
        texts = [*self.joint(), "alone", "", PROMPTS[0], self.joint()[0]]
        layers = (0, 1, 2, 3, "final")
        shared = CausalEncoder(str(folder), pooling=pooling)
        whole = CausalEncoder(str(folder), pooling=pooling, share_prefixes=False)
        assert shared.shares_prefixes
        assert not whole.shares_prefixes
        got, want = shared.encode(texts, layers), whole.encode(texts, layers)
        for layer in layers:
            np.testing.assert_allclose(got[layer], want[layer], atol=1e-4 * np.abs(want[layer]).max())

    def test_sharing_up_to_the_last_position(self, folder):
        """Long answers after a short beginning, in one batch with short answers after a long one."""
        texts = ["x" * 10 + "y" * 53, "x" * 10 + "z" * 53, "w" * 60 + "abc", "w" * 60 + "d"]
        got, want = (CausalEncoder(str(folder), share_prefixes=share).encode(texts, (3,))[3] for share in (True, False))
        np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())

    def test_a_prompt_is_read_once(self, gpt2, monkeypatch):
        read = []
        encoder = CausalEncoder(str(gpt2))
        backbone = encoder._load().backbone
        run = backbone.run
        monkeypatch.setattr(
            backbone, "run", lambda ids, mask, **more: read.append(int(mask.sum())) or run(ids, mask, **more)
        )
        texts = self.joint()
        encoder.encode(texts, layers=("final",))
        tokens, _ = encoder.count_tokens(texts)
        prompts = [len(prompt) + 1 for prompt in PROMPTS]
        assert sum(read) <= int(tokens.sum()) - 3 * sum(prompts)

    def test_texts_that_begin_differently_are_read_whole(self, gpt2, monkeypatch):
        encoder = CausalEncoder(str(gpt2))
        pooler = encoder._load()
        monkeypatch.setattr(pooler, "shared", lambda *given: pytest.fail("nothing is shared here"))
        encoder.encode(["one thing", "another thing", "a third"])

    def test_it_is_part_of_no_fingerprint(self, gpt2):
        a, b = (CausalEncoder(str(gpt2), share_prefixes=share) for share in (True, False))
        assert a.fingerprint() == b.fingerprint()

    def test_a_model_that_looks_back_over_a_window_reads_whole_texts(self, tmp_path):
        folder = make_causal(tmp_path / "model", "llama")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "sliding_window": 8}))
        assert not CausalEncoder(str(folder)).shares_prefixes

    def test_a_model_for_which_the_trial_fails_reads_whole_texts(self, gpt2, monkeypatch):
        encoder = CausalEncoder(str(gpt2))
        backbone = encoder._load().backbone
        monkeypatch.setattr(backbone, "select", lambda past, rows: type(backbone).select(past, [0] * len(rows)))
        assert not backbone.can_share()

    ids = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=0, max_size=6)

    @settings(max_examples=100, deadline=None)
    @given(ids)
    def test_groups_share_what_they_say_and_save_the_most(self, texts):
        groups = shared_prefixes(texts, least=2)
        rows = [row for group in groups for row in group.rows]
        assert len(rows) == len(set(rows))
        for group in groups:
            starts = {tuple(texts[row][: group.length]) for row in group.rows}
            assert len(starts) == 1
            assert group.length >= 2
            assert len(group.rows) > 1
            assert all(len(texts[row]) > group.length for row in group.rows)
        assert sum(g.length * (len(g.rows) - 1) for g in groups) == self.most(texts)

    def most(self, texts):
        """The best partition of the texts into groups, by trying every one."""
        if not texts:
            return 0
        first, rest = texts[0], texts[1:]
        best = 0
        for chosen in range(2 ** len(rest)):
            others = [text for i, text in enumerate(rest) if not chosen >> i & 1]
            part = [first, *(text for i, text in enumerate(rest) if chosen >> i & 1)]
            n = min(map(len, part)) - 1
            while n > 0 and len({tuple(text[:n]) for text in part}) > 1:
                n -= 1
            if len(part) == 1 or n >= 2:
                best = max(best, n * (len(part) - 1) + self.most(others))
        return best

    def test_texts_join_around_a_deeper_group(self):
        texts = [[1, 1, 0], [1, 1, 2, 3, 4, 0], [1, 1, 2, 3, 4, 1], [1, 1, 3]]
        groups = shared_prefixes(texts, least=2)
        assert [(g.length, sorted(g.rows)) for g in groups] == [(2, [0, 3]), (5, [1, 2])]


class TestTruncation:
    def test_it_is_counted_and_the_last_token_read_is_pooled(self, gpt2):
        text = "x" * 30 + "y" * 70
        encoder = CausalEncoder(str(gpt2), max_length=21)
        tokens, cut = encoder.count_tokens([text, "short"])
        assert tokens.tolist() == [101, 6]
        assert cut.tolist() == [80, 0]
        assert "1 of 2 texts cut (head): 80 of 107 tokens beyond 21, longest 101" in str(
            encoder.truncation_report([text, "short"])
        )
        np.testing.assert_allclose(
            encoder.encode([text], layers=(3,))[3][0], reference(gpt2, "x" * 20)[3, -1], atol=2e-5
        )
        tail = CausalEncoder(str(gpt2), max_length=21, truncation="tail")
        np.testing.assert_allclose(tail.encode([text], layers=(3,))[3][0], reference(gpt2, "y" * 20)[3, -1], atol=2e-5)

    def test_texts_that_truncation_makes_equal_have_one_digest(self, gpt2):
        a, b, c = CausalEncoder(str(gpt2), max_length=6).effective_digests(["abcdeX", "abcdeYZ", "abcd"])
        assert a == b != c

    @pytest.mark.parametrize("policy", ["drop", "error"])
    def test_policies_that_never_shorten_refuse(self, gpt2, policy):
        with pytest.raises(InvalidInputError, match=r"1 of 2 texts have more \(longest 101; first: text 1"):
            CausalEncoder(str(gpt2), truncation=policy).encode(["a", "x" * 100])

    def test_the_models_own_limit_holds(self, gpt2):
        assert CausalEncoder(str(gpt2)).token_limit == 64
        with pytest.raises(InvalidInputError, match="more than the 64 positions"):
            CausalEncoder(str(gpt2), max_length=65).layers  # noqa: B018


class TestHouse:
    def test_store_and_views_and_covariates(self, gpt2, tmp_path):
        records = [
            {"prompt": prompt, "chosen": f"Yes, {i}.", "rejected": f"No {i}!"} for i in range(2) for prompt in PROMPTS
        ]
        data = PreferenceDataset.from_records(records)
        store = EmbeddingStore(tmp_path / "store")
        encoder = CausalEncoder(str(gpt2))
        found = encode(data, encoder, layers=(3,), sides=("joint", "prompt"), store=store)
        fresh = encode(data, CausalEncoder(str(gpt2), share_prefixes=False), layers=(3,), sides=("joint",), store=False)
        np.testing.assert_allclose(found.responses.views["joint:3"], fresh.responses.views["joint:3"], atol=1e-4)
        encoder._load().whole = encoder._load().shared = None  # type: ignore[method-assign,assignment]
        again = encode(data, encoder, layers=(3,), sides=("joint", "prompt"), store=store)
        np.testing.assert_array_equal(again.responses.views["joint:3"], found.responses.views["joint:3"])
        assert found.responses.info["encoder"]["kind"] == "causal"

    def test_names_specs_and_copies(self, gpt2):
        one = load_encoder(f"causal:{gpt2}", pooling="mean")
        assert isinstance(one, CausalEncoder)
        assert one.pooling == "mean"
        two = load_encoder("causal", model=str(gpt2), pooling="mean")
        assert one.fingerprint() == two.fingerprint() == encoder_from_spec(one.spec()).fingerprint()
        assert one.fingerprint_digest() != CausalEncoder(str(gpt2)).fingerprint_digest()
        assert one.layers == (0, 1, 2, 3, "final")
        assert one.default_layers == (1, 2, 3)
        assert one.dim(2) == 16
        copy = CausalEncoder(str(gpt2))
        copy.__setstate__(one.__getstate__())
        assert copy.get_params() == one.get_params()

    def test_the_command_line_takes_it(self, gpt2, tmp_path):
        (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "Why?", "chosen": "So.", "rejected": "No."}) + "\n")
        run = subprocess.run(
            [sys.executable, "-m", "embedrm", "encode", str(tmp_path / "pairs.jsonl"), "--encoder", "causal",
             "--encoder-option", f"model={gpt2}", "--encoder-option", "pooling=mean", "--side", "joint",
             "--store", str(tmp_path / "store"), "--json"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout)["encoder"]["pooling"] == "mean"

    def test_bad_options_are_refused(self, gpt2):
        for options, said in (
            ({"pooling": "first"}, "unknown pooling"),
            ({"bos": 1}, "bos must be True or False"),
            ({"max_length": 1}, "room for a token"),
            ({"truncation": "left"}, "truncation policy"),
        ):
            with pytest.raises(InvalidInputError, match=said):
                CausalEncoder(str(gpt2), **options).count_tokens(["a"])
        with pytest.raises(InvalidInputError, match="named twice"):
            load_encoder("causal:a", model="b")
        with pytest.raises(InvalidInputError, match="layer"):
            CausalEncoder(str(gpt2)).encode(["a"], layers=(4,))

    def test_a_model_that_looks_ahead_is_refused(self, tmp_path):
        folder = make_causal(tmp_path / "model", "bert")
        with pytest.raises(ModelError, match=r"states depend on later tokens.*'sentence'"):
            CausalEncoder(str(folder)).encode(["a"])

    def test_incomplete_weights_are_refused(self, tmp_path):
        folder = make_causal(tmp_path / "model")
        arrays = load_file(folder / "model.safetensors")
        name = next(name for name in arrays if name.endswith("ln_f.weight"))
        del arrays[name]
        save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match=r"incomplete: 1 of .*ln_f\.weight"):
            CausalEncoder(str(folder)).encode(["a"])

    def test_weights_that_overflow_are_told(self, tmp_path):
        folder = make_causal(tmp_path / "model")
        arrays = load_file(folder / "model.safetensors")
        name = next(name for name in arrays if name.endswith("wte.weight"))
        arrays[name][100:] = np.inf
        save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match="not finite"):
            CausalEncoder(str(folder)).encode([chr(200)])
