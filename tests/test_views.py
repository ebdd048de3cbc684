"""Names of views and of layers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedrm.errors import EmbedRMError, InvalidInputError
from embedrm.views import SIDES, parse_layers, parse_view, select_views, view_name

layers = st.one_of(st.integers(0, 99), st.just("final"))
VIEWS = ["response:3", "response:final", "prompt:3", "prompt:6", "joint:6"]


@pytest.mark.parametrize(
    "given, expected",
    [
        ("3,6", (3, 6)),
        (" final , 0", ("final", 0)),
        (6, (6,)),
        (np.int64(6), (6,)),
        ([3, "final"], (3, "final")),
        ((np.int64(2), "5"), (2, 5)),
        ("final", ("final",)),
    ],
)
def test_layers_are_read(given, expected):
    assert parse_layers(given) == expected


@pytest.mark.parametrize("bad", ["", "3,,6", "last", "-1", "²", "3.0", [], [None], 2.5, None, "1 2"])
def test_layers_that_are_none_are_refused(bad):
    with pytest.raises(InvalidInputError, match="write for example"):
        parse_layers(bad)


def test_a_layer_named_twice_is_refused():
    with pytest.raises(InvalidInputError, match="layer 3 is named twice"):
        parse_layers("3,6,03")


@given(st.sampled_from(SIDES), layers)
def test_a_view_name_is_read_back(side, layer):
    assert parse_view(view_name(side, layer)) == (side, layer)


@pytest.mark.parametrize("bad", ["3", "responses:3", "response", "response:", ":3", "prompt:3,6", "joint:x", ""])
def test_names_that_are_no_view_are_refused(bad):
    with pytest.raises(InvalidInputError):
        parse_view(bad)


@given(st.text(max_size=12))
def test_any_text_is_a_view_or_the_documented_error(text):
    try:
        side, layer = parse_view(text)
    except EmbedRMError:
        return
    assert side in SIDES
    assert layer == "final" or layer >= 0


@pytest.mark.parametrize(
    "wanted, side, expected",
    [
        (None, "response", ("response:3", "response:final")),
        (None, "prompt", ("prompt:3", "prompt:6")),
        ("3", "response", ("response:3",)),
        ("final,3", "response", ("response:final", "response:3")),
        (6, "prompt", ("prompt:6",)),
        (["3", "joint:6"], "response", ("response:3", "joint:6")),
        ("prompt:6", "prompt", ("prompt:6",)),
    ],
)
def test_views_are_selected(wanted, side, expected):
    assert select_views(wanted, VIEWS, side, "me") == expected


@pytest.mark.parametrize(
    "wanted, side, message",
    [
        ("5", "response", r"unknown view for me: 'response:5'\..* Known: response:3, .*joint:6\."),
        ("response:33", "response", r"Did you mean 'response:3'\?"),
        ("3,3", "response", "me names a view twice"),
        ("final,response:final", "response", "me names a view twice"),
        # a prompt view has a row for each prompt, so it can be no feature of a response, and the reverse
        ("prompt:6", "response", "me expects views with a row for each response, got 'prompt:6'"),
        ("response:3", "prompt", "me expects views with a row for each prompt, got 'response:3'"),
        ("joint:6", "prompt", "me expects views with a row for each prompt, got 'joint:6'"),
    ],
)
def test_views_that_do_not_fit_are_refused(wanted, side, message):
    with pytest.raises(InvalidInputError, match=message):
        select_views(wanted, VIEWS, side, "me")


def test_no_view_of_the_side_is_refused_with_what_is_there():
    with pytest.raises(InvalidInputError, match="me needs at least one prompt view, got none; present: response:3"):
        select_views(None, ["response:3"], "prompt", "me")
    with pytest.raises(InvalidInputError, match="present: no view at all"):
        select_views(None, [], "response", "me")
