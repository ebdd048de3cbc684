"""Fitted heads in the decoder: what is added to a logit is what the head says of the text that would be written."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from guidance_base import BOS, EOS, PROMPTS, decode, new_tokens, slow_decode, state, tiny_lm

from embedrm.decoding import ARMHead, ARMProcessor, RADHead, RADProcessor
from embedrm.encoders.token_states import TokenStates

BETA = 6.0


def states_of(lm, texts):
    """Token states of lists of ids without BOS, each read from its beginning in one pass."""
    rows = [[BOS, *text] for text in texts]
    with torch.no_grad():
        read = [lm.model.base_model(torch.tensor([row]), use_cache=False).last_hidden_state[0] for row in rows]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    ids = np.concatenate(rows).astype(np.int32)
    return TokenStates(torch.cat(read).numpy(), ids, offsets, lm.fingerprint(), lm.vocab_size)


def lesson(lm):
    rng = np.random.default_rng(0)
    texts = [rng.integers(2, lm.vocab_size, rng.integers(2, 9)).tolist() for _ in range(60)]
    return states_of(lm, texts), {"kind": rng.random(60), "short": (rng.random(60) > 0.5).astype(float)}


def arm(lm, **options):
    states, labels = lesson(lm)
    words = {"embeddings": lm.output_embeddings()}
    if "distillation" in options.get("loss", ""):
        return ARMHead(**options).fit(states, teacher=rad(lm, hidden=(8,), max_epochs=3), **words)
    if options.get("loss") == "bradley-terry":
        return ARMHead(**options).fit(states, pairs=np.arange(60).reshape(30, 2), **words)
    return ARMHead(**options).fit(states, labels, **words)


def rad(lm, **options):
    states, labels = lesson(lm)
    return RADHead(**options).fit(states, labels)


ARMS = {
    "responses": {},
    "cross-entropy": {"loss": "responses-ce"},
    "distilled": {"loss": "distillation", "bias": True},
    "rank 2": {"rank": 2, "tol": 1e-4},
    # 2 attributes times 10 are more than the 16 numbers of an embedding
    "rank 10": {"rank": 10, "tol": 1e-4, "max_rounds": 3},
    "no baseline, no table": {"baseline": False, "keep_embeddings": False},
}
RADS = {
    "linear": {},
    "cross-entropy": {"objective": "cumulative-ce"},
    "perceptron": {"hidden": (8,), "max_epochs": 3},
    "two layers": {"hidden": (8, 5), "max_epochs": 2, "objective": "cumulative-ce"},
}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("options", ARMS.values(), ids=ARMS)
@pytest.mark.parametrize("columns", [(0,), (1, 0)])
def test_a_scorer_of_tokens_gives_what_the_head_gives(options, columns):
    lm = tiny_lm()
    head = arm(lm, **options)
    h = lesson(lm)[0].states[:7]
    ids = np.random.default_rng(1).integers(0, lm.vocab_size, (7, 5))
    scorer = head.scorer(columns)
    want = head.next_rewards(h.astype(np.float64))[..., list(columns)]
    np.testing.assert_allclose(scorer(torch.from_numpy(h)).numpy(), want, rtol=0, atol=2e-5)
    few = scorer(torch.from_numpy(h), torch.from_numpy(ids)).numpy()
    assert few.shape == (7, 5, len(columns))
    np.testing.assert_allclose(few, np.take_along_axis(want, ids[:, :, None], axis=1), rtol=0, atol=2e-5)
    assert few.std() > 1e-3


@pytest.mark.parametrize("options", RADS.values(), ids=RADS)
@pytest.mark.parametrize("columns", [(0,), (1, 0)])
def test_a_scorer_of_states_gives_what_the_head_gives(options, columns):
    lm = tiny_lm()
    head = rad(lm, **options)
    h = lesson(lm)[0].states[:9].copy()
    before = h.copy()
    given = head.scorer(columns)(torch.from_numpy(h)).numpy()
    np.testing.assert_allclose(given, head.rewards(h)[:, list(columns)], rtol=0, atol=2e-5)
    np.testing.assert_array_equal(h, before)


def test_a_scorer_keeps_what_the_head_was():
    lm = tiny_lm()
    head, h = arm(lm), torch.from_numpy(lesson(lm)[0].states[:3])
    scorer = head.scorer((0,))
    before = scorer(h).clone()
    head.factors_["weight"] += 1.0
    head.baseline_weight_ += 1.0
    assert torch.equal(scorer(h), before)


def text_reward(lm, head):
    """The head's own word on the whole text, by its path for token states."""
    return lambda prefix, token: head.token_rewards(states_of(lm, [[*prefix[1:], token]]))[-1]


@pytest.mark.parametrize("greedy", [True, False], ids=["greedy", "sampled"])
@pytest.mark.parametrize("kind", ["rad perceptron", "rad cross-entropy", *(f"arm {name}" for name in ARMS)])
def test_sequences_are_those_of_a_decoder_that_rewards_whole_texts(kind, greedy):
    lm = tiny_lm()
    method, _, name = kind.partition(" ")
    head = arm(lm, **ARMS[name]) if method == "arm" else rad(lm, **RADS[name])
    processor = (ARMProcessor if method == "arm" else RADProcessor)(lm, head, BETA, top_k=6)
    for seed in (1,) if greedy else (1, 2):
        output = decode(lm, PROMPTS, processor, steps=7, seed=seed, greedy=greedy)
        slow = slow_decode(lm, PROMPTS, text_reward(lm, head), beta=BETA, steps=7, top_k=6, greedy=greedy, seed=seed)
        assert new_tokens(lm, PROMPTS, output) == slow


def bonuses(lm, head, prefix, **options):
    """What a processor adds to the logits after a prefix (its ids, BOS first), by candidate."""
    processor = (ARMProcessor if isinstance(head, ARMHead) else RADProcessor)(lm, head, 1.0, **options)
    out = lm.model.generate(
        torch.tensor([prefix]), max_new_tokens=1, do_sample=False, logits_processor=[processor], pad_token_id=EOS,
        return_dict_in_generate=True, output_scores=True, output_logits=True,
    )  # fmt: skip
    return (out.scores[0] - out.logits[0])[0].numpy()


@pytest.mark.parametrize("loss", ["delta-distillation", "bradley-terry"])
def test_rewards_without_bounds_are_added_up_to_a_constant(loss):
    # of increments the reward of the prefix is missing, which is the same for all candidates
    lm = tiny_lm()
    head, prefix = arm(lm, loss=loss), [BOS, 7, 12, 3]
    assert not ARMProcessor(lm, head, 1.0).mix.clamp
    added = bonuses(lm, head, prefix)
    want = np.array([text_reward(lm, head)(prefix, v)[0] for v in range(lm.vocab_size)])
    gap = want - added
    np.testing.assert_allclose(gap, gap[0], rtol=0, atol=2e-5)
    start = head.token_rewards(states_of(lm, [prefix[1:]]))[-1, 0] if head.increments_ else 0.0
    assert gap[0] == pytest.approx(start, abs=2e-5)
    assert added.std() > 1e-3


def last_token_states(n_tokens, texts):
    """States that hold which token was read last, and nothing else: one state later or earlier is another token."""
    rows = [[0, *text] for text in texts]
    ids = np.concatenate(rows).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return TokenStates(np.eye(n_tokens, dtype=np.float32)[ids], ids, offsets, "last token", n_tokens)


@pytest.mark.parametrize("length", [2, 3, 5])
def test_a_planted_reward_of_a_token_after_another_is_found_where_it_was_planted(length):
    # the label hangs on the last two tokens; read at t instead of t - 1, W would see the last one twice and learn nothing
    n = 7
    rng = np.random.default_rng(0)
    planted = rng.random((n, n))
    texts = [[*rng.integers(1, n, length - 2), x, y] for x, y in itertools.product(range(1, n), repeat=2) for _ in "ab"]
    states = last_token_states(n, texts)
    labels = np.array([planted[text[-2], text[-1]] for text in texts])
    e = np.eye(n, dtype=np.float32)
    head = ARMHead(positions="last", regulariser=0.0, l2=0.0, tol=1e-16).fit(states, labels, embeddings=e)
    after = head.next_rewards(np.eye(n)[1:])[:, 1:, 0]
    np.testing.assert_allclose(after, planted[1:, 1:], atol=1e-5)
    np.testing.assert_allclose(head.scorer((0,))(torch.eye(n)[1:])[:, 1:, 0], planted[1:, 1:], atol=1e-5)
    np.testing.assert_allclose(head.text_rewards(states)[:, 0], labels, atol=1e-5)
    # RAD reads the state after the last token, which does not know of the one before
    rad_head = RADHead(positions="last", l2=0.0, tol=1e-16).fit(states, labels)
    seen = planted[1:, 1:].mean(axis=0)
    np.testing.assert_allclose(rad_head.rewards(np.eye(n)[1:])[:, 0], seen, atol=1e-5)


def test_distillation_is_zero_exactly_at_the_teachers_rewards():
    from embedrm.decoding.losses import squared_error

    lm = tiny_lm()
    states, _ = lesson(lm)
    teacher = rad(lm, hidden=(8,), max_epochs=3)
    read = np.ones(len(states.ids), dtype=bool)
    read[states.offsets[:-1]] = False
    weights = np.full((int(read.sum()), 2), 1.0 / read.sum())
    target = teacher.token_rewards(states)[read]
    assert squared_error(target.copy(), target, weights) == 0.0
    student = arm(lm, loss="distillation")
    assert squared_error(student.token_rewards(states)[read], target, weights) > 0.0
    for i, step in itertools.product((0, 17, len(target) - 1), (1e-6, -1e-6)):
        other = target.copy()
        other[i, 1] += step
        assert squared_error(other, target, weights) > 0.0


def test_the_state_that_a_reward_reads_is_the_models_own():
    lm = tiny_lm()
    states, _ = lesson(lm)
    first, ids = states.text(4)
    np.testing.assert_allclose(first[3], state(lm, ids[:4].tolist()), atol=1e-5)
