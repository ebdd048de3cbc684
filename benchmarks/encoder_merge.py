"""Seconds and memory of merging two encoders of the default one's size into a folder, by every method.

Command: python benchmarks/encoder_merge.py

The default encoder's weights are the base, and two copies of it are moved by normal noise of a twentieth of each tensor's
standard deviation; nothing is tuned, since neither time nor memory depends on what moved them. A merge is all that
`merge_encoders` does: the comparison of the inputs, their digests, the merged folder written and synced. The first merge in
a process digests the files, whose digests are then kept; both it and the median of the merges after it are told, and the
processor seconds of that median merge (all threads), which other work on the machine leaves nearly alone. Methods on
deltas read the base besides, Fisher-weighted merging a file of moments for each model.

Memory is the peak above the imported baseline, in a process of its own that has merged two toy encoders before: anonymous
memory (RssAnon, sampled every 5 ms), and everything resident, with the pages of mapped files that the system could take
back (VmHWM, reset at the start). Both are over the size of one model's file. `vocabularies differ` merges with a second
model whose tokens are in another order, so that token tables are gathered row by row.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _harness import command, finish, in_subprocess, parser

from embedrm import Report
from embedrm.encoders import SentenceEncoder
from embedrm.encoders.quiet import quiet_loading
from embedrm.merging import MERGE_METHODS
from embedrm.merging.encoders import merge_encoders
from embedrm.merging.safetensor_files import SafetensorFiles, write_safetensors
from embedrm.reporting import PeakMemory, collect

SECONDS, TIMES = 5.0, 4.0
NOISE = 0.05
OPTIONS: dict[str, dict[str, Any]] = {
    "ties": {"density": 0.2},
    "ties, scope=model": {"density": 0.2, "scope": "model"},
    "dare_linear": {"density": 0.5},
    "dare_linear, l1": {"density": 0.5, "rescale_norm": "l1"},
    "dare_ties": {"density": 0.5},
    "breadcrumbs": {"density": 0.8},
}
OTHER = "vocabularies differ"


def rows() -> list[str]:
    """Every registered method, and variants that cost otherwise."""
    names = [name for method in MERGE_METHODS.names() for name in [method, *_variants(method)]]
    return [*names, f"linear, {OTHER}", f"ties, {OTHER}"]


def _variants(method: str) -> list[str]:
    return [name for name in OPTIONS if name.startswith(f"{method}, ")]


def moved(base: Path, folder: Path, seed: int) -> Path:
    """Copy a model's folder with noise on its weights; seed 0 copies them as they are."""
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("model.safetensors", "*.bin", "onnx", "openvino"))
    found, rng = SafetensorFiles([base / "model.safetensors"]), np.random.default_rng(seed)

    def tensors() -> Any:
        for name in found:
            array = np.array(found[name])
            if seed and array.dtype.kind == "f":
                noise = rng.standard_normal(array.shape, dtype=np.float32)
                array = (array + NOISE * array.std() * noise).astype(array.dtype)
            yield name, array

    write_safetensors(folder / "model.safetensors", found.entries, tensors())
    return folder


def shuffled(folder: Path) -> None:
    """Give a folder's tokens other ids, and its token table the order of the ids."""
    path = folder / "tokenizer.json"
    text = json.loads(path.read_text(encoding="utf-8"))
    words = text["model"]["vocab"]
    special = {entry["content"] for entry in text["added_tokens"]}
    free = [i for word, i in words.items() if word not in special]
    new = np.arange(max(words.values()) + 1)
    new[free] = np.random.default_rng(9).permutation(free)
    text["model"]["vocab"] = {word: int(new[i]) for word, i in words.items()}
    path.write_text(json.dumps(text, ensure_ascii=False), encoding="utf-8")
    (folder / "vocab.txt").unlink(missing_ok=True)
    found = SafetensorFiles([folder / "model.safetensors"])
    arrays = {name: np.array(found[name]) for name in found}
    table = next(name for name in arrays if name.endswith("word_embeddings.weight"))
    turned = np.empty_like(arrays[table])
    turned[new] = arrays[table][: len(new)]
    arrays[table] = turned
    write_safetensors(folder / "model.safetensors", found.entries, arrays.items())


def moments(folder: Path) -> Path:
    """Write moments of the size and shape of a model's weights; their values change no cost."""
    found = SafetensorFiles([folder / "model.safetensors"])
    names = {name: ("F32", shape) for name, (kind, shape) in found.entries.items() if kind.startswith("F")}
    path = folder.with_name(folder.name + "-moments.safetensors")
    write_safetensors(path, names, ((name, np.square(found[name], dtype=np.float32)) for name in names))
    return path


def small(folder: Path) -> Path:
    """Write the default encoder with one narrow block: its tokenizer, hardly any weights."""
    from transformers import BertConfig, BertModel

    files = SentenceEncoder().files
    shutil.copytree(
        files.folder, folder, ignore=shutil.ignore_patterns("model.safetensors", "*.bin", "onnx", "openvino")
    )
    config = {
        **files.config,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    with quiet_loading():
        BertModel(BertConfig(**config)).save_pretrained(folder)
    pooling = folder / "1_Pooling" / "config.json"
    settings = json.loads(pooling.read_text(encoding="utf-8"))
    pooling.write_text(json.dumps({**settings, "word_embedding_dimension": 8}), encoding="utf-8")
    return folder


def prepare(base: Path, folder: Path) -> None:
    """Write the base, two moved copies, one with other ids, and the moments."""
    moved(base, folder / "base", 0)
    for seed, name in enumerate(("general", "domain", "other"), start=1):
        moved(base, folder / name, seed)
        if name == "other":
            shuffled(folder / name)
        else:
            moments(folder / name)


def merge(row: str, folder: Path, output: Path) -> None:
    """Merge once."""
    method, _, variant = row.partition(", ")
    kind, second = MERGE_METHODS.get(method), "other" if variant == OTHER else "domain"
    options = dict(OPTIONS.get(row, OPTIONS.get(method, {})))
    if kind.on == "deltas":
        options["base"] = folder / "base"
    if kind.moments:
        options["moments"] = [folder / f"{name}-moments.safetensors" for name in ("general", second)]
    weights = None if kind.uniform else [0.6, 0.4]
    merge_encoders([folder / "general", folder / second], output, weights, method, **options)


def resident(key: str) -> int | None:
    """Bytes of a line of the process's status; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), None)


def measure(row: str, folder: Path, repeats: int) -> None:
    """Print one row of the table, without its name."""
    seconds, busy = [], []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        # the imported baseline: each path has run once, on a toy
        merge(row, folder / "toy", Path(place) / "toy")
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            before = resident("VmRSS")
        except OSError:
            before = None
        with PeakMemory() as memory:
            for repeat in range(repeats + 1):
                start, work = time.perf_counter(), time.process_time()
                merge(row, folder, Path(place) / str(repeat))
                seconds.append(time.perf_counter() - start)
                busy.append(time.process_time() - work)
                shutil.rmtree(Path(place) / str(repeat))
        most = resident("VmHWM")
    line = {"first": seconds[0], "seconds": statistics.median(seconds[1:]), "busy": statistics.median(busy[1:])}
    line |= {"memory": memory.above_baseline}
    print(json.dumps(line | {"resident": None if before is None or most is None else most - before}))


def verdict(rows: list[dict[str, Any]]) -> list[str]:
    """Say whether all rows keep to the limits."""
    said = []
    for key, what in (("first", "first merge"), ("seconds", "merge"), ("busy", "processor time")):
        most = max(rows, key=lambda row: row[key])
        words = "under" if most[key] < SECONDS else "NOT UNDER"
        said.append(f"longest {what}: {most['method']}, {most[key]:.2f} s, {words} {SECONDS:g} s")
    if any(row["times"] is None for row in rows):
        return [*said, "memory not measured; it is known on Linux only"]
    for key, what in (("times", "anonymous memory"), ("resident_times", "resident memory")):
        most = max(rows, key=lambda row: row[key])
        words = "under" if most[key] < TIMES else "NOT UNDER"
        said.append(f"most {what}: {most['method']}, {most[key]:.2f} times one model's file, {words} {TIMES:g}")
    return said


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--folder", type=Path, help="where the temporary files go; the system's place where absent")
    options.add_argument(
        "--measure", nargs=2, metavar=("ROW", "FOLDER"), help="internal: one row, on files written before"
    )
    a = options.parse_args()
    warnings.simplefilter("ignore")
    if a.measure:
        measure(a.measure[0], Path(a.measure[1]), a.repeats)
        return
    if a.smoke:
        a.repeats = 1
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=a.folder) as place:
        toy = small(Path(place) / "small")
        prepare(toy, Path(place) / "toy")
        base = toy if a.smoke else SentenceEncoder().files.folder
        prepare(base, Path(place))
        size = (Path(place) / "base" / "model.safetensors").stat().st_size
        n = SentenceEncoder(str(Path(place) / "base")).files.n_parameters()
        words = [f"--repeats={a.repeats}"]
        # a toy says nothing about memory, and starting a process for each row takes seconds
        wanted = rows()[:2] if a.smoke else rows()
        found = [{"method": row, **in_subprocess(__file__, *words, "--measure", row, place)} for row in wanted]
        if a.smoke:
            for row in rows()[2:]:
                merge(row, Path(place), Path(place) / "merged")
                shutil.rmtree(Path(place) / "merged")
    for row in found:
        for key, name in (("memory", "times"), ("resident", "resident_times")):
            row[name] = None if row[key] is None else row[key] / size
    report = Report(
        "benchmark",
        "Merging two encoders into a folder",
        summary=verdict(found),
        provenance=collect(started=started, seeds=0, command=command(__file__, a)),
    )
    columns = [
        {"key": "method", "label": "method"},
        {"key": "seconds", "label": "merge", "kind": "seconds", "note": f"median of {a.repeats}"},
        {"key": "first", "label": "first", "kind": "seconds", "note": "with the digests of the files"},
        {"key": "busy", "label": "processor", "kind": "seconds", "note": "of all threads"},
        {"key": "memory", "label": "anonymous", "kind": "bytes", "note": "peak above the imported baseline"},
        {"key": "times", "label": "times one model", "kind": "number"},
        {"key": "resident", "label": "resident", "kind": "bytes", "note": "with mapped files"},
        {"key": "resident_times", "label": "times one model", "kind": "number"},
    ]
    caption = f"{n:,} parameters, {size:,} bytes a model; options: " + "; ".join(
        f"{row}: {', '.join(f'{k}={v}' for k, v in options.items())}" for row, options in OPTIONS.items()
    )
    table = {"name": "main", "title": "Seconds and memory", "columns": columns, "rows": found, "caption": caption + "."}
    report.add_section("Two models into one folder", tables=[table])
    finish(report, "encoder_merge", a)


if __name__ == "__main__":
    main()
