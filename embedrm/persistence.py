"""Save and load fitted models as JSON and safetensors; no pickle is ever written or read.

A model's state is its registered name, its parameters, and its fitted attributes (those ending in an underscore).
Numbers, strings, lists, tuples and mappings go to JSON; numeric arrays to safetensors, to the bit; nested models recurse.
Only classes in the package's registries can be named by a file.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from embedrm import __version__
from embedrm.composites import COMPOSITES
from embedrm.decoding import PREFIX_HEADS
from embedrm.errors import EmbedRMError, InvalidInputError, ModelError
from embedrm.featurizers import FEATURIZERS
from embedrm.heads import HEADS
from embedrm.objectives import OBJECTIVES
from embedrm.registry import Registry
from embedrm.routers import ROUTERS

FORMAT = 1
REGISTRIES: tuple[Registry, ...] = (HEADS, COMPOSITES, ROUTERS, FEATURIZERS, OBJECTIVES, PREFIX_HEADS)
Arrays = dict[str, NDArray[Any]]


def find_class(kind: str, name: str) -> type:
    """Return the class registered as ``name`` among things of ``kind``."""
    for registry in REGISTRIES:
        if registry.kind == kind:
            return registry.get(name)
    raise ModelError(f"unknown kind of model {kind!r}; this file needs a newer embedrm than {__version__}")


def _locate(value: BaseEstimator) -> tuple[str, str] | None:
    for registry in REGISTRIES:
        name = registry.name_of(type(value))
        if name is not None:
            return registry.kind, name
    return None


def _parameters(model: BaseEstimator) -> dict[str, Any]:
    """Return the parameters as they are saved: a class may write one in another form, and read it in from_saved_params."""
    saved = getattr(model, "saved_params", None)
    parameters: dict[str, Any] = model.get_params(deep=False) if saved is None else saved()
    return parameters


def dump(value: Any, path: str, arrays: Arrays) -> Any:
    """Turn a value into JSON, putting arrays into ``arrays`` under names that begin with ``path``."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return number if math.isfinite(number) else {"#float": repr(number)}
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "US":
            return {"#strings": value.astype(str).tolist()}
        if value.dtype.kind not in "biuf":
            raise InvalidInputError(f"cannot save {path}: arrays of {value.dtype} have no safe format")
        # keys with dots can make two paths alike
        name = path if path not in arrays else f"{path}#{len(arrays)}"
        arrays[name] = np.asarray(value, order="C")
        return {"#array": name}
    if isinstance(value, (list, tuple)):
        items = [dump(v, f"{path}.{i}", arrays) for i, v in enumerate(value)]
        return items if isinstance(value, list) else {"#tuple": items}
    if isinstance(value, dict):
        if not all(isinstance(k, str) for k in value):
            raise InvalidInputError(f"cannot save {path}: mappings must have string keys")
        return {"#map": {k: dump(v, f"{path}.{k}", arrays) for k, v in value.items()}}
    if isinstance(value, BaseEstimator):
        located = _locate(value)
        if located is None:
            raise InvalidInputError(
                f"cannot save {path}: {type(value).__name__} is not registered, so a file could not name it safely; "
                "register it as CONTRIBUTING.md shows"
            )
        fitted = {k: v for k, v in vars(value).items() if k.endswith("_") and not k.startswith("_")}
        return {
            "#model": located[0],
            "name": located[1],
            "params": {k: dump(v, f"{path}.{k}", arrays) for k, v in _parameters(value).items()},
            "fitted": {k: dump(v, f"{path}.{k}", arrays) for k, v in fitted.items()},
        }
    raise InvalidInputError(f"cannot save {path}: a {type(value).__name__} has no safe format")


def restore(state: Any, arrays: Arrays) -> Any:
    """Undo :func:`dump`."""
    if isinstance(state, list):
        return [restore(v, arrays) for v in state]
    if not isinstance(state, dict):
        return state
    if "#float" in state:
        return float(state["#float"])
    if "#strings" in state:
        return np.array(state["#strings"], dtype=str)
    if "#array" in state:
        return arrays[state["#array"]]
    if "#tuple" in state:
        return tuple(restore(v, arrays) for v in state["#tuple"])
    if "#map" in state:
        return {k: restore(v, arrays) for k, v in state["#map"].items()}
    cls = find_class(state["#model"], state["name"])
    build = getattr(cls, "from_saved_params", cls)
    model = build(**{k: restore(v, arrays) for k, v in state["params"].items()})
    for name, value in state["fitted"].items():
        if not name.endswith("_") or name.startswith("_"):
            raise ModelError(f"a saved {state['name']} cannot set {name!r}; the file was not written by embedrm")
        setattr(model, name, restore(value, arrays))
    return model


def save_model(
    model: BaseEstimator, folder: str | Path, *, extra: dict[str, Any] | None = None, overwrite: bool = False
) -> Path:
    """Save a model to a folder: ``model.json`` and ``arrays.safetensors``.

    Parameters
    ----------
    model : RewardModel or Router
        Fitted or not.
    folder : path-like
        Made anew: the files are written beside it and the finished folder is renamed into place.
    extra : dict, optional
        JSON facts kept beside the model (a pipeline keeps its encoder here).
    overwrite : bool
        Replace an existing folder, if it is one that this function wrote.

    Returns
    -------
    Path
        The folder.
    """
    from safetensors.numpy import save_file

    folder = Path(folder)
    if folder.exists() and not (overwrite and (folder / "model.json").is_file()):
        raise ModelError(
            f"{folder} exists already; choose another folder"
            + ("" if overwrite else " or ask to overwrite it")
            + ". Nothing was written"
        )
    arrays: Arrays = {}
    state = {"format": FORMAT, "embedrm": __version__, "model": dump(model, "model", arrays), "extra": extra or {}}
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        save_file(arrays, temporary / "arrays.safetensors")
        (temporary / "model.json").write_text(json.dumps(state, indent=1, allow_nan=False), encoding="utf-8")
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def load_model(folder: str | Path) -> tuple[Any, dict[str, Any]]:
    """Load what :func:`save_model` wrote; returns (model, extra).

    Raises
    ------
    ModelError
        If the folder, one of its files, or the format is not what it should be.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(folder)
    path = folder / "model.json"
    for needed in (path, folder / "arrays.safetensors"):
        if not needed.is_file():
            raise ModelError(f"{folder} holds no saved model ({needed.name} is missing)")
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        arrays = load_file(folder / "arrays.safetensors")
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, SafetensorError) as error:
        raise ModelError(f"{folder} holds a damaged model ({error}); save it again") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else None
        raise ModelError(f"{path}: expected format {FORMAT}, got {found!r}; load it with the embedrm that saved it")
    try:
        return restore(state["model"], arrays), dict(state["extra"])
    except EmbedRMError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} does not describe a model this embedrm knows ({error}); save it again") from error
