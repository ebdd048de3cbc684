"""Where the facts come from: versions, machine, seeds, seconds, peak memory, the exact command."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from embedrm.errors import InvalidInputError
from embedrm.reporting.plain import finite, plain

PACKAGES = ("numpy", "scipy", "scikit-learn", "lightgbm", "torch", "transformers", "sentence-transformers")
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
    "TOKENIZERS_PARALLELISM",
)
_STATUS = Path("/proc/self/status")


def collect(
    *,
    command: Sequence[str] | str | None = None,
    seeds: Any = None,
    encoder: Mapping[str, Any] | None = None,
    data: Any = None,
    started: float | None = None,
    memory: PeakMemory | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what a report has to say about its own making, as plain JSON data.

    Nothing is imported to learn its version. The home directory is written as ``~`` throughout, so that a report can
    be shared.

    Parameters
    ----------
    command : sequence of str or str, optional
        The command's words, or a command line as it is; this process's own by default.
    seeds : int, sequence or mapping, optional
        The seeds used.
    encoder : mapping, optional
        The encoder's fingerprint.
    data : mapping or sequence, optional
        The data sets' names, counts and fingerprints.
    started : float, optional
        ``time.perf_counter()`` at the start; gives ``seconds``.
    memory : PeakMemory, optional
        The sampler that was running; gives the peak of anonymous memory.
    extra : mapping, optional
        More facts, at the top level.

    Returns
    -------
    dict
        ``embedrm`` (version), ``time`` (UTC), ``command``, ``seconds`` if started, ``seeds``, ``data``, ``encoder`` if
        given, ``python``, ``platform``, ``cpu`` (model, count, usable), ``threads`` (variables and pools), ``memory``
        (bytes: total, peak_resident, and peak_anonymous and its baseline if sampled), ``packages`` (None where one is
        not installed).
    """
    facts: dict[str, Any] = {"embedrm": _version("embedrm"), "time": _now(), "command": _command(command)}
    if started is not None:
        facts["seconds"] = _elapsed(started)
    for key, value in (("seeds", seeds), ("data", data), ("encoder", encoder)):
        if value is not None:
            facts[key] = value
    facts |= {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "cpu": {"model": _cpu_model(), "count": os.cpu_count(), "usable": _usable_cpus()},
        "threads": _threads(),
        "memory": _memory(memory),
        "packages": {name: _version(name) for name in PACKAGES},
    }
    for key, value in (extra or {}).items():
        if key in facts:
            raise InvalidInputError(
                f"provenance: extra holds {key!r}, which is collected already. Give it another name."
            )
        facts[key] = value
    return _homeless(plain(facts, "provenance"))


class PeakMemory:
    """Samples this process's anonymous memory (RssAnon) while it is entered.

    Mapped files are left out, since their pages can be dropped at any time; what stays is what a computation needs.
    The kernel keeps the figure to within a few hundred kilobytes, and a peak shorter than the interval can be missed.

    Parameters
    ----------
    interval : float, default 0.005
        Seconds between samples.

    Attributes
    ----------
    baseline : int or None
        Bytes on entry; None where the system does not tell (anything but Linux).
    peak : int or None
        Most bytes seen so far.
    above_baseline : int or None
        ``peak - baseline``.

    Examples
    --------
    >>> with PeakMemory() as memory:
    ...     block = bytearray(1 << 24)
    >>> memory.peak is None or memory.peak >= memory.baseline
    True
    """

    def __init__(self, interval: float = 0.005) -> None:
        if not 0 < interval < float("inf"):
            raise InvalidInputError(f"PeakMemory: interval is a number of seconds above 0, and {interval!r} came.")
        self.interval = interval
        self.baseline: int | None = None
        self.peak: int | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def above_baseline(self) -> int | None:
        """Bytes of the peak above those on entry."""
        return None if self.peak is None or self.baseline is None else self.peak - self.baseline

    def __enter__(self) -> PeakMemory:
        self._stop = threading.Event()
        self.baseline = self.peak = _status("RssAnon")
        if self.baseline is not None:
            self._thread = threading.Thread(target=self._watch, name="embedrm-peak-memory", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sample()
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _sample(self) -> None:
        now = _status("RssAnon")
        if now is not None and self.peak is not None:
            self.peak = max(self.peak, now)

    def _watch(self) -> None:
        while not self._stop.wait(self.interval):
            self._sample()


def peak_resident() -> int | None:
    """Return the most bytes this process ever had in memory, mapped files included, or None if unknown."""
    peak = _status("VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


def _status(field: str) -> int | None:
    """Bytes of one field of /proc/self/status."""
    try:
        found = re.search(
            rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(encoding="ascii", errors="replace"), re.MULTILINE
        )
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None


def _memory(sampler: PeakMemory | None) -> dict[str, int | None]:
    facts: dict[str, int | None] = {"peak_resident_bytes": peak_resident()}
    if sampler is not None:
        facts |= {"peak_anonymous_bytes": sampler.peak, "baseline_anonymous_bytes": sampler.baseline}
    with suppress(AttributeError, OSError, ValueError):  # names that this system may not know
        facts["total_bytes"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return facts


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return getattr(sys.modules.get(name), "__version__", None)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def _elapsed(started: float) -> float:
    seconds = time.perf_counter() - finite(started, "started")
    if seconds < 0:
        raise InvalidInputError(
            "started lies in the future; it is time.perf_counter() taken at the start, not time.time()."
        )
    return round(seconds, 3)


def _command(command: Sequence[str] | str | None) -> str:
    if isinstance(command, str):
        return command
    words = _own_words() if command is None else [str(word) for word in command]
    return " ".join(_quoted(word) for word in words)


def _own_words() -> list[str]:
    """Return the process's own command line, as a reader would type it: a console script or ``python`` and its arguments."""
    words = list(getattr(sys, "orig_argv", [])) or [sys.executable, *sys.argv]
    if any("ipykernel" in word for word in words):
        # a kernel is started with a connection file that no reader has
        return ["a", "notebook"]
    script = words[1] if len(words) > 1 else ""
    if len(sys.argv) > 0 and script == sys.argv[0] and not script.endswith(".py"):
        return [Path(script).name, *words[2:]]
    return ["python", *words[1:]]


def _quoted(word: str) -> str:
    """Quote for a shell, keeping a leading ~ outside the quotes so that it still means the home directory."""
    word = _homeless(word)
    if word == "~":
        return word
    if word.startswith("~/"):
        return "~/" + (shlex.quote(word[2:]) if word[2:] else "")
    return shlex.quote(word)


def _homeless(value: Any) -> Any:
    """Return data with the home directory written as ~ wherever it begins a path."""
    if isinstance(value, dict):
        return {_homeless(key): _homeless(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_homeless(item) for item in value]
    if not isinstance(value, str):
        return value
    home = os.path.expanduser("~").rstrip("/\\")
    if len(home) < 2:
        return value
    return re.sub(rf"(?<![\w./~-]){re.escape(home)}(?![\w.-])", "~", value)


def _cpu_model() -> str | None:
    with suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or None


def _usable_cpus() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _threads() -> dict[str, Any]:
    """Thread variables that are set, and the sizes of the pools of libraries that are loaded already."""
    facts: dict[str, Any] = {name: os.environ[name] for name in _THREADS if name in os.environ}
    with suppress(ImportError):
        from threadpoolctl import threadpool_info

        for pool in threadpool_info():
            name = str(pool.get("internal_api", "pool"))
            facts[name] = max(facts.get(name, 0), int(pool.get("num_threads", 0)))
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        facts["torch"] = torch.get_num_threads()
    return facts
