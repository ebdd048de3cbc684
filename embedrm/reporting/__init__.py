"""Reports: plain facts first; terminal text, Markdown, HTML and figures are renderings of them.

A report never computes. Whoever evaluates builds the facts (titles, tables, figures, notes, provenance) out of
strings and finite numbers, and every rendering shows the same facts. The facts round-trip through JSON, so a saved
``report.json`` is the report.

Importing this package is cheap: matplotlib, jinja2 and rich load on the first rendering that needs them.

Examples
--------
>>> from embedrm.reporting import Report, Table
>>> report = Report(kind="evaluation", title="Two heads", summary=["The linear head wins."])
>>> table = Table(
...     name="accuracy",
...     title="Accuracy",
...     columns=[{"key": "head", "label": "Head"}, {"key": "acc", "label": "Accuracy", "kind": "share", "best": "max"}],
...     rows=[{"head": "linear", "acc": 0.683}, {"head": "mlp", "acc": 0.671}],
... )
>>> _ = report.add_section("Results", tables=[table])
>>> Report.from_json(report.to_json()) == report
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedrm.reporting.figures import Figure
    from embedrm.reporting.plots import draw, save_png, save_svg
    from embedrm.reporting.provenance import PeakMemory, collect
    from embedrm.reporting.report import Report, Section
    from embedrm.reporting.tables import Column, Table

_HOME = {
    "Column": "tables",
    "Figure": "figures",
    "PeakMemory": "provenance",
    "Report": "report",
    "Section": "report",
    "Table": "tables",
    "collect": "provenance",
    "draw": "plots",
    "save_png": "plots",
    "save_svg": "plots",
}

__all__ = [
    "Column",
    "Figure",
    "PeakMemory",
    "Report",
    "Section",
    "Table",
    "collect",
    "draw",
    "save_png",
    "save_svg",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
