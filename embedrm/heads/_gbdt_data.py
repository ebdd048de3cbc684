"""Feature rows as LightGBM data sets, binned block by block."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError
from embedrm.featurizers.rows import FeatureRows
from embedrm.featurizers.shared import once_for

# Rows from which bin limits are found. LightGBM holds the sample twice over in float64, and sorts every column of it; beyond
# a hundred rows a bin, more of them move the limits very little.
SAMPLE_ROWS = 10_000
BLOCK_BYTES = 16 * 2**20
# All that bins depend on among the parameters; whatever else LightGBM is told, it bins alike.
BINNING = ("max_bin", "bin_construct_sample_cnt", "data_random_seed", "feature_pre_filter", "use_missing")


def block_rows(dim: int) -> int:
    """Rows of a block of float32 features."""
    return int(np.clip(BLOCK_BYTES // (4 * dim), 64, 4096))


def bad_rows(block: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows (n, dim) hold NaN or infinity: LightGBM would take the first as missing, and the second as a number."""
    bad: NDArray[np.bool_] = ~np.isfinite(block).all(axis=1)
    return bad


def binned(features: FeatureRows, held_out: FeatureRows | None, params: dict[str, Any], who: str) -> tuple[Any, Any]:
    """Make constructed ``lightgbm.Dataset`` of feature rows and of held-out rows in their bins, or find those of equal rows.

    They have no labels, weights or start: boosters are given slopes and curvatures, and only read them. So fits that differ
    in labels or in how trees are grown have the same ones, where a shelf is open (:mod:`embedrm.numerics.sharing`).

    The features are made twice, block by block, once for the sample and once to be binned; no more than a block and the
    sample are held beside the bins (one byte a feature; with at most 15 bins half of one, once all rows are binned).

    Parameters
    ----------
    features : FeatureRows
    held_out : FeatureRows, optional
        Of the same featurizer and the same responses.
    params : dict
        LightGBM's; only ``BINNING`` and the number of threads, which changes no bit, are used.
    who : str
        Who asks, for the error.

    Returns
    -------
    (lightgbm.Dataset, lightgbm.Dataset or None)

    Raises
    ------
    InvalidInputError
        If a feature is NaN or infinite.
    """
    used = {name: params[name] for name in BINNING}

    def make() -> tuple[Any, Any]:
        told = {**used, "num_threads": params["num_threads"], "verbosity": params["verbosity"]}
        data = _binned(features, told, None, who)
        return data, None if held_out is None else _binned(held_out, told, data, who)

    rows = features.rows, None if held_out is None else held_out.rows
    return once_for(features.featurizer, features.responses, "bins", (rows, used), make, _bytes)


def _bytes(made: tuple[Any, Any]) -> int:
    """Bytes of the bins, at one each."""
    return sum(data.num_data() * data.num_feature() for data in made if data is not None)


def _binned(features: FeatureRows, params: dict[str, Any], reference: Any, who: str) -> Any:
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

    # A thread's level of messages is set by making a data set, not by drawing the sample of one: of a thread's first sample
    # LightGBM would warn on stdout, whatever the verbosity.
    lightgbm.Dataset(np.zeros((2, 1)), params={"verbosity": params["verbosity"]}).construct()
    return lightgbm.Dataset(Blocks(), reference=reference, params=params, free_raw_data=True).construct()
