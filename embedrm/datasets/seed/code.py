"""Small Python functions, right and buggy, graded by the share of test cases they pass when they are run."""

from __future__ import annotations

import re

from embedrm.datasets.seed.items import Item, combine, deal, rng
from embedrm.datasets.seed.phrases import with_turns
from embedrm.datasets.seed.records import Record
from embedrm.datasets.seed.sandbox import Program
from embedrm.errors import DataError

FENCE = re.compile(r"```python\n(.*?)```", re.DOTALL)

_LEAD = (
    "",
    "",
    "Here you are:",
    "This should do it:",
    "A short version:",
    "I'd write it like this:",
    "Something along these lines works:",
    "Try this one:",
    "One way to do it:",
    "Sure, here's the function:",
    "No libraries are needed:",
    "Here's a plain solution:",
)
_TAIL = (
    "",
    "",
    "",
    "",
    "It runs on any Python 3.",
    "Let me know if you need type hints.",
    "Add a docstring if it goes into a shared project.",
    "You can paste it into a file and call it directly.",
    "I kept it simple so that it is easy to read.",
    "It doesn't change its arguments.",
)
_ASK = (
    "{ask}",
    "{ask}",
    "{ask}",
    "{ask} Just the function, no explanation.",
    "{ask} I'm still learning, so please keep it readable.",
    "{ask} It's for a homework sheet on functions.",
    "{ask} It goes into a small script at work.",
    "I'm preparing an exercise. {ask}",
    "{ask} Python 3, please.",
)


def function_of(source: str) -> str:
    """Return the name of the function that a source defines."""
    found = re.match(r"def (\w+)\(", source)
    if not found:
        raise DataError("expected a source that begins with 'def NAME('.")
    return found.group(1)


def cases_of(record: Record) -> tuple[tuple[str, str], ...]:
    """Return the test cases of a record as (arguments, expected value)."""
    pairs = [line.rpartition(" => ") for line in record.all("test")]
    return tuple((arguments, expected) for arguments, _, expected in pairs)


def apply_bug(source: str, bug: str, place: str) -> str:
    """Return a source with one bug in it, see the head of ``tables/code_1.txt``."""
    if bug.startswith("drop "):
        return _drop(source, bug[5:], place)
    old, arrow, new = bug.partition(" =>")
    old, new = old.replace("\\n", "\n"), new[1:].replace("\\n", "\n")
    if not arrow or old not in source + "\n":
        raise DataError(f"the bug {bug!r} does not fit the code.", place)
    return (source + "\n").replace(old, new, 1).rstrip("\n")


def _drop(source: str, start: str, place: str) -> str:
    kept: list[str] = []
    indent = -1
    found = False
    for line in source.splitlines():
        depth = len(line) - len(line.lstrip())
        if indent >= 0 and depth > indent:
            continue
        indent = -1
        if not found and line.strip().startswith(start):
            indent, found = depth, True
            continue
        kept.append(line)
    if not found:
        raise DataError(f"no line of the code begins with {start!r}.", place)
    return "\n".join(kept)


def variants(record: Record) -> list[str]:
    """Return four sources: the right one, then three with bugs (the third has the first two where two are given)."""
    right = record["code"]
    bugs = record.all("bug")
    wrong = [apply_bug(right, bug, record.place) for bug in bugs[:3]]
    if len(wrong) == 2:
        wrong.append(apply_bug(wrong[0], bugs[1], record.place))
    sources = [right, *wrong]
    if len(set(sources)) != 4:
        raise DataError("expected two or three bugs that give different sources.", record.place)
    for source in sources:
        compile(source, record.place, "exec")
    return sources


def programs(record: Record) -> list[Program]:
    """Return the variants of a record as programs to be run."""
    cases = cases_of(record)
    return [Program(source, function_of(record["code"]), cases) for source in variants(record)]


def write(record: Record, position: int, passed: list[float]) -> Item:
    """Return the item of a record; ``passed`` is the share of cases that each variant passed."""
    number = deal(position, len(_ASK), "code")
    prompt, turns = with_turns(_ASK[number].format(ask=record["ask"]), position, "code", record["id"])
    order = list(range(4))
    rng("code", record["id"]).shuffle(order)
    responses = []
    for place, which in enumerate(order):
        lead, tail = combine(position * 4 + place, [_LEAD, _TAIL], "code")
        parts = [lead, f"```python\n{variants(record)[which]}\n```", tail]
        responses.append("\n".join(part for part in parts if part))
    template = f"code/{number}" + ("+turns" if turns else "")
    return Item(prompt, responses, [round(passed[which], 4) for which in order], "executed", template)
