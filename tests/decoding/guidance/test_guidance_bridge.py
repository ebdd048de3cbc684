"""A reward model that tokenises differently reads the text, or is refused."""

from __future__ import annotations

import pytest
import torch
from guidance_base import (
    BOS,
    EOS,
    PROMPTS,
    WORDS,
    ArmHead,
    RadHead,
    batch,
    decode,
    new_tokens,
    slow_decode,
    state,
    tiny_lm,
)

from embedrm.decoding.guidance_bridge import TextBridge, same_tokens
from embedrm.decoding.processors import ARMProcessor, RADProcessor
from embedrm.errors import InvalidInputError

# the same words under other numbers, and two of them unknown, so that different tokens write the same text there
OTHER = (*WORDS[::-1][:-2], "v1", "v2")


@pytest.fixture
def reward_lm():
    return tiny_lm(seed=7, words=OTHER)


def test_same_tokens(reward_lm):
    assert same_tokens(tiny_lm(), tiny_lm())
    assert same_tokens(tiny_lm(), tiny_lm(seed=5))
    assert not same_tokens(tiny_lm(), reward_lm)


@pytest.mark.parametrize("greedy", [True, False], ids=["greedy", "sampled"])
def test_it_equals_reading_every_text_anew(reward_lm, greedy):
    lm, head = tiny_lm(), RadHead(reward_lm)
    processor = RADProcessor(lm, head, 6.0, top_k=5, reward_lm=reward_lm, bridge=True)

    def reward(prefix, token):
        text = lm.decode([*prefix, token])
        return head.rewards(state(reward_lm, [reward_lm.bos_id, *reward_lm.encode(text)])[None])[0]

    for seed in (0, 1):
        output = decode(lm, PROMPTS, processor, steps=6, seed=seed, greedy=greedy)
        slow = slow_decode(lm, PROMPTS, reward, beta=6.0, steps=6, greedy=greedy, seed=seed, top_k=5)
        assert new_tokens(lm, PROMPTS, output) == slow


def test_the_end_of_the_text_has_the_state_of_the_prefix(reward_lm):
    lm = tiny_lm()
    inputs = batch(lm, PROMPTS)
    candidates = torch.tensor([[EOS, 5]] * len(PROMPTS))
    states = TextBridge(lm, reward_lm).states(inputs["input_ids"], inputs["attention_mask"], candidates)
    for row, prompt in enumerate(PROMPTS):
        alone = state(reward_lm, [BOS, *reward_lm.encode(prompt)])
        torch.testing.assert_close(states[row, 0], torch.from_numpy(alone), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(states[row, 0], states[row, 1], atol=1e-2)


def test_a_text_that_the_reward_model_cannot_read(reward_lm):
    lm = tiny_lm()
    processor = RADProcessor(lm, RadHead(reward_lm), 1.0, top_k=3, reward_lm=reward_lm, bridge=True)
    with pytest.raises(InvalidInputError, match="reads 64 tokens, and a prefix with its candidate has 65"):
        decode(lm, [" ".join(["w4"] * 63)], processor, steps=1)


def test_without_a_bridge_it_is_refused(reward_lm):
    with pytest.raises(InvalidInputError, match="give bridge=True"):
        RADProcessor(tiny_lm(), RadHead(reward_lm), 1.0, reward_lm=reward_lm)
    with pytest.raises(InvalidInputError, match=r"RADProcessor\(\.\.\., bridge=True\)"):
        ARMProcessor(tiny_lm(), ArmHead(reward_lm), 1.0, reward_lm=reward_lm)
