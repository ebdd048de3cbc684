"""Every committed label of the seed data set is confirmed by its check, and a check refuses a wrong label."""

import ast
import gzip
import json
import re

import pytest

from embedrm.datasets.bundled import bundled_paths
from embedrm.datasets.seed import DOMAINS, arithmetic, code, sandbox
from embedrm.datasets.seed.checks import check_rows, declines, holds
from embedrm.datasets.seed.records import load, parse
from embedrm.errors import DataError

ROWS = [
    json.loads(line)
    for path in bundled_paths("seed")
    for line in gzip.decompress(path.read_bytes()).decode().splitlines()
]


def test_every_committed_label_is_confirmed():
    assert check_rows(ROWS) == sum(2 if "chosen" in row else len(row["responses"]) for row in ROWS)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_wrong_label_is_refused(domain):
    row = dict(next(row for row in ROWS if row["domain"] == domain))
    if "chosen" in row:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    else:
        row["gold"] = [3.0 - gold if domain != "code" else 1.0 - gold for gold in row["gold"]]
    with pytest.raises(DataError, match=re.escape(row["group"])):
        check_rows([row])


# Declining and helping are right for every prompt of "harmful" and "benign", so their labels are left out.
@pytest.mark.parametrize("domain", ["arithmetic", "brief", "explain", "code", "science", "history"])
def test_labels_are_not_of_the_wrong_record(domain):
    """A response moved to another prompt of its domain loses its label."""
    rows = [row for row in ROWS if row["domain"] == domain]
    row, other = dict(rows[0]), next(r for r in rows if r["group"] != rows[0]["group"])
    for field in ("chosen", "rejected", "responses"):
        if field in row:
            row[field] = other[field]
    with pytest.raises(DataError):
        check_rows([row])


def test_an_unknown_group_is_refused():
    with pytest.raises(DataError, match="no record"):
        check_rows([{**ROWS[0], "group": "arithmetic/none"}])


def test_arithmetic_by_other_means():
    """Python's own parser evaluates the equations; exactly the preferred solutions are free of errors."""
    for row in (row for row in ROWS if row["domain"] == "arithmetic"):
        faults = {}
        for side in ("chosen", "rejected"):
            equations = re.findall(r"([\d×÷+\- ]+) = (\d+)", row[side])
            assert len(equations) >= 2
            faults[side] = sum(
                eval(left.strip(" -").replace("×", "*").replace("÷", "/"), {"__builtins__": {}}) != int(right)
                for left, right in equations
            )
        assert faults == {"chosen": 0, "rejected": 1}, row["group"]


def test_right_code_by_other_means():
    """The best response of every code prompt is run here, and the worse ones fail somewhere."""
    records = {f"code/{record['id']}": record for record in load("code")}
    for row in (row for row in ROWS if row["domain"] == "code"):
        best = row["responses"][row["gold"].index(max(row["gold"]))]
        space = {}
        exec(best.split("```python\n")[1].split("```")[0], space)
        for arguments, expected in code.cases_of(records[row["group"]]):
            function = space[code.function_of(records[row["group"]]["code"])]
            assert function(*ast.literal_eval(f"({arguments},)")) == ast.literal_eval(expected), row["group"]
        assert max(row["gold"]) == 1.0
        assert sorted(row["gold"])[-2] < 1.0


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("I can't help with that.", True),
        ("I'd rather not. It would hurt her.", True),
        ("Sure, ask me anything else, but I can't help you here.", True),
        ("I can't promise miracles, but this should work.", False),
        ("I can't promise much, and in fact I won't do it.", True),
        ("She can hardly refuse, and you cannot be caught.", False),
        ("Of course. Red first, then black.", False),
    ],
)
def test_declining(text, wanted):
    assert declines(text) is wanted


def test_wanted_words_match_at_their_beginning():
    assert holds("Water evaporates.", ["evaporat"])
    assert not holds("unevaporated", ["evaporat"])
    assert holds("It tilts.", ["leans|tilt"])
    assert not holds("It tilts.", ["tilt", "leans"])


def test_programs_are_run_within_limits():
    def program(source, *cases):
        return sandbox.Program(source, "f", cases)

    results = sandbox.run(
        [
            program("def f(x):\n    return x + 1", ("1", "2"), ("1", "3")),
            program("def f(x):\n    while True:\n        pass", ("1", "2")),
            program("def f(x):\n    return x // 0", ("1", "2")),
            program("def g(x):\n    return x", ("1", "1")),
            program("def f(x)\n    return x", ("1", "1")),
            program("def f(x):\n    raise SystemExit", ("1", "1")),
            program("def f(x):\n    print(x)\n    return x", ("1", "1")),
            program("def f(x):\n    return len([0] * (10 ** 11))", ("1", "100000000000")),
            program("def f(x):\n    return 7", ("1", "'7'")),
        ]
    )
    assert results == [[True, False], [False], [False], [False], [False], [False], [True], [False], [False]]


def test_a_program_that_kills_its_process_is_named():
    with pytest.raises(DataError, match="'f' failed with code 3"):
        sandbox.run([sandbox.Program("def f():\n    import os\n    os._exit(3)", "f", (("", "1"),))])


def test_bugs_are_changes_of_the_code():
    source = "def f(x):\n    if x:\n        return 1\n    return 2"
    assert code.apply_bug(source, "return 2 => return 3", "here") == source[:-1] + "3"
    assert code.apply_bug(source, "drop if x", "here") == "def f(x):\n    return 2"
    for bug in ("return 9 => return 3", "drop while", "no arrow"):
        with pytest.raises(DataError, match="here"):
            code.apply_bug(source, bug, "here")


def test_expressions_are_exact_and_small():
    assert arithmetic.evaluate("(a - 1) / 3", {"a": 2}) * 3 == 1
    for bad in ("a ** 2", "b + 1", "f(a)", "a / (a - 2)", "1.5 + a"):
        with pytest.raises(DataError):
            arithmetic.evaluate(bad, {"a": 2})


def test_a_word_problem_whose_steps_are_wrong_is_refused():
    record = parse("id: x\ndraw: a=2..2; b=3..3\nask: {a} {b}?\nstep: {a * b}\nanswer: {s}\nvalue: a + b", "t")[0]
    with pytest.raises(DataError, match="independent expression"):
        arithmetic.write(record, 0)
