"""Spectra of reward matrices, and the token-pair matrices that low-rank heads cannot learn."""

import numpy as np
import pytest
from prefix_problems import labels_of, random_states, sums_of_tokens
from scipy.linalg import hilbert

from embedrm.decoding.arm import ARMHead
from embedrm.decoding.rad import RADHead
from embedrm.decoding.spectrum import rank_by_prefixes, reward_matrix, spectrum
from embedrm.decoding.synthetic import MATRICES, fit_matrix, identity_matrix, token_pairs, triangular_matrix
from embedrm.errors import InvalidInputError

EXACT = {"positions": "last", "regulariser": 0.0, "l2": 0.0, "tol": 1e-14}
PERCEPTRON = {
    "hidden": (192,),
    "positions": "last",
    "l2": 0.0,
    "early_stopping": False,
    "max_epochs": 200,
    "learning_rate": 5e-3,
    "batch_rows": 64,
}


def test_ranks_by_hand():
    at = spectrum(np.diag([4.0, 2.0, 0.04, 0.0]))
    np.testing.assert_allclose(at.values, [4, 2, 0.04, 0])
    assert [at.rank(c) for c in (0.6, 0.4, 0.02, 0.009)] == [1, 2, 2, 3]
    assert at.rank() == 3
    assert at.energy_rank(0.79) == 1
    assert at.energy_rank(0.99) == 2
    facts = at.facts()
    assert facts["ranks"]["0.1"] == 2
    assert facts["ranks"]["0.001"] == 3
    assert facts["shape"] == [4, 4]


def test_the_effective_rank_needs_no_cutoff():
    assert spectrum(np.eye(7)).effective_rank() == pytest.approx(7)
    assert spectrum(np.ones((5, 3))).effective_rank() == pytest.approx(1)
    blank = spectrum(np.zeros((3, 2)))
    assert blank.rank() == 0 == blank.effective_rank() == blank.energy_rank()


def test_the_precision_of_a_matrix_limits_its_cutoffs():
    matrix = hilbert(12)
    fine, coarse = spectrum(matrix), spectrum(matrix.astype(np.float32))
    assert fine.rank() == np.linalg.matrix_rank(matrix)
    assert coarse.rank() == np.linalg.matrix_rank(matrix.astype(np.float32))
    assert fine.rank() > coarse.rank()
    with pytest.raises(InvalidInputError, match=r"needs a cut-off from 1\.4e-06"):
        coarse.rank(1e-7)
    assert "1e-06" not in coarse.facts()["ranks"]
    assert "1e-06" in fine.facts()["ranks"]


@pytest.mark.parametrize("wrong", [np.zeros(3), np.full((2, 2), np.nan), np.zeros((0, 3)), np.eye(2, dtype=int)])
def test_matrices_that_are_refused(wrong):
    with pytest.raises(InvalidInputError, match="a spectrum needs a finite matrix"):
        spectrum(wrong)


def test_rank_grows_with_prefixes_up_to_its_bound():
    states, e = random_states(100)
    head = ARMHead(regulariser=0.0).fit(states, labels_of(states), embeddings=e)
    matrix = reward_matrix(head, states.states[:50])
    rows = rank_by_prefixes(matrix, [1, 3, 6, 50], cutoffs=(1e-8,))
    assert [(r["prefixes"], r["rank"]) for r in rows] == [(1, 1), (3, 3), (6, 6), (50, 6)]
    with pytest.raises(InvalidInputError, match="counts from 1 to the 50 prefixes"):
        rank_by_prefixes(matrix, [51])


def test_a_reward_matrix_of_either_head():
    states, e = sums_of_tokens()
    labels = labels_of(states, 2)
    rows = np.flatnonzero(states.ids)[:8]
    h = states.states[rows]
    arm = ARMHead(loss="responses-ce").fit(states, {"a": labels[:, 0], "b": labels[:, 1]}, embeddings=e)
    matrix = reward_matrix(arm, h, ids=[4, 2], attribute="b")
    np.testing.assert_allclose(matrix, arm.next_scores(h.astype(float))[:, [4, 2], 1])
    rad = RADHead().fit(states, labels)
    extended = h[:, None].astype(float) + e[None].astype(float)
    matrix = reward_matrix(rad, h, extend=lambda i: extended[i], attribute=1)
    assert matrix.shape == (8, 12)
    np.testing.assert_allclose(matrix[3, 5], rad.scores(extended[3, 5:6])[0, 1])
    # a linear head on sums: the prefix's part plus the token's
    assert spectrum(matrix).rank(1e-9) == 2
    with pytest.raises(InvalidInputError, match="needs extend"):
        reward_matrix(rad, h)


def test_matrices_of_token_pairs():
    np.testing.assert_array_equal(identity_matrix(3), np.eye(3))
    np.testing.assert_array_equal(triangular_matrix(3), [[1, 1, 1], [0, 1, 1], [0, 0, 1]])


def test_states_of_token_pairs():
    pairs = token_pairs(5, 3)
    states, e = pairs.states, pairs.embeddings
    assert len(states) == 25
    assert states.vocab_size == 6
    h, ids = states.text(5 * 2 + 4)
    np.testing.assert_array_equal(ids, [5, 2, 4])
    np.testing.assert_array_equal(h[0], 0)
    np.testing.assert_array_equal(h[1], e[2])
    turned = h[2] - e[4]
    assert np.linalg.norm(turned) == pytest.approx(1, abs=1e-6)
    assert not np.allclose(turned, e[2])
    matrix = np.arange(25.0).reshape(5, 5) / 25
    assert pairs.labels(matrix)[5 * 2 + 4] == matrix[2, 4]
    with pytest.raises(InvalidInputError, match=r"a matrix \(5, 5\), got \(4, 4\)"):
        pairs.labels(np.eye(4))


@pytest.mark.parametrize("name", MATRICES)
def test_an_arm_head_is_bound_by_the_size_of_a_state_and_reaches_the_bound(name):
    fit = fit_matrix(name, ARMHead(**EXACT, baseline=False), n_tokens=20, dim=6, backbone="best")
    assert fit.spectrum.rank(1e-6) == 6
    # Eckart and Young: no matrix of rank 6 is nearer, and this one is as near
    assert fit.error == pytest.approx(fit.floor, rel=1e-4)
    assert fit.floor == pytest.approx(np.sqrt((np.linalg.svd(MATRICES[name](20))[1][6:] ** 2).sum()) / 20)


def test_a_frozen_random_backbone_costs_nothing_on_the_identity_and_much_on_the_triangle():
    identity, triangle = (fit_matrix(name, ARMHead(**EXACT), n_tokens=20, dim=6) for name in MATRICES)
    assert identity.error == pytest.approx(identity.floor, rel=1e-4)
    assert triangle.error > 3 * triangle.floor
    assert identity.facts()["ranks"]["1e-06"] == 6 == triangle.facts()["ranks"]["1e-06"]


@pytest.mark.parametrize("name", MATRICES)
def test_a_rad_perceptron_learns_what_an_arm_head_cannot(name):
    arm = fit_matrix(name, ARMHead(**EXACT, bias=True), n_tokens=24, dim=10)
    rad = fit_matrix(name, RADHead(**PERCEPTRON), n_tokens=24, dim=10)
    line = fit_matrix(name, RADHead(positions="last"), n_tokens=24, dim=10)
    assert rad.error < 0.5 * arm.error
    assert rad.error < 0.5 * line.error
    assert arm.spectrum.rank(1e-6) <= 11 < rad.spectrum.rank(1e-3)
    assert line.spectrum.rank(1e-5) <= 2


def test_what_a_fit_refuses():
    with pytest.raises(InvalidInputError, match="Did you mean 'identity'"):
        fit_matrix("identiy", RADHead())
    with pytest.raises(InvalidInputError, match="unknown backbone 'tuned'"):
        fit_matrix("identity", RADHead(), backbone="tuned")
    with pytest.raises(InvalidInputError, match=r"needs a matrix \(48, 48\), got \(3, 3\)"):
        fit_matrix(np.eye(3), RADHead())
    with pytest.raises(InvalidInputError, match="needs 2 tokens"):
        token_pairs(1, 3)
