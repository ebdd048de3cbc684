"""McNemar and Holm, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from embedrm.errors import InvalidInputError
from embedrm.numerics.significance import holm, mcnemar_exact

credits = st.lists(st.tuples(st.sampled_from([0, 0.5, 1]), st.sampled_from([0, 0.5, 1])), min_size=1, max_size=40)


def test_mcnemar_by_hand():
    # 5 pairs only a has right, 1 only b, 2 both, 1 neither, 2 with half credit
    a = [1, 1, 1, 1, 1, 0, 1, 1, 0, 0.5, 1]
    b = [0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 0.5]
    # two-sided: 2 * (C(6,0) + C(6,1)) / 2^6
    assert mcnemar_exact(a, b) == {"only_a": 5, "only_b": 1, "half_credit": 2, "p": pytest.approx(2 * 7 / 64)}


def test_mcnemar_without_disagreement_has_p_one():
    assert mcnemar_exact([1, 0], [1, 0])["p"] == 1.0
    assert mcnemar_exact([1, 0], [0, 1])["p"] == 1.0


@given(credits)
def test_mcnemar_is_symmetric_and_is_the_binomial_test(rows):
    a, b = np.array(rows).T
    ab, ba = mcnemar_exact(a, b), mcnemar_exact(b, a)
    assert (ab["only_a"], ab["only_b"], ab["p"]) == (ba["only_b"], ba["only_a"], ba["p"])
    n = ab["only_a"] + ab["only_b"]
    assert ab["p"] == pytest.approx(binomtest(ab["only_a"], n).pvalue if n else 1.0)
    assert n + ab["half_credit"] + int(((a == b) & (a != 0.5)).sum()) == len(rows)


def test_holm_by_hand():
    # sorted 0.01, 0.03, 0.04, 0.5 times 4, 3, 2, 1, then a running maximum
    np.testing.assert_allclose(holm([0.04, 0.01, 0.5, 0.03]), [0.09, 0.04, 0.5, 0.09])


def test_holm_is_capped_at_one_and_one_test_is_not_corrected():
    np.testing.assert_array_equal(holm([0.6, 0.7]), [1.0, 1.0])
    np.testing.assert_array_equal(holm([0.2]), [0.2])
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_holm_follows_its_input_and_keeps_the_order(p, random):
    adjusted = holm(p)
    assert (adjusted >= np.array(p)).all()
    order = list(range(len(p)))
    random.shuffle(order)
    np.testing.assert_array_equal(holm([p[i] for i in order]), adjusted[order])
    ranked = adjusted[np.argsort(p, kind="stable")]
    assert (np.diff(ranked) >= 0).all()


@pytest.mark.parametrize("bad", [[0.1, float("nan")], [[0.1]]])
def test_holm_refuses_what_is_no_vector_of_p_values(bad):
    with pytest.raises(InvalidInputError, match="vector of p-values without NaN"):
        holm(bad)
