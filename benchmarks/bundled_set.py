"""What the bundled data set asks of heads and routers: conflict, agreement, hardness, and phrasings held out.

Command: python benchmarks/bundled_set.py

The figures of the data set card. Linear heads with the default encoder and layers, l2 by cross-validation on training
pairs. Shared head minus oracle routing shows conflict (domains that want opposite things) and agreement (domains graded by
one rule); every head must fail on the hard domain; the router is judged on phrasings that training has not seen. Where
domains agree, routing must not cost: independent and pooled heads against the shared one, trained on all domains and on the
agreeing ones alone, all their pairs and few.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from _harness import command, finish, parser

from embedrm import (
    Featurizer,
    LengthHead,
    LinearHead,
    LogisticRouter,
    PooledRewardModel,
    Report,
    RoutedRewardModel,
    encode,
    load_bundled,
    load_encoder,
)
from embedrm.datasets.bundled import AGREEING, CONFLICTS, HARD
from embedrm.evaluation import accuracy_facts, comparison_facts
from embedrm.preferences import EmbeddedPreferences
from embedrm.progress import bars
from embedrm.reporting import Column, Table, collect
from embedrm.reporting.accuracy import accuracy_table
from embedrm.routers.base import prompt_examples, prompt_vectors

FEW = (30, 10)
FEATURES = {"r": Featurizer(["r"]), "r and p*r": Featurizer(["r", "p*r"])}


def _of(part: EmbeddedPreferences, domains: tuple[str, ...]) -> EmbeddedPreferences:
    return part[np.isin(part.domain, domains)]


def _differences(models: dict[str, Any], part: EmbeddedPreferences, split: str, features: str) -> list[dict[str, Any]]:
    """Shared head minus oracle routing on the conflicting and on the agreeing domains."""
    rows = []
    for label, domains in (
        *((f"conflict: {a}, {b}", (a, b)) for a, b in CONFLICTS),
        ("all conflicting", tuple(d for pair in CONFLICTS for d in pair)),
        (f"agreement: {', '.join(AGREEING)}", AGREEING),
    ):
        here = _of(part, domains)
        if not len(here):
            continue
        facts = comparison_facts(models["shared head"].margins(here), models["oracle routing"].margins(here), here)
        difference = {k: facts["macro"][k] for k in ("value", "low", "high")}
        row = {
            "split": split,
            "features": features,
            "domains": label,
            "difference": difference,
            "p": facts["macro"]["p"],
        }
        rows.append({**row, "n": len(here)})
    return rows


def _router(routed: RoutedRewardModel, part: EmbeddedPreferences, split: str) -> dict[str, Any]:
    prompts = part.active_prompts
    truth = part.responses.domain[prompts]
    found = routed.router_.predict(prompt_vectors(part.responses, routed.router_views_, prompts))
    per = {f"d{i}": float((found[truth == d] == d).mean()) for i, d in enumerate(routed.domains_)}
    return {"split": split, "prompts": len(prompts), "accuracy": float((found == truth).mean()), **per}


def _agreeing(train: EmbeddedPreferences, part: EmbeddedPreferences, featurizer: Featurizer) -> list[dict[str, Any]]:
    """Independent and pooled heads less the shared one on the agreeing domains, by what they are trained on."""
    own, here = _of(train, AGREEING), _of(part, AGREEING)
    rows = []
    for label, pairs in (
        ("all domains", train),
        ("agreeing domains alone", own),
        *((f"agreeing domains, {n} prompt groups of each", _few(own, n)) for n in FEW),
    ):
        head = LinearHead(featurizer, l2="cv")
        single = head.fit(pairs).margins(here)
        routed, pooled = RoutedRewardModel(head).fit(pairs), PooledRewardModel(head).fit(pairs)
        for name, model in (
            ("independent heads, soft", routed),
            ("independent heads, oracle", routed.with_routing("oracle")),
            ("partial pooling, soft", pooled),
        ):
            found = comparison_facts(model.margins(here), single, here)["micro"]
            cell = {k: found[k] for k in ("value", "low", "high")}
            below = "below" if found["high"] < 0 else "not below"
            rows.append({"trained": label, "n": len(pairs), "model": name, "difference": cell, "verdict": below})
    return rows


def _few(prefs: EmbeddedPreferences, n: int) -> EmbeddedPreferences:
    """Pairs of n prompt groups of each domain, drawn once."""
    rng = np.random.default_rng(0)
    kept = [rng.permutation(np.unique(prefs.groups[prefs.domain == d]))[:n] for d in prefs.domains]
    return prefs[np.isin(prefs.groups, np.concatenate(kept))]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--splits", default="test,heldout", help="splits to evaluate on")
    a = options.parse_args()
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    data = load_bundled()
    with bars() as progress:
        prefs = encode(data, "hashing:64" if a.smoke else None, store=False if a.smoke else None, progress=progress)
    tokens = int(prefs.responses.covariates["tokens"].sum())
    if not a.smoke:
        tokens += int(load_encoder().count_tokens(data.prompt_texts())[0].sum())
        report_tokens = f"{tokens:,} tokens of the default encoder in all prompts and responses."
    train = prefs.in_split("train")
    parts = {name: prefs.in_split(name) for name in a.splits.split(",")}
    report = Report("benchmark", "The bundled data set", summary=[] if a.smoke else [report_tokens])
    differences: list[dict[str, Any]] = []
    routes: list[dict[str, Any]] = []
    for features, featurizer in list(FEATURES.items())[: 1 if a.smoke else None]:
        routed = RoutedRewardModel(LinearHead(featurizer, l2="cv")).fit(train)
        models: dict[str, Any] = {"shared head": LinearHead(featurizer, l2="cv").fit(train)}
        models |= {f"{r} routing": routed.with_routing(r) for r in ("hard", "soft", "oracle", "random")}
        models["length only"] = LengthHead().fit(train)
        tables = []
        for split, part in parts.items():
            logits = {name: m.margins_are_logits for name, m in models.items()}
            facts = accuracy_facts({name: m.margins(part) for name, m in models.items()}, part, logits=logits)
            name = f"accuracy-{split}-{list(FEATURES).index(features)}"
            tables.append(accuracy_table(facts, name, f"Accuracy, {split}, features {features}"))
            differences += _differences(models, part, split, features)
            if features == "r":
                routes.append(_router(routed, part, split))
            for row in facts["rows"]:
                if row["model"] in ("shared head", "oracle routing") and HARD in row["domains"]:
                    cell = row["domains"][HARD]
                    interval = f"{cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"
                    report.summary.append(f"{HARD}, {row['model']}, {features}, {split}: {interval}")
        report.add_section(f"Features {features}", tables=tables)
    columns = [Column("split", "split"), Column("features", "features"), Column("domains", "domains")]
    columns += [
        Column("difference", "shared head − oracle routing (macro)", "interval"),
        Column("p", "p (clustered)", "p"),
    ]
    columns += [Column("n", "pairs", "integer")]
    report.add_section(
        "Conflict and agreement", tables=[Table("differences", "Shared minus oracle", columns, differences)]
    )
    agreeing = _agreeing(train, parts[next(iter(parts))], FEATURES["r"])
    columns = [Column("trained", "trained on"), Column("n", "pairs", "integer"), Column("model", "model")]
    columns += [
        Column("difference", "less the shared head (micro)", "interval"),
        Column("verdict", "beyond its interval"),
    ]
    report.add_section(
        "Where domains agree",
        tables=[Table("agreeing", f"{', '.join(AGREEING)}, {next(iter(parts))}, features r", columns, agreeing)],
    )
    columns = [Column("split", "split"), Column("prompts", "prompts", "integer"), Column("accuracy", "all", "share")]
    columns += [Column(f"d{i}", d, "share") for i, d in enumerate(routed.domains_)]
    report.add_section("Router", tables=[Table("router", "Prompts sent to their own domain", columns, routes)])
    columns = [Column("view", "prompt layers"), Column("accuracy", "out-of-fold accuracy, training prompts", "share")]
    rows = []
    for view in ("final",) if a.smoke else ("2", "4", "6", "2,4,6"):
        router = LogisticRouter(view=view)
        examples = prompt_examples(train, router.resolve_views(prefs.responses.views), "benchmark")
        rows.append({"view": view, "accuracy": router.fit(*examples).out_of_fold_["accuracy"]})
    report.add_section("Layers for the router", tables=[Table("router-layers", "Which prompt layers", columns, rows)])
    info = prefs.responses.info
    report.provenance = collect(
        started=started, seeds=0, encoder=info["encoder"], data=info["data"], command=command(__file__, a)
    )
    finish(report, "bundled_set", a)


if __name__ == "__main__":
    main()
