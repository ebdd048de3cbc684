"""What it costs to train an embedding model: parameters, seconds, core-seconds and memory, each fit measured alone."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Sequence
from typing import Any

from embedrm.annotation import annotate
from embedrm.datasets.candidate_arrays import map_candidates
from embedrm.datasets.drawing import draw_pairs
from embedrm.experiments.reuse_arms import fit
from embedrm.experiments.reuse_plan import MODELS, Arm, ReusePreset
from embedrm.experiments.reuse_settings import CENTRE, Setting, resized
from embedrm.numerics.annotation import GLOBAL_STD, Annotator
from embedrm.parameters import n_parameters
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses
from embedrm.progress import Progress, silent
from embedrm.reporting.provenance import PeakMemory

HERE, THERE = "the centre", "the paper's size"


def cost_rows(
    setting: Setting,
    arm: Arm,
    preset: ReusePreset,
    models: Sequence[str] = tuple(MODELS),
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Measure a fit and the scoring of the candidates, at the centre and at the paper's size.

    Returns
    -------
    list of dict
        ``size``, ``model``, ``pairs``, ``dim``, ``parameters``, ``seconds`` (wall clock), ``core_seconds`` (of all
        threads), ``memory`` (bytes of the peak above the vectors; None where the system does not tell), ``score``
        (seconds for a thousand candidates).
    """
    pairs, _ = setting.labelled(arm, 0)
    sizes = [(HERE, pairs)]
    if preset.paper_pairs:
        sizes.append((THERE, _paper_size(preset)))
    step, done = progress("cost"), 0
    rows = []
    for model in models:
        # libraries are loaded at the first fit
        fit(MODELS[model](), pairs[: max(20, len(pairs) // 20)], 0)
    for size, data in sizes:
        for model in models:
            rows.append({"size": size, **_measured(model, data)})
            done += 1
            step(done, len(sizes) * len(models))
    return rows


def _paper_size(preset: ReusePreset) -> EmbeddedPreferences:
    """Pairs of two responses to a prompt, by the centre's teacher at the width and number of the released arrays."""
    arrays = resized(CENTRE, preset.paper_dim).arrays("train", preset.paper_pairs, 2)
    pairs = draw_pairs(map_candidates(*arrays, split="train"), random_state=0)
    return annotate(pairs, Annotator(beta=1.0, scale=GLOBAL_STD))


def _measured(model: str, pairs: EmbeddedPreferences) -> dict[str, Any]:
    _release()
    with PeakMemory() as memory:
        wall, core = time.perf_counter(), time.process_time()
        fitted = fit(MODELS[model](), pairs, 0)
        wall, core = time.perf_counter() - wall, time.process_time() - core
    some = pairs.responses.take(range(min(1000, pairs.responses.n_responses)))
    started = time.perf_counter()
    fitted.predict(some)
    score = (time.perf_counter() - started) * 1000 / some.n_responses
    return {
        "model": model,
        "pairs": len(pairs),
        "dim": _width(pairs.responses),
        "parameters": n_parameters(fitted),
        "seconds": wall,
        "core_seconds": core,
        "memory": memory.above_baseline,
        "score": score,
    }


def _release() -> None:
    """Give freed memory back to the system, or a fit that takes it over would seem to need none."""
    gc.collect()
    # of glibc alone; elsewhere peaks after the first fit are too low by what the allocator kept
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _width(responses: EmbeddedResponses) -> int:
    return sum(int(view.shape[1]) for view in responses.views.values())
