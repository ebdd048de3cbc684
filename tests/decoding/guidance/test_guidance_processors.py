"""Guided decoding through generate equals a decoder that reads everything anew, and beta 0 changes no bit."""

from __future__ import annotations

import copy
import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from guidance_base import (
    BOS,
    EOS,
    PROMPTS,
    ArmHead,
    RadHead,
    arm_reward,
    batch,
    decode,
    new_tokens,
    rad_reward,
    slow_decode,
    tiny_lm,
)

from embedrm.decoding.processors import ARMProcessor, RADProcessor
from embedrm.errors import InvalidInputError

STEPS, BETA = 8, 6.0
FILTERS = [{"top_k": 5}, {"top_p": 0.8}, {"top_k": 9, "top_p": 0.7}]
METHODS = {"rad": (RADProcessor, RadHead, rad_reward), "arm": (ARMProcessor, ArmHead, arm_reward)}


def made(method: str, lm, beta=BETA, reward_lm=None, **options):
    processor, head, reward = METHODS[method]
    source = lm if reward_lm is None else reward_lm
    fitted = head(source)
    return processor(lm, fitted, beta, reward_lm=reward_lm, **options), reward(source, fitted)


class TestAgainstTheSlowDecoder:
    @pytest.mark.parametrize("greedy", [True, False], ids=["greedy", "sampled"])
    @pytest.mark.parametrize("separate", [False, True], ids=["shared", "separate"])
    @pytest.mark.parametrize("choice", FILTERS, ids=lambda f: "+".join(f))
    @pytest.mark.parametrize("method", METHODS)
    def test_a_padded_batch(self, method, choice, separate, greedy):
        lm = tiny_lm()
        processor, reward = made(method, lm, reward_lm=tiny_lm(seed=5) if separate else None, **choice)
        for seed in (1,) if greedy else (1, 2):
            output = decode(lm, PROMPTS, processor, steps=STEPS, seed=seed, greedy=greedy)
            slow = slow_decode(lm, PROMPTS, reward, beta=BETA, steps=STEPS, greedy=greedy, seed=seed, **choice)
            assert new_tokens(lm, PROMPTS, output) == slow

    @pytest.mark.parametrize("separate", [False, True], ids=["shared", "separate"])
    @pytest.mark.parametrize("method", METHODS)
    def test_another_architecture(self, method, separate):
        # positions are rotations here, and the output table is not the input table
        lm = tiny_lm("llama", 3)
        processor, reward = made(method, lm, reward_lm=tiny_lm("llama", 4) if separate else None, top_k=6)
        output = decode(lm, PROMPTS, processor, steps=STEPS, seed=1)
        assert new_tokens(lm, PROMPTS, output) == slow_decode(
            lm, PROMPTS, reward, beta=BETA, steps=STEPS, seed=1, top_k=6
        )

    @pytest.mark.parametrize("method", METHODS)
    def test_sequences_that_end_do_not_disturb_the_others(self, method):
        lm = tiny_lm()
        processor, reward = made(method, lm, top_k=8, reward_lm=tiny_lm(seed=5))
        # the token written most often plays the end of the text
        plain = decode(lm, PROMPTS, processor, steps=30)[:, batch(lm, PROMPTS)["input_ids"].shape[1] :]
        eos = int(plain.flatten().mode().values)
        endings = set()
        for seed in range(4):
            output = decode(lm, PROMPTS, processor, steps=16, seed=seed, eos_token_id=eos)
            slow = slow_decode(lm, PROMPTS, reward, beta=BETA, steps=16, seed=seed, top_k=8, eos=eos)
            assert new_tokens(lm, PROMPTS, output, eos) == slow
            endings |= {len(row) for row in slow if row[-1] == eos}
        assert len(endings) > 2, "no sequence ended before the others: the test shows nothing"

    @pytest.mark.parametrize("method", METHODS)
    def test_every_token_is_a_candidate_without_a_filter(self, method):
        lm = tiny_lm()
        processor, reward = made(method, lm)
        output = decode(lm, PROMPTS, processor, steps=5, seed=3)
        assert new_tokens(lm, PROMPTS, output) == slow_decode(lm, PROMPTS, reward, beta=BETA, steps=5, seed=3)

    @pytest.mark.parametrize("method", METHODS)
    def test_the_reward_steers(self, method):
        lm = tiny_lm()
        plain, _ = made(method, lm, beta=0.0, top_k=8)
        guided, _ = made(method, lm, top_k=8)
        texts = [new_tokens(lm, PROMPTS, decode(lm, PROMPTS, p, steps=STEPS, seed=1)) for p in (plain, guided)]
        assert texts[0] != texts[1]

    def test_candidates_in_blocks_are_candidates_at_once(self, monkeypatch):
        lm = tiny_lm()
        processor, reward = made("rad", lm, top_k=9)
        monkeypatch.setattr("embedrm.decoding.guidance_cache.BLOCK", 4)
        output = decode(lm, PROMPTS, processor, steps=STEPS, seed=1)
        assert new_tokens(lm, PROMPTS, output) == slow_decode(
            lm, PROMPTS, reward, beta=BETA, steps=STEPS, seed=1, top_k=9
        )


class TestBetaZero:
    @pytest.mark.parametrize("beta", [0.0, 1e-12], ids=["zero", "nearly zero"])
    @pytest.mark.parametrize("choice", [{}, *FILTERS], ids=lambda f: "+".join(f) or "plain")
    @pytest.mark.parametrize("method", METHODS)
    def test_it_is_unguided_sampling_under_the_same_filter(self, method, choice, beta):
        lm = tiny_lm()
        processor, _ = made(method, lm, beta=beta, **choice)
        asked = {"return_dict_in_generate": True, "output_scores": True}
        guided = decode(lm, PROMPTS, processor, steps=STEPS, seed=4, **asked)
        plain = decode(lm, PROMPTS, steps=STEPS, seed=4, **{"top_k": 0} | choice, **asked)
        assert torch.equal(guided.sequences, plain.sequences)
        if beta:
            # one unit of rounding at most
            assert all(torch.allclose(a, b, rtol=1e-6, atol=1e-7) for a, b in zip(guided.scores, plain.scores))
        else:
            assert all(torch.equal(a, b) for a, b in zip(guided.scores, plain.scores))

    def test_it_asks_no_reward(self):
        lm = tiny_lm()
        processor, _ = made("rad", lm, beta=0.0, top_k=5)
        decode(lm, PROMPTS, processor, steps=4)
        assert (processor.calls.steps, processor.calls.reward_passes, processor.calls.rewarded) == (4, 0, 0)


def scores_of(lm, processor, **options):
    out = decode(
        lm, PROMPTS, processor, steps=6, return_dict_in_generate=True, output_scores=True, output_logits=True, **options
    )
    return out.sequences, torch.stack(out.scores), torch.stack(out.logits)


class TestStates:
    @pytest.mark.parametrize("method", METHODS)
    def test_shared_states_are_separate_states_of_the_same_model(self, method):
        lm = tiny_lm()
        shared, _ = made(method, lm, top_k=6)
        separate, _ = made(method, lm, top_k=6, reward_lm=replace(lm, model=copy.deepcopy(lm.model)))
        assert shared.shared
        assert not separate.shared
        (a, x, _), (b, y, _) = scores_of(lm, shared), scores_of(lm, separate)
        assert torch.equal(a, b)
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("method", METHODS)
    def test_beams_change_places(self, method):
        lm = tiny_lm()
        shared, _ = made(method, lm, top_k=6)
        separate, _ = made(method, lm, top_k=6, reward_lm=replace(lm, model=copy.deepcopy(lm.model)))
        options = {"greedy": True, "num_beams": 3, "steps": 8}
        outputs = [decode(lm, PROMPTS, p, **options) for p in (shared, separate)]
        assert torch.equal(*outputs)

    def test_a_separate_reward_model_reads_the_prompt_once_and_no_chosen_candidate_again(self):
        lm = tiny_lm()
        processor, _ = made("rad", lm, top_k=6, reward_lm=tiny_lm(seed=5))
        decode(lm, PROMPTS, processor, steps=7, eos_token_id=None, pad_token_id=EOS)
        # the prompt, and the candidates of each of seven steps
        assert processor.calls.reward_passes == 1 + 7
        assert processor.calls.rewarded == 7 * len(PROMPTS) * 6

    def test_calls_of_arm(self):
        lm = tiny_lm()
        shared, _ = made("arm", lm, top_k=6)
        separate, _ = made("arm", lm, top_k=6, reward_lm=tiny_lm(seed=5))
        for processor in (shared, separate):
            decode(lm, PROMPTS, processor, steps=7, eos_token_id=None, pad_token_id=EOS)
        assert (shared.calls.reward_passes, separate.calls.reward_passes) == (0, 7)

    def test_a_processor_serves_one_generation_after_the_other(self):
        lm = tiny_lm()
        processor, _ = made("rad", lm, top_k=6, reward_lm=tiny_lm(seed=5))
        first = decode(lm, PROMPTS, processor, steps=6, seed=1)
        decode(lm, PROMPTS[::-1], processor, steps=5, seed=2)
        decode(lm, PROMPTS[:1], processor, steps=3, seed=2)
        assert torch.equal(decode(lm, PROMPTS, processor, steps=6, seed=1), first)

    def test_the_model_forgets_a_processor_that_nobody_holds(self):
        lm = replace(tiny_lm(), model=copy.deepcopy(tiny_lm().model))
        hooks = lambda: len(lm.model._forward_hooks) + len(lm.model.get_output_embeddings()._forward_pre_hooks)  # noqa: E731
        before = hooks()
        processor, _ = made("arm", lm)
        assert hooks() == before + 2
        del processor
        gc.collect()
        assert hooks() == before
        closed, _ = made("arm", lm)
        closed.close()
        assert hooks() == before


class TestRewards:
    @pytest.mark.parametrize("choice", FILTERS, ids=lambda f: "+".join(f))
    @pytest.mark.parametrize("method", METHODS)
    def test_others_than_the_candidates_are_impossible(self, method, choice):
        lm = tiny_lm()
        processor, _ = made(method, lm, **choice)
        _, scores, logits = scores_of(lm, processor)
        from guidance_base import chosen

        for given, raw in zip(scores.reshape(-1, lm.vocab_size).numpy(), logits.reshape(-1, lm.vocab_size).numpy()):
            kept = chosen(raw, choice.get("top_k"), choice.get("top_p"))
            assert sorted(np.flatnonzero(np.isfinite(given))) == sorted(kept)
            assert np.isneginf(np.delete(given, kept)).all()

    @pytest.mark.parametrize("method", METHODS)
    def test_a_guided_logit_is_the_logit_plus_beta_times_the_clamped_reward(self, method):
        lm = tiny_lm()
        processor, reward = made(method, lm, top_k=6)
        output, scores, logits = scores_of(lm, processor, greedy=True)
        mask = batch(lm, PROMPTS)["attention_mask"]
        found = []
        for row in range(len(PROMPTS)):
            prefix = output[row, : mask.shape[1]][mask[row] == 1].tolist()
            for token in np.flatnonzero(np.isfinite(scores[0, row].numpy())):
                found.append(float(reward(prefix, int(token))[0]))
                bonus = BETA * min(max(found[-1], 0.0), 1.0)
                assert scores[0, row, token] == pytest.approx(float(logits[0, row, token]) + bonus, abs=2e-5)
        assert min(found) < 0.5 < max(found)

    @pytest.mark.parametrize("method", METHODS)
    def test_inverse_with_clamp_is_one_minus_the_clamped_reward(self, method):
        lm = tiny_lm()
        bonus = {}
        for inverse in (False, True):
            processor, _ = made(method, lm, top_k=6, inverse=inverse)
            _, scores, logits = scores_of(lm, processor)
            bonus[inverse] = ((scores[0] - logits[0]) / BETA)[torch.isfinite(scores[0])]
        torch.testing.assert_close(bonus[True], 1.0 - bonus[False], rtol=0, atol=1e-5)
        assert bonus[False].std() > 0.01

    @pytest.mark.parametrize("method", METHODS)
    def test_clamping_keeps_rewards_within_zero_and_one(self, method):
        lm = tiny_lm()
        bonus = {}
        for clamp in (True, False):
            processor, _ = made(method, lm, top_k=30, clamp=clamp)
            scale(processor, 8.0)
            _, scores, logits = scores_of(lm, processor)
            bonus[clamp] = ((scores[0] - logits[0]) / BETA)[torch.isfinite(scores[0])]
        assert bonus[False].min() < -0.5
        assert bonus[False].max() > 1.5
        torch.testing.assert_close(bonus[True], bonus[False].clamp(0, 1), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("method", METHODS)
    def test_several_rewards_are_added_by_their_weights(self, method):
        lm = tiny_lm()

        def bonus(**options):
            processor, _ = made(method, lm, top_k=6, **options)
            _, scores, logits = scores_of(lm, processor)
            return ((scores[0] - logits[0]) / BETA)[torch.isfinite(scores[0])]

        kind, short = bonus(attribute="kind"), bonus(attribute=1)
        assert not torch.allclose(kind, short, atol=0.01)
        both = bonus(weights={"kind": 2.0, "short": -0.5})
        torch.testing.assert_close(both, 2.0 * kind - 0.5 * short, rtol=0, atol=1e-5)
        torch.testing.assert_close(bonus(weights={"short": 1.0}), short, rtol=0, atol=1e-6)

    def test_the_whole_vocabulary_gives_the_gathered_rewards(self):
        lm = tiny_lm()
        for choice in FILTERS:
            gathered, _ = made("arm", lm, **choice)
            whole, _ = made("arm", lm, whole_vocabulary=True, **choice)
            (a, x, _), (b, y, _) = scores_of(lm, gathered), scores_of(lm, whole)
            assert torch.equal(a, b)
            torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)

    def test_rewards_without_bounds_are_not_clamped_unless_asked(self):
        lm = tiny_lm()
        head = RadHead(lm)
        head.bounded_ = False
        assert RADProcessor(lm, head, 1.0).mix.clamp is False
        assert RADProcessor(lm, head, 1.0, clamp=True).mix.clamp is True
        assert RADProcessor(lm, RadHead(lm), 1.0).mix.clamp is True


def scale(processor, factor):
    """Give the processor's head rewards that leave [0, 1] widely."""
    scorer = processor._scorer
    processor._scorer = lambda *args: 0.5 + factor * (scorer(*args) - 0.5)


class TestCandidates:
    @pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, 9])
    def test_ties_and_forbidden_tokens_are_those_of_transformers(self, k):
        from transformers import TopKLogitsWarper

        from embedrm.decoding.candidates import CandidateFilter

        low = -np.inf
        scores = torch.tensor(
            [[3.0, 1.0, 1.0, 2.0, low, 0.5], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [low, low, 4.0, low, 2.0, 1.0]]
        )
        for given in (scores, scores[:1], scores[1:2], scores[2:]):
            found = CandidateFilter(top_k=k).select(given)
            made = torch.full_like(given, low).scatter_(
                1, found.ids, found.scores if found.valid is None else found.scores.masked_fill(~found.valid, low)
            )
            assert torch.equal(made, TopKLogitsWarper(k)(None, given))


class TestRefusals:
    def test_increments_are_not_clamped(self):
        lm = tiny_lm()
        head = ArmHead(lm)
        head.increments_ = True
        head.scorer = lambda columns: lambda h, ids: 3.0 + ArmHead.scorer(head, columns)(h, ids)
        processor = ARMProcessor(lm, head, BETA, top_k=6)
        assert processor.mix.clamp is False
        usual, _ = made("arm", lm, top_k=6, clamp=False)
        # the three are the same for all candidates
        assert torch.equal(decode(lm, PROMPTS, processor, steps=6), decode(lm, PROMPTS, usual, steps=6))
        with pytest.raises(InvalidInputError, match="leave clamp out"):
            ARMProcessor(lm, head, 1.0, clamp=True)

    def test_a_head_of_another_language_model(self):
        with pytest.raises(InvalidInputError, match="fitted on states of the language model gpt2-5"):
            RADProcessor(tiny_lm(), RadHead(tiny_lm(seed=5)), 1.0)

    def test_a_model_that_is_not_the_guided_one(self):
        processor, _ = made("arm", tiny_lm(), top_k=5)
        with pytest.raises(InvalidInputError, match="saw no forward pass of its own language model"):
            decode(tiny_lm(seed=5), PROMPTS, processor, steps=3)

    @pytest.mark.parametrize("method", METHODS)
    def test_sequences_without_bos(self, method):
        lm = tiny_lm()
        processor, _ = made(method, lm, top_k=5)
        inputs = batch(lm, PROMPTS)
        inputs["input_ids"][inputs["input_ids"] == BOS] = 9
        with pytest.raises(InvalidInputError, match=r"begin with the token 0 \(BOS\)"):
            lm.model.generate(**inputs, max_new_tokens=2, logits_processor=[processor], pad_token_id=EOS)

    def test_a_second_generation_without_bos(self):
        lm = tiny_lm()
        processor, _ = made("arm", lm, top_k=5)
        decode(lm, PROMPTS, processor, steps=3)
        inputs = batch(lm, PROMPTS)
        inputs["input_ids"][inputs["input_ids"] == BOS] = 9
        with pytest.raises(InvalidInputError, match=r"begin with the token 0 \(BOS\)"):
            lm.model.generate(**inputs, max_new_tokens=2, logits_processor=[processor], pad_token_id=EOS)

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"top_k": 0}, "top_k expects a whole number of at least 1"),
            ({"top_p": 0.0}, r"top_p expects a number in \(0, 1\]"),
            ({"beta": float("nan")}, "finite beta"),
            ({"attribute": "kidn"}, "unknown attribute 'kidn'. Did you mean 'kind'?"),
            ({"attribute": 2}, "unknown attribute 2"),
            ({"weights": {}}, "at least one attribute"),
            ({"weights": {"kind": np.inf}}, "expects a finite number"),
            ({"weights": {"cold": 1.0}}, "unknown attribute 'cold'"),
            ({"weights": {"kind": 1.0, 0: 2.0}}, "names an attribute twice"),
            ({"weights": {"kind": "much"}}, "expects a finite number"),
            ({"weights": ["kind"]}, "expects a finite number"),
            ({"beta": "5"}, "finite beta, got '5'"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(InvalidInputError, match=message):
            made("arm", tiny_lm(), **options)

    @pytest.mark.parametrize("method", METHODS)
    def test_rewards_that_are_not_finite(self, method):
        lm = tiny_lm()
        processor, _ = made(method, lm, top_k=5)
        scale(processor, np.nan)
        with pytest.raises(InvalidInputError, match="15 candidates without a finite reward"):
            decode(lm, PROMPTS, processor, steps=2)

    def test_a_prefix_at_the_end_of_the_positions(self):
        lm = tiny_lm()
        processor, _ = made("rad", lm, top_k=5)
        long = [" ".join(["w4"] * 63)]
        with pytest.raises(InvalidInputError, match="reward model takes 64 tokens"):
            decode(lm, long, processor, steps=1)

    def test_a_cache_that_cannot_be_shared(self):
        lm = tiny_lm()
        processor, _ = made("rad", lm, top_k=5)
        with pytest.raises(InvalidInputError, match="dynamic cache of full attention"):
            decode(lm, PROMPTS, processor, steps=2, use_cache=False)
