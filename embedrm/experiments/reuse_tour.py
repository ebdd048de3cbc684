"""A short look at the Reusing-Embeddings study on any preferences: two objectives over labels that are turned round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedrm.annotation import annotate
from embedrm.evaluation import accuracy_facts
from embedrm.experiments.study import StudyData
from embedrm.featurizers import Featurizer
from embedrm.heads.linear import LinearHead
from embedrm.numerics.annotation import Annotator
from embedrm.progress import Progress, silent
from embedrm.reporting.figures import Figure
from embedrm.reporting.tables import Column, Table

FLIPS = (0.0, 0.2, 0.4)
OBJECTIVES = {"bt": "bradley-terry", "clf": "classification"}
LABELS = {"bt": "Bradley-Terry", "clf": "classification"}


def tour_facts(data: StudyData, progress: Progress = silent) -> list[dict[str, Any]]:
    """Accuracy on the test pairs by share of training labels turned round: ``flips``, ``bt`` and ``clf`` (cells).

    Raises
    ------
    InvalidInputError
        For labels that are vote shares, or known to be wrong already.
    """
    step, done = progress("labels turned round"), 0
    out = []
    for share in FLIPS:
        noisy = annotate(data.train, Annotator(flip_rate=share)) if share else data.train
        margins = {}
        for key, objective in OBJECTIVES.items():
            head = LinearHead(Featurizer(scale="rms"), objective=objective).fit(noisy)
            margins[LABELS[key]] = head.margins(data.test)
            done += 1
            step(done, len(FLIPS) * len(OBJECTIVES))
        facts = accuracy_facts(margins, data.test)
        by = {row["model"]: row["micro"] for row in facts["rows"]}
        out.append({"flips": share} | {key: by[LABELS[key]] for key in OBJECTIVES})
    return out


def tour_table(facts: Sequence[Mapping[str, Any]], name: str = "reuse-tour") -> Table:
    """Accuracy by share of labels turned round."""
    columns = [Column("flips", "labels turned round", "share")]
    columns += [Column(key, LABELS[key], "interval", best="max") for key in OBJECTIVES]
    rows = [{column.key: row[column.key] for column in columns} for row in facts]
    return Table(
        name,
        "Two objectives under label noise",
        columns,
        rows,
        caption="Accuracy on test pairs, whose labels are left as they are.",
    )


def tour_figure(facts: Sequence[Mapping[str, Any]], name: str = "reuse-tour") -> Figure:
    """The same as lines."""
    series = [
        {
            "label": LABELS[key],
            "x": [row["flips"] for row in facts],
            "y": [row[key]["value"] for row in facts],
            "low": [row[key]["low"] for row in facts],
            "high": [row[key]["high"] for row in facts],
        }
        for key in OBJECTIVES
    ]
    data = {"series": series, "x_label": "share of training labels turned round", "y_label": "accuracy on test pairs"}
    return Figure(name, "Two objectives under label noise", "lines", data)
