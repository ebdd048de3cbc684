"""Reward-model states of prefixes and of candidates, on one key-value cache that candidates share.

A candidate sees the prefix and itself. So all candidates of a sequence are positions of one forward pass, side by side, at
the same place, with a mask that hides them from each other; the cache of the prefix is read, never copied for a candidate
and never changed.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

from embedrm.errors import InvalidInputError

BLOCK = 256
"""Most candidates of a sequence in one forward pass; the mask grows with their square."""


def takes_positions(model: Any) -> bool:
    """Whether the model is told positions; others count tokens by themselves."""
    return "position_ids" in inspect.signature(model.base_model.forward).parameters


def check_shareable(model: Any, who: str) -> None:
    """Raise where candidates cannot lie side by side: the model takes no positions, so that it counts them by itself."""
    if not takes_positions(model):
        raise InvalidInputError(
            f"{who} scores candidates side by side and has to tell the reward model their position, but "
            f"{type(model).__name__} takes no position_ids; use another reward model, or ARM, which reads no candidates"
        )


def next_positions(mask: Any, input_ids: Any) -> Any:
    """Place of the next token in each sequence: the number of tokens before it, padding left out; shape (n, 1)."""
    import torch

    if mask is None:
        return torch.full((len(input_ids), 1), input_ids.shape[1], dtype=torch.long)
    return mask.sum(dim=-1, keepdim=True)


def borrow(cache: Any, who: str) -> Any:
    """Return a cache that reads the tensors of another one; what is added to it is not added there.

    Raises
    ------
    InvalidInputError
        For a cache whose layers do not grow by making new tensors (static, sliding, quantised).
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    kinds = {type(layer).__name__ for layer in getattr(cache, "layers", [])}
    if kinds != {DynamicLayer.__name__}:
        raise InvalidInputError(
            f"{who} shares a dynamic cache of full attention with its candidates, got {', '.join(sorted(kinds)) or 'none'}; "
            "generate with use_cache=True and the default cache, and a model without sliding windows"
        )
    lent = DynamicCache()
    lent.layers = [copy.copy(layer) for layer in cache.layers]
    return lent


def candidate_states(model: Any, cache: Any, mask: Any, input_ids: Any, ids: Any, who: str) -> tuple[Any, list[Any]]:
    """States after reading each candidate behind the prefix that the cache holds.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    cache : transformers.Cache
        Of the prefix; left as it is.
    mask : torch.Tensor of shape (n_sequences, length), or None
        Of the prefix.
    input_ids : torch.Tensor of shape (n_sequences, length)
    ids : torch.Tensor of shape (n_sequences, k)
        The candidates.
    who : str

    Returns
    -------
    states : torch.Tensor of shape (n_sequences, k, d)
    entries : list of (keys, values)
        Of each layer, shape (n_sequences, n_heads, k, d_head): what the chosen candidate adds to the cache.
    """
    import torch

    n, k = ids.shape
    length = input_ids.shape[1]
    places = next_positions(mask, input_ids)
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and int(places.max()) >= limit:
        raise InvalidInputError(
            f"{who} reads one token beyond the prefix, and the reward model takes {limit:,} tokens; "
            "use shorter prompts or fewer new tokens"
        )
    dtype = next(model.parameters()).dtype
    hidden = torch.finfo(dtype).min
    states, entries = [], []
    for start in range(0, k, BLOCK):
        part = ids[:, start : start + BLOCK]
        width = part.shape[1]
        attend = torch.zeros((n, 1, width, length + width), dtype=dtype)
        if mask is not None:
            attend[..., :length].masked_fill_((mask == 0)[:, None, None, :], hidden)
        attend[..., length:] = torch.full((width, width), hidden, dtype=dtype).fill_diagonal_(0.0)
        lent = borrow(cache, who)
        output = model.base_model(
            part,
            past_key_values=lent,
            attention_mask=attend,
            position_ids=places.expand(n, width),
            use_cache=True,
        )
        states.append(output.last_hidden_state)
        entries.append([(layer.keys[:, :, length:], layer.values[:, :, length:]) for layer in lent.layers])
    if len(states) == 1:
        return states[0], entries[0]
    joined = [
        (torch.cat([e[i][0] for e in entries], dim=2), torch.cat([e[i][1] for e in entries], dim=2))
        for i in range(len(entries[0]))
    ]
    return torch.cat(states, dim=1), joined


_SAME = object()


class PrefixCache:
    """A reward model that follows the sequences of a generation, one new token a step.

    Rows may change places between steps, as those of a beam search do. A prefix that does not continue the last one is
    read anew.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    who : str
        For messages.
    """

    def __init__(self, model: Any, who: str) -> None:
        self.model, self.who = model, who
        self._positions = takes_positions(model)
        self.passes = 0
        self._ids: Any = None
        self.cache: Any = None
        self._offered: tuple[Any, list[Any]] | None = None

    def follow(self, input_ids: Any, mask: Any, *, state: bool) -> Any:
        """Read the sequences.

        Parameters
        ----------
        input_ids : torch.Tensor of shape (n_sequences, length)
        mask : torch.Tensor of shape (n_sequences, length), or None
        state : bool
            Whether the last state is wanted; where it is not, keys and values of a scored candidate are taken over
            without a pass.

        Returns
        -------
        torch.Tensor of shape (n_sequences, d), or None
        """
        rows = self._rows(input_ids)
        offered, self._offered = self._offered, None
        if rows is None:
            last = self._read(input_ids, mask, None)
        else:
            if rows is not _SAME:
                self.cache.reorder_cache(rows)
            if state or offered is None or not self._take(input_ids, rows, offered):
                last = self._read(input_ids[:, -1:], mask, self.cache)
            else:
                last = None
        self._ids = input_ids.clone()
        return last

    def offer(self, ids: Any, entries: list[Any]) -> None:
        """Remember what each candidate would add to the cache."""
        self._offered = (ids, entries)

    def _rows(self, input_ids: Any) -> Any:
        """Where each sequence was in the last step: ``_SAME``, row numbers, or None where it is a new one."""
        import torch

        if self._ids is None or self._ids.shape[1] + 1 != input_ids.shape[1]:
            return None
        if self._ids.shape[0] == input_ids.shape[0] and torch.equal(self._ids, input_ids[:, :-1]):
            return _SAME
        place = {tuple(row): i for i, row in enumerate(self._ids.tolist())}
        found = [place.get(tuple(row)) for row in input_ids[:, :-1].tolist()]
        return None if None in found else torch.tensor(found)

    def _read(self, ids: Any, mask: Any, cache: Any) -> Any:
        import torch

        if mask is None:
            start = 0 if cache is None else cache.get_seq_length()
            places = torch.arange(start, start + ids.shape[1]).expand(ids.shape)
        else:
            places = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        extra = {"position_ids": places} if self._positions else {}
        output = self.model.base_model(ids, past_key_values=cache, attention_mask=mask, use_cache=True, **extra)
        self.cache = output.past_key_values
        self.passes += 1
        return output.last_hidden_state[:, -1]

    def _take(self, input_ids: Any, rows: Any, offered: tuple[Any, list[Any]]) -> bool:
        import torch

        ids, entries = offered
        if rows is not _SAME:
            ids = ids[rows]
        hit = ids == input_ids[:, -1:]
        # a finished sequence gets padding, which was no candidate
        if not bool(hit.any(dim=1).all()):
            return False
        column = hit.to(torch.uint8).argmax(dim=1)
        for layer, (keys, values) in zip(self.cache.layers, entries):
            if rows is not _SAME:
                keys, values = keys[rows], values[rows]
            every = torch.arange(len(keys))
            layer.update(keys[every, :, column].unsqueeze(2), values[every, :, column].unsqueeze(2))
        return True
