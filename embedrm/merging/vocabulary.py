"""Vocabularies of several encoders: which tokens they share, and one vocabulary for the merged encoder."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError

Ids = NDArray[np.int64]
# What a tokenizer file holds beside the tokens, and what of it no vector depends on.
_TOKENS = ("added_tokens",)
_FREE = ("version", "truncation", "padding", "decoder")
# Models whose tokens are found by longest match or by the whole word: a token more changes no other token's meaning.
_APPENDABLE = ("WordPiece", "WordLevel")
_WHY_NOT = {
    "BPE": "a byte-pair token is reached by merges in an order of their own, and two orders have no common one",
    "Unigram": "its tokens carry log-probabilities of one model, which two models do not share",
}


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer's JSON description says.

    Attributes
    ----------
    ids : dict of str to int
        All tokens, added ones included.
    added : dict of str to dict
        Entries of added tokens (special ones among them), by token.
    kind : str
        Such as ``"WordPiece"``.
    settings : dict
        What else decides how a text is tokenised: normaliser, pre-tokeniser, post-processor, the model's settings.
    description : dict
        The whole, as read.
    """

    ids: dict[str, int]
    added: dict[str, dict[str, Any]]
    kind: str
    settings: dict[str, Any]
    description: dict[str, Any]

    @classmethod
    def of(cls, description: dict[str, Any]) -> Vocabulary:
        """Read a tokenizer's description (``tokenizer.json``)."""
        model = description.get("model", {})
        raw = model.get("vocab", {})
        # a Unigram vocabulary is a list of (token, score), whose place is its id
        ids = {piece[0]: i for i, piece in enumerate(raw)} if isinstance(raw, list) else dict(raw)
        added = {entry["content"]: entry for entry in description.get("added_tokens") or []}
        ids.update({token: entry["id"] for token, entry in added.items()})
        settings = {k: v for k, v in description.items() if k not in (*_TOKENS, *_FREE, "model")}
        settings["model"] = {k: v for k, v in model.items() if k not in ("vocab", "merges")}
        post = copy.deepcopy(settings.get("post_processor"))
        settings["post_processor"] = _without_ids(post)
        return cls(ids, added, str(model.get("type")), settings, description)

    def differing_settings(self, other: Vocabulary) -> list[str]:
        """Names of settings in which two tokenizers differ."""
        keys = {*self.settings, *other.settings}
        return sorted(key for key in keys if self.settings.get(key) != other.settings.get(key))

    def why_not_appendable(self, other: Vocabulary) -> str | None:
        """Say why the tokens that only ``other`` has cannot be appended here; None where they can."""
        mine, theirs = self.description["model"], other.description["model"]
        plain = [token for token in other.ids if token not in self.ids and token not in other.added]
        if self.kind in _APPENDABLE and self.kind == other.kind:
            return None
        if plain:
            why = _WHY_NOT.get(self.kind, "it is not known how such a tokenizer finds a token")
            return f"the tokenizer is {self.kind}, and {why}"
        if mine.get("merges") != theirs.get("merges") or (
            isinstance(mine.get("vocab"), list) and mine["vocab"] != theirs.get("vocab")
        ):
            return f"the tokenizers are {self.kind} with other merges or scores, so equal tokens stand for other texts"
        return None

    def appended(self, others: Sequence[Vocabulary]) -> Vocabulary:
        """Return this vocabulary with all tokens that only others have, in their order, at new ids."""
        description = copy.deepcopy(self.description)
        known = dict(self.ids)
        following = max(known.values(), default=-1) + 1
        for other in others:
            for token in sorted(other.ids, key=other.ids.__getitem__):
                if token in known:
                    continue
                known[token] = following
                if token in other.added:
                    description["added_tokens"].append({**other.added[token], "id": following})
                # a token that is in the words too stays among them: it can then be a part of a word
                if token in other.description["model"].get("vocab", {}) and self.kind in _APPENDABLE:
                    description["model"]["vocab"][token] = following
                following += 1
        return Vocabulary.of(description)


def _without_ids(value: Any) -> Any:
    """Special tokens by name alone: their ids are the vocabulary's business."""
    if isinstance(value, dict):
        return {k: _without_ids(v) for k, v in value.items() if not (k == "ids" and "tokens" in value)}
    if isinstance(value, list):
        # BertProcessing and RobertaProcessing name a token as [token, id]
        if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int):
            return [value[0]]
        return [_without_ids(v) for v in value]
    return value


@dataclass(frozen=True)
class TokenGroup:
    """Tokens that the same models have.

    Attributes
    ----------
    holders : tuple of int
        Which models.
    rows : ndarray of shape (n,)
        Their rows in the merged table.
    in_model : dict of int to ndarray of shape (n,)
        Their rows in each holder's table.
    tokens : list of str
    """

    holders: tuple[int, ...]
    rows: Ids
    in_model: dict[int, Ids]
    tokens: list[str]


@dataclass(frozen=True)
class VocabularyPlan:
    """The merged vocabulary, and where each of its rows comes from.

    Attributes
    ----------
    vocabulary : Vocabulary
        Of the merged encoder.
    groups : list of TokenGroup
        By which models have the tokens; those of all come first.
    n_rows : int
        Rows of the merged table; those without a token are the first model's.
    grown : int
        How many tokens were appended to the first model's.
    """

    vocabulary: Vocabulary
    groups: list[TokenGroup]
    n_rows: int
    grown: int


def plan_vocabulary(
    vocabularies: Mapping[int, Vocabulary], n_rows: Mapping[int, int], names: Sequence[str], who: str
) -> VocabularyPlan:
    """Join vocabularies: the first model's, and then what only others have.

    Parameters
    ----------
    vocabularies : mapping of int to Vocabulary
        By the number of the model; model 0 is there.
    n_rows : mapping of int to int
        Rows of each model's token table.
    names : sequence of str
    who : str

    Raises
    ------
    InvalidInputError
        A token without a row.
    """
    for i, vocabulary in vocabularies.items():
        highest = max(vocabulary.ids.values(), default=-1)
        if highest >= n_rows[i]:
            raise InvalidInputError(
                f"{who}: the tokenizer of {names[i]} has a token with id {highest}, its token table {n_rows[i]} rows; "
                "the model and its tokenizer do not belong together"
            )
    first = vocabularies[0]
    merged = first.appended([v for i, v in vocabularies.items() if i != 0])
    by_holders: dict[tuple[int, ...], list[str]] = {}
    for token in merged.ids:
        holders = tuple(i for i, v in vocabularies.items() if token in v.ids)
        by_holders.setdefault(holders, []).append(token)
    groups = []
    for holders in sorted(by_holders, key=lambda held: (-len(held), held)):
        tokens = sorted(by_holders[holders], key=merged.ids.__getitem__)
        rows = {i: np.array([vocabularies[i].ids[t] for t in tokens], dtype=np.int64) for i in holders}
        groups.append(TokenGroup(holders, np.array([merged.ids[t] for t in tokens], dtype=np.int64), rows, tokens))
    highest = max(merged.ids.values(), default=-1)
    return VocabularyPlan(merged, groups, max(n_rows[0], highest + 1), len(merged.ids) - len(first.ids))


def same_ids(vocabularies: Sequence[Vocabulary]) -> bool:
    """Whether all have the same tokens at the same ids."""
    return all(v.ids == vocabularies[0].ids for v in vocabularies[1:])
