"""The small language models: halves that share nothing, training to the bit, what is kept, and perplexity."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from embedrm.datasets.attribute_texts import write_attribute_texts
from embedrm.datasets.bundled import load_bundled, load_bundled_table
from embedrm.errors import InvalidInputError, ModelError
from embedrm.language_models import SmallLM, corpus, load_language_model, loading
from embedrm.language_models.corpus import Document, bundled_documents, corpus_digest, corpus_identity, half_of
from embedrm.language_models.training import document_ids, new_model, plan_epochs, train, train_tokenizer

TINY = SmallLM(
    layers=2, width=32, heads=2, vocabulary=300, positions=160, epochs=6, batch_tokens=256, learning_rate=0.01
)
DOCUMENTS = [
    Document("Say it.\n\n" if i % 3 == 0 else "", f"The {what} was {how}.", source, f"g{i}")
    for i, (what, how, source) in enumerate(
        (what, how, source)
        for what in ("film", "meal", "hotel")
        for how in ("good", "bad", "fine", "not so good")
        for source in ("attributes", "science")
    )
]


@pytest.fixture(scope="module", autouse=True)
def _one_torch_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Bundled models of a few documents, kept in a folder of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "bundled_documents", lambda half: DOCUMENTS[HALF[half]])
        patch.setattr(loading, "corpus_identity", lambda half: corpus_digest(DOCUMENTS[HALF[half]]))
        yield tmp_path_factory.mktemp("models")


HALF = {"A": slice(0, 16), "B": slice(8, 24)}


@pytest.fixture(scope="module")
def lm(few):
    return load_language_model("bundled", config=TINY, folder=few)


@pytest.fixture
def few_generated(monkeypatch):
    monkeypatch.setattr(corpus, "GENERATED_TEXTS", {"train": 60, "validation": 40})


@pytest.mark.usefixtures("few_generated")
class TestCorpus:
    def test_halves_share_no_group_and_no_test_text(self):
        found = {(h, s): bundled_documents(h, s) for h in "AB" for s in ("train", "validation")}
        groups = {key: {one.group for one in documents} for key, documents in found.items()}
        keys = list(groups)
        for i, a in enumerate(keys):
            for b in keys[i + 1 :]:
                assert not groups[a] & groups[b]
        table, prompts = load_bundled_table("attributes"), load_bundled().prompts
        unseen = {
            str(group)
            for frame in (table, prompts)
            for group in frame.loc[frame["split"].isin(["test", "heldout"]), "group"]
        }
        assert unseen
        assert not unseen & set().union(*groups.values())

    def test_every_response_once_and_every_prompt_before_its_best_answer(self):
        data = load_bundled().split("train").compact()
        ours = half_of(data.prompts["group"])[data.responses["prompt_of"].to_numpy()] == "A"
        domains = [one for one in bundled_documents("A") if one.source not in ("attributes", "attribute_texts")]
        assert sorted(one.text for one in domains) == sorted(np.array(data.response_texts(), dtype=object)[ours])
        first = [one for one in domains if one.prompt]
        assert len(first) == int((half_of(data.prompts["group"]) == "A").sum())
        golds, best = data.responses["gold"].to_numpy(), {}
        top = data.responses.groupby("prompt_of")["gold"].transform("max").to_numpy()
        before, texts, domains = data.prompt_texts(), data.response_texts(), data.prompts["domain"].to_numpy()
        for row, prompt in enumerate(data.responses["prompt_of"]):
            if golds[row] == top[row]:
                best.setdefault((domains[prompt], before[prompt] + "\n\n"), set()).add(texts[row])
        assert all(one.text in best[one.source, one.prompt] for one in first)

    def test_both_halves_have_reviews(self):
        for half in "AB":
            texts = [one.text for one in bundled_documents(half) if one.source == "attributes"]
            assert len(texts) > 400
            assert sum("film" in text for text in texts) >= 5

    def test_generated_texts_come_last_and_alone(self):
        documents = bundled_documents("B", "validation")
        texts = write_attribute_texts(40, half="B", split="validation")
        assert documents[-40:] == [Document("", t, "attribute_texts", g) for t, g in zip(texts["text"], texts["group"])]
        assert "attribute_texts" not in {one.source for one in documents[:-40]}

    def test_what_decides_the_documents(self, monkeypatch):
        told = corpus_identity("A")
        assert told == corpus_identity("A") != corpus_identity("B")
        monkeypatch.setattr(corpus, "GENERATED_TEXTS", {"train": 61, "validation": 40})
        assert corpus_identity("A")["generated"] == 61
        assert told["written"] == corpus_digest(
            [one for one in bundled_documents("A") if one.source != "attribute_texts"]
        )
        monkeypatch.setattr("embedrm.datasets.attribute_texts.grammar_digest", lambda: "another")
        assert corpus_identity("A")["grammar"] == "another" != told["grammar"]

    def test_a_group_has_one_half_for_ever(self):
        groups = ["attributes/review-film-1", "attributes/review-film-2", "a", "b", "c"]
        assert half_of(groups).tolist() == ["A", "B", "A", "A", "B"]
        assert half_of([]).tolist() == []

    def test_unknown_halves_and_splits(self):
        with pytest.raises(InvalidInputError, match="half"):
            bundled_documents("C")
        with pytest.raises(InvalidInputError, match="split"):
            bundled_documents("A", "test")

    def test_digests_see_every_document(self):
        digest = corpus_digest(DOCUMENTS)
        assert digest == corpus_digest(list(DOCUMENTS))
        assert digest != corpus_digest(DOCUMENTS[::-1])
        assert digest != corpus_digest(DOCUMENTS[1:])


class TestTraining:
    def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(self):
        import torch

        state = torch.get_rng_state()
        config = dataclasses.replace(TINY, epochs=2)
        models = [train(DOCUMENTS, one)[0] for one in (config, config, dataclasses.replace(config, random_state=1))]
        a, b, c = ({name: p.numpy().tobytes() for name, p in m.named_parameters()} for m in models)
        assert a == b
        assert all(a[name] != c[name] for name in a)
        assert torch.equal(torch.get_rng_state(), state)

    def test_it_learns(self):
        import torch

        config = dataclasses.replace(TINY, epochs=30, dropout=0.0)
        model, tokenizer = train(DOCUMENTS, config)
        row = torch.tensor([document_ids([Document("", "The film was good.", "x", "g")], tokenizer, 160)[0]])
        with torch.inference_mode():
            told = model(row).logits[0, :-1].log_softmax(dim=-1)
        assert -float(told.gather(1, row[0, 1:, None]).mean()) < 1.0
        assert type(model.lm_head).forward is torch.nn.Linear.forward
        assert "forward" not in vars(model.lm_head)

    def test_the_loss_is_that_of_every_token_after_bos(self, monkeypatch):
        """One step, recomputed by transformers' own loss on each row alone."""
        import torch

        config = dataclasses.replace(TINY, epochs=1, batch_tokens=10**6, attribute_repeats=1, dropout=0.0)
        seen = []
        cross_entropy = torch.nn.functional.cross_entropy
        monkeypatch.setattr(
            torch.nn.functional,
            "cross_entropy",
            lambda a, b: seen.append(cross_entropy(a, b).item()) or cross_entropy(a, b),
        )
        train(DOCUMENTS[:5], config)
        monkeypatch.undo()
        tokenizer = train_tokenizer(DOCUMENTS[:5], config)
        model = new_model(config, len(tokenizer)).eval()
        total = n = 0
        for row in document_ids(DOCUMENTS[:5], tokenizer, 160):
            assert row[0] == tokenizer.bos_token_id
            assert row[-1] == tokenizer.eos_token_id
            ids = torch.tensor([row])
            with torch.inference_mode():
                total += float(model(ids, labels=ids).loss) * (len(row) - 1)
            n += len(row) - 1
        assert seen == [pytest.approx(total / n, rel=1e-4)]

    def test_dropout_is_of_training_alone(self):
        import torch

        plain, dropped = (train(DOCUMENTS, dataclasses.replace(TINY, dropout=share))[0] for share in (0.0, 0.3))
        assert not torch.equal(plain.lm_head.weight, dropped.lm_head.weight)
        ids = torch.tensor([[0, 5, 6]])
        with torch.inference_mode():
            assert torch.equal(dropped(ids).logits, dropped(ids).logits)
            dropped.train()
            assert torch.equal(dropped(ids).logits, dropped(ids).logits)

    def test_every_text_is_read_as_often_as_asked(self):
        config = dataclasses.replace(TINY, epochs=3, batch_tokens=64)
        plan = plan_epochs([10, 20, 30, 5], [1, 4, 1, 2], config)
        counts = np.bincount([i for batch in plan for i in batch])
        assert counts.tolist() == [3, 12, 3, 6]
        assert plan == plan_epochs([10, 20, 30, 5], [1, 4, 1, 2], config)

    def test_any_text_can_be_written_and_read_back(self, lm):
        for text in ("The film was", " naïve 漢字 \n\t x", "", "<b>", "🙂"):
            assert lm.decode(lm.encode(text)) == text
        assert lm.bos_id not in lm.encode("The film")

    def test_bad_settings(self):
        for change, said in (
            ({"layers": 0}, "layers"),
            ({"width": 30}, "multiple of twice"),
            ({"vocabulary": 100}, "at least 258"),
            ({"learning_rate": 0.0}, "learning_rate"),
            ({"dropout": 1.0}, "dropout"),
            ({"random_state": -1}, "random_state"),
            ({"epochs": True}, "epochs"),
        ):
            with pytest.raises(InvalidInputError, match=said):
                train(DOCUMENTS, dataclasses.replace(TINY, **change))
        with pytest.raises(InvalidInputError, match="there are none"):
            train([], TINY)
        with pytest.raises(InvalidInputError, match="have more than 12 tokens"):
            train(DOCUMENTS, dataclasses.replace(TINY, positions=12))

    def test_a_loss_that_runs_away_is_told(self):
        with pytest.raises(ModelError, match="not finite at step"):
            train(DOCUMENTS, dataclasses.replace(TINY, learning_rate=1e30))


class TestKept:
    def test_it_is_trained_once(self, lm, few, monkeypatch):
        monkeypatch.setattr(loading, "train", lambda *given, **more: pytest.fail("trained anew"))
        again = load_language_model("bundled", config=TINY, folder=few)
        assert again.fingerprint() == lm.fingerprint()
        assert "half A" in again.describe()
        assert again.n_parameters == sum(p.numel() for p in lm.model.parameters())

    def test_training_again_elsewhere_gives_the_same_model(self, lm, few, tmp_path):
        other = load_language_model("bundled", config=TINY, folder=tmp_path)
        assert other.fingerprint() == lm.fingerprint()
        assert other.files.weights_digest() == lm.files.weights_digest()

    def test_the_judge_and_other_settings_are_others(self, lm, few):
        judge = load_language_model("bundled:judge", config=TINY, folder=few)
        other = load_language_model("bundled", config=dataclasses.replace(TINY, epochs=1), folder=few)
        assert len({judge.fingerprint(), other.fingerprint(), lm.fingerprint()}) == 3
        assert "half B" in judge.describe()

    def test_the_default_place_and_seeds(self, few, tmp_path, monkeypatch):
        monkeypatch.setenv("EMBEDRM_HOME", str(tmp_path))
        seen = []
        monkeypatch.setattr(loading, "train", lambda documents, config, **more: seen.append(config) or _stop())
        for name in ("bundled", "bundled:judge"):
            with pytest.raises(KeyboardInterrupt):
                load_language_model(name)
        assert [config.random_state for config in seen] == [0, 1]
        assert list((tmp_path / "language_models").iterdir()) == []

    @pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
    def test_a_killed_training_leaves_no_model(self, tmp_path):
        code = f"""
            import dataclasses, os, signal
            from embedrm.language_models import SmallLM, loading
            from embedrm.language_models.corpus import Document
            loading.bundled_documents = lambda half: [Document("", "A text.", "x", "g")]
            loading.corpus_identity = lambda half: "x"
            write = loading.write_json
            loading.write_json = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
            loading.bundled_model("bundled", config=SmallLM(**{TINY.to_dict()!r}), folder={str(tmp_path)!r})
        """
        run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, check=False)
        assert run.returncode == -signal.SIGKILL, run.stderr
        left = [path.name for path in tmp_path.iterdir()]
        assert len(left) == 1
        assert left[0].startswith(".tmp-")

    def test_a_folder_is_a_model_too_and_needs_no_training(self, lm):
        again = load_language_model(lm.files.folder, max_length=20)
        assert again.fingerprint() == lm.fingerprint()
        assert again.max_length == 20
        assert "not trained here" in again.describe()
        facts = json.loads((lm.files.folder / "language_model.json").read_text())
        assert str(lm.files.folder.parent) not in json.dumps(facts)

    def test_names_and_options_that_are_none(self, few):
        for name, options, said in (
            ("bundled:jugde", {}, "Did you mean 'bundled:judge'"),
            ("", {}, "named by"),
            (3, {}, "named by"),
            ("bundled", {"revision": "x"}, "unknown option"),
            ("gpt2", {"config": TINY}, "unknown option"),
            ("bundled", {"max_length": 1}, "from 2"),
            ("bundled", {"config": {}}, "must be a SmallLM"),
        ):
            with pytest.raises(InvalidInputError, match=said):
                load_language_model(name, **options)
        with pytest.raises(ModelError, match="no weights found"):
            load_language_model("no-such/model", offline=True)

    def test_it_generates(self, lm):
        import torch

        ids = torch.tensor([[lm.bos_id, *lm.encode("The film")]])
        out = lm.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
        assert lm.decode(out[0].tolist()).startswith("The film")


class TestPerplexity:
    def by_hand(self, lm, prompt, text):
        """-log p of each token of the text, from a pass for every prefix."""
        import torch

        ids = [lm.bos_id, *lm.encode(prompt)]
        told = []
        for token in lm.encode(text):
            with torch.inference_mode():
                told.append(-float(lm.model(torch.tensor([ids])).logits[0, -1].log_softmax(dim=-1)[token]))
            ids.append(token)
        return told

    def test_it_is_the_mean_over_the_texts_tokens(self, lm):
        texts = ["The film was good.", "x", "The meal was not so bad, was it?"]
        found = lm.perplexity(texts)
        for i, text in enumerate(texts):
            told = self.by_hand(lm, "", text)
            assert found.tokens[i] == len(told)
            assert found.nll[i] == pytest.approx(np.mean(told), rel=1e-4)
        every = [one for text in texts for one in self.by_hand(lm, "", text)]
        assert found.total == pytest.approx(math.exp(np.mean(every)), rel=1e-4)
        assert found.bits_per_character == pytest.approx(sum(every) / math.log(2) / sum(map(len, texts)), rel=1e-4)

    def test_prompts_are_read_and_not_judged(self, lm):
        texts, prompts = [" was good.", " was bad.", " was bad."], ["The film", "The hotel", ""]
        found = lm.perplexity(texts, prompts)
        for i in range(3):
            told = self.by_hand(lm, prompts[i], texts[i])
            assert found.tokens[i] == len(told)
            assert found.nll[i] == pytest.approx(np.mean(told), rel=1e-4)
        assert found.nll[1] != pytest.approx(found.nll[2], rel=1e-3)

    def test_texts_without_a_token_count_nothing(self, lm):
        found = lm.perplexity(["", "The film"])
        assert math.isnan(found.nll[0])
        assert found.tokens[0] == 0
        assert found.total == pytest.approx(lm.perplexity(["The film"]).total, rel=1e-5)
        assert math.isnan(lm.perplexity([]).total)

    def test_what_is_refused(self, lm):
        with pytest.raises(InvalidInputError, match="one prompt for each text; got 1 for 2"):
            lm.perplexity(["a", "b"], ["c"])
        with pytest.raises(InvalidInputError, match="more than the 160 tokens"):
            lm.perplexity(["x y " * 100])


def _stop():
    raise KeyboardInterrupt
