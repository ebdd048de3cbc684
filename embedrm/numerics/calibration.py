"""Put margins and class scores on a probability scale with one number each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from embedrm.numerics.bradley_terry import log_loss

Vector = NDArray[np.float64]

# A temperature outside these bounds means the scores carry no signal or separate the data; both are reported as bounds.
LOG_SCALE_BOUNDS = (-7.0, 7.0)


def platt_targets(outcome: Vector | float, n_independent: int) -> Vector:
    r"""Outcomes q moved to :math:`(n q + 1) / (n + 2)`: what n observations can support, and never certainty.

    They are symmetric: the target of 1 - q is one minus that of q. Source: Platt (1999), section 2.2.
    """
    targets: Vector = (n_independent * np.asarray(outcome, dtype=np.float64) + 1.0) / (n_independent + 2.0)
    return targets


def fit_margin_scale(
    margins: Vector,
    outcome: Vector | float = 1.0,
    weight: Vector | None = None,
    n_independent: int | None = None,
    *,
    smooth: bool = True,
) -> float:
    r"""Scale a > 0 that minimises the weighted mean of :math:`-\log\sigma(a\,m)` with Platt's targets (1/a: temperature).

    Parameters
    ----------
    margins : ndarray of shape (n_pairs,)
        Held-out or out-of-fold margins; in-sample margins give an overconfident scale.
    outcome : ndarray of shape (n_pairs,) or float
        Vote share of the chosen response.
    weight : ndarray of shape (n_pairs,), optional
        Pair weights.
    n_independent : int, optional
        Independent observations behind the margins (prompt groups); the number of pairs where absent. Outcomes are those
        of :func:`platt_targets`, so that margins which rank every pair rightly get the confidence that n observations can
        support, and not an infinite one.
    smooth : bool
        False leaves the outcomes as they are: the plain maximum likelihood, which runs to the upper bound where every pair
        is ranked rightly.

    Returns
    -------
    float
        The scale, within exp(-7) and exp(7). Anti-correlated margins end at the lower bound: they are all but ignored.

    References
    ----------
    Platt (1999), "Probabilistic outputs for support vector machines", section 2.2 (the targets); Guo et al. (2017), "On
    calibration of modern neural networks", section 4.2 (a single scale).

    Notes
    -----
    Platt's sigmoid has a scale and an intercept, :math:`\sigma(a m + b)`. On margins b cannot exist: the pair the other way
    round has the margin -m, and :math:`\sigma(-a m + b) = 1 - \sigma(a m + b)` only where b = 0. With another b the two
    orders of one pair would get probabilities that do not sum to one, equal rewards would have a favourite, and a model
    would look better or worse by the order in which a file lists its pairs. (Fitted on pairs with the chosen response
    first, where every label is 1, b would grow without limit.) So Platt's method has one parameter here; what remains of
    it beside a temperature are its targets.
    """
    n = len(margins) if n_independent is None else n_independent
    target = platt_targets(outcome, n) if smooth else outcome

    def objective(log_scale: float) -> float:
        return float(np.average(log_loss(np.exp(log_scale) * margins, target), weights=weight))

    return float(np.exp(minimize_scalar(objective, bounds=LOG_SCALE_BOUNDS, method="bounded").x))


def fit_softmax_temperature(
    scores: NDArray[np.float64], labels: NDArray[np.intp], weight: Vector | None = None
) -> float:
    """Temperature T > 0 that minimises the cross-entropy of ``softmax(scores / T)`` on held-out rows.

    Parameters
    ----------
    scores : ndarray of shape (n, n_classes)
        Unnormalised log-probabilities.
    labels : ndarray of shape (n,)
        Index of the true class.
    weight : ndarray of shape (n,), optional
        How much each row counts.
    """
    rows = np.arange(len(labels))

    def objective(log_scale: float) -> float:
        return -float(np.average(log_softmax(np.exp(log_scale) * scores, axis=1)[rows, labels], weights=weight))

    return float(np.exp(-minimize_scalar(objective, bounds=LOG_SCALE_BOUNDS, method="bounded").x))
