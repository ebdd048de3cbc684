"""Heads that read mapped vectors: they neither copy them nor hold more than some numbers a pair beside them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from embedrm import EmbeddedPreferences, Featurizer, LinearHead
from embedrm.featurizers import linear_map
from embedrm.featurizers import rows as feature_rows
from embedrm.featurizers.linear_map import LinearMap
from embedrm.heads._groups import group_ranks
from embedrm.heads.mlp import MLPHead
from embedrm.numerics.folds import group_folds, hold_out

PROMPTS, DIM = 10_000, 256
MIB = 2**20


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("vectors"), np.random.default_rng(0)
    for name, n in (("response", 2 * PROMPTS), ("prompt", PROMPTS)):
        np.save(folder / f"{name}.npy", rng.standard_normal((n, DIM), dtype=np.float32))
    return folder


@pytest.fixture
def mapped(files, monkeypatch):
    """Two thirds of the pairs over files of 20 and 10 MiB, under limits that none of them keeps to."""
    monkeypatch.setattr(linear_map, "GATHER_LIMIT_BYTES", 0)
    monkeypatch.setattr(feature_rows, "HELD_LIMIT_BYTES", 0)
    # blocks in proportion to the files
    monkeypatch.setattr("embedrm.featurizers._streaming.BLOCK_ROWS", 256)
    monkeypatch.setattr(linear_map, "BLOCK_ROWS", 256)
    monkeypatch.setattr(feature_rows.FeatureRows.blocks, "__defaults__", (256,))
    x, p = (np.load(files / f"{name}.npy", mmap_mode="r") for name in ("response", "prompt"))
    pairs = np.arange(2 * PROMPTS).reshape(PROMPTS, 2)
    prefs = EmbeddedPreferences.from_arrays(x, pairs, prompt=p, prompt_of=np.repeat(np.arange(PROMPTS), 2))
    return prefs[np.arange(PROMPTS) % 3 != 0]


HEADS = {
    "linear": LinearHead(Featurizer(scale="rms"), tol=1e-3),
    "linear, cross-validated": LinearHead(Featurizer(scale="rms"), l2="cv", l2_grid=(1e-2, 1.0), cv=2, tol=1e-3),
    "linear, interactions": LinearHead(Featurizer("r,p*r"), tol=1e-3),
    "mlp": MLPHead(hidden=(8,), max_epochs=1),
    "mlp, interactions": MLPHead(Featurizer("r,p*r"), hidden=(8,), max_epochs=1, batch_rows=128),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_fit_and_a_prediction_stay_far_below_the_vectors(name, mapped, monkeypatch):
    # the sample behind the solver's metric has a fixed size, which is nothing beside large files
    monkeypatch.setattr("embedrm.heads._linear_problem._METRIC_MIN_PAIRS", 512)
    monkeypatch.setattr("embedrm.heads._linear_problem._METRIC_PAIRS_PER_FEATURE", 1)
    head = HEADS[name]
    tracemalloc.start()
    try:
        head.fit(mapped).predict(mapped)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB + 8 * (head.n_features_in_**2) * 4


def test_a_matrix_that_blas_cannot_read_is_streamed(files):
    raw = np.memmap(files / "response.npy", mode="r", dtype=np.uint8)
    end = len(raw) - (len(raw) - 1) % 4
    odd = raw[1:end].view(np.float32)[: 19_000 * DIM].reshape(-1, DIM)
    whole = np.load(files / "response.npy", mmap_mode="r")
    assert not odd.flags.aligned
    theta = np.ones(DIM)
    featurizer = Featurizer(scale="none").fit(EmbeddedPreferences.from_arrays(whole, [[0, 1]]))
    for matrix in (whole, whole[:, ::-1], odd):
        responses = EmbeddedPreferences.from_arrays(matrix, [[0, 1]], prompt_of=np.zeros(len(matrix), int)).responses
        tracemalloc.start()
        try:
            with np.errstate(all="ignore"):
                rewards = LinearMap(featurizer, responses).forward(theta)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 4 * MIB
        if matrix is not odd:
            np.testing.assert_allclose(rewards, matrix.sum(axis=1, dtype=np.float64), rtol=1e-3, atol=1e-3)


def test_ranks_of_groups_split_as_their_names_do():
    rng = np.random.default_rng(0)
    prompt_of = np.repeat(np.arange(300), 2)
    names = np.array([f"g{i}" for i in rng.integers(0, 120, size=300)])
    pairs = rng.permutation(600).reshape(-1, 2)
    prefs = EmbeddedPreferences.from_arrays(rng.normal(size=(600, 2)), pairs, prompt_of=prompt_of, group=names)[40:200]
    ranks = group_ranks(prefs)
    named = hold_out(prefs.groups, 0.2, 3, "test", ""), *group_folds(prefs.groups, 4)
    ranked = hold_out(ranks, 0.2, 3, "test", ""), *group_folds(ranks, 4)
    for one, other in zip(named, ranked):
        for a, b in zip(one, other):
            np.testing.assert_array_equal(a, b)


def test_ranks_do_not_depend_on_the_size_of_a_block(monkeypatch):
    rng = np.random.default_rng(1)
    names = rng.integers(0, 9, size=50).astype(str)
    prefs = EmbeddedPreferences.from_arrays(
        rng.normal(size=(100, 2)), np.arange(100).reshape(-1, 2), prompt_of=np.repeat(np.arange(50), 2), group=names
    )
    expected = np.unique(names, return_inverse=True)[1]
    for size in (1, 7, 49, 50, 1000):
        monkeypatch.setattr("embedrm.heads._groups._BLOCK", size)
        np.testing.assert_array_equal(group_ranks(prefs), expected)
