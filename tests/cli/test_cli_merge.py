"""embedrm merge: encoders, tuned folders and heads; the report, dry runs and errors."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent.parent / "tuning"))

from tuning_base import make_base

from embedrm.persistence import load_model
from embedrm.pipeline import RewardPipeline

TABLE = "embeddings.word_embeddings.weight"


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """A base and two models moved from it."""
    place = tmp_path_factory.mktemp("cli-merge")
    base = make_base(place / "base")
    for seed, name in enumerate(("general", "maths")):
        shutil.copytree(base, place / name)
        arrays = load_file(place / name / "model.safetensors")
        rng = np.random.default_rng(seed)
        moved = {
            k: (v + 0.05 * rng.normal(size=v.shape)).astype(np.float32)
            for k, v in arrays.items()
            if v.dtype.kind == "f"
        }
        save_file({**arrays, **moved}, place / name / "model.safetensors", metadata={"format": "pt"})
    return str(place / "general"), str(place / "maths"), str(base)


def table(folder: str) -> np.ndarray:
    return load_file(Path(folder) / "model.safetensors")[TABLE].astype(np.float64)


def test_one_weight_is_lambda(cli, encoders) -> None:
    a, b, _ = encoders
    outcome = cli(f"merge {a} {b} --weight 0.3 --output merged --json")
    assert outcome.code == 0, outcome.err
    facts = outcome.json()
    assert facts["merge"]["weights"] == [0.7, 0.3]
    assert facts["compatibility"]["compatible"] is True
    np.testing.assert_allclose(table("merged"), 0.7 * table(a) + 0.3 * table(b), atol=1e-6)
    assert "they can be merged" in outcome.err


def test_ties_from_a_base(cli, encoders) -> None:
    from embedrm.merging.encoders import merge_encoders

    a, b, base = encoders
    outcome = cli(
        f"merge {a} {b} --method ties --weight 0.3 --weight 0.7 --base {base} --set density=0.5 --output merged -q"
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert "method    ties (density=0.5" in outcome.out
    merge_encoders([a, b], "again", [0.3, 0.7], "ties", base=base, density=0.5)
    np.testing.assert_array_equal(table("merged"), table("again"))


def test_a_dry_run_writes_nothing_and_says_whether(cli, encoders) -> None:
    a, b, _ = encoders
    outcome = cli(f"merge {a} {b} --dry-run")
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == "they can be merged"
    shutil.copytree(b, "short")
    Path("short/sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16}))
    outcome = cli(f"merge {a} short --dry-run")
    assert outcome.code == 1
    assert "refused   max length (general: 32; short: 16)" in outcome.out
    assert cli(f"merge {a} short --dry-run --json").json()["compatible"] is False
    refused = cli(f"merge {a} short --output merged")
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "--accept 'max-length'" in refused.err
    assert cli(f"merge {a} short --output merged --accept max-length").code == 0


def test_heads_of_fit(cli, pairs_file: str) -> None:
    for name, changes in (("one", ""), ("two", "--set l2=0.1")):
        fitted = cli(f"fit {pairs_file} --encoder hashing:32 --scale none --output {name} {changes} -q")
        assert fitted.code == 0, fitted.err
    outcome = cli("merge one two --weight 0.25 --output merged")
    assert outcome.code == 0, outcome.err
    coef = [load_model(name)[0].coef_ for name in ("one", "two", "merged")]
    np.testing.assert_allclose(coef[2], 0.75 * coef[0] + 0.25 * coef[1], rtol=1e-6)
    rewards = [
        RewardPipeline.load(name).score("Where?", ["Into the kettle.", "No."]) for name in ("one", "two", "merged")
    ]
    np.testing.assert_allclose(rewards[2], 0.75 * rewards[0] + 0.25 * rewards[1], rtol=1e-6)
    assert cli(f"evaluate merged {pairs_file} -q").code == 0
    assert cli("merge one two --method task_arithmetic --base zero --output sum").code == 0
    for again in ("one two --output merged", "one two --base zero --output m", "one two --accept base --output m"):
        assert cli(f"merge {again}").code == 2
    assert cli(f"fit {pairs_file} --encoder hashing:16 --scale none --output other -q").code == 0
    refused = cli("merge one other --output m")
    assert refused.code == 2
    assert "another encoder" in refused.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("{a} {b}", "needs --output"),
        ("{a} {b} --weight 0.1 --weight 0.2 --weight 0.3 --output m", "--weight is given 3 times for 2 models"),
        ("{a} {b} --method tise --output m", "ties"),
        ("{a} {b} --method ties --output m", "give --base"),
        ("{a} {b} --method fisher --output m", "needs moments"),
        ("{a} {b} --base {base} --output m", "no use for --base"),
        ("{a} {b} --set density=0.5 --output m", "density"),
        ("{a} {b} --accept shapes --output m", "shapes"),
        ("{a} {b} --rotation procrustes --output m", "cannot be rotated"),
        ("{a} {b} --align --output m", "for heads"),
        ("{a} ./nowhere --output m", "no model found"),
        ("{a} {b} --output {b}", "already there"),
    ],
)
def test_errors_are_one_line(cli, encoders, words: str, told: str) -> None:
    a, b, base = encoders
    outcome = cli("merge " + words.format(a=a, b=b, base=base) + " --quiet")
    assert outcome.code == 2
    assert told in outcome.err
    assert outcome.err.count("\n") == 1
    assert not Path("m").exists()
