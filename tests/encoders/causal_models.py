"""Tiny random causal language models, written with the real libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BOS, EOS = "<s>", "</s>"


def byte_tokenizer(
    folder: Path, *, bos: bool = True, adds_bos: bool = False, limit: int = 64, side: str = "left"
) -> None:
    """Write a tokenizer of 258 tokens, one for each byte and two special ones (0 and 1)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([BOS, EOS, *letters])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    named = {"bos_token": BOS} if bos else {}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=limit, eos_token=EOS, pad_token=EOS, padding_side=side, **named
    ).save_pretrained(folder)


def make_causal(folder: Path, kind: str = "gpt2", *, layers: int = 3, positions: int = 64, **tokenizer: Any) -> Path:
    """Write a folder with a random causal language model, 16 wide, whose states differ from token to token."""
    import torch
    from transformers import BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
        if kind == "gpt2":
            config = GPT2Config(vocab_size=258, n_embd=16, n_layer=layers, n_head=2, n_positions=positions,
                                initializer_range=0.3, **ids)  # fmt: skip
            model = GPT2LMHeadModel(config)
        elif kind == "llama":
            llama = LlamaConfig(vocab_size=258, hidden_size=16, intermediate_size=32, num_hidden_layers=layers,
                                num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=positions,
                                initializer_range=0.3, **ids)  # fmt: skip
            model = LlamaForCausalLM(llama)
        else:
            bert = BertConfig(vocab_size=258, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2,
                              intermediate_size=32, max_position_embeddings=positions, initializer_range=0.3)  # fmt: skip
            model = BertLMHeadModel(bert)
    model.save_pretrained(folder)
    byte_tokenizer(folder, **tokenizer)
    return folder
