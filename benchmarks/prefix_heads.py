"""What training heads on token states costs: ARM by its losses, whole or in factors, beside RAD.

Command: python benchmarks/prefix_heads.py

The states of 200,000 tokens are a float32 file that is mapped read-only; those of one text in ten more are held out.
There is no language model: a state is a fading sum of the vectors of the tokens read, rotated at every step, plus a
constant part, in unit root mean square. Tokens are drawn by a power law, as words are. A text's label is the logistic
function of the mean value of its tokens, where a token without a value in front turns a value's sign round. One token of
forty says little of such a label, so that the held-out columns are small for all heads: they show that a head has learned,
and compare no methods.

Each row runs in a process of its own. Counted is the wall time of `fit` (of distilled heads, with a teacher that was
fitted before the clock started; its own row is the perceptron's), anonymous memory above the state after imports and a
toy fit, and the most that the process had resident in all, mapped pages and libraries included. Held out are whole
texts: the share of the labels' variance that a head explains when it has read all of a text, and when it has read half
of it.
"""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _harness import command, finish, in_subprocess, parser

from embedrm import Report
from embedrm.decoding.arm import ARMHead
from embedrm.decoding.base import PrefixHead
from embedrm.decoding.rad import RADHead
from embedrm.encoders.token_states import TokenStates
from embedrm.parameters import n_parameters
from embedrm.reporting import PeakMemory, collect

TIME_LIMIT, MEMORY_LIMIT = 60.0, 2 * 2**30
TEACHER: dict[str, Any] = {"hidden": (64,), "max_epochs": 30}
# by name: the class, its options
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "ARM, responses": ("arm", {}),
    "ARM, responses, all tokens as negatives": ("arm", {"negatives": "all"}),
    "ARM, responses, no regulariser": ("arm", {"regulariser": 0.0}),
    "ARM, responses, no baseline": ("arm", {"baseline": False}),
    "ARM, cross-entropy": ("arm", {"loss": "responses-ce"}),
    "ARM, distilled": ("arm", {"loss": "distillation"}),
    "ARM, distilled increments": ("arm", {"loss": "delta-distillation"}),
    "ARM, responses, rank 16": ("arm", {"rank": 16}),
    "RAD, linear": ("rad", {}),
    "RAD, linear, cross-entropy": ("rad", {"objective": "cumulative-ce"}),
    "RAD, 64 hidden": ("rad", TEACHER),
}


def write(folder: Path, rows: int, dim: int, vocab: int) -> None:
    """Write states, ids, offsets, labels and the table of a fading sum of rotated token vectors."""
    rng = np.random.default_rng(0)
    lengths = []
    while sum(lengths) + len(lengths) < rows:
        lengths.append(int(rng.integers(15, 60)))
    offsets = np.concatenate([[0], np.cumsum(np.array(lengths) + 1)]).astype(np.int64)
    frequency = 1.0 / (10.0 + np.arange(vocab - 1))
    ids = (1 + rng.choice(vocab - 1, size=offsets[-1], p=frequency / frequency.sum())).astype(np.int32)
    ids[offsets[:-1]] = 0
    table = rng.standard_normal((vocab, dim)).astype(np.float32) / np.sqrt(np.float32(dim))
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    constant = rng.standard_normal(dim).astype(np.float32)
    value = rng.standard_normal(vocab)
    turns = rng.random(vocab) < 0.15
    value[turns] = 0.0
    signed = np.where(np.roll(turns[ids], 1), -value[ids], value[ids])
    signed[offsets[:-1]] = 0.0
    means = np.add.reduceat(signed, offsets[:-1]) / np.diff(offsets)
    np.save(folder / "labels.npy", 1.0 / (1.0 + np.exp(-3.0 * means / means.std())))
    # all texts step by step at once, shorter ones dropping out
    states = np.zeros((offsets[-1], dim), dtype=np.float32)
    h = np.zeros((len(lengths), dim), dtype=np.float32)
    for t in range(max(lengths) + 1):
        alive = np.flatnonzero(np.array(lengths) >= t)
        h[alive] = 0.9 * h[alive] @ rotation + table[ids[offsets[alive] + t]]
        states[offsets[alive] + t] = h[alive]
    states += constant * np.sqrt((states**2).mean())
    states /= np.sqrt((states**2).mean())
    np.save(folder / "states.npy", states)
    np.save(folder / "ids.npy", ids)
    np.save(folder / "offsets.npy", offsets)
    np.save(folder / "table.npy", table)


def load(folder: Path) -> tuple[TokenStates, np.ndarray, np.ndarray]:
    """Token states over the mapped file, labels, and the table."""
    ids, offsets, labels, table = (np.load(folder / f"{n}.npy") for n in ("ids", "offsets", "labels", "table"))
    mapped = np.load(folder / "states.npy", mmap_mode="r")
    return TokenStates(mapped, ids, offsets, "benchmark", len(table)), labels, table


def fit(row: str, folder: Path) -> tuple[PrefixHead, tuple[float, float], PeakMemory, TokenStates, np.ndarray]:
    """Fit a row's head on nine texts of ten; the head, its seconds by clock and by processor, memory, states and labels."""
    states, labels, table = load(folder)
    held_out = np.arange(len(labels)) >= 0.9 * len(labels)
    known = np.where(held_out, np.nan, labels)
    kind, options = ROWS[row]
    words: dict[str, Any] = {"labels": known}
    if kind == "arm":
        words["embeddings"] = table
    if "distillation" in options.get("loss", ""):
        teacher = RADHead(**TEACHER).fit(states, known)
        words = {"embeddings": table, "teacher": teacher, "weights": (~held_out).astype(float)}
    head = ARMHead(**options) if kind == "arm" else RADHead(**options)
    with PeakMemory() as memory:
        start, used = time.perf_counter(), time.process_time()
        head.fit(states, **words)
        seconds = time.perf_counter() - start, time.process_time() - used
    return head, seconds, memory, states, labels


def measure(row: str, folder: Path) -> None:
    """Print one row of the table, without its name."""
    with tempfile.TemporaryDirectory() as toy:
        # the imported baseline: each path has run once, on a toy
        write(Path(toy), 600, 24, 30)
        fit(row, Path(toy))
    head, seconds, memory, states, labels = fit(row, folder)
    held_out = np.flatnonzero(np.arange(len(labels)) >= 0.9 * len(labels))
    rewards = head.token_rewards(states)[:, 0]
    spread = labels[held_out].var()
    explained = {
        name: 1.0 - float(((rewards[at] - labels[held_out]) ** 2).mean() / spread)
        for name, at in (
            ("whole", states.offsets[held_out + 1] - 1),
            ("half", (states.offsets[held_out] + states.offsets[held_out + 1]) // 2),
        )
    }
    line = {
        "rows": int(states.offsets[held_out[0]]),
        "seconds": seconds[0],
        "processor": seconds[1],
        "passes": getattr(head, "n_passes_", None),
        "epochs": getattr(head, "n_epochs_", None),
        "converged": bool(head.converged_),
        "memory": memory.above_baseline,
        "resident": resident(),
        "parameters": n_parameters(head),
    }
    print(json.dumps(line | explained))


def resident() -> int | None:
    """Most bytes that this process has had resident; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def verdict(row: dict[str, Any]) -> str:
    """Say whether a row keeps to the limits."""
    told = f"{row['method']}: {row['seconds']:.1f} s"
    told += f", {'under' if row['seconds'] < TIME_LIMIT else 'NOT UNDER'} {TIME_LIMIT:.0f} s"
    if row["resident"] is not None:
        told += f"; {row['resident'] / 2**20:,.0f} MiB resident in all, "
        told += f"{'under' if row['resident'] < MEMORY_LIMIT else 'NOT UNDER'} 2 GiB"
    return told + ("" if row["converged"] else "; stopped before it converged")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=200_000, help="token states to fit on")
    options.add_argument("--dim", type=int, default=256)
    options.add_argument("--vocab", type=int, default=4_000)
    options.add_argument("--folder", type=Path, help="where the temporary files go; the system's place where absent")
    options.add_argument(
        "--measure", nargs=2, metavar=("ROW", "FOLDER"), help="internal: one row, on files written before"
    )
    a = options.parse_args()
    if a.smoke:
        a.rows, a.dim, a.vocab = 2_000, 24, 60
    warnings.simplefilter("ignore")
    if a.measure:
        measure(a.measure[0], Path(a.measure[1]))
        return
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=a.folder) as folder:
        write(Path(folder), round(a.rows / 0.9), a.dim, a.vocab)
        mapped = (Path(folder) / "states.npy").stat().st_size
        rows = [{"method": row, **in_subprocess(__file__, "--measure", row, folder)} for row in ROWS]
    report = Report(
        "benchmark",
        "Training heads on token states",
        summary=[verdict(row) for row in rows],
        provenance=collect(started=started, seeds=0, command=command(__file__, a)),
    )
    columns = [
        {"key": "method", "label": "head"},
        {"key": "seconds", "label": "fit", "kind": "seconds"},
        {"key": "processor", "label": "processor", "kind": "seconds", "note": "of all cores"},
        {"key": "passes", "label": "passes", "kind": "integer", "note": "over the states, of heads that are solved"},
        {"key": "epochs", "label": "epoch", "kind": "integer", "note": "kept, of perceptrons"},
        {"key": "memory", "label": "memory", "kind": "bytes", "note": "anonymous, peak above the imported baseline"},
        {"key": "resident", "label": "resident", "kind": "bytes", "note": "peak of the process, mapped pages included"},
        {"key": "parameters", "label": "parameters", "kind": "integer"},
        {"key": "whole", "label": "whole text", "kind": "number", "note": "share of the labels' variance explained"},
        {"key": "half", "label": "half text", "kind": "number", "note": "the same, from the first half of the tokens"},
    ]
    caption = (
        f"{rows[0]['rows']:,} states of {a.dim} float32, {a.vocab:,} tokens, {mapped / 2**20:,.0f} MiB mapped (with the "
        "tenth that is held out). Default parameters but for those named; the teacher of distilled heads is the perceptron."
    )
    shown = [{column["key"]: row[column["key"]] for column in columns} for row in rows]
    table = {"name": "main", "title": "Time and memory of a fit", "columns": columns, "rows": shown, "caption": caption}
    report.add_section("Fitting", tables=[table])
    finish(report, "prefix_heads", a)


if __name__ == "__main__":
    main()
