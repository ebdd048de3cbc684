"""Tiny random language models and heads with the methods that guidance reads, and a slow, obvious guided decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from embedrm.decoding.base import PrefixHead

WORDS = [f"w{i}" for i in range(36)]
BOS, EOS = 0, 1
PROMPTS = ("w3 w4 w5", "w7", "w1 w9 w2 w30 w8")


@dataclass(eq=False)
class TinyLM:
    model: Any
    tokenizer: Any
    name: str
    bos_id: int = BOS
    eos_id: int = EOS
    max_length: int = 64

    @property
    def vocab_size(self) -> int:
        return len(self.tokenizer)

    @property
    def dim(self) -> int:
        return int(self.model.config.hidden_size)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def output_embeddings(self) -> np.ndarray:
        return self.model.get_output_embeddings().weight.detach().numpy()

    def fingerprint(self) -> str:
        return self.name

    def describe(self) -> str:
        return f"the tiny model {self.name}"


def tokenizer(words: Sequence[str] = WORDS) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {token: i for i, token in enumerate(["<bos>", "<eos>", *words])}
    made = Tokenizer(models.WordLevel(vocab, unk_token=words[0]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<bos>", eos_token="<eos>", unk_token=words[0])


@lru_cache
def tiny_lm(kind: str = "gpt2", seed: int = 0, words: tuple[str, ...] = tuple(WORDS)) -> TinyLM:
    """A random model whose logits are far from flat, so that rewards and prefixes matter."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    size = {"vocab_size": len(words) + 2, "bos_token_id": BOS, "eos_token_id": EOS, "initializer_range": 0.25}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "gpt2":
            model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, n_positions=64, **size))
        else:
            llama = LlamaConfig(
                num_hidden_layers=2,
                hidden_size=16,
                intermediate_size=32,
                num_attention_heads=2,
                max_position_embeddings=64,
                tie_word_embeddings=False,
                **size,
            )
            model = LlamaForCausalLM(llama)
    return TinyLM(model.eval(), tokenizer(words), f"{kind}-{seed}-{len(words)}")


class RadHead(PrefixHead):
    """A non-linear reward of a state, about 0.5 on the average."""

    attributes_ = ("kind", "short")
    bounded_ = True

    def __init__(self, lm: TinyLM, seed: int = 0) -> None:
        self.lm, self.seed = lm, seed
        rng = np.random.default_rng(seed)
        self.first = rng.standard_normal((lm.dim, 6)) / 4
        self.second = rng.standard_normal((6, 2)) / 3
        self.model_ = lm.fingerprint()
        self.mean = 0.0
        self.mean = (
            self.rewards(np.stack([state(lm, [BOS, token]) for token in range(lm.vocab_size)])).mean(axis=0) - 0.5
        )

    def fit(self) -> RadHead:
        return self

    def rewards(self, h: np.ndarray) -> np.ndarray:
        return 0.5 + np.tanh(h @ self.first) @ self.second - self.mean

    def scorer(self, columns: Sequence[int]) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda h: torch.from_numpy(self.rewards(h.numpy())[..., list(columns)])


class ArmHead(PrefixHead):
    """<h, w> + <W h, e(v)>."""

    attributes_ = ("kind", "short")
    bounded_ = True

    def __init__(self, lm: TinyLM, seed: int = 0) -> None:
        self.lm, self.seed = lm, seed
        rng = np.random.default_rng(seed)
        self.embeddings = lm.output_embeddings()
        self.w = rng.standard_normal((2, lm.dim)) / 20
        self.weight = rng.standard_normal((2, lm.dim, lm.dim)) / 25
        self.model_ = lm.fingerprint()

    def fit(self) -> ArmHead:
        return self

    def next_rewards(self, h: np.ndarray, ids: np.ndarray | None = None) -> np.ndarray:
        queries = np.einsum("ade,ne->nad", self.weight, h)
        base = 0.5 + h @ self.w.T
        if ids is None:
            return base[:, None] + np.einsum("nad,vd->nva", queries, self.embeddings)
        return base[:, None] + np.einsum("nad,nkd->nka", queries, self.embeddings[ids])

    def scorer(self, columns: Sequence[int]) -> Callable[..., np.ndarray]:
        def score(h: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
            rewards = self.next_rewards(h.numpy(), None if ids is None else ids.numpy())
            return torch.from_numpy(rewards[..., list(columns)])

        return score


Reward = Callable[[list[int], int], np.ndarray]


def state(lm: TinyLM, tokens: list[int]) -> np.ndarray:
    """What the LM's head reads after these tokens, in one pass without a cache and without padding."""
    with torch.no_grad():
        return lm.model.base_model(torch.tensor([tokens]), use_cache=False).last_hidden_state[0, -1].numpy()


def rad_reward(lm: TinyLM, head: RadHead) -> Reward:
    return lambda prefix, token: head.rewards(state(lm, [*prefix, token])[None])[0]


def arm_reward(lm: TinyLM, head: ArmHead) -> Reward:
    def reward(prefix: list[int], token: int) -> np.ndarray:
        h, e = state(lm, prefix), lm.output_embeddings()[token]
        return np.array([0.5 + head.w[a] @ h + (head.weight[a] @ h) @ e for a in range(2)])

    return reward


def chosen(logits: np.ndarray, top_k: int | None, top_p: float | None) -> list[int]:
    """The candidates by sorting."""
    order = list(np.argsort(-logits, kind="stable"))
    if top_k is not None:
        order = order[:top_k]
    if top_p is not None:
        p = np.exp(logits[order] - logits.max())
        p /= p.sum()
        kept, mass = [], 0.0
        for token, share in zip(order, p):
            if mass >= top_p:
                break
            kept.append(token)
            mass += share
        order = kept
    return [int(token) for token in order]


def slow_decode(
    lm: TinyLM,
    prompts: Sequence[str],
    reward: Reward | None,
    *,
    beta: float,
    steps: int,
    top_k: int | None = None,
    top_p: float | None = None,
    greedy: bool = False,
    seed: int = 0,
    eos: int = EOS,
    mix: Callable[[np.ndarray], float] = lambda r: float(np.clip(r[0], 0, 1)),
) -> list[list[int]]:
    """New tokens of each prompt: every prefix with every candidate is read from its beginning."""
    rows = [[BOS, *lm.encode(prompt)] for prompt in prompts]
    starts, done = [len(row) for row in rows], [False] * len(rows)
    torch.manual_seed(seed)
    for _ in range(steps):
        guided = np.full((len(rows), lm.vocab_size), -np.inf, dtype=np.float32)
        for i, row in enumerate(rows):
            if done[i]:
                # the draw is made for all rows at once; what a finished one gets is thrown away
                guided[i] = 0.0
                continue
            with torch.no_grad():
                logits = lm.model(torch.tensor([row]), use_cache=False).logits[0, -1].numpy()
            for token in chosen(logits, top_k, top_p):
                bonus = beta * mix(reward(row, token)) if reward is not None and beta else 0.0
                guided[i, token] = logits[token] + bonus
        scores = torch.tensor(guided)
        drawn = scores.argmax(dim=-1) if greedy else torch.multinomial(torch.softmax(scores, dim=-1), 1)[:, 0]
        for i, token in enumerate(drawn.tolist()):
            if not done[i]:
                rows[i].append(token)
                done[i] = token == eos
        if all(done):
            break
    return [row[start:] for row, start in zip(rows, starts)]


def batch(lm: TinyLM, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Left-padded inputs of generate; the padding is the end token, whose mask is 0."""
    rows = [[BOS, *lm.encode(prompt)] for prompt in prompts]
    width = max(map(len, rows))
    ids = torch.tensor([[EOS] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def decode(
    lm: TinyLM,
    prompts: Sequence[str],
    processor: Any = None,
    *,
    steps: int,
    seed: int = 0,
    greedy: bool = False,
    **options: Any,
) -> Any:
    """The ordinary generate."""
    words: dict[str, Any] = {"max_new_tokens": steps, "do_sample": not greedy, "pad_token_id": EOS, "eos_token_id": EOS}
    if not greedy:
        words["top_k"] = 0
    if processor is not None:
        words["logits_processor"] = [processor]
    torch.manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        return lm.model.generate(**batch(lm, prompts), **(words | options))


def new_tokens(lm: TinyLM, prompts: Sequence[str], output: torch.Tensor, eos: int = EOS) -> list[list[int]]:
    """The tokens after the prompts, up to and with the end token."""
    width = batch(lm, prompts)["input_ids"].shape[1]
    rows = output[:, width:].tolist()
    return [row[: row.index(eos) + 1] if eos in row else row for row in rows]
