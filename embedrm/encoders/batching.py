"""Which texts go through the model together: a pure function of their lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from embedrm.errors import InvalidInputError


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Group rows of similar length, longest first, so that no batch exceeds a budget of padded tokens.

    A batch of b rows costs b times its longest row. Sorting keeps the padding to a few per cent; the budget keeps one
    batch in the processor's cache, which is worth more on a CPU than a large batch is. The plan depends on the lengths
    only, so the same texts give the same batches, and with them the same bits.

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
    longest = 0
    for row in order.tolist():
        if batch and (len(batch) + 1) * longest > batch_tokens:
            yield batch
            batch = []
        if not batch:
            longest = max(int(lengths[row]), 1)
        batch.append(row)
    if batch:
        yield batch
