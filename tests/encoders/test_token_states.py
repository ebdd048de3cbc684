"""Token states: what a row means, slices, and what is kept on disk whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from causal_models import make_causal

from embedrm.encoders.token_states import TokenStates
from embedrm.errors import InvalidInputError, ModelError, StoreError
from embedrm.language_models import load_language_model
from embedrm.language_models.model import LanguageModel

TEXTS = ["The film was good.", "", "No!", "naïve", "The film was bad."]


@pytest.fixture(scope="module", autouse=True)
def _thread(one_thread):
    pass


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def lm(request, tmp_path_factory):
    return load_language_model(str(make_causal(tmp_path_factory.mktemp("lm") / "model", request.param)))


@pytest.fixture(scope="module")
def states(lm):
    return lm.token_states(TEXTS, store_dir=False)


def planted(n_texts=4, seed=0):
    """States that say which text and which position they are of."""
    lengths = np.random.default_rng(seed).integers(1, 5, n_texts)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    of = np.repeat(np.arange(n_texts), lengths)
    at = np.arange(offsets[-1]) - offsets[of]
    return TokenStates(np.stack([of, at], axis=1).astype(np.float32), at.astype(np.int32), offsets, "m", 9)


class TestMeaning:
    def test_rows_are_the_last_hidden_states_of_the_text_after_bos(self, lm, states):
        import torch

        assert len(states) == len(TEXTS)
        for i, text in enumerate(TEXTS):
            ids = [lm.bos_id, *lm.encode(text)]
            with torch.inference_mode():
                want = lm.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0].numpy()
            rows, found = states.text(i)
            assert found.tolist() == ids
            np.testing.assert_allclose(rows, want, atol=2e-5)

    def test_one_text_alone_has_exactly_the_states_of_the_model(self, lm):
        import torch

        found = lm.token_states([TEXTS[0]], store_dir=False)
        ids = torch.tensor([[lm.bos_id, *lm.encode(TEXTS[0])]])
        with torch.inference_mode():
            want = lm.model(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states[-1][0]
        np.testing.assert_array_equal(found.states, want.numpy())

    def test_row_t_is_what_the_next_token_is_predicted_from(self, lm, states):
        """Row t times the output embeddings are the logits of x_{t+1}, from the model that has read x_1 to x_t alone."""
        import torch

        rows, ids = states.text(0)
        for t in (0, 1, 7, len(ids) - 1):
            with torch.inference_mode():
                want = lm.model(torch.tensor([ids[: t + 1].tolist()])).logits[0, -1].numpy()
            np.testing.assert_allclose(rows[t] @ lm.output_embeddings().T, want, atol=1e-4)
        assert lm.output_embeddings().shape == (lm.vocab_size, lm.dim)

    def test_a_planted_rule_is_found_at_the_right_place(self, tmp_path):
        """A model that always repeats its last token: row t gives the largest logit to the token in ids[t]."""
        import torch
        from safetensors.torch import load_file, save_file

        folder = make_causal(tmp_path / "model")
        arrays = load_file(folder / "model.safetensors")
        for name, array in arrays.items():
            # the blocks add nothing, so that a state is its own token's embedding
            if (".h." in name and "ln_" not in name) or name.endswith("wpe.weight"):
                array.zero_()
            if name.endswith("wte.weight"):
                array.copy_(torch.nn.functional.normalize(array - array.mean(dim=1, keepdim=True), dim=1))
        save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
        lm = load_language_model(str(folder))
        found = lm.token_states(["abcab"], store_dir=False)
        said = (found.states @ lm.output_embeddings().T).argmax(axis=1)
        np.testing.assert_array_equal(said, found.ids)
        assert found.ids.tolist() == [lm.bos_id, *lm.encode("abcab")]

    def test_an_empty_text_is_its_bos_row(self, lm, states):
        rows, ids = states.text(1)
        assert rows.shape == (1, lm.dim)
        assert ids.tolist() == [lm.bos_id]
        assert states.lengths[1] == 0
        np.testing.assert_allclose(rows[0], states.text(0)[0][0], atol=2e-5)

    def test_no_texts_are_no_states(self, lm, tmp_path):
        for place in (False, tmp_path):
            found = lm.token_states([], store_dir=place)
            assert len(found) == 0
            assert found.states.shape == (0, lm.dim)

    def test_too_long_is_refused_or_told(self, lm):
        with pytest.raises(InvalidInputError, match=r"1 of 2 texts have more than the 64 tokens .* text 1 with 101"):
            lm.token_states(["a", "x" * 100], store_dir=False)
        found = lm.token_states(["a", "x" * 100], store_dir=False, truncation="head")
        assert found.info == {"texts_cut": 1, "tokens_cut": 37}
        assert found.lengths.tolist() == [1, 63]

    def test_what_is_no_text_is_refused(self, lm):
        for wrong, said in (("text", "put it in a list"), ([1], "text 0 is int"), (["\ud800"], "surrogate")):
            with pytest.raises(InvalidInputError, match="(?i)" + said):
                lm.token_states(wrong, store_dir=False)
        with pytest.raises(InvalidInputError, match="dtype"):
            lm.token_states(["a"], store_dir=False, dtype="bfloat16")
        with pytest.raises(InvalidInputError, match="truncation"):
            lm.token_states(["a"], store_dir=False, truncation="tail")


class TestSlices:
    def test_last_rows_and_texts_of_rows(self):
        found = planted()
        assert found.states[found.last_rows(), 1].tolist() == found.lengths.tolist()
        np.testing.assert_array_equal(found.text_of(), found.states[:, 0])

    @pytest.mark.parametrize("rows", [[2, 0], [1, 1, 3], slice(1, 3), [False, True, False, True], [-1], []])
    def test_a_subset_has_the_texts_asked_for(self, rows):
        found = planted()
        part = found.subset(rows)
        chosen = np.arange(4)[np.array(rows, dtype=bool) if rows and isinstance(rows[0], bool) else rows or []] \
            if not isinstance(rows, slice) else np.arange(4)[rows]  # fmt: skip
        assert len(part) == len(chosen)
        for i, text in enumerate(chosen):
            np.testing.assert_array_equal(part.text(i)[0], found.text(int(text))[0])
            np.testing.assert_array_equal(part.text(i)[1], found.text(int(text))[1])

    def test_a_slice_copies_nothing(self):
        found = planted()
        assert np.shares_memory(found.subset(slice(1, 3)).states, found.states)

    def test_texts_that_are_not_there(self):
        found = planted()
        for wrong in ([4], [0.5], [[0]]):
            with pytest.raises(InvalidInputError, match="from 0 to 3"):
                found.subset(wrong)
        with pytest.raises(InvalidInputError, match="no text 4"):
            found.text(4)

    def test_fingerprints_see_every_part(self):
        found = planted()
        states = found.states.copy()
        states[-1, 0] += 1
        others = [
            TokenStates(states, found.ids, found.offsets, "m", 9),
            TokenStates(found.states, found.ids + np.int32(1), found.offsets, "m", 9),
            TokenStates(found.states, found.ids, found.offsets, "n", 9),
            TokenStates(found.states.astype(np.float16), found.ids, found.offsets, "m", 9),
            planted(seed=1),
        ]
        assert len({found.fingerprint(), *(one.fingerprint() for one in others)}) == 6
        assert planted().fingerprint() == found.fingerprint()

    def test_parts_that_do_not_fit(self):
        good = planted()
        n = len(good.states)
        for change, said in (
            ({"states": good.states.astype(np.float64)}, "float32 or float16"),
            ({"ids": good.ids[1:]}, rf"ids must be \({n},\)"),
            ({"offsets": good.offsets[:-1]}, "must end with the number of states"),
            ({"offsets": np.array([0, 0, n])}, "at least its BOS row"),
        ):
            parts = {"states": good.states, "ids": good.ids, "offsets": good.offsets, **change}
            with pytest.raises(InvalidInputError, match=said):
                TokenStates(**parts, model="m", vocab_size=9)


class TestDisk:
    def test_what_is_kept_is_mapped_and_the_same(self, lm, states, tmp_path):
        kept = lm.token_states(TEXTS, store_dir=tmp_path)
        assert isinstance(kept.states, np.memmap)
        assert not kept.states.flags.writeable
        np.testing.assert_array_equal(kept.states, states.states)
        assert kept.fingerprint() == states.fingerprint()
        assert kept.model == lm.fingerprint()

    def test_a_second_time_nothing_is_computed(self, lm, tmp_path, monkeypatch):
        first = lm.token_states(TEXTS, store_dir=tmp_path).states.copy()
        monkeypatch.setattr(LanguageModel, "state_batches", lambda *given: pytest.fail("computed anew"))
        monkeypatch.setattr(LanguageModel, "read", lambda *given: pytest.fail("tokenised anew"))
        again = load_language_model(str(lm.files.folder))
        seen = []
        np.testing.assert_array_equal(
            again.token_states(TEXTS, store_dir=tmp_path, progress=lambda label: seen.append).states, first
        )
        assert not seen
        assert again._backbone is None

    def test_other_texts_models_and_settings_are_kept_apart(self, lm, tmp_path):
        lm.token_states(TEXTS, store_dir=tmp_path)
        lm.token_states(TEXTS[::-1], store_dir=tmp_path)
        for texts in (["ab", "c"], ["a", "bc"], ["abc", ""]):
            lm.token_states(texts, store_dir=tmp_path)
        lm.token_states(TEXTS, store_dir=tmp_path, dtype="float16")
        load_language_model(str(lm.files.folder), max_length=32).token_states(TEXTS, store_dir=tmp_path)
        other = make_causal(tmp_path / "other" / "model", layers=2)
        load_language_model(str(other)).token_states(TEXTS, store_dir=tmp_path)
        assert len([path for path in tmp_path.iterdir() if path.name != "other"]) == 8

    def test_the_default_place(self, lm, tmp_path, monkeypatch):
        monkeypatch.setenv("EMBEDRM_HOME", str(tmp_path))
        lm.token_states(["a"])
        assert [path.name for path in tmp_path.iterdir()] == ["token_states"]

    def test_float16_tells_its_error(self, lm, states, tmp_path):
        for place in (False, tmp_path):
            half = lm.token_states(TEXTS, store_dir=place, dtype="float16")
            np.testing.assert_array_equal(half.states, states.states.astype(np.float16))
            lost = states.states.astype(np.float64) - half.states
            scale = np.sqrt((states.states.astype(np.float64) ** 2).mean())
            assert half.info["rounding"]["largest"] == pytest.approx(np.abs(lost).max() / scale, rel=1e-4)
            assert half.info["rounding"]["rms"] == pytest.approx(np.sqrt((lost**2).mean()) / scale, rel=1e-4)
            assert half.info["rounding"]["rms"] < 1e-3

    def test_float16_is_refused_where_it_overflows(self, lm, monkeypatch):
        batches = LanguageModel.state_batches
        monkeypatch.setattr(
            LanguageModel,
            "state_batches",
            lambda self, rows: ((b, [one * np.float32(1e6) for one in s]) for b, s in batches(self, rows)),
        )
        with pytest.raises(ModelError, match="beyond the range of float16"):
            lm.token_states(["a"], store_dir=False, dtype="float16")

    def test_a_failure_leaves_nothing(self, lm, tmp_path, monkeypatch):
        def fail(self, rows):
            yield [0], [np.zeros((len(rows[0]), self.dim), np.float32)]
            raise RuntimeError("stopped")

        monkeypatch.setattr(LanguageModel, "state_batches", fail)
        with pytest.raises(RuntimeError, match="stopped"):
            lm.token_states(TEXTS, store_dir=tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_damage_is_told(self, lm, tmp_path):
        lm.token_states(TEXTS, store_dir=tmp_path)
        (place,) = tmp_path.iterdir()
        with (place / "states.npy").open("r+b") as file:
            file.truncate(200)
        with pytest.raises(StoreError, match=r"cannot be used.*Remove that folder"):
            lm.token_states(TEXTS, store_dir=tmp_path)

    @pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
    def test_a_killed_process_leaves_no_states(self, lm, tmp_path):
        code = f"""
            import os, signal
            from embedrm.language_models import load_language_model
            from embedrm.language_models.model import LanguageModel
            batches = LanguageModel.state_batches
            def killed(self, rows):
                for done in batches(self, rows):
                    yield done
                    os.kill(os.getpid(), signal.SIGKILL)
            LanguageModel.state_batches = killed
            load_language_model({str(lm.files.folder)!r}).token_states({TEXTS!r}, store_dir={str(tmp_path)!r})
        """
        run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, check=False)
        assert run.returncode == -signal.SIGKILL, run.stderr
        assert all(path.name.startswith(".tmp-") for path in tmp_path.iterdir())
        kept = lm.token_states(TEXTS, store_dir=tmp_path)
        np.testing.assert_array_equal(kept.states, lm.token_states(TEXTS, store_dir=False).states)
