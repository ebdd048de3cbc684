"""embedrm generate: steered texts on stdout, the head kept, and clear answers to what cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

# fmt: off
WORDS = [
    "the", "a", "film", "was", "is", "good", "bad", "great", "awful", "dull", "lovely", "please", "thank", "you",
    "now", "and", "very", "not", "it", "room", "service", "food", "book", "could", "would", "open", "close",
    "window", "door", "kindly", "stop", "get", "out", "sorry",
]
# fmt: on


@pytest.fixture(scope="session")
def lm_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random GPT-2 with a vocabulary of words."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    vocab = {token: i for i, token in enumerate(["<bos>", "<eos>", "<unk>", *WORDS])}
    made = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", model_max_length=64
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=len(vocab), n_layer=2, n_embd=16, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=1,
            initializer_range=0.2,
        )  # fmt: skip
        model = GPT2LMHeadModel(config)
    folder = tmp_path_factory.mktemp("lm") / "tiny"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def heads(lm_folder: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Saved heads of the tiny model."""
    from embedrm.decoding.arm import ARMHead
    from embedrm.decoding.rad import RADHead
    from embedrm.language_models import load_language_model
    from embedrm.persistence import save_model

    lm = load_language_model(lm_folder)
    texts = ["the film was great", "a lovely film", "the film was awful", "a dull book", "good food", "bad service"]
    states = lm.token_states(texts, store_dir=False)
    labels = {"sentiment": [1, 1, 0, 0, 1, 0], "shortness": [0, 0.5, 0, 0.5, 1, 1]}
    root = tmp_path_factory.mktemp("heads")
    save_model(RADHead(l2=1e-2).fit(states, labels), root / "rad")
    save_model(ARMHead().fit(states, labels, embeddings=lm.output_embeddings()), root / "arm")
    save_model(ARMHead(keep_embeddings=False).fit(states, labels, embeddings=lm.output_embeddings()), root / "bare")
    return {name: str(root / name) for name in ("rad", "arm", "bare")}


def run(cli, lm_folder: str, *words: str):
    return cli("generate", "The film was", "--lm", lm_folder, "--max-new-tokens", "6", *words)


@pytest.mark.parametrize("method", ["arm", "rad"])
def test_texts_begin_with_the_prompt(cli, lm_folder, heads, method) -> None:
    outcome = run(cli, lm_folder, "--head", heads[method], "--n", "3")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0] == "The film was  (beta 5)"
    assert [line.split()[:4] for line in lines[1:]] == [[str(i), "The", "film", "was"] for i in (1, 2, 3)]
    assert "language model: the causal language model" in outcome.err
    assert f"{method.upper()}Processor with beta 5, reading the guided model's own states" in outcome.err


@pytest.mark.parametrize("method", ["arm", "rad"])
def test_compare_shows_what_beta_zero_alone_gives(cli, lm_folder, heads, method) -> None:
    both = run(cli, lm_folder, "--head", heads[method], "--compare", "--json", "--beta", "400").json()
    zero = run(cli, lm_folder, "--head", heads[method], "--json", "--beta", "0").json()
    assert [row["beta"] for row in both["texts"]] == [0.0] * 4 + [400.0] * 4
    assert both["texts"][:4] == zero["texts"]
    assert [r["text"] for r in both["texts"][:4]] != [r["text"] for r in both["texts"][4:]]
    assert (both["method"], both["weights"]) == (method, {"sentiment": 1.0})


def test_the_same_seed_gives_the_same_texts(cli, lm_folder, heads) -> None:
    texts = [run(cli, lm_folder, "--head", heads["arm"], "--seed", seed).out for seed in ("1", "1", "2")]
    assert texts[0] == texts[1] != texts[2]


def test_a_head_without_its_embeddings_gets_the_models(cli, lm_folder, heads) -> None:
    assert run(cli, lm_folder, "--head", heads["bare"]).out == run(cli, lm_folder, "--head", heads["arm"]).out


def test_words_and_weights(cli, lm_folder, heads) -> None:
    asked = [
        (["--attribute", "negative"], {"sentiment": -1.0}),
        (["--attribute", "shortness=2", "--attribute", "positive=0.5"], {"shortness": 2.0, "sentiment": 0.5}),
        (["--attribute", "sentiment=-3"], {"sentiment": -3.0}),
    ]
    for words, weights in asked:
        assert run(cli, lm_folder, "--head", heads["arm"], "--json", *words).json()["weights"] == weights
    up, down = (
        run(cli, lm_folder, "--head", heads["arm"], "--beta", beta, "--attribute", a).out.splitlines()[1:]
        for beta, a in (("-7", "positive"), ("7", "negative"))
    )
    assert up == down


def test_greedy_writes_one_text(cli, lm_folder, heads) -> None:
    outcome = run(cli, lm_folder, "--head", heads["arm"], "--greedy")
    assert "one is written for each prompt" in outcome.err
    assert len(outcome.out.splitlines()) == 2


class TestTheBundledHead:
    @pytest.fixture(autouse=True)
    def _few_texts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from embedrm.decoding import guidance_training

        table = guidance_training.training_texts()
        # both attributes, whole groups, hand-written and generated texts
        few = table[table["group"].isin([*table["group"].unique()[:12], *table["group"].unique()[-36:]])]
        assert len(few) == 72
        assert few["attribute"].nunique() == 2
        monkeypatch.setattr(guidance_training, "training_texts", lambda: few)

    def test_it_is_trained_once_and_kept(self, cli, lm_folder, home: Path) -> None:
        first = run(cli, lm_folder, "--attribute", "polite", "--attribute", "positive")
        assert first.code == 0, first.err
        assert "training the arm head on 72 bundled texts" in first.err
        kept = list((home / "prefix_heads").iterdir())
        assert len(kept) == 1
        again = run(cli, lm_folder, "--attribute", "polite", "--attribute", "positive")
        assert again.out == first.out
        assert "training" not in again.err
        assert list((home / "prefix_heads").iterdir()) == kept
        assert run(cli, lm_folder, "--method", "rad").code == 0
        assert len(list((home / "prefix_heads").iterdir())) == 2


def test_only_half_a_of_the_training_texts_is_learnt() -> None:
    from embedrm.datasets.bundled import load_bundled_table
    from embedrm.decoding.guidance_training import training_texts
    from embedrm.language_models.corpus import half_of

    a, b = training_texts(), training_texts("B")
    written = a["group"].isin(load_bundled_table("attributes")["group"])
    assert set(half_of(a["group"][written])) == {"A"}
    assert 0 < written.sum() < len(a)
    assert set(a["split"]) == set(b["split"]) == {"train"}
    assert not set(a["text"]) & set(b["text"])
    assert not set(a["group"]) & set(b["group"])


@pytest.mark.parametrize(
    "words, message",
    [
        (["--method", "ram"], "unknown method 'ram'. Did you mean"),
        (["--attribute", "postive"], "unknown attribute 'postive'. Did you mean 'positive'?"),
        (["--attribute", "polite"], "unknown attribute 'polite'"),
        (["--attribute", "positive=lots"], "NAME=WEIGHT with a number, got 'positive=lots'"),
        (["--attribute", "positive", "--attribute", "negative"], "names 'sentiment' twice"),
        (["--method", "rad"], "which is for arm; leave one out"),
        (["--top-p", "0"], r"top_p expects a number in (0, 1]"),
        (["--max-new-tokens", "80"], "the language model reads 64"),
        (["--beta", "nan"], "--beta expects a finite number"),
    ],
)
def test_refusals(cli, lm_folder, heads, words, message) -> None:
    outcome = run(cli, lm_folder, "--head", heads["arm"], *words)
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())
    assert outcome.out == ""


@pytest.mark.parametrize(
    "words, message",
    [
        (["--top-p", "1.5"], "top_p expects a number"),
        (["--beta", "inf"], "--beta expects a finite number"),
        (["--attribute", "cheerful"], "unknown attribute 'cheerful'"),
        (["--attribute", "polite=much"], "NAME=WEIGHT with a number"),
    ],
)
def test_what_needs_no_model_is_refused_before_one_is_trained(cli, monkeypatch, words, message) -> None:
    monkeypatch.setattr("embedrm.language_models.load_language_model", lambda *_, **__: pytest.fail("loaded"))
    outcome = cli("generate", "The film was", *words)
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())


def test_json_says_how_the_texts_were_drawn(cli, lm_folder, heads) -> None:
    found = run(
        cli, lm_folder, "--head", heads["arm"], "--json", "--top-p", "0.9", "--top-k", "7", "--seed", "3"
    ).json()
    assert (found["top_k"], found["top_p"], found["seed"], found["greedy"]) == (7, 0.9, 3, False)
    assert found["guidance"] == "ARMProcessor with beta 5, reading the guided model's own states"
    usual = run(cli, lm_folder, "--head", heads["arm"], "--json").json()
    assert (usual["top_k"], usual["top_p"]) == (20, None)


def test_a_head_of_another_model_and_no_head_at_all(cli, lm_folder, heads, models, tmp_path) -> None:
    outcome = run(cli, lm_folder, "--head", models["linear"])
    assert outcome.code == 2
    assert "rewards whole responses" in outcome.err
    other = tmp_path / "other"
    shutil.copytree(lm_folder, other)
    import torch
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(other)
    with torch.no_grad():
        model.transformer.wpe.weight[0] += 1.0
    model.save_pretrained(other)
    outcome = run(cli, str(other), "--head", heads["arm"])
    assert outcome.code == 2
    assert "fitted on states of the language model" in " ".join(outcome.err.split())
