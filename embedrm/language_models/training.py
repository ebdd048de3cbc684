"""Training of a small causal language model from nothing, on a CPU, in about three minutes on one core."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embedrm.encoders.batching import plan_batches
from embedrm.encoders.quiet import quiet_loading
from embedrm.errors import InvalidInputError, ModelError
from embedrm.language_models.corpus import ATTRIBUTES, Document
from embedrm.language_models.muon import Muon, onednn_product
from embedrm.progress import Step

BOS, EOS = "<|begin|>", "<|end|>"
_BETAS = (0.9, 0.95)
_CLIP = 1.0
_MOMENTUM = 0.95
# Steps between two times that freed memory is given back; see embedrm.tuning.memory.
_TIDY = 50
# Batches of texts of like length are planned within this many batches' worth of shuffled texts.
_MIXED = 24


@dataclass(frozen=True)
class SmallLM:
    """Size and training of a small language model.

    Parameters
    ----------
    layers, width, heads : int
        Of the transformer. Its feed-forward layers are about 8/3 as wide, with a gate, and input and output embeddings
        are one table.
    vocabulary : int
        Tokens of the byte-level BPE, learnt from the same text, each document as often as an epoch reads it.
    positions : int
        The most tokens of a text, BOS included.
    epochs : int
        Passes over the text.
    attribute_repeats : int
        How often an epoch reads each hand-written text of the attributes, of which there are few.
    batch_tokens : int
        Padded tokens of one step.
    dropout : float
        Of the embeddings and of what every block adds, while training.
    learning_rate, weight_decay, warmup : float
        Of Muon for the matrices within the blocks, of AdamW for the rest. The rate rises over the share ``warmup`` of all
        steps and then falls to nothing along a cosine.
    random_state : int
        Of the first weights and of the order of texts.
    """

    layers: int = 4
    width: int = 160
    heads: int = 5
    vocabulary: int = 3000
    positions: int = 320
    epochs: int = 1
    attribute_repeats: int = 2
    batch_tokens: int = 1024
    dropout: float = 0.0
    learning_rate: float = 5e-3
    weight_decay: float = 0.1
    warmup: float = 0.08
    random_state: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dict."""
        return asdict(self)

    def check(self) -> None:
        """Raise InvalidInputError for numbers that make no model."""
        for name in ("layers", "width", "heads", "positions", "epochs", "attribute_repeats", "batch_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInputError(f"SmallLM: {name} must be a positive whole number; got {value!r}")
        if self.width % (2 * self.heads):
            raise InvalidInputError(
                f"SmallLM: width must be a multiple of twice the heads; got {self.width} and {self.heads} heads"
            )
        if not isinstance(self.vocabulary, int) or self.vocabulary < 258:
            raise InvalidInputError(
                f"SmallLM: vocabulary must be at least 258 (256 bytes, BOS and EOS); got {self.vocabulary!r}"
            )
        if not (self.learning_rate > 0 and self.weight_decay >= 0 and 0 <= self.warmup < 1 and 0 <= self.dropout < 1):
            raise InvalidInputError(
                "SmallLM: learning_rate must be positive, weight_decay not negative, warmup and dropout in [0, 1)"
            )
        if isinstance(self.random_state, bool) or not isinstance(self.random_state, int) or self.random_state < 0:
            raise InvalidInputError(f"SmallLM: random_state must be a whole number from 0; got {self.random_state!r}")


def train_tokenizer(documents: Sequence[Document], config: SmallLM) -> Any:
    """Learn a byte-level BPE from documents.

    Returns
    -------
    transformers.PreTrainedTokenizerFast
        Any text can be written in it and read back. It adds nothing of its own to a text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    read = (one.prompt + one.text for one in documents for _ in range(_repeats(one, config)))
    tokenizer.train_from_iterator(read, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=config.positions,
        clean_up_tokenization_spaces=False,
    )


def new_model(config: SmallLM, vocab_size: int) -> Any:
    """Return an untrained transformer: normal weights of spread 0.02, those that end a residual branch narrower.

    Nothing is drawn from the generator that all of torch shares.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=config.width,
        intermediate_size=max(32, config.width * 8 // 3 // 32 * 32),
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=config.positions,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        use_cache=True,
    )
    with torch.random.fork_rng(devices=[]), quiet_loading():
        model = LlamaForCausalLM(settings)
    draw = torch.Generator().manual_seed(config.random_state)
    narrow = 0.02 / math.sqrt(2 * config.layers)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if weight.ndim > 1:
                weight.normal_(
                    0.0, narrow if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02, generator=draw
                )
    return model


def train(documents: Sequence[Document], config: SmallLM, *, progress: Step | None = None) -> tuple[Any, Any]:
    """Train tokenizer and model.

    The loss is the mean negative log-likelihood of every token after BOS, EOS included. The same documents and settings
    give the same bytes on one machine with one number of threads.

    Parameters
    ----------
    documents : sequence of Document
    config : SmallLM
    progress : callable, optional
        Called as ``progress(done, total)`` in tokens.

    Returns
    -------
    model, tokenizer : transformers objects

    Raises
    ------
    InvalidInputError
        Settings that make no model, or no documents.
    ModelError
        The loss is not finite.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from embedrm.tuning.linear import use_trainable_onednn
    from embedrm.tuning.memory import give_back

    config.check()
    if not documents:
        raise InvalidInputError("a language model needs documents to learn from, and there are none")
    tokenizer = train_tokenizer(documents, config)
    rows = document_ids(documents, tokenizer, config.positions)
    repeats = [_repeats(one, config) for one in documents]
    model = new_model(config, len(tokenizer))
    product = onednn_product() if use_trainable_onednn(model) else None
    model.train()
    dropping = _add_dropout(model, config)
    plan = plan_epochs([len(row) for row in rows], repeats, config)
    total = sum(len(rows[i]) for batch in plan for i in batch)
    table = model.get_input_embeddings().weight
    flat = [weight for weight in model.parameters() if weight.ndim < 2]
    deep = [weight for weight in model.parameters() if weight.ndim >= 2 and weight is not table]
    muon = Muon(deep, momentum=_MOMENTUM, weight_decay=config.weight_decay, product=product)
    optimiser = torch.optim.AdamW(
        [{"params": [table], "weight_decay": config.weight_decay}, {"params": flat, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=_BETAS,
        fused=True,
    )
    done = 0
    for step, batch in enumerate(plan):
        rate = config.learning_rate * _schedule(step, len(plan), config.warmup)
        for group in optimiser.param_groups:
            group["lr"] = rate
        ids, keep = _padded([rows[i] for i in batch])
        # Attention looks back only, so that padding on the right needs no mask.
        states = model.base_model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[keep]
        loss = cross_entropy(model.lm_head(states), ids[:, 1:][keep])
        if not math.isfinite(float(loss.detach())):
            raise ModelError(
                f"the loss of the language model is not finite at step {step + 1} of {len(plan)}. Train it with a smaller "
                f"learning_rate; it is {config.learning_rate:g}."
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
        muon.step(rate)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        done += sum(len(rows[i]) for i in batch)
        if step % _TIDY == 0:
            give_back()
        if progress is not None:
            progress(done, total)
    for handle in dropping:
        handle.remove()
    for module in model.modules():
        # the trainable product's stand-in: a plain linear layer again
        vars(module).pop("forward", None)
    return model.eval().requires_grad_(False), tokenizer


def document_ids(documents: Sequence[Document], tokenizer: Any, positions: int) -> list[list[int]]:
    """Return the ids of each document with BOS and EOS.

    A prompt and its text are tokenised apart, as they are where a model continues a prompt.

    Raises
    ------
    InvalidInputError
        A document longer than ``positions``.
    """
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    backend = tokenizer.backend_tokenizer
    parts = [backend.encode_batch(side, add_special_tokens=False)
             for side in ([one.prompt for one in documents], [one.text for one in documents])]  # fmt: skip
    rows = [[bos, *before.ids, *after.ids, eos] for before, after in zip(*parts)]
    long = [i for i, row in enumerate(rows) if len(row) > positions]
    if long:
        raise InvalidInputError(
            f"{len(long)} of {len(rows)} documents have more than {positions} tokens (first: document {long[0]} with "
            f"{len(rows[long[0]])}). Give more positions, or leave them out."
        )
    return rows


def plan_epochs(lengths: Sequence[int], repeats: Sequence[int], config: SmallLM) -> list[list[int]]:
    """Return the batches of all epochs: shuffled, texts of like length together, every text ``repeats`` times an epoch."""
    draw = np.random.default_rng(config.random_state)
    every = np.repeat(np.arange(len(lengths)), repeats)
    sizes = np.asarray(lengths)
    batches: list[list[int]] = []
    for _ in range(config.epochs):
        order = draw.permutation(every)
        part = np.cumsum(sizes[order]) // (_MIXED * config.batch_tokens)
        for block in np.unique(part):
            rows = order[part == block]
            planned = [rows[batch].tolist() for batch in plan_batches(sizes[rows].tolist(), config.batch_tokens)]
            batches += [planned[i] for i in draw.permutation(len(planned))]
    return batches


def _repeats(document: Document, config: SmallLM) -> int:
    return config.attribute_repeats if document.source == ATTRIBUTES else 1


def _add_dropout(model: Any, config: SmallLM) -> list[Any]:
    """Let the embeddings and the ends of residual branches drop values, from a generator of their own."""
    import torch

    if not config.dropout:
        return []
    draw, keep = torch.Generator().manual_seed(config.random_state), 1.0 - config.dropout

    def drop(module: Any, given: Any, output: Any) -> Any:
        return output * torch.empty_like(output).bernoulli_(keep, generator=draw) / keep

    dropped = ("embed_tokens", "o_proj", "down_proj")
    return [m.register_forward_hook(drop) for name, m in model.named_modules() if name.endswith(dropped)]


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """Return ids (n, tokens), and where (n, tokens - 1) there is a next token to predict."""
    import torch

    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), int(lengths.max())), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    keep = np.arange(ids.shape[1] - 1) < lengths[:, None] - 1
    return torch.from_numpy(ids), torch.from_numpy(keep)


def _schedule(step: int, n_steps: int, warmup: float) -> float:
    warm = max(1, round(warmup * n_steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, n_steps - warm)))
