r"""The Bradley–Terry loss with soft outcomes, margins and label smoothing, and its first two derivatives.

For a pair with margin :math:`m = r_{chosen} - r_{rejected}`, outcome :math:`q \in [0, 1]` (share of votes for the
chosen response; 1 for an ordinary pair, 1/2 for a tie) and target margin :math:`\mu`:

.. math:: \ell(m) = -q \log\sigma(m - \mu) - (1 - q) \log\sigma(\mu - m)

Sources: Bradley and Terry (1952), "Rank analysis of incomplete block designs"; the margin as in Touvron et al. (2023),
"Llama 2", section 3.2.2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Vector = NDArray[np.float64]


def smooth_outcome(outcome: Vector, label_smoothing: float) -> Vector:
    """Move every outcome towards its opposite: ``(1 - e) * q + e * (1 - q)`` with e = ``label_smoothing`` in [0, 0.5).

    Use it where a known share e of labels is flipped and the flips do not depend on the texts; it is wrong for clean
    labels, where it shrinks every margin.
    """
    return outcome + label_smoothing * (1.0 - 2.0 * outcome)


def log_loss(margins: Vector, outcome: Vector | float = 1.0) -> Vector:
    """Loss of each pair, in nats.

    Parameters
    ----------
    margins : ndarray of shape (n_pairs,)
        Reward differences minus any target margin, in logits.
    outcome : ndarray of shape (n_pairs,) or float
        Vote share of the chosen response.

    Returns
    -------
    ndarray of shape (n_pairs,)
    """
    return np.logaddexp(0.0, -margins) + (1.0 - outcome) * margins


def log_loss_slope(margins: Vector, outcome: Vector | float = 1.0) -> Vector:
    """First derivative of :func:`log_loss` in the margin: sigma(m) - q."""
    return expit(margins) - outcome


def log_loss_curvature(margins: Vector) -> Vector:
    """Second derivative of :func:`log_loss` in the margin: sigma(m) * sigma(-m), at most 1/4; q does not matter."""
    p = expit(margins)
    return p * (1.0 - p)
