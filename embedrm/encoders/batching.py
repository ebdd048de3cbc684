"""Which texts go through the model together: a pure function of their lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from embedrm.errors import InvalidInputError


def padded_width(longest: int, most: int | None = None) -> int:
    """Return the width a batch is padded to: its longest row, rounded up by at most a sixteenth.

    With few different widths the same shapes come again and again, so the memory allocator and the libraries' caches of
    prepared operations find them again, and a long job's memory stays level instead of growing with every new shape.

    Parameters
    ----------
    longest : int
    most : int, optional
        The widest the model can take; never below ``longest``.
    """
    step = max(1, (1 << longest.bit_length()) // 32)
    width = -(-longest // step) * step
    return width if most is None else max(longest, min(width, most))


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Group rows of similar length, longest first, so that no batch exceeds a budget of padded tokens.

    A batch of b rows costs b times its :func:`padded_width`. Sorting keeps the padding to a few per cent; the budget
    keeps one batch in the processor's cache, which is worth more on a CPU than a large batch is. The plan depends on the
    lengths only, so the same texts give the same batches, and with them the same bits.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each row.
    batch_tokens : int
        The budget. A row longer than it is a batch of its own.

    Yields
    ------
    list of int
        Rows of one batch. Every row comes exactly once.
    """
    if isinstance(batch_tokens, bool) or not isinstance(batch_tokens, (int, np.integer)) or batch_tokens < 1:
        raise InvalidInputError(f"batch_tokens must be a positive whole number of tokens; got {batch_tokens!r}")
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    batch: list[int] = []
    width = 0
    for row in order.tolist():
        if batch and (len(batch) + 1) * width > batch_tokens:
            yield batch
            batch = []
        if not batch:
            width = padded_width(max(int(lengths[row]), 1))
        batch.append(row)
    if batch:
        yield batch
