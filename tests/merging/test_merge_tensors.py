"""Named tensors: matched by name, checked, one at a time, none left out."""

from collections.abc import Mapping

import numpy as np
import pytest

from embedrm.errors import InvalidInputError
from embedrm.merging import MERGE_METHODS
from embedrm.merging.methods import base as methods_base
from embedrm.merging.tensors import iter_merged, merge_tensors


def model(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    shapes = {"embed": (9, 4), "block.weight": (4, 4), "block.bias": (4,)}
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


A, B, C = (model(seed) for seed in range(3))


def extras(name, models, density=1.0):
    method = MERGE_METHODS.get(name)
    out = {k: v for k, v in {"density": density, "gamma": 0.0}.items() if k in method.options()}
    if method.on == "deltas":
        # drawn in the models' own precision: differences of doubles that were once float32 would all be exact
        out["base"] = model(2, next(iter(models[0].values())).dtype)
    if method.moments:
        out["moments"] = [{k: np.square(v, dtype=float) for k, v in m.items()} for m in models]
    return out


def test_tensors_are_matched_by_name_and_keep_their_order_and_type():
    turned = dict(reversed(B.items()))
    merged = merge_tensors([A, turned], [1, 3])
    assert list(merged) == list(A)
    for name, array in merged.items():
        np.testing.assert_allclose(array, (A[name] + 3 * B[name]) / 4, rtol=1e-6)
        assert array.dtype == np.float32
    half = merge_tensors([{k: v.astype(np.float16) for k, v in A.items()}] * 2)
    assert {v.dtype for v in half.values()} == {np.dtype(np.float16)}


@pytest.mark.parametrize("name", MERGE_METHODS.names())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lambda_zero_is_the_general_model_bit_for_bit(name, dtype):
    one, two = model(0, dtype), model(1, dtype)
    if MERGE_METHODS.get(name).uniform:
        with pytest.raises(InvalidInputError, match="same weight"):
            merge_tensors([one, two], [1, 0], name)
        return
    for weights, expected in (([1, 0], one), ([0, 1], two)):
        merged = merge_tensors([one, two], weights, name, **extras(name, [one, two]))
        for key in one:
            np.testing.assert_array_equal(merged[key], expected[key])


@pytest.mark.parametrize("name", MERGE_METHODS.names())
def test_the_order_of_models_does_not_matter(name):
    density = 0.5
    models, w = [A, B, model(7)], [1 / 3] * 3 if MERGE_METHODS.get(name).uniform else [0.5, 0.2, 0.3]
    one = merge_tensors(models, w, name, **extras(name, models, density))
    order = [2, 0, 1]
    moved = [models[i] for i in order]
    other = merge_tensors(moved, [w[i] for i in order], name, **extras(name, moved, density))
    for key in one:
        np.testing.assert_allclose(one[key], other[key], atol=1e-6)


def test_masks_of_dare_follow_the_model_and_the_tensor():
    twice = {"a": A["embed"], "b": A["embed"]}
    zero = {"a": np.zeros((9, 4), np.float32), "b": np.zeros((9, 4), np.float32)}
    merged = merge_tensors([twice], [1], "dare_linear", base=zero, density=0.5)
    assert not np.array_equal(merged["a"] != 0, merged["b"] != 0)


def test_deltas_by_hand():
    base, one, two = ({"w": np.array(v)} for v in ([1.0, 1], [2.0, 5], [0.0, 1]))
    merged = merge_tensors([one, two], [1, 0.5], "task_arithmetic", base=base)
    np.testing.assert_allclose(merged["w"], [1 + 1 - 0.5, 5])
    merged = merge_tensors([one, two], [1, 1], "ties", base=base, density=1.0, **{"lambda": 0.5})
    np.testing.assert_allclose(merged["w"], [1, 3])


@pytest.mark.parametrize("name", MERGE_METHODS.names())
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pieces_give_what_the_whole_does(name, dtype, monkeypatch):
    one, two = model(0, dtype), model(1, dtype)
    options = extras(name, [one, two], density=0.5)
    for more in ({"scope": "model"}, {"rescale_norm": "l1"}, {}):
        if set(more) <= set(MERGE_METHODS.get(name).options()):
            monkeypatch.undo()
            whole = merge_tensors([one, two], None, name, **options, **more)
            # a piece ends inside a row, and the last one is shorter
            monkeypatch.setattr(methods_base, "PIECE", 5)
            pieces = merge_tensors([one, two], None, name, **options, **more)
            for key in whole:
                # sums over a tensor (an angle, a norm) are added up in another order
                tolerance = {np.float16: 1e-3, np.float32: 1e-6, np.float64: 1e-12}[dtype]
                exact = name != "slerp" and "rescale_norm" not in more
                np.testing.assert_allclose(whole[key], pieces[key], rtol=0 if exact else tolerance)


def test_trimming_over_the_whole_model_by_hand(monkeypatch):
    base = {"a": np.zeros(4), "b": np.zeros((2, 2))}
    one = {"a": np.array([0.1, -0.2, 0.3, 0.4]), "b": np.array([[5.0, -6], [0.5, 0.6]])}
    two = {"a": np.array([1.0, 0, 0, 0]), "b": np.array([[0.0, 2], [0, -3]])}
    # a quarter of all eight entries: -6 and 5; 3 and 2
    for size in (3, 100):
        monkeypatch.setattr(methods_base, "PIECE", size)
        merged = merge_tensors([one, two], [1, 1], "ties", base=base, density=0.25, scope="model")
        np.testing.assert_array_equal(merged["a"], np.zeros(4))
        np.testing.assert_array_equal(merged["b"], [[5, -6], [0, -3]])
        # a quarter of each tensor: one entry of each
        merged = merge_tensors([one, two], [1, 1], "ties", base=base, density=0.25, scope="tensor")
        np.testing.assert_array_equal(merged["a"], [1, 0, 0, 0.4])
        np.testing.assert_array_equal(merged["b"], [[0, -6], [0, -3]])
        # each model its own share; that of a model without a weight is not asked for
        shares = {"density": [0.125, 9.0, 0.5], "scope": "model"}
        merged = merge_tensors([one, one, two], [1, 0, 1], "ties", base=base, **shares)
        np.testing.assert_array_equal(merged["a"], [1, 0, 0, 0])
        np.testing.assert_array_equal(merged["b"], [[0, -6], [0, -3]])
    with pytest.raises(InvalidInputError, match=r"unknown scope of ties 'modle'\. Did you mean 'model'"):
        merge_tensors([one, two], None, "ties", base=base, scope="modle")
    with pytest.raises(InvalidInputError, match="density to be one number, or 2, one for each model; got 3"):
        merge_tensors([one, two], None, "ties", base=base, density=[0.1, 0.2, 0.3])
    with pytest.raises(InvalidInputError, match=r"one shape and type in all models, got \(4,\) .* \(5,\)"):
        merge_tensors([one, two], None, "ties", base={**base, "a": np.zeros(5)}, scope="model")


def test_large_tensors_are_merged_in_little_memory():
    tracemalloc = pytest.importorskip("tracemalloc")
    rng = np.random.default_rng(0)
    shape = (4000, 400)
    models = [{"w": rng.normal(size=shape).astype(np.float32)} for _ in range(3)]
    n_bytes = models[0]["w"].nbytes
    for name in MERGE_METHODS.names():
        options = extras(name, models[:2], density=0.4)
        options |= {"base": models[2]} if "base" in options else {}
        tracemalloc.start()
        merge_tensors(models[:2], None, name, **options)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # the merged tensor itself is one of these
        assert peak < 4 * n_bytes, (name, peak / n_bytes)


def test_one_tensor_is_read_at_a_time_and_models_without_weight_not_at_all():
    class Lazy(Mapping):
        def __init__(self, arrays):
            self.arrays, self.read = arrays, []

        def __getitem__(self, name):
            self.read.append(name)
            return self.arrays[name]

        def __iter__(self):
            return iter(self.arrays)

        def __len__(self):
            return len(self.arrays)

    one, two, idle = Lazy(A), Lazy(B), Lazy(C)
    stream = iter_merged([one, two, idle], [1, 1, 0])
    next(stream)
    assert (one.read, two.read, idle.read) == (["embed"], ["embed"], [])
    assert [name for name, _ in stream] == ["block.weight", "block.bias"]


def test_whole_numbers_must_agree_and_are_kept():
    one, two = ({**m, "positions": np.arange(4)} for m in (A, B))
    np.testing.assert_array_equal(merge_tensors([one, two])["positions"], np.arange(4))
    two["positions"] = np.arange(4) + 1
    with pytest.raises(InvalidInputError, match="'positions': it holds whole numbers"):
        merge_tensors([one, two])


def _without(tensors_of, *names):
    return {k: v for k, v in tensors_of.items() if k not in names}


@pytest.mark.parametrize(
    "models, options, message",
    [
        ([], {}, "at least one model, got an empty list"),
        ([A, _without(B, "embed")], {}, "only model 1 has 'embed'"),
        ([_without(A, "embed"), B], {"names": ["x", "y"]}, "only y has 'embed'"),
        ([A, {**B, "embed": B["embed"][:5]}], {}, r"'embed' to have one shape and type .* \(9, 4\) .* \(5, 4\)"),
        ([A, {**B, "embed": B["embed"].astype(float)}], {}, "float32 in model 1 and .* float64 in model 2"),
        (
            [A, {**B, "block.bias": np.full(4, np.nan, np.float32)}],
            {},
            "NaN or infinity in 4 of 4 .*'block.bias'.*model 2",
        ),
        ([A, B], {"weights": [1]}, "needs 2 weights"),
        ([A, B], {"weights": [1, np.inf]}, "finite weights"),
        ([A, B], {"method": "ties"}, "needs base, the model that all came from"),
        ([A, B], {"base": C}, "has no use for"),
        ([A, B], {"method": "ties", "base": _without(C, "embed")}, "only model 1 has 'embed'"),
        ([A, B], {"method": "fisher"}, "needs moments"),
        ([A, B], {"moments": [A, B]}, "got moments"),
        ([A, B], {"method": "fisher", "moments": [A]}, "needs moments, one mapping"),
        ([A, B], {"method": "fisher", "moments": [A, _without(B, "embed")]}, "the moments of model 2|only model 1"),
        ([A, B], {"method": "linaer"}, "unknown merge method 'linaer'. Did you mean 'linear'"),
        ([A, B], {"density": 0.5}, "unknown option of the merge method 'linear'"),
        ([{"w": np.array(["a"])}] * 2, {}, "holds no real numbers"),
    ],
)
def test_refusals(models, options, message):
    with pytest.raises(InvalidInputError, match=message):
        merge_tensors(models, **options)
