"""A reward for every token or sentence of a response, from a model that rewards whole responses.

The pieces' rewards sum to the response's reward: as shaping by a potential, they change when a reward is given and not how
much of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.errors import InvalidInputError, unknown_name

METHODS = ("increments", "leave-one-out")
UNITS = ("words", "sentences")
_WORD = re.compile(r"\s*\S+")
# A full stop inside a number or before a small letter ends no sentence.
_SENTENCE = re.compile(r".+?(?:[.!?]+[\"')\]]*(?=\s+[^a-z\s]|\s*$)|\n+|$)\s*", re.DOTALL)


class ResponseScorer(Protocol):
    """Gives rewards to responses: a ``RewardPipeline``, or anything with its method ``score``."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[Any]:
        """Return one reward for each pair of prompt and response, shape (n,)."""
        ...


@dataclass(frozen=True)
class Redistribution:
    """A response in pieces, with a reward for each.

    Attributes
    ----------
    pieces : tuple of str
        They make up the response when joined.
    rewards : ndarray of shape (n_pieces,), float64
        Their exact sum (``math.fsum``) is the total, as nearly as doubles of their size can say it: it is off by less than
        the spacing of the smallest piece.
    total : float
        Reward of the whole response.
    method : {"increments", "leave-one-out"}
    spread : float
        What was added to each piece so that they sum to the total: 0 for increments, which do so by themselves. A large one
        says that the response is worth more, or less, than its pieces one by one.
    """

    pieces: tuple[str, ...]
    rewards: NDArray[np.float64]
    total: float
    method: str
    spread: float = 0.0


def increments(prefix_rewards: ArrayLike) -> NDArray[np.float64]:
    r"""Return what each piece adds: :math:`d_t = r(x_{1:t}) - r(x_{1:t-1})`, with :math:`r(x_{1:0}) = 0`.

    Parameters
    ----------
    prefix_rewards : array-like of shape (n_pieces,)
        Rewards of the prefixes of one response, the whole response last. A prefix head gives them in one pass.

    Returns
    -------
    ndarray of shape (n_pieces,), float64
        Their sum is the last prefix reward, see :class:`Redistribution`.

    Raises
    ------
    InvalidInputError
        For another shape, no piece, or rewards that are not finite.
    """
    rewards = _checked(prefix_rewards, "increments")
    return _exact(np.diff(rewards, prepend=0.0), float(rewards[-1]))


def leave_one_out(total: float, without: ArrayLike) -> tuple[NDArray[np.float64], float]:
    r"""Return what is lost without each piece, shifted alike for all so that they sum to the total.

    :math:`d_t = r(x) - r(x \setminus x_t) + s`, with :math:`s = (r(x) - \sum_t [r(x) - r(x \setminus x_t)]) / n`. A common
    shift keeps the differences between pieces, where a common factor would turn their signs when the losses sum to little.

    Parameters
    ----------
    total : float
        r(x).
    without : array-like of shape (n_pieces,)
        Rewards of the response without each piece.

    Returns
    -------
    rewards : ndarray of shape (n_pieces,), float64
        Their sum is the total, see :class:`Redistribution`.
    spread : float
        s.

    Raises
    ------
    InvalidInputError
        As :func:`increments`.
    """
    rest = _checked(without, "leave_one_out")
    if not math.isfinite(total):
        raise InvalidInputError(f"leave_one_out expects a finite total, got {total!r}")
    losses = total - rest
    spread = (total - math.fsum(losses)) / len(losses)
    return _exact(losses + spread, float(total)), spread


def redistribute(
    scorer: ResponseScorer,
    prompt: str,
    response: str,
    *,
    pieces: str | Sequence[str] = "sentences",
    method: str = "increments",
) -> Redistribution:
    """Distribute the reward of a response over its pieces.

    Parameters
    ----------
    scorer : RewardPipeline or other ResponseScorer
        Called once, with all texts.
    prompt, response : str
    pieces : {"sentences", "words"} or sequence of str
        Your own pieces (such as a tokenizer's) must make up the response when joined.
    method : {"increments", "leave-one-out"}
        What each piece adds to the text before it, or what the response loses without it.

    Returns
    -------
    Redistribution

    Raises
    ------
    InvalidInputError
        For an unknown method or unit, an empty response, pieces that do not make up the response, and a scorer that gives no
        finite reward.

    References
    ----------
    The idea of a dense reward that sums to the scalar is that of "Dense Reward for Free" (2024), which takes a reward
    model's attention for it; models on frozen embeddings have none, so this is an analogue.
    """
    if method not in METHODS:
        raise unknown_name("method of redistribution", method, METHODS)
    parts = _pieces(response, pieces)
    if method == "increments":
        texts = ["".join(parts[: t + 1]) for t in range(len(parts))]
    elif len(parts) > 1:
        texts = ["".join(parts[:t] + parts[t + 1 :]) for t in range(len(parts))] + [response]
    else:
        # nothing is left without the only piece, and it has the whole reward in any case
        texts = [response]
    rewards = _checked(scorer.score([prompt] * len(texts), texts), "redistribute")
    if len(rewards) != len(texts):
        raise InvalidInputError(f"redistribute asked for {len(texts)} rewards and got {len(rewards)}; check the scorer")
    total = float(rewards[-1])
    if method == "increments" or len(parts) == 1:
        return Redistribution(tuple(parts), _exact(np.diff(rewards, prepend=0.0), total), total, method)
    shared, spread = leave_one_out(total, rewards[:-1])
    return Redistribution(tuple(parts), shared, total, method, spread)


def split_words(text: str) -> list[str]:
    """Split into words with the space before them; joined, they are the text."""
    return _with_end(text, _WORD.findall(text))


def split_sentences(text: str) -> list[str]:
    """Split after full stops, question and exclamation marks and line breaks; joined, the sentences are the text."""
    return _with_end(text, [part for part in _SENTENCE.findall(text) if part])


def _with_end(text: str, parts: list[str]) -> list[str]:
    rest = text[len("".join(parts)) :]
    return [*parts[:-1], parts[-1] + rest] if parts and rest else parts


_SPLITS: dict[str, Callable[[str], list[str]]] = {"words": split_words, "sentences": split_sentences}


def _pieces(response: str, pieces: str | Sequence[str]) -> list[str]:
    if isinstance(pieces, str):
        if pieces not in _SPLITS:
            raise unknown_name("unit of redistribution", pieces, UNITS)
        found = _SPLITS[pieces](response)
    else:
        found = list(pieces)
        if "".join(found) != response:
            raise InvalidInputError(
                "redistribute expects pieces that make up the response when joined, spaces included; these do not"
            )
    if not found:
        raise InvalidInputError("redistribute expects a response with at least one piece, got an empty one")
    return found


def _checked(values: ArrayLike, who: str) -> NDArray[np.float64]:
    rewards = np.asarray(values, dtype=np.float64)
    if rewards.ndim != 1 or not len(rewards):
        raise InvalidInputError(f"{who} expects rewards of shape (n,) with n of at least 1, got {rewards.shape}")
    if not np.isfinite(rewards).all():
        n_bad = int((~np.isfinite(rewards)).sum())
        raise InvalidInputError(f"{who} expects finite rewards; {n_bad} of {len(rewards)} are not")
    return rewards


def _exact(rewards: NDArray[np.float64], total: float) -> NDArray[np.float64]:
    """Move the error of rounding into the smallest piece, whose spacing is the finest, until it shrinks no more.

    Once is enough but where pieces differ by many powers of ten: what is left then goes into what is the smallest by then.
    """
    before = math.inf
    while abs(error := math.fsum([total, *(-rewards)])) < before and error != 0.0:
        before = abs(error)
        rewards[int(np.abs(rewards).argmin())] += error
    return rewards
