"""The README's Python runs as printed, and its two set-up commands are where tools look for them."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = re.findall(r"^```(?:bash|sh|shell|console)\s*\n(.*?)^```", README, re.S | re.M)
YAML = re.findall(r"^```yaml\n(.*?)^```", README, re.S | re.M)
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


def test_every_option_shown_exists():
    from typer.main import get_command

    from embedrm.cli import app

    root = get_command(app)
    shown = re.findall(r"^(?:\$ )?embedrm ([^#\n]+)", "\n".join(SHELL), re.M)
    assert len(shown) > 20
    for words in map(str.split, shown):
        command, path = root, []
        while words and words[0] in getattr(command, "commands", {}):
            path.append(words[0])
            command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        given = {word.partition("=")[0] for word in words if re.match("-+[a-z]", word)}
        assert given <= known, (path, given - known)


def test_the_experiment_shown_is_a_sweep_of_as_many_trials_as_said(tmp_path, monkeypatch):
    import shlex

    from embedrm.cli._sweeping import build_sweep
    from embedrm.experiments.sweep import Sweep

    monkeypatch.chdir(tmp_path)
    [text] = YAML
    Path("study.yaml").write_text(text, encoding="utf-8")
    sweep = Sweep.from_file("study.yaml")
    said = re.search(r"here (\d+) trials", README)
    assert said is not None
    assert len(sweep.settings) * len(sweep.seeds) == int(said[1])
    shown = re.findall(r"^\$ embedrm sweep study.yaml ([^#\n]+)", "\n".join(SHELL), re.M)
    assert len(shown) >= 3
    for line in shown:
        words = shlex.split(line)
        axes = {
            name: [b for a, b in pairwise(words) if a == f"--{name}"] or None for name in ("grid", "around", "random")
        }
        samples = next((int(b) for a, b in pairwise(words) if a == "--samples"), None)
        build_sweep("study.yaml", None, **axes, samples=samples, random_state=0, seeds=None)


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
