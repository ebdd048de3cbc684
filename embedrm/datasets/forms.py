"""The forms of a row, each turned into one shape: a prompt, its responses, and the pairs among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, nan
from typing import Any

from embedrm.datasets import messages as chat
from embedrm.datasets.columns import ColumnMap
from embedrm.datasets.groups import split_name
from embedrm.datasets.template import PLAIN, Template
from embedrm.datasets.validate import (
    RowError,
    check_encodable,
    check_list,
    check_number,
    check_text,
    kind_of,
    shown,
)

Pair = tuple[int, int, float, float, float]
"""(chosen, rejected, weight, margin, outcome); the first two are positions in the row's responses."""


@dataclass
class ParsedRow:
    """One row, whatever its form was: the prompt with what is known of it, responses, golds (NaN absent), pairs."""

    prompt: str
    system: str
    context: str
    domain: str
    group: str
    source: str
    split: str
    texts: Sequence[str]
    golds: Sequence[float]
    pairs: Sequence[Pair] = ()


@dataclass
class RowParser:
    """Check the rows of one file against its form and take them apart.

    Parameters
    ----------
    form : str
        A key of :data:`embedrm.datasets.columns.FORMS`.
    columns : ColumnMap
        The columns of the file.
    ties : {"auto", "keep", "drop"}
        What happens to pairs of equal rank. "auto" keeps the ties that a pair file states (outcome 0.5) and drops the
        pairs of equal gold of a K-wise row, which nobody compared.
    domain, split, source : str, optional
        What every row is given; the column is then not read.
    template : Template
        Renders prompts of several turns.
    counts : Counter
        What was changed or left out, by name; added to as rows are read.
    """

    form: str
    columns: ColumnMap
    ties: str = "auto"
    domain: str | None = None
    split: str | None = None
    source: str | None = None
    template: Template = PLAIN
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._column = self.columns.by_field
        self._read: Callable[[Mapping[str, Any]], ParsedRow | None] = {
            "pair": self._pair,
            "implicit": self._implicit,
            "conversational": self._conversational,
            "hh-rlhf": self._transcript,
            "kwise": self._kwise,
            "unpaired": self._unpaired,
        }[self.form]

    def parse(self, row: Mapping[str, Any]) -> ParsedRow | None:
        """Return the parts of a row, None where it is a tie to be dropped (counted); a bad row raises RowError."""
        return self._read(row)

    # -- fields ---------------------------------------------------------------------------------------------------

    def _get(self, row: Mapping[str, Any], name: str) -> Any:
        column = self._column[name]
        if column not in row:
            here = ", ".join(shown(key, 30) for key in list(row)[:6]) or "nothing"
            raise RowError(
                "missing field", f"the field {self._called(name)} is missing; the row has {here}", "add the field"
            )
        return row[column]

    def _optional(self, row: Mapping[str, Any], name: str) -> Any:
        """Return the value of a field that a row may leave out (no column, null, an empty cell): then None."""
        column = self._column.get(name)
        value = None if column is None else row.get(column)
        return None if type(value) is str and not value else value

    def _called(self, name: str) -> str:
        column = self._column.get(name, name)
        return name if column == name else f"{name} ({shown(column, 40)})"

    def _text(self, row: Mapping[str, Any], name: str) -> str:
        value = self._get(row, name)
        if type(value) is str and value.isascii() and value and not value.isspace():
            return value
        return check_text(value, self._called(name))

    def _number(self, row: Mapping[str, Any], name: str, default: float) -> float:
        value = self._optional(row, name)
        return default if value is None else check_number(value, self._called(name), f"bad {name}")

    def _label(self, row: Mapping[str, Any], name: str, default: str = "") -> str:
        value = self._optional(row, name)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
            return str(value)  # a CSV file cannot say that a name is not a number
        if not isinstance(value, str):
            raise RowError(
                "not a string", f"{self._called(name)} must be a string, got {kind_of(value)}", "write it as text"
            )
        if value.isspace():
            raise RowError("empty", f"{self._called(name)} is only white space", "give a name or leave it out")
        return check_encodable(value, self._called(name))

    def _prompt(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return (system, prompt) of a prompt field that is a text or a list of messages."""
        value = self._get(row, "prompt")
        if isinstance(value, list):
            return chat.render_prompt(chat.read_messages(value, self._called("prompt")), self.template, "the prompt")
        return "", self._text(row, "prompt")

    def _row(
        self,
        row: Mapping[str, Any],
        prompt: str,
        system: str,
        texts: Sequence[str],
        golds: Sequence[float],
        pairs: Sequence[Pair] = (),
    ) -> ParsedRow:
        stated = self._label(row, "system")
        if stated and system and stated != system:
            raise RowError("two system texts", "the system field and the system message differ", "keep one of the two")
        split = self.split
        if split is None:
            given = self._label(row, "split")
            split = split_name(given)
            if split is None:
                raise RowError(
                    "unknown split",
                    f"{self._called('split')} is {shown(given, 30)}",
                    "write train, validation or test, or give split=... for the whole file",
                )
        return ParsedRow(
            prompt=prompt,
            system=stated or system,
            context=self._label(row, "context"),
            domain=self._label(row, "domain", "default") if self.domain is None else self.domain,
            group=self._label(row, "group"),
            source=self._label(row, "source") if self.source is None else self.source,
            split=split,
            texts=texts,
            golds=golds,
            pairs=pairs,
        )

    # -- forms ----------------------------------------------------------------------------------------------------

    def _compared(
        self, row: Mapping[str, Any], prompt: str, system: str, chosen: str, rejected: str
    ) -> ParsedRow | None:
        if chosen == rejected or chosen.strip() == rejected.strip():
            raise RowError("chosen equals rejected", "chosen and rejected are the same text", "delete the row")
        weight = self._number(row, "weight", 1.0)
        margin = self._number(row, "margin", nan)
        outcome = self._number(row, "outcome", 1.0)
        golds = self._number(row, "gold_chosen", nan), self._number(row, "gold_rejected", nan)
        if weight < 0:
            raise RowError("bad weight", f"{self._called('weight')} is below zero", "give 0 or more")
        if not 0 <= outcome <= 1:
            raise RowError(
                "bad outcome", f"{self._called('outcome')} is outside [0, 1]", "give the share that prefers chosen"
            )
        if outcome < 0.5:
            if margin > 0:
                raise RowError(
                    "bad margin",
                    "the margin favours chosen and the outcome rejected",
                    "give the margin as chosen minus rejected",
                )
            chosen, rejected, golds, margin, outcome = rejected, chosen, golds[::-1], 0.0 - margin, 1.0 - outcome
            swapped = True
        else:
            swapped = False
        parsed = self._row(row, prompt, system, (chosen, rejected), golds, ((0, 1, weight, margin, outcome),))
        self.counts["pairs swapped because the outcome favoured rejected"] += swapped
        if outcome == 0.5 and self.ties == "drop":
            self.counts["ties dropped"] += 1
            return None
        return parsed

    def _pair(self, row: Mapping[str, Any]) -> ParsedRow | None:
        system, prompt = self._prompt(row)
        return self._compared(row, prompt, system, self._text(row, "chosen"), self._text(row, "rejected"))

    def _implicit(self, row: Mapping[str, Any]) -> ParsedRow | None:
        texts = self._text(row, "chosen"), self._text(row, "rejected")
        if texts[0].strip() == texts[1].strip():
            return self._compared(row, "", "", *texts)
        prompt, chosen, rejected = chat.shared_beginning(*texts)
        return self._compared(row, prompt, "", chosen, rejected)

    def _transcript(self, row: Mapping[str, Any]) -> ParsedRow | None:
        sides = [chat.split_transcript(self._text(row, name), self._called(name)) for name in ("chosen", "rejected")]
        (prompt, chosen), (other, rejected) = sides
        if prompt != other:
            raise RowError(
                "prompts differ",
                "the transcripts differ before their last Assistant turn",
                "the two sides must answer the same conversation",
            )
        return self._compared(row, prompt, "", chosen, rejected)

    def _conversational(self, row: Mapping[str, Any]) -> ParsedRow | None:
        names = self._called("chosen"), self._called("rejected")
        before, chosen, rejected = chat.split_sides(self._get(row, "chosen"), self._get(row, "rejected"), names)
        value = self._optional(row, "prompt")
        if value is not None:
            if isinstance(value, str) and not value.lstrip().startswith("[{"):
                stated = [("user", check_text(value, self._called("prompt")))]
            else:
                stated = chat.read_messages(value, self._called("prompt"))
            if not before:
                before = stated
            elif stated not in (before[: len(stated)], before[-len(stated) :]):
                raise RowError(
                    "prompts differ",
                    "the prompt field is not what chosen begins with",
                    "keep the prompt in one place",
                )
        if not before:
            raise RowError("no prompt", "no message comes before the response", "add the prompt")
        system, prompt = chat.render_prompt(before, self.template, "the prompt")
        return self._compared(row, prompt, system, chosen, rejected)

    def _kwise(self, row: Mapping[str, Any]) -> ParsedRow:
        system, prompt = self._prompt(row)
        responses = check_list(self._get(row, "responses"), self._called("responses"))
        gold = check_list(self._get(row, "gold"), self._called("gold"))
        if not responses or len(responses) != len(gold):
            raise RowError(
                "wrong length",
                f"{len(responses)} responses and {len(gold)} gold values",
                "give each response one gold value",
            )
        found: dict[str, float] = {}
        for number, (text, value) in enumerate(zip(responses, gold), 1):
            response = chat.as_response(text, f"response {number}")
            score = check_number(value, f"gold {number}", "bad gold")
            if found.setdefault(response, score) != score:
                raise RowError(
                    "repeated response", f"response {number} repeats another one with another gold", "keep one of them"
                )
        weight = self._number(row, "weight", 1.0)
        if weight < 0:
            raise RowError("bad weight", f"{self._called('weight')} is below zero", "give 0 or more")
        texts, golds = list(found), list(found.values())
        if max(golds) - min(golds) == inf:
            raise RowError("bad gold", "gold values lie too far apart for a float", "put them on a smaller scale")
        pairs: list[Pair] = []
        equal = 0
        for i, one in enumerate(golds):
            for j in range(i + 1, len(golds)):
                gap = one - golds[j]
                if gap > 0:
                    pairs.append((i, j, weight, gap, 1.0))
                elif gap < 0:
                    pairs.append((j, i, weight, -gap, 1.0))
                else:
                    equal += 1
                    if self.ties == "keep":
                        pairs.append((i, j, weight, 0.0, 0.5))
        parsed = self._row(row, prompt, system, texts, golds, pairs)
        self.counts["repeated responses of a K-wise row merged"] += len(responses) - len(texts)
        if self.ties != "keep":
            self.counts["pairs of equal gold left out"] += equal
        return parsed

    def _unpaired(self, row: Mapping[str, Any]) -> ParsedRow:
        text = chat.as_response(self._get(row, "text"), self._called("text"))
        label = check_number(self._get(row, "label"), self._called("label"), "bad label", allow_bool=True)
        system, prompt = ("", "") if self._optional(row, "prompt") is None else self._prompt(row)
        return self._row(row, prompt, system, (text,), (label,))
