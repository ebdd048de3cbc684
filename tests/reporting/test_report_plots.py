"""Pictures: what is drawn is what the facts say."""

import itertools
import math
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from embedrm.reporting import Figure, draw, save_png, save_svg
from embedrm.reporting.palette import DARK, DIVERGING, LIGHT, PAPER, SEQUENTIAL, SERIES, VARIABLES
from embedrm.reporting.plots import png_bytes, svg_text

LONG = "a very long domain name that has to be wrapped over several lines somewhere"


def by_gid(drawing, gid):
    return [artist for artist in drawing.findobj() if artist.get_gid() == gid]


def plain(values):
    return [None if math.isnan(v) else float(v) for v in values]


def dots(n_series=2, n=3, kind="intervals", **more):
    rng = np.random.default_rng(0)
    series = []
    for j in range(n_series):
        values = [None if (i + j) % 4 == 3 else float(v) for i, v in enumerate(rng.uniform(0.4, 0.8, n))]
        low = [None if v is None else v - 0.05 for v in values]
        high = [None if v is None else v + 0.08 for v in values]
        series.append({"label": f"model {j}", "values": values, "low": low, "high": high})
    data = {"categories": [f"d{i}" for i in range(n)], "series": series, "x_label": "accuracy", "y_label": "domain"}
    return Figure("f", "F", kind, data | more)


def test_intervals_draw_the_facts():
    figure = dots(n_series=3, n=5, reference=[{"value": 0.5, "label": "chance"}])
    drawing = draw(figure)
    rows = []
    for j, series in enumerate(figure.data["series"]):
        (line,) = by_gid(drawing, f"series-{j}")
        assert plain(line.get_xdata()) == series["values"]
        rows.append(np.asarray(line.get_ydata()))
        (whiskers,) = by_gid(drawing, f"series-{j}-interval")
        known = [(a, b, y) for a, b, y in zip(series["low"], series["high"], rows[-1]) if a is not None]
        drawn = [(s[0][0], s[1][0], s[0][1]) for s in whiskers.get_segments()]
        assert drawn == known
    axes = drawing.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == figure.data["categories"]
    assert axes.yaxis_inverted()
    assert np.all(np.abs(np.stack(rows) - np.arange(5)) < 0.5)  # every dot in its own category's row
    assert np.all(np.diff(np.stack(rows), axis=0) > 0)  # series in order, none on top of another
    (reference,) = by_gid(drawing, "reference-0")
    assert set(reference.get_xdata()) == {0.5}
    dashes = [t for t in axes.texts if t.get_text() == "–"]
    assert len(dashes) == sum(v is None for s in figure.data["series"] for v in s["values"])


def test_bars_draw_the_facts_from_zero():
    figure = dots(kind="bars", n_series=2, n=4)
    drawing = draw(figure)
    for j, series in enumerate(figure.data["series"]):
        patches = [patch for i in range(4) for patch in by_gid(drawing, f"series-{j}-{i}")]
        assert [p.get_x() for p in patches] == [0.0] * 4
        assert plain(p.get_width() for p in patches) == series["values"]
    low, high = drawing.axes[0].get_xlim()
    assert low <= 0 < high


def test_heatmap_draws_the_facts():
    values = [[0.7, None, 0.512], [0.4, 0.8, 0.55], [0.5, -0.004, 0.65]]
    names = ["a", "b", "c"]
    data = {"rows": names, "columns": names, "values": values, "centre": 0.5}
    data |= {"row_label": "expert", "column_label": "domain", "value_label": "accuracy"}
    drawing = draw(Figure("h", "H", "heatmap", data))
    (mesh,) = by_gid(drawing, "cells")
    drawn = np.ma.filled(mesh.get_array().astype(float), math.nan).reshape(3, 3)
    assert [plain(row) for row in drawn] == values
    assert mesh.norm(0.5) == pytest.approx(0.5)  # the centre is the middle of the colours
    axes = drawing.axes[0]
    texts = {(round(t.get_position()[1] - 0.5), round(t.get_position()[0] - 0.5)): t.get_text() for t in axes.texts}
    assert texts[0, 0] == "0.70"
    assert texts[0, 1] == "–"
    assert texts[2, 1] == "\u22120.00"
    assert axes.get_ylim() == (3, 0)  # first row on top
    assert len(axes.patches) == 3  # the diagonal, since rows and columns have the same names
    assert len(draw(Figure("h", "H", "heatmap", data | {"columns": ["x", "y", "z"]})).axes[0].patches) == 0


def test_heatmap_limits_and_constant_values():
    data = {"rows": ["a"], "columns": ["b", "c"], "values": [[0.5, 0.5]]}
    data |= {"row_label": "", "column_label": "", "value_label": ""}
    (mesh,) = by_gid(draw(Figure("h", "H", "heatmap", data | {"limits": [0, 1]})), "cells")
    assert (mesh.norm.vmin, mesh.norm.vmax) == (0, 1)
    (mesh,) = by_gid(draw(Figure("h", "H", "heatmap", data)), "cells")
    assert mesh.norm.vmin < 0.5 < mesh.norm.vmax
    nothing = data | {"values": [[None, None]]}
    assert [t.get_text() for t in draw(Figure("h", "H", "heatmap", nothing)).axes[0].texts] == ["–", "–"]


def test_lines_draw_the_facts_with_a_gap_for_an_absent_value():
    series = [
        {
            "label": "a",
            "x": [100, 1000, 10000],
            "y": [0.5, None, 0.6],
            "low": [0.4, None, 0.5],
            "high": [0.6, None, 0.7],
        },
        {"label": "b", "x": [100, 1000], "y": [0.55, 0.58]},
    ]
    data = {"series": series, "x_label": "pairs", "y_label": "accuracy", "x_scale": "log"}
    drawing = draw(Figure("l", "L", "lines", data))
    for j, one in enumerate(series):
        (line,) = by_gid(drawing, f"series-{j}")
        assert list(line.get_xdata()) == one["x"]
        assert plain(line.get_ydata()) == one["y"]
    (band,) = by_gid(drawing, "series-0-interval")
    corners = {(x, y) for path in band.get_paths() for x, y in path.vertices}
    assert {(100, 0.4), (100, 0.6), (10000, 0.5), (10000, 0.7)} <= corners
    assert by_gid(drawing, "series-1-interval") == []
    assert [t.get_text() for t in drawing.axes[0].get_xticklabels()] == ["100", "1000", "10,000"]


def test_named_ticks_stand_where_the_facts_say():
    data = {"series": [{"label": "", "x": [0, 1, 2], "y": [0.5, 0.6, 0.7]}], "x_label": "layer", "y_label": "accuracy"}
    data["x"] = {"ticks": [0, 1, 2], "labels": ["3", "6", "final"]}
    axes = draw(Figure("l", "L", "lines", data)).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["3", "6", "final"]
    assert list(axes.get_xticks()) == [0, 1, 2]


def test_scatter_draws_the_facts_and_the_diagonal():
    data = {"series": [{"label": "s", "x": [0.5, 0.7, 0.9], "y": [0.52, None, 0.8], "names": ["p", "q", "r"]}]}
    data |= {"x_label": "predicted", "y_label": "observed", "diagonal": True}
    drawing = draw(Figure("s", "S", "scatter", data))
    (line,) = by_gid(drawing, "series-0")
    assert list(line.get_xdata()) == [0.5, 0.7, 0.9]
    assert plain(line.get_ydata()) == [0.52, None, 0.8]
    (diagonal,) = by_gid(drawing, "diagonal")
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
    assert [t.get_text() for t in drawing.axes[0].texts] == ["p", "r"]


@pytest.mark.parametrize("kind", ["intervals", "bars", "lines", "scatter", "heatmap"])
def test_no_data_is_said(kind):
    data = {"categories": [], "series": [], "x_label": "", "y_label": ""}
    if kind in ("lines", "scatter"):
        del data["categories"]
    if kind == "heatmap":
        data = {"rows": [], "columns": [], "values": [], "row_label": "", "column_label": "", "value_label": ""}
    drawing = draw(Figure("f", "F", kind, data))
    assert [t.get_text() for t in drawing.axes[0].texts] == ["No data"]


@pytest.mark.parametrize("n_series", [1, 4, 12])
def test_legends_and_names_cover_no_data(n_series):
    figure = dots(n_series=n_series, n=4, reference=[{"value": v, "label": LONG} for v in (0.5, 0.51, 0.75)])
    data = figure.data | {"categories": [LONG, "b", LONG + " again", "d"]}
    data["series"] = [s | {"label": f"{LONG} {j}" if j == 1 else s["label"]} for j, s in enumerate(data["series"])]
    drawing = draw(Figure("f", "F", "intervals", data))
    axes, (legend,) = drawing.axes[0], by_gid(drawing, "legend")
    inside, around = axes.get_window_extent(), drawing.bbox
    box = legend.get_window_extent()
    notes = [t.get_window_extent() for t in axes.texts if t.get_text() != "–"]
    names = [t.get_window_extent() for t in axes.get_yticklabels()]
    for one in [box, *names]:
        assert not one.overlaps(inside)
        assert around.x0 - 1 <= one.x0
        assert one.x1 <= around.x1 + 1
        assert around.y0 - 1 <= one.y0
        assert one.y1 <= around.y1 + 1
    for a, b in itertools.combinations([box, *notes], 2):
        assert not a.overlaps(b)
    for a, b in itertools.combinations(names, 2):
        assert not a.overlaps(b)


def test_close_reference_lines_keep_their_names_apart():
    data = {"series": [{"label": "s", "x": [1, 2], "y": [0.2, 0.9]}], "x_label": "x", "y_label": "y"}
    data["reference"] = [{"value": 0.5 + 0.001 * i, "label": f"line {i}"} for i in range(4)]
    texts = draw(Figure("f", "F", "lines", data)).axes[0].texts
    assert len(texts) == 4
    boxes = [t.get_window_extent() for t in texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


names = st.text(st.characters(codec="utf-8") | st.sampled_from("$\\{}^_%<>&\x1b\x00"), max_size=40)


@settings(max_examples=12, deadline=None)
@given(st.lists(names, min_size=3, max_size=3), names)
def test_any_name_can_be_drawn_and_the_svg_is_xml(categories, label):
    data = dots().data | {"categories": categories, "x_label": label, "y_label": label}
    data["reference"] = [{"value": 0.5, "label": label}]
    data["series"] = [s | {"label": label} for s in data["series"]]
    text = svg_text(draw(Figure("f", "F", "intervals", data)))
    ElementTree.fromstring(text)


def test_wrapped_names_are_single_aligned_lines_in_svg():
    data = dots().data | {"categories": [LONG, "b", "c"], "y_label": "the domains"}
    drawing = draw(Figure("f", "F", "intervals", data))
    label = drawing.axes[0].yaxis.label
    before = label.get_window_extent().bounds
    root = ElementTree.fromstring(svg_text(drawing))
    texts = [t for t in root.iter("{http://www.w3.org/2000/svg}text") if t.text and t.text in LONG and len(t.text) > 2]
    assert " ".join(t.text for t in texts) == LONG
    assert len(texts) > 2
    assert len({t.get("x") for t in texts}) == 1
    assert all("text-anchor: end" in t.get("style") for t in texts)
    assert svg_text(drawing) == svg_text(draw(Figure("f", "F", "intervals", data)))
    drawing.draw_without_rendering()
    assert label.get_window_extent().bounds == pytest.approx(before, abs=1)
    assert [t.get_text().replace("\n", " ") for t in drawing.axes[0].get_yticklabels()] == data["categories"]


def test_a_dollar_is_a_dollar():
    label = r"$\frac{1}{2}$ for $x$"
    root = ElementTree.fromstring(svg_text(draw(dots(reference=[{"value": 0.5, "label": label}]))))
    assert label in [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]


def test_files_are_deterministic_and_order_does_not_matter(tmp_path):
    figure = dots()
    first = draw(figure)
    png, svg = png_bytes(first), svg_text(first)
    second = draw(figure)
    assert svg_text(second) == svg
    assert png_bytes(second) == png
    assert svg_text(second) == svg
    assert save_svg(figure, tmp_path / "a.svg").read_text(encoding="utf-8") == svg
    assert save_png(figure, tmp_path / "a.png").read_bytes() == png
    assert draw(figure.to_dict()).get_size_inches().tolist() == first.get_size_inches().tolist()
    for mark in ("<dc:date", "matplotlib v", "Matplotlib v"):
        assert mark not in svg
    assert b"Software" not in png


def test_settings_are_left_alone():
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 31, "lines.linewidth": 9}):
        inside = dict(matplotlib.rcParams)
        one = svg_text(draw(dots()))
        assert dict(matplotlib.rcParams) == inside
    assert dict(matplotlib.rcParams) == before
    assert svg_text(draw(dots())) == one


# -- colours -----------------------------------------------------------------------------------------------------


def _linear(colour):
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def _contrast(a, b):
    low, high = sorted(float(_linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


def _lab(linear):
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear.clip(0, 1)
    f = xyz / [0.9505, 1, 1.089]
    f = np.where(f > 0.008856, np.cbrt(f), 7.787 * f + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Simulation of full dichromacy in linear RGB (Machado, Oliveira and Fernandes, 2009, severity 1.0).
VISIONS = {
    "normal": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_series_differ_for_every_eye(vision, scheme):
    seen = [_lab(VISIONS[vision] @ _linear(scheme[f"fig-{i}"])) for i in range(1, 9)]
    apart = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
    assert apart > 10  # about four times a just noticeable difference, and markers differ too


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_stand_out_from_the_paper(scheme):
    assert all(_contrast(scheme[f"fig-{i}"], scheme["fig-paper"]) >= 3 for i in range(1, 9))
    assert _contrast(scheme["fig-ink"], scheme["fig-paper"]) >= 7
    assert _contrast(scheme["fig-muted"], scheme["fig-paper"]) >= 4.5
    assert set(scheme) == set(VARIABLES.values())


def test_scales_hold_no_colour_that_dark_mode_replaces():
    for stops in (SEQUENTIAL, DIVERGING):
        colours = matplotlib.colors.LinearSegmentedColormap.from_list("x", list(stops), N=101)
        assert not {to_hex(colours(i)) for i in range(101)} & {PAPER, *SERIES, *VARIABLES}


def test_points_of_one_place_have_intervals_apart_and_one_name():
    series = [
        {"label": label, "x": [1.0, 2.0], "y": [y, y], "low": [y - 1, None], "high": [y + 1, None], "names": ["p", "q"]}
        for label, y in (("a", 0.0), ("b", 5.0))
    ]
    series.append({"label": "c", "x": [1.0], "y": [3.0], "low": [2.0], "high": [4.0], "names": ["r"]})
    drawing = draw(Figure("s", "S", "scatter", {"series": series, "x_label": "x", "y_label": "y"}))
    places = []
    for j, one in enumerate(series):
        (line,) = by_gid(drawing, f"series-{j}")
        assert list(line.get_xdata()) == one["x"]
        places.append(line.get_transform().transform((1.0, 0.0))[0])
        (whiskers,) = by_gid(drawing, f"series-{j}-interval")
        assert [path.vertices.tolist() for path in whiskers.get_paths()] == [[[1, one["low"][0]], [1, one["high"][0]]]]
    assert places[0] < places[1] < places[2]
    # the higher end of both, and the second name of that place under its lower end
    notes = {text.get_text(): text.xy for text in drawing.axes[0].texts}
    assert notes == {"p": (1.0, 6.0), "q": (2.0, 5.0), "r": (1.0, 2.0)}
    low, high = drawing.axes[0].get_ylim()
    assert low <= -1
    assert high >= 6
