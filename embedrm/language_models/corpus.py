"""The bundled text that small language models learn: two halves that share no text group, and no test text in either."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedrm.datasets.bundled import load_bundled, load_bundled_table
from embedrm.datasets.template import PLAIN
from embedrm.errors import unknown_name

HALVES = ("A", "B")
"""``A`` is for models that guide or are guided, ``B`` for those that judge them."""

ATTRIBUTES = "attributes"
GENERATED = "attribute_texts"
GENERATED_TEXTS = {"train": 45_000, "validation": 1_000}
"""How many attribute texts of the grammar a half has, beside those written by hand."""

# Under this one, each half has its share of every topic of the attributes, reviews of films with like beginnings among them.
_SALT = "1"


def half_of(groups: Iterable[str]) -> npt.NDArray[Any]:
    """Return the half of each text group, "A" or "B": a hash of its name, so that it never changes.

    Parameters
    ----------
    groups : iterable of str, length n
        Text groups, such as the column ``group`` of the bundled tables.

    Returns
    -------
    ndarray of shape (n,), str
    """
    bits = [hashlib.blake2b(f"{_SALT}{group}".encode(), digest_size=8).digest()[0] & 1 for group in groups]
    return np.array(HALVES)[np.array(bits, dtype=np.intp)]


@dataclass(frozen=True)
class Document:
    """A text, and what stands before it.

    Attributes
    ----------
    prompt : str
        Read before the text, its separator included; empty for a text that stands alone.
    text : str
    source : str
        The domain; "attributes" of texts written by hand, "attribute_texts" of those of the grammar.
    group : str
        Its text group.
    """

    prompt: str
    text: str
    source: str
    group: str


def bundled_documents(half: str, split: str = "train") -> list[Document]:
    """Return the documents of one half of the bundled text.

    Of the preference data, every response once: the best answer to a prompt after its prompt, the others alone. Of the
    attributes, every text alone, and after them texts of :func:`~embedrm.datasets.attribute_texts.write_attribute_texts`,
    whose halves share no text, though they share the clauses that texts are made of.

    Parameters
    ----------
    half : {"A", "B"}
    split : {"train", "validation"}
        Test texts are not given: what is learnt from them could not be judged on them.

    Raises
    ------
    InvalidInputError
        Another half or split.
    """
    for kind, name, known in (("half of the bundled text", half, HALVES), ("split", split, ("train", "validation"))):
        if name not in known:
            raise unknown_name(kind, name, known)
    from embedrm.datasets.attribute_texts import write_attribute_texts

    generated = write_attribute_texts(GENERATED_TEXTS[split], half=half, split=split)
    found = [Document("", text, GENERATED, group) for text, group in zip(generated["text"], generated["group"])]
    return [*_written_documents(half, split), *found]


def corpus_identity(half: str) -> dict[str, Any]:
    """Return what decides the training documents of a half, as JSON values; the grammar is named, not run."""
    from embedrm.datasets.attribute_texts import grammar_digest

    return {
        "written": corpus_digest(_written_documents(half, "train")),
        "grammar": grammar_digest(),
        "generated": GENERATED_TEXTS["train"],
    }


def _written_documents(half: str, split: str) -> list[Document]:
    data = load_bundled().split(split).compact()
    prompts, rows = data.prompts, data.responses["prompt_of"].to_numpy()
    ours = half_of(prompts["group"])[rows] == half
    before, texts = data.prompt_texts(), data.response_texts()
    domains, groups = prompts["domain"].to_numpy()[rows], prompts["group"].to_numpy()[rows]
    golds = data.responses["gold"].to_numpy()
    best: dict[int, int] = {}
    for row in np.flatnonzero(ours).tolist():
        known_best = best.setdefault(int(rows[row]), row)
        if golds[row] > golds[known_best]:
            best[int(rows[row])] = row
    found = [
        Document(
            before[rows[row]] + PLAIN.separator if best[int(rows[row])] == row else "",
            texts[row],
            str(domains[row]),
            str(groups[row]),
        )
        for row in np.flatnonzero(ours).tolist()
    ]
    table = load_bundled_table(ATTRIBUTES)
    table = table[(table["split"] == split).to_numpy() & (half_of(table["group"]) == half)]
    found += [Document("", text, ATTRIBUTES, group) for text, group in zip(table["text"], table["group"])]
    return found


def corpus_digest(documents: Sequence[Document]) -> str:
    """Return 32 hex digits that name some documents, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for one in documents:
        digest.update(json.dumps([one.prompt, one.text, one.source]).encode("ascii") + b"\n")
    return digest.hexdigest()
