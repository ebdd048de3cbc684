"""What happens to a text that is longer than the encoder can read: pure functions on lists of token ids.

Special tokens at the two ends ([CLS] and [SEP], or what the tokenizer uses, and a prompt where there is one) are never
cut; the policy decides about the tokens between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from embedrm.errors import InvalidInputError, unknown_name

TruncationPolicy = Literal["head", "tail", "middle", "drop", "error"]
"""``head`` keeps the beginning, ``tail`` the end, ``middle`` cuts out the middle and keeps both ends; ``drop`` and
``error`` never shorten a text: with ``drop`` the rows are to be left out by the caller, with ``error`` the job stops."""

TRUNCATION_POLICIES: tuple[str, ...] = get_args(TruncationPolicy)
SHORTENING_POLICIES: tuple[str, ...] = ("head", "tail", "middle")


def check_policy(policy: object) -> str:
    """Return the policy if it is one of :data:`TRUNCATION_POLICIES`, else raise InvalidInputError."""
    if policy not in TRUNCATION_POLICIES:
        raise unknown_name("truncation policy", policy, TRUNCATION_POLICIES)
    return str(policy)


def truncate(
    ids: Sequence[int], max_length: int | None, policy: str, *, n_prefix: int = 0, n_suffix: int = 0
) -> list[int]:
    """Shorten one text's token ids to ``max_length``.

    Parameters
    ----------
    ids : sequence of int
        All tokens of the text, special tokens included.
    max_length : int or None
        The most tokens that may remain, special tokens included; None for no limit. It must leave room for at least
        one token between the special ones.
    policy : str
        One of :data:`TRUNCATION_POLICIES`. ``middle`` gives the beginning the odd token.
    n_prefix, n_suffix : int
        How many tokens at the beginning and at the end are always kept.

    Returns
    -------
    list of int
        ``ids`` itself as a list where it fits, otherwise exactly ``max_length`` ids in their order.

    Raises
    ------
    InvalidInputError
        An unknown policy, no room between the special tokens, or a text that is too long under ``drop`` or ``error``.
    """
    check_policy(policy)
    if max_length is None or len(ids) <= max_length:
        return list(ids)
    if policy not in SHORTENING_POLICIES:
        raise InvalidInputError(
            f"a text has {len(ids)} tokens, more than max_length={max_length}, and truncation={policy!r} never "
            f"shortens a text. Leave the row out, or choose one of: {', '.join(SHORTENING_POLICIES)}."
        )
    room = max_length - n_prefix - n_suffix
    if room < 1:
        raise InvalidInputError(
            f"max_length must be at least {n_prefix + n_suffix + 1} ({n_prefix + n_suffix} special or prompt tokens "
            f"and one of the text); got {max_length}"
        )
    start, stop = n_prefix, len(ids) - n_suffix
    head = {"head": room, "tail": 0, "middle": room - room // 2}[policy]
    tail = room - head
    return [*ids[: start + head], *ids[stop - tail : stop], *ids[stop:]]


def tokens_cut(n_tokens: int, max_length: int | None) -> int:
    """Return how many of ``n_tokens`` exceed ``max_length`` (0 where there is no limit)."""
    return 0 if max_length is None else max(0, n_tokens - max_length)
