"""Which head, which objective, which view? Human-labelled files, every row, own splits, all domains in one model.

Command: python benchmarks/real_heads.py --data FOLDER

One model for all domains, which is what a reward head is. For every view, head and objective a small grid of settings
(`GRIDS`) is judged on a fifth of the training prompt groups: fitted on the rest, margins put on the scale of log-odds by
one number, log loss. The best setting is fitted again on all training pairs and read on the test pairs. So is the winner
among all of them ("chosen"), which is compared with the linear Bradley-Terry head chosen in the same way; the test pairs
decide nothing. A learning curve of the linear head, the perceptron and the trees, on the view and the settings that were
best for each, shows what more prompts would bring. Perceptrons and trees stop early on groups of their own, drawn from what
they are fitted on. `mlp x 5` is the mean of five perceptrons in one pass. Intervals are clustered by prompt group.
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import numpy as np
from _harness import command, finish, parser
from _real import FILES, add_options, vectors

from embedrm import (
    EmbeddedPreferences,
    EnsembleRewardModel,
    Featurizer,
    GBDTHead,
    LengthHead,
    LinearHead,
    MLPHead,
    Report,
    RewardModel,
)
from embedrm.evaluation import accuracy_facts, comparison_facts
from embedrm.evaluation.claims import Region
from embedrm.experiments.curve import curve_facts
from embedrm.numerics.bradley_terry import log_loss
from embedrm.numerics.calibration import fit_margin_scale
from embedrm.numerics.folds import hold_out
from embedrm.numerics.ties import pair_credit
from embedrm.reporting import collect
from embedrm.reporting.accuracy import comparison_table
from embedrm.reporting.curve import curve_table

VIEWS = {
    "final": {"terms": ["r"], "response": "final"},
    "2,4,6": {"terms": ["r"], "response": "2,4,6"},
    "2,4,6 and p*r": {"terms": ["r", "p*r"], "response": "2,4,6", "prompt": "4"},
}
SMOKE = {"final": VIEWS["final"]}
L2 = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
GRIDS: dict[str, list[dict[str, Any]]] = {
    "linear": [{"l2": l2} for l2 in L2],
    "mlp": [{"l2": l2, "dropout": d} for l2 in (1e-3, 1e-2, 3e-2) for d in (0.0, 0.3)],
    "mlp x 5": [{"l2": l2, "dropout": d} for l2 in (1e-3, 1e-2, 3e-2) for d in (0.0, 0.3)],
    "gbdt": [{"num_leaves": n, "max_trees": 400} for n in (4, 31)],
}
OBJECTIVES = {
    "linear": ("bradley-terry", "classification", "hinge"),
    "mlp": ("bradley-terry", "classification"),
    "mlp x 5": ("bradley-terry",),
    "gbdt": ("bradley-terry", "classification"),
}
FIRST = "linear, bradley-terry"
WORDS = {"holds": "it beats", "does not hold": "it does not beat", "undecided": "it cannot be told apart from"}
CURVE = ("linear", "mlp", "gbdt")


def make(head: str, objective: str, view: dict[str, Any], settings: dict[str, Any]) -> RewardModel:
    """Return an unfitted head."""
    if head == "gbdt":
        return GBDTHead(Featurizer(**view, scale="none"), objective, feature_fraction=0.2, **settings)
    featurizer = Featurizer(**view, scale="rms")
    if head == "linear":
        return LinearHead(featurizer, objective=objective, tol=1e-7, **settings)
    member = MLPHead(featurizer, objective=objective, **settings)
    if head == "mlp":
        return member
    return EnsembleRewardModel(member, n_members=5, kind="seeds", standardise=False)


def judged(margins: np.ndarray, prefs: EmbeddedPreferences) -> dict[str, float]:
    """Held-out accuracy, and log loss on the best scale of the margins."""
    scale = fit_margin_scale(margins, prefs.outcome, prefs.weight, len(np.unique(prefs.groups)), smooth=False)
    labelled = ~prefs.ties
    return {
        "log_loss": float(log_loss(scale * margins[labelled], prefs.outcome[labelled]).mean()),
        "accuracy": float(pair_credit(margins[labelled]).mean()),
    }


def shorter(a: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in a.items())


def main() -> None:
    options = parser(__doc__)
    add_options(options)
    a = options.parse_args()
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    prefs = vectors(a, "2,4,6,final")
    train, test = prefs.in_split("train"), prefs.in_split("test")
    inside, outside = hold_out(train.groups, 0.2, 0, "this benchmark", "more prompts")
    inner, held_out = train[inside], train[outside]
    views = SMOKE if a.smoke else VIEWS
    rows, margins, logits = [], {}, {}
    for view_name, view in views.items():
        for head, grid in GRIDS.items():
            grid = grid[:1] if a.smoke else grid
            for objective in OBJECTIVES[head]:
                began = time.perf_counter()
                tried = []
                for settings in grid:
                    model = make(head, objective, view, settings).fit(inner)
                    tried.append(judged(model.margins(held_out), held_out) | {"settings": settings})
                best = min(tried, key=lambda r: r["log_loss"])
                once = time.perf_counter()
                model = make(head, objective, view, best["settings"]).fit(train)
                seconds = time.perf_counter() - once
                name = f"{head}, {objective}, {view_name}"
                margins[name], logits[name] = model.margins(test), model.margins_are_logits
                rows.append(
                    {"name": name, "head": head, "objective": objective, "view": view_name, "n_settings": len(grid)}
                    | {
                        "dim": model_dim(model),
                        "settings": shorter(best["settings"]),
                        "chosen": best["settings"],
                        "seconds": seconds,
                    }
                    | {"held_out_log_loss": best["log_loss"], "held_out_accuracy": best["accuracy"]}
                )
                print(
                    f"{time.perf_counter() - started:.0f} s (this {time.perf_counter() - began:.0f} s): {name}: {best}",
                    file=sys.stderr,
                    flush=True,
                )
    margins["length only"] = LengthHead().fit(train).margins(test)
    logits["length only"] = False
    facts = accuracy_facts(margins, test, logits=logits)
    found = {row["model"]: row for row in facts["rows"]}
    rows.append({"name": "length only", "head": "length only", "objective": None, "view": None, "n_settings": 0})
    for row in rows:
        row["micro"], row["macro"] = found[row["name"]]["micro"], found[row["name"]]["macro"]
    chosen = min((r for r in rows if r["n_settings"]), key=lambda r: r["held_out_log_loss"])
    linear = min((r for r in rows if r["name"].startswith(FIRST)), key=lambda r: r["held_out_log_loss"])
    difference = comparison_facts(margins[chosen["name"]], margins[linear["name"]], test)
    over, wide = difference["micro"], difference["macro"]
    verdict = (
        "which is the linear Bradley-Terry head itself"
        if chosen is linear
        else f"{WORDS[Region(least=0.0).verdict(over['low'], over['high'])]} the linear Bradley-Terry head: "
        f"{100 * over['value']:+.1f} points [{100 * over['low']:+.1f}, {100 * over['high']:+.1f}] (micro), "
        f"{100 * wide['value']:+.1f} [{100 * wide['low']:+.1f}, {100 * wide['high']:+.1f}] (macro)"
    )
    report = Report(
        "benchmark",
        "Heads, objectives and views on human-labelled pairs",
        summary=[
            f"chosen on held-out training groups: {chosen['name']}, {chosen['micro']['value']:.3f} (micro, test), {verdict}",
            f"linear Bradley-Terry: {linear['micro']['value']:.3f}; length only: "
            f"{found['length only']['micro']['value']:.3f}",
        ],
        notes=[
            "Files: " + ("the bundled set (smoke run)" if a.smoke else ", ".join(FILES)) + "; every row, own splits.",
            f"{len(train):,} training pairs, {len(test):,} test pairs, {facts['n_groups']:,} test prompt groups, "
            f"{len(facts['domains'])} domains; held out: {len(held_out):,} training pairs.",
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
        {"key": "head", "label": "head"},
        {"key": "objective", "label": "objective"},
        {"key": "view", "label": "view"},
        {"key": "dim", "label": "dim", "kind": "integer"},
        {"key": "settings", "label": "settings", "note": "the best of the grid by held-out log loss"},
        {"key": "held_out_log_loss", "label": "held-out log loss", "kind": "number", "digits": 4, "best": "min"},
        {"key": "held_out_accuracy", "label": "held-out accuracy", "kind": "share", "best": "max"},
        {"key": "micro", "label": "test, micro", "kind": "share"},
        {"key": "macro", "label": "test, macro", "kind": "share"},
        {"key": "seconds", "label": "fit", "kind": "seconds", "note": "one fit on all training pairs"},
    ]
    shown = [{column["key"]: row.get(column["key"]) for column in columns} for row in rows]
    report.add_section(
        "Head × objective × view",
        tables=[{"name": "heads", "title": "All domains in one model", "columns": columns, "rows": shown}],
    )
    by_domain = [
        {"domain": d}
        | {key: found[name]["domains"][d] for key, name in (("chosen", chosen["name"]), ("linear", linear["name"]))}
        | {"length": found["length only"]["domains"][d], "n": facts["n_by_domain"][d]}
        for d in facts["domains"]
    ]
    domain_columns = [
        {"key": "domain", "label": "domain"},
        {"key": "n", "label": "test pairs", "kind": "integer"},
        {"key": "linear", "label": "linear, Bradley-Terry", "kind": "share"},
        {"key": "chosen", "label": "chosen", "kind": "share"},
        {"key": "length", "label": "length only", "kind": "share"},
    ]
    tables = [{"name": "domains", "title": "By domain (test)", "columns": domain_columns, "rows": by_domain}]
    if chosen is not linear:
        tables.append(comparison_table(difference, chosen["name"], linear["name"], "difference"))
    report.add_section("The chosen head against the linear one", tables=tables)
    curve = curve_facts(
        {head: best_of(rows, head, views) for head in CURVE}, train, test, steps=2 if a.smoke else 5, n_seeds=3
    )
    report.add_section("What more prompts bring", tables=[curve_table(curve)])
    finish(report, "real_heads", a)


def best_of(rows: list[dict[str, Any]], head: str, views: dict[str, dict[str, Any]]) -> RewardModel:
    """Return the unfitted Bradley-Terry head with the view and the settings of least held-out log loss."""
    own = [row for row in rows if row["head"] == head and row["objective"] == "bradley-terry"]
    best = min(own, key=lambda row: row["held_out_log_loss"])
    return make(head, "bradley-terry", views[best["view"]], best["chosen"])


def model_dim(model: RewardModel) -> int:
    """Number of features that a head, or a member of an ensemble, reads."""
    one: Any = model.members_[0] if isinstance(model, EnsembleRewardModel) else model
    return int(one.n_features_in_)


if __name__ == "__main__":
    main()
