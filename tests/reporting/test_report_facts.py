"""Facts: checked when they are made, and the same after a trip through JSON."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedrm.errors import DataError, InvalidInputError
from embedrm.reporting import Column, Figure, Report, Table

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
words = st.text(max_size=12)
slugs = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,12}", fullmatch=True)
maybe = st.one_of(st.none(), finite)


@st.composite
def bounded(draw, values=finite):
    low, high = sorted([draw(finite), draw(finite)])
    cell = {"value": draw(values), "low": low, "high": high}
    return cell | ({"n": draw(st.integers(0, 10**9))} if draw(st.booleans()) else {})


CELLS = {
    "text": words,
    "integer": st.integers(-(10**18), 10**18),
    "number": finite | bounded(),
    "share": st.floats(0, 1) | bounded(st.floats(0, 1)),
    "interval": finite | bounded(),
    "seconds": st.floats(0, 1e12),
    "bytes": st.integers(0, 2**60),
    "p": st.floats(0, 1),
}


@st.composite
def tables(draw, name):
    kinds = draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=5))
    columns = [
        {"key": f"k{i}", "label": draw(words), "kind": kind}
        | ({"digits": draw(st.integers(0, 6))} if draw(st.booleans()) else {})
        | ({"best": draw(st.sampled_from(["max", "min"]))} if kind != "text" and draw(st.booleans()) else {})
        | ({"note": draw(words)} if draw(st.booleans()) else {})
        for i, kind in enumerate(kinds)
    ]
    cells = {c["key"]: st.none() | CELLS[c["kind"]] for c in columns}
    groups = draw(st.sampled_from([None, "the group"]))
    if groups:
        cells[groups] = st.none() | words
    rows = draw(st.lists(st.fixed_dictionaries(cells), max_size=4))
    facts = {"name": name, "title": draw(words), "caption": draw(words), "columns": columns, "rows": rows}
    return facts | ({"row_groups": groups} if groups else {})


@st.composite
def figures(draw, name):
    kind = draw(st.sampled_from(["intervals", "bars", "heatmap", "lines", "scatter"]))
    n = draw(st.integers(0, 4))
    many = st.lists(maybe, min_size=n, max_size=n)
    data = {"x_label": draw(words), "y_label": draw(words)}
    if kind == "heatmap":
        rows = draw(st.lists(words, max_size=3))
        values = [draw(many) for _ in rows]
        data = {"rows": rows, "columns": draw(st.lists(words, min_size=n, max_size=n)), "values": values}
        data |= {key: draw(words) for key in ("row_label", "column_label", "value_label")}
    elif kind in ("lines", "scatter"):
        xs = st.lists(finite, min_size=n, max_size=n)
        data["series"] = [
            {"label": draw(words), "x": draw(xs), "y": draw(many)} for _ in range(draw(st.integers(0, 2)))
        ]
    else:
        data["categories"] = draw(st.lists(words, min_size=n, max_size=n))
        data["series"] = [{"label": draw(words), "values": draw(many)} for _ in range(draw(st.integers(0, 2)))]
        data["reference"] = [{"value": draw(finite), "label": draw(words)}]
    return {"name": name, "title": draw(words), "caption": draw(words), "kind": kind, "data": data}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def reports(draw):
    names = draw(st.lists(slugs, max_size=3, unique=True))
    sections = [
        {
            "title": draw(words),
            "text": draw(st.lists(words, max_size=2)),
            "tables": [draw(tables(name))] if draw(st.booleans()) else [],
            "figures": [draw(figures(name))] if draw(st.booleans()) else [],
        }
        for name in names
    ]
    return {
        "schema": 1,
        "kind": draw(words),
        "title": draw(words),
        "summary": draw(st.lists(words, max_size=2)),
        "sections": sections,
        "notes": draw(st.lists(words, max_size=2)),
        "provenance": draw(st.dictionaries(words, json_values, max_size=3)),
    }


@settings(max_examples=150, deadline=None)
@given(reports())
def test_facts_survive_json(facts):
    report = Report.from_dict(facts)
    text = report.to_json()
    again = Report.from_json(text)
    assert again == report
    assert again.to_json() == text
    assert again.to_dict() == json.loads(text) == report.to_dict()
    # Nothing that was given is lost: every given leaf stands at its place.
    assert _contains(report.to_dict(), facts)


def _contains(whole, part):
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(k in whole and _contains(whole[k], v) for k, v in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(_contains(a, b) for a, b in zip(whole, part))
    return whole == part and type(whole) is type(part)


@settings(max_examples=40, deadline=None)
@given(reports())
def test_every_valid_report_renders(facts):
    report = Report.from_dict(facts | {"sections": [s | {"figures": []} for s in facts["sections"]]})
    for rendering in (report.text(width=80, colour=False), report.text(60, True), report.markdown(), report.html()):
        assert rendering.endswith("\n")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, np.float32("nan"), np.float64("inf")])
def test_not_a_number_is_refused_with_its_place(bad):
    columns = [{"key": "m", "label": "Model"}, {"key": "a", "label": "A", "kind": "interval"}]
    rows = [{"m": "x", "a": 0.5}, {"m": "y", "a": bad}]
    with pytest.raises(InvalidInputError, match=r"table 'acc': rows\[1\]\['a'\] is -?(nan|inf).*Write None"):
        Table("acc", "t", columns, rows)
    rows[1]["a"] = {"value": 0.5, "low": bad, "high": 0.6}
    with pytest.raises(InvalidInputError, match=r"table 'acc': rows\[1\]\['a'\]\.low is"):
        Table("acc", "t", columns, rows)
    data = {"categories": ["a", "b"], "x_label": "", "y_label": "", "series": [{"label": "s", "values": [0.1, bad]}]}
    with pytest.raises(InvalidInputError, match=r"figure 'f': data\.series\[0\]\.values\[1\] is"):
        Figure("f", "t", "intervals", data)
    with pytest.raises(InvalidInputError, match=r"provenance\.encoder\.scale\[2\] is"):
        Report("k", "t", provenance={"encoder": {"scale": [0, 1, bad]}})
    report = Report("k", "t")
    report.provenance["late"] = bad
    with pytest.raises(InvalidInputError, match=r"provenance\.late is"):
        report.to_json()


def test_json_with_nan_or_overflow_is_refused():
    text = Report("k", "t", provenance={"x": 1.5}).to_json()
    for bad in ("NaN", "Infinity", "1e999"):
        with pytest.raises(InvalidInputError, match=r"provenance\.x is"):
            Report.from_json(text.replace("1.5", bad))
    with pytest.raises(InvalidInputError, match="not JSON"):
        Report.from_json(text[:-5])


def test_numpy_values_become_plain_ones():
    table = Table(
        "t",
        "t",
        [{"key": "a", "label": "a", "kind": "number"}, {"key": "n", "label": "n", "kind": "integer"}],
        [
            {"a": np.float32(0.25), "n": np.int64(3)},
            {"a": {"value": np.float64(1), "low": np.float32(0), "high": 2}, "n": 4.0},
        ],
    )
    data = {"series": [{"label": "s", "x": np.arange(3), "y": np.array([1.0, 2.0, 3.0])}], "x_label": "", "y_label": ""}
    report = Report("k", "t", provenance={"layers": np.array([3, 6]), "flag": np.bool_(True), "pair": (1, 2)})
    report.add_section("s", tables=[table], figures=[Figure("f", "f", "lines", data)])
    facts = json.loads(report.to_json())
    assert facts["provenance"] == {"layers": [3, 6], "flag": True, "pair": [1, 2]}
    assert facts["sections"][0]["tables"][0]["rows"][1] == {"a": {"value": 1.0, "low": 0.0, "high": 2}, "n": 4}
    assert facts["sections"][0]["figures"][0]["data"]["series"][0]["x"] == [0, 1, 2]


TABLE = {
    "name": "t",
    "title": "T",
    "columns": [{"key": "m", "label": "M"}, {"key": "a", "label": "A", "kind": "share"}],
    "rows": [{"m": "x", "a": 0.5}],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [{"m": "x"}]}, r"rows\[0\] lacks the column 'a'"),
        ({"rows": [{"m": "x", "a": 0.5, "b": 1}]}, r"rows\[0\]: unknown column 'b'"),
        ({"rows": [{"m": 3, "a": 0.5}]}, r"rows\[0\]\['m'\]: the column holds text, and a int came"),
        ({"rows": [{"m": "x", "a": "0.5"}]}, r"rows\[0\]\['a'\]: a number was expected, and a str came"),
        ({"rows": [{"m": "x", "a": True}]}, r"rows\[0\]\['a'\]: a number was expected, and a bool came"),
        ({"rows": [{"m": "x", "a": 68.3}]}, r"rows\[0\]\['a'\] is 68.3, and a share lies in \[0, 1\]"),
        (
            {"rows": [{"m": "x", "a": {"value": 0.5, "low": 0.6, "high": 0.4}}]},
            r"low end 0.6 is above its high end 0.4",
        ),
        ({"rows": [{"m": "x", "a": {"value": 0.5, "low": 0.4}}]}, r"both ends or neither"),
        ({"rows": [{"m": "x", "a": {"value": None, "low": 0.4, "high": 0.5}}]}, r"make the whole cell None"),
        ({"rows": [{"m": "x", "a": {"mean": 0.5}}]}, r"rows\[0\]\['a'\]: unknown key 'mean'"),
        ({"rows": [{"m": "\ud800", "a": None}]}, r"rows\[0\]\['m'\]: .*lone surrogate"),
        ({"rows": "ab"}, r"a list was expected"),
        ({"name": "../x"}, r"'../x' cannot name a file"),
        ({"name": "UPPER"}, r"'UPPER' cannot name a file"),
        ({"columns": [{"key": "m", "label": "M"}, {"key": "m", "label": "N"}]}, r"two columns have the key 'm'"),
        ({"columns": [{"key": "m", "label": "M", "kind": "percent"}]}, r"unknown column kind 'percent'"),
        ({"columns": [{"key": "m", "label": "M", "best": "max"}]}, r"text has no best cell"),
        ({"columns": [{"key": "m", "label": "M", "kind": "number", "best": "top"}]}, r"unknown value of best 'top'"),
        ({"columns": [{"key": "m"}]}, r"columns\[0\] lacks the key 'label'"),
        ({"columns": [{"key": "m", "label": "M", "digits": -1}]}, r"digits is a whole number"),
        ({"columns": [{"key": "m", "label": "M"}], "row_groups": "m"}, r"at least one column beside its row_groups"),
        ({"row_groups": "a"}, r"row_groups names 'a', which is not a text column"),
        ({"widths": [1]}, r"unknown key 'widths'"),
    ],
)
def test_table_errors_say_where_and_what(change, message):
    Report("k", "t").add_section("s", tables=[TABLE])
    with pytest.raises(InvalidInputError, match=message):
        Report("k", "t").add_section("s", tables=[TABLE | change])


LINES = {"series": [{"label": "s", "x": [1, 2], "y": [0.5, None]}], "x_label": "x", "y_label": "y"}
DOTS = {"categories": ["a", "b"], "series": [{"label": "s", "values": [1, None]}], "x_label": "x", "y_label": "y"}
HEAT = {
    "rows": ["a"],
    "columns": ["b", "c"],
    "values": [[1, None]],
    "row_label": "",
    "column_label": "",
    "value_label": "",
}


@pytest.mark.parametrize(
    ("kind", "data", "change", "message"),
    [
        ("pie", LINES, {}, "unknown figure kind 'pie'"),
        ("lines", LINES, {"x_scale": "sqrt"}, "x_scale: unknown scale 'sqrt'"),
        ("lines", LINES, {"x_label": None}, "x_label: text was expected"),
        (
            "lines",
            LINES,
            {"series": [{"label": "s", "x": [1], "y": [1, 2]}]},
            r"series\[0\]\.y has 2 entries.* 1 x values",
        ),
        ("lines", LINES, {"series": [{"label": "s", "x": [None], "y": [1]}]}, r"x\[0\]: a number was expected"),
        ("lines", LINES, {"series": [{"label": "s", "x": [1], "y": [1], "low": [0]}]}, "both ends or neither"),
        ("lines", LINES, {"series": [{"label": "s", "x": [0], "y": [1]}], "x_scale": "log"}, "not positive"),
        ("lines", LINES, {"reference": [{"value": 0, "label": "z"}], "y_scale": "log"}, "data.reference holds"),
        ("lines", LINES, {"x": {"ticks": [1], "labels": ["a", "b"]}}, "ticks has 1 entries"),
        ("lines", LINES, {"series": [LINES["series"][0]] * 13}, "13 series came.*at most 12"),
        ("lines", LINES, {"legend": "top"}, "unknown key 'legend'"),
        ("lines", LINES, {"limits": [1, 1]}, "low limit 1 must be below"),
        ("intervals", DOTS, {"categories": ["a"]}, r"values has 2 entries, and there are 1 categories"),
        ("bars", DOTS, {"series": [{"label": "s", "values": [1, None], "low": [0, 0], "high": [2, 2]}]}, "no value"),
        ("intervals", DOTS, {"reference": [{"value": 1}]}, r"reference\[0\] lacks the key 'label'"),
        ("heatmap", HEAT, {"values": [[1]]}, r"values\[0\] has 1 entries, and there are 2 columns"),
        ("heatmap", HEAT, {"values": []}, "values has 0 rows, and 1 are named"),
        ("heatmap", HEAT, {"digits": 9}, "digits is 9"),
        ("scatter", LINES, {"diagonal": "yes"}, "diagonal is true or false"),
        (
            "scatter",
            LINES,
            {"series": [{"label": "s", "x": [1], "y": [1], "names": ["a", "b"]}]},
            "names has 2 entries",
        ),
    ],
)
def test_figure_errors_say_where_and_what(kind, data, change, message):
    with pytest.raises(InvalidInputError, match=message):
        Figure("f", "t", kind, data | change)


def test_names_are_unique_in_a_report():
    report = Report("k", "t").add_section("s", tables=[TABLE])
    with pytest.raises(InvalidInputError, match=r"section 'again': the name 't' is already taken"):
        report.add_section("again", tables=[TABLE])
    with pytest.raises(InvalidInputError, match="already taken"):
        Report("k", "t").add_section("both", tables=[TABLE, TABLE])
    report.add_section("a figure may share it", figures=[{"name": "t", "title": "", "kind": "lines", "data": LINES}])


def test_other_schemas_and_unknown_keys_are_refused():
    facts = Report("k", "t").to_dict()
    with pytest.raises(InvalidInputError, match="schema 2 came"):
        Report.from_dict(facts | {"schema": 2})
    with pytest.raises(InvalidInputError, match=r"unknown key 'sumary'\. Did you mean 'summary'"):
        Report.from_dict(facts | {"sumary": []})
    with pytest.raises(InvalidInputError, match="lacks the key 'title'"):
        Report.from_dict({"schema": 1, "kind": "k"})


def test_column_objects_and_plain_columns_are_the_same():
    plain = [{"key": "m", "label": "M"}, {"key": "a", "label": "A", "kind": "share", "best": "max", "digits": 2}]
    objects = [Column("m", "M"), Column("a", "A", "share", digits=2, best="max")]
    assert Table("t", "T", plain, []) == Table("t", "T", objects, [])
    assert [c.to_dict() for c in objects] == [plain[0] | {"kind": "text"}, plain[1]]


def test_save_writes_everything_whole_and_load_reads_it_back(report, tmp_path):
    paths = report.save(tmp_path / "runs" / "one")
    assert {p.relative_to(tmp_path / "runs" / "one").as_posix() for p in paths.values()} == {
        "report.json",
        "report.md",
        "report.html",
        *(f"figures/{name}.{end}" for name in report.figures for end in ("svg", "png")),
    }
    assert all(path.is_file() for path in paths.values())
    assert not list((tmp_path / "runs").rglob(".*"))
    assert Report.load(tmp_path / "runs" / "one") == Report.load(paths["json"]) == report
    assert paths["html"].read_text(encoding="utf-8") == report.html()
    assert paths["markdown"].read_text(encoding="utf-8") == report.markdown()


def test_a_failed_write_leaves_the_old_report(report, tmp_path, monkeypatch):
    paths = report.save(tmp_path)
    before = {p: p.read_bytes() for p in paths.values()}

    def full_disk(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("embedrm.reporting.report.os.replace", full_disk)
    with pytest.raises(InvalidInputError, match=r"cannot write the report to .*No space left on device"):
        Report("k", "another").save(tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_loading_what_is_no_report_names_the_file(tmp_path):
    with pytest.raises(DataError, match=r"report\.json: a report\.json was expected: No such file"):
        Report.load(tmp_path / "report.json")
    (tmp_path / "report.json").write_text('{"schema": 1, "kind": "k", "title": 3}', encoding="utf-8")
    with pytest.raises(DataError, match="title: text was expected"):
        Report.load(tmp_path)
