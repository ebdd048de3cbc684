"""Which layers and scaling should be the default? Per-domain linear heads on real pairs, training splits only.

Command: python benchmarks/layer_choice.py --data FOLDER

For every choice of response layers and scale, one linear head for each domain is fitted on the training pairs of that
domain and judged on held-out prompt groups of the same training pairs (5 folds; l2 by the same folds' log loss from one
grid, the same number of candidates for every row). No test pair is read. The default of SentenceEncoder and LinearHead
is the row that this table supports.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from _harness import command, finish, parser
from _real import add_options, vectors
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from embedrm import EmbeddedPreferences, Featurizer, LinearHead, Report
from embedrm.reporting import collect

SINGLE = ("0", "1", "2", "3", "4", "5", "6", "final")
SETS = ("3,6", "2,4,6")
GRID = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def held_out(prefs: EmbeddedPreferences, featurizer: Featurizer) -> dict[str, dict[str, float]]:
    """Best candidate's held-out accuracy and log loss, and its l2, in each domain."""
    out = {}
    with threadpool_limits(1):
        for domain in prefs.domains:
            head = LinearHead(featurizer, l2="cv", l2_grid=GRID, tol=1e-6)
            out[domain] = min(head.fit(prefs.in_domain(domain)).cv_results_, key=lambda r: r["log_loss"])
    return out


def main() -> None:
    options = parser(__doc__)
    add_options(options)
    a = options.parse_args()
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    prefs = vectors(a, ",".join(SINGLE), ("response",)).in_split("train")
    candidates = [("final", scale) for scale in ("none", "rms")]
    if not a.smoke:
        candidates += [(layer, "rms") for layer in SINGLE if layer != "final"]
        candidates += [
            (layers, scale)
            for layers in ("6", *SETS)
            for scale in ("rms", "standard")
            if (layers, scale) != ("6", "rms")
        ]

    def one(layers: str, scale: str) -> dict[str, Any]:
        cells = held_out(prefs, Featurizer(["r"], response=layers, scale=scale))
        n = {d: int((prefs.domain == d).sum()) for d in cells}
        weigh = np.array([n[d] for d in cells], dtype=float)
        accuracy, loss = (np.array([c[k] for c in cells.values()]) for k in ("accuracy", "log_loss"))
        return {
            "layers": layers, "scale": scale,
            "micro": float(np.average(accuracy, weights=weigh)), "macro": float(accuracy.mean()),
            "log_loss": float(np.average(loss, weights=weigh)),
            **{f"d{i}": c["accuracy"] for i, c in enumerate(cells.values())},
        }  # fmt: skip

    rows = Parallel(n_jobs=2)(delayed(one)(*c) for c in candidates)
    columns = [{"key": k, "label": k} for k in ("layers", "scale")]
    columns += [{"key": k, "label": k, "kind": "share", "best": "max"} for k in ("micro", "macro")]
    columns += [{"key": "log_loss", "label": "log loss", "kind": "number", "digits": 4, "best": "min"}]
    columns += [{"key": f"d{i}", "label": d, "kind": "share", "best": "max"} for i, d in enumerate(prefs.domains)]
    best = min(rows, key=lambda r: r["log_loss"])
    report = Report(
        "benchmark",
        "Which layers and which scale? (training splits, held-out groups)",
        summary=f"Lowest held-out log loss: layers {best['layers']}, scale {best['scale']} "
        f"(micro accuracy {best['micro']:.3f}, macro {best['macro']:.3f}).",
        provenance=collect(
            started=started,
            seeds=0,
            encoder=prefs.responses.info["encoder"],
            data=prefs.responses.info["data"],
            command=command(__file__, a),
        ),
    )
    caption = (
        f"{len(prefs):,} training pairs in {len(prefs.domains)} domains; one linear head a domain, l2 from "
        f"{', '.join(f'{v:g}' for v in GRID)} by held-out log loss. Rows are optimistic alike: each shows its best l2."
    )
    report.add_section(
        "Held-out accuracy",
        tables=[{"name": "layers", "title": "Per-domain heads", "columns": columns, "rows": rows, "caption": caption}],
    )
    finish(report, "layer_choice", a)


if __name__ == "__main__":
    main()
