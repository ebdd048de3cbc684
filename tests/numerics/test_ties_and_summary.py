"""The tie rule and the summary of margins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedrm.errors import InvalidInputError
from embedrm.numerics.summary import margin_statistics
from embedrm.numerics.ties import is_tie, pair_credit


def test_credit_by_hand():
    np.testing.assert_array_equal(pair_credit([3.0, -1e-300, 0.0, -0.0, np.inf]), [1.0, 0.0, 0.5, 0.5, 1.0])


@given(st.lists(st.floats(allow_nan=False), max_size=30))
def test_credit_of_swapped_pairs_is_the_rest_of_one(m):
    np.testing.assert_array_equal(pair_credit(m) + pair_credit(-np.array(m)), np.ones(len(m)))


def test_credit_refuses_nan_and_counts_it():
    with pytest.raises(InvalidInputError, match="NaN in 2 of 3 pairs"):
        pair_credit([np.nan, 1.0, np.nan])


def test_only_one_half_is_a_tie():
    np.testing.assert_array_equal(is_tie([0.5, 0.5000001, 1.0]), [True, False, False])


def test_margin_statistics_by_hand():
    facts = margin_statistics(np.arange(101.0))
    assert facts == {"mean": 50.0, "std": pytest.approx(np.sqrt((101**2 - 1) / 12)), "q05": 5, "median": 50, "q95": 95}
