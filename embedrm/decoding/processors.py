"""Reward-guided decoding through the ordinary ``model.generate``: logits processors for RAD and ARM."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding.candidates import CandidateFilter
from embedrm.decoding.guidance import RewardMix
from embedrm.decoding.guidance_bridge import TextBridge, same_tokens
from embedrm.decoding.guidance_cache import PrefixCache, candidate_states, check_shareable
from embedrm.decoding.guidance_tap import LastStep, ModelTap
from embedrm.errors import InvalidInputError

if TYPE_CHECKING:
    from embedrm.language_models import LanguageModel


@dataclass
class Calls:
    """What guidance has cost since the processor was made.

    Attributes
    ----------
    steps : int
        Calls of the processor: generated tokens, times the batches they were generated in.
    reward_passes : int
        Forward passes of the reward model that were not the guided model's own.
    rewarded : int
        Candidates that were given a reward, over all sequences.
    """

    steps: int = 0
    reward_passes: int = 0
    rewarded: int = 0


class RewardProcessor:
    """Base of the processors: candidates, rewards, and the sum of logit and reward.

    Subclasses say what a candidate's reward is (``_rewards``).
    """

    supports_continuous_batching = False

    def __init__(
        self,
        lm: LanguageModel,
        head: Any,
        beta: float,
        *,
        top_k: int | None = None,
        top_p: float | None = None,
        clamp: bool | None = None,
        inverse: bool = False,
        attribute: int | str = 0,
        weights: Mapping[str, float] | None = None,
        reward_lm: LanguageModel | None = None,
    ) -> None:
        who = type(self).__name__
        if isinstance(beta, bool) or not isinstance(beta, (int, float, np.number)) or not np.isfinite(beta):
            raise InvalidInputError(f"{who} expects a finite beta, got {beta!r}; 0 is no guidance")
        self.lm, self.head, self.beta = lm, head, float(beta)
        self.reward_lm = lm if reward_lm is None else reward_lm
        self.filter = CandidateFilter(top_k, top_p)
        head.check_model(self.reward_lm.fingerprint())
        self.mix = RewardMix.of(head, attribute=attribute, weights=weights, clamp=clamp, inverse=inverse)
        # the scorer gives no other attributes than these
        self._scorer, self._mix = head.scorer(self.mix.columns), self.mix.alone()
        self.calls = Calls()
        self._same_tokens = same_tokens(lm, self.reward_lm)
        # of the generation whose beginning was looked at last
        self._begun: Any = None
        self._n_tokens = lm.vocab_size
        if self._same_tokens and self.reward_lm.vocab_size < self._n_tokens:
            raise InvalidInputError(
                f"{who}: the guided model may write {self._n_tokens:,} tokens and the reward model reads "
                f"{self.reward_lm.vocab_size:,}; use a reward model with a row for each of them"
            )
        self._tap = ModelTap(lm.model)

    @property
    def shared(self) -> bool:
        """Whether the reward is read from the guided model's own states."""
        return self.reward_lm is self.lm

    def describe(self) -> str:
        """Return one sentence on what guides and what it reads."""
        states = "the guided model's own states" if self.shared else "the states of a reward model of its own"
        return f"{type(self).__name__} with beta {self.beta:g}, reading {states}"

    def close(self) -> None:
        """Take the hooks off the model; the processor cannot be used afterwards."""
        self._tap.close()

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Add beta times the reward to each candidate's logit; every other token gets minus infinity.

        Parameters
        ----------
        input_ids : torch.LongTensor of shape (n_sequences, length)
        scores : torch.FloatTensor of shape (n_sequences, V)

        Returns
        -------
        torch.FloatTensor of shape (n_sequences, V)
        """
        import torch

        step = self._tap.take(input_ids, type(self).__name__)
        self.calls.steps += 1
        candidates = self.filter.select(scores)
        if self.beta == 0.0:
            if candidates is None:
                return scores
            ids, guided, valid = candidates.ids, candidates.scores, candidates.valid
        else:
            self._check_beginning(input_ids, step)
            ids = None if candidates is None else candidates.ids
            valid = None if candidates is None else candidates.valid
            with torch.inference_mode():
                rewards = self._rewards(step, input_ids, ids)
            self.calls.rewarded += rewards[..., 0].size if valid is None else int(valid.sum())
            mixed = self._mixed(rewards, valid)
            mixed *= self.beta
            mixed = torch.from_numpy(np.ascontiguousarray(mixed))
            guided = (scores if candidates is None else candidates.scores) + mixed.to(scores.dtype)
            if ids is None:
                return guided
        if valid is not None:
            guided = guided.masked_fill(~valid, -torch.inf)
        return torch.full_like(scores, -torch.inf).scatter_(1, ids, guided)

    def _mixed(self, rewards: NDArray[np.floating[Any]], valid: Any) -> NDArray[np.floating[Any]]:
        mixed = self._mix(rewards)
        # what is not a candidate may have any reward: it is never read. One sum finds what is not finite
        if not np.isfinite(mixed.sum()):
            wrong = ~np.isfinite(mixed)
            if valid is not None:
                wrong &= valid.numpy()
            if wrong.any():
                raise InvalidInputError(
                    f"{type(self).__name__} met {int(wrong.sum())} candidates without a finite reward; look for NaN in the "
                    "head's training states, or fit it with more regularisation"
                )
        return mixed

    def _rewards(self, step: LastStep, input_ids: Any, ids: Any) -> NDArray[np.floating[Any]]:
        """Rewards of the candidates (of every token where ``ids`` is None), (n_sequences, k, n_chosen)."""
        raise TypeError(f"{type(self).__name__} does not implement _rewards")

    def _check_beginning(self, input_ids: Any, step: LastStep) -> None:
        """Raise unless every sequence begins with the token that the head's training texts began with."""
        # a generation keeps its cache and its beginnings
        if step.cache is not None and self._begun is not None and self._begun() is step.cache:
            return
        mask = step.mask
        first = input_ids[:, 0] if mask is None else input_ids.gather(1, (mask != 0).int().argmax(dim=1, keepdim=True))
        if bool((first != self.lm.bos_id).any()):
            raise InvalidInputError(
                f"{type(self).__name__} expects sequences that begin with the token {self.lm.bos_id} (BOS), as the "
                "texts that its head was trained on; put it before the prompt's tokens, after the padding"
            )
        self._begun = None if step.cache is None else weakref.ref(step.cache)


class RADProcessor(RewardProcessor):
    r"""Reward-augmented decoding: :math:`z_v + \beta\,\rho(x_{1:t}, v)`, with one state of the reward model per candidate.

    All candidates of all sequences are scored in one forward pass on the key-value cache of their prefix, which none of
    them copies. The cache is the guided model's own where the head reads that model's states; otherwise the reward model
    keeps its own, to which the chosen candidate's keys and values are added without another pass.

    Parameters
    ----------
    lm : LanguageModel
        The guided model.
    head : RADHead
        Fitted on states of ``reward_lm``.
    beta : float
        Weight of the reward; 0 is unguided decoding under the same filter, to the bit.
    top_k : int, optional
    top_p : float, optional
        The candidates (see :class:`~embedrm.decoding.candidates.CandidateFilter`). Without either, every token is one, and
        is scored: as slow as it sounds.
    clamp : bool, optional
        Clamp each attribute's reward to [0, 1]; by default as the head was taught (``head.bounded_``).
    inverse : bool
        Steer away: 1 - reward.
    attribute : int or str
        The attribute to steer by.
    weights : mapping of attribute to float, optional
        Several attributes instead.
    reward_lm : LanguageModel, optional
        Whose states the head reads; the guided model by default.
    bridge : bool
        Go by way of the text where the two models' tokens differ: every prefix with every candidate is written out,
        tokenised anew and read from its beginning.

    Raises
    ------
    InvalidInputError
        For a head of another language model, for models whose tokens differ without ``bridge``, and for a reward model
        that cannot score candidates side by side.

    Notes
    -----
    Pass ``top_k=0`` to ``generate``: its own default of 50 is applied after the processor.

    References
    ----------
    Deng and Raffel (2023), "Reward-augmented decoding: efficient controlled text generation with a unidirectional reward
    model". Re-implementation.
    """

    def __init__(
        self,
        lm: LanguageModel,
        head: Any,
        beta: float,
        *,
        top_k: int | None = None,
        top_p: float | None = None,
        clamp: bool | None = None,
        inverse: bool = False,
        attribute: int | str = 0,
        weights: Mapping[str, float] | None = None,
        reward_lm: LanguageModel | None = None,
        bridge: bool = False,
    ) -> None:
        super().__init__(
            lm,
            head,
            beta,
            top_k=top_k,
            top_p=top_p,
            clamp=clamp,
            inverse=inverse,
            attribute=attribute,
            weights=weights,
            reward_lm=reward_lm,
        )
        who = type(self).__name__
        self.bridge: TextBridge | None = None
        if not self._same_tokens:
            if not bridge:
                raise InvalidInputError(
                    f"{who}: the reward model's tokens are not the guided model's, so that a candidate means nothing to it; "
                    "give bridge=True to go by way of the text (slow), or a reward model with the same tokenizer"
                )
            self.bridge = TextBridge(lm, self.reward_lm)
        else:
            check_shareable(self.reward_lm.model, who)
        self._own = None if self.shared or self.bridge else PrefixCache(self.reward_lm.model, who)

    def _rewards(self, step: LastStep, input_ids: Any, ids: Any) -> NDArray[np.floating[Any]]:
        import torch

        n = len(input_ids)
        if ids is None:
            ids = torch.arange(self._n_tokens).expand(n, -1)
        if self.bridge is not None:
            states = self.bridge.states(input_ids, step.mask, ids)
            self.calls.reward_passes += 1
        else:
            states = self._states(step, input_ids, ids)
        rewards = self._scorer(states.reshape(-1, states.shape[-1]).float())
        return np.asarray(rewards.numpy()).reshape(n, ids.shape[1], -1)

    def _states(self, step: LastStep, input_ids: Any, ids: Any) -> Any:
        cache, who = step.cache, type(self).__name__
        if self._own is not None:
            before = self._own.passes
            self._own.follow(input_ids, step.mask, state=False)
            self.calls.reward_passes += self._own.passes - before
            cache = self._own.cache
        states, entries = candidate_states(self.reward_lm.model, cache, step.mask, input_ids, ids, who)
        self.calls.reward_passes += 1
        if self._own is not None:
            self._own.offer(ids, entries)
        return states


class ARMProcessor(RewardProcessor):
    r"""Decoding by an autoregressive reward model: :math:`z_v + \beta\,\rho(v \mid x_{1:t})`, all tokens from one state.

    The state is the guided model's own where the head was trained on it, so that nothing but products is added to a step;
    otherwise a reward model reads along, one token a step, on its own key-value cache.

    Parameters
    ----------
    lm : LanguageModel
        The guided model.
    head : ARMHead
        Fitted on states and output embeddings of ``reward_lm``.
    beta : float
    top_k : int, optional
    top_p : float, optional
    clamp : bool, optional
    inverse : bool
    attribute : int or str
    weights : mapping of attribute to float, optional
    reward_lm : LanguageModel, optional
        As in :class:`RADProcessor`. Its tokens must be the guided model's: the head knows rewards of tokens, not of texts.
    whole_vocabulary : bool
        Compute the reward of every token, and then look up the candidates; the same numbers, for comparison of costs.

    Raises
    ------
    InvalidInputError
        For a head of another language model, or a reward model with other tokens.

    References
    ----------
    Troshin, Niculae and Fokkens (2024), "Efficient controlled language generation with low-rank autoregressive reward
    models", Eq. 6-8. Re-implementation.
    """

    def __init__(
        self,
        lm: LanguageModel,
        head: Any,
        beta: float,
        *,
        top_k: int | None = None,
        top_p: float | None = None,
        clamp: bool | None = None,
        inverse: bool = False,
        attribute: int | str = 0,
        weights: Mapping[str, float] | None = None,
        reward_lm: LanguageModel | None = None,
        whole_vocabulary: bool = False,
    ) -> None:
        super().__init__(
            lm,
            head,
            beta,
            top_k=top_k,
            top_p=top_p,
            clamp=clamp,
            inverse=inverse,
            attribute=attribute,
            weights=weights,
            reward_lm=reward_lm,
        )
        if not self._same_tokens:
            raise InvalidInputError(
                "ARMProcessor: the reward model's tokens are not the guided model's, and its rewards are of tokens; use "
                "RADProcessor(..., bridge=True), or train the head on the guided model's states"
            )
        self.whole_vocabulary = whole_vocabulary
        self._own = None if self.shared else PrefixCache(self.reward_lm.model, "ARMProcessor")

    def _rewards(self, step: LastStep, input_ids: Any, ids: Any) -> NDArray[np.floating[Any]]:
        if self._own is None:
            states = step.states
        else:
            states = self._own.follow(input_ids, step.mask, state=True)
            self.calls.reward_passes += 1
        read = states.float()
        if ids is None:
            return np.asarray(self._scorer(read)[:, : self._n_tokens].numpy())
        # a table is read faster in one piece than most of it row by row
        if self.whole_vocabulary or 2 * ids.shape[1] > self._n_tokens:
            every = self._scorer(read)
            return np.asarray(every.gather(1, ids[:, :, None].expand(-1, -1, every.shape[2])).numpy())
        return np.asarray(self._scorer(read, ids).numpy())
