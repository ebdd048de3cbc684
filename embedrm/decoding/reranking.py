"""Choice among texts by a reward model, for generators that show no tokens: best of n, and step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding.redistribution import ResponseScorer
from embedrm.decoding.steps import AGGREGATIONS, Aggregation, aggregate
from embedrm.errors import InvalidInputError, unknown_name

if TYPE_CHECKING:
    from embedrm.language_models import LanguageModel

VIEWS = ("prefix", "step")
Propose = Callable[[str, Sequence[str], int], Sequence[str]]
"""(prompt, steps so far, n) -> up to n next steps; none where the text has ended."""


@dataclass(frozen=True)
class Choice:
    """The best of some responses to one prompt.

    Attributes
    ----------
    index : int
        Its place among them; the first of those that tie.
    response : str
    reward : float
    rewards : ndarray of shape (n,), float64
        Of all of them.
    """

    index: int
    response: str
    reward: float
    rewards: NDArray[np.float64]


@dataclass(frozen=True)
class Chain:
    """A solution in steps.

    Attributes
    ----------
    steps : tuple of str
        They make up the text when joined.
    rewards : tuple of float
        Of each step.
    reward : float
        Of the chain, by the aggregation.
    ended : bool
        Whether the generator had nothing to add.
    """

    steps: tuple[str, ...]
    rewards: tuple[float, ...]
    reward: float
    ended: bool

    @property
    def text(self) -> str:
        """The steps, joined."""
        return "".join(self.steps)


def best_of_n(prompts: Sequence[str], responses: Sequence[Sequence[str]], scorer: ResponseScorer) -> list[Choice]:
    """Choose for each prompt the response of the highest reward.

    Parameters
    ----------
    prompts : sequence of str
    responses : sequence of sequences of str
        For each prompt at least one; from :func:`embedrm.decoding.generation.generate`, a file, or any other source.
    scorer : RewardPipeline or other ResponseScorer
        Called once. A reward model of vectors becomes one with its encoder: ``RewardPipeline(encoder, model)``.

    Returns
    -------
    list of Choice

    Raises
    ------
    InvalidInputError
        For a prompt without responses, and a scorer that gives no finite reward.
    """
    if len(prompts) != len(responses):
        raise InvalidInputError(
            f"best_of_n expects responses to each of {len(prompts)} prompts, got those of {len(responses)}"
        )
    for row, found in enumerate(responses):
        if isinstance(found, str) or not found:
            raise InvalidInputError(
                f"best_of_n expects at least one response in a list for each prompt; prompt {row} has none"
            )
    flat = [(prompt, response) for prompt, found in zip(prompts, responses) for response in found]
    rewards = _score(scorer, [p for p, _ in flat], [r for _, r in flat], "best_of_n")
    choices, start = [], 0
    for found in responses:
        own = rewards[start : start + len(found)]
        start += len(found)
        best = int(own.argmax())
        choices.append(Choice(best, found[best], float(own[best]), own))
    return choices


def step_rewards(
    scorer: ResponseScorer, prompt: str, steps: Sequence[str], *, view: str = "prefix"
) -> NDArray[np.float64]:
    """Reward each step of a solution.

    Parameters
    ----------
    scorer : RewardPipeline or other ResponseScorer
    prompt : str
    steps : sequence of str
        Joined, they are the solution.
    view : {"prefix", "step"}
        What the scorer reads as the response: the solution up to and with the step, or the step alone.

    Returns
    -------
    ndarray of shape (n_steps,), float64
        For :func:`embedrm.decoding.steps.aggregate`.
    """
    if view not in VIEWS:
        raise unknown_name("view of a step", view, VIEWS)
    texts = [_read(steps[: t + 1], view) for t in range(len(steps))]
    return _score(scorer, [prompt] * len(texts), texts, "step_rewards") if texts else np.empty(0)


def search_steps(
    prompt: str,
    propose: Propose,
    scorer: ResponseScorer,
    *,
    n: int = 8,
    width: int = 1,
    max_steps: int = 16,
    view: str = "prefix",
    rule: str | Aggregation = "last",
) -> Chain:
    """Write a solution step by step, keeping the chains of the highest reward at each step.

    Parameters
    ----------
    prompt : str
    propose : callable
        ``propose(prompt, steps_so_far, n)`` gives up to n next steps, or none where the text has ended; see
        :func:`language_model_steps`. What it gives twice is scored once.
    scorer : RewardPipeline or other ResponseScorer
        Called once a step.
    n : int
        Steps proposed for each chain.
    width : int
        Chains kept; 1 keeps the best step and goes on from there.
    max_steps : int
    view : {"prefix", "step"}
        As in :func:`step_rewards`.
    rule : str or Aggregation
        Of the steps' rewards into the chain's; see :func:`embedrm.decoding.steps.aggregate`. With the view ``prefix``,
        ``last`` is the reward of the text so far.

    Returns
    -------
    Chain
        The best among the chains that ended; where none did, the best of the others.

    Raises
    ------
    InvalidInputError
        For numbers below 1, an unknown view or rule, no proposal at all, or a reward that is not finite.
    """
    for name, value in {"n": n, "width": width, "max_steps": max_steps}.items():
        if value < 1:
            raise InvalidInputError(f"search_steps expects {name} of at least 1, got {value}")
    if view not in VIEWS:
        raise unknown_name("view of a step", view, VIEWS)
    if isinstance(rule, str):
        AGGREGATIONS.get(rule)
    alive, ended = [Chain((), (), -np.inf, False)], []
    for _ in range(max_steps):
        grown: list[tuple[Chain, str]] = []
        for chain in alive:
            proposed = list(dict.fromkeys(propose(prompt, chain.steps, n)))
            grown += [(chain, step) for step in proposed]
            if not proposed and chain.steps:
                ended.append(Chain(chain.steps, chain.rewards, chain.reward, True))
        if not grown:
            break
        texts = [_read((*chain.steps, step), view) for chain, step in grown]
        rewards = _score(scorer, [prompt] * len(texts), texts, "search_steps")
        longer = []
        for (chain, step), reward in zip(grown, rewards):
            each = (*chain.rewards, float(reward))
            longer.append(Chain((*chain.steps, step), each, aggregate(each, rule), False))
        # the first of those that tie, so that the choice does not depend on how Python sorts
        alive = sorted(longer, key=lambda chain: -chain.reward)[:width]
    else:
        # the last step may also have been the end; the generator is not asked again
        return max(ended or alive, key=lambda chain: chain.reward)
    if not ended:
        raise InvalidInputError("search_steps was given no step at all for this prompt; check the generator")
    return max(ended, key=lambda chain: chain.reward)


def language_model_steps(
    lm: LanguageModel, *, end: str = ".", max_new_tokens: int = 40, top_p: float | None = 0.95, seed: int = 0
) -> Propose:
    """Return a ``propose`` for :func:`search_steps` that samples a language model up to the end of a sentence.

    Parameters
    ----------
    lm : LanguageModel
    end : str
        A step ends with the first of these texts in it, or where the model ends the text.
    max_new_tokens : int
        Of a step; one that has not ended by then is taken as it is.
    top_p : float, optional
    seed : int
        Of the draws; each step has its own.
    """
    from embedrm.decoding.generation import generate

    def propose(prompt: str, steps: Sequence[str], n: int) -> list[str]:
        text = prompt + "".join(steps)
        own = int(np.random.SeedSequence([seed, len(steps)]).generate_state(1)[0])
        (found,) = generate(lm, [text], n=n, max_new_tokens=max_new_tokens, top_p=top_p, seed=own)
        cut = [one.text[: one.text.index(end) + len(end)] if end in one.text else one.text for one in found]
        return [step for step in cut if step.strip()]

    return propose


def _read(steps: Sequence[str], view: str) -> str:
    return "".join(steps) if view == "prefix" else steps[-1]


def _score(scorer: ResponseScorer, prompts: list[str], responses: list[str], who: str) -> NDArray[np.float64]:
    rewards = np.asarray(scorer.score(prompts, responses), dtype=np.float64)
    if rewards.shape != (len(responses),):
        raise InvalidInputError(f"{who} expects a reward for each of {len(responses)} responses, got {rewards.shape}")
    n_bad = int((~np.isfinite(rewards)).sum())
    if n_bad:
        raise InvalidInputError(f"{who} expects finite rewards; the scorer gave {n_bad} of {len(rewards)} that are not")
    return rewards
