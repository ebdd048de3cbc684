"""The report: facts in sections, which every rendering shows and none of them changes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from embedrm.errors import DataError, InvalidInputError
from embedrm.reporting.figures import Figure
from embedrm.reporting.plain import fields, plain, sequence, text, texts
from embedrm.reporting.tables import Table

SCHEMA = 1


@dataclass(frozen=True, init=False)
class Section:
    """A part of a report under one heading.

    Parameters
    ----------
    title : str
        The heading.
    text : str or sequence of str, optional
        Paragraphs of plain text.
    tables : sequence of Table or mapping, optional
        Tables, or their plain data.
    figures : sequence of Figure or mapping, optional
        Figures, or their plain data.
    """

    title: str
    text: tuple[str, ...]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]

    def __init__(
        self,
        title: str,
        text: str | Sequence[str] = (),
        tables: Sequence[Table | Mapping[str, Any]] = (),
        figures: Sequence[Figure | Mapping[str, Any]] = (),
    ) -> None:
        place = f"section {title!r}"
        if not isinstance(title, str):
            raise InvalidInputError(f"a section's title is text, and a {type(title).__name__} came.")
        made_tables = [Table.of(t, f"{place}: tables[{i}]") for i, t in enumerate(sequence(tables, f"{place}: tables"))]
        made_figures = [
            Figure.of(f, f"{place}: figures[{i}]") for i, f in enumerate(sequence(figures, f"{place}: figures"))
        ]
        values = {
            "title": texts([title], f"{place}: title")[0],
            "text": tuple(texts(text, f"{place}: text")),
            "tables": tuple(made_tables),
            "figures": tuple(made_figures),
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def to_dict(self) -> dict[str, Any]:
        """Return the section as plain data."""
        return {
            "title": self.title,
            "text": list(self.text),
            "tables": [table.to_dict() for table in self.tables],
            "figures": [figure.to_dict() for figure in self.figures],
        }


@dataclass(init=False, repr=False)
class Report:
    """Facts about one run, and their renderings.

    Parameters
    ----------
    kind : str
        What made it ("evaluation", "comparison", "reproduction").
    title : str
        The title.
    summary : str or sequence of str, optional
        What a reader should take away, one finding each.
    sections : sequence of Section or mapping, optional
        The parts; :meth:`add_section` adds more.
    notes : str or sequence of str, optional
        Caveats and definitions, shown at the end.
    provenance : mapping, optional
        Where the facts come from; see :func:`embedrm.reporting.collect`.
    claims : sequence of mapping, optional
        Judged claims (:meth:`embedrm.evaluation.claims.Claim.judge`), for programs; a reader sees them in a table
        (:func:`embedrm.reporting.claims.claims_table`).

    Raises
    ------
    InvalidInputError
        Anything that is not plain, finite data, with its place; and two tables or two figures of one name.

    Notes
    -----
    All texts are plain: nothing in them is read as markup, in any rendering.
    """

    kind: str
    title: str
    summary: list[str]
    sections: list[Section]
    notes: list[str]
    provenance: dict[str, Any]
    claims: list[dict[str, Any]]

    def __init__(
        self,
        kind: str,
        title: str,
        summary: str | Sequence[str] = (),
        sections: Sequence[Section | Mapping[str, Any]] = (),
        notes: str | Sequence[str] = (),
        provenance: Mapping[str, Any] | None = None,
        claims: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.kind = text(kind, "kind")
        self.title = text(title, "title")
        self.summary = texts(summary, "summary")
        self.notes = texts(notes, "notes")
        if provenance is not None and not isinstance(provenance, Mapping):
            raise InvalidInputError(f"provenance is a mapping, and a {type(provenance).__name__} came.")
        self.provenance = plain(provenance or {}, "provenance")
        self.claims = plain(list(sequence(claims, "claims")), "claims")
        self.sections = []
        for i, section in enumerate(sequence(sections, "sections")):
            self._add(_section(section, f"sections[{i}]"))

    def __repr__(self) -> str:
        tables = sum(len(section.tables) for section in self.sections)
        figures = sum(len(section.figures) for section in self.sections)
        return f"Report({self.title!r}, sections={len(self.sections)}, tables={tables}, figures={figures})"

    def __str__(self) -> str:
        return self.text()

    def add_section(
        self,
        title: str,
        text: str | Sequence[str] = (),
        tables: Sequence[Table | Mapping[str, Any]] = (),
        figures: Sequence[Figure | Mapping[str, Any]] = (),
    ) -> Report:
        """Add a section at the end and return the report."""
        self._add(Section(title, text, tables, figures))
        return self

    def _add(self, section: Section) -> None:
        for kind in ("tables", "figures"):
            taken = {one.name for other in self.sections for one in getattr(other, kind)}
            for one in getattr(section, kind):
                if one.name in taken:
                    raise InvalidInputError(
                        f"section {section.title!r}: the name {one.name!r} is already taken by another of the report's "
                        f"{kind}. Names are file names and anchors: give each its own."
                    )
                taken.add(one.name)
        self.sections.append(section)

    @property
    def tables(self) -> dict[str, Table]:
        """Every table by its name."""
        return {table.name: table for section in self.sections for table in section.tables}

    @property
    def figures(self) -> dict[str, Figure]:
        """Every figure by its name."""
        return {figure.name: figure for section in self.sections for figure in section.figures}

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain JSON data (schema 1)."""
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "title": self.title,
            "summary": texts(self.summary, "summary"),
            "sections": [section.to_dict() for section in self.sections],
            "notes": texts(self.notes, "notes"),
            "provenance": plain(self.provenance, "provenance"),
        } | ({"claims": plain(self.claims, "claims")} if self.claims else {})

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Report:
        """Return the report of some facts, which are checked as any others."""
        optional = ("summary", "sections", "notes", "provenance", "claims")
        values = fields(facts, "report", ("schema", "kind", "title"), optional)
        schema = values.pop("schema")
        if schema != SCHEMA:
            raise InvalidInputError(
                f"report: schema {schema!r} came, and this version of embedrm reads schema {SCHEMA}. "
                "Read it with the version that wrote it."
            )
        return cls(**values)

    def to_json(self) -> str:
        """Return the facts as JSON text (UTF-8 when written), the same text for the same facts."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=2) + "\n"

    @classmethod
    def from_json(cls, value: str) -> Report:
        """Return the report of some JSON text."""
        try:
            facts = json.loads(value)
        except ValueError as error:
            raise InvalidInputError(f"report: this is not JSON ({error}).") from None
        return cls.from_dict(facts)

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Return the report saved in a folder, or in one ``report.json``."""
        file = Path(path)
        file = file / "report.json" if file.is_dir() else file
        try:
            return cls.from_json(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, InvalidInputError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise DataError(f"a report.json was expected: {reason}", path=file) from None

    def text(self, width: int | None = None, colour: bool | None = None) -> str:
        """Return the report for a terminal; of the provenance only what belongs under a title, and the command.

        Parameters
        ----------
        width : int, optional
            Columns, at least 40; the terminal's by default. Wide tables are split into blocks that repeat the first
            column.
        colour : bool, optional
            Whether to use colour and bold; by default, if standard output is a terminal and NO_COLOR is not set.
        """
        from embedrm.reporting.text import render_text

        return render_text(self, width=width, colour=colour)

    def markdown(self, figures: str | None = "figures") -> str:
        """Return the report as GitHub-flavoured Markdown.

        Parameters
        ----------
        figures : str or None, default "figures"
            The folder that pictures are linked from; None lists titles and captions only.
        """
        from embedrm.reporting.markdown import render_markdown

        return render_markdown(self, figures)

    def html(self) -> str:
        """Return the report as one self-contained HTML page, figures included."""
        from embedrm.reporting.html import render_html

        return render_html(self)

    def _repr_markdown_(self) -> str:
        return self.markdown(figures=None)

    def save(self, folder: str | Path) -> dict[str, Path]:
        """Write the report and its renderings; each file appears whole or not at all.

        Parameters
        ----------
        folder : path-like
            Made if it is not there. Files of the same names are replaced; others are left alone.

        Returns
        -------
        dict of str to Path
            ``"json"``, ``"markdown"``, ``"html"``, and ``"figures/NAME.svg"`` and ``"figures/NAME.png"`` for each
            figure. The facts are written first, so that they are safe whatever happens to a rendering.
        """
        from embedrm.reporting.html import render_html

        root = Path(folder)
        contents = _written(root / "report.json", self.to_json().encode("utf-8"))
        paths = {"json": contents}
        drawings: dict[str, str] = {}
        if self.figures:
            from embedrm.reporting.plots import draw, png_bytes, svg_text

            for name, figure in self.figures.items():
                drawn = draw(figure)
                drawings[name] = svg_text(drawn)
                for ending, data in (("svg", drawings[name].encode("utf-8")), ("png", png_bytes(drawn))):
                    file = f"figures/{name}.{ending}"
                    paths[file] = _written(root / file, data)
        paths["markdown"] = _written(root / "report.md", self.markdown().encode("utf-8"))
        paths["html"] = _written(root / "report.html", render_html(self, drawings).encode("utf-8"))
        return paths


def _section(value: Any, place: str) -> Section:
    if isinstance(value, Section):
        return value
    return Section(**fields(value, place, ("title",), ("text", "tables", "figures")))


def _written(path: Path, data: bytes) -> Path:
    """Write a file through a temporary one in the same folder, so that nobody ever reads half of it."""
    temporary = path.with_name(f".{path.name}.{token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InvalidInputError(
            f"cannot write the report to {path}: {error.strerror or error}. Give a folder that can be written to."
        ) from None
    finally:
        with suppress(OSError):  # it is gone if all went well
            temporary.unlink()
    return path
