"""One vector of a text from the states of a causal language model, with or without shared beginnings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedrm.encoders.base import Layer
from embedrm.encoders.batching import padded_width, plan_batches
from embedrm.encoders.causal_backbone import CausalBackbone
from embedrm.encoders.causal_prefixes import SharedPrefix
from embedrm.errors import ModelError

POOLINGS = ("last", "mean")
Vectors = dict[Layer, npt.NDArray[np.float32]]


class CausalPooling:
    """Pools the states of texts.

    Parameters
    ----------
    backbone : CausalBackbone
    pooling : {"last", "mean"}
        The state of a text's last token, or the mean over its tokens.
    n_special : int
        Special tokens before every text. They have read nothing of it, and the first of them often has a state many
        times longer than any other: the mean leaves them out, unless there is nothing else.
    """

    def __init__(self, backbone: CausalBackbone, pooling: str, n_special: int) -> None:
        self.backbone = backbone
        self.pooling = pooling
        self.n_special = n_special

    def whole(self, rows: Sequence[Sequence[int]], layers: Collection[Layer]) -> Vectors:
        """Return the vectors of a batch of token ids, (n, dim) for each layer."""
        import torch

        with torch.inference_mode():
            ids, mask = self._pad(rows)
            states = self._states(self.backbone.run(ids, mask, every_layer=self._deep(layers)), layers)
            lengths = mask.sum(dim=1)
            if self.pooling == "last":
                return {layer: _at(state, lengths - 1).numpy() for layer, state in states.items()}
            first = torch.minimum(torch.full_like(lengths, self.n_special), lengths - 1)
            weights = self._weights(ids.shape[1], first, lengths)
            return {layer: _weighted(weights, state).numpy() for layer, state in states.items()}

    def shared(
        self, texts: Sequence[Sequence[int]], groups: Sequence[SharedPrefix], layers: Collection[Layer], budget: int
    ) -> Any:
        """Yield (rows, vectors) of texts that share beginnings; each beginning is read once.

        Parameters
        ----------
        texts : sequence of token ids
            The groups' rows point here.
        groups : sequence of SharedPrefix
            They are read together, padded to the longest beginning.
        layers : collection of Layer
        budget : int
            Padded tokens that go through the model together.
        """
        import torch

        starts = [texts[group.rows[0]][: group.length] for group in groups]
        members = [(number, row) for number, group in enumerate(groups) for row in group.rows]
        with torch.inference_mode():
            ids, start_mask = self._pad(starts)
            output = self.backbone.run(ids, start_mask, every_layer=self._deep(layers), keep=True)
            past = output.past_key_values
            sums: dict[Layer, Any] = {}
            start_lengths = start_mask.sum(dim=1)
            if self.pooling == "mean":
                ones = self._weights(ids.shape[1], torch.full_like(start_lengths, self.n_special), start_lengths, 1)
                sums = {layer: _weighted(ones, state) for layer, state in self._states(output, layers).items()}
            del output
            # the copies of a beginning's keys and values cost something too
            costs = [len(texts[row]) - groups[number].length + ids.shape[1] // 4 for number, row in members]
            for batch in plan_batches(costs, budget):
                chosen = [members[i] for i in batch]
                of = torch.tensor([number for number, _ in chosen])
                rest, mask = self._pad([texts[row][groups[number].length :] for number, row in chosen])
                output = self.backbone.run(
                    rest,
                    mask,
                    past=self.backbone.select(past, of),
                    past_mask=start_mask[of],
                    every_layer=self._deep(layers),
                )
                states, lengths = self._states(output, layers), mask.sum(dim=1)
                if self.pooling == "last":
                    found = {layer: _at(state, lengths - 1) for layer, state in states.items()}
                else:
                    before = (start_lengths[of] - self.n_special).clamp(min=0)
                    skipped = (self.n_special - start_lengths[of]).clamp(min=0)
                    ones = self._weights(rest.shape[1], torch.minimum(skipped, lengths - 1), lengths, 1)
                    n = (before + ones.sum(dim=(1, 2)))[:, None]
                    found = {layer: (sums[layer][of] + _weighted(ones, state)) / n for layer, state in states.items()}
                yield [row for _, row in chosen], {layer: one.numpy() for layer, one in found.items()}

    def _pad(self, rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
        return self.backbone.pad(rows, padded_width(max(len(row) for row in rows), self.backbone.files.positions))

    def _deep(self, layers: Collection[Layer]) -> bool:
        return bool(set(layers) - {"final", self.backbone.files.n_layers})

    def _states(self, output: Any, layers: Collection[Layer]) -> dict[Layer, Any]:
        last = self.backbone.files.n_layers or 0
        every = output.hidden_states if self._deep(layers) else ()
        if every is None or (every and len(every) != last + 1):
            raise ModelError(
                f"{self.backbone.files.folder}: the hidden layers of this model cannot be read; use layers=('final',)"
            )
        return {layer: output.last_hidden_state if layer in ("final", last) else every[int(layer)] for layer in layers}

    @staticmethod
    def _weights(width: int, first: Any, stop: Any, scale: int | None = None) -> Any:
        """Return (n, 1, width): equal weights from ``first`` to before ``stop`` that sum to 1, or all ``scale``."""
        import torch

        places = torch.arange(width)
        inside = ((places >= first[:, None]) & (places < stop[:, None])).float()
        return (inside if scale else inside / inside.sum(dim=1, keepdim=True))[:, None]


def _at(states: Any, places: Any) -> Any:
    import torch

    return states[torch.arange(len(states)), places].float()


def _weighted(weights: Any, states: Any) -> Any:
    return (weights @ states.float()).squeeze(1)
