"""Seconds per token against the number of candidates, in paired runs, and what each way of guidance calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding.base import PrefixHead
from embedrm.experiments.prefix_steering import UNGUIDED, processor_for
from embedrm.language_models.model import LanguageModel
from embedrm.numerics.bootstrap import CONFIDENCE
from embedrm.progress import Progress, silent

ARM, RAD = "ARM", "RAD"
BETA = 5.0


def time_per_token(
    lm: LanguageModel,
    heads: dict[str, PrefixHead],
    prompt: str,
    ks: Sequence[int],
    *,
    attribute: str | int = 0,
    tokens: int = 24,
    repeats: int = 5,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Measure unguided, ARM and RAD decoding of one sequence at each k, in alternating order.

    Parameters
    ----------
    lm : LanguageModel
    heads : dict of str to head
        ``"ARM"`` and ``"RAD"``, which read the guided model's own states and cache.
    prompt : str
    ks : sequence of int
        Candidates: the k most probable tokens.
    attribute : str or int
    tokens, repeats : int
    progress : Progress

    Returns
    -------
    list of dict
        ``way``, ``k``, ``seconds`` (cell per token: the median with its interval), ``against_arm``, ``overhead``
        (over unguided decoding at the same k), ``against_first`` (over the smallest k): cells of ratios of paired runs;
        ``states`` and ``passes``: states that the reward reads, and forward passes beside the guided model's own, per token.
    """
    jobs: dict[tuple[str, int], Callable[[], None]] = {}
    calls: dict[tuple[str, int], Any] = {}
    for k in ks:
        for way in (UNGUIDED, *heads):
            processor = None if way == UNGUIDED else processor_for(lm, heads[way], BETA, k, attribute)
            calls[way, k] = processor
            jobs[way, k] = _job(lm, prompt, processor, k, tokens)
    step = progress("time per token")
    try:
        for job in jobs.values():
            job()
        for processor in calls.values():
            if processor is not None:
                processor.calls = type(processor.calls)()
        seconds: dict[tuple[str, int], list[float]] = {key: [] for key in jobs}
        for turn in range(repeats):
            for key in list(jobs) if turn % 2 == 0 else list(reversed(jobs)):
                started = time.perf_counter()
                jobs[key]()
                seconds[key].append(time.perf_counter() - started)
            step(turn + 1, repeats)
    finally:
        for processor in calls.values():
            if processor is not None:
                processor.close()
    each = {key: np.array(values) / tokens for key, values in seconds.items()}
    rows = []
    for (way, k), own in each.items():
        told = calls[way, k]
        n = 0 if told is None else told.calls.steps
        states = 0.0 if told is None else (told.calls.rewarded / n if way == RAD else 1.0)
        rows.append(
            {
                "way": way,
                "k": k,
                "seconds": _cell(own),
                "against_arm": _cell(own / each[ARM, k]),
                "overhead": _cell(own / each[UNGUIDED, k]),
                "against_first": _cell(own / each[way, ks[0]]),
                "states": states,
                "passes": 0.0 if told is None else told.calls.reward_passes / n,
            }
        )
    return rows


def _job(lm: LanguageModel, prompt: str, processor: Any, k: int, tokens: int) -> Callable[[], None]:
    import torch

    ids = torch.tensor([[lm.bos_id, *lm.encode(prompt)]])
    guided = {"top_k": k} if processor is None else {"top_k": 0, "logits_processor": [processor]}
    pad = lm.bos_id if lm.eos_id is None else lm.eos_id

    def job() -> None:
        before = torch.get_rng_state()
        torch.set_rng_state(torch.Generator().manual_seed(0).get_state())
        try:
            with torch.inference_mode():
                # no end of text, so that all ways write as many tokens
                lm.model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=True,
                    max_new_tokens=tokens,
                    pad_token_id=pad,
                    eos_token_id=None,
                    **guided,
                )
        finally:
            torch.set_rng_state(before)

    return job


def _cell(values: NDArray[np.float64]) -> dict[str, float]:
    """Median, and an interval of it from order statistics, which no single disturbed run can move far."""
    from scipy.stats import binom

    order, n = np.sort(values), len(values)
    # order[j] lies above the median with the chance of at most j heads in n throws
    j = 0
    while 2 * binom.cdf(j + 1, n, 0.5) <= 1.0 - CONFIDENCE:
        j += 1
    return {"value": float(np.median(values)), "low": float(order[j]), "high": float(order[n - 1 - j])}
