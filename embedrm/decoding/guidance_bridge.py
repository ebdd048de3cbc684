"""Guidance by a reward model that tokenises differently: its candidates are texts, which it reads from their beginning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedrm.errors import InvalidInputError

if TYPE_CHECKING:
    from embedrm.language_models import LanguageModel

_TEXTS_A_PASS = 64


def same_tokens(one: LanguageModel, other: LanguageModel) -> bool:
    """Whether a token id means the same text to both language models."""
    if one is other:
        return True
    return one.bos_id == other.bos_id and bool(one.tokenizer.get_vocab() == other.tokenizer.get_vocab())


class TextBridge:
    """States of prefix and candidate together, by text: the guided model's tokens are written out and tokenised anew.

    Nothing is cached, since one more token may change how the reward model cuts the words before it. A candidate that
    writes nothing (the end of the text) has the state of the prefix alone, and half a character is written as the
    replacement character that the guided model's tokenizer gives for it.

    Parameters
    ----------
    lm : LanguageModel
        The guided one.
    reward_lm : LanguageModel
        Whose states are read.
    """

    def __init__(self, lm: LanguageModel, reward_lm: LanguageModel) -> None:
        self.lm, self.reward_lm = lm, reward_lm

    def texts(self, input_ids: Any, mask: Any, ids: Any) -> list[list[str]]:
        """Text of every sequence with each of its candidates, without special tokens."""
        out = []
        for row, sequence in enumerate(input_ids.tolist()):
            if mask is not None:
                sequence = [token for token, kept in zip(sequence, mask[row].tolist()) if kept]
            out.append([self._written([*sequence, candidate]) for candidate in ids[row].tolist()])
        return out

    def states(self, input_ids: Any, mask: Any, ids: Any) -> Any:
        """States of the reward model.

        Parameters
        ----------
        input_ids : torch.Tensor of shape (n_sequences, length)
        mask : torch.Tensor of shape (n_sequences, length), or None
        ids : torch.Tensor of shape (n_sequences, k)

        Returns
        -------
        torch.Tensor of shape (n_sequences, k, d)

        Raises
        ------
        InvalidInputError
            Where a text is longer than the reward model can read.
        """
        import torch

        rows = self.texts(input_ids, mask, ids)
        # candidates often write the same text: each is read once
        place: dict[str, int] = {}
        order = [[place.setdefault(text, len(place)) for text in row] for row in rows]
        states = self._last_states(list(place))
        return states[torch.tensor(order)]

    def _written(self, sequence: list[int]) -> str:
        return self.lm.decode(sequence)

    def _last_states(self, texts: list[str]) -> Any:
        import torch

        lm = self.reward_lm
        tokens = [[lm.bos_id, *lm.encode(text)] for text in texts]
        longest = max(map(len, tokens))
        if lm.max_length is not None and longest > lm.max_length:
            raise InvalidInputError(
                f"the reward model reads {lm.max_length:,} tokens, and a prefix with its candidate has {longest:,}; "
                "use shorter prompts or fewer new tokens"
            )
        states = []
        for start in range(0, len(tokens), _TEXTS_A_PASS):
            part = tokens[start : start + _TEXTS_A_PASS]
            width = max(map(len, part))
            ids = torch.tensor([row + [lm.bos_id] * (width - len(row)) for row in part])
            ends = torch.tensor([len(row) for row in part])
            mask = (torch.arange(width) < ends[:, None]).long()
            output = lm.model.base_model(ids, attention_mask=mask, use_cache=False)
            states.append(output.last_hidden_state[torch.arange(len(part)), ends - 1])
        return torch.cat(states)
