"""Which column of a file is which field: usual names are recognised, and what was recognised is written down.

A column with the field's own name always wins. Otherwise one column with a usual name for the field is taken and
reported; two of them are an error that names both, since a guess would be silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from embedrm.errors import DataError, InvalidInputError, unknown_name

FIELDS: dict[str, tuple[str, ...]] = {
    "prompt": ("question", "instruction", "input", "query", "user_prompt", "prompt_text"),
    "chosen": (
        "chosen_response",
        "response_chosen",
        "chosen_answer",
        "answer_chosen",
        "output_chosen",
        "better",
        "better_response",
        "preferred",
        "preferred_response",
    ),
    "rejected": (
        "rejected_response",
        "response_rejected",
        "rejected_answer",
        "answer_rejected",
        "output_rejected",
        "worse",
        "worse_response",
        "dispreferred",
        "dispreferred_response",
    ),
    "responses": ("completions", "candidates", "answers"),
    "gold": ("gold_scores", "scores", "ratings"),
    "text": ("response", "completion", "output"),
    "label": ("score", "rating"),
    "outcome": ("vote_share", "chosen_share"),
    "margin": ("score_margin",),
    "weight": ("sample_weight",),
    "gold_chosen": ("score_chosen", "chosen_score", "chosen_rating"),
    "gold_rejected": ("score_rejected", "rejected_score", "rejected_rating"),
    "system": ("system_prompt",),
    "context": ("passage",),
    "domain": ("category", "subset", "attribute"),
    "group": ("group_id",),
    "source": ("data_source",),
    "split": (),
}
"""The fields and, for each, the column names that are taken for it where the field's own name is absent."""

_FAMILIES = {"pair": ("chosen", "rejected"), "kwise": ("responses", "gold"), "unpaired": ("text", "label")}
_ABOUT_PROMPT = ("system", "context", "domain", "group", "source", "split")
_PAIR_EXTRAS = ("outcome", "margin", "weight", "gold_chosen", "gold_rejected", *_ABOUT_PROMPT)

FORMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "pair": (("prompt", "chosen", "rejected"), _PAIR_EXTRAS),
    "implicit": (("chosen", "rejected"), _PAIR_EXTRAS),
    "conversational": (("chosen", "rejected"), ("prompt", *_PAIR_EXTRAS)),
    "hh-rlhf": (("chosen", "rejected"), _PAIR_EXTRAS),
    "kwise": (("prompt", "responses", "gold"), ("weight", *_ABOUT_PROMPT)),
    "unpaired": (("text", "label"), ("prompt", *_ABOUT_PROMPT)),
}
"""Every form of a row: the fields it must have and those it may have."""


@dataclass(frozen=True)
class ColumnMap:
    """The columns of one file, by field.

    Attributes
    ----------
    by_field : dict of field to column
        Fields of the form that have a column, or may get one in a later row under their own name.
    renamed : dict of field to column
        Those whose column has another name, or was named by the caller: what a report prints.
    """

    by_field: dict[str, str]
    renamed: dict[str, str] = field(default_factory=dict)


def describe(renamed: Mapping[str, str]) -> str:
    """Return the mapping on one line: ``question -> prompt, better -> chosen``."""
    return ", ".join(f"{column} -> {name}" for name, column in renamed.items())


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def check_columns(columns: Mapping[str, str | None] | None) -> dict[str, str | None]:
    """Return the caller's mapping of field to column (None: no column), or raise InvalidInputError."""
    asked = dict(columns or {})
    for name, column in asked.items():
        if name not in FIELDS:
            raise unknown_name("field in columns", name, FIELDS)
        if column is not None and not isinstance(column, str):
            raise InvalidInputError(f"columns[{name!r}] must be a column name or None, got {type(column).__name__}.")
    used = [column for column in asked.values() if column is not None]
    twice = sorted({column for column in used if used.count(column) > 1})
    if twice:
        raise InvalidInputError(f"columns: the column {twice[0]!r} is given to two fields; give each its own.")
    return asked


class ColumnChooser:
    """Candidates for every field among the columns of a file, before the form is known.

    Parameters
    ----------
    names : iterable of str
        The columns.
    asked : mapping of field to column or None
        The caller's own choices; they are not questioned, but must exist.
    path, line : str, int or None
        The place of the columns, for messages.
    """

    def __init__(
        self, names: Iterable[str], asked: Mapping[str, str | None], path: str, line: int | None = None
    ) -> None:
        self.names = list(dict.fromkeys(names))
        self.asked = asked
        self.path, self.line = path, line
        for name, column in asked.items():
            if column is not None and column not in self.names:
                raise DataError(f"field {name!r}: {unknown_name('column', column, self.short())}", path, line)
        taken = {column for column in asked.values() if column is not None}
        self.candidates = {name: self._find(name, taken) for name in FIELDS}

    def short(self) -> list[str]:
        """Return the columns for a message: at most twelve, each cut to 40 characters, printable."""
        names = [ascii_name(name) for name in self.names[:12]]
        return names if len(self.names) <= 12 else [*names, f"... ({len(self.names)} in all)"]

    def _find(self, name: str, taken: set[str]) -> list[str]:
        if name in self.asked:
            column = self.asked[name]
            return [] if column is None else [column]
        free = [column for column in self.names if column not in taken]
        if name in free:
            return [name]
        same = [column for column in free if _plain(column) == name]
        return same or [column for column in free if _plain(column) in FIELDS[name]]

    def has(self, *fields: str) -> bool:
        """Whether every field has at least one candidate."""
        return all(self.candidates[name] for name in fields)

    def one(self, name: str) -> str | None:
        """Return the column of a field, None where there is none; two candidates raise DataError."""
        found = self.candidates[name]
        if len(found) > 1:
            raise DataError(
                f"the columns {' and '.join(ascii_name(column, quote=True) for column in found)} could both be the "
                f"{name}. Choose one with columns={{{name!r}: {ascii_name(found[0], quote=True)}}} "
                f"(--column {name}={ascii_name(found[0])}), or none with columns={{{name!r}: None}}.",
                self.path,
                self.line,
            )
        return found[0] if found else None

    def families(self) -> list[str]:
        """Return the families of forms whose fields are all present.

        The families are "pair" (with its kin), "kwise" and "unpaired". One whose fields are present under their own
        names shuts out those that would only fit by usual names.
        """
        present = [family for family, fields in _FAMILIES.items() if self.has(*fields)]
        exact = [family for family in present if all(self.candidates[name] == [name] for name in _FAMILIES[family])]
        return exact or present

    def columns(self) -> list[str]:
        """Return every column that some field could be."""
        wanted = {column for found in self.candidates.values() for column in found}
        return [column for column in self.names if column in wanted]

    def build(self, form: str) -> ColumnMap:
        """Return the columns for a form; a missing required field raises DataError."""
        required, optional = FORMS[form]
        by_field: dict[str, str] = {}
        renamed: dict[str, str] = {}
        for name in (*required, *optional):
            column = self.one(name)
            if column is None:
                if name in required:
                    raise self._missing(form, name)
                if name in self.asked or name in self.names:
                    continue
                column = name  # a later row may bring it under its own name
            elif column != name:
                renamed[name] = column
            by_field[name] = column
        return ColumnMap(by_field, renamed)

    def _missing(self, form: str, name: str) -> DataError:
        return DataError(
            f"form {form!r} needs the field {name!r}, and no column is called that or by a usual name for it "
            f"({', '.join(FIELDS[name][:4])}). Columns here: {', '.join(self.short()) or 'none'}. "
            f"Name it with columns={{{name!r}: ...}} (--column {name}=...).",
            self.path,
            self.line,
        )

    def no_form(self) -> DataError:
        """Build the error for columns that fit no form, or several."""
        families = self.families()
        if families:
            return DataError(
                f"the columns fit the forms {' and '.join(map(repr, families))}. Choose one with form=... (--form ...).",
                self.path,
                self.line,
            )
        forms = "prompt + chosen + rejected; chosen + rejected; prompt + responses + gold; text + label"
        return DataError(
            f"the columns fit no known form ({forms}). Columns here: {', '.join(self.short()) or 'none'}. "
            "Say which is which with columns={'prompt': ..., 'chosen': ...} (--column prompt=...).",
            self.path,
            self.line,
        )


def ascii_name(name: str, *, quote: bool = False) -> str:
    """Return a column name for a message: short and printable."""
    cut = name if len(name) <= 40 else name[:39] + "…"
    text = repr(cut) if quote else cut
    return text.encode("utf-8", "backslashreplace").decode()
