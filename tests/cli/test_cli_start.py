"""Starting up: what help costs, what it says, and how usage errors read."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "sklearn",
    "pandas",
    "matplotlib",
    "lightgbm",
    "transformers",
    "sentence_transformers",
    "scipy",
    "numpy",
)


@pytest.mark.parametrize("words", [["--help"], [], ["fit", "--nothing"], ["tune"], ["cache", "--help"], ["--version"]])
def test_starting_up_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\n"
        "from embedrm.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        f"print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_python_dash_m_is_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "embedrm", "--version"], capture_output=True, text=True, check=True)
    import embedrm

    assert done.stdout == f"embedrm {embedrm.__version__}\n"
    assert done.stderr == ""


@pytest.mark.parametrize("group", ["", "data", "cache"])
def test_a_bare_group_shows_its_help(cli, group: str) -> None:
    bare, asked = cli(*group.split()) if group else cli(""), cli(*group.split(), "--help")
    assert bare.code == asked.code == 0
    assert bare.out == asked.out
    assert "Usage: embedrm" in bare.out


def test_help_names_every_command(cli) -> None:
    out = cli("--help").out
    for name in ("reproduce", "data", "encode", "tune", "fit", "evaluate", "compare", "score", "cache"):
        assert f" {name} " in out


def test_help_of_fit_lists_every_head_and_router(cli) -> None:
    from embedrm.heads import HEADS
    from embedrm.routers import ROUTERS

    out = cli("fit --help").out
    flat = " ".join(out.split())
    for name, cls in (*HEADS, *ROUTERS):
        assert f"{name}: " in flat
        first = (cls.__doc__ or "").strip().splitlines()[0]
        if "`" not in first:
            assert first in flat
    assert "\\" not in flat.replace("\\[", "")
    assert "l2=0.01" in flat


def test_help_of_reproduce_lists_the_papers(cli) -> None:
    from embedrm.experiments.papers import PAPERS

    flat = " ".join(cli("reproduce --help").out.split())
    assert PAPERS.names()
    for name, paper in PAPERS:
        assert f"{name}: {paper.title}" in flat


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fti", "fit"),
        ("fit --hed linear --output m", "--head"),
        ("fit", "--output"),
        ("evaluate", "MODEL"),
        ("cache remove", "DIGEST"),
        ("data show -n many domains", "-n"),
        ("--frobnicate", "--frobnicate"),
        ("evaluate m p.jsonl --random-state -1", "--random-state"),
        ("evaluate m p.jsonl --n-resamples 0", "--n-resamples"),
    ],
)
def test_usage_errors_are_one_line_with_a_way_on(cli, words: str, said: str) -> None:
    outcome = cli(words)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert said in outcome.err
    assert "--help'" in outcome.err
