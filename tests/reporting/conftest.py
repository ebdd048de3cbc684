"""A report that uses everything, with absent values where values may be absent."""

import pytest

from embedrm.reporting import Figure, Report, Table

DOMAINS = ["hh_rlhf", "gsm8k", "xstest"]


def make_report(text=lambda s: s):
    """Build the report; ``text`` rewrites every text in it."""
    table = Table(
        name="accuracy",
        title=text("Accuracy by domain"),
        caption=text("Ties count one half."),
        columns=[
            {"key": "model", "label": text("Model")},
            *(
                {"key": d, "label": text(d), "kind": "interval", "best": "max", "note": text(f"note {d}")}
                for d in DOMAINS
            ),
            {"key": "p", "label": text("p"), "kind": "p"},
            {"key": "seconds", "label": text("Fit"), "kind": "seconds"},
            {"key": "bytes", "label": text("Memory"), "kind": "bytes"},
            {"key": "pairs", "label": text("Pairs"), "kind": "integer"},
        ],
        rows=[
            {
                "group": text("Models"),
                "model": text(f"model {i}"),
                **{d: {"value": 0.6 + 0.01 * i, "low": 0.55, "high": 0.65, "n": 40 + i} for d in DOMAINS[:2]},
                "xstest": None,
                "p": 0.0004 * i,
                "seconds": 0.3 * i,
                "bytes": i << 20,
                "pairs": 9000 + 1000 * i,
            }
            for i in range(3)
        ],
        row_groups="group",
    )
    series = [
        {
            "label": text(f"series {j}"),
            "values": [0.6 + 0.01 * j, None, 0.7],
            "low": [0.5, None, None],
            "high": [0.7, None, None],
        }
        for j in range(2)
    ]
    reference = [{"value": 0.5, "label": text("chance")}, {"value": 0.505, "label": text("length only")}]
    names = [text(d) for d in DOMAINS]
    labels = {"x_label": text("accuracy"), "y_label": text("domain")}
    lines = [
        {
            "label": text(f"line {j}"),
            "x": [100, 1000, 10000],
            "y": [0.5 + 0.01 * j, None, 0.6],
            "low": [0.45, None, 0.55],
            "high": [0.55, None, 0.65],
        }
        for j in range(2)
    ]
    points = [{"label": text("points"), "x": [0.5, 0.7], "y": [0.52, None], "names": [text("q0"), text("q1")]}]
    figures = [
        Figure(
            "dots", text("Dots"), "intervals", {"categories": names, "series": series, "reference": reference} | labels
        ),
        Figure("bars", text("Bars"), "bars", {"categories": names, "series": series, **labels}, text("From zero.")),
        Figure(
            "wrong-expert",
            text("Wrong expert"),
            "heatmap",
            {
                "rows": names,
                "columns": names,
                "values": [[0.7, 0.5, None], [0.4, 0.8, 0.55], [0.5, 0.45, 0.65]],
                "row_label": text("expert"),
                "column_label": text("domain"),
                "value_label": text("accuracy"),
                "centre": 0.5,
            },
        ),
        Figure("curve", text("Curve"), "lines", {"series": lines, "x_scale": "log", "reference": reference} | labels),
        Figure("calibration", text("Calibration"), "scatter", {"series": points, "diagonal": True} | labels),
    ]
    report = Report(
        kind=text("evaluation"),
        title=text("A report"),
        summary=[text("First finding."), text("Second finding.")],
        notes=[text("A caveat.")],
        provenance={
            text("command"): text("embedrm evaluate"),
            "command": text("embedrm evaluate --out runs"),
            "embedrm": text("0.1.0"),
            "time": text("2025-01-02T03:04:05Z"),
            "seconds": 12.5,
            "encoder": {text("name"): text("hashing"), "pooling": {"kind": text("mean")}, "layers": [3, 6]},
        },
    )
    report.add_section(
        text("Accuracy"), [text("One paragraph."), text("Another.")], tables=[table], figures=figures[:2]
    )
    report.add_section(text("Figures"), figures=figures[2:])
    return report


@pytest.fixture(scope="session")
def report():
    return make_report()


@pytest.fixture(scope="session")
def build_report():
    return make_report
