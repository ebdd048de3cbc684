"""What routing costs: fitting all its variants, scoring a million responses, and accuracy where domains agree.

Command: python benchmarks/routing_variants.py

Generated domains. Prompts lie in a cluster for each domain, near enough to one another that a router errs now and then.
Responses have a part of their prompt and a part of their own, whose spectrum falls as 1/k. A domain's known reward is linear
in the response, with standard deviation 2 within prompts; its direction has a part that all domains share and a part of its
own ("shared part" is the cosine of two domains' directions). Training labels are drawn by Bradley–Terry from the known
reward; accuracy is against its order, on pairs of other prompts.

Fitting: the variants of ``embedrm.experiments.variants``, experts linear with l2 by cross-validation, trunk of 64 units, on
pairs of unevenly many in twelve domains. Variants that no seed changes are fitted once by ``fit_variants``; the total that
is held against the limit counts every variant once for each seed.

Scoring: RODOS with twelve linear experts on responses of a memory-mapped file that has been read before, ten to a prompt;
from vectors to rewards, the routes of the prompts counted in. The peer is a plain loop: every expert scores every response,
and the gates of the same router weigh them.

Agreement: small domains that share one teacher, and domains half of which want the opposite of the others. Heads choose
their penalties on the training pairs; a mixture stands beside it with its default ones. Every draw has vectors, teachers,
labels and held-out prompts of its own; intervals are Student's over the draws, whose differences from the single head are
paired.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _domains import World, names, uneven
from _harness import command, finish, paired_seconds, parser, ratio_cell
from gbdt_on_the_graph import cells
from head_comparison import ANNOTATOR
from scipy.stats import t as student

from embedrm import (
    EmbeddedResponses,
    Featurizer,
    LinearHead,
    MixtureRewardModel,
    Report,
    RewardModel,
    RoutedRewardModel,
    annotate,
)
from embedrm.composites.pooled import PooledRewardModel
from embedrm.experiments.variants import GROUPS, SEEDED, SINGLE, WRONG, factories, fit_variants
from embedrm.numerics.ties import pair_credit
from embedrm.reporting import collect

FIT_LIMIT, SCORE_LIMIT = 180.0, 5.0
SHARED_PART = 0.5
PER_PROMPT = 10


# -- fitting -----------------------------------------------------------------------------------------------------------


def fitting_rows(dim: int, terms: list[str], a: argparse.Namespace) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Seconds of all variants, and a row for each of them."""
    rng = np.random.default_rng(dim)
    world = World.draw(rng, a.domains, dim, SHARED_PART)
    train = annotate(world.preferences(rng, uneven(a.pairs, a.domains)), ANNOTATOR, random_state=0)
    test = world.preferences(rng, uneven(a.held_out, a.domains))
    featurizer, seeds = Featurizer(terms, scale="rms"), range(a.seeds)
    start = time.perf_counter()
    found = fit_variants(train, {"test": test}, featurizer, seeds)
    took = time.perf_counter() - start
    credit = {name: pair_credit(variant.margins["test"]) for name, variant in found.items()}
    single = credit[SINGLE].mean(axis=0)
    columns = [c.mean(axis=0) for c in credit.values()]
    values = cells(np.stack([*columns, *(c - single for c in columns)], axis=1), test.prompt_rows)
    fitted = factories(featurizer)
    rows = []
    for j, name in enumerate(found):
        each = credit[name].mean(axis=1)
        seeded = {"value": float(each.mean()), "low": float(each.min()), "high": float(each.max())}
        one = found[name].seconds if name in fitted else None
        rows.append(
            {
                "group": f"{setting(dim, terms)}: {GROUPS[name]}",
                "variant": name,
                "seconds": one,
                "all_seeds": None if one is None else a.seeds * one,
                "fits": f"{a.seeds if name in SEEDED else 1}" if name in fitted else "–",
                "accuracy": values[j],
                "seeds": seeded if len(each) > 1 and name != WRONG else None,
                "lead": None if name == SINGLE else values[len(columns) + j],
            }
        )
        print(f"{setting(dim, terms)}: {name}: {found[name].seconds:.1f} s", file=sys.stderr)
    total = sum(a.seeds * found[name].seconds for name in fitted)
    return {"took": took, "total": total}, rows


def setting(dim: int, terms: list[str]) -> str:
    """Name of one setting."""
    return f"{dim} dimensions, {' and '.join(terms)}"


# -- scoring -----------------------------------------------------------------------------------------------------------


def big_responses(world: World, folder: Path, a: argparse.Namespace) -> EmbeddedResponses:
    """Prompts and responses written to disk and mapped from there, read once."""
    rng = np.random.default_rng(1)
    n, dim = a.prompts, world.centres.shape[1]
    domain_of = rng.integers(a.domains, size=n)
    shapes = {"prompt:final": (n, dim), "response:final": (n * PER_PROMPT, dim)}
    files = {view: folder / f"{view.partition(':')[0]}.npy" for view in shapes}
    out = {
        view: np.lib.format.open_memmap(files[view], "w+", dtype=np.float32, shape=shape)
        for view, shape in shapes.items()
    }
    for start in range(0, n, 5000):
        part = slice(start, min(start + 5000, n))
        prompts, responses = world.texts(rng, domain_of[part], PER_PROMPT)
        out["prompt:final"][part] = prompts
        out["response:final"][part.start * PER_PROMPT : part.stop * PER_PROMPT] = responses.reshape(-1, dim)
    for matrix in out.values():
        matrix.flush()
    views = {view: np.load(file, mmap_mode="r") for view, file in files.items()}
    for matrix in views.values():
        for start in range(0, len(matrix), 10_000):
            matrix[start : start + 10_000].sum()
    return EmbeddedResponses(views, np.repeat(np.arange(n), PER_PROMPT), domain=names(domain_of))


def by_loop(model: RoutedRewardModel, responses: EmbeddedResponses) -> np.ndarray:
    """Rewards of a routed model in the plain way: every expert scores everything, and the gates weigh the columns."""
    columns = np.stack([expert.predict(responses) for expert in model.experts_], axis=1)
    gates = model.router_.predict_proba(responses.view("prompt:final"))
    if model.routing == "hard":
        gates = np.eye(gates.shape[1])[gates.argmax(axis=1)]
    rewards: np.ndarray = (gates[responses.prompt_of] * ((columns - model.offset_) * model.scale_)).sum(axis=1)
    return rewards


def scoring_row(model: RoutedRewardModel, responses: EmbeddedResponses, repeats: int) -> dict[str, Any]:
    """Time a routed model beside the plain loop, and compare their rewards."""
    made: dict[str, np.ndarray] = {}

    def ours() -> None:
        made["ours"] = model.predict(responses)

    def loop() -> None:
        made["loop"] = by_loop(model, responses)

    seconds = paired_seconds({"ours": ours, "loop": loop, "route": lambda: model.gates(responses)}, repeats)
    low, high = min(seconds["ours"]), max(seconds["ours"])
    return {
        "routing": model.routing,
        "seconds": {"value": float(np.median(seconds["ours"])), "low": low, "high": high},
        "route": float(np.median(seconds["route"])),
        "loop": float(np.median(seconds["loop"])),
        "ratio": ratio_cell(seconds["loop"], seconds["ours"]),
        "difference": f"{float(np.abs(made['ours'] - made['loop']).max() / made['loop'].std()):.0e}",
    }


def scoring_rows(a: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds to route and score, hard and soft, beside the plain loop."""
    rng = np.random.default_rng(0)
    world = World.draw(rng, a.domains, a.score_dim, SHARED_PART)
    train = annotate(world.preferences(rng, uneven(a.score_pairs, a.domains)), ANNOTATOR, random_state=0)
    model = RoutedRewardModel(LinearHead(Featurizer(["r"], scale="rms"), l2=0.1)).fit(train)
    with tempfile.TemporaryDirectory() as folder:
        responses = big_responses(world, Path(folder), a)
        rows = [scoring_row(model.with_routing(routing), responses, a.repeats) for routing in ("hard", "soft")]
        # the maps are let go before their files
        del responses
    return rows


# -- agreement ---------------------------------------------------------------------------------------------------------

SOFT, ORACLE_HEADS, POOLED = "independent heads", "independent heads, oracle", "partial pooling"
MIXTURE = "mixture, penalties chosen"
# As wide as the single head's.
MIXTURE_GRID = (0.01, 0.1, 1.0, 10.0)
CASES = {"one teacher for all domains": 1.0, "half of the domains want the opposite": -1.0}


def agreement_draw(shared: float, seed: int, a: argparse.Namespace) -> tuple[dict[str, float], float]:
    """Accuracies of the heads on one draw, the single one first, and the router's."""
    rng = np.random.default_rng([seed, int(shared > 0)])
    world = World.draw(rng, a.domains, a.agreement_dim, shared)
    sizes = rng.integers(a.smallest, a.largest, size=a.domains, endpoint=True)
    train = annotate(world.preferences(rng, np.repeat(np.arange(a.domains), sizes)), ANNOTATOR, random_state=seed)
    test = world.preferences(rng, np.repeat(np.arange(a.domains), a.held_out // a.domains))
    linear = LinearHead(Featurizer(["r"], scale="rms"), l2="cv")
    routed, pooled = RoutedRewardModel(linear).fit(train), PooledRewardModel(linear).fit(train)
    models: dict[str, RewardModel] = {
        "single head": linear.fit(train),
        SOFT: routed,
        f"{SOFT}, hard": routed.with_routing("hard"),
        ORACLE_HEADS: routed.with_routing("oracle"),
        POOLED: pooled,
        f"{POOLED}, oracle": pooled.with_routing("oracle"),
        "mixture, default penalties": MixtureRewardModel(linear.featurizer, random_state=seed).fit(train),
        MIXTURE: MixtureRewardModel(
            linear.featurizer, l2="cv", l2_shared="cv", l2_grid=MIXTURE_GRID, random_state=seed
        ).fit(train),
    }
    router = routed.router_.score(test.responses.view("prompt:final"), test.responses.domain)
    return {name: float(pair_credit(model.margins(test)).mean()) for name, model in models.items()}, router


def over_draws(values: np.ndarray) -> dict[str, float]:
    """Mean over the first axis with Student's 95 % interval."""
    mean, n = float(values.mean()), len(values)
    half = float(student.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return {"value": mean, "low": mean - half, "high": mean + half}


def agreement_rows(a: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Accuracies and their differences from the single head's, and the router's accuracy, by case."""
    rows, routers = [], {}
    for case, shared in CASES.items():
        draws = []
        for seed in range(a.draws):
            draws.append(agreement_draw(shared, seed, a))
            print(f"{case}: draw {seed}", file=sys.stderr)
        found = {name: np.array([accuracies[name] for accuracies, _ in draws]) for name in draws[0][0]}
        routers[case] = float(np.mean([router for _, router in draws]))
        single = found["single head"]
        for name, accuracy in found.items():
            lead = None if accuracy is single else over_draws(accuracy - single)
            rows.append({"case": case, "model": name, "accuracy": over_draws(accuracy), "lead": lead})
    return rows, routers


def agreement_summary(rows: list[dict[str, Any]]) -> list[str]:
    """Sentences whose words follow from the intervals."""
    case = next(iter(CASES))
    lead = {row["model"]: row["lead"] for row in rows if row["case"] == case}
    said = []
    for name in (POOLED, MIXTURE, SOFT, ORACLE_HEADS):
        at = lead[name]
        figures = f"{100 * at['value']:+.2f} [{100 * at['low']:+.2f}, {100 * at['high']:+.2f}] points"
        below = at["high"] < 0.0
        said.append(
            f"{case}: {name} against the single head {figures}: {'below' if below else 'not below'} it beyond the interval"
            + (" (MISSES)" if below == (name in (POOLED, MIXTURE)) else "")
        )
    return said


# -- the report --------------------------------------------------------------------------------------------------------

Section = tuple[list[str], str, dict[str, Any]]


def column(key: str, label: str, kind: str = "text", **more: Any) -> dict[str, Any]:
    """One column of a table."""
    return {"key": key, "label": label, "kind": kind, **more}


def fitting_section(a: argparse.Namespace) -> Section:
    """Findings, heading and table of the fits."""
    rows: list[dict[str, Any]] = []
    summary = []
    for dim, terms in a.settings:
        totals, found = fitting_rows(dim, terms, a)
        rows += found
        kept = "within" if totals["total"] <= FIT_LIMIT else "MISSES"
        summary.append(
            f"{setting(dim, terms)}: all {len(factories(Featurizer()))} variants × {a.seeds} seeds on {a.pairs:,} pairs: "
            f"{totals['total']:.0f} s ({kept} the limit of {FIT_LIMIT:.0f} s); {totals['took']:.0f} s as fit_variants runs, "
            "with the held-out margins, and what no seed changes fitted once"
        )
    columns = [
        column("group", "group"),
        column("variant", "variant"),
        column("seconds", "one fit", "seconds", note="mean of the fits made"),
        column("fits", "fits", note="made; the dash shares the fit of another row"),
        column("all_seeds", "all seeds", "seconds", note=f"{a.seeds} times one fit"),
        column("accuracy", "accuracy", "interval", note="order of the known reward, mean of seeds"),
        column("seeds", "seeds", "interval", note="the same, least and most of the seeds"),
        column("lead", "lead", "interval", digits=4, note="less the single head's, paired"),
    ]
    caption = (
        f"{a.pairs:,} training pairs and {a.held_out:,} held-out ones of other prompts in {a.domains} domains, float32, "
        f"shared part {SHARED_PART}. Intervals resample held-out prompts. A head's features: the dimensions, with p*r twice."
    )
    table = {
        "name": "fit",
        "title": "Seconds to fit, and accuracy",
        "columns": columns,
        "rows": rows,
        "caption": caption,
    }
    return summary, "Fitting all variants", table | {"row_groups": "group"}


def scoring_section(a: argparse.Namespace) -> Section:
    """Findings, heading and table of the scoring."""
    rows, n = scoring_rows(a), a.prompts * PER_PROMPT
    summary = [
        f"{r['routing']} routing and scoring of {n:,} responses, {a.domains} linear experts: {r['seconds']['value']:.1f} s "
        f"({'within' if r['seconds']['value'] <= SCORE_LIMIT else 'MISSES'} the limit of {SCORE_LIMIT:.0f} s), a plain loop "
        f"{r['loop']:.1f} s"
        for r in rows
    ]
    note = "median, least and most of the paired runs"
    columns = [
        column("routing", "routing"),
        column("seconds", "route and score, s", "interval", digits=2, note=note),
        column("route", "of it, routing", "seconds", note="timed by itself"),
        column("loop", "plain loop", "seconds", note="every expert scores every response"),
        column("ratio", "loop / ours", "interval", digits=2, note=note),
        column("difference", "difference", note="largest, in standard deviations of the rewards"),
    ]
    caption = (
        f"{a.prompts:,} prompts × {PER_PROMPT} responses, {a.score_dim} dimensions, float32, mapped from a file in the "
        f"page cache; {a.domains} linear experts on r."
    )
    table = {
        "name": "score",
        "title": "Seconds to route and score",
        "columns": columns,
        "rows": rows,
        "caption": caption,
    }
    return summary, "Routing and scoring a million responses", table


def agreement_section(a: argparse.Namespace) -> Section:
    """Findings, heading and table of the agreeing and the opposite domains."""
    rows, routers = agreement_rows(a)
    columns = [
        column("case", "case"),
        column("model", "model"),
        column("accuracy", "accuracy", "interval", note="order of the known reward"),
        column("lead", "lead", "interval", digits=4, note="less the single head's, paired"),
    ]
    routed = ", ".join(f"{case} {value:.3f}" for case, value in routers.items())
    caption = (
        f"{a.draws} draws of {a.domains} domains with {a.smallest} to {a.largest} training pairs each and "
        f"{a.held_out // a.domains} held-out ones, {a.agreement_dim} dimensions, features r, routing soft unless named. "
        f"Student's 95 % intervals over draws. Accuracy of the router: {routed}."
    )
    table = {"name": "agree", "title": "Accuracy by case", "columns": columns, "rows": rows, "caption": caption}
    return agreement_summary(rows), "Where domains agree, and where not", table | {"row_groups": "case"}


SECTIONS = {"fit": fitting_section, "score": scoring_section, "agree": agreement_section}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=20_000)
    options.add_argument("--held-out", type=int, default=6_000)
    options.add_argument("--domains", type=int, default=12)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--prompts", type=int, default=100_000, help="prompts to route, ten responses each")
    options.add_argument("--draws", type=int, default=8, help="draws of the agreeing and of the opposite domains")
    options.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    a = options.parse_args()
    a.settings = ((384, ["r"]), (768, ["r"]), (384, ["r", "p*r"]))
    a.score_dim, a.score_pairs, a.agreement_dim = 384, 6_000, 384
    a.smallest, a.largest = 400, 1000
    if a.smoke:
        a.pairs, a.held_out, a.domains, a.seeds, a.prompts, a.draws, a.repeats = 300, 120, 3, 2, 100, 2, 2
        a.settings = ((8, ["r"]), (8, ["r", "p*r"]))
        a.score_dim, a.score_pairs, a.agreement_dim, a.smallest, a.largest = 8, 150, 8, 40, 60
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    made = [SECTIONS[name](a) for name in a.sections]
    report = Report(
        "benchmark",
        "What routing costs",
        summary=[line for summary, _, _ in made for line in summary],
        provenance=collect(started=started, seeds=list(range(a.seeds)), command=command(__file__, a)),
    )
    for _, heading, table in made:
        report.add_section(heading, tables=[table])
    finish(report, "routing_variants", a)


if __name__ == "__main__":
    main()
