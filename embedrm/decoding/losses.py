r"""Losses of prefix heads on arrays: cumulative, distilled, regularised, pairwise. Values with slopes and curvatures.

A head's outputs are scores at positions. All losses here are sums over positions with weights that are made once, by
:func:`cumulative_weights` or :func:`uniform_weights`, so that no loss has to know where a text begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Array = NDArray[np.float64]


def cumulative_weights(lengths: NDArray[Any], weights: NDArray[Any] | None = None) -> Array:
    r"""Weights :math:`\omega_i \frac{2t}{l_i(l_i+1)} / \sum_j \omega_j` of positions t = 1..l of all texts, in order.

    They sum to one within a text, so that long and short texts count alike (Deng and Raffel 2023, RAD; Troshin et al. 2024,
    Eq. 5 and 9).

    Parameters
    ----------
    lengths : ndarray of shape (n_texts,), int
        Tokens of each text, BOS left out; at least 1.
    weights : ndarray of shape (n_texts,), optional
        omega; 1 where absent.

    Returns
    -------
    ndarray of shape (lengths.sum(),), float64
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    omega = np.ones(len(lengths)) if weights is None else np.asarray(weights, dtype=np.float64)
    t = positions_in_text(lengths) + 1
    each = omega / omega.sum() * 2.0 / (lengths * (lengths + 1.0))
    return t * np.repeat(each, lengths)


def uniform_weights(lengths: NDArray[Any], weights: NDArray[Any] | None = None) -> Array:
    """Every position alike (times its text's weight), so that a long text counts for more; sums to one.

    So the distillation of the official code weights them (github.com/serjtroshin/rad-q).
    """
    omega = np.ones(len(lengths)) if weights is None else np.asarray(weights, dtype=np.float64)
    each = np.repeat(omega, lengths)
    total: Array = each / each.sum()
    return total


def last_weights(lengths: NDArray[Any], weights: NDArray[Any] | None = None) -> Array:
    """Only the last position of every text."""
    lengths = np.asarray(lengths, dtype=np.int64)
    omega = np.ones(len(lengths)) if weights is None else np.asarray(weights, dtype=np.float64)
    out = np.zeros(int(lengths.sum()))
    out[np.cumsum(lengths) - 1] = omega / omega.sum()
    return out


POSITION_WEIGHTS = {"cumulative": cumulative_weights, "uniform": uniform_weights, "last": last_weights}


def positions_in_text(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """0, 1, .., l_1 - 1, 0, 1, .., l_2 - 1, .. for texts of these lengths."""
    lengths = np.asarray(lengths, dtype=np.int64)
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def squared_error(outputs: Array, targets: Array, weights: Array) -> float:
    """Weighted sum of squared differences: zero exactly where they are equal wherever there is weight.

    With :func:`cumulative_weights` and a text's label at all its positions this is the cumulative loss of RAD and the
    responses-only loss of ARM (Troshin et al. 2024, Eq. 9); with :func:`uniform_weights` and a teacher's rewards, the
    distillation loss (Eq. 10).
    """
    return float((weights * (outputs - targets) ** 2).sum())


def cross_entropy(outputs: Array, targets: Array, weights: Array) -> float:
    r"""Weighted sum of :math:`\log(1+e^{s}) - y s` for scores s and targets y in [0, 1]."""
    return float((weights * (np.logaddexp(0.0, outputs) - targets * outputs)).sum())


def pair_loss(scores: Array, pairs: NDArray[np.intp], outcome: Array, weights: Array) -> float:
    r"""Bradley-Terry loss :math:`-o\log\sigma(m) - (1-o)\log\sigma(-m)` of the final prefixes' scores, m their difference.

    ``outcome`` o is 1 where the first of a pair won, 0.5 for a tie; the weights should sum to one.
    """
    m = scores[pairs[:, 0]] - scores[pairs[:, 1]]
    return float((weights * (np.logaddexp(0.0, -m) + (1.0 - outcome) * m)).sum())


def increments(rewards: Array, starts: NDArray[Any], lengths: NDArray[Any]) -> Array:
    """Differences r(x_1..t) - r(x_1..t-1), t = 1..l, of the prefixes of texts.

    Parameters
    ----------
    rewards : ndarray of shape (n_rows, n_attributes)
        Of prefixes; row ``starts[i]`` is that of BOS alone.
    starts, lengths : ndarray of shape (n_texts,)
        First row and number of tokens (BOS left out) of each text.

    Returns
    -------
    ndarray of shape (lengths.sum(), n_attributes)
    """
    before = np.repeat(starts, lengths) + positions_in_text(lengths)
    return np.asarray(rewards[before + 1] - rewards[before], dtype=np.float64)


@dataclass(frozen=True)
class Point:
    """A loss at some outputs: its value, its slope on each output, and the curvature on each where it is diagonal."""

    value: float
    slope: Array
    curvature: Array | None
    state: Any = None


class OutputLoss:
    """A convex loss on outputs."""

    quadratic = False

    def evaluate(self, outputs: Array) -> Point:
        """Value, slopes and curvatures."""
        raise TypeError(f"{type(self).__name__} does not implement evaluate")

    def second(self, at: Point, direction: Array) -> Array:
        """Hessian at a point times a direction of outputs."""
        if at.curvature is None:
            raise TypeError(f"{type(self).__name__} must implement second")
        return at.curvature * direction

    def value(self, outputs: Array) -> float:
        """Value alone."""
        return self.evaluate(outputs).value

    def curvature_bound(self) -> Array:
        """Curvature at zero outputs, diagonal part: what a preconditioner is made of."""
        raise TypeError(f"{type(self).__name__} does not implement curvature_bound")


class Squares(OutputLoss):
    """:func:`squared_error` of fixed targets and weights."""

    quadratic = True

    def __init__(self, targets: Array, weights: Array) -> None:
        self.targets, self.weights = targets, weights
        self._curvature = 2.0 * weights

    def evaluate(self, outputs: Array) -> Point:
        """Value, slopes and curvatures."""
        gap = outputs - self.targets
        slope = self._curvature * gap
        return Point(0.5 * float((slope * gap).sum()), slope, self._curvature)

    def curvature_bound(self) -> Array:
        """Twice the weights."""
        return self._curvature


class CrossEntropy(OutputLoss):
    """:func:`cross_entropy` of fixed targets and weights."""

    def __init__(self, targets: Array, weights: Array) -> None:
        self.targets, self.weights = targets, weights

    def evaluate(self, outputs: Array) -> Point:
        """Value, slopes and curvatures."""
        p = expit(outputs)
        value = cross_entropy(outputs, self.targets, self.weights)
        return Point(value, self.weights * (p - self.targets), self.weights * p * (1.0 - p))

    def curvature_bound(self) -> Array:
        """A quarter of the weights."""
        return 0.25 * self.weights


class Pairs(OutputLoss):
    """:func:`pair_loss` of fixed pairs of outputs."""

    def __init__(self, n_outputs: int, pairs: NDArray[np.intp], outcome: Array, weights: Array) -> None:
        self.n_outputs, self.pairs, self.outcome, self.weights = n_outputs, pairs, outcome, weights

    def _scatter(self, pull: Array) -> Array:
        first, second = self.pairs.T
        out: Array = np.bincount(first, pull, self.n_outputs).astype(np.float64)
        out -= np.bincount(second, pull, self.n_outputs)
        return out

    def evaluate(self, outputs: Array) -> Point:
        """Value and slopes; the curvature is not diagonal."""
        m = outputs[self.pairs[:, 0]] - outputs[self.pairs[:, 1]]
        p = expit(m)
        value = pair_loss(outputs, self.pairs, self.outcome, self.weights)
        return Point(value, self._scatter(self.weights * (p - self.outcome)), None, self.weights * p * (1.0 - p))

    def second(self, at: Point, direction: Array) -> Array:
        """Hessian at a point times a direction of outputs."""
        m = direction[self.pairs[:, 0]] - direction[self.pairs[:, 1]]
        return self._scatter(at.state * m)

    def curvature_bound(self) -> Array:
        """Sum over an output's pairs of w / 4."""
        quarter = 0.25 * self.weights
        return np.asarray(np.bincount(self.pairs.T.ravel(), np.tile(quarter, 2), self.n_outputs), dtype=np.float64)


class WithRegulariser(OutputLoss):
    """A loss on the first column of outputs, and weighted squares of the others (Troshin et al. 2024, Eq. 11).

    The other columns are delta(v'|x) of random tokens v', which are pushed to zero, so that continuations that were never
    seen fall back to the prefix's baseline.
    """

    def __init__(self, loss: OutputLoss, weights: Array) -> None:
        self.loss, self.rest = loss, Squares(np.zeros_like(weights), weights)
        self.quadratic = loss.quadratic

    def evaluate(self, outputs: Array) -> Point:
        """Value, slopes and curvatures."""
        first, rest = self.loss.evaluate(outputs[:, 0]), self.rest.evaluate(outputs[:, 1:])
        curvature = None
        if first.curvature is not None and rest.curvature is not None:
            curvature = np.column_stack([first.curvature, rest.curvature])
        return Point(first.value + rest.value, np.column_stack([first.slope, rest.slope]), curvature, first)

    def second(self, at: Point, direction: Array) -> Array:
        """Hessian at a point times a direction of outputs."""
        first = self.loss.second(at.state, direction[:, 0])
        return np.column_stack([first, self.rest.weights * 2.0 * direction[:, 1:]])

    def curvature_bound(self) -> Array:
        """Of both."""
        return np.column_stack([self.loss.curvature_bound(), self.rest.curvature_bound()])
