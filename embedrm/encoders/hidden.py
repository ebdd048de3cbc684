"""Mean-pooled hidden states of chosen transformer blocks, in one pass, and no block run that is not needed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any


class _Enough(Exception):
    """Raised inside a forward pass once everything asked for is known, and caught by the one who asked."""


def find_blocks(model: Any, n_layers: int) -> Any:
    """Return a transformer's list of blocks: the outermost ``ModuleList`` of ``n_layers`` equal modules, else None."""
    from torch.nn import ModuleList

    lists = [
        (name.count("."), module)
        for name, module in model.named_modules()
        if isinstance(module, ModuleList) and len(module) == n_layers and len({type(block) for block in module}) == 1
    ]
    return min(lists, key=lambda found: found[0])[1] if lists else None


def masked_mean(states: Any, weights: Any) -> Any:
    """Average hidden states over a text's tokens.

    Parameters
    ----------
    states : tensor of shape (n, tokens, dim)
    weights : tensor of shape (n, 1, tokens)
        1 / (number of tokens) where there is a token, 0 where there is padding.

    Returns
    -------
    tensor of shape (n, dim)
    """
    return (weights @ states).squeeze(1)


class HiddenMeans:
    """Pools the states that enter chosen blocks, while a model runs.

    State k (0 is the embedding output) is what enters block k + 1, the definition of ``hidden_states[k]`` in
    transformers. It is averaged the moment it exists, so no stack of states is held, and the pass is ended there when
    nothing above it is wanted. The last state, which in some architectures passes a last normalisation, is the model's
    ``last_hidden_state`` and is left to the caller.

    Parameters
    ----------
    blocks : sequence of torch modules
        From :func:`find_blocks`.
    """

    def __init__(self, blocks: Any) -> None:
        self.blocks = blocks

    def run(
        self, forward: Callable[[], Any], weights: Any, wanted: Collection[int], *, finish: bool
    ) -> tuple[Any, Any]:
        """Run a forward pass.

        Parameters
        ----------
        forward : callable
            Runs the model.
        weights : tensor
            See :func:`masked_mean`.
        wanted : collection of int
            States 0 to n_layers - 1.
        finish : bool
            Whether the rest of the pass is wanted too.

        Returns
        -------
        output
            What ``forward`` returned, None where it was ended early.
        means : dict of int to tensor of shape (n, dim)
        """
        means: dict[int, Any] = {}
        last = max(wanted, default=-1)

        def tap(k: int) -> Callable[[Any, Any, Any], None]:
            def hook(module: Any, args: Any, kwargs: Any) -> None:
                means[k] = masked_mean(args[0] if args else kwargs["hidden_states"], weights)
                if k == last and not finish:
                    raise _Enough

            return hook

        handles = [self.blocks[k].register_forward_pre_hook(tap(k), with_kwargs=True) for k in wanted]
        try:
            output = forward()
        except _Enough:
            output = None
        finally:
            for handle in handles:
                handle.remove()
        return output, means
