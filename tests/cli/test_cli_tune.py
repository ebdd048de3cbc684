"""embedrm tune: estimate, result, resuming, plain text, errors, and the tuned folder under the other commands."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tuning"))

from tuning_base import TEXTS, make_base, make_preferences

from embedrm.datasets import read_preferences
from embedrm.tuning import TunedEncoder, TuningConfig


def fast(**changes: object) -> str:
    """Parameters that suit the tiny base, as options."""
    values = {"epochs": 2, "batch_tokens": 200, "max_length": 32, "learning_rate": 3e-3, "threads": 1, **changes}
    return " ".join(f"--set {name}={value}" for name, value in values.items())


FAST = fast()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_base(tmp_path_factory.mktemp("cli-tuning") / "base"))


@pytest.fixture
def colours(home: Path) -> str:
    rows = make_preferences()
    rows.to_jsonl("colours.jsonl")
    return "colours.jsonl"


@pytest.fixture
def words(home: Path) -> str:
    Path("words.txt").write_text("".join(f"{text}\n" for text in [*TEXTS, "", "  ", "a clear blue house ."]))
    return "words.txt"


def test_the_result_is_a_table_and_a_folder(cli, base: str, colours: str) -> None:
    outcome = cli(f"tune {colours} --base {base} --output tuned {FAST}")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].split("  ")[0] == "epoch"
    tuned = TunedEncoder.load("tuned")
    assert len(tuned.history_) == 4  # two epochs, twice each
    for line, entry in zip(lines[2:6], tuned.history_):
        cells = [cell for cell in line.split() if cell != "*"]
        assert cells == [
            str(entry["epoch"]),
            str(entry["step"]),
            f"{entry['train_loss']:.4f}",
            f"{entry['validation_loss']:.4f}",
            f"{entry['validation_accuracy']:.3f}",
        ]
        assert ("*" in line) == (entry["step"] == tuned.facts_["best_step"])
    assert "--encoder tuned" in lines[-1]
    # the estimate comes before the work, on stderr
    assert "tuning: about " in outcome.err
    assert " GiB" in outcome.err
    assert not Path("tuned.unfinished").exists()


def test_json_has_the_configuration_that_was_asked_for(cli, base: str, colours: str) -> None:
    words = (
        f"tune {colours} --base {base} -o tuned {FAST} --method top --set n_layers=1 --seed 3 --objective domain --json"
    )
    outcome = cli(f"{words} --quiet")
    assert outcome.err == ""
    facts = outcome.json()
    wanted = {"base": base, "method": "top", "objective": "domain", "n_layers": 1, "random_state": 3, "epochs": 2}
    assert {name: facts["config"][name] for name in wanted} == wanted
    assert facts["classes"] == ["house", "shirt"]
    assert facts["history"] == TunedEncoder.load("tuned").history_
    best = next(entry for entry in facts["history"] if entry["step"] == facts["best_step"])
    assert facts["held_out"] == {"loss": best["validation_loss"], "accuracy": best["validation_accuracy"]}
    assert facts["estimate"]["n_steps"] == facts["steps_planned"]
    assert facts["resumed_at"] is None
    assert facts["encoder"] == TunedEncoder.load("tuned").encoder().fingerprint_digest()


def test_what_is_told_is_the_best_state_and_not_the_last(cli, base: str, colours: str) -> None:
    options = fast(learning_rate=0.3, head_learning_rate=0.3, epochs=12, patience=2)
    facts = cli(f"tune {colours} --base {base} -o tuned --method full {options} --json --quiet").json()
    losses = [entry["validation_loss"] for entry in facts["history"]]
    best = losses.index(min(losses))
    assert best < len(losses) - 1, "this run must end worse than it was"
    assert facts["held_out"]["loss"] == losses[best]
    assert facts["held_out"]["accuracy"] == facts["history"][best]["validation_accuracy"]


def test_an_estimate_alone_writes_nothing(cli, base: str, colours: str) -> None:
    before = sorted(Path().rglob("*"))
    text = cli(f"tune {colours} --base {base} {FAST} --estimate")
    assert text.code == 0, text.err
    assert text.out.startswith("tuning: about ")
    facts = cli(f"tune {colours} --base {base} {FAST} --output tuned --estimate --json --quiet").json()
    assert facts["seconds"] > 0
    assert facts["n_steps"] > 0
    assert facts["memory_bytes"] > 0
    assert sorted(Path().rglob("*")) == before


def test_defaults_are_those_of_the_configuration(cli) -> None:
    from embedrm.cli.tune import _config

    assert _config("lora", "bradley-terry", None, 0, None) == TuningConfig()
    flat = " ".join(cli("tune --help").out.split())
    assert "[default: lora]" in flat
    assert "[default: bradley-terry]" in flat
    for name, value in TuningConfig().to_dict().items():
        if name not in ("base", "method", "objective", "random_state"):
            assert f"{name}={'null' if value is None else value}" in flat


def test_a_killed_run_goes_on_and_says_so(cli, base: str, colours: str) -> None:
    options = f"--base {base} {fast(epochs=30, patience=30, checkpoint_every=5)}"
    words = [sys.executable, "-m", "embedrm", "tune", colours, "--output", "tuned", *options.split(), "--quiet"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        begun = time.monotonic()
        while not Path("tuned.unfinished/checkpoint.safetensors").is_file():
            assert process.poll() is None
            assert time.monotonic() - begun < 60
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not Path("tuned").exists()
    # a run that asks for something else is refused, and leaves the checkpoint alone
    other = cli(f"tune {colours} --output tuned {options} --set rank=2")
    assert other.code == 2
    assert "differs in: rank" in other.err.splitlines()[-1]
    assert "--no-resume" in other.err.splitlines()[-1]
    outcome = cli(f"tune {colours} --output tuned {options}")
    assert outcome.code == 0, outcome.err
    assert "holds an unfinished run, which is resumed" in outcome.err
    assert "going on after step " in outcome.err
    assert "resumed   after step " in outcome.out
    assert not Path("tuned.unfinished").exists()


def test_no_resume_begins_anew(cli, base: str, colours: str) -> None:
    Path("tuned.unfinished").mkdir()
    Path("tuned.unfinished/checkpoint.safetensors").write_bytes(b"not one")
    damaged = cli(f"tune {colours} --base {base} --output tuned {FAST}")
    assert damaged.code == 2
    assert "--no-resume" in damaged.err.splitlines()[-1]
    outcome = cli(f"tune {colours} --base {base} --output tuned {FAST} --no-resume")
    assert outcome.code == 0, outcome.err
    assert "thrown away" in outcome.err
    assert "going on after" not in outcome.err
    assert "resumed" not in outcome.out


def test_the_other_commands_take_the_folder_as_their_encoder(cli, base: str, colours: str) -> None:
    import numpy as np

    assert cli(f"tune {colours} --base {base} --output tuned {fast(epochs=4)} --quiet").code == 0
    encoded = cli(f"encode {colours} --encoder tuned --side joint --json --quiet").json()
    tuned = TunedEncoder.load("tuned")
    assert encoded["encoder"]["digest"] == tuned.encoder().fingerprint_digest()
    assert encoded["sides"]["joint"]["encoded"] > 0
    fit = cli(
        f"fit {colours} --encoder tuned --side joint --layers final --output model --response joint:final --quiet"
    )
    assert fit.code == 0, fit.err
    prompt, answers = "name a red green shirt.", ["it is kind", "it is very rude"]
    said = ["--prompt", prompt, *(word for answer in answers for word in ("--response", answer))]
    scored = cli("score", "model", *said, "--json", "--quiet")
    assert scored.code == 0, scored.err
    rewards = [row["reward"] for row in scored.json()]
    # the head reads the tuned vectors: the same rewards from the encoder and the head by hand
    from embedrm import RewardPipeline

    found = RewardPipeline.load("model").score([prompt] * 2, answers)
    assert np.allclose(rewards, found, atol=1e-5)
    assert rewards[0] > rewards[1]
    elsewhere = cli("score", "model", *said, "--encoder", "tuned", "--json", "--quiet").json()
    assert [row["reward"] for row in elsewhere] == rewards


@pytest.mark.parametrize("objective", ["masked-token", "contrastive"])
def test_plain_text_is_one_text_a_line(cli, base: str, words: str, objective: str) -> None:
    more = "--set validation_fraction=0.3"
    outcome = cli(f"tune {words} --base {base} --objective {objective} -o tuned {FAST} {more} --json")
    assert outcome.code == 0, outcome.err
    assert "reading: 6 texts in words.txt, 2 blank" in outcome.err
    assert outcome.json()["data"]["texts"] == 6


def test_packed_text_and_the_texts_of_a_data_set_are_read_too(cli, base: str, words: str, colours: str) -> None:
    from embedrm.cli._common import Console
    from embedrm.cli._data import Reading
    from embedrm.cli._plain import read_material

    Path("words.txt.gz").write_bytes(gzip.compress(Path(words).read_bytes()))
    quiet = Console(True, False)
    plain, packed = (read_material([name], None, Reading(), False, quiet) for name in (words, "words.txt.gz"))
    assert plain == packed
    assert plain.data == [*TEXTS, "a clear blue house ."]
    Path("reviews.jsonl").write_text(
        "".join(json.dumps({"text": text, "label": i}) + "\n" for i, text in enumerate(TEXTS))
    )
    reviews = read_material(["reviews.jsonl"], None, Reading(), False, quiet)
    assert reviews.data == TEXTS
    assert len(set(reviews.groups or ())) == len(TEXTS)
    bundled = read_material(["texts"], None, Reading(), False, quiet)
    both = read_material(["texts"], "all", Reading(), False, quiet)
    assert 0 < len(bundled.data) < len(both.data)
    assert len(both.data) == len(both.groups or ())


def test_texts_with_prompts_keep_their_groups(cli, base: str, home: Path) -> None:
    rows = [
        {"prompt": f"name a {colour} house ?", "text": f"{text} {colour}", "label": 1}
        for colour in ("red", "blue")
        for text in TEXTS
    ]
    Path("answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = f"--base {base} --objective masked-token {fast(epochs=1)}"
    outcome = cli(f"tune answers.jsonl -o tuned {options} --quiet")
    assert outcome.code == 0, outcome.err
    data = read_preferences("answers.jsonl")
    owner = data.prompts["group"][data.responses["prompt_of"]].tolist()
    config = TunedEncoder.load("tuned").config
    for groups, same in ((owner, True), (None, False)):
        again = TunedEncoder(config).fit(data.response_texts(), f"again-{same}", groups=groups)
        assert (again.facts_["data_digest"] == TunedEncoder.load("tuned").facts_["data_digest"]) == same


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{colours}", "tune needs --output FOLDER"),
        ("{colours} -o tuned --method half", "unknown method of tuning 'half'"),
        ("{colours} -o tuned --objective domains", "Did you mean 'domain'?"),
        ("{colours} -o tuned --set rnak=2", "Did you mean 'rank'?"),
        ("{colours} -o tuned --set rank=wide", "'rank' of tuning must be a whole number, got 'wide'"),
        ("{colours} -o tuned --set rank=0", "rank of tuning must be a whole number of at least 1"),
        ("{colours} -o tuned --set method=full", "give --method"),
        ("{colours} -o tuned --set random_state=1", "give --random-state"),
        ("{colours} -o {colours}", "colours.jsonl is already there"),
        ("{colours} -o tuned --base hashing", "a transformer with a tokenizer"),
        ("{colours} -o tuned --base nowhere/at-all", "nowhere/at-all"),
        ("{colours} -o tuned --split tset", "tset"),
        ("nothing.jsonl -o tuned", "nothing.jsonl: there is no such file"),
        ("words.txt -o tuned", "plain text, which has no pairs"),
        ("words.txt {colours} -o tuned --objective contrastive", "not both"),
        ("words.txt -o tuned --objective contrastive --split train", "leave --split out"),
        ("words.txt -o tuned --objective contrastive --form pair", "are for preference data"),
        ("texts words.txt -o tuned --objective contrastive", "read alone"),
        ("texts -o tuned --objective contrastive --split tset", "split of the bundled texts"),
        ("empty.txt -o tuned --objective contrastive", "empty.txt: the file holds no text"),
        ("latin.txt -o tuned --objective contrastive", "latin.txt:2: byte 2"),
        ("absent.txt -o tuned --objective contrastive", "absent.txt: there is no such file"),
        ("-o tuned", "a bundled data set (domains)"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(
    cli, base: str, colours: str, words: str, options: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Path("empty.txt").write_text("\n \n")
    Path("latin.txt").write_bytes(b"fine\ns\xfc\xdf\n")
    before = sorted(Path().rglob("*"))
    given = "" if "--base" in options else f"--base {base}"
    outcome = cli(f"tune {options.format(colours=colours)} {given}")
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert outcome.err.splitlines()[-1].startswith("error: ")
    assert said in outcome.err.splitlines()[-1]
    assert sorted(Path().rglob("*")) == before


def test_a_loss_that_is_not_finite_says_what_to_do(cli, base: str, colours: str) -> None:
    outcome = cli(f"tune {colours} --base {base} -o tuned {fast(learning_rate=1e30)} --method full")
    assert outcome.code == 2, outcome.err
    assert "is not finite at step" in outcome.err.splitlines()[-1]
    assert "--no-resume" in outcome.err.splitlines()[-1]
    assert not Path("tuned").exists()
