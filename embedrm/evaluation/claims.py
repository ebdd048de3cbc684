"""Claims of papers, and verdicts on them that follow from an interval by one rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedrm.errors import InvalidInputError

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
VERDICTS = (HOLDS, FAILS, UNDECIDED)
SETTINGS = ("re-implementation", "analogue")


@dataclass(frozen=True)
class Region:
    """Where the measured quantity must lie if the claim is true.

    Parameters
    ----------
    least, most : float
        Bounds; infinite where there is none.
    closed : bool
        Whether the bounds belong to the region. "Better" is open at zero; "bit-identical" is the closed region [0, 0].

    Examples
    --------
    >>> Region(least=0.0).verdict(0.01, 0.05)  # "higher": the interval of the difference lies above zero
    'holds'
    >>> Region(least=-0.01, most=0.01).verdict(-0.004, 0.02)  # "comparable", to within a point
    'undecided'
    """

    least: float = -math.inf
    most: float = math.inf
    closed: bool = False

    def __post_init__(self) -> None:
        if math.isnan(self.least) or math.isnan(self.most) or self.least > self.most:
            raise InvalidInputError(f"a region needs least <= most, got {self.least!r} and {self.most!r}")
        if not self.closed and self.least == self.most:
            raise InvalidInputError(f"an open region from {self.least!r} to itself is empty; make it closed")

    def verdict(self, low: float, high: float) -> str:
        """Return the verdict on an interval.

        ``"holds"``: the whole interval lies in the region. ``"does not hold"``: no point of it does. ``"undecided"``:
        anything else. A quantity without sampling error is an interval of no width.
        """
        if not low <= high:
            raise InvalidInputError(f"an interval needs low <= high, got {low!r} and {high!r}")
        if self.closed:
            inside, outside = self.least <= low and high <= self.most, high < self.least or low > self.most
        else:
            inside, outside = self.least < low and high < self.most, high <= self.least or low >= self.most
        return HOLDS if inside else FAILS if outside else UNDECIDED

    def sentence(self) -> str:
        """Say the region in words, for a table."""
        if self.least == self.most:
            return f"exactly {self.least:g}"
        over, under = ("at least", "at most") if self.closed else ("above", "below")
        parts = [f"{over} {self.least:g}"] if self.least > -math.inf else []
        parts += [f"{under} {self.most:g}"] if self.most < math.inf else []
        return " and ".join(parts) or "anything"


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, stated before it is measured.

    Parameters
    ----------
    id : str
        Short and lasting, such as ``"rodos-most-accurate"``.
    statement : str
        The claim, in our words.
    source : str
        Paper and place, and how it is known.
    setting : {"re-implementation", "analogue"}
    quantity : str
        What is measured here, with its unit.
    region : Region
        Where it must lie.
    """

    id: str
    statement: str
    source: str
    setting: str
    quantity: str
    region: Region

    def __post_init__(self) -> None:
        if self.setting not in SETTINGS:
            raise InvalidInputError(f"claim {self.id!r}: setting must be {' or '.join(SETTINGS)}, got {self.setting!r}")

    def judge(self, value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
        """Return the claim with what was measured and the verdict, as plain facts.

        Parameters
        ----------
        value : float
        low, high : float, optional
            Interval; the value itself where it has no sampling error (a count of parameters, a law).
        """
        low, high = value if low is None else low, value if high is None else high
        for name, number in (("value", value), ("low", low), ("high", high)):
            if not math.isfinite(number):
                raise InvalidInputError(f"claim {self.id!r}: {name} must be finite, got {number!r}")
        return self._facts(float(value), [float(low), float(high)], self.region.verdict(low, high))

    def all_of(self, cells: Sequence[Mapping[str, float]]) -> dict[str, Any]:
        """Judge a claim that is several at once, such as "the best of three": one cell (value, low, high) for each part.

        It holds where every part holds, does not hold where one does not, and is undecided otherwise. The part shown is
        the one that decides: the one with the worst verdict, of these the one furthest towards the outside.
        """
        if not cells:
            raise InvalidInputError(f"claim {self.id!r}: expected at least one part, got none")
        judged = [self.judge(c["value"], c["low"], c["high"]) for c in cells]
        rank = {FAILS: 0, UNDECIDED: 1, HOLDS: 2}
        return min(judged, key=lambda facts: (rank[facts["verdict"]], self._depth(facts["measured"])))

    def _depth(self, value: float) -> float:
        """Distance from the nearer bound, negative outside."""
        return min(value - self.region.least, self.region.most - value)

    def _facts(self, measured: float, interval: list[float], verdict: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "statement": self.statement,
            "source": self.source,
            "setting": self.setting,
            "quantity": f"{self.quantity}; the claim: {self.region.sentence()}",
            "measured": measured,
            "interval": interval,
            "verdict": verdict,
        }
