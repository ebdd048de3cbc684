"""Feature rows as LightGBM data sets, binned block by block."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError
from embedrm.featurizers.rows import FeatureRows

# Rows from which bin limits are found. LightGBM holds the sample twice over in float64, and sorts every column of it; beyond
# a hundred rows a bin, more of them move the limits very little.
SAMPLE_ROWS = 10_000
BLOCK_BYTES = 16 * 2**20


def block_rows(dim: int) -> int:
    """Rows of a block of float32 features."""
    return int(np.clip(BLOCK_BYTES // (4 * dim), 64, 4096))


def bad_rows(block: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows (n, dim) hold NaN or infinity: LightGBM would take the first as missing, and the second as a number."""
    bad: NDArray[np.bool_] = ~np.isfinite(block).all(axis=1)
    return bad


def binned(features: FeatureRows, params: dict[str, Any], reference: Any, who: str) -> Any:
    """Make a constructed ``lightgbm.Dataset`` of feature rows.

    The features are made twice, block by block, once for the sample and once to be binned; no more than a block and the
    sample are held beside the bins (one byte a feature; with at most 15 bins half of one, once all rows are binned).

    Parameters
    ----------
    features : FeatureRows
    params : dict
        LightGBM's.
    reference : lightgbm.Dataset or None
        Training data whose bins are to be used.
    who : str
        Who asks, for the error.

    Raises
    ------
    InvalidInputError
        If a feature is NaN or infinite.
    """
    import lightgbm

    size = block_rows(features.dim)

    class Blocks(lightgbm.Sequence):  # type: ignore[misc, unused-ignore]
        batch_size = size

        def __init__(self) -> None:
            self.start, self.kept = -1, np.empty((0, features.dim))

        def __len__(self) -> int:
            return len(features)

        def __getitem__(self, index: Any) -> NDArray[Any]:
            if isinstance(index, slice):
                return self.rows(index.start, index.stop)
            start = int(index) // size * size
            if start != self.start:
                # the sample is read in order, so that each block is made once
                self.start, self.kept = start, self.rows(start, min(start + size, len(features)))
            # one row of the sample; LightGBM takes samples in float64 only
            return self.kept[index - start].astype(np.float64)

        def rows(self, start: int, stop: int) -> NDArray[Any]:
            block = features.take(np.arange(start, stop))
            n_bad = int(bad_rows(block).sum())
            if n_bad:
                raise InvalidInputError(
                    f"{who}.fit expects finite vectors, got NaN or infinity in {n_bad} of rows {start} to {stop - 1} of "
                    f"{len(features)} active responses; look at the embeddings (embedrm cache verify)"
                )
            return np.ascontiguousarray(block)

    return lightgbm.Dataset(Blocks(), reference=reference, params=params, free_raw_data=True).construct()
