"""How long tuning will take and what it needs, from a few steps of the real thing."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from embedrm.tuning.loop import seeded
from embedrm.tuning.memory import peak_bytes
from embedrm.tuning.session import Session

_TIMED = 3


@dataclass(frozen=True)
class TuningEstimate:
    """What a run will cost on this machine, now.

    Attributes
    ----------
    seconds : float
        Of all steps and evaluations, without early stopping.
    n_steps, tokens : int
        Steps planned, and tokens read in them.
    memory_bytes : int
        Largest resident memory of this process so far, a step on the largest batch included; 0 if unknown.
    disk_bytes : int
        Of the checkpoint, the best state and the result together.
    how : str
        How the seconds were found.
    """

    seconds: float
    n_steps: int
    tokens: int
    memory_bytes: int
    disk_bytes: int
    how: str

    def __str__(self) -> str:
        minutes = f"{self.seconds / 60:.1f} min" if self.seconds >= 90 else f"{self.seconds:.0f} s"
        return (
            f"tuning: about {minutes} for {self.n_steps:,} steps and {self.tokens:,} tokens ({self.how}); memory about "
            f"{self.memory_bytes / 2**30:.1f} GiB, disk {self.disk_bytes / 2**20:,.0f} MiB"
        )


def estimate(session: Session) -> TuningEstimate:
    """Time the largest batch (once to warm up) and two others; the session is of no use for tuning afterwards.

    A step costs as much a token as these did; a held-out token costs a third, as it is read forwards only.
    """
    from embedrm.encoders.backbone import torch_threads

    run, problem = session.run, session.problem
    tokens = np.array([problem.tokens_of(items) for _, items in run.plan])
    ranked = np.argsort(tokens, kind="stable")
    chosen = [int(ranked[-1]), *(int(ranked[len(ranked) * i // _TIMED]) for i in range(1, _TIMED))]
    seconds = []
    with torch_threads(run.threads), seeded():
        for place in [chosen[0], *chosen]:
            began = time.perf_counter()
            run.position.step = place
            run.take_step()
            seconds.append(time.perf_counter() - began)
    timed = seconds[1:]
    per_token = sum(timed) / max(1, int(tokens[chosen].sum()))
    held = problem.tokens_of(problem.held) if len(problem.held) else 0
    evaluations = sum(run.is_due(step) for step in range(1, run.n_steps + 1))
    moving = sum(p.numel() for p in run.parameters.values()) * 4
    return TuningEstimate(
        seconds=per_token * (float(tokens.sum()) + held * evaluations / 3.0),
        n_steps=run.n_steps,
        tokens=int(tokens.sum()),
        memory_bytes=peak_bytes(),
        disk_bytes=moving * 4 + session.base.files.n_parameters() * 4,
        how=f"from {len(timed)} timed steps, {1.0 / max(per_token, 1e-12):,.0f} tokens/s",
    )
