"""A tiny random encoder, written with the real libraries, and preferences that it can learn."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from embedrm import PreferenceDataset

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
COLOURS = ["red", "green", "blue", "white", "black", "brown"]
GOOD, BAD = ["kind", "clear", "warm", "calm"], ["rude", "vague", "cold", "loud"]
WORDS = ["name", "a", "the", "is", "and", "very", "it", "shirt", "house", "?", ".", "##s", *COLOURS, *GOOD, *BAD]


def make_base(folder: Path, seed: int = 0) -> Path:
    """Write a sentence-transformers folder: BERT of 2 blocks, 32 wide, mean pooling, normalised, at most 32 tokens."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder.mkdir(parents=True)
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(
            BertConfig(
                vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=64, max_position_embeddings=64, initializer_range=0.2,
            )
        ).save_pretrained(folder)  # fmt: skip
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    ).save_pretrained(folder)  # fmt: skip
    modules = [("Pooling", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}), ("Normalize", {})]
    entries = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for i, (kind, settings) in enumerate(modules, start=1):
        (folder / f"{i}_{kind}").mkdir()
        (folder / f"{i}_{kind}" / "config.json").write_text(json.dumps(settings))
        entries.append(
            {"idx": i, "name": str(i), "path": f"{i}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        )
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32, "do_lower_case": False}))
    return folder


def make_preferences(n_prompts: int = 40, n_domains: int = 2) -> PreferenceDataset:
    """Answers with a good word are chosen in one domain and rejected in the other; three answers a prompt, two pairs."""
    prompts, responses, pairs = [], [], []
    for i in range(n_prompts):
        domain = i % n_domains
        thing = "shirt" if domain == 0 else "house"
        asked = f"name a {COLOURS[i % 6]} {COLOURS[i // 6 % 6]} {thing}" + ("?" if i // 36 % 2 else ".")
        prompts.append({"prompt": asked, "domain": thing})
        words = [GOOD[i % 4], BAD[i // 2 % 4], BAD[(i + 1) % 4]]
        for k, word in enumerate(words):
            responses.append({"response": f"it is {'very ' * k}{word}", "prompt_of": i})
        for k in (1, 2):
            order = (3 * i, 3 * i + k) if domain == 0 else (3 * i + k, 3 * i)
            pairs.append({"chosen": order[0], "rejected": order[1]})
    return PreferenceDataset(pd.DataFrame(prompts), pd.DataFrame(responses), pd.DataFrame(pairs), name="colours")


TEXTS = [
    "name a red shirt.",
    "the house is very cold",
    "it is kind and calm",
    "loud",
    "a black shirts ? very very rude",
]
