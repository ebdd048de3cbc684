"""``embedrm cite``: whom to name in a paper."""

from __future__ import annotations

from typing import Annotated

import typer

from embedrm.cli import _common as common
from embedrm.cli._common import Console

_HEADINGS = {
    "toolkit": "The toolkit",
    "paper": "Papers that are reproduced",
    "model": "Models and their parts",
    "encoder": "Encoders",
    "data": "Data",
    "unread": "Not read",
}


def cite(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[FOLDER[:FINGERPRINT]]",
            help="A run or a sweep: then what it used. Without one, the toolkit and the papers it reproduces.",
            show_default=False,
        ),
    ] = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Say what to cite: the toolkit, the papers reproduced, or the models, encoder and data that a run used."""
    from embedrm.experiments.citations import paper_citations, run_citations, toolkit

    found = [{"kind": "toolkit", **toolkit()}, *paper_citations()] if run is None else run_citations(run)
    parts = []
    for kind, heading in _HEADINGS.items():
        mine = [one for one in found if one["kind"] == kind]
        if not mine:
            continue
        lines = [heading]
        for one in mine:
            licence = f" Licence as published: {one['licence']}." if "licence" in one else ""
            here = f" Here: {one['here']}" if "here" in one else ""
            lines.append(f"  {one['what']}: {one['cite']}{licence}{here}")
        lines += [f"\n{one['bibtex']}" for one in mine if "bibtex" in one]
        parts.append("\n".join(lines))
    Console(quiet, as_json).result(found, "\n\n".join(parts))
