"""TIES over whole encoders: one threshold for all tensors of a model, the shared rows of its token table among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_merge_encoders import NEW, TABLE, moved, tokens_of, weights_of, with_vocabulary

from embedrm.merging.encoders import merge_encoders

DENSITY = [0.3, 0.5, 0.1]


@pytest.fixture(scope="module")
def three(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Models moved by different lengths; the second and third without a token of the base, the second with new ones."""
    place = tmp_path_factory.mktemp("scope")
    folders = [
        moved(base_folder, place / name, seed, scale)
        for seed, (name, scale) in enumerate({"a": 0.05, "b": 0.1, "c": 0.02}.items())
    ]
    tokens = tokens_of(base_folder)
    with_vocabulary(folders[1], [*tokens[:5], *NEW, *[t for t in tokens[5:] if t != "house"][::-1]], 4)
    with_vocabulary(folders[2], [*tokens[:5], *[t for t in tokens[5:] if t != "shirt"]], 5)
    return folders


def named(folder: Path) -> dict[object, np.ndarray]:
    """Tensors, with the token table as one row for each token."""
    arrays = {k: v.astype(np.float64) for k, v in weights_of(folder).items() if v.dtype.kind == "f"}
    table = arrays.pop(TABLE)
    return {**arrays, **{("token", t): table[i] for i, t in enumerate(tokens_of(folder))}}


def expected(folders: list[Path], base: Path, weights: list[float], scope: str) -> dict[object, np.ndarray]:
    used = [i for i, w in enumerate(weights) if w]
    models, start = {i: named(folders[i]) for i in used}, named(base)
    holders = {key: [i for i in used if key in models[i]] for key in {k for m in models.values() for k in m}}
    merged = [key for key, held in holders.items() if len(held) > 1 and key in start]
    kept = {}
    for i in used:
        deltas = {key: models[i][key] - start[key] for key in merged if i in holders[key]}
        if scope == "model":
            parts = [list(deltas)]
        else:
            tokens = {}
            for key in deltas:
                if isinstance(key, tuple):
                    tokens.setdefault(tuple(holders[key]), []).append(key)
            # rows that the same models have are one tensor
            parts = [[key] for key in deltas if not isinstance(key, tuple)] + list(tokens.values())
        for part in parts:
            sizes = np.sort(np.abs(np.concatenate([deltas[key].ravel() for key in part])))
            least = sizes[-max(1, round(DENSITY[i] * len(sizes)))]
            kept |= {(i, key): np.where(np.abs(deltas[key]) >= least, deltas[key], 0) for key in part}
    out = {}
    for key, held in holders.items():
        if key not in merged:
            # held by one, or new to the base: the mean by the weights
            out[key] = sum(weights[i] * models[i][key] for i in held) / sum(weights[i] for i in held)
            continue
        sign = np.sign(sum(weights[i] * kept[i, key] for i in held))
        agree = {i: (np.sign(kept[i, key]) == sign) & (sign != 0) for i in held}
        total = sum(weights[i] * kept[i, key] * agree[i] for i in held)
        share = sum(weights[i] * agree[i] for i in held)
        out[key] = start[key] + np.divide(total, share, out=np.zeros_like(total), where=share > 0)
    return out


@pytest.mark.parametrize("scope", ["model", "tensor"])
@pytest.mark.parametrize("weights", [[0.5, 0.3, 0.2], [0.5, 0.0, 0.2], [0.6, 0.4, 0.0]])
def test_thresholds_are_those_of_the_scope(three, base_folder, tmp_path, scope, weights) -> None:
    merge_encoders(three, tmp_path / "m", weights, "ties", base=base_folder, density=DENSITY, scope=scope)
    found, wanted = named(tmp_path / "m"), expected(three, base_folder, weights, scope)
    assert set(found) == set(wanted)
    for key, array in wanted.items():
        np.testing.assert_allclose(found[key], array, atol=1e-6, err_msg=str(key))
