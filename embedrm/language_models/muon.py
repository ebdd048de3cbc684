"""Muon: momentum whose steps are made orthogonal, for the matrices inside a transformer.

The step of a matrix is its momentum with every singular value brought near 1, by five Newton-Schulz iterations (Jordan et
al. 2024, "Muon: an optimizer for hidden layers"), so that few steps go far. Steps are scaled to the size that those of
AdamW have (Liu et al. 2025, "Muon is scalable for LLM training"), so that both can share one learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

Product = Callable[[Any, Any], Any]

_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
# The root mean square of AdamW's steps is about so large.
_SIZE = 0.2


class Muon:
    """Orthogonalised Nesterov momentum with decoupled weight decay.

    Parameters
    ----------
    weights : sequence of Tensor, each (m, n)
    momentum : float
    weight_decay : float
    product : callable, optional
        See :func:`orthogonal`.
    """

    def __init__(
        self, weights: Sequence[Any], *, momentum: float, weight_decay: float, product: Product | None = None
    ) -> None:
        import torch

        self.momentum, self.weight_decay, self.product = momentum, weight_decay, product
        self._moments = [(weight, torch.zeros_like(weight)) for weight in weights]

    def step(self, learning_rate: float) -> None:
        """Move the weights against their gradients, and forget the gradients."""
        import torch

        with torch.no_grad():
            for weight, moment in self._moments:
                moment.mul_(self.momentum).add_(weight.grad)
                step = weight.grad.add_(moment, alpha=self.momentum)
                tall = step.shape[0] > step.shape[1]
                # a tall matrix is worked on as a wide one
                step = orthogonal(step.T.contiguous() if tall else step, self.product)
                weight.mul_(1.0 - learning_rate * self.weight_decay)
                weight.sub_(step.T if tall else step, alpha=learning_rate * _SIZE * math.sqrt(max(step.shape)))
                weight.grad = None


def orthogonal(matrix: Any, product: Product | None = None) -> Any:
    """Return a matrix (m, n), m <= n, with the singular vectors of the given one and singular values about 1.

    Parameters
    ----------
    matrix : Tensor of shape (m, n)
    product : callable, optional
        ``product(x, y)`` is x y', by whatever is fastest here.
    """
    a, b, c = _QUINTIC
    times = _matmul if product is None else product
    x = matrix / (matrix.norm() + 1e-12)
    for _ in range(_ITERATIONS):
        square = times(x, x)
        # the square is symmetric: its product with itself needs no transposing
        x = a * x + times(b * square + c * times(square, square), x.T)
    return x


def onednn_product() -> Product:
    """Return x, y → x y' of matrices by oneDNN, on many CPUs twice as fast.

    For where :func:`embedrm.tuning.linear.use_trainable_onednn` has found that oneDNN serves.
    """
    import torch

    linear = torch.ops.mkldnn._linear_pointwise
    return lambda x, y: linear(x, y, None, "none", [], "")


def _matmul(x: Any, y: Any) -> Any:
    return x @ y.T
