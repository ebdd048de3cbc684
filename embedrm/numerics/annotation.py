"""Simulated annotators: known label noise on labels that are known to be right, and the accuracy it still allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from embedrm.errors import InvalidInputError

KEY = "label_noise"
"""Where a data set's ``info`` tells the noise of its labels; absent where it is not known."""

GLOBAL_STD = "global-std"
"""The scale that is the standard deviation of the gold of all responses."""


@dataclass(frozen=True)
class Annotator:
    """An annotator who compares two responses and is sometimes wrong.

    The better of two responses, ahead by ``delta`` in gold, is preferred with probability::

        q = 1 if beta is None else sigmoid(beta * delta / scale)
        p = (1 - flip_rate) * q + flip_rate * (1 - q)

    Parameters
    ----------
    flip_rate : float, default 0
        Share of answers that are turned round whatever the responses are, in [0, 0.5).
    beta : float, optional
        Sharpness of a Bradley-Terry annotator, above zero, in units of ``scale`` over units of gold: small differences are
        confused more often than large ones. None: differences are always seen.
    scale : float or "global-std", default 1.0
        What a difference of gold is divided by, above zero. ``beta`` means something only beside it, so that ``info``
        states both. ``"global-std"``: the standard deviation (over n) of the gold of all responses that have one, in
        whatever pairs they are, so that one annotator labels every part of a data set on one scale.

    Notes
    -----
    Both kinds of error are standard in studies of preference noise: Sun et al. (2025, section 5) annotate by Bradley-Terry
    probabilities of gold rewards, and a constant flip rate is the noise that label smoothing assumes. Their code divides
    by 6 for one data set and by 1 for the other; that of the follow-up by the global standard deviation. Perfect labels
    (a negative quality there) are ``Annotator()``.
    """

    flip_rate: float = 0.0
    beta: float | None = None
    scale: float | str = 1.0

    def __post_init__(self) -> None:
        if not _number(self.flip_rate) or not 0 <= self.flip_rate < 0.5:
            raise InvalidInputError(f"Annotator: flip_rate must lie in [0, 0.5), got {self.flip_rate!r}")
        if self.beta is not None and (not _number(self.beta) or self.beta <= 0):
            raise InvalidInputError(f"Annotator: beta must be a finite number above 0, or None; got {self.beta!r}")
        if self.scale != GLOBAL_STD and (isinstance(self.scale, str) or not _number(self.scale) or self.scale <= 0):
            raise InvalidInputError(
                f"Annotator: scale must be a finite number above 0, or {GLOBAL_STD!r}; got {self.scale!r}"
            )

    @property
    def exact(self) -> bool:
        """Whether the annotator is never wrong."""
        return self.flip_rate == 0 and self.beta is None

    def on_scale_of(self, gold: ArrayLike) -> Annotator:
        """Return the annotator with its scale as a number.

        Parameters
        ----------
        gold : array-like
            Gold of all responses; NaN where there is none.
        """
        if self.beta is None or not isinstance(self.scale, str):
            return self
        known = np.asarray(gold, dtype=np.float64)
        known = known[~np.isnan(known)]
        spread = float(known.std()) if len(known) else 0.0
        if not isfinite(spread) or spread <= 0:
            raise InvalidInputError(
                f"an annotator with scale={GLOBAL_STD!r} needs gold that differs, and {len(known)} responses with gold have "
                f"a standard deviation of {spread:g}; give data with gold, or a number as scale"
            )
        return replace(self, scale=spread)

    def agreement(self, delta: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of preferring the better response, for differences of gold; shape of ``delta``.

        It is also the expected accuracy of a perfect reward model on labels of this annotator: the noise ceiling.
        """
        delta = np.abs(np.asarray(delta, dtype=np.float64))
        if self.beta is None:
            seen = np.ones_like(delta)
        else:
            if not np.isfinite(delta).all():
                raise InvalidInputError(
                    f"an annotator with beta needs gold of both responses of every pair; {int((~np.isfinite(delta)).sum())} "
                    f"of {delta.size} pairs have none. Give a flip_rate alone, or data with gold"
                )
            if isinstance(self.scale, str):
                raise InvalidInputError(
                    f"this annotator's scale {self.scale!r} is not a number yet; call on_scale_of(gold), or use annotate"
                )
            seen = expit(self.beta * delta / self.scale)
        agreed: NDArray[np.float64] = (1 - self.flip_rate) * seen + self.flip_rate * (1 - seen)
        return agreed

    def flips(self, delta: ArrayLike, random_state: int) -> NDArray[np.bool_]:
        """Draw which of the labels come out wrong; (n_pairs,) of bool, one uniform draw a pair in their order."""
        wrong = 1 - self.agreement(delta)
        drawn: NDArray[np.bool_] = np.random.default_rng(random_state).random(wrong.shape) < wrong
        return drawn

    def to_info(self) -> dict[str, Any]:
        """Return the noise as plain facts; the scale stands beside ``beta``, where there is one."""
        facts: dict[str, Any] = {
            "flip_rate": float(self.flip_rate),
            "beta": None if self.beta is None else float(self.beta),
        }
        if self.beta is not None:
            facts["scale"] = self.scale if isinstance(self.scale, str) else float(self.scale)
        return facts

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Annotator:
        """Return the annotator of :meth:`to_info`; facts without a scale are on scale 1."""
        return cls(facts["flip_rate"], facts["beta"], facts.get("scale", 1.0))

    @classmethod
    def for_error_rate(cls, delta: ArrayLike, error_rate: float, *, scale: float = 1.0) -> Annotator:
        """Return the Bradley-Terry annotator who gets a given share of these pairs wrong, on average.

        Parameters
        ----------
        delta : array-like of shape (n_pairs,)
            Differences of gold of the pairs, in either direction; the zeros, which are right either way, are left out.
        error_rate : float
            In [0, 0.5); 0 gives perfect labels.
        scale : float
            Of the annotator; ``beta`` goes with it.
        """
        gaps = np.abs(np.asarray(delta, dtype=np.float64))
        gaps = gaps[gaps != 0]
        if not len(gaps) or not np.isfinite(gaps).all():
            raise InvalidInputError(
                f"Annotator.for_error_rate needs gold of every pair, and a difference in some; got {len(gaps)} differences"
            )
        if not _number(error_rate) or not 0 <= error_rate < 0.5:
            raise InvalidInputError(f"Annotator.for_error_rate: error_rate must lie in [0, 0.5), got {error_rate!r}")
        if error_rate == 0:
            return cls()
        from scipy.optimize import brentq

        # in units of the mean difference, and on a log axis: the rate falls from one half to nothing along it
        unit = float(gaps.mean())
        log_beta = brentq(lambda t: expit(-np.exp(t) * gaps / unit).mean() - error_rate, -40.0, 40.0, xtol=1e-12)
        return cls(beta=float(np.exp(log_beta)) * scale / unit, scale=scale)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
