"""Rows into a comparison graph: each prompt once, each response of a prompt once, pairs as rows of responses."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from math import isnan, nan
from typing import Any

import numpy as np
import pandas as pd

from embedrm.datasets.covariates import measure
from embedrm.datasets.forms import ParsedRow
from embedrm.datasets.groups import prompt_group, unify_groups
from embedrm.datasets.tables import leaking_groups, text_column
from embedrm.datasets.validate import shown
from embedrm.errors import DataError

Place = tuple[str, int | None]
_SOURCES = "; "


class GraphBuilder:
    """Collects prompts, responses and pairs; :meth:`tables` hands over the three tables.

    Parameters
    ----------
    allow_group_leak : bool
        Accept a prompt or a stated group in two splits. Such a prompt is then one row per split.
    """

    def __init__(self, *, allow_group_leak: bool = False) -> None:
        self.allow_group_leak = allow_group_leak
        self.counts: Counter[str] = Counter()
        self.leak: dict[str, Any] | None = None
        self._prompt_row: dict[tuple[str, ...], int] = {}
        self._prompts: list[tuple[str, str, str, str]] = []  # prompt, system, context, domain
        self._groups: list[tuple[str, ...]] = []
        self._natural: list[str] = []
        self._sources: list[str] = []
        self._splits: list[str] = []
        self._places: list[Place] = []
        self._response_row: dict[tuple[int, str], int] = {}
        self._texts: list[str] = []
        self._prompt_of = array("q")
        self._gold = array("d")
        self._golds: dict[int, set[float]] = {}
        self._chosen, self._rejected = array("q"), array("q")
        self._weight, self._margin, self._outcome = array("d"), array("d"), array("d")

    def add(self, row: ParsedRow, place: Place) -> None:
        """Add one row of a file."""
        key = (row.prompt, row.system, row.context, row.domain)
        # A text without a prompt is its own group: nothing else says what must stay on one side of a split.
        natural = "" if any(key[:3]) else prompt_group("", row.texts[0])
        prompt = self.add_prompt(key, row.group, row.source, row.split, place, natural)
        rows = [self.add_response(prompt, text, gold) for text, gold in zip(row.texts, row.golds)]
        for chosen, rejected, weight, margin, outcome in row.pairs:
            self.add_pair(rows[chosen], rows[rejected], weight, margin, outcome)

    def add_prompt(
        self, key: tuple[str, str, str, str], group: str, source: str, split: str, place: Place, natural: str = ""
    ) -> int:
        """Return the row of a prompt (prompt, system, context, domain), new or known.

        ``natural`` is the group of an empty prompt, and part of its identity.
        """
        identity: tuple[str, ...] = (*key, group or natural) if natural else key
        row = self._prompt_row.get(identity)
        if row is not None and split and self._splits[row] not in ("", split):
            # The same prompt in another split: kept apart here, and judged once all rows are known.
            identity = (*identity, "", split)
            row = self._prompt_row.get(identity)
        if row is None:
            row = self._prompt_row[identity] = len(self._prompts)
            self._prompts.append(key)
            self._groups.append((group,) if group else ())
            self._natural.append(natural)
            self._sources.append(source)
            self._splits.append(split)
            self._places.append(place)
            return row
        if split and not self._splits[row]:
            self._splits[row] = split
        if group and group not in self._groups[row]:
            self._groups[row] += (group,)
        if source and source != self._sources[row]:
            names = {*source.split(_SOURCES), *self._sources[row].split(_SOURCES)} - {""}
            self._sources[row] = _SOURCES.join(sorted(names))
        return row

    def add_response(self, prompt: int, text: str, gold: float = nan) -> int:
        """Return the row of a response of a prompt, new or known; its gold joins what is known of it."""
        key = (prompt, text)
        row = self._response_row.get(key)
        if row is None:
            row = self._response_row[key] = len(self._texts)
            self._texts.append(text)
            self._prompt_of.append(prompt)
            self._gold.append(gold)
        elif not isnan(gold):
            known = self._gold[row]
            if isnan(known):
                self._gold[row] = gold
            elif known != gold:
                self._golds.setdefault(row, {known}).add(gold)
        return row

    def add_pair(self, chosen: int, rejected: int, weight: float, margin: float, outcome: float) -> None:
        """Add one comparison of two response rows."""
        self._chosen.append(chosen)
        self._rejected.append(rejected)
        self._weight.append(weight)
        self._margin.append(margin)
        self._outcome.append(outcome)

    @property
    def n_responses(self) -> int:
        """Distinct responses so far."""
        return len(self._texts)

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Return the prompts, responses and pairs tables.

        Raises
        ------
        DataError
            Where a prompt or a stated group is in two splits and that is not allowed; it names the places.
        """
        natural = [
            group or prompt_group(prompt, context)
            for group, (prompt, _, context, _) in zip(self._natural, self._prompts)
        ]
        groups, merged = unify_groups(self._groups, natural)
        self.counts["groups merged because their normalised prompts are equal"] += merged
        self._check_leak(groups)
        for row, values in self._golds.items():
            self._gold[row] = sum(value / len(values) for value in sorted(values))
        self.counts["responses whose different golds were averaged"] += len(self._golds)
        column: Callable[[int], pd.Series] = lambda i: text_column([key[i] for key in self._prompts])  # noqa: E731
        prompts = pd.DataFrame(
            {
                "prompt": column(0),
                "domain": column(3),
                "group": text_column(groups),
                "system": column(1),
                "context": column(2),
                "source": text_column(self._sources),
                "split": text_column(self._splits),
            }
        )
        responses = pd.DataFrame(
            {
                "response": text_column(self._texts),
                "prompt_of": np.array(self._prompt_of, dtype=np.int64),
                "gold": np.array(self._gold, dtype=np.float64),
            }
        )
        pairs = pd.DataFrame(
            {
                "chosen": np.array(self._chosen, dtype=np.int64),
                "rejected": np.array(self._rejected, dtype=np.int64),
                "weight": np.array(self._weight, dtype=np.float64),
                "margin": np.array(self._margin, dtype=np.float64),
                "outcome": np.array(self._outcome, dtype=np.float64),
            }
        )
        return prompts, pd.concat([responses, measure(self._texts)], axis=1), pairs

    def _check_leak(self, groups: list[str]) -> None:
        leaks = leaking_groups(groups, self._splits)
        if not leaks:
            return
        exact = self._told_twice(groups, leaks)

        def told(group: str) -> str:
            sides = leaks[group]
            row = next(iter(sides.values()))
            text = self._prompts[row][0] or self._texts[self._prompt_of.index(row)]
            places = [f"{split} ({_told(self._places[row])})" for split, row in sides.items()]
            return f"{shown(text)} is in {' and '.join(places)}"

        if not exact or self.allow_group_leak:
            # The same question in other words is common even in published splits, and is told rather than refused.
            examples = [told(group) for group in sorted(leaks, key=lambda group: group not in exact)[:5]]
            self.leak = {"groups": len(leaks), "exact": len(exact), "examples": examples}
            return
        path, line = self._places[list(leaks[next(iter(exact))].values())[1]]
        raise DataError(
            f"{len(exact)} prompt groups are in more than one split, so that a model would be tested on prompts it "
            f"was trained on: {'; '.join(told(group) for group in list(exact)[:3])}. Give every prompt one split, or "
            "leave the column out (columns={'split': None}) and call with_split(); if it is the names of groups that "
            "clash, leave those out (columns={'group': None}); or accept it with allow_group_leak=True.",
            path,
            line,
        )

    def _told_twice(self, groups: list[str], leaks: Mapping[str, object]) -> dict[str, None]:
        """Return those leaking groups whose name or very text the rows put in two splits."""
        texts: dict[int, set[str]] = {}
        for owner, text in zip(self._prompt_of, self._texts):
            if self._natural[owner] and groups[owner] in leaks:
                texts.setdefault(owner, set()).add(text)
        exact: dict[str, None] = {}
        split_of: dict[tuple[str, ...], str] = {}
        for row, (group, split) in enumerate(zip(groups, self._splits)):
            if not split or group not in leaks:
                continue
            prompt, _, context, _ = self._prompts[row]
            said: list[tuple[str, ...]] = [("group", name) for name in self._groups[row]]
            said += [("text", text) for text in texts.get(row, ())] or [("prompt", prompt, context)]
            if any(split_of.setdefault(item, split) != split for item in said):
                exact[group] = None
        return exact


def _told(place: Place) -> str:
    return f"{place[0]}:{place[1]}" if place[1] is not None else place[0]
