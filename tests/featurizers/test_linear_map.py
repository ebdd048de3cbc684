"""The factored map equals the materialised features, forward and adjoint, by every route."""

from __future__ import annotations

import numpy as np
import pytest

from embedrm import EmbeddedPreferences, Featurizer
from embedrm.errors import InvalidInputError
from embedrm.featurizers import linear_map
from embedrm.featurizers.linear_map import LinearMap

N_PROMPTS, K, DIM = 7, 3, 4
TERMS = [("r",), ("p*r",), ("abs(p-r)",), ("r", "p*r"), ("abs(p-r)", "p*r", "r")]


def data(dtype=np.float64):
    rng = np.random.default_rng(0)
    n = N_PROMPTS * K
    return EmbeddedPreferences.from_arrays(
        {f"response:{layer}": rng.normal(size=(n, DIM)).astype(dtype) for layer in (3, 6)},
        [[i, i + 1] for i in range(0, n - 1, 2) if i // K == (i + 1) // K],
        prompt={f"prompt:{layer}": rng.normal(size=(N_PROMPTS, DIM)).astype(dtype) for layer in (3, 6)},
        prompt_of=rng.permutation(np.repeat(np.arange(N_PROMPTS), K)),
    )


@pytest.fixture(params=["gathered", "streamed"])
def route(request, monkeypatch):
    """Whether the rows are copied once or read in every pass; blocks small enough that there are several."""
    monkeypatch.setattr(linear_map, "BLOCK_ROWS", 4)
    if request.param == "streamed":
        monkeypatch.setattr(linear_map, "GATHER_LIMIT_BYTES", 0)
    return request.param


@pytest.mark.parametrize("rows", [None, [0, 1, 5, 6, 9, 13, 20], [20, 3, 3]], ids=["all", "some", "repeated"])
@pytest.mark.parametrize("scale", ["none", "rms", "standard"])
@pytest.mark.parametrize("terms", TERMS, ids="+".join)
@pytest.mark.parametrize("views", [("3", "3"), ("6,3", "3,6")], ids=["one layer", "two layers"])
def test_forward_and_adjoint_equal_the_features(terms, scale, rows, views, route):
    prefs = data()
    f = Featurizer(terms, *views, scale=scale).fit(prefs)
    rows = None if rows is None else np.array(rows)
    phi = f.transform(prefs.responses, rows)
    m = LinearMap(f, prefs.responses, rows)
    assert (m.n, m.dim) == phi.shape
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=m.dim), rng.normal(size=m.n)
    forward, adjoint = m.forward(x), m.adjoint(y)
    np.testing.assert_allclose(forward, phi @ x, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(adjoint, phi.T @ y, rtol=1e-12, atol=1e-12)
    assert forward.dtype == adjoint.dtype == np.float64
    assert forward @ y == pytest.approx(x @ adjoint, rel=1e-12)
    local = rng.integers(0, m.n, size=(5, 2))
    np.testing.assert_allclose(m.differences(local), phi[local[:, 0]] - phi[local[:, 1]], atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("terms", TERMS, ids="+".join)
def test_narrow_vectors_are_computed_in_float32(terms, dtype, route):
    prefs = data(dtype)
    f = Featurizer(terms, scale="standard").fit(prefs)
    for rows in (None, np.array([1, 4, 9])):
        m = LinearMap(f, prefs.responses, rows)
        assert m.dtype == np.float32
        phi = f.transform(prefs.responses, rows)
        x, y = np.random.default_rng(2).normal(size=m.dim), np.random.default_rng(3).normal(size=m.n)
        np.testing.assert_allclose(m.forward(x), phi @ x, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(m.adjoint(y), phi.T @ y, rtol=1e-4, atol=1e-4)
        assert m.forward(x).dtype == m.adjoint(y).dtype == np.float64


def test_nothing_but_the_rows_is_read(route):
    prefs = data()
    f = Featurizer(("r", "p*r")).fit(prefs)
    rows = np.array([0, 4, 11])
    expected = LinearMap(f, prefs.responses, rows).forward(np.ones(f.dim_))
    for name, matrix in prefs.responses.views.items():
        keep = prefs.responses.prompt_of[rows] if name.startswith("prompt:") else rows
        matrix[np.setdiff1d(np.arange(len(matrix)), keep)] = np.nan
    np.testing.assert_array_equal(LinearMap(f, prefs.responses, rows).forward(np.ones(f.dim_)), expected)


def test_the_plain_route_copies_no_matrix():
    prefs = data()
    f = Featurizer(response="3").fit(prefs)
    m = LinearMap(f, prefs.responses)
    assert m._views["response:3"] is prefs.responses.views["response:3"]


def test_no_rows_give_no_rewards():
    prefs = data()
    f = Featurizer(("r", "p*r")).fit(prefs)
    m = LinearMap(f, prefs.responses, np.array([], dtype=int))
    assert m.forward(np.ones(m.dim)).shape == (0,)
    np.testing.assert_array_equal(m.adjoint(np.array([])), np.zeros(m.dim))


def test_another_width_is_refused():
    prefs = data()
    f = Featurizer(response="3").fit(prefs)
    other = EmbeddedPreferences.from_arrays({"response:3": np.ones((2, DIM + 1))}, [[0, 1]])
    with pytest.raises(InvalidInputError, match=f"was fitted on view 'response:3' with {DIM} columns, got {DIM + 1}"):
        LinearMap(f, other.responses)


@pytest.mark.parametrize("rows", [None, [0, 1, 5, 6, 9, 13, 20]], ids=["all", "some"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("terms", [t for t in TERMS if t != ("r",)], ids="+".join)
def test_from_the_second_pass_on_scaled_rows_are_held_and_no_bit_changes(monkeypatch, terms, dtype, rows):
    prefs = data(dtype)
    f = Featurizer(terms, "3,6", "3", scale="standard").fit(prefs)
    rows = None if rows is None else np.array(rows)
    m = LinearMap(f, prefs.responses, rows)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(m.dim, 2)), rng.normal(size=(m.n, 2))
    local = np.array([[0, 1], [2, 2]])

    def everything():
        return [m.forward(x[:, 0]), m.adjoint(y[:, 0]), m.forward(x), m.adjoint(y), m.differences(local)]

    first = LinearMap(f, prefs.responses, rows).forward(x[:, 0])
    with monkeypatch.context() as patched:
        patched.setattr(linear_map, "GATHER_LIMIT_BYTES", 0)
        streamed = LinearMap(f, prefs.responses, rows)
        expected = [
            streamed.forward(x[:, 0]),
            streamed.adjoint(y[:, 0]),
            streamed.forward(x),
            streamed.adjoint(y),
            streamed.differences(local),
        ]
        # beyond the limit nothing is held
        assert streamed._scaled
    np.testing.assert_array_equal(m.forward(x[:, 0]), first)
    # a single pass, as of a prediction, copies nothing
    assert m._scaled
    for found, wanted in zip(everything(), expected):
        np.testing.assert_array_equal(found, wanted)
    assert not m._scaled
    for view, held in m._views.items():
        assert held.dtype == m.dtype
        assert held is not prefs.responses.views[view]
        assert len(held) <= m.n
