"""Terminal, Markdown and HTML: every fact is shown, nothing in the facts is read as markup."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len

from embedrm.reporting import Column, Report, Table
from embedrm.reporting.formatting import grid, one_line, seconds, size
from embedrm.reporting.markdown import escape, render_markdown

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> & {{ 7*7 }} | `code` **b** [l](http://x) \x1b[31m\x00"
)


def one_table(columns, rows, **options):
    return Report("k", "t").add_section("s", tables=[Table("t", "T", columns, rows, **options)])


def wide_table(n=13, rows=8):
    columns = [Column("m", "Model")] + [Column(f"d{j}", f"domain_number_{j}", "interval", best="max") for j in range(n)]
    cells = [
        {"m": f"a model with a name {i}"}
        | {f"d{j}": {"value": 0.5 + 0.01 * i + 0.001 * j, "low": 0.45, "high": 0.75} for j in range(n)}
        for i in range(rows)
    ]
    return columns, cells


# -- the terminal ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("colour", [False, True])
def test_a_table_of_thirteen_domains_stays_readable(width, colour):
    text = one_table(*wide_table()).text(width=width, colour=colour)
    bare = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert ("\x1b[" in text) == colour
    assert max(cell_len(line) for line in bare.split("\n")) <= width
    for i in range(8):
        lines = [line for line in bare.split("\n") if line.startswith(f"a model with a name {i}")]
        assert len(lines) > 1  # the first column leads every block
        shown = re.findall(r"(0\.\d{3})\*? +\[0\.45, 0\.75\]", "\n".join(lines))
        assert shown == [f"{0.5 + 0.01 * i + 0.001 * j:.3f}" for j in range(13)]
    assert [f"domain_number_{j}" in bare for j in range(13)] == [True] * 13


def test_blocks_are_even_and_say_what_they_show():
    text = one_table(*wide_table(n=9)).text(width=120, colour=False)
    assert re.findall(r"columns (\d+–\d+) of 10", text) == ["2–4", "5–7", "8–10"]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(40, 160),
    st.lists(st.text(max_size=60), min_size=1, max_size=4),
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9),
)
def test_no_line_is_wider_than_the_terminal(width, names, values):
    columns = [Column("m", names[0])] + [Column(f"c{j}", names[-1], "number", digits=3) for j in range(len(values))]
    columns.append(Column("said", "What was said"))
    rows = [{"m": n, "said": n * 3} | {f"c{j}": v for j, v in enumerate(values)} for n in names]
    report = one_table(columns, rows, caption=names[0] * 4)
    text = report.text(width=width, colour=False)
    assert max(cell_len(line) for line in text.split("\n")) <= width
    for row in grid(report.tables["t"]).cells:
        for cell in row[1:-1]:
            assert cell.value in text  # numbers never wrap


def test_data_cannot_drive_the_terminal():
    text = Report("k", HOSTILE, [HOSTILE], notes=[HOSTILE], provenance={"command": HOSTILE}).text(80, colour=False)
    assert "\x1b" not in text
    assert "\x00" not in text
    assert "\ufffd[31m" in text
    assert "[l](http://x)" in re.sub(r"\s+", " ", text)  # and rich's own markup is text too


def test_the_best_is_starred_without_colour_and_bold_with_it():
    columns = [Column("m", "Model"), Column("a", "A", "share", best="max"), Column("l", "L", "number", 2, best="min")]
    rows = [{"m": "x", "a": 0.71, "l": 0.5}, {"m": "y", "a": 0.7102, "l": None}, {"m": "z", "a": 0.6, "l": 0.25}]
    plain = one_table(columns, rows).text(80, colour=False)
    assert re.search(r"x +0\.710\* +0\.50\n", plain)
    assert re.search(r"y +0\.710\* +–\n", plain)
    assert re.search(r"z +0\.600 +0\.25\*\n", plain)
    coloured = one_table(columns, rows).text(80, colour=True)
    assert "\x1b[1m0.710\x1b[0m" in coloured
    assert "*" not in coloured


# -- Markdown ----------------------------------------------------------------------------------------------------


def _tokens(markdown):
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for token in parser.parse(markdown):
        yield token
        yield from token.children or []


def _cells(markdown):
    rows, current = [], None
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type == "tr_open":
            rows.append([])
        if token.type in ("th_open", "td_open"):
            current = token.type
        if token.type == "inline" and current and rows:
            rows[-1].append("".join(" " if t.type == "html_inline" else t.content for t in token.children or []))
        if token.type in ("th_close", "td_close"):
            current = None
    return rows


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from(r"\`*_{}[]()<>#+-.!|~=&1 $"), max_size=30))
@example("a|b\\|c\\")
@example("1. no list")
@example("- no list")
@example("&amp;")
@example("snake_case and _emphasis_")
def test_markdown_shows_text_as_it_is(value):
    wanted = re.sub(r"\s+", " ", one_line(value)).strip()
    columns = [Column("m", value), Column("a", "x")]
    head, *body = _cells(render_markdown(one_table(columns, [{"m": value, "a": value}])))
    assert [re.sub(r"\s+", " ", c).strip() for c in (head[0], *body[0])] == [wanted] * 3
    report = Report("k", "t").add_section("s", [value])
    shown = [t for t in _tokens(report.markdown()) if t.type in ("text", "softbreak", "hardbreak", "html_inline")]
    assert not any(t.type == "html_inline" for t in shown)
    kinds = {t.type for t in _tokens(report.markdown())}
    assert kinds <= {
        "heading_open",
        "heading_close",
        "inline",
        "text",
        "paragraph_open",
        "paragraph_close",
        "hardbreak",
    }


def test_markdown_tables_are_well_formed(report):
    rows = _cells(report.markdown())
    first = rows[: 1 + 1 + 3]  # head, group, three models
    assert {len(row) for row in first} == {8}
    assert first[0] == ["Model", "hh_rlhf (a)", "gsm8k (b)", "xstest (c)", "p", "Fit", "Memory", "Pairs"]
    assert first[1] == ["Models"] + [""] * 7
    assert first[4] == [
        "model 2",
        "0.620 [0.55, 0.65]",
        "0.620 [0.55, 0.65]",
        "–",
        "<0.001",
        "600 ms",
        "2.0 MiB",
        "11,000",
    ]
    assert re.search(r"^\| --- \| ---: \|", report.markdown(), re.MULTILINE)
    assert "**0.620** [0.55, 0.65]" in report.markdown()


def test_markdown_links_the_figures_or_leaves_them_out(report):
    for name in report.figures:
        assert f"](figures/{name}.svg)" in report.markdown()
    assert "](" not in report.markdown(figures=None)


@pytest.mark.parametrize("value", ["<b>", "[x](y)", "`a`", "a_b", "_a_"])
def test_escape_by_hand(value):
    assert escape("a_b") == "a_b"
    assert escape("_a_") == r"\_a\_"
    assert "<" not in escape(value)


# -- HTML --------------------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    VOID = ("meta", "link", "img", "br", "hr", "input")

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.words, self.open, self.errors = [], [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v) for k, v in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v) for k, v in attrs]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.errors.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style",):
            self.words.append(data)


@pytest.fixture(scope="module")
def page(report):
    return report.html()


def test_html_is_balanced_and_shows_the_facts(page, report):
    parsed = _Page(page)
    assert parsed.errors == []
    assert parsed.open == []
    shown = " ".join(" ".join(parsed.words).split())
    for part in ("A report", "First finding.", "Second finding.", "One paragraph.", "A caveat.", "note gsm8k"):
        assert part in shown
    assert "0.620 [0.55, 0.65]" in shown
    assert "embedrm 0.1.0 2 January 2025, 03:04 UTC 12 s" in shown
    assert shown.count("absent") == 0  # absence is a dash with a label, not a word among the words
    assert ("span", "aria-label", "absent") in parsed.attributes


def test_html_escapes_every_text(build_report):
    hostile = build_report(lambda s: f"{HOSTILE} {s}")
    page = hostile.html()
    parsed = _Page(page)
    assert parsed.errors == []
    assert not {"script", "img", "iframe", "link", "b", "object"} & set(parsed.tags)
    assert not [a for a in parsed.attributes if a[1].startswith("on")]
    assert "\x1b" not in page
    assert "\x00" not in page
    assert "{{ 7*7 }}" in page  # data is never a template
    assert page.count("<script") == 0
    benign = _Page(build_report().html())
    assert set(parsed.tags) == set(benign.tags)
    assert {a[:2] for a in parsed.attributes} == {a[:2] for a in benign.attributes}


def test_html_fetches_nothing(page):
    assert not re.search(r"(?:src|href|action|data)\s*=\s*[\"']?\s*(?:[a-z]+:)?//", page, re.IGNORECASE)
    assert "@import" not in page
    assert "http:" not in page
    assert "https:" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "default-src 'none'" in page
    links = [v for _, k, v in _Page(page).attributes if k in ("href", "src", "xlink:href")]
    assert links
    assert all(v.startswith("#") for v in links)


def test_html_ids_are_unique_and_every_reference_resolves(page):
    ids = [v for _, k, v in _Page(page).attributes if k == "id"]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", page))
    used |= {v for _, k, v in _Page(page).attributes if k == "aria-labelledby"}
    assert used <= set(ids)


def test_html_is_accessible(page, report):
    parsed = _Page(page)
    assert page.count("<caption") == page.count("<table") == len(report.tables) + len(report.figures)
    assert {v for t, k, v in parsed.attributes if t == "th" and k == "scope"} == {"col", "row", "rowgroup"}
    headings = [a for a in parsed.tags if a == "th"]
    assert len([1 for t, k, _ in parsed.attributes if t == "th" and k == "scope"]) == len(headings)
    pictures = [v for t, k, v in parsed.attributes if t == "svg" and k == "aria-label"]
    assert len(pictures) == len(report.figures)
    assert pictures[0].startswith("Dot-and-whisker chart: Dots. Series: series 0, series 1.")
    assert ("html", "lang", "en") in parsed.attributes


def test_dark_mode_recolours_the_pictures(page):
    pictures = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "var(--fig-ink)" in pictures
    assert "#1b2126" not in pictures
    assert "--fig-ink:#1b2126" in page
    assert "prefers-color-scheme: dark" in page
    used = set(re.findall(r"var\((--fig-[\w]+)\)", pictures))
    dark = page[page.index("prefers-color-scheme: dark") :]
    assert all(f"{name}:" in dark[:2000] for name in used)


def test_html_marks_the_best_and_counts_stay_in_reach(page):
    assert "<strong>0.620</strong>" in page
    assert '<span class="ends" title="n = 42">[0.55, 0.65]</span>' in page


# -- how numbers read --------------------------------------------------------------------------------------------


def _shown(kind, cells, **options):
    rows = [{"m": "", "v": cell} for cell in cells]
    shown = grid(Table("t", "t", [Column("m", "m"), Column("v", "v", kind, **options)], rows))
    return [row[1].plain for row in shown.cells]


def test_numbers_by_hand():
    assert _shown("share", [0.683, 1.0, 0.0, 0.0001, None]) == ["0.683", "1.000", "0.000", "<0.001", "–"]
    assert _shown("share", [0.683], digits=2) == ["0.68"]
    assert _shown("p", [0.0, 1e-9, 0.0321, 1.0]) == ["<0.001", "<0.001", "0.032", "1.000"]
    assert _shown("integer", [12, 9999]) == ["12", "9999"]
    assert _shown("integer", [12, 9999, 12345]) == ["12", "9,999", "12,345"]
    assert _shown("number", [12.5, 0.25]) == ["12.50", "0.25"]
    assert _shown("number", [1e-6, 100.0]) == ["1.0e-06", "100.0"]
    assert _shown("number", [-0.0, 0.5]) == ["0.000", "0.500"]
    assert _shown("interval", [{"value": 0.683, "low": 0.6612, "high": 0.7049}]) == ["0.683 [0.66, 0.70]"]
    assert _shown("interval", [{"value": 0.683, "low": None, "high": None}, 0.5]) == ["0.683", "0.500"]
    # one decimal fewer would hide on which side of zero the interval ends
    assert _shown("interval", [{"value": 0.012, "low": -0.002, "high": 0.025}]) == ["0.012 [-0.002, 0.025]"]
    assert _shown("interval", [{"value": 0.501, "low": 0.5004, "high": 0.5039}]) == ["0.501 [0.500, 0.504]"]


def test_durations_and_sizes_by_hand():
    given_seconds = [0, 2e-5, 0.25, 0.9999, 3.21, 59.6, 252, 7500]
    assert [seconds(s) for s in given_seconds] == [
        "0 s",
        "20 µs",
        "250 ms",
        "1.0 s",
        "3.2 s",
        "1 min 00 s",
        "4 min 12 s",
        "2 h 05 min",
    ]
    assert seconds(3.14159, 2) == "3.14 s"
    assert [size(b) for b in (0, 999, 1024, 1536, 412 << 20, 3 << 40)] == [
        "0 B",
        "999 B",
        "1.0 KiB",
        "1.5 KiB",
        "412 MiB",
        "3.0 TiB",
    ]


def test_best_is_within_a_group_and_needs_a_rival():
    columns = [Column("m", "m"), Column("v", "v", "interval", best="max")]
    rows = [
        {"g": "models", "m": "a", "v": {"value": 0.6, "low": 0.5, "high": 0.7}},
        {"g": "models", "m": "b", "v": 0.5},
        {"g": "bound", "m": "oracle", "v": 0.9},
        {"g": "same", "m": "c", "v": 0.4},
        {"g": "same", "m": "d", "v": 0.4},
    ]
    shown = grid(Table("t", "t", columns, rows, row_groups="g"))
    assert [row[1].best for row in shown.cells] == [True, False, False, False, False]
    assert shown.groups == ("models", None, "bound", "same", None)


# -- the same facts, the same bytes; and what is loaded --------------------------------------------------------------

_CHILD = """
import sys, hashlib, json
from embedrm.reporting import Report
before = sorted(m for m in ("matplotlib", "jinja2", "rich", "numpy", "torch", "pandas") if m in sys.modules)
report = Report.from_json(open(sys.argv[1], encoding="utf-8").read())
paths = report.save(sys.argv[2])
import matplotlib
print(json.dumps({
    "before": before,
    "pyplot": "matplotlib.pyplot" in sys.modules,
    "size": matplotlib.rcParams["font.size"],
    "files": {k: hashlib.sha256(p.read_bytes()).hexdigest() for k, p in sorted(paths.items())},
}))
"""


def test_same_bytes_in_another_process_with_other_settings(report, tmp_path):
    import hashlib
    import json
    import os

    here = report.save(tmp_path / "here")
    (tmp_path / "matplotlibrc").write_text("font.size: 23\nsvg.hashsalt: other\naxes.facecolor: red\n")
    environment = os.environ | {"PYTHONHASHSEED": "7", "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "COLUMNS": "51"}
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(here["json"]), str(tmp_path / "there")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    told = json.loads(child.stdout)
    assert told["before"] == []
    assert told["pyplot"] is False
    assert told["size"] == 23  # nobody's settings are changed
    assert told["files"] == {k: hashlib.sha256(p.read_bytes()).hexdigest() for k, p in sorted(here.items())}


def test_rendering_changes_no_fact(report):
    before = report.to_json()
    report.html(), report.markdown(), report.text(80, colour=True)
    assert report.to_json() == before
    assert repr(report) == "Report('A report', sections=2, tables=1, figures=5)"
    assert str(report) == report.text()
