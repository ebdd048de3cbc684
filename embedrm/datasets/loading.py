"""From files, records and hub data sets to a PreferenceDataset: which form, which columns, every row checked."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from embedrm.datasets import messages as chat
from embedrm.datasets.columns import FORMS, ColumnChooser, check_columns
from embedrm.datasets.forms import RowParser
from embedrm.datasets.graph import GraphBuilder
from embedrm.datasets.groups import SPLITS, split_name
from embedrm.datasets.preference import PreferenceDataset
from embedrm.datasets.readers import Records, Row, RowSource, open_source
from embedrm.datasets.template import PLAIN, Template
from embedrm.datasets.validate import ErrorLog, RowError, absent, ascii_safe
from embedrm.errors import DataError, InvalidInputError, unknown_name
from embedrm.progress import Progress, silent

_SAMPLE = 1000
"""Rows at the head of a file from which its columns (where the format declares none) and its form are told."""


@dataclass(frozen=True)
class _Options:
    """The options of one call, checked."""

    form: str = "auto"
    columns: Mapping[str, str | None] | None = None
    domain: str | None = None
    split: str | None = None
    source: str | None = None
    on_error: str = "raise"
    ties: str = "auto"
    max_errors_shown: int = 20
    allow_group_leak: bool = False
    template: Template = PLAIN
    progress: Progress = silent

    def __post_init__(self) -> None:
        for kind, choice, known in (
            ("form", self.form, ("auto", *FORMS)),
            ("on_error", self.on_error, ("raise", "skip")),
            ("ties", self.ties, ("auto", "keep", "drop")),
        ):
            if choice not in known:
                raise unknown_name(kind, choice, known)
        if self.split is not None and split_name(str(self.split)) != self.split:
            raise unknown_name("split", self.split, SPLITS)
        for name, value in (("domain", self.domain), ("source", self.source)):
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise InvalidInputError(f"{name} must be a name or None, got {value!r}.")
        if isinstance(self.max_errors_shown, bool) or not isinstance(self.max_errors_shown, int):
            raise InvalidInputError("max_errors_shown must be an int.")
        asked = check_columns(self.columns)
        for name, value in self.given().items():
            if asked.get(name) is not None:
                raise InvalidInputError(
                    f"{name}={value!r} and columns={{{name!r}: {asked[name]!r}}} contradict each other; give one."
                )
            asked[name] = None
        object.__setattr__(self, "columns", asked)

    def given(self) -> dict[str, str]:
        """Return what is given for all rows."""
        values = {"domain": self.domain, "split": self.split, "source": self.source}
        return {name: value for name, value in values.items() if value is not None}


class _Reading:
    """One call: sources go in one after another, the data set comes out."""

    def __init__(self, options: _Options) -> None:
        self.options = options
        self.log = ErrorLog(options.on_error, options.max_errors_shown)
        self.builder = GraphBuilder(allow_group_leak=options.allow_group_leak)
        self.counts = self.builder.counts
        self.info: dict[str, Any] = {"files": [], "columns": {}, "unused_columns": {}}

    def read(self, source: RowSource, split: str | None = None) -> None:
        """Read the rows of one source; ``split`` is given to all of them."""
        options, path = self.options, source.path
        asked = dict(options.columns or {})
        if split is not None:
            asked["split"] = None
        chooser: ColumnChooser | None = None
        if source.columns is not None:
            chooser = ColumnChooser(source.columns, asked, path, source.first_line)
        rows = source.rows(chooser.columns() if chooser else None)
        sample = list(islice(rows, _SAMPLE))
        good = [(line, row) for line, row in sample if not isinstance(row, RowError)]
        if not sample:
            raise DataError("the file has no rows; expected at least one.", path)
        if not good:
            for line, row in sample:
                if isinstance(row, RowError):
                    self.log.add(path, line, row)
            raise self.log.error(f"none of the first {len(sample)} rows can be read: ")
        if chooser is None:
            names = dict.fromkeys(name for _, row in good for name in row)
            chooser = ColumnChooser(names, asked, path, good[0][0])
        form = _find_form(options.form, chooser, [row for _, row in good])
        columns = chooser.build(form)
        parser = RowParser(
            form=form,
            columns=columns,
            ties=options.ties,
            domain=options.domain,
            split=split if split is not None else options.split,
            source=options.source,
            template=options.template,
            counts=self.counts,
        )
        total, used, seen = self._rows(chain(sample, rows), parser, source)
        if not used and self.options.on_error == "skip":
            raise self.log.error(f"none of the {total} rows can be used (form {form!r}): ")
        known = dict.fromkeys((*(source.columns or ()), *seen))
        unused = [name for name in known if name not in set(columns.by_field.values())]
        self.info["files"].append(
            {"path": path, "form": form, "rows": total, "used": used, "blank_lines": source.blank}
        )
        self.info["columns"][path] = columns.renamed
        self.info["unused_columns"][path] = unused

    def _rows(self, rows: Iterable[Row], parser: RowParser, source: RowSource) -> tuple[int, int, dict[str, None]]:
        path, total, used = source.path, 0, 0
        step = self.options.progress(f"read {os.path.basename(path)}")
        seen: dict[str, None] = {}
        for line, row in rows:
            total += 1
            if total % 1024 == 0:
                step(*source.position())
            try:
                if isinstance(row, RowError):
                    raise row
                if not row.keys() <= seen.keys():
                    seen.update(dict.fromkeys(row))
                parsed = parser.parse(row)
            except RowError as error:
                self.log.add(path, line, error)
                continue
            used += 1
            if parsed is not None:
                self.builder.add(parsed, (path, line))
        return total, used, seen

    def finish(self, name: str) -> PreferenceDataset:
        """Return the data set, or raise the DataError that lists the bad rows."""
        self.log.finish()
        files = [entry["path"] for entry in self.info["files"]]
        if not self.builder.n_responses:
            raise DataError("every row is a tie, and ties='drop' leaves none; use ties='keep'.", files[0])
        tables = self.builder.tables()
        given = self.options.given()
        info = {
            **self.info,
            **({"set": given} if given else {}),
            "template": self.options.template.fingerprint(),
            "counts": {key: count for key, count in sorted(self.counts.items()) if count},
            "skipped": self.log.to_info(),
            **({"group_leak": self.builder.leak} if self.builder.leak else {}),
        }
        return PreferenceDataset(*tables, name=name, info=info)


def _find_form(form: str, chooser: ColumnChooser, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the form of a file: the one asked for, or the one that most rows of its head have."""
    if form != "auto":
        return form
    families = chooser.families()
    if len(families) != 1:
        raise chooser.no_form()
    if families[0] != "pair":
        return families[0]
    chosen, rejected = chooser.one("chosen"), chooser.one("rejected")
    # Two columns that could be the prompt are an error at once, and not a reason to do without one.
    prompt = chooser.one("prompt")
    votes: Counter[str] = Counter()
    for row in rows:
        one, other = row.get(str(chosen)), row.get(str(rejected))
        if _is_chat(one) or _is_chat(other):
            votes["conversational"] += 1
        elif not absent(row, prompt):
            votes["pair"] += 1
        elif chat.is_transcript(one) and chat.is_transcript(other):
            votes["hh-rlhf"] += 1
        elif isinstance(one, str) and isinstance(other, str):
            votes["implicit"] += 1
    best = max(votes.values(), default=0)
    order = ("pair", "conversational", "hh-rlhf", "implicit")
    return next((name for name in order if votes[name] == best), "pair") if best else ("pair" if prompt else "implicit")


def _is_chat(value: object) -> bool:
    if isinstance(value, str) and value.startswith("[{"):  # as a CSV cell holds it
        try:
            chat.read_messages(value, "")
        except RowError:
            return False
        return True
    return isinstance(value, list)


def read_preferences(
    paths: str | Path | Sequence[str | Path],
    *,
    form: str = "auto",
    columns: Mapping[str, str | None] | None = None,
    domain: str | None = None,
    split: str | None = None,
    source: str | None = None,
    on_error: str = "raise",
    ties: str = "auto",
    max_errors_shown: int = 20,
    allow_group_leak: bool = False,
    template: Template = PLAIN,
    name: str = "",
    progress: Progress = silent,
) -> PreferenceDataset:
    """Read preference data from files.

    Parameters
    ----------
    paths : path or list of paths
        JSON lines (.jsonl, .ndjson), CSV and TSV with a header (each also with .gz), or Parquet (.parquet).
    form : str
        What a row is, "auto" to tell it from each file's columns and first rows:

        - "pair": ``prompt``, ``chosen``, ``rejected`` are texts;
        - "implicit": no prompt; it is what ``chosen`` and ``rejected`` begin with, up to white space;
        - "conversational": ``chosen`` and ``rejected`` are lists of messages that differ in the last one; ``prompt``
          may be a list, a text or absent;
        - "hh-rlhf": ``chosen`` and ``rejected`` are transcripts, split at the last Assistant turn;
        - "kwise": ``prompt``, ``responses``, ``gold``: every two responses of different gold are a pair, margin = gap;
        - "unpaired": ``text`` and ``label`` (kept as gold), no pairs, ``prompt`` optional.

        Every form may have ``system``, ``context``, ``domain``, ``group``, ``source``, ``split``; pairs also
        ``weight``, ``margin``, ``outcome`` (share of votes for chosen; below one half the sides are swapped),
        ``gold_chosen`` and ``gold_rejected``.
    columns : mapping of field to column name, optional
        Where a column is called otherwise; None says that the field has no column. Usual other names are recognised,
        see :data:`embedrm.datasets.columns.FIELDS`, and noted in ``info["columns"]``.
    domain, split, source : str, optional
        Given to every row; a column of that name is then not read, and listed as unused.
    on_error : {"raise", "skip"}
        What to do about bad rows. "skip" leaves them out and counts them in ``info["skipped"]``. A file that is
        damaged as a whole, or that has no good row, always raises.
    ties : {"auto", "keep", "drop"}
        "auto" keeps ties that a file states (outcome 0.5), and leaves out K-wise pairs of equal gold. Both are counted.
    max_errors_shown : int
        How many bad rows are written out in full.
    allow_group_leak : bool
        Accept a prompt, or a stated group, that the rows put in two splits. Prompts of different splits that are only
        nearly equal ("What is X?", "what is x") are always accepted. ``info["group_leak"]`` tells of both.
    template : Template
        Renders prompts of several turns.
    name : str
        What to call the data; by default the names of the files.
    progress : Progress
        Told of the bytes (of Parquet: the rows) read of each file; see :mod:`embedrm.progress`.

    Returns
    -------
    PreferenceDataset
        ``info`` holds files (with form and number of rows), columns, unused_columns, counts (what was swapped, merged
        or left out) and skipped.

    Raises
    ------
    DataError
        One error for all bad rows, with path and line of each (row number for Parquet), up to ``max_errors_shown``.
    InvalidInputError
        Where an option is none of those above.
    """
    listed = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not listed or not all(isinstance(path, (str, os.PathLike)) for path in listed):
        raise InvalidInputError("read_preferences: expected a path or a list of at least one path.")
    reading = _Reading(
        _Options(
            form=form,
            columns=columns,
            domain=domain,
            split=split,
            source=source,
            on_error=on_error,
            ties=ties,
            max_errors_shown=max_errors_shown,
            allow_group_leak=allow_group_leak,
            template=template,
            progress=progress,
        )
    )
    for path in listed:
        reading.read(open_source(path))
    return reading.finish(name or "+".join(Path(path).name.split(".")[0] for path in listed))


def read_records(records: Iterable[Mapping[str, Any]], *, name: str = "", **options: Any) -> PreferenceDataset:
    """Read an iterable of dicts, one a row; see :meth:`PreferenceDataset.from_records`."""
    if isinstance(records, (str, bytes, Mapping)) or not isinstance(records, Iterable):
        raise InvalidInputError(f"from_records: expected an iterable of dicts, got {type(records).__name__}.")
    reading = _Reading(_options("from_records", options))
    reading.read(Records(records, name or "records"))
    return reading.finish(name)


def load_hf(dataset: Any, *, name: str = "", **options: Any) -> PreferenceDataset:
    """Read an object of the optional package ``datasets``, or anything that iterates over dict rows as it does.

    Parameters
    ----------
    dataset : Dataset, IterableDataset, or mapping of split name to one
        In a mapping the keys must be usual names of splits ("train", "validation", "dev", "test") and are given to
        the rows; pick one part (``data["train_prefs"]``) and give ``split=`` where they are not.
    name, **options
        As for :func:`read_preferences`.
    """
    reading = _Reading(_options("load_hf", options))
    if not isinstance(dataset, Mapping):
        if isinstance(dataset, (str, bytes)) or not hasattr(dataset, "__iter__"):
            raise InvalidInputError(f"load_hf: expected a data set that is loaded, got {type(dataset).__name__}.")
        reading.read(Records(dataset, name or "records"))
        return reading.finish(name)
    names = {key: split_name(str(key)) for key in dataset}
    if not names or not all(names.values()):
        raise InvalidInputError(
            f"load_hf: the parts are called {', '.join(map(repr, names)) or 'nothing'}; expected train, validation or "
            "test. Give one part, and split=... with it."
        )
    if reading.options.split is not None:
        raise InvalidInputError("load_hf: split= is for one part; a mapping brings its own splits.")
    for key, part in dataset.items():
        reading.read(Records(part, f"{name or 'records'}[{ascii_safe(str(key))}]"), split=names[key])
    return reading.finish(name)


def _options(caller: str, options: Mapping[str, Any]) -> _Options:
    known = list(_Options.__dataclass_fields__)
    for option in options:
        if option not in known:
            raise InvalidInputError(f"{caller}: {unknown_name('option', option, known)}")
    return _Options(**options)
