"""A sweep over 21 lambdas against one evaluation: linear heads in two products, perceptrons in two first layers.

Command: OMP_NUM_THREADS=1 python benchmarks/merge_sweep.py

Linear heads: ``sweep_heads`` over 0 to 1 by 0.05, which gives accuracy, log loss and the spread of margins at every lambda,
in all and by domain, against one evaluation of one head on the same pairs: ``margins`` and ``accuracy_facts`` with a single
bootstrap draw, so that next to nothing of it is intervals. Beside it what an evaluation with intervals takes, and a sweep
over one lambda, which has the overhead of a sweep and is the strictest that it can be held against. Pairs are laid out
as two, four and five responses a prompt: the fewer responses, the less an evaluation costs beside what every lambda costs.
Perceptrons: the sweep of merged trunks against the passes of as many merged heads, one after another; margins must agree.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from typing import Any

import numpy as np
from _harness import command, finish, paired_seconds, parser, ratio_cell

from embedrm import EmbeddedPreferences, Featurizer, LinearHead, MLPHead, Report, merge_heads
from embedrm.evaluation import accuracy_facts
from embedrm.merging.sweep import LAMBDAS, sweep_heads, sweep_margins
from embedrm.merging.trunks import train_trunk
from embedrm.reporting import collect

LIMIT = 1.5
DOMAINS = ("arithmetic", "code", "history", "science", "summary")


def preferences(n_pairs: int, k: int, dim: int) -> EmbeddedPreferences:
    """All pairs of k responses to each prompt, of five domains, ordered by a noisy linear reward."""
    rng = np.random.default_rng(k)
    first, second = np.triu_indices(k, 1)
    n_prompts = n_pairs // len(first)
    x = rng.normal(size=(n_prompts * k, dim)).astype(np.float32)
    reward = x @ rng.normal(size=dim) + rng.normal(scale=dim**0.5, size=len(x))
    pairs = (np.arange(n_prompts)[:, None, None] * k + np.stack([first, second], axis=1)).reshape(-1, 2)
    wrong = reward[pairs[:, 0]] < reward[pairs[:, 1]]
    pairs = np.where(wrong[:, None], pairs[:, ::-1], pairs)
    return EmbeddedPreferences.from_arrays(
        x, pairs, prompt_of=np.repeat(np.arange(n_prompts), k), domain=rng.choice(DOMAINS, n_prompts)
    )


def linear_row(k: int, a: argparse.Namespace) -> dict[str, Any]:
    """Time a sweep of two linear heads against evaluations of one."""
    prefs = preferences(a.pairs, k, a.dim)
    featurizer = Featurizer(scale="none")
    general, domain = (
        LinearHead(featurizer, l2=l2).fit(prefs[part])
        for l2, part in ((1.0, slice(0, a.pairs // 10)), (0.1, slice(a.pairs // 10, a.pairs // 5)))
    )
    jobs = {
        "sweep": lambda: sweep_heads(general, domain, prefs),
        "evaluation": lambda: accuracy_facts({"general": general.margins(prefs)}, prefs, n_resamples=1),
        "one": lambda: sweep_heads(general, domain, prefs, lambdas=(0.0,)),
    }
    for job in jobs.values():
        job()
    seconds = paired_seconds(jobs, a.repeats)
    whole = paired_seconds({"whole": lambda: accuracy_facts({"general": general.margins(prefs)}, prefs)}, 1)["whole"]
    return {
        "layout": f"{k} responses a prompt",
        "pairs": len(prefs),
        "responses": prefs.responses.n_responses,
        **{name: float(np.median(values)) for name, values in seconds.items()},
        "ratio": ratio_cell(seconds["sweep"], seconds["evaluation"]),
        "strict": ratio_cell(seconds["sweep"], seconds["one"]),
        "whole": whole[0],
    }


def perceptron_row(hidden: tuple[int, ...], a: argparse.Namespace) -> dict[str, Any]:
    """Time a sweep of merged trunks against as many merged heads."""
    prefs = preferences(a.pairs, 2, a.dim)
    some = prefs[: a.pairs // 10]
    start = MLPHead(hidden=hidden).initialise(some)
    general = MLPHead(hidden=hidden, max_epochs=2).fit_from(some, start)
    domain = train_trunk(start, some, "denoise", max_epochs=2)
    found: dict[str, np.ndarray] = {}

    def sweep() -> None:
        found["sweep"] = sweep_margins(general, domain, {"pairs": prefs}, layers="trunk")["pairs"]

    def passes() -> None:
        merged = (merge_heads([general, domain], [1.0 - lam, lam], layers="trunk") for lam in LAMBDAS)
        found["passes"] = np.stack([head.margins(prefs) for head in merged])

    repeats = max(1, a.repeats // 3)
    jobs = {"sweep": sweep, "passes": passes, "one": lambda: general.margins(prefs)}
    seconds = paired_seconds(jobs, repeats)
    return {
        "hidden": "-".join(str(width) for width in hidden),
        **{name: float(np.median(values)) for name, values in seconds.items()},
        "ratio": ratio_cell(seconds["passes"], seconds["sweep"]),
        "against_one": ratio_cell(seconds["sweep"], seconds["one"]),
        "difference": f"{float(np.abs(found['sweep'] - found['passes']).max() / np.abs(found['passes']).max()):.1e}",
    }


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(repeats=15)
    options.add_argument("--pairs", type=int, default=20_000)
    options.add_argument("--dim", type=int, default=384)
    a = options.parse_args()
    shapes: tuple[tuple[int, ...], ...] = ((64,), (128, 64))
    if a.smoke:
        a.pairs, a.dim, a.repeats = 400, 8, 2
        shapes = ((6,),)
    warnings.simplefilter("ignore")
    started, load = time.perf_counter(), os.getloadavg()[0]
    linear = [linear_row(k, a) for k in (2, 4, 5)]
    perceptrons = [perceptron_row(hidden, a) for hidden in shapes]
    summary = [
        f"{len(LAMBDAS)} lambdas of linear heads, {r['pairs']:,} pairs, {r['layout']}: {r['ratio']['value']:.2f} times one "
        f"evaluation ({'within' if r['ratio']['value'] <= LIMIT else 'MISSES'} the limit of {LIMIT}); "
        f"{r['strict']['value']:.2f} times a sweep over one lambda"
        for r in linear
    ]
    summary += [
        f"{len(LAMBDAS)} lambdas of merged trunks {r['hidden']}: {r['ratio']['value']:.1f} times as fast as as many passes"
        for r in perceptrons
    ]
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    summary.append(f"load average of the machine before the run: {load:.2f}; OMP_NUM_THREADS: {threads}")
    report = Report(
        "benchmark",
        "A sweep over lambda against one evaluation",
        summary=summary,
        provenance=collect(started=started, seeds=0, command=command(__file__, a)),
    )
    note = "median, least and most of the paired runs"
    columns = [
        {"key": "layout", "label": "pairs"},
        {"key": "pairs", "label": "number", "kind": "integer"},
        {"key": "responses", "label": "responses", "kind": "integer"},
        {"key": "sweep", "label": "sweep", "kind": "seconds"},
        {
            "key": "evaluation",
            "label": "evaluation",
            "kind": "seconds",
            "note": "margins, accuracy, log loss, by domain",
        },
        {"key": "ratio", "label": "sweep / evaluation", "kind": "interval", "digits": 2, "note": note},
        {"key": "one", "label": "one lambda", "kind": "seconds"},
        {"key": "strict", "label": "sweep / one lambda", "kind": "interval", "digits": 2, "note": note},
        {"key": "whole", "label": "evaluation with intervals", "kind": "seconds", "note": "one run"},
    ]
    caption = f"{a.pairs:,} pairs, {a.dim} dimensions, float32, {len(DOMAINS)} domains, heads on unscaled features."
    report.add_section(
        "Linear heads",
        tables=[{"name": "linear", "title": "Seconds", "columns": columns, "rows": linear, "caption": caption}],
    )
    columns = [
        {"key": "hidden", "label": "hidden layers"},
        {"key": "sweep", "label": "sweep", "kind": "seconds"},
        {"key": "passes", "label": f"{len(LAMBDAS)} passes", "kind": "seconds"},
        {"key": "ratio", "label": "passes / sweep", "kind": "interval", "digits": 1, "note": note},
        {"key": "one", "label": "one pass", "kind": "seconds"},
        {"key": "against_one", "label": "sweep / one pass", "kind": "interval", "digits": 1, "note": note},
        {"key": "difference", "label": "difference", "note": "of margins, over the largest margin"},
    ]
    report.add_section(
        "Perceptrons",
        tables=[
            {"name": "mlp", "title": "Seconds for margins", "columns": columns, "rows": perceptrons, "caption": caption}
        ],
    )
    finish(report, "merge_sweep", a)


if __name__ == "__main__":
    main()
