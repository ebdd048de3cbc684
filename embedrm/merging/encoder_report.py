"""Whether encoders can be merged: plain facts of each, and every difference with what to do about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedrm.encoders.files import TRANSFORMER
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.merging.compatibility import CompatibilityReport, Difference
from embedrm.merging.encoder_inputs import MergeInput, open_inputs
from embedrm.merging.rotation import agreement
from embedrm.merging.vocabulary import Vocabulary
from embedrm.tuning.saving import HEAD

ROTATIONS = ("none", "procrustes")
# Differences that may be accepted, and what is kept then.
ACCEPTABLE = {
    "base": "weights that did not come from one start are merged all the same",
    "pooling": "the first model's pooling is kept",
    "normalisation": "the first model's normalisation is kept",
    "max-length": "the first model's limit is kept",
    "prompts": "the first model's prompts are kept",
    "type": "arithmetic is in the wider type, the first model's type is written",
    "basis": "tables in different bases are merged as they are",
}
_SHOWN = 5


def compare_encoders(
    models: Sequence[str | Path],
    names: Sequence[str] | None = None,
    *,
    base: str | Path | None = None,
    accept: Sequence[str] = (),
    rotation: str = "none",
) -> CompatibilityReport:
    """Compare encoders, and the base that they came from, with the first of them; nothing is merged or changed.

    Parameters
    ----------
    models : sequence of str or path
        Folders of sentence-transformers or Hugging Face encoders, tuned ones among them, or names.
    names : sequence of str, optional
    base : str or path, optional
        For methods on deltas.
    accept : sequence of str
        Differences that shall not forbid merging: ``base, pooling, normalisation, max-length, prompts, type, basis``
        (:data:`ACCEPTABLE`). No other difference can be accepted.
    rotation : {"none", "procrustes"}
        What is to be done to static tables in different bases.

    Raises
    ------
    ModelError
        A folder that is no model. Anything else is a difference.
    """
    found, origin = open_inputs(models, names, base, "compare_encoders")
    return compare_inputs(found, origin, accept, rotation)


def compare_inputs(
    inputs: Sequence[MergeInput], base: MergeInput | None, accept: Sequence[str], rotation: str
) -> CompatibilityReport:
    """Compare opened encoders; see :func:`compare_encoders`."""
    for name in [accept] if isinstance(accept, str) else accept:
        if name not in ACCEPTABLE:
            raise unknown_name("difference that can be accepted", name, ACCEPTABLE)
    if rotation not in ROTATIONS:
        raise unknown_name("rotation", rotation, ROTATIONS)
    everyone = [*inputs, *([] if base is None else [base])]
    comparison = _Comparison(inputs[0], [accept] if isinstance(accept, str) else list(accept), rotation)
    for one in everyone:
        comparison.numbers(one)
    for one in everyone[1:]:
        comparison.compare(one)
    comparison.origins(inputs, base)
    return CompatibilityReport([one.facts() for one in everyone], comparison.found)


class _Comparison:
    def __init__(self, first: MergeInput, accept: Sequence[str], rotation: str) -> None:
        self.first, self.accept, self.rotation = first, accept, rotation
        self.found: list[Difference] = []

    def tell(self, what: str, other: MergeInput, a: Any, b: Any, fatal: bool, remedy: str, name: str = "") -> None:
        """Note a difference; ``name`` is that under which it can be accepted."""
        if name:
            fatal = fatal and name not in self.accept
            remedy += f", or accept={name!r}: {ACCEPTABLE[name]}" if fatal else f"; accepted, {ACCEPTABLE[name]}"
        self.found.append(Difference(what, self.first.name, other.name, str(a), str(b), fatal, remedy))

    def compare(self, other: MergeInput) -> None:
        """Compare one with the first."""
        a, b = self.first, other
        if a.files.kind != b.files.kind:
            self.tell("kind", b, a.files.kind, b.files.kind, True, "merge encoders of one kind")
            return
        one, two = a.files.config.get("model_type"), b.files.config.get("model_type")
        # a static table is a table, whichever library's name is beside it
        if one != two and a.files.kind == TRANSFORMER:
            self.tell("architecture", b, one, two, True, "merge encoders of one architecture and base")
            return
        settings = a.kind.settings([a.files, b.files])
        keys = sorted(k for k in {*settings[0], *settings[1]} if settings[0].get(k) != settings[1].get(k))
        if keys:
            said = [", ".join(f"{k} {s.get(k)}" for k in keys[:_SHOWN]) for s in settings]
            do = "the same numbers would mean other functions; merge encoders of one architecture and size"
            self.tell("configuration", b, said[0], said[1], True, do)
        # of what follows from another configuration, one example is enough
        self.tensors(b, 1 if keys else _SHOWN)
        self.tokens(b)
        self.modules(b)

    def tensors(self, b: MergeInput, shown: int) -> None:
        """Names, shapes and types."""
        a = self.first
        ours, theirs = a.tensors.entries, b.tensors.entries
        table = a.kind.table(ours)
        for mine, other, holder in ((ours, theirs, a), (theirs, ours, b)):
            only = sorted(set(mine) - set(other))
            unread = [name for name in only if is_unread(name, mine[name][0])]
            lost = [name for name in only if name not in unread]
            kept = "it is kept" if holder is a else "it is left out"
            if unread:
                self.tell("tensors no vector depends on", b, *_sides(unread, holder is a, shown), False, kept)
            if lost:
                do = "no tensor is skipped; merge encoders of one architecture"
                self.tell("names of the tensors", b, *_sides(lost, holder is a, shown), True, do)
        both = [name for name in ours if name in theirs]
        # another number of tokens is another vocabulary, which has its own rules
        wrong = [
            n for n in both if ours[n][1] != theirs[n][1] and not (n == table and ours[n][1][1:] == theirs[n][1][1:])
        ]
        if wrong:
            said = [", ".join(f"{n} {list(e[n][1])}" for n in wrong[:shown]) for e in (ours, theirs)]
            self.tell(
                "shapes", b, said[0], said[1], True, f"{len(wrong)} tensors cannot be added; merge encoders of one size"
            )
        if table in both and ours[table][1][:1] != theirs[table][1][:1]:
            n, m = (e[table][1][0] for e in (ours, theirs))
            self.tell(
                "rows of the token table", b, n, m, False, "rows are matched by token, the others are the first's"
            )
        types = [n for n in both if ours[n][0] != theirs[n][0]]
        if types:
            said = [", ".join(sorted({e[n][0] for n in types})) for e in (ours, theirs)]
            self.tell("type of the numbers", b, said[0], said[1], True, "save both in one type", "type")

    def tokens(self, b: MergeInput) -> None:
        """Tokenizers: their settings, special tokens, and tokens."""
        a = self.first
        one_file = a.files.tokenizer_digest() == b.files.tokenizer_digest()
        if not one_file or _table_rows(a) != _table_rows(b):
            self.rows(a)
            self.rows(b)
        if one_file:
            self.basis(b)
            return
        mine, theirs = a.vocabulary, b.vocabulary
        other = mine.differing_settings(theirs)
        if other:
            do = "equal tokens would stand for other texts; merge encoders with one kind of tokenizer"
            said = [", ".join(f"{k} {_short(v.settings.get(k))}" for k in other) for v in (mine, theirs)]
            self.tell("tokenizer", b, said[0], said[1], True, do)
        flags = [t for t in mine.added if t in theirs.added and _flags(mine.added[t]) != _flags(theirs.added[t])]
        flags += [t for t in {*mine.added} ^ {*theirs.added} if t in mine.ids and t in theirs.ids]
        if flags:
            said = [_some([t for t in flags if t in v.added]) or "none" for v in (mine, theirs)]
            self.tell("special tokens", b, said[0], said[1], True, "a token must be special in both, or in neither")
        only = [[t for t in x.ids if t not in y.ids] for x, y in ((mine, theirs), (theirs, mine))]
        moved = sum(theirs.ids.get(t, i) != i for t, i in mine.ids.items())
        if not any(only) and not moved:
            self.basis(b)
            return
        table = a.kind.table(a.tensors.entries)
        why = None if not other else "their settings differ"
        if table is None or b.kind.table(b.tensors.entries) != table:
            why = "the token table of this architecture is not known by name, so rows cannot be told apart"
        elif why is None:
            why = mine.why_not_appendable(theirs)
        do = "tokens of one alone are kept from it" if why is None else f"they cannot be joined: {why}"
        said = [f"{len(v.ids):,} tokens" + (f", alone {_some(o)}" if o else "") for v, o in zip((mine, theirs), only)]
        self.tell("vocabulary", b, said[0], said[1] + (f", {moved:,} ids moved" if moved else ""), why is not None, do)
        self.basis(b)

    def rows(self, one: MergeInput) -> None:
        """Tokens that have no row in their own model's table."""
        n_rows, highest = _table_rows(one), max(one.vocabulary.ids.values(), default=-1)
        if n_rows is not None and highest >= n_rows:
            do = "the model and its tokenizer do not belong together; save both again"
            told = (f"ids up to {highest:,}", f"{n_rows:,} rows")
            found = Difference("tokens without a row", f"tokenizer of {one.name}", "its token table", *told, True, do)
            # the first model is met once for each of the others
            self.found += [] if found in self.found else [found]

    def modules(self, b: MergeInput) -> None:
        """Pooling and what follows, limits, prompts."""
        a = self.first
        same = "give both the same modules"
        if a.pooling != b.pooling:
            self.tell("pooling", b, json.dumps(a.pooling), json.dumps(b.pooling), True, same, "pooling")
        if a.files.normalises != b.files.normalises:
            self.tell("normalisation", b, a.files.normalises, b.files.normalises, True, same, "normalisation")
        if a.files.own_limit != b.files.own_limit:
            self.tell(
                "max length", b, a.files.own_limit, b.files.own_limit, True, "give both the same limit", "max-length"
            )
        prompts = [
            json.dumps([f.settings.get("prompts") or {}, f.prompt], sort_keys=True, ensure_ascii=False)
            for f in (a.files, b.files)
        ]
        # an empty prompt is none, whichever version wrote it
        empty = [all(not v for v in (f.settings.get("prompts") or {}).values()) for f in (a.files, b.files)]
        if prompts[0] != prompts[1] and not all(empty):
            self.tell(
                "prompts", b, _short(prompts[0]), _short(prompts[1]), True, "give both the same prompts", "prompts"
            )
        if (b.files.folder / HEAD).is_file() and not (a.files.folder / HEAD).is_file():
            do = "the merged encoder has the first model's, and so none; name the general reward model first"
            self.tell("reward head", b, "none", "one", False, do)

    def basis(self, b: MergeInput) -> None:
        """Whether static tables are in one basis, by the tokens that they share."""
        a = self.first
        if a.files.kind == TRANSFORMER:
            if self.rotation != "none":
                raise InvalidInputError(
                    f"rotation={self.rotation!r} is for static token tables; the layers of a transformer cannot be rotated"
                )
            return
        name = a.kind.table(a.tensors.entries) or ""
        if a.tensors.entries[name][1][1:] != b.tensors.entries[name][1][1:]:
            return
        rows = shared_rows(a.vocabulary, b.vocabulary)
        now, best = agreement(a.tensors[name], b.tensors[name], *rows)
        if now >= 0.5 * best or not len(rows[0]):
            return
        said = (f"{now:.3f} as they are", f"{best:.3f} after a rotation")
        if self.rotation != "none":
            self.tell("basis", b, *said, False, "the second is rotated to the first")
        else:
            do = "tables reduced apart lie in different bases; rotation='procrustes' rotates to the first"
            self.tell("basis (cosine over shared tokens)", b, *said, True, do, "basis")

    def origins(self, inputs: Sequence[MergeInput], base: MergeInput | None) -> None:
        """Whether all came from one base."""
        a = self.first
        if base is not None:
            for one in inputs:
                if one.origin is not None and base.digest not in (one.origin, one.digest):
                    self.found.append(
                        _origin(
                            one,
                            base,
                            one.origin,
                            base.digest,
                            "base" not in self.accept,
                            "give the base it was tuned from",
                        )
                    )
                elif one.origin is None and one.digest != base.digest:
                    do = "nothing says what it came from; see that this is its base"
                    self.found.append(_origin(one, base, "unknown", base.digest, False, do))
            return
        for b in inputs[1:]:
            if a.digest == b.digest or (a.origin is not None and a.origin == b.origin):
                continue
            if a.digest == b.origin or b.digest == a.origin:
                one = b if b.digest == a.origin else a
                self.tell(
                    "base",
                    b,
                    a.origin or a.digest,
                    b.origin or b.digest,
                    False,
                    f"{one.name} is the other's unmoved base",
                )
            elif a.origin is None or b.origin is None:
                do = "nothing says what they came from; merging means little without one base"
                self.tell("base", b, a.origin or "unknown", b.origin or "unknown", False, do)
            else:
                self.tell("base", b, a.origin, b.origin, True, "tune both from one base", "base")

    def numbers(self, one: MergeInput) -> None:
        """Weights that are not finite."""
        bad = {}
        for name, (_, _) in one.tensors.entries.items():
            array = one.tensors[name]
            if array.dtype.kind == "f":
                # a sum is finite where all numbers are, and needs no memory; infinities are looked for only where it is not
                with np.errstate(over="ignore", invalid="ignore"):
                    total = np.add.reduce(array, axis=None, dtype=np.float64)
                n_bad = 0 if np.isfinite(total) else int((~np.isfinite(array)).sum())
                if n_bad:
                    bad[name] = f"{n_bad:,} of {array.size:,} numbers of {name}"
        if bad:
            do = "that model is damaged, or its training diverged; save or train it again"
            said = ", ".join([*bad.values()][:_SHOWN])
            self.found.append(Difference("NaN or infinite weights", "wanted", one.name, "none", said, True, do))


def _origin(one: MergeInput, base: MergeInput, a: str, b: str, fatal: bool, remedy: str) -> Difference:
    if fatal:
        remedy += f", or accept='base': {ACCEPTABLE['base']}"
    return Difference("base", one.name, base.name, a, b, fatal, remedy)


def is_unread(name: str, kind: str) -> bool:
    """Whether no vector depends on a tensor: counters, which libraries make themselves, and BERT's pooler."""
    return "/" not in name and (kind in ("I64", "I32") or name.startswith("pooler.") or ".pooler." in name)


def shared_rows(a: Vocabulary, b: Vocabulary) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Rows of the tokens that both have."""
    pairs = [(i, b.ids[token]) for token, i in a.ids.items() if token in b.ids]
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _table_rows(one: MergeInput) -> int | None:
    entries = one.tensors.entries
    table = one.kind.table(entries)
    return None if table is None else entries[table][1][0]


def _sides(names: list[str], first: bool, shown: int) -> tuple[str, str]:
    return (_some(names, shown), "none") if first else ("none", _some(names, shown))


def _some(names: Sequence[str], shown: int = _SHOWN) -> str:
    rest = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(map(repr, names[:shown])) + rest


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _flags(entry: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in entry.items() if k != "id"}
