"""Linear layers by oneDNN in training too: the same float32 products, forwards and backwards, on many CPUs faster.

See :mod:`embedrm.encoders.onednn` for why; here the weights stay ordinary parameters, which can be trained and saved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Products of random order: far above rounding, far below any mistake.
_CLOSE = 1e-4


def use_trainable_onednn(model: Any) -> bool:
    """Let the linear layers of a model use oneDNN; weights, names and gradients stay what they are.

    Returns
    -------
    bool
        Whether it was done: not where oneDNN is missing, switched off, or gives other values or slopes.
    """
    import torch

    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    try:
        linear = _function()
        if not _agrees(linear):
            return False
    except Exception:  # an operator of another version: go on without
        return False
    for layer in model.modules():
        if type(layer) is torch.nn.Linear and layer.weight.dtype == torch.float32:
            layer.forward = _forward(layer, linear)
    return True


def _forward(layer: Any, linear: Any) -> Callable[[Any], Any]:
    # the weight is looked up at every call: it may be replaced, or trained
    return lambda x: linear.apply(x, layer.weight, layer.bias)


def _function() -> Any:
    import torch

    product = torch.ops.mkldnn._linear_pointwise

    class Linear(torch.autograd.Function):
        """y = x W' + b."""

        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, bias: Any) -> Any:
            ctx.save_for_backward(x, weight)
            ctx.has_bias = bias is not None
            return product(x, weight, bias, "none", [], "")

        @staticmethod
        def backward(ctx: Any, *slopes: Any) -> Any:
            x, weight = ctx.saved_tensors
            slope = slopes[0].contiguous()
            rows = slope.reshape(-1, slope.shape[-1])
            to_x = to_weight = to_bias = None
            if ctx.needs_input_grad[0]:
                to_x = product(slope, weight.t(), None, "none", [], "")
            if ctx.needs_input_grad[1]:
                to_weight = product(rows.t(), x.reshape(-1, x.shape[-1]).t(), None, "none", [], "")
            if ctx.has_bias and ctx.needs_input_grad[2]:
                to_bias = rows.sum(dim=0)
            return to_x, to_weight, to_bias

    return Linear


def _agrees(linear: Any) -> bool:
    import torch

    draw = torch.Generator().manual_seed(0)
    parts = [torch.randn(*shape, generator=draw).requires_grad_() for shape in ((3, 7, 24), (40, 24), (40,))]
    slope = torch.randn(3, 7, 40, generator=draw)
    found = []
    for form in (linear.apply, torch.nn.functional.linear):
        y = form(*parts)
        found.append([y, *torch.autograd.grad(y, parts, slope)])
    return all(torch.allclose(a, b, rtol=_CLOSE, atol=_CLOSE) for a, b in zip(*found))
