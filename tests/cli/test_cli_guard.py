"""How a command ends: codes, streams, interrupts, closed pipes, and bugs."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedrm.cli._guard import guarded, keep
from embedrm.errors import DataError, InvalidInputError

EMBEDRM = [sys.executable, "-m", "embedrm"]


def _raise(error: BaseException):
    def run() -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InvalidInputError("this and that"), 2, "error: this and that\n"),
        (DataError("bad", "f.jsonl", 3), 2, "error: f.jsonl:3: bad\n"),
        (typer.BadParameter("no"), 2, "error: Invalid value: no. See 'embedrm --help'\n"),
        (typer.Exit(), 0, ""),
        (typer.Exit(5), 5, ""),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "error: /x: Permission denied; check"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: No space left on device; check"),
        (MemoryError("Unable to allocate"), 2, "error: memory ran out (Unable to allocate)"),
    ],
)
def test_what_a_user_or_the_machine_caused_is_one_line(capsys, error: BaseException, code: int, said: str) -> None:
    assert guarded(_raise(error)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(said)
    assert err.count("\n") == (1 if said else 0)


@pytest.mark.parametrize("error", [RuntimeError("oh"), KeyError("x"), FileNotFoundError(2, "No such file", "template")])
def test_a_bug_says_so_and_shows_its_traceback(capsys, error: Exception) -> None:
    assert guarded(_raise(error)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Traceback (most recent call last):")
    assert err.splitlines()[-1].startswith(
        f"error: this is a bug in embedrm, not in what you typed ({type(error).__name__})"
    )


def test_an_interrupt_says_what_is_kept(capsys) -> None:
    def run() -> None:
        keep("vectors stay in X")
        raise KeyboardInterrupt

    assert guarded(run) == 130
    assert capsys.readouterr().err == "interrupted: vectors stay in X.\n"


def test_control_characters_in_messages_are_shown_and_not_sent(capsys) -> None:
    guarded(_raise(DataError("bad", "a\x1b[2Jb.jsonl")))
    assert capsys.readouterr().err == "error: a\\x1b[2Jb.jsonl: bad\n"


def test_python_words_are_said_as_options(capsys) -> None:
    guarded(_raise(InvalidInputError("skip them with on_error='skip', or ties='keep'")))
    assert capsys.readouterr().err == "error: skip them with --on-error skip, or --ties keep\n"


def _slow_encoder_code(words: list[str]) -> str:
    return (
        # whoever starts the tests in the background has them ignore the signal, and children inherit that
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from embedrm.encoders.hashing import HashingEncoder\n"
        "honest = HashingEncoder.encode\n"
        "def slow(self, texts, layers=None, progress=None):\n"
        "    print('started', flush=True)\n"
        "    time.sleep(30)\n"
        "    return honest(self, texts, layers, progress=progress)\n"
        "HashingEncoder.encode = slow\n"
        "from embedrm.cli import main\n"
        f"main({words!r})\n"
    )


def test_ctrl_c_during_an_encode_ends_with_130(pairs_file: str, home: Path) -> None:
    code = _slow_encoder_code(["encode", "--encoder", "hashing", pairs_file])
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.splitlines()[-1] == (
        f"interrupted: vectors that were committed stay in {home}/store; the same command goes on from there."
    )
    assert "Traceback" not in err


def test_a_closed_pipe_is_quiet(pairs_file: str) -> None:
    rows = [{"prompt": f"p{i}", "chosen": "good " * 50, "rejected": "bad " * 50} for i in range(3000)]
    Path("big.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = " ".join([*EMBEDRM, "data", "show", "big.jsonl", "-n", "3000", "--quiet"])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -n 1; echo codes ${{PIPESTATUS[@]}}"],
        capture_output=True,
        text=True,
        # unbuffered, Python itself drops what a closing pipe did not take, and nobody can tell
        env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "codes 141 0"


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        (["data", "check", "nothere.jsonl"], 2, "", "error: nothere.jsonl: there is no such file; check the path.\n"),
        (["--version"], 0, "embedrm 0.1.0\n", ""),
        (["cache", "path", "--store", "s"], 0, "s\n", ""),
    ],
)
def test_streams_and_codes_of_real_processes(home: Path, words: list[str], code: int, out: str, err: str) -> None:
    done = subprocess.run([*EMBEDRM, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)


def test_a_terminal_without_unicode_gets_escapes_and_valid_json(pairs_file: str) -> None:
    row = {"prompt": "Tee?", "chosen": "süß", "rejected": "茶"}
    Path("u.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    text = subprocess.run([*EMBEDRM, "data", "show", "u.jsonl"], capture_output=True, env=environment)
    assert text.returncode == 0
    assert b"s\\xfc\\xdf" in text.stdout, text.stdout
    as_json = subprocess.run([*EMBEDRM, "data", "show", "u.jsonl", "--json"], capture_output=True, env=environment)
    assert json.loads(as_json.stdout)[0]["chosen"] == "süß"


# -- whatever is typed or read, there is no traceback -------------------------------------------------------------

WORDS = st.sampled_from(
    [
        *("data", "show", "check", "list", "encode", "fit", "evaluate", "compare", "score", "reproduce", "cache"),
        *("path", "stats", "verify", "compact", "export", "import", "remove", "pairs.jsonl", "m", "nothere", "seeed"),
        *("--json", "--quiet", "--set", "--head", "--layers", "--side", "--split", "--column", "--form", "--vectors"),
        *(
            "--pairs",
            "--output",
            "--encoder",
            "--store",
            "--terms",
            "--router",
            "--prompt",
            "--response",
            "-n",
            "--help",
        ),
        *(
            "l2=0",
            "l2",
            "=",
            "linear",
            "hashing",
            "hashing:0",
            "hashing:x",
            "final",
            "3",
            "-1",
            "",
            "train",
            "p*r",
            "\x00",
        ),
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(WORDS, max_size=7))
def test_no_words_make_a_traceback(cli, pairs_file: str, words: list[str]) -> None:
    # an encoder and a folder of our own, so that no draw loads a model or starts a study
    if "reproduce" in words and "--help" not in words:
        words = [*words, "--data", "nothere.jsonl"]
    if "encode" in words or "fit" in words:
        words = [*words, "--encoder", "hashing:8"]
    outcome = cli(*words) if len(words) != 1 else cli(*words, "--quiet")
    assert outcome.code in (0, 2), outcome.err
    assert "Traceback" not in outcome.err
    if outcome.code == 2:
        assert "error: " in outcome.err


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "prompt",
    "chosen",
    "rejected",
    "domain",
    "split",
    "outcome",
    "margin",
    "weight",
    "responses",
    "gold",
    "text",
    "label",
)
rows = st.dictionaries(st.sampled_from(FIELDS), json_values | st.sampled_from(["a", "b"]), max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.lists(rows, min_size=1, max_size=4))
def test_no_rows_make_a_traceback(cli, home: Path, content: list[dict]) -> None:
    Path("x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    for words in (
        "data check x.jsonl",
        "data show x.jsonl",
        "fit x.jsonl --encoder hashing:8 --no-store -o never/m --overwrite",
    ):
        outcome = cli(words)
        assert outcome.code in (0, 2), outcome.err
        assert "Traceback" not in outcome.err
        if outcome.code == 2:
            assert "\nerror: " in "\n" + outcome.err
