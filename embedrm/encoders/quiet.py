"""Loading a model without the loader's talk on stderr, and without changing anybody's logging settings."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_TALKATIVE = ("transformers", "sentence_transformers", "huggingface_hub")


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def quiet_loading() -> Iterator[list[str]]:
    """Catch what transformers, sentence-transformers and huggingface_hub would print while they load.

    Their log records go to the yielded list instead of stderr, their progress bars are off, Python warnings are
    ignored. Every setting is put back on leaving, also after an error. Import the libraries before entering: what
    they set up at import is then left alone.

    Yields
    ------
    list of str
        The messages of level WARNING and above, filled as they come; a caller can look for trouble in them.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    collector = _Collector()
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    saved = [(logger, logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    # transformers' own switch moves that of huggingface_hub along, so both are recorded before either is touched.
    loader_bars, hub_bars = transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    try:
        for logger in loggers:
            logger.handlers, logger.propagate = [collector], False
            logger.setLevel(logging.WARNING)
        transformers_logging.disable_progress_bar()
        disable_progress_bars()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield collector.messages
    finally:
        if loader_bars:
            transformers_logging.enable_progress_bar()
        if hub_bars:
            enable_progress_bars()
        else:
            disable_progress_bars()
        for logger, handlers, propagate, level in saved:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
