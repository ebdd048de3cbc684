"""The human-labelled files that the real-data benchmarks read; their folder is an argument or EMBEDRM_REAL_DATA."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from embedrm import EmbeddedPreferences, PreferenceDataset, encode, read_preferences
from embedrm.progress import bars

FILES = (
    "hh_rlhf", "ukp_convarg", "mediqa", "summarization", "humicroedit",
    "gsm8k", "humanevalpack", "xstest", "qa_feedback", "webgpt",
)  # fmt: skip
# What some files put before every prompt of a domain: a router would read the domain off it.
TASK_LINES = (
    re.compile(r"\A(Summarize this article:|Make this news headline funny by changing one word:)\n"),
    re.compile(r"\AComplete this \w+ function:\n"),
    re.compile(r"\ADebate: (?=.*\nArgue convincingly for this side:)"),
    re.compile(r"(?<=\n)Argue convincingly for this side: "),
)


def add_options(options: argparse.ArgumentParser) -> None:
    options.add_argument("--data", type=Path, default=os.environ.get("EMBEDRM_REAL_DATA"), help="folder of the files")
    options.add_argument("--encoder", default=None, help="encoder; the default one where absent")


def load(a: argparse.Namespace, task_lines: bool = True) -> PreferenceDataset:
    """Every row of the files, with their own splits and domains; the bundled set in a smoke run.

    Without ``task_lines`` the fixed words that some files put before every prompt of a domain are taken out.
    """
    if a.smoke:
        from embedrm import load_bundled

        return load_bundled()
    if a.data is None:
        raise SystemExit("give --data FOLDER or set EMBEDRM_REAL_DATA; --smoke runs on the bundled data")
    data = read_preferences([Path(a.data) / f"{name}.jsonl.gz" for name in FILES])
    if task_lines:
        return data
    prompts = data.prompts.copy()
    for pattern in TASK_LINES:
        prompts["prompt"] = prompts["prompt"].str.replace(pattern, "", regex=True)
    return PreferenceDataset(prompts, data.responses, data.pairs, name=f"{data.name}, no task lines", info=data.info)


def vectors(
    a: argparse.Namespace,
    layers: str | None,
    sides: tuple[str, ...] = ("response", "prompt"),
    task_lines: bool = True,
) -> EmbeddedPreferences:
    """Encode the sides (through the user's store; the hashing encoder in a smoke run)."""
    data, encoder, store = load(a, task_lines), "hashing:64" if a.smoke else a.encoder, False if a.smoke else None
    with bars() as progress:
        return encode(data, encoder, layers=None if a.smoke else layers, sides=sides, progress=progress, store=store)
