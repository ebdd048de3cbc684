"""Texts from prompts: what the function adds to generate, and that seeds mean something."""

from __future__ import annotations

import pytest
import torch
from guidance_base import BOS, EOS, PROMPTS, ArmHead, RadHead, decode, new_tokens, tiny_lm

from embedrm.decoding.generation import generate
from embedrm.decoding.processors import ARMProcessor, RADProcessor
from embedrm.errors import InvalidInputError


def test_greedy_texts_are_those_of_generate():
    lm = tiny_lm()
    for processor in (None, ARMProcessor(lm, ArmHead(lm), 5.0, top_k=6)):
        made = generate(lm, PROMPTS, processor=processor, max_new_tokens=8, greedy=True)
        plain = new_tokens(lm, PROMPTS, decode(lm, PROMPTS, processor, steps=8, greedy=True))
        assert [list(one.ids) for (one,) in made] == [[t for t in row if t != EOS] for row in plain]
        assert [one.text.split() for (one,) in made] == [lm.decode(row).split() for row in plain]


def test_a_batch_is_its_texts_one_by_one():
    lm = tiny_lm()
    processor = RADProcessor(lm, RadHead(lm), 5.0, top_k=6)
    options = {"processor": processor, "max_new_tokens": 8, "greedy": True}
    together = generate(lm, PROMPTS, **options)
    assert together == [generate(lm, [prompt], **options)[0] for prompt in PROMPTS]
    assert together == generate(lm, PROMPTS, batch_size=2, **options)


@pytest.mark.parametrize("beta", [0.0, 5.0])
def test_seeds(beta):
    lm = tiny_lm()
    processor = ARMProcessor(lm, ArmHead(lm), beta, top_k=9)
    options = {"processor": processor, "n": 4, "max_new_tokens": 8}
    first = generate(lm, PROMPTS, seed=1, **options)
    assert [len(row) for row in first] == [4, 4, 4]
    assert all(one.prompt == prompt for prompt, row in zip(PROMPTS, first) for one in row)
    assert len({one.text for one in first[0]}) > 1
    assert first == generate(lm, PROMPTS, seed=1, **options)
    assert first != generate(lm, PROMPTS, seed=2, **options)
    # a second batch does not draw as the first one did
    apart = generate(lm, [PROMPTS[0]] * 2, seed=1, batch_size=4, **options)
    assert apart[0] != apart[1]


@pytest.mark.parametrize("choice", [{}, {"top_k": 7}, {"top_p": 0.7}], ids=["plain", "top_k", "top_p"])
def test_beta_zero_is_unguided(choice):
    lm = tiny_lm()
    processor = ARMProcessor(lm, ArmHead(lm), 0.0, **choice)
    options = {"n": 3, "max_new_tokens": 8, "seed": 5}
    assert generate(lm, PROMPTS, processor=processor, **options) == generate(lm, PROMPTS, **choice, **options)


def test_torch_keeps_its_generator():
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    generate(tiny_lm(), PROMPTS, max_new_tokens=3)
    assert torch.equal(torch.rand(4), wanted)


def test_a_text_that_ends_is_told_apart():
    lm = tiny_lm()
    ended = generate(lm, ["w3"], n=64, max_new_tokens=20, batch_size=64, temperature=4.0)[0]
    assert {one.ended for one in ended} == {True, False}
    for one in ended:
        assert EOS not in one.ids
        assert one.ended or len(one.ids) == 20
        assert one.text.split() == lm.decode(one.ids).split()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n": 0}, "n of at least 1"),
        ({"n": 1.5}, "n of at least 1, a whole number; got 1.5"),
        ({"batch_size": True}, "batch_size of at least 1, a whole number"),
        ({"seed": -1}, "seed of at least 0"),
        ({"max_new_tokens": 0}, "max_new_tokens of at least 1"),
        ({"max_new_tokens": 60}, "has 66 tokens, and the language model reads 64"),
        ({"temperature": 0.0}, "positive temperature"),
        ({"temperature": "hot"}, "positive temperature, got 'hot'"),
        ({"greedy": True, "top_k": 4}, "greedy decoding has no top_k"),
        ({"top_p": 1.5}, r"top_p expects a number in \(0, 1\]"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InvalidInputError, match=message):
        generate(tiny_lm(), PROMPTS, **options)


def test_contradictions():
    lm = tiny_lm()
    processor = ARMProcessor(lm, ArmHead(lm), 1.0, top_k=5)
    with pytest.raises(InvalidInputError, match="filter of its own"):
        generate(lm, PROMPTS, processor=processor, top_k=5)
    with pytest.raises(InvalidInputError, match="for another language model"):
        generate(tiny_lm(seed=5), PROMPTS, processor=processor)
    with pytest.raises(InvalidInputError, match="put it in a list"):
        generate(lm, "w3")
    with pytest.raises(InvalidInputError, match="text 1 is int"):
        generate(lm, ["w3", 4])


def test_no_prompts():
    assert generate(tiny_lm(), []) == []
    assert generate(tiny_lm(), [""], max_new_tokens=3, greedy=True)[0][0].ids[0] != BOS
