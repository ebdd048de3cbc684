"""The loader of bundled data."""

import shutil

import numpy as np
import pytest

from embedrm.datasets import bundled
from embedrm.datasets.bundled import bundled_names, bundled_paths, load_bundled
from embedrm.datasets.seed import DOMAINS
from embedrm.datasets.seed.generate import rows
from embedrm.datasets.seed.measure import comparisons, texts
from embedrm.errors import DataError, InvalidInputError


def test_the_seed_set_is_read_whole():
    data = load_bundled("seed")
    pairs, kwise = rows()
    prompts, responses = texts([*pairs, *kwise])
    assert data.name == "seed"
    assert set(data.domains) == set(DOMAINS)
    assert set(data.prompts["prompt"]) == set(prompts)
    assert set(data.responses["response"]) == set(responses)
    wanted = {pair[2:] for pair in comparisons([*pairs, *kwise])}
    text = data.responses["response"].to_numpy()
    prompt = data.prompts["prompt"].to_numpy()[data.responses["prompt_of"].to_numpy()]
    chosen, rejected = data.pairs["chosen"].to_numpy(), data.pairs["rejected"].to_numpy()
    assert set(zip(prompt[chosen], text[chosen], text[rejected])) == wanted
    assert set(data.prompts["group"]) == {row["group"] for row in (*pairs, *kwise)}
    assert set(data.prompts["split"]) == {"train", "validation", "test"}
    assert data.info["skipped"]["rows"] == 0


def test_golds_are_those_of_the_kwise_file():
    data = load_bundled("seed")
    kwise = np.isin(data.response_domains(), ["code", "science", "history"])
    gold = data.responses["gold"].to_numpy()
    assert not np.isnan(gold[kwise]).any()
    assert np.isnan(gold[~kwise]).all()


def test_names():
    assert bundled_names() == ["seed"]
    with pytest.raises(InvalidInputError, match="Did you mean 'seed'"):
        load_bundled("sead")


def test_missing_files_name_the_places(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "_PACKAGE", tmp_path / "embedrm")
    with pytest.raises(DataError, match="seed_pairs") as error:
        load_bundled("seed")
    assert str(tmp_path / "embedrm" / "_data") in str(error.value)
    assert str(tmp_path / "data") in str(error.value)
    with pytest.raises(DataError, match="was not found"):
        bundled.data_folder()


def test_the_files_in_the_wheel_come_first_and_only_whole(tmp_path, monkeypatch):
    paths = bundled_paths("seed")
    inside, beside = tmp_path / "embedrm" / "_data", tmp_path / "data"
    for folder in (inside, beside):
        folder.mkdir(parents=True)
        for path in paths:
            shutil.copy(path, folder)
    monkeypatch.setattr(bundled, "_PACKAGE", tmp_path / "embedrm")
    assert {path.parent for path in bundled_paths("seed")} == {inside}
    (inside / paths[0].name).unlink()
    assert {path.parent for path in bundled_paths("seed")} == {beside}


def test_a_damaged_file_is_an_error_with_its_path(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for path in bundled_paths("seed"):
        (tmp_path / "data" / path.name).write_bytes(path.read_bytes()[:500])
    monkeypatch.setattr(bundled, "_PACKAGE", tmp_path / "embedrm")
    with pytest.raises(DataError, match="seed_pairs"):
        load_bundled("seed")
