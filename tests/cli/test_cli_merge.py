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


def test_what_a_user_got_wrong_is_told_before_models_are_read(cli, encoders, monkeypatch) -> None:
    a, b, _ = encoders
    monkeypatch.setattr("embedrm.merging.encoder_report.compare_encoders", lambda *_, **__: pytest.fail("compared"))
    Path("taken").touch()
    for words in ("-o taken", "-o taken/m", "-o m --weight nan", "-o m --weight 2", "-o m --method soup"):
        outcome = cli(f"merge {a} {b} {words}")
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), words


def test_weights_beyond_the_models_are_given_for_each(cli, encoders) -> None:
    a, b, _ = encoders
    outcome = cli(f"merge {a} {b} --weight -0.5 --weight 1.5 --output m -q")
    assert outcome.code == 0, outcome.err
    np.testing.assert_allclose(table("m"), 1.5 * table(b) - 0.5 * table(a), atol=1e-6)


def test_tenths_may_add_up_to_one(cli, encoders) -> None:
    a, b, base = encoders
    # in floating point these are more than one
    outcome = cli(f"merge {base} {a} {b} --weight 0.7 --weight 0.3000000000000001 --output m -q")
    assert outcome.code == 0, outcome.err
    assert json.loads(Path("m/merge.json").read_text())["weights"][0] == 0.0


def test_one_model_named_twice_is_told(cli, encoders) -> None:
    a, b, _ = encoders
    told = cli(f"merge {a} {b} {a} --dry-run").out
    assert "same      general (1), general (3) are one model" in told
    assert "same" not in cli(f"merge {a} {b} --dry-run").out


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
        ("{a} {b} --method fisher --output m", "needs --moments FILE for each model"),
        ("{a} {b} --moments x --output m", "--moments are for --method fisher"),
        ("{a} {b} --method fisher --moments {a}/model.safetensors --output m", "list of 2 files"),
        ("{a} {b} --method ties --base {base} --set scope=modle --output m", "Did you mean 'model'"),
        ("{a} {b} --method ties --base {base} --set density=20 --output m", "density in (0, 1], got 20"),
        ("{a} {b} --method dare_ties --base {base} --output m", "needs density"),
        ("--output m", "needs the models"),
        ("{a} {b} --config c.yaml --weight 0.3 --output m", "leave models, --weight out"),
        ("--config nowhere.yaml --output m", "cannot be read"),
        ("--config blank.yaml --output m", "a merge is a mapping with 'models:' and 'merge_method:', and nothing came"),
        ("{a} {b} --weight 2 --output m", "--weight 2 leaves the first model -1"),
        ("{a} {b} --weight -0.5 --output m", "to go beyond the models, give --weight 2 times"),
        ("{a} {b} --weight 0 --weight 0 --output m", "a weight that is not zero"),
        ("{a} --weight 0.5 --weight 0.5 --output m", "2 times for one model"),
        ("{a} {b} --weight 0.3 --method warm --output m", "--method warm gives every model the same weight"),
        ("{a} {b} --dry-run --output {b}", "a merged model is never written over"),
        ("{a} {b} --weight nan --output m", "finite weights"),
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
    Path("blank.yaml").touch()
    outcome = cli("merge " + words.format(a=a, b=b, base=base) + " --quiet")
    assert outcome.code == 2
    assert told in outcome.err
    assert outcome.err.count("\n") == 1
    assert not Path("m").exists()


CONFIG = """\
models:
  - model: {base}
    # no parameters for the base
  - model: {a}
    parameters:
      weight: 0.6
      density: 0.5
  - model: {b}
    parameters:
      weight: 0.3
      density: 0.9
merge_method: ties
base_model: {base}
parameters:
  normalize: true
  lambda: 0.8
  int8_mask: true
dtype: float32
"""


def config(encoders, text: str = CONFIG, **changes: str) -> str:
    a, b, base = encoders
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    Path("merge.yaml").write_text(text.format(a=a, b=b, base=base))
    return "merge.yaml"


def test_a_configuration_in_mergekits_words(cli, encoders) -> None:
    from embedrm.merging.encoders import merge_encoders

    a, b, base = encoders
    outcome = cli(f"merge --config {config(encoders)} --output merged")
    assert outcome.code == 0, outcome.err
    assert "has no delta; it is not counted" in outcome.err
    assert "int8_mask saves memory elsewhere" in outcome.err
    merge_encoders([a, b], "again", [0.6, 0.3], "ties", base=base, density=[0.5, 0.9], **{"lambda": 0.8})
    np.testing.assert_array_equal(table("merged"), table("again"))
    # once for all is the same as for each
    Path("all.yaml").write_text(
        f"models: [{{model: {a}}}, {{model: {b}}}]\nmerge_method: dare_linear\nbase_model: {base}\n"
        "parameters: {weight: 1, density: 0.5, random_state: 3}\n"
    )
    assert cli("merge --config all.yaml --output all -q").code == 0
    merge_encoders([a, b], "each", [1, 1], "dare_linear", base=base, density=0.5, random_state=3)
    np.testing.assert_array_equal(table("all"), table("each"))


def test_slerp_stays_at_the_base_model_for_t_zero(cli, encoders) -> None:
    a, b, _ = encoders
    text = f"models: [{{model: {b}}}, {{model: {a}}}]\nmerge_method: slerp\nbase_model: {a}\nparameters: {{t: %s}}\n"
    for t, expected in ((0, a), (1, b)):
        Path("slerp.yaml").write_text(text % t)
        assert cli(f"merge --config slerp.yaml --output m{t} -q").code == 0
        np.testing.assert_array_equal(table(f"m{t}"), table(expected))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"merge_method": "merge_metod"},
            "merge.yaml:12: unknown key of a merge configuration 'merge_metod'. Did you mean 'merge_m",
        ),
        ({"merge_method: ties": ""}, "merge_method is missing"),
        (
            {"merge_method: ties": "merge_method: tise"},
            "merge.yaml:12: unknown merge method 'tise'. Did you mean 'ties'",
        ),
        (
            {"      weight: 0.3": "      wieght: 0.3"},
            "merge.yaml:10: unknown parameter of 'ties' for one model 'wieght'. Did you mean",
        ),
        (
            {"normalize": "normalise"},
            "merge.yaml:15: unknown parameter of 'ties' for all models 'normalise'. Did you mean 'normalize'",
        ),
        ({"weight: 0.3": "weight: [0, 0.5, 1]"}, "weight is a list, which elsewhere is a gradient over layers"),
        ({"weight: 0.3": "weight: heavy"}, "weight must be a number, got 'heavy'"),
        ({"      weight: 0.3\n": ""}, "weight is given for some models and not for {b}"),
        ({"density: 0.9": "density: 90"}, "density in (0, 1], got 90"),
        ({"dtype: float32": "dtype: float23"}, "merge.yaml:18: unknown dtype 'float23'. Did you mean 'float32'"),
        ({"dtype: float32": "dtype: bfloat16"}, "the merged encoder keeps the first model's numbers, float32"),
        ({"dtype: float32": "slices: []"}, "merge.yaml:18: slices is not read here: layers are not taken from several"),
        ({"dtype: float32": "tokenizer_source: base"}, "tokenizer_source: base is not done here"),
        ({"base_model: {base}\n": ""}, "merge_method ties merges deltas; add base_model"),
        ({"  - model: {a}": "  - modle: {a}"}, "merge.yaml:4: each entry of models is '- model: FOLDER'"),
        ({"dtype: float32": "dtype: [unclosed"}, "this is not YAML"),
        (
            {"merge_method: ties": "merge_method: linear"},
            "merge.yaml:16: unknown parameter of 'linear' for all models 'lambda'",
        ),
    ],
)
def test_a_configuration_loses_nothing_in_silence(cli, encoders, changes, told) -> None:
    outcome = cli(f"merge --config {config(encoders, **changes)} --output m -q")
    assert outcome.code == 2
    assert told.replace("{b}", encoders[1]) in outcome.err
    assert outcome.err.count("\n") == 1
    assert not Path("m").exists()


def test_a_base_that_tuned_folders_name_is_named(cli, encoders) -> None:
    a, b, _ = encoders
    for name, folder in (("one", a), ("two", b)):
        shutil.copytree(folder, name)
        facts = {"format": 1, "config": {"base": "some-base"}, "base_digest": "0" * 32}
        (Path(name) / "tuning.json").write_text(json.dumps(facts))
    outcome = cli("merge one two --method ties --output m -q")
    assert "these were tuned from 'some-base'" in outcome.err
    assert "tuned from" not in cli(f"merge one {b} --method ties --output m -q").err
