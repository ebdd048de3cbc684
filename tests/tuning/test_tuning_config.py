"""A configuration is checked before anything is loaded, and goes to JSON and back."""

from __future__ import annotations

import json

import pytest

from embedrm import TunedEncoder, TuningConfig
from embedrm.errors import InvalidInputError


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("base", " ", "base must name"),
        ("method", "adapter", "unknown method of tuning 'adapter'.*full, top, lora"),
        ("objective", "bradley", "Did you mean 'bradley-terry'"),
        ("views", "thirds", "Known: dropout, halves"),
        ("truncation", "error", "Known: head, tail, middle"),
        ("rank", 0, "rank of tuning must be a whole number of at least 1; got 0"),
        ("epochs", True, "epochs of tuning must be a whole number"),
        ("n_layers", 1.5, "n_layers of tuning"),
        ("max_steps", 0, "max_steps"),
        ("random_state", -1, "random_state of tuning must be a whole number of at least 0"),
        ("learning_rate", 0.0, "learning_rate of tuning must be a number above 0"),
        ("learning_rate", float("nan"), "learning_rate"),
        ("clip", float("inf"), "clip"),
        ("validation_fraction", 1.0, "at least 0 and below 1; got 1.0"),
        ("dropout", -0.1, "dropout"),
        ("mask_share", 0, "mask_share of tuning must be a number above 0"),
        ("target_modules", (), "target_modules must be names"),
        ("target_modules", "query", "target_modules must be names"),
    ],
)
def test_a_bad_value_is_one_error_that_names_it(name, value, said):
    with pytest.raises(InvalidInputError, match=said):
        TuningConfig(**{name: value})


def test_it_goes_to_json_and_back():
    config = TuningConfig(method="top", n_layers=3, target_modules=["query", "value"], dropout=0.0)
    assert TuningConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(
        InvalidInputError, match=r"unknown parameter of tuning 'learning_rat'.*Did you mean 'learning_rate'"
    ):
        TuningConfig.from_dict({"learning_rat": 1.0})


def test_the_step_size_follows_the_method_unless_given():
    sizes = [TuningConfig(method=method).step_size for method in ("full", "top", "lora")]
    assert sizes == sorted(sizes)
    assert TuningConfig(method="lora", learning_rate=0.5).step_size == 0.5


def test_changes_are_taken_over_a_configuration():
    config = TuningConfig(epochs=7, rank=2)
    assert TunedEncoder(config, rank=4).config == TuningConfig(epochs=7, rank=4)
    assert "not tuned" in repr(TunedEncoder(config))
