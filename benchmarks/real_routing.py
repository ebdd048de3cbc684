"""One head or one for each domain, on human-labelled files: a model chosen on validation against the single head.

Command: python benchmarks/real_routing.py --data FOLDER

Every row of ten files, their own splits, domains as in the files. The fixed words that some files put before every prompt
of a domain ("Summarize this article:") are taken out, since a router would read the domain off them. All models have the
same features, `r` and `p*r` of layers 2, 4, 6 (p of layer 4), whose held-out log loss on training prompts is the lowest in
`real_heads`. Every candidate, single heads of five penalties among them, is judged by the log loss of its margins for
training pairs whose prompt groups it was not fitted on, in three folds (one held-out fifth would have four of the debates'
topics, and so judge a router by four). Among them are two averages: of the pooled model and the dense mixture, and of
these and the single head (`average with the single head`). The best routed, mixed or averaged one and the best single one
are those fitted again on all training pairs. No test pair is read before that. Every candidate is then shown on the test
pairs too, which decides nothing. Beside them: routing by the true domain (of the unpooled experts), at random, the mean of
five perceptrons and boosted trees as single models, and the length alone. Intervals are clustered by prompt group.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from _harness import command, finish, parser
from _real import FILES, add_options, vectors
from real_heads import judged

from embedrm import (
    EmbeddedPreferences,
    EnsembleRewardModel,
    Featurizer,
    GBDTHead,
    LengthHead,
    LinearHead,
    LogisticRouter,
    MixtureRewardModel,
    MLPHead,
    PooledRewardModel,
    Report,
    RewardModel,
    RoutedRewardModel,
)
from embedrm.evaluation import accuracy_facts, comparison_facts
from embedrm.evaluation.claims import Region
from embedrm.experiments.variants import wrong_margins
from embedrm.numerics.folds import group_folds
from embedrm.reporting import collect
from embedrm.reporting.accuracy import accuracy_figure, accuracy_table, comparison_table

L2 = (1e-2, 3e-2, 1e-1, 3e-1, 1.0)
VIEW = {"terms": ["r", "p*r"], "response": "2,4,6", "prompt": "4", "scale": "rms"}
SMOKE_VIEW = {"terms": ["r"], "response": "final", "scale": "rms"}
FOLDS = 3
POOLED, DENSE, PLAIN = "pooled, soft, router by pairs", "mixture, dense", "single, l2 0.3"
AVERAGES = {"average, pooled and dense": (POOLED, DENSE), "average with the single head": (POOLED, DENSE, PLAIN)}
SMOKE = (PLAIN, "RODOS", "pooled", DENSE)
BAR = 0.02
DOMAIN_BAR = -0.01


def candidates(view: dict[str, Any]) -> dict[str, dict[str, Callable[[], RewardModel]]]:
    """Unfitted models by name, in families; those of one family share their tuning."""
    f = Featurizer(**view)
    expert = LinearHead(f, l2="cv", l2_grid=L2, tol=1e-7)
    singles = {f"single, l2 {l2:g}": lambda l2=l2: LinearHead(f, l2=l2, tol=1e-7) for l2 in L2}
    routed = {"RODOS": lambda: RoutedRewardModel(expert), "pooled": lambda: PooledRewardModel(expert)}
    mixtures = {
        "MoRE": lambda: MixtureRewardModel(f, shared=False, supervision=0.0),
        "MoRE, labelled gate": lambda: MixtureRewardModel(f, shared=False),
        "mixture": lambda: MixtureRewardModel(f),
        "mixture, dense": lambda: MixtureRewardModel(f, k=None),
        "mixture, l2 0.1": lambda: MixtureRewardModel(f, l2=0.1),
        "mixture, l2 0.5": lambda: MixtureRewardModel(f, l2=0.5),
        "mixture, gate without labels": lambda: MixtureRewardModel(f, supervision=0.0),
    }
    return {"single": singles, "routed": routed | mixtures}


def routes(name: str, model: RewardModel, training: EmbeddedPreferences) -> dict[str, RewardModel]:
    """A fitted model under its routings, with routers that count prompts alike or by their pairs."""
    if not isinstance(model, RoutedRewardModel):
        return {name: model}
    by_pairs = model.with_router(LogisticRouter(), training, prompt_weight="pairs")
    return {
        f"{name}, {routing}{label}": one.with_routing(routing)
        for label, one in (("", model), (", router by pairs", by_pairs))
        for routing in ("soft", "hard")
    }


def main() -> None:
    options = parser(__doc__)
    add_options(options)
    a = options.parse_args()
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    prefs = vectors(a, "2,4,6,final", task_lines=False)
    train, test = prefs.in_split("train"), prefs.in_split("test")

    def say(what: str) -> None:
        print(f"{time.perf_counter() - started:.0f} s: {what}", file=sys.stderr, flush=True)

    families = candidates(SMOKE_VIEW if a.smoke else VIEW)
    makers = {n: make for members in families.values() for n, make in members.items() if not a.smoke or n in SMOKE}

    def fitted_on(part: EmbeddedPreferences) -> tuple[dict[str, RewardModel], dict[str, float]]:
        """Every candidate fitted on some pairs, and the seconds of each fit."""
        models: dict[str, RewardModel] = {}
        seconds: dict[str, float] = {}
        for name, make in makers.items():
            start = time.perf_counter()
            model = make().fit(part)
            took = time.perf_counter() - start
            found = routes(name, model, part)
            models |= found
            seconds |= dict.fromkeys(found, took)
            say(f"{name}: {took:.0f} s")
        return models, seconds

    def with_averages(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        # the mean reward of models whose rewards are all in log-odds
        return found | {name: np.mean([found[m] for m in members], axis=0) for name, members in AVERAGES.items()}

    held: dict[str, np.ndarray] = {}
    for k, (inside, outside) in enumerate(group_folds(train.groups, FOLDS)):
        say(f"fold {k + 1} of {FOLDS}")
        for name, model in fitted_on(train[inside])[0].items():
            held.setdefault(name, np.full(len(train), np.nan))[outside] = model.margins(train[outside])
    held = with_averages(held)
    say("all training pairs")
    fitted, seconds = fitted_on(train)
    seconds |= {name: sum(seconds[m] for m in members) for name, members in AVERAGES.items()}
    margins = with_averages({name: model.margins(test) for name, model in fitted.items()})
    logits = dict.fromkeys(margins, True)
    rows = [
        {
            "name": name,
            "family": "single" if name in families["single"] else "routed",
            "seconds": seconds[name],
            **judged(held[name], train),
        }
        for name in margins
    ]
    best = {f: min((r for r in rows if r["family"] == f), key=lambda r: r["log_loss"]) for f in ("single", "routed")}
    chosen, single = best["routed"]["name"], best["single"]["name"]
    rodos = next(m for m in fitted.values() if type(m) is RoutedRewardModel)
    view = SMOKE_VIEW if a.smoke else VIEW
    f = Featurizer(**view)
    others: dict[str, RewardModel] = {
        "oracle routing": rodos.with_routing("oracle"),
        "random routing": rodos.with_routing("random"),
        "five perceptrons": EnsembleRewardModel(
            MLPHead(f, l2=1e-2, dropout=0.3), n_members=5, kind="seeds", standardise=False
        ).fit(train),
        "boosted trees": GBDTHead(Featurizer(**view | {"scale": "none"}), max_trees=400, feature_fraction=0.2).fit(
            train
        ),
        "length only": LengthHead().fit(train),
    }
    for name, model in others.items():
        margins[name], logits[name] = model.margins(test), model.margins_are_logits
        say(name)
    margins["wrong routing"], logits["wrong routing"] = wrong_margins(rodos, test), True
    facts = accuracy_facts(margins, test, logits=logits)
    found = {row["model"]: row for row in facts["rows"]}
    difference = comparison_facts(margins[chosen], margins[single], test, n_resamples=10_000)
    singles = {n: comparison_facts(margins[chosen], margins[n], test) for n in ("five perceptrons", "boosted trees")}
    gain = {s: found["oracle routing"][s]["value"] - found[single][s]["value"] for s in ("micro", "macro")}
    share = {s: difference[s]["value"] / gain[s] if gain[s] > 0 else None for s in gain}
    worse = [d for d, c in difference["domains"].items() if c["high"] < DOMAIN_BAR]
    bar = {s: Region(least=BAR).verdict(difference[s]["low"], difference[s]["high"]) for s in ("micro", "macro")}

    def signed(cell: dict[str, float]) -> str:
        return f"{100 * cell['value']:+.1f} points [{100 * cell['low']:+.1f}, {100 * cell['high']:+.1f}]"

    report = Report(
        "benchmark",
        "Shared, routed and mixed heads on human-labelled pairs",
        summary=[
            f"chosen on validation: {chosen}; single: {single}",
            *(
                f"{s}: {found[chosen][s]['value']:.3f} against {found[single][s]['value']:.3f}, {signed(difference[s])}, "
                f"p {difference[s]['p']:.4f}; at least two points: {bar[s]}; "
                + (f"{share[s]:.0%} of the oracle's gain" if share[s] is not None else "the oracle gains nothing")
                for s in ("micro", "macro")
            ),
            "domains whose interval lies below -1 point: " + (", ".join(worse) or "none"),
            *(f"against {name}: {signed(c['micro'])} micro, {signed(c['macro'])} macro" for name, c in singles.items()),
        ],
        notes=[
            "Files: " + ("the bundled set (smoke run)" if a.smoke else ", ".join(FILES)) + "; every row, own splits.",
            f"{len(train):,} training pairs, in {FOLDS} folds for the choice; {len(test):,} test pairs.",
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
        {"key": "name", "label": "candidate"},
        {"key": "log_loss", "label": "held-out log loss", "kind": "number", "digits": 4, "best": "min"},
        {"key": "accuracy", "label": "held-out accuracy", "kind": "share", "best": "max"},
        {"key": "micro", "label": "test, micro", "kind": "interval"},
        {"key": "macro", "label": "test, macro", "kind": "interval"},
        {"key": "seconds", "label": "fit", "kind": "seconds", "note": "one fit on all training pairs"},
    ]
    shown = [{c["key"]: {**found[row["name"]], **row}.get(c["key"]) for c in columns} for row in rows]
    report.add_section(
        "Candidates",
        tables=[{"name": "candidates", "title": "Chosen by the first column", "columns": columns, "rows": shown}],
    )
    main_names = [
        single,
        chosen,
        *(n for n in margins if n.startswith("RODOS")),
        *others,
        "wrong routing",
    ]
    main_facts = facts | {"rows": [found[n] for n in dict.fromkeys(main_names)]}
    report.add_section(
        "Test accuracy by domain",
        tables=[
            accuracy_table(main_facts, "accuracy", "Test accuracy"),
            comparison_table(difference, chosen, single, "difference"),
        ],
        figures=[accuracy_figure(main_facts, [single, chosen, "oracle routing"], "accuracy")],
    )
    routers = [
        {"router": name, **model.router_.out_of_fold_, "n": model.router_.n_features_in_}
        for name, model in fitted.items()
        if name in ("RODOS, soft", "RODOS, soft, router by pairs") and isinstance(model, RoutedRewardModel)
    ]
    router_columns = [
        {"key": "router", "label": "model"},
        {"key": "accuracy", "label": "out-of-fold accuracy", "kind": "share"},
        {"key": "log_loss", "label": "out-of-fold log loss", "kind": "number", "digits": 3},
    ]
    router_rows = [{c["key"]: row.get(c["key"]) for c in router_columns} for row in routers]
    report.add_section(
        "Routers",
        tables=[{"name": "routers", "title": "On training prompts", "columns": router_columns, "rows": router_rows}],
    )
    finish(report, "real_routing", a)


if __name__ == "__main__":
    main()
