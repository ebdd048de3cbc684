"""One head or one for each domain, on human-labelled files: shared, hard, soft and oracle routing, with intervals.

Command: python benchmarks/real_routing.py --data FOLDER

Every row of ten files, their own splits, domains as in the files. Features are chosen by the held-out log loss of the
shared head on training pairs (whole prompt groups held out), l2 of every head by the same rule on its own training pairs;
no test pair is read before the last step. Prompts are encoded as they stand in the files, some with a task line
("Summarize this article:"), which makes routing easier than it would be in the wild.
"""

from __future__ import annotations

import sys
import time
import warnings

from _harness import command, finish, parser
from _real import FILES, add_options, vectors

from embedrm import Featurizer, LengthHead, LinearHead, Report, RoutedRewardModel
from embedrm.evaluation import accuracy_facts, comparison_facts
from embedrm.reporting import collect
from embedrm.reporting.accuracy import accuracy_table, comparison_table

GRID = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
ROUTINGS = ("hard", "soft", "oracle", "random")


def main() -> None:
    options = parser(__doc__)
    add_options(options)
    a = options.parse_args()
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    prefs = vectors(a, "2,3,4,6,final")
    train, test = prefs.in_split("train"), prefs.in_split("test")
    if a.smoke:
        sets = {"r(final)": Featurizer(["r"], response="final")}
    else:
        sets = {
            "r of layer final": Featurizer(["r"], response="final"),
            "r of layers 3, 6": Featurizer(["r"], response="3,6"),
            "r of layers 2, 4, 6": Featurizer(["r"], response="2,4,6"),
            "r and p*r of layers 3, 6": Featurizer(["r", "p*r"], response="3,6", prompt="3,6"),
            "r and p*r of layers 2, 4, 6 (p of layer 4)": Featurizer(["r", "p*r"], response="2,4,6", prompt="4"),
        }
    choice, fitted = [], {}
    for label, featurizer in sets.items():
        head = LinearHead(featurizer, l2="cv", l2_grid=GRID, tol=1e-7).fit(train)
        best = min(head.cv_results_, key=lambda r: r["log_loss"])
        choice.append({"features": label, "dim": head.n_features_in_, **best})
        fitted[label] = head
        print(f"{time.perf_counter() - started:.0f} s: {label}: {best}", file=sys.stderr, flush=True)
    tables = {}
    shown = [min(choice, key=lambda r: r["log_loss"])["features"]]
    shown += [label for label in sets if label == "r of layer final" and label not in shown]
    for label in shown:
        routed = RoutedRewardModel(LinearHead(sets[label], l2="cv", l2_grid=GRID, tol=1e-7)).fit(train)
        models = {"shared head": fitted[label]} | {f"{r} routing": routed.with_routing(r) for r in ROUTINGS}
        models["length only"] = LengthHead().fit(train)
        margins = {name: m.margins(test) for name, m in models.items()}
        logits = {name: m.margins_are_logits for name, m in models.items()}
        penalties = ", ".join(f"{d} {e.l2_:g}" for d, e in zip(routed.domains_, routed.experts_))
        tables[label] = (
            accuracy_facts(margins, test, logits=logits),
            {
                name: comparison_facts(margins[name], margins["shared head"], test)
                for name in ("hard routing", "soft routing", "oracle routing")
            },
            f"Shared l2 {fitted[label].l2_:g}; experts: {penalties}; router l2 {routed.router_.l2_:g}, temperature "
            f"{routed.router_.temperature_:.2f}, out-of-fold router accuracy {routed.router_.out_of_fold_['accuracy']:.3f}.",
        )
        print(f"{time.perf_counter() - started:.0f} s: routed on {label}", file=sys.stderr, flush=True)
    summary = [
        f"{label}: "
        + ", ".join(f"{row['model']} {row['micro']['value']:.3f}" for row in facts["rows"])
        + " (micro, test)"
        for label, (facts, _, _) in tables.items()
    ]
    report = Report(
        "benchmark",
        "Shared head and routed heads on human-labelled pairs",
        summary=summary,
        notes=[
            "Files: " + ("bundled seed set (smoke run)" if a.smoke else ", ".join(FILES)) + "; every row, own splits."
        ],
        provenance=collect(
            started=started,
            seeds=0,
            encoder=prefs.responses.info["encoder"],
            data=prefs.responses.info["data"],
            extra={"truncation": prefs.responses.info["truncation"]},
            command=command(__file__, a),
        ),
    )
    columns = [
        {"key": "features", "label": "features"},
        {"key": "dim", "label": "dim", "kind": "integer"},
        {"key": "l2", "label": "l2", "kind": "number"},
        {"key": "log_loss", "label": "held-out log loss", "kind": "number", "digits": 4, "best": "min"},
        {"key": "accuracy", "label": "held-out accuracy", "kind": "share", "best": "max"},
    ]
    report.add_section(
        "Choice of features (training pairs only)",
        tables=[
            {"name": "choice", "title": "Shared head, whole prompt groups held out", "columns": columns, "rows": choice}
        ],
    )
    for i, (label, (facts, differences, hyper)) in enumerate(tables.items()):
        section = [accuracy_table(facts, f"accuracy-{i}", "Test accuracy", hyper)]
        section += [
            comparison_table(d, name, "shared head", f"difference-{i}-{name.split()[0]}")
            for name, d in differences.items()
        ]
        report.add_section(
            f"Features: {label}" + (" (chosen)" if i == 0 else " (the final layer alone, for comparison)"),
            tables=section,
        )
    finish(report, "real_routing", a)


if __name__ == "__main__":
    main()
