"""Terms over views, and their scales, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from embedrm import EmbeddedPreferences, Featurizer
from embedrm.errors import InvalidInputError

R = np.array([[1.0, 2.0], [3.0, -1.0], [0.0, 4.0], [100.0, 100.0]])
P = np.array([[2.0, 1.0], [-1.0, 3.0], [50.0, 50.0]])


def data(dtype=np.float64, **views):
    # row 3 and prompt 2 are in no pair
    views = views or {"response:3": R, "prompt:3": P}
    prompts = {name: m.astype(dtype) for name, m in views.items() if name.startswith("prompt:")}
    others = {name: m.astype(dtype) for name, m in views.items() if not name.startswith("prompt:")}
    return EmbeddedPreferences.from_arrays(
        others, [[0, 1], [2, 0]], prompt=prompts, prompt_of=[0, 0, 1, 2], domain=["a", "a", "a"]
    )


def test_terms_by_hand():
    prefs = data()
    features = Featurizer(("r", "p*r", "abs(p-r)"), scale="none").fit(prefs).transform(prefs.responses)
    np.testing.assert_array_equal(
        features[:3],
        [
            [1, 2, 2, 2, 1, 1],
            [3, -1, 6, -1, 1, 2],
            [0, 4, 0, 12, 1, 1],
        ],
    )


def test_order_is_terms_then_prompt_views_then_response_views():
    views = {"response:3": R, "response:6": R + 10, "prompt:3": P, "prompt:6": P + 1, "joint:3": np.ones((4, 2)) * 7}
    prefs = data(**views)
    f = Featurizer(("p*r", "r"), response="6,3", prompt="3,6", scale="none").fit(prefs)
    rows = np.array([1])
    r6, r3, p3, p6 = R[1] + 10, R[1], P[0], P[0] + 1
    np.testing.assert_array_equal(
        f.transform(prefs.responses, rows)[0], np.concatenate([p3 * r6, p3 * r3, p6 * r6, p6 * r3, r6, r3])
    )
    assert f.dim_ == 12
    assert [(term, p, r) for term, p, r, _ in f.feature_blocks()] == [
        ("p*r", "prompt:3", "response:6"),
        ("p*r", "prompt:3", "response:3"),
        ("p*r", "prompt:6", "response:6"),
        ("p*r", "prompt:6", "response:3"),
        ("r", None, "response:6"),
        ("r", None, "response:3"),
    ]
    assert [b.start for *_, b in f.feature_blocks()] == [0, 2, 4, 6, 8, 10]


def test_the_default_takes_every_response_view_and_no_prompt():
    prefs = data(**{"response:3": R, "response:6": R, "prompt:3": P, "joint:3": R})
    f = Featurizer().fit(prefs)
    assert f.response_views_ == ("response:3", "response:6")
    assert f.prompt_views_ == ()


def test_a_joint_view_stands_on_the_response_side():
    prefs = data(**{"response:3": R, "joint:3": R * 2, "prompt:3": P})
    np.testing.assert_array_equal(
        Featurizer(response="joint:3", scale="none").fit(prefs).transform(prefs.responses), R * 2
    )


def test_rms_by_hand_on_active_rows_only():
    prefs = data()
    f = Featurizer(scale="rms").fit(prefs)
    active = R[:3]
    centred = active - active.mean(axis=0)
    np.testing.assert_allclose(f.centre_["response:3"], active.mean(axis=0))
    np.testing.assert_allclose(f.spread_["response:3"], np.full(2, np.sqrt((centred**2).mean())))
    np.testing.assert_allclose(f.transform(prefs.responses)[:3], centred / np.sqrt((centred**2).mean()))


def test_standard_by_hand_with_prompts_counted_once():
    prefs = data()
    f = Featurizer(("r", "p*r"), scale="standard").fit(prefs)
    z_r = (R - R[:3].mean(axis=0)) / R[:3].std(axis=0)
    # prompt 0 has two active responses and still counts once; prompt 2 is idle
    z_p = (P - P[:2].mean(axis=0)) / P[:2].std(axis=0)
    np.testing.assert_allclose(f.transform(prefs.responses), np.hstack([z_r, z_p[[0, 0, 1, 2]] * z_r]))


def test_constant_columns_are_centred_and_left_undivided():
    constant = np.column_stack([np.full(4, 0.1), R[:, 0], np.full(4, 1e6)])
    prefs = data(**{"response:3": constant})
    z = Featurizer(scale="standard").fit(prefs).transform(prefs.responses)[:3]
    np.testing.assert_allclose(z[:, 0], 0.0, atol=1e-12)
    np.testing.assert_allclose(z[:, 2], 0.0, atol=1e-6)
    assert z[:, 1].std() == pytest.approx(1.0)
    flat = data(**{"response:3": np.full((4, 2), 0.3)})
    np.testing.assert_allclose(Featurizer(scale="rms").fit(flat).transform(flat.responses), 0.0, atol=1e-12)


@pytest.mark.parametrize("value", [0.1, -0.3, 1e-9, 12345.678])
def test_rounding_of_a_mean_is_no_variation(value):
    n = 1000
    x = np.column_stack([np.full(n, value), np.arange(n) % 7.0])
    prefs = EmbeddedPreferences.from_arrays(x, np.arange(n).reshape(-1, 2))
    f = Featurizer(scale="standard").fit(prefs)
    assert f.spread_["response:final"][0] == 1.0
    np.testing.assert_allclose(f.transform(prefs.responses)[:, 0], 0.0, atol=1e-6)


def test_scale_survives_a_large_mean():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 2)) + 1e4
    f = Featurizer(scale="standard").fit(data(**{"response:3": x}))
    np.testing.assert_allclose(f.spread_["response:3"], x[:3].std(axis=0), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scale_is_fitted_in_float64_whatever_the_vectors(dtype):
    prefs = data(dtype=dtype)
    f = Featurizer(scale="standard").fit(prefs)
    assert f.centre_["response:3"].dtype == np.float64
    np.testing.assert_allclose(f.spread_["response:3"], R[:3].std(axis=0))


@pytest.mark.parametrize("term", ["p", "p*p", "abs(p)", "1"])
def test_terms_in_the_prompt_alone_are_refused(term):
    with pytest.raises(
        InvalidInputError, match=r"same for both responses of a pair and cancels; .*r, p\*r, abs\(p-r\)"
    ):
        Featurizer(("r", term)).fit(data())


@pytest.mark.parametrize(
    "featurizer, message",
    [
        (Featurizer(("r*r",)), r"unknown term 'r\*r'"),
        (Featurizer(()), "at least one term, got none"),
        (Featurizer(("r", "r")), "names a term twice: r, r"),
        (Featurizer(scale="unit"), "unknown scale 'unit'.* Known: none, rms, standard"),
        (Featurizer(response="5"), r"unknown view for Featurizer\(response=...\): 'response:5'"),
        (Featurizer(("p*r",), prompt="5"), r"unknown view for Featurizer\(prompt=...\): 'prompt:5'"),
        (Featurizer(response="prompt:3"), "views with a row for each response, got 'prompt:3'"),
        (Featurizer(("p*r",), prompt="response:3"), "views with a row for each prompt, got 'response:3'"),
    ],
)
def test_wrong_parameters_are_refused(featurizer, message):
    with pytest.raises(InvalidInputError, match=message):
        featurizer.fit(data())


def test_products_need_one_width():
    prefs = data(**{"response:3": R, "prompt:3": np.ones((3, 5))})
    Featurizer().fit(prefs)
    with pytest.raises(InvalidInputError, match="prompt:3 with 5 and response:3 with 2 columns"):
        Featurizer(("r", "p*r")).fit(prefs)


def test_products_need_a_prompt_view():
    with pytest.raises(InvalidInputError, match="at least one prompt view, got none; present: response:3"):
        Featurizer(("p*r",)).fit(data(**{"response:3": R}))


def test_terms_may_be_one_string():
    prefs = data()
    a, b = Featurizer("r, p*r").fit(prefs), Featurizer(["r", "p*r"]).fit(prefs)
    assert a.terms_ == b.terms_ == ("r", "p*r")


def test_unfitted_is_refused():
    with pytest.raises(NotFittedError):
        Featurizer().transform(data().responses)
    with pytest.raises(NotFittedError):
        Featurizer().feature_blocks()


def test_another_width_is_refused_word_for_word():
    f = Featurizer().fit(data())
    with pytest.raises(InvalidInputError) as caught:
        f.transform(data(**{"response:3": np.ones((4, 3))}).responses)
    assert str(caught.value) == (
        "Featurizer was fitted on view 'response:3' with 2 columns, got 3; encode with the encoder and layers it was "
        "trained with"
    )
