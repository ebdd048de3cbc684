"""The README's Python runs as printed, and its two set-up commands are where tools look for them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = re.findall(r"^```(?:bash|sh|shell|console)\s*\n(.*?)^```", README, re.S | re.M)
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.S | re.M)


def test_the_first_shell_blocks_are_the_two_set_up_commands():
    run = next(block for block in SHELL if "embedrm reproduce" in block)
    test = next(block for block in SHELL if "pytest" in block)
    for block in (run, test):
        assert "python3 -m venv" in block
        assert "pip install -c constraints.txt" in block
    assert run.split()[-2:] == ["embedrm", "reproduce"]
    assert test.split()[-1] == "pytest"


def test_every_command_shown_exists():
    from typer.main import get_command

    from embedrm.cli import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    shown = set(re.findall(r"^(?:\$ )?embedrm ([\w-]+)", "\n".join(SHELL), re.M))
    assert shown
    assert shown <= known


@pytest.mark.slow
def test_the_python_runs_as_printed(tmp_path, shared_home, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBEDRM_HOME", str(shared_home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert len(PYTHON) >= 2
    for block in PYTHON:
        exec(compile(block, "README.md", "exec"), {})


def test_no_placeholder_is_left():
    assert not re.findall(r"@[A-Z]+@", README)
