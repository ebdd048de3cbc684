"""The human-labelled files that the real-data benchmarks read; their folder is an argument or EMBEDRM_REAL_DATA."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from embedrm import EmbeddedPreferences, PreferenceDataset, encode, read_preferences
from embedrm.progress import bars

FILES = (
    "hh_rlhf", "ukp_convarg", "mediqa", "summarization", "humicroedit",
    "gsm8k", "humanevalpack", "xstest", "qa_feedback", "webgpt",
)  # fmt: skip


def add_options(options: argparse.ArgumentParser) -> None:
    options.add_argument("--data", type=Path, default=os.environ.get("EMBEDRM_REAL_DATA"), help="folder of the files")
    options.add_argument("--encoder", default=None, help="encoder; the default one where absent")


def load(a: argparse.Namespace) -> PreferenceDataset:
    """Every row of the files, with their own splits and domains; the bundled set in a smoke run."""
    if a.smoke:
        from embedrm import load_bundled

        return load_bundled()
    if a.data is None:
        raise SystemExit("give --data FOLDER or set EMBEDRM_REAL_DATA; --smoke runs on the bundled data")
    return read_preferences([Path(a.data) / f"{name}.jsonl.gz" for name in FILES])


def vectors(
    a: argparse.Namespace, layers: str | None, sides: tuple[str, ...] = ("response", "prompt")
) -> EmbeddedPreferences:
    """Encode the sides (through the user's store; the hashing encoder in a smoke run)."""
    with bars() as progress:
        encoder = "hashing:64" if a.smoke else a.encoder
        store = False if a.smoke else None
        return encode(load(a), encoder, layers=None if a.smoke else layers, sides=sides, progress=progress, store=store)
