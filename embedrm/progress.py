"""Progress of long jobs, on stderr, with a rate and an estimate; silent unless someone asks to see it.

A job takes a ``Progress``: called with a label it returns a step function, which the job calls with ``(done, total)`` as
it goes. Libraries are silent by default; the command line passes :func:`bars`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Step = Callable[[int, int], None]
Progress = Callable[[str], Step]

# A job shorter than this shows nothing.
PATIENCE_SECONDS = 2.0


def silent(label: str) -> Step:
    """Show nothing."""
    return lambda done, total: None


@contextmanager
def bars(enabled: bool = True) -> Iterator[Progress]:
    """Yield a ``Progress`` that draws rich bars on stderr for every job longer than two seconds.

    On a stream that is not a terminal, a plain line is printed now and then instead.
    """
    if not enabled:
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda label: _Lines(label, console.print)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=console, transient=True) as progress:

        def start(label: str) -> Step:
            began = time.monotonic()
            task = None

            def step(done: int, total: int) -> None:
                nonlocal task
                elapsed = time.monotonic() - began
                if task is None and elapsed < PATIENCE_SECONDS:
                    return
                if task is None:
                    task = progress.add_task(label, total=total, rate="")
                progress.update(task, completed=done, total=total, rate=_speed(done / max(elapsed, 1e-9)))

            return step

        yield start


def _speed(rate: float) -> str:
    """Say how many a second, or how many seconds one takes where it is less than one."""
    if rate >= 10 or rate <= 0:
        return f"{rate:,.0f}/s"
    return f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:,.1f} s each"


class _Lines:
    """A line every ten seconds, for logs."""

    def __init__(self, label: str, write: Callable[[str], None]) -> None:
        self.label, self.write = label, write
        self.began = self.last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.last < 10.0:
            return
        self.last = now
        rate = done / max(now - self.began, 1e-9)
        left = (total - done) / rate if rate > 0 else float("inf")
        self.write(f"{self.label}: {done:,}/{total:,}, {_speed(rate)}, {left:,.0f} s left")
