"""Is the frozen encoder good enough? Frozen heads against LoRA, top-layer and full tuning, over training pairs and cost.

Command: python benchmarks/frozen_or_tuned.py --data FOLDER

One model for all domains of the human-labelled files. Training sets of 250 to 8,000 pairs lie inside each other; they are
drawn by prompt, every domain in its share of the pairs, prompts with more than `PART` pairs in parts of so many. The test
pairs are a fixed sample of the files' own test splits, drawn in the same way; they decide nothing.

Frozen arms are linear Bradley-Terry heads with l2 chosen by log loss on a fifth of the training groups and fitted again on
all pairs. `frozen, joint text` reads what the tuned encoders read (prompt and response as one text of 128 tokens, pooled
layer 6) and moves nothing: what it gains over the others is the text's, what tuning gains over it is tuning's. Tuned arms
have the defaults of TuningConfig but for the learning rate: of a third, one and three times the default it is the one with
the lowest held-out loss at 1,000 pairs, for all sizes. The same share of the groups says when to stop, and `epochs` gives
small training sets more passes. They learn from four fifths of the pairs only. One seed.

Core-seconds are processor time of all threads: of a frozen head, encoding the training texts once and all its fits; of a
tuned encoder, all its steps and evaluations at the chosen rate. Encoding the test texts is told apart. Every cell's facts
are a line of `cells.jsonl` in the work folder; a run does the cells that are not there, smallest first, and goes on inside
a tuning that was killed. `--cells lora:250,full` chooses; results are written once no cell is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _crossing import report
from _harness import command, finish, parser
from _real import add_options, load
from real_heads import L2, VIEWS, judged

from embedrm import EmbeddedPreferences, Featurizer, LinearHead, PreferenceDataset, TunedEncoder, encode
from embedrm.encoders import SentenceEncoder
from embedrm.numerics.folds import hold_out
from embedrm.progress import bars
from embedrm.reporting import collect
from embedrm.store import EmbeddingStore

SIZES = (250, 500, 1000, 2000, 4000, 8000)
N_TEST = 2500
PART = 20
# small training sets ask for more than the grid of real_heads.py has
GRID = (*L2, 100.0, 1000.0)
HELD_OUT = 0.2
# of the default learning rate of a method, tried at one size
FACTORS = (1.0, 1 / 3, 3.0)
FROZEN: dict[str, dict[str, Any]] = {
    "frozen, final": VIEWS["final"],
    "frozen, 2,4,6": VIEWS["2,4,6"],
    "frozen, 2,4,6 and p*r": VIEWS["2,4,6 and p*r"],
    "frozen, joint text": {"terms": ["r"], "response": "joint:6"},
}
TUNED = {"top": "top 2 blocks", "lora": "LoRA", "full": "all weights"}
# The frozen head that others are compared with: best by held-out loss in real_heads.py.
REFERENCE = "frozen, 2,4,6 and p*r"
PLAIN = "frozen, final"
SHORT = {
    "final": "frozen, final",
    "layers": "frozen, 2,4,6",
    "products": REFERENCE,
    "joint": "frozen, joint text",
    **TUNED,
}
LAYERS: dict[str, Sequence[str | int]] = {"response": (2, 4, 6, "final"), "prompt": (4,), "joint": (6,)}
ORDER_SEED = 0


def epochs(n: int) -> int:
    """Passes over n pairs: small sets take more of them, so that there are steps enough to learn from."""
    return min(10, max(3, round(8000 / n)))


# -- data -------------------------------------------------------------------------------------------------------------


def nested(data: PreferenceDataset, sizes: Sequence[int], seed: int) -> list[PreferenceDataset]:
    """Return training sets that lie inside each other: in each domain its first pairs, by prompt group in random order."""
    rng = np.random.default_rng(seed)
    domains, groups = data.pair_domains().astype(str), data.pair_groups().astype(str)
    order: dict[str, np.ndarray] = {}
    for domain in sorted(set(domains.tolist())):
        rows = np.flatnonzero(domains == domain)
        names, group = np.unique(groups[rows], return_inverse=True)
        rank = rng.permutation(len(names))[group]
        shuffled = rng.permutation(len(rows))
        seen: dict[int, int] = {}
        part = np.empty(len(rows), dtype=np.intp)
        for i in shuffled.tolist():
            place = seen.get(int(group[i]), 0)
            seen[int(group[i])], part[i] = place + 1, place // PART
        order[domain] = rows[np.lexsort((np.argsort(shuffled), rank, part))]
    out = []
    for size in sizes:
        wanted = min(size, data.n_pairs)
        exact = {domain: wanted * len(rows) / data.n_pairs for domain, rows in order.items()}
        take = {domain: math.floor(value) for domain, value in exact.items()}
        rest = sorted(exact, key=lambda d: (take[d] - exact[d], d))[: wanted - sum(take.values())]
        picked = [rows[: take[domain] + (domain in rest)] for domain, rows in order.items()]
        out.append(data.subset(np.sort(np.concatenate(picked))).compact())
    return out


class Work:
    """The data of every cell, and the folder that keeps what is done."""

    def __init__(self, a: argparse.Namespace, folder: Path) -> None:
        self.folder, self.smoke = folder, a.smoke
        folder.mkdir(parents=True, exist_ok=True)
        data = load(a)
        self.sizes = (24, 48) if a.smoke else SIZES
        self.trial_size = 24 if a.smoke else 1000
        self.training = dict(zip(self.sizes, nested(data.split("train"), self.sizes, ORDER_SEED)))
        (self.test,) = nested(data.split("test"), [60 if a.smoke else N_TEST], ORDER_SEED)
        self.base = str(tiny_base(folder / "base")) if a.smoke else (a.encoder or TunedEncoder().config.base)
        self.layers = {"response": (1, 2, "final"), "prompt": (1,), "joint": (2,)} if a.smoke else LAYERS
        config = TunedEncoder().config
        self.limits: dict[str, Any] = {
            "max_length": 64 if a.smoke else config.max_length,
            "truncation": config.truncation,
        }
        self.store = EmbeddingStore(folder / "store")
        self.file = folder / "cells.jsonl"

    def encoder(self, side: str) -> SentenceEncoder:
        """The encoder of a side: joint texts are cut as tuned encoders cut them."""
        return SentenceEncoder(self.base, **(self.limits if side == "joint" else {}))

    def identity(self, method: str, n: int, factor: float = 1.0) -> str:
        """What a cell depends on: a line of another identity is not this cell."""
        how = [FROZEN[method], GRID] if method in FROZEN else self.tuned(method, n, factor).config.to_dict()
        facts = [method, how, self.base, self.training[n].fingerprint(), self.test.fingerprint(), HELD_OUT]
        return hashlib.blake2b(json.dumps(facts, default=str).encode(), digest_size=8).hexdigest()

    def tuned(self, method: str, n: int, factor: float) -> TunedEncoder:
        """Return what a tuned cell fits, at a multiple of the method's default learning rate."""
        one = TunedEncoder(base=self.base, method=named(method)).config
        return TunedEncoder(
            one,
            epochs=1 if self.smoke else epochs(n),
            learning_rate=float(f"{one.step_size * factor:.2g}"),
            n_layers=1 if self.smoke else 2,
            validation_fraction=HELD_OUT,
            **self.limits,
        )

    def cells(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Facts of the finished cells; of tuned ones those at the rate chosen for their method."""
        found, factors = self.all_cells(), self.factors()
        return {
            (m, n): cell for (m, n, factor), cell in found.items() if factor == (1.0 if m in FROZEN else factors.get(m))
        }

    def factors(self) -> dict[str, float]:
        """The multiple of the default rate with the lowest held-out loss, of methods that were tried at all of them."""
        found, chosen = self.all_cells(), {}
        for method in TUNED.values():
            tried = [(method, self.trial_size, factor) for factor in FACTORS]
            if all(key in found for key in tried):
                chosen[method] = min(tried, key=lambda key: found[key]["held_out"]["loss"])[2]
        return chosen

    def all_cells(self) -> dict[tuple[str, int, float], dict[str, Any]]:
        """Facts of all finished cells, by method, size and multiple of the default rate."""
        found: dict[tuple[str, int, float], dict[str, Any]] = {}
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.is_file() else []
        for line in lines:
            try:
                cell = json.loads(line)
            except ValueError:  # a kill in the middle of a line
                continue
            key = (cell["method"], cell["n"], cell.get("factor", 1.0))
            if cell["n"] in self.training and cell["identity"] == self.identity(*key):
                found[key] = cell
        return found

    def add(self, cell: dict[str, Any]) -> None:
        """Write a cell's facts as a line, at once."""
        with open(self.file, "a", encoding="utf-8") as file:
            file.write("\n" * (file.tell() > 0) + json.dumps(cell))
            file.flush()
            os.fsync(file.fileno())

    def vectors(self, method: str, data: PreferenceDataset) -> tuple[EmbeddedPreferences, dict[str, float]]:
        """Encode what a frozen arm reads; and core-seconds of encoding all of it once, by side.

        Texts that a former cell stored are not encoded again: their cost is that of the texts that were, or of a sample.
        """
        sides = {"frozen, joint text": ("joint",), REFERENCE: ("response", "prompt")}.get(method, ("response",))
        cost = {}
        for side in sides:
            encoder, layers = self.encoder(side), self.layers[side]
            texts = {"response": data.response_texts, "prompt": data.prompt_texts, "joint": data.joint_texts}[side]()
            plan = self.store.plan(encoder, texts, layers)
            encoder.encode(["warm up"], layers)
            timed, began = plan["missing"], time.process_time()
            self.store.get(encoder, texts, layers)
            if timed < 50:
                sample = list(dict.fromkeys(texts))[:200]
                timed, began = len(sample), time.process_time()
                encoder.encode(sample, layers)
            cost[side] = (time.process_time() - began) / timed * plan["unique"]
        chosen = {side: ",".join(map(str, self.layers[side])) for side in sides}
        return encode(data, self.encoder(sides[0]), layers=chosen, sides=sides, store=self.store), cost


def named(label: str) -> str:
    """Return the method that a label is of."""
    return next(method for method, name in TUNED.items() if name == label)


def tiny_base(folder: Path) -> Path:
    """The random encoder of the tests."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "tuning"))
    from tuning_base import make_base

    return folder if folder.is_dir() else make_base(folder)


# -- cells ------------------------------------------------------------------------------------------------------------


def frozen_cell(work: Work, method: str, n: int) -> dict[str, Any]:
    """Fit a head on frozen vectors: l2 on held-out groups, then on all pairs."""
    train, encoding = work.vectors(method, work.training[n])
    test, scoring = work.vectors(method, work.test)
    view = dict(FROZEN[method])
    if work.smoke:
        view |= {"response": view["response"].replace("2,4,6", "1,2").replace("joint:6", "joint:2")}
        view |= {"prompt": "1"} if "prompt" in view else {}
    began, wall = time.process_time(), time.perf_counter()
    inside, outside = hold_out(train.groups, HELD_OUT, 0, "this benchmark", "more prompts")
    tried = []
    for l2 in GRID:
        head = LinearHead(Featurizer(**view, scale="rms"), l2=l2, tol=1e-7).fit(train[inside])
        tried.append(judged(head.margins(train[outside]), train[outside]) | {"l2": l2})
    best = min(tried, key=lambda one: one["log_loss"])
    head = LinearHead(Featurizer(**view, scale="rms"), l2=best["l2"], tol=1e-7).fit(train)
    fitting = time.process_time() - began
    return {
        "core_seconds": {"encoding": sum(encoding.values()), "training": fitting},
        "wall_seconds": time.perf_counter() - wall,
        "scoring_core_seconds": sum(scoring.values()),
        "settings": f"l2 {best['l2']:g}",
        "held_out": {"loss": best["log_loss"], "accuracy": best["accuracy"]},
        "parameters": int(head.n_features_in_),
        "margins": head.margins(test),
    }


class Meter:
    """Processor seconds of a tuning over all its parts, kept beside its checkpoints."""

    def __init__(self, file: Path, every: int) -> None:
        self.file, self.every = file, every
        self.former = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else 0.0
        self.began = time.process_time()

    @property
    def seconds(self) -> float:
        """So far, all parts together."""
        return float(self.former + time.process_time() - self.began)

    def keep(self) -> None:
        """Write them down."""
        whole = self.file.with_suffix(".new")
        whole.write_text(json.dumps(self.seconds), encoding="utf-8")
        os.replace(whole, self.file)

    def through(self, progress: Callable[[str], Callable[[int, int], None]]) -> Callable[[str], Any]:
        """A progress that notes the seconds with every checkpoint."""

        def start(label: str) -> Callable[[int, int], None]:
            step = progress(label)

            def told(done: int, total: int) -> None:
                if done % self.every == 0:
                    self.keep()
                step(done, total)

            return told

        return start


def tuned_cell(work: Work, method: str, n: int, factor: float) -> dict[str, Any]:
    """Tune, and score the test pairs with the tuned reward."""
    tuned = work.tuned(method, n, factor)
    folder = work.folder / f"{named(method)}-{n}-{work.identity(method, n, factor)}"
    meter = Meter(folder.with_suffix(".seconds"), tuned.config.checkpoint_every)
    wall = time.perf_counter()
    if folder.is_dir():
        tuned, training = TunedEncoder.load(folder), meter.former
    else:
        with bars() as progress:
            tuned.fit(work.training[n], folder, progress=meter.through(progress))
        training = meter.seconds
        meter.keep()
    wall = time.perf_counter() - wall
    tuned.joint_encoder().encode(["warm up"], ("final",))
    began = time.process_time()
    margins = tuned.margins(work.test)
    scoring = time.process_time() - began
    known = tuned.facts_
    best = next(entry for entry in tuned.history_ if entry["step"] == known["best_step"])
    shutil.rmtree(folder)
    meter.file.unlink(missing_ok=True)
    return {
        "factor": factor,
        "core_seconds": {"encoding": 0.0, "training": training},
        "wall_seconds": wall,
        "scoring_core_seconds": scoring,
        "settings": f"rate {tuned.config.step_size:g}, step {known['best_step']:,} of {known['steps']:,} (planned "
        f"{known['steps_planned']:,})",
        "held_out": {"loss": best["validation_loss"], "accuracy": best["validation_accuracy"]},
        "parameters": known["parameters_tuned"],
        "margins": margins,
    }


def wanted(text: str | None, sizes: Sequence[int]) -> list[tuple[str, int]]:
    """Read ``--cells``: METHOD, METHOD:N or N with commas between them; all where absent, smallest first."""
    every = [(method, n) for n in sizes for method in (*FROZEN, *TUNED.values())]
    if text is None:
        return every
    chosen: set[tuple[str, int]] = set()
    for word in text.split(","):
        name, _, size = word.strip().partition(":")
        name, size = ("", name) if name.isdigit() else (name, size)
        if (name and name not in SHORT) or (size and not (size.isdigit() and int(size) in sizes)):
            known = f"{', '.join(SHORT)}; sizes {', '.join(map(str, sizes))}"
            raise SystemExit(f"--cells takes METHOD, METHOD:N or N, of {known}; got {word!r}")
        chosen |= {cell for cell in every if cell[0] == SHORT.get(name, cell[0]) and (not size or cell[1] == int(size))}
    return [cell for cell in every if cell in chosen]


def left(work: Work, method: str, n: int) -> Iterator[tuple[int, float]]:
    """Yield what is still to do for a cell: trials of the learning rate, if they are not done, and the cell."""
    if method in TUNED.values():
        for factor in FACTORS:
            if (method, work.trial_size, factor) not in work.all_cells():
                yield work.trial_size, factor
    if (method, n) not in work.cells():
        yield n, work.factors().get(method, 1.0)


def main() -> None:
    options = parser(__doc__)
    add_options(options)
    options.add_argument(
        "--work", type=Path, default=None, help="folder of finished cells; below EMBEDRM_HOME if absent"
    )
    options.add_argument("--cells", default=None, help=f"METHOD, METHOD:N or N, with commas; of {', '.join(SHORT)}")
    options.add_argument("--report", action="store_true", help="compute no cell; report on those that are there")
    a = options.parse_args()
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(os.environ.get("EMBEDRM_HOME") or Path.home() / ".cache" / "embedrm")
        work = Work(a, Path(temporary) / "work" if a.smoke else a.work or home / "frozen_or_tuned")
        for method, n in [] if a.report else wanted(a.cells, work.sizes):
            for size, factor in left(work, method, n):
                if method in FROZEN:
                    cell = frozen_cell(work, method, size)
                else:
                    cell = tuned_cell(work, method, size, factor)
                margins = [float(f"{margin:.6g}") for margin in cell.pop("margins")]
                load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
                fixed = {"method": method, "n": size, "identity": work.identity(method, size, factor)}
                work.add({**fixed, "load_average": load_average, **cell, "margins": margins})
                took = time.perf_counter() - started
                print(f"{took:.0f} s: {method}, {size:,} pairs: {cell}", file=sys.stderr, flush=True)
        made, missing = report(work, [*FROZEN, *TUNED.values()], list(TUNED.values()), REFERENCE, PLAIN)
        made.provenance.update(
            collect(
                started=started,
                seeds=0,
                encoder=work.encoder("response").fingerprint(),
                data={"name": work.test.name, "fingerprint": work.test.fingerprint()},
                command=command(__file__, a),
            )
        )
        if not a.smoke:
            files = made.save(work.folder / "report")
            print(f"with figures: {files['html']}")
        if missing and not a.smoke:
            print(made.text())
            print(f"{len(missing)} cells are missing; results are written once all are there")
        else:
            finish(made, "frozen_or_tuned", a)


if __name__ == "__main__":
    main()
