"""Counts and confounds of the seed data set, for its card."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import permutations
from statistics import median
from typing import Any

Row = Mapping[str, Any]
Pair = tuple[str, str, str, str, str]

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_LAST_TURN = re.compile(r"^.*\n\nHuman: ", re.DOTALL)


def comparisons(rows: Iterable[Row]) -> Iterator[Pair]:
    """Yield (domain, split, prompt, chosen, rejected), for every pair and every two responses of unequal gold."""
    for row in rows:
        head = row["domain"], row["split"], row["prompt"]
        if "chosen" in row:
            yield (*head, row["chosen"], row["rejected"])
        else:
            graded = list(zip(row["responses"], row["gold"]))
            for (better, high), (worse, low) in permutations(graded, 2):
                if high > low:
                    yield (*head, better, worse)


def texts(rows: Iterable[Row]) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """Return the prompts as {text: domain}, and the responses as {text: (domain, group)}."""
    prompts: dict[str, str] = {}
    responses: dict[str, tuple[str, str]] = {}
    for row in rows:
        prompts[row["prompt"]] = row["domain"]
        for text in (row["chosen"], row["rejected"]) if "chosen" in row else row["responses"]:
            responses[text] = row["domain"], row["group"]
    return prompts, responses


def length_only(pairs: Iterable[Pair]) -> float:
    """Return the accuracy of preferring the response with more words, equal lengths counting one half."""
    scores = []
    for *_, chosen, rejected in pairs:
        more = len(chosen.split()) - len(rejected.split())
        scores.append(0.5 if not more else float(more > 0))
    return sum(scores) / len(scores)


def shingles(text: str) -> set[tuple[str, ...]]:
    """Return the runs of three words of a text, in small letters; of a shorter text, the text itself."""
    words = [word.lower() for word in _WORD.findall(text)]
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def near_duplicates(items: Sequence[tuple[str, str]], threshold: float) -> float:
    """Return the share of texts that have a near duplicate with another owner.

    Parameters
    ----------
    items : sequence of (text, owner)
        Two texts of one owner (the responses to one prompt) are not compared.
    threshold : float
        Least Jaccard similarity of the sets of three-word runs. It is computed exactly, not estimated.
    """
    sets = [shingles(text) for text, _ in items]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    near: set[int] = set()
    for i, mine in enumerate(sets):
        shared = Counter(j for run in mine for j in holders[run])
        for j, common in shared.items():
            union = len(mine) + len(sets[j]) - common
            if common >= threshold * union and items[i][1] != items[j][1]:
                near |= {i, j}
        for run in mine:
            holders[run].append(i)
    return len(near) / len(items)


def _table(head: Sequence[str], body: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in body]
    return "\n".join(lines)


def _per_domain(domains: Sequence[str], things: Iterable[Any], of: Any) -> list[list[Any]]:
    sorted_out: dict[str, list[Any]] = {domain: [] for domain in domains}
    for thing in things:
        sorted_out[of(thing)].append(thing)
    parts = [sorted_out[domain] for domain in domains]
    return [*parts, [thing for part in parts for thing in part]]


def count_table(rows: Sequence[Row], domains: Sequence[str]) -> str:
    """Return prompts and pairs by domain and split, as a Markdown table."""
    pairs = _per_domain(domains, comparisons(rows), lambda pair: pair[0])
    prompts, responses = texts(rows)
    held = _per_domain(domains, responses.values(), lambda owner: owner[0])
    split = {row["prompt"]: row["split"] for row in rows}
    asked = _per_domain(domains, prompts.items(), lambda item: item[1])
    body = []
    for name, mine, answers, questions in zip([*domains, "all"], pairs, held, asked):
        cells: list[object] = [name, len(questions), len(answers), len(mine)]
        for part in ("train", "validation", "test"):
            n_prompts = sum(split[text] == part for text, _ in questions)
            cells.append(f"{n_prompts} / {sum(pair[1] == part for pair in mine)}")
        body.append(cells)
    return _table(["domain", "prompts", "responses", "pairs", "train", "validation", "test"], body)


def text_table(rows: Sequence[Row], domains: Sequence[str]) -> str:
    """Return lengths, vocabulary and near-duplicate rates by domain, as a Markdown table."""
    prompts, responses = texts(rows)
    asked = _per_domain(domains, prompts.items(), lambda item: item[1])
    answered = _per_domain(domains, responses.items(), lambda item: item[1][0])
    body = []
    for name, questions, answers in zip([*domains, "all"], asked, answered):
        tokens = [word.lower() for text, _ in (*questions, *answers) for word in _WORD.findall(text)]
        asks = [(_LAST_TURN.sub("", text), text) for text, _ in questions]
        replies = [(text, owner[1]) for text, owner in answers]
        body.append(
            [
                name,
                f"{median(len(text.split()) for text, _ in questions):g}",
                f"{median(len(text.split()) for text, _ in answers):g}",
                f"{len(tokens):,}",
                f"{len(set(tokens)):,}",
                f"{len(set(tokens)) / len(tokens):.3f}",
                *(f"{100 * near_duplicates(asks, threshold):.1f} %" for threshold in (0.7, 0.5)),
                *(f"{100 * near_duplicates(replies, threshold):.1f} %" for threshold in (0.7, 0.5)),
            ]
        )
    head = ["domain", "words a prompt", "words a response", "words in all", "vocabulary", "type-token ratio"]
    return _table(
        [*head, *(f"near-duplicate {what} at {at}" for what in ("prompts", "responses") for at in (0.7, 0.5))], body
    )


def length_table(rows: Sequence[Row], domains: Sequence[str]) -> str:
    """Return the accuracy of a length-only scorer by domain, as a Markdown table."""
    pairs = _per_domain(domains, comparisons(rows), lambda pair: pair[0])
    body = [
        [name, f"{length_only(mine):.3f}", f"{length_only(pair for pair in mine if pair[1] == 'test'):.3f}"]
        for name, mine in zip([*domains, "all"], pairs)
    ]
    return _table(["domain", "all splits", "test"], body)
