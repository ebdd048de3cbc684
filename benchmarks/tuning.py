"""What tuning the default encoder costs, and whether it beats the frozen one where domains want opposite things.

Command: python benchmarks/tuning.py

Training pairs are 2,000 of the bundled data's training split, drawn in whole prompt groups by domains in turn. Each way of
tuning has the defaults of TuningConfig and runs in a process of its own: wall seconds from the loaded data to the saved
folder, estimate and checkpoints included; core-seconds of all threads; the largest resident memory of the process, Python
and torch included, that the system kept a record of. Frozen heads are linear, with l2 chosen by the log loss of grouped
folds, on the same pairs; "final" is the last layer's pooled response, "2,4,6" are the default layers, and "joint text" reads
what the tuned encoders read. Accuracy is on the test split, which chooses nothing; intervals are clustered by prompt group.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _harness import command, finish, in_subprocess, parser

from embedrm import Featurizer, LinearHead, PreferenceDataset, Report, TunedEncoder, encode, load_bundled
from embedrm.datasets.bundled import CONFLICTS
from embedrm.evaluation import accuracy_facts, comparison_facts
from embedrm.experiments.literal_arms import drawn_rows
from embedrm.reporting import collect
from embedrm.tuning.base import find_base, reward_layer
from embedrm.tuning.memory import peak_bytes

METHODS = {"lora": "LoRA", "top": "top 2 blocks", "full": "all weights"}
FINAL, LAYERS, JOINT = "frozen, final", "frozen, 2,4,6", "frozen, joint text"
# seconds and bytes that tuning is meant to stay under
LIMITS = {"lora": (360.0, 3 * 2**30), "full": (600.0, None)}
N_PAIRS = 2_000
COST = ("method", "seconds", "core_seconds", "memory", "parameters", "kept", "held_out")


def base(smoke: bool, folder: Path) -> str:
    """Return the default encoder, or the random one of the tests."""
    if not smoke:
        return str(TunedEncoder().config.base)
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "tuning"))
    from tuning_base import make_base

    return str(folder / "base" if (folder / "base").is_dir() else make_base(folder / "base"))


def parts(n_pairs: int) -> tuple[PreferenceDataset, PreferenceDataset]:
    """Return the training pairs and the test pairs."""
    data = load_bundled()
    return data.subset(drawn_rows(data, n_pairs)).compact(), data.split("test").compact()


def measure(method: str, folder: Path, smoke: bool, n_pairs: int) -> None:
    """Tune in one way, write the test margins, and print what it cost."""
    train, test = parts(n_pairs)
    options: dict[str, Any] = {"epochs": 1, "n_layers": 1, "max_length": 64} if smoke else {}
    tuned = TunedEncoder(base=base(smoke, folder), method=method, **options)
    wall, core = time.perf_counter(), time.process_time()
    said: list[str] = []
    tuned.fit(train, folder / method, announce=said.append)
    cost = {"seconds": time.perf_counter() - wall, "core_seconds": time.process_time() - core, "memory": peak_bytes()}
    np.save(folder / f"{method}.npy", tuned.margins(test))
    facts = tuned.facts_
    best = next(entry for entry in tuned.history_ if entry["step"] == facts["best_step"])
    print(
        json.dumps(
            {
                **cost,
                "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
                "estimate": said[0],
                "parameters": facts["parameters_tuned"],
                "kept": f"{facts['best_step']:,} of {facts['steps']:,} ({facts['steps_planned']:,} planned)",
                "held_out": best["validation_accuracy"],
            }
        )
    )


def frozen(encoder: str, train: PreferenceDataset, test: PreferenceDataset, smoke: bool) -> dict[str, np.ndarray]:
    """Return test margins of the frozen heads."""
    config = TunedEncoder(base=encoder, **({"max_length": 64} if smoke else {})).config
    joint = find_base(config)
    layer = reward_layer(joint.files)
    layers = "1,2" if smoke else "2,4,6"
    views = {
        FINAL: (encoder, "response", "final", "final"),
        LAYERS: (encoder, "response", layers, layers),
        JOINT: (joint, "joint", str(layer), f"joint:{layer}"),
    }
    out = {}
    for name, (read_by, side, read, view) in views.items():
        store = False if smoke else None
        one, two = (encode(part, read_by, layers={side: read}, sides=(side,), store=store) for part in (train, test))
        head = LinearHead(Featurizer(["r"], response=view, scale="rms"), l2="cv").fit(one)
        out[name] = head.margins(two)
    return out


def verdicts(rows: list[dict[str, Any]], over: dict[str, dict[str, Any]], load: float | None) -> list[str]:
    """Say whether costs stay under their limits, and where tuning is above the frozen final layer."""
    said = []
    for row in rows:
        if row["key"] not in LIMITS:
            continue
        seconds, memory = LIMITS[row["key"]]
        kept = "under" if row["seconds"] < seconds else "NOT UNDER"
        text = f"{row['method']}: {row['seconds']:.0f} s ({kept} {seconds:.0f})"
        if memory is not None and row["memory"]:
            kept = "under" if row["memory"] < memory else "NOT UNDER"
            text += f", {row['memory'] / 2**30:.2f} GiB ({kept} {memory / 2**30:.0f})"
        said.append(f"{text}; load average at its end {row['load_average']:.1f}." if load is not None else f"{text}.")
    for method, label in METHODS.items():
        cells = over[method]["domains"]
        told = [
            f"{d} {100 * c['value']:+.1f} [{100 * c['low']:+.1f}, {100 * c['high']:+.1f}]"
            for pair in CONFLICTS
            for d, c in ((d, cells[d]) for d in pair if d in cells)
        ]
        m = over[method]["macro"]
        whole = f"all domains {100 * m['value']:+.1f} [{100 * m['low']:+.1f}, {100 * m['high']:+.1f}] macro"
        said.append(f"{label} less {FINAL}, points on conflicting domains: {', '.join(told)}; {whole}.")
    return said


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=N_PAIRS)
    options.add_argument("--measure", nargs=2, metavar=("METHOD", "FOLDER"), help="internal: one way of tuning")
    a = options.parse_args()
    n_pairs = 60 if a.smoke else a.pairs
    warnings.simplefilter("ignore")
    if a.measure:
        measure(a.measure[0], Path(a.measure[1]), a.smoke, n_pairs)
        return
    started = time.perf_counter()
    train, test = parts(n_pairs)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        words = ["--pairs", str(n_pairs), *(["--smoke"] if a.smoke else [])]
        rows = []
        for method, label in METHODS.items():
            found = in_subprocess(__file__, *words, "--measure", method, str(folder))
            rows.append({"key": method, "method": label, **found})
        margins = {METHODS[m]: np.load(folder / f"{m}.npy") for m in METHODS}
        margins |= frozen(base(a.smoke, folder), train, test, a.smoke)
    judged = encode(test, "hashing:8", sides=("response",), store=False)
    facts = accuracy_facts(margins, judged, logits=dict.fromkeys(margins, True))
    over = {m: comparison_facts(margins[label], margins[FINAL], judged) for m, label in METHODS.items()}
    report = Report(
        "benchmark",
        "What tuning the default encoder costs and brings",
        summary=verdicts(rows, over, rows[0]["load_average"]),
        provenance=collect(
            started=started, seeds=0, data={"name": test.name, "pairs": len(train)}, command=command(__file__, a)
        ),
    )
    shown = [{column: row[column] for column in COST} for row in rows]
    columns = [
        {"key": "method", "label": "tuned"},
        {"key": "seconds", "label": "wall", "kind": "seconds"},
        {"key": "core_seconds", "label": "core-seconds", "kind": "seconds"},
        {"key": "memory", "label": "memory", "kind": "bytes", "note": "peak of the process, everything included"},
        {"key": "parameters", "label": "parameters moved", "kind": "integer"},
        {"key": "kept", "label": "step kept", "note": "lowest held-out loss, of the steps taken"},
        {"key": "held_out", "label": "held-out accuracy", "kind": "share"},
    ]
    caption = (
        f"{len(train):,} training pairs, a tenth of their prompt groups held out to stop by. {rows[0]['estimate']}."
    )
    table = {"name": "cost", "title": "Cost of tuning", "columns": columns, "rows": shown, "caption": caption}
    report.add_section("Cost", tables=[table])
    domains = facts["domains"]
    columns = [
        {"key": "model", "label": "model"},
        {"key": "micro", "label": "micro", "kind": "share"},
        {"key": "macro", "label": "macro", "kind": "share"},
        *({"key": d, "label": d, "kind": "share"} for d in domains),
    ]
    shown = [
        {
            "model": r["model"],
            "micro": r["micro"],
            "macro": r["macro"],
            **{d: r["domains"][d]["value"] for d in domains},
        }
        for r in facts["rows"]
    ]
    caption = f"{facts['n_pairs']:,} test pairs of {facts['n_groups']:,} prompt groups."
    table = {"name": "accuracy", "title": "Accuracy by domain", "columns": columns, "rows": shown, "caption": caption}
    report.add_section("Accuracy", tables=[table])
    finish(report, "tuning", a)


if __name__ == "__main__":
    main()
