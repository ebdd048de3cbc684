r"""The mean pair loss as a function of rewards: value, slope on each response, and curvature along a direction.

.. math::
    f(r) = \sum_i a_i \left[ \ell_{q_i}(r_{c(i)} - r_{j(i)} - \mu_i) + \gamma (r_{c(i)} + r_{j(i)})^2 \right]

with chosen row c(i), rejected row j(i), weights a summing to one, :math:`\ell_q` of
:mod:`embedrm.numerics.bradley_terry` and centring :math:`\gamma`. Cost: one exponential a pair, memory O(pairs).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedrm.numerics.graph import scatter_to_responses

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """Value of the loss at some rewards, its slope on each response (n_responses,), and the pairs' curvature."""

    value: float
    slope: Vector
    curvature: Vector


class PairLoss:
    """Weighted mean Bradley–Terry loss over a comparison graph.

    Parameters
    ----------
    pairs : ndarray of shape (n_pairs, 2), int
        Rows of rewards, chosen first.
    n_responses : int
    weight, outcome, target : ndarray of shape (n_pairs,)
        Pair weights (scaled here to sum to one), vote shares of the chosen response, target margins.
    centring : float
        Strength of the penalty on reward sums.
    """

    def __init__(
        self,
        pairs: NDArray[np.intp],
        n_responses: int,
        weight: Vector,
        outcome: Vector,
        target: Vector,
        centring: float = 0.0,
    ) -> None:
        self.chosen = np.ascontiguousarray(pairs[:, 0])
        self.rejected = np.ascontiguousarray(pairs[:, 1])
        self.pairs = pairs
        self.n_responses = n_responses
        self.weight = weight / weight.sum()
        self.outcome = None if (outcome == 1.0).all() else outcome
        self.target = target if target.any() else None
        self.centring = centring

    def margins(self, rewards: Vector) -> Vector:
        """Reward differences of the pairs; shape (n_pairs,)."""
        return rewards[self.chosen] - rewards[self.rejected]

    def evaluate(self, rewards: Vector) -> Evaluation:
        """Value, slope and curvature at rewards (n_responses,)."""
        m = self.margins(rewards)
        if self.target is not None:
            m -= self.target
        # one exponential serves the loss, its slope and its curvature
        e = np.exp(-np.abs(m))
        loss = np.log1p(e)
        loss -= np.minimum(m, 0.0)
        if self.outcome is not None:
            loss += (1.0 - self.outcome) * m
        value = float(self.weight @ loss)
        e /= 1.0 + e
        # e is now the probability of the less likely side
        error = np.where(m >= 0, -e, e - 1.0)
        if self.outcome is not None:
            error += 1.0 - self.outcome
        slope = scatter_to_responses(self.weight * error, self.pairs, self.n_responses)
        curvature = self.weight * (e * (1.0 - e))
        if self.centring:
            sums = rewards[self.chosen] + rewards[self.rejected]
            value += self.centring * float(self.weight @ sums**2)
            pull = 2.0 * self.centring * self.weight * sums
            slope += scatter_to_responses(pull, self.pairs, self.n_responses, sign=1.0)
        return Evaluation(value, slope, curvature)

    def second_derivative(self, at: Evaluation, direction: Vector) -> float:
        """Curvature of the loss along a direction of rewards (n_responses,)."""
        total = float(at.curvature @ self.margins(direction) ** 2)
        if self.centring:
            sums = direction[self.chosen] + direction[self.rejected]
            total += 2.0 * self.centring * float(self.weight @ sums**2)
        return total
