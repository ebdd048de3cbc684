"""The training loop: AdamW, a linear schedule, held-out prompt groups to stop by, a checkpoint now and then.

Everything random in a step follows from ``random_state`` and the step's number alone: the order of the batches from that
of the epoch, dropout and masks from a generator that each step seeds anew. So no state of a generator has to survive a
kill, and a resumed run takes the very steps of an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embedrm.errors import ModelError
from embedrm.tuning.base import TrainableBase
from embedrm.tuning.config import TuningConfig
from embedrm.tuning.memory import give_back
from embedrm.tuning.methods import set_training
from embedrm.tuning.problem import Problem, Rows

State = dict[str, Any]
# Keeps the draws of evaluations away from those of steps.
_EVALUATION = 2**31
# Steps between requests to give freed memory back: rare enough to cost nothing.
_TRIM_EVERY = 3


@dataclass
class Position:
    """How far a run has come; all that a checkpoint needs beside the tensors.

    Attributes
    ----------
    step : int
        Steps taken.
    seconds : float
        Spent in steps and evaluations, over all parts of the run.
    history : list of dict
        One entry for each evaluation: ``step, epoch, train_loss, validation_loss, validation_accuracy``.
    best_step, best_loss : int, float
        Where the held-out loss was lowest.
    worse : int
        Evaluations since then.
    stopped : str
        Why the run is over; empty while it is not.
    train_loss, train_weight : float
        Sums since the last evaluation.
    """

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_step: int = 0
    best_loss: float = math.inf
    worse: int = 0
    stopped: str = ""
    train_loss: float = 0.0
    train_weight: float = 0.0


class Run:
    """One tuning run in memory.

    Parameters
    ----------
    base : TrainableBase
        Prepared by :func:`embedrm.tuning.methods.prepare`.
    problem : Problem
    config : TuningConfig

    Attributes
    ----------
    parameters : dict of str to torch.nn.Parameter
        What moves, by name; the head's names begin with ``head.``.
    plan : list of (int, ndarray)
        Epoch and items of every step.
    threads : int
        Of torch in every step.
    best : dict of str to torch.Tensor
        The parameters where the held-out loss was lowest.
    """

    def __init__(self, base: TrainableBase, problem: Problem, config: TuningConfig) -> None:
        import torch

        self.base, self.problem, self.config = base, problem, config
        own = {name: p for name, p in base.model.named_parameters() if p.requires_grad}
        head = {f"head.{name}": p for name, p in problem.head.named_parameters()}
        self.parameters: State = {**own, **head}
        groups: dict[tuple[float, float], list[Any]] = {}
        for name, parameter in self.parameters.items():
            size = config.head_learning_rate if name in head else config.step_size
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((size, decay), []).append(parameter)
        self.optimiser = torch.optim.AdamW(
            [{"params": some, "lr": size, "weight_decay": decay} for (size, decay), some in groups.items()]
        )
        self.sizes = [size for size, _ in groups]
        self.plan: list[tuple[int, Rows]] = []
        self.evaluated_after: set[int] = set()
        self.threads = config.threads or torch.get_num_threads()
        self.scale: list[float] = []
        for epoch in range(config.epochs):
            batches = problem.epoch(config, epoch)
            self.plan += [(epoch, batch) for batch in batches]
            # of a mean over the epoch, whatever the sizes of its batches
            self.scale += [len(batches) / float(problem.weight[problem.training].sum())] * len(batches)
            parts = config.evaluations_per_epoch
            before = len(self.plan) - len(batches)
            self.evaluated_after |= {before + -(-len(batches) * part // parts) for part in range(1, parts + 1)}
        if config.max_steps is not None:
            self.plan = self.plan[: config.max_steps]
        self.position = Position()
        self.best: State = {}

    @property
    def n_steps(self) -> int:
        """Steps that the plan has."""
        return len(self.plan)

    def train(
        self, progress: Callable[[int, int], None], keep: Callable[[Run], None], kept_best: Callable[[Run], None]
    ) -> None:
        """Take the steps that are left.

        Parameters
        ----------
        progress : callable
            Called as ``progress(steps, n_steps)``.
        keep : callable
            Called every ``checkpoint_every`` steps and at the end, to write a checkpoint.
        kept_best : callable
            Called whenever ``best`` has changed, before ``keep``.

        Raises
        ------
        ModelError
            A loss that is not finite, with the step and what to do.
        """
        from embedrm.encoders.backbone import torch_threads

        at = self.position
        with torch_threads(self.threads), seeded():
            while at.step < self.n_steps and not at.stopped:
                began = time.perf_counter()
                self.take_step()
                at.step += 1
                evaluated = self.is_due(at.step)
                if evaluated:
                    self._judge()
                at.seconds += time.perf_counter() - began
                if evaluated and at.best_step == at.step and len(self.problem.held):
                    kept_best(self)
                if at.step == self.n_steps and not at.stopped:
                    at.stopped = "all steps were taken"
                if at.step % self.config.checkpoint_every == 0 or at.stopped:
                    keep(self)
                progress(at.step, self.n_steps)

    def is_due(self, step: int) -> bool:
        """Whether the held-out loss is looked at after so many steps."""
        every = self.config.evaluate_every
        return step == self.n_steps or (step in self.evaluated_after if every is None else step % every == 0)

    def take_step(self) -> None:
        """One batch forwards, backwards, and a step of the optimiser."""
        import torch

        at, config = self.position, self.config
        _, items = self.plan[at.step]
        set_training(self.base, config, True)
        draw = self._seed(at.step)
        for group, size in zip(self.optimiser.param_groups, self.sizes):
            group["lr"] = size * self._schedule(at.step)
        self.optimiser.zero_grad(set_to_none=True)
        found = self.problem.loss(self.base, items, draw)
        total, weight = float(found.total.detach()), found.weight
        if not math.isfinite(total):
            raise self._not_finite("loss")
        (found.total * self.scale[at.step]).backward()
        length = float(torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), config.clip))
        if not math.isfinite(length):
            raise self._not_finite("gradient")
        self.optimiser.step()
        del found
        if at.step % _TRIM_EVERY == 0:
            give_back()
        at.train_loss += total
        at.train_weight += weight

    def _schedule(self, step: int) -> float:
        warm = max(1, round(self.config.warmup * self.n_steps))
        return min((step + 1) / warm, (self.n_steps - step) / max(1, self.n_steps - warm + 1))

    def _not_finite(self, what: str) -> ModelError:
        config = self.config
        return ModelError(
            f"the {what} is not finite at step {self.position.step + 1} of {self.n_steps} (objective "
            f"{config.objective!r}, method {config.method!r}). Tune anew (resume=False) with a smaller learning_rate (it is "
            f"{config.step_size:g}; head_learning_rate {config.head_learning_rate:g}), more warmup, or a smaller clip."
        )

    def _seed(self, step: int) -> Any:
        import torch

        seeds = np.random.SeedSequence([self.config.random_state, step]).generate_state(2, np.uint64) >> np.uint64(1)
        reseed(int(seeds[0]))
        return torch.Generator().manual_seed(int(seeds[1]))

    def _judge(self) -> None:
        """Evaluate on the held-out groups, keep the best state, and decide whether to go on."""
        at = self.position
        entry: dict[str, Any] = {
            "step": at.step,
            "epoch": self.plan[at.step - 1][0] + 1,
            "train_loss": at.train_loss / max(at.train_weight, 1e-300),
        }
        at.train_loss = at.train_weight = 0.0
        if len(self.problem.held):
            loss, accuracy = self.evaluate()
            entry |= {"validation_loss": loss, "validation_accuracy": accuracy}
            if loss < at.best_loss:
                at.best_loss, at.best_step, at.worse = loss, at.step, 0
                self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
            else:
                at.worse += 1
                if at.worse >= self.config.patience:
                    at.stopped = f"no lower held-out loss in {at.worse} evaluations"
        at.history.append(entry)

    def evaluate(self) -> tuple[float, float | None]:
        """Return the mean loss on the held-out items, and the share of them that is right (None where none can be)."""
        import torch

        set_training(self.base, self.config, False)
        draw = self._seed(_EVALUATION)
        loss = weight = right = judged = 0.0
        with torch.no_grad():
            for items in self.problem.held_batches(self.config):
                found = self.problem.loss(self.base, items, draw)
                loss, weight = loss + float(found.total), weight + found.weight
                right, judged = right + found.right, judged + found.judged
        if not math.isfinite(loss):
            raise self._not_finite("held-out loss")
        return loss / weight, right / judged if judged else None

    def finish(self) -> None:
        """Put the best state in place: where the held-out loss was lowest, or the last where nothing is held out."""
        import torch

        set_training(self.base, self.config, False)
        with torch.no_grad():
            for name, value in self.best.items():
                self.parameters[name].copy_(value)


def reseed(value: int) -> None:
    """Seed the generator that all of torch shares, and from which dropout draws; inside :func:`seeded` alone."""
    import torch

    torch.set_rng_state(torch.Generator().manual_seed(value).get_state())


@contextmanager
def seeded() -> Iterator[None]:
    """Lend the generator that all of torch shares: it is put back at the end."""
    import torch

    before = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(before)
