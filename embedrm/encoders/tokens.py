"""Token ids without truncation, so that counts are exact, and what the tokenizer puts around every text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from embedrm.encoders.truncation import truncate
from embedrm.errors import ModelError

# Texts tokenised at once: bounds the memory of one call, which is several times that of the ids.
_CHUNK = 1024


@dataclass(frozen=True)
class TextTokens:
    """A fast tokenizer (the Rust object of the ``tokenizers`` package) and what it adds to a text.

    Attributes
    ----------
    backend : tokenizers.Tokenizer
    special : bool
        Whether special tokens are added (a static embedding takes none).
    prompt : str
        Put before every text; its tokens are counted, and never cut.
    prefix, suffix : tuple of int
        Special tokens before and after every text.
    prefix_types, suffix_types : tuple of int
        Their token types.
    body_type : int
        Token type of the text itself.
    prompt_length : int
        Tokens of the prompt with the prefix; 0 without a prompt.
    """

    backend: Any
    special: bool
    prompt: str
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    prefix_types: tuple[int, ...]
    suffix_types: tuple[int, ...]
    body_type: int
    prompt_length: int

    @classmethod
    def of(cls, backend: Any, *, special: bool = True, prompt: str = "") -> TextTokens:
        """Learn what a tokenizer adds from one short text."""
        backend.no_truncation()
        backend.no_padding()
        plain = backend.encode("a", add_special_tokens=False).ids
        whole = backend.encode("a", add_special_tokens=special)
        ids, types, width = list(whole.ids), list(whole.type_ids), len(plain)
        at = next((i for i in range(len(ids) - width + 1) if ids[i : i + width] == plain), None)
        if at is None or not plain:
            raise ModelError("the model's tokenizer does not keep a text's tokens together; use another model.")
        end = at + width
        length = at + len(backend.encode(prompt, add_special_tokens=False).ids) if prompt else 0
        return cls(
            backend, special, prompt, tuple(ids[:at]), tuple(ids[end:]), tuple(types[:at]), tuple(types[end:]), types[at],
            length,
        )  # fmt: skip

    @property
    def n_kept(self) -> int:
        """Tokens that are never cut: special tokens and the prompt's."""
        return max(len(self.prefix), self.prompt_length) + len(self.suffix)

    def ids(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Yield the ids of each text in full, special tokens included."""
        # encode_batch_fast leaves out the character offsets, which nobody reads here.
        encode = getattr(self.backend, "encode_batch_fast", self.backend.encode_batch)
        for start in range(0, len(texts), _CHUNK):
            chunk = [self.prompt + text for text in texts[start : start + _CHUNK]]
            for encoding in encode(chunk, add_special_tokens=self.special):
                yield encoding.ids

    def read_ids(self, texts: Sequence[str], limit: int | None, policy: str) -> Iterator[list[int]]:
        """Yield the ids of each text that the model reads, after truncation."""
        n_prefix = max(len(self.prefix), self.prompt_length)
        for ids in self.ids(texts):
            yield truncate(ids, limit, policy, n_prefix=n_prefix, n_suffix=len(self.suffix))

    def types(self, length: int) -> list[int]:
        """Return the token types of a text of ``length`` tokens."""
        body = length - len(self.prefix_types) - len(self.suffix_types)
        return [*self.prefix_types, *[self.body_type] * body, *self.suffix_types]
