"""What a processor must know of the guided model's last step: its states, its attention mask, its key-value cache.

``generate`` gives a processor token ids and logits only. Hooks on the model keep the rest of the same forward pass, so that
nothing is computed twice and ``generate`` need not know of it.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

from embedrm.errors import InvalidInputError


@dataclass
class LastStep:
    """The guided model's latest forward pass.

    Attributes
    ----------
    states : torch.Tensor of shape (n_sequences, d)
        What the language model's head read at the last position.
    mask : torch.Tensor of shape (n_sequences, length), or None
        1 for tokens, 0 for padding; None where nothing is padded.
    cache : transformers.Cache or None
        Keys and values of the whole prefix.
    """

    states: Any
    mask: Any
    cache: Any


class ModelTap:
    """Hooks on a causal language model that keep its latest step until it is taken.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        With an output layer (``get_output_embeddings``).

    Raises
    ------
    InvalidInputError
        Where the model has no output layer to listen to.
    """

    def __init__(self, model: Any) -> None:
        head = model.get_output_embeddings()
        if head is None:
            raise InvalidInputError(f"{type(model).__name__} has no output embeddings; guidance needs a causal LM")
        self._states: Any = None
        self._step: LastStep | None = None
        # the hooks live on the model, and must not keep a processor alive that nobody else holds
        me = weakref.ref(self)

        def read(module: Any, args: tuple[Any, ...]) -> None:
            tap = me()
            if tap is not None:
                tap._states = args[0][:, -1]

        def keep(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            tap = me()
            if tap is not None:
                tap._keep(kwargs, output)

        self._handles = [head.register_forward_pre_hook(read), model.register_forward_hook(keep, with_kwargs=True)]
        for handle in self._handles:
            weakref.finalize(self, handle.remove)

    def _keep(self, kwargs: dict[str, Any], output: Any) -> None:
        states, self._states = self._states, None
        if states is not None:
            self._step = LastStep(states, kwargs.get("attention_mask"), getattr(output, "past_key_values", None))

    def take(self, input_ids: Any, who: str) -> LastStep:
        """Return the step that led to these tokens, once.

        Raises
        ------
        InvalidInputError
            Where no pass of this model came just before, or it was of other sequences.
        """
        step, self._step = self._step, None
        if step is None or len(step.states) != len(input_ids):
            raise InvalidInputError(
                f"{who} saw no forward pass of its own language model before this step: it steers the model it was made "
                "with, through model.generate(..., logits_processor=[processor]); make one for each model"
            )
        if step.mask is not None and (step.mask.ndim != 2 or step.mask.shape != input_ids.shape):
            raise InvalidInputError(
                f"{who} expects an attention mask of the shape of the tokens, {tuple(input_ids.shape)}, got "
                f"{tuple(step.mask.shape)}; use generate with its default (dynamic) cache"
            )
        return step

    def close(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()
        self._step = self._states = None
