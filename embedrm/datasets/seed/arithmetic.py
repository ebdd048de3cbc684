"""Word problems with worked solutions: right, wrong in one step, or wrong in the last digit only."""

from __future__ import annotations

import ast
import re
from fractions import Fraction
from random import Random

from embedrm.datasets.seed.items import Item, combine, deal, rng
from embedrm.datasets.seed.phrases import with_turns
from embedrm.datasets.seed.records import Record
from embedrm.errors import DataError

_SIGNS = {"*": "×", "/": "÷", "+": "+", "-": "-"}

_ASK = (
    "{ask}",
    "{ask}",
    "{ask}",
    "{ask} Please show the working.",
    "{ask} I'd like to see each step.",
    "I keep getting different results here. {ask}",
    "{ask} Thanks!",
    "Can you check this for me? {ask}",
    "{ask} My daughter has to explain it tomorrow.",
)
_LEAD = (
    "",
    "",
    "Let's go through it.",
    "Here is the working.",
    "One step at a time.",
    "Let me work that out.",
    "This takes a couple of steps.",
    "Sure, with the working.",
)
_LAYOUT = ("run", "run", "lines", "numbered", "bullets")


def evaluate(expression: str, values: dict[str, int]) -> Fraction:
    """Return the exact value of an expression of numbers, names, + - * / and parentheses."""

    def of(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return Fraction(node.value)
        if isinstance(node, ast.Name) and node.id in values:
            return Fraction(values[node.id])
        if isinstance(node, ast.BinOp):
            left, right = of(node.left), of(node.right)
            if isinstance(node.op, ast.Add):
                return left + right
            if isinstance(node.op, ast.Sub):
                return left - right
            if isinstance(node.op, ast.Mult):
                return left * right
            if isinstance(node.op, ast.Div) and right:
                return left / right
        raise DataError(f"cannot evaluate {expression!r} with the numbers {sorted(values)}.")

    return of(ast.parse(expression, mode="eval").body)


def draw(record: Record, random: Random) -> dict[str, int]:
    """Draw the numbers of a record."""
    values: dict[str, int] = {}
    for part in record.words("draw"):
        name, _, rule = part.partition("=")
        spread = re.fullmatch(r"(\d+)\.\.(\d+)(?:/(\d+))?", rule)
        if spread:
            low, high, step = int(spread[1]), int(spread[2]), int(spread[3] or 1)
            values[name] = random.randrange(low, high + 1, step)
        else:
            values[name] = _whole(evaluate(rule, values), record)
    return values


def _whole(value: Fraction, record: Record) -> int:
    if value.denominator != 1 or value < 1:
        raise DataError(f"expected a whole number above zero, got {value}.", record.place)
    return int(value)


def _solve(record: Record, values: dict[str, int], wrong_step: int = -1, shift: int = 0) -> tuple[list[str], int]:
    """Return the lines of a solution and its result; the result of one step may be off by ``shift``."""
    known = dict(values)
    lines = []
    result = 0
    for number, step in enumerate(record.all("step")):
        found = re.search(r"\{(\w+) ([-+*/]) (\w+)\}", step)
        if not found:
            raise DataError(f"step {number + 1} has no expression of two terms.", record.place)
        left, sign, right = found.groups()
        result = _whole(evaluate(f"{left} {sign} {right}", known), record) + shift * (number == wrong_step)
        shown = [str(known.get(term, term)) for term in (left, right)]
        lines.append(step.replace(found[0], f"{shown[0]} {_SIGNS[sign]} {shown[1]} = {result}"))
        known[f"s{number + 1}"] = result
    return [*lines, record["answer"].replace("{s}", str(result))], result


def _slips(record: Record, values: dict[str, int], random: Random) -> tuple[list[str], list[str]]:
    """Return a solution with a slip in any step that carries on, and one whose last result alone is wrong."""
    last = len(record.all("step")) - 1
    right = _solve(record, values)[1]
    steps = list(range(last)) or [last]
    slips = []
    for first in (steps, [last]):
        shifts = [sign * size for size in ((1, 2, 3) if first == [last] else (1, 2, 10, 20, 100)) for sign in (1, -1)]
        tries = [(step, shift) for step in first for shift in shifts]
        random.shuffle(tries)
        for step, shift in [*tries, *((last, shift) for shift in shifts)]:
            try:
                lines, result = _solve(record, values, step, shift)
            except DataError:
                continue
            # A slip of the pen, not an absurd number: the result stays within a factor of two.
            if result != right and right < 2 * result and result < 2 * right and lines not in slips:
                slips.append(lines)
                break
        else:
            raise DataError("no slip gives a whole, positive, wrong result; change the numbers.", record.place)
    return slips[0], slips[1]


def _lay_out(lines: list[str], layout: str, lead: str) -> str:
    steps, answer = lines[:-1], lines[-1]
    if layout == "lines":
        text = "\n".join(lines)
    elif layout == "numbered":
        text = "\n".join([*(f"{i}. {line}" for i, line in enumerate(steps, 1)), answer])
    elif layout == "bullets":
        text = "\n".join([*(f"- {line}" for line in steps), answer])
    else:
        text = " ".join(lines)
    joint = "\n" if "\n" in text else " "
    return f"{lead}{joint}{text}" if lead else text


def write(record: Record, position: int) -> Item:
    """Return the item of a record: one right solution and two wrong ones."""
    random = rng("arithmetic", record["id"])
    values = draw(record, random)
    lines, result = _solve(record, values)
    if evaluate(record["value"], values) != result:
        raise DataError(f"the steps give {result}, the independent expression does not.", record.place)
    solutions = [lines, *_slips(record, values, random)]
    responses = []
    for place, solution in enumerate(solutions):
        layout, lead = combine(position * 3 + place, [_LAYOUT, _LEAD], "arithmetic")
        responses.append(_lay_out(solution, layout, lead))
    number = deal(position, len(_ASK), "arithmetic")
    ask = _ASK[number].format(ask=record["ask"].format(**values))
    prompt, turns = with_turns(ask, position, "arithmetic", record["id"])
    template = f"arithmetic/{number}" + ("+turns" if turns else "")
    return Item(prompt, responses, [1.0, 0.0, 0.0], "recomputed", template, [(0, 1), (0, 2)])
