"""Windows of ranks: against sorting, with equal magnitudes, by leading bits and by all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedrm.errors import InvalidInputError
from embedrm.merging import windows
from embedrm.merging.windows import Window


def by_sorting(x: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Of equal magnitudes, the earlier is the smaller."""
    rows = np.argsort(np.abs(x), kind="stable")[start:stop]
    out = np.zeros_like(x)
    out[rows] = x[rows]
    return out


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 60),
    size=st.integers(1, 61),
    kind=st.sampled_from(["normal", "few values", "all equal", "zeros", "close"]),
    at_once=st.sampled_from([0, 3, 1000]),
)
@settings(max_examples=300, deadline=None)
def test_windows_are_those_of_sorting(seed, n, size, kind, at_once) -> None:
    rng = np.random.default_rng(seed)
    x = {
        "normal": rng.normal(size=n) * 10.0 ** rng.integers(-30, 30, size=n),
        "few values": rng.integers(-2, 3, size=n).astype(float),
        "all equal": np.where(rng.random(n) < 0.5, 1.5, -1.5),
        "zeros": np.zeros(n),
        # differ in the last bits alone
        "close": 1.0 + np.finfo(float).eps * rng.integers(0, 4, size=n),
    }[kind]
    start, stop = np.sort(rng.integers(0, n + 1, size=2)).tolist()
    pieces = [x[i : i + size] for i in range(0, n, size)]
    before = windows._SORTED
    windows._SORTED = at_once
    try:
        window = Window(lambda: iter(pieces), n, start, stop)
    finally:
        windows._SORTED = before
    found = np.concatenate([window.kept(piece) for piece in pieces])
    np.testing.assert_array_equal(found, by_sorting(x, start, stop))


def test_what_changes_between_two_passes_is_told(monkeypatch) -> None:
    monkeypatch.setattr(windows, "_SORTED", 3)
    reads = iter([np.arange(1.0, 9), np.arange(2.0, 30) / 64])
    with pytest.raises(InvalidInputError, match="changed meanwhile"):
        Window(lambda: [next(reads)], 8, 4, 8)
