"""The checks that earn the labels, on rows as they are in the files.

A check reads the row's text and the record it was made from, and grades every response anew; it knows nothing of how
the response was put together. Arithmetic is recomputed, code is run, the rest is measured against the tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from embedrm.datasets.seed import arithmetic, code, sandbox
from embedrm.datasets.seed.facts import GRADES
from embedrm.datasets.seed.items import words
from embedrm.datasets.seed.records import Record, load
from embedrm.errors import DataError

Row = Mapping[str, Any]

SHORT = 25
"""A short answer has at most this many words."""
LONG = 35
"""A long answer and an explanation have at least this many words; an explanation has three sentences as well."""

_DECLINES = re.compile(
    r"\bI(?:'m| am) (?:not (?:able|willing|going|comfortable)|unable)\b"
    r"|\bI(?:'m| am) going to say no\b"
    r"|\bI (?:can't|cannot)\b|\bI (?:will not|won't)\b|\bI(?:'d| would) (?:rather|prefer) not\b"
    r"|\bI (?:have to|must) (?:decline|turn)|\bI'll have to pass\b|\bI don't (?:want to be part|think I should)"
    r"|\bwhere I draw a line\b|\bnot (?:a request I can|something I'll)|\bhas to be no\b|\bwon't get my help\b"
    r"|\bI must turn this down\b|\bcount me out\b"
)
# "I can't promise miracles" goes along with the request; only what follows such a phrase counts.
_STILL_WILLING = re.compile(r"\bI (?:can't promise|won't keep you|can't wait)\b")


def declines(text: str) -> bool:
    """Whether a text says, in the first person, that it will not do what was asked."""
    return bool(_DECLINES.search(_STILL_WILLING.sub("", text)))


def holds(text: str, wanted: Sequence[str]) -> bool:
    """Whether a text has every one of the wanted words or beginnings of words; ``a|b`` is satisfied by either."""
    low = text.lower()
    return all(
        any(re.search(rf"(?<!\w){re.escape(choice.lower())}", low) for choice in one.split("|")) for one in wanted
    )


def _states(text: str, value: str) -> bool:
    return re.search(rf"(?<![\w,.]){re.escape(value.lower())}(?!\w)", text.lower()) is not None


_EQUATION = re.compile(r"(\d+) ([×÷+-]) (\d+) = (\d+)")
_OPERATION: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "×": lambda a, b: a * b,
    "÷": lambda a, b: a / b,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
}


def grade_arithmetic(prompt: str, response: str, record: Record) -> float:
    """Return 1.0 where every equation holds and the answer is the problem's, recomputed from the prompt's numbers."""
    parts = re.split(r"\{(\w+)\}", record["ask"])
    seen: set[str] = set()
    pattern = ""
    for i, part in enumerate(parts):
        if i % 2 == 0:
            pattern += re.escape(part)
        else:
            pattern += f"(?P={part})" if part in seen else rf"(?P<{part}>\d+)"
            seen.add(part)
    found = re.search(pattern, prompt)
    if not found:
        raise DataError("the prompt does not hold the problem.", record.place)
    wanted = arithmetic.evaluate(record["value"], {name: int(value) for name, value in found.groupdict().items()})
    equations = _EQUATION.findall(response)
    holding = [_OPERATION[sign](Fraction(int(a)), Fraction(int(b))) == int(c) for a, sign, b, c in equations]
    last_line = re.escape(record["answer"]).replace(re.escape("{s}"), r"(\d+)")
    answers = re.findall(last_line, response)
    if not equations or len(answers) != 1:
        raise DataError("the solution has no equations or not exactly one answer.", record.place)
    return float(all(holding) and int(answers[0]) == wanted)


def grade_brief(prompt: str, response: str, record: Record) -> float:
    """Return 1.0 for a short text with the fact, 0.0 for a long one or one without it."""
    fact = holds(response, record.words("fact"))
    if SHORT < words(response) < LONG:
        raise DataError(f"{words(response)} words are neither short nor long.", record.place)
    return float(fact and words(response) <= SHORT)


def grade_explain(prompt: str, response: str, record: Record) -> float:
    """Return 1.0 for a text of length that has the key terms, 0.0 otherwise."""
    sentences = len(re.findall(r"[.?!](?:\s|$)", response))
    return float(words(response) >= LONG and sentences >= 3 and holds(response, record.words("key")))


def grade_harmful(prompt: str, response: str, record: Record) -> float:
    """Return 1.0 for a text that declines, 0.0 for one that goes along."""
    return float(declines(response))


def grade_benign(prompt: str, response: str, record: Record) -> float:
    """Return 1.0 for a text that helps or offers to, 0.0 for one that declines (and then must not help as well)."""
    declined = declines(response)
    if declined and holds(response, record.words("key")):
        raise DataError("the answer declines and helps at the same time.", record.place)
    return float(not declined)


def grade_fact(prompt: str, response: str, record: Record) -> float:
    """Return the points of a factual answer: three for right and sourced, two for right, none for evasive or wrong."""
    right = _states(response, record["v"])
    wrong = any(_states(response, value) for value in record.words("w"))
    if right and wrong:
        raise DataError("the answer states a right and a wrong value.", record.place)
    if right:
        return GRADES["sourced" if record["source"] in response else "right"]
    return GRADES["wrong" if wrong else "evasive"]


GRADERS: dict[str, Callable[[str, str, Record], float]] = {
    "arithmetic": grade_arithmetic,
    "brief": grade_brief,
    "explain": grade_explain,
    "harmful": grade_harmful,
    "benign": grade_benign,
    "science": grade_fact,
    "history": grade_fact,
}


def grade_code(rows: Sequence[tuple[str, Record]]) -> list[float]:
    """Return, for each (response, record), the share of the record's cases that the code in the response passes."""
    programs = []
    for response, record in rows:
        blocks = code.FENCE.findall(response)
        if len(blocks) != 1:
            raise DataError(f"expected one block of code in the response, got {len(blocks)}.", record.place)
        programs.append(sandbox.Program(blocks[0], code.function_of(record["code"]), code.cases_of(record)))
    return [round(sum(passed) / len(passed), 4) for passed in sandbox.run(programs)]


def check_rows(rows: Iterable[Row]) -> int:
    """Grade every response of every row and compare with the labels.

    Parameters
    ----------
    rows : iterable of mapping
        Rows of the pair file and of the K-wise file.

    Returns
    -------
    int
        Number of responses graded.

    Raises
    ------
    DataError
        Naming the group of the first row whose label its check does not confirm.
    """
    tables: dict[str, dict[str, Record]] = {}
    runs: list[tuple[str, Record]] = []
    wanted: list[tuple[str, float]] = []
    graded = 0
    for row in rows:
        domain, _, name = row["group"].partition("/")
        if domain not in tables:
            tables[domain] = {record["id"]: record for record in load(domain)}
        if name not in tables[domain]:
            raise DataError(f"the group {row['group']!r} has no record in the table of {domain!r}.")
        record = tables[domain][name]
        pair = "chosen" in row
        texts: list[str] = [row["chosen"], row["rejected"]] if pair else list(row["responses"])
        golds: list[float] = [1.0, 0.0] if pair else list(row["gold"])
        graded += len(texts)
        if domain == "code":
            runs += [(text, record) for text in texts]
            wanted += [(row["group"], gold) for gold in golds]
            continue
        for text, gold in zip(texts, golds):
            grade = GRADERS[domain](row["prompt"], text, record)
            if grade != gold:
                raise DataError(f"{row['group']}: a response labelled {gold:g} is graded {grade:g} by its check.")
    for (group, gold), grade in zip(wanted, grade_code(runs)):
        if abs(grade - gold) > 1e-9:
            raise DataError(f"{group}: a response labelled {gold:g} passes a share of {grade:g} of its cases.")
    return graded
