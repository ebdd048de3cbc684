"""Experiment files: strict, told by the line, and the same whether written as YAML, TOML or Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedrm.errors import DataError, InvalidInputError
from embedrm.experiments.experiment import Experiment, changed, read_settings
from embedrm.experiments.experiment_files import read_value, read_yaml, scalar, to_yaml

YAML = """\
title: A study
data: {files: [a.jsonl, b.csv], domains: tea}
encoder:
  name: hashing
  options: {dim: 64}
  layers: final
training: {size: 100, by: pairs}
featurizer: {terms: "r,p*r", project: {name: pca, n_components: 8}}
head: {name: linear, l2: 1e-2, objective: {name: bt-smoothed, flip_rate: 0.2}}
model: {name: routed, routing: hard}
router: {name: logistic}
evaluation: {splits: [validation, test]}
seeds: [0, 3]
"""
TOML = """\
title = "A study"
seeds = [0, 3]
[data]
files = ["a.jsonl", "b.csv"]
domains = "tea"
[encoder]
name = "hashing"
layers = "final"
options.dim = 64
[training]
size = 100
by = "pairs"
[featurizer]
terms = "r,p*r"
[featurizer.project]
name = "pca"
n_components = 8
[head]
name = "linear"
l2 = 1e-2
objective = {name = "bt-smoothed", flip_rate = 0.2}
[model]
name = "routed"
routing = "hard"
[router]
name = "logistic"
[evaluation]
splits = ["validation", "test"]
"""


def write(tmp_path: Path, text: str, name: str = "study.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_yaml_toml_and_python_are_one_experiment(tmp_path: Path) -> None:
    one = Experiment.from_file(write(tmp_path, YAML))
    other = Experiment.from_file(write(tmp_path, TOML, "study.toml"))
    assert one == other == Experiment(one.to_dict())
    assert one.config.seeds == (0, 3)
    assert one.model.expert.objective.flip_rate == 0.2
    assert one.model.expert.featurizer.project.n_components == 8


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    one = Experiment.from_file(write(tmp_path, YAML))
    assert Experiment.from_file(write(tmp_path, one.to_yaml(), "again.yaml")) == one
    assert Experiment.from_file(write(tmp_path, Experiment().to_yaml(), "empty.yaml")) == Experiment()


def test_only_what_is_not_default_is_written() -> None:
    assert Experiment().to_dict() == {"data": {"files": "domains"}, "encoder": {"name": "all-MiniLM-L6-v2"}}
    written = Experiment({"data": {"files": "domains", "ties": "auto"}, "seeds": 3}).to_dict()
    assert written == {"data": {"files": "domains"}, "encoder": {"name": "all-MiniLM-L6-v2"}, "seeds": 3}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1, max_size=6), PLAIN, min_size=1, max_size=4))
@example({"<<": 1, "a": {"<<": None}})
def test_plain_data_survive_yaml(data: dict) -> None:
    assert read_yaml(to_yaml(data))[0] == data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-4", 1e-4), ("1.", 1.0), (".5", 0.5), ("-3", -3), (".inf", float("inf")), ("true", True), ("null", None)),
        *((text, text) for text in ("007", "no", "on", "1_000", "12:30", "2026-01-02")),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)
    assert read_yaml(f"a: {text}")[0] == {"a": value}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("data: domains\nhaed: linear\n", 2, "Did you mean 'head'"),
        ("head:\n  name: linear\n  l2_gird: [1]\n", 3, "Did you mean 'l2_grid'"),
        ("head: {name: lineer}\n", 1, "Did you mean 'linear'"),
        ("head:\n  name: linear\n  l2: often\n", 3, "needs l2 to be a number"),
        ("data:\n  files: domains\n  tie: keep\n", 3, "Did you mean 'ties'"),
        ("data:\n  files: domains\nencoder:\n  layer: 3\n", 4, "Did you mean 'layers'"),
        ("head:\n  name: linear\n  objective:\n    name: bt-smoothed\n    flip: 0.1\n", 5, "Did you mean 'flip_rate'"),
        ("featurizer:\n  project: {name: pac}\n", 2, "Did you mean 'pca'"),
        ("head: linear\nseeds: 0\n", 2, "'seeds'"),
        ("head: linear\nrouter: logistic\n", 2, "needs a model that routes"),
        ("model: ensemble\n", 1, "write the section 'ensemble'"),
        ("model: mixture\nhead: linear\n", 2, "leave 'head' out"),
        ("head:\n  name: length\nfeaturizer:\n  terms: r\n", 3, "takes no features"),
        ("head:\n  name: linear\n  terms: r\n", 3, "section 'featurizer'"),
        ("head:\n  name: linear\n  featurizer: r\n", 3, "made by the section 'featurizer'"),
        ("training:\n  by: prompt\n", 2, "Did you mean 'prompts'"),
        ("head: linear\nties: keep\n", 2, "It is a key of the section 'data'"),
        ("data: domains\ndata: domains\n", 2, "comes twice"),
        ("data: !!python/name:os.system x\n", 1, "the tag"),
        ("data: {files: [a\n", 2, "not YAML"),
        ("data: &d {files: a}\nencoder: {<<: *d}\n", 2, "merge keys"),
        ("- a\n- b\n", None, "a list came"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, line: int | None, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError) as caught:
        Experiment.from_file(path)
    assert said in str(caught.value)
    assert caught.value.line == line
    assert str(caught.value).startswith(f"{path}:{line}: " if line else f"{path}: ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[head]\nname = 'linear'\nl3 = 1\n", 3),
        ("seeds = 1\nhead.lr = 1\n", 2),
        ("[haed]\nl2 = 1\n", 1),
        ("a = = 1\n", 1),
        ('seeds = 1\n[sweep.grid]\n"head.l2" = [1, 2026-01-01]\n', 3),
        ("title = 'a'\n[encoder.options]\ndim = 12:00:00\n", 3),
    ],
)
def test_lines_of_toml(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(DataError) as caught:
        Experiment.from_file(write(tmp_path, text, "study.toml"))
    assert caught.value.line == line


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ends in"):
        Experiment.from_file(write(tmp_path, "a = 1", "study.ini"))
    with pytest.raises(DataError, match="cannot be read"):
        Experiment.from_file(tmp_path / "absent.yaml")


def test_aliases_cannot_explode(tmp_path: Path) -> None:
    bomb = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)
    )
    with pytest.raises(DataError, match="aliases"):
        read_yaml(bomb)


class TestSettings:
    def test_a_named_part_takes_its_parameters_with_it(self) -> None:
        base = Experiment(
            {"head": {"name": "linear", "l2": 0.5}, "encoder": {"name": "hashing", "options": {"dim": 8}}}
        )
        assert base.with_settings({"head": "mlp"}).to_dict()["head"] == {"name": "mlp"}
        assert base.with_settings({"head.name": "mlp"}).to_dict()["head"] == {"name": "mlp"}
        assert base.with_settings({"head": "linear"}) == base
        assert base.with_settings({"head.l2": 1, "head": "mlp"}).to_dict()["head"] == {"name": "mlp", "l2": 1}
        assert base.with_settings({"encoder": "hashing:16"}).to_dict()["encoder"] == {"name": "hashing:16"}

    def test_other_sections_keep_what_is_not_named(self) -> None:
        base = Experiment({"data": {"files": "domains", "domains": ["code"]}, "featurizer": {"scale": "none"}})
        changed_ = base.with_settings({"featurizer.terms": "r,p*r", "data.ties": "keep"})
        assert changed_.to_dict()["featurizer"] == {"scale": "none", "terms": "r,p*r"}
        assert changed_.to_dict()["data"] == {"files": "domains", "domains": ["code"], "ties": "keep"}
        assert base.to_dict()["featurizer"] == {"scale": "none"}

    def test_parameters_of_a_part_inside(self) -> None:
        base = Experiment({"head": {"name": "linear", "objective": "bt-smoothed"}})
        assert base.with_settings({"head.objective.flip_rate": 0.3}).model.objective.flip_rate == 0.3
        assert base.with_settings({"featurizer": None}) == base
        with pytest.raises(InvalidInputError, match="has no 'x'"):
            base.with_settings({"head.l2": 0.1}).with_settings({"head.l2.x": 1})

    @pytest.mark.parametrize("path", ["haed.l2", "head.objectve", "data.file", "encoder.layer", "seed"])
    def test_a_path_that_is_not_there_is_refused(self, path: str) -> None:
        with pytest.raises(InvalidInputError, match="Did you mean"):
            Experiment().with_settings({path: 1})

    def test_words_are_read_as_in_a_file(self) -> None:
        words = ["head.l2=1e-3", "mlp.hidden=[64, 32]", "a=r,p*r", "b=null", "c={x: 1}", "d='1'"]
        assert read_settings(words) == {
            "head.l2": 1e-3,
            "mlp.hidden": [64, 32],
            "a": "r,p*r",
            "b": None,
            "c": {"x": 1},
            "d": "1",
        }
        for wrong in (["l2"], ["=1"], ["a=1", "a=2"]):
            with pytest.raises(InvalidInputError):
                read_settings(wrong)
        with pytest.raises(InvalidInputError, match="cannot read"):
            read_value("[1, 2")

    def test_nothing_is_changed_in_place(self) -> None:
        data = {"head": {"name": "linear", "objective": {"name": "bt-smoothed"}}}
        changed(data, {"head.objective.flip_rate": 0.1, "head.l2": 1})
        assert data == {"head": {"name": "linear", "objective": {"name": "bt-smoothed"}}}


@pytest.mark.parametrize(
    ("parts", "repr_"),
    [
        ({}, "LinearHead()"),
        ({"model": "routed"}, "RoutedRewardModel()"),
        ({"model": "routed", "featurizer": {"terms": "r,p*r"}}, "RoutedRewardModel(expert=LinearHead("),
        ({"head": "mlp", "ensemble": 3}, "EnsembleRewardModel(member=MLPHead(), n_members=3)"),
        ({"head": "linear", "calibrated": "platt"}, "CalibratedRewardModel(model=LinearHead())"),
        ({"model": "mixture", "featurizer": "r"}, "MixtureRewardModel(featurizer=Featurizer(terms='r'))"),
        ({"model": {"name": "pooled", "strength": 1}}, "PooledRewardModel(strength=1.0)"),
    ],
)
def test_sections_make_the_model(parts: dict, repr_: str) -> None:
    assert " ".join(repr(Experiment(parts).model).split()).startswith(repr_)


def test_a_composite_without_a_head_takes_the_head_that_it_takes_by_itself() -> None:
    model = Experiment({"model": "routed", "featurizer": {"scale": "none"}}).model
    assert model.expert.l2 == "cv"
    assert Experiment({"model": "adapters", "featurizer": {"scale": "none"}}).model.trunk.hidden == [64]


def test_a_model_that_reads_prompts_needs_them_encoded() -> None:
    with pytest.raises(InvalidInputError, match=r"encoder\.sides"):
        Experiment({"model": "routed", "encoder": {"name": "hashing", "sides": ["response"]}})


def test_a_layer_may_be_written_as_a_number() -> None:
    one = Experiment(
        {
            "featurizer": {"response": [3, "6"], "prompt": 6},
            "model": "routed",
            "router": {"name": "logistic", "view": 6},
        }
    )
    assert one.model.expert.featurizer.response == ["3", "6"]
    assert one.model.expert.featurizer.prompt == "6"
    assert one.model.router.view == "6"
