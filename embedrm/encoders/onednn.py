"""Linear layers by oneDNN instead of the BLAS that torch was built with: the same float32 products, on many CPUs faster.

torch sends float32 matrix products to MKL, which uses its widest vector instructions on Intel processors only; oneDNN,
which every CPU build of torch also contains, uses those of any x86 processor. On an AMD EPYC with AVX-512 that doubles
the speed of encoding. torch offers it for inference through operators meant for its own compiler, so nothing here is
taken on trust: the model is run before and after, and put back where the answers differ or the operators are missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Products of random order: far above rounding, far below any mistake.
_CLOSE = 1e-4


def use_onednn(model: Any, probe: Callable[[], Any]) -> bool:
    """Let a frozen model's linear layers use oneDNN, for inference only.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode, float32, on the CPU. Its linear layers are changed in place and can no longer be trained or
        saved: their weights are kept in oneDNN's own layout alone.
    probe : callable
        Runs the model on something small and returns a tensor.

    Returns
    -------
    bool
        Whether it was done. If not, the model is as it was.
    """
    import torch

    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    try:
        pack, product = torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise
    except AttributeError:
        return False
    # Exactly nn.Linear: a subclass may do something else with its weights.
    layers = [m for m in model.modules() if type(m) is torch.nn.Linear and m.weight.dtype == torch.float32]
    originals = [layer.weight for layer in layers]
    try:
        with torch.inference_mode():
            before = probe()
            for layer in layers:
                _convert(layer, pack, product)
            after = probe()
        if torch.allclose(before, after, rtol=_CLOSE, atol=_CLOSE * float(before.abs().max())):
            return True
    except Exception:  # an operator of another version, a model that reads its weights itself: go on without
        pass
    for layer, weight in zip(layers, originals):
        vars(layer).pop("forward", None)
        layer.weight = weight
    return False


def _convert(layer: Any, pack: Any, product: Any) -> None:
    import torch

    packed = pack(layer.weight.detach())
    bias = None if layer.bias is None else layer.bias.detach()
    # A stand-in without storage: some models ask a layer's weight for its type.
    layer.weight = torch.nn.Parameter(torch.empty_like(layer.weight, device="meta"), requires_grad=False)
    layer.forward = lambda x: product(x, packed, bias, "none", [], "")
