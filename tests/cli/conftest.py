"""A runner for the command line, small data, and models fitted on it with the hashing encoder."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Outcome]


def invoke(*words: str) -> Outcome:
    from embedrm.cli import app

    args = shlex.split(words[0]) if len(words) == 1 else [str(word) for word in words]
    result = CliRunner().invoke(app, args)
    # every ending is a SystemExit: an exception that came through would be a traceback in a terminal
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def write_pairs(path: Path, n: int = 48, *, split: bool = True, seed: int = 0) -> Path:
    """Pairs that a bag of words can learn: in each domain one word is the better answer."""
    rng = np.random.default_rng(seed)
    better = {"tea": ("kettle", "bucket"), "sea": ("harbour", "desert")}
    rows = []
    for i in range(n):
        domain = ("tea", "sea")[i % 2]
        good, bad = better[domain]
        filler = " ".join(rng.choice(["so", "very", "quite", "rather", "well"], size=4).tolist())
        row = {
            "prompt": f"Where do {domain} leaves go, question {i}?",
            "chosen": f"Into the {good}, {filler}.",
            "rejected": f"Into the {bad}, {filler} indeed.",
            "domain": domain,
        }
        rows.append(row | ({"split": "test" if i % 4 == 3 or i % 4 == 2 else "train"} if split else {}))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def cli() -> Cli:
    return invoke


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of its own for every test, and a folder to work in."""
    monkeypatch.setenv("EMBEDRM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


@pytest.fixture
def pairs_file(home: Path) -> str:
    return write_pairs(Path("pairs.jsonl")).name


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of fitted models; tests only read them."""
    root = tmp_path_factory.mktemp("models")
    data = write_pairs(root / "pairs.jsonl")
    commands = {
        "linear": "--set l2=0.1",
        "routed": "--routed --set routed.calibrate=false --head linear",
        "wide": "--encoder-option dim=64",
        "length": "--head length",
    }
    for name, options in commands.items():
        words = ["fit", str(data), "--output", str(root / name), "--encoder", "hashing", "--no-store"]
        outcome = invoke(*words, *shlex.split(options))
        assert outcome.code == 0, outcome.err
    return {"data": str(data), **{name: str(root / name) for name in commands}}


@pytest.fixture
def vectors(home: Path) -> dict[str, str]:
    """Vectors with a known reward, and pairs that follow it."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((80, 6)).astype(np.float32)
    reward = x @ np.array([2.0, -1.0, 0.5, 0.0, 0.0, 0.0], dtype=np.float32)
    pairs = np.arange(80).reshape(-1, 2)
    pairs = np.where((reward[pairs[:, 0]] < reward[pairs[:, 1]])[:, None], pairs[:, ::-1], pairs)
    np.save("a.npy", x)
    lines = [{"chosen": int(c), "rejected": int(r), "domain": f"d{i % 2}"} for i, (c, r) in enumerate(pairs)]
    Path("p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return {"vectors": "a.npy", "pairs": "p.jsonl"}
