"""Whatever is in a file, reading it ends in a data set or in one DataError with path and line."""

import csv
import gzip
import io
import json
import os
import struct

import pytest
from datasets_files import row, write_jsonl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedrm.datasets import PreferenceDataset, read_preferences
from embedrm.datasets.readers import open_source
from embedrm.errors import DataError

FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refused(path, **options):
    with pytest.raises(DataError) as caught:
        read_preferences(path, **options)
    assert caught.value.path == str(path)
    return caught.value


# -- rows ------------------------------------------------------------------------------------------------------------

BAD_ROWS = [
    (json.dumps({"prompt": "p", "chosen": "a"}), "missing field", "rejected is missing"),
    (json.dumps({**row(), "chosen": None}), "missing field", "chosen is null"),
    (json.dumps({**row(), "chosen": 3}), "not a string", "must be a string, got a number"),
    (json.dumps({**row(), "chosen": {"a": [1]}}), "not a string", "got an object"),
    (json.dumps({**row(), "rejected": ["a", "b"]}), "not a string", "got a list"),
    (json.dumps({**row(), "prompt": "  \n"}), "empty", "prompt is empty or only white space"),
    (json.dumps({**row(), "chosen": ""}), "empty", "chosen is empty"),
    (json.dumps({**row(), "rejected": row()["chosen"] + " "}), "chosen equals rejected", "the same text"),
    (json.dumps({**row(), "margin": float("nan")}), "bad margin", "must be finite, got NaN"),
    (json.dumps({**row(), "margin": float("inf")}), "bad margin", "got infinity"),
    (json.dumps({**row(), "weight": "heavy"}), "bad weight", "got the text 'heavy'"),
    (json.dumps({**row(), "weight": -1}), "bad weight", "below zero"),
    (json.dumps({**row(), "weight": [1]}), "bad weight", "got a list"),
    (json.dumps({**row(), "outcome": 1.5}), "bad outcome", "outside [0, 1]"),
    (json.dumps({**row(), "outcome": True}), "bad outcome", "got a boolean"),
    (json.dumps({**row(), "gold_chosen": "NaN"}), "bad gold_chosen", "got NaN"),
    (json.dumps({**row(), "gold_rejected": 10**400}), "bad gold_rejected", "beyond the range"),
    (json.dumps({**row(), "domain": ["x"]}), "not a string", "domain must be a string"),
    (json.dumps({**row(), "group": " "}), "empty", "group is only white space"),
    (json.dumps({**row(), "split": "practice"}), "unknown split", "split is 'practice'"),
    (json.dumps({**row(), "chosen": "half \ud83d of it"}), "lone surrogate", "at character 6"),
    (json.dumps(row())[:-5], "broken JSON", "not valid JSON"),
    (json.dumps(row()).replace('"What', "'What"), "broken JSON", "not valid JSON"),
    ('{"prompt": "a", "prompt": "b"}', "duplicate key", "'prompt' stands twice"),
    ('{"prompt": ' + "9" * 5000 + "}", "broken JSON", "too many digits"),
    ('{"prompt": ' + "[" * 100_000, "broken JSON", "nested too deeply"),
    ("[1, 2]", "not an object", "got a list"),
    ('"text"', "not an object", "got a string"),
    ("3", "not an object", "got a number"),
    ("null", "not an object", "got null"),
    (json.dumps(row()).encode().replace(b"What", b"Wh\xe4t"), "wrong encoding", "byte 15 of the line (0xe4)"),
]


@pytest.mark.parametrize(("line", "reason", "message"), BAD_ROWS, ids=[f"{b}-{c[:20]}" for _, b, c in BAD_ROWS])
def test_a_bad_row_is_named_by_line_reason_and_remedy(tmp_path, line, reason, message):
    path = write_jsonl(tmp_path / "a.jsonl", [row(1), "", line, row(2)])
    error = refused(path)
    assert error.line == 3
    assert str(error).startswith(f"{path}:3: ")
    assert message in str(error)
    assert "; " in str(error)  # what is wrong; what to do
    data = read_preferences(path, on_error="skip")
    assert data.n_pairs == 2
    assert data.info["skipped"]["reasons"] == {reason: 1}
    assert data.info["skipped"]["lines"] == {str(path): {reason: [3]}}
    assert data.summary()["skipped"]["rows"] == 1
    assert data.info["files"][0] == {"path": str(path), "form": "pair", "rows": 3, "used": 2, "blank_lines": 1}


def test_one_error_lists_the_first_bad_rows_and_counts_all(tmp_path):
    lines = [row(0)] + ["{"] * 30 + [{"prompt": "p"}] * 5
    error = refused(write_jsonl(tmp_path / "a.jsonl", lines), max_errors_shown=3)
    text = str(error).splitlines()
    assert [part.split(": ")[0].strip() for part in text[:3]] == [f"{tmp_path}/a.jsonl:{line}" for line in (2, 3, 4)]
    assert text[3].strip() == "... and 32 more."
    assert "35 bad rows in all: 30 broken JSON, 5 missing field" in text[4]
    assert "on_error='skip'" in text[4]


def test_all_skipped_rows_are_counted_and_placed_however_few_are_shown(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [row(0), *["{"] * 30])
    skipped = read_preferences(path, on_error="skip", max_errors_shown=2).info["skipped"]
    assert skipped["rows"] == 30
    assert skipped["lines"] == {str(path): {"broken JSON": list(range(2, 32))}}
    assert len(skipped["examples"]) == 2
    assert skipped["examples"][0].startswith(f"{path}:2: not valid JSON")


def test_all_files_are_checked_before_the_error(tmp_path):
    one = write_jsonl(tmp_path / "a.jsonl", [row(1), "{"])
    other = write_jsonl(tmp_path / "b.jsonl", [{}, row(2)])
    with pytest.raises(DataError) as caught:
        read_preferences([one, other])
    assert f"{one}:2" in str(caught.value)
    assert f"{other}:1" in str(caught.value)


def test_the_form_is_told_from_the_majority_and_not_from_the_first_row():
    odd = {"prompt": "p", "chosen": [{"role": "assistant", "content": "a"}], "rejected": []}
    data = PreferenceDataset.from_records([odd, row(1), row(2)], on_error="skip")
    assert data.info["files"][0]["form"] == "pair"
    assert data.info["skipped"]["lines"] == {"records": {"not a string": [1]}}


def test_a_file_without_a_good_row_is_never_skipped(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ["{", "[", "3"])
    assert "none of the first 3 rows can be read" in str(refused(path, on_error="skip"))
    path = write_jsonl(tmp_path / "b.jsonl", [{**row(), "chosen": ""}] * 4)
    error = refused(path, on_error="skip")
    assert "none of the 4 rows can be used" in str(error)
    assert error.line == 1


# -- files -----------------------------------------------------------------------------------------------------------

GOOD = b"".join(json.dumps(row(i)).encode() + b"\n" for i in range(200))


@pytest.mark.parametrize(
    ("name", "content", "message", "line"),
    [
        ("a.jsonl", b"", "no rows", None),
        ("a.jsonl", b"\n \n", "no rows", None),
        ("a.csv", b"", "file is empty", None),
        ("a.csv", b"prompt,chosen,rejected\n", "no rows", None),
        ("a.csv", b"prompt,chosen,chosen\np,a,b\n", "names the column 'chosen' twice", 1),
        ("a.csv", b"x,y\n1,2\n", "fit no known form", 1),
        ("a.csv", b"prom\xe4t,chosen\n1,2\n", "header cannot be read", 1),
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), "UTF-16", 1),
        ("a.jsonl", '{"a": 1}'.encode("utf-16-le"), "UTF-16", 1),
        ("a.csv", "prompt".encode("utf-32"), "UTF-16 or UTF-32", 1),
        ("a.jsonl", json.dumps([row(), row()]).encode(), "jq -c '.[]'", 1),
        ("a.jsonl.gz", GOOD, "not gzip", 1),
        ("a.parquet", b"", "not a readable Parquet file", None),
        ("a.parquet", b"PAR1 nothing PAR1", "not a readable Parquet file", None),
        ("a.txt", GOOD, "unknown kind of file '.txt'", None),
        ("a", GOOD, "without a suffix", None),
        ("a.gz", GOOD, "unknown kind of file '.gz'", None),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_file_that_cannot_be_trusted(tmp_path, name, content, message, line, on_error):
    path = tmp_path / name
    path.write_bytes(content)
    error = refused(path, on_error=on_error)
    assert message in str(error)
    assert error.line == line


def test_missing_files_and_folders(tmp_path):
    assert "no such file" in str(refused(tmp_path / "a.jsonl"))
    (tmp_path / "b.jsonl").mkdir()
    assert "folder" in str(refused(tmp_path / "b.jsonl"))
    if os.geteuid():
        (tmp_path / "c.jsonl").write_bytes(GOOD)
        (tmp_path / "c.jsonl").chmod(0)
        assert "cannot be opened" in str(refused(tmp_path / "c.jsonl"))


def test_truncated_gzip_names_the_last_whole_line_and_is_not_skipped(tmp_path):
    noise = [{**row(i), "noise": os.urandom(60).hex()} for i in range(400)]
    whole = write_jsonl(tmp_path / "a.jsonl.gz", noise).read_bytes()
    path = tmp_path / "b.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    error = refused(path, on_error="skip")
    assert "cut short" in str(error)
    assert 50 < error.line < 350
    path.write_bytes(whole[:-2])
    assert refused(path).line in (400, 401)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    path.write_bytes(bytes(damaged))
    assert refused(path).path == str(path)


def test_gzip_is_known_by_content_too(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(gzip.compress(GOOD))
    assert read_preferences(path).n_pairs == 200


def test_byte_order_mark_and_line_ends(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n"))
    assert read_preferences(path).n_pairs == 200
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfprompt,chosen,rejected\r\np,a,b\r\n")
    data = read_preferences(path)
    assert data.response_texts() == ["a", "b"]
    assert data.column_note() == ""


# -- CSV -------------------------------------------------------------------------------------------------------------


def write(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_csv_lines_are_those_where_a_row_begins(tmp_path):
    path = write(
        tmp_path / "a.csv",
        "prompt,chosen,rejected\n"  # 1
        '"one\n\nlong, prompt",a,b\n'  # 2 to 4
        "\n"  # 5
        "p,a\n"  # 6: too few cells
        '"two\nlines", ,b\n'  # 7 to 8: blank
        'p,"a"x,b\n'  # 9: a quote that ends too early
        "q,a,b\n",  # 10
    )
    error = refused(path)
    assert [part.split(": ")[0].strip() for part in str(error).splitlines()[:3]] == [f"{path}:{n}" for n in (6, 7, 9)]
    data = read_preferences(path, on_error="skip")
    assert data.n_pairs == 2
    assert data.prompts["prompt"].tolist() == ["one\n\nlong, prompt", "q"]
    assert data.info["skipped"]["lines"][str(path)] == {"wrong cells": [6], "empty": [7], "broken CSV": [9]}


def test_csv_quote_that_is_never_closed(tmp_path):
    path = write(tmp_path / "a.csv", 'prompt,chosen,rejected\np,a,b\nq,"a,b\nr,a,b\ns,a,b\n')
    error = refused(path, on_error="skip")
    assert error.line == 3
    assert "never closed" in str(error)
    assert "(3 lines)" in str(error)


def test_csv_wrong_encoding_inside_a_long_cell(tmp_path):
    path = write(tmp_path / "a.csv", b'prompt,chosen,rejected\np,a,b\n"long\n\xff\ncell",a,b\nq,a,b\n')
    data = read_preferences(path, on_error="skip")
    assert data.n_pairs == 2
    assert data.info["skipped"]["lines"][str(path)] == {"wrong encoding": [3]}


def test_csv_cells_may_be_longer_than_the_modules_limit(tmp_path):
    before = csv.field_size_limit()
    path = write(tmp_path / "a.csv", f"prompt,chosen,rejected\n{'p' * 200_000},a,b\n")
    assert read_preferences(path).responses["characters"].tolist() == [1, 1]
    assert csv.field_size_limit() == before


def test_csv_numbers_and_lists_in_cells(tmp_path):
    path = write(tmp_path / "a.tsv", 'prompt\tresponses\tgold\np\t"[""a"", ""b""]"\t"[1, ""2.5""]"\n')
    data = read_preferences(path)
    assert data.info["files"][0]["form"] == "kwise"
    assert data.pairs["margin"].tolist() == [1.5]
    sides = [json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": t}]) for t in "ab"]
    buffer = io.StringIO()
    csv.writer(buffer).writerows([["chosen", "rejected", "weight"], [*sides, "2"]])
    data = read_preferences(write(tmp_path / "b.csv", buffer.getvalue()))
    assert data.info["files"][0]["form"] == "conversational"
    assert data.pairs["weight"].tolist() == [2.0]


# -- Parquet ---------------------------------------------------------------------------------------------------------


def write_parquet(path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=50)
    return path


def test_parquet_rows_are_numbered_and_columns_listed(tmp_path):
    rows = [{**row(i), "when": 3, "margin": 1.0} for i in range(120)]
    rows[99]["chosen"] = None
    path = write_parquet(tmp_path / "a.parquet", rows)
    assert refused(path).line == 100
    data = read_preferences(path, on_error="skip")
    assert data.n_pairs == 119
    assert data.info["unused_columns"] == {str(path): ["when"]}
    conversation = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    other = [conversation[0], {"role": "assistant", "content": "b"}]
    chat = write_parquet(tmp_path / "b.parquet", [{"chosen": conversation, "rejected": other}])
    assert read_preferences(chat).info["files"][0]["form"] == "conversational"


def test_parquet_damaged_or_cut(tmp_path):
    whole = write_parquet(tmp_path / "a.parquet", [row(i) for i in range(200)]).read_bytes()
    path = tmp_path / "b.parquet"
    for cut in (3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert "not a readable Parquet file" in str(refused(path, on_error="skip"))
    # The footer's length, one of the few places where a flipped bit is sure to be fatal.
    broken = bytearray(whole)
    broken[-8:-4] = struct.pack("<i", 7)
    path.write_bytes(bytes(broken))
    assert "not a readable Parquet file" in str(refused(path))


def test_parquet_with_one_name_twice(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([["p"], ["a"], ["b"]], names=["prompt", "chosen", "chosen"]), path)
    assert "two columns are called 'chosen'" in str(refused(path))


# -- anything --------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(["", " ", "\ud800", "nan", "1e999", "\n\nHuman: a\n\nAssistant: b", "[{", "train", 10**400, -1]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "from", "value", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = [
    "prompt", "chosen", "rejected", "responses", "gold", "text", "label", "outcome", "margin", "weight", "domain",
    "group", "split", "system", "context", "source", "gold_chosen", "question", "better", "", "\ud800",
]  # fmt: skip
json_rows = st.dictionaries(st.sampled_from(NAMES), json_values, max_size=8)
FORMS_OF_ROWS = [
    row(),
    {**row(), "margin": 1.0, "weight": 2, "outcome": 0.25, "split": "train", "group": "g"},
    {"prompt": "p", "responses": ["a", "b", "c"], "gold": [1, 2, 3]},
    {"text": "a", "label": 1, "attribute": "x"},
    {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    {"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
     "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]},
]  # fmt: skip


@st.composite
def mutated_rows(draw):
    good = dict(draw(st.sampled_from(FORMS_OF_ROWS)))
    for name in draw(st.lists(st.sampled_from([*good, *NAMES]), max_size=3)):
        if draw(st.booleans()):
            good[name] = draw(json_values)
        else:
            good.pop(name, None)
    return good


def ends_well(path, on_error):
    """Read; the end is a data set that passes its own check, or a DataError that names the file."""
    caught = None
    try:
        data = read_preferences(path, on_error=on_error)
    except DataError as error:
        caught = error
    if caught is not None:
        assert caught.path == str(path)
        assert str(caught).startswith(str(path))
        assert str(caught).encode()  # it can be printed
        return
    again = PreferenceDataset(data.prompts, data.responses, data.pairs, info=data.info)
    assert again.fingerprint() == data.fingerprint()
    json.dumps(data.summary(), allow_nan=False)


@FEW
@given(st.lists(mutated_rows() | json_rows | json_values, max_size=6), st.sampled_from(["raise", "skip"]))
def test_any_json_values(tmp_path, values, on_error):
    ends_well(write_jsonl(tmp_path / "a.jsonl", [json.dumps(value) for value in values]), on_error)


@FEW
@given(st.lists(mutated_rows() | json_rows, max_size=5))
def test_any_records(values):
    places = ["records"]
    try:
        PreferenceDataset.from_records(values)
    except DataError as error:
        places.append(error.path)
    assert set(places) == {"records"}


@FEW
@given(st.data())
def test_good_lines_with_bytes_exchanged(tmp_path, data):
    content = bytearray(b"".join(json.dumps(data.draw(st.sampled_from(FORMS_OF_ROWS))).encode() + b"\n" for _ in "123"))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.jsonl"
    path.write_bytes(bytes(content))
    ends_well(path, data.draw(st.sampled_from(["raise", "skip"])))


@FEW
@given(
    st.binary(max_size=200),
    st.sampled_from(["a.jsonl", "a.csv", "a.tsv", "a.jsonl.gz", "a.csv.gz", "a.parquet"]),
    st.sampled_from([b"", b"\x1f\x8b", b"\x1f\x8b\x08\x00", b"prompt,chosen,rejected\n", b'{"prompt": ', b"PAR1"]),
)
def test_any_bytes(tmp_path, content, name, head):
    path = tmp_path / name
    path.write_bytes(head + content)
    ends_well(path, "skip")


@FEW
@given(
    st.lists(st.lists(st.text(st.sampled_from('ab ,"\n\r\x00é'), max_size=6), min_size=2, max_size=4), max_size=6),
    st.booleans(),
)
def test_any_csv(tmp_path, rows, quoted):
    if quoted:
        rows = [['"' + cell.replace('"', '""') + '"' for cell in cells] for cells in rows]
    lines = ["prompt,chosen,rejected", *(",".join(cells) for cells in rows)]
    ends_well(write(tmp_path / "a.csv", "\n".join(lines)), "skip")


@FEW
@given(st.integers(0, 2000), st.integers(0, 255))
def test_gzip_cut_or_damaged_anywhere(tmp_path, place, byte):
    whole = gzip.compress(GOOD, mtime=0)
    place %= len(whole)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(whole[:place])
    ends_well(path, "skip")
    path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
    ends_well(path, "raise")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000))
def test_parquet_cut_anywhere(tmp_path, place):
    whole = tmp_path / "whole.parquet"
    if not whole.exists():
        write_parquet(whole, [row(i) for i in range(50)])
    content = whole.read_bytes()
    path = tmp_path / "a.parquet"
    path.write_bytes(content[: place % len(content)])
    ends_well(path, "skip")


def test_a_folder_is_answered_with_the_files_in_it(tmp_path):
    with pytest.raises(DataError, match=r"a folder without a file of preferences"):
        open_source(tmp_path)
    (tmp_path / "b.jsonl.gz").write_bytes(b"")
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(DataError, match=r"this is a folder; give the files in it, such as b\.jsonl\.gz \(1 there\)"):
        open_source(tmp_path)
    # a folder that is called like a file is a folder all the same
    (tmp_path / "data.csv").mkdir()
    with pytest.raises(DataError, match="this is a folder"):
        open_source(tmp_path / "data.csv")
