"""The tokens that guidance may choose among: the language model's own top-k or top-p set, by transformers' rules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from embedrm.errors import InvalidInputError


@dataclass(frozen=True)
class Candidates:
    """Tokens that passed the filter, one row for each sequence.

    Attributes
    ----------
    ids : torch.Tensor of shape (n_sequences, k), int64
        All different within a row.
    scores : torch.Tensor of shape (n_sequences, k)
        Their logits.
    valid : torch.Tensor of shape (n_sequences, k), bool, or None
        False where a row has fewer tokens than the longest one; None where all are there.
    """

    ids: Any
    scores: Any
    valid: Any = None


@dataclass(frozen=True)
class CandidateFilter:
    """Keep the k most probable tokens, or the smallest set that holds the probability p, or both (top-k first).

    The sets are those of transformers' own warpers, ties and rounding included, so that nothing changes where the rewards
    are multiplied by zero.

    Parameters
    ----------
    top_k : int, optional
        Tokens that tie with the k-th stay, as in transformers.
    top_p : float in (0, 1], optional

    Raises
    ------
    InvalidInputError
        For a ``top_k`` below one, or a ``top_p`` outside (0, 1].
    """

    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        k, p = self.top_k, self.top_p
        if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
            raise InvalidInputError(
                f"top_k expects a whole number of at least 1, or None for no such filter; got {k!r}"
            )
        if p is not None and not 0.0 < float(p) <= 1.0:
            raise InvalidInputError(f"top_p expects a number in (0, 1], or None for no such filter; got {p!r}")

    def select(self, scores: Any) -> Candidates | None:
        """Return the candidates, or None where nothing is filtered.

        Parameters
        ----------
        scores : torch.Tensor of shape (n_sequences, V)
            Logits; a token at minus infinity is never a candidate.
        """
        # transformers leaves the warper out at 1, where rounding could still take tokens away
        if self.top_k is None and (self.top_p is None or self.top_p >= 1.0):
            return None
        quick = self._without_ties(scores) if self.top_p is None and self.top_k is not None else None
        return quick or _finite(self._warped(scores))

    def _without_ties(self, scores: Any) -> Candidates | None:
        """Return the k first tokens in one pass, or None where a tie or a forbidden token asks for the full rule."""
        import torch

        k, n_tokens = int(self.top_k or 0), scores.shape[-1]
        if k >= n_tokens:
            return None
        values, ids = torch.topk(scores, k + 1)
        # plain numbers: two tensors of a few numbers would take longer to compare than to read
        if any(last == beyond or last == -math.inf for last, beyond in values[:, k - 1 :].tolist()):
            return None
        return Candidates(ids[:, :k], values[:, :k])

    def _warped(self, scores: Any) -> Any:
        from transformers import TopKLogitsWarper, TopPLogitsWarper

        if self.top_k is not None:
            scores = TopKLogitsWarper(int(self.top_k))(None, scores)
        if self.top_p is not None and self.top_p < 1.0:
            scores = TopPLogitsWarper(float(self.top_p))(None, scores)
        return scores


def _finite(warped: Any) -> Candidates:
    import torch

    width = int((~torch.isneginf(warped)).sum(dim=-1).max())
    if width == 0:
        raise InvalidInputError("no token is left to choose from: other processors have forbidden all of them")
    values, ids = torch.topk(warped, width)
    valid = ~torch.isneginf(values)
    return Candidates(ids, values, None if bool(valid.all()) else valid)
