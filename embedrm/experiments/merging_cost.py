"""What a merge of two encoders costs, and how far tuning has moved them."""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedrm.experiments.merging_arms import GENERAL


def merge_cost(models: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    """Merge twice into a temporary folder: once against the clock, once counting memory.

    Returns
    -------
    dict
        ``seconds``; ``memory_bytes``, the most that arrays and objects took at a time (files that are mapped do not count);
        ``model_bytes``, of one model's weights; ``ratio``, the one against the other.
    """
    from embedrm.merging.encoders import merge_encoders

    size = sum(path.stat().st_size for path in Path(models[0]).rglob("model*.safetensors"))
    with tempfile.TemporaryDirectory(prefix="embedrm-merge-") as place:
        began = time.perf_counter()
        merge_encoders(models, Path(place) / "timed", list(weights))
        seconds = time.perf_counter() - began
        tracing = tracemalloc.is_tracing()
        tracemalloc.start()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        try:
            merge_encoders(models, Path(place) / "counted", list(weights))
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            if not tracing:
                tracemalloc.stop()
    return {"seconds": seconds, "memory_bytes": float(peak), "model_bytes": float(size), "ratio": peak / size}


def movements(folders: Mapping[str, str], base: str) -> dict[str, dict[str, Any]]:
    r"""How far encoders are from their base, and which way.

    Parameters
    ----------
    folders : mapping of name to folder
        The general encoder among them.
    base : str

    Returns
    -------
    dict
        For each name ``length``, :math:`\|\theta - \theta_0\| / \|\theta_0\|` over all weights, and ``cosine`` of its
        movement with that of the general encoder (None for the general encoder itself, or where one has not moved).
    """
    from embedrm.merging.encoder_inputs import open_inputs

    inputs, origin = open_inputs(list(folders.values()), list(folders), base, "movements")
    first = list(folders).index(GENERAL)
    n = len(inputs)
    squares, products, whole = np.zeros(n), np.zeros(n), 0.0
    start = None if origin is None else origin.tensors
    for name in start or {}:
        if start is None or start[name].dtype.kind != "f" or not all(name in one.tensors.entries for one in inputs):
            continue
        origin_array = start[name].astype(np.float64)
        whole += float((origin_array**2).sum())
        deltas = [one.tensors[name].astype(np.float64) - origin_array for one in inputs]
        for i, delta in enumerate(deltas):
            squares[i] += float((delta**2).sum())
            products[i] += float((delta * deltas[first]).sum())
    lengths = np.sqrt(squares)
    found: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(folders):
        scale = lengths[i] * lengths[first]
        found[name] = {
            "length": float(lengths[i] / np.sqrt(whole)) if whole else 0.0,
            "cosine": float(products[i] / scale) if scale and i != first else None,
        }
    return found
