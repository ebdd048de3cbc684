"""Fisher informations of encoders, and merging weighted by them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tuning_base import TEXTS, make_base

from embedrm import PreferenceDataset, TunedEncoder
from embedrm.encoders.merged import MergedEncoder
from embedrm.errors import InvalidInputError, ModelError
from embedrm.merging.encoder_fisher import write_encoder_moments
from embedrm.merging.encoders import merge_encoders

TABLE = "embeddings.word_embeddings.weight"
QUERY = "encoder.layer.1.attention.self.query.weight"


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def changed(folder: Path, to: Path, name: str, entry: tuple[int, ...], by: float) -> Path:
    """Copy a tuned folder with one weight moved."""
    shutil.copytree(folder, to)
    arrays = weights_of(to)
    arrays[name][entry] += np.float32(by)
    save_file(arrays, to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.fixture(scope="module")
def tuned(base_folder: Path, preferences: PreferenceDataset, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A general model with a reward head and a domain model without one."""
    place = tmp_path_factory.mktemp("fisher")
    common = {
        "base": str(base_folder),
        "method": "full",
        "epochs": 1,
        "batch_tokens": 400,
        "max_length": 32,
        "threads": 1,
    }
    TunedEncoder(**common, learning_rate=3e-3).fit(preferences, place / "general")
    TunedEncoder(**common, objective="masked-token").fit(TEXTS * 4, place / "domain")
    return [place / "general", place / "domain"]


@pytest.fixture(scope="module")
def moments(tuned: list[Path], preferences: PreferenceDataset) -> list[Path]:
    """Of both, with the general model's head."""
    files = [folder.with_name(f"{folder.name}.safetensors") for folder in tuned]
    write_encoder_moments(tuned[0], preferences, files[0])
    write_encoder_moments(tuned[1], preferences, files[1], head=tuned[0])
    return files


@pytest.mark.parametrize(("name", "entry"), [(TABLE, (14, 3)), (QUERY, (2, 7)), ("embeddings.LayerNorm.bias", (5,))])
def test_moments_are_those_of_differences(tuned, moments, preferences, tmp_path, name, entry) -> None:
    step = 0.02
    margins = [
        TunedEncoder.load(changed(tuned[0], tmp_path / str(by), name, entry, by)).margins(preferences)
        for by in (-step, 0.0, step)
    ]
    slope = (margins[2] - margins[0]) / (2 * step)
    weight = preferences.pairs["weight"].to_numpy(float)
    chance = 1 / (1 + np.exp(-margins[1]))
    expected = weight / weight.sum() @ (chance * (1 - chance) * slope**2)
    assert expected > 0
    np.testing.assert_allclose(load_file(moments[0])[name][entry], expected, rtol=0.02)


def test_weights_of_pairs_count_and_labels_do_not(tuned, preferences, tmp_path) -> None:
    first, all_pairs = preferences.pairs.copy(), preferences.pairs.copy()
    first["weight"] = np.where(np.arange(len(first)) < 6, 2.0, 0.0)
    all_pairs[["chosen", "rejected"]] = all_pairs[["rejected", "chosen"]].to_numpy()
    some = PreferenceDataset(preferences.prompts, preferences.responses, first)
    turned = PreferenceDataset(preferences.prompts, preferences.responses, all_pairs)
    only = PreferenceDataset(preferences.prompts, preferences.responses, preferences.pairs.iloc[:6])
    found = {}
    for name, data in {"some": some, "only": only, "turned": turned, "all": preferences}.items():
        facts = write_encoder_moments(tuned[0], data, tmp_path / name)
        assert facts["pairs"] == (6 if name in ("some", "only") else len(first))
        found[name] = load_file(tmp_path / name)
    for name in found["all"]:
        np.testing.assert_allclose(found["some"][name], found["only"][name], rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(found["turned"][name], found["all"][name], rtol=1e-5, atol=1e-12)
    assert not np.allclose(found["only"][QUERY], found["all"][QUERY], rtol=0.01)


def test_a_draw_of_pairs_is_the_seeds(tuned, preferences, tmp_path) -> None:
    drawn = [
        write_encoder_moments(tuned[0], preferences, tmp_path / str(i), n_pairs=5, random_state=seed)
        for i, seed in enumerate([0, 0, 1])
    ]
    assert [facts["pairs"] for facts in drawn] == [5, 5, 5]
    one, same, other = (load_file(tmp_path / str(i)) for i in range(3))
    np.testing.assert_array_equal(one[QUERY], same[QUERY])
    assert not np.array_equal(one[QUERY], other[QUERY])
    total = sum(array.sum(dtype=float) for array in one.values())
    np.testing.assert_allclose(drawn[0]["mean"], total / sum(array.size for array in one.values()), rtol=1e-9)


def test_every_weight_of_the_file_has_moments_and_unread_ones_none(tuned, moments) -> None:
    found, weights = load_file(moments[0]), weights_of(tuned[0])
    assert {n: a.shape for n, a in found.items()} == {n: a.shape for n, a in weights.items() if a.dtype.kind == "f"}
    assert not found["pooler.dense.weight"].any()
    assert all(array.any() for name, array in found.items() if not name.startswith("pooler."))
    # words of no pair
    assert not found[TABLE][-1].any() or not found[TABLE].any(axis=1).all()
    with safe_open(moments[0], "np") as file:
        assert file.metadata()["pairs"] == "80"


def test_the_merge_by_hand(tuned, moments, tmp_path) -> None:
    record = merge_encoders(tuned, tmp_path / "m", [0.6, 0.4], "fisher", moments=moments, floor=0.01)
    assert record["options"] == {"floor": 0.01}
    assert [m["file"] for m in record["moments"]] == ["general.safetensors", "domain.safetensors"]
    theta, f = [weights_of(folder) for folder in tuned], [load_file(path) for path in moments]
    merged = weights_of(tmp_path / "m")
    floor = 0.01 * np.concatenate([a.ravel() for g in f for a in g.values()]).mean(dtype=float)
    for name, array in merged.items():
        share = [w * np.maximum(g[name].astype(float), floor) for w, g in zip((0.6, 0.4), f)]
        expected = sum(s * t[name].astype(float) for s, t in zip(share, theta)) / sum(share)
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-7)
    linear = merge_encoders(tuned, tmp_path / "linear", [0.6, 0.4])
    assert linear["moments"] is None
    assert not np.allclose(weights_of(tmp_path / "linear")[QUERY], merged[QUERY], atol=1e-5)
    np.testing.assert_allclose(
        weights_of(tmp_path / "linear")["pooler.dense.weight"], merged["pooler.dense.weight"], atol=1e-7
    )


def test_copies_and_ends_to_the_bit(tuned, moments, tmp_path) -> None:
    merge_encoders([tuned[0]] * 3, tmp_path / "copies", [0.2, 0.3, 0.5], "fisher", moments=[moments[0]] * 3)
    merge_encoders(tuned, tmp_path / "zero", [1, 0], "fisher", moments=moments)
    for name, array in weights_of(tuned[0]).items():
        np.testing.assert_array_equal(weights_of(tmp_path / "copies")[name], array)
        np.testing.assert_array_equal(weights_of(tmp_path / "zero")[name], array)


def test_rows_of_tokens_keep_their_moments(tuned, moments, tmp_path) -> None:
    # the same model with its tokens in another order
    arrays = weights_of(tuned[1])
    turned = tmp_path / "turned"
    shutil.copytree(tuned[1], turned)
    text = json.loads((turned / "tokenizer.json").read_text())
    words = text["model"]["vocab"]
    a, b = words["kind"], words["rude"]
    words["kind"], words["rude"] = b, a
    (turned / "tokenizer.json").write_text(json.dumps(text))
    arrays[TABLE][[a, b]] = arrays[TABLE][[b, a]]
    save_file(arrays, turned / "model.safetensors", metadata={"format": "pt"})
    found = load_file(moments[1])
    found[TABLE][[a, b]] = found[TABLE][[b, a]]
    save_file(found, tmp_path / "turned.safetensors")
    merge_encoders(
        [tuned[0], turned], tmp_path / "m", method="fisher", moments=[moments[0], tmp_path / "turned.safetensors"]
    )
    merge_encoders(tuned, tmp_path / "n", method="fisher", moments=moments)
    np.testing.assert_array_equal(weights_of(tmp_path / "m")[TABLE], weights_of(tmp_path / "n")[TABLE])


def test_a_merged_encoder_with_moments_is_its_folder(tuned, moments, tmp_path) -> None:
    models = [str(folder) for folder in tuned]
    own = MergedEncoder(models, [0.5, 0.5], method="fisher", moments=[str(path) for path in moments])
    merge_encoders(tuned, tmp_path / "m", [0.5, 0.5], "fisher", moments=moments)
    np.testing.assert_array_equal(weights_of(own.materialise())[QUERY], weights_of(tmp_path / "m")[QUERY])
    other = MergedEncoder(models, [0.5, 0.5], method="fisher", moments=[str(moments[0]), str(tmp_path / "other")])
    found = load_file(moments[1])
    save_file({**found, QUERY: found[QUERY] * 2}, tmp_path / "other")
    assert other.fingerprint_digest() != own.fingerprint_digest()
    assert MergedEncoder(**own.get_params()).fingerprint_digest() == own.fingerprint_digest()


def test_refusals(tuned, moments, preferences, tmp_path) -> None:
    found = load_file(moments[1])
    lacking = {name: array for name, array in found.items() if name != QUERY}
    files = {
        "lacking": lacking,
        "narrow": {**lacking, QUERY: found[QUERY][:5]},
        "negative": {**lacking, QUERY: -found[QUERY]},
        "nan": {**lacking, QUERY: found[QUERY] * np.nan},
    }
    for name, arrays in files.items():
        save_file(arrays, tmp_path / name)
    for second, told in {
        moments[0]: "general.safetensors are those of another model than domain",
        tmp_path / "lacking": f"lacking has no moments of '{QUERY}' of domain",
        tmp_path / "narrow": rf"moments of '{QUERY}' in .*narrow have shape \[5, 32\].* domain \[32, 32\]",
        tmp_path / "negative": f"moments of '{QUERY}' of domain are not all finite and at least 0",
        tmp_path / "nan": f"moments of '{QUERY}' of domain are not all finite and at least 0",
    }.items():
        with pytest.raises(InvalidInputError, match=told):
            merge_encoders(tuned, tmp_path / "m", method="fisher", moments=[moments[0], second])
    save_file({name: array * 0 for name, array in found.items()}, tmp_path / "zero")
    with pytest.raises(InvalidInputError, match="are all zero"):
        merge_encoders(tuned, tmp_path / "m", [0, 1], "fisher", moments=[moments[0], tmp_path / "zero"])
    with pytest.raises(ModelError, match="nowhere is no whole safetensors file"):
        merge_encoders(tuned, tmp_path / "m", method="fisher", moments=[moments[0], tmp_path / "nowhere"])
    assert not (tmp_path / "m").exists()
    with pytest.raises(ModelError, match=r"no reward head\. Give head=FOLDER"):
        write_encoder_moments(tuned[1], preferences, tmp_path / "new")
    with pytest.raises(InvalidInputError, match="already there"):
        write_encoder_moments(tuned[0], preferences, moments[0])
    for n_pairs in (0, 2.5, True):
        with pytest.raises(InvalidInputError, match="n_pairs to be a whole number"):
            write_encoder_moments(tuned[0], preferences, tmp_path / "new", n_pairs=n_pairs)
    wide = make_base(tmp_path / "wide")
    shutil.copy(tuned[0] / "tuning.json", wide)
    save_file({"weight": np.ones((1, 16), np.float32)}, wide / "tuning_head.safetensors")
    with pytest.raises(ModelError, match=r"reads 16 columns of layer 2, and .* has 32 of layer 2"):
        write_encoder_moments(wide, preferences, tmp_path / "new")
    assert not (tmp_path / "new").exists()
