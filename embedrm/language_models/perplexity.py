"""How well a language model predicts texts: the negative log-likelihood of their tokens, prompts left out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Perplexity:
    """Negative log-likelihoods of some texts under one language model.

    Attributes
    ----------
    nll : ndarray of shape (n_texts,), float64
        Mean over a text's tokens of -log p(token | what stands before it), in nats; NaN for a text without a token.
    tokens : ndarray of shape (n_texts,), int64
        Tokens that were judged, in the model's own tokens.
    characters : ndarray of shape (n_texts,), int64
    """

    nll: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    characters: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.nll)

    @property
    def per_text(self) -> npt.NDArray[np.float64]:
        """exp(nll) of each text, (n_texts,)."""
        return np.exp(self.nll)

    @property
    def total(self) -> float:
        """Perplexity of all texts as one: exp(sum of -log p / number of tokens); NaN without a token."""
        n = int(self.tokens.sum())
        return math.exp(self._sum() / n) if n else math.nan

    @property
    def bits_per_character(self) -> float:
        """What one character costs, comparable between models that tokenise differently; NaN without a character."""
        n = int(self.characters.sum())
        return self._sum() / n / math.log(2.0) if n else math.nan

    def _sum(self) -> float:
        return float((np.where(self.tokens > 0, self.nll, 0.0) * self.tokens).sum())
