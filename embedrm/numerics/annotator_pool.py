"""Pools of simulated annotators: different hands, one or several answers a pair, and the labels that come of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.numerics.annotation import KEY, Annotator

BY = ("pair", "prompt")

Labels = tuple[NDArray[np.bool_], NDArray[np.float64], dict[str, Any]]


@dataclass(frozen=True)
class AnnotatorPool:
    """Annotators of different care among whom the pairs are dealt out.

    Each answer is given by an annotator who is drawn by ``shares``; with p(delta) the mean of the annotators' probabilities
    by these shares, an answer is right with probability p(delta), whoever gives it.

    Parameters
    ----------
    annotators : sequence of Annotator
        At least one; different ``beta``, ``flip_rate`` or ``scale``.
    shares : sequence of float, optional
        How much of the work each does; positive, and alike where absent. They are put to sum to 1.
    by : {"pair", "prompt"}
        What is dealt out: pairs one by one, or prompts with all their pairs, as crowds are given them, so that the errors
        within a prompt are alike. A pair across prompts goes with the prompt of its better response.
    votes : int, default 1
        Answers a pair. From several, the majority's response is the chosen one and its share is ``outcome``; an even vote is
        a tie, with outcome 0.5.

    Notes
    -----
    With v votes the label is wrong with the probability of a binomial majority, and :meth:`agreement` is the probability
    that the majority is right where there is one, since accuracy leaves ties out.
    """

    annotators: Sequence[Annotator]
    shares: Sequence[float] | None = None
    by: str = "pair"
    votes: int = 1

    def __post_init__(self) -> None:
        kinds = {type(a).__name__ for a in self.annotators if not isinstance(a, Annotator)}
        if kinds or not len(self.annotators):
            raise InvalidInputError(
                f"AnnotatorPool: annotators must be at least one Annotator, got {', '.join(sorted(kinds)) or 'none'}"
            )
        if self.shares is not None:
            shares = np.asarray(self.shares, dtype=np.float64)
            if shares.shape != (len(self.annotators),) or not np.isfinite(shares).all() or not (shares > 0).all():
                raise InvalidInputError(
                    f"AnnotatorPool: shares must be {len(self.annotators)} positive numbers, one for each annotator, got "
                    f"{len(shares) if shares.ndim == 1 else 'another shape'}, the least {shares.min(initial=0.0):g}"
                )
        if self.by not in BY:
            raise unknown_name("unit of an AnnotatorPool (by)", self.by, BY)
        if isinstance(self.votes, bool) or not isinstance(self.votes, int) or self.votes < 1:
            raise InvalidInputError(f"AnnotatorPool: votes must be a whole number of at least 1, got {self.votes!r}")

    @property
    def exact(self) -> bool:
        """Whether no annotator is ever wrong."""
        return all(annotator.exact for annotator in self.annotators)

    def on_scale_of(self, gold: ArrayLike) -> AnnotatorPool:
        """Return the pool with every scale as a number; see :meth:`Annotator.on_scale_of`."""
        return replace(self, annotators=tuple(annotator.on_scale_of(gold) for annotator in self.annotators))

    def agreement(self, delta: ArrayLike) -> NDArray[np.float64]:
        """Return the probability that a label that is no tie prefers the better response; shape of ``delta``."""
        one = np.tensordot(self._shares(), np.stack([a.agreement(delta) for a in self.annotators]), axes=1)
        if self.votes == 1:
            return np.asarray(one, dtype=np.float64)
        right = 1 - bdtr(self.votes // 2, self.votes, one)
        wrong = bdtr((self.votes - 1) // 2, self.votes, one)
        agreed: NDArray[np.float64] = right / (right + wrong)
        return agreed

    def draw(
        self, delta: NDArray[np.float64], unit: NDArray[np.integer[Any]], random_state: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.integer[Any]]]:
        """Draw every answer.

        Parameters
        ----------
        delta : ndarray of shape (n_pairs,)
        unit : ndarray of shape (n_pairs,), int
            Prompt of each pair; read where prompts are dealt out.
        random_state : int

        Returns
        -------
        wrong : ndarray of shape (n_pairs, votes), bool
        who : ndarray of shape (n_pairs, votes), int
            Position of the annotator in the pool.
        """
        rng = np.random.default_rng(random_state)
        n, k = len(delta), len(self.annotators)
        if self.by == "prompt":
            prompts, place = np.unique(unit, return_inverse=True)
            who = rng.choice(k, size=(len(prompts), self.votes), p=self._shares())[place]
        else:
            who = rng.choice(k, size=(n, self.votes), p=self._shares())
        chance = np.stack([1 - a.agreement(delta) for a in self.annotators])
        wrong = rng.random((n, self.votes)) < chance[who, np.arange(n)[:, None]]
        return wrong, who

    def to_info(self) -> dict[str, Any]:
        """Return the noise as plain facts."""
        return {
            "pool": [annotator.to_info() for annotator in self.annotators],
            "shares": self._shares().tolist(),
            "by": self.by,
            "votes": self.votes,
        }

    def _shares(self) -> NDArray[np.float64]:
        given = np.ones(len(self.annotators)) if self.shares is None else np.asarray(self.shares, dtype=np.float64)
        return given / given.sum()


def known_annotator(info: Mapping[str, Any]) -> Annotator | AnnotatorPool | None:
    """Return whom a data set's ``info`` names as the annotator of its labels, None where the noise is not known."""
    facts = info.get(KEY)
    if facts is None:
        return None
    if "pool" in facts:
        annotators = tuple(Annotator.from_facts(one) for one in facts["pool"])
        return AnnotatorPool(annotators, tuple(facts["shares"]), facts["by"], facts["votes"])
    return Annotator.from_facts(facts)


def gaussian_agreement(annotator: Annotator | AnnotatorPool, std: float) -> float:
    """Return the expected share of right labels where differences of gold are Gaussian with mean 0.

    Parameters
    ----------
    annotator : Annotator or AnnotatorPool
        With numbers as scales.
    std : float
        Standard deviation of the *difference*: sqrt(2) times that of one utility, where two are drawn independently.

    Returns
    -------
    float
        Q = E sigmoid(beta |delta| / scale) for a Bradley-Terry annotator; the annotation quality of Sun, Shen and Ton
        (2024). With beta * std / scale squared = 1, 2, 4, 10 it is 0.6749, 0.7252, 0.7780, 0.8428 (their table has 0.7251
        and 0.7781).
    """
    nodes, weights = np.polynomial.legendre.leggauss(400)
    z = 6.0 * (nodes + 1.0)
    density = np.sqrt(2 / np.pi) * np.exp(-0.5 * z**2)
    return float((6.0 * weights * density * annotator.agreement(std * z)).sum())


def draw_labels(
    annotator: Annotator | AnnotatorPool,
    info: Mapping[str, Any],
    outcome: ArrayLike,
    gold: NDArray[np.float64],
    pairs: NDArray[np.integer[Any]],
    unit: NDArray[np.integer[Any]],
    random_state: int,
) -> Labels:
    """Draw the labels of pairs that have right ones so far.

    Parameters
    ----------
    annotator : Annotator or AnnotatorPool
    info : mapping
        Of the data; labels that are noisy already are refused.
    outcome : array-like of shape (n_pairs,)
        1, or 0.5 for a tie, which stays one.
    gold : ndarray of shape (n_responses,)
        NaN where there is none.
    pairs : ndarray of shape (n_pairs, 2)
        Rows of responses, the better one first.
    unit : ndarray of shape (n_pairs,)
        Prompt of each pair.
    random_state : int

    Returns
    -------
    flips : ndarray of shape (n_pairs,), bool
        Pairs to be turned round.
    outcome : ndarray of shape (n_pairs,)
    facts : dict
        What ``info`` tells of it, under one key.
    """
    before = known_annotator(info)
    if before is not None and not before.exact:
        raise InvalidInputError(
            f"the labels are noisy already ({KEY} {info[KEY]!r}); annotate the data that they were made from"
        )
    outcome = np.asarray(outcome, dtype=np.float64)
    between = int(((outcome > 0.5) & (outcome < 1)).sum())
    if between:
        raise InvalidInputError(
            f"annotate expects labels that are sure (outcome 1) or ties (0.5); {between} of {len(outcome)} pairs have a "
            "vote share between"
        )
    if not isinstance(annotator, (Annotator, AnnotatorPool)):
        raise InvalidInputError(f"annotate: expected an Annotator or an AnnotatorPool, got {type(annotator).__name__}")
    known = annotator.on_scale_of(gold)
    tie = outcome == 0.5
    delta = np.where(tie, 0.0, gold[pairs[:, 0]] - gold[pairs[:, 1]])
    facts = known.to_info()
    if isinstance(known, Annotator):
        flips = known.flips(delta, random_state) & ~tie
        if known != annotator:
            facts["scale_rule"] = annotator.scale  # type: ignore[union-attr]
    else:
        wrong, who = known.draw(delta, unit, random_state)
        against = wrong.sum(axis=1)
        even = 2 * against == known.votes
        # the order in a pair of an even vote must not tell which response is better
        flips = np.where(even, wrong[:, 0], 2 * against > known.votes) & ~tie
        share = np.maximum(against, known.votes - against) / known.votes
        outcome = np.where(tie, 0.5, share)
        asked, k = ~tie, len(known.annotators)
        facts["answers"] = np.bincount(who[asked].ravel(), minlength=k).tolist()
        facts["wrong_answers"] = np.bincount(who[asked][wrong[asked]], minlength=k).tolist()
        for one, given in zip(facts["pool"], annotator.annotators):  # type: ignore[union-attr]
            if one.get("scale") != given.to_info().get("scale"):
                one["scale_rule"] = given.scale
    facts |= {"random_state": int(random_state), "flipped": int((flips & (outcome != 0.5)).sum())}
    return flips, outcome, {KEY: facts}
