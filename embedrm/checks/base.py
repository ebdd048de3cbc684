"""What a law of reward models is, and how one is checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from embedrm.reward_model import RewardModel


class LawBroken(AssertionError):
    """A reward model does not obey a law; the message says which, and by how much."""


LawFunction = Callable[[RewardModel, float], None]


@dataclass(frozen=True)
class Law:
    """A sentence that is true of every reward model, with the function that checks it.

    Attributes
    ----------
    name : str
        Short name, as it appears in test ids and in tables of deviations.
    statement : str
        The law as a sentence.
    tolerance : float
        Largest difference allowed, in standard deviations of the expected values; 0 where the law is exact or not
        about numbers.
    function : callable
        Takes an unfitted model and the tolerance, and raises :class:`LawBroken`.
    """

    name: str
    statement: str
    tolerance: float
    function: LawFunction


LAWS: dict[str, Law] = {}


def law(statement: str, tolerance: float = 0.0) -> Callable[[LawFunction], LawFunction]:
    """Register a function as the law of its name."""

    def decorate(function: LawFunction) -> LawFunction:
        name = getattr(function, "__name__", "")
        if name in LAWS:
            raise RuntimeError(f"the law {name!r} is registered twice")
        LAWS[name] = Law(name, statement, tolerance, function)
        return function

    return decorate


@dataclass(frozen=True)
class Check:
    """One law applied to one model; call it."""

    model: RewardModel
    law: Law
    tolerance: float

    def __call__(self) -> None:
        """Raise :class:`LawBroken` unless the model obeys the law. The model itself is not fitted: a clone is."""
        try:
            self.law.function(clone(self.model), self.tolerance)
        except LawBroken as broken:
            raise LawBroken(f"{self} does not hold ({self.law.statement}): {broken}") from None

    def __str__(self) -> str:
        return f"{type(self.model).__name__}-{self.law.name}"


def require(condition: object, message: str) -> None:
    """Raise :class:`LawBroken` with ``message`` unless the condition is true."""
    if not condition:
        raise LawBroken(message)


def same(actual: ArrayLike, expected: ArrayLike, tolerance: float, what: str) -> None:
    """Raise :class:`LawBroken` unless two arrays agree.

    Parameters
    ----------
    actual, expected : array-like of one shape
    tolerance : float
        In standard deviations of ``expected``; 0 asks for equality to the bit.
    what : str
        What the arrays are, as the subject of the message.
    """
    a, b = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    require(a.shape == b.shape, f"{what} have shape {a.shape}, expected {b.shape}")
    if np.array_equal(a, b, equal_nan=True):
        return
    scale = float(b.std()) or float(np.abs(b).max()) or 1.0
    gap = float(np.max(np.abs(a - b))) / scale
    n_off = int((a != b).sum())
    require(
        tolerance > 0 and gap <= tolerance,
        f"{what} differ in {n_off} of {a.size} places, by up to {gap:.1e} standard deviations (allowed: {tolerance:.0e})",
    )
