"""Merge methods: values by hand, laws, and refusals."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedrm.errors import InvalidInputError
from embedrm.merging import MERGE_METHODS
from embedrm.merging.methods.breadcrumbs import breadcrumbs
from embedrm.merging.methods.dare import dare_linear, dare_ties
from embedrm.merging.methods.fisher import fisher
from embedrm.merging.methods.linear import linear, soup
from embedrm.merging.methods.slerp import slerp
from embedrm.merging.methods.task_arithmetic import task_arithmetic
from embedrm.merging.methods.ties import ties

A, B = np.array([1.0, 2, -3]), np.array([3.0, -2, 5])


def test_linear_by_hand():
    np.testing.assert_allclose(linear([A, B], [1, 3]), [2.5, -1, 3])
    np.testing.assert_allclose(linear([A, B], [1, 3], normalize=False), [10, -4, 12])
    np.testing.assert_allclose(linear([A, B], [1.5, -0.5]), [0, 4, -7])
    np.testing.assert_allclose(linear([A, B]), [2, 0, 1])
    np.testing.assert_allclose(soup([A, B]), [2, 0, 1])


def test_slerp_by_hand():
    # orthogonal tensors of lengths 2 and 3: a quarter turn in thirds
    x, y = np.array([2.0, 0]), np.array([0.0, 3])
    np.testing.assert_allclose(slerp([x, y], t=1 / 3), [2 * np.cos(np.pi / 6), 3 * np.sin(np.pi / 6)])
    np.testing.assert_allclose(slerp([x, y], [2, 1]), slerp([x, y], t=1 / 3))
    np.testing.assert_array_equal(slerp([x, y], t=0), x)
    np.testing.assert_array_equal(slerp([x, y], t=1), y)
    # a twelfth of a turn: halfway lies on the circle, not on the chord
    third = np.array([np.cos(np.pi / 6), 0.5])
    np.testing.assert_allclose(slerp([[1.0, 0.0], third], t=0.5), [np.cos(np.pi / 12), np.sin(np.pi / 12)])
    # on both sides of the cosine 0.9995, an angle of 0.03162
    for angle, exact in ((0.0317, True), (0.0315, False)):
        near = np.linalg.norm(slerp([[1.0, 0.0], [np.cos(angle), np.sin(angle)]], t=0.5))
        assert (abs(near - 1) < 1e-12) == exact
    # three axes alike: the middle of the octant
    np.testing.assert_allclose(slerp(list(np.eye(3))), np.ones(3) / np.sqrt(3))
    # all weight on two of three is the interpolation of the two
    three = [np.array([1.0, 0, 0]), np.array([0.6, 0.8, 0]), np.array([0.0, 0, 1])]
    np.testing.assert_allclose(slerp(three, [1, 3, 0]), slerp(three[:2], t=0.75))
    # nearly parallel, opposite, or without a direction: the mean
    np.testing.assert_allclose(slerp([[1.0, 0.0], [1.0, 0.01]], t=0.5), [1, 0.005])
    np.testing.assert_allclose(slerp([[1.0, 0.0], [-1.0, 0.0]], t=0.25), [0.5, 0])
    np.testing.assert_allclose(slerp([[0.0, 0.0], [2.0, 4.0]], t=0.5), [1, 2])


def test_slerp_of_unit_vectors_is_a_spherical_mean():
    rng = np.random.default_rng(0)
    u = rng.normal(size=(4, 6)) + 1.5
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    w = np.array([0.1, 0.2, 0.3, 0.4])
    q = slerp(list(u), w)
    assert np.linalg.norm(q) == pytest.approx(1, abs=1e-9)
    angle = np.arccos(u @ q)
    logs = (angle / np.sin(angle))[:, None] * (u - np.cos(angle)[:, None] * q)
    np.testing.assert_allclose(w @ logs, 0, atol=1e-9)


def test_slerp_of_directions_far_apart_finds_a_mean_and_needs_no_order():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x, w = rng.normal(size=(5, 4)), rng.uniform(0.1, 1, size=5)
        order = rng.permutation(5)
        np.testing.assert_allclose(slerp(list(x), w), slerp(list(x[order]), w[order]), rtol=1e-6, atol=1e-6)


def test_task_arithmetic_by_hand():
    np.testing.assert_allclose(task_arithmetic([A, B], [2, 1]), [5, 2, -1])
    np.testing.assert_allclose(task_arithmetic([A, B], [2, 1], normalize=True), [5 / 3, 2 / 3, -1 / 3])
    np.testing.assert_allclose(task_arithmetic([A, B], [2, -1], lambda_=0.5), [-0.5, 3, -5.5])


def test_ties_by_hand():
    x = [np.array([4.0, -1, 0.5, 3, 0]), np.array([2.0, 5, -6, -1, 0.1])]
    # density 0.6 keeps 4, -1, 3 and 2, 5, -6; signs: +, + (5 - 1), - , +, none
    np.testing.assert_allclose(ties(x, [1, 1], density=0.6), [3, 5, -6, 3, 0])
    # with weights 6 and 1 the second entry's sign turns: -6 + 5
    np.testing.assert_allclose(ties(x, [6, 1], density=0.6), [(24 + 2) / 7, -1, -6, 3, 0])
    np.testing.assert_allclose(ties(x, [6, 1], density=0.6, normalize=False, lambda_=2), [52, -12, -12, 36, 0])
    # votes that cancel elect nobody
    np.testing.assert_allclose(ties([[1.0], [-1.0]], [1, 1], density=1.0), [0])
    # a zero neither votes nor divides
    np.testing.assert_allclose(ties([[0.0], [4.0]], [1, 1], density=1.0), [4])
    # a share of entries is rounded: 2.75 of five is three
    np.testing.assert_allclose(ties([[5.0, 4, 3, 2, 1]], density=0.55), [5, 4, 3, 0, 0])
    # of equal magnitudes the earlier counts as the smaller; each delta may have a share of its own
    np.testing.assert_allclose(ties([[1.0, -1, 1, 1]], density=0.5), [0, 0, 1, 1])
    np.testing.assert_allclose(ties([[1.0, 2, 3], [3.0, 2, 1]], [1, 1], density=[1.0, 0.3]), [2, 2, 3])
    # at least one entry stays
    np.testing.assert_allclose(ties([[1.0, 2.0]], density=0.01), [0, 2])


def test_dare_by_hand():
    x = np.arange(1.0, 1001)
    thin = dare_linear([x], [1], density=0.25, keys=["one"])
    kept = thin != 0
    np.testing.assert_allclose(thin[kept], 4 * x[kept])
    assert 0.2 < kept.mean() < 0.3
    raw = dare_linear([x], [1], density=0.25, rescale=False, keys=["one"])
    np.testing.assert_allclose(raw[kept], x[kept])
    l1 = dare_linear([x], [1], density=0.25, rescale_norm="l1", keys=["one"])
    np.testing.assert_allclose(l1, raw * x.sum() / raw.sum())
    assert np.abs(l1).sum() == pytest.approx(x.sum())
    np.testing.assert_array_equal(
        dare_linear([x], [1], density=0.25, rescale=False, rescale_norm="l1", keys=["one"]), raw
    )
    assert not np.array_equal(kept, dare_linear([x], [1], density=0.25, keys=["two"]) != 0)
    assert not np.array_equal(kept, dare_linear([x], [1], density=0.25, keys=["one"], random_state=1) != 0)
    # signs are elected among what is left
    y = -2 * x
    masks = [dare_linear([d], [1], density=0.5, keys=[k]) for d, k in ((x, "a"), (y, "b"))]
    merged = dare_ties([x, y], [1, 1], density=0.5, keys=["a", "b"], normalize=True)
    np.testing.assert_allclose(merged, np.where(masks[1] != 0, masks[1], masks[0]))


def test_dare_is_unbiased_over_seeds():
    rng = np.random.default_rng(0)
    deltas, w = list(rng.normal(size=(3, 5))), [0.5, 0.8, -0.3]
    drawn = np.array([dare_linear(deltas, w, density=0.3, random_state=s, keys=["a", "b", "c"]) for s in range(4000)])
    expected = task_arithmetic(deltas, w)
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - expected) < 4 * error).all()
    assert (error < 0.05).all()
    biased = np.mean([dare_linear(deltas, w, density=0.3, random_state=s, rescale=False) for s in range(300)], axis=0)
    np.testing.assert_allclose(biased, 0.3 * expected, atol=0.1)


def test_breadcrumbs_by_hand():
    x = np.array([10.0, -1, 2, -3, 4, 5, -6, 7, 8, 9])
    # the largest 10 % (10) goes, then the largest half of all: 9, 8, 7, -6, 5
    np.testing.assert_allclose(breadcrumbs([x], [1], density=0.5, gamma=0.1), [0, 0, 0, 0, 0, 5, -6, 7, 8, 9])
    np.testing.assert_allclose(
        breadcrumbs([x], [2], density=0.8, gamma=0.2, lambda_=0.5), [0, -1, 2, -3, 4, 5, -6, 7, 8, 0]
    )
    np.testing.assert_allclose(breadcrumbs([x, x], [1, 3], density=1.0, gamma=0.0, normalize=True), x)


def fisher_by_hand(a, b, moments, floor):
    f, g = ([max(value, floor) for value in m] for m in moments)
    return [(p * x + q * y) / (p + q) for p, q, x, y in zip(f, g, a, b)]


def test_fisher_by_hand():
    moments = [np.array([1.0, 0, 3]), np.array([3.0, 0, 1])]
    expected = [(1 + 9) / 4, 0, (-9 + 5) / 4]
    np.testing.assert_allclose(fisher([A, B], moments=moments, floor=1e-9), expected)
    weighted = fisher([A, B], [3, 1], moments=moments, floor=1e-9)
    np.testing.assert_allclose(weighted, [(3 + 9) / 6, 1, (-27 + 5) / 10])
    # the floor is the least, not an addition; the second entry, of which no data say anything, is the mean
    np.testing.assert_allclose(fisher([A, B], moments=moments, floor=2.0), fisher_by_hand(A, B, moments, 2.0))
    np.testing.assert_allclose(fisher([A, B], [1, 3], moments=[np.ones(3)] * 2), linear([A, B], [1, 3]))


def settings_of(method):
    """Options that leave a delta as it is."""
    return {k: v for k, v in {"density": 1.0, "gamma": 0.0}.items() if k in method.options()}


METHODS = dict(MERGE_METHODS)


@pytest.mark.parametrize("name", METHODS)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_copies_and_permutations(name, seed, n):
    method, rng = METHODS[name], np.random.default_rng(seed)
    options = settings_of(method)
    x = rng.normal(size=(n, 3, 4))
    w = np.full(n, 1 / n) if method.uniform else rng.uniform(0.1, 1, size=n)
    w = w / w.sum()
    extra = {"moments": list(rng.uniform(size=(n, 3, 4)))} if method.moments else {}
    copies = method.merge([x[0]] * n, w, **options, **extra)
    np.testing.assert_allclose(copies, x[0], rtol=1e-12, atol=1e-14)
    if method.on == "tensors":
        np.testing.assert_array_equal(copies, x[0])
    order = rng.permutation(n)
    if "density" in options and name != "breadcrumbs":
        options["density"] = 0.4
    one = method.merge(list(x), w, **options, **extra)
    moved = {"moments": [extra["moments"][i] for i in order]} if extra else {}
    other = method.merge([x[i] for i in order], w[order], **options, **moved)
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    assert one.dtype == np.float64


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.uniform])
def test_one_hot_weights_are_that_model(name):
    method, x = METHODS[name], np.random.default_rng(0).normal(size=(3, 7))
    extra = {"moments": list(x**2)} if method.moments else {}
    for i, w in enumerate(np.eye(3)):
        np.testing.assert_array_equal(method.merge(list(x), w, **settings_of(method), **extra), x[i])


@pytest.mark.parametrize("normalize", [True, False])
def test_ties_without_conflict_or_trimming_is_task_arithmetic(normalize):
    x = np.abs(np.random.default_rng(0).normal(size=(3, 20))) * np.sign(np.random.default_rng(1).normal(size=20))
    for w in ([1, 1, 1], [0.2, 0.3, 0.9]):
        one = ties(list(x), w, density=1.0, normalize=normalize)
        np.testing.assert_allclose(one, task_arithmetic(list(x), w, normalize=normalize), rtol=1e-12)
    clash = x.copy()
    clash[0] *= -1
    assert not np.allclose(ties(list(clash), density=1.0), task_arithmetic(list(clash), normalize=True))


def test_float32_tensors_are_accumulated_in_float64():
    x = [np.array([1.0], dtype=np.float32), np.array([1e-8], dtype=np.float32)]
    assert linear(x, [1, 1], normalize=False)[0] > 1.0


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_where_it_comes_from_and_what_it_takes(name):
    method = METHODS[name]
    assert "(" in method.citation
    assert method.on in ("tensors", "deltas")
    assert inspect.getdoc(method.merge)
    assert "References" in inspect.getdoc(method.merge)
    names = set(method.options())
    assert names <= {
        "normalize",
        "lambda_",
        "density",
        "gamma",
        "rescale",
        "rescale_norm",
        "random_state",
        "t",
        "floor",
        "scope",
    }


@pytest.mark.parametrize("name", METHODS)
def test_refusals_of_every_method(name):
    method = METHODS[name]
    options = settings_of(method)
    extra = {"moments": [A**2, B**2]} if method.moments else {}
    for weights, message in (
        ([1.0], r"needs 2 weights, one for each model, got shape \(1,\)"),
        ([1.0, np.nan], "needs finite weights, got NaN or infinity for 1 of 2"),
        ([0.0, 0.0], "needs a weight that is not zero"),
        (["a", "b"], "weights to be numbers"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            method.merge([A, B], weights, **options, **extra)
    with pytest.raises(InvalidInputError, match="at least one tensor, got an empty list"):
        method.merge([], **options, **({"moments": []} if method.moments else {}))
    with pytest.raises(InvalidInputError, match=r"tensors of one shape, got \(3,\) and \(2,\)"):
        method.merge([A, B[:2]], **options, **extra)
    with pytest.raises(InvalidInputError, match="unknown option of the merge method"):
        method.check_options({"densty": 0.5})


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: linear([A, B], [1, -1]), "sum of the weights, which is zero"),
        (lambda: soup([A, B], [1, 2]), "same weight, got weights that differ"),
        (lambda: slerp([A, B], [1, -1]), "not negative"),
        (lambda: slerp([A, B], t=1.5), "t in .0, 1."),
        (lambda: slerp([A, B], [1, 1], t=0.5), "without weights"),
        (lambda: slerp([A, B, A], t=0.5), "for two tensors"),
        (lambda: ties([A, B], [1, -1]), "signs are elected"),
        (lambda: ties([A, B], density=0), r"density in \(0, 1\], got 0"),
        (lambda: ties([A, B], density=1.1), "density in"),
        (lambda: ties([A, B], density=True), "density in"),
        (lambda: ties([A, B], density=[0.5]), "density to be one number, or 2, one for each model; got 1"),
        (lambda: ties([A, B], density=[0.5, 2]), r"density in \(0, 1\], got 2"),
        (lambda: ties([A, B], scope="layer"), "unknown scope of ties 'layer'"),
        (lambda: fisher([A, B], moments=[A**2, B**2], floor="low"), "floor > 0, got 'low'"),
        (lambda: dare_linear([A], density=0.5, rescale_norm="l2"), "unknown rescale_norm"),
        (lambda: dare_linear([A], density=0.5, keys=["a", "b"]), "one key for each of 1"),
        (lambda: dare_linear([A], density=0.5, random_state=0.5), "random_state"),
        (lambda: breadcrumbs([A], density=0.8, gamma=0.3), "together more than all"),
        (lambda: fisher([A, B], [1, -1], moments=[A**2, B**2]), "not negative"),
        (lambda: fisher([A, B], moments=[A**2, -(B**2)]), "finite and not negative"),
        (lambda: fisher([A, B], moments=[A**2]), "moments for each of 2"),
        (lambda: fisher([A, B], moments=[A**2, B**2], floor=0), "floor > 0"),
        (lambda: METHODS["dare_linear"].check_options({}), "needs density, for which there is no value"),
        (lambda: MERGE_METHODS.get("dare"), "unknown merge method 'dare'"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()


def test_configuration_names_are_understood():
    checked = METHODS["ties"].check_options({"lambda": 0.5, "density": 0.3})
    assert checked == {"lambda_": 0.5, "density": 0.3, "normalize": True, "scope": "tensor"}
    defaults = {name: method.options().get("normalize") for name, method in METHODS.items()}
    assert defaults["linear"] is defaults["ties"] is True
    assert defaults["task_arithmetic"] is defaults["dare_linear"] is defaults["breadcrumbs"] is False
    assert METHODS["dare_linear"].options()["rescale"] is True
